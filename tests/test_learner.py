"The learner: what it is made of, what it saves, what it refuses, and what it answers"
import copy
import errno
import io
import os
import pickle
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastloop import core
from fastloop.callback.core import Callback, TraceCallback
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.recorder import Recorder
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner
from fastloop.metric_functions import error_rate
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, AdamW, OptimWrapper
from fastloop.predictions import unreduced
from fastloop.runner import Runner, TrainEvalCallback
from fastloop.torch_core import evaluating
from fastloop.train import fit_one_cycle  # noqa: F401  its room hangs the verbs on the learner


def make_data(n=50, n_valid=23, bs=8, path='.'):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n + n_valid, 4, generator=g)
    y = x[:, :3].argmax(1)
    return DataBunch.from_tensors(x[:n], y[:n], x[n:], y[n:], bs=bs, seed=0, device='cpu',
                                  path=path)


def net(bn=False):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if bn else []), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*layers)


def make(bn=False, path='.', **kwargs):
    kwargs = dict(metrics=accuracy, silent=True) | kwargs
    return Learner(make_data(path=path), net(bn), **kwargs)


def weights(model): return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_signature():
    import inspect
    got = {k: p.default for k, p in inspect.signature(Learner).parameters.items()}
    for name, default in dict(loss_func=None, opt_func=AdamW, lr=1e-3, splitter=None, cbs=None,
                              callback_fns=None, metrics=None, path=None, model_dir='models',
                              wd=1e-2, true_wd=True, bn_wd=True, train_bn=True, silent=None
                              ).items():
        assert got[name] == default, name
    assert list(inspect.signature(Learner.fit).parameters) == \
        'self epochs lr wd cbs callbacks reset_opt resume'.split()


