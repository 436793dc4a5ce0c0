"Mixup, CutMix and label smoothing: what the formulas say, what is put back, and what is refused"
import math
from copy import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from fastloop.callback.core import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelTrainException,
)
from fastloop.callback.cutmix import CutMix, LabelSmoothingCrossEntropy
from fastloop.callback.lr_finder import find_lr
from fastloop.callback.mixup import MixUpCallback, MixUpLoss, draw_beta
from fastloop.callback.stats import AvgStatsCallback
from fastloop.callback.training import GradientAccumulation
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.runner import Runner
from fastloop.torch_core import rng_state, set_rng_state

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)


def images(n=12, seed=0, classes=3, size=6):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, size, size, generator=g), torch.arange(n) % classes


def make(loss_func=F.cross_entropy, model=None, targets=None, bs=5, **kwargs):
    "A learner over twelve small images of three classes, in batches of 5, 5 and 2"
    (x, y), (x_valid, y_valid) = images(), images(6, seed=1)
    if targets: y, y_valid = targets(y), targets(y_valid)
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    data = DataBunch.from_tensors(x, y, x_valid, y_valid, bs=bs, seed=0, device='cpu')
    return Learner(data, model, loss_func, SGD, lr=.1, wd=0., silent=True, **kwargs)


class Watch(Callback):
    "Keeps what every batch was when the model had seen it, and what it was in the end"
    order = 100

    def begin_fit(self): self.rows, self.ends, self.losses = [], [], []

    def after_pred(self):
        self.rows.append((self.in_train, self.xb, self.yb))
        self.losses.append((self.in_train, self.learn.loss_func))

    def after_loss(self): self.ends.append(self.yb)

    @property
    def trained(self): return [o[1:] for o in self.rows if o[0]]


class Fixed(MixUpCallback):
    "The same shares and partners for every batch"
    def draw(self, n, device): return torch.linspace(.5, 1, n), torch.arange(n).roll(1)


class Plain(MixUpCallback):
    "Shares of one: nothing is mixed"
    def draw(self, n, device): return torch.ones(n), torch.randperm(n)


def stacked(y1, y2, lam): return torch.stack([y1.float(), y2.float(), lam], 1)


