"The suite itself: how many processes, and what the two commands run."
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from processes import Forks, cores, free_gigabytes, how_many, unit

root = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('of, gigabytes, expected', [
    (2, 24., 3), (16, 64., 17), (64, 24., 16), (8, 3.1, 2), (2, .3, 1), (1, 100., 1),
    (2, None, 3), (64, None, 4)])
def test_a_process_more_than_cores_as_far_as_memory_goes(of, gigabytes, expected):
    assert how_many(of, gigabytes) == expected


def test_free_memory(tmp_path):
    (tmp_path/'a').write_text('MemTotal: 9 kB\nMemAvailable:    3145728 kB\n')
    (tmp_path/'b').write_text('MemTotal: 9 kB\n')
    assert [free_gigabytes(tmp_path/o) for o in 'abc'] == [3., None, None]
    assert cores() >= 1


def test_what_is_shared_stays_in_one_process():
    one, other = 'tests/test_docs.py::test_a[x::y]', 'tests/test_docs.py::test_b'
    assert unit(one) == unit(other) == 'tests/test_docs.py'
    one, other = 'tests/test_notebooks.py::test_a[1]', 'tests/test_notebooks.py::test_a[2]'
    assert (unit(one), unit(other)) == (one, other)


def test_no_example_has_a_deadline():
    assert settings().deadline is None


def told(target):
    "The commands of a target of the Makefile"
    env = {k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MFLAGS'))}
    done = subprocess.run(['make', '-n', target, 'ARGS='], cwd=root, capture_output=True, text=True,
                          env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_the_two_commands_are_what_the_words_say():
    quick, = [o for o in told('test') if '-m pytest' in o]
    assert '-n auto' in quick and "-m 'not rare'" in quick
    assert told('test-all') == ['.ci/run']
    script = (root/'.ci'/'run').read_text().splitlines()
    made = [o.split()[1] for o in script if o.startswith('make ')]
    assert made == ['test-docs', 'test-peers', 'types', 'readme', 'test']  # pytest's comes last
    assert '''make test ARGS="-m ''"''' in '\n'.join(script)
    for name in ('README.md', 'CONTRIBUTING.md'):
        text = (root/name).read_text()
        assert '`make test-all`' in text and 'make test ' in text
    assert '`make test-versions`' in text


def loaded(name, where, pipe): pipe.send((name in sys.modules, os.environ.get(where)))


def test_each_server_has_its_own_modules_and_environment(monkeypatch):
    monkeypatch.delenv('FORKED_FROM', raising=False)
    servers = [Forks('colorsys', FORKED_FROM='one'), Forks('no_such_module')]
    try:
        found = []
        for forks in [*servers, servers[0]]:
            ours, theirs = forks.context.Pipe(duplex=False)
            process = forks.start(loaded, 'colorsys', 'FORKED_FROM', theirs)
            found.append(ours.recv())
            process.join(60)
            assert process.exitcode == 0
    finally:
        for o in servers: o.close()
    assert found == [(True, 'one'), (False, None), (True, 'one')]
    assert 'FORKED_FROM' not in os.environ
