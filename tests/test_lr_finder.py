"A search for the learning rate: its curve, its suggestions, and that it leaves no trace."
import io
import json
import math
import os
import random
import subprocess
import sys
import threading
from collections import Counter, deque, namedtuple
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import check_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from fastloop.adapters.fastai1 import CallbackHandler
from fastloop.callback.core import Callback, CancelBatchException, CancelStepException
from fastloop.callback.lr_finder import (
    LRFinder,
    SuggestedLRs,
    find_lr,
    suggest_minimum,
    suggest_slide,
    suggest_steep,
    suggest_valley,
)
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.recorder import Recorder, SmoothenValue
from fastloop.callback.snapshot import same_state
from fastloop.callback.stats import AvgStatsCallback
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.learner import BasicLearner, Learner
from fastloop.metrics import AverageMetric, accuracy
from fastloop.optimizer import SGD, Adam, AdamW, OptimWrapper
from fastloop.runner import Runner
from fastloop.torch_core import rng_state, set_seed

rules = [suggest_valley, suggest_steep, suggest_minimum, suggest_slide]
root = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "More of them would only wait for each other, so small is the problem"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- a small problem, and everything that is known of a learner ----------------------------------
def problem(n=44, n_valid=9):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n+n_valid, 4, generator=g)
    y = (x@torch.randn(4, 3, generator=g)).argmax(1)
    return x[:n], y[:n], x[n:], y[n:]


x_train, y_train, x_valid, y_valid = problem()
BS = 8  # six batches, the last one short


class Noisy(Dataset):
    "Items with noise from the global generators, and one of its own"
    def __init__(self): self.rng, self.served = np.random.default_rng(3), 0

    def __len__(self): return len(x_train)

    def __getitem__(self, i):
        self.served += 1
        noise = random.random() + np.random.rand() + self.rng.random() + torch.rand(())
        return x_train[i] + noise.float(), y_train[i]


class Lengthless:
    "A loader that does not know its length, with a place that it can tell"
    def __init__(self): self.order, self.rng, self.epoch = list(range(5)), random.Random(1), 0

    def __iter__(self):
        self.epoch += 1
        self.rng.shuffle(self.order)
        for i in self.order: yield x_train[i*BS:(i+1)*BS], y_train[i*BS:(i+1)*BS]


class Stateful:
    "A loader whose place is out of reach but for `state_dict`"
    def __init__(self):
        place = {'epoch': 0}
        self.read, self.write = lambda: dict(place), place.update

    def __len__(self): return 5

    def __iter__(self):
        g = torch.Generator().manual_seed(self.read()['epoch'])
        self.write(epoch=self.read()['epoch']+1)
        for i in torch.randperm(5, generator=g).tolist():
            yield x_train[i*BS:(i+1)*BS], y_train[i*BS:(i+1)*BS]

    def state_dict(self): return self.read()

    def load_state_dict(self, state): self.write(state)


class EveryOther(torch.utils.data.Sampler):
    "A sampler with a memory"
    def __init__(self): self.turn, self.perm = 0, torch.arange(40)

    def __len__(self): return 20

    def __iter__(self):
        self.turn += 1
        self.perm.copy_(self.perm[torch.randperm(40)])
        return iter(self.perm[self.turn % 2::2].tolist())


def tensor_loader(): return TensorLoader(x_train, y_train, bs=BS, shuffle=True)


train_set = TensorDataset(x_train, y_train)
loaders = {
    'tensors': tensor_loader,
    'torch': lambda: DataLoader(train_set, BS, shuffle=True),
    'own generator': lambda: DataLoader(train_set, BS, shuffle=True,
                                        generator=torch.Generator().manual_seed(5)),
    'sampler with generator': lambda: DataLoader(train_set, BS, sampler=RandomSampler(
        train_set, generator=torch.Generator().manual_seed(6))),
    'sampler with memory': lambda: DataLoader(train_set, BS, sampler=EveryOther()),
    'noisy': lambda: DataLoader(Noisy(), BS, shuffle=True),
    'lengthless': Lengthless, 'stateful': Stateful,
    'list': lambda: [(x_train[i:i+BS], y_train[i:i+BS]) for i in range(0, 40, BS)],
    'one batch': lambda: [(x_train, y_train)],
}


class Net(nn.Module):
    "Dropout, batch norm, a buffer that is not stored, and things that come with the first batch"
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer('mean', torch.zeros(4), persistent=False)
        self.calls, self.seen, self.cache = 0, [], None

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0).detach(), .1)
            self.calls += 1
            self.seen.append(len(x))
            if not hasattr(self, 'late'): self.register_buffer('late', torch.zeros(1))
            self.late += 1
            self.cache = x.mean().detach()
        x = F.dropout(F.relu(self.norm(self.a(x - self.mean))), .2, self.training)
        return self.b(x)*(1 + .01*self.late)


opts = {'momentum': partial(SGD, momentum=.9), 'sgd': SGD, 'adam': Adam, 'adamw': AdamW,
        'foreach': partial(torch.optim.Adam, foreach=True),
        'for loop': partial(torch.optim.SGD, momentum=.9, foreach=False),
        'fused': partial(torch.optim.AdamW, fused=True), 'amsgrad': partial(Adam, amsgrad=True),
        'rmsprop': partial(torch.optim.RMSprop, momentum=.5), 'adagrad': torch.optim.Adagrad}


def groups_of(model): return [[model.a], [model.norm], [model.b]]


def make(dl='tensors', opt='adamw', seed=0, **kwargs):
    set_seed(seed)
    data = DataBunch(loaders[dl](), TensorLoader(x_valid, y_valid, bs=BS), device='cpu')
    kwargs = {'silent': True, 'metrics': [accuracy], 'loss_func': F.cross_entropy, **kwargs}
    return Learner(data, Net(), opt_func=opts[opt], **kwargs)


def facts(learn):
    "Everything about a learner that can be copied"
    modules = dict(learn.model.named_modules())
    opt = learn.opt
    return deepcopy(dict(
        weights=learn.model.state_dict(), buffers=dict(learn.model.named_buffers()),
        grads=[p.grad for p in learn.model.parameters()],
        trained=[p.requires_grad for p in learn.model.parameters()],
        modes={k: m.training for k, m in modules.items()},
        own={k: getattr(learn.model, k, None) for k in ('calls', 'seen', 'cache')},
        opt=None if opt is None else opt.state_dict(), rng=rng_state(),
        learn={k: v for k, v in vars(learn).items()
               if isinstance(v, (int, float, str, bool, type(None)))}))


