"Callbacks of fastai v2 and miniai on the real loop: names, events, cancelling, clean-up, mixtures."
import csv
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.adapters.fastai2 import Hypers, LearnView, OptView, translated, view_wanted
from fastloop.adapters.miniai import MiniaiView
from fastloop.callback.core import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
    TraceCallback,
    UnknownEvent,
    as_callback,
    written_for,
)
from fastloop.data.bunch import DataBunch
from fastloop.learner import BasicLearner, Learner
from fastloop.optimizer import OptimWrapper
from fastloop.runner import Runner

same = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-7)


def make_data(path='.', bs=8, n=40, valid=True):
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=gen)
    y = x @ torch.tensor([[3.], [-1.]]) + .1*torch.randn(n, 1, generator=gen)
    return DataBunch(list(zip(x.split(bs), y.split(bs))),
                     list(zip(x[:16].split(8), y[:16].split(8))) if valid else None, path=path)


@pytest.fixture
def make(tmp_path):
    def make(data=None, seed=0, **kwargs):
        torch.manual_seed(seed)
        kwargs = {'opt_func': torch.optim.SGD, 'lr': .05, 'wd': 0., 'silent': True} | kwargs
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        return Learner(data or make_data(tmp_path), model, kwargs.pop('loss_func', nn.MSELoss()),
                       **kwargs)
    return make


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


# ---- a stand-in for fastai's base class, of another package --------------------------------------
class FastaiBase:
    "As fastai's own: attributes come from the learner, shadowing one warns, `cb(event)` calls"
    order, learn, run, run_train, run_valid = 0, None, True, True, True

    def __getattr__(self, name):
        if name.startswith('__') or name == 'learn': raise AttributeError(name)
        return getattr(self.learn, name)

    def __setattr__(self, name, value):
        if hasattr(self.learn, name): raise UserWarning(f'shadowing {name}')
        super().__setattr__(name, value)

    inner = ('before_batch after_pred after_loss before_backward after_cancel_backward '
             'after_backward before_step after_step after_cancel_batch after_batch').split()

    def __call__(self, event):
        run = event not in self.inner or (
            self.run_train and getattr(self, 'training', True)) or (
            self.run_valid and not getattr(self, 'training', False))
        if self.run and run: getattr(self, event, lambda: None)()
        if event == 'after_fit': self.run = True


FastaiBase.__module__ = 'fastai.callback.core'
names = ('Fit', 'Epoch', 'Train', 'Valid', 'Batch', 'Backward', 'Step')
foreign = {n: type(f'Cancel{n}Exception', (Exception,), {'__module__': 'fastcore.basics'})
           for n in names}


# ---- whose is it? --------------------------------------------------------------------------------
class V2Style(Callback):
    def before_batch(self): pass


class Marked(Callback):
    run_train = False

    def after_batch(self): pass


class Native(Callback):
    def after_batch(self): pass


class MiniOurs(Callback):
    def after_batch(self, learn): pass


class Mini:
    def before_fit(self, learn): pass


class MiniCleanup:
    def cleanup_epoch(self): pass


class MiniAfterPredict:
    def after_predict(self, learn): pass


class PlainV2:
    def before_fit(self): pass


class PlainNative:
    def begin_fit(self): pass


class KerasLike:
    def set_model(self, model): pass
    def on_epoch_end(self, epoch, logs=None): pass
    def after_batch(self): pass


class V1Like:
    def on_batch_begin(self, last_input, **kwargs): pass


class Real(FastaiBase):
    def after_batch(self): pass


@pytest.mark.parametrize('cls, name', [
    (V2Style, 'fastai v2'), (Marked, 'fastai v2'), (Native, 'fastloop'), (MiniOurs, 'miniai'),
    (Mini, 'miniai'), (MiniCleanup, 'miniai'), (MiniAfterPredict, 'miniai'), (Real, 'fastai v2'),
    (PlainV2, 'fastai v2'), (PlainNative, 'fastloop')])
def test_which_library_a_callback_was_taken_for(cls, name):
    assert written_for(cls()) == name
    assert as_callback(cls).__class__ is cls


@pytest.mark.parametrize('o', [KerasLike(), V1Like(), 3, 'text', object(), nn.Linear(1, 1), Native])
def test_what_wants_no_view(o):
    assert view_wanted(o) is None


def test_fastai_is_not_imported():
    import sys
    assert 'fastai' not in sys.modules


@pytest.mark.parametrize('name, near', [
    ('before_bacth', 'before_batch'), ('after_epcoh', 'after_epoch'), ('befor_fit', 'before_fit'),
    ('cleanup_bach', 'cleanup_batch'), ('after_predicts', 'after_predict')])
def test_misspelt_handlers_of_foreign_objects_are_refused(make, name, near):
    cls = type('Foreign', (), {name: lambda self, learn: None,
                               'before_fit': lambda self, learn: None})
    with pytest.raises(UnknownEvent, match=near): make().fit(1, cbs=[cls()])


def test_a_handler_of_miniai_with_two_arguments_is_refused(make):
    class Two:
        def before_fit(self, learn): pass
        def after_batch(self, learn, loss): pass
    with pytest.raises(TypeError, match='Two.after_batch wants 2 arguments'):
        make().fit(1, cbs=[Two()])


# ---- names of fastai v2 --------------------------------------------------------------------------
class Probe(FastaiBase):
    "Calls a function in one event, once"
    def __init__(self, event, func, order=0):
        self.__dict__.update(event=event, func=func, res=[], order=order)
        setattr(type(self), event, lambda self: self.res.append(self.func(self)))


def probe(event, func, base=FastaiBase, **kwargs):
    return type('ProbeNow', (Probe, base) if base is not FastaiBase else (Probe,), {})(
        event, func, **kwargs)


def seen(make, event, func, epochs=1, order=0, **kwargs):
    cb = probe(event, func, order=order)
    learn = make(**kwargs)
    learn.fit(epochs, cbs=[cb])
    return cb.res


fields = {name: o.fset is not None for name, o in vars(LearnView).items()
          if isinstance(o, property) and name != 'progress'}  # not there in a silent run


