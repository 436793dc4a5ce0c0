"Callbacks of fastai v1: driven by hand, attached to the loop, and mixed with others"
import math
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.adapters.fastai1 import (
    CallbackHandler,
    LearnerCallback,
    as_changes,
    initial_state,
    moments,
)
from fastloop.callback.core import Callback, TraceCallback, UnknownEvent, written_for
from fastloop.callback.recorder import Recorder
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner
from fastloop.metrics import AverageMetric, accuracy
from fastloop.optimizer import SGD
from fastloop.runner import Runner

KEYS = """n_epochs epoch iteration num_batch last_input last_target last_output last_loss
    smooth_loss last_metrics pbar metrics train stop_epoch stop_training skip_step skip_zero
    skip_bwd
    skip_validate""".split()


def make_data(n=43, n_valid=19, bs=8):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n + n_valid, 4, generator=g)
    y = x[:, :3].argmax(1)
    def batches(x, y): return list(zip(x.split(bs), y.split(bs)))
    return DataBunch(batches(x[:n], y[:n]), batches(x[n:], y[n:]), device='cpu')


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def make(**kwargs):
    kwargs = dict(opt_func=SGD, lr=.1, wd=0., loss_func=F.cross_entropy, metrics=accuracy,
                  silent=True) | kwargs
    return Learner(make_data(), net(), **kwargs)


def on(moment, answer, order=0, when=lambda **kw: True):
    "A callback of no base class that answers one moment"
    class Answers:
        _order = order
        def __init__(self): self.seen = []
    def handler(self, **kwargs):
        self.seen.append(kwargs)
        if not when(**kwargs): return None
        return answer(**kwargs) if callable(answer) else answer
    setattr(Answers, f'on_{moment}', handler)
    return Answers()


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


# the state

def test_the_state_has_the_keys_of_v1():
    assert sorted(initial_state()) == sorted(KEYS)
    assert sorted(CallbackHandler().state_dict) == sorted(KEYS)


def test_each_moment_is_given_the_whole_state():
    class All: pass
    seen = {}
    for moment in moments:
        def handler(self, moment=moment, **kwargs): seen.setdefault(moment, []).append(kwargs)
        setattr(All, f'on_{moment}', handler)
    make(cbs=All()).fit(2)
    assert {m: len(v) for m, v in seen.items()} == dict(
        train_begin=1, epoch_begin=2, batch_begin=2*(6+3), loss_begin=2*(6+3), backward_begin=12,
        backward_end=12, step_end=12, batch_end=2*(6+3), epoch_end=2, train_end=1)
    for moment, calls in seen.items():
        extra = dict(train_begin={'metrics_names'}, train_end={'exception'}).get(moment, set())
        for kwargs in calls: assert set(kwargs) == set(KEYS) | extra, moment
    assert seen['train_begin'][0]['n_epochs'] == 2
    assert seen['train_begin'][0]['metrics_names'] == ['accuracy']
    assert seen['train_end'][0]['exception'] is False
    train = [kw for kw in seen['batch_end'] if kw['train']]
    assert [kw['iteration'] for kw in train] == list(range(12))
    assert [kw['num_batch'] for kw in train] == list(range(6))*2
    valid = [kw for kw in seen['batch_end'] if not kw['train']]
    assert [(kw['iteration'], kw['num_batch']) for kw in valid] == [(6, 6)]*3 + [(12, 6)]*3
    assert [kw['epoch'] for kw in seen['epoch_end']] == [0, 1]
    assert all(kw['last_loss'].requires_grad for kw in seen['backward_begin'])
    assert not any(kw['last_loss'].requires_grad for kw in seen['batch_end'])
    assert seen['train_end'][0]['epoch'] == 2


def test_smooth_loss_is_the_recorders():
    note = on('backward_begin', None)
    learn = make(cbs=note)
    learn.fit(2)
    got = [kw['smooth_loss'].item() for kw in note.seen]
    assert got == pytest.approx(learn.recorder.losses, rel=1e-5)