def identities(learn):
    "Objects that must stay the same objects"
    opt = learn.opt
    found = [learn.model, opt, learn.loss_func, learn.data, learn.data.train_dl,
             learn.cbs, *learn.cbs, learn.metrics, *learn.metrics, learn.layer_groups,
             *learn.model.parameters(), *learn.model.buffers(), *learn.model.modules()]
    if opt is not None:
        found += [opt.state, opt.param_groups, *opt.param_groups, *opt.state.values()]
        found += [o for d in opt.state.values() for o in d.values() if torch.is_tensor(o)]
    return found


same = same_state  # compared bit for bit


def assert_same(a, b):
    for k in a: assert same(a[k], b[k]), (k, a[k], b[k])


def place(dl):
    "Where a loader stands, as far as it tells"
    state = dl.state_dict() if hasattr(dl, 'state_dict') else {}
    return {**state, **{k: deepcopy(v) for k, v in getattr(dl, '__dict__', {}).items()
                        if isinstance(v, (int, list))}}


def search_by_verb(learn, **kwargs): return find_lr(learn, **{'num_it': 14, **kwargs})


def search_by_callback(learn, **kwargs):
    return learn.fit(4, cbs=LRFinder(**{'num_it': 14, **kwargs}))


ways = {'verb': search_by_verb, 'callback': search_by_callback}


class Spy(Callback):
    "Batches and losses"
    def __init__(self): self.rows = []

    def after_loss(self):
        xb = self.xb.sum().item()
        self.rows.append((xb, self.loss.item(), self.learn.opt.lr, self.learn.opt.mom))


def story(search, before, prepare=None, lr=1e-2, **kwargs):
    "What a learner goes through, with a search in the middle or without"
    learn = make(**kwargs)
    if prepare: prepare(learn)
    if before: learn.fit(before, lr)
    if search: search(learn)
    spy = Spy()
    learn.fit(2, lr, cbs=spy)
    return dict(facts(learn), rows=spy.rows, values=learn.recorder.values,
                place=place(learn.data.train_dl))


def check_story(search, before=1, without=None, **kwargs):
    "Compare with the story without a search, which is told if it is not given"
    a, b = story(search, before, **kwargs), without or story(None, before, **kwargs)
    assert_same(a, b)
    assert len(b['rows']) >= 2 and math.isfinite(b['rows'][-1][1])


# ---- a fit after a search is a fit without one ---------------------------------------------------
stories = {
    **{f'opt {o}': dict(opt=o) for o in opts},
    **{f'loader {o}': dict(dl=o, opt='momentum') for o in loaders},
    **{f'rates {o}': dict(lr=o, splitter=groups_of)
       for o in (slice(1e-4, 1e-2), slice(1e-2), [1e-3, 1e-2, 1e-1])},
    'frozen': dict(splitter=groups_of, prepare=lambda learn: learn.freeze_to(-1)),
    'coupled decay': dict(true_wd=False), 'no decay': dict(wd=0.),
    'no decay of norms': dict(bn_wd=False, wd=.1)}


@cache
def without_search(kind, before): return story(None, before, **stories[kind])


@pytest.mark.parametrize('before', [0, 1])
@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('kind', stories)
def test_a_fit_after_a_search(kind, way, before):
    check_story(ways[way], before, without_search(kind, before), **stories[kind])


@pytest.mark.parametrize('way', ways)
def test_two_searches_give_one_curve(way):
    learn, curves = make(), []
    for _ in range(2):
        ways[way](learn)
        curves.append((learn.recorder.lrs[:], learn.recorder.raw_losses[:]))
    assert curves[0] == curves[1] and len(curves[0][0]) == 14
    check_story(lambda learn: [ways[way](learn) for _ in range(2)])


def test_one_finder_used_twice():
    learn, finder = make(), LRFinder(num_it=8)
    for _ in range(2):
        learn.fit(4, cbs=finder)
        assert len(finder.lrs) == 8 == len(finder.losses)
    check_story(lambda learn: [learn.fit(2, cbs=o) for o in [LRFinder(num_it=8)]*2])
    search_by_verb(learn)
    again = learn.lr_finder  # the verb's own finder protects by itself the next time
    before = facts(learn)
    learn.fit(1, cbs=again)
    assert_same({k: v for k, v in before.items() if k not in ('learn', 'opt')}, facts(learn))


def test_workers_of_a_loader():
    def two_workers(): return DataLoader(Noisy(), 22, shuffle=True, num_workers=2)

    def kept_workers():
        return DataLoader(Noisy(), 22, shuffle=True, num_workers=1, persistent_workers=True)
    for kind in (two_workers, kept_workers):
        results = []
        for search in (True, False):
            learn = make()
            learn.data = DataBunch(kind(), device='cpu')
            learn.fit(1)
            workers = learn.data.train_dl._iterator
            if search: find_lr(learn, num_it=6)
            assert learn.data.train_dl._iterator is workers
            learn.fit(1)
            results.append(dict(facts(learn), losses=learn.recorder.losses[:]))
            del workers
        assert_same(*results)


def test_gradient_scaling_and_accumulation():
    class Accumulates(Callback):
        "Steps after every third batch, and scales the loss"
        def begin_fit(self): self.count = 0

        def after_loss(self):
            if self.in_train: self.run.loss = self.loss/3

        def begin_step(self):
            self.count += 1
            if self.count % 3: raise CancelStepException

    check_story(search_by_verb, prepare=lambda learn: learn.add_cbs(Accumulates()))
    learn, plain = make(), make()
    learn.add_cbs(Accumulates())
    search_by_verb(learn)
    search_by_verb(plain)
    before, after = learn.lr_finder.raw_losses[0], plain.lr_finder.raw_losses[0]
    assert .7*after < before < 1.3*after  # of three batches, and not a third of it
    rates = learn.lr_finder.lrs
    assert len(set(rates)) == len(rates) and set(rates) == set(learn.recorder.lrs)
    assert plain.lr_finder.losses == plain.recorder.losses


