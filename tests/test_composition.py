"""Accumulation, clipping, averaging, mixup, the one-cycle schedule and mixed precision together

Each combination is compared with a fit in which accumulation is replaced by big batches, the
schedule by the rates that the steps have used, and 16 bits by 64.
"""
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import Callback
from fastloop.callback.experiment import ExperimentCallback
from fastloop.callback.lr_finder import LRFinder
from fastloop.callback.mixup import MixUpCallback
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.callback.stats import AvgStatsCallback
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.learner import Learner
from fastloop.metrics import EpochMetric, accuracy
from fastloop.optimizer import SGD

parts = ('accumulate', 'clip', 'ema', 'mixup', 'one_cycle', 'fp16', 'bf16')
sizes, windows = (8, 8, 8, 4), ((0, 1), (2, 3))  # the second window is short: 12 samples, not 16


def batches(sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g))
            for n in sizes]


def learner(big=False, dtype=torch.float64):
    train = [(x.to(dtype), y) for x, y in batches(sizes)]
    if big: train = [tuple(torch.cat(o) for o in zip(*(train[i] for i in w))) for w in windows]
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    valid = [(x.to(dtype), y) for x, y in batches((6, 3), 1)]
    data = SimpleNamespace(train_dl=train, valid_dl=valid)
    return Learner(data, model, F.cross_entropy, partial(SGD, momentum=.9), metrics=accuracy,
                   wd=0., silent=True)


class Neighbours(MixUpCallback):
    "Mixes each sample with the one beside it, so that it does not matter how batches are cut"
    def draw(self, n, device):
        return torch.linspace(.6, .6, n, device=device), torch.arange(n, device=device) ^ 1


class Steps(Callback):
    "Writes down the rate and the momentum of each step"
    order = 99

    def __init__(self): self.used = []

    def begin_step(self): self.used.append((self.opt.lr, self.opt.mom))


class Replay(Callback):
    "Uses the rates and momenta of another fit"
    order = 99

    def __init__(self, used): self.used, self.at = used, 0

    def begin_step(self):
        self.opt.lr, self.opt.mom = self.used[self.at]
        self.at += 1


def make(names):
    "The callbacks of these names"
    known = dict(accumulate=partial(GradientAccumulation, n_acc=16),
                 clip=partial(GradientClipping, clip=.1), ema=partial(EMACallback, decay=.8),
                 mixup=Neighbours, one_cycle=partial(OneCycleScheduler, lr_max=.3),
                 fp16=partial(MixedPrecision, init_scale=2.**8, growth_interval=3),
                 bf16=partial(MixedPrecision, dtype='bf16'))
    return [known[o]() for o in names]


def weights(learn): return [p.detach().double().clone() for p in learn.model.parameters()]


def distance(a, b): return max((p-q).abs().max().item() for p, q in zip(weights(a), weights(b)))


tolerances = {'fp16': 1e-3, 'bf16': 1e-2}
sets = [o for n in (1, 2, 3) for o in combinations(parts, n)] + [
    tuple(o for o in parts if o != p) for p in ('fp16', 'bf16')]


@pytest.mark.parametrize('names', [o for o in sets if not {'fp16', 'bf16'} <= set(o)],
                         ids='-'.join)
@pytest.mark.parametrize('flip', [False, True])
def test_together(names, flip):
    low = next((o for o in names if o in tolerances), None)
    ours, steps = learner(dtype=torch.float32 if low else torch.float64), Steps()
    ours.fit(3, .3, cbs=[*make(names[::-1] if flip else names), steps])
    reference = learner(big='accumulate' in names)
    plain = [o for o in names if o not in ('accumulate', 'one_cycle', 'fp16', 'bf16')]
    reference.fit(3, .3, cbs=[*make(plain), Replay(steps.used)])
    assert len(steps.used) == 3*(2 if 'accumulate' in names else 4)
    assert distance(ours, reference) < tolerances.get(low, 1e-11)
    assert distance(ours, learner()) > .02  # and something was learned
    row, wanted = ours.recorder.values[-1], reference.recorder.values[-1]
    assert row == pytest.approx(wanted, rel=.02 if low else 1e-6)