def test_every_name_can_be_read(make):
    def read(cb): return {name: getattr(cb.learn, name) for name in fields}
    res = seen(make, 'after_batch', read)[3]
    assert (res['epoch'], res['n_epoch'], res['iter'], res['n_iter']) == (0, 1, 3, 5)
    assert (res['train_iter'], res['pct_train'], res['training']) == (4, .8, True)
    assert res['xb'][0] is res['x'] and res['yb'][0] is res['y'] and res['x'].shape == (8, 2)
    assert res['pred'].shape == (8, 1)
    same(res['loss'], F.mse_loss(res['pred'], res['y']))
    same(res['loss'], res['loss_grad'])
    assert res['loss'] is not res['loss_grad']
    assert res['loss'].data_ptr() != res['loss_grad'].data_ptr()
    assert len(res['dl']) == 5 and [len(o) for o in res['dls'].loaders] == [5, 2]
    assert isinstance(res['opt'], OptView) and isinstance(res['model'], nn.Sequential)
    assert isinstance(res['smooth_loss'], torch.Tensor)


def write(cb):
    "Write every name and read it back"
    learn, found, kept = cb.learn, {}, {}
    values = dict(
        pred=torch.ones(1), xb=(torch.ones(3),), yb=(torch.zeros(3), torch.ones(3)), epoch=7,
        n_epoch=9, iter=4, n_iter=11, training=False, train_iter=5, pct_train=.5, dl=[1, 2],
        logger=print, smooth_loss=torch.tensor(3.), final_record=[1],
        loss=torch.tensor(2.), loss_grad=torch.tensor(4.), loss_func=F.l1_loss)
    for name, written in fields.items():
        if written:
            kept[name] = getattr(learn, name)
            setattr(learn, name, values.get(name, kept[name]))
            found[name] = getattr(learn, name)
    run = learn._run
    state = run.xb, run.yb, run.epochs, run.iters, run.n_iter, run.in_train, run.pred
    for name, value in kept.items(): setattr(learn, name, value)
    return values, found, state


def test_every_name_that_can_be_written_reaches_the_one_state(make):
    (values, found, (xb, yb, epochs, iters, n_iter, in_train, pred)), *_ = seen(
        make, 'after_loss', write)
    for name, value in values.items():
        a, b = found[name], value
        assert a is b or (a == b if not isinstance(b, (tuple, torch.Tensor))
                          else all(map(torch.equal, a, b)) if isinstance(b, tuple)
                          else torch.equal(a, b)), name
    assert xb.shape == (3,) and isinstance(yb, tuple) and pred.shape == (1,)
    assert (epochs, iters, n_iter, in_train) == (9, 11, 5, False)


def test_what_can_only_be_read_says_so(make):
    def write(cb):
        with pytest.raises(AttributeError, match='x can be read'): cb.learn.x = 1
        return True
    assert seen(make, 'before_batch', write)[0]


shadow = '''run learn count wait best new_best idx lam yb1 old_lf stack_y hps hooks stats file
old_logger last_saved_path mbar pbar best_loss tmp_d tmp_p scheds preds targets losses data lrs
values log iters metric_names cancel_train cancel_valid start_epoch before_batch after_epoch
begin_fit after_create lr_finder gather_preds nonsense __len__'''.split()


def test_unknown_names_are_unknown(make):
    "fastai's callbacks ask hasattr, and fastai warns about an attribute that hides a learner's"
    assert not any(sum(seen(make, 'before_batch',
                            lambda cb: [hasattr(cb.learn, o) for o in shadow]), []))


def test_new_attributes_are_shared(make):
    class Sets(FastaiBase):
        def before_fit(self): self.learn.scaler = 'new'

    class Reads(FastaiBase):
        order = 1
        def before_fit(self): self.__dict__['found'] = self.scaler
    reads = Reads()
    make().fit(1, cbs=[Sets(), reads])
    assert reads.found == 'new'


def test_names_fall_through_to_callbacks_the_learner_and_the_model(make):
    class SaveModelCallback(Callback): pass
    res = []
    cb = probe('before_fit', lambda cb: res.extend([
        type(cb.learn.save_model).__name__, cb.path, cb.model_dir, len(list(cb.parameters())),
        cb.learn.lr]))
    learn = make()
    learn.fit(1, cbs=[cb, SaveModelCallback()])
    assert res == ['SaveModelCallback', learn.path, 'models', 4, .05]


def test_the_numbers_of_the_run(make):
    def read(cb): return cb.train_iter, round(cb.pct_train, 3), cb.iter, cb.training
    rows = seen(make, 'after_batch', read, epochs=2)
    train = [o for o in rows if o[3]]
    assert [o[0] for o in train] == list(range(1, 11))
    assert [o[1] for o in train] == [i/10 for i in range(1, 11)]
    assert [o[:3] for o in rows if not o[3]][:2] == [(5, .5, 0), (5, .5, 1)]


def test_an_early_callback_sees_the_number_that_fastai_has_not_counted_yet(make):
    rows = seen(make, 'after_batch', lambda cb: (cb.training, cb.train_iter), order=-20)
    assert rows == [(True, i) for i in range(5)] + [(False, 5)]*2
    assert seen(make, 'before_train', lambda cb: cb.training, epochs=2, order=-20) == [False]*2
    assert seen(make, 'before_validate', lambda cb: cb.training, order=-20) == [True]
    assert seen(make, 'before_train', lambda cb: (cb.training, len(cb.dl))) == [(True, 5)]
    assert seen(make, 'before_validate', lambda cb: (cb.training, len(cb.dl))) == [(False, 2)]


def test_no_loss_yet_is_zero(make):
    assert seen(make, 'before_fit', lambda cb: float(cb.learn.loss)) == [0.]


# ---- two losses ----------------------------------------------------------------------------------
class GradientAccumulation(FastaiBase):
    "fastai's own, word for word in what it touches"
    order, run_valid = 6, False

    def __init__(self, n_acc=32): self.__dict__.update(n_acc=n_acc, count=0)

    def before_fit(self): self.count = 0

    def after_loss(self):
        bs = self.learn.yb[0].shape[0]
        self.learn.loss_grad /= self.n_acc/bs
        self.count += bs

    def before_step(self):
        self.learn.loss_grad *= self.n_acc/self.learn.yb[0].shape[0]
        if self.count < self.n_acc: raise foreign['Batch']()
        self.count = 0


