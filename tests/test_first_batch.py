"What is refused in the first batch, and what is only unusual and trains"
import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.first_batch import takes_apart
from fastloop.learner import Learner
from fastloop.metrics import accuracy


def fit(batches, model, loss_func, **kwargs):
    learn = Learner(DataBunch(batches, batches), model, loss_func, silent=True, **kwargs)
    learn.fit(1)
    return learn


# ---- a batch is a pair ---------------------------------------------------------------------------
class Rows(Dataset):
    def __len__(self): return 12
    def __getitem__(self, i): return torch.full((6,), float(i))


@pytest.mark.parametrize('bs', [1, 2, 3])
def test_rows_of_a_tensor_are_no_pair_at_any_batch_size(bs):
    with pytest.raises(ValueError, match='no pair'):
        fit(DataLoader(Rows(), bs), nn.Linear(6, 6), nn.MSELoss())


@pytest.mark.parametrize('batch', [
    {'x': torch.zeros(2, 4), 'y': torch.zeros(2)}, (torch.zeros(2, 4),)*3, [torch.zeros(2, 4)],
    'ab'])
def test_what_is_no_pair_is_refused_before_anything_is_trained(batch):
    model = nn.Linear(4, 1)
    before = model.weight.clone()
    with pytest.raises(ValueError, match=r'no pair \(xb, yb\)'): fit([batch], model, nn.MSELoss())
    assert torch.equal(model.weight, before)


# ---- one target or several -----------------------------------------------------------------------
def two(pred, label, size): return F.cross_entropy(pred, label) + size.mean()
def boxes(pred, targets): return pred.mean()*len(targets)
def any_number(pred, *targets): return pred.mean()*len(targets)


@pytest.mark.parametrize('kind', [tuple, list])
@pytest.mark.parametrize('func, targets, apart', [
    (two, [torch.zeros(4), torch.zeros(4)], True),
    (boxes, [{'boxes': torch.zeros(2, 4)}]*4, False),
    (boxes, [torch.zeros(n) for n in (1, 9)], False),
    (any_number, [torch.zeros(4), torch.zeros(4, 2)], True), (any_number, [{}]*4, False),
    (nn.MSELoss(), [torch.zeros(4, 3)], True), (F.mse_loss, [torch.zeros(4, 3)], True),
    (partial(two, size=torch.zeros(4)), [torch.zeros(4)], True)])
def test_targets_are_handed_over_as_the_function_wants_them(kind, func, targets, apart):
    assert takes_apart(func, torch.zeros(4, 3), kind(targets)) == apart


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([tuple, list]))
def test_what_takes_one_target_is_given_one(rows, n, kind):
    targets = kind(torch.zeros(rows) for _ in range(n))
    assert takes_apart(boxes, torch.zeros(rows, 2), targets) == (n == 1)
    assert takes_apart(two, torch.zeros(rows, 2), targets) or n != 2


# ---- labels --------------------------------------------------------------------------------------
x, y = torch.randn(8, 4), torch.tensor([0, 1, 2, 255, 0, 1, 2, 255])


@pytest.mark.parametrize('loss_func', [
    partial(F.cross_entropy, ignore_index=255), nn.CrossEntropyLoss(ignore_index=255),
    lambda pred, y: F.cross_entropy(pred, y, ignore_index=255),
    partial(partial(F.cross_entropy, ignore_index=255), label_smoothing=.1)])
def test_a_label_to_ignore_trains(loss_func):
    assert fit([(x, y)], nn.Linear(4, 3), loss_func).n_iter == 1


@pytest.mark.parametrize('loss_func', [
    F.cross_entropy, nn.CrossEntropyLoss(), lambda pred, y: F.cross_entropy(pred, y)])
def test_a_label_without_an_output_is_named(loss_func):
    with pytest.raises(ValueError, match='label 255 has no output'):
        fit([(x, y)], nn.Linear(4, 3), loss_func)


def test_a_label_of_a_later_batch_is_named():
    "What has been trained before stays; an IndexError of another kind stays what it is"
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    good = x, torch.zeros(len(x), dtype=torch.long)
    bad = x, torch.full((len(x),), 7)
    with pytest.raises(ValueError, match='label 7 has no output: the model has 3') as e:
        fit([good, good, bad], model, F.cross_entropy)
    assert isinstance(e.value.__cause__, IndexError) and not torch.equal(before, model.weight)

    class Fails(Callback):
        def after_loss(self):
            if self.run.n_iter == 1: raise IndexError('mine')
    learn = Learner(DataBunch([good, good], None), nn.Linear(4, 3), F.cross_entropy, cbs=Fails())
    with pytest.raises(IndexError, match='mine'): learn.fit(1)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('batch, text', [
    ((x, y, y), 'a tuple of 3'), ((x,), 'a tuple of 1'), (dict(x=x, y=y), 'a dict')])
def test_what_is_no_pair_is_named_in_a_later_batch_too(batch, text, training):
    pair = x, y % 3
    data = DataBunch([pair, pair, batch] if training else [pair], None if training else [batch],
                     device='cpu')
    learn = Learner(data, nn.Linear(4, 3), silent=True)
    with pytest.raises(ValueError, match=text+r' that is no pair \(xb, yb\)') as e: learn.fit(1)
    assert e.value.__cause__ is not None and learn.n_iter == (2 if training else 1)


@pytest.mark.parametrize('loss_func', [
    lambda pred, y: F.poisson_nll_loss(pred[:, 0], y.float()),
    lambda pred, y: F.soft_margin_loss(pred[:, 0], y.sign().float()),
    lambda pred, y: (pred.sum(1) - y).abs().mean()])
def test_whole_numbers_that_are_no_classes_train(loss_func):
    assert fit([(x, y-3)], nn.Linear(4, 3), loss_func).n_iter == 1


