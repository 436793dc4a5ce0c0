"Callbacks of the kind that people publish for Keras, and what they touch, on our Keras models"
import copy
import itertools
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from keras_callbacks_public import make
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastloop import keras
from fastloop.adapters.keras_model import NotInOptimizer
from fastloop.callback.remote import RemoteMonitor
from fastloop.data.bunch import DataBunch
from fastloop.event_files import read_scalars
from fastloop.keras import backend as K
from fastloop.keras import callbacks as kc
from fastloop.keras import optimizers
from fastloop.learner import Learner
from fastloop.metrics import accuracy

rng = np.random.default_rng(0)
x = rng.normal(size=(44, 4)).astype('float32')
labels = (x[:, :3] + rng.normal(size=(44, 3))).argmax(1)
public = make(keras)


def new(optimizer=None, metrics=('accuracy',), loss='sparse_categorical_crossentropy'):
    torch.manual_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Dense(16, 'tanh', input_dim=4), layers.Dense(3, 'softmax')])
    model.compile(optimizer or optimizers.SGD(.1), loss, list(metrics))
    return model


def fit(model, *cbs, epochs=4, **kwargs):
    return model.fit(x, labels, batch_size=8, epochs=epochs, verbose=0, callbacks=list(cbs),
                     validation_data=(x[:20], labels[:20]), **kwargs)


def line(n=40):
    "A model of one output, and what it should learn, `y` of shape `(n,)`"
    torch.manual_seed(0)
    model = keras.Sequential([nn.Linear(4, 1)])
    return model, x[:n], x[:n, 0]*2


# ---- published callbacks -------------------------------------------------------------------------
def test_cyclic_rates():
    fit(new(), cb := public.CyclicLR())
    rates = [o for o, _ in cb.seen]
    assert rates[:6] == pytest.approx([.01, .048, .086, .124, .162, .2]) and rates[10] < .02
    assert [n for _, n in cb.seen] == list(range(1, 25))


def test_warm_up_and_cosine():
    fit(model := new(), cb := public.WarmUpCosine())
    assert cb.seen[0] == 0 and cb.seen[4] == pytest.approx(.2) and cb.seen[-1] < .01
    assert model.opt.lr == pytest.approx(cb.seen[-1])


def test_restarts():
    history = fit(model := new(), cb := public.SGDR(), epochs=6).history
    assert cb.seen[0] == cb.seen[2] == pytest.approx(.3) and history['lr'] == cb.seen
    assert model.evaluate(x[:20], labels[:20])[0] == pytest.approx(cb.best, rel=1e-4)


def test_finder_leaves_the_model_as_it_was(tmp_path):
    model = new()
    before = model.get_weights()
    fit(model, cb := public.LRFinder(tmp_path/'a.weights.h5'), epochs=10)
    assert len(cb.seen) == 24 and cb.seen[-1] > 5 and not list(tmp_path.iterdir())
    assert all((a == b).all() for a, b in zip(before, model.get_weights()))
    assert model.optimizer.learning_rate == pytest.approx(.1)


@pytest.mark.parametrize('optimizer', ['sgd', optimizers.RMSprop(momentum=.9)])
def test_one_cycle_sets_the_momentum_of_torch(optimizer):
    class Looks(kc.Callback):
        seen = ()
        def on_train_batch_end(self, batch, logs=None):
            self.seen += self.model.opt.param_groups[0]['momentum'],
    fit(new(optimizer), cb := public.OneCycle(), looks := Looks())
    assert [o for _, o in cb.seen] == pytest.approx(looks.seen)
    assert min(looks.seen) == pytest.approx(.85) and looks.seen[0] == .95


def test_bar_with_a_late_hook():
    fit(new(), cb := public.Bar(), epochs=2)
    assert cb.seen == [(6, 6, True)]*2


def test_matrix_and_score():
    stop = kc.EarlyStopping('val_f1', mode='max', patience=0)
    fit(new(), matrix := public.ConfusionMatrix(x, labels), f1 := public.F1Score(x, labels), stop)
    assert all(o.sum() == 44 for o in matrix.seen)
    assert stop.best == max(f1.seen)


def test_averages_by_hand():
    plain, averaged = new(), new()
    fit(plain), fit(averaged, swa := public.SWA())
    assert swa.seen == [2] and any((a != b).any() for a, b in zip(
        plain.get_weights(), averaged.get_weights()))
    history = fit(ema_model := new(), ema := public.EMA()).history
    assert ema.seen == history['val_loss']
    assert all((a == b).all() for a, b in zip(plain.get_weights(), ema_model.get_weights()))


