"The house rules hold for every notebook, and every rule catches a notebook that breaks it."
import configparser
import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from house_rules import (  # noqa: E402
    RULES,
    pin_problems,
    python_problems,
    read_rooms,
    root,
    traces,
)

rooms = read_rooms(root/'nbs')


def refuse(problems):
    "Fail with the list of what was found, if anything was"
    problems = list(problems)
    if problems: pytest.fail('\n'.join([f'{len(problems)} found:', *problems]), pytrace=False)


@pytest.mark.parametrize('name', RULES)
def test_rule_holds(name):
    assert rooms, 'no notebooks found'
    refuse(RULES[name](rooms))


# ---- the rules themselves ------------------------------------------------------------------------
SHOWN = [{'output_type': 'execute_result', 'data': {'text/plain': ['3']}, 'metadata': {},
          'execution_count': None}]
DOUBLE = '''#| export
def double(
    x: float,  # the number
    times: int = 1,  # how often to double it
) -> float:  # the result
    "Double a number."
    import matplotlib
    return x * 2**times'''
CLASS = '''#| export
class Doubler:
    "Doubles numbers."

    def __init__(
        self,
        times: int = 1,  # how often to double
    ):
        self.times = times

    def begin_batch(self):
        "Double the batch."

    def double(self, x: float,  # the number
               *args, a: int = 1,  # another
               **kwargs) -> float:  # the result
        "Double a number."
        return x * 2**self.times'''
USE = 'assert double(1) == 2\ndouble(1)'
NOT_YET = [{'output_type': 'stream', 'name': 'stdout', 'text': ['Not yet: it is `...`.']}]


def code(source, outputs=(), **kw):
    return {'cell_type': 'code', 'metadata': {}, 'source': source.splitlines(True),
            'outputs': list(outputs), 'execution_count': None, **kw}


def text(source): return {'cell_type': 'markdown', 'metadata': {}, 'source': source}


def exercise(number, **parts):
    "The cells of an exercise; `parts` replace its own, `None` leaves one out"
    check = "with checking(): should_be(halve(2), 1, 'halve(2)')"
    cells = {'task': text(f'**{number}. A number.** Write it.'), 'stub': code('halve = ...'),
             'check': code(check, NOT_YET),
             'solution': text('<details>\n<summary>Solution</summary>\n\n```python\n'
                              'def halve(x): return x/2\n```\n\n</details>')}
    return [o for o in (cells | parts).values() if o]


def exercises(*numbers):
    "The section of a room"
    return [text('## Exercises'), *[o for i in numbers for o in exercise(i)]]


def room(*cells, module='core', head='# Core\n\n> A promise.', skeleton=True):
    "The cells of a notebook that keeps every rule, with `cells` in its middle"
    start = [text(head), code(f'#| default_exp {module}')] if module else [text(head)]
    if not skeleton: return [*start, *cells]
    before = [text(f'## {o}') for o in ('What we will be able to write', 'The naive version',
                                        'What hurts', 'The version we keep')]
    return [*start, *before, *cells, text('## Using it'), *exercises(1, 2, 3),
            text('## Where next')]


def good(*cells, **kw):
    return room(code('#| export\nimport math'), code(DOUBLE), code(USE, SHOWN), *cells, **kw)


def defines(source, name='other'):
    "An export cell and the cell that shows it"
    return code('#| export\n' + source), code(f'assert {name}\n{name}', SHOWN)


LONG = '\n'.join(f'x{i} = {i}' for i in range(41))
BASES = """class A: x = 1
class B(A): x = 2
class _C({}): x = 3
class D(_C): x = 4
"""  # D stands on _C and B, or on a _C that nobody else stands on


def indented(lines, by=4): return '\n'.join(' '*by + f'x{i} = {i}' for i in range(lines))


