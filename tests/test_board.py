"The live board, its curves, and `fastloop watch`; the browser is in tests/browser."
import base64
import copy
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from test_control import At, Looks, learner

from fastloop import keras
from fastloop.all import (
    Callback,
    CheckpointCallback,
    Control,
    CSVLogger,
    DashboardCallback,
    OneCycleScheduler,
)
from fastloop.callback import dashboard
from fastloop.curves import (
    Curve,
    Panel,
    run_panels,
    smoothed,
    span,
    svg_text,
    text_panel,
    thinned,
    ticks,
)
from fastloop.state_files import read_state, write_state
from fastloop.watch import (
    as_columns,
    in_letters,
    look,
    make_server,
    newest_file,
    page_of,
    read_recorder,
    read_rows,
    told_run,
)

NAN, INF = float('nan'), float('inf')


# ---- curves --------------------------------------------------------------------------------------
@pytest.mark.parametrize('most, last', [(400, 100), (10, 0), (10, 9), (2, 1)])
@pytest.mark.parametrize('n', [0, 1, 2, 9, 10, 11, 399, 400, 401, 1000, 123_457, 10**12])
def test_thinned(n, most, last):
    places = thinned(n, most, last)
    assert len(places) <= most and places == sorted(set(places))
    assert places[len(places)-min(last, n):] == list(range(n-min(last, n), n))
    assert places[:1] == ([0] if n else [])
    if n <= most: assert places == list(range(n))


def test_points_of_one_picture_are_also_those_of_the_next():
    for n in range(500, 3000, 7):
        one, two = set(thinned(n)), set(thinned(n+1))
        assert two - one <= {n} | set(range(n-100, n)), 'a point comes back'


@pytest.mark.parametrize('values', [[], [NAN], [None], [1.], [0., 0.], [INF, 2., -INF],
                                    [1e-300, 1e300], [-5, 5], [1e-12, 1.0000001e-12]])
def test_every_axis_has_room_and_numbers(values):
    low, high = span(values)
    assert low < high
    slack = (high-low)/1e6
    assert all(low-slack <= o <= high+slack for o in ticks(low, high))
    assert len(ticks(low, high)) <= 5


@pytest.mark.parametrize('losses', [[], [1.], [NAN]*3, [1., NAN, INF, 2.], [0.]*1000,
                                    [1e30, 1e-30]])
def test_any_losses_can_be_drawn(losses):
    panels = run_panels(losses, smoothed(losses), [.1]*len(losses), [None]*len(losses),
                        [[None, NAN, INF]], ['train_loss', 'valid_loss', '<b>&"\x00\ud800'], [2],
                        [('rate', 1, .5), ('pause', 0, None)])
    drawn = ElementTree.fromstring(svg_text(panels, '<script>&\x01'))
    assert not {'nan', 'inf'} & set(re.findall('[a-z]+', svg_text(panels, '')))
    assert drawn.get('aria-label') == '<script>&?'
    for panel in panels: assert isinstance(text_panel(panel), str)


