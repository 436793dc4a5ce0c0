"What callbacks write is read off their source, and the page says who comes when."
import functools
import inspect
from functools import partial

import pytest

from fastloop.callback.core import Callback, Dialect, dialects, events
from fastloop.callback.explain import (
    Explanation,
    explain_handlers,
    handler_name,
    shared_state,
    state_written,
)
from fastloop.runner import Runner


def table(*rows):
    "A table of handlers as a runner keeps it, from triples of event, callback, handler"
    return {event: [(cb, h) for name, cb, h in rows if name == event] for event in events}


def writes(cb, name): return state_written(getattr(cb, name), cb)


# ---- what a method writes ------------------------------------------------------------------------
def noted(function):
    "A decorator that keeps the name"
    @functools.wraps(function)
    def call(*args, **kwargs): return function(*args, **kwargs)
    return call


class Base(Callback):
    def after_pred(self): self.run.pred = self.run.pred*2


class Native(Base):
    pname, dynamic = 'mom', None

    def assigned(self): self.run.loss = 1
    def through_learn(self): self.learn.loss_func = 1
    def several(self): self.run.xb, self.learn.yb = 1, 2
    def chained(self): self.run.xb = self.run.yb = 0
    def starred(self): self.run.xb, *self.run.yb = 1, 2, 3
    def annotated(self): self.run.pred: int = 3
    def augmented(self): self.run.n_epochs += 1
    def by_setattr(self): setattr(self.run, 'xb', 1)  # noqa: B010
    def setattr_unknown(self): setattr(self.run, str(3), 1)
    def setattr_self(self): setattr(self, 'loss', 1)  # noqa: B010
    def item(self): self.run.xb[0] = 0
    def item_read_through(self): self.xb[0] = 0
    def attribute(self): self.run.loss.data = 0
    def in_place_method(self): self.run.loss.mul_(2)
    def plain_method(self): self.run.loss.mul(2)
    def dunder(self): self.run.loss.__repr__()
    def in_place(self): self.pred *= 2

    def alias(self):
        run, learn = self.run, self.learn
        run.xb, learn.opt.lr = 1, 2

    def alias_of_tensor(self):
        loss = self.run.loss
        loss /= 2

    def alias_of_number(self):
        n = self.run.epoch
        n += 2

    def forgotten_alias(self):
        run = self.run
        run = object()
        run.xb = 1

    def walrus(self):
        if (run := self.run): run.loss = 1

    def loops(self):
        for i, group in enumerate(self.opt.param_groups): group['lr'] = i
        for group, value in zip(self.learn.opt.param_groups, (1, 2)): group['weight_decay'] = value
        for group in reversed(self.run.opt.param_groups): group[self.pname] = 1

    def betas(self): self.opt.param_groups[0]['betas'] = 1, 2
    def updated(self): self.opt.param_groups[-1].update(lr=3)
    def unknown_key(self): self.opt.param_groups[-1][self.dynamic] = 3
    def hypers(self): self.opt.lr, self.opt.mom, self.opt.wd, self.opt.beta = 1, 2, 3, 4
    def learner_hyper(self): self.learn.opt.lr *= 2
    def set_hyper(self): self.opt.set_hyper('lr', 1)
    def set_hypers(self): self.opt.set_hypers(lr=1, mom=2)
    def set_unknown(self):
        for name in self.scheds: self.opt.set_hyper(name, 1)
    def new_opt(self): self.learn.opt = 1
    def nested(self):
        def work(): self.run.loss = 1
        work()
    def in_branches(self):
        try:
            if self.n_iter: self.run.xb = 1
            else: self.run.yb = 1
        finally:
            with open('x'): self.run.pred = 1
            while True: self.run.dl = 1

    def helper(self): self.write_lr(self.run, .1)
    def write_lr(self, run, lr): run.opt.lr = lr
    def by_keyword(self): self.static_write(where=self.learn)
    @staticmethod
    def static_write(where): where.pred = 1
    def two_levels(self): self.helper()
    def circle(self): self.circle_back()
    def circle_back(self):
        self.run.loss = 1
        self.circle()
    def after_pred(self): super().after_pred()
    @noted
    def decorated(self): self.run.loss = 1
    def docstring(self):
        """One line
and one without indent"""
        self.run.loss = 1

    def own(self): self.cache = self.loss
    def own_state_name(self): self.data['x'] = 1
    def keep(self): self.data = {}
    def others(self): self.learn.logger = print
    def deeper(self): self.recorder.values[-1] = 1
    def reads(self): return self.run.loss, self.opt.lr, self.xb[0]
    def cancels(self): return True
    def answer_is_ignored(self): return {'last_loss': 1}


