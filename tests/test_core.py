"What the room `core` promises about lists, names, messages and files"
import errno
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastloop import core
from fastloop.core import (
    add_note,
    atomic_write,
    camel2snake,
    check_word,
    format_time,
    listify,
    nearest_name,
    safe_path,
    snake2camel,
)

posix = pytest.mark.skipif(os.name != 'posix', reason='permissions and signals of POSIX')


def leftovers(folder): return [o.name for o in Path(folder).iterdir() if o.name.endswith('.tmp')]


def test_import_needs_no_torch():
    program = 'import sys, fastloop.core; print(sorted({"torch", "numpy"} & set(sys.modules)))'
    out = subprocess.check_output([sys.executable, '-c', program], text=True)
    assert out.strip() == '[]'


# ---- listify

def test_listify_keeps_the_list_itself():
    o = [1, 2]
    assert listify(o) is o


@pytest.mark.parametrize('o, expected', [
    (None, []), ('', ['']), ('loss', ['loss']), (b'ab', [b'ab']), (0, [0]), (False, [False]),
    ((), []), ((1, 2), [1, 2]), (range(2), [0, 1]), ({3}, [3]), (iter('ab'), ['a', 'b']),
    ((i for i in (1, 2)), [1, 2]), ({'a': 1}.keys(), ['a']), ({'a': 1}.values(), [1]),
    ({'a': 1}, ['a']), (Path('x'), [Path('x')])])
def test_listify(o, expected):
    assert listify(o) == expected


def test_listify_takes_a_function_or_class_as_one():
    assert listify(len) == [len] and listify(dict) == [dict]


def test_listify_takes_arrays_and_tensors_as_one():
    torch = pytest.importorskip('torch')
    for o in (np.arange(3), np.float32(1), torch.arange(3), torch.tensor(1)):
        res = listify(o)
        assert len(res) == 1 and res[0] is o
    pair = torch.zeros(2), torch.ones(2)
    assert listify(pair)[1] is pair[1]


def test_listify_to_a_length():
    assert listify(3, 2) == [3, 3] and listify('a', [1, 2]) == ['a', 'a']
    assert listify([1, 2], (3, 4)) == [1, 2] and listify(None, 0) == []
    assert listify((1,), np.int64(2)) == [1, 1]
    for o, n in (([1, 2], 3), (None, 1), ((1, 2, 3), [1])):
        with pytest.raises(ValueError, match='needed'): listify(o, n)


@given(st.lists(st.integers()))
def test_listify_agrees_with_list_and_is_idempotent(o):
    assert listify(tuple(o)) == o
    assert listify(listify(tuple(o))) == o


# ---- names

@pytest.mark.parametrize('name, expected', [
    ('TrainEvalCallback', 'train_eval_callback'), ('CSVLogger', 'csv_logger'),
    ('LRFinder', 'lr_finder'), ('MyHTTPServer2', 'my_http_server2'), ('AvgStats', 'avg_stats'),
    ('already_snake', 'already_snake'), ('Recorder', 'recorder'), ('', ''), ('My_Name', 'my_name'),
    ('ReduceLROnPlateau', 'reduce_lr_on_plateau'), ('BnFreeze', 'bn_freeze'),
    ('_Hidden', '_hidden')])
def test_camel2snake(name, expected):
    assert camel2snake(name) == expected


words = st.lists(st.from_regex('[a-z]{2,6}[0-9]?', fullmatch=True), min_size=1, max_size=5)


@given(words)
def test_names_go_there_and_back(parts):
    name = '_'.join(parts)
    assert camel2snake(snake2camel(name)) == name


@given(st.from_regex('[A-Za-z0-9_]{0,20}', fullmatch=True))
def test_camel2snake_is_idempotent_and_keeps_letters(name):
    snake = camel2snake(name)
    assert camel2snake(snake) == snake
    assert snake.replace('_', '') == name.replace('_', '').lower()


# ---- messages

def test_nearest_name():
    assert nearest_name('after_epcoh', ('after_epoch', 'after_fit')) == 'after_epoch'
    assert nearest_name('zzz', ['after_epoch']) is None and nearest_name('a', []) is None


