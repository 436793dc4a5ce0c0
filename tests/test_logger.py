"Loggers: files that survive, lists, and functions of the user"
import csv
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
import torch
from faults import check_faults
from logged import HalfDisk, brief, make, open_files
from processes import Program

from fastloop import rows
from fastloop.callback.core import Callback, CancelFitException, UnknownEvent, event_names, events
from fastloop.callback.logger import (
    CSVLogger,
    History,
    LambdaCallback,
    LoggedTable,
    accepts,
    check_functions,
    read_table,
)
from fastloop.callback.recorder import Recorder
from fastloop.callback.remote import (
    RemoteMonitor,
)
from fastloop.rows import row_ends
from fastloop.runner import Runner

pandas = pytest.importorskip('pandas')


class AddsColumn(Callback):
    "Announces a column in `begin_fit` and fills it"
    def __init__(self, order, values=(.1, .2, .3, .4), name='rate'):
        self.order, self.column, self.numbers = order, name, values
    def begin_fit(self): self.recorder.add_metric_names(self.column)
    def after_epoch(self):
        if self.order < 70: self.recorder.values[-1][-1] = self.numbers[self.run.epoch]


def cells(path): return list(csv.reader(open(path, newline='')))


# ---- tables that were read -----------------------------------------------------------------------
@pytest.mark.parametrize('separator', ['', ', ', '"', '\n', '\0', None, 1])
def test_bad_separator(separator):
    with pytest.raises(ValueError, match='separator='): CSVLogger(separator=separator)


def test_table_without_pandas():
    table = LoggedTable(['epoch', 'a'], [[0, None], [1, .5]])
    assert table['a'] == [None, .5] and table[-1] == {'epoch': 1, 'a': .5} and len(table) == 2
    assert '#na#' in repr(table) and list(table) == [table[0], table[1]]
    with pytest.raises(KeyError, match='epoch, a'): table['b']


def test_empty_file_is_no_table(tmp_path):
    (tmp_path/'a.csv').touch()
    with pytest.raises(ValueError, match='a.csv is empty'): read_table(tmp_path/'a.csv')


# ---- CSVLogger -----------------------------------------------------------------------------------
def test_the_example_of_the_documentation(tmp_path):
    learn = make(tmp_path, callback_fns=[CSVLogger])
    learn.fit(3)
    frame = learn.csv_logger.read_logged_file()
    assert list(frame.columns) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert frame[['train_loss', 'valid_loss', 'accuracy']].values.tolist() == learn.recorder.values
    assert frame.epoch.tolist() == [0, 1, 2] and learn.csv_logger.path == tmp_path/'history.csv'
    own = pandas.read_csv(tmp_path/'history.csv', na_values='#na#')
    pandas.testing.assert_frame_equal(frame, own)
    pandas.testing.assert_frame_equal(frame, learn.csv_logger.read_log())


def test_without_validation_there_is_na(tmp_path):
    learn = make(tmp_path, valid=False)
    learn.fit(2, cbs=CSVLogger())
    rows = cells(tmp_path/'history.csv')
    assert [row[2:4] for row in rows[1:]] == [['#na#', '#na#']]*2
    frame = learn.csv_logger.read_logged_file()
    assert frame.valid_loss.isna().all()
    own = pandas.read_csv(tmp_path/'history.csv', na_values='#na#')
    pandas.testing.assert_frame_equal(frame, own)