@pytest.mark.parametrize('name, expected', [
    ('assigned', 'loss'), ('through_learn', 'loss_func'), ('several', 'xb yb'),
    ('chained', 'xb yb'), ('starred', 'xb yb'), ('annotated', 'pred'), ('augmented', 'n_epochs'),
    ('by_setattr', 'xb'), ('setattr_unknown', ''), ('setattr_self', ''), ('item', 'xb'),
    ('item_read_through', 'xb'), ('attribute', 'loss'), ('in_place_method', 'loss'),
    ('plain_method', ''), ('dunder', ''), ('in_place', 'pred'), ('alias', 'xb opt.lr'),
    ('alias_of_tensor', 'loss'), ('alias_of_number', ''), ('forgotten_alias', ''),
    ('walrus', 'loss'), ('loops', 'opt.lr opt.wd opt.mom'), ('betas', 'opt.mom opt.beta'),
    ('updated', 'opt.lr'), ('unknown_key', 'opt'), ('hypers', 'opt.lr opt.mom opt.wd opt.beta'),
    ('learner_hyper', 'opt.lr'), ('set_hyper', 'opt.lr'), ('set_hypers', 'opt.lr opt.mom'),
    ('set_unknown', 'opt'), ('new_opt', 'opt'), ('nested', 'loss'),
    ('in_branches', 'xb yb pred dl'), ('helper', 'opt.lr'),
    ('by_keyword', 'pred'), ('two_levels', 'opt.lr'), ('circle', 'loss'), ('after_pred', 'pred'),
    ('decorated', 'loss'), ('docstring', 'loss'), ('own', ''), ('own_state_name', ''),
    ('others', ''), ('deeper', ''), ('reads', ''), ('cancels', ''), ('answer_is_ignored', '')])
def test_native(name, expected): assert writes(Native(), name) == set(expected.split())


class Two:
    "fastai v2's names, and miniai's parameter"
    def after_loss(self): self.learn.loss_grad /= 2
    def before_batch(self): self.learn.xb = (self.x/2,)
    def after_pred(self): self.learn.preds = 1
    def before_step(self):
        for h in self.opt.hypers: h['lr'] = h['lr']/10
    def before_validate(self): self.run = False
    def before_epoch(self, learn): learn.batch, learn.training = 1, 2
    def before_fit(self, learner): learner.dls = 1
    def before_train(self, learn): learn.opt.param_groups[0]['lr'] = 1


@pytest.mark.parametrize('name, expected', [
    ('after_loss', 'loss_grad'), ('before_batch', 'xb'), ('after_pred', 'pred'),
    ('before_step', 'opt.lr'), ('before_validate', ''), ('before_epoch', 'xb yb in_train'),
    ('before_fit', 'data'), ('before_train', 'opt.lr')])
def test_v2_and_miniai(name, expected): assert writes(Two(), name) == set(expected.split())


class One:
    "fastai v1's answers"
    def on_train_begin(self, **kwargs): return dict(skip_validate=True, epoch=3)
    def on_epoch_begin(self, **kwargs): self.learn.opt.lr = 1
    def on_batch_begin(self, last_input, last_target, **kwargs): return last_input/2, last_target
    def on_loss_begin(self, last_output, **kwargs): return last_output[0]
    def on_backward_begin(self, last_loss, **kwargs): return last_loss*2
    def on_backward_end(self, **kwargs):
        answer = {'skip_step': True}
        answer['skip_zero'] = True
        answer.update(stop_epoch=True)
        answer |= {'last_metrics': []}
        return answer
    def on_step_end(self, **kwargs): return True if kwargs else None
    def on_batch_end(self, num_batch, **kwargs): return num_batch > 3
    def on_epoch_end(self, last_metrics, **kwargs): return self.stop()
    def stop(self): return {'stop_training': True, **{'skip_validate': True}} if self else None
    def on_train_end(self, **kwargs):
        def inner(): return {'last_loss': 1}
        inner()


