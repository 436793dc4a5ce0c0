"Schedules against torch's own, against numpy, and against whatever a user may get wrong."
import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fastloop.anneal import (
    Stepper,
    annealer,
    annealing_cos,
    annealing_exp,
    annealing_linear,
    annealing_no,
    annealing_poly,
    combine_scheds,
    combined_cos,
    cos_1cycle_anneal,
    do_annealing_poly,
    sched_cos,
    sched_exp,
    sched_lin,
    sched_no,
    sched_poly,
)

positive = st.floats(1e-6, 1e3)
position = st.floats(0, 1)
shapes = {'lin': (sched_lin, annealing_linear), 'cos': (sched_cos, annealing_cos),
          'exp': (sched_exp, annealing_exp), 'no': (sched_no, annealing_no),
          'poly': (partial(sched_poly, degree=0.8), annealing_poly(0.8))}


@annealer
def sched_square(start, end, pos):
    "A schedule of a user's own"
    return start + (end - start)*pos**2


# ---- shapes --------------------------------------------------------------------------------------
@given(positive, positive, position)
def test_shapes_are_what_numpy_says(start, end, pct):
    close = partial(pytest.approx, rel=1e-6, abs=1e-6)
    assert annealing_no(start, end, pct) == start
    assert annealing_linear(start, end, pct) == close(np.interp(pct, [0, 1], [start, end]))
    assert annealing_cos(start, end, pct) == close(end + (start - end)*(1 + np.cos(np.pi*pct))/2)
    logs = np.interp(pct, [0, 1], [np.log(start), np.log(end)])
    assert annealing_exp(start, end, pct) == close(np.exp(logs))
    assert do_annealing_poly(start, end, pct, 2) == close(end + (start - end)*(1 - pct)*(1 - pct))


@pytest.mark.parametrize('name', [o for o in shapes if o != 'no'])
@given(positive, positive)
def test_shapes_begin_and_end_where_they_should(name, start, end):
    sched = shapes[name][0](start, end)
    assert sched(0.) == pytest.approx(start) and sched(1.) == pytest.approx(end)


@pytest.mark.parametrize('name', shapes)
@given(positive, positive, position, position)
def test_shapes_never_turn_round(name, start, end, a, b):
    sched = shapes[name][0](start, end)
    low, high = sched(min(a, b)), sched(max(a, b))
    assert (high - low)*(end - start) >= -1e-9*max(start, end)**2


def test_picture_of_fastai_v1():
    fns = [annealing_no, annealing_linear, annealing_cos, annealing_exp, annealing_poly(0.8)]
    at_half = [fn(2, 1e-2, 0.5) for fn in fns]
    assert at_half == pytest.approx([2, 1.005, 1.005, math.sqrt(0.02), 0.01 + 1.99*0.5**0.8])
    values = [[fn(2, 1e-2, o) for o in np.linspace(0.01, 1, 100)] for fn in fns]
    assert [o[-1] for o in values] == pytest.approx([2] + [0.01]*4)


@pytest.mark.parametrize('func', [annealing_linear, annealing_cos, annealing_exp,
                                  annealing_poly(2)])
def test_shapes_take_arrays(func):
    start, end = np.array([1., 2.]), np.array([0.1, 0.2])
    assert func(start, end, 0.3) == pytest.approx([func(1., 0.1, 0.3), func(2., 0.2, 0.3)])


@pytest.mark.parametrize('name', shapes)
def test_schedules_are_shapes_with_bounds(name):
    make, shape = shapes[name]
    for pos in np.linspace(0, 1, 11):
        assert make(2, 0.5)(pos) == shape(2, 0.5, pos)
        assert type(make(2, 1)(pos)) is float
        assert make([1, 2], [3, 4])(pos) == [shape(1, 3, pos), shape(2, 4, pos)]
        assert make([1, 2], 3)(pos) == [shape(1, 3, pos), shape(2, 3, pos)]


def test_both_polynomials():
    assert sched_poly(1, 0, 2)(0.25) == pytest.approx(0.75**2)
    assert sched_poly(1, 0, power=2)(0.25) == pytest.approx(1 - 0.25**2)
    for wrong in ({}, dict(degree=1, power=1), dict(degree=0), dict(degree=-1), dict(power=0),
                  dict(degree=math.nan)):
        with pytest.raises(ValueError, match='degree|power'): sched_poly(1, 0, **wrong)


