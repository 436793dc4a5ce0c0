"""Compiled steps on a GPU: `make test-gpu`. What needs none is in test_compile.py."""
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import Callback
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.compiled import GraphReplay
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.train import fit_one_cycle  # its room hangs the verbs on the learner

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')]


def make():
    "A learner over 200 rows on the GPU: three batches of 64, one of 8"
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 20, generator=g), torch.arange(300) % 5
    data = DataBunch.from_tensors(x[:200], y[:200], x[200:], y[200:], bs=64, seed=0, device='cuda')
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 5))
    return Learner(data, model, F.cross_entropy, partial(SGD, momentum=.9), .05, wd=0.,
                   metrics=accuracy, silent=True)


def pair(**kwargs):
    "The same learner as it is written and compiled"
    plain = make()
    return plain, deepcopy(plain).compile(**kwargs)


def check_same(a, b, atol=1e-5):
    "Losses, rows of the table, and weights"
    close = partial(torch.testing.assert_close, rtol=0, atol=atol)
    close(torch.tensor(a.recorder.losses), torch.tensor(b.recorder.losses))
    close(torch.tensor(a.recorder.values), torch.tensor(b.recorder.values))
    for p, q in zip(a.model.parameters(), b.model.parameters()): close(p, q)


class Keep(Callback):
    "Keeps losses and predictions without copying them, and the rates"
    def begin_fit(self): self.losses, self.preds, self.rates = [], [], []

    def after_loss(self):
        self.losses.append(self.loss.detach())
        self.preds.append(self.pred.detach())
        self.rates.append(self.opt.lr)


@pytest.mark.parametrize('mode', [None, 'reduce-overhead'])
def test_the_numbers_are_the_same(mode):
    plain, learn = pair(**({'mode': mode} if mode else {}))
    for o in (plain, learn): fit_one_cycle(o, 4)
    check_same(learn, plain)
    torch.testing.assert_close(learn.get_preds()[0], plain.get_preds()[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(learn.validate()), torch.tensor(plain.validate()),
                               rtol=0, atol=1e-5)


def test_graphs_are_replayed_while_the_rate_changes():
    from torch._dynamo.utils import counters
    counters.clear()
    keeps, (plain, learn) = [Keep(), Keep()], pair(mode='reduce-overhead')
    assert any(isinstance(cb, GraphReplay) for cb in learn.cbs)
    for o, keep in zip((plain, learn), keeps): fit_one_cycle(o, 4, cbs=keep)
    assert counters['inductor']['cudagraph_skips'] == 0
    assert len({str(o) for o in keeps[1].rates}) > 8 and keeps[0].rates == keeps[1].rates
    for name in ('losses', 'preds'):
        for a, b in zip(*(getattr(o, name) for o in keeps)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    check_same(learn, plain)


@pytest.mark.parametrize('cb', [lambda: GradientAccumulation(n_batches=2),
                                lambda: GradientClipping(clip=.1), lambda: EMACallback(decay=.9)])
def test_callbacks_work_with_replayed_graphs(cb):
    plain, learn = pair(mode='reduce-overhead')
    for o in (plain, learn): o.fit(4, cbs=cb())
    check_same(learn, plain)


def test_mixed_precision_works_with_replayed_graphs():
    plain, learn = pair(mode='reduce-overhead')
    for o in (plain, learn): o.fit(4, cbs=MixedPrecision())
    check_same(learn, plain, atol=1e-2)
    assert learn.recorder.losses[-1] < learn.recorder.losses[0]


@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
def test_later_epochs_compile_nothing(mode):
    from torch._dynamo.utils import counters
    _, learn = pair(mode=mode)
    learn.fit(1)
    before = counters['stats']['unique_graphs']
    learn.fit(3)
    learn.validate()
    assert counters['stats']['unique_graphs'] == before