class InPlace:
    def on_batch_begin(self, last_input, **kwargs): last_input.mul_(2)
    def on_loss_begin(self, last_output, **kwargs): return None
    def on_backward_begin(self, **kwargs): return self.clip()
    def clip(self): return {'last_loss': 1}
    def on_batch_end(self, **kwargs): return kwargs and {'stop_epoch': True}
    def on_epoch_end(self, **kwargs): return False


@pytest.mark.parametrize('cls, name, expected', [
    (One, 'on_train_begin', 'skip_validate epoch'), (One, 'on_epoch_begin', 'opt.lr'),
    (One, 'on_batch_begin', 'xb yb'), (One, 'on_loss_begin', 'pred'),
    (One, 'on_backward_begin', 'loss'), (One, 'on_step_end', 'skip_zero'),
    (One, 'on_backward_end', 'skip_step skip_zero stop_epoch last_metrics'),
    (One, 'on_batch_end', 'stop_epoch'), (One, 'on_epoch_end', 'stop_training skip_validate'),
    (One, 'on_train_end', ''), (InPlace, 'on_batch_begin', 'xb'), (InPlace, 'on_loss_begin', ''),
    (InPlace, 'on_backward_begin', 'loss'), (InPlace, 'on_batch_end', 'stop_epoch'),
    (InPlace, 'on_epoch_end', '')])
def test_v1(cls, name, expected): assert writes(cls(), name) == set(expected.split())


class Keras:
    def set_model(self, model): self.model = model
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = .1
        self.model.stop_training = True
        return {'last_loss': 1}


def test_keras_answers_mean_nothing():
    assert writes(Keras(), 'on_epoch_end') == {'opt.lr', 'stop_training'}


def test_an_attribute_of_the_callback_is_not_the_run():
    cb = Native()
    assert writes(cb, 'item_read_through') == {'xb'}
    vars(cb)['xb'] = [1]
    assert writes(cb, 'item_read_through') == set()


class Broken:
    "Something that cannot be looked at"
    @property
    def __wrapped__(self): raise OSError('no source')
    def __call__(self): pass


def test_what_has_no_source_writes_nothing_that_we_know(monkeypatch):
    made = {}
    exec('def f(): run.loss = 1', made)
    for handler in (print, len, partial(print, 1), lambda: setattr(1, 'loss', 2), made['f'],
                    Broken(), partial(Broken()), 'abc'.upper, None, 3, [].append):
        assert state_written(handler) == set(), handler
    def fails(o): raise RuntimeError('getsource is broken')
    monkeypatch.setattr(inspect, 'getsource', fails)
    assert writes(Native(), 'assigned') == set()
    assert 'Native.assigned' in explain_handlers(table(('begin_fit', (n := Native()), n.assigned)))


def test_source_that_is_no_function_is_not_read(monkeypatch):
    for source in ('x = 1', 'def other(): run.loss = 1', 'def assigned(self:', ''):
        monkeypatch.setattr(inspect, 'getsource', lambda o, source=source: source)
        assert writes(Native(), 'assigned') == set()


# ---- names ---------------------------------------------------------------------------------------
class Guard:
    "What a translator may look like"
    def __init__(self, cb): self.cb = cb
    def answer(self, moment, cb): return getattr(cb, f'on_{moment}')()
    def __call__(self): pass


def test_names():
    one, two, native = One(), Two(), Native()
    guard = Guard(one)
    def closed(): return two.before_batch()
    def call_method(method=None): return method
    assert handler_name(native.assigned) == 'assigned'
    assert handler_name(partial(guard.answer, 'batch_begin', one), one) == 'on_batch_begin'
    assert handler_name(partial(guard.answer, 'batch_begin', one)) == 'on_batch_begin'
    assert handler_name(partial(call_method, two.before_batch), two) == 'before_batch'
    assert handler_name(partial(partial(call_method, two.before_batch)), two) == 'before_batch'
    assert handler_name(partial(call_method, method=two.before_step)) == 'before_step'
    assert handler_name(native.decorated) == 'decorated'
    assert handler_name(closed) == 'closed'
    assert handler_name(print) == 'print'
    assert handler_name(lambda: 1) == '<lambda>'
    assert handler_name(guard) == 'Guard'
    assert handler_name(None) == 'NoneType'


