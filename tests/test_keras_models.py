"Models with the calls of Keras: words, data, fit, evaluate, predict, files"
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastloop import keras
from fastloop.adapters.keras_model import UnreadableWeights
from fastloop.callback.core import Callback, TraceCallback
from fastloop.callback.save import SaveModelCallback
from fastloop.data.load import TensorLoader
from fastloop.keras.callbacks import History, LambdaCallback
from fastloop.keras.layers import Activation, Dense, activations, first_weights
from fastloop.keras.models import (
    KerasLoss,
    Model,
    Optimizer,
    Sequential,
    keras_metric,
    losses,
    make_loader,
    split_data,
)

rng = np.random.default_rng(0)
x = rng.normal(size=(44, 4)).astype('float32')
labels = (x[:, :3] + rng.normal(size=(44, 3))).argmax(1)
y = np.eye(3, dtype='float32')[labels]


def new(loss='categorical_crossentropy', optimizer='sgd', metrics=('acc',), seed=0):
    torch.manual_seed(seed)
    model = Sequential([Dense(16, 'tanh', input_dim=4), Dense(3), Activation('softmax')])
    model.compile(optimizer, loss, list(metrics))
    return model


def same(a, b): return all((p == q).all() for p, q in zip(a.get_weights(), b.get_weights()))


# ---- the documentation ---------------------------------------------------------------------------
def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x_train, x_test = rng.random((300, 784)), rng.random((100, 784))
    y_train, y_test = (np.eye(10)[rng.integers(0, 10, n)] for n in (300, 100))
    program = '''
from fastloop import keras
from fastloop.keras.callbacks import ModelCheckpoint, ReduceLROnPlateau, CSVLogger
from fastloop.keras.models import Sequential
from fastloop.keras.layers import Dense, Activation

class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs={}):
        self.losses = []

    def on_batch_end(self, batch, logs={}):
        self.losses.append(logs.get('loss'))

model = Sequential()
model.add(Dense(10, input_dim=784, kernel_initializer='uniform'))
model.add(Activation('softmax'))
model.compile(loss='categorical_crossentropy', optimizer='rmsprop')

history = LossHistory()
model.fit(x_train, y_train, batch_size=128, epochs=20, verbose=0, callbacks=[history])

print(history.losses)
first = history.losses

checkpointer = ModelCheckpoint(filepath='weights.hdf5', verbose=1, save_best_only=True)
model.fit(x_train, y_train, batch_size=128, epochs=20, verbose=0,
          validation_data=(x_test, y_test), callbacks=[checkpointer])
reduce_lr = ReduceLROnPlateau(monitor='val_loss', factor=0.2, patience=5, min_lr=0.001)
csv_logger = CSVLogger('training.log')
model.fit(x_train, y_train, callbacks=[reduce_lr, csv_logger], validation_split=.1)
'''
    names = dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    exec(program, names)
    assert len(names['first']) == 60 and all(type(o) is float for o in names['first'])
    assert (tmp_path/'weights.hdf5').is_file()
    assert (tmp_path/'training.log').read_text().startswith('epoch,learning_rate,loss,val_loss')


# ---- fit -----------------------------------------------------------------------------------------
def test_fit_is_the_loop_written_out():
    model = new()
    model.fit(x, y, 8, 2, 0, shuffle=False)
    torch.manual_seed(0)
    module = nn.Sequential(Dense(16, 'tanh', input_dim=4), Dense(3), nn.Softmax(-1))
    for _ in range(2):
        for xb, yb in zip(torch.tensor(x).split(8), torch.tensor(y).split(8)):
            (-(yb*module(xb).log()).sum(1).mean()).backward()
            with torch.no_grad():
                for p in module.parameters(): p -= .01*p.grad
            module.zero_grad()
    for a, b in zip(module.parameters(), model.module.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_history_is_returned_and_kept():
    model = new()
    history = model.fit(x, y, 8, 3, 0, validation_split=.25)
    assert model.history is history and isinstance(history, History)
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == ['loss', 'acc', 'val_loss', 'val_acc']
    assert history.history['val_accuracy'] == history.history['val_acc']
    own = History()
    assert model.fit(x, y, 8, 2, 0, [own]) is own and model.history is own
    assert list(model.fit(x, y, epochs=1, verbose=0).history) == ['loss', 'acc']


def test_epochs_go_on_where_they_are_told_to():
    seen, model = [], new()
    note = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
    history = model.fit(x, y, epochs=5, initial_epoch=3, verbose=0, callbacks=[note])
    assert seen == history.epoch == [3, 4]
    assert model.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]  # and not in the next fit
    assert model.fit(x, y, epochs=2, initial_epoch=2, verbose=0).epoch == []
    assert model.fit(x, y, epochs=0, verbose=0).history == {}