def test_positions_may_be_tensors():
    assert [sched_cos(1, 0)(o) for o in torch.linspace(0, 1, 3)] == pytest.approx([1, 0.5, 0])
    assert type(sched_lin(1, 0)(torch.tensor(0.5))) is float


@pytest.mark.parametrize('start, end', [(0, 1), (1, 0), (-1, 1), (1, -1), ([1, 0], [1, 1]),
                                        (math.nan, 1), (np.array([1, 0]), 1)])
def test_exponential_needs_bounds_above_zero(start, end):
    with pytest.raises(ValueError, match='above 0'): sched_exp(start, end)


@pytest.mark.parametrize('pos', [-0.01, 1.01, math.nan, math.inf])
@pytest.mark.parametrize('sched', [sched_lin(0, 1), combined_cos(0.5, 0, 1, 0)])
def test_positions_outside_are_refused(sched, pos):
    with pytest.raises(ValueError, match='pos='): sched(pos)


@pytest.mark.parametrize('sched', [sched_poly(1, 0, 0.8), combined_cos(0.5, 1, 2, 0)])
def test_rounding_is_forgiven(sched):
    assert sched(1 + 1e-9) == sched(1) and sched(-1e-9) == sched(0)


@pytest.mark.parametrize('make', [sched_no, sched_lin, sched_cos, sched_exp, sched_square])
def test_layer_groups_must_match(make):
    with pytest.raises(ValueError, match='layer group'): make([1, 2], [1, 2, 3])


# ---- parts in a row ------------------------------------------------------------------------------
parts = st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any)


@given(parts, position)
def test_the_right_part_answers(sizes, pos):
    pcts = [o/sum(sizes) for o in sizes]
    combined = combine_scheds(pcts, [lambda p, i=i: (i, p) for i in range(len(sizes))])
    part, inner = combined(pos)
    assert sizes[part] > 0 and 0 <= inner <= 1
    assert sum(pcts[:part]) + inner*pcts[part] == pytest.approx(pos, abs=1e-6)


@given(parts)
def test_the_later_part_answers_where_two_meet(sizes):
    combined = combine_scheds([o/sum(sizes) for o in sizes],
                              [lambda p, i=i: i for i in range(len(sizes))])
    for i, size in enumerate(sizes):
        if size: assert combined(sum(sizes[:i])/sum(sizes)) == i
    assert combined(1.) == max(i for i, o in enumerate(sizes) if o)


def test_tenths_meet_in_spite_of_rounding():
    combined = combine_scheds([0.1]*10, [sched_no(i, 0) for i in range(10)])
    assert [combined(i/10) for i in range(10)] == list(range(10))
    assert combined(1.0) == 9


@pytest.mark.parametrize('pcts', [torch.tensor([0.3, 0.7]), np.array([0.3, 0.7]), (0.3, 0.7),
                                  [0.3, 0.7 - 9e-7], [0.3, 0.7 + 9e-7]])
def test_shares_of_many_kinds(pcts):
    sched = combine_scheds(pcts, [sched_cos(0.3, 0.6), sched_cos(0.6, 0.2)])
    assert sched(0) == pytest.approx(0.3) and sched(1) == pytest.approx(0.2)
    assert sched(0.3) == pytest.approx(0.6, abs=1e-5)


@pytest.mark.parametrize('pcts, words', [
    ([0.3, 0.6], 'add up to 0.9'), ([0.5, 0.500002], 'add up'), ([1.2, -0.2], 'negative'),
    ([1.], '1 shares and scheds has 2'), ([0.2, 0.2, 0.6], '3 shares'), ([], '0 shares'),
    ([math.nan, 1.], 'pcts'), ([math.inf, 0.], 'pcts')])
def test_bad_shares_are_refused(pcts, words):
    with pytest.raises(ValueError, match=words): combine_scheds(pcts, [sched_lin(0, 1)]*2)


def test_no_part_is_no_schedule():
    with pytest.raises(ValueError, match='pcts'): combine_scheds([], [])