def test_last_metrics():
    note = on('epoch_end', None)
    learn = make(cbs=note)
    learn.fit(2)
    assert [kw['last_metrics'] for kw in note.seen] == [row[1:] for row in learn.recorder.values]
    learn.data.valid_dl = None
    learn.fit(1)
    assert note.seen[-1]['last_metrics'] == [None]


def test_metrics_can_be_added():
    @dataclass
    class Twice(LearnerCallback):
        def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['twice'])
        def on_epoch_end(self, last_metrics, **kwargs):
            return {'last_metrics': last_metrics + [torch.tensor(2*last_metrics[1])]}
    later = on('epoch_end', None, order=5)
    learn = make(callback_fns=Twice, cbs=later)
    learn.fit(2)
    assert learn.twice.cb_name == 'twice'
    assert learn.recorder.names[-1] == 'twice' and len(later.seen[0]['last_metrics']) == 3
    for row in learn.recorder.values: assert row[3] == pytest.approx(2*row[2])


# answers

@pytest.mark.parametrize('moment,answer,changes', [
    ('batch_begin', (1, 2), dict(last_input=1, last_target=2)),
    ('loss_begin', 3, dict(last_output=3)),
    ('batch_end', True, dict(stop_epoch=True)), ('epoch_end', True, dict(stop_training=True)),
    ('backward_end', True, dict(skip_step=True)), ('step_end', True, dict(skip_zero=True)),
    ('batch_end', False, {}), ('epoch_begin', None, {}), ('train_begin', 'text', {}),
    ('batch_end', {'skip_validate': True}, {'skip_validate': True})])
def test_answers(moment, answer, changes): assert as_changes(moment, answer) == changes


def test_unknown_keys_are_refused_by_name_and_nothing_is_merged():
    cb = on('batch_begin', {'skip_step': True, 'skip_bwdd': True})
    with pytest.raises(ValueError, match="'skip_bwdd'.*'skip_bwd'") as e: make(cbs=cb).fit(1)
    assert any('on_batch_begin' in note for note in e.value.__notes__)
    handler = CallbackHandler(cb)
    with pytest.raises(ValueError): handler.on_batch_begin(1, 2)
    assert handler.state_dict['skip_step'] is False


def test_the_batch_the_output_and_the_loss_can_be_changed():
    cbs = [on('batch_begin', lambda last_input, last_target, **kw: (last_input*0, last_target*0)),
           on('loss_begin', lambda last_output, **kw: last_output + 1),
           on('backward_begin', lambda last_loss, **kw: {'last_loss': last_loss*0})]
    seen = []
    class Look(Callback):
        order = 9
        def after_loss(self): seen.append((self.xb.sum().item(), self.yb.sum().item()))
        def after_backward(self): seen.append(self.loss.item())
    learn = make(cbs=[*cbs, Look])
    before = weights(learn)
    learn.fit(1)
    assert seen[:2] == [(0, 0), 0] and torch.equal(before, weights(learn))


def test_later_callbacks_of_any_make_see_what_was_changed():
    first = on('batch_begin', lambda last_input, last_target, **kw: (last_input*2, last_target), -5)
    last, ratio = on('batch_begin', None, 5), []
    class Native(Callback):
        def begin_batch(self):
            ratio.append(self.xb)
            self.run.xb = self.xb*3
    learn = make(cbs=[last, Native, first])
    learn.fit(1)
    x = torch.cat([xb for xb, _ in [*learn.data.train_dl, *learn.data.valid_dl]])
    assert torch.allclose(torch.cat(ratio), 2*x)
    assert torch.allclose(torch.cat([kw['last_input'] for kw in last.seen]), 6*x)