def test_without_pandas_there_is_a_table_of_our_own(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    learn = make(tmp_path, cbs=CSVLogger)
    learn.fit(2)
    table = learn.csv_logger.read_logged_file()
    assert isinstance(table, LoggedTable)
    assert table['train_loss'] == [row[0] for row in learn.recorder.values]


@pytest.mark.parametrize('order', [0, 69, 200])
def test_columns_of_others_are_there_whatever_their_order(tmp_path, order):
    make(tmp_path).fit(2, cbs=[CSVLogger(), AddsColumn(order)])
    assert read_table(tmp_path/'history.csv')['rate'] == ([.1, .2] if order < 70 else [None, None])


def test_a_column_that_comes_in_mid_run(tmp_path):
    class Late(Callback):
        def after_epoch(self):
            if self.run.epoch == 1: self.recorder.add_metric_names('late, "very"')
            if self.run.epoch == 2: self.recorder.values[-1][-1] = torch.tensor(.5)
    make(tmp_path).fit(3, cbs=[CSVLogger(), Late()])
    table = read_table(tmp_path/'history.csv')
    assert table.columns[-2:] == ['late, "very"', 'time']
    assert table['late, "very"'] == [None, None, .5] and table['epoch'] == [0, 1, 2]


@pytest.mark.parametrize('event, order, first', [
    ('begin_epoch', 99, 1), ('begin_train', 0, 1), ('after_validate', 0, 1), ('after_epoch', 0, 2),
    ('after_epoch', 99, 2)])
def test_a_logger_attached_while_a_fit_runs(tmp_path, event, order, first):
    class Attaches(Callback):
        def attach(self):
            alone = len(self.learn.cbs) == before
            if self.run.epoch == 1 and alone: self.learn.add_cbs(CSVLogger())
    Attaches.order = order
    setattr(Attaches, event, Attaches.attach)
    learn, attaches = make(tmp_path), Attaches()
    learn.add_cbs(attaches)
    before = len(learn.cbs)
    learn.fit(4)
    table = read_table(tmp_path/'history.csv')
    assert table['epoch'] == list(range(first, 4))
    assert table['train_loss'] == [row[0] for row in learn.recorder.values[first:]]


def test_names_of_metrics_may_be_odd(tmp_path):
    odd = 'F1, "macro"\n(%)'
    def metric(pred, yb): return torch.tensor(.5)
    metric.__name__ = odd
    learn = make(tmp_path, metrics=[metric])
    learn.fit(1, cbs=CSVLogger(separator=';'))
    assert learn.csv_logger.read_logged_file()[odd].tolist() == [.5]
    assert len(row_ends((tmp_path/'history.csv').read_bytes())) == 2


def test_append_and_replace(tmp_path):
    learn = make(tmp_path, cbs=CSVLogger(append=True))
    learn.fit(2)
    learn.fit(1)
    assert read_table(tmp_path/'history.csv')['epoch'] == [0, 1, 0]
    make(tmp_path).fit(1, cbs=CSVLogger())
    assert read_table(tmp_path/'history.csv')['epoch'] == [0]


def test_a_header_that_does_not_match_ends_the_fit_before_it_trains(tmp_path):
    (tmp_path/'history.csv').write_text('epoch,loss\n0,1.0\n')
    learn = make(tmp_path)
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(ValueError, match='epoch, loss, this run has epoch, train_loss'):
        learn.fit(1, cbs=CSVLogger(append=True))
    assert all(map(torch.equal, before, learn.model.parameters()))
    assert (tmp_path/'history.csv').read_text() == 'epoch,loss\n0,1.0\n'


@pytest.mark.parametrize('append', [False, True])
def test_two_loggers_of_one_file_are_refused(tmp_path, append):
    learn = make(tmp_path, cbs=CSVLogger(append=append))
    with pytest.raises(ValueError, match='history.csv'):
        learn.fit(1, cbs=CSVLogger(filename='history.csv', append=append))
    assert not (tmp_path/'history.csv').exists() and learn.n_iter == 0
    learn.fit(1, cbs=CSVLogger(filename='other'))
    assert [len(read_table(tmp_path/f'{o}.csv')) for o in ('history', 'other')] == [1, 1]


def test_nothing_is_written_when_nothing_is_trained(tmp_path):
    learn = make(tmp_path, cbs=[CSVLogger(), History(), RemoteMonitor()])
    learn.fit(0)
    learn.validate()
    learn.get_preds()
    Runner([Recorder(), CSVLogger(learn)]).evaluate(learn.data.valid_dl, learn)
    assert not (tmp_path/'history.csv').exists() and learn.remote_monitor.sender.thread is None


@pytest.mark.parametrize('name', ['../a', 'b/../../a', '..'])
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match='leave the folder'): CSVLogger(filename=name)


def test_names_that_leave_the_folder_by_a_link_or_from_the_root(tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'out').symlink_to(tmp_path)
    for name in ('out/a', str(tmp_path/'a')):
        with pytest.raises(ValueError, match='leave the folder'):
            make(tmp_path/'in').fit(1, cbs=CSVLogger(filename=name))
    assert [o.name for o in tmp_path.iterdir()] == ['in']


def test_names_of_files(tmp_path):
    for name, want in [('a', 'a.csv'), ('a.csv', 'a.csv'), ('b/c.log', 'b/c.log.csv'),
                       (Path('d'), 'd.csv'), (str(tmp_path/'e'), 'e.csv')]:
        make(tmp_path/'new').fit(0)
        make(tmp_path).fit(1, cbs=CSVLogger(filename=name))
        assert (tmp_path/want).exists()
    make(tmp_path/'new'/'folder').fit(1, cbs=CSVLogger(fname='history.csv'))
    assert (tmp_path/'new'/'folder'/'history.csv').exists()
    for bad in (7, b'a'):
        with pytest.raises(TypeError, match='filename'): CSVLogger(filename=bad)
    with pytest.raises(TypeError, match="filename='a'"): CSVLogger('a')


