"""Callbacks of the kind that people publish for Keras: the same code, in Keras 3 and here

The same weights are trained on the same batches by Keras, by a model of `fastloop.keras` with the
classes on our base class, and by our model with the classes on Keras' base class.
"""
import itertools
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault('KERAS_BACKEND', 'torch')
keras = pytest.importorskip('keras', reason='installed by `make test-peers`')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from keras_callbacks_public import make  # noqa: E402

from fastloop import keras as ours  # noqa: E402

rng = np.random.default_rng(0)
x, x_valid = rng.normal(size=(44, 4)).astype('float32'), rng.normal(size=(20, 4)).astype('float32')
y = (x[:, :3] + rng.normal(size=(44, 3))).argmax(1)
y_valid = (x_valid[:, :3] + rng.normal(size=(20, 3))).argmax(1)
first = [rng.normal(size=o).astype('float32')/2 for o in ((4, 16), (16,), (16, 3), (3,))]


def new(K, optimizer):
    "The same model in either library"
    layers = [K.layers.Dense(16, activation='tanh'), K.layers.Dense(3, activation='softmax')]
    model = K.Sequential(layers if K is ours else [keras.Input((4,)), *layers])
    model.predict(x, verbose=0)
    model.set_weights(first)
    model.compile(optimizer(K), 'sparse_categorical_crossentropy', metrics=['accuracy'])
    return model


def run(K, cb, optimizer, epochs=5, **kwargs):
    "What a fit leaves behind"
    model = new(K, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        history = model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=[cb],
                            validation_data=(x_valid, y_valid), shuffle=False, **kwargs)
    return history.history, model.get_weights(), getattr(cb, 'seen', [])


def plain(o):
    "Nested numbers in one row, texts as they are"
    if isinstance(o, (list, tuple)): return [p for part in o for p in plain(part)]
    return [o] if isinstance(o, str) else np.ravel(o).astype(float).tolist()


def same(a, b):
    (ours_history, ours_weights, ours_seen), (history, weights, seen) = a, b
    assert set(ours_history) == set(history)
    for k in history: np.testing.assert_allclose(ours_history[k], history[k], rtol=5e-4, atol=5e-5)
    for p, q in zip(ours_weights, weights): np.testing.assert_allclose(p, q, rtol=5e-4, atol=5e-5)
    assert plain(ours_seen) == pytest.approx(plain(seen), rel=1e-3, abs=1e-5) if not any(
        isinstance(o, str) for o in plain(seen)) else plain(ours_seen) == plain(seen)


def sgd(K): return K.optimizers.SGD(.1)
def heavy(K): return K.optimizers.SGD(.1, momentum=.9)
def adam(K): return K.optimizers.Adam(.01)


cases = {
    'CyclicLR': lambda p, tmp: p.CyclicLR(), 'WarmUpCosine': lambda p, tmp: p.WarmUpCosine(),
    'SGDR': lambda p, tmp: p.SGDR(.05), 'LRFinder': lambda p, tmp: p.LRFinder(tmp/'a.weights.h5'),
    'Bar': lambda p, tmp: p.Bar(), 'ConfusionMatrix': lambda p, tmp: p.ConfusionMatrix(x, y),
    'F1Score': lambda p, tmp: p.F1Score(x_valid, y_valid), 'SWA': lambda p, tmp: p.SWA(),
    'EMA': lambda p, tmp: p.EMA(), 'Webhook': lambda p, tmp: p.Webhook(lambda message: None),
    'TimeLimit': lambda p, tmp: p.TimeLimit(itertools.count().__next__),
    'WeightDecayByHand': lambda p, tmp: p.WeightDecayByHand(),
    'LayerStats': lambda p, tmp: p.LayerStats(),
    'StopAtAccuracy': lambda p, tmp: p.StopAtAccuracy(),
    'CallsModel': lambda p, tmp: p.CallsModel(x_valid),
    'OneCycle': lambda p, tmp: p.OneCycle()}


@pytest.mark.parametrize('base', ['our base class', "Keras' base class"])
@pytest.mark.parametrize('optimizer', [sgd, adam])
@pytest.mark.parametrize('name', cases)
def test_the_same_as_at_home(name, optimizer, base, tmp_path):
    if name == 'OneCycle' and optimizer is adam: pytest.skip('Adam has no momentum')
    if name == 'OneCycle': optimizer = heavy
    at_home, here = make(keras), make(ours if base == 'our base class' else keras)
    theirs = run(keras, cases[name](at_home, tmp_path), optimizer)
    found = run(ours, cases[name](here, tmp_path), optimizer)
    if optimizer is not heavy: return same(found, theirs)
    # momentum is torch's, which does not keep the rate of earlier steps as Keras' does
    assert plain(found[2]) == pytest.approx(plain(theirs[2]), rel=1e-5)


