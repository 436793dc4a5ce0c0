"""Callback objects of an installed Keras 3 on our loop, and ours on Keras' loop.

The same weights are trained on the same batches by Keras, by a model of `fastloop.keras`, and by a
`Learner`; weights, histories, files and what callbacks remember have to agree.
"""
import csv
import json
import os
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch

os.environ.setdefault('KERAS_BACKEND', 'torch')
keras = pytest.importorskip('keras', reason='installed by `make test-peers`')

from fastloop import keras as ours  # noqa: E402
from fastloop.data.bunch import DataBunch  # noqa: E402
from fastloop.learner import Learner  # noqa: E402
from fastloop.metrics import accuracy  # noqa: E402
from fastloop.optimizer import SGD  # noqa: E402

rng = np.random.default_rng(0)
x, x_valid = rng.normal(size=(44, 4)).astype('float32'), rng.normal(size=(20, 4)).astype('float32')
y = (x[:, :3] + rng.normal(size=(44, 3))).argmax(1)
y_valid = (x_valid[:, :3] + rng.normal(size=(20, 3))).argmax(1)
first = [rng.normal(size=o).astype('float32')/2 for o in ((4, 16), (16,), (16, 3), (3,))]


def layers(k):
    return [k.layers.Dense(16, activation='tanh'), k.layers.Dense(3, activation='softmax')]


def in_keras(cbs, epochs, lr, stops=(), **options):
    "Keras trains"
    model = keras.Sequential([keras.Input((4,)), *layers(keras)])
    model.set_weights(first)
    model.compile(keras.optimizers.SGD(lr, **options), 'sparse_categorical_crossentropy',
                  metrics=['accuracy'])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try: model.fit(x, y, 8, epochs, 0, cbs, validation_data=(x_valid, y_valid), shuffle=False)
        except stops as e: assert e
    return done(model.get_weights(), caught)


def in_our_model(cbs, epochs, lr, stops=(), **options):
    "Our model of the same name trains"
    model = ours.Sequential(layers(ours))
    model.predict(x)
    model.set_weights(first)
    model.compile(ours.Optimizer('sgd', learning_rate=lr, **options),
                  'sparse_categorical_crossentropy', metrics=['accuracy'])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try: model.fit(x, y, 8, epochs, 0, cbs, validation_data=(x_valid, y_valid), shuffle=False)
        except stops as e: assert e
    return done(model.get_weights(), caught)


def new_learner(lr=.1):
    "A learner of the same weights and batches"
    def batches(*arrays): return list(zip(*(torch.as_tensor(o).split(8) for o in arrays)))
    model = torch.nn.Sequential(*layers(ours))
    model(torch.as_tensor(x))
    model.load_state_dict(dict(zip(model.state_dict(), map(torch.as_tensor, first))))
    data = DataBunch(batches(x, y), batches(x_valid, y_valid), device='cpu')
    loss = ours.models.KerasLoss('sparse_categorical_crossentropy')
    return Learner(data, model, loss, SGD, lr, wd=0., metrics=accuracy, silent=True)


