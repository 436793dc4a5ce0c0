"The trackers: what counts as an improvement, what is saved, stopped and reduced, and when"
import math
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelValidateException,
)
from fastloop.callback.recorder import Recorder
from fastloop.callback.tracker import (
    EarlyStoppingCallback,
    ReduceLROnPlateauCallback,
    SaveModelCallback,
    TerminateOnNaNCallback,
    TrackerCallback,
    better_way,
)
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, OptimWrapper
from fastloop.runner import Runner

nan, inf = math.nan, math.inf


# ---- what drives them ----------------------------------------------------------------------------
class Script(Callback):
    "Fills the column `score` with numbers from a list"
    def __init__(self, values):
        super().__init__()
        self.values = values

    def begin_fit(self): self.recorder.add_metric_names('score')
    def after_epoch(self): self.recorder.values[-1][-1] = self.values[self.run.epoch]


def toy(opt=None, valid=None, groups=1, lr=1.):
    "A learner of four fields with one small batch"
    torch.manual_seed(0)
    layers = [nn.Linear(2, 2) for _ in range(groups)]
    batch = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(*layers)
    opt = opt(model.parameters()) if opt else OptimWrapper.create(SGD, lr, layers)
    return SimpleNamespace(model=model, opt=opt, loss_func=F.cross_entropy,
                           data=SimpleNamespace(train_dl=[batch], valid_dl=valid and [batch]))


def follow(values, *cbs, learn=None):
    "A run of one batch an epoch, with `values` as its scores"
    run = Runner([Recorder(), Script(values), *cbs])
    run.fit(len(values), learn or toy())
    return run


def make(path='.', valid=True, **kwargs):
    "A small learner on real tensors"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=g)
    y = x[:, :3].argmax(1)
    data = DataBunch.from_tensors(x[:24], y[:24], x[24:], y[24:], bs=8, seed=0, device='cpu',
                                  path=path)
    if not valid: data.valid_dl = None
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    return Learner(data, model, **(dict(metrics=accuracy, silent=True) | kwargs))


def weights(learn): return {k: v.clone() for k, v in learn.model.state_dict().items()}
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
def files(learn):
    folder = learn.path/learn.model_dir
    return sorted(o.name for o in folder.iterdir()) if folder.exists() else []


def through_file(state, tmp_path):
    "A state as a checkpoint would bring it back"
    torch.save(state, tmp_path/'state.pth')
    return torch.load(tmp_path/'state.pth', weights_only=True)


class Notes(Callback):
    "Keeps the weights of the end of each epoch"
    order = 50

    def begin_fit(self): self.weights = []
    def after_epoch(self): self.weights.append(weights(self.learn))


class Breaks(Callback):
    "Raises after a batch of the epoch `at`"
    def __init__(self, error, at=3):
        super().__init__()
        self.error, self.at = error, at

    def after_batch(self):
        if self.run.epoch == self.at and self.in_train: raise self.error('broken')


# ---- which way is up -----------------------------------------------------------------------------
@pytest.mark.parametrize('name, way', [
    ('valid_loss', 'min'), ('train_loss', 'min'), ('my_losses', 'min'), ('error_rate', 'min'),
    ('mean_squared_error', 'min'), ('mse', 'min'), ('exp_rmspe', 'min'), ('accuracy', 'max'),
    ('dice', 'max'), ('r2_score', 'max'), ('house', 'max')])
def test_auto_mode(name, way):
    assert better_way(name) == TrackerCallback(monitor=name).mode == way
    assert better_way(name, 'min') == 'min' and better_way(name, 'max') == 'max'


@pytest.mark.parametrize('comp, way', [(np.less, 'min'), (np.greater, 'max'), (torch.lt, 'min')])
def test_the_functions_of_fastai_v2_give_the_mode(comp, way):
    if comp is torch.lt: comp = lambda a, b: torch.lt(torch.tensor(a), torch.tensor(b))  # noqa: E731
    assert TrackerCallback(monitor='score', comp=comp).mode == way
    with pytest.raises(ValueError, match='disagree'):
        TrackerCallback(mode='max' if way == 'min' else 'min', comp=comp)


@pytest.mark.parametrize('kwargs, error, text', [
    (dict(mode='minimum'), ValueError, 'mode'), (dict(min_delta=-1), ValueError, 'min_delta'),
    (dict(min_delta=nan), ValueError, 'min_delta'), (dict(monitor=3), TypeError, 'monitor'),
    (dict(min_delta='a'), ValueError, 'min_delta'), (dict(comp=np.equal), ValueError, 'comp')])
@pytest.mark.parametrize('cls', [TrackerCallback, SaveModelCallback, EarlyStoppingCallback,
                                 ReduceLROnPlateauCallback])
def test_bad_arguments_of_all_trackers(cls, kwargs, error, text):
    with pytest.raises(error, match=text): cls(**kwargs)


@pytest.mark.parametrize('cls', [TrackerCallback, SaveModelCallback, EarlyStoppingCallback,
                                 ReduceLROnPlateauCallback])
def test_something_else_in_the_place_of_the_learner(cls):
    with pytest.raises(TypeError, match=f"{cls.__name__}.monitor='accuracy'"): cls('accuracy')


def test_the_flags_that_others_rely_on():
    orders = [cls.order for cls in (TrackerCallback, SaveModelCallback, ReduceLROnPlateauCallback,
                                    EarlyStoppingCallback)]
    assert orders == sorted(set(orders)) and orders[0] == 60
    for cls in (TrackerCallback, SaveModelCallback, ReduceLROnPlateauCallback,
                EarlyStoppingCallback, TerminateOnNaNCallback):
        assert cls.in_lr_find is False and cls.order >= 60


# ---- what is watched -----------------------------------------------------------------------------
@pytest.mark.parametrize('name, column', [
    ('train_loss', 0), ('trn_loss', 0), ('valid_loss', 1), ('val_loss', 1), ('accuracy', 2)])
def test_the_columns_that_can_be_watched(name, column):
    tracker, learn = TrackerCallback(monitor=name), make()
    learn.fit(4, 1e-2, cbs=tracker)
    values = [row[column] for row in learn.recorder.values]
    best = max(values) if name == 'accuracy' else min(values)
    assert (tracker.best, tracker.best_epoch) == (best, values.index(best))