def test_a_closure_over_a_method_is_named_after_it():
    two = Two()
    def make(method): return lambda: method(two)
    assert handler_name(make(two.before_epoch), two) == 'before_epoch'
    assert state_written(make(two.before_epoch), two) == {'xb', 'yb', 'in_train'}


def test_a_translator_with_the_name_of_an_event():
    two = Two()
    handler = partial(lambda cb, name: getattr(cb, name)(), two, 'before_batch')
    assert handler_name(handler, two) == 'before_batch'
    assert state_written(handler, two) == {'xb'}


def test_an_instance_attribute_is_named_after_the_attribute():
    class Free(Callback): pass
    def work(): pass
    cb = Free()
    cb.begin_fit = partial(work)
    run = Runner(cb)
    assert 'Free.begin_fit ' in explain_handlers(run.handlers)


def test_an_unfinished_closure():
    def outer():
        def handler(): return late
        name = handler_name(handler)
        late = 1
        return name, late
    assert outer() == ('handler', 1)


# ---- the page ------------------------------------------------------------------------------------
class Halve(Callback):
    def after_loss(self): self.run.loss = self.run.loss/2


class Scale(Callback):
    order = 3
    def after_loss(self): self.learn.loss *= 10
    def begin_backward(self): self.run.loss = self.run.loss+1


class Reads(Callback):
    order = -3
    def after_loss(self): self.seen = self.run.loss


def lines_of(*cbs): return explain_handlers(Runner(cbs).handlers).splitlines()


def conflicts(*cbs):
    lines = lines_of(*cbs)
    return lines[lines.index('Written by more than one')+1:-1]


def test_handlers_stand_below_their_event_in_their_order():
    lines = lines_of(Scale(), Halve(), Reads())
    at = lines.index('        after_loss')
    words = [line.split() for line in lines[at+1:at+4]]
    assert words == [['Reads.after_loss', 'native', 'order', '-3'],
                     ['Halve.after_loss', 'native', 'order', '0', 'writes', 'loss'],
                     ['Scale.after_loss', 'native', 'order', '3', 'writes', 'loss']]
    assert lines[at+4] == '        begin_backward'


def test_events_come_in_their_order_and_as_deep_as_their_phases():
    class All(Callback): pass
    for event in events: setattr(All, event, lambda self: None)
    lines = lines_of(All())
    found = {line.strip(): len(line)-len(line.lstrip()) for line in lines if line.strip() in events}
    assert list(found) == list(events)
    depth = dict(fit=0, epoch=1, train=2, validate=2, batch=3, pred=4, loss=4, backward=4, step=4)
    assert found == {event: 2*depth[event.split('_')[-1]] for event in events}


def test_two_of_one_class_get_numbers():
    text = '\n'.join(lines_of(Halve(), Scale(), Halve()))
    assert 'Halve#1.after_loss' in text and 'Halve#2.after_loss' in text and 'Scale#' not in text
    assert 'Halve#' not in '\n'.join(lines_of(Halve(), Scale()))


def test_conflicts_name_everybody_in_order_and_the_last_word():
    assert conflicts(Scale(), Halve(), Reads()) == [
        '  loss: Halve.after_loss, Scale.after_loss, Scale.begin_backward; '
        'last word: Scale.begin_backward']


def test_one_callback_alone_is_no_conflict():
    assert conflicts(Scale(), Reads()) == ['  nothing']
    cb = Scale()
    handlers = table(('after_loss', cb, cb.after_loss), ('begin_backward', cb, cb.begin_backward))
    assert shared_state(handlers) == {}


def test_two_of_one_class_are_two_callbacks():
    assert conflicts(Halve(), Halve()) == [
        '  loss: Halve#1.after_loss, Halve#2.after_loss; last word: Halve#2.after_loss']


