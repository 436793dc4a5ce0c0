"Each check tells what a stub lacks, takes the solution, and refuses wrong answers in words"
import sys
from collections import Counter, deque
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from exercises import (  # noqa: E402
    answer,
    folder,
    namespace,
    read_room,
    wrong_answers,
)
from house_rules import has_exercises, read_exercises, read_rooms, root  # noqa: E402

from fastloop.examples import should_be  # noqa: E402

rooms = [o.stem for o in read_rooms(root/'nbs') if has_exercises(o)]


def is_refused(said): return said.startswith('Not yet: ') and len(said.split()) > 4


@pytest.mark.rare  # run by `make test-all` alone, or for one room: -m '' -k ROOM
@pytest.mark.parametrize('name', rooms)
def test_exercises(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    room = read_room(name)
    exercises = read_exercises(room)
    assert not [f'{o}: {problem}' for o in exercises for problem in o.problems]
    names = namespace(room, exercises)
    wrong = list(wrong_answers(name, exercises))
    problems = []
    for o in exercises:
        if not is_refused(said := answer(o, o.stub.code, names)):
            problems.append(f'{o}: the stub is answered {said!r}')
        if (said := answer(o, o.solution, names)) != 'Right.':
            problems.append(f'{o}: the solution is answered {said!r}')
        mine = [(what, code) for number, what, code in wrong if number == o.number]
        if not mine: problems.append(f'{o}: no wrong answer in {folder.name}/{name}.py')
        for what, code in mine:
            said = answer(o, code, names)
            if not is_refused(said) or 'NameError' in said:
                problems.append(f'{o}: the wrong answer {what!r} is answered {said!r}')
    if problems: pytest.fail('\n'.join([name, *problems]), pytrace=False)


def test_every_file_of_wrong_answers_belongs_to_a_room():
    assert {o.stem for o in folder.glob('*.py')} <= set(rooms)


nan, inf = float('nan'), float('inf')


def kind(o): return type(o).__name__


@pytest.mark.parametrize('found, wanted', [
    (np.int64(6), 6), (6., 6), (np.float32(.5), .5), (np.bool_(True), True), (inf, inf), (nan, nan),
    (torch.ones(2), [1, 1]), ([torch.tensor(1.)], [1.]), (range(3), torch.arange(3)),
    ((o for o in 'ab'), ['a', 'b']), (np.array(['a']), ['a']), (deque([1]), (1,)), ({}.keys(), []),
    (Counter('aab'), {'a': 2, 'b': 1}), ({'lr': [.1+.2, None]}, {'lr': (.3, None)})], ids=kind)
def test_should_be_takes_a_value_in_any_kind_of_number_and_list(found, wanted):
    should_be(found, wanted, 'it')


@pytest.mark.parametrize('found, wanted', [
    ('a', torch.ones(1)), (torch.ones(1), 'a'), (torch.ones(1), 1.), (torch.ones(1, 2), [1, 1]),
    (True, 1), ({1}, [1]), ('ab', ['a', 'b']), (940_801, 940_800), (.5001, .5), (nan, .5),
    (.5, nan), ([None], [1.]), ({'a': 1}, {'a': 1, 'b': 1}), (iter([1]), [1, 2])], ids=kind)
def test_should_be_refuses_another_value_in_words(found, wanted):
    with pytest.raises(AssertionError, match='^it: .* instead of '): should_be(found, wanted, 'it')