def test_accumulated_gradients_equal_those_of_the_big_batch(make, tmp_path):
    small, big = make(make_data(tmp_path, 5)), make(make_data(tmp_path, 20))
    small.fit(3, cbs=[GradientAccumulation(20)])
    big.fit(3)
    same(weights(small), weights(big))


def test_the_reported_loss_stays_what_it_was(make):
    class Watch(Callback):
        order = 70
        def begin_fit(self): self.rows = []
        def after_loss(self): self.rows.append(self.loss.item())
        def after_backward(self): self.rows.append(self.loss.item())
        def after_batch(self): self.rows.append(self.loss.item())
    watch, learn, plain = Watch(), make(), make()
    learn.fit(1, cbs=[GradientAccumulation(1000), watch])
    with torch.no_grad():
        torch.manual_seed(0)
        expected = [F.mse_loss(plain.model(x), y).item() for x, y in plain.data.train_dl]
    assert learn.recorder.raw_losses == pytest.approx(expected)
    train = watch.rows[:15]
    assert train == pytest.approx([o for o in expected for _ in range(3)])
    same(weights(learn), weights(plain))


@pytest.mark.parametrize('change', ['in place', 'written', 'added', 'before backward'])
def test_half_the_loss_grad_is_half_the_rate(make, change):
    class Halve(FastaiBase):
        def after_loss(self):
            if change == 'in place': self.learn.loss_grad /= 2
            if change == 'written': self.learn.loss_grad = self.loss_grad*.5
            if change == 'added': self.learn.loss_grad -= self.learn.loss/2

        def before_backward(self):
            if change == 'before backward': self.learn.loss_grad *= .5
    learn, slow = make(), make(lr=.025)
    learn.fit(2, cbs=[Halve()])
    slow.fit(2)
    same(weights(learn), weights(slow))


def test_a_written_loss_without_a_graph_is_only_reported(make):
    class Report(Callback):
        run_valid = False
        def after_loss(self): self.learn.loss = torch.tensor(7.)
        def after_batch(self): assert self.loss.item() == 7. != self.learn.loss_grad.item()
    learn, plain = make(), make()
    learn.fit(1, cbs=[Report()])
    plain.fit(1)
    same(weights(learn), weights(plain))


def test_a_written_loss_with_a_graph_is_the_loss(make):
    class Scale(Callback):
        def before_backward(self): self.learn.loss = self.learn.loss/2
    learn, slow = make(), make(lr=.025)
    learn.fit(1, cbs=[Scale()])
    slow.fit(1)
    same(weights(learn), weights(slow))


# ---- hyper-parameters ----------------------------------------------------------------------------
def two_groups(make, **kwargs):
    return make(splitter=lambda m: [m[0], m[1]], opt_func=kwargs.pop('opt_func', partial(
        torch.optim.SGD, momentum=.9)), **kwargs)


def test_hypers_are_live(make):
    res = []

    def change(cb):
        for i, h in enumerate(cb.opt.hypers): h['lr'], h['mom'] = .1*(i+1), .5
        cb.opt.set_hyper('wd', [.1, .2])
        opt = cb.learn._run.learn.opt
        res.append((opt.read_val('lr'), opt.read_val('mom'), opt.read_val('wd')))
        assert cb.opt.hypers[-1]['lr'] == .2 and len(cb.opt.hypers) == 2
        assert cb.opt is cb.learn.opt and len(cb.opt.param_groups) == len(cb.opt.param_lists)
    cb = probe('before_fit', change)
    two_groups(make).fit(1, cbs=[cb])
    assert res == [([.1, .2], [.5, .5], [.1, .2])]


@pytest.mark.parametrize('opt_func, keys', [
    (torch.optim.SGD, 'lr mom wd'), (torch.optim.Adam, 'lr mom sqr_mom wd eps'),
    (torch.optim.AdamW, 'lr mom sqr_mom wd eps'),
    (torch.optim.RMSprop, 'lr mom sqr_mom wd eps')], ids=str)
def test_hypers_have_fastais_names(opt_func, keys):
    for wrap in (OptimWrapper, lambda o: o):
        opt = wrap(opt_func(nn.Linear(1, 1).parameters(), lr=.1))
        hypers = OptView(opt).hypers[0]
        assert set(hypers) == set(keys.split())
        for key in hypers:
            hypers[key] = .125
            assert hypers[key] == .125
        with pytest.raises(KeyError): hypers['speed'] = 1
        with pytest.raises(KeyError): hypers['speed']
        with pytest.raises(TypeError): del hypers['lr']
        assert opt.param_groups[0]['lr'] == .125


@pytest.mark.parametrize('value, lrs', [
    (.3, [.3, .3]), ([.1, .3], [.1, .3]), (np.array([.1, .3]), [.1, .3]), ([.2], [.2, .2]),
    (slice(.01, .1), [.01, .1]), (slice(.1), [.01, .1]), (torch.tensor([.5, .25]), [.5, .25])],
    ids=str)
def test_set_hyper(value, lrs):
    opt = OptimWrapper.create(torch.optim.SGD, .1, [nn.Linear(1, 1), nn.Linear(1, 1)])
    OptView(opt).set_hyper('lr', value)
    assert opt.read_val('lr') == pytest.approx(lrs)
    before = opt.read_val('lr')
    with pytest.raises(ValueError, match='3 values'): OptView(opt).set_hyper('lr', [1, 2, 3])
    assert opt.read_val('lr') == before


def test_writing_the_view_of_an_optimizer_writes_the_optimizer():
    opt = OptimWrapper.create(torch.optim.SGD, .1, [nn.Linear(1, 1)])
    view = OptView(opt)
    view.lr = .5
    view.set_hypers(wd=.1)
    assert (opt.lr, opt.wd, view.wd) == (.5, .1, .1)
    assert isinstance(view.hypers[0], Hypers)


# ---- events --------------------------------------------------------------------------------------
outer = ('before_fit before_epoch before_train after_train before_validate after_validate '
         'after_epoch after_fit').split()


