"Callbacks written for Keras on our loop: hooks, logs, stand-ins, and Keras' own callbacks"
import copy
import csv
import json
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Program
from torch import nn
from torch.nn import functional as F

import fastloop.train  # noqa: F401  hangs its verbs on Learner
from fastloop import keras
from fastloop.adapters.keras import LogsOfRun
from fastloop.adapters.keras_model import (
    LearnerView,
    Logs,
    ModelView,
    OptimizerView,
    UnreadableWeights,
    as_logs,
    metric_direction,
    overrides,
)
from fastloop.callback.core import (
    Callback,
    TraceCallback,
    UnknownEvent,
    adapter_of,
    as_callback,
    written_for,
)
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.callback.training import GradientAccumulation
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.runner import Runner
from fastloop.torch_core import rng_state

kc = keras.callbacks


def make_data(n=44, n_valid=20, bs=8):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n + n_valid, 4, generator=g)
    y = (x[:, :3] + torch.randn(len(x), 3, generator=g)).argmax(1)
    def batches(x, y): return list(zip(x.split(bs), y.split(bs)))
    valid_dl = batches(x[n:], y[n:]) if n_valid else None
    return DataBunch(batches(x[:n], y[:n]), valid_dl, device='cpu')


def make(data=None, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    kwargs = dict(opt_func=SGD, lr=.1, wd=0., loss_func=F.cross_entropy, metrics=accuracy,
                  silent=True) | kwargs
    return Learner(data or make_data(), model, **kwargs)


class Records(kc.Callback):
    "Every hook with its arguments; logs are copied"
    def __init__(self): self.rows = []
    def names(self): return [o[0] for o in self.rows]
    def logs(self, hook): return [o[-1] for o in self.rows if o[0] == hook]


for _hook in [o for o in dir(kc.Callback) if o.startswith('on_') and 'train_batch' not in o]:
    def _note(self, *args, hook=_hook):
        self.rows.append((hook, *(dict(o) if isinstance(o, dict) else o for o in args)))
    setattr(Records, _hook, _note)


# ---- the adapter ---------------------------------------------------------------------------------
class Foreign:
    "Written for Keras, extends nothing, has the older names only"
    def __init__(self): self.seen = []
    def set_model(self, model): self.model = model
    def on_batch_end(self, batch, logs=None): self.seen.append((batch, logs['loss']))
    def on_epoch_end(self, epoch, logs=None): self.seen.append(('epoch', epoch))


def test_what_has_set_model_is_keras():
    assert written_for(Foreign()) == written_for(kc.History()) == 'keras'
    assert written_for(kc.EarlyStopping()) == 'keras'  # and not native
    assert written_for(TraceCallback()) == 'fastloop'
    with pytest.raises(TypeError, match='no callback'): adapter_of(object())


def test_the_adapter_is_imported_when_somebody_needs_it():
    program = '''
import sys
from fastloop.learner import Learner
from fastloop.callback.core import TraceCallback, written_for
assert written_for(TraceCallback()) == 'fastloop'
assert not any(o.startswith(('fastloop.keras', 'fastloop.adapters')) for o in sys.modules)
class Foreign:
    def set_model(self, model): pass
print(written_for(Foreign()), 'keras' in sys.modules, 'fastloop.keras' in sys.modules)
'''
    out = Program(program).end()
    assert out.stdout.split() == ['keras', 'False', 'False'], out.stderr


def test_a_foreign_object_takes_part():
    cb = Foreign()
    learn = make(cbs=cb)
    learn.fit(2)
    assert [o[0] for o in cb.seen] == [*range(6), 'epoch', *range(6), 'epoch']
    assert [o[1] for o in cb.seen[:6]] == pytest.approx(learn.recorder.raw_losses[:6])
    assert isinstance(cb.model, LearnerView) and cb.model.module is learn.model and cb.model


def test_misspelt_hooks_are_refused():
    with pytest.raises(UnknownEvent, match='on_epoch_end'):
        as_callback(type('Bad', (kc.Callback,), {'on_epcoh_end': lambda self: None}))


def test_classes_are_taken_too():
    learn = make(cbs=[Records])
    learn.fit(1)
    assert learn.records.names()[0] == 'on_train_begin'


# ---- hooks and logs ------------------------------------------------------------------------------
def test_hooks_come_in_the_order_of_keras():
    cb = Records()
    make(cbs=cb).fit(2)
    batch, test = ['on_batch_begin', 'on_batch_end'], ['on_test_batch_begin', 'on_test_batch_end']
    epoch = ['on_epoch_begin', *batch*6, 'on_test_begin', *test*3, 'on_test_end', 'on_epoch_end']
    assert cb.names() == ['on_train_begin', *epoch*2, 'on_train_end']
    assert [o[1] for o in cb.rows if o[0] == 'on_batch_end'] == [*range(6)]*2
    assert [o[1] for o in cb.rows if o[0] == 'on_epoch_begin'] == [0, 1]


def test_logs_are_plain_floats_of_the_right_size():
    cb = Records()
    learn = make(cbs=cb)
    learn.fit(2)
    for (train, valid, acc), logs in zip(learn.recorder.values, cb.logs('on_epoch_end')):
        assert list(logs) == ['loss', 'accuracy', 'val_loss', 'val_accuracy']
        assert all(type(o) is float for o in logs.values())
        assert (logs['loss'], logs['val_loss'], logs['val_accuracy']) == pytest.approx(
            (train, valid, acc))
    assert [o['loss'] for o in cb.logs('on_batch_end')] == pytest.approx(learn.recorder.raw_losses)
    assert cb.logs('on_batch_begin')[:6] == [
        {'batch': i, 'size': 4 if i == 5 else 8} for i in range(6)]
    assert cb.logs('on_train_end')[0] == cb.logs('on_epoch_end')[-1]
    assert cb.logs('on_test_end')[0] == {
        k.removeprefix('val_'): v for k, v in cb.logs('on_epoch_end')[0].items() if 'val_' in k}


def test_training_metrics_count_every_sample_once():
    seen, cb = [], Records()
    class Counts(Callback):
        def after_pred(self):
            if self.in_train: seen.append(self.pred.argmax(1) == self.yb)
    make(cbs=[cb, Counts()]).fit(1)
    assert cb.logs('on_epoch_end')[0]['accuracy'] == pytest.approx(
        torch.cat(seen).double().mean().item())


def test_the_loss_is_read_before_anybody_scales_it():
    plain, scaled = kc.History(), kc.History()
    make(cbs=plain).fit(1, 0.)
    make(cbs=[scaled, GradientAccumulation(n_batches=4)]).fit(1, 0.)
    assert plain.history['loss'] == pytest.approx(scaled.history['loss'])


def test_one_dictionary_for_all():
    class Adds(kc.Callback):
        def on_epoch_end(self, epoch, logs=None): logs['double'] = 2*logs['loss']
        def on_batch_end(self, batch, logs=None): logs['mine'] = batch
    class Reads(kc.Callback):
        def on_batch_end(self, batch, logs=None): assert logs['mine'] == batch
    before, after = kc.History(), kc.History()
    make(cbs=[before, Adds(), Reads(), after]).fit(2)
    assert 'double' not in before.history
    assert after.history['double'] == [2*o for o in after.history['loss']]


def test_order_is_that_of_attachment():
    "Also where a callback of ours behind it has an order number of its own"
    calls = []
    def cb(kind, name, **kwargs):
        class Notes(kind):
            def on_epoch_end(self, epoch, logs=None):
                calls.append(name)
                super().on_epoch_end(epoch, logs)
        return Notes(**kwargs)
    make(cbs=[cb(kc.EarlyStopping, 1), cb(kc.Callback, 2)]).fit(
        1, cbs=[cb(kc.ReduceLROnPlateau, 3), cb(kc.History, 4)])
    assert calls == [1, 2, 3, 4]


def test_what_hooks_return_means_nothing():
    class Says(kc.Callback):
        def on_batch_begin(self, batch, logs=None): return True
        on_epoch_end = on_batch_end = on_epoch_begin = on_test_begin = on_batch_begin
    learn = make(cbs=Says())
    learn.fit(2)
    assert learn.n_iter == 12 and len(learn.recorder.values) == 2


def test_a_run_without_validation_or_recorder():
    cb = Records()
    make(make_data(n_valid=0), cbs=cb).fit(1)
    assert list(cb.logs('on_epoch_end')[0]) == ['loss', 'accuracy']
    assert 'on_test_begin' not in cb.names() and not cb.params['do_validation']
    learn, cb, trace = make(), Records(), kc.History()
    basic = BasicLearner(learn.model, torch.optim.SGD(learn.model.parameters(), lr=.1),
                         F.cross_entropy, learn.data)
    basic.metrics = [accuracy]
    Runner([cb, trace]).fit(2, basic)
    with_recorder = kc.History()
    make(cbs=with_recorder).fit(2)
    for k, v in with_recorder.history.items(): assert trace.history[k] == pytest.approx(v)


def test_params():
    cb = Records()
    make(cbs=cb).fit(3)
    assert cb.params == dict(
        verbose=1, epochs=3, steps=6, batch_size=None, samples=None, do_validation=True,
        metrics=['loss', 'accuracy', 'val_loss', 'val_accuracy'])


def test_logs_answer_to_both_spellings():
    logs = Logs(accuracy=.5, val_accuracy=.25, lr=.1, loss=1.)
    assert logs['acc'] == .5 and logs.get('val_acc') == .25 and logs['learning_rate'] == .1
    assert 'acc' in logs and 'val_loss' not in logs and logs.get('val_loss', 7) == 7
    assert logs['train_loss'] == 1. and json.loads(json.dumps(logs)) == dict(logs)
    assert '{acc:.1f} {lr}'.format_map(logs) == '0.5 0.1' and dict(**logs) == dict(logs)
    with pytest.raises(KeyError): logs['nothing']
    old = Logs(acc=.5)
    assert old['accuracy'] == .5 and list(old) == ['acc']


@given(st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=5))
def test_logs_are_dictionaries(values):
    logs = as_logs(values)
    assert logs == values and list(logs.items()) == list(values.items())
    for k in values: assert logs[k] == logs.get(k) == values[k] and k in logs