def test_equals_torch_written_out():
    learn = make()
    learn.fit(3, lr=1e-2)
    data, model = make_data(), net()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(.9, .99), weight_decay=1e-2)
    for _ in range(3):
        for xb, yb in data.train_dl:
            F.cross_entropy(model(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    for a, b in zip(learn.model.parameters(), model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_rows_are_means_over_samples():
    learn = make(metrics=[accuracy, error_rate])
    seen = []
    class Note(Callback):
        def after_loss(self):
            if self.in_train: seen.append((self.loss.item(), len(self.yb)))
    learn.fit(1, cbs=Note)
    x, y = learn.data.valid_ds.tensors
    with torch.no_grad(): pred = learn.model.eval()(x)
    train = sum(loss*n for loss, n in seen)/sum(n for _, n in seen)
    assert {n for _, n in seen} == {8, 2}  # a short last batch
    assert learn.recorder.values[0] == pytest.approx([
        train, F.cross_entropy(pred, y).item(), accuracy(pred, y).item(),
        1-accuracy(pred, y).item()], rel=1e-5)
    assert learn.recorder.names == ['train_loss', 'valid_loss', 'accuracy', 'error_rate']
    assert learn.validate() == pytest.approx(learn.recorder.values[0][1:], rel=1e-6)
    assert f'{learn.recorder.metrics[0]:.4f}' == f'{learn.recorder.values[0][2]:.4f}'


def test_an_epoch_without_validation_has_none():
    data = make_data()
    data.valid_dl = None
    learn = Learner(data, net(), metrics=accuracy, loss_func=F.cross_entropy, silent=True)
    learn.fit(2)
    assert [row[1:] for row in learn.recorder.values] == [[None, None]]*2
    assert learn.recorder.val_losses == [] and learn.recorder.nb_batches == [7, 7]
    with pytest.raises(ValueError, match='no validation loader'): learn.validate()
    assert len(learn.validate(make_data().valid_dl)) == 2


def test_default_loss():
    assert make(loss_func=None).loss_func is F.cross_entropy
    x = torch.randn(9, 2)
    data = DataBunch.from_tensors(x, x[:, :1], x, x[:, :1], bs=3, device='cpu')
    assert Learner(data, nn.Linear(2, 1), silent=True).loss_func is F.mse_loss
    odd = DataBunch([(x, {'a': x})], None, device='cpu')
    with pytest.raises(ValueError, match='loss_func'): Learner(odd, nn.Linear(2, 1))


def test_choosing_the_loss_does_not_disturb_the_order_of_the_data():
    a, b = make_data(), make_data()
    Learner(a, net(), silent=True)
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(a.train_dl, b.train_dl))


def test_state_of_the_latest_run():
    learn = make(cbs=TraceCallback)
    assert learn.epoch == 0 and learn.loss is None
    with pytest.raises(AttributeError, match='nothing_like_it'): learn.nothing_like_it  # noqa: B018
    learn.fit(2)
    assert learn.epoch == 1 and learn.n_iter == 14 and learn.loss is learn.run.loss
    assert learn.trace is learn.cbs[0] and learn.trace_callback is learn.trace
    class Extra(Callback): pass
    learn.fit(1, callbacks=[extra := Extra()])
    assert learn.extra is extra and extra not in learn.cbs
    learn.fit(1, cbs=TraceCallback())
    with pytest.raises(AttributeError): learn.extra  # noqa: B018
    assert copy.deepcopy(learn).n_iter == learn.n_iter


def test_writing_the_state_through_the_learner():
    class Half(Callback):
        def after_loss(self): self.learn.loss = self.learn.loss*0
    learn = make(cbs=Half, wd=0., opt_func=SGD)
    before = weights(learn.model)
    learn.fit(1)
    assert same(before, weights(learn.model)) and learn.loss == 0


def test_callbacks_come_and_go():
    learn = make(callback_fns=[partial(lambda learn, n: Named(learn, n), n=3)])
    assert learn.named.n == 3 and learn.named.learn is learn
    with learn.added_cbs(TraceCallback) as same_learn:
        assert same_learn is learn and learn.trace
    assert not hasattr(learn, 'trace')
    learn.remove_cb(learn.named)
    assert [type(cb) for cb in learn.cbs] == [TrainEvalCallback, Recorder]
    for bad in ('ModelCallback', 'FitCallback', 'LrCallback', 'EpochCallback'):
        with pytest.raises(ValueError, match='would hide'): learn.add_cb(type(bad, (Callback,), {}))
    for fine in ('Checkpoint', 'ExportCallback', 'Compile'):  # verbs are hung on, and stay
        learn.add_cb(cb := type(fine, (Callback,), {})())
        assert callable(learn.checkpoint) and getattr(learn, cb.name) is cb, cb.name
        learn.fit(1)


class Named(Callback):
    def __init__(self, learn=None, n=0):
        super().__init__(learn)
        self.n = n


def test_a_callback_can_be_added_in_the_middle_of_a_fit():
    class Adds(Callback):
        def after_epoch(self):
            if self.epoch == 0: self.learn.add_cb(TraceCallback())
    learn = make(cbs=Adds)
    learn.fit(2)
    assert learn.trace.events[0] == 'after_fit' or 'begin_epoch' in learn.trace.events


def test_a_users_recorder_does_not_displace_the_loops_own():
    class Mine(Callback):
        name = 'recorder'
    learn = make(cbs=Mine)
    learn.fit(1)
    from fastloop.callback.recorder import find_recorder
    assert type(learn.recorder) is Mine and len(find_recorder(learn).values) == 1


def test_hyper_parameters_of_each_fit():
    learn = make(opt_func=partial(SGD, momentum=.9))
    learn.fit(1, lr=.5, wd=.25)
    assert (learn.opt.lr, learn.opt.wd, learn.opt.mom) == (.5, .25, .9)
    learn.opt.mom = .3
    opt = learn.opt
    learn.fit(1)
    assert (learn.opt.lr, learn.opt.wd, learn.opt.mom) == (1e-3, 1e-2, .9) and learn.opt is opt
    learn.fit(1, reset_opt=True)
    assert learn.opt is not opt


def groups_of(model): return [model[:1], model[1:]]


def test_layer_groups_and_rates():
    learn = make(splitter=groups_of, opt_func=SGD)
    learn.fit(1, lr=slice(1e-4, 1e-2))
    assert [g['lr'] for g in learn.opt.param_groups[::2]] == pytest.approx([1e-4, 1e-2])
    learn.fit(1, lr=slice(1e-2))
    assert [g['lr'] for g in learn.opt.param_groups[::2]] == pytest.approx([1e-3, 1e-2])
    learn.fit(1, lr=[.1, .2])
    assert [g['lr'] for g in learn.opt.param_groups[::2]] == [.1, .2]
    three = make(layer_groups=[[o] for o in net()], opt_func=SGD)
    assert three.lr_range(slice(1e-5, 1e-3)) == pytest.approx([1e-5, 1e-4, 1e-3])
    flat = make(splitter=lambda m: [list(m[0].parameters()), list(m[2].parameters())])
    flat.freeze()
    assert [p.requires_grad for p in flat.model.parameters()] == [False, False, True, True]


def test_freezing():
    learn = make(bn=True, splitter=lambda m: [m[:2], m[2:]])
    learn.freeze()
    wanted = [p.requires_grad for p in learn.model.parameters()]
    assert wanted == [False, False, True, True, True, True]  # batch norm goes on
    frozen = make(bn=True, splitter=lambda m: [m[:2], m[2:]], train_bn=False)
    frozen.freeze_to(1)
    assert [p.requires_grad for p in frozen.model.parameters()] == [False]*4 + [True]*2
    before = weights(frozen.model)
    frozen.fit(1)
    assert torch.equal(before['0.weight'], frozen.model[0].weight)
    frozen.unfreeze()
    assert all(p.requires_grad for p in frozen.model.parameters())
    frozen.fit(1)
    assert not torch.equal(before['0.weight'], frozen.model[0].weight)
    for n in (2, -3):
        with pytest.raises(ValueError, match=rf'freeze_to\({n}\)'): frozen.freeze_to(n)
    with pytest.raises(ValueError, match='one layer group'): make().freeze()


# files

def test_save_and_load(tmp_path):
    learn = make(path=tmp_path)
    learn.fit(1)
    file = learn.save('first')
    assert file == tmp_path/'models'/'first.pth' and os.listdir(file.parent) == ['first.pth']
    kept, state = weights(learn.model), copy.deepcopy(learn.opt.state_dict())
    learn.fit(1)
    learn.load('first')
    assert same(kept, weights(learn.model))
    other = make(path=tmp_path).load('first')
    assert same(kept, weights(other.model))
    assert str(other.opt.state_dict()['state']) == str(state['state'])
    assert other.load('first', with_opt=False) is other


def test_a_bare_state_dict_can_be_loaded(tmp_path):
    learn = make(path=tmp_path)
    (tmp_path/'models').mkdir()
    torch.save(net().state_dict(), tmp_path/'models'/'bare.pth')
    nn.init.zeros_(learn.model[0].weight)
    learn.load('bare')
    assert same(weights(learn.model), weights(net()))


@pytest.mark.parametrize('name', ['../out', '/tmp/out', 'a/../../out', '', '..'])
def test_names_that_leave_the_folder(tmp_path, name):
    learn = make(path=tmp_path)
    for verb in (learn.save, learn.load):
        with pytest.raises(ValueError): verb(name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_another_architecture(tmp_path):
    learn = make(path=tmp_path, bn=True)
    learn.save('bn')
    plain = make(path=tmp_path)
    before = weights(plain.model)
    with pytest.raises(ValueError, match='another architecture.*missing in the file: 2.weight.*'
                                         'not in the model: 1.weight'): plain.load('bn')
    assert same(before, weights(plain.model))
    plain.model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))
    make(path=tmp_path).save('small')
    with pytest.raises(ValueError, match=r'0.weight: \(6, 4\) in the file, \(7, 4\) in the model'):
        plain.load('small', strict=False)


class Evil:
    def __reduce__(self): return (os.mkdir, ('evil-was-here',))


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = make(path=tmp_path)
    (tmp_path/'models').mkdir()
    torch.save({'model': Evil()}, tmp_path/'models'/'evil.pth')
    (tmp_path/'models'/'raw.pth').write_bytes(pickle.dumps(Evil()))
    for name in ('evil', 'raw'):
        with pytest.raises(ValueError, match='refused'): learn.load(name)
    assert not (tmp_path/'evil-was-here').exists()


def test_damaged_and_missing_files(tmp_path):
    learn = make(path=tmp_path)
    file = learn.save('good')
    file.with_name('cut.pth').write_bytes(file.read_bytes()[:-200])
    file.with_name('empty.pth').write_bytes(b'')
    for name in ('cut', 'empty'):
        with pytest.raises(ValueError, match='damaged|refused'): learn.load(name)
    with pytest.raises(FileNotFoundError, match='there is: cut, empty, good'): learn.load('best')


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    learn = make(path=tmp_path)
    old = learn.save('one').read_bytes()
    def fail(state, f):
        f.write(b'half')
        raise OSError('disk full')
    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'): learn.save('one')
    assert (tmp_path/'models'/'one.pth').read_bytes() == old
    assert os.listdir(tmp_path/'models') == ['one.pth']


def test_an_optimizer_that_does_not_fit_starts_anew(tmp_path):
    learn = make(path=tmp_path)
    learn.fit(1)
    learn.save('one')
    two = make(path=tmp_path, splitter=groups_of)
    with pytest.warns(UserWarning, match='starts anew'): two.load('one')
    assert same(weights(learn.model), weights(two.model))
    two.fit(1)


# answers

def test_get_preds_and_validate_leave_the_learner_alone():
    learn = make(bn=True, cbs=TraceCallback)
    learn.fit(1)
    before, run, events = weights(learn.model), learn.run, list(learn.trace.events)
    place = learn.data.train_dl.state_dict()
    preds, targets = learn.get_preds()
    learn.validate()
    assert learn.run is run and learn.trace.events == events and same(before, weights(learn.model))
    assert learn.data.train_dl.state_dict() == place and learn.model.training
    x, y = learn.data.valid_ds.tensors
    with evaluating(learn.model): torch.testing.assert_close(preds, learn.model(x))
    assert torch.equal(targets, y) and not preds.requires_grad


def test_get_preds_with_loss_and_another_loader():
    learn = make()
    dl = DataLoader(TensorDataset(*learn.data.train_ds.tensors), batch_size=7)
    preds, targets, losses = learn.get_preds(dl, with_loss=True)
    assert len(preds) == len(losses) == 50
    torch.testing.assert_close(losses, F.cross_entropy(preds, targets, reduction='none'))
    learn.loss_func = nn.CrossEntropyLoss(label_smoothing=.1)
    torch.testing.assert_close(learn.get_preds(dl, True)[2].mean(), learn.loss_func(preds, targets))
    assert learn.loss_func.reduction == 'mean'
    with pytest.raises(ValueError, match='no batches'): learn.get_preds([])
    with pytest.raises(ValueError, match='reduction'): unreduced(lambda p, y: 0)


def test_predict():
    learn = make()
    x = learn.data.valid_ds.tensors[0]
    with evaluating(learn.model): want = learn.model(x).softmax(1)
    for item in (x[3], x[3].numpy()):
        name, number, probs = learn.predict(item)
        assert name == int(number) == int(want[3].argmax())
        torch.testing.assert_close(probs, want[3])
    learn.data.train_ds.classes = ['a', 'b', 'c']
    assert learn.predict(x[3])[0] == 'abc'[int(number)]
    learn.loss_func = F.mse_loss
    assert torch.equal(learn.predict(x[0])[0], learn.predict(x[0])[2])


# what it prints

def test_silence(capsys):
    make(silent=True).fit(2)
    loud = make(silent=False)
    with loud.no_bar(): loud.fit(1)
    out = capsys.readouterr()
    assert out.out == out.err == ''
    loud.fit(1)
    assert 'train_loss' in capsys.readouterr().out
    assert any(isinstance(cb, ProgressCallback) for cb in loud.cbs)


def test_no_bar_comes_back_after_a_failure(capsys):
    learn = make(silent=False)
    with pytest.raises(ZeroDivisionError), learn.no_bar(): 1/0  # noqa: B018
    assert sum(isinstance(cb, ProgressCallback) for cb in learn.cbs) == 1


@pytest.mark.parametrize('verb', ['show_training_loop', 'explain'])
def test_the_learner_explains_its_loop(verb):
    class Scale(Callback):
        order = 3
        def after_loss(self): self.run.loss = self.loss*2
    class Old:
        def on_backward_begin(self, last_loss, **kwargs): return {'last_loss': last_loss/2}
    learn = make(cbs=[Scale, Old()])
    with redirect_stdout(io.StringIO()) as out: assert getattr(learn, verb)() is None
    lines = [' '.join(line.split()) for line in out.getvalue().splitlines()]
    at = [i for i, line in enumerate(lines) if 'Scale.after_loss' in line and 'order 3' in line]
    assert at and 'fastloop' in lines[at[0]]
    assert any('Recorder.after_loss' in line and 'order -10' in line for line in lines[:at[0]])
    assert any('Old.on_backward_begin' in line and 'fastai v1' in line for line in lines)


# ---- a loop of one's own -------------------------------------------------------------------------
class TwoSteps(Runner):
    "Two optimizer steps on every batch"
    def backward_and_step(self):
        super().backward_and_step()
        self.pred = self.model(self.xb)
        self.loss = self.compute_loss()
        super().backward_and_step()


def test_the_runner_of_a_learner_is_its_loop():
    learn, by_hand = make(runner=TwoSteps, opt_func=SGD, wd=0.), make(opt_func=SGD, wd=0.)
    learn.fit(1, lr=.1, cbs=[trace := TraceCallback()])
    assert type(learn.run) is TwoSteps and make().runner is Runner
    assert trace.events.count('after_step') == 2*len(learn.data.train_dl)
    opt = torch.optim.SGD(by_hand.model.parameters(), lr=.1)
    for xb, yb in [o for o in by_hand.data.train_dl for _ in range(2)]:
        by_hand.loss_func(by_hand.model(xb), yb).backward()
        opt.step()
        opt.zero_grad()
    for a, b in zip(learn.model.parameters(), by_hand.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_every_verb_uses_the_runner():
    seen = []
    class Notes(Runner):
        def all_batches(self, dl):
            seen.append(self.in_train)
            super().all_batches(dl)
    learn = make(runner=Notes)
    for work, passes in ((learn.validate, 1), (learn.get_preds, 1), (lambda: learn.fit(1), 2),
                         (lambda: learn.fit_one_cycle(1), 2), (lambda: learn.lr_find(num_it=6), 1)):
        before = len(seen)
        work()
        assert len(seen) - before >= passes


@pytest.mark.parametrize('runner', [None, Runner(), Learner, 'Runner', lambda cbs: Runner(cbs)],
                         ids=lambda o: type(o).__name__)
def test_what_is_no_runner_is_refused(runner):
    with pytest.raises(TypeError, match='runner is a subclass of Runner'): make(runner=runner)


@pytest.mark.parametrize('verb, asked', [('validate', {}), ('get_preds', dict(with_loss=True))])
def test_the_first_batch_alone_is_checked(verb, asked, monkeypatch):
    calls, learn = [], make()
    import fastloop.first_batch as module
    real = module.first_loss
    monkeypatch.setattr(module, 'first_loss', lambda *args: calls.append(1) or real(*args))
    getattr(learn, verb)(learn.data.train_dl, **asked)
    assert len(learn.data.train_dl) > 1 and len(calls) == 1
    learn.fit(2)
    assert len(calls) == 2


def test_summary():
    text = make(bn=True).summary()
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][0] == 'Linear' and rows[2][0] == 'BatchNorm1d'
    assert f'{sum(p.numel() for p in net(bn=True).parameters())} parameters' in text
    assert repr(text) == str(text)


# failures

@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize('event', ['begin_fit', 'after_pred', 'after_backward', 'after_step',
                                   'begin_validate', 'after_epoch', 'after_fit'])
def test_the_learner_can_be_used_again_after_any_exit(event, error):
    class Fails(Callback):
        done = False
    def handler(self):
        if not self.done:
            self.done = True
            raise error
    setattr(Fails, event, handler)
    learn = make(cbs=Fails, bn=True)
    with pytest.raises(error): learn.fit(1)
    assert learn.model.training and not learn.running
    learn.fit(1)
    assert learn.exception is None and len(learn.recorder.values) == 1


def test_a_fit_begins_with_clean_gradients():
    class Fails(Callback):
        def after_backward(self): raise KeyError
    learn, clean = make(), make()
    learn.create_opt()
    with pytest.raises(KeyError): learn.fit(1, cbs=Fails)
    assert learn.model[0].weight.grad is not None
    learn.data.train_dl.set_epoch(0)
    learn.opt.clear()
    learn.fit(1)
    clean.fit(1)
    assert same(weights(learn.model), weights(clean.model))


def test_bad_fits():
    learn = make(cbs=TraceCallback)
    with pytest.raises(ValueError): learn.fit(-1)
    assert learn.trace.events == [] and learn.opt is None


def test_a_model_that_is_none():
    with pytest.raises(TypeError, match='model'): Learner(make_data(), lambda x: x)


def test_basic_learner_and_runner():
    model = net()
    learn = BasicLearner(model, torch.optim.SGD(model.parameters(), lr=.1), F.cross_entropy,
                         make_data())
    run = Runner(Recorder(metrics=accuracy))
    run.fit(2, learn)
    assert learn.n_iter == 14 and learn.recorder is run.recorder and len(run.recorder.values) == 2
    assert run.recorder.lrs[-1] == .1 and run.recorder.moms[-1] == 0
    assert SimpleNamespace(**vars(learn)).model is model


@pytest.mark.parametrize('torn', [b'torn', b'', b'PK\x03\x04', bytes(100)])
def test_torn_bytes_are_called_damaged(tmp_path, torn):
    learn = make(path=tmp_path)
    learn.save('a').write_bytes(torn)
    before = weights(learn.model)
    with pytest.raises(ValueError, match='a.pth'): learn.load('a')
    assert same(before, weights(learn.model))


# what is loaded is checked first, and what is written says what happened

@pytest.mark.parametrize('spoil, words', [
    (lambda s: [s], 'holds a list'), (lambda s: 3, 'holds a int'),
    (lambda s: s | {'model': {k: 3 for k in s['model']}}, 'in place of the tensor'),
    (lambda s: s | {'opt': [1]}, 'no state of an optimizer'),
    (lambda s: s | {'opt': {'state': {}, 'param_groups': 'x'}}, 'no state of an optimizer'),
    (lambda s: s | {'opt': s['opt'] | {'state': {0: {'exp_avg': 1.}}}}, 'should be a tensor')])
def test_a_file_that_is_half_good_changes_nothing(tmp_path, spoil, words):
    learn = make(path=tmp_path)
    learn.fit(1)
    file = learn.save('one')
    torch.save(spoil(torch.load(file)), file)
    other = make(path=tmp_path)
    other.fit(1)
    before, opt = weights(other.model), copy.deepcopy(other.opt.state_dict())
    with pytest.raises(ValueError, match=words): other.load('one')
    assert same(weights(other.model), before)
    assert str(other.opt.state_dict()) == str(opt)
    other.fit(1)


def test_averages_of_another_shape_are_not_taken_over(tmp_path):
    learn = make(path=tmp_path)
    learn.fit(1)
    file = learn.save('one')
    state = torch.load(file)
    state['opt']['state'][0]['exp_avg'] = torch.zeros(2)
    torch.save(state, file)
    with pytest.warns(UserWarning, match='starts anew.*exp_avg of parameter 0'): learn.load('one')
    learn.fit(1)


def test_nothing_that_fits_is_refused_without_strict_too(tmp_path):
    learn = make(path=tmp_path)
    (tmp_path/'models').mkdir()
    torch.save({'other.weight': torch.ones(1)}, tmp_path/'models'/'other.pth')
    with pytest.raises(ValueError, match='another architecture'): learn.load('other', strict=False)


def test_weights_of_compiled_models_load_into_plain_ones_and_back(tmp_path):
    plain = make(path=tmp_path)
    plain.fit(1)
    plain.save('plain')
    compiled = make(path=tmp_path)
    compiled.model = torch.compile(compiled.model, backend='eager')
    compiled.load('plain')
    assert same(weights(compiled.model._orig_mod), weights(plain.model))
    compiled.save('compiled')
    other = make(path=tmp_path)
    assert same(weights(other.load('compiled').model), weights(plain.model))


@pytest.mark.parametrize('name', [None, 3, ['a']])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    learn = make(path=tmp_path)
    for verb in (learn.save, learn.load):
        with pytest.raises(TypeError, match='is no name of a file'): verb(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('error, words', [
    (OSError(errno.ENOSPC, 'No space left on device'), 'The disk is full.*one.pth'),
    (KeyboardInterrupt(), None)])
def test_a_save_that_is_stopped_says_by_what(tmp_path, monkeypatch, error, words):
    learn = make(path=tmp_path)
    old = learn.save('one').read_bytes()
    class Disk(io.FileIO):
        def write(self, data):
            if self.tell() > 1000: raise error
            return super().write(data)
    class Failing(core._Watched, Disk): "A file on such a disk"
    monkeypatch.setattr(core, '_Watched', Failing)
    learn.model.add_module('big', nn.Linear(500, 500))
    with pytest.raises(type(error), match=words): learn.save('one')
    assert (tmp_path/'models'/'one.pth').read_bytes() == old


# ---- an optimizer that a callback puts in place, and rates in arrays -----------------------------
@pytest.mark.parametrize('event', ['begin_fit', 'begin_epoch', 'begin_batch', 'after_epoch'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_a_callback_may_change_the_optimizer_of_a_running_fit(event, wrapped):
    class Changes(Callback):
        done = False
        def change(self):
            if self.done or self.n_iter < 3*(event == 'begin_batch') or not self.in_train and \
                    event == 'begin_batch': return
            opt = torch.optim.SGD(self.model.parameters(), lr=.25, momentum=.5)
            self.done, self.learn.opt = True, OptimWrapper(opt) if wrapped else opt
    setattr(Changes, event, Changes.change)
    learn, cb = make(), Changes()
    learn.fit(2, .1, cbs=cb)
    assert cb.done and len(learn.recorder.lrs) == learn.n_iter
    if event != 'after_epoch': assert (learn.recorder.lrs[-1], learn.recorder.moms[-1]) == (.25, .5)
    learn.fit(1)


@pytest.mark.parametrize('make_rates', [np.array, torch.tensor, tuple, list])
def test_rates_of_layer_groups_may_come_in_an_array(make_rates):
    rates = make_rates([.25, .5])
    learn = make(splitter=lambda model: [model[:-1], model[-1:]])
    learn.fit(1, rates)
    assert learn.opt.read_val('lr') == [.25, .5]
    learn.fit_one_cycle(1, rates, div=2.)
    assert learn.recorder.lrs[0] == .25
    found = learn.lr_find(make_rates([1e-4, 1e-3]), 1., num_it=6, show_plot=False)
    assert found._fields
    with pytest.raises(ValueError, match='has 3 rates for 2 layer groups'):
        learn.fit(1, make_rates([.1, .2, .3]))


@pytest.mark.parametrize('spoil', [
    lambda t: t.to('meta'), lambda t: t.to_sparse(), lambda t: t.to(torch.complex64)])
def test_weights_without_numbers_change_nothing(tmp_path, spoil):
    "Everything is looked at before the first weight is copied"
    x, y = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
    data = DataBunch.from_tensors(x, y, bs=4, valid_pct=.5, seed=0, device='cpu')
    learn = Learner(data, nn.Linear(3, 2), F.cross_entropy, path=tmp_path, silent=True)
    learn.fit(1)
    file = learn.save('good')
    before = copy.deepcopy(learn.model.state_dict())
    weights = {k: v + 1 for k, v in before.items()}
    torch.save({**weights, 'bias': spoil(weights['bias'])}, file.with_name('bad.pth'))
    with pytest.raises(ValueError, match='bias'): learn.load('bad')
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, before[k])
    torch.save(weights, file.with_name('other.pth'))
    learn.load('other')
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, weights[k])


class Patience:
    "A callback of fastai v1 that keeps its count from `__init__` on"
    def __init__(self, learn, n=2): self.left, self.n = n, n

    def on_epoch_end(self, **kwargs):
        self.left -= 1
        return {'stop_training': self.left <= 0}


class Counted(Callback):
    "One of ours, which a function makes"
    def __init__(self, learn=None): self.count = 0
    def after_epoch(self): self.count += 1


@pytest.mark.parametrize('how', ['argument', 'appended'])
def test_callbacks_of_fastai_1_that_a_function_makes_are_made_for_each_fit(how):
    "As there; those of others are made once, and a copy of the learner can still be pickled"
    fns = [lambda learn: Patience(learn), Counted]
    learn = make(callback_fns=fns) if how == 'argument' else make()
    if how == 'appended': learn.callback_fns.extend(fns)
    first, counted = learn.cbs[-2:]
    for fits in (1, 2, 3):
        learn.fit(5)
        assert len(learn.recorder.values) == 2 and counted.count == 2*fits
        assert (learn.patience is first) == (fits == 1) and len(learn.cbs) == 4
    pickle.loads(pickle.dumps(learn)).fit(1)
    learn.remove_cbs(learn.patience)
    learn.fit(3)
    assert len(learn.recorder.values) == 3