def random_batch(n=16, c=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    pred = torch.randn(n, c, generator=g, requires_grad=True)
    y1, y2 = torch.randint(c, (2, n), generator=g)
    return pred, y1, y2, torch.rand(n, generator=g)


# ---- the shares ----------------------------------------------------------------------------------
EXACT = {.5: lambda x: 2/math.pi*np.arcsin(np.sqrt(x)), 1.: lambda x: x,
         2.: lambda x: 3*x**2 - 2*x**3}


def distance(values, cdf):
    "The Kolmogorov-Smirnov distance between a sample and a distribution"
    x = np.sort(np.asarray(values, dtype=np.float64))
    want, n = cdf(x), len(x)
    return max((np.arange(1, n+1)/n - want).max(), (want - np.arange(n)/n).max())


@pytest.mark.parametrize('alpha', EXACT)
def test_shares_follow_the_beta_distribution(alpha):
    torch.manual_seed(0)
    assert distance(draw_beta(alpha, 4000), EXACT[alpha]) < 2.2/math.sqrt(4000)
    lam = torch.cat([MixUpCallback(alpha=alpha).draw(500, torch.device('cpu'))[0]
                     for _ in range(8)])
    assert lam.min() >= .5
    assert distance(lam, lambda x: 2*EXACT[alpha](x)-1) < 2.2/math.sqrt(4000)
    lams = [CutMix(alpha=alpha).draw(2, torch.device('cpu'))[0] for _ in range(1000)]
    assert distance(lams, EXACT[alpha]) < 2.2/math.sqrt(1000)


@pytest.mark.parametrize('alpha', [.001, .02, .1, .4, 5., 200.])
def test_shares_are_distributed_as_numpy_s(alpha):
    torch.manual_seed(1)
    ours = draw_beta(alpha, 4000).double().numpy()
    theirs = np.sort(np.random.default_rng(0).beta(alpha, alpha, 40000))
    grid = np.linspace(.001, .999, 999)  # ties at 0 and 1 are where floats end
    gap = np.abs((ours[:, None] <= grid).mean(0) - np.searchsorted(theirs, grid, 'right')/40000)
    assert gap.max() < 2.4/math.sqrt(4000)


@given(st.floats(1e-30, 1e6), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_shares_are_numbers_from_0_to_1(alpha, n):
    lam = draw_beta(alpha, n)
    assert lam.shape == (n,) and lam.dtype == torch.float32
    assert lam.isfinite().all() and lam.min() >= 0 and lam.max() <= 1


def test_limits_of_alpha():
    torch.manual_seed(0)
    near_half, near_one = (MixUpCallback(alpha=o).draw(200, torch.device('cpu'))[0]
                           for o in (1e5, 1e-5))
    assert (near_half - .5).max() < .01 and (near_one > .999).float().mean() > .99


def test_shares_and_partners_come_from_torch_s_generator():
    for cb in (MixUpCallback(), CutMix()):
        learn, watch = make(), Watch()
        state = rng_state()
        learn.fit(1, cbs=[cb, watch])
        first = watch.trained
        np.random.seed(99)
        set_rng_state({**rng_state(), 'torch': state['torch']})
        learn.fit(1, cbs=[cb, watch])
        # the loader shuffles by its own seed and epoch: compare shares
        assert [o[1][:, 2].tolist() for o in first] == [o[1][:, 2].tolist() for o in watch.trained]


# ---- the loss ------------------------------------------------------------------------------------
@pytest.mark.parametrize('loss', [F.cross_entropy, nn.CrossEntropyLoss(),
                                  partial(F.cross_entropy, reduction='sum'),
                                  nn.CrossEntropyLoss(label_smoothing=.1)])
def test_loss_and_gradient_are_those_of_the_table_of_shares(loss):
    pred, y1, y2, lam = random_batch()
    table = lam[:, None]*F.one_hot(y1, 5) + (1-lam[:, None])*F.one_hot(y2, 5)
    smoothing = getattr(loss, 'label_smoothing', 0.)
    for reduction in ('mean', 'sum', 'none'):
        got = MixUpLoss(loss, reduction)(pred, stacked(y1, y2, lam))
        want = F.cross_entropy(pred, table, reduction=reduction, label_smoothing=smoothing)
        close(got, want)
        ours, theirs = (torch.autograd.grad(o.sum(), pred, retain_graph=True)[0]
                        for o in (got, want))
        close(ours, theirs)


def test_loss_by_hand():
    pred = torch.tensor([[1., 3.], [2., 0.]])
    crit = nn.MultiMarginLoss()  # max(0, 1 - right + wrong)/2
    one, two = 3/2, 0.  # first sample: class 0, class 1
    want = [.25*one + .75*two, .9*0. + .1*3/2]
    got = MixUpLoss(crit, 'none')(pred, torch.tensor([[0, 1, .25], [0, 1, .9]]))
    close(got, torch.tensor(want))
    close(MixUpLoss(crit)(pred, torch.tensor([[0, 1, .25], [0, 1, .9]])), torch.tensor(sum(want)/2))


@pytest.mark.parametrize('kind', ['module', 'partial', 'nll', 'smooth', 'flat'])
@pytest.mark.parametrize('ignored', [-100, 2])
def test_mean_is_torch_s_weighted_mean(kind, ignored):
    pred, y1, y2, lam = random_batch(seed=1)
    weight = torch.rand(5)+.1
    y1[3] = y2[5] = y1[7] = y2[7] = ignored
    rules = dict(weight=weight, ignore_index=ignored)
    if kind == 'module': crit = nn.CrossEntropyLoss(**rules)
    if kind == 'partial': crit = partial(F.cross_entropy, **rules)
    if kind == 'nll': crit, pred = nn.NLLLoss(**rules), pred.log_softmax(1)
    if kind == 'smooth': crit = nn.CrossEntropyLoss(**rules, label_smoothing=.2)
    if kind == 'flat': crit = Flattened(nn.CrossEntropyLoss(**rules))
    one = torch.ones(16)
    close(MixUpLoss(crit)(pred, stacked(y1, y2, one)), crit(pred, y1))
    close(MixUpLoss(crit)(pred, stacked(y1, y2, 0*one)), crit(pred, y2))
    close(MixUpLoss(crit)(pred, stacked(y1, y1, lam)), crit(pred, y1))
    # a half-and-half batch is a batch of twice the samples
    close(MixUpLoss(crit)(pred, stacked(y1, y2, one/2)),
          crit(torch.cat([pred, pred]), torch.cat([y1, y2])))


class Flattened:
    "A loss around a loss, as fastai's losses are: its switch is that of the loss inside"
    def __init__(self, func): self.func = func

    @property
    def reduction(self): return self.func.reduction

    @reduction.setter
    def reduction(self, value): self.func.reduction = value

    def __call__(self, pred, yb): return self.func(pred, yb.view(-1))


@pytest.mark.parametrize('crit', [nn.CrossEntropyLoss(reduction='sum'), F.cross_entropy,
                                  Flattened(nn.CrossEntropyLoss())])
def test_loss_leaves_the_loss_inside_as_it_was(crit):
    pred, y1, y2, lam = random_batch()
    before = getattr(crit, 'reduction', None)
    loss = MixUpLoss(crit)
    loss(pred, stacked(y1, y2, lam))
    assert loss.get_old() is crit and getattr(crit, 'reduction', None) == before
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        loss(pred[:, :2], stacked(y1, y2, lam))
    assert loss.get_old() is crit and getattr(crit, 'reduction', None) == before
    if before is not None:  # interrupted in the middle of putting it back
        crit.reduction = 'none'
        assert loss.get_old().reduction == before


def test_plain_targets_go_straight_through():
    pred, y1, _, lam = random_batch(c=3)
    crit = nn.CrossEntropyLoss(torch.rand(3), ignore_index=1)
    for reduction in ('mean', 'sum', 'none'):
        want = copy(crit)
        want.reduction = reduction
        close(MixUpLoss(crit, reduction)(pred, y1), want(pred, y1))
    close(MixUpLoss(F.mse_loss)(pred[:, 0], lam), F.mse_loss(pred[:, 0], lam))
    whole = torch.stack([y1, y1, y1], 1)  # three whole numbers are no shares
    close(MixUpLoss(nn.L1Loss())(pred, whole), F.l1_loss(pred, whole))
    two = MixUpLoss(nn.CosineEmbeddingLoss())  # a loss of two targets
    close(two(pred, pred*2, torch.ones(16)), torch.tensor(0.))


def test_loss_answers_for_the_loss_inside():
    loss = MixUpLoss(nn.CrossEntropyLoss(ignore_index=7, label_smoothing=.1))
    assert loss.ignore_index == 7 and loss.label_smoothing == .1
    assert loss.__name__ == 'CrossEntropyLoss' and MixUpLoss(F.nll_loss).__name__ == 'nll_loss'
    with pytest.raises(AttributeError, match="neither MixUpLoss nor .* 'colour'"): _ = loss.colour
    for o in (copy(loss), torch.nn.modules.module.Module.to(loss, torch.float64)):
        assert o.ignore_index == 7
    weighted = MixUpLoss(nn.CrossEntropyLoss(torch.ones(3))).double()
    assert weighted.crit.weight.dtype == torch.float64


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_loss_of_other_types(dtype):
    pred, y1, y2, lam = random_batch()
    got = MixUpLoss(nn.CrossEntropyLoss())(pred.to(dtype), stacked(y1, y2, lam))
    want = MixUpLoss(nn.CrossEntropyLoss())(pred, stacked(y1, y2, lam))
    assert torch.is_floating_point(got)
    torch.testing.assert_close(got.float(), want, rtol=.02, atol=.02)


@pytest.mark.parametrize('bad, text', [
    (torch.dist, 'reduction'), (lambda pred, yb: pred.mean(), 'stack_y=False'),
    (nn.Linear(2, 2), 'reduction')])
def test_loss_without_reduction(bad, text):
    with pytest.raises(ValueError, match=text): MixUpLoss(bad)


def test_bad_reduction():
    with pytest.raises(ValueError, match="reduction.*'average'"):
        MixUpLoss(nn.CrossEntropyLoss(), 'average')


def test_module_whose_forward_takes_the_reduction():
    class Loss(nn.Module):
        def forward(self, pred, yb, reduction='sum'):
            return F.cross_entropy(pred, yb, reduction=reduction)
    pred, y1, y2, lam = random_batch()
    want = MixUpLoss(F.cross_entropy, 'sum')(pred, stacked(y1, y2, lam))
    close(MixUpLoss(Loss(), 'sum')(pred, stacked(y1, y2, lam)), want)
    learn = make(Loss())
    learn.fit(1, cbs=Fixed())
    plain = make()
    plain.fit(1, cbs=Fixed())
    close(learn.recorder.raw_losses[0], plain.recorder.raw_losses[0]*5)  # the loss's own: a sum


def test_labels_are_checked_once_and_only_where_they_name_outputs():
    loss = MixUpLoss(nn.CrossEntropyLoss())
    pred, y1, y2, lam = random_batch()
    y1[2] = 12
    with pytest.raises(ValueError, match='label 12 has no output: the model has 5 outputs'):
        loss(pred, stacked(y1, y2, lam))
    with pytest.raises(ValueError, match='label 12'): loss(pred, stacked(y2, y1, lam))
    with pytest.raises(ValueError, match='16 outputs do not fit the targets of 15'):
        loss(pred, stacked(y1, y2, lam)[:15])
    wide = torch.zeros(1).expand(1, 2**24+1)
    with pytest.raises(ValueError, match='not exact'): loss(wide, torch.zeros(1, 3))
    y1[2] = 0
    loss(pred, stacked(y1, y2, lam))
    assert loss.checked


# ---- label smoothing -----------------------------------------------------------------------------
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('eps', [0, .1, .5, 1])
def test_label_smoothing_is_torch_s(reduction, weighted, eps):
    pred, y1, y2, lam = random_batch()
    weight = torch.rand(5) if weighted else None
    loss = LabelSmoothingCrossEntropy(eps, reduction, weight)
    want = partial(F.cross_entropy, pred, weight=weight, label_smoothing=eps)
    close(loss(pred, y1), want(y1, reduction=reduction))
    assert loss.reduction == reduction and loss.eps == eps
    each = MixUpLoss(loss, 'none')(pred, stacked(y1, y2, lam))
    close(each, lam*want(y1, reduction='none') + (1-lam)*want(y2, reduction='none'))


def test_label_smoothing_by_hand():
    probabilities = torch.tensor([[.5, .3, .2]])
    want = -(.8*math.log(.5) + .1*math.log(.3) + .1*math.log(.2))
    loss = LabelSmoothingCrossEntropy(eps=.3)
    close(loss(probabilities.log(), torch.tensor([0])), torch.tensor(want))


@pytest.mark.parametrize('arguments, error, text', [
    (dict(eps=-.1), ValueError, 'eps is from 0 to 1, not -0.1'),
    (dict(eps=1.1), ValueError, 'not 1.1'), (dict(eps=float('nan')), ValueError, 'nan'),
    (dict(eps='sum'), TypeError, "not 'sum'"), (dict(eps=True), TypeError, 'True'),
    (dict(reduction='men'), ValueError, 'reduction')])
def test_bad_label_smoothing(arguments, error, text):
    with pytest.raises(error, match=text): LabelSmoothingCrossEntropy(**arguments)


# ---- mixup in the loop ---------------------------------------------------------------------------
def by_hand(learn, epochs=2):
    "The losses of a loop that mixes by formula, over the batches of `learn`"
    learn.create_opt(.1)
    losses = []
    for _ in range(epochs):
        for xb, yb in learn.data.train_dl:
            lam, partner = torch.linspace(.5, 1, len(yb)), torch.arange(len(yb)).roll(1)
            shares = lam[:, None, None, None]
            xb = shares*xb + (1-shares)*xb[partner]
            table = F.one_hot(yb, 3)*lam[:, None] + F.one_hot(yb[partner], 3)*(1-lam[:, None])
            loss = F.cross_entropy(learn.model(xb), table)
            loss.backward()
            learn.opt.step()
            learn.opt.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize('loss_func', [F.cross_entropy, nn.CrossEntropyLoss()])
def test_training_equals_the_loop_by_hand(loss_func):
    learn, hand = make(loss_func, metrics=accuracy), make()
    learn.fit(2, .1, cbs=Fixed())
    want = by_hand(hand)
    assert learn.recorder.raw_losses == pytest.approx(want, abs=1e-5)
    for p, q in zip(learn.model.parameters(), hand.model.parameters()): close(p, q)
    assert learn.recorder.sizes == [5, 5, 2]
    valid_loss = F.cross_entropy(learn.model(images(6, 1)[0]), images(6, 1)[1]).item()
    assert learn.recorder.values[-1][1] == pytest.approx(valid_loss, abs=1e-6)


def test_what_the_model_and_the_loss_are_given():
    learn, watch = make(), Watch()
    plain, seen = make(), Watch()
    plain.fit(1, cbs=seen)
    learn.fit(1, cbs=[Fixed(), watch])
    for (xb, yb), (x, y) in zip(watch.trained, seen.trained):
        n = len(y)
        lam, partner = torch.linspace(.5, 1, n), torch.arange(n).roll(1)
        shares = lam[:, None, None, None]
        close(xb, shares*x + (1-shares)*x[partner])
        close(yb, stacked(y, y[partner], lam))
    for (train, xb, yb), (_, x, y) in zip(watch.rows, seen.rows):
        if not train: assert torch.equal(xb, x) and torch.equal(yb, y)
    for yb, y in zip(watch.ends, seen.ends): assert torch.equal(yb, y)  # plain after the loss
    for train, loss_func in watch.losses:
        assert isinstance(loss_func, MixUpLoss) if train else loss_func is F.cross_entropy


def test_metrics_of_training_see_plain_labels():
    class Keeps(Callback):
        "The right answers to the label with the larger share"
        order, right, count = -12, 0, 0

        def after_loss(self):
            if not self.in_train: return
            self.right += (self.pred.argmax(1) == self.yb).sum().item()
            self.count += len(self.yb)
    learn, stats, keeps = make(), AvgStatsCallback(accuracy), Keeps()
    learn.fit(1, cbs=[stats, keeps, MixUpCallback()])
    assert stats.train_stats.avg_stats[1] == pytest.approx(keeps.right/keeps.count)


def test_stack_x_gives_the_model_both_inputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.last = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, x1, x2=None, lam=None):
            h = self.embed(x1).mean(1)
            if x2 is not None:
                assert self.training and lam.shape == (len(x1),)
                h = torch.lerp(self.embed(x2).mean(1), h, lam[:, None])
            return self.last(h)
    g = torch.Generator().manual_seed(0)
    tokens, y = torch.randint(10, (12, 7), generator=g), torch.arange(12) % 3
    data = DataBunch.from_tensors(tokens, y, tokens, y, bs=5, seed=0, device='cpu')
    watch = Watch()
    learn = Learner(data, Model(), F.cross_entropy, SGD, silent=True)
    learn.fit(1, .1, cbs=[Fixed(stack_x=True), watch])
    (x1, x2, lam), target = watch.trained[0]
    assert torch.equal(x2, x1.roll(1, 0)) and torch.equal(lam, target[:, 2])
    with pytest.raises(TypeError, match='int64.*whole numbers.*stack_x'):
        learn.fit(1, .1, cbs=MixUpCallback())


def one_hot(y): return F.one_hot(y, 3)
def distance_to_half(pred, yb): return (pred[:, 0]-yb).abs().mean()
def two_distances(pred, yb, zb): return distance_to_half(pred, yb) + (pred[:, 1]-zb).abs().mean()


@pytest.mark.parametrize('targets, loss_func', [
    (lambda y: one_hot(y).float(), nn.BCEWithLogitsLoss()), (lambda y: y/2, distance_to_half),
    (one_hot, nn.BCEWithLogitsLoss()), (lambda y: (y/2, y), two_distances)])
def test_targets_mixed_as_numbers(targets, loss_func):
    x, y = images()
    yb, watch = targets(y), Watch()
    learn = make(loss_func)
    learn.data = DataBunch([(x, yb)], None)
    learn.fit(1, cbs=[Fixed(stack_y=False), watch])
    got, lam = watch.trained[0][1], torch.linspace(.5, 1, 12)
    for new, old in zip(*((o if isinstance(o, tuple) else (o,)) for o in (got, yb))):
        shares = lam.reshape(-1, *[1]*(old.ndim-1))
        close(new, shares*old + (1-shares)*old.roll(1, 0))
    assert watch.ends[0] is yb  # plain again after the loss
    assert watch.losses == [(True, loss_func)] and learn.loss_func is loss_func


def test_soft_targets_need_no_wrapper():
    learn = make(F.cross_entropy, targets=lambda y: F.one_hot(y, 3).float())
    learn.fit(1, .1, cbs=Fixed(stack_y=False))
    hard = make()
    hard.fit(1, .1, cbs=Fixed())
    assert learn.recorder.raw_losses == pytest.approx(hard.recorder.raw_losses, abs=1e-6)


@pytest.mark.parametrize('spread', [tuple, dict])
def test_several_inputs(spread):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, a, b): return self.layer(torch.cat([a, b.float()], 1))
    a, b, y = torch.rand(6, 2), torch.rand(6, 3).bfloat16(), torch.arange(6) % 3
    xb = (a, b) if spread is tuple else dict(a=a, b=b)
    data, watch = DataBunch([(xb, y)], [(xb, y)]), Watch()
    learn = Learner(data, Model(), F.cross_entropy, SGD, silent=True)
    learn.fit(1, cbs=[Fixed(), watch])
    got, lam = watch.trained[0][0], torch.linspace(.5, 1, 6)[:, None]
    one, two = got.values() if spread is dict else got
    assert type(got) is spread
    close(one, lam*a + (1-lam)*a.roll(1, 0))
    assert two.dtype == torch.bfloat16
    torch.testing.assert_close(two.float(), lam*b.float() + (1-lam)*b.float().roll(1, 0),
                               rtol=.02, atol=.02)
    close(a, xb[0] if spread is tuple else xb['a'])