def test_steps_as_in_keras():
    class Batches(keras.callbacks.Callback):
        def on_train_begin(self, logs=None): self.seen = []
        def on_epoch_begin(self, epoch, logs=None): self.seen.append(0)
        def on_train_batch_end(self, batch, logs=None): self.seen[-1] += 1
    a = run(ours, Batches(), sgd, steps_per_epoch=4)
    b = run(keras, Batches(), sgd, steps_per_epoch=4)
    assert a[2] == [4, 2, 4, 2, 4]
    same(a, b)


def squares(y_true, y_pred): return (y_true-y_pred)**2


def test_y_in_a_row_as_in_keras():
    found = []
    for K in (ours, keras):
        layer = K.layers.Dense(1)
        model = K.Sequential([layer] if K is ours else [keras.Input((4,)), layer])
        model.predict(x, verbose=0)
        model.set_weights([first[0][:, :1], first[1][:1]])
        model.compile(K.optimizers.SGD(.1), squares)
        found.append(model.fit(x, x[:, 0]*2, epochs=20, verbose=0, shuffle=False).history['loss'])
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-6)
    assert found[0][-1] < .01


@pytest.mark.parametrize('name', [
    'SGD', 'RMSprop', 'Adam', 'AdamW', 'Adagrad', 'Adadelta', 'Adamax', 'Nadam'])
def test_the_numbers_of_optimizers_are_those_of_keras(name):
    mine, theirs = getattr(ours.optimizers, name)(), getattr(keras.optimizers, name)()
    config = theirs.get_config()
    for k, v in mine.get_config().items():
        if k != 'name': assert v == pytest.approx(config[k]), k


@pytest.mark.parametrize('verbose', [1, 2])
@pytest.mark.parametrize('loop', [ours, keras])
def test_bars_of_tqdm_reach_their_end(verbose, loop):
    import io

    from tqdm import tqdm
    from tqdm.keras import TqdmCallback

    class Bar(tqdm):
        ends = []

        def __init__(self, *args, **kwargs): super().__init__(*args, file=io.StringIO(), **kwargs)

        def reset(self, total=None):
            if self.n: self.ends.append((self.unit, self.n, self.total))
            super().reset(total)

        def close(self):
            if getattr(self, 'n', 0): self.ends.append((self.unit, self.n, self.total))
            super().close()
    Bar.ends = []
    run(loop, TqdmCallback(verbose=verbose, tqdm_class=Bar), sgd, epochs=2)
    batches = (44, 44) if loop is ours else (6, 6)  # with a size in the logs, samples are counted
    assert [o[1:] for o in Bar.ends if o[0] == 'batch'][:2] == [batches]*2
    assert ('epoch', 2, 2) in Bar.ends


def test_objects_of_keras_know_the_direction_of_our_metrics():
    class Accuracy:  # whose name says the contrary
        higher_is_better = False
        def reset(self): self.n = 0.
        def update(self, pred, y): self.n += 1
        def compute(self): return self.n
    model = new(ours, sgd)
    model.compile('sgd', 'sparse_categorical_crossentropy', metrics=[Accuracy()])
    stop = keras.callbacks.EarlyStopping('val_accuracy', patience=5)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[stop], validation_data=(x_valid, y_valid))
    assert stop.monitor_op(1, 2) and not stop.monitor_op(2, 1)


def test_a_learner_takes_them_too(tmp_path):
    from fastloop.data.bunch import DataBunch
    from fastloop.learner import Learner
    p = make(keras)
    t = torch.tensor(x), torch.tensor(y)
    learn = Learner(DataBunch.from_tensors(*t, *t, bs=8), torch.nn.Linear(4, 3), silent=True,
                    opt_func=torch.optim.SGD, wd=0.)
    learn.fit(2, .1, cbs=[p.CyclicLR(), p.SWA(0), p.EMA(), p.Bar(), p.WeightDecayByHand()])
    assert learn.opt.mom is not None and len(learn.recorder.values) == 2