def test_reading_before_writing(tmp_path):
    with pytest.raises(ValueError, match='fit first'): CSVLogger().read_logged_file()
    with pytest.raises(FileNotFoundError): CSVLogger(make(tmp_path)).read_logged_file()


@pytest.mark.parametrize('cls', [CSVLogger, History, RemoteMonitor])
def test_without_a_recorder_there_is_nothing_to_log(tmp_path, cls):
    learn = make(tmp_path)
    learn.create_opt()
    with pytest.raises(ValueError, match='Recorder'): Runner(cls()).fit(1, learn)


def test_the_last_row_of_a_cancelled_fit_is_written(tmp_path):
    class Stops(Callback):
        def after_epoch(self):
            if self.run.epoch == 1: raise CancelFitException
    make(tmp_path).fit(5, cbs=[CSVLogger(), Stops()])
    assert read_table(tmp_path/'history.csv')['epoch'] == [0, 1]


def test_a_disk_that_is_full_at_the_beginning_ends_the_fit(tmp_path, monkeypatch):
    def fail(*args, **kwargs): raise OSError(28, 'No space left')
    monkeypatch.setattr(rows, 'atomic_write', fail)
    learn = make(tmp_path)
    with pytest.raises(OSError, match='No space'): learn.fit(1, cbs=CSVLogger())
    assert learn.run.n_iter == 0
    (tmp_path/'history.csv').mkdir()
    monkeypatch.undo()
    with pytest.raises(IsADirectoryError): learn.fit(1, cbs=CSVLogger())


def test_a_disk_that_becomes_full_costs_one_warning(tmp_path, monkeypatch):
    disk = HalfDisk(monkeypatch)
    class Fills(Callback):
        def after_epoch(self): disk.full = self.run.epoch in (1, 2)
    learn = make(tmp_path)
    with pytest.warns(UserWarning, match='cannot be written') as caught:
        learn.fit(4, cbs=[CSVLogger(), Fills()])
    assert len(caught) == 1 and len(learn.recorder.values) == 4
    assert [r[1:4] for r in read_table(tmp_path/'history.csv').rows] == learn.recorder.values


def test_rows_left_over_are_written_at_the_end(tmp_path, monkeypatch):
    disk = HalfDisk(monkeypatch, KeyboardInterrupt())
    class Fills(Callback):
        order = 80
        def begin_epoch(self): disk.full = self.run.epoch == 1
        def after_fit(self): pass
    class Empties(Callback):
        def after_fit(self): disk.full = False
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).fit(3, cbs=[CSVLogger(), Fills(), Empties()])
    assert read_table(tmp_path/'history.csv')['epoch'] == [0, 1]


def test_cut_back_and_go_on(tmp_path):
    full, states = make(tmp_path), {}
    class Saves(Callback):
        order = 90
        def after_epoch(self): states[self.run.epoch] = self.learn.csv_logger.state_dict()
    full.fit(4, cbs=[CSVLogger(append=True), Saves()])
    whole = cells(tmp_path/'history.csv')
    with open(tmp_path/'history.csv', 'a') as f: f.write('4,0.12')  # killed while writing
    class Resumes(Callback):
        def __init__(self, order): self.order = order
        def begin_fit(self):
            self.learn.csv_logger.load_state_dict(states[1])
            self.run.first_epoch = 2
    for order in (-50, 200):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            make(tmp_path).fit(4, cbs=[CSVLogger(), Resumes(order)])
        rows = cells(tmp_path/'history.csv')
        assert [o[0] for o in rows] == ['epoch', '0', '1', '2', '3'] and rows[:3] == whole[:3]


def test_a_state_counts_for_one_fit(tmp_path):
    learn = make(tmp_path, cbs=CSVLogger())
    assert learn.csv_logger.state_dict() == {'rows': None}
    learn.fit(2)
    state = learn.csv_logger.state_dict()
    assert state == {'rows': 2}
    other = CSVLogger()
    other.load_state_dict(state)
    assert other.state_dict() == state
    torch.save(state, tmp_path/'state.pth')
    learn.csv_logger.load_state_dict(torch.load(tmp_path/'state.pth', weights_only=True))
    learn.fit(1)
    assert read_table(tmp_path/'history.csv')['epoch'] == [0, 1, 0]
    learn.fit(1)
    assert read_table(tmp_path/'history.csv')['epoch'] == [0]
    learn.csv_logger.load_state_dict({'rows': None})
    learn.fit(1)
    assert read_table(tmp_path/'history.csv')['epoch'] == [0]