def test_curves_are_where_they_should_be():
    picture = svg_text([Panel('', [Curve('', [0, 5, 10], [0., 10., 20.], 'red')])], '')
    points = [tuple(map(float, o.split(','))) for o in
              re.findall(r'polyline points="([^"]*)"', picture)[0].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1-x0 == pytest.approx(x2-x1) and y1-y0 == pytest.approx(y2-y1) and x2 > x0 and y2 < y0


def test_texts_in_a_column_are_left_out():
    names, rows = ['train_loss', 'valid_loss', 'note'], [[.5, 'x', 'warm-up'], [.4, .6, .7]]
    panels = run_panels(rows=rows, names=names)
    assert [(o.xs, o.ys) for p in panels for o in p.curves if o.ys] == [
        ([1, 2], [.5, .4]), ([2], [.6]), ([2], [.7])]
    ElementTree.fromstring(svg_text(panels, ''))
    lines = told_run(Path(), Path('a.pt'), None, names, rows[:1], {})  # as from a checkpoint
    assert lines[-1] == '1 epochs: train_loss 0.5'


def test_letters_are_where_they_should_be():
    lines = text_panel(Panel('', [Curve('a', list(range(60)), list(range(60)), 'red')]), 71, 10)
    rows = [o.split('|')[1] for o in lines.splitlines() if '|' in o]
    firsts = [o.find('*') for o in rows]
    assert len(rows) == 10 and firsts == sorted(firsts, reverse=True) and min(firsts) == 0


# ---- the callback --------------------------------------------------------------------------------
class Shell:
    "What has been shown, in the place of IPython"
    def __init__(self): self.shown, self.updates, self.fails = [], [], None

    def display(self, o, raw=False, display_id=None):
        if self.fails: raise self.fails
        self.shown.append(o)
        return self if display_id else None

    def update(self, o, raw=False): self.updates.append(o)


@pytest.fixture
def shell(monkeypatch):
    import IPython.display
    found = Shell()
    monkeypatch.setattr(dashboard, 'has_front_end', lambda: True)
    monkeypatch.setattr(IPython.display, 'display', found.display)
    return found


class Soon(Callback):
    "Makes each drawing due"
    order, in_validate, in_lr_find = 50, False, False
    def after_batch(self): self.run.dashboard.next = 0.


def widgets():
    import ipywidgets
    return set(getattr(ipywidgets.widgets.widget, '_instances', {}))


def picture_of(bundle):
    data = re.search(r'base64,([^"]*)"', bundle['text/html'])[1]
    return base64.b64decode(data).decode()


def test_a_board_lives_and_leaves_a_picture(shell):
    before, threads = widgets(), threading.active_count()
    learn = learner(DashboardCallback(), Soon(), metrics=[lambda p, y: (p-y).abs().mean()])
    learn.fit(3, cbs=OneCycleScheduler(lr_max=.1))
    box, = shell.shown
    bundle, = shell.updates
    assert len(box.children) == 3 and widgets() == before and threading.active_count() == threads
    assert bundle['text/plain'].startswith('done: training loss from') and 'valid_loss' in \
        bundle['text/plain']
    drawn = ElementTree.fromstring(picture_of(bundle))
    lines = [o for o in drawn.iter() if o.tag.endswith('polyline')]
    assert len(lines) == 3 + 1 + 2  # raw, smooth, validation; a metric; rate and momentum
    assert [len(o.get('points').split()) for o in lines] == [18, 18, 3, 3, 18, 18]


def test_a_short_fit_leaves_a_picture_without_widgets(shell):
    learner(DashboardCallback()).fit(1)
    assert [sorted(o) for o in shell.shown] == [['text/html', 'text/plain']] and not shell.updates


def test_buttons_steer(shell):
    learn = learner(DashboardCallback(), Soon())

    def press(words):
        next(o for o in learn.dashboard.board.buttons if o.description == words).click()

    def factor(value): learn.dashboard.board.factor.value = value

    def somebody():
        wait_for(lambda: learn.dashboard.paused)
        press('Go on')
    thread = threading.Thread(target=somebody)
    learn.fit(9, cbs=[At(3, press, 'Multiply rate by'), At(5, factor, .1),
                      At(6, press, 'Multiply rate by'), At(7, thread.start), At(7, press, 'Pause'),
                      At(8, press, 'Stop after epoch')])
    thread.join(60)
    assert [(what, n, value) for what, n, value in learn.recorder.interventions] == [
        ('rate', 3, .5), ('rate', 6, .1), ('pause', 7, None), ('go_on', 7, None),
        ('stop_epoch', 8, None)]
    assert learn.run.n_iter == 12
    assert learn.recorder.lrs == pytest.approx([.1]*3 + [.05]*3 + [.005]*6)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(.01)


def broken(run): raise RuntimeError('out of cheese')


class Raises(Callback):
    def __init__(self, error): self.error = error
    def after_epoch(self): raise self.error


@pytest.mark.parametrize('error', [RuntimeError('x'), KeyboardInterrupt(), SystemExit(1)])
def test_a_fit_that_breaks_off_leaves_a_picture(shell, error):
    before = widgets()
    learn = learner(DashboardCallback(), Soon())
    with pytest.raises(type(error)): learn.fit(2, cbs=Raises(error))
    assert f'ended by {type(error).__name__}' in shell.updates[0]['text/plain']
    assert widgets() == before and learn.dashboard.board is None
    learn.fit(1)
    assert shell.updates[1]['text/plain'].startswith('done')


@pytest.mark.parametrize('when', ['first', 'later', 'end'])
def test_a_board_that_fails_does_not_end_the_fit(shell, when, monkeypatch):
    learn = learner(DashboardCallback(), Soon())
    if when == 'first': shell.fails = OSError('gone')
    if when == 'later': monkeypatch.setattr(dashboard, 'where', broken)
    if when == 'end': monkeypatch.setattr(dashboard, 'in_words', broken)
    with pytest.warns(UserWarning, match='the board cannot be shown') as found: learn.fit(2)
    assert len(found) == 1 and learn.run.n_iter == 12


def test_two_boards(shell):
    one, two = learner(DashboardCallback(), Soon()), learner(DashboardCallback(), Soon())
    threads = [threading.Thread(target=o.fit, args=(2,)) for o in (one, two)]
    for o in threads: o.start()
    for o in threads: o.join(100)
    assert len(shell.shown) == len({id(o) for o in shell.shown}) == len(shell.updates) == 2


def test_beside_a_control(shell, tmp_path):
    control = Looks(folder=tmp_path, verbose=False)
    learn = learner(control, DashboardCallback(), Soon())
    learn.fit(2, cbs=[At(2, (tmp_path/'rate').write_text, '0.5'),
                      At(4, lambda: learn.dashboard.rate(.5))])
    rates = [o for o in learn.recorder.interventions if o[0] == 'rate']
    assert [o[2] for o in rates] == [.5, .5] and learn.opt.lr == .1
    assert learn.recorder.lrs[-1] == .1*.25 and 'rate × 0.5' in shell.updates[0]['text/plain']


def test_a_resumed_fit_shows_the_whole(shell, tmp_path):
    learn = learner(CheckpointCallback(verbose=False), DashboardCallback(), path=tmp_path)
    with pytest.raises(RuntimeError): learn.fit(3, cbs=[At(2, lambda: learn.dashboard.rate(.5)), At(
        9, broken, None)])
    again = learner(CheckpointCallback(verbose=False), DashboardCallback(), Soon(), path=tmp_path)
    again.fit(3, resume=True)
    assert again.recorder.interventions == [('rate', 2, .5)]
    assert 'in 18 batches' in shell.updates[-1]['text/plain']


def test_other_runs_show_nothing(shell):
    learn = learner(DashboardCallback(), Soon())
    learn.validate()
    learn.get_preds()
    learn.lr_find(num_it=6, show_plot=False)
    learn.fit(0)
    assert not shell.shown and not shell.updates


def test_text_of_others_is_no_markup(shell):
    def metric(pred, y): return (pred-y).abs().mean()
    metric.__name__ = '<img src=x onerror=alert(1)>'
    learner(DashboardCallback(), Soon(), metrics=[metric]).fit(1)
    assert '<img src=x' not in shell.updates[0]['text/html'] + shell.shown[0].children[0].value
    ElementTree.fromstring(picture_of(shell.updates[0]))


@pytest.mark.parametrize('every', [0, -1, 'often', None])
def test_bad_seconds(every):
    with pytest.raises(ValueError, match='every='): DashboardCallback(every=every)


def test_at_most_twice_a_second():
    cb = DashboardCallback(every=.01)
    assert cb.next - time.perf_counter() > .4


def test_without_a_notebook(capsys):
    learn = learner(DashboardCallback())
    learn.fit(2, cbs=At(3, lambda: learn.dashboard.rate(.5)))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith('DashboardCallback: no notebook') and rest == ['Batch 3: rate × 0.5']
    assert learn.recorder.lrs[3:] == [.05]*9
    assert pickle.loads(pickle.dumps(DashboardCallback())).every == .5
    copy.deepcopy(learn).fit(1)


def test_training_is_the_same_with_a_board(shell):
    one, two = learner(), learner(DashboardCallback(), Soon())
    for o in (one, two): o.fit(2)
    assert one.recorder.raw_losses == two.recorder.raw_losses
    assert one.recorder.lrs == two.recorder.lrs


KERNEL = '''
import io, os, sys, threading, time
sys.path.insert(0, {tests!r})
from test_control import learner
from fastloop.all import *
class Slow(Callback):
    def after_batch(self): time.sleep(.05)
before = set(threading.enumerate())
learn = learner(DashboardCallback(), Slow())
learn.fit(3)
print('threads', [o.name for o in set(threading.enumerate()) - before if 'subshell' not in o.name])
'''


@pytest.fixture(scope='module')
def kernel(tmp_path_factory):
    "The client of a real kernel, which imports torch once"
    from jupyter_client.manager import start_new_kernel
    env = {k: v for k, v in os.environ.items() if k != 'FASTLOOP_PROGRESS'}
    folder = str(tmp_path_factory.mktemp('kernel'))
    manager, client = start_new_kernel(startup_timeout=120, env=env, cwd=folder)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize('watched', [True, False])
def test_in_a_real_kernel(watched, kernel):
    "A front end that takes input has a board; papermill and nbconvert, which do not, have a line"
    seen = []
    kernel.execute_interactive(KERNEL.format(tests=os.path.dirname(__file__)), timeout=200,
                               allow_stdin=watched, output_hook=seen.append)
    kinds = [o['msg_type'] for o in seen]
    text = ''.join(o['content']['text'] for o in seen if o['msg_type'] == 'stream')
    assert 'error' not in kinds and 'threads []' in text
    assert ('no notebook to show the board in' in text) == (not watched)
    assert kinds.count('display_data') == kinds.count('update_display_data') == watched
    if watched:
        shown, left = (next(o['content'] for o in seen if o['msg_type'] == kind)
                       for kind in ('display_data', 'update_display_data'))
        assert shown['transient'] == left['transient']
        assert 'application/vnd.jupyter.widget-view+json' in shown['data']
        ElementTree.fromstring(picture_of(left['data']))


# ---- watching ------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A folder that a fit has left, and its learner"
    path = tmp_path_factory.mktemp('run')
    learn = learner(Control(verbose=False), CSVLogger(), CheckpointCallback(verbose=False),
                    OneCycleScheduler(lr_max=.1), path=path,
                    metrics=[lambda p, y: (p-y).abs().mean()])
    learn.fit(8, cbs=At(9, 'rate', .5))
    return path, learn


def test_what_is_watched_is_what_was_recorded(run):
    path, learn = run
    (loss, _, rates), o = look(path)['panels'], learn.recorder
    assert loss.curves[0].ys == o.raw_losses and loss.curves[1].ys == pytest.approx(o.losses)
    assert loss.curves[2].ys == pytest.approx(o.val_losses) and loss.curves[2].xs[-1] == 48
    assert rates.curves[0].ys == o.lrs and rates.curves[1].ys == o.moms
    assert loss.marks == [(9, 'rate × 0.5')]
    assert 'rate × 0.5 after batch 9' in look(path)['lines']


def test_numbers_without_torch(run):
    path = max((run[0]/'models/checkpoints').iterdir())
    theirs, found = read_state(path)['callbacks']['Recorder'], read_recorder(path)
    plain = json.loads(json.dumps({k: v for k, v in theirs.items()}))
    assert {k: found[k] for k in plain} == plain and len(found['lrs']) == 48


@pytest.mark.parametrize('what', ['csv', 'checkpoints'])
def test_one_of_both_is_enough(run, tmp_path, what):
    path, learn = run
    if what == 'csv': (tmp_path/'x.csv').write_bytes((path/'history.csv').read_bytes())
    else:
        newest = max((path/'models/checkpoints').iterdir())
        (tmp_path/newest.name).write_bytes(newest.read_bytes())
    curves = {o.label: o for panel in look(tmp_path)['panels'] for o in panel.curves}
    assert curves['validation'].ys == pytest.approx(learn.recorder.val_losses)
    assert len(curves['training'].ys) == (8 if what == 'csv' else 48)


GOOD = b'epoch,train_loss,valid_loss,accuracy,time\n0,0.5,0.25,0.75,00:01\n'


@pytest.mark.parametrize('losses', [GOOD, b'"epoch";"loss"\n0;0.5\n'])
def test_what_lies_beside_the_rows_is_passed_over(tmp_path, losses):
    (tmp_path/'history.csv').write_bytes(losses)
    (tmp_path/'predictions.csv').write_text('file,class\na.png,coat\n')
    (tmp_path/'folder.csv').mkdir()
    os.mkfifo(tmp_path/'pipe.csv')  # whoever opens it waits
    for i, name in enumerate(('history', 'predictions', 'folder', 'pipe')):
        os.utime(tmp_path/f'{name}.csv', (i, i))
    os.mkfifo(tmp_path/'000001.pt')
    assert newest_file([tmp_path], '.*').name == 'predictions.csv'  # the pipe is not opened
    assert look(tmp_path)['lines'][1].startswith('1 epochs: train_loss 0.5')


@pytest.mark.parametrize('data, rows', [
    (b'', []), (b'epoch,train_l', []), (GOOD, [[.5, .25, .75]]),
    (GOOD + b'1,0.4,0.', [[.5, .25, .75]]), (GOOD + b'1,"a\n', [[.5, .25, .75]]),
    (GOOD + b'1,#na#,nan,x,y,z,1\n', [[.5, .25, .75], [None, NAN, None]]),
    (GOOD + b'1\n', [[.5, .25, .75], [None]*3]), (b'\xff\xfe\x00\n\x00\n', None),
    (b'epoch;loss;val_loss\n0;0.5;0.25\n', [[.5, .25]]), (b'a' * 200_000 + b'\n', None),
    (GOOD.replace(b'\n', b'\r\n'), [[.5, .25, .75]]), (b'\xef\xbb\xbf' + GOOD, [[.5, .25, .75]]),
    (b'epoch,loss\n0,' + b'9'*5000 + b'\n', [[INF, None]])])
def test_any_file_can_be_looked_at(tmp_path, data, rows):
    (tmp_path/'history.csv').write_bytes(data)
    if rows is not None:
        assert repr(as_columns(*read_rows(tmp_path/'history.csv'))[1]) == repr(rows)
    assert in_letters(look(tmp_path)) and '<p>' in page_of(look(tmp_path))


def test_every_state_of_growing_files(run, tmp_path):
    "A reader who comes at any moment sees whole rows, or nothing yet"
    path, learn = run
    data, newest = (path/'history.csv').read_bytes(), max((path/'models/checkpoints').iterdir())
    state = newest.read_bytes()
    for n in range(0, len(data), 13):
        (tmp_path/'history.csv').write_bytes(data[:n])
        names, rows = as_columns(*read_rows(tmp_path/'history.csv'))
        assert len(rows) == max(0, data[:n].count(b'\n')-1)
    rng = random.Random(0)
    for _ in range(40):
        harmed = bytearray(state[:rng.randrange(len(state))] if rng.random() < .5 else state)
        if harmed: harmed[rng.randrange(len(harmed))] ^= 255
        (tmp_path/'000001.pt').write_bytes(harmed)
        look(tmp_path)


def test_a_file_with_code_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'done'),)
    data = pickle.dumps({'callbacks': {'Recorder': Harmful()}})
    with zipfile.ZipFile(tmp_path/'000001.pt', 'w') as f: f.writestr('archive/data.pkl', data)
    assert read_recorder(tmp_path/'000001.pt') is None and not (tmp_path/'done').exists()
    assert look(tmp_path)['panels'] == []


