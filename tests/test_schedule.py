"Schedules: their values against torch's and real fastai's, and what they leave behind"
import copy
import json
import math
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from fastloop.anneal import (
    annealing_linear,
    annealing_poly,
    combined_cos,
    flat_cos_sched,
    sched_cos,
    sched_lin,
    sched_no,
    sgdr_sched,
)
from fastloop.callback.core import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
)
from fastloop.callback.phases import GeneralScheduler, TrainingPhase
from fastloop.callback.playground import plot_sched
from fastloop.callback.recorder import Recorder
from fastloop.callback.schedule import (
    OneCycleScheduler,
    ParamScheduler,
    find_schedulers,
)
from fastloop.callback.torch_scheduler import TorchScheduler
from fastloop.learner import BasicLearner, Learner
from fastloop.optimizer import OptimWrapper
from fastloop.runner import Runner

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent/'tools')]
from faults import check_faults  # noqa: E402
from make_golden import accuracy, make_loaders, make_model, split_in_two  # noqa: E402

matplotlib.use('agg')
one, two = [json.loads((here/'golden'/f'fastai{i}.json').read_text()) for i in (1, 2)]
sgd = partial(torch.optim.SGD, momentum=.9)
adam = partial(torch.optim.Adam, betas=(.9, .99))
iters = 5


def toy(opt_func=sgd, groups=1, n=iters, **kwargs):
    "A learner of `n` batches an epoch"
    g = torch.Generator().manual_seed(0)
    def batch(size): return torch.randn(size, 2, generator=g), torch.randint(0, 3, (size,),
                                                                              generator=g)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    data = SimpleNamespace(train_dl=[batch(4) for _ in range(n)], valid_dl=[batch(4)]*2)
    kwargs.setdefault('wd', 0.)
    return Learner(data, model, F.cross_entropy, opt_func=opt_func, silent=True, metrics=[accuracy],
                   splitter=(lambda m: list(m)) if groups == 2 else None, **kwargs)


class Seen(Callback):
    "What each training batch's step is taken with"
    order = 1000
    def __init__(self, *names): self.names, self.rows = names or ('lr', 'mom'), []
    def begin_fit(self): self.rows = []
    def begin_backward(self):
        wrap = self.opt if isinstance(self.opt, OptimWrapper) else OptimWrapper(self.opt)
        self.rows.append([wrap.read_val(o) for o in self.names])
    def column(self, i=0, group=-1): return [row[i][group] for row in self.rows]


class Start(Callback):
    "Moves the beginning of the run, as a checkpoint does"
    order = -50
    def __init__(self, epoch, batch=0): self.at = epoch, batch
    def begin_fit(self): self.run.first_epoch, self.run.first_iter = self.at


def seen(learn, cbs, epochs=2, names=('lr', 'mom'), lr=1e-2):
    "Fit and return the watcher"
    watch = Seen(*names)
    learn.fit(epochs, lr, cbs=[*cbs, watch])
    return watch


# ---- real fastai ---------------------------------------------------------------------------------
opt_funcs = {'sgd': torch.optim.SGD, 'momentum': sgd, 'adam': adam}
runs1 = [o for o in one['runs'] if o.startswith(('one_cycle', 'flat'))]
runs2 = [o for o in two['runs'] if o.startswith(('one_cycle', 'flat'))]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def golden_learner(args):
    from fastloop.data.bunch import DataBunch
    options = {k: args[k] for k in ('wd', 'true_wd', 'bn_wd') if k in args}
    return Learner(DataBunch(*make_loaders()), make_model(args.get('model', 'plain')),
                   F.cross_entropy, opt_func=opt_funcs[args['opt']], metrics=[accuracy],
                   silent=True, splitter=split_in_two if args.get('groups') == 2 else None,
                   **{'wd': 0., **options})


def cycle1(epochs, kwargs):
    "The callback for a stored call of fastai 1, and the rate of its fit"
    kwargs = dict(kwargs)
    if 'max_lr' in kwargs:
        top = kwargs.pop('max_lr')
        top = slice(*top) if isinstance(top, list) else top
        return OneCycleScheduler(lr_max=top, **kwargs), top
    lr, n = kwargs['lr'], int(epochs*6*.72)
    return GeneralScheduler(phases=[
        TrainingPhase(n).schedule_hp('lr', lr).schedule_hp('mom', .95),
        TrainingPhase(epochs*6-n).schedule_hp('lr', lr, anneal='cos').schedule_hp('mom', .85)]), lr


@pytest.mark.parametrize('name', runs1)
def test_fastai1(name):
    run = one['runs'][name]
    learn = golden_learner(run['args'])
    verb, kwargs = run['calls'][0]
    kwargs = dict(kwargs)
    epochs = [kwargs.pop(o) for o in ('cyc_len', 'tot_epochs') if o in kwargs][0]
    cb, lr = cycle1(epochs, kwargs)
    watch, fit = Seen('lr', 'mom'), run['fits'][0]
    learn.fit(epochs, lr, cbs=[cb, watch])
    assert [o[0] for o in watch.rows] == [pytest.approx(o, rel=1e-5, abs=1e-9) for o in fit['lrs']]
    assert watch.column(1) == pytest.approx(fit['moms'], rel=1e-5)
    assert learn.recorder.raw_losses == pytest.approx(fit['losses'], rel=1e-4, abs=1e-6)
    assert learn.recorder.val_losses == pytest.approx(fit['valid_losses'], rel=1e-4)


def plan2(lr_max=None, lr=None, div=25., div_final=1e5, pct_start=None, moms=(.95, .85, .95)):
    "The dictionary for a stored call of fastai 2"
    if lr_max is None: return flat_cos_sched(lr, div_final, pct_start or .75)
    tops = lr_max if isinstance(lr_max, list) else [lr_max]
    pct = pct_start or .25
    return {'lr': combined_cos(pct, [o/div for o in tops], tops, [o/div_final for o in tops]),
            'mom': combined_cos(pct, *moms)}


@pytest.mark.parametrize('name', runs2)
def test_fastai2(name):
    run, fit = two['runs'][name], two['runs'][name]['fits'][0]
    args = run['args']
    learn = golden_learner({'wd': .01 if args['opt'] == 'adam' else 0., 'bn_wd': False, **args})
    if args['opt'] == 'adam': learn.opt_func = partial(adam, eps=1e-5)
    kwargs = dict(run['calls'][0][1])
    plan = plan2(**{k: v for k, v in kwargs.items() if k != 'n_epoch'})
    watch = seen(learn, [ParamScheduler(plan)], kwargs['n_epoch'], lr=1.)
    for i, o in enumerate(('lrs', 'moms')):
        if o not in fit: continue
        want = fit[o]
        got = [row[i] for row in watch.rows]
        if not isinstance(want[0], list): got = [o[-1] for o in got]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)
    assert learn.recorder.raw_losses == pytest.approx(fit['losses'], rel=1e-4, abs=1e-6)


