"What room 10 cannot show well: servers that misbehave, archives that attack, processes that die."
import bz2
import gzip
import hashlib
import importlib.util
import io
import os
import signal
import stat
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image
from processes import Program

from fastloop.data import archive, external
from fastloop.data.archive import ArchiveError
from fastloop.data.external import DownloadError, URLs, image_folder_tensors, untar_data

root = Path(__file__).resolve().parent.parent
rare = pytest.mark.rare  # run by `make test-all` alone


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A cache of its own for each test"
    monkeypatch.setenv('FASTLOOP_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(external.time, 'sleep', lambda seconds: None)
    monkeypatch.setattr(external.os, 'sync', lambda: None, raising=False)
    return tmp_path/'home'


def tar_bytes(*members, mode='w:gz'):
    "A tar of (name, text), (name, type, target), or TarInfo objects"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for member in members:
            data = b''
            if isinstance(member, tarfile.TarInfo): info = member
            else:
                info = tarfile.TarInfo(member[0])
                if len(member) == 3: info.type, info.linkname = member[1:]
                else: data = member[1].encode() if isinstance(member[1], str) else member[1]
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


toy = tar_bytes(('toy/a.txt', 'a'), ('toy/sub/b.txt', os.urandom(300_000)))


class Server:
    "A loopback server of `files`; `plans` says for each request in turn what goes wrong"
    def __init__(self, files, ranges=True, etag='"1"'):
        self.files, self.ranges, self.etag = files, ranges, etag
        self.requests, self.plans = [], []
        self.reached, self.hold = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self): outer.answer(self)
            def log_message(self, *args): pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, name='toy.tgz'): return f'http://127.0.0.1:{self.http.server_port}/{name}'

    def answer(self, h):
        self.requests.append((h.path, h.headers.get('Range'), h.headers.get('If-Range')))
        plan = self.plans.pop(0) if self.plans else None
        data = self.files.get(h.path[1:])
        if isinstance(plan, str) and plan.startswith('to '):
            h.send_response(302)
            h.send_header('Location', plan[3:])
            return h.end_headers()
        if data is None: return h.send_error(404)
        if isinstance(plan, tuple): return h.send_error(*plan)
        wanted = h.headers.get('Range')
        same = h.headers.get('If-Range') == self.etag
        start = int(wanted[6:-1]) if wanted and self.ranges and same else 0
        if start >= len(data) and start: return h.send_error(416)
        h.send_response(206 if start else 200)
        if start: h.send_header('Content-Range', f'bytes {start}-{len(data)-1}/{len(data)}')
        if self.etag: h.send_header('ETag', self.etag)
        if plan != 'no length': h.send_header('Content-Length', str(len(data) - start))
        h.end_headers()
        stop = start + plan if isinstance(plan, int) else len(data)
        if plan == 'stall': stop = len(data)//2
        try: h.wfile.write(data[start:stop])
        except OSError: return
        if plan == 'stall':
            h.wfile.flush()
            self.reached.set()
            self.hold.wait(300)


@pytest.fixture
def serve():
    "Makes servers, and closes them when the test is over"
    made = []

    def make(files=None, **kwargs):
        made.append(Server({'toy.tgz': toy} if files is None else files, **kwargs))
        return made[-1]

    yield make
    for o in made:
        o.hold.set()
        o.http.shutdown()
        o.http.server_close()


def is_whole(path): return (path/'a.txt').read_text() == 'a' and (path/'sub'/'b.txt').stat().st_size
def everything(home): return sorted(o.name for o in (home/'data').iterdir())
def in_cache(home): return [o for o in everything(home) if o[0] != '.']


# --- downloads --------------------------------------------------------------------------------

def test_fresh_then_cached(serve, home):
    server = serve()
    path = untar_data(server.url())
    assert path == home/'data'/'toy' and is_whole(path)
    assert untar_data(server.url()) == path
    assert len(server.requests) == 1
    assert everything(home) == ['toy']