def in_learner(cbs, epochs, lr, stops=(), **options):
    "A learner trains"
    learn = new_learner(lr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try: learn.fit(epochs, cbs=cbs)
        except stops as e: assert e
    return done([o.detach().numpy() for o in learn.model.state_dict().values()], caught)


def done(weights, caught):
    return SimpleNamespace(weights=weights, caught=[str(o.message) for o in caught])


def same_weights(a, b):
    for p, q in zip(a.weights, b.weights): np.testing.assert_allclose(p, q, rtol=2e-4, atol=2e-5)


def same_history(a, b):
    assert sorted(a.history) == sorted(b.history) and a.epoch == b.epoch
    for k in a.history:
        np.testing.assert_allclose(a.history[k], b.history[k], rtol=2e-4, atol=2e-5)


fits = pytest.mark.parametrize('fit', [in_our_model, in_learner])


@fits
def test_history(fit):
    a, b = keras.callbacks.History(), keras.callbacks.History()
    same_weights(fit([a], 3, .1), in_keras([b], 3, .1))
    same_history(a, b)
    assert set(a.history) == {'loss', 'accuracy', 'val_loss', 'val_accuracy'}


@fits
@pytest.mark.parametrize('options', [
    dict(patience=0), dict(patience=2), dict(patience=2, restore_best_weights=True),
    dict(monitor='val_accuracy', patience=1), dict(monitor='accuracy', patience=2, min_delta=.05),
    dict(patience=2, baseline=.2, restore_best_weights=True), dict(patience=1, start_from_epoch=4)])
def test_early_stopping(fit, options):
    make = keras.callbacks.EarlyStopping
    (a, ha), (b, hb) = ((make(**options), keras.callbacks.History()) for _ in range(2))
    same_weights(fit([a, ha], 25, 1.5), in_keras([b, hb], 25, 1.5))
    same_history(ha, hb)
    assert (a.stopped_epoch, a.best_epoch, a.wait) == (b.stopped_epoch, b.best_epoch, b.wait)


@fits
@pytest.mark.parametrize('options', [
    dict(patience=1), dict(patience=2, factor=.5, cooldown=2), dict(patience=1, min_lr=.1),
    dict(monitor='val_accuracy', patience=1, min_delta=0)])
def test_reduce_lr(fit, options):
    make = keras.callbacks.ReduceLROnPlateau
    (a, ha), (b, hb) = ((make(**options), keras.callbacks.History()) for _ in range(2))
    same_weights(fit([a, ha], 12, 1.5), in_keras([b, hb], 12, 1.5))
    same_history(ha, hb)
    assert 'learning_rate' in ha.history


@fits
@pytest.mark.parametrize('schedule', [lambda epoch: 1/(epoch+1), lambda epoch, lr: lr*.5])
def test_schedule(fit, schedule):
    make = keras.callbacks.LearningRateScheduler
    (a, ha), (b, hb) = ((make(schedule), keras.callbacks.History()) for _ in range(2))
    same_weights(fit([a, ha], 4, .5), in_keras([b, hb], 4, .5))
    same_history(ha, hb)


@fits
def test_checkpoints(fit, tmp_path):
    names = []
    for run, folder in ((fit, tmp_path/'a'), (in_keras, tmp_path/'b')):
        make = keras.callbacks.ModelCheckpoint
        run([make(folder/'{epoch:02d}-{val_loss:.3f}.keras'),
             make(folder/'best-{epoch}.weights.h5', save_best_only=True, save_weights_only=True),
             make(folder/'acc-{epoch}.keras', monitor='val_accuracy', save_best_only=True),
             make(folder/'batch-{epoch}-{batch}.keras', save_freq=4)], 6, 1.5)
        names.append(sorted(o.name for o in folder.iterdir()))
    assert names[0] == names[1] and len(names[0]) > 12


@fits
def test_checkpoint_holds_the_weights(fit, tmp_path):
    path = tmp_path/'last.weights.h5'
    end = fit([keras.callbacks.ModelCheckpoint(path, save_weights_only=True)], 2, .1)
    model = ours.Sequential(layers(ours))
    model.load_weights(path)
    same_weights(done(model.get_weights(), []), end)


@fits
def test_csv(fit, tmp_path):
    rows = []
    for run, name in ((fit, 'a'), (in_keras, 'b')):
        run([keras.callbacks.CSVLogger(tmp_path/name)], 3, .1)
        with open(tmp_path/name) as f: rows.append(list(csv.reader(f)))
    assert rows[0][0] == rows[1][0] == ['epoch', 'accuracy', 'loss', 'val_accuracy', 'val_loss']
    values = [np.array(o[1:], float) for o in rows]
    np.testing.assert_allclose(*values, rtol=2e-4, atol=2e-5)


class Explodes(keras.callbacks.Callback):
    def on_train_begin(self, logs=None): self.model.optimizer.learning_rate = float('inf')


@fits
def test_nan_ends_the_training(fit):
    notes = []
    for run in (fit, in_keras):
        seen = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda b, logs: seen.append(('batch', b)),  # noqa: B023
            on_epoch_end=lambda e, logs: seen.append(('epoch', e)),  # noqa: B023
            on_test_begin=lambda logs: seen.append('test'),  # noqa: B023
            on_train_end=lambda logs: seen.append('end'))  # noqa: B023
        run([Explodes(), keras.callbacks.TerminateOnNaN(), note], 3, .1)
        notes.append(seen)
    assert notes[0] == notes[1] and notes[0][-3:] == ['test', ('epoch', 0), 'end']
    with pytest.raises(RuntimeError, match='NaN'):
        fit([Explodes(), keras.callbacks.TerminateOnNaN(raise_error=True)], 3, .1)