class Autocast(Callback):
    "Mixed precision, with a scaler that keeps a state"
    def __init__(self): self.scaler = torch.amp.GradScaler('cpu', init_scale=4., growth_interval=2)

    def begin_batch(self):
        self.context = torch.autocast('cpu', torch.bfloat16)
        self.context.__enter__()

    def after_pred(self): self.run.pred = self.pred.float()

    def after_loss(self):
        self.context.__exit__(None, None, None)
        if self.in_train: self.run.loss = self.scaler.scale(self.loss)

    def begin_step(self):
        self.scaler.step(self.learn.opt)
        self.scaler.update()
        self.learn.opt.zero_grad()
        raise CancelStepException


@pytest.mark.parametrize('way', ways)
def test_mixed_precision(way):
    seen = []

    def prepare(learn):
        seen.append(Autocast())
        learn.add_cbs(seen[-1])
    check_story(ways[way], prepare=prepare)
    assert seen[0].scaler.get_scale() == seen[1].scaler.get_scale() > 4


# ---- on every exit -------------------------------------------------------------------------------
class Interrupts(Callback):
    "Raises in the nth training batch"
    in_lr_find = True

    def __init__(self, nth=7, event='after_backward', error=KeyboardInterrupt):
        self.nth, self.error, self.count = nth, error, 0
        setattr(self, event, self.raise_it)

    def raise_it(self):
        self.count += 1
        if self.count == self.nth: raise self.error('on purpose')


def no_trace(learn, search, error=None):
    "A search leaves a learner as it was"
    before, objects, spot = facts(learn), identities(learn), place(learn.data.train_dl)
    if error is None: search(learn)
    else:
        with pytest.raises(error, match='on purpose'): search(learn)
    assert_same(before, facts(learn))
    after = identities(learn)
    assert len(objects) == len(after) and all(a is b for a, b in zip(objects, after))
    assert spot == place(learn.data.train_dl)
    return learn


@pytest.mark.parametrize('fitted', [0, 1])
@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize('event', ['begin_fit', 'begin_epoch', 'begin_batch', 'after_loss',
                                   'after_backward', 'begin_step', 'after_batch', 'after_fit'])
def test_broken_by_a_callback(event, error, fitted):
    learn = make()
    if fitted: learn.fit(fitted)
    nth = 1 if event in ('begin_fit', 'begin_epoch', 'after_fit') else 7
    learn.add_cbs(Interrupts(nth, event, error))
    no_trace(learn, search_by_verb, error)


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('way', ways)
def test_broken_by_the_model(way, error):
    def breaks(module, args, out):
        if module.calls == 13: raise error('on purpose')  # 6 of the first fit, then the 7th

    learn = make()
    learn.fit(1)
    learn.model.register_forward_hook(breaks)
    before = facts(learn)
    with pytest.raises(error): ways[way](learn)
    after = facts(learn)
    if way == 'callback': before['opt'] = after['opt'] = before['grads'] = after['grads'] = None
    assert len(learn.recorder.lrs) == 6
    assert_same(before, after)
    assert learn.running is False


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_broken_by_the_loss_and_then_fitted(way, error):
    class Loss:
        def __init__(self): self.count, self.armed = 0, False

        def __call__(self, pred, yb):
            self.count += 1
            if self.armed and self.count % 100 == 9: raise error('on purpose')
            return F.cross_entropy(pred, yb)

    def search(learn):
        learn.loss_func.armed = True
        with pytest.raises(error): ways[way](learn)
        learn.loss_func.armed = False
    check_story(search, 0, loss_func=Loss())


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('nth', [1, 7])
def test_interrupted_and_then_fitted(way, nth):
    def search(learn):
        with pytest.raises(KeyboardInterrupt):
            with learn.added_cbs(Interrupts(nth)): ways[way](learn)
    for before in (0, 1): check_story(search, before)


def test_interrupted_while_putting_back():
    learn, count = make(), []
    learn.fit(1)

    class Slow(dict):
        def clear(self):
            count.append(1)
            if len(count) == 1: raise KeyboardInterrupt('on purpose')
            super().clear()
    learn.add_cbs(cb := Spy())
    cb.notes = Slow(a=1)
    no_trace(learn, search_by_verb, KeyboardInterrupt)
    assert cb.notes == {'a': 1} and len(count) == 2


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('end_lr', [1e8, 1e30])
@pytest.mark.parametrize('stop_div', [True, False])
def test_diverging(way, end_lr, stop_div):
    def search(learn):
        ways[way](learn, end_lr=end_lr, stop_div=stop_div, num_it=20, start_lr=1e-3)
        assert stop_div or len(learn.recorder.lrs) == 20
    for opt in ('sgd', 'adamw'): check_story(search, 1, without_search(f'opt {opt}', 1), opt=opt)
    learn = make(opt='sgd')
    search(learn)
    finder = learn.lr_finder
    if stop_div:
        assert finder.diverged and len(finder.lrs) < 20
        assert not finder.losses[-1] <= 4*min(finder.losses)
        assert all(o <= 4*min(finder.losses[:i+1]) for i, o in enumerate(finder.losses[:-1]))


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('nth', [1, 3, 9])
def test_no_number(value, nth):
    class Spoils(Callback):
        count = 0

        def after_pred(self):
            self.count += 1
            if self.count == nth and self.in_train: self.run.pred = self.pred*value

    def search(learn):
        with learn.added_cbs(cb := Spoils()): rates = search_by_verb(learn)
        assert len(learn.recorder.lrs) == nth and learn.lr_finder.diverged and cb.count == 0
        assert nth > 1 or rates == (None,)*4
        learn.lr_finder.plot()
    check_story(search)


def test_a_loss_below_zero_does_not_explode():
    learn = make(loss_func=lambda pred, yb: F.cross_entropy(pred, yb) - 5)
    search_by_verb(learn, end_lr=.1)
    assert not learn.lr_finder.diverged and len(learn.recorder.lrs) == 14
    learn = make('list', 'sgd', loss_func=lambda pred, yb: pred.square().mean() - 5)
    search_by_verb(learn, start_lr=1., end_lr=1e6, num_it=40)
    assert learn.lr_finder.diverged