@pytest.mark.parametrize('cls', [TrackerCallback, SaveModelCallback, EarlyStoppingCallback,
                                 ReduceLROnPlateauCallback])
def test_a_name_that_will_not_exist_is_refused_before_training(cls, tmp_path):
    learn = make(tmp_path)
    before = weights(learn)
    with pytest.raises(ValueError, match='acuracy.*train_loss.*valid_loss.*mean .accuracy'):
        learn.fit(1, cbs=cls(monitor='acuracy'))
    assert same(before, weights(learn)) and not files(learn) and learn.recorder.values == []


@pytest.mark.parametrize('monitor', ['valid_loss', 'accuracy'])
def test_validation_numbers_need_a_validation_loader(monitor):
    with pytest.raises(ValueError, match='no validation loader'):
        make(valid=False).fit(1, cbs=EarlyStoppingCallback(monitor=monitor))
    make(valid=False).fit(1, cbs=EarlyStoppingCallback(monitor='train_loss'))


def test_saving_every_epoch_needs_no_number(tmp_path):
    learn = make(tmp_path, valid=False)
    learn.fit(2, cbs=SaveModelCallback(every='epoch'))
    assert files(learn) == ['bestmodel_1.pth', 'bestmodel_2.pth']
    with pytest.raises(ValueError, match='acuracy'):
        learn.fit(1, cbs=SaveModelCallback(every='epoch', monitor='acuracy'))


def test_a_run_without_a_recorder():
    with pytest.raises(ValueError, match='recorder'): Runner(TrackerCallback()).fit(1, toy())


def test_another_callback_called_recorder_is_not_asked():
    class Other(Callback): name = 'recorder'
    tracker, learn = TrackerCallback(), make()
    learn.fit(2, cbs=[Other(), tracker])
    assert tracker.best is not None


def test_a_tracker_that_is_attached_while_a_fit_runs():
    tracker = TrackerCallback()
    class Attach(Callback):
        def after_train(self):
            if self.run.epoch == 1: self.learn.add_cb(tracker)
    learn = make()
    learn.fit(3, 1e-2, cbs=Attach())
    losses = [row[1] for row in learn.recorder.values]
    assert tracker.best == min(losses[1:]) and tracker.best_epoch >= 1


# ---- what is an improvement ----------------------------------------------------------------------
def reference(values, mode, min_delta, best=None):
    "The best value and its epoch, in plain Python"
    at = None
    for i, v in enumerate(values):
        if v is None or math.isnan(v): continue
        if mode == 'min': better = v + min_delta < (inf if best is None else best)
        else: better = v - min_delta > (-inf if best is None else best)
        if better: best, at = v, i
    return best, at


numbers = st.lists(st.one_of(st.none(), st.just(nan), st.sampled_from([inf, -inf]),
                             st.integers(-3, 3).map(float), st.floats(-3, 3)),
                   min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(numbers, st.sampled_from(['min', 'max']), st.sampled_from([0, .5, 1]))
def test_the_best_value_is_that_of_the_reference(values, mode, min_delta):
    tracker = TrackerCallback(monitor='score', mode=mode, min_delta=min_delta)
    follow(values, tracker)
    assert (tracker.best, tracker.best_epoch) == reference(values, mode, min_delta)


@settings(max_examples=30, deadline=None)
@given(numbers, st.sampled_from(['min', 'max']), st.sampled_from([0, .5]), st.integers(0, 4),
       st.integers(0, 3), st.sampled_from([None, 0., 1.]))
def test_stopping_is_that_of_the_reference(values, mode, min_delta, patience, start, baseline):
    cb = EarlyStoppingCallback(monitor='score', mode=mode, min_delta=min_delta, patience=patience,
                               start_epoch=start, baseline=baseline, verbose=False)
    run = follow(values, cb)
    sign, best, wait, stopped = (1 if mode == 'min' else -1), inf, 0, None
    for i, v in enumerate(values):
        if v is None or i < start: continue
        if sign*v + min_delta < best:  # never true for nan
            best = sign*v
            if baseline is None or sign*v + min_delta < sign*baseline: wait = -1
        wait += 1
        if wait and wait >= patience:
            stopped = i
            break
    assert (cb.stopped_epoch, cb.wait) == (stopped, wait)
    assert cb.best == (None if best == inf else sign*best)
    assert len(run.recorder.values) == (len(values) if stopped is None else stopped+1)


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, .01, 2.]))
def test_reducing_is_that_of_keras_written_down(values, patience, cooldown, min_lr):
    cb = ReduceLROnPlateauCallback(monitor='score', mode='min', patience=patience, factor=.5,
                                   cooldown=cooldown, min_lr=min_lr, verbose=False)
    run = follow(values, cb)
    lr, best, wait, counter = 1., inf, 0, 0  # the arithmetic of Keras 3, by hand
    for v in values:
        if v is None: continue
        if counter > 0: counter, wait = counter-1, 0
        if v < best: best, wait = v, 0
        elif counter == 0:
            wait += 1
            if wait >= patience and lr > min_lr:
                lr, counter, wait = max(lr*.5, min_lr), cooldown, 0
    assert run.learn.opt.lr == pytest.approx(lr)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=15), st.integers(0, 3),
       st.integers(0, 3), st.sampled_from([0., .5, 1.]), st.sampled_from(['min', 'max']))
def test_the_scheduler_of_torch_has_a_patience_of_one_less(values, patience, cooldown, delta, mode):
    opt = torch.optim.SGD([torch.zeros(1)], lr=1.)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        opt, mode, .5, patience, threshold=delta, threshold_mode='abs', cooldown=cooldown,
        min_lr=.1, eps=0)
    theirs, ours = [], []
    for v in values:
        plateau.step(v)
        theirs.append(opt.param_groups[0]['lr'])
    cb = ReduceLROnPlateauCallback(monitor='score', mode=mode, patience=patience+1, factor=.5,
                                   min_delta=delta, min_lr=.1, verbose=False,
                                   cooldown=cooldown+1 if cooldown else 0)
    class Note(Callback):
        order = 99
        def after_epoch(self): ours.append(self.learn.opt.lr)
    follow(values, cb, Note())
    floor = theirs.index(.1) if .1 in theirs else len(theirs)  # there, torch cools down for nothing
    assert ours[:floor+1] == theirs[:floor+1] and set(ours[floor+1:]) <= {.1}


