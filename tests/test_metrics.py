"Metrics against numpy and by hand; means over batches against means over everything."
import copy
import math
import pickle
import re
import sys
from decimal import Decimal
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastloop import metric_functions as m
from fastloop.callback.stats import AvgStats, AvgStatsCallback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metric_functions import mae, mse, r2_score, rmse, top_k_accuracy
from fastloop.metrics import (
    AverageMetric,
    EpochMetric,
    Metric,
    WeightedMean,
    accuracy,
    as_metric,
    metric_name,
)

REGRESSION = [mse, mae, m.msle, rmse, m.exp_rmspe, r2_score, m.explained_variance]
CLASSES = [accuracy, m.error_rate, partial(top_k_accuracy, k=2)]


def numbers(n, seed=0, shape=()):
    "Positive predictions and targets that have something to do with each other"
    generator = torch.Generator().manual_seed(seed)
    yb = torch.rand(n, *shape, generator=generator) + 0.5
    return yb + 0.2*torch.rand(n, *shape, generator=generator), yb


def classes(n, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, c, generator=generator),
            torch.randint(c, (n,), generator=generator))


# ---- one batch -----------------------------------------------------------------------------------
def test_regression_is_what_numpy_says():
    pred, yb = numbers(50)
    p, y = pred.double().numpy(), yb.double().numpy()
    wanted = {'mse': ((p - y)**2).mean(), 'mae': abs(p - y).mean(),
              'msle': ((np.log(1 + p) - np.log(1 + y))**2).mean(),
              'rmse': math.sqrt(((p - y)**2).mean()),
              'exp_rmspe': math.sqrt((((np.exp(y) - np.exp(p))/np.exp(y))**2).mean()),
              'r2_score': 1 - ((p - y)**2).sum()/((y - y.mean())**2).sum(),
              'explained_variance': 1 - (y - p).var()/y.var()}
    assert {f.__name__: f(pred, yb).item() for f in REGRESSION} == pytest.approx(wanted, rel=1e-5)


def test_classes_are_counted_as_by_hand():
    pred, yb = classes(30)
    rows = list(zip(pred.tolist(), yb.tolist()))
    right = sum(row.index(max(row)) == y for row, y in rows)/30
    second = sum(y in sorted(range(4), key=lambda i: -row[i])[:2] for row, y in rows)/30
    assert accuracy(pred, yb).item() == pytest.approx(right)
    assert m.error_rate(pred, yb).item() == pytest.approx(1 - right)
    assert top_k_accuracy(pred, yb, k=2).item() == pytest.approx(second)
    assert top_k_accuracy(pred, yb, k=1) == accuracy(pred, yb)
    assert top_k_accuracy(pred, yb, k=4) == 1


@pytest.mark.parametrize('labels', [lambda y: y[:, None], lambda y: nn.functional.one_hot(y, 4),
                                    lambda y: nn.functional.one_hot(y, 4)*0.9 + 0.025,
                                    lambda y: y.float(), lambda y: y.to(torch.uint8)])
def test_labels_of_many_kinds(labels):
    pred, yb = classes(30)
    for f in CLASSES: assert f(pred, labels(yb)) == f(pred, yb)


def test_sequences_and_images():
    pred, yb = classes(24)
    wanted = accuracy(pred, yb)
    assert accuracy(pred.reshape(4, 6, 4), yb.reshape(4, 6)) == wanted
    assert accuracy(pred.reshape(4, 6, 4), yb) == wanted  # flattened targets of a language model
    assert accuracy(pred, yb.reshape(4, 6)) == wanted
    images, masks = pred.reshape(2, 3, 4, 4).permute(0, 3, 1, 2), yb.reshape(2, 3, 4)
    assert accuracy(images, masks, dim=1) == wanted
    assert accuracy(images, masks[:, None], dim=1) == wanted


@pytest.mark.parametrize('f', [accuracy, m.error_rate, top_k_accuracy])
@pytest.mark.parametrize('pred, yb', [((8, 5), (7,)), ((8, 5), (8, 2)), ((8, 1), (8,)),
                                      ((8,), (8,)), ((8, 5), (8, 4)), ((8, 5), ()),
                                      ((2, 5, 3, 3), (2, 4, 4))])
