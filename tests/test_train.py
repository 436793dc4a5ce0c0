"The verbs of the learner: the numbers of real fastai, what they pass on, and what they refuse"
import inspect
import sys
from functools import partial
from pathlib import Path

import matplotlib
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

import fastloop.train  # noqa: F401
from fastloop.callback.core import Callback, CancelFitException, TraceCallback
from fastloop.callback.schedule import OneCycleScheduler, ParamScheduler
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, OptimWrapper

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_golden import (  # noqa: E402
    as_rate,
    check_weights,
    close,
    kept_momentum,
    make_learner,
    one,
    options2,
    two,
)

matplotlib.use('agg')


def net(bn=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(4, 6), *([nn.BatchNorm1d(6)]*bn), nn.ReLU()),
                         nn.Linear(6, 3))


def two_groups(model): return list(model.children())


def make(groups=1, bn=False, **kwargs):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(73, 4, generator=g)
    y = x[:, :3].argmax(1)
    data = DataBunch.from_tensors(x[:50], y[:50], x[50:], y[50:], bs=8, seed=0, device='cpu')
    kwargs = dict(metrics=accuracy, silent=True) | kwargs
    return Learner(data, net(bn), splitter=two_groups if groups == 2 else None, **kwargs)


class Rates(Callback):
    "Keeps the rates of all layer groups in each batch, and which layers are trained"
    order = 100
    def begin_fit(self): self.rates, self.trained = [], []

    def after_pred(self):
        if not self.in_train: return
        self.rates.append(self.opt.read_val('lr'))
        self.trained.append([p.requires_grad for p in self.model.parameters()])


# ---- signatures ----------------------------------------------------------------------------------
def defaults(func):
    return {k: o.default for k, o in inspect.signature(func).parameters.items()
            if o.default is not o.empty}


def test_signatures():
    one_cycle = inspect.signature(Learner.fit_one_cycle).parameters
    assert list(one_cycle)[1:7] == ['epochs', 'max_lr', 'moms', 'div_factor', 'pct_start',
                                    'final_div']
    assert defaults(Learner.fit_one_cycle).items() >= dict(
        max_lr=None, moms=(.95, .85), div_factor=25., pct_start=.3, final_div=None).items()
    assert list(defaults(Learner.lr_find).items()) == [
        ('start_lr', 1e-7), ('end_lr', 10), ('num_it', 100), ('stop_div', True),
        ('show_plot', True)]
    assert defaults(Learner.fit_flat_cos)['pct_start'] == .75
    assert defaults(Learner.fine_tune).items() >= dict(base_lr=2e-3, freeze_epochs=1, lr_mult=100,
                                                       pct_start=.3).items()


# ---- real fastai ---------------------------------------------------------------------------------
cycles1 = [k for k, run in one['runs'].items() if run['calls'][0][0] == 'fit_one_cycle']


@pytest.mark.parametrize('name', cycles1)
def test_one_cycle_is_that_of_fastai_1(name):
    run = one['runs'][name]
    learn = make_learner(run['args'])
    for (verb, kwargs), fit in zip(run['calls'], run['fits'], strict=True):
        kwargs = dict(kwargs)
        if verb == 'fit': learn.fit(kwargs['epochs'], kwargs['lr'], cbs=kept_momentum(run['fits']))
        else: learn.fit_one_cycle(kwargs.pop('cyc_len'), as_rate(kwargs.pop('max_lr')), **kwargs)
        recorder = learn.recorder
        last = [o[-1] if isinstance(o, list) else o for o in fit['lrs']]
        close(recorder.lrs, last)
        close(recorder.moms, [o[-1] if isinstance(o, list) else o for o in fit['moms']])
        close(recorder.raw_losses, fit['losses'])
        check_weights(learn.model, fit['weights'])


@pytest.mark.parametrize('name', ['flat_cos', 'flat_cos_given'])
def test_flat_cos_is_that_of_fastai_2(name):
    run = two['runs'][name]
    args = {**options2[run['args']['opt']], 'bn_wd': False}
    adam = {'opt_func': partial(optim.Adam, betas=(.9, .99), eps=1e-5)}
    learn = make_learner(args, **(adam if run['args']['opt'] == 'adam' else {}))
    kwargs, fit = dict(run['calls'][0][1]), run['fits'][0]
    learn.fit_flat_cos(kwargs.pop('n_epoch'), kwargs.pop('lr'), **kwargs)
    close(learn.recorder.lrs, [o[-1] for o in fit['lrs']])
    close(learn.recorder.raw_losses, fit['losses'])
    check_weights(learn.model, fit['weights'])


def test_sgdr_is_that_of_torch():
    "One step of `CosineAnnealingWarmRestarts` for each batch, by hand"
    learn = make(opt_func=SGD)
    learn.fit_sgdr(3, 1, lr_max=.1, cycle_mult=2)
    opt = torch.optim.SGD([torch.zeros(1)], lr=.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=7, T_mult=2)
    wanted = []
    for _ in range(7*7):
        wanted.append(opt.param_groups[0]['lr'])
        opt.step()
        sched.step()
    assert learn.recorder.lrs == pytest.approx(wanted, abs=1e-9)
    assert len(learn.recorder.values) == 1 + 2 + 4