def test_a_batch_of_one_mixes_with_itself():
    for cb in (MixUpCallback(), CutMix()):
        learn, watch, plain, seen = make(bs=1), Watch(), make(bs=1), Watch()
        learn.fit(1, cbs=[cb, watch])
        plain.fit(1, cbs=seen)
        for (xb, yb), (x, y) in zip(watch.trained, seen.trained):
            close(xb, x)
            assert yb[0, 0] == yb[0, 1] == y[0]


def test_shares_of_one_train_as_without():
    learn, plain = make(), make()
    learn.fit(2, cbs=Plain())
    plain.fit(2)
    assert learn.recorder.raw_losses == pytest.approx(plain.recorder.raw_losses, abs=1e-6)


def test_augmentation_comes_first():
    class Negative(Callback):
        def begin_batch(self):
            if self.in_train: self.run.xb = -self.xb
    learn, watch = make(), Watch()
    learn.fit(1, cbs=[Fixed(), Negative(), watch])
    plain, seen = make(), Watch()
    plain.fit(1, cbs=[Fixed(), seen])
    close(watch.trained[0][0], -seen.trained[0][0])


def test_data_is_not_changed():
    for cb in (MixUpCallback(), CutMix()):
        x, y = images()
        copy_of_x = x.clone()
        learn = make()
        learn.data = DataBunch([(x[:6], y[:6]), (x[6:], y[6:])], [(x, y)])
        learn.fit(2, cbs=cb)
        assert torch.equal(x, copy_of_x) and torch.equal(y, images()[1])