def announcer(base, **attributes):
    "A callback that writes down all its events, with T or V for training"
    def note(event):
        return lambda self: self.heard.append((event, self.training))
    methods = {o: note(o) for o in [*outer, *FastaiBase.inner, 'after_cancel_step']}
    return type('Announcer', (base,), methods | {'heard': []} | attributes)()


@pytest.mark.parametrize('base', [FastaiBase, Callback])
@pytest.mark.parametrize('attributes', [{}, {'run_train': False}, {'run_valid': False},
                                        {'run_train': False, 'run_valid': False}], ids=str)
def test_run_train_and_run_valid_gate_what_happens_in_a_batch(make, base, attributes):
    cb = announcer(base, **attributes)
    make().fit(1, cbs=[cb])
    inner = [o for o in cb.heard if o[0] in FastaiBase.inner]
    assert [o[0] for o in cb.heard if o[0] not in FastaiBase.inner] == outer
    assert sum(o == ('after_batch', True) for o in inner) == 5*attributes.get('run_train', True)
    assert sum(o == ('after_batch', False) for o in inner) == 2*attributes.get('run_valid', True)
    assert ('before_step', False) not in inner


@pytest.mark.parametrize('base', [FastaiBase, Callback, object])
def test_run_switches_off_until_the_fit_is_over(make, base):
    class Off(base):
        run_valid, heard = False, ''

        def before_train(self):
            if self.run: type(self).heard += 't'

        def after_batch(self):
            type(self).heard += 'b'
            if self.heard.endswith('bb'): self.run = False
    if base is object: Off.run = True
    off, learn = Off(), make()
    for _ in range(2): learn.fit(2, cbs=[off])
    assert Off.heard == 'tbbtbb'


@pytest.mark.parametrize('base, place', [(FastaiBase, 'object'), (Callback, 'object'),
                                         (Callback, 'class')])
def test_a_callback_can_be_switched_off_beforehand(make, base, place):
    class Off(base):
        heard = 0
        def before_fit(self): type(self).heard += 1
    off, learn = Off(), make()
    if place == 'class': Off.run = False
    else: off.__dict__['run'] = False
    learn.fit(1, cbs=[off])
    assert Off.heard == 0
    learn.fit(1, cbs=[off])
    assert Off.heard == 1


def test_answers_of_foreign_callbacks_mean_nothing(make):
    class Yes(FastaiBase):
        def before_batch(self): return True
        def after_batch(self): return True
        def after_epoch(self): return True

    class MiniYes:
        def before_epoch(self, learn): return True
        def after_loss(self, learn): return True
    learn = make()
    learn.fit(2, cbs=[Yes(), MiniYes()])
    assert learn.run.n_iter == 10


def test_true_of_our_own_callback_cancels(make):
    class Stop(Callback):
        def before_batch(self): return self.train_iter >= 2
    learn, trace = make(), TraceCallback()
    learn.fit(1, cbs=[Stop(), trace])
    assert trace.events.count('after_cancel_batch') == 3 + 2


def test_after_create_comes_once(make):
    class Created(Callback):
        count = 0
        def after_create(self): Created.count += self.learn.lr == .05
        def before_fit(self): pass
    learn = make(cbs=[Created()])
    for _ in range(2): learn.fit(1)
    assert Created.count == 1


# ---- cancelling ----------------------------------------------------------------------------------
expected = {'Fit': 1, 'Epoch': 1, 'Train': 1, 'Batch': 5, 'Backward': 5, 'Step': 5}


@pytest.mark.parametrize('name', expected)
@pytest.mark.parametrize('as_class', [True, False])
def test_cancels_of_another_package_are_understood(make, name, as_class):
    class Cancel(FastaiBase):
        run_valid = False
        def before_step(self):
            if name == 'Step': raise foreign[name] if as_class else foreign[name]()

        def before_backward(self):
            if name != 'Step': raise foreign[name] if as_class else foreign[name]('why')
    trace, learn = TraceCallback(), make()
    learn.fit(1, cbs=[Cancel(), trace])
    phase = name.lower()
    assert trace.events.count(f'after_cancel_{phase}') == expected[name]
    assert ('begin_validate' in trace.events) == (name not in ('Fit', 'Epoch'))


def test_the_validation_can_be_cancelled(make):
    class Cancel(FastaiBase):
        def before_validate(self): raise foreign['Valid']
    learn = make()
    learn.fit(1, cbs=[Cancel()])
    assert learn.recorder.values[0][1] is None


@pytest.mark.parametrize('name', names)
def test_translated(name):
    sub = type('Special', (foreign[name],), {})
    ours = [o.__name__.replace('Validate', 'Valid') for o in type(translated(sub('a'))).__mro__]
    assert f'Cancel{name}Exception' in ours[:2]
    assert translated(sub('a')).args == ('a',)
    assert translated(ValueError()) is None


def test_another_exception_passes_as_it_is(make):
    class Fail(FastaiBase):
        def after_batch(self): raise KeyError('mine')
    with pytest.raises(KeyError, match='mine') as e: make().fit(1, cbs=[Fail()])
    assert 'in after_batch of' in ''.join(e.value.__notes__)


def of_star(name):
    space = {}
    exec('from fastloop.adapters.fastai2 import *', space)
    return space[name]


@pytest.mark.parametrize('which, kept', [
    (foreign['Step'], False), (of_star('CancelStepException'), False), (CancelStepException, True)])
def test_a_cancelled_step_of_fastai_clears_gradients_and_ours_keeps_them(make, which, kept):
    class Look(Callback):
        order = 99
        def begin_batch(self):
            if self.run.in_train: self.kept = next(self.model.parameters()).grad is not None

    class Skip(Callback):
        run_valid = False
        def before_step(self): raise which
    look = Look()
    make().fit(1, cbs=[Skip(), look])
    assert look.kept == kept


# ---- clean-up ------------------------------------------------------------------------------------
@pytest.mark.parametrize('error', [None, ValueError, KeyboardInterrupt])
def test_what_was_replaced_is_put_back(make, error):
    rows = []

    class Replace(FastaiBase):
        def before_fit(self):
            self.learn.loss_func, self.learn.logger = F.l1_loss, rows.append

        def after_epoch(self):
            if error: raise error('stop')
    learn, cb = make(), Replace()
    loss = learn.loss_func
    with pytest.raises(error) if error else nullcontext(): learn.fit(2, cbs=[cb])
    assert learn.loss_func is loss
    assert cb.learn.logger is not rows.append
    assert len(rows) == (0 if error else 2)
    learn.fit(1)


