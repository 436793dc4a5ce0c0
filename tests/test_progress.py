"Bars and tables where somebody watches and where nobody does: terminals, pipes, kernels."
import copy
import fcntl
import functools
import json
import math
import os
import re
import struct
import subprocess
import sys
import textwrap
import warnings
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tqdm import tqdm

from fastloop.bar import PhaseBar, print_line
from fastloop.callback import progress as p
from fastloop.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelTrainException,
)
from fastloop.callback.dashboard import has_front_end
from fastloop.callback.logger import CSVLogger, read_table
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.recorder import LossHistory, Recorder
from fastloop.core import running_shell, show_figure
from fastloop.data import external
from fastloop.metrics import accuracy
from fastloop.runner import Runner
from fastloop.table import EpochTable, cell_text, current_cell

root = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    "No mode is asked for in the environment"
    monkeypatch.delenv('FASTLOOP_PROGRESS', raising=False)
    monkeypatch.setenv('TERM', 'xterm')


class Descent:
    "SGD in a few lines: the first optimizer of torch that a process makes takes it two seconds"
    def __init__(self, model, lr): self.model, self.param_groups = model, [{'lr': lr}]

    def step(self):
        with torch.no_grad():
            for o in self.model.parameters(): o -= self.param_groups[0]['lr']*o.grad

    def zero_grad(self): self.model.zero_grad()


def learner(n=6, n_valid=2, **kw):
    "Random images and labels in batches of four, as a learner of four fields"
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 3, generator=g), torch.randint(2, (4,), generator=g))
               for _ in range(n + n_valid)]
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = SimpleNamespace(train_dl=batches[:n], valid_dl=batches[n:] if n_valid else None)
    return SimpleNamespace(model=model, opt=Descent(model, lr=0.1),
                           loss_func=nn.functional.cross_entropy, data=data, **kw)


class Screen(StringIO):
    "Says that it is a terminal, and keeps all that is written"
    def isatty(self): return True


def shown(text):
    "What is left on a screen when `text` has been written to it"
    lines, row, col = [''], 0, 0
    for piece in re.findall(r'\x1b\[A|\r|\n|[^\r\n\x1b]+', text):
        if piece == '\r': col = 0
        elif piece == '\x1b[A': row -= 1
        elif piece == '\n':
            row, col = row + 1, 0
            if row == len(lines): lines.append('')
        else:
            line = lines[row].ljust(col)
            lines[row] = line[:col] + piece + line[col + len(piece):]
            col += len(piece)
    return [o.rstrip() for o in lines if o.strip()]


def fit(*cbs, epochs=2, metrics=accuracy, learn=None, **kw):
    "Train with a recorder and a progress callback, which is returned"
    progress = ProgressCallback(**kw)
    Runner([Recorder(metrics=metrics), progress, *cbs]).fit(epochs, learn or learner())
    return progress


# ---- numbers and tables --------------------------------------------------------------------------
@given(st.floats())
def test_a_number_is_short_and_right(value):
    text = cell_text(value)
    assert len(text) <= 10
    if math.isfinite(value):
        if abs(value) > 1e308: return  # rounded up it is more than a float can hold
        assert float(text) == pytest.approx(value, rel=5e-3, abs=5.1e-7)
        assert bool(float(text)) == bool(value)
    else: assert text == str(value)


@pytest.mark.parametrize('value, text', [
    (0.123456789, '0.123456'), (0., '0.000000'), (None, '#na#'), (float('nan'), 'nan'),
    (7, '7'), (torch.tensor(0.5, requires_grad=True), '0.500000'), ('00:07', '00:07'),
    ('two\nlines\x1b[31m', 'two?lines?[31m'), ([1, 2], '[1, 2]'), ({'a': None}, "{'a': None}"),
    (np.ones(2), '[1. 1.]'), (torch.ones(2), 'tensor([1., 1.])'), (np.ones((1, 1)), '1.000000')])
def test_values(value, text): assert cell_text(value) == text.replace('123456', '123457')


