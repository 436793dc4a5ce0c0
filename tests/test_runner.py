"The loop: its events in order, every way to break it off, and what is left behind on every exit"
import gc
import multiprocessing
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastloop.callback import core
from fastloop.callback.core import Callback, TraceCallback, events, phases
from fastloop.first_batch import first_loss
from fastloop.runner import Runner, TrainEvalCallback

TRAIN = ('begin_batch after_pred after_loss begin_backward after_backward begin_step after_step '
         'after_batch').split()
VALID = 'begin_batch after_pred after_loss after_batch'.split()
CANCEL = {p: getattr(core, f'Cancel{p.capitalize()}Exception') for p in phases}


def toy(n=3, n_valid=2, seed=0, lr=.1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n + n_valid, 8, 1, generator=g)
    batches = [(xb, 3*xb) for xb in x]
    torch.manual_seed(seed)
    model = nn.Linear(1, 1)
    data = SimpleNamespace(train_dl=batches[:n], valid_dl=batches[n:] or None)
    return SimpleNamespace(model=model, opt=torch.optim.SGD(model.parameters(), lr=lr, momentum=.9),
                           loss_func=F.mse_loss, data=data)


def epoch(n=3, n_valid=2, valid=True):
    res = ['begin_epoch', 'begin_train', *TRAIN*n, 'after_train']
    if valid: res += ['begin_validate', *VALID*n_valid, 'after_validate']
    return [*res, 'after_epoch']


def at(event, answer, n=1, in_train=None):
    "A callback that answers the `n`th time that `event` is announced (in training, if so asked)"
    class Answer(Callback):
        seen = 0
    def handler(self):
        if in_train is not None and self.in_train is not in_train: return None
        self.seen += 1
        if self.seen != n: return None
        if isinstance(answer, type) and issubclass(answer, BaseException): raise answer
        return answer
    setattr(Answer, event, handler)
    return Answer()


def trace_of(*cbs, epochs=1, learn=None):
    trace = TraceCallback()
    Runner([trace, *cbs]).fit(epochs, learn or toy())
    return trace.events


def cut(sequence, after, n, insert):
    "Replace what follows the `n`th `after` by `insert`, up to and not including `insert[-1]`"
    i = [i for i, e in enumerate(sequence) if e == after][n-1]
    j = sequence.index(insert[-1], i+1)
    return sequence[:i+1] + insert[:-1] + sequence[j:]


FULL = ['begin_fit', *epoch(), 'after_fit']


def test_all_events_in_order():
    assert trace_of() == FULL
    assert trace_of(epochs=2) == ['begin_fit', *epoch(), *epoch(), 'after_fit']
    assert trace_of(epochs=0) == ['begin_fit', 'after_fit']
    assert trace_of(learn=toy(n_valid=0)) == ['begin_fit', *epoch(valid=False), 'after_fit']


@pytest.mark.parametrize('answer', [None, False, 1, 'yes', torch.tensor(True), [1]])
@pytest.mark.parametrize('event', [e for e in events if 'cancel' not in e])
def test_only_true_itself_stops(event, answer):
    assert trace_of(at(event, answer)) == FULL


@pytest.mark.parametrize('event', ['after_train', 'after_validate', 'after_fit'])
def test_true_means_nothing_here(event):
    assert trace_of(at(event, True)) == FULL