# ---- torch ---------------------------------------------------------------------------------------
def torch_values(make, n, keys=('lr', 'momentum'), groups=1, momentum=.9, lr=.1):
    "What a scheduler of torch does to an optimizer that is stepped by hand"
    opt = torch.optim.SGD([{'params': [torch.zeros(1)]} for _ in range(groups)], lr=lr,
                          momentum=momentum)
    sched, rows = make(opt), []
    for _ in range(n):
        rows.append([[o[k] for o in opt.param_groups] for k in keys])
        opt.step()
        sched.step()
    return [[row[i] if groups > 1 else row[i][0] for row in rows] for i in range(len(keys))]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 15), st.integers(1, 3), st.floats(0., 1.), st.floats(1.5, 100.),
       st.floats(1.5, 1e6))
def test_one_cycle_is_that_of_torch(batches, epochs, pct_start, div_factor, final_div):
    n = batches*epochs
    a1 = int(n*pct_start)
    if not 1 <= a1 < n: return
    cb = OneCycleScheduler(lr_max=.3, div_factor=div_factor, final_div=final_div,
                           pct_start=pct_start, moms=(.9, .7))
    lrs, moms = torch_values(partial(
        lr_scheduler.OneCycleLR, max_lr=.3, total_steps=n+1, pct_start=(a1+1)/(n+1),
        base_momentum=.7, max_momentum=.9, div_factor=div_factor,
        final_div_factor=final_div/div_factor), n)
    table = cb.values(epochs, batches)
    assert table['lr'] == pytest.approx(lrs, rel=1e-7, abs=1e-9)
    assert table['mom'] == pytest.approx(moms, rel=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6))
def test_restarts_are_those_of_torch(n_cycles, cycle_len, cycle_mult, batches):
    epochs, plan = sgdr_sched(n_cycles, cycle_len, .2, cycle_mult)
    assert epochs == sum(cycle_len*cycle_mult**i for i in range(n_cycles))
    lrs, = torch_values(partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=cycle_len*batches,
                                T_mult=cycle_mult), epochs*batches, keys=['lr'], lr=.2)
    assert ParamScheduler(plan).values(epochs, batches)['lr'] == pytest.approx(lrs, abs=1e-8)


makers = {
    'step': partial(lr_scheduler.StepLR, step_size=2), 'exp': partial(lr_scheduler.ExponentialLR,
                                                                      gamma=.9),
    'cosine': partial(lr_scheduler.CosineAnnealingLR, T_max=6),
    'one_cycle': partial(lr_scheduler.OneCycleLR, max_lr=.1, total_steps=100),
    'cyclic': partial(lr_scheduler.CyclicLR, base_lr=.01, max_lr=.1, step_size_up=3),
    'lambda': partial(lr_scheduler.LambdaLR, lr_lambda=lambda k: 1/(1+k)),
    'polynomial': partial(lr_scheduler.PolynomialLR, total_iters=7, power=2.),
    'chained': lambda opt: lr_scheduler.ChainedScheduler([
        lr_scheduler.ConstantLR(opt, .1, 4), lr_scheduler.ExponentialLR(opt, .9)]),
    'sequential': lambda opt: lr_scheduler.SequentialLR(opt, [
        lr_scheduler.LinearLR(opt, .1, total_iters=4), lr_scheduler.ExponentialLR(opt, .9)], [4])}


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('every', ['batch', 'epoch'])
@pytest.mark.parametrize('name', makers)
def test_schedules_of_torch(name, every, groups):
    learn, epochs = toy(groups=groups), 3
    n = epochs*iters if every == 'batch' else epochs
    want = torch_values(makers[name], n, groups=groups)
    if every == 'epoch': want = [[o for o in w for _ in range(iters)] for w in want]
    cb = TorchScheduler(make=makers[name], every=every)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        watch = seen(learn, [cb], epochs, lr=.1)
    for i in range(2):
        got = [row[i] if groups > 1 else row[i][0] for row in watch.rows]
        assert got == want[i]
    opt = OptimWrapper.create(sgd, .1, learn.layer_groups)
    table = cb.values(epochs, iters, opt)
    assert table['lr'] == want[0]
    cyclic = name in ('one_cycle', 'cyclic')
    assert cb.scheduled == (('lr', 'mom') if cyclic else ('lr',))
    assert ('mom' in table) == cyclic and (not cyclic or table['mom'] == want[1])
    assert not any('initial_lr' in o for o in learn.opt.param_groups)
    assert 'step' not in vars(learn.opt) and 'step' not in vars(learn.opt.opt)


@pytest.mark.parametrize('name', makers)
def test_schedules_of_torch_resume(name):
    whole = seen(toy(), [TorchScheduler(make=makers[name], every='batch')], 3).column()
    rest = seen(toy(), [TorchScheduler(make=makers[name], every='batch'), Start(1, 2)], 3).column()
    assert rest[0] == whole[iters+2]  # the loader of `toy` knows nothing of a beginning inside
    by_epoch = seen(toy(), [TorchScheduler(make=makers[name]), Start(2)], 3).column()
    assert by_epoch == seen(toy(), [TorchScheduler(make=makers[name])], 3).column()[2*iters:]


def test_a_torch_schedule_moves_the_first_beta_of_adam_only():
    cb = TorchScheduler(make=partial(lr_scheduler.OneCycleLR, max_lr=.1, total_steps=10),
                        every='batch')
    watch = seen(toy(adam), [cb], 2, ('mom', 'beta'))
    assert watch.column(0)[0] == .95 and min(watch.column(0)) < .86
    assert set(watch.column(1)) == {.99}
    assert 'mom' in cb.values(2, 5, toy(adam).opt or adam([torch.zeros(1)], lr=.1))


def test_true_weight_decay_is_no_business_of_a_torch_schedule():
    learn = toy(wd=.1, bn_wd=False)
    watch = seen(learn, [TorchScheduler(make=makers['step'])], 3, ('lr', 'wd'))
    assert set(watch.column(1)) == {.1}
    assert [o['true_weight_decay'] for o in learn.opt.param_groups] == [.1, 0.]