# ---- single parts --------------------------------------------------------------------------------
@pytest.mark.parametrize('fitted', [0, 1])
def test_nothing_is_touched(fitted):
    learn = make(opt='momentum')
    if fitted: learn.fit(1)
    had = set(vars(learn))
    no_trace(learn, search_by_verb)
    assert set(vars(learn)) - {'run'} == had - {'run'} and learn.cbs[0] is learn.train_eval
    if not fitted: assert learn.opt is None and not hasattr(learn.model, 'late')


def test_gradients_come_back():
    learn = make()
    learn.fit(1)
    learn.model.b(torch.ones(2, 8)).sum().backward()  # of an interrupted step, say
    grad = learn.model.b.weight.grad
    no_trace(learn, search_by_verb)
    assert learn.model.b.weight.grad is grad and learn.model.a.weight.grad is None


def test_in_the_middle_of_an_epoch():
    learn = make()
    it = iter(learn.data.train_dl)
    next(it)
    batch = learn.data.train_dl.position
    no_trace(learn, search_by_verb)
    assert learn.data.train_dl.position == batch == 1
    state = learn.data.train_dl.state_dict()
    learn.data.train_dl.load_state_dict(state)
    a = [o[1] for o in learn.data.train_dl]
    learn.data.train_dl.load_state_dict(state)
    no_trace(learn, search_by_verb)
    b = [o[1] for o in learn.data.train_dl]
    assert len(a) == len(b) == 5 and all(map(torch.equal, a, b))


def test_plain_torch_optimizer():
    for make_opt in (partial(torch.optim.SGD, momentum=.9), torch.optim.Adam, torch.optim.NAdam):
        weights = []
        for search in (True, False):
            set_seed(0)
            model = Net()
            data = DataBunch(tensor_loader(), device='cpu')
            learn = BasicLearner(model, make_opt(model.parameters(), lr=.01), F.cross_entropy, data)
            Runner().fit(1, learn)
            if search:
                state = deepcopy(learn.opt.state_dict())
                run = Runner([LRFinder(num_it=14), Recorder()])
                run.fit(9, learn)
                assert same(state, learn.opt.state_dict()) and len(run.lr_finder.lrs) == 14
                assert run.recorder.lrs == run.lr_finder.lrs
            Runner().fit(1, learn)
            weights.append(deepcopy((model.state_dict(), learn.opt.state_dict())))
        assert same(*weights)


def test_rates_of_groups_of_a_plain_optimizer():
    model = Net()
    opt = torch.optim.SGD([{'params': model.a.parameters()}, {'params': model.b.parameters()}], .1)
    learn = BasicLearner(model, opt, F.cross_entropy, DataBunch(tensor_loader(), device='cpu'))
    rates = []

    class Rates(Callback):
        def after_loss(self): rates.append([o['lr'] for o in opt.param_groups])
    Runner([LRFinder(start_lr=[1e-4, 1e-3], end_lr=[.1, 1.], num_it=6), Rates()]).fit(1, learn)
    wanted = [[1e-4*1e3**(i/6), 1e-3*1e3**(i/6)] for i in range(6)]
    np.testing.assert_allclose(rates, wanted)
    with pytest.raises(ValueError, match='3 rates for 2 layer groups'):
        Runner(LRFinder(start_lr=[1e-4]*3, num_it=6)).fit(1, learn)
    assert [o['lr'] for o in opt.param_groups] == [.1, .1]


def test_without_a_namespace():
    "A learner may be a plain object, or a named tuple, which nothing can be written on"
    model = Net()
    parts = dict(model=model, opt=torch.optim.SGD(model.parameters(), .1),
                 loss_func=F.cross_entropy, data=SimpleNamespace(train_dl=loaders['list']()))
    for learn in (SimpleNamespace(**parts), namedtuple('Four', parts)(**parts)):
        before = deepcopy(model.state_dict())
        run = Runner(LRFinder(num_it=7))
        run.fit(2, learn)
        assert same(before, model.state_dict()) and len(run.lr_finder.lrs) == 7


def test_compiled_by_script():
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    learn = SimpleNamespace(model=model, opt=torch.optim.SGD(model.parameters(), .1),
                            loss_func=F.cross_entropy,
                            data=SimpleNamespace(train_dl=loaders['list']()))
    before = deepcopy(model.state_dict())
    Runner(LRFinder(num_it=7)).fit(2, learn)
    assert same(before, model.state_dict())


def test_a_loss_with_parameters_and_partials():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer('mean', torch.zeros(1))

        def forward(self, pred, yb):
            self.mean += 1
            return F.cross_entropy(pred, yb)

        def loss(self, pred, yb, factor): return factor*self(pred, yb)
    loss = Weighted()
    for loss_func in (loss, partial(loss.loss, factor=2.)):
        before = loss.mean.item()
        search_by_verb(make(loss_func=loss_func))
        assert loss.mean == before


# ---- callbacks -----------------------------------------------------------------------------------
class Tally:
    "A helper beside a callback"
    def __init__(self): self.n, self.by_size = 0, Counter()


