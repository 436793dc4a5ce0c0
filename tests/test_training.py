"Clipping, accumulation, frozen batch norm, averaged weights and short fits"
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import (
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    TraceCallback,
)
from fastloop.callback.short import ShortEpoch, StopAfterNBatches
from fastloop.callback.training import BnFreeze, GradientAccumulation, GradientClipping
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.optimizer import SGD, OptimWrapper
from fastloop.runner import Runner

golden = Path(__file__).parent/'golden'
problem, two = (json.loads((golden/o).read_text()) for o in ('problem.json', 'fastai2.json'))
momentum = partial(SGD, momentum=.9)


def batches(sizes, seed=0, n_in=4):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, n_in, generator=g), torch.randint(0, 3, (n,), generator=g))
            for n in sizes]


def joined(some): return [tuple(torch.cat(o) for o in zip(*some))]


def network(norm=False):
    torch.manual_seed(1)
    layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.Tanh(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).double()


def learner(train=(8, 8, 8, 3), valid=(5, 2), model=None, opt_func=SGD, loss=F.cross_entropy, **kw):
    train = batches(train) if isinstance(train, tuple) else train
    def double(dl): return [(x.double(), y) for x, y in dl] if isinstance(dl, list) else dl
    data = SimpleNamespace(train_dl=double(train), valid_dl=double(batches(valid, 1)))
    return Learner(data, model or network(), loss, opt_func, wd=0., silent=True, **kw)


def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]


def same(a, b, exact=False):
    a, b = (weights(o) if isinstance(o, Learner) else list(o) for o in (a, b))
    if exact: return all(map(torch.equal, a, b))
    return all(torch.allclose(p, q, rtol=1e-9, atol=1e-11) for p, q in zip(a, b))


class Grads(Callback):
    "Keeps the gradients of the steps that are taken"
    def __init__(self, order=12): self.order, self.seen = order, []
    def begin_step(self): self.seen.append([p.grad.clone() for p in self.learn.model.parameters()])


