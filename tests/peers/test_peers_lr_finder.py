"The four suggestions against fastai 2's own functions, on curves of searches and random ones."
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastloop.callback.lr_finder import (
    find_lr,
    suggest_minimum,
    suggest_slide,
    suggest_steep,
    suggest_valley,
)

schedule = pytest.importorskip('fastai.callback.schedule', reason='installed by `make test-peers`')
pairs = {suggest_valley: schedule.valley, suggest_steep: schedule.steep,
         suggest_minimum: schedule.minimum, suggest_slide: schedule.slide}
golden = json.loads((Path(__file__).parent.parent/'golden'/'fastai1.json').read_text())['lr_find']


def check(lrs, losses):
    "Both say the same; the numbers are those that a float32 can hold, as fastai computes with"
    lrs, losses = torch.tensor(lrs), torch.tensor(losses)
    for ours, theirs in pairs.items():
        wanted, _ = theirs(lrs, losses, 100)
        found = ours(lrs.tolist(), losses.tolist())
        assert found == pytest.approx(wanted, rel=1e-5), ours.__name__


def search_curve(rng, n):
    "Flat, then falling, then exploding, with noise"
    t = np.linspace(0, 1, n)
    fall = rng.uniform(.3, .6)
    loss = 2.3 - rng.uniform(.5, 2)/(1+np.exp(-20*(t-fall))) + np.exp(40*(t-rng.uniform(.8, 1)))
    return (loss + rng.normal(0, rng.choice([0, .01, .1]), n)).tolist()


@pytest.mark.parametrize('seed', range(30))
def test_curves_of_searches(seed):
    rng = np.random.RandomState(seed)
    n = rng.randint(20, 120)
    check([1e-7*1e8**(i/n) for i in range(n)], search_curve(rng, n))


@pytest.mark.parametrize('seed', range(30))
def test_random_walks(seed):
    rng = np.random.RandomState(seed)
    n = rng.randint(16, 120)
    check([1e-7*1e8**(i/n) for i in range(n)], np.cumsum(rng.randn(n)).tolist())


@pytest.mark.parametrize('seed', range(20))
def test_noise_and_ties(seed):
    rng = np.random.RandomState(seed)
    n = rng.randint(16, 60)
    losses = rng.randint(0, 8, n).astype(float).tolist()
    losses[rng.randint(n)] = -1.  # one lowest loss, so that it is clear which one that is
    slopes = np.diff(np.array(losses))
    if (slopes == slopes.min()).sum() == 1: check([2.**(i-n//2) for i in range(n)], losses)
    wanted = schedule.valley(torch.arange(n).float(), torch.tensor(losses), 100)[0]
    assert suggest_valley(list(range(n)), losses) == wanted


@pytest.mark.parametrize('case', ['to_the_end', 'diverging'])
def test_golden_curves(case):
    lrs, losses = golden[case]['lrs'], golden[case]['losses']
    if len(lrs) >= 16: check(lrs, losses)
    if len(lrs) > 24: check(lrs[4:-5], losses[4:-5])


@pytest.mark.parametrize('kwargs', [{'num_it': 60}, {'num_it': 100, 'end_lr': 100},
                                    {'num_it': 60, 'stop_div': False, 'end_lr': 1000}])
def test_whole_searches(kwargs, tmp_path):
    "The same network and batches, each library with its own loop and its own finder"
    from conftest import make_batches, make_model
    from fastai.basics import SGD, DataLoaders, Learner
    from fastai.callback.progress import ProgressCallback

    from fastloop import learner, optimizer
    from fastloop.data.bunch import DataBunch
    methods = [schedule.valley, schedule.steep, schedule.minimum, schedule.slide]
    theirs = Learner(DataLoaders(*make_batches(False), device='cpu'), make_model('plain'),
                     F.cross_entropy, opt_func=SGD, wd=0., path=tmp_path)  # a search saves there
    theirs.remove_cb(ProgressCallback)
    ours = learner.Learner(DataBunch(*make_batches(False), device='cpu'), make_model('plain'),
                           F.cross_entropy, opt_func=optimizer.SGD, wd=0., silent=True)
    wanted = theirs.lr_find(show_plot=False, suggest_funcs=methods, **kwargs)
    found = find_lr(ours, **kwargs)
    assert wanted._fields == found._fields
    n = min(len(ours.recorder.lrs), len(theirs.recorder.lrs))
    assert len(ours.recorder.lrs) == len(theirs.recorder.lrs)
    np.testing.assert_allclose(ours.recorder.lrs[:n], theirs.recorder.lrs[:n], rtol=1e-5)
    np.testing.assert_allclose(ours.recorder.losses[:n],
                               [float(o) for o in theirs.recorder.losses[:n]], rtol=1e-4)
    assert list(found) == pytest.approx(list(wanted), rel=1e-5)


def test_where_ours_say_nothing():
    "fastai names a rate for a curve that never falls; ours do not"
    lrs, losses = [1e-3*1.1**i for i in range(20)], [1.]*20
    assert [o(lrs, losses) for o in pairs] == [None]*4
    assert schedule.valley(torch.tensor(lrs), torch.tensor(losses), 100)[0] == pytest.approx(1e-3)
    assert suggest_slide(lrs[:15], [2., *[1.]*14]) is None
    with pytest.raises(IndexError):
        schedule.slide(torch.tensor(lrs[:15]), torch.tensor([2., *[1.]*14]), 100)
    assert not math.isnan(suggest_valley(lrs, [3., 2., math.nan, *[1.]*17]))