def test_another_state_file(tmp_path):
    kept = {'A': None, 'B': {'x': torch.ones(3)}}
    write_state(tmp_path/'000001.pt', {'callbacks': kept, 'run': {}})
    assert read_recorder(tmp_path/'000001.pt') is None


class Texts(HTMLParser):
    def __init__(self): self.tags, self.text = super().__init__() or [], ''
    def handle_starttag(self, tag, attrs): self.tags.append(tag)
    def handle_data(self, data): self.text += data


def test_the_page_escapes(tmp_path):
    folder = tmp_path/'<script>alert(1)</script>'.replace('/', '_')
    folder.mkdir()
    (folder/'<b>.csv').write_text('epoch,train_loss,valid_loss,<i>x</i>,time\n0,1,2,3,4\n')
    page = page_of(look(folder))
    parsed = Texts()
    parsed.feed(page)
    assert not {'script', 'b', 'i'} & set(parsed.tags) and '<i>x</i>' in parsed.text


@pytest.fixture
def served(tmp_path):
    "The address of a page for a folder that is still empty"
    server = make_server(tmp_path/'run', 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}/', tmp_path/'run'
    server.shutdown()
    server.server_close()
    thread.join(60)


def ask(address, **headers):
    asked = urllib.request.Request(address, method=headers.pop('method', None), headers=headers)
    try: answer = urllib.request.urlopen(asked, timeout=60)
    except urllib.error.HTTPError as e: answer = e
    with answer: return answer.status, answer.read().decode(), answer.headers


