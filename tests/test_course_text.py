"What the pages say of the code and of each other, where a program can read it."
import ast
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from house_rules import read_rooms, root  # noqa: E402

import fastloop.all as everything  # noqa: E402
from fastloop.callback.core import event_names  # noqa: E402
from fastloop.runner import Runner  # noqa: E402
from tools.rooms import rooms as site_rooms  # noqa: E402

rooms = {o.stem: o for o in read_rooms(root/'nbs')}
course = [o for o in rooms.values() if 10 <= o.number < 50]


def prose(room):
    "The text of a page, without code to look at"
    texts = [o.source for o in room.cells if not o.is_code]
    return '\n\n'.join(re.sub(r'^\s*```.*?^\s*```', '', o, flags=re.M | re.S) for o in texts)


def fences(room):
    "The pieces of Python in the texts of a page, the folded solutions left out"
    for cell in room.cells:
        if cell.is_code or '<details>' in cell.source: continue
        yield from re.findall(r'^```python\n(.*?)^```', cell.source, flags=re.M | re.S)


def test_the_first_page_asks_a_question_for_every_page_of_the_course():
    text = prose(rooms['10_first_look'])
    missing = [o.name for o in course if o.stem != '10_first_look' and f']({o.name})' not in text]
    assert not missing, f'add a question to 10_first_look for {missing}'


def test_links_carry_the_titles_of_their_pages_in_tables():
    titles = {o.path.name: o.title for o in site_rooms()}
    for name in ('10_first_look', '96_glossary'):
        for line in prose(rooms[name]).splitlines():
            if not line.startswith('|'): continue
            for title, target in re.findall(r'\[([^\]]+)\]\(([\w.]+\.ipynb)\)', line):
                assert titles.get(target, title) == title, f'{name}: {target} is called {title}'


def test_pages_take_at_most_half_an_hour_and_two_parts_an_afternoon():
    minutes = {o.path.stem: o.minutes for o in site_rooms() if '10' <= o.number < '50'}
    assert not {k: v for k, v in minutes.items() if not 1 <= v <= 30}
    hours = sum(v for k, v in minutes.items() if k[0] in '12')/60
    assert 3.5 < hours < 5


def words():
    "The glossary: word and meaning"
    rows = re.findall(r'^\| (.+) \| (.+) \| \[', prose(rooms['96_glossary']), flags=re.M)
    return {word.strip('`'): meaning for word, meaning in rows}


def test_the_glossary_is_in_order_and_says_each_word_once():
    found = [re.sub(r'\W', '', o).lower() for o in words()]
    assert len(found) > 30 and found == sorted(set(found))
    for o in ('layer group', 'hook', 'kernel', 'fastai v1, fastai v2', 'epoch'): assert o in words()


@pytest.mark.parametrize('room', course, ids=lambda o: o.stem)
def test_callbacks_exceptions_and_events_that_are_named_exist(room):
    own = {name for cell in room.code for name, _ in cell.definitions}
    own |= {o.name for cell in room.code for o in ast.walk(cell.tree)
            if isinstance(o, ast.ClassDef)}
    own |= {o.asname or o.name for cell in room.code for node in ast.walk(cell.tree)
            if isinstance(node, (ast.Import, ast.ImportFrom)) for o in node.names}
    for name in re.findall(r'`([A-Z]\w+(?:Callback|Exception|Scheduler))`', prose(room)):
        known = name in own or hasattr(everything, name) or name == 'CancelPException'
        known = known or re.search(rf'class {name}\b', '\n'.join(fences(room)))
        assert known, f'{room.name} names {name}'
    for name in re.findall(r'`((?:begin|after)_[a-z_]+)`', prose(room)):
        if name in own or name.endswith('_P'): continue
        said_wrong = room.stem == '13_callback.core'  # the page on misspelt events
        assert name in event_names or said_wrong or name in dir(Runner), f'{room.name}: {name}'


@pytest.mark.parametrize('room', course, ids=lambda o: o.stem)
def test_verbs_of_the_learner_that_are_promised_exist(room):
    for code in fences(room):
        for verb in re.findall(r'\blearn\.([a-z_]+)\(', code):
            assert hasattr(everything.Learner, verb), f'{room.name}: learn.{verb}'
        for name in re.findall(r'\bpartial\(([A-Z]\w+)|\bcbs=\[?([A-Z]\w+)\(', code):
            name = ''.join(name)
            made = any(f'class {name}' in o.source for o in room.cells)
            known = hasattr(everything, name) or hasattr(torch.optim.lr_scheduler, name)
            assert made or known, f'{room.name}: {name}'