LOADER = {'11_data.load.ipynb': good(module='data.load')}
START = good()[:-14]  # up to the exercises
# name of a rule -> notebooks that break it, in ways that must each be found
BAD = {
    'names_are_defined_once': [
        {'00_core.ipynb': good(), '11_data.load.ipynb': good(module='data.load')},
        {'00_core.ipynb': good(*defines('double = 3', 'double'))}],
    'modules_are_made_once': [
        {'00_core.ipynb': good(), '01_core.ipynb': good()},
        {'00_core.ipynb': good(module='cores')},
        {'00_core.ipynb': good(code('#| default_exp other'))},
        {'00_core.ipynb': good(module=None)}],
    'files_are_numbered': [
        {'core.ipynb': good()}, {'0_core.ipynb': good()}],
    'naive_versions_stay_inside': [
        {'00_core.ipynb': good(*defines('class NaiveLoader: "Loads."', 'NaiveLoader'))},
        {'00_core.ipynb': good(code('#| exporti\ndef naive_loader(): return 1'))}],
    'classes_are_whole': [
        {'00_core.ipynb': good(code('@patch\ndef triple(self: Doubler): return 3'))},
        {'00_core.ipynb': good(code('@patch(as_prop=True)\ndef triple(self: Doubler): return 3'))}],
    'imports_point_down': [
        {'00_core.ipynb': good(code('#| export\nfrom fastloop.data.load import double')), **LOADER},
        {'00_core.ipynb': good(code('#| exporti\nimport fastloop.data.load')), **LOADER},
        {'00_core.ipynb': good(code('#| export\nfrom fastloop import data')), **LOADER},
        {'00_core.ipynb': good(code('from fastloop.unknown import x'))},
        {'00_core.ipynb': good(code('from .data import double'))},
        {'00_core.ipynb': good(code('#| export\nfrom fastloop.core import double'))},
        {'00_core.ipynb': good(code('#| export\ndef _f():\n    from fastloop.data import load')),
         **LOADER}],
    'callbacks_keep_apart': [
        {'30_callback.core.ipynb': good(code(f'#| export\n{o}'), module='callback.core')}
        for o in ('from fastloop.runner import Runner', 'from fastloop.data.load import double',
                  'import fastloop.vision.models', 'from fastloop import learner',
                  'def _f():\n    from fastloop.learner import Learner')],
    'imports_have_their_own_cells': [
        {'00_core.ipynb': good(code('import math\nprint(math.pi)'))},
        {'00_core.ipynb': good(code('#| export\nimport math\nx = 3'))},
        {'00_core.ipynb': good(code('def f():\n    import math\n    return math.pi'))}],
    'imports_are_explicit': [
        {'00_core.ipynb': good(code('from math import *'))},
        {'00_core.ipynb': good(code('from fastloop.all import *'))},
        {'91_cli.ipynb': good(code('#| export\nfrom fastloop.all import *'), module='cli')}],
    'optional_packages_are_imported_late': [
        {'00_core.ipynb': good(code('#| export\nimport matplotlib.pyplot as plt'))},
        {'00_core.ipynb': good(code('#| export\ntry:\n    import pandas\nexcept ImportError: x'))},
        {'00_core.ipynb': good(code('#| export\nif 1:\n    if 2:\n        import pandas'))}],
    'cells_are_small': [
        {'00_core.ipynb': good(code(LONG))},
        {'00_core.ipynb': good(*[code('\n'.join(LONG.split('\n')[:17]))]*6)}],
    'classes_are_short': [
        {'00_core.ipynb': good(*defines('class Wide:\n' + indented(121), 'Wide'))},
        {'00_core.ipynb': good(*defines('def wide():\n' + indented(26), 'wide'))},
        {'00_core.ipynb': good(*defines('class Wide:\n    def _f(self):\n' + indented(26, 8),
                                        'Wide'))}],
    'classes_are_no_staircase': [
        {'00_core.ipynb': good(*defines('class _Step: x = 1\nclass Top(_Step): y = 1', 'Top'))},
        {'00_core.ipynb': good(code('#| exporti\nclass _Step: x = 1')),
         '11_data.load.ipynb': good(*defines('class Top(_Step): y = 1', 'Top'),
                                    module='data.load')}],
    'classes_stand_near_their_base': [
        {'00_core.ipynb': good(*defines(BASES.format('B'), 'D'))},
        {'00_core.ipynb': good(*defines(BASES.format('A'), 'D'))}],
    'modules_keep_their_secrets': [
        {'00_core.ipynb': good(), '11_data.load.ipynb': good(code(f'#| export\n{o}'),
                                                            module='data.load')}
        for o in ('from fastloop.core import _double', 'from fastloop.core import double, _Twice',
                  'def _f():\n    from fastloop.core import _double')],
    'pages_keep_to_their_size': [
        {'11_data.load.ipynb': good(text('word '*1500), module='data.load')},
        {'11_data.load.ipynb': good(*[code('#| exporti\n' + LONG) for _ in range(5)],
                                    module='data.load')},
        {'11_data.load.ipynb': good(*[o for i in 'abcd' for o in
                                      defines(f'class {i.upper()}: "Fine."', i.upper())],
                                    module='data.load')}],
    'notebooks_are_small': [{'00_core.ipynb': good(text('x'*300_000))}],
    'lines_are_short': [{'00_core.ipynb': good(code(f'x = {"1 + "*30}1'))}],
    'statements_have_their_own_lines': [
        {'00_core.ipynb': good(code('x = 1; y = 2'))}, {'00_core.ipynb': good(code('print(3);'))}],
    'outputs_are_stored': [
        {'00_core.ipynb': room(code('x = 3'), skeleton=False)},
        {'00_core.ipynb': good(code('x', execution_count=1))},
        {'00_core.ipynb': good(code('x', [{**SHOWN[0], 'execution_count': 2}]))},
        {'00_core.ipynb': good(code('x', [{'output_type': 'error', 'ename': 'KeyError'}]))},
        {'00_core.ipynb': good(code('x', [{'output_type': 'stream', 'name': 'stderr',
                                           'text': ['a warning']}]))}],
    'pictures_have_a_text': [
        {'00_core.ipynb': good(code(o, [{'output_type': 'display_data', 'data': data}]))}
        for o, data in [('x', {'image/png': 'abc'}), ('#| fig-alt:\nx', {'image/png': 'abc'}),
                        ('#| fig-alt: "a"\nx', {'text/html': ['<img src="a.png" alt="">']})]],
    'outputs_are_repeatable': [
        {'00_core.ipynb': good(code('x', [{'output_type': 'stream', 'name': 'stdout',
                                           'text': [o]}]))}
        for o in ('<object at 0x7f2b5c3a9d90>', '10%\r20%', '\x1b[31mred')],
    'rooms_begin_with_a_promise': [
        {'00_core.ipynb': good(head='# Core')}, {'00_core.ipynb': good(head='> A promise.')},
        {'00_core.ipynb': good(head='# Core\n\n> A promise.\n\nAnd a story.')}],
    'rooms_have_the_skeleton': [
        {'00_core.ipynb': good(skeleton=False)},
        {'00_core.ipynb': good(text('## What hurts'))[:-1]},
        {'00_core.ipynb': [o for o in good() if o != text('## What hurts')]},
        {'00_core.ipynb': good()[:2] + [text('## Where next')] + good()[2:-1]}],
    'exercises_can_be_checked': [
        {'77_more.ipynb': START + o + [text('## Where next')]} for o in (
            exercises(1, 2), exercises(1, 2, 3, 4, 5, 6), exercises(1, 3, 4),
            [text('## Exercises\n\nFour of them.')],
            [*exercises(1, 2), text('## Where next'), *exercise(3)],
            [*exercises(1, 2), *exercise(3, stub=None)],
            [*exercises(1, 2), *exercise(3, check=None)],
            [*exercises(1, 2), *exercise(3, solution=None)],
            [*exercises(1, 2), *exercise(3, solution=text('<details>It is easy.</details>'))],
            [*exercises(1, 2), *exercise(3, stub=exercise(3)[2], check=exercise(3)[1])],
            [*exercises(1, 2), *exercise(3, check=code('assert halve(2) == 1', NOT_YET))],
            [*exercises(1, 2), *exercise(3, check=code('with checking(): pass', SHOWN))],
            [*exercises(1, 2), *exercise(3), code('x = 3')])]
        + [{'91_demo.ipynb': [text('# Demo\n\n> A promise.'), *exercises(1, 2)]}],
    'exports_are_shown_and_checked': [
        {'00_core.ipynb': room(code(DOUBLE), code(USE))},
        {'00_core.ipynb': room(code(DOUBLE), code('double(1)', SHOWN))},
        {'00_core.ipynb': room(code(DOUBLE))},
        {'00_core.ipynb': room(code(DOUBLE), code('x'), code('y'), code(USE, SHOWN))}],
    'exports_do_not_pile_up': [
        {'00_core.ipynb': good(*[code(f'#| export\n{o}') for o in (
            'def f0(): "Nothing."', 'def f1(): "Nothing."', how, 'def f3(): "Nothing."')],
                               code('assert f0\nf0', SHOWN))}
        for how in ('def f2(): "Nothing."', 'class _Private: "Nothing."')],
    'rooms_are_called_by_their_titles': [
        {'00_core.ipynb': good(text('As room 32 says.'))},
        {'00_core.ipynb': good(code('x = 3  # see Room 4'))},
        {'00_core.ipynb': good(text('See [The runner](32_runner.ipynb).'))}],
    'exports_have_docstrings': [
        {'00_core.ipynb': good(*defines(o))}
        for o in ('def other(): return 1', 'class other: x = 1',
                  'class other:\n    "Fine."\n    def method(self): return 1',
                  'class other:\n    "Fine."\n    def begin_fit(self): return 1',
                  'def other():\n    "One. Two."',
                  'def other():\n    """One\n    and more.\n    """',
                  '@property\ndef other(self): return 1')],
    'parameters_have_docments': [
        {'00_core.ipynb': good(*defines(o))}
        for o in ('def other(x: int): "Fine."',
                  'def other(\n    x: int, y: int,  # both\n): "Fine."',
                  'class other:\n    "Fine."\n    def method(self, x: int, z: int = 1):  # z\n'
                  '        "Fine."',
                  'def other(\n    x: int,  # the first\n    *,\n    y: int,\n): "Fine."',
                  'class other:\n    "Fine."\n    def __init__(self, x: int): self.x = x',
                  'class other:\n    "Fine."\n    def method(self, x: int): "Fine."',
                  '@dataclass\nclass other:\n    "Fine."\n    x: int')],
    'types_say_something': [
        {'00_core.ipynb': good(*defines(o))}
        for o in ('def other(\n    lr: object,  # a number\n): "Fine."',
                  'def other(\n    lr: \'object | None\' = None,  # a number\n): "Fine."',
                  'def other(\n    *names: Any,  # texts\n): "Fine."',
                  'class other:\n    "Fine."\n    def __init__(\n        self,\n'
                  '        lr: Any = 1,  # a number\n    ): self.lr = lr')],
    'parameters_have_types': [
        {'00_core.ipynb': good(*defines(o))}
        for o in ('def other(\n    x,  # a number\n): "Fine."',
                  'class other:\n    "Fine."\n    def __init__(\n        self,\n'
                  '        x=1,  # a number\n    ): self.x = x')],
}


