"Every notebook runs from top to bottom, and what is committed is what the notebooks say."
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import notebook_runner  # noqa: E402
from house_rules import read_rooms, root  # noqa: E402
from nbdev.config import get_config  # noqa: E402

bin_dir = Path(sys.executable).parent
notebooks = sorted((root/'nbs').glob('*.ipynb'))
flags = get_config(path=root).tst_flags.split()
shared = 'PYTEST_XDIST_WORKER' in os.environ  # other processes of this run have notebooks too
skip = [o for o in flags if o not in os.environ.get('NB_FLAGS', '').split()]


# ---- they run ------------------------------------------------------------------------------------
@pytest.fixture(scope='session')  # tests of other modules may come between two notebooks
def runner(tmp_path_factory):
    "A function that starts a notebook in a fresh process and answers with its future"
    folder = tmp_path_factory.mktemp('notebooks')
    env = {'OMP_NUM_THREADS': '1', 'FASTLOOP_PROGRESS': '', 'MPLBACKEND': 'agg',
           'FASTLOOP_HOME': str(folder/'home'), 'IPYTHONDIR': str(folder/'ipython'),
           'PYTHONPATH': os.pathsep.join([str(root), str(Path(__file__).parent)])}
    forks = notebook_runner.server(env)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    pool, numbers = ThreadPoolExecutor(1 if shared else min(4, cores or 1)), count()

    def start(path, **kw):
        return pool.submit(notebook_runner.run, forks, path, skip, root,
                           folder/f'{next(numbers)}.json', **kw)
    yield start
    pool.shutdown(cancel_futures=True)
    forks.close()


@pytest.fixture(scope='module')
def runs(runner, request):
    "A function that gives a notebook's future; alone, this process starts all that are asked for"
    if shared: return runner
    wanted = [o.callspec.params['nb'] for o in request.session.items
              if getattr(o, 'originalname', '') == 'test_runs' and o.path == Path(__file__)]
    return {o: runner(o) for o in wanted}.get


@pytest.mark.parametrize('nb', notebooks, ids=lambda o: o.name)
def test_runs(nb, runs):
    result = runs(nb).result()
    if not result['ok']: pytest.fail(f"{nb.name}, {result['error']}", pytrace=False)
    # a cell that shows something shows it in the stored notebook as well, and the other way round
    stored = [bool(o['outputs']) for o in cells(nb) if o['cell_type'] == 'code']
    stale = [i for i, (now, then) in enumerate(zip(result['shown'], stored, strict=True))
             if now not in (None, then)]
    assert not stale, f'run `make nbs` and commit: code cells {stale} have other outputs'


def cells(nb): return json.loads(nb.read_text(encoding='utf-8'))['cells']


def write(path, *sources):
    "A notebook with these code cells"
    made = [{'cell_type': 'code', 'id': f'c{i}', 'metadata': {}, 'execution_count': None,
             'outputs': [], 'source': o.splitlines(True)} for i, o in enumerate(sources)]
    kernel = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    path.write_text(json.dumps({'cells': made, 'metadata': {'kernelspec': kernel}, 'nbformat': 4,
                                'nbformat_minor': 5}))
    return path


def test_the_runner_reports_what_cells_show(runner, tmp_path):
    nb = write(tmp_path/'good.ipynb', 'x = 3', 'x', '#| eval: false\n1/0', '#| slow\n1/0',
               'print(x)', 'import torch')
    result = runner(nb).result()
    assert result['ok'], result
    assert result['shown'] == [False, True, None, None, True, False]


@pytest.mark.parametrize('source, error', [
    ('assert 1 == 2', 'AssertionError'), ('x = (', 'SyntaxError'),
    ('import os\nos._exit(3)', 'code 3'), ('import sys\nsys.exit(0)', 'SystemExit'),
    ('import socket\nsocket.create_connection(("192.0.2.1", 80))', 'PermissionError')])
def test_the_runner_reports_failures(source, error, runner, tmp_path):
    result = runner(write(tmp_path/'bad.ipynb', '3', source)).result()
    assert not result['ok']
    assert error in result['error']