def test_rate_and_memory_stay_from_fit_to_fit():
    once, twice = new(optimizer='adam'), new(optimizer='adam')
    once.fit(x, y, 8, 4, 0, shuffle=False)
    twice.fit(x, y, 8, 2, 0, shuffle=False)
    twice.fit(x, y, 8, 2, 0, shuffle=False)
    assert same(once, twice)
    once.optimizer.learning_rate = .5
    once.fit(x, y, verbose=0)
    assert once.optimizer.learning_rate == .5
    once.compile('adam', 'mse')
    assert once.optimizer.learning_rate == 1e-3


def test_the_last_share_is_set_aside_before_shuffling():
    seen = []
    class Notes(Callback):
        def begin_batch(self):
            if not self.in_train: seen.append(self.xb)
    new().fit(x, y, 8, 1, 0, [Notes()], validation_split=.25)
    assert np.array_equal(torch.cat(seen).numpy(), x[33:])


def test_shuffling_uses_the_seed_and_can_be_switched_off():
    a, b, c = new(), new(), new()
    for model, seed, shuffle in ((a, 1, True), (b, 1, True), (c, 1, False)):
        torch.manual_seed(seed)
        model.fit(x, y, 8, 2, 0, shuffle=shuffle)
    assert same(a, b) and not same(a, c)


def test_callbacks_of_other_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trace, model = TraceCallback(), new()
    class V1:
        def on_epoch_end(self, epoch, last_metrics, **kwargs): self.seen = epoch, last_metrics
    v1 = V1()
    model.fit(x, y, 8, 2, 0, [trace, v1, SaveModelCallback(name='best')], validation_split=.25)
    assert trace.events.count('after_epoch') == 2 and v1.seen[0] == 1
    assert v1.seen[1][0] == model.history.history['val_loss'][-1]
    assert (tmp_path/'models'/'best.pth').exists()


def test_stop_training_from_outside():
    model = new()
    stop = LambdaCallback(on_batch_end=lambda b, logs: setattr(model, 'stop_training', True))
    assert model.fit(x, y, 8, 5, 0, [stop]).epoch == [0]


@pytest.mark.parametrize('verbose, count', [(0, 0), (1, 4), (2, 4), ('auto', 4), (True, 4)])
def test_lines(capsys, verbose, count):
    new().fit(x, y, 8, 2, verbose)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count
    if count: assert lines[0] == 'Epoch 1/2' and lines[1].startswith('6/6 - loss: ')