B2 = 3 + 8  # index of the second training batch
EXPECTED = {  # answer True to the event, in the second batch where it is one of a batch
    'begin_fit': ['begin_fit', 'after_cancel_fit', 'after_fit'],
    'begin_epoch': ['begin_fit', 'begin_epoch', 'after_cancel_epoch', 'after_epoch', 'after_fit'],
    'begin_train': ['begin_fit', 'begin_epoch', 'begin_train', 'after_cancel_train',
                    *FULL[FULL.index('after_train'):]],
    'begin_batch': FULL[:B2+1] + ['after_cancel_batch'] + FULL[B2+7:],
    'after_pred': FULL[:B2+2] + ['after_cancel_batch'] + FULL[B2+7:],
    'after_loss': FULL[:B2+3] + ['after_cancel_batch'] + FULL[B2+7:],
    'begin_backward': FULL[:B2+4] + ['after_cancel_backward'] + FULL[B2+4:],
    'after_backward': FULL[:B2+5] + ['after_cancel_batch'] + FULL[B2+7:],
    'begin_step': FULL[:B2+6] + ['after_cancel_step'] + FULL[B2+6:],
    'after_step': FULL[:B2+7] + ['after_cancel_batch'] + FULL[B2+7:],
    'after_batch': FULL[:B2+8] + ['after_cancel_train'] + FULL[FULL.index('after_train'):],
    'begin_validate': FULL[:FULL.index('begin_validate')+1] + ['after_cancel_validate']
                      + FULL[FULL.index('after_validate'):],
    'after_epoch': ['begin_fit', *epoch(), 'after_cancel_fit', 'after_fit'],
}


@pytest.mark.parametrize('event', EXPECTED)
def test_true_breaks_off(event):
    n = 2 if event in TRAIN else 1
    epochs = 2 if event == 'after_epoch' else 1
    assert trace_of(at(event, True, n), epochs=epochs) == EXPECTED[event]


@pytest.mark.parametrize('event', [e for e in EXPECTED if e.startswith('begin_')])
def test_raising_from_the_beginning_of_a_phase_is_the_same_as_true(event):
    n, phase = 2 if event in TRAIN else 1, event.removeprefix('begin_')
    assert trace_of(at(event, CANCEL[phase], n)) == EXPECTED[event]


def test_true_in_validation_breaks_off_the_validation():
    i = FULL.index('begin_validate')
    assert trace_of(at('after_batch', True, 1, in_train=False)) == \
        FULL[:i+1] + VALID + ['after_cancel_validate'] + FULL[FULL.index('after_validate'):]
    assert trace_of(at('begin_batch', True, 1, in_train=False)) == \
        FULL[:i+2] + ['after_cancel_batch'] + FULL[i+4:]


def test_a_phase_that_an_outer_cancel_passes_through_fires_no_after():
    i = FULL.index('begin_backward')
    for phase, rest in [('batch', ['after_cancel_batch', *FULL[i+4:]]),
                        ('train', ['after_cancel_train', *FULL[FULL.index('after_train'):]]),
                        ('epoch', ['after_cancel_epoch', 'after_epoch', 'after_fit']),
                        ('fit', ['after_cancel_fit', 'after_fit'])]:
        assert trace_of(at('begin_backward', CANCEL[phase])) == FULL[:i+1] + rest


def test_a_raised_cancel_takes_effect_at_once_but_true_when_all_have_run():
    seen = []
    class Late(Callback):
        order = 5
        def after_loss(self): seen.append(self.n_iter)
    trace_of(at('after_loss', CANCEL['batch'], 1), Late())
    assert seen == [1, 2, 3, 3]  # not in the first batch; twice in the validation
    seen.clear()
    trace_of(at('after_loss', True, 1), Late())
    assert seen == [0, 1, 2, 3, 3]


@pytest.mark.parametrize('event,phase', [('after_batch', 'train'), ('after_epoch', 'fit'),
                                         ('after_train', 'epoch'), ('after_step', 'batch')])
def test_in_the_closing_event_of_a_phase_the_others_still_run(event, phase):
    class Late(Callback):
        order, n = 5, 0
    def handler(self): self.n += 1
    setattr(Late, event, handler)
    late = Late()
    trace = trace_of(at(event, CANCEL[phase]), late, epochs=2)
    i = trace.index(f'after_cancel_{phase}')
    assert late.n == trace.count(event) and trace[i-1] == event and trace[i+1] == f'after_{phase}'


def test_of_several_wishes_the_widest_wins():
    trace = trace_of(at('after_batch', True), at('after_batch', CANCEL['fit']),
                     at('after_batch', CANCEL['epoch']))
    assert trace[-3:] == ['after_batch', 'after_cancel_fit', 'after_fit']
    assert trace.count('after_batch') == 1