def test_a_scheduler_that_moves_weight_decay():
    class Decay(lr_scheduler.LRScheduler):
        def get_lr(self):
            for o in self.optimizer.param_groups: o['weight_decay'] = .1/(1+self.last_epoch)
            return self.base_lrs
    learn = toy(wd=.5)
    watch = seen(learn, [TorchScheduler(make=Decay)], 3, ('wd',))
    assert watch.column() == pytest.approx([.1]*5 + [.05]*5 + [.1/3]*5)


def test_rates_that_are_tensors():
    learn = toy(lambda params, lr: torch.optim.Adam(params, lr=torch.tensor(.1)))
    learn.create_opt()
    opt = torch.optim.Adam(learn.model.parameters(), lr=torch.tensor(.1))
    basic = BasicLearner(learn.model, opt, F.cross_entropy, learn.data)
    cb = TorchScheduler(make=partial(lr_scheduler.ExponentialLR, gamma=.5))
    watch = Seen('lr')
    Runner([cb, watch]).fit(2, basic)
    assert list(map(float, watch.column())) == pytest.approx([.1]*5 + [.05]*5)


# ---- ReduceLROnPlateau ---------------------------------------------------------------------------
class Row(Callback):
    "Writes numbers of its own into the rows"
    order = 50
    def __init__(self, numbers): self.numbers = numbers
    def begin_fit(self): self.learn.run.recorder.add_metric_names('mine')
    def after_epoch(self): self.learn.run.recorder.values[-1][-1] = self.numbers[self.epoch]


plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=1, factor=.5, threshold=0.)


def plateau_by_hand(numbers):
    opt = torch.optim.SGD([torch.zeros(1)], lr=.1)
    sched, rates = plateau(opt), []
    for o in numbers:
        rates.append(opt.param_groups[0]['lr'])
        if o is not None: sched.step(o)
    return rates


@pytest.mark.parametrize('numbers', [[3, 2, 1, 0], [1, 2, 3, 4, 5, 6], [2, 2, None, 2, 1, 1, 1, 1]])
def test_plateau(numbers):
    watch = seen(toy(), [Row(numbers), TorchScheduler(make=plateau, monitor='mine')], len(numbers),
                 lr=.1)
    assert watch.column()[::iters] == plateau_by_hand(numbers)


class Warmup(lr_scheduler.LRScheduler):
    "Grows for three steps; its `step` has `metrics` for a plateau that may come after it"
    def get_lr(self): return [o*min(self.last_epoch+1, 3)/3 for o in self.base_lrs]
    def step(self, epoch=None, metrics=None): super().step(epoch)


def test_a_warm_up_that_may_be_given_a_number_follows_the_position():
    opt = torch.optim.SGD([torch.zeros(1)], lr=.1)
    sched, rates = Warmup(opt), []
    for _ in range(4):
        rates.append(opt.param_groups[0]['lr'])
        opt.step()
        sched.step()
    assert seen(toy(), [TorchScheduler(make=Warmup)], 4, lr=.1).column()[::iters] == rates
    with pytest.raises(ValueError, match='Warmup measures nothing'):
        toy().fit(1, .1, cbs=TorchScheduler(make=Warmup, monitor='valid_loss'))


class LatePlateau(lr_scheduler.ReduceLROnPlateau):
    "The number is not the first that its `step` takes, and may be left out"
    def step(self, epoch=None, metrics=None):
        assert epoch is None
        super().step(metrics)


class Parts:
    "Needs a number, by its name; a bare class, as torch's schedules once were"
    def __init__(self, opt): self.opt = opt
    def step(self, epoch=None, *, metrics): self.opt.param_groups[0]['lr'] = .1/metrics
    def state_dict(self): return {}


def test_the_measured_number_is_given_by_its_name():
    numbers = [1, 2, 3, 4, 5, 6]
    late = partial(LatePlateau, **plateau.keywords)
    watch = seen(toy(), [Row(numbers), TorchScheduler(make=late, monitor='mine')], 6, lr=.1)
    assert watch.column()[::iters] == plateau_by_hand(numbers)
    watch = seen(toy(), [Row(numbers), TorchScheduler(make=Parts, monitor='mine')], 3, lr=.1)
    assert watch.column()[::iters] == [.1, .1, .05]


def test_plateau_goes_on_from_its_state(tmp_path):
    numbers = [1, 2, 3, 4, 5, 6, 7]
    first = TorchScheduler(make=plateau, monitor='mine')
    seen(toy(), [Row(numbers), first], 3, lr=.1)
    torch.save(first.state_dict(), tmp_path/'state')

    class LoadState(Callback):
        order = 100
        def begin_fit(self):
            second.load_state_dict(torch.load(tmp_path/'state', weights_only=True))
            self.run.first_epoch = 3
    for inside in (True, False):
        second = TorchScheduler(make=plateau, monitor='mine')
        if not inside: second.load_state_dict(torch.load(tmp_path/'state', weights_only=True))
        cbs = [Row(numbers), second, LoadState() if inside else Start(3)]
        watch = seen(toy(), cbs, 7, lr=.1)
        assert watch.column()[::iters] == plateau_by_hand(numbers)[3:]


def test_positional_state_keeps_how_it_began(tmp_path):
    "A loaded optimizer has the rate of the middle; the schedule must begin from the first one"
    cb = TorchScheduler(make=makers['step'])
    whole = seen(toy(), [cb], 6, lr=.1).column()
    torch.save(cb.state_dict(), tmp_path/'state')
    other = TorchScheduler(make=makers['step'])
    other.load_state_dict(torch.load(tmp_path/'state', weights_only=True))
    assert seen(toy(), [other, Start(3)], 6, lr=.025).column() == whole[3*iters:]
    assert seen(toy(), [other], 2, lr=.3).column()[0] == .3  # only once
    assert TorchScheduler(make=makers['step']).state_dict() == {}


@pytest.mark.parametrize('kwargs,text', [
    (dict(make=plateau), 'follows a measured number'),
    (dict(make=makers['step'], monitor='valid_loss'), 'measures nothing'),
    (dict(make=plateau, monitor='valid_loss', every='batch'), "every='epoch'"),
    (dict(make=plateau, monitor='valid_los'), "did you mean 'valid_loss'"),
    (dict(make=lambda opt: None), 'no step'),
    (dict(make=partial(lr_scheduler.OneCycleLR, max_lr=.1, total_steps=8), every='batch'),
     'total_steps=8'),
    (dict(make=partial(lr_scheduler.ConstantLR, factor=3.)), 'factor')])