def test_evaluate_inside_a_fit_disturbs_nothing():
    plain, watched, found = new(), new(), []
    class Tests(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(self.model.evaluate(x[:10], y[:10]))
            self.model.predict(x[:10])
            self.after = self.model.run
    for model, cbs in ((plain, []), (watched, [Tests(), History()])):
        torch.manual_seed(3)
        model.fit(x, y, 8, 3, 0, cbs)
    assert same(plain, watched) and len(found) == 3
    assert watched.history.history == plain.history.history


# ---- evaluate and predict ------------------------------------------------------------------------
def test_evaluate():
    model, names = new(metrics=['acc', 'mse']), []
    note = LambdaCallback(**{f'on_{o}': lambda *args, o=o: names.append(o) for o in (
        'test_begin', 'test_batch_end', 'test_end', 'train_begin', 'epoch_begin', 'train_end')})
    loss, acc, mse = model.evaluate(x, y, 10, callbacks=[note])
    p = model.predict(x)
    assert loss == pytest.approx(-np.log((p*y).sum(1)).mean(), rel=1e-5)
    assert acc == pytest.approx((p.argmax(1) == labels).mean())
    assert mse == pytest.approx(((p-y)**2).mean(), rel=1e-5)
    assert names == ['test_begin', *['test_batch_end']*5, 'test_end']
    wanted = dict(loss=loss, acc=acc, mse=mse)
    assert model.evaluate(x, y, return_dict=True) == pytest.approx(wanted)
    assert new(metrics=[]).evaluate(x, y) == pytest.approx(new().evaluate(x, y)[0])


def test_modes_are_put_back():
    model = Sequential([nn.Dropout(.5), nn.BatchNorm1d(4), Dense(3, 'softmax')])
    model.compile('sgd', 'categorical_crossentropy')
    model.predict(x)
    model.module[0].eval()
    modes = [m.training for m in model.module.modules()]
    model.predict(x)
    model.evaluate(x, y)
    model.fit(x, y, verbose=0)
    assert [m.training for m in model.module.modules()] == modes
    assert (model.predict(x) == model.predict(x)).all()  # no dropout


@given(st.integers(1, 50), st.integers(1, 44))
@settings(deadline=None, max_examples=20)
def test_predict_does_not_depend_on_the_batch_size(batch_size, n):
    model = new()
    out = model.predict(x[:n], batch_size)
    assert out.shape == (n, 3) and isinstance(out, np.ndarray)
    np.testing.assert_allclose(out, model.module(torch.tensor(x[:n])).detach().numpy(), rtol=1e-4)


def test_hooks_of_prediction():
    seen = []
    class Notes(keras.callbacks.Callback):
        def on_predict_begin(self, logs=None): seen.append(self.model)
        def on_predict_batch_begin(self, batch, logs=None): seen.append(batch)
        def on_predict_batch_end(self, batch, logs=None): seen.append(logs['outputs'].shape)
        def on_predict_end(self, logs=None): seen.append('end')
    model = new()
    assert model.predict(x, 30, callbacks=[Notes()]).shape == (44, 3)
    assert seen == [model, 0, (30, 3), 1, (14, 3), 'end']
    assert model.predict(x, 10, steps=2).shape == (20, 3)


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Dense(3, 'softmax')
        def forward(self, a, b): return self.layer(torch.cat([a, b], 1))
    model = Model(Two())
    model.compile('sgd', 'categorical_crossentropy')
    history = model.fit([x, x[:, :2]], y, 8, 2, 0, validation_split=.25)
    assert len(history.history['val_loss']) == 2
    assert model.predict([x, x[:, :2]]).shape == (44, 3)
    assert isinstance(model.evaluate((x, x[:, :2]), y), float)


def test_loaders_of_torch():
    ds = TensorDataset(torch.tensor(x), torch.tensor(y))
    model, other = new(), new()
    model.fit(DataLoader(ds, 8), epochs=2, verbose=0, validation_data=DataLoader(ds, 16))
    other.fit(x, y, 8, 2, 0, shuffle=False, validation_data=(x, y))
    assert same(model, other)
    assert model.evaluate(TensorLoader(*ds.tensors, bs=8)) == pytest.approx(other.evaluate(x, y))


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize('call, error, word', [
    (lambda m: Model(m.module).fit(x, y), ValueError, 'compile the model before fit'),
    (lambda m: Model(m.module).evaluate(x, y), ValueError, 'compile'),
    (lambda m: m.fit(x, y[:10]), ValueError, '44 and 10'), (lambda m: m.fit(x), ValueError, 'y is'),
    (lambda m: m.fit(x, y, 0), ValueError, 'batch_size=0'),
    (lambda m: m.fit(x, y, 2.5), ValueError, 'batch_size=2.5'),
    (lambda m: m.fit(x, y, epochs=-1), ValueError, 'epochs=-1'),
    (lambda m: m.fit(x, y, initial_epoch=-1), ValueError, 'initial_epoch'),
    (lambda m: m.fit(x, y, verbose=3), ValueError, 'verbose=3'),
    (lambda m: m.fit(x, y, validation_split=1.), ValueError, 'validation_split=1.0'),
    (lambda m: m.fit(x, y, validation_split=-.1), ValueError, 'validation_split=-0.1'),
    (lambda m: m.fit(x[:2], y[:2], validation_split=.9), ValueError, 'leaves 0'),
    (lambda m: m.fit(x, y, validation_data=(x, y, y)), ValueError, 'pair'),
    (lambda m: m.fit(x, y, validation_data=(x, y[:3])), ValueError, '44 and 3'),
    (lambda m: m.fit(x, y, class_weight={}), ValueError, 'class_weight'),
    (lambda m: m.fit(x, y, sample_weight=x), ValueError, 'sample_weight'),
    (lambda m: m.evaluate(x, y, sample_weight=x), ValueError, 'sample_weight'),
    (lambda m: m.fit(x[:0], y[:0]), ValueError, 'at least one'),
    (lambda m: m.fit(np.array(['a']), y[:1]), TypeError, 'no numbers'),
    (lambda m: m.fit(x, labels), ValueError, 'do not fit'),
    (lambda m: m.fit(x, y[:, :2]), ValueError, 'do not fit'),
    (lambda m: m.fit(x, y, callbacks=[3]), TypeError, 'no callback'),
    (lambda m: m.compile('sgdd', 'mse'), ValueError, "did you mean 'sgd'"),
    (lambda m: m.compile('sgd', 'ms'), ValueError, "'mse'"),
    (lambda m: m.compile('sgd', 'mse', ['acuracy']), ValueError, "'accuracy'"),
    (lambda m: m.compile('sgd', 'mse', loss_weights=[1]), ValueError, 'loss_weights'),
    (lambda m: m.compile(3, 'mse'), TypeError, 'not 3'),
    (lambda m: m.compile('sgd', 3), TypeError, 'not 3'),
    (lambda m: Model('module'), TypeError, 'module'), (lambda m: m.add(3), TypeError, 'not 3'),
    (lambda m: Optimizer('sgd', rho=.9), ValueError, 'rho'),
    (lambda m: Optimizer('sgd', lr=-1.), ValueError, 'below 0')])
def test_bad_input(call, error, word):
    model, before = new(), new()
    before.fit(x, y, verbose=0)
    with pytest.raises(error, match=word): call(model)
    assert same(model, new())
    torch.manual_seed(9)
    model.fit(x, y, verbose=0)  # and the model can be used
    fresh = new()
    torch.manual_seed(9)
    fresh.fit(x, y, verbose=0)
    assert same(model, fresh)


def test_labels_without_an_output():
    model = new('sparse_categorical_crossentropy')
    with pytest.raises(ValueError, match='label 7'): model.fit(x, labels*0+7, verbose=0)
    assert same(model, new())


# ---- losses --------------------------------------------------------------------------------------
def test_losses_by_hand():
    t, p = torch.tensor([[0., 1., 0.]]), torch.tensor([[.2, .5, .3]])
    values = {'categorical_crossentropy': -math.log(.5), 'mean_squared_error': (.04+.25+.09)/3,
              'mean_absolute_error': 1/3, 'kl_divergence': math.log(1/.5),
              'binary_crossentropy': -(math.log(.8)+math.log(.5)+math.log(.7))/3,
              'categorical_hinge': .3-.5+1, 'cosine_similarity': -.5/math.sqrt(.38)}
    for name, value in values.items():
        assert losses[name](t, p).item() == pytest.approx(value, abs=1e-5), name
    assert losses['sparse_categorical_crossentropy'](torch.tensor([1]), p).item() == pytest.approx(
        -math.log(.5))
    assert losses['sparse_categorical_crossentropy'](torch.tensor([[1]]), p).shape == (1,)


@pytest.mark.parametrize('name', ['mse', 'MSE', 'mean_squared_error', 'MeanSquaredError'])
def test_spellings_of_losses(name):
    assert KerasLoss(name).function is losses['mean_squared_error']


def test_losses_of_all_kinds_train_alike():
    def own(y_true, y_pred): return ((y_true-y_pred)**2).mean(-1)
    ends = []
    for loss in ('mse', own, nn.MSELoss(), F.mse_loss):
        model = new(loss)
        model.fit(x, y, 8, 2, 0, shuffle=False)
        ends.append(model)
    for o in ends[1:]:
        for a, b in zip(o.get_weights(), ends[0].get_weights()):
            np.testing.assert_allclose(a, b, atol=1e-6)
    seen = []
    model = new(lambda y_true, y_pred: seen.append((y_true, y_pred)) or y_pred.sum(-1))
    model.fit(x, y, 44, 1, 0, shuffle=False)
    assert torch.equal(seen[0][0], torch.tensor(y)) and seen[0][1].requires_grad
    torch_ce = Sequential([Dense(3, input_dim=4)])
    torch_ce.compile(torch.optim.Adam, nn.CrossEntropyLoss(), ['accuracy'])
    assert torch_ce.fit(x, labels, 4, 100, 0).history['accuracy'][-1] > .5


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 3))
def test_no_probability_gives_an_infinite_loss(p, label):
    p = torch.tensor([p])
    if p.sum() == 0: return
    for name, t in (('categorical_crossentropy', F.one_hot(torch.tensor([label]), 4).float()),
                    ('sparse_categorical_crossentropy', torch.tensor([label])),
                    ('binary_crossentropy', F.one_hot(torch.tensor([label]), 4))):
        loss = losses[name](t, p)
        assert loss.isfinite().all() and (loss >= 0).all() and loss.max() < 17