# ---- stopping and failing ------------------------------------------------------------------------
@pytest.mark.parametrize('hook, batches, epochs', [
    ('on_batch_end', 3, 1), ('on_epoch_end', 12, 2), ('on_test_begin', 6, 1),
    ('on_epoch_begin', 7, 2), ('on_train_begin', 1, 1)])
def test_stopping(hook, batches, epochs):
    at = {'on_batch_end': 2, 'on_epoch_end': 1, 'on_epoch_begin': 1}.get(hook)
    def stop(self, *args):
        if at is None or args[0] == at: self.model.stop_training = True
    cb, rec = type('Stops', (kc.Callback,), {hook: stop})(), Records()
    learn = make(cbs=[cb, rec])
    learn.fit(5)
    assert learn.n_iter == batches and len(learn.recorder.values) == epochs
    assert rec.names()[-4:] == ['on_test_batch_end', 'on_test_end', 'on_epoch_end', 'on_train_end']
    learn.remove_cbs(cb)
    learn.fit(2)  # the wish does not outlive the fit
    assert learn.n_iter == 12


@pytest.mark.parametrize('hook', ['on_train_begin', 'on_epoch_begin', 'on_batch_begin',
                                  'on_batch_end', 'on_test_begin', 'on_test_end', 'on_epoch_end'])