def test_classes_need_shapes_that_fit(f, pred, yb):
    with pytest.raises(ValueError, match=rf'{f.__name__}: pred has shape \({pred[0]}'):
        f(torch.zeros(pred), torch.zeros(yb, dtype=torch.long))


@pytest.mark.parametrize('f', [*REGRESSION, m.accuracy_thresh, m.fbeta])
@pytest.mark.parametrize('pred, yb', [((8, 1), (7,)), ((8,), (1,)), ((8, 2), (2, 8)),
                                      ((8, 2), (16,))])
def test_numbers_need_shapes_that_fit(f, pred, yb):
    with pytest.raises(ValueError, match=f'{f.__name__}|mse'): f(torch.zeros(pred), torch.zeros(yb))


@pytest.mark.parametrize('f', [*REGRESSION, accuracy, m.accuracy_thresh])
def test_a_tuple_is_no_tensor(f):
    with pytest.raises(TypeError, match='pred is a tuple'): f((1, 2), torch.zeros(2))


@pytest.mark.parametrize('f', REGRESSION)
def test_columns_are_not_broadcast(f):
    pred, yb = numbers(10)
    assert f(pred[:, None], yb) == f(pred, yb) == f(pred, yb[:, None])


@pytest.mark.parametrize('f', REGRESSION)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_single(f, dtype):
    pred, yb = numbers(4000)
    pred, yb = pred.to(dtype), yb.to(dtype)
    assert f(pred, yb).dtype == torch.float32
    assert f(pred, yb) == f(pred.float(), yb.float())


@pytest.mark.parametrize('f', [*REGRESSION, *CLASSES])
def test_one_number_that_stays_a_tensor(f):
    batch = numbers(6) if f in REGRESSION else classes(6)
    assert isinstance(f(*batch), torch.Tensor) and f(*batch).shape == ()
    on_meta = [o.to('meta') for o in batch]  # a device from which no value can be had
    assert f(*on_meta).device.type == 'meta'


@pytest.mark.parametrize('k', [0, 5, -1])
def test_top_k_refuses(k):
    with pytest.raises(ValueError, match=f'k={k}'): top_k_accuracy(*classes(5), k=k)


def test_yes_or_no():
    pred, yb = torch.tensor([[2., -2.], [0.1, -0.1]]), torch.tensor([[1, 1], [1, 0]])
    assert m.accuracy_thresh(pred, yb) == 0.75
    assert m.accuracy_thresh(pred, yb, sigmoid=False, thresh=1) == 0.5
    assert m.accuracy_thresh(pred[:, :1], yb[:, 0]) == 1


def test_fbeta_by_hand():
    pred = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1]])
    yb = torch.tensor([[1, 0, 1], [1, 0, 0]])
    first = (1 + 4)*0.5*0.5/(4*0.5 + 0.5)
    assert m.fbeta(pred, yb, sigmoid=False).item() == pytest.approx((first + 1)/2)


@pytest.mark.parametrize('iou', [False, True])
def test_dice_by_sets(iou):
    pred, yb = torch.randn(5, 2, 4, 4), torch.randint(2, (5, 4, 4))
    pred[0, 0], yb[0] = 100, 0  # nothing there, nothing found
    found = []
    for p, y in zip(pred, yb):
        a = {tuple(o) for o in (p[1] > p[0]).nonzero().tolist()}
        b = {tuple(o) for o in y.nonzero().tolist()}
        if not a | b: found.append(1.)
        else: found.append(len(a & b)/len(a | b) if iou else 2*len(a & b)/(len(a) + len(b)))
    assert m.dice(pred, yb, iou=iou).item() == pytest.approx(np.mean(found))


# ---- many batches --------------------------------------------------------------------------------
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(cuts, st.sampled_from(REGRESSION + CLASSES), st.integers(0, 100))
def test_any_split_gives_the_whole(sizes, func, seed):
    make = numbers if func in REGRESSION else classes
    pred, yb = make(sum(sizes) + 2, seed=seed)
    metric = as_metric(func)
    for p, y in zip(pred.split([*sizes, 2]), yb.split([*sizes, 2])): metric.update(p, y)
    assert metric.count == len(yb)
    assert float(metric) == pytest.approx(func(pred, yb).item(), rel=1e-4, abs=1e-5)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 64)), min_size=1, max_size=20),
       st.integers(1, 5))
