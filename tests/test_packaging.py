"""What is built can be installed elsewhere and works there.

The wheel is made from the files that git knows, installed into an empty environment beside the
newest fastcore, and its command is run from another folder. This needs a package index, as `make`
does; without one the tests that install are skipped.
"""
import configparser
import csv
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
bin_dir = Path(sys.executable).parent
OFFLINE = r'(?i)dns error|failed to lookup|error sending request|network is unreachable|' \
          r'could not connect|connection (refused|reset|error)|no matching distribution|timed out'


def call(*command, **kw):
    "Run a command away from this repository's environment; its output"
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'IN_TEST')}
    env.update(kw.pop('env', {}))
    done = subprocess.run([str(o) for o in command], text=True, env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **kw)
    if done.returncode:
        text = f"{' '.join(map(str, command))}\n{done.stdout}"
        if {'install', 'wheel', 'build'} & set(command) and re.search(OFFLINE, done.stdout):
            pytest.skip(f'no package index can be reached: {done.stdout[-300:]}')
        pytest.fail(text, pytrace=False)
    return done.stdout


def wheel_folder():
    "Options that name pip's folder of wheels to uv, which does not read pip's configuration"
    found = os.environ.get('PIP_FIND_LINKS', '')
    if not found:
        done = subprocess.run([sys.executable, '-m', 'pip', 'config', 'get', 'global.find-links'],
                              capture_output=True, text=True)
        found = done.stdout
    return [part for o in found.split() for part in ('--find-links', o)]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "A copy of what git would put into a clone"
    folder = tmp_path_factory.mktemp('source')
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                           cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split('\0')):
        if not (root/name).is_file(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/name, folder/name)
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    "The wheel that `pip wheel .` makes"
    out = tmp_path_factory.mktemp('wheel')
    call(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', out, '.',
         cwd=source)
    found, = out.glob('*.whl')
    return found


def contents(wheel):
    "The files in a wheel that are not about the wheel"
    with zipfile.ZipFile(wheel) as z:
        return {o for o in z.namelist() if '.dist-info/' not in o}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as z:
        name, = (o for o in z.namelist() if o.endswith('.dist-info/METADATA'))
        return message_from_string(z.read(name).decode())


def settings():
    config = configparser.ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def test_the_wheel_holds_the_package_and_nothing_else(wheel, source):
    kept = {str(o.relative_to(source)) for o in (source/'fastloop').rglob('*')
            if o.suffix in ('.py', '.tgz', '.typed')}
    assert contents(wheel) == kept
    assert 'fastloop/py.typed' in kept  # or checkers of types look into no module of it
    assert 'fastloop/data/fashion_sample.tgz' in kept
    with zipfile.ZipFile(wheel) as z: notices = [o for o in z.namelist() if '/licenses/' in o]
    assert {Path(o).name for o in notices} >= {'LICENSE', 'NOTICE'}
    assert wheel.stat().st_size < 5e6


def test_the_wheel_says_what_settings_say(wheel):
    found, wanted = metadata(wheel), settings()
    assert (found['Name'], found['Version']) == (wanted['lib_name'], wanted['version'])
    assert found['Requires-Python'] == f">={wanted['min_python']}"
    assert found['License-Expression'] == 'Apache-2.0'
    required = {o for o in found.get_all('Requires-Dist') if 'extra ==' not in o}
    assert required == set(wanted['requirements'].split())
    pythons = [o.split(' :: ')[-1] for o in found.get_all('Classifier')
               if re.fullmatch(r'Programming Language :: Python :: 3\.\d+', o)]
    assert pythons == wanted['tested_python'].split()
    assert found.get_payload().strip() == (root/'README.md').read_text().strip()


@pytest.mark.rare
def test_the_source_archive_makes_the_same_wheel(source, wheel, tmp_path):
    call(bin_dir/'uv', 'build', '--sdist', '--quiet', *wheel_folder(), '--python', sys.executable,
         '--out-dir', tmp_path, source)
    archive, = tmp_path.glob('*.tar.gz')
    with tarfile.open(archive) as t: names = {o.partition('/')[2] for o in t.getnames()}
    assert {'settings.ini', 'setup.py', 'LICENSE', 'NOTICE', 'README.md'} <= names
    call(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', tmp_path,
         archive)
    again, = tmp_path.glob('*.whl')
    assert contents(again) == contents(wheel)