def test_folder_deleted_is_unpacked_again_without_a_request(serve):
    server = serve()
    path = untar_data(server.url())
    (path/'a.txt').unlink()
    (path/'sub'/'b.txt').unlink()
    (path/'sub').rmdir()  # empty: that is no data set
    assert is_whole(untar_data(server.url()))
    assert len(server.requests) == 1


def test_dest(serve, home, tmp_path):
    server = serve()
    path = untar_data(server.url(), dest=str(tmp_path/'mine'))
    assert path == tmp_path/'mine'/'toy' and is_whole(path)
    (tmp_path/'toy').write_text('a file in the way')
    with pytest.raises(ValueError, match='dest='): untar_data(server.url(), dest=tmp_path)
    assert not (home/'data').exists()


def test_dropped_connection_goes_on(serve):
    server = serve()
    server.plans = [1000, 2000]
    assert is_whole(untar_data(server.url()))
    assert [o[1:] for o in server.requests] == [
        (None, None), ('bytes=1000-', '"1"'), ('bytes=3000-', '"1"')]


def test_gives_up_then_resumes_in_the_next_call(serve, home):
    server = serve()
    server.plans = [1000] + [0]*3
    with pytest.raises(DownloadError, match='1000 of'): untar_data(server.url())
    assert in_cache(home) == []
    assert is_whole(untar_data(server.url()))
    assert server.requests[-1][1] == 'bytes=1000-'


@pytest.mark.parametrize('kwargs', [dict(ranges=False), dict(etag=None), dict(etag='W/"1"')],
                         ids=['no ranges', 'no version', 'weak version'])
def test_server_that_cannot_resume_sends_all(serve, kwargs):
    server = serve(**kwargs)
    server.plans = [1000]
    assert is_whole(untar_data(server.url()))
    assert len(server.requests) == 2
    if 'etag' in kwargs: assert server.requests[1][1] is None


def test_file_changed_between_two_requests(serve, home):
    server = serve()
    server.plans = [1000] + [0]*3
    with pytest.raises(DownloadError): untar_data(server.url())
    server.files['toy.tgz'] = tar_bytes(('toy/a.txt', 'a new one'))
    server.etag = '"2"'
    assert (untar_data(server.url())/'a.txt').read_text() == 'a new one'


def test_part_that_was_complete_already(serve, home):
    "Killed between the last byte and the rename: the server has nothing left to send (416)"
    server = serve()
    server.plans = [1000] + [0]*3
    with pytest.raises(DownloadError): untar_data(server.url())
    part, = (home/'archive').glob('*.part')
    part.write_bytes(toy)
    assert is_whole(untar_data(server.url()))


def test_server_that_answers_with_another_range(serve, monkeypatch):
    server = serve()
    server.plans = [1000]
    real = external.resume_headers
    monkeypatch.setattr(external, 'resume_headers', lambda part, tag: {
        k: v.replace('1000', '500') for k, v in real(part, tag).items()})
    assert is_whole(untar_data(server.url()))


def test_always_truncated(serve, home):
    server = serve(ranges=False)
    server.plans = [1000]*9
    with pytest.raises(DownloadError, match='toy.tgz.*connection broke.*network'):
        untar_data(server.url())
    assert in_cache(home) == [] and len(server.requests) < 6


def test_truncated_without_a_length_is_not_taken_for_whole(serve, home):
    server = serve({'toy.tgz': toy[:5000]})
    server.plans = ['no length']
    with pytest.raises(ArchiveError, match='damaged'): untar_data(server.url())
    assert in_cache(home) == [] and not list((home/'archive').glob('*.tgz'))
    server.files['toy.tgz'] = toy
    assert is_whole(untar_data(server.url()))


@pytest.mark.parametrize('plan, word', [(None, '404'), ((500, 'oops'), '500'), ((403,), '403')])
def test_http_errors(serve, home, plan, word):
    server = serve({} if plan is None else None)
    server.plans = [plan]
    with pytest.raises(DownloadError, match=word) as e: untar_data(server.url())
    assert server.url() in str(e.value) and 'file:///' in str(e.value)
    assert in_cache(home) == [] and len(server.requests) == 1