class Cells(HTMLParser):
    "The rows of a table as a browser reads them"
    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.open = [], set(), False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == 'tr': self.rows.append([])
        self.open = tag in ('td', 'th')
        if self.open: self.rows[-1].append('')

    def handle_endtag(self, tag): self.open = False

    def handle_data(self, data):
        assert self.open
        self.rows[-1][-1] += data


texts = st.text(max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.lists(st.lists(texts, max_size=4), max_size=3))
def test_no_text_becomes_markup(header, rows):
    table = EpochTable(header)
    for row in rows: table.add(row)
    found = Cells(table.html)
    assert found.rows == [[cell_text(o) for o in row] for row in (header, *rows)]
    assert found.tags <= {'table', 'thead', 'tbody', 'tr', 'th', 'td'}


@given(st.lists(st.text('abc<>&_', min_size=1, max_size=30), min_size=1, max_size=5),
       st.lists(st.floats(-1e4, 1e4), min_size=5, max_size=5))
def test_lines_are_aligned(names, numbers):
    table = EpochTable(['epoch', *names, 'time'])
    for i in range(3): table.add([i, *numbers[:len(names)], '00:07'])
    assert len({len(o) for o in table.text.splitlines()}) == 1
    assert len(table.text.splitlines()) == 4


def test_a_long_table_is_shortened_for_the_browser():
    table = EpochTable(['epoch'])
    for i in range(1000): table.add([i])
    rows = [o[0] for o in Cells(table.html).rows]
    assert rows == ['epoch', *map(str, range(100)), '…', *map(str, range(900, 1000))]
    assert len(table.text.splitlines()) == 1001


# ---- who is watching -----------------------------------------------------------------------------
class Shell:
    "An IPython with a kernel, running a cell of a frontend that could (not) answer `input()`"
    kernel = object()

    def __init__(self, answers): self.answers = answers
    def get_parent(self): return {'content': {'allow_stdin': self.answers}}


@pytest.mark.parametrize('shell, stdout, mode', [
    (None, StringIO(), 'plain'), (None, Screen(), 'terminal'), (None, None, 'plain'),
    (SimpleNamespace(), Screen(), 'terminal'), (SimpleNamespace(), StringIO(), 'plain'),
    (Shell(True), StringIO(), 'notebook'), (Shell(False), StringIO(), 'plain'),
    (SimpleNamespace(kernel=1), StringIO(), 'notebook')])
def test_mode(monkeypatch, shell, stdout, mode):
    monkeypatch.setitem(sys.modules, 'IPython', SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, 'stdout', stdout)
    assert p.progress_mode() == mode


@pytest.mark.parametrize('asked', [False, True])
def test_an_ipython_that_another_thread_is_importing(monkeypatch, asked):
    half = ModuleType('IPython')  # as a tracker's thread makes it: empty, or not ready to be asked
    if asked:
        half.__spec__ = SimpleNamespace(_initializing=True)
        half.get_ipython = lambda: pytest.fail('asked')
    monkeypatch.setitem(sys.modules, 'IPython', half)
    monkeypatch.setattr(sys, 'stdout', StringIO())
    assert running_shell() is None and current_cell() is None
    assert not show_figure(None) and not has_front_end() and p.progress_mode() == 'plain'
    external._bar('file', 1, 0).close()
    Runner([Recorder(), ProgressCallback()]).fit(2, learner())
    assert sys.stdout.getvalue().count('\n') == 3


