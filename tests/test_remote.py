"Rows sent to servers of every temper"
import json
import math
import socket
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from logged import brief, make

from fastloop.callback import remote
from fastloop.callback.core import Callback
from fastloop.callback.remote import (
    RemoteMonitor,
    RowSender,
    check_headers,
    json_value,
    shown_address,
    split_address,
)


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
    monkeypatch.setattr(remote, 'monotonic', lambda: now[0])
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
from fastloop.callback.remote import RemoteMonitor
cb = RemoteMonitor(root=sys.argv[1], timeout=30)
for i in range(5): cb.sender.put({'epoch': i})
'''


def test_a_script_that_ends_waits_for_a_server_that_answers():
    with serving() as server:
        done = subprocess.run([sys.executable, '-c', script, server.root], capture_output=True,
                              cwd=Path(__file__).parent.parent)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert [o['epoch'] for o in rows_of(server)] == list(range(5))


# ---- faults --------------------------------------------------------------------------------------
def test_faults_of_the_monitor(tmp_path):
    with serving() as server:
        def check(learn, cb):
            assert not cb.sender.quiet and cb.close()
            assert [o['epoch'] for o in rows_of(server)] in ([], [0], [0, 1])
            server.got.clear()
        check_faults(lambda: make(tmp_path), lambda learn: RemoteMonitor(learn, root=server.root),
                     names=brief[2:], check=check)
        assert not sender_threads()