def write(folder, notebooks):
    for name, cells in notebooks.items():
        (folder/name).write_text(json.dumps({'cells': cells, 'metadata': {}, 'nbformat': 4,
                                             'nbformat_minor': 5}))
    return read_rooms(folder)


def test_every_rule_has_a_bad_example():
    assert set(BAD) == set(RULES)


@pytest.mark.parametrize('name', RULES)
def test_good_notebooks_pass(name, tmp_path):
    notebooks = {
        '00_core.ipynb': good(*defines(CLASS.removeprefix('#| export\n'), 'Doubler')),
        '32_runner.ipynb': room(
            code('#| export\nfrom fastloop.core import double'),
            code('#| export\n#| code-fold: true\n' + 'class Runner:\n    "Runs."\n'
                 + '\n'.join(f'    x{i} = {i}' for i in range(50))),
            code('from fastloop.core import (\n' + 20*'    double,\n' + ')'),
            code('%time pass\nassert Runner\nRunner', SHOWN), code('double'), module='runner'),
        '40_callback.schedule.ipynb': room(
            *defines('@dataclass\nclass Phase:\n    "Fine."\n    x: int  # a number', 'Phase'),
            code('from fastloop.callback.schedule import Phase\n'
                 'from fastloop.runner import Runner'),
            module='callback.schedule'),
        '31_more.ipynb': good(module='more')[:4] + [
            text('## What hurts\n\n## The version we keep\n\n## Using it\n'), code('3', SHOWN),
            *exercises(1, 2, 3, 4, 5), text('## Where next\n\nOn.')],
        '80_keras.models.ipynb': room(code(DOUBLE), code(USE, SHOWN), module='keras.models'),
        '90_all.ipynb': [text('# All\n\n> A list.'), code('#| default_exp all'), code('3', SHOWN)],
        'index.ipynb': [text('# fastloop\n\n> A loop.'), code('from fastloop.all import *'),
                        code(USE, SHOWN)]}
    problems = RULES[name](write(tmp_path, notebooks))
    refuse(problems)