# ---- the loss is put back ------------------------------------------------------------------------
MIXERS = [MixUpCallback, CutMix, partial(MixUpCallback, stack_x=False, stack_y=False)]


@pytest.mark.parametrize('kind', ['function', 'module', 'flat'])
def test_faults(kind):
    losses = dict(function=F.cross_entropy, module=nn.CrossEntropyLoss(),
                  flat=Flattened(nn.CrossEntropyLoss()))
    def check(learn, cb):
        assert learn.loss_func is losses[kind]
        if kind != 'function': assert learn.loss_func.reduction == 'mean'
    nth, epochs = ((2,), 2) if kind == 'module' else ((1,), 1)  # the first or the second time
    check_faults(lambda: make(losses[kind]), lambda learn: MixUpCallback(), check=check, nth=nth,
                 epochs=epochs)


@pytest.mark.parametrize('make_cb', MIXERS[1:])
def test_faults_of_the_others(make_cb):
    def targets(y): return F.one_hot(y, 3).float()
    soft = isinstance(make_cb, partial)
    check_faults(lambda: make(targets=targets if soft else None), lambda learn: make_cb(),
                 nth=(1,), epochs=1)


@pytest.mark.parametrize('cancel', [CancelBatchException, CancelTrainException,
                                    CancelEpochException, CancelFitException])