def test_check_word():
    assert check_word('mode', 'min', ('min', 'max')) == 'min'
    assert check_word('every', None, (o for o in ('epoch', None))) is None
    with pytest.raises(ValueError) as e: check_word('every', 'epcoh', ('epoch', 'improvement'))
    for part in ("every='epcoh'", "'epoch'", "'improvement'", "did you mean 'epoch'"):
        assert part in str(e.value)


@pytest.mark.parametrize('value', [None, 3, ['min'], np.zeros(2), 'MAXIMUM'])
def test_check_word_refuses_what_is_no_known_word(value):
    with pytest.raises(ValueError, match='mode='): check_word('mode', value, ('min', 'max'))


def test_add_note():
    e = KeyError('a')
    assert add_note(e, 'one') is e and add_note(e, 'two').__notes__ == ['one', 'two']
    assert str(e) == "'a'"


def test_add_note_without_pythons_own():
    class Old:  # an exception of Python 3.10 has no `add_note`
        pass
    e = Old()
    add_note(add_note(e, 'one'), 'two')
    assert e.__notes__ == ['one', 'two']


@pytest.mark.parametrize('seconds, expected', [
    (0, '00:00'), (7, '00:07'), (59.99, '00:59'), (60, '01:00'), (3599, '59:59'), (3600, '1:00:00'),
    (3723, '1:02:03'), (360000, '100:00:00'), (-0.5, '00:00'), (-61, '-01:01'),
    (float('nan'), '--:--'), (float('inf'), '--:--')])
def test_format_time(seconds, expected):
    assert format_time(seconds) == expected


@given(st.integers(0, 10**6))
def test_format_time_can_be_read_back(seconds):
    parts = [int(o) for o in format_time(seconds).split(':')]
    assert sum(o*60**i for i, o in enumerate(reversed(parts))) == seconds


# ---- safe_path

@pytest.mark.parametrize('name', ['best', 'sub/best', 'loss_0.25', 'a..b', '...', './best', 'sub/'])
def test_safe_path_inside(tmp_path, name):
    path = safe_path(tmp_path, name, '.pth')
    assert path.resolve().is_relative_to(tmp_path.resolve()) and path.suffix == '.pth'
    assert not path.exists()


def test_safe_path_appends_the_suffix_once(tmp_path):
    assert safe_path(tmp_path, 'a.pth', '.pth') == safe_path(tmp_path, 'a', '.pth')
    assert safe_path(tmp_path, 'loss_0.25', '.pth') == tmp_path/'loss_0.25.pth'
    assert safe_path(tmp_path, Path('a')) == tmp_path/'a'
    assert safe_path(tmp_path, tmp_path/'a') == tmp_path/'a'


@pytest.mark.parametrize('name', ['../best', '../../etc/passwd', '/etc/passwd', 'a/../../b', '..',
                                  '.', '', 'a/..', 'a\0b'])
@pytest.mark.parametrize('suffix', ['', '.pth'])
def test_safe_path_outside(tmp_path, name, suffix):
    with pytest.raises(ValueError, match='name='): safe_path(tmp_path, name, suffix)


@posix
def test_safe_path_follows_links(tmp_path):
    inside, outside = tmp_path/'in', tmp_path/'out'
    inside.mkdir(), outside.mkdir()
    (inside/'link').symlink_to(outside)
    with pytest.raises(ValueError, match='leave'): safe_path(inside, 'link/best')
    (tmp_path/'models').symlink_to(inside)  # the folder itself may be a link
    assert safe_path(tmp_path/'models', 'best') == tmp_path/'models'/'best'


# ---- atomic_write

@given(old=st.none() | st.binary(), new=st.binary(max_size=10000))
def test_atomic_write_equals_write_bytes(tmp_path_factory, old, new):
    path = tmp_path_factory.mktemp('whole')/'file'
    if old is not None: path.write_bytes(old)
    with atomic_write(path) as file: file.write(new)
    assert path.read_bytes() == new and [o.name for o in path.parent.iterdir()] == ['file']