# ---- stopping ------------------------------------------------------------------------------------
@pytest.mark.parametrize('values, kwargs, stopped', [
    ([3, 2, 1, 0], {}, None), ([1, 1], {}, 1), ([1, 1], dict(patience=1), 1),
    ([1, 1, 1, 1], dict(patience=2), 2), ([1, 2, .5, 2, 3, 4], dict(patience=2), 4),
    ([3, 2.9, 2.8, 2.7], dict(min_delta=.5, patience=3), 3),
    ([3, 2.9, 2.8, 2.4], dict(min_delta=.5, patience=3), None),
    ([1, 2, 3], dict(mode='max', patience=1), None), ([3, 2, 1], dict(mode='max', patience=2), 2),
    ([1, 1, 1, 1, 1, 1], dict(start_epoch=3), 4), ([0, 5, 4, 4], dict(start_epoch=1), 3),
    ([nan, nan, 1], dict(patience=2), 1), ([1, None, None, 2, None, 2], dict(patience=2), 5),
    ([nan], {}, 0), ([5, 4, 3, 2], dict(baseline=1, patience=3), 2),
    ([5, 4, 3, 2], dict(baseline=3.5, patience=3), None)])
def test_when_it_stops(values, kwargs, stopped):
    cb = EarlyStoppingCallback(monitor='score', **(dict(mode='min') | kwargs))
    run = follow(values, cb)
    assert cb.stopped_epoch == stopped
    assert len(run.recorder.values) == (len(values) if stopped is None else stopped+1)


def test_the_line_that_is_printed(capsys):
    cb = EarlyStoppingCallback(monitor='score', mode='min', patience=2)
    follow([3, 1, 2, 2], cb)
    follow([nan, nan], cb)
    follow([5, 4], EarlyStoppingCallback(monitor='score', mode='min', patience=2, baseline=1))
    follow([1, .9, .8], EarlyStoppingCallback(monitor='score', mode='min', min_delta=.5))
    follow([1, 2], EarlyStoppingCallback(monitor='score', mode='min', verbose=False))
    assert capsys.readouterr().out.splitlines() == [
        'Epoch 3: early stopping, score was not better than 1 of epoch 1 for 2 epochs',
        'Epoch 1: early stopping, score was never a number in 2 epochs',
        'Epoch 1: early stopping, score was not better than the baseline 1 for 2 epochs',
        'Epoch 1: early stopping, score was not better than 1 of epoch 0 by more than 0.5 '
        'for 1 epoch']


def test_later_callbacks_still_hear_of_the_last_epoch():
    heard = []
    class Late(Callback):
        order = 99
        def after_epoch(self): heard.append(self.run.epoch)
    follow([1, 2, 3], EarlyStoppingCallback(monitor='score', mode='min', verbose=False), Late())
    assert heard == [0, 1]


@pytest.mark.parametrize('end', ['normal', 'stopped', KeyboardInterrupt, RuntimeError,
                                 CancelFitException])
def test_restored_weights(end):
    cb = EarlyStoppingCallback(monitor='score', mode='min', restore_best=True, verbose=False,
                               patience=2 if end == 'stopped' else 9)
    notes, learn = Notes(), toy()
    extra = [] if isinstance(end, str) else [Breaks(end)]
    def fit(): follow([3, 1, 2, 2, 2], cb, notes, *extra, learn=learn)
    if end in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(end): fit()
    else: fit()
    assert same(weights(learn), notes.weights[1]) and cb.best_epoch == 1
    assert not same(weights(learn), notes.weights[-1])
    assert cb.stopped_epoch == (3 if end == 'stopped' else None)


def test_weights_stay_where_nothing_ever_improved():
    cb, notes, learn = EarlyStoppingCallback(monitor='score', restore_best=True, patience=9), \
        Notes(), toy()
    follow([nan, None, nan], cb, notes, learn=learn)
    assert same(weights(learn), notes.weights[-1]) and cb.best is None


def test_a_fit_that_fails_before_its_first_batch_restores_nothing():
    cb, learn = EarlyStoppingCallback(restore_best=True, reset_on_fit=False, patience=9), make()
    learn.fit(3, cbs=cb)
    with torch.no_grad(): learn.model[0].weight.fill_(2.)
    class Fails(Callback):
        order = 99
        def begin_fit(self): raise RuntimeError('no')
    before = weights(learn)
    with pytest.raises(RuntimeError): learn.fit(3, cbs=[cb, Fails()])
    assert same(before, weights(learn))


# ---- fits one after another ----------------------------------------------------------------------
def test_another_fit_starts_anew_unless_told_otherwise():
    anew, on = (TrackerCallback(monitor='score', mode='min', reset_on_fit=o) for o in (True, False))
    follow([3, 1], anew, on)
    follow([4, 2], anew, on)
    assert (anew.best, anew.best_epoch) == (2, 1) and (on.best, on.best_epoch) == (1, 1)


def test_counters_start_anew_even_if_the_best_value_goes_on():
    cb = EarlyStoppingCallback(monitor='score', mode='min', patience=2, reset_on_fit=False,
                               verbose=False)
    follow([1, 2, 2], cb)
    assert cb.stopped_epoch == 2
    run = follow([2, 2, 2], cb)
    assert cb.stopped_epoch == 1 and len(run.recorder.values) == 2


