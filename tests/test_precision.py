"Mixed precision: types, scales, overflows, and what others see of them"
import copy
import gc
import math
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from faults import check_faults
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
    CancelValidateException,
)
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, OptimWrapper

momentum = partial(SGD, momentum=.9)
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')


def batches(sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g))
            for n in sizes]


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def learner(train=(8, 8, 8, 3), valid=(5, 2), model=None, loss=F.cross_entropy, opt_func=SGD, **kw):
    train = batches(train) if isinstance(train, tuple) else train
    data = SimpleNamespace(train_dl=train, valid_dl=batches(valid, 1))
    return Learner(data, model or network(), loss, opt_func, wd=0., silent=True,
                   metrics=accuracy, **kw)


def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]


def same(a, b): return all(map(torch.equal, weights(a), weights(b)))


def near(a, b, tol=2e-3):
    return all((p-q).abs().max() < tol for p, q in zip(weights(a), weights(b)))


def is_on(): return torch.is_autocast_enabled('cpu')


class Each(Callback):
    "Calls a function at each of some events"
    def __init__(self, func, *events, order=0):
        self.order = order
        for event in events: setattr(self, event, partial(func, self))


# ---- autocast ------------------------------------------------------------------------------------
@pytest.mark.parametrize('dtype,wanted', [
    ('fp16', torch.float16), ('float16', torch.float16), (torch.float16, torch.float16),
    ('bf16', torch.bfloat16), ('bfloat16', torch.bfloat16), (torch.bfloat16, torch.bfloat16),
    (SimpleNamespace(value='bf16'), torch.bfloat16)])
def test_names_of_types(dtype, wanted):
    assert MixedPrecision(dtype=dtype).dtype is wanted
    assert MixedPrecision(amp_mode=dtype).dtype is wanted
    assert MixedPrecision().dtype is torch.float16


@pytest.mark.parametrize('dtype', ['fp32', torch.float32, torch.float64, 16, 'bf61', None])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match='dtype='): MixedPrecision(dtype=dtype)


@pytest.mark.parametrize('kwargs', [
    {'init_scale': 0}, {'init_scale': -1}, {'growth_factor': 1}, {'backoff_factor': 1},
    {'backoff_factor': 0}, {'growth_interval': 0}])
def test_bad_options(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))): MixedPrecision(**kwargs)


def test_first_argument_is_the_learner():
    with pytest.raises(TypeError, match=r"MixedPrecision\(dtype='bf16'\)"): MixedPrecision('bf16')
    learn = learner(callback_fns=[partial(MixedPrecision, dtype='bf16')])
    learn.fit(1, .1)
    assert learn.mixed_precision.dtype is torch.bfloat16


@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_where_autocast_is_on(dtype):
    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
        def forward(self, x):
            inside.append(self.inner[0](x).dtype)
            return self.inner(x)
    inside, outside, losses = [], [], []
    def loss(pred, yb):
        losses.append((is_on(), pred.dtype))
        return F.cross_entropy(pred, yb)
    names = ('begin_fit', 'begin_epoch', 'begin_train', 'after_loss', 'begin_backward',
             'after_backward', 'begin_step', 'after_step', 'after_batch', 'after_train',
             'begin_validate', 'after_validate', 'after_epoch', 'after_fit')
    look = Each(lambda self: outside.append(is_on()), *names, order=-14)
    learn = learner(model=Watch(), loss=loss)
    learn.fit(1, .1, cbs=[MixedPrecision(dtype=dtype), look])
    assert set(inside) == {getattr(torch, {'fp16': 'float16', 'bf16': 'bfloat16'}[dtype])}
    assert set(losses) == {(True, torch.float32)} and not any(outside)
    assert learn.loss.dtype == torch.float32 and not is_on()