def test_terminals_that_cannot_move_back(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', Screen())
    monkeypatch.setenv('TERM', 'dumb')
    assert p.progress_mode() == 'plain'
    sys.stdout.close()
    assert p.progress_mode() == 'plain'


@pytest.mark.parametrize('mode', p.progress_modes)
def test_the_environment_has_the_last_word(monkeypatch, mode):
    monkeypatch.setenv('FASTLOOP_PROGRESS', mode.upper())
    assert p.progress_mode() == mode


def test_a_word_that_is_no_mode_is_refused_before_training(monkeypatch):
    with pytest.raises(ValueError, match="mode='terminl'.*did you mean 'terminal'"):
        ProgressCallback(mode='terminl')
    run, learn = Runner([Recorder(), ProgressCallback()]), learner()
    before = learn.model.weight.clone()
    monkeypatch.setenv('FASTLOOP_PROGRESS', 'noisy')
    with pytest.raises(ValueError, match="FASTLOOP_PROGRESS='noisy'"): run.fit(1, learn)
    assert torch.equal(learn.model.weight, before)


# ---- nobody watches ------------------------------------------------------------------------------
def test_plain_lines(capsys):
    progress = fit()
    out, err = capsys.readouterr()
    assert out == progress.text + '\n' and err == ''
    lines = [o.split() for o in out.splitlines()]
    assert lines[0] == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert [o[0] for o in lines[1:]] == ['0', '1']
    assert all(re.fullmatch(r'\d \d\.\d{6} \d\.\d{6} \d\.\d{6} \d\d:\d\d', ' '.join(o))
               for o in lines[1:])
    row = progress.recorder.values[0]
    assert lines[1][1:4] == [f'{o:.6f}' for o in row]


def test_nothing_is_called_for_a_batch():
    progress = fit(mode='plain')
    assert progress.run.handlers['after_batch'] == []
    for event in ('begin_batch', 'after_pred', 'after_step', 'begin_train'):
        assert not any(cb is progress for cb, _ in progress.run.handlers[event])
    progress.asked = 'terminal'
    progress.run.remove_cbs(progress)
    progress.run.add_cbs(progress)
    assert [cb for cb, _ in progress.run.handlers['after_batch']] == [progress]
    twin = copy.deepcopy(progress)
    assert vars(twin)['after_batch'].__self__ is twin


@pytest.mark.parametrize('kw, of_learner', [
    ({'silent': True}, {}), ({}, {'silent': True}), ({'mode': 'off'}, {})])
def test_silence(capsys, kw, of_learner):
    progress = fit(learn=learner(**of_learner), **kw)
    assert capsys.readouterr() == ('', '') and progress.text == ''
    assert len(progress.recorder.values) == 2
    progress.silent = False
    progress.asked = None
    progress.run.fit(1, learner())
    assert capsys.readouterr().out


def test_without_a_recorder_there_is_no_table(capsys):
    Runner(ProgressCallback(mode='plain')).fit(1, learner())
    assert capsys.readouterr() == ('', '')


def test_no_epoch_no_table(capsys):
    fit(epochs=0)
    assert capsys.readouterr() == ('', '')


def test_missing_numbers_and_nan(capsys):
    class Odd(Callback):
        def begin_validate(self): return self.epoch == 0
        def begin_train(self):
            if self.epoch == 1: raise CancelTrainException
        def after_loss(self):
            if self.epoch == 2: self.run.loss = self.loss*math.nan
        def begin_epoch(self):
            if self.epoch == 3: raise CancelEpochException
    Odd.order = -50
    lines = [o.split()[1:4] for o in fit(Odd, epochs=3).text.splitlines()[1:]]
    assert lines[0][1:] == ['#na#', '#na#'] and lines[0][0] != '#na#'
    assert lines[1][0] == '#na#' and '#na#' not in lines[1][1:]
    assert lines[2][:2] == ['nan', 'nan']
    capsys.readouterr()


def test_names_may_hold_anything(capsys):
    def metric(pred, yb): return accuracy(pred, yb)
    metric.__name__ = 'a very long name of a metric <b>\x1b[31m\r\n'
    out = fit(metrics=[metric, accuracy]).text
    assert out + '\n' == capsys.readouterr().out
    assert not re.search('[\r\x1b]', out) and len({len(o) for o in out.splitlines()}) == 1


def test_an_output_that_cannot_write_a_name(monkeypatch):
    class Ascii(StringIO):
        encoding = 'ascii'
    def metric(pred, yb): return accuracy(pred, yb)
    metric.__name__ = 'précision'
    monkeypatch.setattr(sys, 'stdout', Ascii())
    fit(metrics=metric)
    assert 'pr?cision' in sys.stdout.getvalue()


def test_columns_that_others_add(capsys):
    class Norm(Callback):
        when = 'fit'
        def begin_fit(self):
            if self.when == 'fit': self.run.recorder.add_metric_names('norm')
        def begin_train(self):
            if self.when == self.epoch: self.run.recorder.add_metric_names('norm')
        def after_epoch(self):
            if 'norm' in self.run.recorder.names: self.run.recorder.values[-1][-1] = 2.5
    lines = [o.split() for o in fit(Norm).text.splitlines()]
    assert [o[-2] for o in lines] == ['norm', '2.500000', '2.500000']
    assert capsys.readouterr().out.count('epoch') == 1
    Norm.when = 1  # in the second epoch: the header is printed again
    fit(Norm)
    lines = [o.split() for o in capsys.readouterr().out.splitlines()]
    assert [o[0] for o in lines] == ['epoch', '0', 'epoch', '1']
    assert [o[-2] for o in lines[2:]] == ['norm', '2.500000']


@pytest.mark.parametrize('kw, lines', [({'mode': 'off'}, 0), ({'silent': True}, 0),
                                       ({'mode': 'plain'}, 3), ({}, 3)])
@pytest.mark.parametrize('order', [9, 10])
def test_of_several_the_last_given_shows(capsys, order, kw, lines):
    Kind = type('Mine', (ProgressCallback,), {'order': order})
    run = Runner([Recorder(), ProgressCallback()])
    run.add_cbs(last := Kind(**kw))
    for _ in range(2):
        run.fit(2, learner())
        assert len(capsys.readouterr().out.splitlines()) == lines
    run.remove_cbs(last)  # the one before comes back
    run.fit(2, learner())
    assert len(capsys.readouterr().out.splitlines()) == 3


# ---- somebody watches a terminal -----------------------------------------------------------------
@pytest.fixture
def screen(): return Screen()


def watched(test):
    "Write to `screen` in a test; the clock moves by a hundredth of a second at each look"
    @functools.wraps(test)
    def run(screen, **kw):
        clock = functools.partial(lambda o: next(o)/100, iter(range(10**9)))
        with patch('sys.stdout', screen), patch('sys.stderr', screen), \
             patch.object(p, 'perf_counter', clock): test(screen=screen, **kw)
    return run


@watched
def test_bar_and_table_on_a_screen(screen):
    progress = fit(learn=learner(60, 30))
    text = screen.getvalue()
    for part in ('epoch 1/2 train', 'epoch 1/2 valid', 'epoch 2/2 train'): assert part in text
    assert re.search(r'epoch 1/2 train: .*\| \d+/60 .*loss 0\.\d{6}\]', text)
    assert shown(text) == progress.text.splitlines()
    assert progress.bar.bar is None and not tqdm._instances


@watched
def test_a_bar_does_not_jump_back(screen):
    bar = PhaseBar()
    for label in ('train', 'valid'):
        for n in (10, 20, 30): bar.draw(label, n, 40)
        bar.close()
    drawn = re.findall(r'(train|valid): +\d+%\|.*?\| (\d+)/40', screen.getvalue())
    assert drawn == [(label, n) for label in ('train', 'valid') for n in ('10', '20', '30')]


@watched
def test_at_most_ten_drawings_a_second_and_the_loss_is_fetched_for_them_only(screen, monkeypatch):
    drawn, fetched = [], []
    draw, sync = PhaseBar.draw, LossHistory.sync
    monkeypatch.setattr(PhaseBar, 'draw', lambda *a: drawn.append(a[2]) or draw(*a))
    monkeypatch.setattr(LossHistory, 'sync',
                        lambda self, wait=True: fetched.append(wait) or sync(self, wait))
    fit(epochs=1, learn=learner(100, 0))  # one second: each batch looks at the clock once
    assert drawn[0] == 1 and 9 <= len(drawn) <= 11
    assert {b-a for a, b in zip(drawn, drawn[1:])} <= {10, 11}
    assert fetched.count(False) == len(drawn)  # the last one waits, at the end of the epoch


@watched
def test_a_loader_without_length(screen):
    learn = learner(0, 0)
    batches = learner(5, 0).data.train_dl

    class Stream:
        def __iter__(self): return iter(batches)
    learn.data.train_dl = Stream()
    fit(epochs=1, learn=learn)
    assert re.search(r'epoch 1/1 train: 1it', screen.getvalue())


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError, CancelFitException])
@pytest.mark.parametrize('event', ['after_loss', 'begin_validate', 'after_batch', 'begin_fit'])
@watched
def test_no_bar_survives(screen, error, event):
    def fail(self):
        if self.epoch == 1 or event == 'begin_fit': raise error('on purpose')
    Fail = type('Fail', (Callback,), {event: fail, 'order': 20})
    progress, learn = ProgressCallback(), learner(30)
    run = Runner([Recorder(), progress, Fail])
    if error is CancelFitException: run.fit(3, learn)
    else:
        with pytest.raises(error): run.fit(3, learn)
    assert progress.bar.bar is None and not tqdm._instances
    assert shown(screen.getvalue()) == progress.text.splitlines()
    run.remove_cbs(run.fail)
    run.fit(1, learn)
    assert shown(screen.getvalue())[-2:] == progress.text.splitlines() and not tqdm._instances