def test_torch_scheduler_refuses_when_the_fit_begins(kwargs, text):
    learn = toy()
    learn.create_opt(.1)
    before = copy.deepcopy(learn.opt.state_dict())
    with pytest.raises((ValueError, TypeError), match=text):
        learn.fit(2, .1, cbs=TorchScheduler(**kwargs))
    assert learn.opt.state_dict() == before and learn.n_iter == 0


def test_plateau_without_validation():
    learn = toy()
    learn.data.valid_dl = None
    with pytest.raises(ValueError, match='no validation loader'):
        learn.fit(2, cbs=TorchScheduler(make=plateau, monitor='valid_loss'))
    assert learn.n_iter == 0
    learn.fit(2, cbs=TorchScheduler(make=plateau, monitor='train_loss'))


def test_plateau_without_recorder():
    learn = toy()
    learn.create_opt()
    with pytest.raises(ValueError, match='no recorder'):
        Runner(TorchScheduler(make=plateau, monitor='valid_loss')).fit(1, learn)


@pytest.mark.parametrize('kwargs,error,text', [
    ({}, TypeError, 'make=None'), (dict(make=3), TypeError, 'make=3'),
    (dict(make=makers['step'], every='epcoh'), ValueError, "did you mean 'epoch'")])
def test_torch_scheduler_refuses_at_once(kwargs, error, text):
    with pytest.raises(error, match=text): TorchScheduler(**kwargs)


def test_a_misplaced_argument_is_named():
    with pytest.raises(TypeError, match=r'TorchScheduler\(make='): TorchScheduler(makers['step'])
    with pytest.raises(TypeError, match=r'OneCycleScheduler\(lr_max=0.1'): OneCycleScheduler(.1)
    with pytest.raises(TypeError, match=r'GeneralScheduler\(phases='): GeneralScheduler([1])
    with pytest.raises(TypeError, match='phases: 3 is no TrainingPhase'): GeneralScheduler(phases=3)


def test_torch_values_need_an_optimizer():
    with pytest.raises(ValueError, match='opt='): TorchScheduler(make=makers['step']).values(1, 2)
    with pytest.raises(ValueError, match='not known'):
        TorchScheduler(make=plateau).values(1, 2, torch.optim.SGD([torch.zeros(1)], lr=.1))
    learn = toy()
    learn.create_opt(.1)
    assert TorchScheduler(learn, makers['step']).values(3, 1)['lr'] == pytest.approx([.1, .1, .01])


# ---- ParamScheduler ------------------------------------------------------------------------------
@pytest.mark.parametrize('opt_func,name,other,values', [
    (sgd, 'lr', 'lr', (.1, .01)), (sgd, 'momentum', 'mom', (.9, .8)),
    (adam, 'mom', 'mom', (.9, .8)),
    (adam, 'momentum', 'mom', (.9, .8)), (adam, 'beta', 'beta', (.9, .8)),
    (torch.optim.RMSprop, 'alpha', 'beta', (.9, .8)), (adam, 'eps', 'eps', (1e-3, 1e-6)),
    (adam, 'weight_decay', 'wd', (.1, .2)), (sgd, 'wd', 'wd', (.1, .2))])
def test_any_hyper_parameter(opt_func, name, other, values):
    cb = ParamScheduler(name, sched_lin(*values))
    watch = seen(toy(opt_func), [cb], 2, (other,))
    want = [sched_lin(*values)(k/10) for k in range(10)]
    assert watch.column() == pytest.approx(want)
    assert cb.scheduled == (other,) and cb.values(2, 5) == {other: pytest.approx(want)}


def test_betas_are_two():
    cb = ParamScheduler('betas', lambda share: (.8+share/10, .9))
    watch = seen(toy(adam), [cb], 1, ('mom', 'beta'))
    assert cb.scheduled == ('mom', 'beta')
    assert watch.column() == pytest.approx([.8, .82, .84, .86, .88])
    assert set(watch.column(1)) == {.9}


@pytest.mark.parametrize('opt_func', [sgd, adam, torch.optim.RMSprop, torch.optim.Adagrad,
                                      partial(torch.optim.AdamW, weight_decay=.3)])
def test_plain_optimizers_of_torch(opt_func):
    "Every value but the scheduled one is what it was, and so are the objects"
    learn = toy()
    model = learn.model
    opt = opt_func([{'params': model[0].parameters(), 'lr': .3}, {'params': model[1].parameters()}],
                   lr=.1)
    before = [dict(o) for o in opt.param_groups]
    watch = Seen('lr')
    run = Runner([ParamScheduler('lr', [sched_lin(.1, .0), sched_lin(.2, 0.)]), watch])
    run.fit(1, BasicLearner(model, opt, F.cross_entropy, learn.data))
    assert [row[0] for row in watch.rows] == [pytest.approx([.1-.02*k, .2-.04*k]) for k in range(5)]
    for group, old in zip(opt.param_groups, before):
        assert {k: v for k, v in group.items() if k != 'lr'} == {
            k: v for k, v in old.items() if k != 'lr'}
    assert 'step' not in vars(opt)


class Stops(Callback):
    "Ends a fit when all have said that it may begin"
    order = 2000
    def begin_fit(self): raise CancelFitException


def test_trying_out_changes_nothing_in_torch_optimizers():
    for opt_func in (sgd, adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.Rprop,
                     torch.optim.Adadelta):
        opt = opt_func([{'params': [torch.zeros(2)], 'lr': .1},
                        {'params': [torch.zeros(2)], 'lr': .2}], lr=1.)
        before, groups = [dict(o) for o in opt.param_groups], opt.param_groups
        learn = toy()
        basic = BasicLearner(learn.model, opt, F.cross_entropy, learn.data)
        Runner([ParamScheduler('lr', lambda share: [.5, .6]), Stops()]).fit(1, basic)
        assert opt.param_groups is groups and [dict(o) for o in groups] == before


def test_one_schedule_with_a_list_of_bounds():
    watch = seen(toy(groups=2), [ParamScheduler('lr', sched_cos([.1, 1.], [0., .5]))], 1)
    assert watch.rows[0][0] == [.1, 1.] and watch.rows[-1][0][1] > .5
    assert ParamScheduler('lr', [sched_cos([.1, 1.], [0., .5])]).values(1, 5)['lr'][0] == [.1, 1.]


@pytest.mark.parametrize('value', [np.float64(.25), torch.tensor(.25), np.array(.25), .25, 1])
def test_numbers_of_other_kinds(value):
    watch = seen(toy(), [ParamScheduler('lr', lambda share: value)], 1)
    assert list(map(float, watch.column())) == [float(value)]*iters