def test_no_network():
    server = Server({})
    server.http.server_close()
    with pytest.raises(DownloadError, match='cannot download toy from'): untar_data(server.url())


def test_wrong_checksum_deletes_the_file(serve, home, monkeypatch):
    server = serve()
    monkeypatch.setitem(external.checksums, server.url(), hashlib.sha256(toy).hexdigest())
    server.files['toy.tgz'] = tar_bytes(('toy/a.txt', 'not what was meant'))
    with pytest.raises(ArchiveError, match='wrong checksum'): untar_data(server.url())
    assert in_cache(home) == [] and not list((home/'archive').glob('*.tgz'))
    server.files['toy.tgz'] = toy
    assert is_whole(untar_data(server.url()))
    assert len(server.requests) == 2


def test_force_keeps_the_old_folder_until_the_new_one_is_ready(serve, home):
    server = serve()
    path = untar_data(server.url())
    (path/'mine.txt').write_text('an addition')
    server.files['toy.tgz'] = toy[:9000]
    with pytest.raises(ArchiveError): untar_data(server.url(), force=True)
    assert is_whole(path) and (path/'mine.txt').exists()
    server.files['toy.tgz'] = toy
    untar_data(server.url(), force=True)
    assert is_whole(path) and not (path/'mine.txt').exists()
    assert len(server.requests) == 3 and everything(home) == ['toy']


def test_same_name_from_another_address(serve):
    one, two = serve(), serve({'toy.tgz': tar_bytes(('toy/a.txt', 'other'))})
    untar_data(one.url())
    with pytest.raises(ValueError, match='force=True'): untar_data(two.url())
    assert (untar_data(two.url(), force=True)/'a.txt').read_text() == 'other'
    with pytest.raises(ValueError, match='force=True'): untar_data(one.url())


def test_several_files_make_one_set(serve, monkeypatch, home):
    parts = {'one.gz': gzip.compress(b'1'), 'two.gz': gzip.compress(b'2')}
    server = serve({f'set/{k}': v for k, v in parts.items()})
    url = server.url('set/')
    monkeypatch.setitem(external.file_sets, url, ('pair', list(parts)))
    for name, data in parts.items():
        monkeypatch.setitem(external.checksums, url + name, hashlib.sha256(data).hexdigest())
    path = untar_data(url)
    assert path.name == 'pair' and {o.name: o.read_text() for o in path.iterdir()} == {
        'one': '1', 'two': '2'}
    server.files['set/two.gz'] = gzip.compress(b'3')
    with pytest.raises(ArchiveError, match='two.gz'): untar_data(url, force=True)
    assert (path/'two').read_text() == '2'