@pytest.mark.parametrize('event', ['after_pred', 'after_loss', 'after_backward'])
def test_cancelled_phases(cancel, event):
    class Cancels(Callback):
        order = 200

        def __init__(self): setattr(self, event, self.cancel)

        def cancel(self):
            if self.in_train and self.iter == 1: raise cancel

    class Looks(Callback):
        def begin_validate(self): assert self.learn.loss_func is F.cross_entropy
        begin_epoch = after_epoch = begin_train = begin_validate
    learn = make()
    learn.fit(2, cbs=[Cancels(), Looks(), MixUpCallback()])
    assert learn.loss_func is F.cross_entropy
    learn.fit(1)


@pytest.mark.parametrize('order', [-1, 30])
@pytest.mark.parametrize('broken', [False, True])
def test_a_loss_that_another_callback_lends(order, broken):
    other = nn.CrossEntropyLoss(label_smoothing=.1)
    class Lends(Callback):
        def begin_fit(self): self.old, self.learn.loss_func = self.learn.loss_func, other
        def after_fit(self): self.learn.loss_func = self.old
        def after_backward(self):
            if broken: raise ValueError('broken')
    lends, learn = Lends(), make()
    lends.order = order
    learn.data.valid_dl = None
    try: learn.fit(1, cbs=[lends, Fixed()])
    except ValueError: assert broken
    assert learn.loss_func is F.cross_entropy and other.reduction == 'mean'
    want = make(other)
    want.fit(1, cbs=Fixed())
    assert learn.recorder.raw_losses[0] == pytest.approx(want.recorder.raw_losses[0])


