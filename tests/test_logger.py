"Loggers: files that survive, lists, functions of the user, and servers of every temper"
import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.callback import logger
from fastloop.callback.core import Callback, CancelFitException, UnknownEvent, event_names, events
from fastloop.callback.logger import (
    CSVLogger,
    History,
    LambdaCallback,
    LoggedTable,
    RemoteMonitor,
    RowFile,
    RowSender,
    accepts,
    check_functions,
    check_headers,
    csv_line,
    json_value,
    parse_cell,
    plain_value,
    read_table,
    row_ends,
    shown_address,
    split_address,
)
from fastloop.callback.recorder import Recorder
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.runner import Runner

pandas = pytest.importorskip('pandas')


def make(path, metrics=(accuracy,), valid=True, **kwargs):
    g = torch.Generator().manual_seed(0)
    def batch(n): return torch.randn(n, 2, generator=g), torch.randint(0, 3, (n,), generator=g)
    torch.manual_seed(0)
    valid_dl = [batch(5)] if valid else None
    data = SimpleNamespace(train_dl=[batch(8), batch(3)], valid_dl=valid_dl)
    return Learner(data, nn.Linear(2, 3), F.cross_entropy, opt_func=SGD, metrics=list(metrics),
                   path=path, silent=True, **kwargs)


class AddsColumn(Callback):
    "Announces a column in `begin_fit` and fills it"
    def __init__(self, order, values=(.1, .2, .3, .4), name='rate'):
        self.order, self.column, self.numbers = order, name, values
    def begin_fit(self): self.recorder.add_metric_names(self.column)
    def after_epoch(self):
        if self.order < 70: self.recorder.values[-1][-1] = self.numbers[self.run.epoch]


def cells(path): return list(csv.reader(open(path, newline='')))


# ---- cells and rows ------------------------------------------------------------------------------
texts = st.text(st.characters(exclude_categories=('Cs',), exclude_characters='\0'), max_size=8)
numbers = st.one_of(st.none(), st.floats(), st.integers(), st.booleans())


def same(a, b):
    return a is b or a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(texts, min_size=1, max_size=5, unique=True), data=st.data(),
       separator=st.sampled_from(',;\t|^] -.e'))
def test_names_and_numbers_come_back_exactly(tmp_path_factory, names, data, separator):
    rows = data.draw(st.lists(st.lists(numbers, min_size=len(names), max_size=len(names)),
                              max_size=4))
    file = RowFile(tmp_path_factory.mktemp('rows')/'a.csv', separator)
    file.begin(names)
    for row in rows: file.write(names, row)
    table = read_table(file.path, separator)
    assert table.columns == names and len(table) == len(rows) == file.rows
    for got, want in zip(table.rows, rows):
        assert all(same(a, b) and type(a) is type(b) for a, b in zip(got, want)), (got, want)
    # an independent reader sees the same cells
    with open(file.path, newline='', encoding='utf-8') as f:
        assert next(csv.reader(f, delimiter=separator)) == names
    assert len(row_ends(file.path.read_bytes())) == len(rows)+1


@pytest.mark.parametrize('value, text', [
    (None, '#na#'), (float('nan'), 'nan'), (float('-inf'), '-inf'), (1e300, '1e+300'),
    (1/3, '0.3333333333333333'),
    (torch.tensor(.5), '0.5'), (torch.tensor(3), '3'), (True, 'True'), ('00:01', '00:01'),
    ([1, 2], '"[1, 2]"'), ('', '""'), (' a', '" a"')])
def test_cells_as_text(value, text): assert csv_line([value]) == text+'\n'


@pytest.mark.parametrize('text, value', [
    ('#na#', None), ('7', 7), ('-7', -7), ('1_000', '1_000'), ('1e5', 1e5), ('inf', math.inf),
    ('00:01', '00:01'), ('', ''), ('١', 1.)])
def test_texts_as_values(text, value): assert parse_cell(text) == value


def test_numpy_values_are_plain():
    numpy = pytest.importorskip('numpy')
    assert type(plain_value(numpy.float32(.5))) is float
    assert plain_value(numpy.arange(2)) == [0, 1]


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


# ---- the file ------------------------------------------------------------------------------------
def begun(path, rows=3, header=('epoch', 'a')):
    file = RowFile(path)
    file.begin(list(header))
    for i in range(rows): file.write(list(header), [i, i/4])
    return file


