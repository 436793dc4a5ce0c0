"Saving: which files are there, which weights are loaded, and what a full disk costs"
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
    Scores,
    check_all_put_back,
    files,
    follow,
    make,
    own,
    same,
    save_run,
    stored,
    through_file,
    toy,
    weights,
)

from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelValidateException,
)
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateauCallback
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner

nan = math.nan


# ---- saving --------------------------------------------------------------------------------------
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


@pytest.mark.parametrize('kwargs, names', [
    (dict(keep=2), [1, 3]), (dict(every='epoch'), [1, 2, 3, 4, 5]),
    (dict(every='epoch', keep=3), [3, 4, 5]), (dict(n_batches=6), [6, 12])])
def test_a_fit_that_keeps_the_best_of_the_one_before_overwrites_none_of_its_files(
        tmp_path, kwargs, names):
    learn = make(tmp_path)  # three batches an epoch
    cb, notes = SaveModelCallback(monitor='score', mode='min', verbose=False, reset_on_fit=False,
                                  **kwargs), Notes()
    learn.fit(2, cbs=[Scores([1, 5]), cb, notes])
    learn.fit(3, cbs=[Scores([2, 4, 9]), cb])
    assert files(learn) == sorted(f'bestmodel_{i}.pth' for i in names)
    if kwargs != dict(keep=2): return
    assert cb.best == 1 and same(stored(learn, 'bestmodel_1'), notes.weights[0])
    assert same(weights(learn), notes.weights[0])
    with pytest.raises(RuntimeError):
        learn.fit(3, cbs=[Scores([9, .5, 9]), cb, CheckpointCallback(), Breaks(RuntimeError, 2)])
    other = SaveModelCallback(monitor='score', mode='min', reset_on_fit=False, keep=2)
    learn.fit(3, cbs=[Scores([9, .5, .2]), other, CheckpointCallback()], resume=True)
    assert [name for *_, name in other.saved] == ['bestmodel_8', 'bestmodel_7']


@pytest.mark.parametrize('one, two, clash', [
    ({}, dict(monitor='valid_loss'), True), (dict(name='a.pth'), dict(name='a'), True),
    (dict(keep=2), dict(every='epoch'), True), (dict(n_batches=2), dict(every=2), True),
    (dict(keep=2, at_end=True), {}, True), ({}, dict(every='epoch'), False),
    ({}, dict(name='b'), False), (dict(keep=2), {}, False),
    (dict(at_end=True), dict(keep=2), False)])
def test_two_that_would_overwrite_the_files_of_each_other_are_refused(tmp_path, one, two, clash):
    learn, kwargs = make(tmp_path), dict(monitor='score', mode='min', verbose=False)
    cbs = [SaveModelCallback(**(kwargs | o)) for o in (one, two)]
    def fit(): learn.fit(1, cbs=[Scores([1]), *cbs])
    if not clash: return fit()
    with pytest.raises(ValueError, match='another name'): fit()
    assert learn.n_iter == 0 and not files(learn)


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
@pytest.mark.parametrize('make_cb, names, nth', [
    (lambda learn: SaveModelCallback(verbose=False), None, (2,)),
    (lambda learn: SaveModelCallback(every='epoch', keep=1), own, (2,)),
    (lambda learn: SaveModelCallback(n_batches=2, keep=1), own, (4,))])
def test_faults(tmp_path, make_cb, names, nth):
    check_all_put_back(tmp_path, make_cb, names, nth)


# ---- a folder that cannot be written -------------------------------------------------------------
@pytest.mark.parametrize('name', ['best', 'deep/er/best'])
def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path, name):
    (tmp_path/'models').write_text('a file where the folder should be')
    x, y = torch.randn(8, 2), torch.arange(8) % 2
    learn = Learner(DataBunch.from_tensors(x, y, x, y, device='cpu'), torch.nn.Linear(2, 2),
                    path=tmp_path, silent=True, cbs=SaveModelCallback(name=name))
    before = learn.model.weight.clone()
    with pytest.raises(OSError, match='models'): learn.fit(1)
    assert torch.equal(before, learn.model.weight) and len(list(tmp_path.iterdir())) == 1