def test_evaluation_touches_nothing(tmp_path):
    learn = make(tmp_path)
    cbs = [SaveModelCallback(verbose=False), EarlyStoppingCallback(restore_best=True, patience=9),
           ReduceLROnPlateauCallback(patience=9), TerminateOnNaNCallback()]
    learn.fit(2, cbs=cbs)
    states = [str(cb.state_dict()) for cb in cbs]
    for p in (tmp_path/'models').iterdir(): p.unlink()
    with torch.no_grad(): learn.model[0].weight.fill_(.5)
    before = weights(learn)
    Runner([Recorder(), *cbs]).evaluate(learn.data.valid_dl, learn)
    learn.add_cbs(cbs)
    learn.validate()
    learn.get_preds()
    learn.fit(0)
    assert same(before, weights(learn)) and not files(learn)
    assert states == [str(cb.state_dict()) for cb in cbs]


# ---- a restart -----------------------------------------------------------------------------------
class BeginsLater(Callback):
    "Lets the run begin later, as a checkpoint does"
    def __init__(self, at):
        super().__init__()
        self.at = at

    def begin_fit(self): self.run.first_epoch = self.at


makers = [partial(TrackerCallback, monitor='score', mode='min'),
          partial(EarlyStoppingCallback, monitor='score', mode='min', patience=3, verbose=False),
          partial(EarlyStoppingCallback, monitor='score', mode='min', patience=9, restore_best=True,
                  verbose=False),
          partial(ReduceLROnPlateauCallback, monitor='score', mode='min', patience=2, cooldown=3,
                  factor=.5, verbose=False)]


def plain(state):
    return {k: {n: t.tolist() for n, t in v.items()} if isinstance(v, dict) else v
            for k, v in state.items()}


@pytest.mark.parametrize('make_cb', makers)
@pytest.mark.parametrize('cut', [1, 2, 3, 5])
@pytest.mark.parametrize('when', ['before', 'early', 'late'])
def test_a_run_that_goes_on_equals_one_that_was_not_broken_off(make_cb, cut, when, tmp_path):
    scores = [3, 2, 2.5, 2.2, nan, 1.9, 2, 2, 2, 2]
    whole, learn = make_cb(), toy()
    follow(scores, whole, learn=learn)
    first, second, again = make_cb(), make_cb(), toy()
    follow(scores[:cut], first, learn=again)
    state = through_file(first.state_dict(), tmp_path)
    class Loads(Callback):
        order = -50 if when == 'early' else 99
        def begin_fit(self):
            self.run.first_epoch = cut
            if when != 'before': second.load_state_dict(state)
    if when == 'before': second.load_state_dict(state)
    follow(scores, second, Loads(), learn=again)
    assert {k: v for k, v in plain(second.state_dict()).items() if k != 'best_weights'} == \
        {k: v for k, v in plain(whole.state_dict()).items() if k != 'best_weights'}
    assert again.opt.lr == learn.opt.lr
    follow([7., 8.], second)  # a fit after it starts anew, however the state was loaded
    assert (second.best, second.best_epoch) == (7, 0)


def test_best_weights_survive_a_restart(tmp_path):
    first = makers[2]()
    notes = Notes()
    follow([2, 1, 3], first, notes)
    second, learn = makers[2](), toy()
    second.load_state_dict(through_file(first.state_dict(), tmp_path))
    follow([2, 1, 3, 3, 3], second, BeginsLater(3), learn=learn)
    assert same(weights(learn), notes.weights[1])


def test_a_run_that_had_been_stopped_does_not_go_on(tmp_path, capsys):
    first, second, third = makers[1](), makers[1](verbose=True), makers[1](patience=5)
    scores = [1, 2, 2, 2, 2, 2, 2, 2]
    follow(scores, first)
    assert first.stopped_epoch == 3
    state = through_file(first.state_dict(), tmp_path)
    second.load_state_dict(state)
    learn = toy()
    before = weights(learn)
    follow(scores, second, BeginsLater(4), learn=learn)
    assert same(before, weights(learn)) and 'early stopping' in capsys.readouterr().out
    third.load_state_dict(state)  # with more patience it does
    follow(scores, third, BeginsLater(4))
    assert third.stopped_epoch == 5


# ---- reducing ------------------------------------------------------------------------------------
@pytest.mark.parametrize('scores, kwargs, lr', [
    ([1, 1], {}, .2), ([1, 1], dict(patience=1), .2), ([1, 1], dict(patience=2), 1),
    ([1, 1, 1], dict(patience=2), .2),
    ([1, 1, 1, 1], dict(patience=1, factor=.1, min_lr=.005), .005),
    ([1, 2, 3], {}, .04), ([3, 2, 1], {}, 1), ([3, 2, 1], dict(mode='max'), .04),
    ([1, .9, .8], dict(min_delta=.5), .04), ([1, None, None], {}, 1), ([1, nan], {}, .2),
    ([1, 1, 1, 1, 1], dict(cooldown=9), .2), ([1, 1, 1, 1, 1], dict(cooldown=2), .04)])
def test_when_it_reduces(scores, kwargs, lr):
    for opt in (None, partial(torch.optim.SGD, lr=1.)):
        cb = ReduceLROnPlateauCallback(monitor='score', verbose=False,
                                       **(dict(mode='min') | kwargs))
        learn = toy(opt=opt)
        follow(scores, cb, learn=learn)
        assert learn.opt.param_groups[-1]['lr'] == pytest.approx(lr)


def test_each_layer_group_has_its_rate_and_its_floor(capsys):
    for kwargs, want in [({}, [.01, .1]), (dict(min_lr=.05), [.05, .1]),
                         (dict(min_lr=[.02, .3]), [.02, .3]), (dict(min_lr=.3), [.1, .3])]:
        learn = toy(groups=2, lr=[.1, 1.])
        cb = ReduceLROnPlateauCallback(monitor='score', mode='min', factor=.1, **kwargs)
        follow([1, 1], cb, learn=learn)
        assert learn.opt.read_val('lr') == pytest.approx(want)
    assert capsys.readouterr().out.splitlines()[0] == 'Epoch 1: reducing lr to 0.1'
    with pytest.raises(ValueError, match='2'):
        follow([1], ReduceLROnPlateauCallback(monitor='score', min_lr=[1, 2]))