def test_messages():
    sent = []
    fit(new(), cb := public.Webhook(lambda message: sent.append(json.loads(json.dumps(message)))))
    assert len(sent) == 4 and sent[0] == {'text': '4 epochs'} and 'val_loss' in sent[1]['text']
    assert cb.seen[0] == ['accuracy', 'loss', 'val_accuracy', 'val_loss']


def test_time_limit():
    history = fit(new(), cb := public.TimeLimit(itertools.count().__next__)).history
    assert cb.seen == [(1, 3)] and len(history['val_loss']) == 2


def test_decay_by_hand_and_layers():
    fit(plain := new(), stats := public.LayerStats())
    fit(small := new(), cb := public.WeightDecayByHand())
    assert cb.seen == [[(3,), (4, 16), (16,), (16, 3)]]
    assert np.abs(small.get_weights()[0]).sum() < np.abs(plain.get_weights()[0]).sum()
    assert [len(o) for o in stats.seen[0]] == [2, 2]


def test_stop_at_a_value():
    history = fit(new(), cb := public.StopAtAccuracy(value=0.)).history
    assert cb.seen == [True] and len(history['loss']) == 1


class GradualUnfreezing(kc.Callback):
    "Begins with the last layer; compiles again when another one joins"
    def __init__(self, compile_again):
        self.compile_again = compile_again

    def on_train_begin(self, logs=None):
        self.model.layers[0].trainable = False

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != 2: return
        self.model.get_layer(index=0).trainable = True
        if self.compile_again:
            self.model.compile(self.model.optimizer, self.model.loss, ['accuracy'])


@pytest.mark.parametrize('again', [False, True])
def test_gradual_unfreezing(again):
    class Notes(kc.Callback):
        seen = ()
        def on_epoch_end(self, epoch, logs=None): self.seen += self.model.get_weights()[0].sum(),
    fit(model := new(optimizers.Adam(.01)), GradualUnfreezing(again), notes := Notes())
    assert notes.seen[0] == notes.seen[1] != notes.seen[2] != notes.seen[3]
    assert {int(o['step']) for o in model.opt.state.values()} == {12, 24}  # the head kept its state


# ---- numbers of the optimizer --------------------------------------------------------------------
words = dict(learning_rate='lr', lr='lr', momentum='momentum', rho='alpha', epsilon='eps',
             weight_decay='true_weight_decay', beta_1=0, beta_2=1)


@pytest.mark.parametrize('name, has', [
    ('SGD', 'learning_rate lr momentum weight_decay'),
    ('RMSprop', 'learning_rate lr momentum rho epsilon weight_decay'),
    ('Adam', 'learning_rate lr beta_1 beta_2 epsilon weight_decay'),
    ('AdamW', 'learning_rate lr beta_1 beta_2 epsilon weight_decay'),
    ('Nadam', 'learning_rate lr beta_1 beta_2 epsilon weight_decay'),
    ('Adamax', 'learning_rate lr beta_1 beta_2 epsilon weight_decay'),
    ('Adagrad', 'learning_rate lr epsilon weight_decay'),
    ('Adadelta', 'learning_rate lr rho epsilon weight_decay')])
def test_every_number_reaches_torch_or_is_refused(name, has):
    model = new(getattr(optimizers, name)())
    for i, word in enumerate(words):
        opt = model.optimizer
        if word not in has.split():
            assert not hasattr(opt, word)
            with pytest.raises(NotInOptimizer, match=f'has no {word!r}; it has learning_rate'):
                setattr(opt, word, .5)
            continue
        value = .01*(i+1)
        (setattr(opt, word, value) if i % 2 else getattr(opt, word).assign(value))
        assert getattr(opt, word) == value and getattr(opt, word).numpy() == np.float32(value)
        group, key = model.opt.param_groups[0], words[word]
        if word == 'rho' and name == 'Adadelta': key = 'rho'
        if word == 'weight_decay' and 'true_weight_decay' not in group: key = 'weight_decay'
        assert (group['betas'][key] if isinstance(key, int) else group[key]) == value


@pytest.mark.parametrize('value', [float('nan'), -1., 'a', None, [.1, .2]])
def test_bad_numbers_change_nothing(value):
    model = new(optimizers.Adam(.1))
    with pytest.raises(ValueError, match='beta_1'): model.optimizer.beta_1 = value
    assert model.opt.param_groups[0]['betas'] == (.9, .999)