def test_text_and_newlines(tmp_path):
    with atomic_write(tmp_path/'a', 'w') as file: file.write('ä€\n')
    assert (tmp_path/'a').read_bytes().decode('utf-8').splitlines() == ['ä€']
    with atomic_write(tmp_path/'b', 'w', encoding='latin-1', newline='') as file:
        file.write('ä\r\n')
    assert (tmp_path/'b').read_bytes() == b'\xe4\r\n'


def test_a_name_of_full_length(tmp_path):
    path = tmp_path/('ä'*120)  # 240 bytes; a name may have 255
    with atomic_write(str(path)) as file: file.write(b'x')
    assert path.read_bytes() == b'x'


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize('old', [None, b'old'])
def test_exceptions_leave_everything_as_it_was(tmp_path, error, old):
    path = tmp_path/'file'
    if old is not None: path.write_bytes(old)
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b'half')
        raise error
    assert (path.read_bytes() if path.exists() else None) == old and not leftovers(tmp_path)


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_disk_that_fails(tmp_path, monkeypatch, step):
    path = tmp_path/'file'
    path.write_bytes(b'old')

    def fail(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match='No space'), atomic_write(path) as file: file.write(b'new')
    assert path.read_bytes() == b'old' and not leftovers(tmp_path)


@posix
def test_syncs_the_file_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    seen, fsync, replace = [], os.fsync, os.replace

    def spy_fsync(fd):
        info = os.fstat(fd)
        seen.append('folder' if stat.S_ISDIR(info.st_mode) else f'file of {info.st_size}')
        fsync(fd)

    def spy_replace(a, b):
        assert Path(a).parent == Path(b).parent
        seen.append('rename')
        replace(a, b)
    monkeypatch.setattr(os, 'fsync', spy_fsync)
    monkeypatch.setattr(os, 'replace', spy_replace)
    with atomic_write(tmp_path/'file') as file: file.write(b'12345')
    assert seen == ['file of 5', 'rename', 'folder']


@posix
@pytest.mark.parametrize('permissions', [0o600, 0o640, 0o664, 0o755])
def test_permissions_of_an_existing_file_are_kept(tmp_path, permissions):
    path = tmp_path/'file'
    path.write_bytes(b'old')
    path.chmod(permissions)
    with atomic_write(path) as file:
        assert all(stat.S_IMODE((tmp_path/o).stat().st_mode) == permissions
                   for o in leftovers(tmp_path))
        file.write(b'new')
    assert stat.S_IMODE(path.stat().st_mode) == permissions


@posix
@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_a_new_file_has_the_usual_permissions(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path/'plain').write_bytes(b'')
        with atomic_write(tmp_path/'file') as file: file.write(b'new')
    finally: os.umask(before)
    assert (tmp_path/'file').stat().st_mode == (tmp_path/'plain').stat().st_mode


@posix
def test_links_stay_links(tmp_path):
    (tmp_path/'disk').mkdir()
    real, link, chain = tmp_path/'disk'/'real', tmp_path/'link', tmp_path/'chain'
    real.write_bytes(b'old')
    link.symlink_to('disk/real'), chain.symlink_to(link)
    with atomic_write(chain) as file: file.write(b'new')
    assert link.is_symlink() and chain.is_symlink() and real.read_bytes() == b'new'
    dangling = tmp_path/'dangling'
    dangling.symlink_to(tmp_path/'disk'/'later')
    with atomic_write(dangling) as file: file.write(b'x')
    assert dangling.is_symlink() and (tmp_path/'disk'/'later').read_bytes() == b'x'


@pytest.mark.parametrize('mode', ['a', 'ab', 'r', 'r+', 'x', 'wt', None])
def test_other_modes_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match='mode='), atomic_write(tmp_path/'file', mode): pass
    assert not list(tmp_path.iterdir())


def test_folders_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path): pytest.fail('block was run')
    with pytest.raises(FileNotFoundError, match='missing'):
        with atomic_write(tmp_path/'missing'/'file'): pytest.fail('block was run')
    assert not list(tmp_path.iterdir())