def test_float64_outputs_and_structures_stay():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
        def forward(self, x): return {'a': self.inner(x), 'b': [x.double(), 3]}
    def loss(pred, yb):
        assert pred['a'].dtype == torch.float32 and pred['b'][0].dtype == torch.float64
        assert pred['b'][1] == 3
        return F.cross_entropy(pred['a'], yb)
    learn = learner(model=Two(), loss=loss)
    learn.metrics = []
    learn.fit(1, .1, cbs=MixedPrecision())


inner = ('begin_batch', 'after_pred', 'after_loss', 'begin_backward', 'after_backward',
         'begin_step', 'after_step', 'after_batch')


@pytest.mark.parametrize('cancel', [
    CancelBatchException, CancelTrainException, CancelEpochException, CancelFitException,
    CancelValidateException])
@pytest.mark.parametrize('order', [-99, 0])
def test_no_cancel_leaves_autocast_on(cancel, order):
    for event in inner:
        valid = cancel is CancelValidateException
        if valid and event in inner[3:7] or event == 'after_batch' and cancel.phase == 'batch':
            continue
        def stop(self, valid=valid):
            if self.in_train != valid and self.iter == 1: raise cancel
        def check(self): assert not is_on()
        seen = Each(check, 'begin_epoch', 'after_train', 'after_epoch', 'after_fit')
        learn = learner()
        learn.fit(2, .1, cbs=[MixedPrecision(), Each(stop, event, order=order), seen])
        assert not is_on(), event
        learn.fit(1, .1)


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('where', ['model', 'loss'])
@pytest.mark.parametrize('train', [True, False])
def test_errors_in_model_and_loss_leave_autocast(error, where, train):
    class Break(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
        def forward(self, x):
            if where == 'model' and self.training == train: raise error('no')
            return self.inner(x)
    def loss(pred, yb):
        if where == 'loss' and learn.model.training == train: raise error('no')
        return F.cross_entropy(pred, yb)
    learn = learner(model=Break(), loss=loss)
    with pytest.raises(error): learn.fit(1, .1, cbs=MixedPrecision())
    assert not is_on()


# ---- the scale -----------------------------------------------------------------------------------
def plain_loop(learn, epochs, lr, dtype, clip=None, every=1, **options):
    "PyTorch's documented loop, with gradient accumulation by means of equal batches"
    opt = OptimWrapper.create(momentum, lr, learn.model)  # the same kernel, so the same rounding
    params = [p for group in opt.param_groups for p in group['params']]
    scaler = torch.amp.GradScaler('cpu', enabled=dtype == torch.float16, **options)
    losses = []
    for _ in range(epochs):
        for i, (xb, yb) in enumerate(learn.data.train_dl):
            with torch.autocast('cpu', dtype):
                loss = F.cross_entropy(learn.model(xb).float(), yb)
            losses.append(loss.item())
            scaler.scale(loss/every).backward()
            if (i+1) % every: continue
            scaler.unscale_(opt)
            if clip: nn.utils.clip_grad_norm_(params, clip)
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
    return losses, scaler


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('clip', [None, .3])
@pytest.mark.parametrize('init_scale', [2.**16, 2.**24])
def test_equals_the_loop_of_the_documentation(dtype, clip, init_scale):
    "Bit for bit, with skipped steps and a growing scale"
    options = {'init_scale': init_scale, 'growth_interval': 3}
    plain, ours = learner(opt_func=momentum), learner(opt_func=momentum)
    losses, scaler = plain_loop(plain, 4, .1, dtype, clip, **options)
    cb = MixedPrecision(dtype=dtype, **options)
    ours.fit(4, .1, cbs=[cb, GradientClipping(clip=clip)])
    assert same(plain, ours) and ours.recorder.raw_losses == losses
    assert cb.scale == scaler.get_scale()
    assert (cb.skipped > 0) == (dtype == torch.float16)


def test_accumulation_equals_the_loop_of_the_documentation():
    train = batches((8,)*6)
    plain, ours = learner(train, opt_func=momentum), learner(train, opt_func=momentum)
    plain_loop(plain, 3, .1, torch.float16, .3, every=2, init_scale=2.**8, growth_interval=2)
    cb = MixedPrecision(init_scale=2.**8, growth_interval=2)
    ours.fit(3, .1, cbs=[GradientAccumulation(n_batches=2), cb, GradientClipping(clip=.3)])
    assert near(plain, ours, 1e-6) and cb.scale == 2.**12  # 9 steps, doubled after each 2


def test_nobody_sees_the_scale():
    "Losses and gradients of the first batch, at all events and orders, against float32"
    def look(scale):
        seen = {}
        def note(self, event):
            if not self.in_train or self.run.iter: return
            grad = self.model[2].weight.grad
            norm = None if grad is None else grad.norm().item()
            seen[event, self.order] = self.loss.item(), norm
        cbs = []
        for order in (-14, 0, 99):
            cb = Callback()
            cb.order = order
            for event in ('after_loss', 'begin_backward', 'after_backward', 'begin_step',
                          'after_step', 'after_batch'):
                setattr(cb, event, partial(note, cb, event))
            cbs.append(cb)
        learner().fit(1, .1, cbs=[*cbs, *([MixedPrecision(init_scale=scale)] if scale else [])])
        return seen
    plain = look(None)
    for scale in (1., 2.**14):
        seen = look(scale)
        assert seen.keys() == plain.keys()
        for k, (loss, norm) in seen.items():
            assert loss == pytest.approx(plain[k][0], rel=2e-3), k
            assert (norm is None) == (plain[k][1] is None), k
            if norm is not None: assert norm == pytest.approx(plain[k][1], rel=5e-3), k


def test_a_clipper_of_fastai_1_clips_true_gradients():
    class ClipV1:
        "In `on_backward_end`, where fastai 1 has it"
        def on_backward_end(self, **kwargs):
            nn.utils.clip_grad_norm_(learn.model.parameters(), .1)
    learn, plain = learner(), learner()
    learn.fit(2, .1, cbs=[ClipV1(), MixedPrecision()])
    plain.fit(2, .1, cbs=GradientClipping(clip=.1))
    assert near(learn, plain, 1e-3)


def test_penalties_added_before_the_backward_pass():
    class V1:
        def on_backward_begin(self, last_loss, **kwargs):
            return {'last_loss': last_loss + .1*learn.model[2].weight.square().sum()}
    class Native(Callback):
        def begin_backward(self):
            self.run.loss = self.loss + .1*self.model[2].weight.square().sum()
    results = []
    for cb in (V1, Native):
        for more in ([], [MixedPrecision()]):
            learn = learner()
            learn.fit(2, .1, cbs=[cb(), *more])
            results.append(learn)
    assert near(results[0], results[1], 1e-3) and near(results[2], results[3], 1e-3)
    assert near(results[0], results[2], 1e-6)


@pytest.mark.parametrize('first', [True, False])
def test_a_second_loss_of_fastai_2(first):
    class Halve(Callback):
        "fastai 2 scales `loss_grad`; the reported loss stays"
        order = 6
        run_valid = False
        def before_backward(self): self.learn.loss_grad *= .5
    plain, learn = learner(), learner()
    plain.fit(2, .1, cbs=Halve())
    cbs = [MixedPrecision(), Halve()]
    learn.fit(2, .1, cbs=cbs if first else cbs[::-1])
    assert near(plain, learn, 1e-3)
    for a, b in zip(plain.recorder.raw_losses, learn.recorder.raw_losses): assert abs(a-b) < 2e-3


# ---- overflow ------------------------------------------------------------------------------------
class Overflow(Callback):
    "Makes the gradients infinite in some training batches, counted over all epochs"
    order = -20
    def __init__(self, *at): self.at = at
    def after_backward(self):
        if self.run.n_iter in self.at: self.model[0].bias.grad.fill_(float('inf'))


@pytest.mark.parametrize('bad', [(0,), (2, 3), (7,)])
def test_an_overflow_skips_the_step_and_nothing_else(bad):
    class Leave(Callback):
        def begin_step(self):
            if self.run.n_iter in bad:
                self.opt.zero_grad()
                raise CancelStepException
    learn, plain = learner(opt_func=momentum), learner(opt_func=momentum)
    cb, other = MixedPrecision(), MixedPrecision()
    learn.fit(2, .1, cbs=[Overflow(*bad), cb])
    plain.fit(2, .1, cbs=[Leave(), other])
    assert same(learn, plain) and cb.skipped == len(bad)
    assert cb.scale == 2.**(16-len(bad)) and other.scale == 2.**16
    assert all(p.grad is None for p in learn.model.parameters())


def test_an_overflow_drops_the_whole_window():
    train = batches((4,)*6)
    learn, plain = learner(train), learner(train[2:])
    cb = MixedPrecision()
    learn.fit(1, .1, cbs=[Overflow(0), cb, GradientAccumulation(n_batches=2)])
    plain.fit(1, .1, cbs=[MixedPrecision(init_scale=2.**15), GradientAccumulation(n_batches=2)])
    assert same(learn, plain) and cb.skipped == 1


def test_others_do_not_hear_of_a_step_that_is_none():
    steps, ema = [], EMACallback(decay=.9)
    note = Each(lambda self: steps.append(self.run.n_iter), 'begin_step')
    learner().fit(1, .1, cbs=[Overflow(1, 2), MixedPrecision(), note, ema])
    assert steps == [0, 3] and ema.steps == 2


def test_a_loss_that_is_always_infinite_is_said_once():
    def loss(pred, yb): return F.cross_entropy(pred, yb)*float('inf')
    learn, cb = learner(loss=loss), MixedPrecision()
    before = weights(learn)
    with pytest.warns(UserWarning, match='25 steps in a row') as caught:
        learn.fit(10, .1, cbs=cb)
    assert len([o for o in caught if 'in a row' in str(o.message)]) == 1
    assert all(map(torch.equal, before, weights(learn))) and cb.skipped == 40


# ---- cancelled phases ----------------------------------------------------------------------------
@pytest.mark.parametrize('raises', [True, False])
def test_an_accumulator_of_somebody_else(raises):
    "One that comes late in the order, when the gradients are unscaled already"
    class Mine(Callback):
        def begin_step(self):
            if self.iter % 3 == 2: return None
            if raises: raise CancelStepException
            return True
    train = batches((6,)*6)
    learn, plain = learner(train), learner(train)
    learn.fit(2, .1, cbs=[Mine(), MixedPrecision(init_scale=2.**8, growth_interval=2)])
    plain.fit(2, .1, cbs=Mine())
    assert near(learn, plain, 2e-3) and not near(learn, learner(train), 1e-2)


def test_an_accumulator_of_fastai_2():
    class Theirs(Callback):
        order, run_valid = 6, False
        def before_fit(self): self.count = 0
        def after_loss(self): self.learn.loss_grad /= 16/len(self.y)
        def before_step(self):
            self.learn.loss_grad *= 16/len(self.y)
            self.count += len(self.y)
            if self.count < 16: raise CancelBatchException
            self.count = 0
    train = batches((8,)*6)
    learn, plain = learner(train), learner(train)
    learn.fit(2, .1, cbs=[Theirs(), MixedPrecision()])
    plain.fit(2, .1, cbs=Theirs())
    assert near(learn, plain, 2e-3)


@pytest.mark.parametrize('event,cancel', [
    ('begin_backward', CancelBackwardException), ('begin_backward', CancelBatchException),
    ('after_backward', CancelBatchException), ('begin_step', CancelBatchException),
    ('begin_step', CancelStepException), ('after_step', CancelBatchException)])
@pytest.mark.parametrize('order', [-99, 0, math.inf])
def test_whatever_is_cancelled_gradients_add_up(event, cancel, order):
    "The second batch is broken off somewhere; the rest is as in float32"
    def stop(self):
        if self.in_train and self.iter == 1: raise cancel
    def run(*cbs):
        learn = learner()
        learn.fit(2, .1, cbs=[Each(stop, event, order=order), *cbs])
        return learn
    assert near(run(MixedPrecision()), run(), 2e-3)


# ---- bfloat16, weights, states -------------------------------------------------------------------
def test_bfloat16_has_no_scaler_and_no_handlers_for_one():
    cb, learn = MixedPrecision(dtype='bf16'), learner()
    learn.fit(1, .1, cbs=cb)
    assert cb.scaler is None and cb.scale == 1 and cb.skipped == 0
    events = [e for e, handlers in learn.run.handlers.items() for c, _ in handlers if c is cb]
    assert 'after_backward' not in events and 'begin_step' not in events


def test_weights_in_float16_are_refused():
    learn = learner(model=network().half())
    before = weights(learn)
    with pytest.raises(ValueError, match='master copy'): learn.fit(1, .1, cbs=MixedPrecision())
    assert all(map(torch.equal, before, weights(learn))) and not is_on()


def test_a_device_without_autocast_is_refused():
    learn = learner()
    learn.model.to('meta')
    with pytest.raises(ValueError, match="no autocast for 'meta'"):
        learn.fit(1, .1, cbs=MixedPrecision())


def test_a_second_fit_goes_on_with_the_scale():
    cb, learn = MixedPrecision(init_scale=2.**30), learner()
    learn.fit(4, .1, cbs=cb)
    skipped, scale = cb.skipped, cb.scale
    assert skipped > 0 and scale < 2.**30
    learn.fit(1, .1, cbs=cb)
    assert cb.skipped == skipped and cb.scale == scale


def test_the_state_goes_on_bit_for_bit(tmp_path):
    options = {'init_scale': 2.**26, 'growth_interval': 3}
    def fresh(): return learner(opt_func=momentum), MixedPrecision(**options)
    (whole, cb), (first, half), (second, rest) = (fresh() for _ in range(3))
    whole.fit(4, .1, cbs=cb)
    first.fit(2, .1, cbs=half)
    torch.save([half.state_dict(), first.opt.state_dict(), first.model.state_dict()],
               tmp_path/'half.pt')
    state, opt, model = torch.load(tmp_path/'half.pt', weights_only=True)
    second.model.load_state_dict(model)
    second.create_opt(.1, 0.)
    second.opt.load_state_dict(opt)
    late = Each(lambda self: rest.load_state_dict(state), 'begin_fit', order=99)
    second.fit(2, .1, cbs=[rest, late])
    assert same(whole, second) and rest.state_dict() == cb.state_dict()
    assert rest.skipped == cb.skipped > 0


def test_state_before_the_first_fit():
    cb, state = MixedPrecision(), MixedPrecision().state_dict()
    assert state == {'skipped': 0, 'in_a_row': 0, 'scaler': None}
    learner().fit(1, .1, cbs=cb)
    cb.load_state_dict(state)
    learner().fit(1, .1, cbs=cb)
    assert cb.scale == 2.**16 and cb.skipped == 0
    early = MixedPrecision()
    early.load_state_dict(dict(cb.state_dict(), skipped=5))
    assert early.state_dict()['skipped'] == 5 and early.state_dict()['scaler']['scale'] == 2.**16


def test_validation_is_in_16_bits_too_and_agrees():
    learn, plain = learner(), learner()
    learn.fit(1, .1, cbs=MixedPrecision())
    plain.fit(1, .1)
    assert learn.recorder.values[0][1] == pytest.approx(plain.recorder.values[0][1], rel=5e-3)


def test_batch_norm_and_convolutions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4),
                          nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    learn, plain = learner(model=model), learner(model=copy.deepcopy(model))
    learn.fit(2, .05, cbs=MixedPrecision(init_scale=2.**8))
    plain.fit(2, .05)
    assert near(learn, plain, 1e-2)
    assert all(v.dtype == torch.float32 for v in learn.model.state_dict().values()
               if v.is_floating_point())