class Records(keras.callbacks.Callback):
    "Every hook, its numbers and the names in its logs"
    def __init__(self):
        super().__init__()
        self.rows = []


for _hook in [o for o in dir(keras.callbacks.Callback) if o.startswith('on_')]:
    def _note(self, *args, hook=_hook, logs=None):
        args = [*args, logs] if logs is not None else list(args)
        names = sorted(set(args.pop())-{'batch', 'size'}) if args and isinstance(
            args[-1], dict) else []
        self.rows.append((hook, *[o for o in args if o is not None], *names))
    setattr(Records, _hook, _note)


@fits
def test_order_of_hooks(fit):
    a, b = Records(), Records()
    fit([a], 2, .1)
    in_keras([b], 2, .1)
    assert len(a.rows) > 40
    assert [o[0] for o in a.rows] == [o[0] for o in b.rows]
    ends = [[o for o in rows if 'end' in o[0] and 'train_end' not in o[0]]
            for rows in (a.rows, b.rows)]
    assert ends[0] == ends[1]
    assert a.params['epochs'] == b.params['epochs'] == 2
    assert a.params['steps'] == b.params['steps'] == 6


@fits
def test_progbar(fit, capsys):
    a = keras.callbacks.ProgbarLogger()
    if fit is in_our_model:  # where the model is silent, so is Keras' bar
        fit([a], 2, .1)
        assert 'Epoch' not in capsys.readouterr().out
    else:
        fit([a], 2, .1)
        out = capsys.readouterr().out
        assert 'Epoch 2/2' in out and '6/6' in out and 'val_accuracy' in out


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.got.append((self.path, self.rfile.read(int(self.headers['Content-Length']))))
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *args): pass


@pytest.fixture
def server():
    res = HTTPServer(('127.0.0.1', 0), Server)
    res.got = []
    threading.Thread(target=res.serve_forever, daemon=True).start()
    yield res
    res.shutdown()
    res.server_close()


@fits
def test_remote_monitor(fit, server):
    pytest.importorskip('requests')
    fit([keras.callbacks.RemoteMonitor(f'http://127.0.0.1:{server.server_port}')], 2, .1)
    sent = [json.loads(parse_qs(body.decode())['data'][0]) for _, body in server.got]
    assert [o['epoch'] for o in sent] == [0, 1]
    assert set(sent[0]) == {'epoch', 'loss', 'accuracy', 'val_loss', 'val_accuracy'}