def test_the_last_word_is_that_of_a_run_that_is_not_broken_off():
    class Late(Callback):
        order = 9
        def after_cancel_batch(self): self.run.loss = None
    class Last(Callback):
        def after_batch(self): self.run.loss = None
    assert conflicts(Late(), Halve()) == [
        '  loss: Halve.after_loss, Late.after_cancel_batch; last word: Halve.after_loss']
    assert conflicts(Late(), Last()) == [
        '  loss: Late.after_cancel_batch, Last.after_batch; last word: Last.after_batch']


class StandIn(Dialect):
    name = 'fastai v1'
    def knows(self, cb): return isinstance(cb, One)
    def attach(self, cb, run): cb.run = run
    def handlers(self, cb, run):
        answer = Guard(cb).answer
        return [('begin_backward', partial(answer, 'backward_begin', cb))]


@pytest.fixture
def stand_in():
    known = list(dialects)
    dialects.append(StandIn())
    yield
    dialects[:] = known


def test_dialects_meet(stand_in):
    lines = lines_of(Halve(), One())
    assert [o.split() for o in lines if 'on_backward' in o][0] == [
        'One.on_backward_begin', 'fastai', 'v1', 'order', '0', 'writes', 'loss']
    assert conflicts(One(), Halve()) == [
        '  loss: Halve.after_loss, One.on_backward_begin (begin_backward); '
        'last word: One.on_backward_begin (begin_backward)']


def test_empty_tables():
    for handlers in ({}, table()):
        text = explain_handlers(handlers)
        assert text.splitlines() == [
            'no callback answers any event', '', 'Written by more than one', '  nothing',
            'Read from the source; what is written in other ways is not seen.']


def test_the_page_is_plain_text():
    class Odd(Callback):
        def begin_fit(self): pass
    Odd.__name__ = 'Odd\x1b[31m\n<b>'
    cb = Odd()
    text = explain_handlers(table(('begin_fit', cb, cb.begin_fit)))
    assert isinstance(text, Explanation) and repr(text) == str(text)
    assert not hasattr(text, '_repr_html_')
    assert '\x1b' not in text and 'Odd?[31m?<b>.begin_fit' in text


def test_unknown_callbacks_are_shown():
    cb = object()
    assert '?' in explain_handlers(table(('begin_fit', cb, print))).splitlines()[1].split()


def test_nothing_is_run_and_nothing_is_changed():
    class Loud(Callback):
        def begin_fit(self): raise AssertionError('was called')
        @property
        def after_everything(self): raise AssertionError('was read')
    run = Runner([Loud(), Halve()])
    before = {event: list(found) for event, found in run.handlers.items()}
    state = dict(vars(run.cbs[-1]))
    explain_handlers(run.handlers)
    assert run.handlers == before and vars(run.cbs[-1]) == state


def test_every_line_of_the_real_callbacks():
    from fastloop.callback.recorder import Recorder
    lines = lines_of(Recorder(), Halve())
    assert any(o.strip().startswith('TrainEvalCallback.begin_train') for o in lines)
    assert all(line == line.rstrip() for line in lines)


class Spiral(Callback):
    "Goes deeper with each call"
    def after_loss(self): self.go(self.run)
    def go(self, o):
        o.loss = 1
        self.go(o.next)


class Odd(Callback):
    "Python that nobody writes"
    def after_loss(self):
        for i, o in enumerate(): o.x = i
        for o in zip(): o.x = 1
        for i, o in zip(*self.opt.param_groups): o['lr'] = i
        dict(**self)
        setattr(*self)
        super().nowhere()
        self.nowhere(1, *self, **self)
        lambda: (yield)
        self.run = self.run.run.learn.run
        self.run.loss, [self.run.xb, (*self.run.yb,)] = 1, [2, (3,)]


def test_methods_that_call_themselves_for_ever():
    assert writes(Spiral(), 'after_loss') == {'loss'}


def test_odd_code_is_read_without_an_error():
    assert writes(Odd(), 'after_loss') == {'loss', 'xb', 'yb'}