def test_a_second_fit_and_a_runner_used_twice():
    cb, learn = MixUpCallback(), make()
    learn.fit(1, cbs=cb)
    learn.fit(1, cbs=cb)
    learn.add_cbs(cb)
    learn.fit(2)
    assert learn.cbs.count(cb) == 1 and len(learn.cbs) == 3
    run, watch = Runner([cb, Watch()]), Watch()
    for _ in range(2):
        run.fit(1, learn)
        assert len(run.cbs) == 3  # with TrainEvalCallback
    other = make()
    other.fit(1, cbs=[cb, watch])
    assert watch.trained[0][1].shape == (5, 3) and other.loss_func is F.cross_entropy


def test_taken_away_and_added_while_a_fit_runs():
    cb = MixUpCallback()
    class Switches(Callback):
        order = 20

        def begin_batch(self):
            if self.in_train and self.iter == 1 and self.epoch < 2:
                (self.learn.remove_cbs if self.epoch == 0 else self.learn.add_cbs)(cb)
    learn, watch = make(cbs=[cb]), Watch()
    learn.fit(3, cbs=[Switches(), watch])
    shapes = [tuple(yb.shape) for _, yb in watch.trained]
    mixed, plain = [(5, 3), (5, 3), (2, 3)], [(5,), (5,), (2,)]
    assert shapes == mixed[:2] + plain[2:] + plain[:2] + mixed[2:] + mixed
    assert learn.loss_func is F.cross_entropy
    assert all(o.ndim == 1 for o in watch.ends)


def test_reduction_changed_between_epochs_is_kept():
    crit, learn = nn.CrossEntropyLoss(), None
    class Changes(Callback):
        def begin_epoch(self): crit.reduction = 'sum' if self.epoch else 'mean'
    learn = make(crit)
    learn.fit(2, lr=0., cbs=[Changes(), Fixed()])
    assert crit.reduction == 'sum'
    means, sums = learn.recorder.raw_losses[:3], learn.recorder.raw_losses[3:]
    assert sum(sums) > 3*sum(means)


def test_a_loss_that_is_wrapped_already():
    mine = MixUpLoss(nn.CrossEntropyLoss())
    learn, plain = make(mine), make()
    learn.fit(1, cbs=Fixed())
    plain.fit(1, cbs=Fixed())
    assert learn.loss_func is mine
    assert learn.recorder.raw_losses == pytest.approx(plain.recorder.raw_losses)


def test_measuring_and_predicting_in_mid_training():
    class Asks(Callback):
        order = 50

        def after_batch(self):
            if self.in_train and self.iter == 1:
                assert isinstance(self.learn.loss_func, MixUpLoss)
                self.found = self.learn.validate(), self.learn.predict(images()[0][0])
                self.each = self.learn.get_preds(with_loss=True)[2]
                self.weights = {k: v.clone() for k, v in self.learn.model.state_dict().items()}
    learn, asks = make(nn.CrossEntropyLoss(), metrics=accuracy), Asks()
    learn.fit(1, cbs=[asks, Fixed()])
    plain = make(nn.CrossEntropyLoss(), metrics=accuracy)
    plain.fit(1, cbs=Fixed())
    for p, q in zip(learn.model.parameters(), plain.model.parameters()): close(p, q)
    learn.model.load_state_dict(asks.weights)
    assert asks.found[0] == learn.validate()
    close(asks.found[1][2], learn.predict(images()[0][0])[2])
    close(asks.each, learn.get_preds(with_loss=True)[2])
    assert asks.found[1][2].sum().item() == pytest.approx(1)


def test_validation_alone_is_not_mixed():
    learn, watch = make(cbs=MixUpCallback()), Watch()
    Runner([MixUpCallback(), watch]).evaluate(learn.data.valid_dl, learn)
    assert all(yb.ndim == 1 for _, _, yb in watch.rows) and learn.loss_func is F.cross_entropy


# ---- CutMix --------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_the_share_is_the_area_that_stayed(height, width, lam, seed):
    torch.manual_seed(seed)
    x = torch.zeros(2, 1, height, width)
    x[1] = 1
    mixed, shares = CutMix().mix_inputs(x, lam, torch.tensor([1, 0]))
    pasted = mixed[0, 0]
    assert shares[0].item() == pytest.approx(1-pasted.mean().item(), abs=1e-5)
    assert torch.equal(mixed[1, 0], 1-pasted) and shares.shape == (2,)
    assert pasted.sum() <= (height*math.sqrt(1-lam)+.5)*(width*math.sqrt(1-lam)+.5)
    rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
    assert pasted.sum() == rows*columns  # one rectangle