# ---- clipping ------------------------------------------------------------------------------------
@given(st.floats(1e-3, 10), st.sampled_from([1., 2., math.inf]), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_clipping_by_norm_is_the_formula(clip, norm_type, seed):
    learn, before, after = learner(batches((8,), seed)), Grads(10), Grads(12)
    cb = GradientClipping(clip=clip, norm_type=norm_type)
    learn.fit(1, .1, cbs=[before, cb, after])
    for a, b in zip(before.seen, after.seen):
        flat = torch.cat([o.flatten() for o in a])
        norm = flat.abs().max() if norm_type == math.inf else (flat.abs()**norm_type).sum()**(
            1/norm_type)
        factor = min(1, clip/(norm.item()+1e-6))
        assert all(torch.allclose(p*factor, q) for p, q in zip(a, b))
        assert cb.norm.item() == pytest.approx(norm.item())


def test_clipping_by_value():
    learn, before, after = learner(), Grads(10), Grads(12)
    learn.fit(1, .1, cbs=[before, GradientClipping(clip=.01, by='value'), after])
    pairs = [pair for a, b in zip(before.seen, after.seen) for pair in zip(a, b)]
    assert all(torch.equal(p.clamp(-.01, .01), q) for p, q in pairs)
    assert any(not torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize('kwargs', [dict(by='norm', clip=.2), dict(by='value', clip=.02),
                                    dict(by='norm', clip=.1, norm_type=math.inf)])
def test_sparse_gradients_are_clipped_like_dense_ones(kwargs):
    "Rows that a batch asks for several times included"
    g = torch.Generator().manual_seed(0)
    words, labels = torch.randint(0, 10, (32, 5), generator=g), torch.randint(0, 3, (32,))
    norms, found = [], []
    for sparse in (True, False):
        torch.manual_seed(1)
        layers = nn.Embedding(10, 4, sparse=sparse), nn.Flatten(), nn.Linear(20, 3)
        cb = GradientClipping(**kwargs)
        learn = Learner(DataBunch.from_tensors(words, labels, bs=8, seed=0),
                        nn.Sequential(*layers), opt_func=torch.optim.SGD, wd=0., silent=True)
        learn.fit(2, .5, cbs=cb)
        norms.append(cb.norm)
        found.append(weights(learn))
    for p, q in zip(*found): torch.testing.assert_close(p, q)
    assert norms[0] == norms[1] or torch.allclose(*norms)


@pytest.mark.parametrize('off', [0, None, 0.])
def test_clip_of_nothing_is_off(off):
    plain, learn, cb = learner(), learner(), GradientClipping(clip=off)
    plain.fit(2, 1.)
    learn.fit(2, 1., cbs=cb)
    assert same(plain, learn, exact=True) and cb.norm is None


@pytest.mark.parametrize('kwargs,text', [
    ({'clip': -1}, 'clip=-1'), ({'clip': math.nan}, 'clip=nan'), ({'clip': 'a'}, "clip='a'"),
    ({'clip': True}, 'clip=True'), ({'by': 'nrom'}, "did you mean 'norm'"),
    ({'norm_type': -2}, 'norm_type=-2')])
def test_clipping_refuses(kwargs, text):
    with pytest.raises(ValueError, match=text): GradientClipping(**kwargs)


def test_first_argument_is_the_learner():
    for cls, word in ((GradientClipping, 'clip'), (GradientAccumulation, 'n_acc'),
                      (EMACallback, 'decay'), (ShortEpoch, 'pct'),
                      (StopAfterNBatches, 'n_batches')):
        with pytest.raises(TypeError, match=f'{cls.__name__}\\({word}=3\\)'): cls(3)


def test_clipping_as_a_callback_function():
    learn = learner(callback_fns=[partial(GradientClipping, clip=.01)])
    learn.fit(1, .1)
    assert learn.gradient_clipping.norm > .01


def test_clips_parameters_of_the_optimizer_only():
    "A gradient outside of the optimizer, left by somebody else, does not count for the norm"
    learn, cb = learner((8,)), GradientClipping(clip=1.)
    for p in learn.model[0].parameters(): p.requires_grad_(False)
    learn.model[0].weight.grad = torch.full_like(learn.model[0].weight, 1e6)
    learn.fit(1, .1, cbs=cb)
    assert cb.norm < 10


# ---- accumulation --------------------------------------------------------------------------------
sizes = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def windows(train, n_acc=None, n_batches=None):
    "Which batches share a step, by the rule in words"
    out, now = [], []
    for b in train:
        now.append(b)
        full = sum(len(o[1]) for o in now) >= n_acc if n_acc else len(now) >= n_batches
        if full: out, now = [*out, now], []
    return [*out, now] if now else out


@given(sizes, st.integers(1, 20), st.booleans())
@settings(max_examples=30, deadline=None)
def test_windows_equal_big_batches(sizes, n, samples):
    "Batches of any sizes: the same as one batch for each window, clipped and with momentum"
    train = batches(sizes)
    kwargs = {'n_acc': n} if samples else {'n_batches': n}
    big = [joined(o)[0] for o in windows(train, **kwargs)]
    small, large = learner(train, opt_func=momentum), learner(big, opt_func=momentum)
    small.fit(2, .1, cbs=[GradientAccumulation(**kwargs), GradientClipping(clip=.3)])
    large.fit(2, .1, cbs=GradientClipping(clip=.3))
    assert same(small, large)


@pytest.mark.parametrize('loss', [nn.CrossEntropyLoss(reduction='sum'),
                                  partial(F.cross_entropy, reduction='sum')])
def test_a_sum_is_not_divided(loss):
    train = batches((8, 8, 5, 3))
    small, large = learner(train, loss=loss), learner(joined(train), loss=loss)
    small.fit(1, .01, cbs=GradientAccumulation(n_acc=100))
    large.fit(1, .01)
    assert same(small, large)


def test_reduction_can_be_said():
    def loss(pred, yb): return F.cross_entropy(pred, yb, reduction='sum')
    train = batches((8, 8, 5, 3))
    small, large = learner(train, loss=loss), learner(joined(train), loss=loss)
    small.fit(1, .01, cbs=GradientAccumulation(n_acc=100, reduction='sum'))
    large.fit(1, .01)
    assert same(small, large)


class Endless:
    def __init__(self, some): self.some = [(x.double(), y) for x, y in some]
    def __iter__(self): return iter(self.some)


def test_a_loader_without_length():
    train = batches((4,)*7)
    known, unknown = learner(train, opt_func=momentum), learner(Endless(train), opt_func=momentum)
    logs = Grads(), Grads()
    for learn, log in zip((known, unknown), logs):
        learn.fit(2, .1, cbs=[GradientAccumulation(n_batches=3), GradientClipping(clip=.2), log])
    assert same(known, unknown) and len(logs[0].seen) == len(logs[1].seen) == 6
    assert all(p.grad is None for p in unknown.model.parameters())


def test_the_recorded_loss_is_the_true_one():
    train = batches((8, 8, 3))
    plain, learn = learner(train), learner(train)
    plain.fit(1, 1e-30)
    learn.fit(1, 1e-30, cbs=GradientAccumulation(n_acc=100))
    assert learn.recorder.raw_losses == plain.recorder.raw_losses
    assert learn.loss == plain.loss


def test_a_penalty_added_late_counts_for_each_batch():
    class Penalty(Callback):
        def begin_backward(self):
            self.run.loss = self.loss + sum(p.square().sum() for p in self.model.parameters())
    train = batches((8, 8, 3))
    small, large = learner(train), learner(joined(train))
    small.fit(1, .1, cbs=[Penalty(), GradientAccumulation(n_acc=100)])
    large.fit(1, .1, cbs=Penalty())
    assert same(small, large)


def golden_learner(**kwargs):
    "The problem that real fastai has solved"
    def tensors(which): return (torch.tensor(problem[f'{o}_{which}']) for o in 'xy')
    (x, y), (xv, yv), bs = tensors('train'), tensors('valid'), problem['batch_size']
    train, valid = ([(a[i:i+bs], b[i:i+bs]) for i in range(0, len(b), bs)]
                    for a, b in ((x, y), (xv, yv)))
    learn = learner(**kwargs)
    wanted = {'0.weight': '0.weight', '0.bias': '0.bias', '2.weight': 'last.weight',
              '2.bias': 'last.bias'}
    learn.model = nn.Sequential(*(nn.Linear(*reversed(torch.tensor(problem[k]).shape))
                                  if k else nn.ReLU() for k in ('0.weight', '', 'last.weight')))
    learn.model.load_state_dict({k: torch.tensor(problem[v]) for k, v in wanted.items()})
    learn.split(None)
    learn.data.train_dl, learn.data.valid_dl = train, valid
    return learn


def close(got, wanted): assert got == pytest.approx(wanted, rel=2e-5, abs=1e-6)


def test_golden_clip():
    run = two['runs']['clip']
    learn, fit = golden_learner(opt_func=momentum), run['fits'][0]
    learn.fit(run['calls'][0][1]['n_epoch'], run['calls'][0][1]['lr'],
              cbs=GradientClipping(clip=.1))
    close(learn.recorder.raw_losses, fit['losses'])
    for k, v in fit['weights'].items(): close(learn.model.state_dict()[k].flatten().tolist(),
                                              torch.tensor(v).flatten().tolist())


def test_golden_accumulation():
    """fastai 2 has the same losses as long as windows come out even: two of 16 samples, whose
    steps the losses of the first six batches show; its third window goes over into the next epoch
    """
    run = two['runs']['accumulate_16']
    learn, fit = golden_learner(opt_func=momentum), run['fits'][0]
    assert [len(y) for _, y in learn.data.train_dl] == [8]*5 + [3]
    learn.fit(1, run['calls'][0][1]['lr'], cbs=GradientAccumulation(n_acc=16))
    close(learn.recorder.raw_losses, fit['losses'][:6])


def test_golden_windows_of_fastai2():
    "Where windows come out even, fastai 2 has the same gradients; its last window is too short"
    class Accumulate(Callback):
        "fastai 2's arithmetic"
        count = 0
        def after_loss(self):
            if self.in_train: self.run.loss = self.loss*len(self.yb)/16
        def begin_step(self):
            self.count += len(self.yb)
            if self.count < 16: raise CancelStepException
            self.count = 0
    train = batches((8,)*6)
    ours, theirs = learner(train), learner(train)
    ours.fit(2, .1, cbs=GradientAccumulation(n_acc=16))
    theirs.fit(2, .1, cbs=Accumulate())
    assert same(ours, theirs)


def test_a_cancelled_backward_counts_nothing():
    train = batches((8, 5, 8, 3))
    class Skip(Callback):
        def begin_backward(self):
            if self.iter == 1: raise CancelBackwardException
    small, large = learner(train), learner(joined([train[0], *train[2:]]))
    small.fit(1, .1, cbs=[Skip(), GradientAccumulation(n_acc=100)])
    large.fit(1, .1)
    assert same(small, large)


@pytest.mark.parametrize('event', ['begin_batch', 'after_pred', 'after_loss'])
@pytest.mark.parametrize('which', [1, 3])
def test_a_cancelled_batch_counts_nothing(event, which):
    train = batches((8, 5, 8, 3))
    def skip(self):
        if self.in_train and self.iter == which: raise CancelBatchException
    cb = type('Skip', (Callback,), {event: skip})
    kept = [o for i, o in enumerate(train) if i != which]
    small, large = learner(train), learner(joined(kept))
    small.fit(1, .1, cbs=[cb, GradientAccumulation(n_acc=100)])
    large.fit(1, .1)
    assert same(small, large)  # also if the last batch is cancelled: `after_train` closes


def test_training_broken_off_steps_with_what_is_there():
    train = batches((8, 5, 8, 3))
    class Stop(Callback):
        def after_batch(self): return self.in_train and self.iter == 1
    small, large = learner(train), learner(joined(train[:2]))
    small.fit(2, .1, cbs=[Stop(), GradientAccumulation(n_acc=100)])
    large.fit(2, .1)
    assert same(small, large)


def test_an_epoch_broken_off_drops_its_window():
    train = batches((8, 5, 8, 3))
    class Stop(Callback):
        def after_batch(self):
            if self.in_train and self.epoch == 0 and self.iter == 1: raise CancelEpochException
    small, large = learner(train), learner(joined(train))
    small.fit(2, .1, cbs=[Stop(), GradientAccumulation(n_acc=100)])
    large.fit(1, .1)
    assert same(small, large)


def test_a_fit_broken_off_leaves_nothing_to_the_next():
    train = batches((8, 5, 8, 3))
    class Stop(Callback):
        def after_batch(self):
            if self.iter == 1: raise CancelFitException
    small, large, cb = learner(train), learner(joined(train)), GradientAccumulation(n_acc=100)
    small.fit(1, .1, cbs=[Stop(), cb])
    small.fit(1, .1, cbs=cb)
    large.fit(1, .1)
    assert same(small, large)


@pytest.mark.parametrize('clear', [True, False])
def test_a_step_cancelled_by_somebody_else(clear):
    "Gradients that are kept stay in the window; those that are cleared are forgotten"
    train = batches((4, 4, 6, 2, 3))
    class Refuse(Callback):
        def begin_step(self):
            if self.iter != 1: return
            if clear: self.opt.zero_grad()
            raise CancelStepException
    small = learner(train, opt_func=momentum)
    small.fit(1, .1, cbs=[GradientAccumulation(n_batches=2), Refuse()])
    parts = [train[2:4], train[4:]] if clear else [train[:3], train[3:]]
    large = learner([joined(o)[0] for o in parts], opt_func=momentum)
    large.fit(1, .1)
    assert same(small, large)


def test_validation_never_counts():
    cb, learn = GradientAccumulation(n_acc=1000), learner((8, 8, 8, 3), (9, 9, 9))
    class Look(Callback):
        def after_batch(self): seen.append((self.in_train, cb.samples))
    seen = []
    learn.fit(1, cbs=[cb, Look()])
    assert [n for train, n in seen if not train] == [0, 0, 0]


def test_the_state_of_an_open_window():
    "Stop in the middle of a window, go on with a copy of everything: bit for bit the same"
    train = batches((4, 4, 6, 2, 3))
    whole = learner(train)
    whole.fit(1, .1, cbs=GradientAccumulation(n_batches=3))
    class Keep(Callback):
        order = 99
        def after_batch(self):
            if self.iter == 1 and self.in_train:
                saved.update(cb=cb.state_dict(), model=self.model.state_dict())
                raise CancelFitException
    saved, cb, learn = {}, GradientAccumulation(n_batches=3), learner(train)
    learn.fit(1, .1, cbs=[cb, Keep()])
    again, fresh = learner(train[2:]), GradientAccumulation(n_batches=3)
    again.model.load_state_dict(saved['model'])
    fresh.load_state_dict(saved['cb'])
    again.fit(1, .1, cbs=fresh)
    assert same(whole, again, exact=True)
    assert saved['cb']['samples'] == 8 and cb.samples == 0


def test_state_can_be_loaded_as_data(tmp_path):
    learn, cb = learner(batches((4, 4))), GradientAccumulation(n_acc=100)
    class Keep(Callback):
        def after_backward(self): torch.save(cb.state_dict(), tmp_path/f'{self.iter}.pt')
    learn.fit(1, cbs=[cb, Keep()])
    state = torch.load(tmp_path/'0.pt', weights_only=True)
    assert state['samples'] == 4 and len(state['grads']) == 4


@pytest.mark.parametrize('kwargs', [{'n_acc': 0}, {'n_acc': 2.5}, {'n_batches': 0},
                                    {'n_acc': 64, 'n_batches': 2}, {'n_acc': True},
                                    {'reduction': 'median'}])
def test_accumulation_refuses(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))): GradientAccumulation(**kwargs)


