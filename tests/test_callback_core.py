"The events, the names of callbacks, and what is refused"
import copy
import inspect
import pickle
import re
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

import fastloop.all
from fastloop.all import DataBunch, Learner, Runner
from fastloop.callback import core
from fastloop.callback.core import (
    Callback,
    CancelException,
    TraceCallback,
    UnknownEvent,
    as_callback,
    cancel_for,
    event_handlers,
    events,
    meant_event,
    order_of,
    phases,
    running_phases,
)

MISSPELT = """after_epcoh after_bach befor_fit begin_ftt begin_epochs after_losses after_los
    after_prd
    begin_bacth beginbatch begin_trian after_trainn begin_validat after_valdate after_backwards
    begin_backwrd begin_stp after_stepp after_cancel_bacth after_cancel_epcoh before_bacth
    before_backwards begin_loss begin_pred begin_training after_training begin_validation
    after_validation after_valid begin_valid after_forward after_batches before_epochs
    after_preds affter_fit after_batch_end on_epcoh_end on_batch_start on_epoch on_train_finish
    on_loss_end on_step_begin on_bach_begin on_validation_end after_predicts cleanup_fitt""".split()
INNOCENT = """plot reset begin_game after_dinner on_click fit step train batch loss validate update
    after before begin save load state_dict before_you_go afterwards beginner after_hours
    on_pause on_close on_key_press on_message cleanup_files get_batch run_step compute_loss
    _after_epcoh draw_after""".split()


@pytest.mark.parametrize('name', MISSPELT)
def test_misspelt_events_are_refused_with_a_suggestion(name):
    with pytest.raises(UnknownEvent, match=name) as e:
        type('Some', (Callback,), {name: lambda self: None})
    assert isinstance(e.value, TypeError)
    assert meant_event(name) in (*events, *(f'before_{p}' for p in phases), *core.foreign_names)
    assert repr(meant_event(name)) in str(e.value)


@pytest.mark.parametrize('name', INNOCENT + list(events) + [f'before_{p}' for p in phases])
def test_other_names_are_nobodys_business(name):
    type('Some', (Callback,), {name: lambda self: None})


def test_there_are_enough_examples():
    assert len(set(MISSPELT)) >= 30 and len(set(INNOCENT)) >= 20


def test_each_event_is_inside_the_phases_that_its_name_says():
    for event in events:
        for in_train in (True, False):
            running = running_phases(event, in_train)
            assert list(running) == sorted(running, key=phases.index)
            phase = event.split('_')[-1]
            if phase in phases: assert (phase in running) == event.startswith('begin_')
            if (exception := cancel_for(event, in_train)) and 'batch' in running:
                assert exception.phase in running


def test_every_phase_has_its_exception():
    classes = CancelException.__subclasses__()
    assert sorted(c.__name__ for c in classes) == sorted(
        f'Cancel{p.capitalize()}Exception' for p in phases)
    assert core.CancelValidException is core.CancelValidateException


@pytest.mark.parametrize('name,expected', [
    ('AvgStatsCallback', 'avg_stats'), ('CSVLogger', 'csv_logger'), ('LRFinder', 'lr_finder'),
    ('TrainEvalCallback', 'train_eval'), ('Recorder', 'recorder'), ('Callback', 'callback')])
def test_names(name, expected):
    assert type(name, (Callback,), {})().name == expected


def test_a_name_can_be_set():
    cb = Callback()
    cb.name = 'mine'
    assert cb.name == 'mine' and type('X', (Callback,), {'name': 'yours'})().name == 'yours'


def test_orders():
    class Old(Callback): _order = 5
    class New(Old): order = -3
    class Newest(New): _order = 7
    assert [order_of(o) for o in (Callback(), Old(), New(), Newest())] == [0, 5, -3, 7]
    cb = New()
    cb._order = 9
    assert order_of(cb) == 9