def test_cutmix_by_hand():
    class FixedBox(CutMix):
        def draw(self, n, device): return .7, torch.arange(n).roll(1)
        def draw_box(self, height, width, lam):
            assert (height, width, lam) == (6, 6, .7)
            return 1, 4, 2, 6
    learn, watch, plain, seen = make(), Watch(), make(), Watch()
    learn.fit(1, cbs=[FixedBox(), watch])
    plain.fit(1, cbs=seen)
    for (xb, yb), (x, y) in zip(watch.trained, seen.trained):
        want = x.clone()
        want[:, :, 1:4, 2:6] = x.roll(1, 0)[:, :, 1:4, 2:6]
        assert torch.equal(xb, want)
        close(yb, stacked(y, y.roll(1), torch.full((len(y),), 1-12/36)))
    assert learn.loss_func is F.cross_entropy


def test_boxes_away_from_the_edge_have_the_area_that_was_drawn():
    torch.manual_seed(0)
    x, areas = torch.zeros(1, 1, 100, 100), []
    for _ in range(200):
        _, lam = CutMix().mix_inputs(x, .96, torch.tensor([0]))  # a box of 20 by 20
        areas.append(round((1-lam.item())*1e4))
    assert max(areas) == 400 and areas.count(400) > 100 and min(areas) >= 100


@pytest.mark.parametrize('lam, stayed', [(0., 0.), (1., 1.)])
def test_limits_of_cutmix(lam, stayed):
    class Middle(CutMix):
        def draw_box(self, height, width, lam):
            side = round(math.sqrt(1-lam)*height)
            return (height-side)//2, (height+side)//2, (width-side)//2, (width+side)//2
    x, _ = images()
    mixed, shares = Middle().mix_inputs(x, lam, torch.arange(12).roll(1))
    assert torch.equal(mixed, x if lam else x.roll(1, 0)) and shares[0] == stayed


def test_cutmix_takes_whole_numbers_and_soft_targets():
    x = (images()[0]*255).byte()
    mixed, _ = CutMix().mix_inputs(x, .5, torch.arange(12).roll(1))
    assert mixed.dtype == torch.uint8
    learn = make(nn.BCEWithLogitsLoss(), targets=lambda y: F.one_hot(y, 3).float())
    learn.fit(1, cbs=CutMix(stack_y=False))
    assert isinstance(learn.loss_func, nn.BCEWithLogitsLoss)


@pytest.mark.parametrize('xb, text', [(torch.rand(4, 9), r'not \(4, 9\)'),
                                      (torch.rand(4, 9, 9), r'not \(4, 9, 9\)'),
                                      ((torch.rand(4, 1, 2, 2),), 'not tuple')])
def test_cutmix_wants_images(xb, text):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    learn = make(model=model)
    model(torch.rand(1, 1, 6, 6))
    learn.data = DataBunch([(xb, torch.arange(4) % 3)], None)
    with pytest.raises(ValueError, match=text): learn.fit(1, cbs=CutMix())
    assert learn.loss_func is F.cross_entropy


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize('cls', [MixUpCallback, CutMix])
@pytest.mark.parametrize('alpha, error', [(0, ValueError), (-1., ValueError),
                                          (float('nan'), ValueError), (float('inf'), ValueError),
                                          ('0.4', TypeError), (True, TypeError),
                                          (None, TypeError)])
def test_bad_alpha(cls, alpha, error):
    with pytest.raises(error, match=f'{cls.__name__}: alpha'): cls(alpha=alpha)


def test_the_first_argument_is_the_learner():
    with pytest.raises(TypeError, match=r'did you mean MixUpCallback\(alpha=0.4\)'):
        MixUpCallback(0.4)
    with pytest.raises(TypeError, match=r'did you mean CutMix\(alpha=1.0\)'): CutMix(1.)
    learn = make(callback_fns=[MixUpCallback, ])
    assert learn.mix_up.alpha == .4 and learn.mix_up_callback is learn.mix_up
    learn.fit(1)
    cb = MixUpCallback(learn, .3, True, False)
    assert (cb.learn, cb.alpha, cb.stack_x, cb.stack_y) == (learn, .3, True, False)
    assert CutMix(learn, .3).alpha == .3 and CutMix().alpha == 1.


@pytest.mark.parametrize('one, two', [(MixUpCallback, CutMix), (MixUpCallback, MixUpCallback),
                                      (CutMix, Fixed)])
def test_two_at_once(one, two):
    learn = make()
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(ValueError, match=f'{one.__name__} and {two.__name__} would both mix'):
        learn.fit(1, cbs=[one(), two()])
    assert learn.loss_func is F.cross_entropy
    for p, q in zip(learn.model.parameters(), before): assert torch.equal(p, q)
    cb = one()
    make(cbs=cb).fit(1, cbs=cb)  # one object is attached once
    make(cbs=cb).fit(1)


@pytest.mark.parametrize('cb', [MixUpCallback, CutMix])
def test_wrong_labels_are_refused_on_the_first_batch(cb):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 10))
    learn = make(model=model, targets=lambda y: torch.full_like(y, 12))
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with pytest.raises(ValueError, match='label 12 has no output: the model has 10 outputs, for '
                                         'labels 0 to 9'):
        learn.fit(1, cbs=cb())
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, before[k])
    assert learn.loss_func is F.cross_entropy
    ignores = make(nn.CrossEntropyLoss(ignore_index=2), metrics=[])
    ignores.fit(1, cbs=cb())
    assert all(map(math.isfinite, ignores.recorder.raw_losses))


