"What cannot work twice is refused, and what was switched for a fit is switched back."
import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import Callback, CancelFitException
from fastloop.callback.mixup import MixUpCallback, MixUpLoss
from fastloop.callback.precision import MixedPrecision, autocast_state
from fastloop.callback.recorder import Recorder
from fastloop.callback.tracker import TrackerCallback, way_of_name
from fastloop.callback.training import GradientAccumulation
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.mean_loss import LossRule
from fastloop.metrics import AverageMetric


def learner(cbs=None, n=24, bs=8, loss_func=F.cross_entropy, valid=True, **kwargs):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g)
    torch.manual_seed(0)
    data = DataBunch.from_tensors(x, y, *((x, y) if valid else ()), bs=bs, seed=0)
    if not valid: data.valid_dl = None
    return Learner(data, nn.Linear(4, 3), loss_func=loss_func, opt_func=torch.optim.SGD, lr=.1,
                   silent=True, cbs=cbs, **kwargs)


class Narrow(GradientAccumulation):
    "A subclass is one of the kind"


MAKERS = [lambda: MixedPrecision(dtype='bf16'), MixedPrecision, EMACallback, GradientAccumulation]


@pytest.mark.parametrize('make', MAKERS)
def test_a_second_one_is_refused_before_anything_happens(make):
    learn = learner(make())
    before = copy.deepcopy(learn.model.state_dict()), autocast_state('cpu'), learn.model.training
    with pytest.raises(ValueError, match='attached twice'): learn.fit(1, cbs=make())
    assert all(torch.equal(v, before[0][k]) for k, v in learn.model.state_dict().items())
    assert (autocast_state('cpu'), learn.model.training) == before[1:]
    learn.fit(1)  # alone it works, and goes on working
    assert len(learn.recorder.values) == 1


def test_subclasses_and_others():
    with pytest.raises(ValueError, match='GradientAccumulation is attached twice'):
        learner(Narrow()).fit(1, cbs=GradientAccumulation())
    learner([MixedPrecision(dtype='bf16'), EMACallback(), GradientAccumulation(n_acc=16)]).fit(1)


class Fails(Callback):
    "Raises at an event"
    def __init__(self, event, error):
        super().__init__()
        setattr(self, event, self.fail)
        self.error = error

    def fail(self): raise self.error


@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
@pytest.mark.parametrize('order', [-99, 99])
@pytest.mark.parametrize('event', ['begin_fit', 'begin_batch', 'after_pred', 'after_loss',
                                   'after_backward', 'begin_step', 'after_fit'])
@pytest.mark.parametrize('error', [KeyError, KeyboardInterrupt, CancelFitException])
def test_autocast_is_left_as_it_was_found(dtype, order, event, error):
    fails, before = Fails(event, error), autocast_state('cpu')
    fails.order = order
    learn = learner(MixedPrecision(dtype=dtype))
    try: learn.fit(1, cbs=fails)
    except (KeyError, KeyboardInterrupt, RuntimeError): pass
    assert autocast_state('cpu') == before
    other = learner(n=64)
    other.fit(4)
    first, *_, last = [o[0] for o in other.recorder.values]
    assert last < first
    learn.fit(1)
    assert autocast_state('cpu') == before


def test_a_fit_inside_autocast_stays_inside():
    with torch.autocast('cpu', torch.bfloat16):
        inside = autocast_state('cpu')
        learner(MixedPrecision(dtype='bf16')).fit(1)
        assert autocast_state('cpu') == inside
    assert not torch.is_autocast_enabled('cpu')


def test_the_scaler_of_a_fit_that_broke_is_not_asked_again():
    learn, cb = learner(), MixedPrecision(init_scale=8.)
    for event in ('begin_step', 'after_backward', 'after_step'):
        with pytest.raises(KeyError): learn.fit(1, cbs=[cb, Fails(event, KeyError)])
        old = cb.scaler
        learn.fit(1, cbs=cb)
        assert cb.scaler is not old and cb.scale == 8. and not cb.shown


# ---- copies after a fit that was broken off ------------------------------------------------------
@pytest.mark.parametrize('valid', [True, False])
@pytest.mark.parametrize('event', ['after_loss', 'after_backward', 'after_batch'])
@pytest.mark.parametrize('error', [CancelFitException, KeyboardInterrupt])
def test_copies_after_a_fit_that_was_broken_off(valid, event, error):
    cbs = [EMACallback(), MixUpCallback(), MixedPrecision(dtype='bf16'), GradientAccumulation()]
    learn = learner(cbs, valid=valid)
    try: learn.fit(1, cbs=Fails(event, error))
    except KeyboardInterrupt: pass
    for twin in (copy.deepcopy(learn), pickle.loads(pickle.dumps(learn.recorder.state_dict()))):
        if isinstance(twin, Learner): twin.fit(1)
    kept = [*learn.recorder.history.waiting, *learn.recorder.valid.mean.values]
    assert not any(o.requires_grad for o in kept)


# ---- accumulation by what counts -----------------------------------------------------------------
@pytest.mark.parametrize('loss_func', [
    nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.tensor([1., 2., 5.])), F.cross_entropy,
    nn.CrossEntropyLoss(torch.tensor([1., 2., 5.]), ignore_index=1)])
