"Who is called when, compared with the loops of fastai v1 and of miniai in their own words."
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.adapters.fastai1 import LearnerCallback
from fastloop.adapters.miniai import MiniaiLearner, data_loaders
from fastloop.callback import core
from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner

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


# ---- fastai v1 -----------------------------------------------------------------------------------
moments = ['batch_begin', 'loss_begin', 'backward_begin', 'backward_end', 'step_end', 'batch_end']


def batches():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=g)
    return list(zip(x.split(4), x[:, :3].argmax(1).split(4)))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


class Recorder:
    "What fastai v1's recorder does with rates"
    _order = -10
    def __init__(self): self.lrs, self.moms = [], []

    def on_batch_begin(self, opt, train, **kwargs):
        if not train: return
        self.lrs.append(opt.param_groups[-1]['lr'])
        self.moms.append(opt.param_groups[-1].get('momentum'))


def v1_fit(epochs, opt_func, cbs):
    "fastai v1's loop, as far as it goes on with rates"
    model, recorder = net(), Recorder()
    opt = opt_func(model.parameters(), lr=.1)
    asked = sorted([recorder, *cbs], key=lambda o: o._order)
    def tell(moment, train=True):
        for cb in asked:
            if hasattr(cb, f'on_{moment}'):
                getattr(cb, f'on_{moment}')(opt=opt, recorder=recorder, train=train)
    def one_batch(xb, yb, train):
        tell('batch_begin', train)
        pred = model(xb)
        tell('loss_begin', train)
        loss = F.cross_entropy(pred, yb)
        if train:
            tell('backward_begin')
            loss.backward()
            tell('backward_end')
            opt.step()
            tell('step_end')
            opt.zero_grad()
        tell('batch_end', train)
    for _ in range(epochs):
        for batch in batches(): one_batch(*batch, True)
        with torch.no_grad(): one_batch(*batches()[0], False)


def v1_learner(opt_func):
    return Learner(DataBunch(batches(), batches()[:1], device='cpu'), net(), F.cross_entropy,
                   opt_func=opt_func, lr=.1, wd=None, silent=True)


def rate_watcher(order, seen):
    "Writes down what the recorder knows at each moment, and changes the rate after each batch"
    def note(moment):
        def handler(self, train, **kwargs):
            recorder = kwargs['recorder'] if 'recorder' in kwargs else self.learn.recorder
            found = [(list(o)[-1:], len(o)) for o in (recorder.lrs, recorder.moms)]
            seen.append((moment, train, found))
            if moment != 'batch_end' or not train: return
            opt = kwargs.get('opt') or self.learn.opt
            for group in opt.param_groups: group['lr'] *= .9
        return handler
    return {f'on_{o}': note(o) for o in moments} | {'_order': order}


@pytest.mark.parametrize('order', [-20, -10, 0, 50])
def test_the_rate_of_a_batch_is_known_when_it_begins(order):
    "Not to those that come before the recorder, and not in a validation"
    opt_func, theirs, mine = partial(torch.optim.SGD, momentum=.9), [], []
    watcher = type('Watches', (), rate_watcher(order, theirs))()
    v1_fit(2, opt_func, [watcher])
    learn = v1_learner(opt_func)
    watcher = type('Watches', (LearnerCallback,), rate_watcher(order, mine))(learn)
    learn.fit(2, cbs=watcher)
    assert mine == theirs
    assert len(learn.recorder.lrs) == 12


def test_the_row_that_v1s_recorder_prints(capsys):
    learn = v1_learner(torch.optim.SGD)
    class Prints(LearnerCallback):
        def on_epoch_end(self, epoch, smooth_loss, last_metrics, **kwargs):
            self.lines = []
            self.learn.recorder.pbar.write = lambda line, table: self.lines.append((line, table))
            self.learn.recorder.format_stats([epoch, smooth_loss, *last_metrics])
            self.expected = [str(epoch), f'{smooth_loss:.6f}', f'{last_metrics[0]:.6f}']
    learn.fit(2, cbs=(cb := Prints(learn)))
    [(cells, table)] = cb.lines
    assert table and cells[:-1] == cb.expected and cells[-1] == '00:00'