def test_a_rate_that_is_a_tensor():
    learn = toy(opt=partial(torch.optim.Adam, lr=torch.tensor(1.), foreach=False))
    rate = learn.opt.param_groups[0]['lr']
    follow([1, 1], ReduceLROnPlateauCallback(monitor='score', mode='min'), learn=learn)
    assert learn.opt.param_groups[0]['lr'] is rate and rate.item() == pytest.approx(.2)


def test_a_schedule_and_a_plateau_do_not_fit_together():
    class Plan(Callback): scheduled = ('mom', 'lr')
    class Momentum(Callback): scheduled = ('mom',)
    class Later(Callback):
        def __init__(self):
            super().__init__()
            self.scheduled = ['lr']
    cb = ReduceLROnPlateauCallback(monitor='score')
    for plan in (Plan(), Later()):
        learn = toy()
        before = weights(learn)
        with pytest.raises(ValueError, match=f'ReduceLROnPlateauCallback.*{type(plan).__name__}'):
            follow([1], cb, plan, learn=learn)
        assert same(before, weights(learn))
    follow([1, 2], cb, Momentum())


@pytest.mark.parametrize('kwargs, text', [
    (dict(factor=10), 'factor=0.1'), (dict(factor=1), 'factor'), (dict(factor=0), 'factor'),
    (dict(factor=nan), 'factor'), (dict(patience=-1), 'patience'),
    (dict(patience=1.5), 'patience'), (dict(cooldown=-1), 'cooldown'), (dict(min_lr=-1), 'min_lr'),
    (dict(patience=True), 'patience')])
def test_bad_arguments_of_the_plateau(kwargs, text):
    with pytest.raises(ValueError, match=text): ReduceLROnPlateauCallback(**kwargs)


@pytest.mark.parametrize('kwargs, text', [
    (dict(patience=-1), 'patience'), (dict(start_epoch=-1), 'start_epoch'),
    (dict(baseline='a'), 'baseline'), (dict(baseline=nan), 'baseline')])
def test_bad_arguments_of_stopping(kwargs, text):
    with pytest.raises(ValueError, match=text): EarlyStoppingCallback(**kwargs)


# ---- saving --------------------------------------------------------------------------------------
class Scores(Script):
    "A script for a whole learner, with its own metrics"


def save_run(tmp_path, scores, *extra, learn=None, **kwargs):
    learn = learn or make(tmp_path)
    cb, notes = SaveModelCallback(monitor='score', **(dict(mode='min', verbose=False) | kwargs)), \
        Notes()
    error = None
    try: learn.fit(len(scores), 1e-2, cbs=[Scores(scores), notes, cb, *extra])
    except BaseException as e: error = e
    return learn, cb, notes, error


def stored(learn, name): return torch.load(learn.model_file(name), weights_only=True)['model']


@pytest.mark.parametrize('kwargs, names', [
    (dict(every='epoch'), [1, 2, 3, 4, 5]), (dict(every=2), [2, 4]),
    (dict(every=1), [1, 2, 3, 4, 5]), (dict(every=9), []),
    (dict(every_epoch=True), [1, 2, 3, 4, 5]),
    (dict(every_epoch=3), [3]),
    (dict(every='epoch', keep=2), [4, 5]), (dict(every=2, keep=1), [4]),
    (dict(keep=1), [2]), (dict(keep=2), [2, 4]), (dict(keep=3), [2, 4, 5]),
    (dict(keep=9), [1, 2, 3, 4, 5]), (dict(n_batches=6), [6, 12]),
    (dict(n_batches=4, keep=1), [12])])
def test_which_files_are_there(tmp_path, kwargs, names):
    learn, cb, notes, error = save_run(tmp_path, [5, 1, 4, 2, 3], **kwargs)
    assert error is None and files(learn) == sorted(f'bestmodel_{i}.pth' for i in names)
    if 'n_batches' in kwargs: return
    for i in names: assert same(stored(learn, f'bestmodel_{i}'), notes.weights[i-1])
    best_only = cb.every == 'improvement'
    assert same(weights(learn), notes.weights[1 if best_only else -1])


def test_the_best_file_and_what_is_loaded(tmp_path, capsys):
    learn, cb, notes, _ = save_run(tmp_path, [5, 2, 4, 1, 3], verbose=True)
    assert files(learn) == ['bestmodel.pth'] and cb.last_saved_path == learn.model_file('bestmodel')
    assert same(weights(learn), notes.weights[3])
    assert same(stored(learn, 'bestmodel'), weights(learn))
    assert capsys.readouterr().out.splitlines() == [
        f'Better model found at epoch {i} with score value: {v}.'
        for i, v in [(0, 5), (1, 2), (3, 1)]]


@pytest.mark.parametrize('kwargs, name', [
    (dict(name='a/b'), 'a/b.pth'), (dict(fname='model'), 'model.pth'),
    (dict(name='x.pth'), 'x.pth')])
def test_names(tmp_path, kwargs, name):
    learn, *_, error = save_run(tmp_path, [1], **kwargs)
    assert error is None and (tmp_path/'models'/name).is_file()


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, CancelFitException,
                                   CancelEpochException, SystemExit])
@pytest.mark.parametrize('keep', [None, 2])
def test_the_best_weights_are_loaded_whatever_ended_the_training(tmp_path, error, keep):
    learn, cb, notes, raised = save_run(tmp_path, [5, 1, 4, 3, 2], Breaks(error), keep=keep)
    if error in (CancelFitException, CancelEpochException): assert raised is None
    else: assert type(raised) is error and 'broken' in str(raised)
    assert same(weights(learn), notes.weights[1])
    learn.fit(1, 1e-2)
    assert all(p.isfinite().all() for p in learn.model.parameters())


@pytest.mark.parametrize('with_opt', [True, False])
def test_the_optimizer_goes_along(tmp_path, with_opt):
    learn, *_ = save_run(tmp_path, [1, 2], with_opt=with_opt)
    assert ('opt' in torch.load(learn.model_file('bestmodel'), weights_only=True)) == with_opt
    steps = {int(s['step']) for s in learn.opt.state_dict()['state'].values()}
    assert steps == ({3} if with_opt else {6})