# ---- columns -------------------------------------------------------------------------------------
line = torch.arange(8.)


@pytest.mark.parametrize('loss_func', [
    lambda p, t: ((p-t)**2).mean(), lambda p, t: (p.sigmoid() - t).abs().mean(),
    lambda p, t: torch.sub(t, p).square().mean(), lambda p, t: (t*2 - p*1).abs().sum(),
    F.mse_loss, nn.L1Loss(), F.smooth_l1_loss])
def test_a_loss_that_stretches_a_column_is_refused_with_the_remedy(loss_func):
    with pytest.raises(ValueError, match=r'\(8, 1\) and \(8,\).*y\[:, None\]'):
        fit([(x, line)], nn.Linear(4, 1), loss_func)


@pytest.mark.parametrize('loss_func', [
    lambda p, t: ((p[:, 0]-t)**2).mean(), lambda p, t: F.mse_loss(p.squeeze(1), t),
    lambda p, t: ((p-t[:, None])**2).mean(), lambda p, t: (p - p.T).abs().mean() + 0*t.sum(),
    lambda p, t: ((p - p.T)*(t[:, None] - t)).mean()])
def test_a_loss_that_takes_care_of_the_shapes_trains(loss_func):
    assert fit([(x, line)], nn.Linear(4, 1), loss_func).n_iter == 1


# ---- targets without fractions -------------------------------------------------------------------
def wrapped(pred, y): return F.binary_cross_entropy_with_logits(pred, y)


@pytest.mark.parametrize('loss_func', [nn.BCEWithLogitsLoss(), wrapped, nn.HuberLoss(),
                                       F.binary_cross_entropy_with_logits])
@pytest.mark.parametrize('form, hint', [
    (lambda y: y, 'y.float()[:, None]'), (lambda y: y[:, None], 'y.float()'),
    (lambda y: y > 0, 'y.float()[:, None]')])
def test_whole_numbers_where_fractions_are_wanted_are_told_the_remedy(loss_func, form, hint):
    y = form(torch.tensor([0, 1]*4))
    model = nn.Linear(4, 1)
    before = model.weight.clone()
    with pytest.raises((ValueError, RuntimeError)) as e: fit([(x, y)], model, loss_func)
    told = ' '.join([str(e.value), *getattr(e.value, '__notes__', [])])
    assert f'(write the targets as {hint})' in told and 'label' not in told
    assert torch.equal(model.weight, before)
    assert fit([(x, eval(hint))], model, loss_func).n_iter == 1  # and it helps


@pytest.mark.parametrize('loss_func', [
    nn.CrossEntropyLoss(torch.ones(3, device='meta')),
    partial(F.cross_entropy, weight=torch.ones(3, device='meta')),
    lambda pred, yb: F.cross_entropy(pred, yb, torch.ones(3, device='meta'))])
def test_a_loss_with_a_tensor_on_another_device_is_told_the_remedy(loss_func):
    with pytest.raises((ValueError, RuntimeError)) as e:
        fit([(x, y % 3)], nn.Linear(4, 3), loss_func)
    told = ' '.join([str(e.value), *getattr(e.value, '__notes__', [])])
    assert "not on cpu, where the outputs are: write .to('cpu')" in told and 'shapes' not in told


def test_targets_for_which_a_loss_has_a_gradient_train():
    assert fit([(x, torch.tensor([[0], [1]]*4))], nn.Linear(4, 1), nn.L1Loss()).n_iter == 1


# ---- nothing to learn from -----------------------------------------------------------------------
class Cut(nn.Module):
    def forward(self, x): return x.detach()


def detached(pred, y): return F.cross_entropy(pred.detach(), y)


def small_net(*last):
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3), *last)


@pytest.mark.parametrize('loss_func, last, text', [
    (accuracy, (), 'loss_func: accuracy gave a loss without a gradient'),
    (detached, (), 'loss_func: detached gave'),
    (F.cross_entropy, (Cut(),), 'model: its output has no gradient')])
def test_a_loss_without_a_gradient_is_refused_and_leaves_no_trace(loss_func, last, text):
    data = DataBunch.from_tensors(x, y % 3, x, y % 3, bs=4)
    learn = Learner(data, small_net(*last), loss_func, silent=True)
    before = copy.deepcopy(learn.model.state_dict())
    rng, place = torch.get_rng_state(), data.train_dl.state_dict()
    with pytest.raises(ValueError, match=text): learn.fit(1)
    for k, o in learn.model.state_dict().items(): assert torch.equal(o, before[k]), k
    assert torch.equal(torch.get_rng_state(), rng) and learn.opt is None
    assert str(data.train_dl.state_dict()) == str(place)
    learn.validate()  # asks for no gradient


def test_a_loss_that_a_callback_exchanges_needs_no_gradient():
    class Exchange(Callback):
        def after_loss(self): self.run.loss = F.cross_entropy(self.run.pred, self.run.yb)
    assert fit([(x, y % 3)], nn.Linear(4, 3), accuracy, cbs=Exchange()).n_iter == 1


@pytest.mark.parametrize('around', [torch.no_grad, torch.inference_mode])
def test_a_fit_has_gradients_wherever_it_is_called(around):
    models, batches = [nn.Linear(4, 3) for _ in range(2)], [(x, y % 3)]
    models[1].load_state_dict(models[0].state_dict())
    fit(batches, models[0], F.cross_entropy)
    with around():
        fit(batches, models[1], F.cross_entropy)
        assert not torch.is_grad_enabled()
    assert torch.equal(models[0].weight, models[1].weight)
    with torch.inference_mode(): unable = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r'model: weight was made inside torch.inference_mode\(\)'):
        fit(batches, unable, F.cross_entropy)