def test_callbacks_may_be_dataclasses():
    @dataclass
    class Clip(Callback):
        learn: object
        clip: float
        def after_backward(self): return self.clip

    learn = SimpleNamespace(model=nn.Linear(1, 1), data=None)
    cb = Clip(learn, 0.1)
    assert cb.learn is learn and cb.clip == 0.1 and cb.name == 'clip'
    assert [event for event, _ in event_handlers(cb)] == ['after_backward']
    with pytest.raises(TypeError, match='clip'): Clip(learn)


def test_a_first_argument_that_is_no_learner_is_refused_with_the_keyword():
    class Smooth(Callback):
        def __init__(self, learn=None, alpha=0.4): super().__init__(learn)
    with pytest.raises(TypeError, match=r'Smooth\(alpha=0\.2\)'): Smooth(0.2)
    with pytest.raises(TypeError, match='first argument is the learner'): Callback('x')
    Smooth(None, 0.2)


def make_run():
    learn = SimpleNamespace(model=nn.Linear(1, 1), opt=1, loss_func=2, data=3, lr=0.5)
    return SimpleNamespace(learn=learn, loss=torch.tensor(1.), model=learn.model, epoch=4)


def test_reading_goes_to_the_run_then_to_the_learner():
    cb, run = Callback(), make_run()
    with pytest.raises(AttributeError, match='epoch'): cb.epoch  # noqa: B018
    cb.set_runner(run)
    assert cb.epoch == 4 and cb.lr == 0.5 and cb.loss is run.loss
    assert not hasattr(cb, 'no_such_thing')
    with pytest.raises(AttributeError, match='no_such_thing'): cb.no_such_thing  # noqa: B018


@pytest.mark.parametrize('name', [*core.run_state, *core.learner_state])
def test_writing_never_goes_through(name):
    cb, run = Callback(), make_run()
    cb.set_runner(run)
    owner = 'learn' if name in core.learner_state else 'run'
    with pytest.raises(AttributeError, match=rf'self\.{owner}\.{name} = '):
        setattr(cb, name, object())
    assert name not in vars(cb)


def test_writing_the_very_object_is_harmless():
    cb, run = Callback(), make_run()
    cb.set_runner(run)
    cb.model = run.learn.model
    run.learn.model = nn.Linear(2, 2)
    assert cb.model is run.model or cb.model is run.learn.model
    cb.alpha = 3
    assert cb.alpha == 3


def test_handlers_with_arguments_are_refused():
    class Miniai(Callback):
        def after_batch(self, learn): pass
    with pytest.raises(TypeError, match=r'Miniai\.after_batch wants arguments \(learn\)'):
        event_handlers(Miniai())
    class Fine(Callback):
        def after_batch(self, *args, n=1, **kwargs): pass
    assert [e for e, _ in event_handlers(Fine())] == ['after_batch']


def test_handlers_set_on_the_object_count_and_none_switches_off():
    class Both(Callback):
        def after_fit(self): pass
        def before_fit(self): pass
    cb = Both()
    cb.after_fit = None
    cb.after_loss = lambda: True
    assert [e for e, _ in event_handlers(cb)] == ['begin_fit', 'after_loss']


@pytest.fixture
def bells(monkeypatch):
    "An adapter of a third party, appended to the list by its module's name"
    class Foreign:
        def ring(self): return 'rung'
    adapter = ModuleType('bells')
    adapter.library, adapter.Foreign = 'bells', Foreign
    adapter.knows = lambda cb: isinstance(cb, Foreign)
    adapter.adapt = lambda cb, run: [('after_fit', 3, cb.ring)]
    monkeypatch.setitem(sys.modules, 'bells', adapter)
    monkeypatch.setattr(core, 'adapters', [*core.adapters, 'bells'])
    return adapter


def test_a_third_party_appends_its_adapter(bells):
    cb = as_callback(bells.Foreign)
    assert isinstance(cb, bells.Foreign) and core.written_for(cb) == 'bells'
    assert core.callback_name(cb) == 'foreign' and core.find_callback([cb], 'foreign') is cb
    (event, order, handler), = core.handlers_of(cb, None, core.adapter_of(cb))
    assert (event, order, handler()) == ('after_fit', 3, 'rung')


