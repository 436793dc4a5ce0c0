"""What a training step costs, counted: calls of functions, not seconds.

`Linear(1, 1)`, batches of one, recorder and bar on, beside the same loop written by hand. The
times are measured by `make bench`; a count has no noise, so it can be a test.
"""
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
BUDGET = -30  # calls a step beyond those of the loop written by hand: fewer


@pytest.fixture(scope='module')
def bench():
    "The package `benchmarks`, which lies beside the tests"
    pytest.importorskip('pty', reason='the bar needs a terminal to be drawn on')
    sys.path.insert(0, str(root))
    try:
        from benchmarks import __main__, worker
    finally: sys.path.remove(str(root))
    return __main__, worker


def test_a_step_calls_few_functions_though_the_bar_is_drawn(bench):
    main, worker = bench
    with main.Worker('fastloop_tiny') as process:
        ours = process.ask(kind='calls', steps=100)
        assert process.drawn
    theirs = worker.calls_per_step('tiny', steps=100)  # draws nothing: it needs no terminal
    assert 50 < theirs < 400, 'the loop by hand does its own work'
    assert ours - theirs <= BUDGET


def test_counting_sees_python_and_c_calls(bench):
    def work(n):
        for _ in range(n): len(str(abs(-3)))  # `str` is a class: no call of a function
    count = bench[1].count_calls
    assert count(work, 20) - count(work, 10) == 20
    assert sys.getprofile() is None


def test_calls_per_step_leaves_out_what_happens_once(bench, monkeypatch):
    def work(data, epochs):
        for _ in range(1000): abs(-3)
        for _ in data: abs(-3)
    monkeypatch.setattr(bench[1], 'contender', lambda name: (work, range))
    assert bench[1].calls_per_step('any', steps=50) == 1