def test_a_name_that_is_none_is_refused():
    for o in (new().optimizer, optimizers.SGD()):
        with pytest.raises(AttributeError, match='learning_rate, momentum'): o.moment = .9
        with pytest.raises(ValueError): o.clipnorm = 1.


def test_the_object_that_was_compiled_hears_and_says_everything():
    model = new(opt := optimizers.SGD(.1, momentum=.5))
    opt.learning_rate = .2
    assert model.optimizer.lr == .2
    model.optimizer.momentum.assign(.7)
    assert opt.momentum == .7 == model.opt.param_groups[0]['momentum']
    K.set_value(opt.lr, K.get_value(opt.lr)*.5)
    assert opt.learning_rate == pytest.approx(.1)
    fit(model, epochs=1)
    assert opt.iterations == 6


def test_numbers_before_there_are_weights():
    model = keras.Sequential([keras.layers.Dense(3, 'softmax')])
    model.compile('sgd', 'sparse_categorical_crossentropy')
    model.optimizer.learning_rate.assign(.5)
    model.optimizer.momentum = .9
    model.fit(x, labels, verbose=0)
    assert [model.opt.param_groups[0][o] for o in ('lr', 'momentum')] == [.5, .9]


def test_iterations_go_on_and_can_be_set(tmp_path):
    model = new()
    fit(model, epochs=2)
    fit(model, epochs=1)
    assert model.optimizer.iterations == 18 and model.optimizer.iterations.numpy() == np.int64(18)
    model.optimizer.iterations.assign(5)
    assert model.optimizer.iterations == 5
    fit(model, epochs=1)
    assert model.optimizer.iterations == 11
    model.compile(model.optimizer, 'sparse_categorical_crossentropy')
    assert model.optimizer.iterations == 11  # the same optimizer
    model.compile('sgd', 'sparse_categorical_crossentropy')
    assert model.optimizer.iterations == 0


def test_rates_are_numbers_like_others():
    rate = new().optimizer.learning_rate
    kept = [copy.deepcopy(rate), pickle.loads(pickle.dumps(rate)), rate]
    assert json.dumps(kept) == '[0.1, 0.1, 0.1]' and type(kept[0]) is float
    rate.assign_sub(.05)
    assert rate.numpy() == np.float32(.05) and rate == .1


def test_numbers_of_a_learner():
    class Sets(kc.Callback):
        def on_train_batch_begin(self, batch, logs=None): self.model.optimizer.beta_1 = .7
        def on_train_end(self, logs=None): self.seen = self.model.optimizer.iterations
    t = torch.tensor(x), torch.tensor(labels)
    learn = Learner(DataBunch.from_tensors(*t, *t, bs=8), new().module, lr=.01, silent=True)
    learn.fit(1, cbs=(cb := Sets()))
    assert learn.opt.mom == .7 and cb.seen == 6


@pytest.mark.parametrize('call, word', [
    (lambda: optimizers.SGD(clipnorm=1.), 'GradientClipping'),
    (lambda: optimizers.SGD(.1, -1.), 'momentum'),
    (lambda: optimizers.Adam(lambda: .1), 'LearningRateScheduler'),
    (lambda: optimizers.Adam(decay=.1), 'decay'), (lambda: optimizers.Adam(beta1=.1), 'beta_1')])
def test_bad_optimizers(call, word):
    with pytest.raises(ValueError, match=word): call()


# ---- data ----------------------------------------------------------------------------------------
class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, a, b): return self.layer(a) + b


def pairs(kind):
    a, b = x[:40], x[:40, :1]
    return {'dict': {'b': b, 'a': a}, 'list': [a, b]}[kind], a[:, :1]


@pytest.mark.parametrize('kind', ['dict', 'list'])
def test_several_inputs(kind):
    inputs, y = pairs(kind)
    model = keras.Model(Pair())
    model.compile('sgd', 'mse')
    history = model.fit(inputs, y, epochs=3, verbose=0, validation_split=.25).history
    assert history['loss'][-1] < history['loss'][0] and len(history['val_loss']) == 3
    assert model.predict(inputs).shape == (40, 1)
    mean = ((model.predict(inputs)-y)**2).mean()
    assert model.evaluate(inputs, y) == pytest.approx(mean, rel=1e-4)
    with pytest.raises(ValueError, match='different lengths'): model.fit(inputs, y[:3])