# ---- metrics -------------------------------------------------------------------------------------
@pytest.mark.parametrize('pred, target, value', [
    ([[.9], [.2], [.6]], [[1], [1], [0]], 1/3), ([[.9], [.2]], [1, 0], 1.),
    ([[.1, .9], [.8, .2]], [1, 1], .5), ([[.1, .9], [.8, .2]], [[1], [1]], .5),
    ([[.1, .9], [.8, .2]], [[0, 1], [0, 1]], .5), ([[.1, .9], [.8, .2]], [[0., 1.], [1., 0.]], 1.)])
@pytest.mark.parametrize('name', ['acc', 'accuracy'])
def test_accuracy_is_chosen_by_shapes(name, pred, target, value):
    metric = keras_metric(name)
    metric.update(torch.tensor(pred), torch.tensor(target))
    assert metric.name == name and float(metric) == pytest.approx(value)


def test_metrics_of_all_kinds():
    class Mine:
        name = 'mine'
        def reset(self): self.n = 0
        def update(self, preds, targets): self.n += len(preds)
        def compute(self): return float(self.n)
    def distance(y_true, y_pred): return (y_true-y_pred).abs().mean()
    model = new(metrics=['accuracy', 'mae', distance, Mine(), partial(distance)])
    logs = model.fit(x, y, 8, 1, 0, validation_data=(x, y)).history
    assert logs['val_mae'] == pytest.approx(logs['val_distance']) and logs['val_mine'] == [44.]
    assert logs['mine'] == [44.] and model.metrics_names[:3] == ['loss', 'accuracy', 'mae']
    assert model.evaluate(x, y, return_dict=True)['mine'] == 44.


