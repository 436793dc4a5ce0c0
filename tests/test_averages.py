"The average of the weights where the model changes, and what no average can be made of"
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm

from fastloop.callback.averages import EMACallback
from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.optimizer import SGD

g = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(8, 4, generator=g).double(), torch.arange(8) % 3) for _ in range(4)]


def net(head=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, head)).double()


def make(model=None, valid=True, **kwargs):
    data = DataBunch(BATCHES, BATCHES[:2] if valid else None)
    return Learner(data, net() if model is None else model, F.cross_entropy, SGD, lr=.1, wd=0.,
                   silent=True, **kwargs)


def head(n=3):
    torch.manual_seed(1)
    return nn.Linear(5, n).double()


class NewHead(Callback):
    "Gives the model another head at an event of the second epoch"
    def __init__(self, event, order=0, make=head, epoch=1):
        self.order, self.make, self.epoch_of = order, make, epoch
        setattr(self, event, self.go)

    def go(self):
        if self.run.epoch == self.epoch_of: self.learn.model[2] = self.make()


class Notes(Callback):
    "Keeps the weights that each validation sees"
    order = 60
    def __init__(self): self.seen = []
    def begin_validate(self): self.seen.append(copy.deepcopy(self.learn.model.state_dict()))


def by_hand(epochs, first, decay, warmup):
    "Steps and averages, with a new head where epoch `first` begins: the averages of each epoch"
    model, opt, averages = net(), None, []
    average, t = {k: p.detach().clone() for k, p in model.named_parameters()}, 0
    for epoch in range(epochs):
        if epoch == first:
            model[2], t = head(), 0
            average |= {f'2.{k}': p.detach().clone() for k, p in model[2].named_parameters()}
        opt = torch.optim.SGD(model.parameters(), lr=.1)
        for x, y in BATCHES:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
            t += 1
            d = min(decay, (1+t)/(10+t)) if warmup else decay
            for k, p in model.named_parameters(): average[k].mul_(d).add_(p.detach(), alpha=1-d)
        averages.append({k: o.clone() for k, o in average.items()})
    return model, averages


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for k, o in wanted.items(): torch.testing.assert_close(found[k], o, msg=lambda m, k=k: k+m)


@pytest.mark.parametrize('event, order, first', [
    ('begin_epoch', 0, 1), ('begin_epoch', 70, 1), ('begin_train', -30, 1),
    ('begin_validate', 0, 2), ('after_epoch', 0, 2), ('after_epoch', 70, 2)])
@pytest.mark.parametrize('keep', [True, False])
@pytest.mark.parametrize('warmup', [True, False])
def test_a_head_that_is_new_in_mid_fit_is_averaged(event, order, first, keep, warmup):
    model, averages = by_hand(4, first, .7, warmup)
    learn, notes = make(), Notes()
    ema = EMACallback(decay=.7, warmup=warmup, keep_average=keep)
    learn.fit(4, cbs=[ema, notes, NewHead(event, order)])
    close(ema.average, averages[-1])
    close(dict(learn.model.named_parameters()),
          averages[-1] if keep else dict(model.named_parameters()))
    names = set(averages[0])
    for epoch in {0, 1, 2, 3} - {first-1}:  # where the head is exchanged, it may be either
        close({k: o for k, o in notes.seen[epoch].items() if k in names}, averages[epoch])


@pytest.mark.parametrize('buffers', ['copy', 'average'])
def test_a_head_of_another_form_and_one_with_other_names(buffers):
    learn, ema = make(), EMACallback(decay=.9, buffers=buffers)
    def other(): return nn.Sequential(head(7), nn.BatchNorm1d(7).double())
    learn.fit(3, cbs=[ema, NewHead('begin_epoch', make=other)])
    names = {k for k, _ in learn.model.named_parameters()}
    if buffers == 'average':
        names |= {k for k, o in learn.model.named_buffers() if o.is_floating_point()}
    assert ema.average.keys() == names and '2.0.weight' in names and '2.weight' not in names
    for k, o in learn.model.state_dict().items():
        if k in names: assert torch.equal(o, ema.average[k])