class Hoards(Callback):
    "Keeps all kinds of things"
    guarded = False

    def __init__(self):
        self.count, self.names, self.sizes, self.bag = 0, ['a'], {'x': [1]}, {1, 2}
        self.recent, self.total, self.array = deque([1], maxlen=5), torch.zeros(2), np.zeros(2)
        self.tally, self.pair, self.rng = Tally(), ([], {}), random.Random(0)
        self.average, self.torch_rng = nn.Linear(2, 2), torch.Generator().manual_seed(0)
        self.mean = SmoothenValue(.9)

    def after_batch(self):
        self.count += 1
        self.names.append('b')
        self.sizes['x'].append(2)
        self.sizes['y'] = 1
        self.bag.add(self.count)
        self.recent.append(self.count)
        self.total += 1
        self.array += 1
        self.tally.n += 1
        self.tally.by_size['z'] += 1
        self.pair[0].append(1)
        self.rng.random()
        torch.rand(1, generator=self.torch_rng)
        self.mean.add_value(1.)
        with torch.no_grad(): self.average.weight += 1
        self.new = self.count

    def view(self):
        return deepcopy(dict(
            count=self.count, names=self.names, sizes=self.sizes, bag=sorted(self.bag),
            recent=list(self.recent), most=self.recent.maxlen, total=self.total, array=self.array,
            tally=vars(self.tally) | {'by_size': dict(self.tally.by_size)}, pair=self.pair,
            rng=self.rng.getstate(), weight=self.average.weight.data, mean=vars(self.mean),
            torch_rng=self.torch_rng.get_state(), keys=sorted(vars(self))))


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('broken', [False, True])
def test_attributes_of_callbacks(way, broken):
    learn = make()
    learn.add_cbs(cb := Hoards())
    if broken: learn.add_cbs(Interrupts())
    objects = [cb.names, cb.sizes['x'], cb.bag, cb.recent, cb.total, cb.tally, cb.average]
    before = cb.view()
    if way == 'callback': before['keys'] = sorted([*before['keys'], 'run'])
    if broken:
        with pytest.raises(KeyboardInterrupt): ways[way](learn)
    else: ways[way](learn)
    assert_same(before, cb.view())
    after = [cb.names, cb.sizes['x'], cb.bag, cb.recent, cb.total, cb.tally, cb.average]
    assert all(a is b for a, b in zip(objects, after))
    learn.fit(1)
    assert cb.count == 8


def test_callbacks_of_other_libraries():
    class V1:
        def __init__(self): self.seen, self.losses = 0, []

        def on_batch_end(self, last_loss, **kwargs):
            self.seen += 1
            self.losses.append(last_loss)

    class V2(Callback):
        def __init__(self): self.seen = 0

        def before_batch(self): self.seen += 1

        def after_fit(self): self.done = True

    class Mini(Callback):
        order = 3

        def __init__(self): self.seen = []

        def after_predict(self, learn): self.seen.append(learn.preds.shape)

    for way in ways:
        learn, cbs = make(), [V1(), V2(), Mini(), CallbackHandler([inner := V1()])]
        learn.add_cbs(cbs)
        learn.fit(1)
        before = [deepcopy([o.seen, getattr(o, 'losses', 0)]) for o in (*cbs[:3], inner)]
        assert all(o[0] for o in before)
        state = dict(cbs[3].state_dict)
        ways[way](learn)
        after = [[o.seen, getattr(o, 'losses', 0)] for o in (*cbs[:3], inner)]
        assert same(before, after)
        assert cbs[3].state_dict['iteration'] == state['iteration']
        learn.fit(1)
        assert inner.seen > before[3][0]


class Hidden(Callback):
    "What it keeps is out of reach but for `state_dict`"
    def __init__(self):
        kept = {'n': 0, 'list': [torch.zeros(1)]}
        self.read, self.write, self.loads = lambda: kept, kept.update, []

    def after_batch(self):
        self.read()['n'] += 1
        self.read()['list'].append(torch.ones(1))

    def state_dict(self): return dict(self.read())

    def load_state_dict(self, state):
        self.loads.append(1)
        self.write(state)


class NotYet(Callback):
    "Has no state before the first batch"
    def begin_batch(self): self.value = 1

    def state_dict(self): return {'value': vars(self)['value']}

    def load_state_dict(self, state): raise AssertionError('there was none')


@pytest.mark.parametrize('way', ways)
def test_callbacks_with_a_state(way):
    learn = make()
    learn.add_cbs([cb := Hidden(), other := NotYet()])
    ways[way](learn)
    assert same(cb.read(), {'n': 0, 'list': [torch.zeros(1)]}) and len(cb.loads) == 1
    assert 'value' not in vars(other)


def test_those_that_take_no_part():
    class Writes(Callback):
        in_lr_find, heard = False, 0
        order = 5

        def set_runner(self, run):
            super().set_runner(run)
            self.heard += 1

        def after_batch(self): raise AssertionError('it was to be left out')

    learn = make(silent=None)
    writes = Writes()
    learn.add_cbs(writes)
    learn.add_cbs(taking := Hoards())
    taking.in_lr_find = False  # the word of a single one
    cbs, order = learn.cbs, list(learn.cbs)
    before = dict(vars(writes))
    search_by_verb(learn)
    assert vars(writes) == before and learn.cbs is cbs
    assert len(order) == len(cbs) and all(a is b for a, b in zip(order, cbs))
    assert len(learn.recorder.lrs) == 14 and taking.count == 0
    learn.fit(2, cbs=LRFinder(num_it=7))  # left out here as well, and there again afterwards
    assert writes in learn.run.cbs and learn.lr_finder in learn.run.cbs
    with pytest.raises(AssertionError, match='left out'): learn.fit(1)


def test_one_runner_for_a_search_and_a_fit():
    class Counts(Callback):
        in_lr_find, count = False, 0

        def after_batch(self): self.count += 1
    learn = make()
    learn.create_opt()
    run = Runner([Counts(), finder := LRFinder(num_it=7)])
    run.fit(2, learn)
    assert run.counts.count == 0
    run.remove_cbs(finder)
    run.fit(1, learn)
    assert run.counts.count == 8
    run.add_cbs(finder)  # between two fits
    run.fit(2, learn)
    assert run.counts.count == 8 and len(finder.lrs) == 7


def test_a_finder_that_is_attached_for_good():
    learn = make()
    learn.add_cbs(LRFinder(num_it=6))
    rates = search_by_verb(learn, num_it=13)
    assert len(learn.run.lr_finder.lrs) == 13 and rates == learn.run.lr_finder.suggestions


def test_a_finder_that_comes_too_late():
    class Adds(Callback):
        def after_batch(self):
            if self.run.n_iter == 2: self.run.add_cbs(LRFinder())
    learn = make()
    with pytest.raises(RuntimeError, match='LRFinder has to be there when the fit begins'):
        learn.fit(1, cbs=Adds())


def test_faults():
    "Broken at any event, at any side of the finder: the weights are those before"
    def make_warm():
        learn = make('list')
        learn.model(x_train)  # some buffers come with the first batch
        return learn

    def fit(learn, cbs):
        before = deepcopy(learn.model.state_dict())
        try: learn.fit(2, 1e-2, cbs=cbs)
        finally: assert same(before, learn.model.state_dict())

    def check(learn, cb): assert cb.snapshot is None and cb.others is None
    check_faults(make_warm, lambda learn: LRFinder(num_it=8), check=check, fit=fit)


