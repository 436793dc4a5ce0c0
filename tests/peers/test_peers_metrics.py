"""Metric objects of torchmetrics, Keras and fastai 2 in `metrics=[…]`.

Each value is compared with the same library asked once about the whole validation set.
"""
import copy
import os

import pytest
import torch

wanted = 'installed by `make test-peers`'
torchmetrics = pytest.importorskip('torchmetrics', reason=wanted)
os.environ.setdefault('KERAS_BACKEND', 'torch')
keras = pytest.importorskip('keras', reason=wanted)
fastai_metrics = pytest.importorskip('fastai.metrics', reason=wanted)


def fit(metrics, path, epochs=2):
    "A learner that was trained with `metrics`, and its predictions and targets afterwards"
    from make_golden import load_problem, make_loaders, make_model

    from fastloop.data.bunch import DataBunch
    from fastloop.learner import Learner
    data, p = DataBunch(*make_loaders(), path=path), load_problem()
    learn = Learner(data, make_model('plain'), torch.nn.CrossEntropyLoss(),
                    opt_func=torch.optim.SGD, metrics=metrics, silent=True)
    learn.fit(epochs, .1)
    with torch.no_grad(): pred = learn.model(p['x_valid'])
    return learn, pred, p['y_valid']


classification = {
    'MulticlassAccuracy': {'num_classes': 3, 'average': 'micro'},
    'MulticlassF1Score': {'num_classes': 3, 'average': 'macro'},
    'MulticlassAUROC': {'num_classes': 3},
    'MulticlassCohenKappa': {'num_classes': 3},
    'MulticlassMatthewsCorrCoef': {'num_classes': 3}}


@pytest.mark.parametrize('name', classification)
def test_torchmetrics(tmp_path, name):
    metric = getattr(torchmetrics.classification, name)(**classification[name])
    whole = copy.deepcopy(metric)
    learn, pred, y = fit([metric], tmp_path)
    assert learn.recorder.values[-1][2] == pytest.approx(whole(pred, y).item(), abs=1e-6)
    assert len(learn.recorder.values[-1]) == 3


@pytest.mark.parametrize('make, way', [
    (lambda: torchmetrics.classification.MulticlassHammingDistance(num_classes=3), 'min'),
    (lambda: torchmetrics.classification.MulticlassF1Score(num_classes=3), 'max'),
    (lambda: torchmetrics.classification.MulticlassHingeLoss(num_classes=3), 'min'),
    (lambda: keras.metrics.SparseCategoricalAccuracy(name='loss_of_nothing'), 'max'),
    (lambda: keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name='bits'), 'min')])
def test_a_metric_is_asked_which_way_is_better(tmp_path, make, way):
    from fastloop.callback.save import SaveModelCallback
    learn, _, _ = fit([make()], tmp_path, epochs=1)
    cb = SaveModelCallback(monitor=learn.recorder.names[2])
    learn.fit(3, .3, cbs=cb)
    assert cb.mode == way
    assert cb.best == dict(min=min, max=max)[way](o[2] for o in learn.recorder.values)


def test_torchmetrics_begin_again_each_epoch(tmp_path):
    class Sum(torchmetrics.SumMetric):
        def update(self, pred, y): super().update(y)
    learn, _, y = fit([Sum()], tmp_path, epochs=3)
    assert [row[2] for row in learn.recorder.values] == [y.sum().item()]*3


def test_a_torchmetric_used_for_two_fits(tmp_path):
    learn, pred, y = fit([torchmetrics.classification.MulticlassF1Score(3)], tmp_path)
    first = learn.recorder.values[-1][2]
    learn.fit(1, 0.)
    assert learn.recorder.values[-1][2] == pytest.approx(first, abs=1e-6)


keras_metrics = ['SparseCategoricalAccuracy', 'SparseTopKCategoricalAccuracy',
                 'SparseCategoricalCrossentropy']


@pytest.mark.parametrize('name', keras_metrics)
def test_keras(tmp_path, name):
    options = {'SparseTopKCategoricalAccuracy': {'k': 2},
               'SparseCategoricalCrossentropy': {'from_logits': True}}.get(name, {})
    make = getattr(keras.metrics, name)
    learn, pred, y = fit([make(**options)], tmp_path)
    whole = make(**options)
    whole.update_state(y, pred)
    assert learn.recorder.values[-1][2] == pytest.approx(float(whole.result()), abs=1e-6)
    assert learn.recorder.names[-2:-1] == [whole.name] or whole.name in learn.recorder.names


def test_keras_metrics_begin_again_each_epoch(tmp_path):
    class Count(keras.metrics.Sum):
        def update_state(self, y, pred, sample_weight=None):
            super().update_state(keras.ops.cast(keras.ops.ones_like(y), 'float32'))
    learn, _, y = fit([Count()], tmp_path, epochs=3)
    assert [row[2] for row in learn.recorder.values] == [len(y)]*3


def test_fastai_average_metric(tmp_path):
    from fastai.learner import AvgMetric
    learn, pred, y = fit([AvgMetric(fastai_metrics.accuracy)], tmp_path)
    right = (pred.argmax(1) == y).float().mean().item()
    assert learn.recorder.values[-1][2] == pytest.approx(right, abs=1e-6)
    assert 'accuracy' in learn.recorder.names


def test_fastai_metrics_over_the_whole_set(tmp_path):
    learn, pred, y = fit([fastai_metrics.F1Score(average='macro')], tmp_path)
    from sklearn.metrics import f1_score
    right = f1_score(y, pred.argmax(1), average='macro')
    assert learn.recorder.values[-1][2] == pytest.approx(right, abs=1e-6)


def test_all_side_by_side(tmp_path):
    from make_golden import accuracy
    metrics = [accuracy, torchmetrics.classification.MulticlassAccuracy(3, average='micro'),
               keras.metrics.SparseCategoricalAccuracy(), fastai_metrics.F1Score(average='micro')]
    learn, pred, y = fit(metrics, tmp_path)
    right = (pred.argmax(1) == y).float().mean().item()
    assert learn.recorder.values[-1][2:] == pytest.approx([right]*4, abs=1e-6)