def test_a_loss_function_that_another_has_put_back_is_left_alone(make):
    class Nat(Callback):
        order = 5
        def begin_train(self): self.old, self.learn.loss_func = self.learn.loss_func, F.l1_loss
        def after_fit(self): self.learn.loss_func = self.old

    class Wraps(FastaiBase):
        order = 6
        def before_train(self): self.learn.loss_func = partial(self.learn.loss_func)
    learn = make()
    loss = learn.loss_func
    learn.fit(1, cbs=[Nat(), Wraps()])
    assert learn.loss_func is loss


def test_private_attributes_are_kept_as_well(make):
    def note(cb):
        cb.learn._mine = 3
        return cb.learn._mine, hasattr(cb.learn, '__len__')
    assert seen(make, 'before_fit', note) == [(3, False)]


def test_loss_is_the_clean_one_after_a_failing_backward(make):
    class Fail(Callback):
        order = -5
        def after_backward(self):
            if self.run.n_iter == 1: raise ValueError('stop')
    learn = make()
    with pytest.raises(ValueError): learn.fit(1, cbs=[GradientAccumulation(1000), Fail()])
    same(learn.loss.detach(), F.mse_loss(learn.pred, learn.yb).detach())


def test_native_runs_have_no_views(make):
    learn = make()
    learn.fit(1, cbs=[Native()])
    assert '_view_notes' not in vars(learn.run)
    assert len(learn.run.cbs) == len(learn.cbs) + 1


def test_views_work_with_a_bare_runner():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    learn = BasicLearner(model, torch.optim.SGD(model.parameters(), lr=.1), F.mse_loss, make_data())

    class Half(Callback):
        def before_fit(self): self.opt.set_hyper('lr', .05)
        def before_batch(self): self.learn.xb = (self.x*.5,)
    run = Runner([Half(), Mini()])
    for _ in range(2): run.fit(1, learn)
    assert learn.opt.param_groups[0]['lr'] == .05 and run.n_iter == 5
    assert [type(o).__name__ for o in run.cbs] == ['TrainEvalCallback', 'Half', 'Mini']


# ---- fastai's callbacks, by what they touch ------------------------------------------------------
class Tracker(FastaiBase):
    order = 60

    def __init__(self, monitor='valid_loss'): self.__dict__.update(monitor=monitor, best=None)

    def before_fit(self):
        self.run = not hasattr(self, 'lr_finder') and not hasattr(self, 'gather_preds')
        if not self.run: return
        assert self.monitor in self.recorder.metric_names[1:]
        self.best, self.idx = float('inf'), list(self.recorder.metric_names[1:]).index(self.monitor)

    def after_epoch(self):
        val = self.recorder.values[-1][self.idx]
        self.new_best = np.less(val, self.best)
        if self.new_best: self.best = val

    def after_fit(self): self.run = True


class EarlyStopping(Tracker):
    order = 63

    def after_epoch(self):
        super().after_epoch()
        if self.epoch == 2: raise foreign['Fit']()


class SaveModel(Tracker):
    order = 61

    def after_epoch(self):
        super().after_epoch()
        if self.new_best: self.last_saved_path = self.learn.save('model', with_opt=False)

    def after_fit(self):
        self.learn.load('model', with_opt=False, weights_only=False)
        super().after_fit()


class ReduceLROnPlateau(Tracker):
    order = 62

    def after_epoch(self):
        super().after_epoch()
        for h in self.opt.hypers: h['lr'] = max(h['lr']/10, 0)
        self.__dict__['lr_now'] = self.opt.hypers[-1]['lr']


class CSVLogger(FastaiBase):
    order = 60

    def before_fit(self):
        self.file = (self.path/'history.csv').open('w')
        self.file.write(','.join(self.recorder.metric_names) + '\n')
        self.old_logger, self.learn.logger = self.logger, self._write_line

    def _write_line(self, log):
        self.file.write(','.join([str(t) for t in log]) + '\n')
        self.old_logger(log)

    def after_fit(self):
        self.file.close()
        self.learn.logger = self.old_logger


def test_trackers(make):
    stop, save = EarlyStopping(), SaveModel('accuracy_like')
    learn = make(metrics=[lambda p, y: -(p-y).abs().mean()])
    learn.metrics[0].__name__ = 'accuracy_like'
    learn.fit(5, cbs=[stop, save])
    assert len(learn.recorder.values) == 3 and (stop.idx, save.idx) == (1, 2)
    assert save.last_saved_path.exists() and save.last_saved_path.name == 'model.pth'
    assert stop.best == min(o[1] for o in learn.recorder.values)


def test_reduce_lr_on_plateau_reaches_the_optimizer(make):
    cb, learn = ReduceLROnPlateau(), two_groups(make)
    learn.fit(2, lr=[.01, .1], cbs=[cb])
    assert learn.opt.read_val('lr') == pytest.approx([.0001, .001])
    assert cb.lr_now == pytest.approx(.001)


def test_csv_logger(make, tmp_path):
    learn = make(metrics=[lambda p, y: (p-y).abs().mean()])
    learn.fit(3, cbs=[CSVLogger()])
    rows = list(csv.DictReader((tmp_path/'history.csv').open()))
    assert [o['epoch'] for o in rows] == ['0', '1', '2'] and ':' in rows[0]['time']
    for row, values in zip(rows, learn.recorder.values):
        assert [float(v) for v in list(row.values())[1:-1]] == pytest.approx(values)