@pytest.mark.parametrize('args,text', [
    (('speed', sched_no(1, 1)), "no 'speed'; it has lr, mom, wd"),
    (('beta', sched_no(1, 1)), "no 'beta'"), (('params', sched_no(1, 1)), "no 'params'"),
    (('lr', [sched_no(1, 1)]*3), '3 schedules for .lr., but there are 2'),
    (('lr', lambda share: [.1]*3), 'has 3 values, but there are 2'),
    (('lr', lambda share: 'much'), 'must be a number'),
    (({'mom': sched_no(.5, .5), 'eps': sched_no(1, 1)},), "no 'eps'")])
def test_param_scheduler_refuses_when_the_fit_begins(args, text):
    learn = toy(groups=2)
    learn.create_opt(.1)
    learn.fit(1, .1)
    before = copy.deepcopy(learn.opt.param_groups)
    with pytest.raises(ValueError, match=text): learn.fit(1, .1, cbs=ParamScheduler(*args))
    for group, old in zip(learn.opt.param_groups, before):
        assert {k: v for k, v in group.items() if k != 'params'} == {
            k: v for k, v in old.items() if k != 'params'}
    assert learn.n_iter == 0


@pytest.mark.parametrize('args,error,text', [
    (('lr',), TypeError, 'not None'), (('lr', .1), TypeError, 'not 0.1'),
    (('lr', [sched_no(1, 1), 2]), TypeError, 'not 2'), (('lr', []), ValueError, 'no schedule'),
    ((3, sched_no(1, 1)), TypeError, 'pname'), (({'lr': 1.},), TypeError, "for 'lr'"),
    (({'lr': sched_no(1, 1)}, sched_no(1, 1)), TypeError, 'leave sched_funcs out'),
    (({'mom': sched_no(1, 1), 'momentum': sched_no(1, 1)},), ValueError, 'the same'),
    (({'betas': sched_no(1, 1), 'momentum': sched_no(1, 1)},), ValueError, 'the same')])
def test_param_scheduler_refuses_at_once(args, error, text):
    with pytest.raises(error, match=text): ParamScheduler(*args)


def test_what_is_no_torch_optimizer():
    learn = toy()
    basic = BasicLearner(learn.model, SimpleNamespace(step=print, zero_grad=lambda: None, lr=1.),
                         F.cross_entropy, learn.data)
    with pytest.raises(TypeError, match='torch optimizer is needed'):
        Runner(ParamScheduler('lr', sched_no(1, 1))).fit(1, basic)


class Endless:
    "A loader without length"
    def __init__(self, batches): self.batches = batches
    def __iter__(self): return iter(self.batches)


def test_loaders_without_length():
    for cb in all_kinds():
        learn = toy()
        learn.data.train_dl = Endless(learn.data.train_dl)
        if getattr(cb, 'every', '') == 'epoch':  # the number of the epoch is all it needs
            assert seen(learn, [cb], 3).column() == seen(toy(), [cb], 3).column()
            continue
        with pytest.raises(ValueError, match='has no length'): learn.fit(1, cbs=cb)
        learn.fit(1)


class Longer(list):
    "A loader that says it is shorter than it is"
    def __len__(self): return super().__len__() - 2


def test_a_loader_longer_than_it_says_keeps_the_last_value():
    for cb in all_kinds():
        learn = toy(n=7)
        learn.data.train_dl = Longer(learn.data.train_dl)
        if isinstance(cb, GeneralScheduler) or getattr(cb, 'every', '') == 'batch': continue
        assert len(seen(learn, [cb], 1).rows) == 7
    learn = toy(n=7)
    learn.data.train_dl = Longer(learn.data.train_dl)
    assert seen(learn, [ParamScheduler('lr', sched_lin(1., 0.))], 1).column()[-2:] == [0., 0.]


# ---- one cycle -----------------------------------------------------------------------------------
def formula(k, n, top, div=25., pct=.3, final=None):
    "fastai 1's arithmetic, written out"
    final, a1 = final or div*1e4, int(n*pct)
    def cos(a, b, p): return b + (a-b)/2*(1+math.cos(math.pi*p))
    if k <= a1: return cos(top/div, top, k/max(1, a1))
    return cos(top, top/final, (k-a1)/max(1, n-a1))


@given(st.integers(1, 200), st.floats(0, 1), st.floats(1e-2, 100), st.floats(1e-2, 1e6))
def test_one_cycle_is_the_formula(n, pct, div, final):
    cb = OneCycleScheduler(lr_max=.5, pct_start=pct, div_factor=div, final_div=final)
    table = cb.values(1, n)
    assert table['lr'] == pytest.approx([formula(k, n, .5, div, pct, final) for k in range(n)])
    assert max(table['lr']) <= max(.5, .5/div, .5/final)*(1+1e-9)


def test_layer_groups_of_one_cycle():
    for top in ([.01, .1], (.01, .1), np.array([.01, .1]), torch.tensor([.01, .1]), slice(.01, .1)):
        watch = seen(toy(groups=2), [OneCycleScheduler(lr_max=top)], 2)
        for g, rate in enumerate((.01, .1)):
            assert watch.column(0, g) == pytest.approx([formula(k, 10, rate) for k in range(10)])
    watch = seen(toy(groups=2), [OneCycleScheduler(lr_max=slice(.1))], 1)
    assert watch.rows[1][0] == pytest.approx([.01, .1])
    watch = seen(toy(groups=2), [OneCycleScheduler(lr_max=.1)], 1)
    assert watch.rows[1][0] == [.1, .1]


def test_a_slice_needs_a_learner():
    with pytest.raises(ValueError, match='lr_range'):
        OneCycleScheduler(lr_max=slice(1e-3, .1)).values(1, 10)
    learn = toy(groups=2)
    table = OneCycleScheduler(learn, slice(1e-3, .1)).values(1, 10)
    assert table['lr'][3] == pytest.approx([1e-3, .1])
    opt = torch.optim.SGD(learn.model.parameters(), lr=.1)
    with pytest.raises(ValueError, match='lr_range'):
        Runner(OneCycleScheduler(lr_max=slice(1e-3, .1))).fit(1, BasicLearner(
            learn.model, opt, F.cross_entropy, learn.data))


@pytest.mark.parametrize('moms', [(.9, .8), [.9, .8], (.9, .8, .9), np.array([.9, .8])])
@pytest.mark.parametrize('opt_func', [sgd, torch.optim.SGD, adam])
def test_momentum_of_one_cycle(opt_func, moms):
    watch = seen(toy(opt_func), [OneCycleScheduler(lr_max=.1, moms=moms)], 2)
    assert watch.column(1)[0] == .9 and watch.column(1)[3] == pytest.approx(.8)
    assert .88 < watch.column(1)[-1] < .9