def test_a_loss_without_reduction_is_refused_when_the_fit_begins():
    def my_loss(pred, yb): return F.cross_entropy(pred, yb)
    class Counts(Callback):
        batches = 0
        def begin_batch(self): self.batches += 1
    for cb in (MixUpCallback(), CutMix()):
        learn, counts = make(my_loss), Counts()
        with pytest.raises(ValueError, match='my_loss.*reduction.*stack_y=False'):
            learn.fit(1, cbs=[cb, counts])
        assert counts.batches == 0 and learn.loss_func is my_loss
    make(lambda p, y: (p[:, 0]-y).pow(2).mean(), targets=lambda y: y/2).fit(
        1, cbs=MixUpCallback(stack_y=False))


@pytest.mark.parametrize('targets, found', [
    (lambda y: y.float(), r'torch.float32, \(5,\)'), (lambda y: F.one_hot(y, 3), r'\(5, 3\)'),
    (lambda y: F.one_hot(y, 3).float(), r'float32, \(5, 3\)'), (lambda y: y > 1, 'torch.bool')])
def test_targets_that_are_no_class_numbers(targets, found):
    learn = make(nn.CrossEntropyLoss(), targets=targets)
    with pytest.raises(ValueError, match=f'stack_y=True.*{found}.*stack_y=False'):
        learn.fit(1, cbs=MixUpCallback())
    assert isinstance(learn.loss_func, nn.CrossEntropyLoss)


def test_other_inputs_that_cannot_be_mixed():
    x, y = images()
    learn = make()
    ragged, even = (pack_sequence([torch.rand(n, 4) for n in lengths], enforce_sorted=False)
                    for lengths in ([*range(1, 13)], [3]*12))
    for xb, text in (((x*255).byte(), 'uint8'), ({'a': None}, 'no tensor'), ([x, y], 'int64'),
                     (ragged, 'packed sequences cannot be mixed.*pad'), (even, 'packed sequences'),
                     ({'a': (x, ragged)}, 'packed sequences')):
        learn.data = DataBunch([(xb, y)], None)
        with pytest.raises(TypeError, match=text): learn.fit(1, cbs=MixUpCallback())
    learn.data = DataBunch([((x, x), y)], None)
    with pytest.raises(TypeError, match='stack_x=True wants one tensor'):
        learn.fit(1, cbs=MixUpCallback(stack_x=True))
    learn.data = DataBunch([(x, (y, y))], None)
    with pytest.raises(ValueError, match='stack_y=True.*not tuple'):
        learn.fit(1, cbs=MixUpCallback())


# ---- nothing waits for the device ----------------------------------------------------------------
@pytest.mark.parametrize('cb', [MixUpCallback(), MixUpCallback(stack_x=True), CutMix(),
                                MixUpCallback(stack_y=False)])
def test_no_number_is_read_from_the_batch(cb):
    "Tensors on the device `meta` have no numbers: whoever asks for one gets an error"
    x, y = torch.rand(8, 1, 6, 6, device='meta'), torch.zeros(8, dtype=torch.long, device='meta')
    crit = nn.CrossEntropyLoss(torch.ones(3, device='meta'))
    learn = SimpleNamespace(loss_func=crit, model=None, data=None)
    run = SimpleNamespace(learn=learn, in_train=True, xb=x, yb=y, cbs=[cb])
    cb.set_runner(run)
    cb.begin_batch()
    pred = torch.rand(8, 3, device='meta', requires_grad=True)
    if not cb.stack_y: assert run.yb.shape == (8,) and learn.loss_func is crit
    else:
        learn.loss_func.checked = True  # the first batch alone is looked at
        assert run.yb.shape == (8, 3) and run.yb.device.type == 'meta'
        learn.loss_func(pred, run.yb).backward()
    cb.after_loss()
    assert run.yb is y


def test_one_look_at_the_labels_in_a_fit():
    seen = set()
    class Looks(Callback):
        order = 90

        def after_loss(self):
            if self.in_train: seen.add((self.learn.loss_func, self.learn.loss_func.checked))
    learn = make()
    learn.fit(3, cbs=[MixUpCallback(), Looks()])
    assert len(seen) == 1 and all(checked for _, checked in seen)


@pytest.mark.parametrize('event', ['begin_batch', 'after_pred', 'after_loss', 'after_batch'])
@pytest.mark.parametrize('question', [partial(find_lr, num_it=6), Learner.validate])
def test_a_fit_goes_on_mixing_when_its_learner_was_asked_in_mid_batch(question, event):
    "A search mixes with the same loss, and had put back the targets of the batch outside"
    class Asks(Callback):
        order = 50

        def ask_once(self):
            if self.in_train and self.iter == 1: question(self.learn)

    def trained(ask):
        cb, watch = Asks(), Watch()
        if ask: setattr(cb, event, cb.ask_once)
        learn = make(cbs=[MixUpCallback(alpha=.4), GradientAccumulation(n_batches=2)])
        learn.fit(2, cbs=[cb, watch])
        return [o[1] for o in watch.trained], learn.model.state_dict()
    (targets, weights), (others, want) = trained(True), trained(False)
    assert all(torch.equal(a, b) and a.shape[1] == 3 for a, b in zip(targets, others))
    assert all(torch.equal(want[k], weights[k]) for k in want)