def test_no_space(serve, home, monkeypatch):
    packed = tar_bytes(('toy/a.txt', 'a'), ('toy/sub/b.txt', bytes(300_000)))
    server = serve({'toy.tgz': packed})
    usage = type('Usage', (), dict(free=len(packed) - 1))
    monkeypatch.setattr(external.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(DownloadError, match='no space'): untar_data(server.url())
    usage.free = len(packed) + 1000  # enough to download, not to unpack
    with pytest.raises(DownloadError, match='no space'): untar_data(server.url())
    assert everything(home) == []
    usage.free = 1e9
    assert is_whole(untar_data(server.url()))


def test_disk_that_fills_up_while_unpacking(serve, home, monkeypatch):
    server = serve()

    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(external.shutil, 'copyfileobj', full)
        with pytest.raises(DownloadError, match='toy.*make room'): untar_data(server.url())
    assert everything(home) == []
    assert is_whole(untar_data(server.url()))


# --- addresses --------------------------------------------------------------------------------

@pytest.mark.parametrize('url', [
    'http://example.com/toy.tgz', 'ftp://127.0.0.1/toy.tgz', 'toy.tgz', '/tmp/toy.tgz', '',
    'https:', 'http://127.0.0.1.example.com/toy.tgz', 'http://localhost@example.com/toy.tgz',
    'file://host/toy.tgz', 'embedded:nothing', 'data:text/plain,x', 'https:///toy.tgz'])
def test_refused_addresses(url, monkeypatch, home):
    monkeypatch.setattr(external, 'open_url', lambda *a: pytest.fail('asked the network'))
    with pytest.raises(ValueError, match='refused'): untar_data(url)
    assert not home.exists()


@pytest.mark.parametrize('url', ['https://host/', 'https://host/%2e%2e', 'https://host/.tgz',
                                 'https://host/a%5C..%5Cb.tgz'])
def test_addresses_without_a_name(url, monkeypatch):
    monkeypatch.setattr(external, 'open_url', lambda *a: pytest.fail('asked the network'))
    with pytest.raises(ValueError, match='no file name'): untar_data(url)


@pytest.mark.parametrize('to', ['http://example.com/toy.tgz', 'ftp://127.0.0.1/toy.tgz',
                                Path('/etc/passwd').as_uri()])
def test_refused_redirects(serve, home, to):
    server = serve()
    server.plans = [f'to {to}']
    with pytest.raises(DownloadError): untar_data(server.url())
    assert in_cache(home) == []


def test_redirects_of_https():
    "From https only to https: not even to this machine"
    redirect = external.SafeRedirect().redirect_request
    request = external.Request('https://example.com/toy.tgz')
    with pytest.raises(DownloadError, match='not https'):
        redirect(request, None, 302, '', {}, 'http://127.0.0.1/toy.tgz')
    new = redirect(request, None, 302, '', {}, 'https://elsewhere.org/toy.tgz')
    assert new.full_url == 'https://elsewhere.org/toy.tgz'


def test_redirect_within_this_machine(serve):
    server = serve()
    server.plans = [f'to {server.url()}']
    assert is_whole(untar_data(server.url('old/toy.tgz')))


def test_file_address(tmp_path, home):
    file = tmp_path/'a name.tgz'
    file.write_bytes(toy)
    assert is_whole(untar_data(file.as_uri()))
    bad = tmp_path/'bad.tgz'
    bad.write_bytes(toy[:100])
    with pytest.raises(ArchiveError): untar_data(bad.as_uri())
    assert bad.exists(), 'a file of the user was deleted'
    with pytest.raises(DownloadError, match='no such file'):
        untar_data((tmp_path/'absent.tgz').as_uri())


def test_known_addresses_are_https_and_have_a_checksum():
    urls = {v for k, v in vars(URLs).items() if k.isupper() and k not in ('S3', 'GITHUB')}
    for url in urls - {URLs.FASHION_SAMPLE}: assert url.startswith('https://')
    for url in urls:
        pieces = [url + o for o in external.file_sets.get(url, ('', ['']))[1]]
        assert all(len(external.checksums[o]) == 64 for o in pieces)
    assert len({external.data_name(o) for o in urls}) == len(urls)


# --- archives ---------------------------------------------------------------------------------

def unpack(tmp_path, data, name='set.tgz'):
    "Call untar_data on an archive of these bytes"
    (tmp_path/name).write_bytes(data)
    return untar_data((tmp_path/name).as_uri())


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
good = ('set/good.txt', 'good')
evil = {
    'parent': [('../x.txt', 'x')],
    'parent inside': [('set/a/../../../x.txt', 'x')],
    'absolute': [('/tmp/fastloop-x.txt', 'x')],
    'double slash': [('//tmp/fastloop-x.txt', 'x')],
    'backslash': [('..\\x.txt', 'x')],
    'drive': [('C:x.txt', 'x')],
    'symlink absolute': [('set/l', SYM, '/etc')],
    'symlink out': [('set/l', SYM, '../../x')],
    'symlink to the folder above': [('set/l', SYM, '..')],
    'symlink by detour': [('set/d/l', SYM, 'e/../../../x')],
    'write through symlink': [('set/l', SYM, '.'), ('set/l/x.txt', 'x')],
    'write through symlink, other case': [('set/L', SYM, '.'), ('set/l/x.txt', 'x')],
    'symlink chain': [('set/a', SYM, 'b'), ('set/b', SYM, '.'), ('set/c', SYM, 'a/../../x')],
    'symlink replaced': [('set/l', SYM, 'good.txt'), ('set/l', 'x')],
    'hard link out': [('set/l', HARD, '../../etc/passwd')],
    'hard link absolute': [('set/l', HARD, '/etc/passwd')],
    'hard link to nothing': [('set/l', HARD, 'set/absent')],
    'hard link to symlink': [('set/s', SYM, 'good.txt'), ('set/l', HARD, 'set/s')],
    'character device': [('set/null', tarfile.CHRTYPE, '')],
    'block device': [('set/disk', tarfile.BLKTYPE, '')],
    'pipe': [('set/pipe', tarfile.FIFOTYPE, '')],
    'file and folder': [('set/f', 'x'), ('set/F', tarfile.DIRTYPE, '')],
    'file as folder': [('set/f', 'x'), ('set/f/g', 'x')],
    'link as the folder': [('set', SYM, '/tmp')],
}


@pytest.mark.parametrize('members', evil.values(), ids=evil)
def test_evil_tar_is_refused_whole(tmp_path, home, members):
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ArchiveError, match='set.tgz is refused'):
        unpack(tmp_path, tar_bytes(good, *members))
    assert everything(home) == []
    after = {o for o in tmp_path.rglob('*') if home not in o.parents}
    assert after - set(before) <= {home, tmp_path/'set.tgz'}
    assert not Path('/tmp/fastloop-x.txt').exists()