@watched
def test_a_bar_around_the_fit_stays_below_the_table(screen):
    with tqdm(total=2, desc='outer', file=screen, leave=True) as outer:
        for _ in range(2):
            fit(epochs=1, learn=learner(30))
            outer.update()
    lines = [o.split()[0] for o in shown(screen.getvalue())]
    assert lines == ['epoch', '0', 'epoch', '0', 'outer:']


@watched
def test_no_thread_is_started(screen):
    before = tqdm.monitor
    fit()
    assert tqdm.monitor is before


@watched
def test_bars_go_to_the_terminal_when_errors_go_to_a_file(screen, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', StringIO())
    fit(learn=learner(30))
    assert sys.stderr.getvalue() == '' and 'epoch 1/2 train:' in screen.getvalue()


@watched
def test_taken_away_in_the_middle(screen):
    class Leave(Callback):
        order = 20
        def after_batch(self):
            if self.n_iter == 3: self.run.remove_cbs(self.run.progress)
    progress = fit(Leave, learn=learner(30))
    fit()
    progress.run.add_cbs(progress)
    assert progress.bar.bar is None and not tqdm._instances


# ---- processes -----------------------------------------------------------------------------------
TERMINAL = f'''
import os, signal, sys, threading, time
sys.path.insert(0, {str(root/'tests')!r})
from test_progress import Callback, fit, learner
class Slow(Callback):
    def after_loss(self): time.sleep(0.012)
class Interrupt(Callback):
    def after_loss(self):
        if self.epoch == 1 and self.iter == 15:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # off in the background
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
fit(Slow, learn=learner(20))
print('first')
try: fit(Slow, Interrupt, learn=learner(20))
except KeyboardInterrupt: print('interrupted')
fit(Slow, learn=learner(20), epochs=1)
print(threading.active_count(), 'thread')
'''

PIPE = f'''
import sys
import fastloop.callback.progress
heavy = [o for o in ('tqdm.auto', 'IPython', 'ipywidgets', 'matplotlib') if o in sys.modules]
print(heavy)
sys.path.insert(0, {str(root/'tests')!r})
from test_progress import fit, learner
fit(learn=learner(5))
print('short')
fit(learn=learner(400))
'''


def environment():
    return {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1',
            'PYTHONIOENCODING': 'utf-8'}


def in_terminal(code, columns=100):
    "What a process writes to a terminal of its own"
    pty, termios = pytest.importorskip('pty'), pytest.importorskip('termios')
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    child = subprocess.Popen([sys.executable, '-c', code], stdin=theirs, stdout=theirs,
                             stderr=theirs, env=environment(), start_new_session=True)
    os.close(theirs)
    out = b''
    while True:
        try: part = os.read(ours, 65536)
        except OSError: break
        if not part: break
        out += part
    os.close(ours)
    assert child.wait(300) == 0, out.decode()
    return out.decode()


def test_a_real_terminal():
    out = in_terminal(TERMINAL, columns=70)
    pieces = re.split('[\r\n]', out)
    bars = [re.match(r'epoch (\d)/(\d) (train|valid): +\d+%', o) for o in pieces]
    found = {o.groups() for o in bars if o}
    assert {('1', '2', 'train'), ('2', '2', 'train'), ('1', '1', 'train')} <= found
    assert all(len(o) <= 70 for o in pieces if '%' in o)
    lines = [o.split() for o in shown(out)]
    assert [o[0] for o in lines] == ['epoch', '0', '1', 'first', 'epoch', '0', 'interrupted',
                                     'epoch', '0', '1']
    assert lines[-1] == ['1', 'thread'] and '%' not in str(lines)


def test_a_pipe():
    result = subprocess.run([sys.executable, '-c', PIPE], capture_output=True, env=environment(),
                            check=True, timeout=300)
    out = result.stdout.decode()
    imported, _, rest = out.partition('\n')
    assert imported == '[]' and result.stderr == b''
    short, _, long = rest.partition('short\n')
    assert len(short) == len(long) and short.count('\n') == 3
    assert not re.search(r'[^\n -~]', out)


# ---- notebooks -----------------------------------------------------------------------------------
START = f'''
import os, sys, time
sys.path[:0] = [{str(root)!r}, {str(root/'tests')!r}]
os.environ.pop('FASTLOOP_PROGRESS', None)
from test_progress import Callback, accuracy, fit, learner
from ipywidgets.widgets.widget import _instances
def evil(pred, yb): return accuracy(pred, yb)
evil.__name__ = 'a<script>alert(1)</script>b'
class Slow(Callback):
    def after_loss(self): time.sleep(0.02)
class Interrupt(Callback):
    def after_batch(self):
        if self.n_iter == 25: raise KeyboardInterrupt
def check(progress):
    from tqdm import tqdm
    assert progress.bar.bar is None and not tqdm._instances and not _instances, _instances
    return progress.mode
'''


class Kernel:
    "A kernel, and what a frontend would show below a cell"
    def __init__(self):
        from jupyter_client.manager import start_new_kernel
        self.manager, self.client = start_new_kernel(env=environment())
        self.run(START)

    def run(self, code, answers=False):
        "The outputs that are left, and all messages; `answers` as a person in a browser would"
        outputs, places, messages = [], {}, []

        def collect(message):
            kind, content = message['msg_type'], message['content']
            messages.append((kind, content))
            place = content.get('transient', {}).get('display_id')
            if kind == 'update_display_data': outputs[places[place]] = content
            elif kind in ('display_data', 'execute_result', 'stream', 'error'):
                places[place] = len(outputs)
                outputs.append(content)
        reply = self.client.execute_interactive(textwrap.dedent(code), allow_stdin=answers,
                                                output_hook=collect, timeout=300)
        assert reply['content']['status'] == 'ok', reply['content'].get('traceback')
        return outputs, messages

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


WITHOUT_WIDGETS = f'''
import os, sys
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace
sys.path.insert(0, {str(root/'tests')!r})
import test_progress
def without(broken):
    assert broken not in sys.modules
    sys.modules[broken] = None
    shell = SimpleNamespace(kernel=1)
    sys.modules['IPython'] = SimpleNamespace(get_ipython=lambda: shell, version_info=(9,))
    sys.modules['ipykernel.zmqshell'] = SimpleNamespace()  # what tqdm looks for
    os.environ['FASTLOOP_PROGRESS'] = 'notebook'
    test_progress.ProgressCallback.interval = 0
    with redirect_stdout(StringIO()) as out: progress = test_progress.fit()
    print(progress.mode, len(out.getvalue().splitlines()), len(progress.recorder.values))
for broken in ('ipywidgets', 'tqdm.notebook'):  # each in a process of its own
    if os.fork():
        assert os.wait()[1] == 0
        print('next', file=sys.stderr)
    else:
        without(broken)
        break
'''


@pytest.fixture(scope='module')
def kernel():
    pytest.importorskip('ipykernel')
    made = Kernel()
    yield made
    made.stop()


def test_a_kernel_without_widgets():
    out = subprocess.run([sys.executable, '-c', WITHOUT_WIDGETS], capture_output=True,
                         env=environment(), check=True, timeout=300)
    assert out.stdout.decode().splitlines() == ['plain 3 2']*2
    told = out.stderr.split(b'next')
    assert len(told) == 3 and all(o.count(b'Warning') <= 1 for o in told)


@pytest.mark.rare  # run by `make test-all` alone
def test_a_notebook_in_a_browser(kernel):
    outputs, messages = kernel.run(
        "check(fit(Slow, learn=learner(20, 10), metrics=[accuracy, evil]))", answers=True)
    table, place, mode = (o['data'] for o in outputs)
    assert mode['text/plain'] == "'notebook'"
    assert place == {'text/plain': '', 'text/html': ''}
    rows = Cells(table['text/html']).rows
    assert rows[0] == ['epoch', 'train_loss', 'valid_loss', 'accuracy',
                       'a<script>alert(1)</script>b', 'time']
    assert [o[0] for o in rows[1:]] == ['0', '1']
    assert 'script' not in Cells(table['text/html']).tags and '<script' not in table['text/html']
    assert table['text/plain'].splitlines()[0].split() == rows[0]
    kinds = [kind for kind, _ in messages]
    assert kinds.count('display_data') == 2 and 'stream' not in kinds
    assert 'application/vnd.jupyter.widget-view+json' in messages[
        [i for i, o in enumerate(kinds) if o == 'display_data'][1]][1]['data']
    sent = [c['data'] for kind, c in messages if kind == 'comm_msg']
    labels = json.dumps(sent, ensure_ascii=False).replace('\u2007', ' ')
    for part in ('epoch 1/2 train', 'epoch 1/2 valid', 'epoch 2/2 train'): assert part in labels
    # the first row is there before the bar of the second epoch, the second row after it
    texts = [json.dumps(content, ensure_ascii=False) for _, content in messages]
    row0, bar, row1 = (next(i for i, o in enumerate(texts) if re.search(mark, o))
                       for mark in ('<td[^>]*>0</td>', 'epoch.2/2', '<td[^>]*>1</td>'))
    assert row0 < bar < row1



def test_a_notebook_that_is_interrupted(kernel):
    outputs, _ = kernel.run('''
        try: fit(Slow, Interrupt, learn=learner(20), epochs=3)
        except KeyboardInterrupt: pass
        check(fit(epochs=1))''', answers=True)
    tables = [o['data']['text/plain'] for o in outputs if o['data'].get('text/html')]
    assert [o.count('\n') for o in tables] == [1, 1]
    assert not any('widget' in o for out in outputs for o in out['data'])


def test_fast_epochs_do_not_flood_a_notebook(kernel):
    outputs, messages = kernel.run("check(fit(epochs=300, learn=learner(1, 1)))", answers=True)
    updates = [c for kind, c in messages if kind == 'update_display_data']
    assert outputs[0]['data']['text/plain'].count('\n') == 300 and len(updates) < 150


def test_a_notebook_that_a_program_runs(kernel):
    outputs, messages = kernel.run("check(fit(Slow))")
    text = ''.join(o['text'] for o in outputs[:-1])
    assert [o.split()[0] for o in text.splitlines()] == ['epoch', '0', '1']
    assert outputs[-1]['data']['text/plain'] == "'plain'"
    assert {kind for kind, _ in messages} <= {'status', 'execute_input', 'stream', 'execute_result'}


def test_nbclient_counts_as_a_program(kernel):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('check(fit(Slow))')])
    nbclient.NotebookClient(nb, timeout=300, km=kernel.manager).execute()
    streams = [o['text'] for o in nb.cells[0].outputs if o['output_type'] == 'stream']
    assert len(''.join(streams).splitlines()) == 3
    assert nb.cells[0].outputs[-1].data == {'text/plain': "'plain'"}