# ---- what is passed on ---------------------------------------------------------------------------
verbs = {'fit_one_cycle': (2,), 'fit_flat_cos': (2,), 'fit_sgdr': (1, 2)}


@pytest.mark.parametrize('verb', verbs)
def test_arguments_of_fit_are_passed_on(verb):
    learn, seen, traces = make(), [], [TraceCallback(), TraceCallback(), TraceCallback()]
    learn.create_opt()
    first, fit = learn.opt, learn.fit

    def spy(*args, **kwargs):
        seen.append(inspect.signature(Learner.fit).bind(learn, *args, **kwargs).arguments)
        fit(*args, **kwargs)

    learn.fit = spy
    getattr(learn, verb)(*verbs[verb], .01, wd=.3, cbs=traces[:2], callbacks=traces[2:],
                         reset_opt=True)
    assert seen[0]['wd'] == .3 and seen[0]['reset_opt'] is True and seen[0]['epochs'] == 2
    assert learn.opt is not first and learn.opt.wd == .3
    assert all(o.events.count('begin_epoch') == 2 for o in traces)
    learn.fit = lambda *args, **kwargs: seen.append(kwargs)
    getattr(learn, verb)(*verbs[verb], resume=True)
    assert seen[-1]['resume'] is True


@pytest.mark.parametrize('verb', verbs)
def test_the_rate_is_the_learners_unless_one_is_given(verb):
    learn = make(lr=.02)
    getattr(learn, verb)(*verbs[verb])
    assert max(learn.recorder.lrs) == pytest.approx(.02)


@pytest.mark.parametrize('verb', verbs)
def test_a_slice_gives_each_group_its_own_cycle(verb):
    learn, rates = make(2), Rates()
    getattr(learn, verb)(*verbs[verb], slice(1e-4, 1e-2), cbs=rates)
    low, high = zip(*rates.rates)
    assert max(high) == pytest.approx(1e-2) and max(low) == pytest.approx(1e-4)
    assert [o/100 for o in high] == pytest.approx(list(low), rel=1e-6, abs=1e-12)


def test_the_second_part_of_a_cycle():
    whole, parts = make(), make()
    whole.fit_one_cycle(5, .05)
    parts.fit_one_cycle(2, .05, tot_epochs=5)
    lrs = parts.recorder.lrs
    parts.fit_one_cycle(3, .05, tot_epochs=5, start_epoch=2)
    assert lrs + parts.recorder.lrs == pytest.approx(whole.recorder.lrs, rel=1e-12)
    for a, b in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(a, b)


def test_no_epoch_at_all():
    learn = make()
    for verb in ('fit_one_cycle', 'fit_flat_cos'): getattr(learn, verb)(0, 1e-2)
    assert learn.recorder.values == []


def test_a_rival_scheduler_is_refused():
    with pytest.raises(ValueError, match='OneCycleScheduler'):
        make().fit_one_cycle(1, cbs=ParamScheduler('lr', lambda pos: .1))


# ---- fine-tuning ---------------------------------------------------------------------------------
def test_fine_tune_trains_the_head_first():
    learn, rates, starts = make(2), Rates(), []
    class Gather(Callback):
        def after_fit(self): starts.append((rates.rates, rates.trained, self.epochs))
    learn.fine_tune(2, base_lr=.01, cbs=[rates, Gather])
    (first, frozen, n), (second, free, m) = starts
    assert (n, m) == (1, 2)
    assert all(o == [False, False, True, True] for o in frozen) and all(all(o) for o in free)
    assert max(o[-1] for o in first) == pytest.approx(.01)
    assert max(o[-1] for o in second) == pytest.approx(.005)
    assert max(o[0] for o in second) == pytest.approx(.005/100)
    assert second[0][-1] == pytest.approx(.005/5)  # its `div_factor` is 5
    assert rates.rates is second


def test_fine_tune_leaves_the_body_alone_at_first():
    learn = make(2, bn=True)
    body = {k: v.clone() for k, v in learn.model[0].named_parameters()}
    learn.fine_tune(0, freeze_epochs=1, base_lr=.1)
    moved = [k for k, v in learn.model[0].named_parameters() if not torch.equal(v, body[k])]
    assert moved == ['1.weight', '1.bias']  # batch norm is trained all the same


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('after', [0, 1])
def test_fine_tune_broken_off_leaves_all_layers_free(error, after):
    class Break(Callback):
        fits = 0
        def after_batch(self):
            if self.in_train and self.iter == 2 and self.fits == after: raise error
        def after_fit(self): self.fits += 1
    learn = make(2)
    with pytest.raises(error): learn.fine_tune(2, cbs=Break())
    assert all(p.requires_grad for p in learn.model.parameters())
    learn.fit_one_cycle(1, .01)


