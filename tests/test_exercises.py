"Each check tells what a stub lacks, takes the solution, and refuses wrong answers in words"
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from exercises import (  # noqa: E402
    answer,
    folder,
    namespace,
    read_room,
    wrong_answers,
)
from house_rules import has_exercises, read_exercises, read_rooms, root  # noqa: E402

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