@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_no_end_when_an_exception_passes(hook, error):
    def fails(self, *args): raise error('broken')
    cb, rec = type('Fails', (kc.Callback,), {hook: fails})(), Records()
    learn = make(cbs=[rec, cb])
    with pytest.raises(error, match='broken') as e: learn.fit(2)
    assert 'on_train_end' not in rec.names()
    notes = '\n'.join(e.value.__notes__)
    assert f'in {hook} of Fails' in notes.replace('on_train_batch', 'on_batch')
    learn.remove_cbs(cb)
    learn.fit(1)
    assert rec.names()[-1] == 'on_train_end'


@pytest.mark.parametrize('make_cb', [
    lambda: Records(), lambda: kc.EarlyStopping(restore_best_weights=True),
    lambda: kc.ReduceLROnPlateau(patience=1), lambda: kc.TerminateOnNaN(),
    lambda: kc.LearningRateScheduler(lambda e: .01), lambda: kc.ProgbarLogger('steps', 'off')])
def test_faults(make_cb, recwarn):
    check_faults(make, lambda learn: make_cb(), nth=(1,), names=[
        'begin_fit', 'begin_batch', 'after_loss', 'after_batch', 'begin_validate', 'after_epoch',
        'after_fit'])


# ---- what it costs -------------------------------------------------------------------------------
def test_batches_are_read_only_if_somebody_asks(monkeypatch):
    calls = []
    real = LogsOfRun.of_batch
    def counted(self):
        calls.append(1)
        return real(self)
    monkeypatch.setattr(LogsOfRun, 'of_batch', counted)
    class OnlyBegins(kc.Callback):
        def on_batch_begin(self, batch, logs=None): pass
    quiet = [kc.EarlyStopping(), kc.ReduceLROnPlateau(), kc.History(), kc.TerminateOnNaN(),
             OnlyBegins(), kc.BaseLogger(), kc.LambdaCallback(on_epoch_end=lambda e, logs: None),
             kc.ProgbarLogger('steps', 'off'), kc.LearningRateScheduler(lambda e: .1)]
    make(cbs=quiet).fit(1)
    assert not calls
    make(cbs=kc.LambdaCallback(on_batch_end=lambda b, logs: None)).fit(1)
    assert len(calls) == 6


def test_no_event_for_what_nobody_hears():
    learn = make(cbs=kc.History())
    learn.fit(1)
    def heard_by(cb):
        return {event for event, found in learn.run.handlers.items()
                if any(o is cb for o, _ in found)}
    heard = heard_by(history := learn.history)
    assert not heard & {'begin_batch', 'after_step', 'after_pred', 'begin_backward'}
    summing = [handler for o, handler in learn.run.handlers['after_loss'] if o is history]
    assert [type(o.__self__) for o in summing] == [LogsOfRun]  # whose means the history keeps
    assert overrides(Foreign(), 'on_batch_end') and not overrides(kc.History(), 'on_batch_end')
    learn.run.remove_cbs(history)
    assert not heard_by(history)


def test_training_is_the_same_with_and_without(tmp_path):
    plain, watched = make(), make()
    plain.fit(2)
    before = rng_state()
    watched.fit(2, cbs=[Records(), kc.History(), kc.CSVLogger(tmp_path/'log'), kc.TerminateOnNaN(),
                        kc.ModelCheckpoint(tmp_path/'{epoch}.h5'), kc.EarlyStopping(patience=9),
                        kc.ReduceLROnPlateau(), kc.TensorBoard(tmp_path/'tb', histogram_freq=1)])
    for a, b in zip(plain.model.parameters(), watched.model.parameters()): assert torch.equal(a, b)
    after = rng_state()
    assert torch.equal(before['torch'], after['torch']) and before['python'] == after['python']


# ---- the stand-in --------------------------------------------------------------------------------
def test_the_stand_in_answers_as_a_keras_model():
    seen = {}
    class Looks(kc.Callback):
        def on_epoch_end(self, epoch, logs=None):
            m = self.model
            seen.update(rate=float(m.optimizer.learning_rate), lr=m.optimizer.lr,
                        weights=m.get_weights(), built=m.built and m.optimizer.built,
                        metrics=[o.name for o in m.metrics], step=m.optimizer.iterations,
                        out=m.predict(np.ones((3, 4), 'float32')), truthy=bool(m),
                        layers=len(m.layers), mode=m.module.training)
    learn = make(cbs=Looks())
    learn.fit(1, .25)
    assert seen['rate'] == seen['lr'] == .25 and seen['built'] and seen['truthy']
    assert [o.shape for o in seen['weights']] == [(16, 4), (16,), (3, 16), (3,)]
    assert {'accuracy', 'train_loss', 'valid_loss'} <= {*seen['metrics']}
    assert seen['step'] == 6 and seen['layers'] == 3
    assert seen['out'].shape == (3, 3) and isinstance(seen['out'], np.ndarray)
    assert not hasattr(OptimizerView(ModelView()), 'optimizers')
    assert not hasattr(OptimizerView(ModelView()), 'inner_optimizer')


def test_rates_of_layer_groups_keep_their_proportion():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    learn = Learner(make_data(), model, F.cross_entropy, SGD, splitter=lambda m: list(m),
                    silent=True)
    learn.fit(1, slice(.01, .1), cbs=kc.LearningRateScheduler(lambda epoch: .5))
    assert learn.opt.read_val('lr') == pytest.approx([.05, .5])
    learn.fit(1, [0., 0.], cbs=kc.LearningRateScheduler(lambda epoch: .5))
    assert learn.opt.read_val('lr') == [.5, .5]


def test_weights_go_in_and_out(tmp_path):
    learn = make()
    learn.create_opt()
    view = LearnerView(learn)
    old = view.get_weights()
    for name in ('a.keras', 'a.weights.h5', 'b.hdf5'): view.save_weights(tmp_path/name)
    new = [o+1 for o in old]
    view.set_weights(new)
    assert all((a == b).all() for a, b in zip(view.get_weights(), new))
    view.load_weights(tmp_path/'b.hdf5')
    assert all((a == b).all() for a, b in zip(view.get_weights(), old))
    for wrong in (new[:2], [*new, new[0]], [new[1], *new[1:]]):
        with pytest.raises(ValueError, match='shapes'): view.set_weights(wrong)
    assert all((a == b).all() for a, b in zip(view.get_weights(), old))
    with pytest.raises(FileExistsError): view.save(tmp_path/'b.hdf5', overwrite=False)
    other = LearnerView(Learner(make_data(), nn.Linear(4, 3), silent=True))
    with pytest.raises(ValueError, match='another architecture'):
        other.load_weights(tmp_path/'b.hdf5')