def test_cancelled_batches_count():
    class Skips(Callback):
        def begin_batch(self):
            if self.in_train and self.iter % 2: raise CancelBatchException
    learn = make()
    learn.add_cbs(Skips())
    search_by_verb(learn)
    assert learn.recorder.lrs == learn.lr_finder.lrs and learn.lr_finder.batches >= 12
    assert learn.lr_finder.lrs[1] == pytest.approx(1e-7*1e8**(2/14))


# ---- disk, screen and memory ---------------------------------------------------------------------
def listing(folder):
    return {o.relative_to(folder).as_posix(): o.read_bytes() if o.is_file() else None
            for o in folder.rglob('*')}


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('broken', [False, True])
def test_disk_is_not_touched(tmp_path, monkeypatch, way, broken):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'models').mkdir()
    (tmp_path/'models'/'tmp.pth').write_bytes(b'mine')
    learn = make(path=tmp_path)
    learn.save('mine')
    before, opened = listing(tmp_path), []
    real = io.open

    def spied(file, mode='r', *args, **kwargs):
        if any(o in mode for o in 'wax+'): opened.append(file)
        return real(file, mode, *args, **kwargs)
    monkeypatch.setattr('builtins.open', spied)
    if broken: learn.add_cbs(Interrupts())
    try: ways[way](learn)
    except KeyboardInterrupt: assert broken
    assert listing(tmp_path) == before and not opened


def test_nothing_is_printed(capsys):
    learn = make(silent=None)
    learn.add_cbs([ProgressCallback(silent=False, mode='plain'), AvgStatsCallback(accuracy)])
    search_by_verb(learn)
    out = capsys.readouterr()
    assert out.out == out.err == '' and learn.silent is False
    learn.fit(1)
    assert 'train_loss' in capsys.readouterr().out


def test_no_window_and_no_figure_kept():
    code = '''
import sys
sys.path.insert(0, 'tests')
from test_lr_finder import make, find_lr
learn = make()
rates = find_lr(learn, num_it=30)
assert 'matplotlib' not in sys.modules
import matplotlib.pyplot as plt
fig = learn.lr_finder.plot()
assert not plt.get_fignums() and len(fig.axes) == 1
print(rates)
'''
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root,
                         env={**os.environ, 'MPLBACKEND': 'agg'})
    assert run.returncode == 0 and run.stdout.startswith('SuggestedLRs(valley='), run.stderr


def test_figure_is_shown_once_in_a_notebook(monkeypatch):
    import IPython
    from matplotlib import pyplot
    pyplot.close(pyplot.figure())  # the first figure asks IPython for more than the one below has
    shown = []
    monkeypatch.setattr(IPython, 'get_ipython', lambda: SimpleNamespace(kernel=1))
    monkeypatch.setattr('IPython.display.display', shown.append)
    learn = make()
    search_by_verb(learn)
    assert len(shown) == 1 and shown[0].axes[0].get_xscale() == 'log'
    search_by_verb(learn, show_plot=False)
    assert len(shown) == 1


def test_plot():
    learn = make()
    rates = search_by_verb(learn, num_it=60, end_lr=100)
    fig = learn.lr_finder.plot()
    ax = fig.axes[0]
    found = {k: v for k, v in rates._asdict().items() if v is not None}
    labels = [o.get_text() for o in ax.get_legend().get_texts()]
    assert found and sorted(labels) == sorted(f'{k} {v:.2e}' for k, v in found.items())
    marks = {o.get_label(): o for o in ax.lines[1:]}
    for k, v in found.items(): assert marks[f'{k} {v:.2e}'].get_xdata() == [v]
    assert learn.lr_finder.plot(ax=ax) is fig
    short = make()
    search_by_verb(short, num_it=6)
    assert not short.lr_finder.plot().axes[0].get_legend()


def test_memory_is_given_back():
    learn = make()
    finder = LRFinder(num_it=7)
    learn.fit(2, cbs=finder)
    assert finder.snapshot is None
    count = threading.active_count()
    search_by_verb(learn)
    assert threading.active_count() == count and learn.lr_finder.snapshot is None


# ---- the curve -----------------------------------------------------------------------------------
@pytest.mark.parametrize('case', ['to_the_end', 'diverging', 'not_stopped'])
@pytest.mark.parametrize('way', ways)
def test_fastai1(case, way):
    golden = json.loads((root/'tests'/'golden'/'fastai1.json').read_text())['lr_find'][case]
    sys.path.insert(0, str(root/'tools'))
    from make_golden import make_loaders, make_model
    learn = Learner(DataBunch(*make_loaders(), device='cpu'), make_model('plain'), F.cross_entropy,
                    opt_func=opts['momentum'], wd=0., silent=True)
    kwargs = golden['calls'][0][1]
    if way == 'verb': find_lr(learn, **kwargs)
    else: learn.fit(99, cbs=LRFinder(**kwargs))
    np.testing.assert_allclose(learn.recorder.lrs, golden['lrs'], rtol=1e-5)
    np.testing.assert_allclose(learn.recorder.losses, golden['losses'], rtol=1e-5)
    assert learn.lr_finder.lrs == learn.recorder.lrs
    if way == 'verb':
        slopes = np.gradient(np.array(golden['losses'][10:-5]))
        assert learn.recorder.min_grad_lr == pytest.approx(golden['lrs'][10:-5][slopes.argmin()])
        learn.recorder.plot(suggestion=True)
        assert learn.recorder.min_grad_lr == pytest.approx(golden['lrs'][10:-5][slopes.argmin()])


@pytest.mark.parametrize('dl', ['one batch', 'tensors', 'lengthless', 'list'])
@pytest.mark.parametrize('num_it', [6, 12, 13, 30])
def test_number_of_batches(dl, num_it):
    learn = make(dl)
    search_by_verb(learn, num_it=num_it, end_lr=1e-3)
    assert len(learn.recorder.lrs) == num_it
    np.testing.assert_allclose(learn.recorder.lrs, [1e-7*1e4**(i/num_it) for i in range(num_it)])
    assert all(row[1] is None for row in learn.recorder.values)  # nothing was validated