class MixUp(FastaiBase):
    run_valid = False

    def before_train(self):
        self.stack_y = getattr(self.learn.loss_func, 'y_int', False)
        if self.stack_y: self.old_lf, self.learn.loss_func = self.learn.loss_func, self.lf

    def before_batch(self):
        self.lam = torch.full((self.y.size(0), 1), .25, device=self.x.device)
        shuffle = torch.arange(self.y.size(0)).flip(0)
        xb1, self.yb1 = tuple(o[shuffle] for o in self.xb), tuple(o[shuffle] for o in self.yb)
        self.learn.xb = tuple(torch.lerp(a, b, self.lam) for a, b in zip(xb1, self.xb))
        if not self.stack_y:
            self.learn.yb = tuple(torch.lerp(a, b, self.lam) for a, b in zip(self.yb1, self.yb))

    def lf(self, pred, *yb):
        if not self.training: return self.old_lf(pred, *yb)
        return torch.lerp(self.old_lf(pred, *self.yb1), self.old_lf(pred, *yb), .25)

    def after_train(self):
        if self.stack_y: self.learn.loss_func = self.old_lf
    after_cancel_train = after_cancel_fit = after_train


@pytest.mark.parametrize('stack', [False, True])
def test_mixup(make, stack):
    class Loss(nn.MSELoss):
        y_int = stack
    learn, plain = make(loss_func=Loss()), make()
    learn.fit(1, cbs=[MixUp()])
    opt = torch.optim.SGD(plain.model.parameters(), lr=.05)
    for x, y in plain.data.train_dl:
        pred = plain.model(x*.25 + x.flip(0)*.75)
        loss = .25*F.mse_loss(pred, y) + .75*F.mse_loss(pred, y.flip(0)) if stack else (
            F.mse_loss(pred, y*.25 + y.flip(0)*.75))
        loss.backward()
        opt.step()
        opt.zero_grad()
    torch.testing.assert_close(weights(learn), weights(plain), rtol=1e-5, atol=1e-6)
    assert isinstance(learn.loss_func, Loss)


class GradientClip(FastaiBase):
    order = 11
    def before_step(self): nn.utils.clip_grad_norm_(self.parameters(), .1)


def test_gradient_clip(make):
    class Norm(Callback):
        order, norms = 50, ()
        def begin_step(self):
            grads = [p.grad.flatten() for p in self.learn.model.parameters()]
            self.norms = [*self.norms, torch.cat(grads).norm().item()]
    norm = Norm()
    make().fit(1, cbs=[GradientClip(), norm])
    assert len(norm.norms) == 5 and max(norm.norms) <= .1001


class ParamScheduler(FastaiBase):
    order, run_valid = 60, False

    def __init__(self, scheds): self.__dict__['scheds'] = scheds

    def before_fit(self): self.hps = {p: [] for p in self.scheds}

    def before_batch(self):
        for n, f in self.scheds.items(): self.opt.set_hyper(n, f(self.pct_train))

    def after_batch(self):
        for p in self.scheds: self.hps[p].append(self.opt.hypers[-1][p])

    def after_fit(self):
        if hasattr(self.learn, 'recorder'): self.recorder.hps = self.hps


def test_param_scheduler(make):
    learn = two_groups(make)
    learn.fit(2, cbs=[ParamScheduler({'lr': lambda p: .1*(1-p), 'mom': lambda p: .8+p/10})])
    assert learn.recorder.hps['lr'] == pytest.approx([.1*(1-i/10) for i in range(10)])
    assert learn.recorder.hps['mom'] == pytest.approx([.8+i/100 for i in range(10)])


class ActivationStats(FastaiBase):
    order = -20

    def before_fit(self):
        self.hooks = [m.register_forward_hook(self.note) for m in self.model.children()]
        self.stats, self.on = [], False

    def before_batch(self): self.__dict__['on'] = self.training and self.train_iter % 2 == 0

    def note(self, module, args, out):
        if self.on: self.stats.append((self.train_iter, out.mean().item()))

    def after_batch(self):
        if self.training and self.train_iter % 2 == 0: assert self.stats[-1][0] == self.train_iter

    def after_fit(self):
        for o in self.hooks: o.remove()


def test_activation_stats(make):
    cb = ActivationStats()
    make().fit(1, cbs=[cb])
    assert [o[0] for o in cb.stats] == [0, 0, 2, 2, 4, 4]


class ShortEpoch(FastaiBase):
    def after_batch(self):
        if self.iter/self.n_iter < .4: return
        raise foreign['Train'] if self.training else foreign['Valid']


def test_short_epoch(make):
    learn = make()
    learn.fit(2, cbs=[ShortEpoch()])
    assert learn.run.n_iter == 6 and learn.recorder.nb_batches == [3, 3]


def test_printed_example_of_the_recorder_and_the_loss(make, capsys):
    class PrintMetricsCallback(Callback):
        def after_epoch(self):
            print(f'Loss: {self.learn.loss:.4f}, '
                  f'Accuracy: {self.learn.recorder.metrics[0]:.4f}')

    class WithV2Names(PrintMetricsCallback):
        def before_epoch(self): pass
    learn = make(metrics=[lambda p, y: (p-y).abs().mean()])
    for cls in (PrintMetricsCallback, WithV2Names):
        learn.fit(1, cbs=cls())
        row = learn.recorder.values[-1]
        assert capsys.readouterr().out == f'Loss: {learn.loss:.4f}, Accuracy: {row[2]:.4f}\n'


def test_methods_of_the_learner(make):
    found = {}

    def use(cb):
        learn = cb.learn
        path = learn.save('there')
        found['loaded'] = learn.load('there', device='cpu', strict=True, weights_only=True)
        preds, targets = learn.get_preds(ds_idx=1, inner=True, reorder=True)
        found['n'] = len(preds), len(learn.get_preds(dl=learn.dls.train)[0]), path.name
        found['loss'] = learn.validate()[0], F.mse_loss(preds, targets).item()
        found['detached'] = learn.to_detach((learn.pred,), gather=False)[0].requires_grad
        found['cbs'] = [type(o).__name__ for o in learn.cbs.sorted('order')][:2]
        assert learn.dls[0] is learn.dls.train and learn.dls.n_inp == 1
        with learn.no_bar(): pass
    seen(make, 'after_epoch', use)
    assert found['n'] == (16, 40, 'there.pth') and not found['detached']
    assert found['loss'][0] == pytest.approx(found['loss'][1])
    assert found['cbs'] == ['TrainEvalCallback', 'Recorder']