# ---- output that breaks --------------------------------------------------------------------------
class Broken(StringIO):
    "Breaks after some characters, as a closed pipe or a full disk does"
    encoding = 'utf-8'

    def __init__(self, left, error, terminal=False):
        super().__init__()
        self.left, self.error, self.terminal = left, error, terminal

    def isatty(self): return self.terminal

    def write(self, text):
        self.left -= len(text)
        if self.left < 0: raise self.error
        return super().write(text)

    def flush(self):
        if self.left < 0: raise self.error


@pytest.mark.parametrize('left', [0, 60, 120])
@pytest.mark.parametrize('mode', ['plain', 'terminal'])
@pytest.mark.parametrize('error', [BrokenPipeError(32, 'Broken pipe'), OSError(5, 'Input/output'),
                                   OSError(28, 'No space left'), ValueError('closed file')])
def test_output_that_breaks_costs_one_warning(tmp_path, monkeypatch, left, mode, error):
    monkeypatch.setattr(sys, 'stdout', Broken(left, error, mode == 'terminal'))
    if mode == 'terminal': monkeypatch.setattr(sys, 'stderr', Broken(left, error, True))
    learn = learner()
    cbs = [Recorder(), CSVLogger(), ProgressCallback(mode=mode)]
    cbs[-1].interval = 0
    learn.path = tmp_path
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        Runner(cbs).fit(3, learn)
    told = [o for o in told if o.category is not ResourceWarning]  # files of other tests
    assert [o.category for o in told] == [RuntimeWarning] and 'output is broken' in str(
        told[0].message)
    assert len(read_table(tmp_path/'history.csv')) == 3