# ---- installed elsewhere -------------------------------------------------------------------------
@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "A function that runs a command of an empty environment in which the wheel is installed"
    folder = tmp_path_factory.mktemp('elsewhere')
    uv, python = bin_dir/'uv', folder/'env'/'bin'/'python'
    call(uv, 'venv', '--quiet', '--python', sys.executable, folder/'env')

    def install(*what):
        "Install, with torch held at the version that is tested"
        torch = re.search(r'^torch==\S+', (root/'constraints.txt').read_text(), flags=re.M)[0]
        call(uv, 'pip', 'install', '--quiet', '--python', python, *wheel_folder(), torch, *what)

    def run(name, *args, cwd=folder):
        env = {'FASTLOOP_HOME': str(folder/'home'), 'MPLCONFIGDIR': str(folder/'matplotlib'),
               'OMP_NUM_THREADS': '1', 'PATH': f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        return call(python.parent/name, *args, cwd=cwd, env=env)
    install(wheel)
    run.install = install
    return run


WHERE = 'import fastloop.all, fastcore; print(fastloop.__file__); print(fastcore.__version__)'


def version(text): return tuple(map(int, re.findall(r'\d+', text)[:3]))


def check_demo(folder, text):
    "The demo has left pictures, a history and weights in `folder`, and says so"
    pictures = [folder/f'{o}.png' for o in ('lr_find', 'schedule', 'losses', 'predictions',
                                            'confusion', 'mistakes')]
    for o in pictures: assert o.read_bytes().startswith(b'\x89PNG')
    assert set(pictures) == set(folder.glob('*.png'))
    history, = folder.glob('*.csv')
    head, *lines = csv.reader(history.read_text().splitlines())
    assert head[:4] == ['epoch', 'train_loss', 'valid_loss', 'accuracy']
    assert len(lines) == 2 and float(lines[1][3]) > 0.5  # the head's epoch, and one for all
    weights, = folder.glob('*.pth')
    assert weights.stat().st_size > 1000
    for o in (*pictures, history, weights): assert o.name in text
    assert re.search(r'epoch +train_loss +valid_loss +accuracy +time', text), text
    assert '\x1b' not in text and '\r' not in text


@pytest.mark.rare
def test_the_demo_runs_beside_the_newest_fastcore(installed, tmp_path):
    where, fastcore = installed('python', '-c', WHERE).split()
    assert Path(where).parent.parent.name == 'site-packages'
    assert version(fastcore) >= (2, 0), 'the newest fastcore, not the one that nbdev needs'
    text = installed('fastloop', 'demo', '--epochs', '1', cwd=tmp_path)
    left = [o for o in tmp_path.iterdir()]
    assert [o.name for o in left] == ['demo']
    check_demo(left[0], text)


@pytest.mark.rare
def test_the_demo_runs_as_a_module_and_into_a_folder(installed, tmp_path):
    text = installed('python', '-m', 'fastloop', 'demo', '--epochs', '1', '--out', tmp_path/'here',
                     cwd=tmp_path)
    check_demo(tmp_path/'here', text)
    assert [o.name for o in tmp_path.iterdir()] == ['here']


@pytest.mark.rare
def test_the_demo_runs_beside_the_oldest_fastcore(installed, tmp_path):
    oldest = re.search(r'fastcore>=(\S+)', settings()['requirements'])[1]
    installed.install(f'fastcore=={oldest}.0')
    _, fastcore = installed('python', '-c', WHERE).split()
    assert version(fastcore)[:2] == version(oldest)
    text = installed('fastloop', 'demo', '--epochs', '1', '--out', tmp_path/'here', cwd=tmp_path)
    check_demo(tmp_path/'here', text)