def test_every_part_matters():
    "Left out, each changes the result; a part that does nothing would agree with anything"
    names = ('accumulate', 'clip', 'ema', 'mixup', 'one_cycle')
    whole = learner()
    whole.fit(3, .3, cbs=make(names))
    for o in names:
        less = learner()
        less.fit(3, .3, cbs=make([p for p in names if p != o]))
        assert distance(whole, less) > 1e-3, o


def test_schedules_do_not_notice_accumulation():
    plain, ours = learner(), learner()
    plain.fit(3, .3, cbs=make(['one_cycle']))
    ours.fit(3, .3, cbs=make(['one_cycle', 'accumulate', 'clip', 'ema']))
    assert ours.recorder.lrs == plain.recorder.lrs and ours.recorder.moms == plain.recorder.moms


def test_four_batches_of_8_are_one_of_32():
    "The rule in its plainest form, in float32"
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 4, generator=g), torch.randint(0, 3, (128,), generator=g)
    def fit(bs, *cbs):
        learn = learner(dtype=torch.float32)
        learn.data.train_dl = [(x[i:i+bs], y[i:i+bs]) for i in range(0, 128, bs)]
        learn.fit(5, .1, cbs=list(cbs))
        return learn
    big = fit(32)
    assert distance(fit(8, GradientAccumulation(n_batches=4)), big) < 1e-5
    assert distance(fit(8, GradientAccumulation(n_acc=32)), big) < 1e-5
    assert distance(fit(8), big) > .05


def test_an_overflow_in_mid_window_with_everything_on():
    "The window is dropped: no step, no average, a smaller scale; the next one is as usual"
    class Overflow(Callback):
        order = -20
        def after_backward(self):
            if self.run.n_iter == 0: self.model[0].bias.grad.fill_(float('inf'))
    names = ('accumulate', 'clip', 'ema', 'mixup', 'one_cycle', 'fp16')
    ours, steps = learner(dtype=torch.float32), Steps()
    ours.fit(2, .1, cbs=[*make(names), steps, Overflow()])
    assert len(steps.used) == 3 and ours.ema.steps == 3 and ours.mixed_precision.skipped == 1
    assert all(p.isfinite().all() for p in ours.model.parameters())
    assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('event', ['after_backward', 'after_batch', 'begin_validate',
                                   'after_epoch'])
def test_everything_is_put_back(error, event):
    names = ('accumulate', 'clip', 'ema', 'mixup', 'one_cycle', 'fp16')
    def stop(self):
        if self.epoch == 1: raise error('stop')
    learn = learner(dtype=torch.float32)
    cbs = make(names)
    with pytest.raises(error):
        learn.fit(3, .3, cbs=[*cbs, type('Stop', (Callback,), {event: stop})()])
    assert learn.loss_func is F.cross_entropy and not torch.is_autocast_enabled('cpu')
    again = learner(dtype=torch.float32)
    again.model.load_state_dict(learn.model.state_dict())
    for o in (learn, again):
        o.opt = None
        o.fit(1, .1, cbs=cbs if o is learn else make(names))
    assert distance(learn, again) < 2e-3  # as a fresh set does


# ---- who takes part ------------------------------------------------------------------------------
class V1:
    def on_batch_begin(self, **kwargs): pass


class V2(Callback):
    def before_batch(self): pass


class Miniai:
    def after_batch(self, learn): pass


class Keras:
    def set_model(self, model): pass
    def on_epoch_end(self, epoch, logs=None): pass


@pytest.mark.parametrize('make_cb', [
    V1, V2, Miniai, Keras, MixUpCallback, lambda: MixedPrecision(dtype='bf16'),
    lambda: GradientAccumulation(n_acc=16), EMACallback], ids=lambda o: getattr(o, '__name__', ''))