class Tee:
    "Passes on what is written, and knows nothing else"
    def __init__(self): self.kept = StringIO()
    def write(self, text): self.kept.write(text)


class Bytes(Tee):
    def write(self, text): self.kept.write(bytes(text, 'utf-8'))


class Refuses(Tee):
    def write(self, text): raise RuntimeError('on purpose')


class Unknown(Tee):
    encoding = 'no-such-encoding'


@pytest.mark.parametrize('kind, warned', [(Tee, 0), (Unknown, 0), (Bytes, 1), (Refuses, 1)])
def test_an_output_of_any_kind_does_not_end_a_fit(monkeypatch, kind, warned):
    monkeypatch.setattr(sys, 'stdout', kind())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        progress = fit()
    text = sys.stdout.kept.getvalue()
    assert len(progress.recorder.values) == 2 and text == ('' if warned else progress.text + '\n')
    assert [o.category for o in told if 'broken' in str(o.message)] == [RuntimeWarning]*warned


def test_a_line_of_anybody_is_written_as_far_as_the_encoding_allows(monkeypatch):
    class Ascii(StringIO):
        encoding = 'ascii'
        def write(self, text): return super().write(text.encode('ascii').decode())
    monkeypatch.setattr(sys, 'stdout', Ascii())
    print_line('précision')
    assert sys.stdout.getvalue() == 'pr?cision\n'