def test_events_of_the_closing_step_follow_the_loop():
    trace, learn = TraceCallback(), learner(Endless(batches((4, 4, 4))))
    learn.fit(1, cbs=[trace, GradientAccumulation(n_acc=100)])
    at = trace.events.index('after_train')
    assert trace.events[at+1:at+3] == ['begin_step', 'after_step']


def test_accumulation_with_the_runner_alone():
    train = [(x.double(), y) for x, y in batches((4, 4, 4))]
    def make(dl):
        model = network()
        return SimpleNamespace(model=model, opt=OptimWrapper.create(SGD, .1, model),
                               loss_func=F.cross_entropy,
                               data=SimpleNamespace(train_dl=dl, valid_dl=None))
    small, large = make(train), make(joined(train))
    Runner(GradientAccumulation(n_acc=12)).fit(2, small)
    Runner().fit(2, large)
    assert same(small.model.parameters(), large.model.parameters())


# ---- frozen batch norm ---------------------------------------------------------------------------
def stats(model): return [b.clone() for b in model.buffers()]


def test_frozen_statistics_stay_and_others_move():
    learn = learner(model=network(norm=True))
    for p in learn.model[1].parameters(): p.requires_grad_(False)
    before = stats(learn.model)
    learn.fit(2, .1, cbs=BnFreeze())
    assert all(map(torch.equal, before, stats(learn.model))) and learn.model[1].training
    learn.fit(1, .1)
    assert not torch.equal(before[0], stats(learn.model)[0])