def test_layers_that_change_their_places_take_their_averages_with_them():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    class Swap(Callback):
        def begin_epoch(self):
            if self.epoch == 1: self.model[0], self.model[1] = self.model[1], self.model[0]
    learn, ema, layers = make(model()), EMACallback(decay=.9, warmup=False), []
    layers += list(learn.model)
    twin = torch.optim.swa_utils.AveragedModel(
        nn.ModuleList(layers), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(.9))
    twin.update_parameters(nn.ModuleList(layers))
    class Theirs(Callback):
        order = 49
        def after_step(self): twin.update_parameters(nn.ModuleList(layers))
    learn.fit(3, cbs=[ema, Swap(), Theirs()])
    assert learn.model[0] is layers[1] and ema.steps == 12
    for p, q in zip(twin.module.parameters(), nn.ModuleList(layers).parameters()):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_a_buffer_that_is_another_object_after_each_batch_does_not_start_the_warm_up_anew():
    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer('last', torch.zeros(4).double())
        def forward(self, x):
            if self.training: self.last = x.detach().mean(0)
            return x
    ema = EMACallback(buffers='average')
    learn = make(nn.Sequential(Moves(), nn.Linear(4, 3).double()))
    learn.fit(3, cbs=ema)
    assert ema.steps == 12


class Stop(Exception): pass


class Ends(Callback):
    "Ends the fit as if somebody had killed it"
    order = 200
    def __init__(self, n): self.n = n
    def after_batch(self):
        if self.run.in_train and self.run.n_iter == self.n: raise Stop


@pytest.mark.parametrize('every', ['epoch', 3])
@pytest.mark.parametrize('stop', [6, 7, 10, 15])
@pytest.mark.parametrize('keep', [True, False])
def test_a_fit_with_a_new_head_goes_on_bit_for_bit(every, stop, keep, tmp_path):
    def learner(name): return make(path=tmp_path/name)
    def cbs(): return [EMACallback(decay=.9, keep_average=keep), NewHead('begin_epoch'),
                       CheckpointCallback(every=every, verbose=False)]
    whole = learner('whole')
    mine = cbs()
    whole.fit(4, cbs=mine)
    with pytest.raises(Stop): learner('part').fit(4, cbs=[*cbs(), Ends(stop)])
    part, again = learner('part'), cbs()
    part.fit(4, cbs=again, resume=True)
    for a, b in ((whole.model.state_dict(), part.model.state_dict()),
                 (mine[0].average, again[0].average)):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert whole.recorder.values == part.recorder.values and mine[0].steps == again[0].steps


# ---- spectral norm -------------------------------------------------------------------------------
class Mine(nn.Module):
    "A buffer whose name ends like theirs is averaged"
    def __init__(self):
        super().__init__()
        self.register_buffer('mean_u', torch.zeros(4).double())
    def forward(self, x):
        if self.training: self.mean_u.add_(x.detach().mean(0))
        return x


@pytest.mark.parametrize('norm', [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize('buffers', ['copy', 'average'])
def test_the_directions_of_spectral_norm_are_not_averaged(norm, buffers):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(Mine(), norm(nn.Linear(4, 8).double()), nn.BatchNorm1d(8).double(),
                             nn.ReLU(), norm(nn.Linear(8, 3).double()))
    plain, learn = make(model()), make(model())
    ema = EMACallback(decay=.9, warmup=False, buffers=buffers)
    twin = torch.optim.swa_utils.AveragedModel(
        learn.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(.9), use_buffers=True)
    twin.update_parameters(learn.model)
    class Theirs(Callback):
        order = 49
        def after_step(self): twin.update_parameters(self.learn.model)
    plain.fit(3)
    learn.fit(3, cbs=[Theirs(), ema])
    theirs, raw = twin.module.state_dict(), plain.model.state_dict()
    turned = [k for k in raw if k.endswith(('weight_u', 'weight_v', '._u', '._v'))]
    assert len(turned) == 4 and not set(turned) & set(ema.average)
    assert ('0.mean_u' in ema.average) == (buffers == 'average')
    for k, o in learn.model.state_dict().items():
        copied = k in turned or buffers == 'copy' and k in dict(learn.model.named_buffers())
        assert torch.equal(o, raw[k] if copied or 'num_batches' in k else theirs[k]), k
    for k in turned: assert learn.model.state_dict()[k].norm().item() == pytest.approx(1.)