def test_a_third_momentum():
    assert OneCycleScheduler(lr_max=.1, moms=(.9, .8, .7)).values(1, 1000)['mom'][-1] == (
        pytest.approx(.7, abs=1e-4))


def test_momentum_is_left_alone():
    for opt_func, moms in ((torch.optim.Adagrad, (.95, .85)), (sgd, None)):
        learn = toy(opt_func)
        watch = seen(learn, [OneCycleScheduler(lr_max=.1, moms=moms)], 1)
        assert len(set(watch.column(0))) == iters
        assert watch.column(1) == [.9]*iters if moms is None else watch.rows[0][1] is None
    assert OneCycleScheduler(lr_max=.1, moms=None).scheduled == ('lr',)
    assert OneCycleScheduler(lr_max=.1).scheduled == ('lr', 'mom')


@pytest.mark.parametrize('anneal,middle', [
    ('cos', .55), ('linear', .55), (annealing_linear, .55), ('exp', math.sqrt(.1)),
    ('no', .1), (annealing_poly(2), .1 + .9*.75)])
def test_shapes_of_one_cycle(anneal, middle):
    cb = OneCycleScheduler(lr_max=1., div_factor=10., pct_start=.5, anneal=anneal)
    lrs = cb.values(1, 40)['lr']
    assert lrs[10] == pytest.approx(middle) and lrs[0] == pytest.approx(.1)


@pytest.mark.parametrize('kwargs,text', [
    ({}, 'lr_max'), (dict(lr_max=0.), 'lr_max=0.0'), (dict(lr_max=-1), 'lr_max=-1'),
    (dict(lr_max=math.nan), 'lr_max=nan'), (dict(lr_max=math.inf), 'lr_max=inf'),
    (dict(lr_max='x'), 'lr_max='), (dict(lr_max=[]), 'lr_max='), (dict(lr_max=[.1, 0]), 'lr_max='),
    (dict(lr_max=slice(0., .1)), 'lr_max='), (dict(lr_max=slice(.1, None)), 'lr_max='),
    (dict(pct_start=1.1), 'pct_start=1.1'), (dict(pct_start=-.1), 'pct_start'),
    (dict(pct_start=math.nan), 'pct_start'), (dict(div_factor=0), 'div_factor=0'),
    (dict(final_div=-1.), 'final_div=-1'), (dict(moms=(.9, 1.2)), 'moms='),
    (dict(moms=(-.1, .9)), 'moms='), (dict(moms=.9), 'moms='),
    (dict(moms=(.9, .8, .7, .6)), 'moms'),
    (dict(tot_epochs=0), 'tot_epochs=?'), (dict(start_epoch=-1), 'start_epoch'),
    (dict(tot_epochs=2, start_epoch=2), 'start_epoch=2'), (dict(anneal='cosine'), 'anneal='),
    (dict(anneal='exp', moms=(0., .9)), 'above 0')])
def test_one_cycle_refuses_at_once(kwargs, text):
    kwargs = {'lr_max': .1, **kwargs} if kwargs else {}
    with pytest.raises(ValueError, match=text): OneCycleScheduler(**kwargs)


@pytest.mark.parametrize('kwargs,text', [
    (dict(lr_max=[.1]*3), '3 rates for 2 layer groups'),
    (dict(lr_max=.1, start_epoch=1), '0 to 0')])
def test_one_cycle_refuses_when_the_fit_begins(kwargs, text):
    learn = toy(partial(torch.optim.SGD, momentum=.5), groups=2)
    learn.create_opt()
    with pytest.raises(ValueError, match=text): learn.fit(1, .3, cbs=OneCycleScheduler(**kwargs))
    assert learn.opt.read_val('lr') == [1e-3, 1e-3] and learn.opt.mom == .5 and learn.n_iter == 0


def test_part_of_a_cycle():
    whole = [formula(k, 4*iters, .1) for k in range(4*iters)]
    first = seen(toy(), [OneCycleScheduler(lr_max=.1, tot_epochs=4)], 1).column()
    learn = toy()
    middle = seen(learn, [OneCycleScheduler(lr_max=.1, tot_epochs=4, start_epoch=1)], 2).column()
    assert len(learn.recorder.values) == 2
    for asked in (1, 3):  # more than is left
        learn = toy()
        cb = OneCycleScheduler(lr_max=.1, tot_epochs=4, start_epoch=3)
        last = seen(learn, [cb], asked).column()
        assert len(learn.recorder.values) == 1
        assert cb.values(asked, iters)['lr'] == last
    assert first + middle + last == pytest.approx(whole)
    cb = OneCycleScheduler(lr_max=.1, start_epoch=2)  # as in fastai 1, of the epochs of the fit
    assert seen(toy(), [cb], 4).column() == pytest.approx(whole[2*iters:])


def test_nothing_is_cancelled_when_the_cycle_ends_with_the_fit():
    for cb in (OneCycleScheduler(lr_max=.1, tot_epochs=2),
               GeneralScheduler(phases=[TrainingPhase(2*iters).schedule_hp('lr', .1)])):
        cancelled = []

        class Watch(Callback):
            def after_cancel_fit(self): cancelled.append('fit')  # noqa: B023
            def after_cancel_train(self): cancelled.append('train')  # noqa: B023
        learn = toy()
        learn.fit(2, cbs=[cb, Watch()])
        assert not cancelled and len(learn.recorder.lrs) == 2*iters


# ---- phases --------------------------------------------------------------------------------------
def phases(*lengths):
    a, b = lengths
    return [TrainingPhase(a).schedule_hp('lr', (.1, .2)).schedule_hp('mom', .8),
            TrainingPhase(b).schedule_hp('lr', .2, anneal='cos')]


@pytest.mark.parametrize('lengths,total', [((3, 4), 7), ((2.5, 4.9), 7), ((5, 5), 10), ((0, 7), 7),
                                           ((7, 0), 7), ((6.2, 30), 15)])