@pytest.mark.parametrize('event,phase', [
    ('begin_epoch', 'batch'), ('begin_fit', 'epoch'), ('after_fit', 'fit'), ('after_step', 'step'),
    ('after_batch', 'batch'), ('after_backward', 'backward'), ('begin_validate', 'train'),
    ('begin_train', 'validate'), ('after_epoch', 'epoch')])
def test_a_cancel_that_meets_no_running_phase_names_callback_and_event(event, phase):
    trace = TraceCallback()
    with pytest.raises(RuntimeError, match=f'{CANCEL[phase].__name__}.*Answer.*{event}'):
        Runner([trace, at(event, CANCEL[phase])]).fit(1, toy())
    assert trace.events[-1] == 'after_fit'


def test_a_validation_alone_is_no_part_of_an_epoch():
    learn, trace = toy(), TraceCallback()
    run = Runner([trace, at('begin_batch', CANCEL['epoch'])])
    with pytest.raises(RuntimeError, match='CancelEpochException.*Answer.*begin_batch'):
        run.evaluate(learn.data.valid_dl, learn)
    assert trace.events == ['begin_fit', 'begin_validate', 'begin_batch', 'after_fit']


def test_a_cancel_from_the_model_that_meets_no_phase():
    learn = toy()
    class Odd(nn.Linear):
        def forward(self, x): raise CANCEL['validate']
    learn.model = Odd(1, 1)
    with pytest.raises(RuntimeError, match='CancelValidateException'): Runner().fit(1, learn)


def test_a_cancelled_step_keeps_the_gradients():
    learn, before = toy(n=1), None
    before = learn.model.weight.detach().clone()
    Runner(at('begin_step', CANCEL['step'])).fit(1, learn)
    assert torch.equal(learn.model.weight, before) and learn.model.weight.grad is not None
    Runner().fit(0, learn)
    assert learn.model.weight.grad is None  # a fit begins with clean gradients


def test_a_skipped_backward_still_steps():
    learn = toy(n=1)
    steps = []
    learn.opt.step = lambda: steps.append(1)
    Runner(at('begin_backward', True)).fit(1, learn)
    assert steps == [1] and learn.model.weight.grad is None