def test_a_stale_file_is_never_loaded(tmp_path):
    old = make(tmp_path)
    with torch.no_grad(): old.model[0].weight.fill_(9.)
    old.save('bestmodel')
    learn, cb, notes, _ = save_run(tmp_path, [nan, None, nan])
    assert cb.saved == [] and same(weights(learn), notes.weights[-1])
    assert same(stored(learn, 'bestmodel'), weights(old))  # and stays what it was


def test_a_second_fit_does_not_load_what_the_first_one_saved(tmp_path):
    learn = make(tmp_path)
    cb, notes = SaveModelCallback(monitor='score', mode='min', verbose=False), Notes()
    learn.fit(2, cbs=[Scores([1, 2]), cb, notes])
    learn.fit(2, cbs=[Scores([nan, nan]), cb, notes])
    assert same(weights(learn), notes.weights[-1])


def test_a_fit_that_goes_on_loads_the_best_of_both(tmp_path):
    learn, first, notes, _ = save_run(tmp_path, [3, 1, 2])
    best, second = notes.weights[1], SaveModelCallback(monitor='score', mode='min', verbose=False)
    second.load_state_dict(through_file(first.state_dict(), tmp_path))
    learn.fit(5, 1e-2, cbs=[Scores([3, 1, 2, 2, 2]), second, BeginsLater(3)])
    assert same(weights(learn), best) and (second.best, second.best_epoch) == (1, 1)


full = OSError(28, 'No space left on device')


def fail_from(learn, first, error=full):
    "Let every save fail, beginning with number `first`"
    real, calls = learn.save, []
    def save(name, with_opt=True):
        calls.append(name)
        if len(calls) >= first: raise error
        return real(name, with_opt=with_opt)
    learn.save = save


@pytest.mark.parametrize('every', ['improvement', 'epoch'])
def test_a_first_file_that_cannot_be_written_ends_the_fit(tmp_path, every):
    learn = make(tmp_path)
    fail_from(learn, 1)
    _, cb, notes, error = save_run(tmp_path, [3, 2, 1], learn=learn, every=every)
    assert isinstance(error, OSError) and len(notes.weights) == 1 and not files(learn)


def test_a_later_failure_costs_a_warning(tmp_path):
    learn = make(tmp_path)
    fail_from(learn, 2)
    with pytest.warns(UserWarning, match='bestmodel could not be written.*No space'):
        _, cb, notes, error = save_run(tmp_path, [3, 2, 4, 1], learn=learn)
    assert error is None and len(notes.weights) == 4
    assert same(weights(learn), notes.weights[0]) and (cb.best, cb.best_epoch) == (3, 0)
    assert files(learn) == ['bestmodel.pth']


def test_a_disk_that_is_full_for_a_while(tmp_path):
    learn = make(tmp_path)
    real, calls = learn.save, []
    def save(name, with_opt=True):
        calls.append(name)
        if len(calls) == 2: raise OSError('full')
        return real(name, with_opt=with_opt)
    learn.save = save
    with pytest.warns(UserWarning, match='full'):
        _, cb, notes, _ = save_run(tmp_path, [3, 1, 2], learn=learn)
    assert same(weights(learn), notes.weights[2]) and cb.best == 2  # better than the file's 3


def test_an_interrupted_save_leaves_the_best_file_that_exists(tmp_path):
    learn = make(tmp_path)
    fail_from(learn, 2, KeyboardInterrupt())
    _, cb, notes, error = save_run(tmp_path, [3, 1], learn=learn)
    assert isinstance(error, KeyboardInterrupt) and same(weights(learn), notes.weights[0])
    assert cb.best == 3


def test_a_file_that_cannot_be_removed_costs_a_warning(tmp_path, monkeypatch):
    learn = make(tmp_path)
    def refuse(self, missing_ok=False): raise PermissionError('no')
    monkeypatch.setattr('pathlib.PosixPath.unlink', refuse)
    with pytest.warns(UserWarning, match='bestmodel_1 could not be removed'):
        *_, error = save_run(tmp_path, [1, 2], learn=learn, every='epoch', keep=1)
    assert error is None


@pytest.mark.parametrize('name', ['../up', 'a/../../up', '..', '', 'a\0b'])
def test_names_that_would_leave_the_folder(name):
    with pytest.raises(ValueError, match='name'): SaveModelCallback(name=name)


def test_absolute_names_and_links_are_refused_before_training(tmp_path):
    learn, outside = make(tmp_path/'in'), tmp_path/'outside'
    outside.mkdir()
    (tmp_path/'in'/'models').mkdir(parents=True)
    (tmp_path/'in'/'models'/'link').symlink_to(outside)
    before = weights(learn)
    for name in (str(outside/'a'), 'link/a'):
        with pytest.raises(ValueError, match='leave the folder'):
            learn.fit(1, cbs=SaveModelCallback(name=name))
    assert same(before, weights(learn)) and not list(outside.iterdir())


@pytest.mark.parametrize('kwargs, text', [
    (dict(every='epcoh'), "mean 'epoch'"), (dict(every=0), 'every'), (dict(every=-1), 'every'),
    (dict(every=True), 'every'), (dict(every=None), 'every'), (dict(every=1.5), 'every'),
    (dict(every='batches'), 'every'), (dict(keep=0), 'keep'), (dict(n_batches=0), 'n_batches'),
    (dict(every='epoch', every_epoch=True), 'only one'), (dict(every=2, n_batches=3), 'only one'),
    (dict(at_end=True, every_epoch=True), 'at_end'), (dict(baseline='x'), 'baseline')])
def test_bad_arguments_of_saving(kwargs, text):
    with pytest.raises(ValueError, match=text): SaveModelCallback(**kwargs)
    with pytest.raises(TypeError, match='name'): SaveModelCallback(name=3)


def test_a_learner_that_cannot_save():
    toy_learn = toy()
    with pytest.raises(TypeError, match='save and load'):
        follow([1], SaveModelCallback(monitor='score'), learn=BasicLearner(
            toy_learn.model, toy_learn.opt, toy_learn.loss_func, toy_learn.data))


def test_at_end_saves_the_last_weights_and_loads_nothing(tmp_path):
    learn, cb, notes, _ = save_run(tmp_path, [1, 2, 3], at_end=True)
    assert same(weights(learn), notes.weights[-1])
    assert same(stored(learn, 'bestmodel'), weights(learn))