@posix
def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    with pytest.raises(OSError, match='regular'), atomic_write(tmp_path/'pipe'): pass
    assert stat.S_ISFIFO((tmp_path/'pipe').stat().st_mode)


def test_a_read_only_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path/'file'
    path.write_bytes(b'old')
    path.chmod(0o444)
    # the superuser, who runs the tests in a container, may write anything: ask as a user would
    monkeypatch.setattr(os, 'access', lambda o, mode: bool(o.stat().st_mode & 0o200))
    with pytest.raises(PermissionError), atomic_write(path): pass
    assert path.read_bytes() == b'old'


def test_nested_and_parallel_writers_do_not_mix(tmp_path):
    path = tmp_path/'file'
    with atomic_write(path) as outer:
        outer.write(b'outer')
        with atomic_write(path) as inner: inner.write(b'inner')
        assert path.read_bytes() == b'inner'
    assert path.read_bytes() == b'outer'
    seen, stop = set(), threading.Event()

    def write(letter):
        for _ in range(15):
            with atomic_write(path) as file:
                for _ in range(20): file.write(letter*500)

    def read():
        while not stop.is_set(): seen.add(path.read_bytes())
    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=[o]) for o in (b'a', b'b', b'c')]
    for o in writers: o.start()
    for o in writers: o.join()
    stop.set()
    reader.join()
    assert seen <= {b'outer', *(o*10000 for o in (b'a', b'b', b'c'))} and not leftovers(tmp_path)


writer = """
import sys
from fastloop.core import atomic_write
for i in range(10**9):
    with atomic_write(sys.argv[1], 'w') as file:
        for _ in range(50):
            file.write(f'{i:08d}\\n'*100)
            file.flush()
        if i == 0: print('started', flush=True)
"""