# ---- optimizers ----------------------------------------------------------------------------------
@pytest.mark.parametrize('name, values', [
    ('sgd', dict(lr=.01, momentum=0, weight_decay=0)),
    ('RMSprop', dict(lr=.001, alpha=.9, eps=1e-7)),
    ('adam', dict(lr=.001, betas=(.9, .999), eps=1e-7)),
    ('adamw', dict(lr=.001, eps=1e-7)), ('adagrad', dict(lr=.001, eps=1e-7,
                                                        initial_accumulator_value=.1)),
    ('adadelta', dict(lr=.001, rho=.95, eps=1e-7)), ('adamax', dict(lr=.001, eps=1e-7)),
    ('nadam', dict(lr=.001, eps=1e-7, momentum_decay=1.))])
def test_names_mean_the_numbers_of_keras(name, values):
    model = new(optimizer=name)
    group = model.opt.param_groups[0]
    for k, v in values.items(): assert group[k] == v, k
    model.fit(x, y, verbose=0)
    assert model.optimizer.name == name.lower()
    assert model.optimizer.learning_rate == values['lr']


def test_decay_of_adamw():
    model = new(optimizer=Optimizer('adamw', learning_rate=.1, weight_decay=.5))
    before = model.get_weights()
    x0 = np.zeros((8, 4), 'float32')
    model.compile(Optimizer('adamw', learning_rate=.1, weight_decay=.5), lambda t, p: 0*p.sum(-1))
    model.fit(x0, y[:8], 8, 1, 0)
    for a, b in zip(model.get_weights(), before): np.testing.assert_allclose(a, b*.95, rtol=1e-5)


def test_optimizers_of_all_kinds():
    model = new()
    own = torch.optim.SGD(model.module.parameters(), lr=.25, momentum=.5)
    model.compile(own, 'mse')
    assert model.opt is own and model.optimizer.learning_rate == .25
    model.fit(x, y, verbose=0)
    model.optimizer.lr = .125
    assert own.param_groups[0]['lr'] == .125
    model.compile(partial(torch.optim.Adam, lr=.5), 'mse')
    assert model.optimizer.learning_rate == .5
    class Fake:
        "As an installed Keras tells what it is"
        def get_config(self): return dict(name='x', learning_rate=.3, momentum=.9, clipnorm=None)
    model.compile(type('SGD', (Fake,), {})(), 'mse')
    assert model.opt.param_groups[0]['momentum'] == .9 and model.optimizer.lr == .3