def test_fine_tune_needs_two_groups():
    learn = make()
    with pytest.raises(ValueError, match='one layer group'): learn.fine_tune(1)
    assert all(p.requires_grad for p in learn.model.parameters()) and learn.run is None


def test_cancelled_fits_go_on_to_the_next():
    class Cancel(Callback):
        seen = 0
        def begin_epoch(self):
            self.seen += 1
            raise CancelFitException
    cancel = Cancel()
    make(2).fine_tune(3, cbs=cancel)
    assert cancel.seen == 2


# ---- search and picture --------------------------------------------------------------------------
def test_lr_find_is_followed_by_the_same_fit():
    plain, searched = make(opt_func=SGD), make(opt_func=SGD)
    found = searched.lr_find(start_lr=1e-4, num_it=30)
    assert found._fields == ('valley', 'steep', 'minimum', 'slide')
    assert len(searched.recorder.lrs) <= 30 and searched.recorder.min_grad_lr in \
        searched.recorder.lrs
    for learn in (plain, searched): learn.fit_one_cycle(2, .1)
    assert plain.recorder.raw_losses == searched.recorder.raw_losses
    for a, b in zip(plain.model.parameters(), searched.model.parameters()):
        assert torch.equal(a, b)


def test_plot_sched_draws_what_the_fit_sets():
    learn = make()
    sched = OneCycleScheduler(lr_max=.1)
    fig = learn.plot_sched(sched, epochs=3)
    assert learn.opt is None and learn.run is None
    drawn = list(fig.axes[0].lines[0].get_ydata()), list(fig.axes[1].lines[0].get_ydata())
    learn.fit(3, cbs=sched)
    assert drawn[0] == pytest.approx(learn.recorder.lrs)
    assert drawn[1] == pytest.approx(learn.recorder.moms)
    fig = learn.plot_sched(lambda pos: 1 - pos)
    assert fig.axes[0].lines[0].get_ydata()[0] == 1


def test_the_loss_of_a_learner_without_names():
    "Nothing but a model, data and a loss"
    learn = make(loss_func=F.cross_entropy, metrics=None, opt_func=torch.optim.Adam)
    learn.fit_one_cycle(1, 1e-2)
    assert isinstance(learn.opt, OptimWrapper) and len(learn.recorder.values) == 1


# ---- switches ------------------------------------------------------------------------------------
def kinds(learn): return [type(cb).__name__ for cb in learn.cbs]


def test_switches_answer_with_the_learner_and_replace_each_other():
    learn = make()
    before = kinds(learn)
    assert learn.mixup().mixup(.2) is learn and learn.mix_up.alpha == .2
    assert learn.clip_grad().clip_grad(3.) is learn and learn.gradient_clipping.clip == 3.
    assert learn.to_fp16() is learn and learn.mixed_precision.dtype is torch.float16
    assert learn.to_bf16() is learn and learn.mixed_precision.dtype is torch.bfloat16
    assert sorted(kinds(learn)) == sorted([*before, 'MixUpCallback', 'GradientClipping',
                                           'MixedPrecision'])
    learn.fit_one_cycle(1, 1e-2)
    assert learn.to_fp32() is learn and 'MixedPrecision' not in kinds(learn)
    assert learn.to_fp32() is learn  # nothing to switch off


def test_switches_have_the_defaults_of_the_design():
    assert defaults(Learner.mixup) == dict(alpha=.4, stack_x=False, stack_y=True)
    assert defaults(Learner.clip_grad) == dict(clip=.1)
    assert not defaults(Learner.to_fp16) and not defaults(Learner.to_fp32)


def test_bad_switches_leave_the_old_ones():
    learn = make().mixup(.3).clip_grad(1.).to_bf16()
    for call in (lambda: learn.mixup(0), lambda: learn.clip_grad(-1),
                 lambda: learn.to_fp16(init_scale=0)):
        with pytest.raises(ValueError): call()
    assert learn.mix_up.alpha == .3 and learn.gradient_clipping.clip == 1.
    assert learn.mixed_precision.dtype is torch.bfloat16


def test_clipping_clips():
    norms = []
    class Norm(Callback):
        order = 100
        def begin_step(self):
            norms.append(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm())
    make().clip_grad(.05).fit(1, .01, cbs=Norm)
    assert max(norms) <= .05 + 1e-5 and len(norms) == 7


@pytest.mark.parametrize('verb', ['fit_one_cycle', 'fit_flat_cos', 'fit_sgdr', 'fine_tune'])
def test_verbs_show_what_they_pass_on_and_refuse_what_fit_does_not_know(verb):
    names = inspect.signature(getattr(Learner, verb)).parameters
    assert {'reset_opt', 'resume', 'callbacks'} <= set(names) and 'kwargs' not in names
    kwargs = dict(n_cycles=1, cycle_len=1) if verb == 'fit_sgdr' else dict(epochs=1)
    with pytest.raises(TypeError, match='reset_otp'):
        getattr(make(groups=2), verb)(**kwargs, reset_otp=True)