def test_a_part_must_be_callable():
    with pytest.raises(TypeError, match=r'scheds\[1\]=0.1'):
        combine_scheds([0.5, 0.5], [sched_lin(0, 1), 0.1])


def test_one_cycle_of_the_course():
    sched = combine_scheds([0.3, 0.7], cos_1cycle_anneal(0.2, 0.6, 0.1))
    assert [sched(o) for o in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0.2, 0.4, 0.6, 0.35, 0.1])


@pytest.mark.parametrize('pct', [0, 0.25, 1])
def test_combined_cos_at_its_ends(pct):
    sched = combined_cos(pct, 1, 2, 0)
    assert sched(0.) == pytest.approx(2 if pct == 0 else 1)
    assert sched(1.) == pytest.approx(2 if pct == 1 else 0)


@pytest.mark.parametrize('pct', [-0.1, 1.1, math.nan])
def test_combined_cos_refuses(pct):
    with pytest.raises(ValueError, match='pct='): combined_cos(pct, 1, 2, 0)


def test_layer_groups_in_parts():
    assert combined_cos(0.5, [0, 0], [1, 2], 0)(0.5) == pytest.approx([1, 2])


# ---- pickle --------------------------------------------------------------------------------------
@pytest.mark.parametrize('sched', [
    sched_no(1, 2), sched_lin([1, 2], 3), sched_cos(1, 2), sched_exp(1, 2), sched_poly(1, 2, 3),
    sched_poly(1, 2, power=3), combined_cos(0.3, 1, 2, 0), sched_square(1, 2),
    combine_scheds([0.5, 0.5], [sched_square(1, 2), sched_lin(2, 1)])], ids=repr)
def test_schedules_can_be_pickled_and_copied(sched):
    for other in (pickle.loads(pickle.dumps(sched)), copy.deepcopy(sched)):
        assert [other(o/10) for o in range(11)] == [sched(o/10) for o in range(11)]
        assert repr(other) == repr(sched)


# ---- Stepper -------------------------------------------------------------------------------------
def test_stepper_steps():
    stepper = Stepper((2., 1.), 4, annealing_cos)
    assert (stepper.start, stepper.end, stepper.n, stepper.is_done) == (2., 1., 0, False)
    values = [stepper.step() for _ in range(4)]
    assert values == pytest.approx([annealing_cos(2, 1, o/4) for o in (1, 2, 3, 4)])
    assert stepper.is_done and stepper.n == 4
    assert stepper.step() == pytest.approx(1.)


def test_stepper_of_one_value():
    stepper = Stepper(0.9, 3)
    assert stepper.func is annealing_no and stepper.end == 0
    assert [stepper.step() for _ in range(3)] == [0.9]*3
    assert Stepper(1., 2, annealing_linear).step() == 0.5


def test_stepper_with_layer_groups():
    start, end = np.array([1., 2.]), np.array([3., 4.])
    assert Stepper((start, end), 2).step() == pytest.approx([2., 3.])
    assert Stepper(([1, 2], [3, 4]), 2).step() == [2., 3.]
    assert Stepper([1, 2], 2).step() == [1, 2]
    with pytest.raises(ValueError, match='layer group'): Stepper(([1, 2], [1, 2, 3]), 2)


def test_stepper_without_steps():
    stepper = Stepper((1., 0.), 0)
    assert not stepper.is_done and stepper.step() == 0. and stepper.is_done
    with pytest.raises(ValueError, match='n_iter=-1'): Stepper((1., 0.), -1)


# ---- torch as the judge --------------------------------------------------------------------------
@pytest.mark.parametrize('n', [10, 37])
def test_one_cycle_of_torch(n):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    top = 0.3*(n - 1)
    scheduler = lr_scheduler.OneCycleLR(opt, 0.5, total_steps=n, pct_start=(top + 1)/n,
                                        cycle_momentum=False)
    sched = combined_cos(0.3, 0.5/25, 0.5, 0.5/25e4)
    for i in range(n):
        assert opt.param_groups[0]['lr'] == pytest.approx(sched(i/(n - 1)))
        opt.step()
        if i < n - 1: scheduler.step()