def test_native_callbacks_ask_no_adapter(monkeypatch):
    monkeypatch.setattr(core, 'adapters', ['no_such_module'])
    assert core.adapter_of(TraceCallback()) is None
    assert core.written_for(TraceCallback()) == 'fastloop'
    with pytest.raises(ModuleNotFoundError): core.adapter_of(object())


def test_what_nobody_knows_is_refused():
    for o in (3, object(), 'Recorder', {}):
        with pytest.raises(TypeError, match='no callback'): as_callback(o)


def test_any_object_with_methods_named_after_events_takes_part():
    class Plain:
        order = 5
        def after_loss(self): return self.run.loss
    run = make_run()
    core.introduce(cb := as_callback(Plain), run)
    assert cb.learn is run.learn
    (event, order, handler), = core.handlers_of(cb, run)
    assert (event, order) == ('after_loss', 5) and handler() is run.loss


@pytest.mark.parametrize('event', ['begin_backward', 'before_backward'])
@pytest.mark.parametrize('place', ['class', 'object'])
def test_single_handlers_have_an_order_of_their_own(event, place):
    class Last(Callback):
        order = -15
        def begin_fit(self): pass
        def begin_backward(self): pass
    last = Last()
    (Last if place == 'class' else last).orders = {event: float('inf')}
    assert [o[:2] for o in core.handlers_of(last, None)] == [
        ('begin_fit', -15), ('begin_backward', float('inf'))]


def test_a_place_for_an_event_that_is_none_is_refused():
    with pytest.raises(UnknownEvent, match="begin_bakward.*'begin_backward'"):
        type('Typo', (Callback,), dict(orders={'begin_bakward': 1}))


def test_misspelt_events_of_foreign_objects_are_refused_when_attached(bells):
    class Misspelt(bells.Foreign):
        def after_fit(self): pass
        def after_epcoh(self): pass
    with pytest.raises(UnknownEvent, match='Misspelt.after_epcoh'): as_callback(Misspelt())


def test_callbacks_can_be_copied_and_pickled():
    cb = Callback()
    cb.alpha = 2
    assert copy.deepcopy(cb).alpha == pickle.loads(pickle.dumps(cb)).alpha == 2


# ---- a property that fails -----------------------------------------------------------------------
class FailingProperty(Callback):
    "Its properties fail, one of them under a name that the run has too"
    @property
    def rate(self): return self.optimizer.lr

    @property
    def loss(self): return None.nothing

    __slots__ = ('empty',)


def test_what_a_property_raises_is_what_is_reported():
    cb = FailingProperty()
    cb.run = type('Run', (), dict(loss=1))()
    for name, message in (('rate', "'optimizer'"), ('loss', "'NoneType' object has no"),
                          ('empty', "FailingProperty has no attribute 'empty'")):
        with pytest.raises(AttributeError, match=message): getattr(cb, name)
    assert not hasattr(cb, 'rate') and Callback.in_validate is True


# ---- words, spellings and arguments --------------------------------------------------------------
def test_a_native_handler_that_wants_an_argument_is_refused_at_once():
    class WantsLoss(Callback):
        def after_batch(self, loss): pass

    class Mixed(Callback):
        def begin_fit(self): pass
        def after_batch(self, anything): pass

    class Begins(Callback):
        def begin_batch(self, learn): pass

    for cls in (WantsLoss, Mixed, Begins):
        with pytest.raises(TypeError, match='wants arguments'): core.as_callback(cls)


def test_the_words_inside_tell_what_a_class_was_written_for():
    def made(read, **kwargs): return type('Made', (Callback,), dict(after_batch=read, **kwargs))()
    for read in (lambda self: self.training, lambda self: self.learn.dls, lambda self: self.x,
                 lambda self: self.opt.hypers[0], lambda self: self.recorder.metric_names):
        assert core.written_for(made(read)) == 'fastai v2'
        assert core.written_for(made(read, begin_fit=lambda self: None)) == 'fastloop'
        assert core.written_for(made(read, after_fit=lambda self: self.iters)) == 'fastloop'
        assert core.written_for(made(read, after_fit=lambda self: self.run.epoch)) == 'fastloop'
    assert core.written_for(made(lambda self: self.loss)) == 'fastloop'

    def keep(self): self.x = 3
    assert core.written_for(made(lambda self: self.x, keep=keep)) == 'fastloop'
    exec('class Anywhere(Callback):\n    def after_batch(self): self.dls',  # of no module
         names := dict(Callback=Callback))
    assert core.written_for(names['Anywhere']()) == 'fastai v2'