def test_rates_of_layer_groups():
    learn, rates = make(splitter=groups_of), []

    class Rates(Callback):
        def after_loss(self): rates.append(self.learn.opt.read_val('lr'))
    learn.add_cbs(Rates())
    search_by_verb(learn, start_lr=[1e-5, 1e-4, 1e-3], end_lr=1.)
    wanted = [[a*(1/a)**(i/14) for a in (1e-5, 1e-4, 1e-3)] for i in range(len(rates))]
    np.testing.assert_allclose(rates, wanted)
    assert learn.recorder.lrs == [o[-1] for o in rates] == learn.lr_finder.lrs


def test_rates_of_the_groups_of_a_given_optimizer():
    learn, rates = make(), []
    parts = [{'params': learn.model.a.parameters()}, {'params': learn.model.b.parameters()}]
    learn.opt = torch.optim.SGD(parts, .1)

    class Rates(Callback):
        def after_loss(self): rates.append([o['lr'] for o in self.learn.opt.param_groups])
    learn.add_cbs(Rates())
    find_lr(learn, [1e-4, 1e-3], [.1, 1.], num_it=6, show_plot=False)
    np.testing.assert_allclose(rates, [[1e-4*1e3**(i/6), 1e-3*1e3**(i/6)] for i in range(6)])
    with pytest.raises(ValueError, match='3 rates for 2 layer groups'): find_lr(learn, [1e-4]*3)


def test_the_finder_has_the_last_word_on_the_rate():
    class Plans(Callback):
        order = 60

        def begin_batch(self): self.learn.opt.lr = 5.
    learn = make()
    learn.add_cbs(Plans())
    search_by_verb(learn)
    assert max(learn.recorder.lrs) < 5


@pytest.mark.parametrize('bad, word', [
    (dict(num_it=5), 'num_it=5'), (dict(num_it=0), 'num_it=0'), (dict(num_it=7.), 'num_it=7.0'),
    (dict(num_it=True), 'num_it=True'), (dict(num_it=None), 'num_it=None'),
    (dict(start_lr=0.), 'start_lr=0.0'), (dict(start_lr=-1.), 'start_lr=-1.0'),
    (dict(start_lr=math.nan), 'start_lr=nan'), (dict(end_lr=math.inf), 'end_lr=inf'),
    (dict(end_lr='1'), "end_lr='1'"), (dict(start_lr=None), 'start_lr=None'),
    (dict(start_lr=[]), r'start_lr=\[\]'), (dict(end_lr=True), 'end_lr=True'),
    (dict(start_lr=10.), 'start_lr=10.0'), (dict(start_lr=20., end_lr=10.), 'end_lr=10.0'),
    (dict(start_lr=[1e-3, 1e-2], end_lr=[1., 1e-2]), 'end_lr=0.01'),
    (dict(start_lr=[1e-3]*2, end_lr=[1.]*3), 'has 3 rates')])
def test_bad_input(bad, word):
    with pytest.raises(ValueError, match=word): LRFinder(**bad)
    learn = make()
    before = facts(learn)
    with pytest.raises(ValueError, match=word): find_lr(learn, **bad)
    assert_same(before, facts(learn))
    assert learn.run is None and learn.opt is None


@pytest.mark.parametrize('kwargs', [dict(start_lr=[1e-5]*2), dict(end_lr=[1., 2.])])
def test_wrong_number_of_rates(kwargs):
    learn = make(splitter=groups_of)
    name = next(iter(kwargs))
    with pytest.raises(ValueError, match=f'{name}=.*2 rates for 3 layer groups'):
        find_lr(learn, **kwargs)
    assert learn.run is None and learn.opt is None
    before = deepcopy(learn.model.state_dict())
    with pytest.raises(ValueError, match=f'{name}=.*2 rates for 3 layer groups'):
        learn.fit(1, cbs=LRFinder(**kwargs))
    assert same(before, learn.model.state_dict())


def test_first_argument_is_a_learner():
    with pytest.raises(TypeError, match=r'did you mean LRFinder\(start_lr=0.1\)'): LRFinder(.1)
    learn = make()
    assert LRFinder(learn).learn is learn and LRFinder.name == 'lr_finder'


def test_empty_loader():
    learn = make()
    learn.data.train_dl = []
    with pytest.raises(ValueError, match='empty'): find_lr(learn)
    assert learn.cbs[0] is learn.train_eval and learn.silent


# ---- suggestions ---------------------------------------------------------------------------------
def test_four_in_order():
    assert SuggestedLRs._fields == ('valley', 'steep', 'minimum', 'slide')
    rates = SuggestedLRs(1e-3, 2e-2, None, 3.)
    assert str(rates) == repr(rates) == (
        'SuggestedLRs(valley=1.00e-03, steep=2.00e-02, minimum=None, slide=3.00e+00)')
    assert deepcopy(rates) == rates and rates.valley == 1e-3 and rates == (1e-3, 2e-2, None, 3.)


def test_find_lr_returns_what_the_rules_say():
    learn = make('list', 'sgd')
    rates = search_by_verb(learn, num_it=60, end_lr=100)
    lrs, losses = learn.recorder.lrs[6:-5], learn.recorder.losses[6:-5]
    assert rates == tuple(rule(lrs, losses) for rule in rules) == learn.lr_finder.suggestions
    assert all(o is None or 1e-8 <= o <= 100 for o in rates)


def test_by_hand():
    lrs = [10.**i for i in range(8)]
    losses = [5., 9., 4., 6., 3., 2., 8., 7.]
    assert suggest_valley(lrs, losses) == lrs[2]  # 5 4 3 2, ends at index 5, has 4 points
    assert suggest_minimum(lrs, losses) == lrs[4]
    assert suggest_steep(lrs, losses) == lrs[1]
    assert suggest_slide(lrs, losses) is None
    ramp = [3.]*20 + [3-.1*i for i in range(20)] + [1.+2**i for i in range(10)]
    lrs = [1e-6*1.3**i for i in range(50)]
    slide = suggest_slide(lrs, ramp)
    slopes, left = np.gradient(np.array(ramp)), lrs.index(slide)
    differ = [abs(b-a) > .005 for a, b in zip(slopes, slopes[15:])]  # by the left end
    assert all(differ[left:]) and (left == 0 or not differ[left-1])