def test_nobody_is_put_among_the_callbacks_of_a_run(make_cb):
    cb, learn = make_cb(), learner(dtype=torch.float32)
    learn.fit(1, cbs=cb)
    assert [o for o in learn.run.cbs if o not in learn.cbs] == [cb]
    assert len(learn.run.cbs) == len(learn.cbs) + 1


# ---- who comes later -----------------------------------------------------------------------------
class Late(Callback):
    "Attaches a callback when an event of the second epoch is announced"
    def __init__(self, late, event):
        self.late = late
        setattr(self, event, self.attach)

    def attach(self):
        if self.epoch == 1 and self.late not in self.run.cbs: self.run.add_cbs(self.late)


moments = ('begin_epoch', 'begin_batch', 'after_pred', 'after_loss', 'after_backward', 'after_step',
           'after_batch', 'after_train', 'begin_validate', 'after_epoch')


@pytest.mark.parametrize('event', moments)
@pytest.mark.parametrize('name', ['clip', 'ema', 'mixup', 'one_cycle', 'fp16', 'bf16'])
def test_a_callback_may_join_in_mid_fit(name, event):
    "It does its work from there on, and leaves nothing behind"
    learn, [late] = learner(dtype=torch.float32), make([name])
    learn.fit(3, .1, cbs=Late(late, event))
    assert len(learn.recorder.values) == 3
    assert all(p.isfinite().all() for p in learn.model.parameters())
    assert learn.loss_func is F.cross_entropy and not torch.is_autocast_enabled('cpu')
    if name == 'ema': assert late.steps >= 2 and late.average.keys() == dict(
        learn.model.named_parameters()).keys()
    if name == 'fp16': assert late.scale > 2.**8  # it has seen more than three steps


@pytest.mark.parametrize('event', moments)
def test_a_search_for_a_rate_cannot_begin_in_mid_fit(event):
    "It could not put back what it has not seen"
    learn, finder = learner(dtype=torch.float32), LRFinder()
    with pytest.raises(RuntimeError, match='LRFinder has to be there when the fit begins'):
        learn.fit(3, .1, cbs=Late(finder, event))
    learn.fit(1, .1)


# ---- who writes to the tensors of the run --------------------------------------------------------
class Divides(Callback):
    "Makes the loss smaller, as who adds up the gradients of four batches does"
    def __init__(self, in_place): self.in_place = in_place

    def after_loss(self):
        if self.in_place: self.run.loss /= 4  # the same tensor, and everybody's who holds it
        else: self.run.loss = self.run.loss/4


class Wipes(Callback):
    "Writes to loss and predictions when nobody needs them any more"
    order = 99

    def after_batch(self):
        with torch.no_grad():
            self.run.loss.zero_()
            self.run.pred.zero_()


class Tells(ExperimentCallback):
    "A tracker that remembers the loss of each batch"
    def __init__(self):
        super().__init__()
        self.losses = []

    def write_rows(self, rows, place):
        self.losses += [o[3]['batch/loss'] for o in rows if o[0] == 'batch']


class KerasLogs:
    "Keeps what Keras' callbacks are told"
    def __init__(self): self.logs = []

    def set_model(self, model): pass
    def on_train_batch_end(self, batch, logs): self.logs.append(dict(logs))
    def on_epoch_end(self, epoch, logs): self.logs.append(dict(logs))


def numbers(cb):
    "Everything that is written down of a fit"
    learn = learner()
    learn.metrics = [accuracy, EpochMetric(F.cross_entropy, 'all')]
    stats, tracker, keras = AvgStatsCallback(accuracy, silent=True), Tells(), KerasLogs()
    learn.fit(2, .1, cbs=[stats, tracker, keras, *([cb] if cb else [])])
    rec = learn.recorder
    return [rec.losses, rec.values, stats.train_stats.avg_stats, stats.valid_stats.avg_stats,
            tracker.losses, *map(list, (o.values() for o in keras.logs))]


@pytest.mark.parametrize('cb, like', [(Divides(True), Divides(False)), (Wipes(), None)])
def test_what_was_written_down_stays_when_somebody_writes_to_the_tensors(cb, like):
    assert numbers(cb) == numbers(like)