def test_the_recorder_in_a_cancelled_validation(make):
    class Cancel(FastaiBase):
        def before_validate(self): raise foreign['Valid']
    rows = []

    class Look(FastaiBase):
        order = 60
        def after_epoch(self):
            rows.append((len(self.recorder.values[-1]), list(self.recorder.metric_names),
                         len(self.final_record), len(self.recorder.log), self.recorder.iters))
    make().fit(1, cbs=[Cancel(), Look()])
    assert rows == [(1, ['epoch', 'train_loss', 'valid_loss', 'time'], 1, 2, [5])]


# ---- several inputs ------------------------------------------------------------------------------
def test_several_inputs_and_targets_keep_their_shape(tmp_path):
    x, y = torch.ones(8, 2), torch.ones(8, 1)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)
        def forward(self, a, b): return self.layer(a+b)

    data = DataBunch([((x, x), (y, y))]*2, None, path=tmp_path)
    learn = Learner(data, Both(), lambda p, a, b: F.mse_loss(p, a+b), silent=True)
    rows = []

    class V2(FastaiBase):
        def before_batch(self):
            rows.append((len(self.xb), len(self.yb), len(self.x)))
            self.learn.xb = tuple(o*2 for o in self.xb)

    class Mini:
        order = 1
        def before_batch(self, learn):
            rows.append(len(learn.batch))
            learn.batch = [o+1 for o in learn.batch]

    class Last(Callback):
        order = 2
        def begin_batch(self): rows.append((self.xb[1][0, 0].item(), self.yb[0][0].item()))
    learn.fit(1, cbs=[V2(), Mini(), Last()])
    assert rows[:3] == [(2, 2, 2), 4, (3., 2.)]


# ---- miniai --------------------------------------------------------------------------------------
mini_events = ('before_fit before_epoch before_batch after_predict after_loss after_backward '
               'after_step after_batch cleanup_batch after_epoch cleanup_epoch after_fit '
               'cleanup_fit').split()


def mini_announcer(base=object, cancel=None, at=None):
    def note(event):
        def handler(self, learn):
            self.heard.append((event, learn.training))
            if event == at and cancel and not self.done:
                type(self).done = True
                raise cancel()
        return handler
    return type('Listen', (base,), {o: note(o) for o in mini_events} | {
        'heard': [], 'done': False})()


def miniai_loop(cbs, n=2):
    "The calls that miniai makes in an epoch of `n` batches: `before`, the work, `after`, `cleanup`"
    class Quit(Exception): pass

    def call(event):
        for cb in sorted(cbs, key=lambda o: getattr(o, 'order', 0)):
            if hasattr(cb, event):
                try: getattr(cb, event)(None)
                except Exception as e: raise Quit(type(e).__name__) from None

    def within(level, work):
        try:
            call(f'before_{level}')
            work()
            call(f'after_{level}')
        except Quit as e:
            if str(e) != f'Cancel{level.title()}Exception': raise
        finally: call(f'cleanup_{level}')
    batches = lambda: [within('batch', lambda: None) for _ in range(n)]  # noqa: E731
    within('fit', lambda: within('epoch', batches))


@pytest.mark.parametrize('heard', [
    ('before_batch', 'after_batch', 'cleanup_batch'), ('cleanup_batch',),
    ('before_epoch', 'cleanup_epoch', 'cleanup_batch'), ('before_fit', 'cleanup_fit')])
@pytest.mark.parametrize('at', ['batch', 'epoch', 'fit'])
@pytest.mark.parametrize('first', [True, False])
def test_clean_up_comes_whoever_breaks_off(heard, at, first, make):
    "Of miniai's callbacks one breaks off what begins; the other hears what miniai's loop tells it"
    def both():
        log, error = [], type(f'Cancel{at.title()}Exception', (Exception,), {})

        def stop(self, learn): raise error
        names = {o: lambda self, learn, o=o: log.append(o) for o in heard}
        return log, [type('Stops', (), {f'before_{at}': stop, 'order': 0 if first else 2})(),
                     type('Listens', (), {**names, 'order': 1})()]
    expected, cbs = both()
    miniai_loop(cbs)
    log, cbs = both()
    x = torch.zeros(4, 1)
    learn = make(data=DataBunch([(x, x)]*2, None), cbs=cbs)
    learn.fit(1)
    assert log == expected


def test_the_order_of_miniais_events(make):
    cb = mini_announcer()
    make(make_data(n=8)).fit(1, cbs=[cb])
    batch = ['before_batch', 'after_predict', 'after_loss', 'after_backward', 'after_step',
             'after_batch', 'cleanup_batch']
    test = [o for o in batch if o not in ('after_backward', 'after_step')]
    expected = ['before_fit', 'before_epoch', *batch, 'after_epoch', 'cleanup_epoch',
                'before_epoch', *test, 'after_epoch', 'cleanup_epoch', 'after_fit', 'cleanup_fit']
    assert [o[0] for o in cb.heard] == expected
    assert [o[1] for o in cb.heard if o[0] == 'before_epoch'] == [True, False]


Cancel = {o: type(f'Cancel{o}Exception', (Exception,), {}) for o in ('Fit', 'Epoch', 'Batch')}


class TinyMiniai:
    "miniai's loop, in its own words, to compare with"
    def __init__(self, cb, train, valid): self.cb, self.loaders = cb, (train, valid)

    def callback(self, name):
        if hasattr(self.cb, name): getattr(self.cb, name)(self)

    def phase(self, name, work):
        try:
            self.callback(f'before_{name}')
            work()
            self.callback(f'after_{name}')
        except Cancel[name.title()]: pass
        finally: self.callback(f'cleanup_{name}')

    def batch(self):
        for o in ('after_predict', 'after_loss') + ('after_backward', 'after_step')*self.training:
            self.callback(o)

    def pass_(self):
        for _ in range(self.n): self.phase('batch', self.batch)

    def epochs_(self):
        for _ in range(2):
            for self.training, self.n in zip((True, False), self.loaders):
                self.phase('epoch', self.pass_)

    training = False

    def fit(self): self.phase('fit', self.epochs_)