def test_trained_and_bare_batch_norm_is_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), network(norm=True)).double()
    learn = learner(model=model)
    before = stats(model)
    learn.fit(1, .1, cbs=BnFreeze())
    assert not any(torch.equal(a, b) for a, b in zip(before, stats(model)))


def test_a_model_that_is_nothing_but_batch_norm():
    model = nn.BatchNorm1d(4).double()
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = model, nn.Linear(4, 3).double()
        def forward(self, x): return self.last(self.norm(x))
    model.requires_grad_(False)
    learn = learner(model=Shift())
    learn.fit(1, .1, cbs=BnFreeze())
    assert model.running_mean.eq(0).all()


def test_unfreezing_in_mid_fit_is_seen():
    learn = learner(model=network(norm=True))
    learn.model[1].requires_grad_(False)
    class Thaw(Callback):
        def after_epoch(self): self.model[1].requires_grad_(True)
    learn.fit(2, .1, cbs=[BnFreeze(), Thaw()])
    assert learn.model[1].num_batches_tracked == 4


# ---- averaged weights ----------------------------------------------------------------------------
def ema_by_hand(train, epochs, lr, decay, warmup):
    "The definition, step by step"
    model = network()
    average = [p.detach().clone() for p in model.parameters()]
    t = 0
    for _ in range(epochs):
        for x, y in train:
            F.cross_entropy(model(x.double()), y).backward()
            t += 1
            d = min(decay, (1+t)/(10+t)) if warmup else decay
            with torch.no_grad():
                for p, a in zip(model.parameters(), average):
                    p -= lr*p.grad
                    p.grad = None
                    a.copy_(d*a + (1-d)*p)
    return list(model.parameters()), average