def by_hand(step=lambda i: True, zero=lambda i: True, bwd=lambda i: True, epochs=1, stop=None):
    data, model = make_data(), net()
    opt, n = torch.optim.SGD(model.parameters(), lr=.1), 0
    for _ in range(epochs):
        for i, (xb, yb) in enumerate(data.train_dl):
            loss = F.cross_entropy(model(xb), yb)
            if bwd(i): loss.backward()
            if step(i): opt.step()
            if zero(i): opt.zero_grad()
            n += 1
            if stop and stop(i): break
    return weights(SimpleNamespace(model=model))


@pytest.mark.parametrize('moment', ['batch_begin', 'loss_begin', 'backward_begin', 'backward_end'])
def test_skipping(moment):
    odd = dict(when=lambda iteration, train, **kw: train and iteration % 2)
    def fit(**flags):
        learn = make(cbs=on(moment, flags, **odd))
        learn.fit(1)
        return weights(learn)
    def even(i): return i % 2 == 0
    torch.testing.assert_close(fit(skip_step=True), by_hand(step=even))
    torch.testing.assert_close(fit(skip_zero=True), by_hand(zero=even))
    torch.testing.assert_close(fit(skip_step=True, skip_zero=True), by_hand(step=even, zero=even))
    if moment != 'backward_end':
        torch.testing.assert_close(fit(skip_bwd=True), by_hand(bwd=even))
        torch.testing.assert_close(fit(skip_bwd=True, skip_step=True), by_hand(step=even, bwd=even))


class Count(Callback):
    order = 2000
    def begin_fit(self): self.found = []
    def after_epoch(self): self.found.append(self.n_iter)


def test_stopping():
    def third(iteration, train=True, **kw): return train and iteration == 2
    cases = [(on('batch_end', True, when=third), [3, 9], 2),
             (on('batch_begin', {'stop_epoch': True}, when=third), [3, 9], 2),
             (on('batch_end', {'stop_epoch': True, 'stop_training': True}, when=third), [3], 1),
             (on('batch_end', {'stop_training': True}, when=third), [6], 1),
             (on('epoch_end', True), [6], 1),
             (on('epoch_begin', {'stop_training': True}), [6], 1)]
    for cb, counts, epochs in cases:
        count = Count()
        learn = make(cbs=[cb, count])
        learn.fit(2)
        assert count.found == counts and len(learn.recorder.values) == epochs
        assert learn.recorder.values[0][1] is not None


def test_the_end_of_training_is_told_how_many_epochs_are_done():
    "fastai v1 adds one after each `on_epoch_end`, however short the epoch was"
    def ends(cb, n=3):
        note, learn = on('train_end', None), make()
        learn.fit(n, cbs=[cb, note])
        return note.seen[0]['epoch']
    def second(train, num_batch, **kw): return train and num_batch == 1
    assert ends(on('batch_end', {'stop_epoch': True}, when=second)) == 3
    assert ends(on('epoch_end', {'stop_training': True}, when=lambda epoch, **kw: epoch == 1)) == 2
    assert ends(on('train_begin', {'epoch': 2})) == 3 and ends(on('train_begin', {'epoch': 5})) == 5


def test_an_exception_in_an_epoch_leaves_it_uncounted():
    def fails(epoch, train, **kw): assert not (epoch == 1 and not train), 'in the validation'
    note, learn = on('train_end', None), make()
    with pytest.raises(AssertionError, match='in the validation'):
        learn.fit(3, cbs=[on('batch_begin', None, when=fails), note])
    assert note.seen[0]['epoch'] == 1


def test_data_that_are_replaced_when_an_epoch_begins_are_trained_on():
    "Progressive resizing"
    class Resize(LearnerCallback):
        def on_epoch_begin(self, epoch, **kw):
            if epoch == 1: self.learn.data = make_data(20, 8, bs=5)
    learn, note = make(), on('batch_begin', None)
    learn.fit(2, callbacks=[Resize(learn), note])
    sizes = [(kw['epoch'], kw['train'], len(kw['last_input'])) for kw in note.seen]
    assert [o for o in sizes if o[0]] == [(1, True, 5)]*4 + [(1, False, 5), (1, False, 3)]


