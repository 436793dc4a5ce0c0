"The trackers: what counts as an improvement, what is stopped and reduced, and when"
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    BeginsLater,
    Breaks,
    Notes,
    Script,
    check_all_put_back,
    files,
    follow,
    make,
    own,
    same,
    through_file,
    toy,
    weights,
)

from fastloop.callback.core import (
    Callback,
    CancelFitException,
)
from fastloop.callback.recorder import Recorder
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import (
    EarlyStoppingCallback,
    ReduceLROnPlateauCallback,
    TrackerCallback,
    better_way,
)
from fastloop.runner import Runner

nan, inf = math.nan, math.inf


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
    assert learn.recorder.values[-1][tracker.idx] == values[-1]


@pytest.mark.parametrize('cls', [TrackerCallback, SaveModelCallback, EarlyStoppingCallback,
                                 ReduceLROnPlateauCallback])
def test_a_name_that_will_not_exist_is_refused_before_training(cls, tmp_path):
    learn = make(tmp_path)
    before = weights(learn)
    with pytest.raises(ValueError, match='acuracy.*train_loss.*valid_loss.*mean .accuracy'):
        learn.fit(1, cbs=cls(monitor='acuracy'))
    assert same(before, weights(learn)) and not files(learn) and learn.recorder.values == []


@pytest.mark.parametrize('cls', [SaveModelCallback, EarlyStoppingCallback])
def test_a_column_of_texts_cannot_be_watched(cls, tmp_path):
    with pytest.raises(ValueError, match="monitor='score': 'warm-up' in epoch 1 is no number"):
        make(tmp_path).fit(3, cbs=[Script([.5, 'warm-up', .4]), cls(monitor='score')])


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
            if self.run.epoch == 1: self.learn.add_cbs(tracker)
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


class Counts(torch.nn.Linear):
    "Counts its batches in a state beside the weights"
    seen: dict = {}
    def forward(self, x):
        if self.training: self.seen = {**self.seen} if not self.seen else self.seen
        if self.training: self.seen['batches'] = self.seen.get('batches', 0) + 1
        return super().forward(x)

    def get_extra_state(self): return self.seen
    def set_extra_state(self, state): self.seen = state


def test_restored_weights_have_the_extra_state_of_their_epoch():
    learn = toy()
    learn.model = Counts(learn.model[0].in_features, learn.model[-1].out_features)
    follow([3, 1, 2, 2], EarlyStoppingCallback(monitor='score', mode='min', restore_best=True,
                                               patience=9), learn=learn)
    assert learn.model.seen == {'batches': 2*len(learn.data.train_dl)}


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


# ---- faults --------------------------------------------------------------------------------------
@pytest.mark.parametrize('make_cb, names, nth', [
    (lambda learn: TrackerCallback(), own, (2,)),
    (lambda learn: EarlyStoppingCallback(restore_best=True, verbose=False, patience=9), None, (2,)),
    (lambda learn: ReduceLROnPlateauCallback(verbose=False), None, (2,))])
def test_faults(tmp_path, make_cb, names, nth):
    check_all_put_back(tmp_path, make_cb, names, nth)