def test_the_model_is_called_as_keras_calls_it():
    "With arrays; `training` is the mode for this call, and without it nothing is dropped"
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(.5), nn.Linear(5, 3))
    view = LearnerView(Learner(make_data(), module, F.cross_entropy, silent=True))
    module[1].eval()
    modes, x = [o.training for o in module.modules()], np.ones((2, 4))
    wanted = copy.deepcopy(module).eval()(torch.ones(2, 4))
    for answer in (view(x), view(x, training=False), view(x.tolist()), view(torch.ones(2, 4)),
                   torch.from_numpy(view.predict_on_batch(x))):
        torch.testing.assert_close(answer, wanted)
    assert [o.training for o in module.modules()] == modes
    told = []
    module[2].register_forward_hook(lambda layer, args, out: told.append(layer.training))
    view(x, training=True)
    assert told == [True] and [o.training for o in module.modules()] == modes
    view(image := torch.ones(2, 4, requires_grad=True))[:, 0].sum().backward()
    assert image.grad.abs().sum() > 0  # what a picture of a gradient needs


def test_several_inputs_of_a_call():
    class Add(nn.Module):
        def forward(self, a, b): return a+b
    view = ModelView()
    view.module, a, b = Add(), np.ones((2, 3)), torch.ones(2, 3)
    for answer in (view([a, b]), view({'a': a, 'b': b}), view(a, b)):
        assert (answer == 2).all() and answer.dtype == torch.float32
    assert view.predict_on_batch([a, b]).tolist() == [[2]*3]*2


def test_what_the_model_and_its_layers_are_made_of():
    layer = keras.layers.Dense(3)
    view = LearnerView(learn := make())
    learn.model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), layer)
    with pytest.raises(AttributeError, match='Flatten does not tell'): str(view.input_shape)
    layer.build(5)
    learn.model[1].requires_grad_(False)
    names = [o.name for o in view.non_trainable_weights]
    assert names == ['1.weight', '1.bias', '2.running_mean', '2.running_var',
                     '2.num_batches_tracked']
    assert sorted([*names, *(o.name for o in view.trainable_weights)]) == sorted(
        o.name for o in view.weights)
    assert len(layer.trainable_weights) == 2 and not layer.non_trainable_weights
    layer.trainable = False
    assert len(layer.non_trainable_variables) == 2 and not layer.trainable_variables
    view.run = SimpleNamespace(xb=torch.ones(2, 2, 2))
    assert view.input_shape == (None, 2, 2) and view.output_shape == (None, 3)
    view.run, learn.model = None, learn.model[1:]
    assert view.input_shape == (None, 4) and view.output_shape == (None, 3)


class Evil:
    def __reduce__(self): return os.mkdir, ('executed',)