def test_append_goes_on_without_a_second_header(tmp_path):
    begun(tmp_path/'a.csv', 2)
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [0, 9.])
    assert file.rows == 3 and read_table(file.path).rows == [[0, 0.], [1, .25], [0, 9.]]


def test_append_to_other_columns_is_refused_and_changes_nothing(tmp_path):
    before = begun(tmp_path/'a.csv').path.read_bytes()
    with pytest.raises(ValueError, match='columns epoch, a, this run has epoch, b'):
        RowFile(tmp_path/'a.csv').begin(['epoch', 'b'], append=True)
    assert (tmp_path/'a.csv').read_bytes() == before


@pytest.mark.parametrize('content', [b'', b'\n\n', None])
def test_append_to_nothing_writes_the_header(tmp_path, content):
    if content is not None: (tmp_path/'a.csv').write_bytes(content)
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    assert file.path.read_text() == 'epoch,a\n'


@pytest.mark.parametrize('cut', range(1, 6))
def test_an_unfinished_line_is_cut_with_a_warning(tmp_path, cut):
    path = begun(tmp_path/'a.csv').path
    os.truncate(path, path.stat().st_size-cut)
    file = RowFile(path)
    with pytest.warns(UserWarning, match='not finished and is cut off'):
        file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [7, 1.])
    assert read_table(path)['epoch'] == [0, 1, 7]


def test_a_header_without_line_break_is_completed(tmp_path):
    (tmp_path/'a.csv').write_text('epoch,a')
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [0, 1.])
    assert file.path.read_text() == 'epoch,a\n0,1.0\n'


def test_a_file_from_a_spreadsheet_can_be_appended_to(tmp_path):
    (tmp_path/'a.csv').write_bytes('\ufeffepoch,a\r\n0,1.5\r\n'.encode())
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [1, 2.5])
    assert read_table(file.path).rows == [[0, 1.5], [1, 2.5]]


@given(rows=st.integers(0, 5), weird=st.booleans())
@settings(max_examples=12, deadline=None)
def test_cut_back_to_any_row(tmp_path_factory, rows, weird):
    header = ['epoch', 'a\n"b"' if weird else 'a']
    path = begun(tmp_path_factory.mktemp('cut')/'a.csv', 5, header).path
    file = RowFile(path)
    file.begin(header, rows=rows)
    assert file.rows == rows
    file.write(header, [99, 1.])
    assert read_table(path)['epoch'] == [*range(rows), 99]


def test_cut_back_says_what_is_missing(tmp_path):
    path = begun(tmp_path/'a.csv', 2).path
    header = ['epoch', 'a']
    with pytest.warns(UserWarning, match='2 rows where 5'): RowFile(path).begin(header, rows=5)
    path.unlink()
    with pytest.warns(UserWarning, match='gone or empty'): RowFile(path).begin(header, rows=2)
    assert path.read_text() == 'epoch,a\n'


def test_new_columns_make_the_file_wider(tmp_path):
    file = begun(tmp_path/'a.csv', 2, ['epoch', 'a', 'time'])
    file.write(['epoch', 'a', 'b,c', 'time'], [2, 1., 2., '00:01'])
    file.write(['epoch', 'a', 'time'], [3, 1., '00:02'])  # the column has gone again
    table = read_table(file.path)
    assert table.columns == ['epoch', 'a', 'b,c', 'time']
    assert table['b,c'] == [None, None, 2., None] and table['time'][2:] == ['00:01', '00:02']


def test_a_file_deleted_in_between_is_made_again(tmp_path):
    file = begun(tmp_path/'a.csv', 2)
    file.path.unlink()
    file.write(['epoch', 'a'], [2, 1.])
    assert read_table(file.path).rows == [[2, 1.]]


def test_a_line_edited_by_hand_is_not_glued_to_the_next(tmp_path):
    file = begun(tmp_path/'a.csv', 1)
    file.path.write_text('epoch,a\n0,5')
    file.write(['epoch', 'a'], [1, 1.])
    assert read_table(file.path).rows == [[0, 5], [1, 1.]]