def test_nothing_is_loaded_if_nobody_wants_it(tmp_path):
    learn, cb, notes, _ = save_run(tmp_path, [1, 2, 3], load_at_end=False)
    assert same(weights(learn), notes.weights[-1])
    assert same(stored(learn, 'bestmodel'), notes.weights[0])


@pytest.mark.parametrize('keep', [None, 3])
def test_a_baseline_has_to_be_beaten_first(tmp_path, keep):
    learn, cb, notes, _ = save_run(tmp_path, [5, 4, 2, 3.5], baseline=3, keep=keep)
    assert [o[1] for o in cb.saved] == [2] and cb.best == 2


def test_an_epoch_without_validation_is_passed_over(tmp_path):
    class Skips(Callback):
        def begin_validate(self):
            if self.run.epoch == 1: raise CancelValidateException
    learn, cb = make(tmp_path), SaveModelCallback(verbose=False, keep=9)
    learn.fit(3, 1e-2, cbs=[cb, Skips()])
    assert learn.recorder.values[1][1] is None
    assert files(learn) == ['bestmodel_1.pth', 'bestmodel_3.pth']


@settings(max_examples=15, deadline=None)
@given(st.lists(st.one_of(st.none(), st.just(nan), st.floats(-9, 9)), min_size=1, max_size=8),
       st.integers(1, 3), st.sampled_from(['min', 'max']))
def test_the_best_files_are_those_of_a_sorted_list(tmp_path_factory, scores, keep, mode):
    written = {}
    class InMemory(SaveModelCallback):
        def write_file(self, name): written[name] = self.run.epoch
        def read_file(self, name): self.read = name
        def remove_file(self, name): del written[name]
    learn = make(tmp_path_factory.getbasetemp())
    cb = InMemory(monitor='score', mode=mode, keep=keep, verbose=False)
    learn.fit(len(scores), cbs=[Scores(scores), cb])
    known = [(v, i) for i, v in enumerate(scores) if v is not None and not math.isnan(v)]
    known.sort(key=lambda o: o[0] if mode == 'min' else -o[0])
    assert sorted(written.values()) == sorted(i for _, i in known[:keep])
    if known: assert cb.read == f'bestmodel_{known[0][1]+1}'


# ---- nan -----------------------------------------------------------------------------------------
class Spoils(Callback):
    "Makes the loss of one batch what it should not be"
    def __init__(self, value, epoch, batch):
        super().__init__()
        self.value, self.at = value, (epoch, batch)

    def after_loss(self):
        if self.in_train and (self.run.epoch, self.run.iter) == self.at:
            self.run.loss = self.run.loss*self.value


class Aside(TerminateOnNaNCallback):
    "Treats the losses as on a device that must not be waited for"
    def sees_at_once(self, loss): return False


@pytest.mark.parametrize('value, text', [(nan, 'nan'), (inf, 'inf'), (-inf, '-inf')])
def test_nan_stops_before_the_weights_are_ruined(value, text, capsys):
    heard = []
    class Hears(Callback):
        order = 99
        def begin_validate(self): heard.append(self.run.epoch)
        def after_cancel_fit(self): heard.append('cancelled')
    learn, cb = make(), TerminateOnNaNCallback()
    learn.fit(4, .1, cbs=[cb, Spoils(value, 2, 1), Hears()])
    assert capsys.readouterr().out == (f'Epoch/Batch (2/1): loss is {text} at learning rate 0.1, '
                                       'training stopped\n')
    assert cb.stopped_at == (2, 1) and str(cb.bad_loss) == text and heard == [0, 1, 'cancelled']
    assert all(p.isfinite().all() for p in learn.model.parameters())
    assert len(learn.recorder.values) == 2


@pytest.mark.parametrize('n, noticed', [(1, 1), (2, 1), (3, 2), (50, 2)])
def test_losses_that_are_looked_at_later(n, noticed, capsys):
    last = []
    class Last(Callback):
        order = 1
        def after_loss(self): last.append((self.run.epoch, self.run.iter, self.in_train))
    learn, cb = make(), Aside(n_batches=n)
    learn.fit(4, .1, cbs=[cb, Spoils(nan, 1, 1), Last()])
    assert cb.stopped_at == (1, 1) and '(1/1): loss is nan' in capsys.readouterr().out
    assert last[-1] == (1, noticed, True) and cb.waiting == []  # no validation, nothing held


def test_looking_later_reads_no_number_in_a_batch(monkeypatch):
    cb, reads = Aside(n_batches=100), []
    real = cb.check
    cb.check = lambda: (reads.append(cb.run.iter), real())
    make().fit(2, cbs=cb)
    assert reads == [2, 2] and cb.stopped_at is None


def test_validation_losses_do_not_stop_training():
    class Spoil(Callback):
        def after_loss(self):
            if not self.in_train: self.run.loss = self.run.loss*nan
    learn, cb = make(), TerminateOnNaNCallback()
    learn.fit(2, cbs=[cb, Spoil()])
    assert cb.stopped_at is None and len(learn.recorder.values) == 2


def test_an_error_instead_of_an_end():
    with pytest.raises(RuntimeError, match=r'\(0/1\): loss is inf'):
        make().fit(1, cbs=[TerminateOnNaNCallback(raise_error=True), Spoils(inf, 0, 1)])


def test_nan_and_then_another_fit(capsys):
    cb, learn = TerminateOnNaNCallback(verbose=False), make()
    learn.fit(1, cbs=[cb, Spoils(nan, 0, 0)])
    assert cb.stopped_at == (0, 0) and capsys.readouterr().out == ''
    learn.fit(1, cbs=cb)
    assert cb.stopped_at is None