class Interrupts(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3: raise RuntimeError('the power is gone')


@fits
@pytest.mark.parametrize('double', [False, True])
def test_backup_and_restore(fit, tmp_path, double):
    make = keras.callbacks.BackupAndRestore
    ends = []
    for run, folder in ((fit, tmp_path/'a'), (in_keras, tmp_path/'b')):
        run([make(str(folder), double_checkpoint=double), Interrupts()], 6, .5, RuntimeError)
        if double and run is fit: (folder/'latest.weights.h5').write_bytes(b'torn')
        history = keras.callbacks.History()
        ends.append((run([make(str(folder), double_checkpoint=double), history], 6, .5), history))
        assert not folder.exists()
    first_epoch = 2 if double else 3  # after the file was torn, the one before is used
    assert ends[0][1].epoch == list(range(first_epoch, 6))
    assert ends[1][1].epoch == [3, 4, 5]
    same_weights(ends[0][0], ends[1][0])
    same_weights(fit([], 6, .5), ends[0][0])


@fits
@pytest.mark.parametrize('on_epoch', [False, True])
def test_swap_ema(fit, on_epoch):
    make = keras.callbacks.SwapEMAWeights
    ha, hb = keras.callbacks.History(), keras.callbacks.History()
    options = dict(use_ema=True, ema_momentum=.99)
    same_weights(fit([make(on_epoch), ha], 4, .5, **options),
                 in_keras([make(on_epoch), hb], 4, .5, **options))
    same_history(ha, hb)
    same_history_without = keras.callbacks.History()
    in_keras([same_history_without], 4, .5)
    assert not np.allclose(ha.history['val_loss'], same_history_without.history['val_loss'])


def test_swap_without_averages_is_refused():
    for fit in (in_our_model, in_keras):
        with pytest.raises(ValueError, match='use_ema'):
            fit([keras.callbacks.SwapEMAWeights()], 1, .1)


@fits
def test_lists_of_keras(fit):
    "A callback may ask Keras' own list to call others"
    ha, hb = keras.callbacks.History(), keras.callbacks.History()
    fit([keras.callbacks.CallbackList([ha])], 2, .1)
    in_keras([hb], 2, .1)
    same_history(ha, hb)


def test_an_optimizer_of_keras():
    a, b = keras.callbacks.History(), keras.callbacks.History()
    model = ours.Sequential(layers(ours))
    model.predict(x)
    model.set_weights(first)
    model.compile(keras.optimizers.SGD(.1, momentum=.9, nesterov=True),
                  'sparse_categorical_crossentropy', ['accuracy'])
    model.fit(x, y, 8, 3, 0, [a], validation_data=(x_valid, y_valid), shuffle=False)
    in_keras([b], 3, .1, momentum=.9, nesterov=True)
    same_history(a, b)
    with pytest.raises(ValueError, match='clipnorm'):
        model.compile(keras.optimizers.SGD(.1, clipnorm=1.), 'mse')


# ---- ours on Keras' loop -------------------------------------------------------------------------
@pytest.mark.parametrize('name, options', [
    ('EarlyStopping', dict(patience=2, restore_best_weights=True)),
    ('EarlyStopping', dict(monitor='val_accuracy', patience=0)),
    ('EarlyStopping', dict(patience=1, baseline=.3)),
    ('ReduceLROnPlateau', dict(patience=1, factor=.5, cooldown=1)),
    ('LearningRateScheduler', dict(schedule=lambda epoch, lr: lr*.5))])
def test_ours_do_the_same_on_the_loop_of_keras(name, options):
    ends, seen = [], []
    for make in (getattr(ours.callbacks, name), getattr(keras.callbacks, name)):
        ends.append(in_keras([cb := make(**options), h := keras.callbacks.History()], 15, 1.5))
        seen.append((cb, h))
    same_weights(*ends)
    same_history(seen[0][1], seen[1][1])
    if name == 'EarlyStopping': assert seen[0][0].stopped_epoch == seen[1][0].stopped_epoch


@fits
@pytest.mark.parametrize('name, options', [
    ('EarlyStopping', dict(patience=2, restore_best_weights=True)),
    ('EarlyStopping', dict(monitor='accuracy', patience=1, min_delta=.05)),
    ('ReduceLROnPlateau', dict(patience=1, min_lr=.01)),
    ('LearningRateScheduler', dict(schedule=lambda epoch: .5/(epoch+1)))])
def test_ours_on_our_loop_do_what_keras_does(fit, name, options):
    a, b = getattr(ours.callbacks, name)(**options), getattr(keras.callbacks, name)(**options)
    ha, hb = ours.callbacks.History(), keras.callbacks.History()
    same_weights(fit([a, ha], 15, 1.5), in_keras([b, hb], 15, 1.5))
    same_history(ha, hb)


@pytest.mark.parametrize('values', [
    [.5, .4, .45, .44, .3, .31, .32, .33], [float('nan')]*3 + [.1, .2, .3], [1., float('nan'), 1.],
    [float('inf'), .5, .6, .7], [.5, .5, .5], [3., 2., 1.]])
@pytest.mark.parametrize('patience, baseline, start', [(0, None, 0), (1, None, 0), (2, .42, 0),
                                                       (1, .1, 1)])
def test_decisions_about_given_numbers(values, patience, baseline, start):
    "Driven by hand with numbers that training seldom gives"
    ends = []
    for make in (ours.callbacks.EarlyStopping, keras.callbacks.EarlyStopping):
        stop = make(patience=patience, baseline=baseline, start_from_epoch=start,
                    restore_best_weights=True)
        model = SimpleNamespace(stop_training=False, weight=-1)
        model.get_weights = lambda: [np.array(model.weight)]  # noqa: B023
        model.set_weights = lambda w: setattr(model, 'restored', int(w[0]))  # noqa: B023
        stop.set_model(model)
        stop.on_train_begin()
        for model.weight, value in enumerate(values):
            stop.on_epoch_begin(model.weight)
            stop.on_epoch_end(model.weight, {'val_loss': value})
            if model.stop_training: break
        stop.on_train_end()
        ends.append((model.weight, model.stop_training, stop.stopped_epoch, stop.wait,
                     stop.best_epoch or 0, str(stop.best), getattr(model, 'restored', None)))
    assert ends[0] == ends[1]


def test_losses_and_metrics_have_the_values_of_keras():
    g = np.random.default_rng(1)
    p = g.random((6, 7)).astype('float32')
    p[0, 1:] = p[1, :6] = 0
    p /= p.sum(1, keepdims=True)
    one_hot, labels = np.eye(7, dtype='float32')[[1, 3, 2, 0, 1, 1]], np.array([1, 3, 2, 0, 1, 1])
    for name, function in ours.models.losses.items():
        t = labels if name.startswith('sparse') else one_hot
        theirs = keras.losses.get(name)(torch.tensor(t), torch.tensor(p))
        mine = function(torch.tensor(t), torch.tensor(p))
        torch.testing.assert_close(mine, theirs.detach().to(mine.dtype), rtol=1e-5, atol=1e-6)
    for name, outputs, t in (('acc', p, one_hot), ('accuracy', p, labels),
                             ('accuracy', p[:, :1], one_hot[:, :1]),
                             ('top_k_categorical_accuracy', p, one_hot)):
        model = keras.Sequential([keras.Input((outputs.shape[1],)),
                                  keras.layers.Activation('linear')])
        model.compile('sgd', 'mse' if t is not labels else 'sparse_categorical_crossentropy',
                      metrics=[name])
        theirs = model.evaluate(outputs, t, verbose=0, return_dict=True)
        mine = ours.models.keras_metric(name)
        mine.update(torch.tensor(outputs), torch.tensor(t))
        assert float(mine) == pytest.approx(theirs[name], abs=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'rmsprop', 'adam', 'adamw', 'adagrad', 'adadelta',
                                  'adamax', 'nadam'])