class HalfDisk:
    "Lets `os.fsync` fail, after part of the row was written"
    def __init__(self, monkeypatch, error=None):
        self.full, self.real, self.error = False, os.fsync, error or OSError(28, 'No space left')
        self.torn = False
        monkeypatch.setattr(logger.os, 'fsync', self)

    def __call__(self, fd):
        if not self.full: return self.real(fd)
        if not self.torn: os.ftruncate(fd, os.fstat(fd).st_size-3)
        self.torn = True
        raise self.error


def test_a_row_written_in_part_is_cut_and_tried_again(tmp_path, monkeypatch):
    file, disk = begun(tmp_path/'a.csv', 1), HalfDisk(monkeypatch)
    disk.full = True
    for i in (1, 2):
        with pytest.raises(OSError, match='No space'): file.write(['epoch', 'a'], [i, i/4])
        assert file.rows == 1 and file.doubtful
    disk.full = False
    file.write(['epoch', 'a'], [3, .75])
    assert read_table(file.path).rows == [[i, i/4] for i in range(4)]


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
    monkeypatch.setattr(logger, 'atomic_write', fail)
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
sys.path.insert(0, 'tests')
from test_logger import make, CSVLogger, Callback
class Killed(Callback):
    order = 200
    def begin_epoch(self):
        if self.run.epoch == 2: os.kill(os.getpid(), signal.SIGKILL)