def test_a_resumed_run_with_fewer_columns_keeps_the_wide_file(tmp_path):
    learn = make(tmp_path)
    learn.fit(2, cbs=[CSVLogger(), AddsColumn(0)])
    cb = CSVLogger()
    cb.load_state_dict({'rows': 1})
    learn.fit(1, cbs=cb)
    assert read_table(tmp_path/'history.csv')['rate'] == [.1, None]


killed = '''
import os, signal, sys
from test_logger import Callback, CSVLogger, make
class Killed(Callback):
    order = 200
    def begin_epoch(self):
        if self.run.epoch == 2: os.kill(os.getpid(), signal.SIGKILL)
make(sys.argv[1]).fit(5, cbs=[CSVLogger(), Killed()])
'''


@pytest.mark.skipif(os.name != 'posix', reason='no SIGKILL')
def test_a_killed_process_leaves_the_header_and_whole_rows(tmp_path):
    (tmp_path/'history.csv').write_text('what was here before\n')
    done = Program(killed, tmp_path).end()
    assert done.returncode == -signal.SIGKILL, done.stderr
    learn = make(tmp_path)
    learn.fit(2)
    table = read_table(tmp_path/'history.csv')
    assert table['epoch'] == [0, 1]
    assert [row[1:4] for row in table.rows] == learn.recorder.values
    assert [o.name for o in tmp_path.iterdir()] == ['history.csv']


# ---- History -------------------------------------------------------------------------------------
def test_history_is_the_columns_of_the_recorder(tmp_path):
    learn = make(tmp_path, cbs=History)
    learn.fit(3)
    history = learn.history
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == ['train_loss', 'valid_loss', 'accuracy']
    assert [list(o) for o in zip(*history.history.values())] == learn.recorder.values
    learn.fit(1)
    assert history.epoch == [0] and len(history.history['accuracy']) == 1


def test_history_of_columns_that_come_and_go():
    history = History()
    for i, logs in enumerate([{'a': 1}, {'b': 2}, {'a': 3, 'b': 4}]): history.add(i, logs)
    assert history.history == {'a': [1, None, 3], 'b': [None, 2, 4]} and history.epoch == [0, 1, 2]


@pytest.mark.parametrize('when', ['before', -50, 200])
def test_history_goes_on_from_a_state(tmp_path, when):
    learn = make(tmp_path, cbs=History())
    learn.fit(2)
    torch.save(learn.history.state_dict(), tmp_path/'state.pth')
    state = torch.load(tmp_path/'state.pth', weights_only=True)
    other = make(tmp_path, cbs=History())
    if when == 'before': other.history.load_state_dict(state)
    loads = LambdaCallback(begin_fit=lambda learn: learn.history.load_state_dict(state))
    loads.order = when
    other.fit(1, cbs=[] if when == 'before' else [loads])
    assert other.history.epoch == [0, 1, 0]
    assert learn.history.epoch == [0, 1]
    other.fit(1)
    assert other.history.epoch == [0]


# ---- LambdaCallback ------------------------------------------------------------------------------
def test_a_function_for_every_event(tmp_path):
    seen = []
    def note(event): return lambda: seen.append(event)
    cb = LambdaCallback(**{event: note(event) for event in events})
    make(tmp_path).fit(1, cbs=cb)
    assert seen[0] == 'begin_fit' and seen[-1] == 'after_fit'
    assert {o for o in events if 'cancel' not in o} == set(seen)
    assert seen.count('after_batch') == 3


def test_functions_get_the_learner_or_nothing(tmp_path):
    learn, seen = make(tmp_path), []
    class Called:
        def __call__(self, it): seen.append(it is learn)
        def method(self): seen.append('method')
    cb = LambdaCallback(before_fit=lambda it: seen.append(it is learn), before_epoch=Called(),
                        after_epoch=Called().method, after_fit=lambda it=3: seen.append(it))
    learn.fit(1, cbs=cb)
    assert seen == [True, True, 'method', 3]


def test_only_what_was_given_is_handled(tmp_path):
    learn = make(tmp_path)
    learn.fit(1, cbs=LambdaCallback(after_fit=lambda: None, after_epoch=None))
    assert isinstance(learn.lambda_callback, LambdaCallback)
    handled = [e for e, found in learn.run.handlers.items()
               if any(isinstance(cb, LambdaCallback) for cb, _ in found)]
    assert handled == ['after_fit']