def test_optimizers_go_the_same_way(name):
    "Torch adds its epsilon elsewhere, so only the first digits agree"
    model = keras.Sequential([keras.Input((4,)), *layers(keras)])
    model.set_weights(first)
    model.compile(name, 'sparse_categorical_crossentropy')
    model.fit(x, y, 8, 3, 0, shuffle=False)
    mine = ours.Sequential(layers(ours))
    mine.predict(x)
    mine.set_weights(first)
    mine.compile(name, 'sparse_categorical_crossentropy')
    mine.fit(x, y, 8, 3, 0, shuffle=False)
    for a, b, start in zip(mine.get_weights(), model.get_weights(), first):
        moved = np.abs(b-start).max()
        assert moved > 0 and np.abs(a-b).max() < .02*moved, name


def test_first_weights_have_the_spread_of_keras():
    keras.utils.set_random_seed(0)
    for word in ('uniform', 'glorot_uniform', 'glorot_normal', 'he_uniform', 'he_normal',
                 'lecun_uniform', 'lecun_normal', 'normal', 'truncated_normal'):
        keras_word = {'uniform': 'random_uniform', 'normal': 'random_normal'}.get(word, word)
        a = ours.layers.first_weights(word, (300, 200))
        b = keras.initializers.get(keras_word)((300, 200)).detach()
        assert float(a.std()) == pytest.approx(float(b.std()), rel=.02), word
        assert float(a.abs().max()) == pytest.approx(float(b.abs().max()), rel=.25), word


def test_activations_have_the_values_of_keras():
    t = torch.linspace(-4, 4, 24).reshape(4, 6)
    for name, function in ours.layers.activations.items():
        theirs = keras.activations.get(name)(t)
        torch.testing.assert_close(function(t), theirs, rtol=1e-5, atol=1e-6)


def test_a_learner_finds_the_adapter_by_itself():
    program = '''
import torch
from torch import nn
from torch.nn import functional as F
import keras, sys
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
x = torch.randn(8, 2)
data = DataBunch([(x, x)], [(x, x)], device='cpu')
assert 'fastloop.keras.callbacks' not in sys.modules
learn = Learner(data, nn.Linear(2, 2), F.mse_loss, silent=True)
learn.fit(9, 0., cbs=[keras.callbacks.EarlyStopping()])
print(len(learn.recorder.values))
'''
    out = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ['2']