make(sys.argv[1]).fit(5, cbs=[CSVLogger(), Killed()])
'''


@pytest.mark.skipif(os.name != 'posix', reason='no SIGKILL')
def test_a_killed_process_leaves_the_header_and_whole_rows(tmp_path):
    (tmp_path/'history.csv').write_text('what was here before\n')
    done = subprocess.run([sys.executable, '-c', killed, str(tmp_path)], capture_output=True,
                          cwd=Path(__file__).parent.parent)
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
def test_functions_for_keras_are_sent_there(name):
    with pytest.raises(UnknownEvent, match='fastloop.keras'):
        LambdaCallback(**{name: lambda epoch, logs: None})


def test_bad_functions():
    with pytest.raises(TypeError, match='after_epoch is a function'): LambdaCallback(after_epoch=3)
    with pytest.raises(TypeError, match='begin_fit has a function already'):
        LambdaCallback(begin_fit=print, before_fit=print)
    with pytest.raises(TypeError, match='after_epoch: .* takes neither'):
        LambdaCallback(after_epoch=lambda epoch, logs: None)
    with pytest.raises(TypeError, match='after_epoch=…'): LambdaCallback(print)
    with pytest.raises(TypeError, match='learner'): LambdaCallback('after_epoch')


def test_the_check_serves_other_dialects():
    known = {'on_epoch_end': 'epoch', 'on_batch_end': 'batch', 'on_train_batch_end': 'batch'}
    assert check_functions(dict(on_epoch_end=print, on_batch_end=None), known) == {'epoch': print}
    with pytest.raises(UnknownEvent, match="did you mean 'on_epoch_end'"):
        check_functions(dict(on_epoch_ende=print), known)
    assert accepts(lambda a, b: 0, 2) and not accepts(lambda a, *, b: 0, 1)
    assert set(event_names) >= set(events)


# ---- RemoteMonitor: what is sent -----------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.server.began.set()
        self.server.answer(self, body)

    def do_GET(self): self.server.got.append(('GET', self.path, {}, b''))

    def keep(self, body, status=200, **headers):
        self.server.got.append(('POST', self.path, dict(self.headers), body))
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k, v)
        self.end_headers()

    def log_message(self, *args): pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, request, client_address): pass


@contextmanager
def serving(answer=Handler.keep):
    server = Quiet(('127.0.0.1', 0), Handler)
    server.got, server.answer = [], answer
    server.began, server.go = threading.Event(), threading.Event()
    server.root = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.01))
    thread.start()
    try: yield server
    finally:
        server.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


def rows_of(server): return [json.loads(parse_qs(o[3].decode())['data'][0]) for o in server.got]


def sender_threads(): return [o for o in threading.enumerate() if o.name == 'RowSender']


@contextmanager
def one_warning(match):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        yield caught
    found = [str(o.message) for o in caught]
    assert len(found) == 1 and match in found[0], found


@pytest.mark.parametrize('as_json', [False, True])
@pytest.mark.parametrize('headers', [None, {'X-Key': 'k', 'content-type': 'text/x'}])
def test_the_request_is_the_one_that_requests_makes(tmp_path, as_json, headers):
    requests = pytest.importorskip('requests')
    row = dict(epoch=0, train_loss=.5, valid_loss=None, **{'ä &=+"': 1e-9})
    with serving() as server:
        sender = RowSender(server.root, '/p/ü?k=1', 'my field', headers, as_json)
        sender.put(row)
        assert sender.close()
    kind = dict(json=row) if as_json else dict(data={'my field': json.dumps(row)})
    want = requests.Request('POST', server.root + '/p/ü?k=1', headers=headers, **kind).prepare()
    _, path, got, body = server.got[0]
    want_body = want.body if isinstance(want.body, bytes) else want.body.encode()
    assert path == want.path_url
    assert json.loads(body) == json.loads(want_body) if as_json else body == want_body
    lower = {k.lower(): v for k, v in got.items()}
    for name in ('content-type', 'content-length', 'x-key'):
        assert lower.get(name) == want.headers.get(name), name


def test_rows_of_a_fit(tmp_path):
    class Odd(Callback):
        def begin_fit(self): self.recorder.add_metric_names(['nan', 'inf', 'tensor', 'none'])
        def after_epoch(self):
            self.recorder.values[-1][-4:] = [math.nan, -math.inf, torch.tensor([1., 2.]), None]
    learn = make(tmp_path)
    with serving() as server:
        learn.fit(3, cbs=[RemoteMonitor(root=server.root), Odd()])
        assert learn.remote_monitor.flush()
    assert [o[1] for o in server.got] == ['/publish/epoch/end/']*3
    for i, (got, row) in enumerate(zip(rows_of(server), learn.recorder.values)):
        assert got == dict(epoch=i, train_loss=row[0], valid_loss=row[1], accuracy=row[2],
                           nan=None, inf=None, tensor=[1., 2.], none=None)
    assert not sender_threads()


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda o: st.lists(o) | st.dictionaries(st.text(), o), max_leaves=8))
def test_json_is_always_valid(value):
    def refuse(name): raise AssertionError(name)
    text = json.dumps(json_value({'a': value}), allow_nan=False)
    json.loads(text, parse_constant=refuse)


def test_a_name_and_a_password_become_a_header():
    with serving() as server:
        sender = RowSender(server.root.replace('//', '//me:p%40ss@'))
        sender.put({})
        assert sender.close()
    assert server.got[0][2]['Authorization'] == 'Basic bWU6cEBzcw=='
    assert 'p%40ss' not in sender.shown and '@' not in sender.shown


@pytest.mark.parametrize('root', [
    'file:///etc/passwd', 'ftp://host', 'localhost:9000', 'host', '', 'http://', 'http:///x',
    'http://host:port', 'http://host:99999', 'http://host:0', 'http://a..b', 'http://ho st',
    'http://h\r\nX: y', 'http://me:secret@host:port', 'me:secret@host', 'http://me:sec/ret@host',
    'http://[::1'])
def test_bad_addresses(root):
    with pytest.raises(ValueError, match='root=') as caught: RemoteMonitor(root=root)
    assert 'secret' not in str(caught.value) and 'ret@' not in str(caught.value)
    assert 'secret' not in str(caught.value.__cause__)


@pytest.mark.parametrize('kwargs, match', [
    (dict(root=9000), 'root'), (dict(path=None), 'path'), (dict(path='/a b'), 'path='),
    (dict(field=3), 'field'), (dict(timeout=0), 'timeout=0'), (dict(timeout=None), 'timeout'),
    (dict(timeout=math.nan), 'timeout'), (dict(timeout=math.inf), 'timeout'),
    (dict(timeout=True), 'timeout'),
    (dict(headers=['a']), 'headers'), (dict(headers={'a b': 'c'}), 'headers'),
    (dict(headers={'a': 1}), "'a'"), (dict(headers={'X-Key': 'geheim\n'}), "'X-Key'"),
    (dict(headers={'X-Key': 'geheim\u20ac'}), "'X-Key'")])
def test_bad_arguments_of_the_monitor(kwargs, match):
    with pytest.raises((TypeError, ValueError), match=match) as caught: RemoteMonitor(**kwargs)
    assert 'geheim' not in str(caught.value)


def test_addresses():
    assert split_address('http://[::1]:9/a').hostname == '::1'
    assert split_address('HTTPS://h', 'x').geturl() == 'https://h/x'
    assert split_address('http://h/', '/x').path == '/x' and split_address('http://h').path == ''
    assert shown_address('http://a@b:c@h/x') == 'http://h/x'
    check_headers({'X-Key': 'ü and more\t'})


# ---- RemoteMonitor: servers that do not behave ---------------------------------------------------
def refuses(handler, body): handler.keep(body, 500)
def redirects(handler, body): handler.keep(body, 302, Location=handler.path)
def elsewhere(handler, body): handler.keep(body, 307, Location='file:///etc/passwd')
def closes(handler, body): handler.server.got.append(body)
def garbage(handler, body): handler.wfile.write(b'\0\xff nonsense X-Key: geheim\r\n\r\n')
def resets(handler, body):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    handler.connection.close()
def long_header(handler, body):
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nX: ' + b'x'*100_000 + b'\r\n\r\n')


@pytest.mark.parametrize('answer, match', [
    (refuses, '500'), (redirects, 'a redirect'), (elsewhere, 'a redirect'), (closes, 'closed'),
    (garbage, 'not HTTP'), (resets, ''), (long_header, 'not HTTP')])
def test_a_wrong_server_costs_one_warning(tmp_path, answer, match):
    headers = {'X-Key': 'geheim'}
    with serving(answer) as server, one_warning(match) as caught:
        learn = make(tmp_path, cbs=RemoteMonitor(root=server.root, headers=headers))
        learn.fit(3)
        learn.fit(1)
        assert learn.remote_monitor.close() and not sender_threads()
    assert 'geheim' not in str(caught[0].message) and server.root in str(caught[0].message)
    assert not [o for o in server.got if o[0] == 'GET'] and len(learn.recorder.values) == 1


def test_an_answer_that_breaks_off_after_its_status_counts(tmp_path):
    def breaks(handler, body):
        handler.keep(body, 200, **{'Content-Length': '100'})
        handler.wfile.write(b'abc')
    with serving(breaks) as server, warnings.catch_warnings():
        warnings.simplefilter('error')
        sender = RowSender(server.root)
        for i in range(3): sender.put({'epoch': i})
        assert sender.close() and len(server.got) == 3


@pytest.mark.parametrize('root, match', [
    ('http://127.0.0.1:{port}', 'refused'), ('https://127.0.0.1:{open}', 'did not take'),
    ('http://no-such-host.invalid:{port}', 'did not take')])
def test_a_server_that_is_not_there(tmp_path, root, match):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    with serving() as server, one_warning(match):
        cb = RemoteMonitor(root=root.format(port=port, open=server.server_port), timeout=30)
        make(tmp_path).fit(3, cbs=cb)
        cb.close()
    assert not sender_threads()


def test_later_epochs_are_tried_again(tmp_path):
    def sometimes(handler, body):
        handler.keep(body, 503 if len(handler.server.got) in (0, 2) else 200)
    with serving(sometimes) as server, one_warning('503'):
        cb = RemoteMonitor(root=server.root)
        make(tmp_path).fit(4, cbs=cb)
        assert cb.flush() and cb.sender.sent == 2
    assert [o['epoch'] for o in rows_of(server)] == [0, 1, 2, 3]


def test_fit_does_not_wait_for_a_server_that_hangs(tmp_path):
    def hangs(handler, body):
        handler.server.go.wait()
        handler.keep(body)
    with serving(hangs) as server:
        learn = make(tmp_path, cbs=RemoteMonitor(root=server.root, timeout=100))
        learn.fit(3)  # returns, although the server has not answered
        assert server.began.wait(60) and not server.got
        assert not learn.remote_monitor.flush(timeout=0) and len(sender_threads()) == 1
        learn.fit(2)
        server.go.set()
        assert learn.remote_monitor.flush()
        assert [o['epoch'] for o in rows_of(server)] == [0, 1, 2, 0, 1]
    assert not sender_threads()


def test_close_ends_the_thread_even_if_the_server_hangs(tmp_path):
    def hangs(handler, body): handler.server.go.wait()
    with serving(hangs) as server, one_warning('not everything was sent'):
        cb = RemoteMonitor(root=server.root, timeout=100)
        make(tmp_path).fit(3, cbs=cb)
        assert server.began.wait(60)
        assert not cb.close(timeout=0)
        assert not sender_threads() and not cb.sender.waiting
    with serving() as server:  # and it can be used again
        sender = cb.sender
        sender.__init__(server.root)
        sender.put({})
        assert sender.close() and len(server.got) == 1


def test_a_server_that_hangs_times_out_and_later_rows_arrive(tmp_path):
    def hangs_once(handler, body):
        if b'1' in body: handler.keep(body)
        else: handler.server.go.wait()
    with serving(hangs_once) as server, one_warning('no answer in 0.2 s'):
        sender = RowSender(server.root, timeout=.2, send_as_json=True)
        sender.put({'epoch': 0})
        assert sender.flush()
        sender.timeout = 60.
        sender.put({'epoch': 1})
        assert sender.close()
        assert [o[3] for o in server.got] == [b'{"epoch": 1}']


def test_a_server_that_answers_by_drops_is_hung_up_on(monkeypatch):
    now = [0.]
    monkeypatch.setattr(logger, 'monotonic', lambda: now[0])
    def drops(handler, body):
        if handler.server.go.is_set(): return handler.keep(body)
        while not handler.server.go.wait(.01): handler.wfile.write(b'H')
    with serving(drops) as server:
        sender = RowSender(server.root, timeout=50)
        sender.quiet = True
        sender.put({'epoch': 0})
        assert server.began.wait(60)
        while sender.socket is None: pass
        now[0] = 1000.  # by the clock it has taken too long
        server.go.set()
        with pytest.warns(UserWarning, match='did not take'):
            sender.put({'epoch': 1})
            assert sender.flush()
        assert rows_of(server)[-1] == {'epoch': 1}


def test_rows_do_not_pile_up_without_end():
    def hangs(handler, body): handler.server.go.wait()
    with serving(hangs) as server, one_warning('too many'):
        sender = RowSender(server.root, timeout=100)
        sender.most = 3
        for i in range(10): sender.put({'epoch': i})
        assert len(sender.waiting) == 3
        sender.close(timeout=0)


def test_many_rows_arrive_once_and_in_order():
    with serving() as server:
        sender = RowSender(server.root)
        for i in range(100): sender.put({'epoch': i})
        assert sender.close() and [o['epoch'] for o in rows_of(server)] == list(range(100))
        assert len({id(o) for o in sender_threads()}) == 0


def test_without_threads_there_is_a_warning(monkeypatch):
    def fail(self): raise RuntimeError("can't start new thread")
    sender = RowSender('http://127.0.0.1:9')
    monkeypatch.setattr(threading.Thread, 'start', fail)
    with pytest.warns(UserWarning, match='no thread'): sender.put({})
    assert sender.flush()


script = '''
import sys
from fastloop.callback.logger import RemoteMonitor
cb = RemoteMonitor(root=sys.argv[1], timeout=30)
for i in range(5): cb.sender.put({'epoch': i})
'''


def test_a_script_that_ends_waits_for_a_server_that_answers():
    with serving() as server:
        done = subprocess.run([sys.executable, '-c', script, server.root], capture_output=True,
                              cwd=Path(__file__).parent.parent)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert [o['epoch'] for o in rows_of(server)] == list(range(5))


# ---- all of them ---------------------------------------------------------------------------------
def test_they_stay_out_of_the_search_for_a_rate():
    assert not any(cls.in_lr_find for cls in (CSVLogger, History, RemoteMonitor))
    assert not hasattr(LambdaCallback, 'in_lr_find')


def open_files():
    return len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0


brief = ['begin_fit', 'begin_epoch', 'after_epoch', 'after_fit']


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


def test_faults_of_the_monitor(tmp_path):
    with serving() as server:
        def check(learn, cb):
            assert not cb.sender.quiet and cb.close()
            assert [o['epoch'] for o in rows_of(server)] in ([], [0], [0, 1])
            server.got.clear()
        check_faults(lambda: make(tmp_path), lambda learn: RemoteMonitor(learn, root=server.root),
                     names=brief[2:], check=check)
        assert not sender_threads()


def test_no_file_stays_open(tmp_path):
    learn = make(tmp_path, cbs=[CSVLogger(), History()])
    learn.fit(1)
    before = open_files()
    for _ in range(3): learn.fit(2)
    assert open_files() == before