class Numbers:
    "What Keras calls a Sequence"
    def __init__(self): self.ends = 0
    def __len__(self): return 5
    def __getitem__(self, i): return x[8*i:8*i+8].astype('float64'), x[8*i:8*i+8, 0]
    def on_epoch_end(self): self.ends += 1


def loaders():
    t = torch.tensor(x[:40])
    return dict(loader=DataLoader(TensorDataset(t, t[:, 0]), batch_size=8), sequence=Numbers(),
                pairs=map(list, [(x[:8], x[:8, 0])]*5), generator=(Numbers()[i] for i in range(5)))


@pytest.mark.parametrize('kind', loaders())
def test_fit_evaluate_and_predict_of_what_gives_batches(kind):
    model, *_ = line()
    model.compile('sgd', 'mse')
    model.fit(loaders()[kind], verbose=0, validation_data=loaders()['loader'])
    assert model.evaluate(loaders()[kind]) >= 0
    assert model.predict(loaders()[kind]).shape == (40, 1)
    if kind == 'sequence':
        model.fit(data := Numbers(), epochs=2, verbose=0)
        assert data.ends == 2
    with pytest.raises(ValueError, match='beside a loader'): model.fit(loaders()[kind], x)
    with pytest.raises(ValueError, match='cannot be split'):
        model.fit(loaders()[kind], validation_split=.1)


class Sees(kc.Callback):
    "Which batches come"
    def on_train_begin(self, logs=None): self.sizes, self.tests = [], []
    def on_epoch_begin(self, epoch, logs=None): self.sizes.append([])
    def on_train_batch_end(self, batch, logs=None):
        assert logs['batch'] == batch
        self.sizes[-1].append(logs['size'])
    def on_test_begin(self, logs=None): self.tests.append(0)
    def on_test_batch_begin(self, batch, logs=None): self.tests[-1] += logs['size']


def test_steps():
    model, a, b = line()
    model.compile('sgd', 'mse')
    with pytest.warns(UserWarning, match='3 batches, and gave 2'):
        model.fit(a, b, batch_size=8, epochs=5, steps_per_epoch=3, validation_data=(a, b),
                  validation_steps=2, verbose=0, callbacks=[cb := Sees()])
    assert [len(o) for o in cb.sizes] == [3, 2, 3, 2, 3]  # as Keras 3 does
    assert cb.tests == [16]*5 and cb.params['steps'] == 3 and cb.params['samples'] == 24
    def endless():
        while True: yield a[:8], b[:8]
    model.fit(endless(), epochs=3, steps_per_epoch=4, verbose=0, callbacks=[cb])
    assert cb.sizes == [[8]*4]*3
    assert len(model.predict(a, batch_size=8, steps=2)) == 16
    for bad in (dict(steps_per_epoch=0), dict(steps_per_epoch=1.5), dict(validation_steps=2)):
        with pytest.raises(ValueError, match=next(iter(bad))): model.fit(a, b, verbose=0, **bad)


def test_workers_go_on_in_the_next_epoch():
    t = torch.tensor(x[:40])
    dl = DataLoader(TensorDataset(t, t[:, 0]), batch_size=8, num_workers=1)
    model, *_ = line()
    model.compile('sgd', 'mse')
    model.fit(dl, epochs=2, steps_per_epoch=2, verbose=0, callbacks=[cb := Sees()])
    assert cb.sizes == [[8, 8]]*2


def test_numbers_of_numpy():
    model, a, b = line()
    model.compile('sgd', 'mse')
    history = model.fit(a, b, epochs=np.int64(3), initial_epoch=np.int32(1), batch_size=np.int64(8),
                        steps_per_epoch=np.int64(2), verbose=np.int64(0))
    assert history.epoch == [1, 2]


# ---- targets of shape (n,) -----------------------------------------------------------------------
def squares(y_true, y_pred): return (y_true-y_pred)**2


@pytest.mark.parametrize('loss', [squares, lambda t, p: squares(t, p).mean(), nn.MSELoss(), 'mse',
                                  lambda t, p: K.mean(K.square(p-t), axis=-1)])