def test_losses_not_looked_at_survive_a_restart(tmp_path):
    states = []
    class Takes(Callback):
        order = 99
        def after_batch(self):
            if self.in_train and self.run.iter == 1: states.append(first.state_dict())
    first, second = Aside(verbose=False), Aside(verbose=False)
    make().fit(1, .1, cbs=[first, Spoils(nan, 0, 1), Takes()])
    state = through_file(states[0], tmp_path)
    assert [o[1:] for o in state['waiting']] == [(0, 0, .1), (0, 1, .1)]
    second.load_state_dict(state)
    make().fit(1, .1, cbs=second)
    assert second.stopped_at == (0, 1)
    make().fit(1, .1, cbs=second)
    assert second.stopped_at is None


def test_the_best_weights_after_nan(tmp_path):
    learn, cb, notes, _ = save_run(tmp_path, [3, 1, 2, 2], TerminateOnNaNCallback(verbose=False),
                                   Spoils(nan, 3, 1))
    assert same(weights(learn), notes.weights[1])


@pytest.mark.parametrize('n', [0, -1, 1.5, None])
def test_bad_number_of_batches(n):
    with pytest.raises(ValueError, match='n_batches'): TerminateOnNaNCallback(n_batches=n)


# ---- several together, and in other words --------------------------------------------------------
def test_save_reduce_and_stop_in_one_run(tmp_path):
    notes = Notes()
    learn = make(tmp_path)
    scores = [3, 2, 1, 2, 2, 2, 2, 2, 2]
    kwargs = dict(monitor='score', mode='min', verbose=False)
    save, reduce, stop = SaveModelCallback(**kwargs), ReduceLROnPlateauCallback(
        patience=2, factor=.5, **kwargs), EarlyStoppingCallback(patience=5, **kwargs)
    learn.fit(9, .1, cbs=[stop, reduce, save, Scores(scores), notes, TerminateOnNaNCallback()])
    assert stop.stopped_epoch == 7 and len(notes.weights) == 8
    assert [learn.recorder.lrs[3*i] for i in range(8)] == [.1]*5 + [.05]*2 + [.025]
    assert same(weights(learn), notes.weights[2]) and save.best_epoch == 2


def test_what_fastai_v1_wrote(tmp_path):
    learn = make(tmp_path, callback_fns=[partial(EarlyStoppingCallback, monitor='accuracy',
                                                 patience=2)])
    learn.fit(3, 1e-4, callbacks=[SaveModelCallback(learn, every='epoch', monitor='accuracy')])
    assert learn.early_stopping.monitor == 'accuracy' and learn.early_stopping.mode == 'max'
    assert files(learn)[0] == 'bestmodel_1.pth' and learn.save_model_callback is learn.save_model
    learn.fit(1, callbacks=[SaveModelCallback(learn, 'val_loss', 'auto', 'improvement', 'best'),
                            EarlyStoppingCallback(learn, 'valid_loss', 'auto', .01, 3),
                            ReduceLROnPlateauCallback(learn, 'valid_loss', 'auto', 3, .2, .01)])
    assert 'best.pth' in files(learn)


def test_what_fastai_v2_wrote(tmp_path):
    learn = make(tmp_path)
    learn.fit(3, 1e-2, cbs=[
        EarlyStoppingCallback(monitor='valid_loss', comp=np.less, min_delta=.1, patience=1),
        SaveModelCallback(monitor='accuracy', comp=np.greater, fname='model', with_opt=True)])
    assert files(learn) == ['model.pth']


def test_a_translator_can_change_where_the_value_comes_from_and_when_it_is_looked_at(tmp_path):
    seen = []
    class Checkpoint(SaveModelCallback):
        logs = dict(val_loss=None)
        def find_column(self): return None
        def get_monitor_value(self): return self.logs.get(self.monitor)
        def file_name(self): return f'w.{self.run.epoch+1:02d}-{self.logs["val_loss"]:.2f}'
        def is_due(self): return (self.run.epoch+1) % 2 == 0
        def say(self, line): seen.append(line)
    class Logs(Callback):
        def after_epoch(self): Checkpoint.logs = dict(val_loss=1/(self.run.epoch+1))
    learn = make(tmp_path)
    learn.fit(4, cbs=[Logs(), Checkpoint(monitor='val_loss', load_at_end=False)])
    assert files(learn) == ['w.02-0.50.pth', 'w.04-0.25.pth'] and len(seen) == 2


def test_lines_stay_above_the_bars(monkeypatch, capsys):
    learn = make(silent=False)
    shown = []
    learn.progress.show_line = shown.append
    learn.fit(3, cbs=EarlyStoppingCallback(baseline=-9., patience=2))
    assert len([o for o in shown if 'early stopping' in o]) == 1 and not capsys.readouterr().out


# ---- faults --------------------------------------------------------------------------------------
own = ['begin_fit', 'after_batch', 'after_epoch', 'after_fit']  # of variants, the events they use
fault_makers = {
    'tracker': (lambda learn: TrackerCallback(), own, (2,)),
    'save': (lambda learn: SaveModelCallback(verbose=False), None, (2,)),
    'every epoch': (lambda learn: SaveModelCallback(every='epoch', keep=1), own, (2,)),
    'n_batches': (lambda learn: SaveModelCallback(n_batches=2, keep=1), own, (4,)),
    'stop': (lambda learn: EarlyStoppingCallback(restore_best=True, verbose=False, patience=9),
             None, (2,)),
    'reduce': (lambda learn: ReduceLROnPlateauCallback(verbose=False), None, (2,)),
    'nan': (lambda learn: TerminateOnNaNCallback(), None, (2,)),
    'nan, later': (lambda learn: Aside(n_batches=2), ['after_loss', *own], (2, 3))}


@pytest.mark.parametrize('which', fault_makers)
def test_faults(which, tmp_path):
    make_cb, names, nth = fault_makers[which]
    def check(learn, cb):
        assert not [o for o in files(learn) if o.endswith('.tmp') or o.startswith('.')]
        assert not getattr(cb, 'watching', False) and not getattr(cb, 'waiting', ())
        if isinstance(cb, SaveModelCallback) and cb.every == 'improvement' and cb.saved:
            assert same(weights(learn), stored(learn, 'bestmodel'))
        if getattr(cb, 'best_weights', None): assert same(weights(learn), cb.best_weights)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_faults(lambda: make(tmp_path), make_cb, names, nth, check=check)
