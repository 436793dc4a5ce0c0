"The page that says who answers which event."
from functools import partial

import pytest

from fastloop.callback.core import Callback, events
from fastloop.callback.explain import Explanation, explain_handlers, handler_name
from fastloop.examples import line
from fastloop.runner import Runner


class One:
    "Written for fastai v1"
    def on_batch_begin(self, **kwargs): pass
    def on_backward_begin(self, **kwargs): pass


class Two(Callback):
    "Written for fastai v2"
    def before_batch(self): pass
    def before_step(self): pass


class Three:
    "Written for miniai"
    def before_epoch(self, learn): pass
    def after_batch(self, learn): pass


class Four:
    "Written for Keras"
    def set_model(self, model): pass
    def on_epoch_end(self, epoch, logs=None): pass


class Halve(Callback):
    def after_loss(self): self.run.loss = self.run.loss/2


class Scale(Callback):
    order = 3
    def after_loss(self): self.run.loss = self.run.loss*10
    def begin_backward(self): pass


class Reads(Callback):
    order = -3
    def after_loss(self): self.seen = self.run.loss


def table(*rows):
    "What a runner keeps"
    handlers = {event: [] for event in events}
    for event, cb, handler in rows: handlers[event].append((cb, handler))
    return handlers


def lines_of(*cbs):
    run = Runner(cbs)
    run.fit(1, line(2, 1))
    return explain_handlers(run.handlers).splitlines()


# ---- names ---------------------------------------------------------------------------------------
class Guard:
    "What a translator may look like"
    def __init__(self, cb): self.cb = cb
    def answer(self, moment, cb): return getattr(cb, f'on_{moment}')()
    def __call__(self): pass


class Wraps:
    "Another way to wrap"
    def __init__(self, handler): self.handler = handler
    def __call__(self): return self.handler()


def test_names():
    one, two, native = One(), Two(), Halve()
    guard = Guard(one)
    def closed(): return two.before_batch()
    def call_method(method=None): return method
    assert handler_name(native.after_loss) == 'after_loss'
    assert handler_name(partial(guard.answer, 'batch_begin', one), one) == 'on_batch_begin'
    assert handler_name(partial(guard.answer, 'batch_begin', one)) == 'on_batch_begin'
    assert handler_name(partial(call_method, two.before_batch), two) == 'before_batch'
    assert handler_name(partial(partial(call_method, two.before_batch)), two) == 'before_batch'
    assert handler_name(partial(call_method, method=two.before_step)) == 'before_step'
    assert handler_name(Wraps(two.before_step), two) == 'before_step'
    assert handler_name(closed) == 'closed'
    assert handler_name(print) == 'print'
    assert handler_name(lambda: 1) == '<lambda>'
    assert handler_name(guard) == 'Guard'
    assert handler_name(None) == 'NoneType'


def test_what_belongs_to_another_object_is_named_with_its_class():
    assert handler_name(Guard(None).answer, Halve()) == 'Guard.answer'


def test_a_closure_over_a_method_is_named_after_it():
    two = Two()
    def make(method): return lambda: method(two)
    assert handler_name(make(two.before_batch), two) == 'before_batch'


def test_a_translator_with_the_name_of_an_event():
    two = Two()
    handler = partial(lambda cb, name: getattr(cb, name)(), two, 'before_batch')
    assert handler_name(handler, two) == 'before_batch'


def test_an_instance_attribute_is_named_after_the_attribute():
    class Free(Callback): pass
    def work(): pass
    cb = Free()
    cb.begin_fit = partial(work)
    assert 'Free.begin_fit ' in explain_handlers(Runner(cb).handlers)


def test_an_unfinished_closure():
    def outer():
        def handler(): return late
        name = handler_name(handler)
        late = 1
        return name, late
    assert outer() == ('handler', 1)


# ---- the page ------------------------------------------------------------------------------------
def test_handlers_stand_below_their_event_in_their_order():
    lines = lines_of(Scale(), Halve(), Reads())
    at = lines.index('        after_loss')
    assert [line.split() for line in lines[at+1:at+4]] == [
        ['Reads.after_loss', 'fastloop', 'order', '-3'],
        ['Halve.after_loss', 'fastloop', 'order', '0'],
        ['Scale.after_loss', 'fastloop', 'order', '3']]
    assert lines[at+4] == '        begin_backward'


def test_an_order_of_one_handler_is_the_one_that_is_shown():
    class Last(Callback):
        order, orders = -5, {'after_loss': 50}
        def begin_fit(self): pass
        def after_loss(self): pass
    lines = [o.split() for o in lines_of(Last(), Halve())]
    assert ['Last.begin_fit', 'fastloop', 'order', '-5'] in lines
    assert lines.index(['Last.after_loss', 'fastloop', 'order', '50']) > lines.index(
        ['Halve.after_loss', 'fastloop', 'order', '0'])


@pytest.mark.parametrize('cb, row', [
    (One(), 'One.on_batch_begin fastai v1 order 0'), (Two(), 'Two.before_batch fastai v2 order 0'),
    (Three(), 'Three.MiniaiCalls.leave miniai'), (Four(), 'Four.KerasBridge.after_epoch keras')],
    ids=lambda o: type(o).__name__)
def test_the_library_of_each_callback_is_named(cb, row):
    found = [' '.join(o.split()) for o in lines_of(cb, Halve())]
    assert row in found or any(o.startswith(row.rsplit(' order')[0]) for o in found), found


def test_each_callback_of_keras_is_named_where_it_hears_of_an_event():
    class Five(Four):
        def on_test_batch_end(self, batch, logs=None): pass
    found = [' '.join(o.split()) for o in lines_of(Four(), Five(), Halve(), Four())]
    at = found.index('Four#1.KerasBridge.after_epoch keras')
    assert found[at+1:at+4] == [f'{o}.on_epoch_end keras' for o in ('Four#1', 'Five', 'Four#2')]
    at = found.index('Four#1.KerasBridge.after_batch keras')
    assert found[at+1] == 'Five.on_test_batch_end keras'


def test_events_come_in_their_order_and_as_deep_as_their_phases():
    class All(Callback): pass
    for event in events: setattr(All, event, lambda self: None)
    lines = explain_handlers(Runner(All()).handlers).splitlines()
    found = {o.strip(): len(o)-len(o.lstrip()) for o in lines if o.strip() in events}
    assert list(found) == list(events)
    depth = dict(fit=0, epoch=1, train=2, validate=2, batch=3, pred=4, loss=4, backward=4, step=4)
    assert found == {event: 2*depth[event.split('_')[-1]] for event in events}


def test_two_of_one_class_get_numbers():
    text = '\n'.join(lines_of(Halve(), Scale(), Halve()))
    assert 'Halve#1.after_loss' in text and 'Halve#2.after_loss' in text and 'Scale#' not in text
    assert 'Halve#' not in '\n'.join(lines_of(Halve(), Scale()))


def test_empty_tables():
    for handlers in ({}, table()):
        assert explain_handlers(handlers) == 'no callback answers any event'


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
