"The loss of an epoch is the loss of all its rows together, however they are cut into batches."
import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastloop.callback.core import Callback, CancelBatchException
from fastloop.callback.recorder import LossHistory, Recorder
from fastloop.callback.stats import AvgStats, AvgStatsCallback
from fastloop.callback.training import GradientAccumulation
from fastloop.data.bunch import DataBunch
from fastloop.inputs import joined
from fastloop.learner import Learner
from fastloop.mean_loss import BatchWeights, LossRule, MeanLoss, WeightedMean, label_rules
from fastloop.metric_functions import dice, error_rate, top_k_accuracy
from fastloop.metrics import AverageMetric, EpochMetric, accuracy, as_metric

WEIGHT = torch.tensor([1., 3., .5])


class Focal(nn.CrossEntropyLoss):
    "Says that it is a cross entropy, and averages over all rows"
    def forward(self, pred, yb):
        losses = F.cross_entropy(pred, yb, ignore_index=self.ignore_index, reduction='none')
        return ((1-(-losses).exp())*losses).mean()


class Flat:
    "A wrapper in the manner of fastai"
    def __init__(self, func): self.func = func
    def __call__(self, pred, yb): return self.func(pred, yb)


class PerRow(nn.Module):
    "Keeps a loss as its `func`, and makes a mean over the rows of its sum"
    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, pred, yb): return self.func(pred, yb)/len(yb)


class MeanOf(Flat):
    "A wrapper in the manner of fastai that takes the mean itself"
    def __call__(self, pred, yb): return self.func(pred, yb).mean()


LOSSES = {
    'per row': PerRow(nn.CrossEntropyLoss(WEIGHT, reduction='sum')),
    'mean of': MeanOf(nn.CrossEntropyLoss(WEIGHT, reduction='none')),
    'mean of partial': MeanOf(partial(F.cross_entropy, reduction='none')),
    'module': nn.CrossEntropyLoss(), 'weights': nn.CrossEntropyLoss(WEIGHT), 'nll': nn.NLLLoss(),
    'smooth': nn.CrossEntropyLoss(WEIGHT, label_smoothing=.2),
    'index': nn.CrossEntropyLoss(ignore_index=2), 'function': F.cross_entropy,
    'partial': partial(F.cross_entropy, ignore_index=2, weight=WEIGHT),
    'nested': partial(partial(F.nll_loss, ignore_index=1), weight=WEIGHT), 'focal': Focal(),
    'wrapped': Flat(nn.CrossEntropyLoss(ignore_index=0)), 'own': lambda p, y: p.mean()}