def zip_bytes(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as packed:
        for name, text, *mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            if mode: info.external_attr = mode[0] << 16
            packed.writestr(info, text)
    return out.getvalue()


@pytest.mark.parametrize('member', [
    ('../x.txt', 'x'), ('/tmp/fastloop-x.txt', 'x'), ('a/../../x', 'x'), ('C:/x', 'x'),
    ('link', '/etc/passwd', stat.S_IFLNK | 0o777), ('dev', '', stat.S_IFCHR | 0o666)])
def test_evil_zip_is_refused_whole(tmp_path, home, member):
    with pytest.raises(ArchiveError, match='refused'):
        unpack(tmp_path, zip_bytes(('set/good.txt', 'good'), member), 'set.zip')
    assert everything(home) == [] and not (tmp_path/'x.txt').exists()


def test_links_that_stay_inside_are_kept(tmp_path):
    path = unpack(tmp_path, tar_bytes(good, ('set/d/near', SYM, '../good.txt'),
                                      ('set/hard', HARD, 'set/good.txt')))
    assert (path/'d'/'near').is_symlink() and (path/'d'/'near').read_text() == 'good'
    assert (path/'hard').read_text() == 'good'


@pytest.mark.parametrize('name, data', [
    ('set.tar', tar_bytes(good, mode='w')), ('set.tar.bz2', tar_bytes(good, mode='w:bz2')),
    ('set.tar.xz', tar_bytes(good, mode='w:xz')), ('set.zip', zip_bytes(good)),
    ('set.tgz', tar_bytes(('set/', tarfile.DIRTYPE, ''), ('./set/good.txt', 'good'))),
    ('set.tgz', tar_bytes(('good.txt', 'good'), ('more/x.txt', 'x'))),
    ('set.tgz', tar_bytes(('otherwise/good.txt', 'good'))), ('set', tar_bytes(good))],
    ids=['tar', 'bz2', 'xz', 'zip', 'dots', 'no outer folder', 'other outer folder', 'no ending'])
def test_kinds_of_archive(tmp_path, name, data):
    path = unpack(tmp_path, data, name)
    assert path.name == 'set' and (path/'good.txt').read_text() == 'good'


plain = tar_bytes(good, ('set/more.txt', 'more'), ('set/last.txt', 'last'), mode='w')
broken = plain[:1024] + b'garbage!'*64 + plain[1536:]
zipped = bytearray(zip_bytes(good))
zipped[zipped.index(b'good', 40)] ^= 1


@pytest.mark.parametrize('beside', ['__MACOSX/set/._1.txt', '__MACOSX/._set', '._set',
                                    'set/._1.txt'])
def test_what_a_mac_packs_beside_the_files_is_no_part_of_the_data(tmp_path, beside):
    file = tmp_path/'set.zip'
    with zipfile.ZipFile(file, 'w') as packed:
        for name in ('set/1.txt', beside): packed.writestr(name, b'1')
    folder = untar_data(file.as_uri(), tmp_path/'there')
    assert [o.relative_to(folder).as_posix() for o in folder.rglob('*')] == ['1.txt']


@pytest.mark.parametrize('kind, said', [
    (tarfile.SYMTYPE, '/etc'), (tarfile.FIFOTYPE, 'not a file or folder')])
def test_links_and_devices_among_them_are_refused_as_anywhere(tmp_path, kind, said):
    with tarfile.open(tmp_path/'set.tar', 'w') as packed:
        for name, type_ in (('set/1.txt', tarfile.REGTYPE), ('__MACOSX/set/._1.txt', kind)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, '/etc' if type_ == tarfile.SYMTYPE else ''
            packed.addfile(member)
    with pytest.raises(ArchiveError, match=said):
        untar_data((tmp_path/'set.tar').as_uri(), tmp_path/'there')
    assert not (tmp_path/'there').exists() or not list((tmp_path/'there').rglob('*.txt'))


@pytest.mark.parametrize('data', [
    b'', b'hello', toy[:-4], toy[:len(toy)//2], toy[:20], broken, gzip.compress(broken),
    plain[:1500], bytes(zipped), zip_bytes(good)[:-5], tar_bytes(), zip_bytes(),
    tar_bytes(good, mode='w:bz2')[:-8], gzip.compress(b'no tar'),
    bz2.compress(plain)[:60] + b'x'*9], ids=range(15))
def test_damaged_archives(tmp_path, home, data):
    with pytest.raises(ArchiveError, match='set.tgz is'): unpack(tmp_path, data)
    assert everything(home) == []


def test_special_modes_are_dropped(tmp_path):
    info = tarfile.TarInfo('set/run')
    info.mode = 0o6777
    path = unpack(tmp_path, tar_bytes(good, info))
    assert not (path/'run').stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


steps = st.lists(st.sampled_from(['a', 'b', 'B', 'c', '.', '~']), min_size=1, max_size=3)
hops = st.lists(st.sampled_from(['..', '..', '.', '', 'a', 'b', 'c', '..\\']), max_size=5)
kinds = st.sampled_from(['file', 'symlink', 'symlink', 'folder'])
entry = st.tuples(steps.map('/'.join), kinds, hops.map('/'.join))


@pytest.mark.parametrize('examples', [150, pytest.param(1000, marks=rare)])
def test_whatever_passes_stays_inside(examples):
    members = given(st.sampled_from(['', 'top/']), st.lists(entry, min_size=1, max_size=5))
    settings(max_examples=examples, deadline=None)(members(check_inside))()


def check_inside(prefix, entries):
    "Every accepted path, with links followed by the file system itself, resolves to the inside"
    members = [archive.Member(prefix + n, k, t, 0, None) for n, k, t in entries]
    try: depth = archive.check_members(members)
    except ArchiveError: return
    event('accepted, links: ' + str(sum(o.kind == 'symlink' for o in members)))
    with tempfile.TemporaryDirectory() as where:
        top = Path(where).resolve()/'above'/'set'
        top.mkdir(parents=True)
        for m in members:
            out = top.joinpath(*archive.member_path(m.name)[depth:])
            (out if m.kind == 'folder' else out.parent).mkdir(parents=True, exist_ok=True)
            if m.kind == 'file': out.write_text('x')
            if m.kind == 'symlink' and m.target: os.symlink(m.target, out)
        for file in top.rglob('*'):
            target = Path(os.path.realpath(file))
            assert target == top or top in target.parents
        assert [o.name for o in top.parent.iterdir()] == ['set']


# --- processes --------------------------------------------------------------------------------

def start(code, *args):
    "A child process that runs `code` after importing untar_data"
    return Program('import sys, time\nfrom fastloop.data import external\n'
                   f'from fastloop.data.external import untar_data\n{code}', *args)


def kill(child):
    os.kill(child.process.pid, signal.SIGKILL)
    child.end()


def test_killed_in_mid_download(serve, home):
    server = serve()
    server.plans = ['stall']
    child = start('untar_data(sys.argv[1])', server.url())
    assert server.reached.wait(300)
    half, deadline = len(toy)//2, time.monotonic() + 300
    while sum(o.stat().st_size for o in home.rglob('*.part')) < half - (1 << 17):
        assert time.monotonic() < deadline
    kill(child)
    assert everything(home) == [] and not list((home/'archive').glob('*.tgz'))
    assert is_whole(untar_data(server.url())) and everything(home) == ['toy']
    assert len(server.requests) == 2


def test_killed_in_mid_extraction(serve, home):
    server = serve()
    stall = '''
real = external.shutil.copyfileobj
def slow(source, f):
    real(source, f)
    print('one file', flush=True)
    time.sleep(60)
external.shutil.copyfileobj = slow
untar_data(sys.argv[1])'''
    child, deadline = start(stall, server.url()), time.monotonic() + 300
    while child.stdout != 'one file\n': assert time.monotonic() < deadline
    kill(child)
    assert in_cache(home) == [] and len(list((home/'data').iterdir())) == 1
    assert is_whole(untar_data(server.url()))
    assert everything(home) == ['toy'] and len(server.requests) == 1


def test_two_processes_at_once(serve, home):
    server = serve()
    children = [start('print(untar_data(sys.argv[1]))', server.url()) for _ in range(2)]
    said = [o.end().stdout.strip() for o in children]
    assert said == [str(home/'data'/'toy')]*2
    assert is_whole(home/'data'/'toy') and len(server.requests) == 1


def test_many_threads_at_once(serve, home):
    server = serve()
    found = []
    threads = [threading.Thread(target=lambda: found.append(untar_data(server.url())))
               for _ in range(6)]
    for o in threads: o.start()
    for o in threads: o.join(60)
    assert found == [home/'data'/'toy']*6 and len(server.requests) == 1


def test_on_the_disk_before_it_has_its_name(serve, home, monkeypatch):
    seen = []
    monkeypatch.setattr(external.os, 'sync', lambda: seen.append(in_cache(home)), raising=False)
    untar_data(serve().url())
    assert seen == [[]] and in_cache(home) == ['toy']


def test_interrupt_leaves_nothing(serve, home, monkeypatch):
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(external.shutil, 'copyfileobj', stop)
        with pytest.raises(KeyboardInterrupt): untar_data(serve().url())
    assert everything(home) == []


def test_silent_without_a_terminal(serve, capfd):
    untar_data(serve().url())
    assert capfd.readouterr() == ('', '')


def test_bar_in_a_terminal(serve, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self): return True

    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    server = serve()
    server.plans = [200_000]
    untar_data(server.url())
    assert 'toy' in terminal.getvalue() and '300k' in terminal.getvalue()
    assert '\n' not in terminal.getvalue().strip()


# --- the embedded sample ----------------------------------------------------------------------

@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'make_fashion_sample', root/'tools'/'make_fashion_sample.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sample_archive(tool):
    data = tool.target.read_bytes()
    assert len(data) <= 3_500_000
    assert data[3] == 0 and data[4:8] == b'\0'*4, 'gzip has a file name or a time'
    with tarfile.open(tool.target) as tar:
        members = tar.getmembers()
    assert [o.name for o in members] == sorted(o.name for o in members) and len(members) == 6001
    assert {(o.mtime, o.uid, o.gid, o.uname, o.gname, o.mode) for o in members} == {
        (0, 0, 0, '', '', 0o644)}


@rare
def test_sample_is_what_the_script_makes(tool):
    if not tool.debian.is_dir(): pytest.skip('Debian package dataset-fashion-mnist not installed')
    new, old = tool.build(tool.debian), tool.target.read_bytes()
    assert tool.content(new) == tool.content(old)
    assert new == tool.build(tool.debian)  # but another zlib or Pillow may pack them differently


def test_sample_damaged_package(home, monkeypatch):
    monkeypatch.setitem(external.checksums, URLs.FASHION_SAMPLE, '0'*64)
    with pytest.raises(ArchiveError, match='install fastloop again'):
        untar_data(URLs.FASHION_SAMPLE)
    assert everything(home) == []


def test_sample(tool):
    path = untar_data(URLs.FASHION_SAMPLE)
    assert path.name == 'fashion_sample' and 'Zalando' in (path/'LICENSE').read_text()
    images, labels, classes = image_folder_tensors(path/'valid')
    assert images.shape == (1000, 28, 28) and images.dtype == torch.uint8
    assert labels.dtype == torch.int64 and labels.tolist() == sorted([*range(10)]*100)
    assert classes == sorted(tool.classes)


# --- folders of images ------------------------------------------------------------------------

def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def images(tmp_path):
    "Two classes of three images, written in an order that is not the sorted one"
    rng = np.random.default_rng(0)
    res = {f'{c}/{i}.png': rng.integers(0, 256, (4, 6), np.uint8) for c in 'ba' for i in (2, 0, 1)}
    for name, pixels in res.items(): save(tmp_path/'set'/name, pixels)
    return res


def test_images_in_sorted_order(tmp_path, images):
    (tmp_path/'set'/'LICENSE').write_text('not a class')
    (tmp_path/'set'/'a'/'._0.png').write_text('not an image')
    x, y, classes = image_folder_tensors(str(tmp_path/'set'))
    assert classes == ['a', 'b'] and y.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(x, torch.from_numpy(np.stack([images[o] for o in sorted(images)])))


def test_images_in_colour(tmp_path):
    pixels = np.arange(4*6*3, dtype=np.uint8).reshape(4, 6, 3)
    save(tmp_path/'set'/'a'/'0.png', pixels)
    x, _, _ = image_folder_tensors(tmp_path/'set', n_channels=3)
    assert torch.equal(x[0], torch.from_numpy(pixels).permute(2, 0, 1)) and x.shape == (1, 3, 4, 6)
    with pytest.raises(ValueError, match='n_channels=2'):
        image_folder_tensors(tmp_path/'set', n_channels=2)


@pytest.mark.parametrize('spoil', [lambda b: b'', lambda b: b'no image', lambda b: b[:len(b)//2]])
def test_corrupt_image_is_named(tmp_path, images, spoil):
    file = tmp_path/'set'/'b'/'1.png'
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match='b/1.png'.replace('/', r'.')):
        image_folder_tensors(tmp_path/'set')


def test_other_size_is_named(tmp_path, images):
    save(tmp_path/'set'/'b'/'1.png', np.zeros((5, 6), np.uint8))
    with pytest.raises(ValueError, match=r'b.1\.png is 6 x 5 pixels.*a.0\.png is 6 x 4'):
        image_folder_tensors(tmp_path/'set')


def test_folders_without_images(tmp_path, images):
    with pytest.raises(ValueError, match='absent'): image_folder_tensors(tmp_path/'absent')
    with pytest.raises(ValueError, match='all of it'): image_folder_tensors(tmp_path/'set'/'a')
    (tmp_path/'set'/'empty').mkdir()
    with pytest.raises(ValueError, match="without images.*'empty'"):
        image_folder_tensors(tmp_path/'set')