def test_nothing_is_kept_alive():
    learn, cb, losses = learner(), MixedPrecision(), []
    note = Each(lambda self: losses.append(weakref.ref(self.run.loss)), 'begin_backward')
    learn.fit(1, .1, cbs=[cb, note])
    learn.run.loss = learn.run.pred = None
    gc.collect()
    assert len(losses) == 4 and all(o() is None for o in losses)


def test_the_run_holds_what_was_given():
    learn, cb = learner(), MixedPrecision()
    during, note = [], Each(lambda self: during.append(list(self.run.cbs)), 'begin_batch')
    learn.fit(1, .1, cbs=[cb, note])
    assert all(cbs == learn.run.cbs for cbs in during) and len(during) == 6
    assert [o for o in learn.run.cbs if 'callback.precision' in type(o).__module__] == [cb]


@pytest.mark.parametrize('order', [-99, 0, math.inf])
def test_a_backward_pass_that_is_cancelled_leaves_true_gradients(order):
    "The gradients of an open window are not scaled when nobody adds to them"
    def stop(self):
        if self.in_train and self.iter == 1: raise CancelBatchException
    seen = []
    def run(*cbs):
        note = Each(lambda self: seen.append([p.grad.clone() for p in self.model.parameters()]),
                    'after_cancel_batch', order=99)
        learn = learner()
        learn.fit(1, .1, cbs=[Each(stop, 'begin_backward', order=order), note,
                              GradientAccumulation(n_batches=2), *cbs])
        return learn, learn.loss.item()
    (learn, loss), (plain, true_loss) = run(MixedPrecision()), run()
    assert near(learn, plain, 2e-3) and loss == pytest.approx(true_loss, rel=5e-3)
    assert all((a-b).abs().max() < 2e-3 for a, b in zip(*seen))