def test_weighted_mean_however_often_it_adds_up(pairs, keep):
    values, weights = zip(*pairs)
    mean = WeightedMean()
    mean.keep = keep
    for v, w in pairs: mean.add(torch.tensor(v, dtype=torch.float64), w)
    assert len(mean.values) < keep
    assert mean.compute().item() == pytest.approx(np.average(values, weights=weights), abs=1e-9)


def test_weighted_mean_does_not_depend_on_being_read():
    read, unread = WeightedMean(), WeightedMean()
    read.keep = unread.keep = 4
    for v in torch.rand(23):
        read.add(v, 3)
        unread.add(v, 3)
        read.compute()
    assert read.compute() == unread.compute()


def test_weighted_mean_takes_plain_numbers_and_no_graph():
    mean = WeightedMean()
    mean.add(2.)
    mean.add(torch.ones((), requires_grad=True)*4)
    assert not mean.values[1].requires_grad and mean.compute() == 3
    mean.add(torch.tensor([0], dtype=torch.uint8))
    assert mean.compute() == 2 and mean.compute().dtype == torch.float64
    mean.reset()
    assert mean.compute() is None


def test_nothing_crosses_before_it_is_read():
    "On the meta device, reading a value raises"
    stats = AvgStats([mse, r2_score], in_train=True)
    batch = SimpleNamespace(pred=torch.zeros(4, device='meta'), yb=torch.zeros(4, device='meta'),
                            loss=torch.zeros((), device='meta'))
    for _ in range(3): stats.accumulate(batch)
    assert [o.compute().device.type for o in stats.metrics] == ['meta', 'meta']
    with pytest.raises((NotImplementedError, RuntimeError)): print(stats.avg_stats)


def test_graphs_are_let_go():
    weight = torch.ones(3, requires_grad=True)
    average, epoch = AverageMetric(mse), EpochMetric(mse)
    for metric in (average, epoch):
        metric.update(weight*2, torch.zeros(3))
        assert metric.compute().grad_fn is None
    assert epoch.preds[0].grad_fn is None and average.mean.values[0].grad_fn is None


def test_several_inputs_and_outputs():
    metric = AverageMetric(lambda pred, a, b: (pred[0] - a).abs().mean() + b.mean())
    metric.update((torch.ones(2), torch.ones(2)), (torch.zeros(2), torch.ones(2)))
    assert metric == 2
    whole = EpochMetric(lambda pred, a, b: (pred[0] - a).sum() + (pred[1] - b).sum())
    for _ in range(2):
        whole.update((torch.ones(2), torch.ones(2)), (torch.zeros(2), torch.ones(2)))
    assert whole == 4


def test_empty_batches_are_passed_over():
    metric = AverageMetric(accuracy)
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert metric.compute() is None and metric.count == 0


@pytest.mark.parametrize('kind, of', [(AverageMetric, 'a batch'), (EpochMetric, 'an epoch')])
@pytest.mark.parametrize('gives, told', [
    (torch.ones(3), 'a tensor of shape (3,)'), (np.ones((2, 1)), 'an array of shape (2, 1)'),
    ([.5, .25], '[0.5, 0.25]'), ({'a': 1.}, "{'a': 1.0}"), (None, 'None'), ('0.5', "'0.5'"),
    (1j, '1j'), (torch.ones(0), 'a tensor of shape (0,)'), ([], '[]')])
def test_what_is_not_one_number_is_refused(kind, of, gives, told):
    metric = kind(lambda p, y: gives, name='each')
    message = re.escape(f'each gave {told}; a metric gives one number for {of}')
    with pytest.raises(ValueError, match=message):
        for _ in range(2): metric.update(torch.ones(3), torch.ones(3))
        metric.compute()


@pytest.mark.parametrize('kind', [AverageMetric, EpochMetric])
@pytest.mark.parametrize('form', [
    lambda o: o, np.float32, np.array, torch.tensor, lambda o: [o], lambda o: np.array([[o]]),
    lambda o: torch.tensor([o]), lambda o: (torch.tensor([[o]]),), Fraction, Decimal])