@pytest.mark.parametrize('name', Cancel)
@pytest.mark.parametrize('at', [o for o in mini_events if not o.startswith('cleanup')])
def test_cancels_of_miniai_do_what_they_do_there(make, name, at):
    "Compared with miniai's own loop; a cancel without its phase is another matter"
    theirs = mini_announcer(cancel=Cancel[name], at=at)
    try: TinyMiniai(theirs, 5, 2).fit()
    except Cancel[name]:
        with pytest.raises(RuntimeError, match='with no'):
            make().fit(2, cbs=[mini_announcer(cancel=Cancel[name], at=at)])
        return
    mine = mini_announcer(cancel=Cancel[name], at=at)
    make().fit(2, cbs=[mine])
    assert [o[0] for o in mine.heard] == [o[0] for o in theirs.heard]


def test_cleanup_comes_after_an_exception(make):
    cb = mini_announcer(cancel=ValueError, at='after_loss')
    with pytest.raises(ValueError): make().fit(1, cbs=[cb])
    assert [o[0] for o in cb.heard][-3:] == ['cleanup_batch', 'cleanup_epoch', 'cleanup_fit']


def test_miniais_names(make):
    rows = []

    class Names:
        order = 1

        def before_fit(self, learn):
            assert not hasattr(learn, 'metrics')
            learn.metrics = self
            rows.append(learn.epochs)
            learn.epochs = list(learn.epochs)

        def before_epoch(self, learn): learn.dl = BarLike(learn.dl)

        def after_batch(self, learn):
            learn.dl.comment = f'{learn.loss:.3f}'
            x, y = learn.batch
            assert learn.preds.shape == y.shape and learn.metrics is self
            assert learn.model.training == learn.training and learn.n_epochs == 2
            rows.append((learn.epoch, learn.iter, len(learn.dl)))
            assert len(learn.dls.train) == 5 and learn.opt.param_groups[0]['lr'] == .05

    class BarLike(list): pass
    learn = make(metrics=[lambda p, y: (p-y).abs().mean()])
    metrics = learn.metrics
    learn.fit(2, cbs=[Names()])
    assert rows[0] == range(2) and rows[1:3] == [(0, 0, 5), (0, 1, 5)] and rows[6] == (0, 0, 2)
    assert learn.metrics is metrics and learn.run.epochs == 2
    learn.fit(1)


def test_writing_through_miniais_view(make):
    class Change:
        def before_batch(self, learn): learn.batch = (learn.batch[0], learn.batch[1]*2)
        def after_predict(self, learn): learn.preds = learn.preds*2
        def after_loss(self, learn): learn.loss = learn.loss/2
    learn, plain = make(), make(loss_func=lambda p, y: F.mse_loss(p*2, y*2)/2)
    learn.fit(2, cbs=[Change()])
    plain.fit(2)
    same(weights(learn), weights(plain))


def test_torch_schedulers_take_miniais_opt(make):
    class Sched:
        def before_fit(self, learn): self.sched = torch.optim.lr_scheduler.StepLR(learn.opt, 1, .5)
        def after_batch(self, learn):
            if learn.training: self.sched.step()
    learn = make()
    learn.fit(1, cbs=[Sched()])
    assert learn.recorder.lrs == pytest.approx([.05*.5**i for i in range(5)])


def parts(**changed):
    "miniai's TrainCB"
    def nothing(self, learn): raise AssertionError('the loop does this itself')
    return {o: nothing for o in ('predict', 'get_loss', 'backward', 'step', 'zero_grad')} | changed


def test_the_parts_of_miniais_loop(make):
    TrainCB = type('TrainCB', (), parts())
    learn = make()
    learn.fit(1, cbs=[TrainCB()])
    assert learn.run.n_iter == 5
    Momentum = type('MomentumCB', (TrainCB,), {'zero_grad': lambda self, learn: None})
    learn = make()
    learn.fit(1, cbs=[Momentum()])
    assert learn.run.n_iter == 5 and all(p.grad is not None for p in learn.model.parameters())


def test_a_callback_of_ours_in_miniais_way(make):
    class Count(Callback):
        def before_fit(self, learn): self.count = 0
        def after_batch(self, learn):
            assert isinstance(learn, MiniaiView) and self.run.in_train == learn.training
            self.count += learn.training
    cb = Count()
    make().fit(2, cbs=[cb])
    assert cb.count == 10


# ---- mixtures ------------------------------------------------------------------------------------
def test_callbacks_of_all_libraries_on_one_run(make):
    heard = []

    class Nat(Callback):
        order = 1
        def begin_batch(self): heard.append(('native', self.run.xb[0, 0].item()))

    class V2(FastaiBase):
        order = 2
        def before_batch(self):
            heard.append(('v2', self.x[0, 0].item()))
            self.learn.xb = (self.x*2,)

    class Mini:
        order = 3
        def before_batch(self, learn): heard.append(('miniai', learn.batch[0][0, 0].item()))

    class Course:
        order = 4
        def set_runner(self, run): self.run = run
        def begin_batch(self):
            heard.append(('course', self.run.xb[0, 0].item()))
            return self.run.in_train and self.run.n_iter >= 1
    learn, trace = make(), TraceCallback()
    learn.fit(1, cbs=[Course(), Mini(), V2(), Nat(), trace])
    assert [o[0] for o in heard[:4]] == ['native', 'v2', 'miniai', 'course']
    first = heard[0][1]
    assert [o[1] for o in heard[:4]] == pytest.approx([first, first, 2*first, 2*first])
    assert trace.events.count('after_cancel_batch') == 4


def test_a_callback_that_extends_ours_sees_both_names(make):
    class Both(Callback):
        def before_batch(self):
            assert isinstance(self.xb, tuple) and self.learn is self.run
            assert self.in_train == self.training and self.n_iter == self.iters
            assert self.data.train_dl is self.dls.train and self.learn.epochs == self.n_epoch
            self.run.xb = (self.x, )
    learn = make()
    learn.fit(1, cbs=[Both()])
    assert learn.run.n_iter == 5


@pytest.mark.parametrize('cancel', [CancelFitException, CancelEpochException, CancelTrainException,
                                    CancelValidException, CancelBatchException])
def test_our_cancels_work_in_v2_spelling(make, cancel):
    class Cancels(Callback):
        def before_batch(self):
            if self.training != (cancel is CancelValidException): raise cancel
    trace = TraceCallback()
    make().fit(1, cbs=[Cancels(), trace])
    assert f'after_cancel_{cancel.phase}' in trace.events