@pytest.mark.parametrize('name, number', [(n, i) for n, o in BAD.items() for i in range(len(o))])
def test_bad_notebooks_are_caught(name, number, tmp_path):
    assert list(RULES[name](write(tmp_path, BAD[name][number])))


# ---- the repository ------------------------------------------------------------------------------
def tracked():
    "The text files of the repository, by their paths inside it"
    found = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                           cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, found.split('\0')):
        try: text = (root/name).read_text(encoding='utf-8')
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError): continue
        yield name, re.sub(r'"image/\w+": "[^"]*"', '', text)  # letters at random


def test_nothing_speaks_of_one_machine():
    texts = list(tracked())
    assert len(texts) > 10
    refuse(f'{name}: {o!r}' for name, text in texts for o in traces(text))


@pytest.mark.parametrize('words', ['see /roo' 't/data', 'in "/home/' 'ann/x"', 'an A' 'I wrote it',
                                   'TO' 'DO: later', '/wor' 'k/main/nbs'])
def test_traces_are_found(words): assert traces(words)


@pytest.mark.parametrize('words', ['https://x.org/root/data', 'the path/work/x', '/tmp', 'AIR',
                                   'session-scoped fixture', '~/.fastloop/root/x'])
def test_ordinary_words_are_no_traces(words): assert not traces(words)