@given(st.sampled_from(['begin_batch', 'after_pred', 'after_loss', 'begin_backward',
                        'after_backward', 'begin_step', 'after_step', 'after_batch']),
       st.sampled_from(phases), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_every_run_is_well_nested(event, phase, n):
    "Each `after_P` closes the innermost open phase, unless an outer one was broken off"
    trace = TraceCallback()
    try: Runner([trace, at(event, CANCEL[phase], n)]).fit(2, toy())
    except RuntimeError: assert trace.events[-1] == 'after_fit'
    stack, cancelled = [], None
    for e in trace.events:
        if e.startswith('begin_'): stack.append(e[6:])
        elif e.startswith('after_cancel_'):
            cancelled = e[13:]
            while stack and stack[-1] != cancelled: stack.pop()
        elif e[6:] in phases:
            if e == 'after_fit': stack = ['fit']
            assert stack.pop() == e[6:]
    assert not stack


# state

def test_counters():
    rows = []
    class Note(Callback):
        def begin_batch(self): rows.append((self.epoch, self.iter, self.n_iter, self.n_epochs,
                                            self.pct_train, self.in_train, self.iters))
        def after_batch(self): rows.append((self.n_iter, self.n_epochs, self.pct_train))
    run = Runner(Note())
    run.fit(2, toy(n=2, n_valid=1))
    assert rows == [(0, 0, 0, 0., 0., True, 2), (1, .5, .25), (0, 1, 1, .5, .25, True, 2),
                    (2, 1., .5), (0, 0, 2, 1., .5, False, 1), (2, 1., .5),
                    (1, 0, 2, 1., .5, True, 2), (3, 1.5, .75), (1, 1, 3, 1.5, .75, True, 2),
                    (4, 2., 1.), (1, 0, 4, 2., 1., False, 1), (4, 2., 1.)]
    assert run.epochs == 2 and run.epoch == 1


def test_a_test_callback_stops_after_ten_iterations():
    class TestCallback(Callback):
        def after_batch(self):
            if self.in_train and self.n_iter >= 10: return True
    run = Runner(cbs=TestCallback())
    run.fit(1, toy(n=25))
    assert run.n_iter == 10


def test_equals_a_loop_by_hand_to_the_last_bit():
    a, b = toy(n=7), toy(n=7)
    for _ in range(3):
        for xb, yb in a.data.train_dl:
            F.mse_loss(a.model(xb), yb).backward()
            a.opt.step()
            a.opt.zero_grad()
    Runner().fit(3, b)
    assert torch.equal(a.model.weight, b.model.weight) and torch.equal(a.model.bias, b.model.bias)


@pytest.mark.parametrize('replace, batches', [
    (lambda run, new: setattr(run.learn, 'data', SimpleNamespace(train_dl=new, valid_dl=None)), 1),
    (lambda run, new: setattr(run.learn.data, 'train_dl', new), 1),
    (lambda run, new: setattr(run, 'dl', new), 3)], ids=['data', 'train_dl', 'run.dl'])
def test_what_replaces_the_data_at_the_beginning_of_an_epoch_is_trained_on(replace, batches):
    "From this epoch on; a loader written to the run is for this epoch alone"
    class Replace(Callback):
        def begin_fit(self): self.seen, self.loaders = [], []
        def begin_epoch(self):
            if self.epoch == 1: replace(self.run, self.learn.data.train_dl[:1])
        def begin_train(self): self.loaders.append(len(self.dl))
        def begin_batch(self):
            if self.in_train: self.seen.append(self.epoch)
    cb = Replace()
    Runner(cb).fit(3, toy(n=3))
    assert cb.loaders == [3, 1, batches] and [cb.seen.count(e) for e in range(3)] == cb.loaders


def test_state_is_writable_and_the_learner_too():
    class Change(Callback):
        def begin_batch(self): self.run.xb, self.run.yb = self.xb*0, self.yb*0+1
        def after_pred(self): self.run.pred = self.pred*2
        def after_loss(self): self.run.loss = self.loss*0
        def begin_fit(self): self.run.loss_func = lambda pred, yb: ((pred-yb)**2).sum()
    learn = toy(n=1)
    bias, before = learn.model.bias.item(), learn.model.weight.detach().clone()
    class Look(Callback):
        order = 9
        def begin_backward(self):
            seen.append(self.pred.flatten()[0].item())
            assert learn.loss_func(torch.ones(2), torch.zeros(2)) == 2
    seen, loss_func = [], learn.loss_func
    Runner([Change(), Look()]).fit(1, learn)
    assert seen[0] == pytest.approx(2*bias) and torch.equal(learn.model.weight, before)
    assert learn.loss_func is loss_func


@pytest.mark.parametrize('error', [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('places, stays', [
    (['begin_fit'], False), (['begin_batch'], False), (['after_fit'], True),
    (['begin_fit', 'after_fit'], True)])
def test_a_loss_that_a_callback_sets_is_for_this_run_unless_set_at_its_end(places, stays, error):
    class Sets(Callback):
        order = -1
    for o in places:
        setattr(Sets, o, lambda self: setattr(self.learn, 'loss_func', nn.L1Loss()))
    class Fails(Callback):
        def after_batch(self):
            if error: raise error
    learn = toy(n=2)
    before = learn.loss_func
    try: Runner([Sets(), Fails()]).fit(1, learn)
    except (ValueError, KeyboardInterrupt): assert error
    assert (learn.loss_func is not before) == stays


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(1, 1)
    def forward(self, a, b): return self.lin(a + b)


@pytest.mark.parametrize('make', [tuple, list, lambda o: dict(zip('ab', o))])
def test_several_inputs_are_spread(make):
    learn = toy(n_valid=0)
    learn.model = Several()
    learn.opt = torch.optim.SGD(learn.model.parameters(), lr=.1)
    learn.data.train_dl = [(make((xb, xb)), yb) for xb, yb in learn.data.train_dl]
    run = Runner()
    run.fit(1, learn)
    assert run.n_iter == 3 and run.pred.shape == (8, 1)


def test_a_tuple_or_list_of_targets_is_spread_over_the_loss():
    seen = []
    def loss_func(pred, *targets):
        seen.append(targets)
        return (pred**2).mean()
    learn = toy(n_valid=0, n=1)
    learn.loss_func, xb = loss_func, learn.data.train_dl[0][0]
    for yb, n in [((xb, xb), 2), ([xb, xb], 2), (xb, 1)]:
        learn.data.train_dl = [(xb, yb)]
        Runner().fit(1, learn)
        assert len(seen[-1]) == n


def test_validation_without_gradients_and_in_evaluation_mode():
    seen = []
    class Look(Callback):
        def after_loss(self): seen.append((self.in_train, self.model.training,
                                           self.loss.requires_grad))
    Runner(Look()).fit(1, toy(n=1, n_valid=1))
    assert seen == [(True, True, True), (False, False, False)]


def test_modes_are_put_back_module_by_module():
    learn = toy()
    learn.model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0), nn.BatchNorm1d(1))
    learn.opt = torch.optim.SGD(learn.model.parameters(), lr=.1)
    learn.model[1].eval()
    modes = [m.training for m in learn.model.modules()]
    for cb in ([], at('after_loss', KeyError, 2), at('begin_validate', KeyboardInterrupt)):
        try: Runner(cb).fit(1, learn)
        except (KeyError, KeyboardInterrupt): pass
        assert [m.training for m in learn.model.modules()] == modes


# failures

@pytest.mark.parametrize('error', [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize('event', [e for e in events if 'cancel' not in e])
def test_an_exception_anywhere_is_passed_on_and_everybody_tidies_up(event, error):
    tidied, learn, trace = [], toy(), TraceCallback()
    class Tidy(Callback):
        order = 9
        def after_fit(self): tidied.append(self.run.exception)
    run = Runner([trace, at(event, error), Tidy()])
    with pytest.raises(error) as e: run.fit(1, learn)
    assert any(event in note and 'Answer' in note for note in e.value.__notes__)
    assert trace.events == FULL[:FULL.index(event)+1] + ['after_fit']*(event != 'after_fit')
    assert len(tidied) == 1 and tidied[0] is e.value
    assert type(run.exception) is error and run.exception.__traceback__ is None
    Runner(trace).fit(1, learn)
    assert trace.events == FULL and learn.model.training


def test_the_first_exception_wins_over_a_failing_clean_up():
    class Bad(Callback):
        def after_fit(self): raise ValueError('while tidying up')
    with pytest.raises(ZeroDivisionError) as e:
        Runner([Bad(), at('after_loss', ZeroDivisionError)]).fit(1, toy())
    assert any('while tidying up' in note for note in e.value.__notes__)


def test_exception_is_none_after_a_good_run():
    class Look(Callback):
        def after_fit(self): seen.append(self.run.exception)
    seen, run = [], Runner(Look())
    run.fit(1, toy())
    assert seen == [None] and run.exception is None


def test_the_loader_iterator_is_dropped_on_every_exit():
    alive = []
    class Loader:
        def __init__(self, batches): self.batches = batches
        def __len__(self): return len(self.batches)
        def __iter__(self):
            it = iter_of(self.batches)
            alive.append(weakref.ref(it))
            return it
    def iter_of(batches): yield from batches
    for cb in ([], at('after_loss', KeyError), at('after_batch', True),
               at('begin_step', CANCEL['fit'])):
        learn = toy()
        learn.data.train_dl = Loader(learn.data.train_dl)
        kept = None
        try: Runner(cb).fit(1, learn)
        except KeyError as e: kept = e  # a caller that keeps the exception
        gc.collect()
        assert all(ref() is None for ref in alive), kept
        alive.clear()


@pytest.mark.parametrize('persistent', [True, False])
@pytest.mark.parametrize('where', [None, 'begin_fit', 'after_loss', 'after_fit', 'cancel',
                                   'loader'])
def test_no_worker_outlives_the_run(where, persistent):
    "Processes of a loader begin with a pass and end with the run, however it ends"
    seen = []

    class Watch(Callback):
        def after_epoch(self): seen.append({o.pid for o in multiprocessing.active_children()})

    learn = toy()
    x, y = (torch.cat(o) for o in zip(*learn.data.train_dl))
    make = partial(DataLoader, num_workers=1, persistent_workers=persistent, batch_size=4)
    items = [(a, b) for a, b in zip(x, y)]
    learn.data.valid_dl = make(items)
    learn.data.train_dl = make(items + ([None] if where == 'loader' else []))
    cbs, kept = [Watch()], None
    if where == 'cancel': cbs.append(at('after_loss', CANCEL['fit']))
    elif where not in (None, 'loader'): cbs.append(at(where, KeyError))
    try: Runner(cbs).fit(2, learn)
    except (KeyError, TypeError) as e: kept = e  # a caller that keeps the exception
    assert (kept is None) == (where in (None, 'cancel'))
    if where is None: assert [len(o) for o in seen] == [2*persistent]*2
    gc.collect()
    assert not multiprocessing.active_children(), kept
    if where is None:
        Runner().evaluate(learn.data.valid_dl, learn)
        Runner().fit(1, learn)  # and they start anew
        assert not multiprocessing.active_children()


def test_a_run_inside_a_run_leaves_the_workers_of_the_other_alone():
    seen = []

    class Asks(Callback):
        def after_batch(self):
            if not self.in_train: return
            seen.append(self.iter)
            if self.iter == 1: Runner().evaluate(self.learn.data.valid_dl, self.learn)

    learn = toy()
    items = [(a, b) for xb, yb in learn.data.train_dl for a, b in zip(xb, yb)]
    make = partial(DataLoader, items, num_workers=1, persistent_workers=True, batch_size=4)
    learn.data.train_dl, learn.data.valid_dl = make(), make()
    Runner(Asks()).fit(2, learn)
    assert seen == 2*list(range(6))
    gc.collect()
    assert not multiprocessing.active_children()


# bad input

@pytest.mark.parametrize('epochs,error', [(-1, ValueError), (1.5, TypeError), ('3', TypeError),
                                          (True, TypeError), (None, TypeError)])
def test_epochs(epochs, error):
    trace = TraceCallback()
    with pytest.raises(error, match='epochs'): Runner(trace).fit(epochs, toy())
    assert trace.events == []


@pytest.mark.parametrize('change,message', [
    (dict(loss_func=None), 'loss function'), (dict(opt=None), 'optimizer'),
    (dict(data=SimpleNamespace(train_dl=[])), 'empty'),
    (dict(data=SimpleNamespace()), 'training loader')])
def test_learners_that_cannot_be_trained(change, message):
    learn = toy()
    vars(learn).update(change)
    with pytest.raises(ValueError, match=message): Runner().fit(1, learn)
    with pytest.raises(TypeError, match='no learner'): Runner().fit(1, object())


def classes(labels, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return SimpleNamespace(model=model, opt=torch.optim.SGD(model.parameters(), lr=.1),
                           data=SimpleNamespace(train_dl=[(torch.randn(len(labels), 2),
                                                           torch.tensor(labels))], valid_dl=None),
                           loss_func=nn.CrossEntropyLoss(**kwargs))


@pytest.mark.parametrize('labels,bad', [([0, 1, 3, 2], 3), ([0, -1, 1, 2], -1)])
def test_labels_without_output_change_nothing(labels, bad):
    learn = classes(labels)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with pytest.raises(ValueError, match=f'label {bad} has no output: the model has 3 outputs'):
        Runner().fit(1, learn)
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, before[k]), k


def test_the_index_to_ignore_is_no_label():
    Runner().fit(1, classes([0, -100, 1, 2]))
    Runner().fit(1, classes([0, 7, 1, 2], ignore_index=7))
    with pytest.raises(ValueError, match='label 7'): Runner().fit(1, classes([0, 7, 1, 2]))


@pytest.mark.parametrize('loss_func,pred,yb,shapes', [
    (F.mse_loss, (4, 1), (4,), r'\(4, 1\) and \(4,\)'), (nn.MSELoss(), (4, 2), (3, 2), r'\(3, 2\)'),
    (F.l1_loss, (4, 1), (4,), r'\(4,\)'), (nn.BCEWithLogitsLoss(), (4, 1), (4,), r'\(4, 1\)'),
    (F.cross_entropy, (4, 3), (4, 2), r'\(4, 3\) and \(4, 2\)')])
def test_shapes_that_do_not_fit_the_loss_are_named(loss_func, pred, yb, shapes):
    with pytest.raises(ValueError, match=shapes):
        first_loss(loss_func, torch.zeros(pred, requires_grad=True), (torch.zeros(yb),))


def test_what_a_loss_of_your_own_raises_is_passed_on():
    def own(pred, yb): raise ZeroDivisionError('mine')
    learn = toy()
    learn.loss_func = own
    with pytest.raises(ZeroDivisionError, match='mine') as e: Runner().fit(1, learn)
    assert '(8, 1)' in e.value.__notes__[0]


def test_a_batch_that_is_no_pair():
    learn = toy()
    learn.data.train_dl = [torch.zeros(3)]
    with pytest.raises(ValueError, match='pair'): Runner().fit(1, learn)
    learn.data.train_dl = [1]
    with pytest.raises(ValueError, match='pair'): Runner().fit(1, learn)


def test_a_loader_without_length():
    class Stream(list): __len__ = None
    learn = toy()
    learn.data.train_dl = Stream(learn.data.train_dl)
    run = Runner(trace := TraceCallback())
    run.fit(2, learn)
    assert run.iters == 2 and run.n_iter == 6 and trace.events.count('begin_train') == 2


# callbacks of a run

def test_names_that_would_hide_something_are_refused():
    for name in ('Model', 'Fit', 'LossCallback', 'Cbs', 'DataCallback'):
        with pytest.raises(ValueError, match='would hide'): Runner(type(name, (Callback,), {}))
    learn = toy()
    learn.special = 1
    with pytest.raises(ValueError, match="'special' would hide"):
        Runner(type('SpecialCallback', (Callback,), {})).fit(1, learn)


def test_order_and_two_of_one_class():
    class A(Callback):
        def __init__(self, n): self.n = n
        def begin_fit(self): seen.append(self.n)
    seen, first, second = [], A(1), A(2)
    early = A(0)
    early.order = -1
    run = Runner([first, second, early])
    run.fit(0, toy())
    assert seen == [0, 1, 2] and run.a is second and run.cbs[-2:] == [first, second]


def test_callbacks_are_found_by_both_names():
    class SaveModelCallback(Callback): pass
    run = Runner(SaveModelCallback)
    assert run.save_model is run.save_model_callback is run.cbs[-1]
    with pytest.raises(AttributeError, match='save_modell'): run.save_modell  # noqa: B018


def test_callbacks_can_come_and_go_during_a_run():
    class Late(Callback):
        n = 0
        def after_batch(self): self.n += 1
    class Adds(Callback):
        def after_epoch(self):
            if self.epoch == 0: self.run.add_cbs(late)
            if self.epoch == 1: self.run.remove_cbs(late)
    late = Late()
    Runner(Adds).fit(3, toy(n=3, n_valid=0))
    assert late.n == 3


def test_handlers_are_looked_up_when_a_run_starts_and_not_per_batch():
    class Watched(Callback):
        def __getattribute__(self, name):
            if name in events: looked.append(name)
            return super().__getattribute__(name)
        def after_batch(self): pass
    counts = []
    for n in (2, 50):
        looked = []
        Runner(Watched()).fit(2, toy(n=n))
        counts.append(len(looked))
    assert counts[0] == counts[1]


def test_cb_funcs_and_a_train_eval_of_ones_own():
    class Mine(TrainEvalCallback): pass
    run = Runner(cbs=Mine, cb_funcs=[TraceCallback, TraceCallback])
    assert [type(cb).__name__ for cb in run.cbs] == ['TraceCallback', 'TraceCallback', 'Mine']


def test_callbacks_are_never_hashed_or_compared():
    class Odd(Callback):
        __hash__ = None
        def __eq__(self, other): raise AssertionError('compared')
        def __bool__(self): raise AssertionError('asked whether it is true')
    odd = Odd()
    run = Runner([odd, TraceCallback()])
    run.fit(1, toy())
    assert run.odd is odd
    run.remove_cbs([odd])
    assert not any(cb is odd for cb in run.cbs)


def test_a_named_tuple_is_a_learner_too():
    from collections import namedtuple
    learn = namedtuple('Fields', 'model opt loss_func data')(**vars(toy()))
    run = Runner()
    run.fit(1, learn)
    assert run.n_iter == 3


# ---- optimizers with two modes
class ScheduleFree(torch.optim.Optimizer):
    "SGD of Schedule-Free (Defazio et al., 2024), without warm-up, weights and decay"
    def __init__(self, params, lr=.1, momentum=.9):
        super().__init__(params, dict(lr=lr, momentum=momentum, k=0, train_mode=False))

    @torch.no_grad()
    def switch(self, train):
        for group in self.param_groups:
            if group['train_mode'] is train: continue
            group['train_mode'], beta = train, group['momentum']
            for p in group['params']:
                if 'z' in (state := self.state[p]):
                    p.lerp_(state['z'], 1-beta if train else 1-1/beta)

    def train(self): self.switch(True)
    def eval(self): self.switch(False)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group['train_mode'], 'Optimizer was not in train mode when step is called'
            lr, beta, c = group['lr'], group['momentum'], 1/(group['k'] + 1)
            group['k'] += 1
            for p in group['params']:
                z = self.state[p].setdefault('z', p.clone())
                p.lerp_(z, c)
                p.add_(p.grad, alpha=lr*(beta*(1-c)-1))
                z.sub_(p.grad, alpha=lr)


def schedule_free_by_hand(learn, epochs):
    "Trains, and gives the validation loss of each epoch"
    losses = []
    for _ in range(epochs):
        learn.opt.train()
        for xb, yb in learn.data.train_dl:
            learn.loss_func(learn.model(xb), yb).backward()
            learn.opt.step()
            learn.opt.zero_grad()
        learn.opt.eval()
        with torch.no_grad():
            losses.append([learn.loss_func(learn.model(xb), yb).item()
                           for xb, yb in learn.data.valid_dl])
    return losses


def schedule_free(**kwargs):
    learn = toy(**kwargs)
    learn.opt = ScheduleFree(learn.model.parameters())
    return learn


def mode(learn): return learn.opt.param_groups[0]['train_mode']


class ValidLosses(Callback):
    def begin_fit(self): self.found = []
    def begin_validate(self): self.found.append([])
    def after_loss(self):
        if not self.in_train: self.found[-1].append(self.loss.item())


def test_an_optimizer_with_two_modes_is_switched():
    learn, other, losses = schedule_free(), schedule_free(), ValidLosses()
    Runner(losses).fit(3, learn)
    assert losses.found == schedule_free_by_hand(other, 3)
    assert torch.equal(learn.model.weight, other.model.weight) and not mode(learn)
    learn, other = schedule_free(n_valid=0), schedule_free(n_valid=0)
    other.data.valid_dl = []
    Runner().fit(1, learn)  # nothing is validated
    schedule_free_by_hand(other, 1)
    assert torch.equal(learn.model.weight, other.model.weight) and not mode(learn)


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, CANCEL['fit']])
def test_an_optimizer_with_two_modes_is_in_evaluation_mode_after_any_end(error):
    learn = schedule_free()
    try: Runner(at('after_step', error, 2)).fit(2, learn)
    except error: pass
    other = schedule_free()
    other.data.train_dl, other.data.valid_dl = other.data.train_dl[:2], []
    schedule_free_by_hand(other, 1)
    assert torch.equal(learn.model.weight, other.model.weight) and not mode(learn)


@pytest.mark.parametrize('train', [True, False])
def test_a_validation_alone_leaves_an_optimizer_in_its_mode(train):
    learn = schedule_free()
    schedule_free_by_hand(learn, 1)
    expected = learn.model.weight.clone()
    learn.opt.switch(train)
    before = learn.model.weight.clone()
    class Sees(Callback):
        def begin_batch(self): assert self.run.learn.model.weight.allclose(expected)
    Runner(Sees()).evaluate(learn.data.valid_dl, learn)
    assert mode(learn) is train and learn.model.weight.allclose(before)