@pytest.mark.parametrize('mixed', [False, True])
def test_a_window_steps_like_one_batch(loss_func, mixed):
    x, y = torch.randn(12, 4), torch.randint(3, (12,))
    if isinstance(loss_func, nn.Module): y[[1, 2, 3, 4, 5]] = loss_func.ignore_index
    found = []
    for bs in (3, 12):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        batches = list(zip(x.split(bs), y.split(bs)))
        if mixed:
            lam = torch.linspace(.5, 1, 12)
            stacked = torch.stack([y.float(), y.roll(1).float(), lam], 1)
            batches = list(zip(x.split(bs), stacked.split(bs)))
        func = MixUpLoss(loss_func) if mixed else loss_func
        Learner(DataBunch(batches, None), model, loss_func=func, opt_func=torch.optim.SGD, wd=0.,
                lr=.1, silent=True, cbs=GradientAccumulation(n_batches=4)).fit(1)
        found.append(model.weight.detach())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


def test_windows_of_boxes_are_counted_in_pictures():
    def targets(n, level): return [torch.full((n,), float(level)) for _ in range(4)]
    def loss(pred, ts): return ((pred[:, 0]-torch.stack([t.mean() for t in ts]))**2).mean()
    x, one, two, found = torch.randn(8, 4), targets(2, 1), targets(11, 3), []
    for batches in ([(x, one+two)], [(x[:4], one), (x[4:], two)]):
        model = nn.Linear(4, 1)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        Learner(DataBunch(batches, None), model, loss_func=loss, opt_func=torch.optim.SGD, wd=0.,
                lr=.1, silent=True, cbs=GradientAccumulation(n_batches=2)).fit(1)
        found.append(model.weight.detach())
    torch.testing.assert_close(*found)


# ---- soft labels of three classes ----------------------------------------------------------------
def test_soft_labels_of_three_classes_are_not_mixed_ones():
    pred, crit = torch.randn(6, 3), nn.CrossEntropyLoss()
    for soft in (torch.softmax(torch.randn(6, 3), 1), F.one_hot(torch.arange(6) % 3).float()):
        torch.testing.assert_close(MixUpLoss(crit)(pred, soft), crit(pred, soft))
    mixed = torch.tensor([[0., 2., .7], [1., 1., .6]])
    by_hand = (.7*crit(pred[:1], torch.tensor([0])) + .3*crit(pred[:1], torch.tensor([2]))
               + crit(pred[1:2], torch.tensor([1])))/2
    torch.testing.assert_close(MixUpLoss(crit)(pred[:2], mixed), by_hand)


def test_validation_by_soft_labels_in_the_middle_of_mixed_training():
    learn = learner(MixUpCallback(alpha=.4))
    x, soft = torch.randn(6, 4), torch.softmax(torch.randn(6, 3), 1)
    seen = []

    class Look(Callback):
        def after_batch(self):
            if self.in_train: seen.append(self.learn.loss_func(learn.model(x), soft).item()
                                          - F.cross_entropy(learn.model(x), soft).item())
    learn.fit(1, cbs=Look())
    assert seen == pytest.approx([0.]*3, abs=1e-6)


def test_mixed_batches_weigh_what_their_labels_count():
    crit = nn.CrossEntropyLoss(torch.tensor([1., 2., 5.]), ignore_index=2)
    mixed_loss, pred = MixUpLoss(crit), torch.randn(2, 3)
    mixed_loss(pred, torch.tensor([[0., 2., .75], [1., 0., .5]]))
    assert LossRule(mixed_loss).weight(pred, pred) == pytest.approx(.75 + .5*2 + .5)
    mixed_loss(pred, torch.tensor([2, 1]))
    assert LossRule(mixed_loss).weight(pred, pred) == 2

    class Odd(MixUpLoss):
        @property
        def strange(self): return self.crit.not_there
    with pytest.raises(AttributeError, match='not_there'): str(Odd(crit).strange)


# ---- which way is better -------------------------------------------------------------------------
def cost(pred, yb): return pred.square().mean()
def growing(pred, yb): return pred.square().mean()


growing.higher_is_better = False


class Keras:
    "Says its direction as Keras does"
    _direction, name = 'down', 'quality'
    def reset(self): self.n = 0
    def update(self, pred, yb): self.n += len(yb)
    def compute(self): return float(self.n)


@pytest.mark.parametrize('metric, name, way', [
    (growing, 'growing', 'min'), (Keras, 'quality', 'min'), (cost, 'cost', 'max'),
    (AverageMetric(growing, 'acc'), 'acc', 'min')])
def test_the_metric_is_asked_which_way_is_better(metric, name, way, capsys):
    tracker = TrackerCallback(monitor=name)
    learn = learner(tracker, metrics=[metric])
    for _ in range(2): learn.fit(1)
    assert tracker.mode == way
    said = [o for o in capsys.readouterr().out.splitlines() if 'larger values' in o]
    assert len(said) == (metric is cost)
    told = TrackerCallback(monitor=name, mode='max', verbose=False)
    learn.fit(1, cbs=told)
    assert told.mode == 'max'
    assert not capsys.readouterr().out


def test_best_is_the_smallest_where_the_metric_says_so():
    tracker = TrackerCallback(monitor='growing')
    learn = learner(tracker, metrics=[growing])
    learn.fit(4)
    assert tracker.best == min(o[2] for o in learn.recorder.values)
    assert tracker.comp(1, 2) and not tracker.comp(2, 1)
    assert way_of_name('val_rmse') == 'min' and way_of_name('anything') is None


def test_names_of_two_metrics_can_be_watched_apart():
    metrics = [AverageMetric(growing, 'size'), AverageMetric(cost, 'size')]
    tracker = TrackerCallback(monitor='size_1', verbose=False)
    learn = learner([tracker], metrics=metrics)
    learn.fit(2)
    assert tracker.mode == 'max' and tracker.column == 3
    assert isinstance(learn.recorder, Recorder) and learn.recorder.names[2:] == ['size', 'size_1']