def test_ruff_is_content():
    done = subprocess.run([sys.executable, root/'tools'/'lint.py', '--no-cache'],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_told_to_look_everywhere(tmp_path):
    "The settings make ruff complain about a bad notebook and a bad module"
    write(tmp_path, {'00_core.ipynb': good(code('import os'))})
    (tmp_path/'module.py').write_text('import os\n')
    done = subprocess.run([Path(sys.executable).parent/'ruff', 'check', '--no-cache', '--config',
                           root/'pyproject.toml', tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert '00_core.ipynb:cell 10' in done.stdout and 'module.py' in done.stdout


def settings():
    "settings.ini as a dict"
    config = configparser.ConfigParser(delimiters=['='], interpolation=None)
    config.read(root/'settings.ini', encoding='utf-8')
    return dict(config['DEFAULT'])


def installed(*names):
    for name in names:
        try: yield name, version(name)
        except PackageNotFoundError: continue


def test_settings_match_the_tested_pins():
    pins = (root/'constraints.txt').read_text()
    names = [o.partition('==')[0].strip() for o in pins.splitlines()]
    refuse(pin_problems(settings(), pins, dict(installed(*names))))


@pytest.mark.parametrize('requirements, constraints, installed', [
    ('torch>=2.4', 'torch>=2.13', {}), ('torch>=2.4', '', {}), ('torch>=2.4', 'torch==2.3', {}),
    ('torch>=2.4 numpy', 'torch==2.13', {}), ('torch<3', 'torch==2.13', {}),
    ('torch>=2.4', 'torch==2.13\nTorch==2.12', {}),
    ('torch>=2.4', 'torch==2.13', {'torch': '2.9'})])
def test_bad_pins_are_caught(requirements, constraints, installed):
    assert list(pin_problems({'requirements': requirements}, constraints, installed))
    assert not list(pin_problems({'requirements': 'torch>=2.4'}, 'torch==2.13',
                                 {'torch': '2.13+cpu'}))


def test_only_tested_pythons_are_claimed(tmp_path):
    done = subprocess.run([sys.executable, 'setup.py', '--classifiers'], cwd=root, text=True,
                          capture_output=True, check=True)
    classifiers = done.stdout.splitlines()
    assert any('Programming Language' in o for o in classifiers)
    refuse(python_problems(settings(), classifiers))


@pytest.mark.parametrize('tested, claimed', [('', '3.11'), ('3.11', '3.12'), ('3.9', '3.9')])
def test_claims_of_untested_pythons_are_caught(tested, claimed):
    keys = {'min_python': '3.10', 'tested_python': tested}
    assert list(python_problems(keys, [f'Programming Language :: Python :: {claimed}']))


# ---- what importing the package loads ------------------------------------------------------------
HEAVY = ['matplotlib', 'pandas', 'ipywidgets', 'IPython', 'tensorboard', 'keras', 'torch._dynamo',
         'torch._inductor', 'google', 'PIL', 'mlflow', 'wandb', 'torch.utils.tensorboard',
         'torch.distributed.fsdp']
LOADED = '''
import importlib, sys
import torch
for step in {steps}:
    before = set(sys.modules)
    for name in step: importlib.import_module(name)
    print(*sorted(set(sys.modules) - before))
'''
MADE = [f'fastloop.{o.module}' for o in rooms if o.module]


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    """What is imported, one after the other, by a fresh process, and which modules that adds

    torch; all that most people use; the rest of our modules; and one that loads something heavy.
    """
    folder = tmp_path_factory.mktemp('heavy')
    (folder/'heavy_module.py').write_text('import matplotlib\n')
    steps = [['torch'], ['fastloop.all'], MADE, ['heavy_module']]
    env = {**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{folder}'}
    done = subprocess.run([sys.executable, '-c', LOADED.format(steps=steps)], text=True,
                          cwd=root, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = [set(o.split()) for o in done.stdout.splitlines()]
    return dict(zip(('torch', 'all', 'rest', 'heavy'), found, strict=True))


def test_importing_loads_nothing_heavy(loaded):
    assert 'fastloop.all' in loaded['all']
    assert not loaded['all'] & set(HEAVY) and 'torch._dynamo' not in loaded['torch']


def test_importing_any_module_loads_nothing_heavy(loaded):
    "No module of the package loads them, those that fastloop.all leaves out included"
    assert set(MADE) <= loaded['all'] | loaded['rest']
    assert not loaded['rest'] & set(HEAVY)


def test_heavy_imports_are_seen(loaded): assert 'matplotlib' in loaded['heavy']