@pytest.mark.parametrize('warmup', [True, False])
@pytest.mark.parametrize('decay', [0., .5, .9, 1.])
def test_the_average_is_the_definition(decay, warmup):
    train = batches((8, 8, 3))
    raw, average = ema_by_hand(train, 3, .1, decay, warmup)
    keep, hide = learner(train), learner(train)
    cb = EMACallback(decay=decay, warmup=warmup)
    keep.fit(3, .1, cbs=cb)
    hide.fit(3, .1, cbs=EMACallback(decay=decay, warmup=warmup, keep_average=False))
    assert same(weights(keep), average) and same(weights(hide), raw) and cb.steps == 9
    assert same(cb.average.values(), average)


class Spectral(nn.Linear):
    "Has complex weights, as a Fourier neural operator has"
    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.filter = nn.Parameter(torch.ones(n_in//2+1, dtype=torch.complex64))
        self.register_buffer('seen', torch.ones(n_in//2+1, dtype=torch.complex64))

    def forward(self, x):
        waves = torch.fft.rfft(x)
        if self.training: self.seen.add_(waves.detach().mean(0))
        return super().forward(torch.fft.irfft(waves*self.filter, x.shape[1]))


@pytest.mark.parametrize('spectral', [False, True])
@pytest.mark.parametrize('buffers', ['copy', 'average'])
def test_against_torch(buffers, spectral):
    "torch's AveragedModel agrees bit for bit, buffers included"
    model = network(norm=True)
    if spectral: model = nn.Sequential(Spectral(4, 4).double(), model)
    learn = learner(model=model, opt_func=momentum)
    theirs = torch.optim.swa_utils.AveragedModel(
        learn.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(.8),
        use_buffers=buffers == 'average')
    theirs.update_parameters(learn.model)
    class Theirs(Callback):
        order = 49
        def after_step(self): theirs.update_parameters(self.learn.model)
    learn.fit(2, .1, cbs=[Theirs(), EMACallback(decay=.8, warmup=False, buffers=buffers)])
    wanted = theirs.module.state_dict()
    for k, v in learn.model.state_dict().items():
        if not k.endswith('num_batches_tracked'): assert torch.equal(v, wanted[k]), k


def test_who_sees_which_weights():
    learn, cb = learner(), EMACallback(decay=.9)
    class Look(Callback):
        order = 60
        def note(self, name): seen.append((name, torch.equal(first.detach(), average()[0])))
        def begin_train(self): self.note('begin_train')
        def after_batch(self): self.note('train' if self.in_train else 'validate')
        def begin_validate(self): self.note('begin_validate')
        def after_epoch(self): self.note('after_epoch')
        def after_fit(self): self.note('after_fit')
    def average(): return list(cb.average.values())
    seen, first = [], learn.model[0].weight
    learn.fit(2, .1, cbs=[cb, Look()])
    assert {name for name, same in seen[1:] if same} == {
        'begin_validate', 'validate', 'after_epoch', 'after_fit'}
    assert {name for name, same in seen[1:] if not same} == {'begin_train', 'train'}


def test_validation_and_saved_files_are_those_of_the_average(tmp_path):
    learn, cb = learner(path=tmp_path), EMACallback(decay=.9)
    class Keep(Callback):
        order = 60
        def after_epoch(self): self.learn.save(f'at{self.epoch}', with_opt=False)
    learn.fit(2, .1, cbs=[cb, Keep()])
    saved = torch.load(tmp_path/'models/at1.pth', weights_only=True)
    assert all(torch.equal(saved[k], v) for k, v in cb.average.items())
    assert learn.validate()[0] == pytest.approx(learn.recorder.values[-1][1])


def test_without_validation():
    learn = learner()
    learn.data.valid_dl = None
    plain = learner()
    plain.data.valid_dl = None
    cb = EMACallback(decay=.9)
    learn.fit(2, .1, cbs=cb)
    plain.fit(2, .1)
    assert learn.recorder.raw_losses == plain.recorder.raw_losses
    assert same(weights(learn), cb.average.values(), exact=True)


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('event', ['after_batch', 'begin_validate', 'after_validate',
                                   'after_epoch', 'begin_epoch'])
def test_interrupted_fits_keep_the_training_weights(error, event):
    def stop(self):
        if self.epoch == 1: raise error('stop')
    learn, plain = learner(), learner()
    cb = type('Stop', (Callback,), {event: stop, 'order': 70})
    for o, more in ((learn, [EMACallback(decay=.9)]), (plain, [])):
        with pytest.raises(error): o.fit(3, .1, cbs=[cb, *more])
    assert same(learn, plain, exact=True)


def test_an_interrupt_in_the_middle_of_the_swap(monkeypatch):
    copy, torn = torch.Tensor.copy_, []
    def torn_copy(live, values):
        torn.append(1)
        if len(torn) == 2: raise KeyboardInterrupt  # the first weights are the average already
        return copy(live, values)
    learn, plain = learner(), learner()
    monkeypatch.setattr(torch.Tensor, 'copy_', torn_copy)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, .1, cbs=EMACallback(decay=.9))
    plain.fit(1, .1)
    assert torn and same(learn, plain, exact=True)


@pytest.mark.parametrize('cancel', [CancelFitException, CancelEpochException,
                                    CancelTrainException])
def test_a_cancelled_fit_ends_with_the_average(cancel):
    class Stop(Callback):
        def after_batch(self):
            if self.in_train and self.iter == 1: raise cancel
    learn, cb = learner(), EMACallback(decay=.9)
    learn.fit(2, .1, cbs=[cb, Stop()])
    assert same(weights(learn), cb.average.values(), exact=True) and cb.raw is None


def test_only_steps_that_are_taken_count():
    learn, cb = learner((4, 4, 4, 4, 4)), EMACallback(decay=.9)
    learn.fit(1, cbs=[cb, GradientAccumulation(n_batches=2)])
    assert cb.steps == 3
    class Refuse(Callback):
        def begin_step(self): return self.iter % 2 == 0
        def after_cancel_step(self): self.opt.zero_grad()
    learn.fit(1, cbs=[cb, Refuse()])
    assert cb.steps == 2


def test_frozen_and_shared_parameters():
    model = network()
    model[0].requires_grad_(False)
    tied = nn.Sequential(model, nn.Linear(3, 3).double())
    tied.append(tied[1])
    learn, cb = learner(model=tied), EMACallback(decay=.9)
    before = weights(learn)[0]
    learn.fit(2, .1, cbs=cb)
    assert torch.equal(before, weights(learn)[0]) and len(cb.average) == 6
    assert tied[1] is tied[2] and learn.model[0][0].weight.requires_grad is False


def test_weights_of_16_bits_are_averaged_in_32():
    learn = learner(model=network().bfloat16())
    learn.data.train_dl = [(x.bfloat16(), y) for x, y in learn.data.train_dl]
    learn.data.valid_dl = None
    cb = EMACallback(decay=.999, warmup=False)
    learn.fit(30, .1, cbs=cb)
    start = network().bfloat16().state_dict()
    assert all(v.dtype == torch.float32 for v in cb.average.values())
    assert not torch.equal(cb.average['0.weight'], start['0.weight'].float())
    assert learn.model[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize('where', ['after_epoch', 'after_batch'])
def test_the_state_goes_on_bit_for_bit(where, tmp_path):
    "Save everything at the end of an epoch, while the average is in the model, or in mid-epoch"
    class Keep(Callback):
        order = 99
        def save(self):
            if self.epoch == 0 and self.in_train == (where == 'after_batch') and not saved:
                torch.save(dict(model=self.model.state_dict(), opt=self.opt.state_dict(),
                                cb=cb.state_dict()), tmp_path/'all.pt')
                saved.append(self.run.iter)
        def after_epoch(self): self.save()
        def after_batch(self):
            if where == 'after_batch' and self.run.iter == 1: self.save()
    saved, cb, whole = [], EMACallback(decay=.9), learner(opt_func=momentum)
    whole.fit(2, .1, cbs=[cb, Keep()])
    state = torch.load(tmp_path/'all.pt', weights_only=True)
    assert (state['cb']['raw'] is None) == (where == 'after_batch')
    class GoOn(Callback):
        order = 99
        def begin_fit(self):
            self.model.load_state_dict(state['model'])
            self.opt.load_state_dict(state['opt'])
            fresh.load_state_dict(state['cb'])
            if where == 'after_epoch': self.run.first_epoch = 1
    fresh, again = EMACallback(decay=.9), learner(opt_func=momentum)
    if where == 'after_batch': again.data.train_dl = First(again.data.train_dl, 2)
    again.fit(2, .1, cbs=[GoOn(), fresh])
    assert same(whole, again, exact=True) and fresh.steps == cb.steps
    again.fit(1, .1, cbs=fresh)
    assert fresh.steps == 4  # a loaded state is taken up once


class First:
    "Leaves out its first batches the first time"
    def __init__(self, some, skip): self.some, self.skip = some, skip
    def __len__(self): return len(self.some)
    def __iter__(self):
        skip, self.skip = self.skip, 0
        return iter(self.some[skip:])


def test_a_state_of_another_model_is_refused():
    cb, learn = EMACallback(decay=.9), learner(model=network(norm=True))
    learner().fit(1, cbs=cb)
    fresh = EMACallback(decay=.9)
    fresh.load_state_dict(cb.state_dict())
    before = weights(learn)
    with pytest.raises(ValueError, match='of another model'): learn.fit(1, cbs=fresh)
    assert same(weights(learn), before, exact=True)


@pytest.mark.parametrize('kwargs', [{'decay': 1.1}, {'decay': -.1}, {'decay': '1'},
                                    {'buffers': 'both'}])
def test_ema_refuses(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))): EMACallback(**kwargs)


# ---- short fits ----------------------------------------------------------------------------------
class Seen(Callback):
    "Writes down for each batch whether it was one of training"
    def __init__(self): self.modes = []
    def after_batch(self): self.modes.append(self.in_train)


@pytest.mark.parametrize('n,pct,wanted', [
    (6, .5, 4), (6, 0, 1), (6, 1, 6), (10, .01, 2), (3, .34, 3)])
def test_short_epoch_counts_as_fastai2(n, pct, wanted):
    learn, seen = learner((4,)*n, (2,)*n), Seen()
    learn.fit(1, cbs=[ShortEpoch(pct=pct), seen])
    assert seen.modes == [True]*wanted + [False]*wanted


def test_golden_short_epoch():
    "fastai runs 4 of 6 batches, too, but its recorder does not hear of the last one"
    run = two['runs']['short_epoch']
    args, fit = run['calls'][0][1], run['fits'][0]
    learn = golden_learner(opt_func=momentum if run['args']['opt'] == 'momentum' else SGD)
    learn.fit(args['n_epoch'], args['lr'], cbs=ShortEpoch(pct=.5))
    assert learn.recorder.nb_batches == [4]*3
    close([o for i, o in enumerate(learn.recorder.raw_losses) if i % 4 != 3], fit['losses'])


def test_short_epoch_can_leave_validation_whole():
    learn = learner((4,)*6, (2,)*6)
    seen = Seen()
    learn.fit(2, cbs=[ShortEpoch(pct=.2, short_valid=False), seen])
    assert seen.modes == ([True]*3 + [False]*6)*2 and len(learn.recorder.values) == 2


def test_short_epoch_needs_lengths():
    learn = learner(Endless(batches((4, 4))))
    before = weights(learn)
    with pytest.raises(ValueError, match='Endless has no length'): learn.fit(1, cbs=ShortEpoch())
    assert same(weights(learn), before, exact=True)
    learn = learner()
    learn.data.valid_dl = Endless(batches((4, 4)))
    with pytest.raises(ValueError, match='no length'): learn.fit(1, cbs=ShortEpoch())
    learn.fit(1, cbs=ShortEpoch(short_valid=False))
    learn.data.valid_dl = None
    learn.fit(1, cbs=ShortEpoch())


@pytest.mark.parametrize('pct', [-.1, 1.1, math.nan, 'all'])
def test_short_epoch_refuses(pct):
    with pytest.raises(ValueError, match='pct='): ShortEpoch(pct=pct)


@pytest.mark.parametrize('n,epochs', [(1, 1), (3, 1), (4, 1), (6, 2), (99, 3)])
def test_stop_after_batches(n, epochs):
    learn, cb = learner(), StopAfterNBatches(n_batches=n)
    for _ in range(2):  # it can be used again
        learn.fit(3, cbs=cb)
        assert learn.n_iter == min(n, 12) and len(learn.recorder.values) == epochs
        if n < 12: assert learn.recorder.values[-1][1] is None


@pytest.mark.parametrize('n', [0, -1, 1.5, None])
def test_stop_refuses(n):
    with pytest.raises(ValueError, match='n_batches='): StopAfterNBatches(n_batches=n)


# ---- faults --------------------------------------------------------------------------------------
def faulty():
    learn = learner((4, 4, 4), (3,), network(norm=True))
    learn.model[1].requires_grad_(False)
    return learn


def float_learner():
    learn = faulty()
    learn.model[1].eval()
    return learn


makers = {
    'clip': lambda learn: GradientClipping(clip=.1), 'freeze': lambda learn: BnFreeze(),
    'accumulate': lambda learn: GradientAccumulation(n_acc=8),
    'short': lambda learn: ShortEpoch(pct=.5), 'stop': lambda learn: StopAfterNBatches(n_batches=4)}


@pytest.mark.parametrize('name', makers)
def test_faults(name): check_faults(float_learner, makers[name], nth=(2,))


def test_faults_of_averaging():
    def check(learn, cb): assert cb.raw is None and not cb.live
    check_faults(faulty, lambda learn: EMACallback(decay=.9), nth=(2,), check=check)