# ---- faults --------------------------------------------------------------------------------------
@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_faults(dtype):
    def check(learn, cb):
        assert not is_on()
        assert [o for o in learn.run.cbs if 'callback.precision' in type(o).__module__] == [cb]
        if torch.is_tensor(learn.loss): assert learn.loss.abs() < 100  # no scale is left on it
    check_faults(lambda: learner((4, 4), (3,)), lambda learn: MixedPrecision(dtype=dtype),
                 nth=(2,), check=check)


# ---- on a GPU ------------------------------------------------------------------------------------
@no_cuda
@pytest.mark.parametrize('dtype', ['fp16', 'bf16'])
def test_on_cuda(dtype):
    if dtype == 'bf16' and not torch.cuda.is_bf16_supported(): pytest.skip('no bfloat16 here')
    learn, plain = learner(), learner()
    for o in (learn, plain):
        o.model.cuda()
        o.data.device = torch.device('cuda')
    cb = MixedPrecision(dtype=dtype)
    learn.fit(3, .1, cbs=[cb, GradientAccumulation(n_acc=16), GradientClipping(clip=.5)])
    plain.fit(3, .1, cbs=[GradientAccumulation(n_acc=16), GradientClipping(clip=.5)])
    assert near(learn, plain, 2e-2) and not torch.is_autocast_enabled('cuda')
    assert cb.scale == (2.**16 if dtype == 'fp16' else 1) and cb.skipped == 0


@no_cuda
def test_overflow_on_cuda():
    learn = learner()
    learn.model.cuda()
    learn.data.device = torch.device('cuda')
    cb = MixedPrecision()
    learn.fit(1, .1, cbs=[Overflow(1), cb])
    assert cb.skipped == 1 and cb.scale == 2.**15