@pytest.mark.parametrize('content', ['code', 'torn', 'text', 'empty', 'list'])
def test_files_that_are_no_weights(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    view = LearnerView(make())
    view.save(tmp_path/'good')
    data = {'torn': (tmp_path/'good').read_bytes()[:200], 'text': b'torn', 'empty': b''}
    if content == 'code': torch.save({'model': Evil()}, 'bad')
    elif content == 'list': torch.save([1, 2], 'bad')
    else: (tmp_path/'bad').write_bytes(data[content])
    before = view.get_weights()
    with pytest.raises(UnreadableWeights) as e: view.load_weights('bad')
    assert isinstance(e.value, OSError) and isinstance(e.value, ValueError)
    assert not (tmp_path/'executed').exists()
    assert all((a == b).all() for a, b in zip(view.get_weights(), before))
    with pytest.raises(FileNotFoundError): view.load_weights('none')


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    view = LearnerView(make())
    view.save(tmp_path/'w')
    before = (tmp_path/'w').read_bytes()
    monkeypatch.setattr('torch.save', lambda state, file: file.write(b'x') and 1/0)
    with pytest.raises(ZeroDivisionError): view.save(tmp_path/'w')
    assert (tmp_path/'w').read_bytes() == before and [o.name for o in tmp_path.iterdir()] == ['w']


# ---- Keras' trackers -----------------------------------------------------------------------------
def drive(cb, values, name='val_loss'):
    "Feed numbers to a callback by hand; the logs of each epoch, and the model"
    model = ModelView()
    model.module = nn.Linear(1, 1)
    model.opt = torch.optim.SGD(model.module.parameters(), lr=1.)
    cbs = kc.CallbackList([cb], model=model)
    cbs.on_train_begin()
    all_logs = []
    for epoch, value in enumerate(values):
        cbs.on_epoch_begin(epoch)
        all_logs.append(Logs({name: value}))
        cbs.on_epoch_end(epoch, all_logs[-1])
        if model.stop_training: break
    cbs.on_train_end()
    return all_logs, model


numbers = st.lists(st.sampled_from([.1, .2, .3, .4, .5, float('nan'), float('inf')]), min_size=1,
                   max_size=12)


@settings(deadline=None)
@given(numbers, st.integers(0, 3), st.sampled_from([0, .15]), st.sampled_from([None, .25]),
       st.integers(0, 2), st.sampled_from(['min', 'max']))
def test_early_stopping_is_the_arithmetic_of_keras(values, patience, delta, baseline, start, mode):
    stop = kc.EarlyStopping('m', delta, patience, 0, mode, baseline, False, start)
    all_logs, _ = drive(stop, values, 'm')
    sign = 1 if mode == 'min' else -1  # Keras 3, written down
    def better(a, b): return b is None or sign*a + delta < sign*b
    best, wait, stopped = None, 0, 0
    for epoch, value in enumerate(values):
        if epoch < start: continue
        wait += 1
        if better(value, best):
            best = value
            if baseline is None or better(value, baseline): wait = 0
        elif wait >= patience and epoch > 0:
            stopped = epoch
            break
    assert len(all_logs) == epoch+1 and (stop.wait, stop.stopped_epoch) == (wait, stopped)
    assert str(stop.best) == str(best)


@settings(deadline=None)
@given(numbers, st.integers(0, 3), st.integers(0, 2), st.sampled_from([0., .05, .25]))
def test_reducing_is_the_arithmetic_of_keras(values, patience, cooldown, min_lr):
    reduce_lr = kc.ReduceLROnPlateau('val_loss', .5, patience, 0, 'auto', 1e-4, cooldown, min_lr)
    all_logs, model = drive(reduce_lr, values)
    lr, best, wait, counter, rates = 1., None, 0, 0, []
    for value in values:
        rates.append(lr)
        if counter > 0: counter, wait = counter-1, 0
        if best is None or value + 1e-4 < best: best, wait = value, 0
        elif counter == 0:
            wait += 1
            if wait >= patience and lr > min_lr: lr, counter, wait = max(lr/2, min_lr), cooldown, 0
    assert [o['learning_rate'] for o in all_logs] == rates == [o['lr'] for o in all_logs]
    assert model.optimizer.learning_rate == lr and reduce_lr.cooldown_counter == counter


def test_the_best_weights_come_back():
    learn = make(cbs=kc.EarlyStopping(patience=2, restore_best_weights=True))
    learn.fit(60, 2.)
    stop, rows = learn.early_stopping, learn.recorder.values
    assert stop.stopped_epoch == len(rows)-1 < 59
    assert learn.validate()[0] == pytest.approx(min(o[1] for o in rows), rel=1e-4)
    assert stop.best_epoch == min(range(len(rows)), key=lambda i: rows[i][1])


def test_old_and_new_words():
    assert kc.ReduceLROnPlateau(epsilon=.5).min_delta == .5
    assert kc.ReduceLROnPlateau(min_delta=.25).min_delta == .25
    positional = kc.ReduceLROnPlateau('loss', .2, 5, 1, 'min', .01, 2, .001)
    assert (positional.min_delta, positional.cooldown, positional.min_lr) == (.01, 2, .001)
    assert kc.EarlyStopping('acc', .1, 3, 1, 'max').patience == 3
    assert kc.ModelCheckpoint('x', 'val_acc', 1, True, True, 'max', 3).period == 3
    assert kc.ModelCheckpoint('x', 'val_loss', 0, False, False, 'auto', 'epoch').period == 1
    assert kc.ModelCheckpoint('x', save_freq=5).save_freq == 5
    assert kc.EarlyStopping(min_delta=-.1).min_delta == .1


@pytest.mark.parametrize('spelling', ['acc', 'accuracy', 'val_acc', 'val_accuracy'])
def test_monitors_find_each_other(spelling):
    stop = kc.EarlyStopping(spelling, patience=50)
    make(cbs=stop).fit(2)
    assert stop.mode == 'max' and 0 <= stop.best <= 1


@pytest.mark.parametrize('make_cb', [
    lambda path: kc.EarlyStopping('val_los'), lambda path: kc.ReduceLROnPlateau('val_los'),
    lambda path: kc.ModelCheckpoint(path/'x', 'val_los', save_best_only=True),
    lambda path: kc.EarlyStopping('other')])
def test_a_missing_name_is_one_warning(make_cb, tmp_path):
    learn, cb = make(), make_cb(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        learn.fit(3, cbs=cb)
    assert len(caught) == 1 and type(cb).__name__ in str(caught[0].message)
    assert len(learn.recorder.values) == 3 and not list(tmp_path.iterdir())
    if cb.monitor == 'val_los': assert "did you mean 'val_loss'" in str(caught[0].message)


def test_which_way_is_better():
    for name in 'val_loss loss mse val_mae hinge categorical_crossentropy poisson'.split():
        assert metric_direction(name) == 'min'
    for name in 'acc val_acc sparse_categorical_accuracy auc recall f1_score val_fmeasure'.split():
        assert metric_direction(name) == 'max'
    assert metric_direction('mine') is None
    def mine(pred, yb): return pred.mean()
    with pytest.raises(ValueError, match="mode='min'"):
        make(metrics=mine).fit(1, cbs=kc.EarlyStopping('val_mine'))
    make(metrics=mine).fit(1, cbs=kc.EarlyStopping('val_mine', mode='max'))


@pytest.mark.parametrize('call, word', [
    (lambda: kc.EarlyStopping(mode='maximum'), 'maximum'), (lambda: kc.EarlyStopping(patience=-1),
                                                           'patience'),
    (lambda: kc.ReduceLROnPlateau(factor=2.), 'factor=2.0'), (lambda: kc.ReduceLROnPlateau(
        mode='up'), 'up'), (lambda: kc.ModelCheckpoint('a{'), 'encountered'),
    (lambda: kc.ModelCheckpoint('a', period=0), 'period=0'), (lambda: kc.ModelCheckpoint(
        'a', save_freq='batch'), 'save_freq'), (lambda: kc.ProgbarLogger('batches'), 'samples'),
    (lambda: kc.CSVLogger('a', ',,'), 'separator'), (lambda: kc.RemoteMonitor('nowhere'), 'root'),
    (lambda: kc.TensorBoard(update_freq='never'), 'update_freq')])
def test_bad_arguments(call, word):
    with pytest.raises(ValueError, match=word): call()


def test_more_bad_arguments():
    with pytest.raises(TypeError, match='schedule'): kc.LearningRateScheduler(.1)
    with pytest.raises(TypeError, match='on_epoch_end'): kc.LambdaCallback(on_epoch_end=3)
    with pytest.raises(UnknownEvent, match='on_epoch_end'):
        kc.LambdaCallback(on_epoch_ends=lambda e, logs: None)
    for bad in (lambda e: 'x', lambda e: None, lambda e: -1., lambda e: float('nan')):
        with pytest.raises(ValueError, match='no learning rate'):
            make().fit(1, cbs=kc.LearningRateScheduler(bad))


def test_two_masters_of_the_rate_are_refused():
    with pytest.raises(ValueError, match='both set the learning rate'):
        make().fit(1, cbs=[kc.ReduceLROnPlateau(), OneCycleScheduler(lr_max=.1)])


# ---- files ---------------------------------------------------------------------------------------
def test_names_of_checkpoints(tmp_path):
    cb = kc.ModelCheckpoint(str(tmp_path/'sub'/'weights.{epoch:02d}-{val_loss:.2f}.hdf5'))
    learn = make(cbs=cb)
    learn.fit(3)
    rows = enumerate(learn.recorder.values, 1)
    wanted = [f'weights.{i:02d}-{row[1]:.2f}.hdf5' for i, row in rows]
    assert sorted(o.name for o in (tmp_path/'sub').iterdir()) == wanted
    with pytest.raises(KeyError, match='val_los'):
        make().fit(1, cbs=kc.ModelCheckpoint(tmp_path/'{val_los}'))


def test_checkpoints_of_some_epochs_and_batches(tmp_path):
    make().fit(5, cbs=[kc.ModelCheckpoint(str(tmp_path/'p{epoch}'), period=2),
                       kc.ModelCheckpoint(str(tmp_path/'b{epoch}-{batch}'), save_freq=4)])
    assert sorted(o.name for o in tmp_path.iterdir()) == [
        'b1-4', 'b2-2', 'b2-6', 'b3-4', 'b4-2', 'b4-6', 'b5-4', 'p2', 'p4']


def test_the_best_checkpoint_only(tmp_path, capsys):
    cb = kc.ModelCheckpoint(tmp_path/'best', verbose=1, save_best_only=True, save_weights_only=True)
    learn = make()
    learn.fit(8, 2., cbs=cb)
    losses = [o[1] for o in learn.recorder.values]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and 'Epoch 1: val_loss improved from None to' in lines[0]
    assert sum('improved from' in o for o in lines) == sum(
        v < min([float('inf'), *losses[:i]]) for i, v in enumerate(losses))
    again = make()
    again.create_opt()
    LearnerView(again).load_weights(tmp_path/'best')
    assert again.validate()[0] == pytest.approx(min(losses), rel=1e-4)
    drive(cb, [first := cb.best/2, first*2])
    drive(cb, [first*2])  # the best value is remembered from one fit to the next
    assert cb.best == first
    none = kc.ModelCheckpoint(tmp_path/'never', save_best_only=True, initial_value_threshold=0.)
    make().fit(1, cbs=none)
    assert not (tmp_path/'never').exists()


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(OSError): make().fit(2, cbs=kc.ModelCheckpoint(tmp_path/'file'/'x'))
    cb, path = kc.ModelCheckpoint(str(tmp_path/'e{epoch}')), tmp_path/'e2'
    path.mkdir()  # a folder stands where the second file should be
    learn = make()
    with pytest.warns(UserWarning, match='training goes on'): learn.fit(3, cbs=cb)
    assert (tmp_path/'e3').is_file() and len(learn.recorder.values) == 3


def test_csv_has_keras_columns(tmp_path):
    path = tmp_path/'sub'/'log.csv'
    learn = make()
    learn.fit(2, cbs=kc.CSVLogger(path))
    def read():
        with open(path) as f: return list(csv.reader(f))
    rows = read()
    assert rows[0] == ['epoch', 'accuracy', 'loss', 'val_accuracy', 'val_loss']
    assert [float(o[4]) for o in rows[1:]] == [o[1] for o in learn.recorder.values]
    make().fit(1, cbs=kc.CSVLogger(path, append=True))
    assert [o[0] for o in read()[1:]] == ['0', '1', '0']
    make().fit(1, cbs=kc.CSVLogger(path))
    assert len(read()) == 2
    with pytest.raises(ValueError, match='append'):
        make(metrics=[]).fit(1, cbs=kc.CSVLogger(path, append=True))
    class Adds(kc.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch: logs['late'] = 1.
    make().fit(2, cbs=[Adds(), kc.CSVLogger(path, ';')])
    text = path.read_text().splitlines()
    assert text[0].endswith(';late') and text[1].endswith(';NA') and text[2].endswith(';1.0')


def test_a_csv_file_is_kept_until_there_is_something_new(tmp_path):
    (tmp_path/'log').write_text('old')
    def fails(batch, logs): raise ValueError('broken')
    with pytest.raises(ValueError):
        make().fit(1, cbs=[kc.CSVLogger(tmp_path/'log'), kc.LambdaCallback(on_batch_end=fails)])
    assert (tmp_path/'log').read_text() == 'old'


@pytest.mark.parametrize('make_cb', [
    lambda p: kc.EarlyStopping(patience=9, restore_best_weights=True),
    lambda p: kc.ReduceLROnPlateau(patience=1), lambda p: kc.History(),
    lambda p: kc.ModelCheckpoint(p/'best', save_best_only=True)])
def test_states_can_be_saved_and_loaded(make_cb, tmp_path):
    one, other = make_cb(tmp_path), make_cb(tmp_path)
    make().fit(3, cbs=one)
    torch.save(one.state_dict(), tmp_path/'state')
    other.load_state_dict(torch.load(tmp_path/'state', weights_only=True))
    a, b = one.state_dict(), other.state_dict()
    assert str(a) == str(b)
    other.set_model(ModelView())
    other.model.opt = torch.optim.SGD([torch.zeros(1)], lr=1.)
    other.on_train_begin()
    assert str(other.state_dict()) == str(a)  # the fit that follows goes on
    if hasattr(other, 'run_over'): other.run_over()
    other.on_train_begin()
    if not isinstance(one, kc.ModelCheckpoint): assert str(other.state_dict()) != str(a)


# ---- servers, event files, lines -----------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args): pass


@pytest.fixture
def server():
    res = HTTPServer(('127.0.0.1', 0), Handler)
    res.got = []
    threading.Thread(target=res.serve_forever, daemon=True).start()
    yield res
    res.shutdown()
    res.server_close()


def test_remote_monitor_sends_what_keras_sends(server):
    root = f'http://127.0.0.1:{server.server_port}'
    learn = make()
    cbs = [kc.RemoteMonitor(root), kc.RemoteMonitor(root, '/in/', headers={'X-Key': 'k'},
                                                    send_as_json=True)]
    learn.fit(2, cbs=cbs)
    assert all(cb.flush(30) for cb in cbs)
    form = [json.loads(parse_qs(body.decode())['data'][0]) for path, _, body in server.got
            if path == '/publish/epoch/end/']
    bare = [(headers, json.loads(body)) for path, headers, body in server.got if path == '/in/']
    assert [o['epoch'] for o in form] == [0, 1] and form[0]['val_loss'] == pytest.approx(
        learn.recorder.values[0][1])
    assert [o for _, o in bare] == form and bare[0][0]['X-Key'] == 'k'


def test_a_dead_server_costs_one_warning():
    cb = kc.RemoteMonitor('http://127.0.0.1:9')
    with pytest.warns(UserWarning, match='did not take a row') as caught:
        make().fit(3, cbs=cb)
        cb.flush(30)
    assert len(caught) == 1


def test_tensorboard_writes_what_its_reader_reads(tmp_path):
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    cb = kc.TensorBoard(str(tmp_path/'tb'), 1, True, True, True, update_freq='batch')
    learn = make(cbs=[kc.ReduceLROnPlateau(patience=1), cb])
    learn.fit(2)
    events = reader.EventAccumulator(str(tmp_path/'tb')).Reload()
    assert set(events.Tags()['scalars']) == {'loss', 'accuracy', 'val_loss', 'val_accuracy',
                                             'learning_rate'}
    assert [(o.step, o.value) for o in events.Scalars('val_loss')] == [
        (i, pytest.approx(row[1])) for i, row in enumerate(learn.recorder.values)]
    assert 'weights/0.weight' in events.Tags()['histograms'] and events.Tags()['images']
    assert 'gradients/0.weight' in events.Tags()['histograms'] and events.Tags()['graph']
    batches = reader.EventAccumulator(str(tmp_path/'tb'/'batches')).Reload()
    assert len(batches.Scalars('batch/loss')) == 12
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_event_files_are_closed_when_a_fit_breaks(tmp_path, error):
    pytest.importorskip('tensorboard')
    def fails(batch, logs):
        if batch == 3: raise error('broken')
    cb = kc.TensorBoard(tmp_path, histogram_freq=1)
    threads = threading.active_count()
    learn = make(cbs=[cb, kc.LambdaCallback(on_batch_end=fails)])
    with pytest.raises(error): learn.fit(1)
    assert cb.files is None and threading.active_count() == threads
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())


def test_progbar_lines(capsys):
    make().fit(2, cbs=kc.ProgbarLogger('steps', 'plain'))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'Epoch 1/2' and lines[1].startswith('6/6 - loss: 1.')
    assert len(lines) == 4 and 'val_accuracy: ' in lines[3]


def test_lines_of_trackers_go_above_the_bar(capsys):
    class Shows(ProgressCallback):
        def show_line(self, line): self.lines = [*getattr(self, 'lines', []), line]
    shows = Shows(mode='plain')
    make().fit(30, 2., cbs=[shows, kc.EarlyStopping(verbose=1)])
    assert any(o.startswith('Epoch ') and 'early stopping' in o for o in shows.lines)
    assert 'early stopping' not in capsys.readouterr().out


def test_nan_ends_training_and_the_epoch_is_completed(capsys):
    rec = Records()
    learn = make(cbs=[stop := kc.TerminateOnNaN(), rec])
    learn.fit(3, 1e38)
    assert learn.n_iter < 5 and len(learn.recorder.values) == 1
    assert rec.names()[-2:] == ['on_epoch_end', 'on_train_end']
    line = f'Batch {stop.stopped_at[1]}: the loss is {stop.bad_loss}, training is ended\n'
    assert capsys.readouterr().out == line
    with pytest.raises(RuntimeError, match='nan|inf'):
        make().fit(3, 1e38, cbs=kc.TerminateOnNaN(raise_error=True))
    by_hand, model = kc.TerminateOnNaN(), ModelView()
    by_hand.set_model(model)
    by_hand.on_batch_end(0, {'loss': 1.})
    assert not model.stop_training
    by_hand.on_batch_end(1, {'loss': float('inf')})
    assert model.stop_training


def test_lambdas_have_the_places_of_the_documentation():
    calls = []
    def note(name): return lambda *args: calls.append(name)
    names = ['epoch_begin', 'epoch_end', 'batch_begin', 'batch_end', 'train_begin', 'train_end']
    make().fit(1, cbs=kc.LambdaCallback(*map(note, names), on_test_begin=note('test')))
    assert calls == ['train_begin', 'epoch_begin', *['batch_begin', 'batch_end']*6, 'test',
                     'epoch_end', 'train_end']
    seen = []
    note = kc.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(logs['loss']))
    make().fit(1, cbs=note)
    assert len(seen) == 6


def test_base_logger_by_hand():
    base = kc.BaseLogger()
    cbs, logs = kc.CallbackList([base]), Logs(known=1.)
    cbs.on_epoch_begin(0)
    for size, loss in ((3, 1.), (1, 5.)):
        cbs.on_train_batch_begin(0, {'size': size})
        cbs.on_train_batch_end(0, {'loss': loss, 'known': 7.})
    cbs.on_epoch_end(0, logs)
    assert logs == {'known': 1., 'loss': 2.}


def test_callback_list_by_hand():
    cbs = kc.CallbackList([rec := Records()], add_history=True, add_progbar=True, verbose=0)
    assert [type(o).__name__ for o in cbs.callbacks] == ['Records', 'History', 'ProgbarLogger']
    cbs.append(Foreign())
    cbs.set_model(model := ModelView())
    cbs.on_train_begin()
    cbs.on_epoch_begin(0)
    cbs.on_train_batch_end(0, {'loss': torch.tensor(.5)})
    cbs.on_epoch_end(0, {'loss': np.float32(.5)})
    cbs.on_train_end()
    assert cbs.callbacks[3].seen == [(0, .5), ('epoch', 0)]
    assert model.history is cbs.callbacks[1] and model.history.history == {'loss': [.5]}
    assert rec.params == {'verbose': 0} and type(rec.logs('on_epoch_end')[0]['loss']) is float


def test_schedules_of_one_and_two_arguments():
    rates = []
    note = kc.LambdaCallback(on_epoch_begin=lambda e, logs: rates.append(learn.opt.lr))
    learn = make()
    learn.fit(3, 1., cbs=[kc.LearningRateScheduler(lambda epoch: 1/(epoch+1)), note])
    learn.fit(3, 1., cbs=[kc.LearningRateScheduler(lambda epoch, rate: rate/2), note,
                          h := kc.History()])
    assert rates == [1, 1/2, 1/3, 1/2, 1/4, 1/8] and h.history['learning_rate'] == rates[3:]


def test_a_callback_used_twice():
    stop, history = kc.EarlyStopping(patience=1), kc.History()
    for _ in range(2):
        make().fit(30, 2., cbs=[stop, history])
        assert len(history.history['loss']) == len(history.epoch) == stop.stopped_epoch+1


def test_attached_in_the_middle_of_a_fit():
    class Adds(Callback):
        def after_epoch(self):
            if self.epoch == 0: self.learn.add_cbs(late)
    late = Records()
    make(cbs=Adds()).fit(2)
    assert late.names().count('on_epoch_end') == 1 and late.model is not None


def test_hooks_of_keras_and_native_events_in_one_run():
    trace, rec = TraceCallback(), Records()
    make(cbs=[trace, rec]).fit(1)
    assert trace.events.count('after_batch') == rec.names().count('on_batch_end') + rec.names(
        ).count('on_test_batch_end')


def test_with_the_verbs_of_the_learner(tmp_path):
    learn = make(cbs=[h := kc.History(), kc.ModelCheckpoint(tmp_path/'{epoch}')])
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.lr_find(num_it=12, show_plot=False)  # no file, and no history
    assert not list(tmp_path.iterdir()) and not h.history
    assert all(map(torch.equal, before, learn.model.parameters()))
    learn.mixup()
    learn.fit_one_cycle(2, .1)
    assert len(list(tmp_path.iterdir())) == 2 and len(h.history['val_loss']) == 2
    learn.explain()


def test_an_error_at_the_end_of_one_does_not_keep_the_others_from_tidying_up(tmp_path):
    pytest.importorskip('tensorboard')
    class Fails(kc.Callback):
        def run_over(self): raise ValueError('broken')
    with pytest.raises(ValueError, match='broken'):
        make(cbs=[Fails(), board := kc.TensorBoard(tmp_path)]).fit(1)
    assert board.files is None


def test_a_loop_by_hand_finds_what_callbacks_add_to_its_logs():
    class Adds(kc.Callback):
        def on_epoch_end(self, epoch, logs=None): logs['mine'], logs['loss'] = 7., -1.
    cbs, logs = kc.CallbackList([kc.BaseLogger(), Adds()]), {'seen': torch.tensor(1.)}
    cbs.set_params({'epochs': 1, 'metrics': ['loss']})
    cbs.on_train_begin()
    cbs.on_epoch_begin(0)
    for size, loss in ((3, 2.), (1, 6.)):
        cbs.on_batch_begin(0, {'size': size})
        cbs.on_batch_end(0, {'size': size, 'loss': loss})
    cbs.on_epoch_end(0, logs)
    assert logs['mine'] == 7. and logs['loss'] == -1. and torch.is_tensor(logs['seen'])
    only = kc.CallbackList([kc.BaseLogger()])
    only.on_epoch_begin(0)
    for size, loss in ((3, 2.), (1, 6.)): only.on_batch_end(0, {'size': size, 'loss': loss})
    only.on_epoch_end(0, means := {})
    assert means == {'loss': 3.}  # (3*2 + 1*6)/4


def test_who_needs_no_model_is_driven_without_one(tmp_path):
    history, path = kc.History(), tmp_path/'a.csv'
    cbs = kc.CallbackList([kc.BaseLogger(), history, kc.CSVLogger(path), kc.ProgbarLogger()])
    cbs.on_train_begin()
    for epoch in range(2):
        cbs.on_epoch_begin(epoch)
        for batch, size in enumerate((3, 1)):
            cbs.on_batch_begin(batch, {'size': size})
            cbs.on_batch_end(batch, {'size': size, 'loss': 4.*batch})
        cbs.on_epoch_end(epoch, {'val_loss': 2.})
    cbs.on_train_end()
    assert history.history == {'val_loss': [2., 2.], 'loss': [1., 1.]} and history.epoch == [0, 1]
    assert path.read_text().splitlines() == ['epoch,loss,val_loss', '0,1.0,2.0', '1,1.0,2.0']


@pytest.mark.parametrize('cb, text', [
    (kc.EarlyStopping(patience=3, mode='min'), "EarlyStopping(patience=3, mode='min')"),
    (kc.CSVLogger('a.csv', ';'), "CSVLogger(filename='a.csv', separator=';')"),
    (kc.RemoteMonitor(headers={'X': 'secret'}), 'RemoteMonitor'), (kc.History(), 'History')])
def test_repr_tells_the_settings(cb, text): assert repr(cb) == text