def test_y_in_a_row_fits_a_column_of_outputs(loss):
    (model, a, b), (other, _, _) = line(), line()
    model.compile(optimizers.SGD(.1), loss, [squares])
    other.compile(optimizers.SGD(.1), 'mse', ['mse'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ours = model.fit(a, b, epochs=20, verbose=0, shuffle=False, validation_data=(a, b)).history
    want = other.fit(a, b[:, None], epochs=20, verbose=0, shuffle=False).history
    assert ours['loss'] == pytest.approx(want['loss'], rel=1e-4) and ours['loss'][-1] < .3
    assert ours['squares'] == pytest.approx(want['mse'], rel=1e-4)
    assert model.evaluate(a, b)[0] == pytest.approx(ours['val_loss'][-1], rel=1e-5)


# ---- what is trained -----------------------------------------------------------------------------
def test_layers_unfrozen_after_compile_are_trained(capsys):
    model = new(optimizers.Adam(.01))
    model.layers[0].requires_grad_(False)
    before = model.get_weights()
    fit(model, epochs=1)
    assert (model.get_weights()[0] == before[0]).all()
    model.layers[0].requires_grad_(True)
    model.fit(x, labels, verbose=2)
    assert (model.get_weights()[0] != before[0]).any()
    assert 'from now on, too: 0.kernel, 0.bias' in capsys.readouterr().out
    assert {int(o['step']) for o in model.opt.state.values()} == {2, 8}


def test_plain_layers_of_torch_can_be_frozen_by_keras_word():
    model = keras.Sequential([nn.Linear(4, 8), nn.Linear(8, 3), keras.layers.Activation('softmax')])
    model.layers[0].trainable = False
    model.compile('sgd', 'sparse_categorical_crossentropy')
    before = model.get_weights()
    model.fit(x, labels, verbose=0)
    assert [(a == b).all() for a, b in zip(before, model.get_weights())] == [True]*2 + [False]*2
    model.layers[0].trainable = True
    model.fit(x, labels, verbose=0)
    assert (model.get_weights()[0] != before[0]).any()


def test_an_optimizer_of_ones_own_stays_what_it_is():
    model = new()
    model.compile(torch.optim.SGD(model.layers[1].parameters(), lr=.1),
                  'sparse_categorical_crossentropy')
    with pytest.warns(UserWarning, match='not trained.*0.kernel, 0.bias'): fit(model, epochs=1)


# ---- files, copies, servers ----------------------------------------------------------------------
class Evil:
    def __reduce__(self): return print, ('code has run',)


@pytest.mark.parametrize('save', ['save', 'save_weights'])
def test_weights_come_back_and_code_is_refused(tmp_path, capsys, save):
    model, other = new(optimizers.Adam(.01)), new(optimizers.Adam(.01))
    fit(model)
    getattr(model, save)(tmp_path/'a.keras')
    other.load_weights(tmp_path/'a.keras')
    assert all((a == b).all() for a, b in zip(model.get_weights(), other.get_weights()))
    assert {int(o['step']) for o in other.opt.state.values()} == {24}
    assert other.optimizer.iterations == 24
    torch.save({'model': model.module.state_dict(), 'evil': Evil()}, tmp_path/'b.keras')
    before = other.get_weights()
    with pytest.raises(OSError, match='could run code'): other.load_weights(tmp_path/'b.keras')
    assert all((a == b).all() for a, b in zip(before, other.get_weights()))
    assert 'code has run' not in capsys.readouterr().out
    torch.save({'model': new().module.state_dict(), 'opt': [1, 2]}, tmp_path/'c.keras')
    with pytest.raises(OSError, match='c.keras'): other.load_weights(tmp_path/'c.keras')
    assert all((a == b).all() for a, b in zip(before, other.get_weights()))


@pytest.mark.parametrize('kind', [RemoteMonitor, kc.RemoteMonitor])
@pytest.mark.parametrize('copied', [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_learner_with_a_monitor_can_be_copied(kind, copied):
    t = torch.tensor(x), torch.tensor(labels)
    monitor = kind(root='http://127.0.0.1:9', headers={'X-Key': 'k'})
    learn = Learner(DataBunch.from_tensors(*t, *t, bs=8), nn.Linear(4, 3), silent=True, cbs=monitor)
    with pytest.warns(UserWarning, match='did not take a row'):
        learn.fit(1)
        monitor.close()
    other = copied(learn)
    mine = next(o for o in other.cbs if isinstance(o, kind))
    assert mine.sender is not monitor.sender and not mine.sender.waiting
    assert mine.sender.headers == monitor.sender.headers and not mine.sender.told
    with pytest.warns(UserWarning, match='did not take a row'):
        other.fit(1)
        mine.close()
    assert learn.fit(0) is not other


def test_attributes_of_a_monitor():
    cb = kc.RemoteMonitor()
    assert (cb.root, cb.path, cb.field, cb.send_as_json) == (
        'http://localhost:9000', '/publish/epoch/end/', 'data', False)
    assert cb.headers == {'Accept': 'application/json', 'Content-Type': 'application/json'}
    assert kc.RemoteMonitor(headers={'A': 'b'}).headers == {'A': 'b'}


@pytest.mark.parametrize('header, cbs, refused', [
    ('epoch,accuracy,loss,val_accuracy,val_loss', [], False), ('epoch,loss', [], True),
    ('epoch,acc,loss,val_acc,val_loss', [], True),
    ('epoch,accuracy,learning_rate,loss,val_accuracy,val_loss', [], True),
    ('epoch,accuracy,learning_rate,loss,val_accuracy,val_loss', [kc.ReduceLROnPlateau()], False),
    ('epoch,accuracy,loss,mine,val_accuracy,val_loss', [], True)])
def test_a_file_with_other_columns_is_refused_before_training(tmp_path, header, cbs, refused):
    file = tmp_path/'a.csv'
    file.write_text(header + '\n')
    model = new()
    before = model.get_weights()
    def train(): fit(model, *cbs, kc.CSVLogger(file, append=True), epochs=1)
    if not refused: return train()
    with pytest.raises(ValueError, match='has the columns'): train()
    assert file.read_text() == header + '\n'
    assert all((a == b).all() for a, b in zip(before, model.get_weights()))


def test_columns_that_a_callback_of_ones_own_adds(tmp_path):
    class Adds(kc.Callback):
        def on_epoch_end(self, epoch, logs=None): logs['mine'] = 1.
    for append in (False, True):
        fit(new(), Adds(), kc.CSVLogger(tmp_path/'a.csv', append=append), epochs=1)
    assert len((tmp_path/'a.csv').read_text().splitlines()) == 3


def test_a_metric_says_which_way_is_better():
    class Accuracy:  # whose name says the contrary
        higher_is_better = False
        def reset(self): self.n = 0.
        def update(self, pred, y): self.n += 1
        def compute(self): return self.n
    stop = kc.EarlyStopping('val_accuracy', patience=0)
    fit(new(metrics=[Accuracy()]), stop, epochs=2)
    assert stop.mode == 'min'
    words = 'bce mse cosine_similarity'.split()  # two losses, and what is no loss under this name
    stops = [kc.EarlyStopping(f'val_{word}') for word in words]
    model = keras.Sequential([keras.layers.Dense(1, 'sigmoid', input_dim=2)])
    model.compile('sgd', 'mse', words)
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0, validation_split=.5, callbacks=stops)
    assert [o.mode for o in stops] == ['min', 'min', 'max']


def test_what_the_backend_computes():
    a = torch.tensor([[1., -2.], [3., 4.]])
    assert K.mean(a, axis=0).tolist() == [2., 1.] and K.max(a) == 4 and K.min(a, axis=-1)[0] == -2
    assert K.sum(a, axis=[0, 1]) == 6 and K.sum(a, axis=-1, keepdims=True).shape == (2, 1)
    assert K.cast(K.equal(K.argmax(a), 1), 'float32').tolist() == [0., 1.]
    assert K.get_value(a).tolist() == a.tolist() and K.epsilon() == 1e-7
    K.set_value(weights := new().weights[0], np.ones((4, 16)))
    assert (weights.numpy() == 1).all()


def test_two_metrics_of_one_name():
    class Seen(kc.Callback):
        def on_train_batch_end(self, batch, logs=None): self.names = list(logs)
    model = new(metrics=['accuracy', 'accuracy'])
    history = fit(model, seen := Seen(), epochs=1).history
    assert {'accuracy', 'accuracy_1', 'val_accuracy', 'val_accuracy_1'} < set(history)
    assert model.metrics_names == ['loss', 'accuracy', 'accuracy_1'] == seen.names[2:]
    assert len(model.evaluate(x, labels)) == 3


def test_arrays_that_cannot_be_written():
    model, a, b = line()
    model.compile('sgd', 'mse')
    a, b = np.array(a), np.array(b)
    a.flags.writeable = b.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.fit(a, b, verbose=0)


def test_a_model_with_its_words_can_be_pickled():
    model = new(optimizers.Adam(.01), loss='huber', metrics=['mae', 'cosine_similarity'])
    model.fit(x, x[:, :3], verbose=0, callbacks=[kc.EarlyStopping('loss')])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.fit(x, x[:, :3], verbose=0)
        assert other.optimizer.iterations == 4 and model.optimizer.iterations == 2


def test_a_compile_in_the_middle_of_a_fit_holds_from_then_on():
    class Again(kc.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2: self.model.compile(optimizers.SGD(0.), squares)
        def on_train_batch_end(self, batch, logs=None):
            self.seen = [*getattr(self, 'seen', ()), self.model.get_weights()[0].sum()]
    model, a, b = line()
    model.compile(optimizers.SGD(.1), 'mse')
    model.fit(a, b, batch_size=8, verbose=0, callbacks=[cb := Again()])
    assert cb.seen[0] != cb.seen[1] == cb.seen[2] == cb.seen[4]
    assert model.optimizer.iterations == 3


def test_a_fit_inside_a_fit_is_refused():
    class Fits(kc.Callback):
        def on_epoch_end(self, epoch, logs=None): self.model.fit(x, labels, verbose=0)
    with pytest.raises(RuntimeError, match='copy'): fit(model := new(), Fits())
    fit(model)


def test_a_partial_of_torch_wants_predictions_first():
    from functools import partial
    torch.manual_seed(0)
    model = keras.Sequential([nn.Linear(4, 3)])
    model.compile('sgd', partial(torch.nn.functional.cross_entropy, label_smoothing=.1))
    model.fit(x, labels, verbose=0)
    outputs = torch.tensor(model.predict(x))
    want = nn.CrossEntropyLoss(label_smoothing=.1)(outputs, torch.tensor(labels))
    assert model.evaluate(x, labels) == pytest.approx(float(want), rel=1e-5)


def test_the_mean_of_an_epoch_leaves_ignored_labels_out():
    torch.manual_seed(0)
    model, some = keras.Sequential([nn.Linear(4, 3)]), labels.copy()
    some[10:] = -100
    model.compile(optimizers.SGD(0.), nn.CrossEntropyLoss())
    found = [model.fit(x, some, batch_size=n, verbose=0, shuffle=False).history['loss'][0]
             for n in (44, 8)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert model.evaluate(x, some, batch_size=8) == pytest.approx(found[0], rel=1e-5)


def test_a_callback_measures_other_data_in_the_fit_of_a_learner():
    class Tests(kc.Callback):
        def on_train_begin(self, logs=None): self.seen = []
        def on_epoch_end(self, epoch, logs=None):
            logs['test_loss'], logs['test_accuracy'] = self.model.evaluate(x, labels, verbose=0)
            self.seen.append(self.model.evaluate(x, labels, return_dict=True))
    t = torch.tensor(x), torch.tensor(labels)
    data = DataBunch.from_tensors(*t, *t, bs=8, device='cpu')
    learn = Learner(data, nn.Linear(4, 3), metrics=accuracy, silent=True)
    learn.fit(2, cbs=[cb := Tests(), history := kc.History()])
    for i, (_, loss, acc) in enumerate(learn.recorder.values):
        assert history.history['test_loss'][i] == pytest.approx(loss, rel=1e-5)
        assert cb.seen[i] == pytest.approx({'loss': loss, 'accuracy': acc}, rel=1e-5)


# ---- what people's own classes are called, have and ask for --------------------------------------
class History(kc.Callback):
    "A class of the user's with the name of one of Keras'"
    def on_train_begin(self, logs=None): self.history = {'batch': []}
    def on_batch_end(self, batch, logs=None): self.history['batch'].append(logs['loss'])


def test_a_class_of_the_users_that_is_called_history():
    found = fit(model := new(), cb := History())
    assert 'val_loss' in found.history and len(cb.history['batch']) == 24
    assert model.history is found and len(found.history['loss']) == 4
    own = kc.CallbackList([cb], add_history=True)
    assert [type(o).__module__ for o in own.callbacks] == [__name__, kc.__name__]


def test_a_number_that_is_there_now_and_then():
    class Now(kc.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch % 2 == 0: logs['val_auc'] = epoch/10
    found = fit(new(), Now())
    assert found.history['val_auc'] == [0., .2] and len(found.history['loss']) == 4


def test_the_comparison_that_subclasses_call():
    class Plateau(kc.ReduceLROnPlateau):
        told = ()
        def on_epoch_end(self, epoch, logs=None):
            if self.best is not None and not self.in_cooldown():
                self.told = *self.told, self.monitor_op(logs['loss'], self.best)
            super().on_epoch_end(epoch, logs)
    found = fit(new(), cb := Plateau('loss', patience=1, cooldown=1, mode='min'))
    losses = found.history['loss']
    best = [min(losses[:i]) for i in (1, 2, 3)]
    assert list(cb.told) == [a < b - 1e-4 for a, b in zip(losses[1:], best)]
    up = kc.EarlyStopping('acc', mode='max')
    assert up.monitor_op(.6, .5) and not up.monitor_op(.5, .5)


@pytest.mark.parametrize('order', [5, [3, 1, 2]])
def test_an_attribute_called_order_is_the_users(order):
    class Writes(kc.Callback):
        def __init__(self):
            super().__init__()
            self.order = order

        def on_epoch_end(self, epoch, logs=None): logs['mine'] = epoch

    class Reads(kc.Callback):
        def on_epoch_end(self, epoch, logs=None): self.seen = logs.get('mine')
    fit(new(), Writes(), cb := Reads())
    assert cb.seen == 3


def test_a_callback_that_is_refused_says_why():
    class Odd:
        def set_model(self, model): raise OSError('out of cheese')
        def set_params(self, params): pass
        def on_train_begin(self, logs=None): pass
    with pytest.raises(OSError, match='cheese'): fit(new(), Odd())


def test_more_validation_sets_of_a_learner():
    "The arguments of `evaluate`, as a well-known callback gives them"
    seen = []
    class More(kc.Callback):
        def on_epoch_end(self, epoch, logs=None):
            one = self.model.evaluate(x=x[:9], y=labels[:9], verbose=0, sample_weight=None,
                                      batch_size=None)
            two = self.model.evaluate([x[:9]], labels[:9], batch_size=3, steps=2, callbacks=None)
            seen.append((one, two))
            for wrong in (dict(batch_size=0), dict(steps=0), dict(sample_weight=np.ones(9))):
                with pytest.raises(ValueError): self.model.evaluate(x[:9], labels[:9], **wrong)
    torch.manual_seed(0)
    tensors = torch.tensor(x), torch.tensor(labels)
    learn = Learner(DataBunch.from_tensors(*tensors, *tensors, bs=8, device='cpu'), nn.Linear(4, 3),
                    nn.CrossEntropyLoss(), silent=True)
    learn.fit(1, cbs=More())
    (one, two), = seen
    with torch.no_grad():
        wanted = [nn.functional.cross_entropy(learn.model(tensors[0][:n]), tensors[1][:n]).item()
                  for n in (9, 6)]
    assert [one, two] == pytest.approx(wanted, rel=1e-5)


def test_epochs_of_a_tensorboard_that_goes_on(tmp_path):
    model, board = new(), kc.TensorBoard(str(tmp_path))
    fit(model, board, epochs=2)
    fit(model, board, epochs=4, initial_epoch=2)
    assert read_scalars(tmp_path)['loss'][0] == [0, 1, 2, 3]


def test_a_csv_file_whose_last_column_comes_too_late(tmp_path):
    file, model = tmp_path/'a.csv', new()
    fit(model, kc.ReduceLROnPlateau('loss'), kc.CSVLogger(file, append=True))
    before = model.get_weights()
    with pytest.raises(ValueError, match='columns'):
        fit(model, kc.CSVLogger(file, append=True), kc.ReduceLROnPlateau('loss'))
    assert all(map(np.array_equal, before, model.get_weights()))


def test_half_precision_arrays():
    model = new()
    model.fit(x.astype('float16'), labels, verbose=0)
    assert np.isfinite(model.predict(x.astype('float16'))).all()


def test_variables_are_computed_with():
    "As callbacks do that shrink weights, or keep a mean of them"
    class Shrinks(kc.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for v in self.model.trainable_variables: v.assign(v*.5)
            first = self.model.trainable_variables[0]
            before = first.numpy()
            first.assign_sub(first*.5)
            first.assign_add(first)
            assert np.allclose(first.numpy(), before)
            assert float(first[0, 0]) == before[0, 0] and len(first) == len(before)
            assert np.allclose((1 - first/2 + first).numpy(), 1 + before/2)
    model = new(optimizers.SGD(1e-12))
    before = model.get_weights()
    model.fit(x[:8], labels[:8], batch_size=8, verbose=0, callbacks=[Shrinks()])
    for a, b in zip(model.get_weights(), before): assert np.allclose(a, b/2, atol=1e-6)