def test_a_missing_name_is_said_in_both_languages():
    cb = Callback()
    for name, words in dict(training="fastai v2's name, ours is 'in_train'", preds="miniai's name",
                            last_output="fastai v1's name, ours is 'pred'").items():
        with pytest.raises(AttributeError, match=words): getattr(cb, name)
    with pytest.raises(AttributeError, match="or the learner$"): cb.nothing()
    for o in (Runner(), Learner(DataBunch([(torch.ones(2, 1),)*2], None), nn.Linear(1, 1))):
        with pytest.raises(AttributeError, match="n_epoch.*fastai v2's name, ours is 'epochs'"):
            o.n_epoch()
        with pytest.raises(AttributeError, match="'nothing'$"): o.nothing()


def test_both_spellings_are_one_handler_at_every_level_of_inheritance():
    class One(Callback):
        def begin_fit(self): return ['one']

    class Two(One):
        def before_fit(self): return super().before_fit() + ['two']

    class Three(Two):
        def begin_fit(self): return super().begin_fit() + ['three']

    class Four(Three):
        def before_fit(self): return super().begin_fit() + ['four']

    assert [len(core.event_handlers(o())) for o in (One, Two, Three, Four)] == [1]*4
    assert core.event_handlers(Four())[0][1]() == ['one', 'two', 'three', 'four']
    assert core.written_for(One()) == 'fastloop' and core.written_for(Two()) == 'fastai v2'


def test_a_callback_that_is_called_itself_hears_every_event():
    class Debug(Callback):
        def __call__(self, event): return event, super().__call__(event)
        def after_fit(self): return 'bye'

    found = dict(core.event_handlers(Debug()))
    assert list(found) == list(core.events) and found['after_fit']() == ('after_fit', 'bye')
    assert found['after_loss']() == ('after_loss', None)


def test_a_logger_prints_until_another_is_set(capsys):
    cb = Callback()
    cb.logger('a row')
    cb.learn = SimpleNamespace(logger=[].append)
    cb.logger('another')
    assert capsys.readouterr().out == 'a row\n'


@pytest.mark.parametrize('name, value, said', [
    ('EarlyStoppingCallback', 3, 'patience=3'), ('ReduceLROnPlateauCallback', .2, 'factor=0.2'),
    ('SaveModelCallback', 'loss', "monitor='loss'"), ('MixUpCallback', .4, 'alpha=0.4'),
    ('CheckpointCallback', 'epoch', "every='epoch'"), ('CSVLogger', 'a', "filename='a'")])
def test_the_keyword_that_was_probably_meant_takes_such_a_value(name, value, said):
    make = getattr(fastloop.all, name)
    with pytest.raises(TypeError, match=re.escape(f'did you mean {name}({said})?')): make(value)


def test_what_a_signature_shows():
    from fastloop.keras import callbacks as theirs
    for cb in vars(fastloop.all).values():  # of a class of callbacks
        if not (isinstance(cb, type) and issubclass(cb, Callback)) or cb.__module__ in (
                'fastloop.callback.stats', 'fastloop.adapters.fastai1'): continue
        first = next(iter(inspect.signature(cb).parameters.values()))
        named = first.name in ('learn', 'pname')  # the course's `ParamScheduler`
        assert named and (first.default is None or first.name == 'pname'), cb
    assert [str(inspect.signature(o)) for o in (theirs.Callback, theirs.BaseLogger)] == ['()']*2

    class Mine(Callback):
        def __init__(self, a, learn=None): super().__init__(learn)
    assert str(inspect.signature(Mine)) == '(a, learn=None)'
