"Who is called when, compared with the loops of fastai v1 and of miniai in their own words."
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.adapters.miniai import MiniaiLearner, data_loaders
from fastloop.callback import core
from fastloop.callback.core import Callback

# ---- miniai --------------------------------------------------------------------------------------
levels = ('fit', 'epoch', 'batch')
Cancel = {o: type(f'Cancel{o.title()}Exception', (Exception,), {}) for o in levels}
mini_events = [f'{o}_{level}' for o in ('before', 'after', 'cleanup') for level in levels]


class Mini:
    "miniai's loop as far as it calls callbacks: two batches to train with, one to validate with"
    def __init__(self, cbs): self.cbs, self.training = cbs, False

    def tell(self, event):
        for cb in sorted(self.cbs, key=lambda o: o.order):
            if hasattr(cb, event): getattr(cb, event)(self)

    def phase(self, level, work):
        try:
            self.tell(f'before_{level}')
            work()
            self.tell(f'after_{level}')
        except Cancel[level]: pass
        finally: self.tell(f'cleanup_{level}')

    def batch(self):
        for o in ('after_predict', 'after_loss'): self.tell(o)

    def fit(self, epochs, train=True, valid=True):
        def passes():
            for _ in range(epochs):
                for self.training in [True]*train + [False]*valid:
                    self.phase('epoch', lambda: [self.phase('batch', self.batch)
                                                 for _ in range(1+self.training)])
        self.phase('fit', passes)


def listener(log, who, order, events=mini_events):
    "Writes down who hears what"
    def note(event):
        return lambda self, learn: log.append((who, event, 'fit' in event or learn.training))
    return type('Listens', (), {o: note(o) for o in events} | {'order': order})()


def stopper(at, error, nth):
    "Breaks off the `nth` time it is called"
    def stop(self, learn):
        self.n += 1
        if self.n == nth: raise error
    return type('Stops', (), {at: stop, 'order': 0, 'n': 0})()


def mini_learner():
    x, y = torch.ones(6, 2), torch.zeros(6, 1)
    few = list(zip(x.split(2), y.split(2)))
    return MiniaiLearner(nn.Linear(2, 1), data_loaders(few[:2], few[2:]), F.mse_loss, lr=.1)


def heard(loop, stops, *args, events=mini_events, **kwargs):
    "What three callbacks hear, the stopping one between the first and the second"
    log = []
    cbs = [listener(log, 'first', -5, events), *stops, listener(log, 'second', 5, events),
           listener(log, 'third', 5, events)]
    if loop is Mini: Mini(cbs).fit(*args, **kwargs)
    else: mini_learner().fit(*args, cbs=cbs, **kwargs)
    return log


@pytest.mark.parametrize('train, valid', list(product([True, False], repeat=2)))
def test_nothing_of_miniai_is_called_for_a_pass_that_is_left_out(train, valid):
    expected = heard(Mini, [], 2, train=train, valid=valid)
    assert heard(mini_learner, [], 2, train=train, valid=valid) == expected


places = ['before_fit', 'before_epoch', 'before_batch', 'after_predict', 'after_loss']
broken_off = [(level, at) for i, level in enumerate(levels) for at in places[i:]]


@pytest.mark.parametrize('events', [mini_events, ['cleanup_batch', 'cleanup_epoch'],
                                    ['cleanup_batch'], ['after_epoch', 'cleanup_fit']])
@pytest.mark.parametrize('nth', [1, 2, 3])
@pytest.mark.parametrize('level, at', broken_off)
def test_all_clean_up_whoever_breaks_off(level, at, nth, events):
    "Also those whose turn had not come; for each phase all of them, the inner phases first"
    stops = lambda: [stopper(at, Cancel[level], nth)]  # noqa: E731
    expected = heard(Mini, stops(), 2, events=events)
    assert heard(mini_learner, stops(), 2, events=events) == expected


@pytest.mark.parametrize('wide', ['fit', 'epoch', 'train', 'batch'])
def test_all_clean_up_when_a_native_callback_breaks_off(wide):
    "A callback of the loop's own that is asked before all others"
    class First(Callback):
        order = -50
        def begin_batch(self):
            if self.iter: raise getattr(core, f'Cancel{wide.title()}Exception')
    log = []
    cbs = [listener(log, who, order, ['cleanup_fit', 'cleanup_epoch', 'cleanup_batch'])
           for who, order in (('a', 0), ('b', 1))]
    mini_learner().fit(1, valid=wide != 'epoch', cbs=[First(), *cbs])
    train = [f'cleanup_{o}' for o in ('batch', 'batch', 'epoch')]
    valid = ['cleanup_batch', 'cleanup_epoch'] if wide in ('train', 'batch') else []
    assert [o[:2] for o in log] == [
        (who, event) for event in (*train, *valid, 'cleanup_fit') for who in 'ab']


def test_a_callback_that_comes_later_cleans_up_too():
    "Attaching binds all callbacks anew; nobody forgets what has begun"
    log = []
    late = listener(log, 'late', 1)
    class Attaches(Callback):
        def begin_train(self): self.run.add_cbs(late)
    mini_learner().fit(1, valid=False, cbs=[Attaches(), listener(log, 'early', 0)])
    assert [o[:2] for o in log if o[0] == 'late'] == [
        ('late', o) for o in (*['before_batch', 'after_batch', 'cleanup_batch']*2,
                              'after_epoch', 'cleanup_epoch', 'after_fit', 'cleanup_fit')]
    assert [o[1] for o in log if o[0] == 'early'][-4:] == [
        'after_epoch', 'cleanup_epoch', 'after_fit', 'cleanup_fit']


def test_an_error_in_a_clean_up_leaves_the_others_their_own():
    log = []
    def fail(self, learn): raise ValueError('cannot close')
    fails = type('Fails', (), {'order': 0, 'cleanup_batch': fail})()
    cbs = [listener(log, 'a', -1), fails, listener(log, 'b', 1)]
    with pytest.raises(ValueError, match='cannot close'): mini_learner().fit(1, cbs=cbs)
    events = [o[:2] for o in log if 'cleanup' in o[1]]
    assert events == [(who, f'cleanup_{o}') for o in ('batch', 'epoch', 'fit') for who in 'ab']