def test_averages_of_the_weights():
    class Watches(Callback):
        order = 60
        def begin_fit(self): self.rows = []
        def after_step(self):
            self.rows.append([p.detach().clone() for p in self.model.parameters()])
    model, watch = new(optimizer=Optimizer('sgd', lr=.5, use_ema=True, ema_momentum=.75)), Watches()
    model.fit(x, y, 8, 1, 0, [watch], shuffle=False)
    average = watch.rows[0]
    for row in watch.rows[1:]: average = [.75*a + .25*b for a, b in zip(average, row)]
    for a, b in zip(model.get_weights(), average): np.testing.assert_allclose(a, b, rtol=1e-5)


# ---- files ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('method', ['save', 'save_weights'])
def test_files_go_on_with_the_training(tmp_path, method):
    one, other = new(optimizer='adam'), new(optimizer='adam', seed=1)
    one.fit(x, y, 8, 2, 0, shuffle=False)
    getattr(one, method)(tmp_path/'file.h5')
    other.load_weights(tmp_path/'file.h5')
    for model in (one, other): model.fit(x, y, 8, 2, 0, shuffle=False)
    assert same(one, other)
    bare = Sequential([Dense(16, 'tanh'), Dense(3), Activation('softmax')])  # knows no sizes
    bare.load_weights(tmp_path/'file.h5')
    assert bare.built and len(bare.get_weights()) == 4
    with pytest.raises(ValueError):
        Sequential([Dense(16), Dense(4)]).load_weights(tmp_path/'file.h5')
    (tmp_path/'file.h5').write_bytes(b'nothing')
    with pytest.raises(UnreadableWeights): other.load_weights(tmp_path/'file.h5')


# ---- layers --------------------------------------------------------------------------------------
def test_layers_that_wait():
    torch.manual_seed(0)
    model = Sequential()
    for layer in (Dense(16, 'tanh'), nn.Dropout(.1), Dense(3, 'softmax')): model.add(layer)
    model.compile('adam', 'categorical_crossentropy')
    assert not model.built
    model.fit(x, y, 8, 3, 0)
    assert model.built and [o.shape for o in model.get_weights()] == [(4, 16), (16,), (16, 3), (3,)]
    evaluated = Sequential([Dense(3, 'softmax')])
    evaluated.compile('sgd', 'categorical_crossentropy')
    assert evaluated.evaluate(x, y) > 0
    assert Sequential([nn.LazyLinear(3)]).predict(x).shape == (44, 3)


def test_dense_is_a_linear_layer():
    torch.manual_seed(0)
    layer, linear = Dense(3, input_shape=(4,)), nn.Linear(4, 3)
    layer.load_state_dict({'kernel': linear.weight.T, 'bias': linear.bias})
    t = torch.randn(2, 5, 4)
    torch.testing.assert_close(layer(t), linear(t))
    assert layer(torch.ones(1, 4, dtype=torch.uint8)).dtype == torch.float32
    assert list(Dense(1, input_dim=2, use_bias=False).state_dict()) == ['kernel']
    assert repr(Dense(2, 'relu', input_dim=1)) == "Dense(1, 2, activation='relu')"


@pytest.mark.parametrize('call, word', [
    (lambda: Dense(0), 'units=0'), (lambda: Dense(2.5), 'units=2.5'),
    (lambda: Dense(2, input_dim=0), 'input_dim=0'), (lambda: Dense(2, 'rellu'), "'relu'"),
    (lambda: Dense(2, kernel_initializer='unifrom'), "'uniform'"),
    (lambda: Activation('sofmax'), "'softmax'"),
    (lambda: first_weights(lambda shape: torch.zeros(2), (3,)), 'shape')])
def test_bad_layers(call, word):
    with pytest.raises(ValueError, match=word): call()


