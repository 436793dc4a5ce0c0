"""Given the same shares and partners, mixup, CutMix and label smoothing are those of fastai 2.

Whole fits of the tiny problem are compared where its data allow it, else single batches.
"""
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import assert_same, fit_fastai, fit_fastloop
from torch import nn
from torch.nn import functional as F

from fastloop.callback.cutmix import CutMix, LabelSmoothingCrossEntropy
from fastloop.callback.mixup import MixUpCallback, MixUpLoss

theirs = pytest.importorskip('fastai.callback.mixup', reason='installed by `make test-peers`')
losses = pytest.importorskip('fastai.losses', reason='installed by `make test-peers`')
same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)


def given(n): return torch.linspace(.05, .95, n), torch.arange(n).roll(1)


class Given(MixUpCallback):
    def draw(self, n, device):
        lam, partner = given(n)
        return torch.maximum(lam, 1-lam), partner


def their_mixup():
    mixer = theirs.MixUp()
    mixer.distrib = SimpleNamespace(sample=lambda size: given(size[0])[0])
    return mixer


@pytest.mark.parametrize('loss', ['flat', 'smooth', 'sum'])
def test_mixup_of_class_numbers(tmp_path, monkeypatch, loss):
    make = dict(flat=losses.CrossEntropyLossFlat,
                smooth=partial(losses.LabelSmoothingCrossEntropyFlat, eps=.2),
                sum=partial(losses.CrossEntropyLossFlat, reduction='sum'))[loss]
    lr = .01 if loss == 'sum' else .1
    loss_func = make()
    mine = fit_fastloop(tmp_path, [Given()], loss=loss_func, lr=lr)
    assert mine.error is None and mine.learn.loss_func is loss_func
    assert loss_func.reduction == ('sum' if loss == 'sum' else 'mean')
    monkeypatch.setattr(torch, 'randperm', lambda n: given(n)[1])
    other = fit_fastai(tmp_path, [their_mixup()], loss=make(), lr=lr)
    if loss == 'sum':  # here the mean for each row, there a mean of sums over batches
        (x, y), learn = map(torch.cat, zip(*mine.learn.data.valid_dl)), mine.learn
        whole = F.cross_entropy(learn.model.eval()(x), y).item()
        assert learn.recorder.values[-1][1] == pytest.approx(whole, rel=1e-4)
        for a, b in zip(mine.values, other.values): b[1] = a[1]
    assert_same(mine, other)


def test_mixup_of_targets(monkeypatch):
    x, y = torch.rand(6, 1, 4, 5), F.one_hot(torch.arange(6) % 3, 3).float()
    learn = SimpleNamespace(x=x, y=y, xb=(x,), yb=(y,), loss_func=nn.BCEWithLogitsLoss())
    monkeypatch.setattr(torch, 'randperm', lambda n: given(n)[1])
    mixer = their_mixup()
    mixer.learn, mixer.stack_y = learn, False
    mixer.before_batch()
    ours = Given(stack_y=False)
    lam, partner = ours.draw(6, x.device)
    same(ours.mix_inputs(x, lam, partner)[0], learn.xb[0])
    same(ours.mix_targets(y, lam, partner), learn.yb[0])


@pytest.mark.parametrize('lam', [0., .1, .5, .77, .999, 1.])
@pytest.mark.parametrize('row, column', [(0, 0), (5, 8), (9, 12), (3, 1)])
def test_cutmix(monkeypatch, lam, row, column):
    height, width = 10, 13
    x, y = torch.rand(6, 2, height, width), torch.arange(6) % 3
    pred = torch.rand(6, 3)
    monkeypatch.setattr(torch, 'randperm', lambda n, device=None: given(n)[1])
    monkeypatch.setattr(torch, 'randint', lambda *a: torch.tensor(
        [{height: row, width: column}[a[-2]]]))
    learn = SimpleNamespace(x=x.clone(), y=y, training=True)
    learn.loss_func = losses.CrossEntropyLossFlat()
    learn.xb, learn.yb = (learn.x,), (y,)  # fastai pastes into the batch itself
    mixer = theirs.CutMix()
    mixer.distrib = SimpleNamespace(sample=lambda size: torch.tensor([lam]))
    mixer.learn = learn
    mixer.before_train()
    mixer.before_batch()
    ours = CutMix()
    mixed, shares = ours.mix_inputs(x, lam, given(6)[1])
    same(mixed, learn.xb[0])
    same(shares, torch.as_tensor(mixer.lam).expand(6).float())
    target = ours.mix_targets(y, shares, given(6)[1])
    same(MixUpLoss(nn.CrossEntropyLoss())(pred, target), mixer.lf(pred, y))


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('eps', [0., .1, .6])
def test_label_smoothing(reduction, eps):
    pred, y = torch.randn(8, 5), torch.arange(8) % 5
    want = losses.LabelSmoothingCrossEntropy(eps=eps, reduction=reduction)
    same(LabelSmoothingCrossEntropy(eps=eps, reduction=reduction)(pred, y), want(pred, y))
    assert LabelSmoothingCrossEntropy().eps == losses.LabelSmoothingCrossEntropy().eps


def test_defaults():
    assert MixUpCallback().alpha == pytest.approx(theirs.MixUp().distrib.concentration1.item())
    assert CutMix().alpha == theirs.CutMix().distrib.concentration1.item()