def test_one_number_may_come_in_any_form(kind, form):
    metric = kind(lambda p, y: form(float(p.mean())))
    for part in (torch.tensor([1., 2., 6.]), torch.tensor([7.])): metric.update(part, part)
    assert metric.value == 4 and metric.compute() == 4


def test_metric_objects_of_several_numbers_are_named_and_may_have_none():
    classification = pytest.importorskip('torchmetrics.classification')
    metric = as_metric(classification.MulticlassAccuracy(3, average=None))
    metric.update(torch.eye(3), torch.arange(3))
    with pytest.raises(ValueError, match=r'multiclass_accuracy gave a tensor of shape \(3,\)'):
        metric.compute()

    class Nothing(Metric):
        def _clear(self): pass
        def _add(self, pred, targets, size): pass
        def _result(self): return None
    nothing = Nothing('nothing')
    nothing.update(torch.eye(3), torch.arange(3))
    assert nothing.compute() is None and nothing.value is None


# ---- the object ----------------------------------------------------------------------------------
def test_reads_as_its_latest_number():
    metric = AverageMetric(accuracy)
    assert metric.value is None and math.isnan(float(metric)) and f'{metric:.2f}' == 'nan'
    assert str(metric) == 'nan' and metric.compute() is None
    metric.update(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    assert f'{metric:.4f}' == '0.7500' and str(metric) == '0.75' and float(metric) == 0.75
    assert repr(metric) == 'accuracy: 0.75' and f'{metric}' == '0.75'
    assert metric > 0.7 and metric >= 0.75 and metric < 0.8 and metric <= 0.75 and metric == 0.75
    assert 0.7 < metric and metric != 0.7 and metric.metric == 0.75
    metric.reset()
    assert metric == 0.75 and metric.count == 0 and metric.compute() is None
    metric.update(torch.eye(2), torch.tensor([0, 1]))
    assert metric == 1


def test_two_metrics_are_two():
    one, two = AverageMetric(mae), AverageMetric(mae)
    for o in (one, two): o.update(torch.ones(2), torch.zeros(2))
    assert float(one) == float(two) and one != two and [one, two].index(two) == 1
    assert len({one, two}) == 2


def test_driven_by_fastai_v1():
    metric = AverageMetric(mae)
    state = dict(epoch=0, iteration=7, smooth_loss=0.1)
    for _ in range(2):
        metric.on_epoch_begin(**state)
        metric.on_batch_end(last_output=torch.ones(3), last_target=torch.zeros(3), train=False,
                            **state)
        metric.on_batch_end(last_output=torch.ones(5), last_target=torch.zeros(5), train=True,
                            **state)
        metric.on_batch_end(last_output=torch.ones(1), last_target=torch.tensor([5.]), **state)
        assert metric.on_epoch_end(last_metrics=[0.5], **state) == {'last_metrics': [0.5, 1.75]}
    metric.on_epoch_begin(**state)
    assert metric.on_epoch_end(last_metrics=None, **state) == {'last_metrics': [None]}


def test_a_subclass_may_override_the_three_verbs():
    class Count(Metric):
        def __init__(self): self.n = 0
        def reset(self): self.n = 0
        def update(self, pred, yb): self.n += len(yb)
        def compute(self): return self.n
    given = Count()
    stats = AvgStats([given], True)
    stats.accumulate(SimpleNamespace(pred=0, yb=torch.ones(3), loss=torch.tensor(1.)))
    assert stats.avg_stats == [1, 3] and stats.metrics[0] == 3 and given.n == 0


def test_accumulates_from_a_run():
    metric = AverageMetric(mae)
    metric.accumulate(SimpleNamespace(pred=torch.ones(2), yb=torch.zeros(2)))
    assert metric == 1


@pytest.mark.parametrize('metric, name', [
    (accuracy, 'accuracy'), (partial(partial(top_k_accuracy), k=3), 'top_k_accuracy'),
    (lambda p, y: 0, 'lambda'), (nn.L1Loss(), 'l1_loss'), (AverageMetric(mae), 'mae'),
    (AverageMetric(mae, 'far'), 'far'), (SimpleNamespace(name='given'), 'given')])
def test_names(metric, name): assert metric_name(metric) == name


@pytest.mark.parametrize('metric', [AverageMetric(mae), as_metric(rmse), EpochMetric(r2_score)])
def test_pickle_and_state(metric):
    metric = metric.fresh()
    pred, yb = numbers(9)
    metric.update(pred[:4], yb[:4])
    other = metric.fresh()
    other.load_state_dict(copy.deepcopy(metric.state_dict()))
    again = pickle.loads(pickle.dumps(metric))
    for o in (metric, other, again): o.update(pred[4:], yb[4:])
    assert float(metric) == float(other) == float(again)


# ---- anything that measures ----------------------------------------------------------------------
class Updates:
    "torchmetrics' verbs"
    def __init__(self): self.reset()
    def reset(self): self.total = self.n = 0
    def update(self, preds, target): self.total, self.n = self.total + target.sum(), self.n + 1
    def compute(self): return self.total/self.n


class KerasLike:
    "Keras' verbs; targets first"
    name = 'keras_like'
    def __init__(self): self.reset_state()
    def reset_state(self): self.total = 0.
    def __call__(self, *args): raise AssertionError('this is no function')
    def result(self): return self.total
    def update_state(self, y_true, y_pred, sample_weight=None): self.total += float(y_true.sum())


class LearnLike:
    "fastai v2's verbs"
    name = 'learn_like'
    def __init__(self): self.reset()
    def reset(self): self.total = 0.

    def accumulate(self, learn):
        assert len(learn.yb) == 1 and learn.to_detach(learn.pred) is not None
        self.total += float(learn.y.sum())

    @property
    def value(self): return self.total


class EventLike:
    "A metric callback of fastai v1"
    def on_epoch_begin(self, **kwargs): self.total = 0.

    def on_batch_end(self, last_output, last_target, **kwargs):
        self.total += float(last_target.sum())

    def on_epoch_end(self, last_metrics, **kwargs):
        return {'last_metrics': last_metrics + [self.total]}


class EarlyEventLike(EventLike):
    "The same for fastai 1.0.0"
    def on_epoch_end(self, **kwargs): self.metric = self.total


@pytest.mark.parametrize('kind, name, wanted', [
    (Updates, 'updates', 5.), (KerasLike, 'keras_like', 10.), (LearnLike, 'learn_like', 10.),
    (EventLike, 'event_like', 10.), (EarlyEventLike, 'early_event_like', 10.)])
@pytest.mark.parametrize('as_class', [False, True])
def test_foreign_objects(kind, name, wanted, as_class):
    metric = as_metric(kind if as_class else kind())
    assert isinstance(metric, Metric) and metric.name == name
    for _ in range(2):
        metric.reset()
        for yb in (torch.tensor([1., 2.]), torch.tensor([3., 4.])): metric.update(yb, yb)
        assert float(metric) == wanted and float(metric.compute()) == wanted
    other = metric.fresh()
    other.update(torch.ones(1), torch.ones(1))
    assert float(other) == 1 and float(metric) == wanted


def test_foreign_objects_follow_the_device():
    class OnDevice(Updates):
        device, moved = torch.device('cpu'), ()
        def to(self, device): self.moved, self.device = (*self.moved, device), device
    inner = OnDevice()
    as_metric(inner).update(torch.ones(2, device='meta'), torch.ones(2, device='meta'))
    assert inner.moved == (torch.device('meta'),)


def test_as_metric_of_functions():
    assert as_metric(accuracy).func is accuracy
    assert isinstance(as_metric(r2_score), EpochMetric)
    assert isinstance(as_metric(partial(r2_score)), EpochMetric)
    assert as_metric(rmse).name == 'rmse' and as_metric(m.exp_rmspe).name == 'exp_rmspe'
    metric = AverageMetric(mae)
    assert as_metric(metric) is metric


@pytest.mark.parametrize('wrong', ['accuracy', 0.5, None, SimpleNamespace(reset=1)])
def test_what_does_not_measure_is_refused(wrong):
    with pytest.raises(TypeError, match='neither a function'): as_metric(wrong)
    with pytest.raises(TypeError, match='cannot be called'): AverageMetric(wrong)
    with pytest.raises(TypeError, match='cannot be called'): EpochMetric(wrong)


# ---- AvgStats ------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(cuts)
def test_avg_stats_of_any_split(sizes):
    pred, yb = classes(sum(sizes))
    stats = AvgStats([accuracy, m.error_rate], True)
    for p, y in zip(pred.split(sizes), yb.split(sizes)):
        loss = nn.functional.cross_entropy(p, y)
        stats.accumulate(SimpleNamespace(xb=p, yb=y, pred=p, loss=loss))
    wanted = [nn.functional.cross_entropy(pred, yb), accuracy(pred, yb), m.error_rate(pred, yb)]
    assert stats.avg_stats == pytest.approx([o.item() for o in wanted], abs=1e-5)
    assert all(type(o) is float for o in stats.avg_stats)
    assert stats.all_stats == pytest.approx([o*len(yb) for o in stats.avg_stats])
    assert stats.count == len(yb)


def test_avg_stats_prints():
    stats = AvgStats(None, in_train=True)
    assert repr(stats) == 'train: no data' and stats.avg_stats == [] and stats.all_stats == []
    run = SimpleNamespace(pred=torch.ones(2), yb=torch.zeros(2), loss=torch.tensor(0.25))
    stats.accumulate(run)
    assert repr(stats) == 'train: [0.25]'
    stats = AvgStats([mae], False)
    stats.accumulate(run)
    assert str(stats) == 'valid: [0.25, 1]'
    stats.reset()
    assert str(stats) == 'valid: no data'


def test_avg_stats_do_not_share_metric_objects():
    given = [AverageMetric(mae), Updates()]
    train, valid = AvgStats(given, True), AvgStats(given, False)
    for stats, value in ((train, 1.), (valid, 3.)):
        stats.accumulate(SimpleNamespace(pred=torch.zeros(2), yb=torch.full((2,), value),
                                         loss=torch.tensor(0.)))
    assert train.avg_stats == [0, 1, 2] and valid.avg_stats == [0, 3, 6]


def test_avg_stats_weigh_by_the_first_target():
    stats = AvgStats([lambda pred, a, b: b.mean()], True)
    for n, value in ((3, 1.), (1, 5.)):
        yb = (torch.zeros(n), torch.full((7,), value))
        stats.accumulate(SimpleNamespace(pred=torch.zeros(n), yb=yb, loss=torch.tensor(value)))
    assert stats.avg_stats == [2, 2]


def test_avg_stats_go_on_from_a_checkpoint(tmp_path):
    def feed(stats, part):
        for value in part:
            stats.accumulate(SimpleNamespace(pred=value.repeat(3), yb=torch.ones(3), loss=value))
    values = torch.rand(40)
    whole, first, rest = [AvgStats([mae, rmse, r2_score], True) for _ in range(3)]
    for stats in (whole, first, rest): stats.loss.keep = 16
    feed(whole, values)
    feed(first, values[:23])
    torch.save(first.state_dict(), tmp_path/'state.pth')
    rest.load_state_dict(torch.load(tmp_path/'state.pth', weights_only=True))
    feed(rest, values[23:])
    assert rest.avg_stats[:3] == whole.avg_stats[:3] and rest.count == whole.count


@pytest.mark.parametrize('wrong', [['accuracy'], [accuracy, 3]])
def test_avg_stats_refuse(wrong):
    with pytest.raises(TypeError, match='metrics: '): AvgStats(wrong, True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_no_waiting_for_the_device():
    pred, yb = [o.cuda() for o in classes(64)]
    stats = AvgStats([accuracy, rmse], True)
    run = SimpleNamespace(pred=pred, yb=yb, loss=pred.mean())
    stats.metrics[1].func = lambda pred, yb: (pred.mean(1) - yb).square().mean()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(2*WeightedMean.keep + 1): stats.accumulate(run)
        for metric in stats.metrics: metric.compute()
    finally: torch.cuda.set_sync_debug_mode('default')
    assert stats.avg_stats[1] == pytest.approx(accuracy(pred, yb).item())


# ---- torchmetrics --------------------------------------------------------------------------------
def test_torchmetrics_by_hand(tmp_path):
    torchmetrics = pytest.importorskip('torchmetrics.classification')
    torch.manual_seed(0)
    x = torch.randn(90, 4)
    y = (x[:, 0] > 0).long() + (x[:, 1] > .5).long()
    data = DataBunch.from_tensors(x, y, x, y, bs=7, valid_bs=13, seed=0, device='cpu')
    made = m.class_metrics(3)
    assert isinstance(made[0], torchmetrics.MulticlassF1Score)
    learn = Learner(data, torch.nn.Linear(4, 3), metrics=[accuracy, *made], silent=True,
                    path=tmp_path)
    learn.fit(3, 1e-1)
    assert learn.recorder.names[-4:] == [f'multiclass_{o}' for o in (
        'f1_score', 'precision', 'recall', 'auroc')]
    preds, targets = learn.get_preds(probabilities=True)
    chosen, rows = preds.argmax(1).tolist(), []
    for k in range(3):
        pairs = list(zip(chosen, targets.tolist()))
        hits = pairs.count((k, k))
        called, there = chosen.count(k), targets.tolist().count(k)
        wins = [(a > b) + (a == b)/2 for a, t in zip(preds[:, k].tolist(), targets) if t == k
                for b, u in zip(preds[:, k].tolist(), targets) if u != k]
        rows.append([2*hits/(called+there), hits/called, hits/there, sum(wins)/len(wins)])
    by_hand = [sum(o)/3 for o in zip(*rows)]
    assert learn.recorder.values[-1][3:] == pytest.approx(by_hand, abs=1e-5)
    assert learn.validate()[2:] == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize('alone', [True, False])
def test_a_collection_of_torchmetrics(alone, tmp_path):
    "Its members are columns, and give what the collection gives when it is asked by itself"
    torchmetrics = pytest.importorskip('torchmetrics')
    of = torchmetrics.classification
    torch.manual_seed(0)
    x, y = torch.randn(70, 4), torch.randint(0, 3, (70,))
    asked = torchmetrics.MetricCollection(
        [of.MulticlassF1Score(3), of.MulticlassRecall(3), of.MulticlassAUROC(3)], prefix='val_')
    data = DataBunch.from_tensors(x, y, x, y, bs=16, device='cpu')
    learn = Learner(data, torch.nn.Linear(4, 3), metrics=asked if alone else [accuracy, asked],
                    cbs=AvgStatsCallback(asked), silent=True, path=tmp_path)
    learn.fit(2, .1)
    names = [f'val_multiclass_{o}' for o in ('f1_score', 'recall', 'auroc')]
    assert learn.recorder.names[2:] == [*([] if alone else ['accuracy']), *names]
    want = [float(o) for o in asked.clone()(*learn.get_preds()).values()]
    assert learn.recorder.values[-1][-3:] == pytest.approx(want, abs=1e-6)
    assert learn.validate()[-3:] == pytest.approx(want, abs=1e-6)
    assert learn.avg_stats.valid_stats.avg_stats[-3:] == pytest.approx(want, abs=1e-6)


def test_the_extra_is_named_where_torchmetrics_is_missing(monkeypatch):
    for name in ['torchmetrics', *(o for o in sys.modules if o.startswith('torchmetrics.'))]:
        monkeypatch.setitem(sys.modules, name, None)  # some were imported by the tests before
    with pytest.raises(ImportError, match=r'torchmetrics: pip install "fastloop\[metrics\]"'):
        m.class_metrics(3)


def test_torchmetrics_for_yes_or_no(tmp_path):
    torchmetrics = pytest.importorskip('torchmetrics.classification')
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    y = (x[:, :1] > .3).float()
    data = DataBunch.from_tensors(x, y, x, y, bs=8, seed=0, device='cpu')
    learn = Learner(data, torch.nn.Linear(3, 1), torch.nn.BCEWithLogitsLoss(), silent=True,
                    metrics=torchmetrics.BinaryF1Score(), path=tmp_path)
    learn.fit(2, 1e-1)
    said = learn.get_preds()[0] > 0
    hits = int((said & (y > 0)).sum())
    assert learn.validate()[1] == pytest.approx(2*hits/(int(said.sum()) + int(y.sum())), abs=1e-6)


def test_a_metric_object_has_a_name_as_a_function_has():
    found = [o.__name__ for o in AvgStats([accuracy, as_metric(rmse)], True).metrics]
    assert found == ['accuracy', 'rmse']
    assert type(as_metric(accuracy)).__name__ == 'AverageMetric'