def test_true_breaks_off_and_other_answers_do_not(tmp_path):
    learn = make(tmp_path)
    cb = LambdaCallback(after_epoch=lambda learn: learn.epoch == 1, after_batch=lambda: 1)
    learn.fit(5, cbs=cb)
    assert learn.epoch == 1 and learn.run.n_iter == 4


def test_an_exception_names_callback_and_event(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        make(tmp_path).fit(1, cbs=LambdaCallback(begin_step=lambda: 1/0))
    assert 'in begin_step of LambdaCallback' in str(caught.value.__notes__)


@pytest.mark.parametrize('name, near', [
    ('after_epcoh', 'after_epoch'), ('begin_valid', 'begin_validate'), ('beforefit', 'before_fit'),
    ('nonsense', None)])
def test_unknown_events(name, near):
    with pytest.raises(UnknownEvent) as caught: LambdaCallback(**{name: print})
    assert repr(name) in str(caught.value)
    assert (f'did you mean {near!r}?' in str(caught.value)) == (near is not None)


@pytest.mark.parametrize('name', ['on_epoch_end', 'on_train_begin', 'on_train_batch_end'])
def test_functions_for_keras_make_a_callback_of_keras(name):
    from fastloop.keras.callbacks import LambdaCallback as OfKeras
    assert type(LambdaCallback(**{name: print})) is OfKeras
    with pytest.raises(UnknownEvent, match=f'{name} is an event of Keras.*of their own'):
        LambdaCallback(**{name: print}, after_fit=print)


def test_functions_for_keras_are_called_as_keras_does():
    seen = []
    told = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs['val_loss'])),
                          on_train_end=lambda logs: seen.append(sorted(logs)))
    learn = make(".")
    learn.fit(2, cbs=told)
    assert seen == [*((i, row[1]) for i, row in enumerate(learn.recorder.values)), seen[-1]]
    assert {'loss', 'val_loss'} <= set(seen[-1])


def test_bad_functions():
    with pytest.raises(TypeError, match='after_epoch is a function'): LambdaCallback(after_epoch=3)
    with pytest.raises(TypeError, match='begin_fit has a function already'):
        LambdaCallback(begin_fit=print, before_fit=print)
    with pytest.raises(TypeError, match='after_epoch: .* takes neither'):
        LambdaCallback(after_epoch=lambda epoch, logs: None)
    with pytest.raises(TypeError, match='after_epoch=…'): LambdaCallback(print)
    with pytest.raises(TypeError, match='learner'): LambdaCallback('after_epoch')


def test_the_check_serves_other_libraries():
    known = {'on_epoch_end': 'epoch', 'on_batch_end': 'batch', 'on_train_batch_end': 'batch'}
    assert check_functions(dict(on_epoch_end=print, on_batch_end=None), known) == {'epoch': print}
    with pytest.raises(UnknownEvent, match="did you mean 'on_epoch_end'"):
        check_functions(dict(on_epoch_ende=print), known)
    assert accepts(lambda a, b: 0, 2) and not accepts(lambda a, *, b: 0, 1)
    assert set(event_names) >= set(events)


# ---- all of them ---------------------------------------------------------------------------------
def test_they_stay_out_of_the_search_for_a_rate():
    assert not any(cls.in_lr_find for cls in (CSVLogger, History, RemoteMonitor))
    assert not hasattr(LambdaCallback, 'in_lr_find')




def test_faults_of_the_csv_logger(tmp_path):
    before = open_files()
    def check(learn, cb):
        assert [o.name for o in tmp_path.iterdir()] in ([], ['history.csv'])
        if not (tmp_path/'history.csv').exists(): return
        data = (tmp_path/'history.csv').read_bytes()
        assert row_ends(data)[-1] == len(data) and not cb.started
        assert len(read_table(tmp_path/'history.csv')) in range(len(learn.recorder.values)+1)
        (tmp_path/'history.csv').unlink()
    check_faults(lambda: make(tmp_path), CSVLogger, names=['after_batch', *brief], check=check)
    assert open_files() == before


def test_faults_of_the_history(tmp_path):
    def check(learn, cb): assert {len(o) for o in cb.history.values()} <= {len(cb.epoch)}
    check_faults(lambda: make(tmp_path), History, names=brief[2:], check=check)


def test_faults_of_the_lambda_callback(tmp_path):
    def f(): pass
    def make_cb(learn): return LambdaCallback(learn, begin_fit=f, after_fit=f)
    check_faults(lambda: make(tmp_path), make_cb, names=brief[2:])


def test_no_file_stays_open(tmp_path):
    learn = make(tmp_path, cbs=[CSVLogger(), History()])
    learn.fit(1)
    before = open_files()
    for _ in range(3): learn.fit(2)
    assert open_files() == before