def test_an_interrupt_is_no_broken_output(monkeypatch):
    class Interrupted(Tee):
        def write(self, text): raise KeyboardInterrupt
    monkeypatch.setattr(sys, 'stdout', Interrupted())
    with pytest.raises(KeyboardInterrupt): print_line('here')


PIPED = """
import sys, warnings
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.recorder import LossHistory, Recorder
from fastloop.examples import line
from fastloop.runner import Runner
input()
Runner([Recorder(), ProgressCallback()]).fit(4, line(n_batches=2))
print('and others may print too')
open(sys.argv[1], 'w').write('done')
"""


@pytest.mark.rare  # run by `make test-all` alone
@pytest.mark.skipif(os.name != 'posix', reason='pipes of POSIX')
def test_a_pipe_that_is_closed(tmp_path):
    p = subprocess.Popen([sys.executable, '-c', PIPED, str(tmp_path/'a')], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.close()
    _, told = p.communicate('\n')
    assert (tmp_path/'a').read_text() == 'done' and p.returncode == 0
    assert told.count('Warning') == 1 and 'Traceback' not in told


def test_a_long_table_is_not_copied_in_each_epoch(monkeypatch, capsys):
    from fastloop.callback import progress
    made, kind = [], progress.EpochTable
    monkeypatch.setattr(progress, 'EpochTable', lambda *args: made.append(1) or kind(*args))
    learn, cb = learner(), ProgressCallback(silent=False, mode='plain')
    Runner([Recorder(), cb]).fit(5, learn)
    assert len(made) == 1 and len(capsys.readouterr().out.splitlines()) == 6