def test_a_page_of_a_run_that_starts_later(served, run):
    address, folder = served
    assert ask(address)[0] == 200 and 'nothing yet' in ask(address)[1]
    folder.mkdir()
    (folder/'history.csv').write_bytes((run[0]/'history.csv').read_bytes()[:-3])
    status, page, headers = ask(address)
    assert '7 epochs' in page and '<svg' in page and headers['Cache-Control'] == 'no-store'
    before = {o: o.stat().st_mtime_ns for o in folder.iterdir()}
    assert ask(address, method='HEAD')[:2] == (200, '')
    assert ask(address + '?x=1')[0] == 200 and ask(address, Host='localhost:1')[0] == 200
    others = 'history.csv', '../run/history.csv', '%2e%2e/x'
    assert [ask(address + o)[0] for o in others] == [404]*3
    assert [ask(address, Host=o)[0] for o in ('evil.example', 'evil.example:80', '')] == [403]*3
    assert [ask(address, method=o)[0] for o in ('POST', 'PUT', 'DELETE')] == [501]*3
    assert before == {o: o.stat().st_mtime_ns for o in folder.iterdir()}, 'a reader has written'


def start(*words, **kwargs):
    env = {**os.environ, 'PYTHONUNBUFFERED': '1', 'COLUMNS': '90', 'LINES': '40'}
    command = [sys.executable, '-m', 'fastloop', 'watch', *map(str, words)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**env, **kwargs})