@pytest.mark.rare  # run by `make test-all` alone
def test_the_runner_ends_what_hangs(runner, tmp_path):
    nb = write(tmp_path/'slow.ipynb', 'import time\ntime.sleep(60)')
    result = runner(nb, timeout=3).result()
    assert 'still running' in result['error']


def test_notebooks_do_not_see_each_other(runner, tmp_path):
    one = write(tmp_path/'one.ipynb', 'import torch\ntorch.x = 3', 'y = 3')
    assert runner(one).result()['ok']
    two = write(tmp_path/'two.ipynb', 'import torch\nassert not hasattr(torch, "x")',
                'assert "y" not in globals()')
    assert runner(two).result()['ok']


# ---- what is committed is what they say ----------------------------------------------------------
def copy(folder):
    "The notebooks and settings, and of the package only what no notebook makes"
    shutil.copy(root/'settings.ini', folder)
    shutil.copytree(root/'nbs', folder/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (folder/'fastloop').mkdir()
    for o in by_hand: shutil.copy(root/'fastloop'/o, folder/'fastloop'/o)
    return folder


by_hand = ['__init__.py']  # the version is put into it


def nbdev(command, folder):
    "Run one of nbdev's commands"
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}  # it turns exporting off
    done = subprocess.run([bin_dir/command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def contents(folder, pattern):
    "The bytes of the files below a folder"
    return {str(o.relative_to(folder)): o.read_bytes() for o in sorted(folder.rglob(pattern))}


def differences(made, kept):
    "The names of files that are not the same in both"
    return sorted(o for o in {*made, *kept} if made.get(o) != kept.get(o))


def export_differences(source, folder):
    "The modules below `source` that differ from the fresh export in `folder`"
    return differences(contents(folder/'fastloop', '*.py'), contents(source/'fastloop', '*.py'))


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "A copy of the notebooks, and the package exported from it"
    folder = copy(tmp_path_factory.mktemp('exported'))
    nbdev('nbdev_export', folder)
    return folder


def test_exporting_again_changes_nothing(exported):
    changed = export_differences(root, exported)
    assert not changed, f'run `make nbs` and commit: {changed} (or remove what no notebook makes)'


def test_cleaning_again_changes_nothing(tmp_path):
    copy(tmp_path)
    nbdev('nbdev_clean', tmp_path)
    changed = differences(contents(tmp_path/'nbs', '*.ipynb'), contents(root/'nbs', '*.ipynb'))
    assert not changed, f'run `make nbs` and commit: {changed}'


def test_every_module_of_the_package_has_its_notebook():
    made = {f"{o.module.replace('.', '/')}.py" for o in read_rooms(root/'nbs') if o.module}
    kept = {o for o in contents(root/'fastloop', '*.py')
            if o in made or not o.endswith('__init__.py') and o != '_modidx.py'}
    assert made == kept


@pytest.mark.parametrize('damage', ['change', 'stale', 'missing', 'index'])
def test_export_differences_are_found(damage, exported, tmp_path):
    "The check above sees a module edited by hand, a stale one, a missing one, an old index"
    source = shutil.copytree(exported, tmp_path/'source')
    module = next(o for o in sorted((source/'fastloop').rglob('*.py')) if o.name[0] != '_')
    if damage == 'change': module.write_text(module.read_text() + '# by hand\n')
    if damage == 'stale': (source/'fastloop'/'stale.py').write_text('')
    if damage == 'missing': module.unlink()
    if damage == 'index': (source/'fastloop'/'_modidx.py').write_text('d = {}\n')
    assert len(export_differences(source, exported)) == 1


def test_uncleaned_notebooks_are_found(tmp_path):
    folder = copy(tmp_path)
    nbdev('nbdev_clean', folder)
    before = contents(folder/'nbs', '*.ipynb')
    nb = sorted((folder/'nbs').glob('*.ipynb'))[0]
    raw = json.loads(nb.read_text())
    next(o for o in raw['cells'] if o['cell_type'] == 'code')['execution_count'] = 7
    nb.write_text(json.dumps(raw, indent=1) + '\n')
    dirty = contents(folder/'nbs', '*.ipynb')
    nbdev('nbdev_clean', folder)
    assert differences(dirty, contents(folder/'nbs', '*.ipynb')) == [nb.name]
    assert differences(before, contents(folder/'nbs', '*.ipynb')) == []