def test_skip_validate():
    trace = TraceCallback()
    learn = make(cbs=[on('train_begin', {'skip_validate': True}), trace])
    learn.fit(2)
    assert [row[1:] for row in learn.recorder.values] == [[None, None]]*2
    assert trace.events.count('after_cancel_validate') == 2


def test_jump_to_epoch():
    @dataclass
    class Jumps(LearnerCallback):
        def on_train_begin(self, **kwargs): return {'epoch': 2}
        def jump_to_epoch(self, epoch): self.jumped = epoch
        def on_epoch_begin(self, epoch, **kwargs): seen.append(epoch)
    seen, learn = [], make(callback_fns=Jumps)
    learn.fit(4)
    assert seen == [2, 3] and learn.jumps.jumped == 2 and len(learn.recorder.values) == 2


@pytest.mark.parametrize('error', [None, ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize('event', ['begin_fit', 'after_loss', 'after_epoch'])
def test_train_end_comes_on_every_exit(event, error):
    end = on('train_end', None)
    class Fails(Callback): pass
    def handler(self):
        if error: raise error
    setattr(Fails, event, handler)
    learn = make(cbs=[Fails, end])
    if error:
        with pytest.raises(error) as e: learn.fit(1)
        assert end.seen[0]['exception'] is e.value
    else:
        learn.fit(1)
        assert end.seen[0]['exception'] is False
    assert len(end.seen) == 1


# classes

def test_the_dataclass_of_the_documentation():
    @dataclass
    class GradientClipping(LearnerCallback):
        clip: float
        def on_backward_end(self, **kwargs):
            if self.clip: nn.utils.clip_grad_norm_(self.learn.model.parameters(), self.clip)
    class Norms(Callback):
        order = 1
        def after_backward(self):
            found.append(torch.cat([p.grad.flatten() for p in self.model.parameters()]).norm())
    found, learn = [], make(callback_fns=[partial(GradientClipping, clip=1e-3)], cbs=Norms)
    assert learn.gradient_clipping.learn is learn and learn.gradient_clipping.clip == 1e-3
    learn.fit(1)
    assert max(found) <= 1.001e-3
    with pytest.raises(TypeError, match='the learner'): GradientClipping(.1, 2)


def test_a_dataclass_on_callback_itself():
    @dataclass
    class MyCallback(Callback):
        learn: object
        def on_train_begin(self, **kwargs): self.opt = self.learn.opt
        def on_batch_begin(self, **kwargs): self.opt.lr = self.opt.mom = .25
    learn = make()
    learn.fit(1, callbacks=[MyCallback(learn)])
    assert learn.recorder.lrs[-1] == .25 and learn.my_callback.opt is learn.opt


def test_foreign_callbacks_may_keep_attributes_of_any_name():
    class Keeps(LearnerCallback):
        def on_train_begin(self, **kwargs): self.model, self.loss, self.epoch = 'my', 'own', 'x'
    learn = make(callback_fns=Keeps)
    learn.fit(1)
    assert learn.keeps.model == 'my' and isinstance(learn.model, nn.Sequential)


def test_one_class_may_speak_both():
    class Both(Callback):
        def begin_epoch(self): seen.append('native')
        def on_epoch_begin(self, epoch, **kwargs): seen.append(epoch)
    seen = []
    make(cbs=Both).fit(2)
    assert seen == ['native', 0, 'native', 1]


def test_order_between_makes():
    seen = []
    def note(n): return lambda **kw: seen.append(n)
    class Native(Callback):
        def __init__(self, n, order): self.n, self.order = n, order
        def begin_epoch(self): seen.append(self.n)
    make(cbs=[on('epoch_begin', note(4), 3), Native(3, 2), on('epoch_begin', note(1), -5),
              Native(2, -4), on('epoch_begin', note(5), 3)]).fit(1)
    assert seen == [1, 2, 3, 4, 5]


def test_foreign_objects_are_found_by_name_and_kept_as_they_are():
    class SaveIt:
        def on_epoch_end(self, **kwargs): pass
    cb, learn = SaveIt(), make()
    learn.add_cb(cb)
    assert any(o is cb for o in learn.cbs) and learn.save_it is cb
    learn.fit(1)
    learn.remove_cb(cb)
    learn.fit(1)
    assert not hasattr(learn, 'save_it')


def test_a_foreign_name_that_hides_something_gets_a_suffix():
    class Model:
        def on_epoch_end(self, **kwargs): pass
    cb, learn = Model(), make()
    learn.add_cb(cb)
    assert isinstance(learn.model, nn.Module) and learn.model_callback is cb


@pytest.mark.parametrize('name', ['on_epcoh_end', 'on_batch_start', 'on_train_finish'])
def test_misspelt_moments(name):
    with pytest.raises(UnknownEvent, match=name):
        type('Bad', (LearnerCallback,), {name: lambda self, **kw: None})
    Foreign = type('Foreign', (), {name: lambda self, **kw: None,
                                   'on_epoch_end': lambda self, **kw: None})
    with pytest.raises(UnknownEvent, match=name): make(cbs=Foreign())


def test_callbacks_of_keras_are_none_of_ours():
    class Keras:
        def set_model(self, model): pass
        def on_epoch_end(self, epoch, logs=None): pass
    assert written_for(Keras()) == 'keras'


# by hand

def drive(cb, epochs=2, model=None):
    "The loop of fastai v1"
    data, model = make_data(), model or net()
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    exception = False
    cb.on_train_begin(epochs, None, [accuracy])
    try:
        for _ in range(epochs):
            cb.on_epoch_begin()
            for xb, yb in data.train_dl:
                xb, yb = cb.on_batch_begin(xb, yb)
                loss = cb.on_backward_begin(F.cross_entropy(cb.on_loss_begin(model(xb)), yb))
                if not cb.state_dict['skip_bwd']: loss.backward()
                if not cb.on_backward_end(): opt.step()
                if not cb.on_step_end(): opt.zero_grad()
                if cb.on_batch_end(loss.detach()): break
            val, n = None, 0
            if not cb.skip_validate:
                with torch.no_grad():
                    for xb, yb in data.valid_dl:
                        xb, yb = cb.on_batch_begin(xb, yb, train=False)
                        loss = F.cross_entropy(cb.on_loss_begin(model(xb)), yb)
                        val, n = (val or 0) + loss*len(yb), n + len(yb)
                        if cb.on_batch_end(loss): break
            if cb.on_epoch_end(None if val is None else val/n): break
    except Exception as e:
        exception = e
        raise
    finally: cb.on_train_end(exception)
    return model


def test_driven_by_hand_and_attached_it_is_the_same():
    def pair(): return [on('backward_begin', lambda last_loss, **kw: last_loss*2),
                        on('batch_end', True, when=lambda iteration, **kw: iteration == 4),
                        on('backward_end', {'skip_step': True},
                           when=lambda iteration, **kw: iteration == 1), on('epoch_end', None)]
    hand, attached = pair(), pair()
    model = drive(CallbackHandler(hand, metrics=[accuracy]))
    learn = make(cbs=attached)
    learn.fit(2)
    torch.testing.assert_close(weights(SimpleNamespace(model=model)), weights(learn))
    for a, b in zip(hand, attached):
        assert [kw['iteration'] for kw in a.seen] == [kw['iteration'] for kw in b.seen]
    for a, b in zip(hand[-1].seen, attached[-1].seen):
        assert [float(o) for o in a['last_metrics']] == pytest.approx(b['last_metrics'], rel=1e-5)
    assert hand[2].seen[-1]['smooth_loss'].item() == \
        pytest.approx(attached[2].seen[-1]['smooth_loss'].item(), rel=1e-5)


def test_metrics_come_before_callbacks():
    seen = []
    class Metric(AverageMetric):
        def on_epoch_end(self, last_metrics, **kwargs):
            seen.append('metric')
            return super().on_epoch_end(last_metrics, **kwargs)
    handler = CallbackHandler([on('epoch_end', lambda last_metrics, **kw: seen.append(
        len(last_metrics)), order=-50)], metrics=[Metric(accuracy), accuracy])
    drive(handler, 1)
    assert seen == ['metric', 3]


def test_a_handler_of_ones_own_on_the_loop():
    own, guest = on('epoch_end', None), on('epoch_end', None)
    learn, model = make_data(), net()
    learn = BasicLearner(model, torch.optim.SGD(model.parameters(), lr=.1), F.cross_entropy, learn)
    handler = CallbackHandler([own], metrics=[accuracy])
    run = Runner([handler, guest])
    run.fit(2, learn)
    assert sum(isinstance(cb, CallbackHandler) for cb in run.cbs) == 1
    for kw in (own.seen[-1], guest.seen[-1]): assert len(kw['last_metrics']) == 2
    x, y = (torch.cat(o) for o in zip(*learn.data.valid_dl))
    with torch.no_grad(): pred = model(x)
    assert [float(o) for o in own.seen[-1]['last_metrics']] == pytest.approx(
        [F.cross_entropy(pred, y).item(), accuracy(pred, y).item()], rel=1e-5)


def test_handlers_forget_between_fits():
    note = on('batch_begin', None)
    learn = make(cbs=note)
    for _ in range(2): learn.fit(1)
    assert [kw['iteration'] for kw in note.seen if kw['train']] == list(range(6))*2


def test_without_such_callbacks_there_is_no_handler():
    learn = make(cbs=TraceCallback)
    learn.fit(1)
    assert [type(cb).__name__ for cb in learn.run.cbs] == \
        ['TraceCallback', 'TrainEvalCallback', 'Recorder']


def test_without_a_recorder_the_validation_loss_is_measured():
    note, model = on('epoch_end', None), net()
    learn = BasicLearner(model, torch.optim.SGD(model.parameters(), lr=.1), F.cross_entropy,
                         make_data())
    Runner(note).fit(1, learn)
    x, y = (torch.cat(o) for o in zip(*learn.data.valid_dl))
    with torch.no_grad(): want = F.cross_entropy(model(x), y).item()
    assert float(note.seen[0]['last_metrics'][0]) == pytest.approx(want, rel=1e-5)
    assert not any(isinstance(cb, Recorder) for cb in learn.run.cbs)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_a_loss_that_is_no_number_does_not_enter_the_smoothing(device):
    handler, other = CallbackHandler(), CallbackHandler()
    if device == 'meta':  # anything that is not the CPU takes the way that waits for nobody
        assert handler.smooth(torch.tensor(1., device=device)).device.type == device
        return
    for value in (1., math.nan, 2., math.inf, 3.): smooth = handler.smooth(torch.tensor(value))
    for value in (1., 2., 3.): want = other.smooth(torch.tensor(value))
    assert smooth == want and handler.smooth(torch.tensor(math.nan)) == want


def test_the_loss_of_a_validation_without_a_recorder_is_that_of_all_rows():
    from types import SimpleNamespace
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randint(3, (12,))
    y[[5, 6, 7, 9, 10, 11]] = -100
    seen, model = [], torch.nn.Linear(4, 3)
    class Watch:
        def on_epoch_end(self, last_metrics, **kwargs): seen.append(float(last_metrics[0]))
    batches = list(zip(x.split(4), y.split(4)))
    learn = SimpleNamespace(model=model, opt=torch.optim.SGD(model.parameters(), lr=0.),
                            loss_func=torch.nn.functional.cross_entropy,
                            data=SimpleNamespace(train_dl=batches, valid_dl=batches))
    Runner(Watch()).fit(1, learn)
    assert seen == [pytest.approx(learn.loss_func(model(x), y).item())]