def test_first_weights():
    torch.manual_seed(0)
    shape = (400, 100)
    for word, std in (('glorot_uniform', math.sqrt(2/500)), ('glorot_normal', math.sqrt(2/500)),
                      ('he_uniform', math.sqrt(2/400)), ('he_normal', math.sqrt(2/400)),
                      ('lecun_normal', math.sqrt(1/400)), ('uniform', .1/math.sqrt(12)),
                      ('random_uniform', .1/math.sqrt(12)), ('normal', .05)):
        w = first_weights(word, shape)
        assert w.std().item() == pytest.approx(std, rel=.02), word
        assert abs(w.mean().item()) < std/50
    assert first_weights('uniform', shape).abs().max() <= .05
    assert (first_weights('zeros', shape) == 0).all() and (first_weights('one', (3,)) == 1).all()
    assert torch.equal(Dense(3, input_dim=3, kernel_initializer=torch.eye and (
        lambda s: torch.eye(*s))).kernel, torch.eye(3))
    assert (Dense(5, input_dim=2).bias == 0).all()


def test_activations_keep_the_shape():
    t = torch.randn(2, 3, 4)
    for word, function in activations.items(): assert function(t).shape == t.shape, word
    assert torch.equal(Activation(torch.sin)(t), t.sin())


# ---- data ----------------------------------------------------------------------------------------
@given(st.integers(2, 44), st.floats(0, .99))
@settings(deadline=None)
def test_shares(n, share):
    at = math.floor(n*(1-share))
    if 0 < at < n:
        (a, _), (b, _) = split_data(x[:n], y[:n], share)
        assert np.array_equal(torch.cat([a, b]).numpy(), x[:n]) and len(a) == at
    else:
        with pytest.raises(ValueError, match='validation_split'): split_data(x[:n], y[:n], share)


def test_types_of_data():
    xb, yb = next(iter(make_loader(x.astype('float64'), labels.astype('uint8'))))
    assert xb.dtype == torch.float32 and yb.dtype == torch.int64
    xb, yb = next(iter(make_loader(torch.tensor(x), y.astype('float64'))))
    assert yb.dtype == torch.float32
    xb, _ = next(iter(make_loader((x*10).astype('uint8'), y)))
    assert xb.dtype == torch.uint8  # an embedding wants numbers as they are
    read_only = x.copy()
    read_only.flags.writeable = False
    make_loader(read_only[::-1], y)


def test_namespace():
    assert keras.models.Sequential is keras.Sequential is Sequential
    assert keras.layers.Dense is Dense and keras.callbacks.History is History


def test_a_frozen_batch_norm_keeps_its_statistics_and_uses_them():
    "As in Keras: `trainable = False` of batch norm means evaluation mode"
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with torch.no_grad(): module[1].running_mean += 1
    model = Model(module)
    model.layers[1].trainable = False
    model.compile(Optimizer('sgd', learning_rate=0.), 'mse')
    x, y = torch.randn(40, 4), torch.randn(40, 1)
    before = {k: v.clone() for k, v in module[1].state_dict().items()}
    found = model.fit(x, y, epochs=2, verbose=0).history['loss'][-1]
    assert all(torch.equal(v, before[k]) for k, v in module[1].state_dict().items())
    with torch.no_grad(): assert found == pytest.approx(float((module.eval()(x)-y).square().mean()))
    model.layers[1].trainable = True
    model.compile(Optimizer('sgd', learning_rate=0.), 'mse')
    model.fit(x, y, verbose=0)
    assert not torch.equal(module[1].running_mean, before['running_mean'])


def test_several_targets_come_in_batches():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 1)
        def forward(self, x): return self.one(x), self.two(x)

    def loss(kind, size, answer):
        return F.cross_entropy(answer[0], kind) + F.mse_loss(answer[1][:, 0], size)

    torch.manual_seed(0)
    x, kinds, sizes = torch.randn(20, 4), torch.arange(20) % 3, torch.randn(20)
    model = Model(Heads())
    model.compile('sgd', loss)
    for y in ([kinds, sizes], (kinds.numpy(), x.numpy()), {'one': kinds, 'two': sizes}):
        for ask in (partial(model.fit, verbose=0), model.evaluate):
            with pytest.raises(ValueError, match=r'y holds 2 targets: give a loader .*y_pred'):
                ask(x, y)
    with torch.no_grad(): want = float(loss(kinds, sizes, model.module(x)))
    assert model.evaluate([(x, (kinds, sizes))].__iter__()) == pytest.approx(want)