def test_the_command_once(run):
    process = start(run[0], '--once')
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0 and not err
    assert '8 epochs' in out and '\x1b' not in out and 'learning rate:' in out
    assert max(map(len, out.splitlines())) <= 90


def test_the_command_in_ascii(run):
    process = start(run[0], '--once', PYTHONIOENCODING='ascii')
    assert 'rate ? 0.5' in process.communicate(timeout=100)[0] and process.returncode == 0


def test_the_command_goes_on_and_ends(tmp_path, run):
    process = start(tmp_path, '--every', '0.1')
    assert process.stdout.readline() == f'{tmp_path}: nothing yet\n'
    (tmp_path/'history.csv').write_bytes((run[0]/'history.csv').read_bytes())
    assert 'history.csv' in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and 'Traceback' not in process.communicate()[1]


def test_the_command_serves(run):
    process = start(run[0], '--serve', '0')
    address = process.stdout.readline().split()[0]
    assert address.startswith('http://127.0.0.1:') and '8 epochs' in ask(address)[1]
    taken = start(run[0], '--serve', address.rstrip('/').rpartition(':')[2])
    assert taken.wait(60) == 1 and taken.communicate()[1].startswith('fastloop watch: ')
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.communicate()


@pytest.mark.parametrize('words', [('--serve', '99999'), ('--serve', 'x'), ('--every', '0'),
                                   ('--every', 'nan')])
def test_wrong_words(words):
    process = start('run', *words)
    assert process.wait(60) == 2 and 'error' in process.communicate()[1]


def test_watching_loads_nothing_large(run):
    code = ('import sys\nfrom fastloop.__main__ import main\n'
            f'main(["watch", {str(run[0])!r}, "--once"])\n'
            'print({"torch", "numpy", "matplotlib"} & set(sys.modules), file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    assert done.stderr == 'set()\n'


def test_a_file_of_keras(tmp_path):
    learn = learner(path=tmp_path)
    learn.fit(3, cbs=keras.callbacks.CSVLogger(str(tmp_path/'log.csv')))
    loss = look(tmp_path)['panels'][0]
    assert loss.curves[1].ys == pytest.approx([row[0] for row in learn.recorder.values], rel=1e-4)
    assert loss.curves[2].ys == pytest.approx(learn.recorder.val_losses, rel=1e-4)