def test_phases(lengths, total):
    cb, learn = GeneralScheduler(phases=phases(*lengths)), toy()
    watch = seen(learn, [cb], 3)
    assert len(watch.rows) == total == len(cb.values(3, iters)['lr'])
    assert watch.column() == cb.values(3, iters)['lr']
    assert len(learn.recorder.values) == -(-total//iters)
    assert all(row[1] is not None for row in learn.recorder.values)  # validated
    a, b = lengths

    def by_hand(k):
        if a and k <= a: return .1 + .1*k/a
        return .2/2*(1+math.cos(math.pi*min(1, (k-a)/b))) if b else .2
    assert watch.column() == pytest.approx([by_hand(k) for k in range(total)])


def test_phases_are_those_of_a_stepper():
    from fastloop.anneal import Stepper, annealing_cos
    first, second = Stepper((.1, .2), 4), Stepper(.2, 6, annealing_cos)
    want = [.1] + [first.step() for _ in range(4)] + [second.step() for _ in range(5)]
    assert seen(toy(), [GeneralScheduler(phases=phases(4, 6))], 2).column() == pytest.approx(want)


def test_a_hyper_parameter_of_some_phases_only():
    plan = [TrainingPhase(3).schedule_hp('lr', .1), TrainingPhase(3).schedule_hp('mom', (.5, .6)),
            TrainingPhase(4).schedule_hp('lr', (.1, .2))]
    cb = GeneralScheduler(phases=plan)
    watch = seen(toy(), [cb], 2)
    assert watch.column(0) == pytest.approx([.1]*7 + [.125, .15, .175])
    assert watch.column(1) == pytest.approx([.9]*4 + [.5+.1/3, .5+.2/3, .6, .6, .6, .6])
    assert cb.scheduled == ('lr', 'mom') and cb.values(2, iters)['mom'][:4] == [None]*4
    assert plot_sched(cb, 2, iters).axes


def test_phases_with_one_value_for_each_group():
    plan = [TrainingPhase(5).schedule_hp('lr', ([.1, .2], [.0, .1]))]
    watch = seen(toy(groups=2), [GeneralScheduler(phases=plan)], 1)
    assert watch.rows[-1][0] == pytest.approx([.02, .12])
    with pytest.raises(ValueError, match='2 values, but there are 1'):
        toy().fit(1, cbs=GeneralScheduler(phases=plan))


def test_phases_that_begin_later():
    plan = phases(2*iters, 2*iters)
    whole = seen(toy(), [GeneralScheduler(phases=plan)], 4).column()
    learn = toy()
    assert seen(learn, [GeneralScheduler(phases=plan, start_epoch=3)], 4).column() == whole[15:]
    assert len(learn.recorder.values) == 1
    assert seen(toy(), [GeneralScheduler(phases=plan), Start(2)], 4).column() == whole[10:]


@pytest.mark.parametrize('make,error,text', [
    (lambda: GeneralScheduler(), ValueError, 'no batch'),
    (lambda: GeneralScheduler(phases=[TrainingPhase(0)]), ValueError, 'no batch'),
    (lambda: GeneralScheduler(phases=[TrainingPhase(3)]), ValueError, 'schedules anything'),
    (lambda: GeneralScheduler(phases=[3]), TypeError, '3 is no TrainingPhase'),
    (lambda: TrainingPhase(-1), ValueError, 'length=-1'),
    (lambda: TrainingPhase('3'), ValueError, "length='3'"),
    (lambda: TrainingPhase(3).schedule_hp('lr', .1, 'cosine'), ValueError, 'anneal='),
    (lambda: TrainingPhase(3).schedule_hp('lr', .1, 'exp'), ValueError, 'above 0')])
def test_phases_refuse_at_once(make, error, text):
    with pytest.raises(error, match=text): make()


def test_an_unknown_name_in_a_late_phase_is_found_in_time():
    plan = [TrainingPhase(3).schedule_hp('lr', .1), TrainingPhase(3).schedule_hp('speed', .1)]
    learn = toy()
    with pytest.raises(ValueError, match="no 'speed'"):
        learn.fit(2, .3, cbs=GeneralScheduler(phases=plan))
    assert learn.opt is None and learn.n_iter == 0
    GeneralScheduler(phases=TrainingPhase(3).schedule_hp('lr', .1))  # one alone


# ---- all of them ---------------------------------------------------------------------------------
def all_kinds():
    "A scheduler of each kind, for fits of up to four epochs"
    return [ParamScheduler({'lr': sched_cos(.1, .01), 'mom': sched_lin(.8, .9)}),
            OneCycleScheduler(lr_max=.1), GeneralScheduler(phases=phases(8, 12)),
            TorchScheduler(make=makers['exp'], every='batch'),
            TorchScheduler(make=makers['exp'], every='epoch')]


kinds = pytest.mark.parametrize('kind', range(5))
broken = ['begin_fit', 'begin_epoch', 'begin_train', 'begin_batch', 'after_loss', 'after_step',
          'after_batch', 'begin_validate', 'after_epoch', 'after_fit']


@kinds
def test_faults(kind):
    def check(learn, cb): assert not any(o is learn.opt for o in vars(cb).values())
    check_faults(toy, lambda learn: all_kinds()[kind], check=check, names=broken, nth=(1,))


def test_faults_of_plateau():
    check_faults(toy, lambda learn: TorchScheduler(make=plateau, monitor='valid_loss'),
                 names=broken, nth=(2,))


@kinds
def test_the_same_callback_in_a_second_fit(kind):
    cb, learn = all_kinds()[kind], toy()
    first = seen(learn, [cb], 4)
    rows = first.rows
    assert learn.opt.lr == rows[-1][0][-1]  # stays
    assert seen(learn, [cb], 4).rows == rows
    learn.fit(1, .3)
    assert set(learn.recorder.lrs) == {.3}


@kinds
def test_after_a_broken_fit(kind):
    class Break(Callback):
        def after_step(self):
            if self.n_iter == 7: raise RuntimeError('on purpose')
    cb, learn = all_kinds()[kind], toy()
    want = seen(toy(), [all_kinds()[kind]], 4).rows
    with pytest.raises(RuntimeError): learn.fit(4, 1e-2, cbs=[cb, Break()])
    assert learn.opt.lr == want[7][0][-1]
    assert seen(learn, [cb], 4).rows == want


class Cancels(Callback):
    "Breaks something off"
    order = 2000
    def __init__(self, where, error): self.error = error; setattr(self, where, self.cancel)  # noqa
    def cancel(self):
        if self.in_train and self.epoch == 1 and self.iter in (0, 2): raise self.error


@kinds
@pytest.mark.parametrize('where,error', [
    ('begin_batch', CancelBatchException), ('after_loss', CancelBatchException),
    ('begin_batch', CancelTrainException), ('begin_train', CancelTrainException),
    ('begin_epoch', CancelEpochException), ('begin_step', CancelStepException)])
def test_the_position_does_not_drift(kind, where, error):
    want = seen(toy(), [all_kinds()[kind]], 4).rows
    got = seen(toy(), [all_kinds()[kind], Cancels(where, error)], 4).rows
    assert len(want) == 20 and got[-10:] == want[-10:]


@kinds
def test_accumulation_changes_nothing(kind):
    class Accumulate(Callback):
        def begin_step(self): return self.iter % 2 == 0
    want = seen(toy(), [all_kinds()[kind]], 4).rows
    assert seen(toy(), [all_kinds()[kind], Accumulate()], 4).rows == want


@kinds
@pytest.mark.parametrize('epoch', [0, 1, 3])
def test_a_run_that_begins_later(kind, epoch):
    want = seen(toy(), [all_kinds()[kind]], 4).rows
    assert seen(toy(), [all_kinds()[kind], Start(epoch)], 4).rows == want[epoch*iters:]
    assert seen(toy(), [all_kinds()[kind], Start(epoch, 3)], 4).rows[0] == want[epoch*iters+3]


@kinds
def test_values_are_what_a_fit_does(kind):
    cb, learn = all_kinds()[kind], toy()
    watch = seen(learn, [cb], 4, lr=.1)
    opt = OptimWrapper.create(sgd, .1, [learn.model])
    table = cb.values(4, iters, opt)
    assert set(table) == set(cb.scheduled) or 'mom' in table
    assert table['lr'] == pytest.approx(watch.column())
    for kwargs in (dict(epochs=0, iters=1), dict(epochs=1, iters=0), dict(epochs=1.5, iters=2)):
        with pytest.raises(ValueError, match='whole number'): cb.values(**kwargs, opt=opt)


@kinds
def test_validation_and_empty_fits_change_nothing(kind):
    learn = toy()
    learn.create_opt(.3)
    learn.add_cbs(all_kinds()[kind])
    learn.validate()
    learn.fit(0, .3)
    Runner(all_kinds()[kind]).evaluate(learn.data.valid_dl, learn)
    assert learn.opt.lr == .3


@kinds
def test_a_new_optimizer_in_the_middle(kind):
    "As a callback does that unfreezes layers"
    class Renew(Callback):
        order = -60
        def begin_epoch(self):
            if self.epoch == 2: self.learn.create_opt(1e-2)
    want = seen(toy(), [all_kinds()[kind]], 4).column()
    assert seen(toy(), [all_kinds()[kind], Renew()], 4).column() == pytest.approx(want)


@kinds
def test_a_loaded_optimizer_in_the_middle(kind):
    "Loading replaces the groups of the optimizer"
    class LoadState(Callback):
        def begin_epoch(self): self.opt.load_state_dict(copy.deepcopy(self.opt.state_dict()))
    want = seen(toy(), [all_kinds()[kind]], 4).column()
    assert seen(toy(), [all_kinds()[kind], LoadState()], 4).column() == want


@kinds
def test_added_in_the_middle_of_a_fit(kind):
    class Add(Callback):
        def begin_epoch(self):
            if self.epoch == 2: self.learn.add_cbs(all_kinds()[kind])
    want = seen(toy(), [all_kinds()[kind]], 4).column()
    got = seen(toy(), [Add()], 4).column()
    assert got[:10] == [1e-2]*10 and got[10:] == pytest.approx(want[10:])


@kinds
def test_copies(kind):
    cb = copy.deepcopy(all_kinds()[kind])
    assert seen(toy(), [cb], 4).rows == seen(toy(), [all_kinds()[kind]], 4).rows


@kinds
def test_a_loader_that_changes_its_length(kind):
    "The share of training stays right"
    class Halve(Callback):
        def begin_epoch(self):
            if self.epoch == 2: self.data.train_dl = self.data.train_dl[:2]
    watch = seen(toy(n=4), [all_kinds()[kind], Halve()], 4)
    want = seen(toy(n=4), [all_kinds()[kind]], 4).column()
    assert watch.column()[:8] == want[:8] and watch.column()[8] == pytest.approx(want[8])
    assert watch.column()[-1] == pytest.approx(want[14])


@kinds
def test_rivals_are_refused(kind):
    for other in (ParamScheduler('lr', sched_no(1, 1)), OneCycleScheduler(lr_max=.1),
                  TorchScheduler(make=makers['step'])):
        cb, learn = all_kinds()[kind], toy()
        for pair in ([cb, other], [other, cb]):
            with pytest.raises(ValueError, match="both schedule 'lr'") as e:
                learn.fit(1, .3, cbs=pair)
            assert type(cb).__name__ in str(e.value) and type(other).__name__ in str(e.value)
            assert learn.opt is None and learn.n_iter == 0


def test_rivals_for_momentum():
    cyclic = TorchScheduler(make=makers['one_cycle'], every='batch')
    mom = ParamScheduler('betas', lambda share: (.9, .9))
    for pair in ([cyclic, mom], [mom, cyclic]):
        with pytest.raises(ValueError, match="both schedule 'mom'"): toy(adam).fit(1, cbs=pair)
    toy().fit(1, cbs=[ParamScheduler('lr', sched_no(1, 1)), ParamScheduler('wd', sched_no(0, 0))])


def test_find_schedulers():
    cbs = all_kinds()
    run = SimpleNamespace(cbs=[Recorder(), *cbs])
    assert find_schedulers(run) == cbs == find_schedulers(run, 'lr')
    assert find_schedulers(run, 'momentum') == cbs[:3] and find_schedulers(run, 'wd') == []
    assert find_schedulers(SimpleNamespace()) == []
    assert all(cb.in_lr_find is False for cb in cbs)


def test_nothing_waits_for_validation_batches():
    calls = []

    def sched(share):
        calls.append(share)
        return .1
    toy().fit(1, cbs=ParamScheduler('lr', sched))
    assert calls[2:] == [k/iters for k in range(iters)]


# ---- plans by name -------------------------------------------------------------------------------
@pytest.mark.parametrize('make', [
    lambda: flat_cos_sched(0.), lambda: flat_cos_sched(.1, div_final=0),
    lambda: flat_cos_sched(.1, pct_start=2), lambda: sgdr_sched(1, 0, .1),
    lambda: sgdr_sched(1, 1, 0.), lambda: sgdr_sched(1, 1, .1, 0), lambda: sgdr_sched(1.5, 1, .1)])
def test_plans_refuse(make):
    with pytest.raises(ValueError, match='0|share|whole'): make()


def test_plans_for_layer_groups():
    assert flat_cos_sched([.1, .2])['lr'](.5) == [.1, .2]
    epochs, plan = sgdr_sched(2, 1, (.1, .2), 1)
    assert epochs == 2 and plan['lr'](.5) == [.1, .2] and plan['lr'](1.) == pytest.approx([0., 0.])