def rows(n=37, ignored=-100, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g)
    if ignored is not None: y[n//3:][torch.rand(n-n//3, generator=g) < .7] = ignored
    return x, y


def learner(x, y, bs, loss_func, **kwargs):
    torch.manual_seed(0)
    data = DataBunch.from_tensors(x, y, x, y, bs=bs, valid_bs=bs)
    return Learner(data, nn.Linear(4, 3), loss_func=loss_func, opt_func=torch.optim.SGD, lr=1e-12,
                   wd=0., silent=True, **kwargs)


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('bs', [1, 5, 37])
def test_cutting_into_batches_changes_nothing(name, bs):
    loss_func = LOSSES[name]
    x, y = rows(ignored=None if name in ('index', 'partial', 'nested', 'wrapped') else -100)
    stats = AvgStatsCallback([accuracy], silent=True)
    learn = learner(x, y, bs, loss_func, metrics=[accuracy], cbs=stats)
    learn.fit(1)
    with torch.no_grad(): true = loss_func(learn.model(x), y).item()
    found = learn.recorder.values[0][:2] + learn.validate()[:1]
    assert found == pytest.approx([true]*3, abs=1e-5)
    assert [stats.train_stats.avg_stats[0], stats.valid_stats.avg_stats[0]] == pytest.approx(
        [true]*2, abs=1e-5)


@pytest.mark.parametrize('kind', [tuple, list])
@pytest.mark.parametrize('name', ['weights', 'index', 'partial'])
def test_one_target_in_a_tuple_is_that_target(name, kind):
    "torch's DataLoader makes a list of one of an item `(x, (y,))`"
    loss_func = LOSSES[name]
    x, y = rows(ignored=-100 if name == 'weights' else None)
    dl = [(x[i:i+5], kind([y[i:i+5]])) for i in range(0, 37, 5)]
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    learn = Learner(DataBunch(dl, dl), model, loss_func, torch.optim.SGD, lr=.5, wd=0., silent=True,
                    metrics=[accuracy], cbs=GradientAccumulation(n_batches=len(dl)))
    twin = copy.deepcopy(model)
    true = loss_func(twin(x), y)
    true.backward()
    measured = learn.validate()
    learn.fit(1)
    assert [measured[0], learn.recorder.values[0][0]] == pytest.approx([true.item()]*2, abs=1e-6)
    for p, q in zip(model.parameters(), twin.parameters()):
        assert torch.allclose(p, q - .5*q.grad, atol=1e-6)


@pytest.mark.parametrize('loss_func', [F.cross_entropy, nn.CrossEntropyLoss(WEIGHT)])
def test_items_without_a_batch_train(loss_func):
    x, y = rows()
    dl = DataLoader(TensorDataset(x, y), batch_size=None)
    learn = Learner(DataBunch(dl, dl), nn.Linear(4, 3), loss_func, torch.optim.SGD, lr=1e-12,
                    silent=True)
    learn.fit(1)
    true = loss_func(learn.model(x), y).item()
    assert learn.recorder.values[0] == pytest.approx([true]*2, abs=1e-5)
    dl = DataLoader(TensorDataset(x, y+1), batch_size=None)
    with pytest.raises(ValueError, match='label 3 has no output: the model has 3 outputs'):
        Learner(DataBunch(dl), nn.Linear(4, 3), loss_func, silent=True).fit(1)


def test_pictures_and_soft_targets():
    pred, yb = torch.randn(8, 3, 4, 4), torch.randint(3, (8, 4, 4))
    yb[:, :, 2:] = 255
    yb[5] = 255
    soft = torch.softmax(torch.randn(8, 3), 1)
    for loss_func, p, t in ((nn.CrossEntropyLoss(ignore_index=255), pred, yb),
                            (nn.CrossEntropyLoss(), pred[..., 0, 0], soft)):
        mean = MeanLoss()
        for part in zip(p.split(3), t.split(3)): mean.add(loss_func(*part), loss_func, *part)
        assert mean.compute().item() == pytest.approx(loss_func(p, t).item(), abs=1e-6)
        assert mean.rows == 8


@pytest.mark.parametrize('loss_func', [nn.MSELoss(reduction='sum'),
                                       partial(F.mse_loss, reduction='sum')])
def test_a_sum_is_divided_by_all_rows(loss_func):
    x = torch.randn(10, 4)
    for bs in (4, 10):
        torch.manual_seed(0)
        learn = Learner(DataBunch.from_tensors(x, x[:, :3], x, x[:, :3], bs=bs), nn.Linear(4, 3),
                        loss_func=loss_func, opt_func=torch.optim.SGD, lr=1e-12, silent=True)
        learn.fit(1)
        with torch.no_grad(): true = loss_func(learn.model(x), x[:, :3]).item()/10
        assert learn.recorder.values[0] == pytest.approx([true]*2, rel=1e-4)


def test_what_weighs_nothing_changes_nothing():
    x, y = rows(20, None)
    ignored = torch.full((5,), -100)
    parts = [(x[:7], y[:7]), (x[:0], y[:0]), (x[:5], ignored), (x[7:], y[7:])]
    learn = Learner(DataBunch(parts, parts), nn.Linear(4, 3), loss_func=nn.CrossEntropyLoss(),
                    opt_func=torch.optim.SGD, lr=1e-12, metrics=accuracy, silent=True)
    learn.validate()
    pred = learn.model(x)
    assert learn.validate() == pytest.approx([F.cross_entropy(pred, y).item(),
                                              accuracy(pred, y).item()], abs=1e-5)


def test_an_epoch_of_nothing_has_no_loss():
    mean, weights = MeanLoss(), WeightedMean()
    assert mean.compute() is None and weights.compute() is None
    mean.add(torch.tensor(math.nan), F.mse_loss, torch.zeros(0, 2), torch.zeros(0))
    assert mean.compute() is None


def test_a_loss_that_is_nan_shows_in_the_row_but_not_in_the_trend():
    history = LossHistory(.5)
    for o in (1., math.nan, 3., math.inf): history.add(torch.tensor(o))
    history.sync()
    plain = LossHistory(.5)
    for o in (1., 3.): plain.add(torch.tensor(o))
    plain.sync()
    assert history.smooth == [plain.smooth[0]]*2 + [plain.smooth[1]]*2
    twin = LossHistory()
    twin.load_state_dict(history.state_dict())
    assert twin.smooth == history.smooth

    class Skip(Callback):
        def after_loss(self):
            if self.run.in_train and not torch.isfinite(self.run.loss): raise CancelBatchException
    x, y = rows(20, None)
    x[3] = math.nan
    learn = learner(x, y, 5, F.cross_entropy, cbs=Skip())
    learn.fit(1)
    assert math.isnan(learn.recorder.values[0][0]) and math.isfinite(learn.recorder.smooth_loss)
    assert math.isfinite(learn.recorder.losses[-1])


# ---- labels that do not count --------------------------------------------------------------------
@pytest.mark.parametrize('metric', [accuracy, error_rate, partial(top_k_accuracy, k=2)])
@pytest.mark.parametrize('ignored', [-100, 255, 1])
def test_metrics_leave_out_what_the_loss_ignores(metric, ignored):
    x, y = rows(ignored=ignored)
    learn = learner(x, y, 5, partial(F.cross_entropy, ignore_index=ignored), metrics=[metric])
    learn.fit(1)
    kept = y != ignored
    true = metric(learn.model(x)[kept], y[kept]).item()
    assert learn.recorder.values[0][2] == pytest.approx(true, abs=1e-6)
    assert metric(learn.model(x), y, ignore_index=ignored).item() == pytest.approx(true, abs=1e-6)


def test_a_label_given_by_hand_is_not_overruled():
    pred, yb = torch.eye(3), torch.tensor([0, 0, 2])
    metric = AverageMetric(partial(accuracy, ignore_index=0))
    metric.ignored = 2
    metric.update(pred, yb)
    assert metric == 1
    told = AverageMetric(accuracy)
    told.ignored = 2
    told.update(pred, yb)
    assert told == .5


def test_masks_and_one_hot_labels():
    found = torch.tensor([[[1., 1], [-1, 1]], [[-1, 1], [1, 1]]])
    pred = torch.stack([torch.zeros(2, 2, 2), found], 1)
    mask = torch.tensor([[[1, 1], [0, -100]], [[0, -100], [1, 0]]])
    assert dice(pred, mask).item() == pytest.approx((1 + 2/3)/2)
    assert accuracy(pred, mask, dim=1).item() == pytest.approx(5/6)
    metric = AverageMetric(partial(accuracy, dim=1))
    for o in range(2): metric.update(pred[o:o+1], mask[o:o+1])
    assert float(metric) == pytest.approx(5/6)
    hot = F.one_hot(torch.tensor([0, 1, 1]), 3)
    assert accuracy(torch.eye(3), hot).item() == pytest.approx(2/3)


def test_a_loss_may_be_a_metric():
    pred, yb = torch.randn(20, 3), torch.randint(3, (20,))
    yb[5:16] = -100
    for func in (F.cross_entropy, nn.CrossEntropyLoss(WEIGHT), partial(F.nll_loss, weight=WEIGHT)):
        metric = AverageMetric(func, 'perplexity', torch.exp)
        for part in zip(pred.split(5), yb.split(5)): metric.update(*part)
        assert float(metric) == pytest.approx(func(pred, yb).exp().item(), rel=1e-5)


# ---- weights -------------------------------------------------------------------------------------
def test_weights_keep_their_order():
    weights, labels = BatchWeights(), torch.tensor([0, -100, 1, 2])
    rules = (None, -100)
    for i in range(200):
        weights.add_labels(labels[:1+i % 4].clone(), rules) if i % 7 else weights.add(i)
    wanted = [sum(o != -100 for o in labels[:1+i % 4].tolist()) if i % 7 else i for i in range(200)]
    assert weights.floats() == wanted and len(weights) == 200
    weights.reset()
    assert weights.floats() == [] and len(weights) == 0


@pytest.mark.parametrize('sizes', [[5], [4, 4, 4], [4, 4, 1], [4, 4, 6], [4, 4, 0], [0], [0, 0],
                                   [0, 3], [3, 0, 3], [3, 1, 3], [0, 0, 3],
                                   [1, 3, 3], [1, 2, 3], [2]*32 + [1], [7]*40, [5000, 3]])
@pytest.mark.parametrize('weight', [None, WEIGHT])
@pytest.mark.parametrize('ignored', [-100, 0, 1])
def test_labels_are_counted_however_batches_are_cut(sizes, weight, ignored):
    g, apart, together = torch.Generator().manual_seed(0), BatchWeights(), BatchWeights(apart=False)
    worth = [1.]*3 if weight is None else weight.tolist()
    wanted, rules = [], (weight, ignored)
    for n in sizes:
        labels = torch.randint(3, (n,), generator=g)  # nobody writes to it, so it may wait
        labels = labels.where(torch.rand(n, generator=g) < .7, ignored)
        wanted.append(sum(worth[o] for o in labels.tolist() if o != ignored))
        for weights in (apart, together): weights.add_labels(labels, rules)
    assert apart.floats() == pytest.approx(wanted, rel=1e-5)
    assert float(together.total()) == pytest.approx(sum(wanted), rel=1e-5)


def test_labels_that_are_written_over_are_counted_at_once():
    weights, buffer = BatchWeights(), torch.empty(3, dtype=torch.long)
    for labels in ([0, 1, -100], [-100]*3, [0, 1, 2]):
        buffer.copy_(torch.tensor(labels))
        weights.add_labels(buffer, (None, -100))
    assert weights.floats() == [2, 0, 3]
    with torch.inference_mode(): other = torch.tensor([1, -100])
    weights.add_labels(other, (None, -100))
    assert weights.floats() == [2, 0, 3, 1]


def test_nothing_crosses_before_it_is_read():
    "On the meta device, reading a value raises"
    labels = torch.zeros(8, dtype=torch.long, device='meta')
    mean, loss_func = MeanLoss(), nn.CrossEntropyLoss(ignore_index=0)
    for _ in range(1030): mean.add(torch.zeros((), device='meta'), loss_func, labels, labels)
    assert mean.compute().device.type == 'meta'


def test_means_go_on_elsewhere():
    x, y = rows()
    pred, loss_func = torch.randn(len(y), 3), nn.CrossEntropyLoss(WEIGHT)
    one, two = MeanLoss(), MeanLoss()
    for i, (p, t) in enumerate(zip(pred.split(4), y.split(4))):
        if i == 4: two.load_state_dict(copy.deepcopy(one.state_dict()))
        for o in (one, two)[:1 if i < 4 else 2]: o.add(loss_func(p, t), loss_func, p, t)
    assert two.compute().item() == pytest.approx(loss_func(pred, y).item(), abs=1e-6)
    assert pickle.loads(pickle.dumps(one)).compute() == one.compute()


def test_the_rules_of_a_loss():
    assert label_rules(Focal()) is None and label_rules(F.mse_loss) is None
    assert label_rules(partial(F.cross_entropy, weight=WEIGHT)) == (WEIGHT, -100)
    assert LossRule(nn.CrossEntropyLoss(reduction='sum')).rules is None
    assert LossRule(nn.MSELoss(reduction='sum')).summed


# ---- many kinds of outputs and targets -----------------------------------------------------------
def test_metrics_over_an_epoch_take_nests():
    metric = EpochMetric(lambda pred, yb: (pred['a'].argmax(1) == yb['b']).float().mean(), 'right')
    for n in (3, 2): metric.update({'a': torch.eye(3)[:n]}, {'b': torch.arange(n)})
    assert metric == 1
    for kind in (tuple, list):
        several = EpochMetric(lambda pred, one, two: (one-two).sum(), 'several')
        for n in (3, 2): several.update(torch.zeros(n), kind([torch.ones(n), torch.zeros(n)]))
        assert several == 5


def test_targets_without_tensors_are_measured():
    metric = AverageMetric(lambda pred, yb: pred.mean(), 'size')
    for yb in (None, ['a', 'b'], object()): metric.update(torch.ones(2), yb)
    assert metric == 1 and metric.count == 6
    texts = EpochMetric(lambda pred, yb: len(yb), 'texts')
    for o in (['a', 'b'], ['c', 'd']): texts.update(torch.zeros(2), o)
    assert texts == 4


def test_batches_are_joined_by_their_kind():
    boxes = [[{'box': torch.zeros(2, 4)}, {'box': torch.zeros(1, 4)}], [{'box': torch.zeros(3, 4)}]]
    assert [len(o['box']) for o in joined(boxes)] == [2, 1, 3]
    assert [o.shape for o in joined([[torch.zeros(2), torch.zeros(2, 3)]]*2)] == [(4,), (4, 3)]
    assert joined([None, None]) is None and joined([torch.ones(()), torch.ones(())]).shape == (2,)
    ragged = joined([[torch.zeros(1), torch.zeros(5)], [torch.zeros(2)]])
    assert [len(o) for o in ragged] == [1, 5, 2]


# ---- one name for two ----------------------------------------------------------------------------
def test_two_metrics_of_one_name_are_both_kept():
    def off(pred, yb): return (pred.argmax(1) != yb).float().mean()
    x, y = rows(ignored=None)
    learn = learner(x, y, 10, F.cross_entropy, metrics=[accuracy, partial(accuracy), off])
    learn.metrics[2].__name__ = 'valid_loss'
    learn.fit(1)
    assert learn.recorder.names == ['train_loss', 'valid_loss', 'accuracy', 'accuracy_1',
                                    'valid_loss_1']
    learn.recorder.add_metric_names(['accuracy', 'more'])
    assert learn.recorder.metrics_names[-2:] == ['accuracy_2', 'more']
    learn.fit(1)
    assert len(learn.recorder.names) == 5


def test_a_recorder_goes_on_from_its_state():
    x, y = rows()
    learn = learner(x, y, 5, nn.CrossEntropyLoss())
    learn.fit(1)
    twin = Recorder()
    twin.load_state_dict(pickle.loads(pickle.dumps(learn.recorder.state_dict())))
    assert twin.sizes == learn.recorder.sizes and sum(twin.sizes) == (y != -100).sum()


def test_stats_of_objects_that_only_have_the_least():
    class Least: pass
    run, stats = Least(), AvgStats([], True)
    run.pred, run.yb, run.loss = torch.zeros(2), None, torch.tensor(2.)
    stats.accumulate(run)
    assert stats.avg_stats == [2.] and stats.count == 2


def test_targets_of_pictures_reach_metrics_as_one():
    class Boxes:
        "A metric of detection: lists with a dict for each picture"
        def reset(self): self.n = 0

        def update(self, preds, targets):
            assert len(preds) == len(targets) and all(isinstance(o, dict) for o in targets)
            self.n += len(targets)

        def compute(self): return float(self.n)
    metric = as_metric(Boxes())
    metric.reset()
    for n in (3, 1): metric.update([{'box': torch.zeros(2, 4)}]*n, [{'box': torch.ones(1, 4)}]*n)
    assert metric == 4 and metric.count == 4


class Relabels(Callback):
    "Writes to the labels of a batch that is over"
    def __init__(self, how): self.how = how

    def after_batch(self):
        if self.how == 'torch': self.run.yb[self.run.yb == 1] = -100
        else: self.run.yb.numpy()[:] = 2


@pytest.mark.parametrize('how', ['torch', 'numpy'])
@pytest.mark.parametrize('loss', [F.cross_entropy, nn.CrossEntropyLoss(ignore_index=2),
                                  nn.CrossEntropyLoss(weight=WEIGHT)],
                         ids=['plain', 'ignored', 'weighted'])
def test_labels_count_as_they_were_in_their_batch(how, loss):
    def rows(*cbs):
        torch.manual_seed(0)
        x, y = torch.randn(21, 4), torch.arange(21) % 3
        dl, stats = DataLoader(TensorDataset(x, y), 8), AvgStatsCallback(accuracy, silent=True)
        learn = Learner(DataBunch(dl, dl), nn.Linear(4, 3), loss, metrics=accuracy, silent=True)
        learn.fit(1, cbs=[stats, *cbs])
        return learn.recorder.values, learn.recorder.sizes, stats.train_stats.avg_stats
    assert rows(Relabels(how)) == rows()