number = st.floats(-1e3, 1e3, allow_nan=False)
curves = st.lists(number, min_size=0, max_size=60)


def rates_for(losses): return [1e-6*1.2**i for i in range(len(losses))]


@settings(deadline=None, max_examples=150)
@given(curves)
def test_a_suggestion_is_a_rate_of_the_curve(losses):
    lrs = rates_for(losses)
    falls = any(b < a for a, b in zip(losses, losses[1:]))
    for rule in rules:
        found = rule(lrs, losses)
        if not falls or len(losses) < (16 if rule is suggest_slide else 2): assert found is None
        elif rule is suggest_minimum:
            assert found == lrs[losses.index(min(losses))]/10
        else: assert found in lrs


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=60), st.integers(-100, 100))
def test_adding_a_constant_changes_nothing(losses, constant):
    lrs, moved = rates_for(losses), [o+constant for o in losses]
    for rule in rules: assert rule(lrs, losses) == rule(lrs, moved)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=60), st.sampled_from([2, 4, .5]))
def test_scaling_losses_or_rates(losses, factor):
    lrs, scaled = rates_for(losses), [o*factor for o in losses]
    for rule in rules[:3]: assert rule(lrs, losses) == rule(lrs, scaled)
    for rule in (suggest_valley, suggest_minimum, suggest_slide):
        found = rule(lrs, losses)
        moved = rule([o*factor for o in lrs], losses)
        assert moved == (None if found is None else pytest.approx(found*factor))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-5, 9), min_size=2, max_size=40), st.integers(0, 40),
       st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_curve_ends_before_the_first_loss_that_is_no_number(losses, at, bad):
    spoilt = losses[:at] + [bad] + losses[at:]
    cut = losses[:at]
    for rule in rules: assert rule(rates_for(spoilt), spoilt) == rule(rates_for(cut), cut)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=9))
def test_valley_lies_on_the_longest_way_down(losses):
    "By trying all ways that end at each point"
    def falls(keep): return all(losses[a] > losses[b] for a, b in zip(keep, keep[1:]))
    longest = [max(len(keep) for keep in ([*(i for i in range(end) if mask >> i & 1), end]
                                          for mask in range(2**end)) if falls(keep))
               for end in range(len(losses))]
    length = max(longest)
    at = longest.index(length) - length + int(length/3) + int(length/6)
    lrs = rates_for(losses)
    assert suggest_valley(lrs, losses) == (None if length == 1 else lrs[at])


@pytest.mark.parametrize('rule', rules)
def test_curves_that_say_nothing(rule):
    for losses in ([], [1.], [1.]*40, list(range(40)), [math.nan]*40, [math.nan, 2., 1.]):
        assert rule(rates_for(losses), losses) is None
    with pytest.raises(ValueError, match='lrs has 2 rates and losses has 3'):
        rule([1., 2.], [3., 2., 1.])


@pytest.mark.parametrize('rule', rules)
def test_lists_arrays_and_tensors(rule):
    losses = [3-.01*i + .3*math.sin(i) for i in range(60)]
    lrs = rates_for(losses)
    wanted = rule(lrs, losses)
    assert wanted is not None and type(wanted) is float
    for kind in (np.array, torch.tensor, tuple):
        assert rule(kind(lrs), kind(losses)) == pytest.approx(wanted)


def test_short_searches_say_little():
    learn = make()
    assert search_by_verb(learn, num_it=6) == (None,)*4
    assert learn.recorder.min_grad_lr in learn.recorder.lrs  # of the whole curve


# ---- what the callbacks of a learner see ---------------------------------------------------------
def test_metrics_are_as_before():
    class Mine(AverageMetric):
        "A metric with a memory of its own"
        def __init__(self):
            super().__init__(accuracy)
            self.resets = 0

        def reset(self):
            super().reset()
            self.resets = getattr(self, 'resets', 0)+1
    learn = make(metrics=[mine := Mine()])
    learn.fit(1)
    before = mine.resets
    value = learn.recorder.metrics[0]
    text = f'{value:.4f}'
    search_by_verb(learn)
    assert mine.resets == before and learn.metrics == [mine] and f'{mine:.4f}' == text


def test_finder_is_found_by_name():
    learn = make()
    search_by_verb(learn)
    assert isinstance(learn.lr_finder, LRFinder) and learn.run.lr_finder is learn.lr_finder
    seen = []

    class Asks(Callback):
        "fastai v2's way of staying out"
        def before_fit(self): seen.append(hasattr(self, 'lr_finder'))
    learn = make()
    learn.add_cbs(Asks())
    learn.fit(1)
    search_by_verb(learn)
    assert seen == [False, True]


def test_opt_wrapper_given_by_hand():
    model = Net()
    opt = OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1, momentum=.9))
    learn = make()
    learn.create_opt()
    learn.model, learn.opt, learn.layer_groups = model, opt, [model]
    learn.fit(1)
    state, step = deepcopy(opt.state_dict()), opt.step
    no_trace(learn, search_by_verb)
    assert opt.step == step and same(state, opt.state_dict())


@pytest.mark.parametrize('event', ['begin_epoch', 'after_epoch', 'begin_batch', 'after_step'])
@pytest.mark.parametrize('num_it', [6, 40])
def test_callbacks_of_a_learner_may_search_in_the_middle_of_a_fit(event, num_it):
    "Two of them: a search is longer than an epoch, and each would begin one in that of the other"
    class Searches(Callback):
        found = None
        def search(this):  # not called self
            if this.found is None:
                this.found = find_lr(this.learn, num_it=num_it, show_plot=False)
    setattr(Searches, event, Searches.search)
    one, two, ended = Searches(), Searches(), []
    for cbs in ([one, two], []):
        learn = make()
        learn.add_cbs(cbs)
        torch.manual_seed(1)
        learn.fit(2)
        ended.append(list(learn.model.parameters()))
    assert one.found is not None and two.found is not None
    for a, b in zip(*ended): assert torch.equal(a, b)