@posix
def test_the_old_content_survives_kill_9_in_mid_write(tmp_path):
    path = tmp_path/'file'
    path.write_bytes(b'old')
    program = writer.replace("if i == 0: print", "print").replace(
        'flush=True)', 'flush=True); sys.stdin.read()')
    child = subprocess.Popen([sys.executable, '-c', program, str(path)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b'started'  # 45 kB are written, the block is open
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'old' and len(leftovers(tmp_path)) == 1
    with atomic_write(path) as file: file.write(b'new')  # what is left over is in nobody's way
    assert path.read_bytes() == b'new'


@posix
@pytest.mark.parametrize('delay', [0., .003, .011, .023, .05])
def test_every_instant_of_kill_9_leaves_one_whole_content(tmp_path, delay):
    path = tmp_path/'file'
    child = subprocess.Popen([sys.executable, '-c', writer, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b'started'
    time.sleep(delay)
    child.kill()
    child.communicate()
    if path.exists():  # the first rename may not have happened
        lines = path.read_text().splitlines()
        assert len(lines) == 5000 and len(set(lines)) == 1 and len(lines[0]) == 8


@posix
def test_ctrl_c_for_real(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # off in background jobs
    path = tmp_path/'file'
    path.write_bytes(b'old')
    try:
        with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
            file.write(b'half')
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)
    finally: signal.signal(signal.SIGINT, before)
    assert path.read_bytes() == b'old' and not leftovers(tmp_path)


# ---- what really happened ------------------------------------------------------------------------
def full_after(monkeypatch, size, error):
    "Let a write fail when a file has got `size` bytes"
    class Disk(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > size: raise error
            return super().write(data)

    class Failing(core._Watched, Disk): "What `core` opens, on such a disk"
    monkeypatch.setattr(core, '_Watched', Failing)


@pytest.mark.parametrize('size', [0, 10, 5_000, 200_000])
@pytest.mark.parametrize('error, kind, words', [
    (OSError(errno.ENOSPC, 'No space left on device'), OSError, 'disk is full.*best.pth'),
    (OSError(errno.EDQUOT, 'Quota exceeded'), OSError, 'disk is full'),
    (OSError(errno.EIO, 'Input/output error'), OSError, 'Input/output'),
    (KeyboardInterrupt(), KeyboardInterrupt, None)])
def test_what_stops_torch_is_what_is_raised(tmp_path, monkeypatch, size, error, kind, words):
    (tmp_path/'best.pth').write_bytes(b'old')
    full_after(monkeypatch, size, error)
    with pytest.raises(kind, match=words) as e:
        with atomic_write(tmp_path/'best.pth') as file:
            torch.save([torch.zeros(100_000) for _ in range(3)], file)
    assert getattr(e.value, 'errno', None) == getattr(error, 'errno', None)
    assert (tmp_path/'best.pth').read_bytes() == b'old' and not leftovers(tmp_path)


def test_a_real_disk_that_is_full(tmp_path):
    if not os.path.exists('/dev/full'): pytest.skip('no device that is always full')
    raw = core._Watched('/dev/full', 'wb')
    with pytest.raises((RuntimeError, OSError)) as e, io.BufferedWriter(raw) as file:
        torch.save(torch.zeros(100_000), file)
    assert 'disk is full' in str(core._what_happened(e.value, raw, None, 'x'))


@pytest.mark.parametrize('kind', [KeyboardInterrupt, SystemExit])
def test_an_interrupt_that_became_another_error_is_raised(tmp_path, kind):
    with pytest.raises(kind), atomic_write(tmp_path/'a') as file:
        try: raise kind
        finally: raise RuntimeError('unexpected position')
    with pytest.raises(kind), atomic_write(tmp_path/'a') as file:  # noqa: F841
        try: raise kind
        except BaseException as e: raise RuntimeError('unexpected position') from e
    assert not list(tmp_path.iterdir())


def test_an_interrupt_that_was_swallowed_is_raised(tmp_path, monkeypatch):
    full_after(monkeypatch, 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path/'a') as file:
        try: file.raw.write(b'abc')
        except BaseException: pass
    assert not list(tmp_path.iterdir())


def test_errors_of_the_block_itself_pass_and_so_do_older_ones(tmp_path):
    with pytest.raises(ValueError, match='mine'):
        try: raise OSError('before')
        except OSError:
            with atomic_write(tmp_path/'a'): raise ValueError('mine')
    with pytest.raises(RuntimeError, match='mine'):
        try: raise KeyboardInterrupt
        except KeyboardInterrupt:
            with atomic_write(tmp_path/'a'): raise RuntimeError('mine')
    assert not list(tmp_path.iterdir())


# ---- files of processes that are gone ------------------------------------------------------------
WAITING = """
import sys, time
from fastloop.core import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b'x'*100_000)
    file.flush()
    print('there', flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != 'posix', reason='needs locks')
def test_files_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path):
    ps = [subprocess.Popen([sys.executable, '-c', WAITING, str(tmp_path/'best.pth')],
                           stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for p in ps: assert p.stdout.readline()
        assert len(leftovers(tmp_path)) == 2
        (tmp_path/'.mine.tmp').write_text('somebody else named it so')
        ps[0].kill()
        ps[0].wait()
        with atomic_write(tmp_path/'other.csv', 'w') as file: file.write('a')
        assert len(leftovers(tmp_path)) == 2 and (tmp_path/'.mine.tmp').exists()
        with atomic_write(tmp_path/'a'):
            with atomic_write(tmp_path/'b'): assert len(leftovers(tmp_path)) == 4
    finally:
        for p in ps:
            p.kill()
            p.wait()
            p.stdout.close()
    with atomic_write(tmp_path/'a'): pass
    assert leftovers(tmp_path) == ['.mine.tmp']


@pytest.mark.skipif(os.name != 'posix', reason='needs locks')
def test_files_of_other_machines_are_left_alone_for_a_day(tmp_path):
    foreign = tmp_path/f'.a.pth.00000000-{"0"*16}.tmp'
    foreign.write_bytes(b'')
    with atomic_write(tmp_path/'a'): pass
    assert foreign.exists()
    os.utime(foreign, (1, 1))
    with atomic_write(tmp_path/'a'): pass
    assert not foreign.exists()
