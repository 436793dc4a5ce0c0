"""A fit that is killed and taken up again equals one that nobody has killed, to the last bit.

Each test trains once without a break, then lets a callback raise somewhere, makes learner, data and
callbacks anew with other seeds, goes on with `resume=True`, and compares weights, optimizer,
history, batches, random numbers and files.
"""
import errno
import importlib
import os
import pkgutil
import random
import re
import sys
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from test_runner import ScheduleFree
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from fastloop import keras
from fastloop.all import (
    SGD,
    AvgStatsCallback,
    BnFreeze,
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CheckpointCallback,
    CSVLogger,
    DataBunch,
    EarlyStoppingCallback,
    EMACallback,
    F,
    GradientAccumulation,
    GradientClipping,
    History,
    Learner,
    MixedPrecision,
    MixUpCallback,
    ParamScheduler,
    Recorder,
    ReduceLROnPlateauCallback,
    SaveModelCallback,
    ShortEpoch,
    StopAfterNBatches,
    TensorBoardCallback,
    TensorLoader,
    TerminateOnNaNCallback,
    TorchScheduler,
    accuracy,
    error_rate,
    sched_cos,
    set_seed,
)
from fastloop.callback.core import events
from fastloop.callback.snapshot import same_state
from fastloop.event_files import read_scalars
from fastloop.loader_place import own_generators
from fastloop.state_files import Sealed, numbered_files, write_state
from fastloop.torch_core import rng_state

rare = pytest.mark.rare  # run by `make test-all` alone
N, BS, EPOCHS = 22, 4, 3  # six training batches an epoch, the last of two items
WIDTH = 6


class Killed(BaseException):
    "The end, at any place"


class Kill(Callback):
    "Raises when `event` comes for the `nth` time"
    def __init__(self, event, nth, order=0):
        self.order, self.left = order, nth
        setattr(self, event, self.strike)

    def strike(self):
        self.left -= 1
        if self.left == 0: raise Killed


class Seen(Callback):
    "Writes down what each step has seen"
    order = 90

    def begin_fit(self): self.steps = []

    def after_batch(self):
        run = self.run
        place = run.in_train, run.epoch, run.iter, run.n_iter, run.n_epochs, run.pct_train
        self.steps.append((place, run.xb.clone(), run.yb.clone(), run.loss.item(), run.opt.lr,
                           run.opt.mom))


class Noisy(Dataset):
    "Items that are varied by every random generator there is"
    def __init__(self, x, y, seed): self.x, self.y, self.rng = x, y, np.random.default_rng(seed)
    def __len__(self): return len(self.x)

    def __getitem__(self, i):
        noise = random.random() + np.random.rand() + torch.rand(()).item() + self.rng.normal()
        return self.x[i] + noise/10, self.y[i]


def tensors():
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(N + 10, 5, generator=g), torch.randint(0, 3, (N + 10,), generator=g)
    return x[:N], y[:N], x[N:], y[N:]


def tensor_data(seed, path):
    x, y, xv, yv = tensors()
    return DataBunch(TensorLoader(x, y, bs=BS, shuffle=True, seed=seed),
                     TensorLoader(xv, yv, bs=6), device='cpu', path=path)


def loader_data(seed, path, workers=0, generator=False):
    x, y, xv, yv = tensors()
    g = torch.Generator().manual_seed(seed) if generator else None
    # a worker that was forked ends by itself when its parent has been killed
    how = dict(num_workers=workers, multiprocessing_context='fork') if workers else {}
    train = DataLoader(Noisy(x, y, seed), BS, shuffle=True, generator=g, **how)
    return DataBunch(train, DataLoader(TensorDataset(xv, yv), 6), device='cpu', path=path)


def list_data(seed, path):
    x, y, xv, yv = tensors()
    return DataBunch(list(zip(x.split(BS), y.split(BS))), [(xv, yv)], device='cpu', path=path)


class Net(nn.Module):
    "Layers with dropout, a batch norm, and a number that is in no state_dict"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(),
                                  nn.Dropout(.3))
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer('calls', torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training: self.calls += 1
        return self.head(self.body(x))*(1 + self.calls/100)


sgd = partial(SGD, momentum=.9)


def make(seed, path, data=tensor_data, opt_func=sgd, cbs=(), every=4, **kwargs):
    "A learner made from `seed`, with checkpoints after some batches: writing them takes most time"
    set_seed(seed)
    data = data(seed, path)
    kwargs = dict(loss_func=F.cross_entropy, metrics=accuracy) | kwargs
    learn = Learner(data, Net(), opt_func=opt_func, lr=.1, splitter=lambda m: [m.body, m.head],
                    silent=True,
                    cbs=[CheckpointCallback(every=every, verbose=False), Seen(),
                         *(make_cb() for make_cb in cbs)], **kwargs)
    set_seed(seed + 1)
    return learn


def fit(learn, verb='fit', *args, **kwargs):
    if verb == 'fit_sgdr': args = (2, 1)
    elif verb == 'fine_tune': args = (2,)
    else: args = (EPOCHS, *args)
    getattr(learn, verb)(*args, **kwargs)
    return learn


def outcome(learn):
    "Everything that two trainings must have in common"
    recorder = learn.recorder
    return dict(model=learn.model.state_dict(), calls=learn.model.calls, opt=learn.opt.state_dict(),
                lrs=recorder.lrs, moms=recorder.moms, losses=recorder.raw_losses,
                smooth=recorder.losses, values=recorder.values, batches=recorder.nb_batches,
                metrics=[float(o) for o in recorder.metrics],
                counters=[getattr(learn, o) for o in ('epoch', 'n_iter', 'n_epochs', 'pct_train')],
                random=rng_state())


def check_same(one, two):
    for k, v in outcome(one).items():
        assert same_state(v, outcome(two)[k]), f'{k}: {v} and {outcome(two)[k]}'
    steps = two.seen.steps
    assert not steps or same_state(one.seen.steps[-len(steps):], steps)


@contextmanager
def killed():
    try: yield
    except Killed: pass


def broken(path, kills, verb='fit', **kwargs):
    "A training that is killed as often as there are `kills`, and taken up again each time"
    for i, kill in enumerate(kills):
        learn = make(10 + i if i else 0, path, **kwargs)
        with killed(): fit(learn, verb, cbs=kill, resume=i > 0)
    learn = make(99, path, **kwargs)
    return fit(learn, verb, resume=True)


class EpochSampler(Sampler):
    "Another order in each epoch, which it is told"
    epoch = 0
    def set_epoch(self, epoch): self.epoch = epoch
    def __len__(self): return N

    def __iter__(self):
        return iter(torch.randperm(N, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Stream(IterableDataset):
    "Items one after the other, varied by chance"
    def __init__(self, x, y): self.x, self.y = x, y

    def __iter__(self):
        for x, y in zip(self.x, self.y): yield x + torch.rand(()), y


class CountingSampler(EpochSampler):
    "Another order in each pass, which it counts"
    set_epoch = property()  # nobody tells it

    def __iter__(self):
        self.epoch += 1
        return super().__iter__()


class Batches:
    "Shuffles its list of batches in place, by random numbers of the process"
    def __init__(self): self.batches = [list(range(i, min(i + BS, N))) for i in range(0, N, BS)]
    def __len__(self): return len(self.batches)

    def __iter__(self):
        random.shuffle(self.batches)
        return iter(self.batches)


class OwnLoader:
    "A loader of one's own, which shuffles an array in place"
    def __init__(self, x, y): self.x, self.y, self.idx = x, y, np.arange(N)
    def __len__(self): return -(-N//BS)

    def __iter__(self):
        np.random.shuffle(self.idx)
        for i in range(0, N, BS): yield self.x[self.idx[i:i+BS]], self.y[self.idx[i:i+BS]]


class Jumping(IterableDataset):
    "Can begin in the middle, as torchdata wants it, and counts its passes"
    i, begin, passes = 0, None, 0
    def __init__(self, x, y): self.x, self.y = x, y
    def state_dict(self): return {'i': self.i}
    def load_state_dict(self, state): self.begin = state['i']

    def __iter__(self):
        self.i, self.begin, self.passes = self.begin or 0, None, self.passes + 1
        while self.i < N:
            self.i += 1
            yield self.x[self.i-1] + self.passes, self.y[self.i-1]


class Pass:
    "A pass over a loader that knows how far it is"
    over, done = False, 0
    def __init__(self, batches, start): self.batches, self.start = batches, start
    def __iter__(self): return self

    def __next__(self):
        try: batch = next(self.batches)
        except StopIteration:
            self.over = True
            raise
        self.done += 1
        return batch


class JumpingLoader(DataLoader):
    "Says its place as torchdata's `StatefulDataLoader` does: asked, it begins a pass, and draws"
    given, _initial_iter_for_state_dict = None, False

    def begin(self):
        state, self.given = self.given or {}, None
        if state: self.sampler.generator.set_state(state['start'])
        made = Pass(super().__iter__(), self.sampler.generator.get_state())
        for _ in range(state.get('done', 0)): next(made)
        made.over = state.get('_iterator_finished', False)
        return made

    def __iter__(self):
        if self._initial_iter_for_state_dict:
            self._initial_iter_for_state_dict = False
            assert self._iterator is not None
        else: self._iterator = self.begin()
        if self._iterator.over: self._iterator = self.begin()
        return self._iterator

    def state_dict(self):
        if self._iterator is None:
            self._iterator, self._initial_iter_for_state_dict = self.begin(), True
        now = self._iterator
        return {'start': now.start, 'done': now.done, '_iterator_finished': now.over}

    def load_state_dict(self, state):
        self._iterator, self._initial_iter_for_state_dict, self.given = None, False, state


class Helper:
    "Neither a function nor iterable, and it draws"
    def __init__(self, seed): self.rng = np.random.default_rng(seed)
    def apply(self, x): return x + self.rng.normal()


class Helped(Noisy):
    def __init__(self, x, y, seed): self.x, self.y, self.helper = x, y, Helper(seed)
    def __getitem__(self, i): return self.helper.apply(self.x[i]).float(), self.y[i]


def sampled_data(seed, path, kind):
    x, y, xv, yv = tensors()
    ds = TensorDataset(x, y)
    rng = torch.Generator().manual_seed(seed)
    if kind == 'counts': train = DataLoader(ds, BS, sampler=CountingSampler())
    elif kind == 'shuffles': train = DataLoader(ds, batch_sampler=Batches())
    elif kind == 'own': train = OwnLoader(x, y)
    elif kind == 'jumping': train = DataLoader(Jumping(x, y), BS)
    elif kind == 'stateful': train = JumpingLoader(ds, BS, sampler=RandomSampler(ds, generator=rng))
    elif kind == 'helped': train = DataLoader(Helped(x, y, seed), BS, shuffle=True)
    if kind == 'epochs': train = DataLoader(ds, BS, sampler=EpochSampler())
    elif kind == 'weights': train = DataLoader(ds, BS, sampler=WeightedRandomSampler(
        torch.arange(1., N+1), N))
    elif kind == 'stream': train = DataLoader(Stream(x, y), BS)
    elif kind == 'workers': train = DataLoader(Noisy(x, y, seed), BS, shuffle=True, num_workers=1,
                                               persistent_workers=True)
    elif kind == 'plain': train = DataLoader(ds, BS, shuffle=True)
    return DataBunch(train, DataLoader(TensorDataset(xv, yv), 6), device='cpu', path=path)


data_kinds = {k: partial(sampled_data, kind=k) for k in (
    'epochs', 'weights', 'stream', 'plain', 'counts', 'shuffles', 'own', 'jumping', 'stateful',
    'helped')}
data_kinds |= dict(tensors=tensor_data, loader=loader_data, lists=list_data,
                  generator=partial(loader_data, generator=True))
optimizers = dict(adam=partial(torch.optim.Adam, amsgrad=True), rmsprop=torch.optim.RMSprop,
                  nadam=torch.optim.NAdam, nesterov=partial(SGD, momentum=.9, nesterov=True))


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    "The training that nobody kills, once for each way to make it"
    known = {}

    def find(name, verb='fit', **kwargs):
        if (name, verb) not in known:
            path = tmp_path_factory.mktemp('unbroken')
            known[name, verb] = fit(make(0, path, **kwargs | dict(every='epoch')), verb), path
        return known[name, verb]
    return find


def kill_in_batches(unbroken, path, data, every, numbers):
    "Kill one training after so many steps, each time counted anew"
    kwargs = dict(data=data_kinds[data], every=every)
    whole, _ = unbroken(data, **kwargs)
    check_same(whole, broken(path, [Kill('after_step', n) for n in numbers], **kwargs))
    assert len(numbered_files(path/'models/checkpoints')) <= 3


@pytest.mark.parametrize('data', data_kinds)
def test_killed_in_some_batches(data, unbroken, tmp_path):
    kill_in_batches(unbroken, tmp_path/'batch', data, 1, (4, 4, 6))  # in its batches 4, 7 and 12
    kill_in_batches(unbroken, tmp_path/'epoch', data, 'epoch', (7, 9))  # in its batches 7 and 15


@pytest.mark.parametrize('name', optimizers)
def test_optimizers(name, unbroken, tmp_path):
    kwargs = dict(opt_func=optimizers[name], every=3)
    whole, _ = unbroken(name, **kwargs)
    check_same(whole, broken(tmp_path, [Kill('after_step', n) for n in (4, 7)], **kwargs))


@rare
def test_persistent_workers(unbroken, tmp_path):
    kwargs = dict(data=partial(sampled_data, kind='workers'), every=1)
    whole, _ = unbroken('persistent', **kwargs)
    check_same(whole, broken(tmp_path, [Kill('after_step', n) for n in (4, 5)], **kwargs))


@rare
@pytest.mark.parametrize('data', data_kinds)
@pytest.mark.parametrize('every', [1, 4, 'epoch'])
def test_killed_in_every_batch(data, every, unbroken, tmp_path):
    for n in range(1 + (6 if every == 'epoch' else every), 6*EPOCHS + 1):
        kill_in_batches(unbroken, tmp_path/f'{n}', data, every, (n,))


@rare
@pytest.mark.parametrize('event', [o for o in events if not o.startswith('after_cancel')])
@pytest.mark.parametrize('order', [-1000, 1000])
def test_killed_in_every_event(event, order, unbroken, tmp_path):
    whole, _ = unbroken('tensors')
    for nth in (1, 2, 9):
        learn = make(0, tmp_path/f'{nth}', every=1)
        with killed(): fit(learn, cbs=Kill(event, nth, order))
        if not numbered_files(tmp_path/f'{nth}/models/checkpoints'): continue
        check_same(whole, fit(make(9, tmp_path/f'{nth}'), resume=True))


class Stops(Callback):
    "Ends some phase by its answer, or by raising"
    def __init__(self, event, at, error=None):
        self.at, self.error = at, error
        setattr(self, event, self.end)

    def end(self):
        run = self.run
        if (run.epoch, run.iter) != self.at or not run.in_train: return None
        if self.error: raise self.error
        return True


class StopsAfter(Callback):
    "Ends the fit with an epoch"
    order = 200
    def after_epoch(self): return self.run.epoch == 1


class Halves(Callback):
    "Changes the optimizer when an epoch begins"
    def begin_epoch(self): self.opt.lr = self.opt.lr/2


class Counter(Callback):
    "Counts with effects on the training, and says how far it is"
    n = 0
    def begin_epoch(self): self.n += 1
    def after_loss(self): self.run.loss = self.run.loss*(1 + self.n/10)
    def state_dict(self): return {'n': np.int64(self.n), 'by': {1: (self.n,)}}
    def load_state_dict(self, state): self.n = int(state['n'])


features = {
    'accumulation': [partial(GradientAccumulation, n_batches=4)],
    'samples': [partial(GradientAccumulation, n_acc=10), partial(GradientClipping, clip=.5)],
    'average': [partial(EMACallback, decay=.8)],
    'all averaged': [partial(EMACallback, decay=.8, buffers='average'), SaveModelCallback],
    'average kept out': [partial(EMACallback, decay=.8, keep_average=False)],
    'mixup': [MixUpCallback],
    'mixup gathered': [MixUpCallback, partial(GradientAccumulation, n_batches=4)],
    'bfloat16': [partial(MixedPrecision, dtype='bf16')],
    'float16': [partial(MixedPrecision, init_scale=2.**20, growth_interval=3)],
    'float16 gathered': [partial(MixedPrecision, init_scale=2.**20, growth_interval=3),
                         partial(GradientAccumulation, n_batches=4), EMACallback],
    'stopping': [partial(EarlyStoppingCallback, restore_best=True)],
    'stopping late': [partial(EarlyStoppingCallback, monitor='accuracy', patience=2)],
    'plateau': [partial(ReduceLROnPlateauCallback, factor=.5, min_delta=1)],
    'best': [SaveModelCallback],
    'best two': [partial(SaveModelCallback, keep=2)],
    'every': [partial(SaveModelCallback, every='epoch'), History],
    'every four': [partial(SaveModelCallback, n_batches=4, keep=2)],
    'table': [CSVLogger, AvgStatsCallback],
    'table goes on': [partial(CSVLogger, append=True)],
    'board': [TensorBoardCallback],
    'short': [partial(ShortEpoch, pct=.5)],
    'stop after': [partial(StopAfterNBatches, n_batches=8), CSVLogger],
    'not a number': [TerminateOnNaNCallback],
    'fit is ended by an epoch': [StopsAfter, SaveModelCallback],
    'pass is ended by a batch': [partial(Stops, 'after_batch', (1, 2))],
    'fit is ended by a batch': [partial(Stops, 'after_batch', (1, 2), CancelFitException()),
                                EMACallback],
    'epoch is ended by a batch': [partial(Stops, 'after_batch', (1, 2), CancelEpochException())],
    'batch is left out': [partial(Stops, 'after_pred', (1, 2))],
    'step is left out': [partial(Stops, 'begin_step', (1, 2), CancelStepException())],
    'rate by epochs': [Halves],
    'counter': [Counter],
    'batch norm': [BnFreeze],
    'schedule': [lambda: ParamScheduler('lr', sched_cos(.1, .01))],
    'schedule of torch': [lambda: TorchScheduler(make=partial(torch.optim.lr_scheduler.StepLR,
                                                              step_size=1), every='epoch')],
    'schedule of torch by batches': [lambda: TorchScheduler(make=partial(
        torch.optim.lr_scheduler.CyclicLR, base_lr=.01, max_lr=.1, cycle_momentum=True,
        step_size_up=4), every='batch')],
    'plateau of torch': [lambda: TorchScheduler(make=partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1.),
        monitor='valid_loss')],
}


def contents(path):
    "What the files of a run say, without times"
    found = {}
    for file in sorted(path.rglob('*')):
        name = str(file.relative_to(path))
        if file.is_dir() or 'checkpoints' in name or 'tfevents' in name: continue
        if file.suffix == '.csv':
            rows = [line.rpartition(',')[0] for line in file.read_text().splitlines()]
            found[name] = rows
        else: found[name] = torch.load(file, weights_only=True)
    if (path/'logs').exists(): found['logs'] = read_scalars(path/'logs')
    return found


def own_state(learn):
    "What the callbacks know in the end, but for times"
    cbs = [o for o in learn.cbs if not isinstance(o, (CheckpointCallback, Recorder))]
    return {type(o).__name__: o.state_dict() for o in cbs if hasattr(type(o), 'state_dict')}


def kill_with(feature, unbroken, tmp_path, numbers, every):
    kwargs = dict(cbs=features[feature], every=every)
    whole, there = unbroken(feature, **kwargs)
    for n in numbers:
        path = tmp_path/f'{n}'
        resumed = broken(path, [Kill('begin_backward', n)], **kwargs)
        check_same(whole, resumed)
        assert same_state(contents(there), contents(path)), f'killed at {n}'
        assert same_state(own_state(whole), own_state(resumed)), f'killed at {n}'


@pytest.mark.parametrize('feature', features)
def test_with_everything(feature, unbroken, tmp_path):
    every = 1 if feature == 'batch is left out' else 8  # its ninth backward pass is of batch 10
    kill_with(feature, unbroken, tmp_path, (9,), every)


@pytest.mark.parametrize('how, event, n', [
    ('epoch', 'begin_backward', 9), (1, 'begin_backward', 9), (1, 'begin_validate', 1),
    ('epoch', 'begin_epoch', 2), (1, 'after_epoch', 2), ('epoch', 'after_fit', 1)])
def test_an_optimizer_with_two_modes(how, event, n, tmp_path):
    kwargs = dict(opt_func=ScheduleFree, wd=None, every=how, cbs=[SaveModelCallback])
    whole, file = fit(make(0, tmp_path/'a', **kwargs)), 'models/bestmodel.pth'
    resumed = broken(tmp_path/'b', [Kill(event, n)], **kwargs)
    check_same(whole, resumed)
    assert same_state(contents(tmp_path/'a'), contents(tmp_path/'b'))
    found = torch.load(tmp_path/'a'/file, weights_only=True)
    assert not any(o['train_mode'] for o in found['opt']['param_groups'])


@rare
@pytest.mark.parametrize('feature', features)
def test_with_everything_killed_everywhere(feature, unbroken, tmp_path):
    kill_with(feature, unbroken, tmp_path, (2, 5, 7, 8, 10, 12, 13, 16), 1)


@pytest.mark.parametrize('verb, feature, lr, told', [
    ('fit', 'best', .1, []), ('fit', 'best', .01, ['lr=0.01 (the checkpoint: 0.1)']),
    ('fit_one_cycle', 'best', .01, ['OneCycleScheduler.lr_max=0.01 (the checkpoint: 0.1)']),
    ('fit', 'patient', .1, ['EarlyStoppingCallback.patience=9 (the checkpoint: 1)'])])
@pytest.mark.parametrize('same', [True, False])
def test_other_numbers_are_told(verb, feature, lr, told, same, tmp_path):
    patient = [[partial(EarlyStoppingCallback, monitor='accuracy', patience=n)] for n in (1, 9)]
    before, now = patient if feature == 'patient' else [features[feature]]*2
    learn = make(0, tmp_path, cbs=before)
    with killed(): fit(learn, verb, cbs=Kill('after_step', 5))
    if not same or feature == 'patient': learn = make(1, tmp_path, cbs=now)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        fit(learn, verb, lr, resume=True)
    said = [str(o.message) for o in caught if 'asked for other numbers' in str(o.message)]
    assert len(said) == bool(told) and all(o in said[0] for o in told)
    if verb == 'fit': assert learn.recorder.lrs[0] == learn.recorder.lrs[-1] == .1


@pytest.mark.parametrize('now, told', [
    (dict(opt_func=partial(SGD, momentum=.5)), 'momentum=0.5 (the checkpoint: 0.9)'),
    (dict(opt_func=partial(SGD, momentum=.9, nesterov=True)),
     'nesterov=True (the checkpoint: False)'),
    (dict(wd=.5), 'true_weight_decay=0.5 (the checkpoint: 0.01)'),
    (dict(true_wd=False), 'weight_decay=0.01 (the checkpoint: 0.0)')])
def test_other_numbers_of_the_optimizer_are_told(now, told, tmp_path):
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 5))
    learn = make(1, tmp_path, **now)
    with pytest.warns(UserWarning, match=re.escape(told)): fit(learn, resume=True)


verbs = ['fit_one_cycle', 'fit_flat_cos', 'fit_sgdr', 'fine_tune']


@pytest.mark.parametrize('verb', verbs)
def test_verbs(verb, unbroken, tmp_path):
    kill_in_verb(verb, 4, unbroken, tmp_path, (5, 13))


@rare
@pytest.mark.parametrize('verb', verbs)
@pytest.mark.parametrize('every', [1, 'epoch'])
def test_verbs_killed_everywhere(verb, every, unbroken, tmp_path):
    numbers = (2, 6, 7, 10, 12, 17, 18) if every == 1 else (7, 12, 16)
    kill_in_verb(verb, every, unbroken, tmp_path, numbers)


def kill_in_verb(verb, every, unbroken, tmp_path, numbers):
    kwargs = dict(every=every, opt_func=torch.optim.AdamW, cbs=[CSVLogger, EMACallback])
    if verb == 'fine_tune': kwargs['cbs'] = [partial(CSVLogger, append=True), SaveModelCallback]
    whole, there = unbroken('verb', verb, **kwargs)
    for n in numbers:
        resumed = broken(tmp_path/f'{n}', [Kill('begin_backward', n)], verb, **kwargs)
        check_same(whole, resumed)
        assert same_state(contents(there), contents(tmp_path/f'{n}')), f'killed at {n}'


class KillIn(Kill):
    "Raises in a batch of the second fit of a verb"
    def begin_fit(self): self.left += 1000 if self.learn.stage == 0 else -1000*(self.left > 1000)


@pytest.mark.parametrize('n', [1, 2, pytest.param(5, marks=rare), 6, 7,
                               pytest.param(11, marks=rare)])
def test_fine_tune_goes_on_in_its_second_phase(n, unbroken, tmp_path):
    kwargs = dict(every=1, opt_func=torch.optim.AdamW,
                  cbs=[partial(CSVLogger, append=True), SaveModelCallback])
    whole, there = unbroken('verb', 'fine_tune', **kwargs)
    kills = [KillIn('begin_backward', n), KillIn('after_validate', 1), KillIn('begin_batch', 8)]
    resumed = broken(tmp_path, kills, 'fine_tune', **kwargs)
    check_same(whole, resumed)
    assert same_state(contents(there), contents(tmp_path))
    with pytest.raises(ValueError, match='of fine_tune'): fit(make(1, tmp_path, **kwargs),
                                                              resume=True)


@pytest.mark.parametrize('kills', [(2, 2, 2), (3, 1, 9), (6, 1, 6), (7, 7, 7), (13, 1, 1)])
def test_killed_three_times_in_a_row(kills, unbroken, tmp_path):
    kwargs = dict(data=loader_data, every=1, cbs=[
        CSVLogger, partial(GradientAccumulation, n_batches=4), EMACallback, SaveModelCallback,
        MixUpCallback])
    whole, there = unbroken('three', 'fit_one_cycle', **kwargs)
    resumed = broken(tmp_path, [Kill('after_pred', n) for n in kills], 'fit_one_cycle', **kwargs)
    check_same(whole, resumed)
    assert same_state(contents(there), contents(tmp_path))


def test_workers_draw_the_same_numbers(unbroken, tmp_path):
    kwargs = dict(data=partial(loader_data, workers=2), every=1)
    whole, _ = unbroken('workers', **kwargs)
    kills = [Kill('after_step', n) for n in (4, 3, 6)]  # in its batches 4, 6 and 11
    check_same(whole, broken(tmp_path, kills, **kwargs))


def newest(path): return [o for _, o in numbered_files(path/'models/checkpoints')]


def zeros(data): return bytes(len(data))


def flipped(data): return data[:len(data)//2] + bytes([data[len(data)//2] ^ 1]) + \
    data[len(data)//2+1:]


damages = dict(flipped=flipped, cut=lambda o: o[:-100], half=lambda o: o[:len(o)//2],
               empty=lambda o: b'', zeros=zeros, longer=lambda o: o + b'x')


@pytest.mark.parametrize('damage', damages)
def test_the_one_before_is_taken_when_the_newest_is_damaged(damage, unbroken, tmp_path):
    whole, _ = unbroken('tensors')
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 9))
    file = newest(tmp_path)[0]
    file.write_bytes(damages[damage](file.read_bytes()))
    learn = make(5, tmp_path)
    with pytest.warns(UserWarning, match=f'the checkpoint before.*{file.name} is damaged'):
        fit(learn, resume=True)
    check_same(whole, learn)
    assert file not in newest(tmp_path)


def sealed(path, state):
    "A file that `read_state` finds whole, with any content"
    with open(path, 'wb') as f:
        file = Sealed(f)
        torch.save(state, file)
        file.seal()


kinds = [{'__kind__': k, 'data': data} for k, data in (
    ('type', ['hub']), ('nosuch', []), ('deque', []), ('dict', [[1]]), ('path', [3]),
    ('array', ['|O', [1], torch.zeros(8, dtype=torch.uint8)]))]
no_files = dict(
    nowhere=lambda path: path.symlink_to('/nonexistent/x'),
    itself=lambda path: path.symlink_to(path), pipe=os.mkfifo, folder=lambda path: path.mkdir(),
    tensor=lambda path: sealed(path, torch.ones(2)),
    empty=lambda path: sealed(path, {}), halves=lambda path: sealed(path, dict.fromkeys(
        ('model', 'run', 'random', 'callbacks'), {}) | {'opt': None}),
    **{f'kind {i}': lambda path, o=o: sealed(path, {'model': o}) for i, o in enumerate(kinds)})


@pytest.mark.parametrize('what', no_files)
def test_what_is_no_checkpoint_is_passed_over(what, unbroken, tmp_path):
    whole, _ = unbroken('tensors')
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 12))
    path = tmp_path/'models/checkpoints/000099.pt'
    no_files[what](path)
    with pytest.raises(ValueError, match='000099.pt is'): make(3, tmp_path).restore(path)
    with pytest.warns(UserWarning, match='the checkpoint before this one is taken'):
        check_same(whole, fit(make(5, tmp_path), resume=True))


def test_all_damaged(tmp_path, capsys):
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 9))
    for file in newest(tmp_path): file.write_bytes(b'')
    learn = make(0, tmp_path)
    learn.checkpoints.verbose = True
    with pytest.warns(UserWarning, match='damaged'): fit(learn, resume=True)
    check_same(fit(make(0, tmp_path/'other')), learn)
    assert capsys.readouterr().out.count('this fit starts anew') == 1


class Evil:
    def __reduce__(self): return exec, ('raise SystemExit("it ran")',)


def test_code_is_refused(tmp_path):
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 9))
    file = newest(tmp_path)[0]
    torch.save({'model': Evil()}, file)
    with pytest.warns(UserWarning, match='is refused: it holds .*exec'):
        fit(make(0, tmp_path), resume=True)
    torch.save({'model': Evil()}, tmp_path/'a.pt')
    with pytest.raises(ValueError, match='is refused: it holds .*exec'):
        make(0, tmp_path).restore(tmp_path/'a.pt')
    write_state(tmp_path/'b.pt', {'model': {}})
    with pytest.raises(ValueError, match='no checkpoint: it lacks'):
        make(0, tmp_path).restore(tmp_path/'b.pt')
    file = newest(tmp_path)[0]
    assert {'model', 'opt', 'random'} <= set(torch.load(file, weights_only=True))


class Wide(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WIDTH, 4)


def fewer(seed, path):
    data = tensor_data(seed, path)
    x, y = data.train_dl.tensors
    return DataBunch(TensorLoader(x[:-2], y[:-2], bs=BS, shuffle=True, seed=seed), data.valid_dl,
                     device='cpu', path=path)


def other_batches(seed, path):
    data = tensor_data(seed, path)
    return DataBunch(TensorLoader(*data.train_dl.tensors, bs=5, shuffle=True), data.valid_dl,
                     device='cpu', path=path)


others = dict(
    architecture=(dict(change=lambda o: setattr(o, 'model', Wide())), 'head.weight'),
    items=(dict(data=fewer), 'train_dl: the checkpoint is of other data .*22 items.*20 items'),
    batches=(dict(data=other_batches), 'batches of 4.*batches of 5'),
    kind=(dict(data=loader_data), 'TensorLoader.*DataLoader'),
    missing=(dict(cbs=[]), 'other callbacks: CSVLogger is missing'),
    new=(dict(cbs=[CSVLogger, EMACallback]), 'other callbacks: EMACallback is new'),
    unstateful=(dict(cbs=[CSVLogger, MixUpCallback]), 'MixUpCallback is new'),
    optimizer=(dict(opt_func=torch.optim.AdamW), 'optimizer SGD, this is AdamW'),
    epochs=(dict(epochs=1), 'epochs=1: the checkpoint is in epoch 2; epochs is the total'),
    plan=(dict(epochs=5, verb='fit_one_cycle'), 'OneCycleScheduler is new'),
    metrics=(dict(metrics=error_rate), r"metrics: \['accuracy'\]; here \['error_rate'\]"),
    more=(dict(metrics=[accuracy, error_rate]), r"here \['accuracy', 'error_rate'\]"),
    fewer=(dict(metrics=None), r"metrics: \['accuracy'\]; here \[\]"))


@pytest.mark.parametrize('other', others)
def test_what_does_not_fit_is_said_before_anything_is_changed(other, tmp_path):
    with killed(): fit(make(0, tmp_path, cbs=[CSVLogger]), cbs=Kill('after_step', 9))
    how, message = others[other]
    how = dict(how)
    change, epochs, verb = how.pop('change', None), how.pop('epochs', 3), how.pop('verb', 'fit')
    learn = make(5, tmp_path, **(dict(cbs=[CSVLogger]) | how))
    if change: change(learn)
    files = {o: o.read_bytes() for o in tmp_path.rglob('*') if o.is_file()}
    before = [o.clone() for o in learn.model.state_dict().values()]
    random_numbers, place = rng_state(), learn.data.train_dl
    with pytest.raises(ValueError, match=message): getattr(learn, verb)(epochs, resume=True)
    assert same_state(before, list(learn.model.state_dict().values()))
    assert same_state(random_numbers, rng_state()) and learn.opt is None
    assert files == {o: o.read_bytes() for o in tmp_path.rglob('*') if o.is_file()}
    assert learn.data.train_dl is place and learn.recorder.values == []


class Adds(Callback):
    "Adds a column of its own"
    order = -20
    def begin_fit(self): self.learn.recorder.add_metric_names(['extra'])


def test_a_column_that_a_callback_adds_is_no_metric(tmp_path):
    make(0, tmp_path, cbs=[Adds]).fit(1)
    learn = make(1, tmp_path)
    learn.fit(2, resume=True)
    assert len(learn.recorder.values) == 2


def test_another_number_of_epochs(unbroken, tmp_path):
    whole, _ = unbroken('tensors')
    learn = make(0, tmp_path)
    learn.fit(1)
    check_same(whole, fit(make(4, tmp_path), resume=True))  # nothing depends on the number
    learn = make(0, tmp_path/'planned')
    learn.fit_one_cycle(2)
    with pytest.raises(ValueError, match='epochs=4: .* of 2 epochs, .*OneCycleScheduler'):
        make(1, tmp_path/'planned').fit_one_cycle(4, resume=True)


def test_a_fit_that_is_complete_is_not_run_again(unbroken, tmp_path):
    kwargs = dict(cbs=features['stopping'])
    whole, _ = unbroken('stopping', **kwargs)
    fit(make(0, tmp_path, **kwargs))
    before = newest(tmp_path)
    for seed in (3, 4):
        learn = fit(make(seed, tmp_path, **kwargs), resume=True)
        check_same(whole, learn)
        assert learn.seen.steps == [] and newest(tmp_path) == before


class Ends(Kill):
    "Ends the fit"
    def strike(self):
        self.left -= 1
        if self.left == 0: raise CancelFitException


@pytest.mark.parametrize('data', ['tensors', 'loader', 'stateful'])
@pytest.mark.parametrize('every', [2, 'epoch'])
@pytest.mark.parametrize('event, nth, told', [
    ('after_batch', 3, '0 of 2 epochs, batch 3'), ('after_batch', 12, '1 of 2 epochs, batch 4'),
    ('after_batch', 7, '0 of 2 epochs, batch 6'), ('after_epoch', 1, '1 of 2 epochs')])
def test_a_fit_that_a_callback_has_ended(data, every, event, nth, told, unbroken, tmp_path, capsys):
    kwargs = dict(data=data_kinds[data], every=every)
    ended = make(0, tmp_path, **kwargs)
    ended.fit(2, cbs=Ends(event, nth))
    again = make(3, tmp_path, **kwargs)
    again.checkpoints.verbose = True
    again.fit(2, resume=True)  # the same fit: it ends there, and says so
    assert again.seen.steps == []
    if nth != 7: check_same(ended, again)  # but a metric in the middle of validation
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and f'has ended this fit after {told}: nothing is left' in said[0]
    whole, _ = unbroken(data, **kwargs)
    more = fit(make(4, tmp_path, **kwargs), resume=True)
    if nth != 7: return check_same(whole, more)
    a, b = whole.recorder, more.recorder  # the validation that was begun has drawn
    assert a.values[0] == b.values[0] and a.raw_losses[:6] == b.raw_losses[:6]
    assert (len(b.values), more.n_iter) == (EPOCHS, 6*EPOCHS)


def test_more_patience_goes_on(unbroken, tmp_path):
    def learner(seed, patience): return make(seed, tmp_path, cbs=[partial(
        EarlyStoppingCallback, min_delta=9., patience=patience, verbose=False)])
    learner(0, 1).fit(EPOCHS)
    learn = learner(1, 50)
    with pytest.warns(UserWarning, match='patience=50 .the checkpoint: 1.'):
        learn.fit(EPOCHS, resume=True)
    check_same(unbroken('tensors')[0], learn)


@pytest.mark.parametrize('every', [(2, 3), (3, 2), ('epoch', 2)])
@pytest.mark.parametrize('kills', [(8,), (9, 1), (14, 2)])
def test_of_several_the_one_that_got_furthest_goes_on(every, kills, unbroken, tmp_path, capsys):
    def learner(seed): return make(seed, tmp_path, loader_data, every=every[0], cbs=[
        partial(CheckpointCallback, every=every[1], keep=None, folder=tmp_path/'all')])
    whole, _ = unbroken('loader', data=loader_data)
    for i, n in enumerate(kills):
        with killed(): fit(learner(i), cbs=Kill('after_step', n), resume=i > 0)
    capsys.readouterr()
    learn = learner(9)
    for cb in learn.cbs:
        if isinstance(cb, CheckpointCallback): cb.verbose = True
    check_same(whole, fit(learn, resume=True))
    assert capsys.readouterr().out.count('going on from') == 1


@pytest.mark.parametrize('left', [1, 0])
def test_a_checkpoint_that_cannot_be_read(left, unbroken, tmp_path, monkeypatch):
    with killed(): fit(make(0, tmp_path), cbs=Kill('after_step', 9))
    files = newest(tmp_path)
    module = importlib.import_module('fastloop.callback.checkpoint')

    def read(path, read=module.read_checkpoint):
        if read is not None and path in files[left:]: return read(path)
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    if left: monkeypatch.setattr(module, 'read_checkpoint', read)
    else: monkeypatch.setattr(module, 'read_checkpoint', partial(read, read=None))
    learn = make(5, tmp_path)
    if left:
        with pytest.warns(UserWarning, match='before this one is taken: .*Permission denied'):
            fit(learn, resume=True)
        return check_same(unbroken('tensors')[0], learn)
    with pytest.warns(UserWarning), pytest.raises(PermissionError): fit(learn, resume=True)
    assert learn.opt is None and newest(tmp_path) == files


def test_a_folder_that_cannot_be_made_is_named_before_training(tmp_path):
    (tmp_path/'models').write_text('')
    learn = make(0, tmp_path)
    before = [o.clone() for o in learn.model.parameters()]
    with pytest.raises(NotADirectoryError, match='models'): fit(learn, resume=True)
    assert same_state(before, list(map(torch.clone, learn.model.parameters())))
    assert learn.opt is None


def test_files_that_newer_ones_have_replaced_are_not_missed(tmp_path):
    names = [f'last_{o}.pth' for o in (16, 18)]
    with killed(): fit(make(0, tmp_path, every=3), cbs=[
        SaveModelCallback(n_batches=2, keep=2, name='last'), Kill('after_step', 12)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fit(make(0, tmp_path, every=3), resume=True,
            cbs=SaveModelCallback(n_batches=2, keep=2, name='last'))
    assert sorted(o.name for o in (tmp_path/'models').glob('last*')) == names


lr_scheduler = torch.optim.lr_scheduler
endless = dict(step=partial(lr_scheduler.StepLR, step_size=1),
               chain=lambda opt: lr_scheduler.ChainedScheduler([
                   lr_scheduler.ExponentialLR(opt, .9), lr_scheduler.MultiStepLR(opt, [2])]),
               measured=partial(lr_scheduler.ReduceLROnPlateau, mode='max', patience=0),
               cosine=partial(lr_scheduler.CosineAnnealingLR, T_max=2),
               own=partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: .9**epoch))


@pytest.mark.parametrize('name', endless)
def test_more_epochs_with_a_schedule_of_torch(name, unbroken, tmp_path):
    kwargs = dict(every='epoch', cbs=[partial(
        TorchScheduler, make=endless[name],
        monitor='valid_loss' if name == 'measured' else None)])
    make(0, tmp_path, **kwargs).fit(1)
    learn = make(2, tmp_path, **kwargs)
    if name not in ('cosine', 'own'): return check_same(
        unbroken(f'more {name}', **kwargs)[0], fit(learn, resume=True))
    with pytest.raises(ValueError, match='of 1 epochs, for which TorchScheduler'):
        fit(learn, resume=True)


class Counting(Net):
    "A weight of the output that grows, by a number, and noise from a generator"
    step = 0
    def __init__(self):
        super().__init__()
        self.rng = torch.Generator().manual_seed(torch.initial_seed())
        self.scale = nn.Sequential(nn.Identity())
        self.scale.started = False

    def forward(self, x):
        if self.training: self.step += 1
        return super().forward(x + torch.randn(x.shape, generator=self.rng))/(1 + self.step/10)


class DrawingFunction:
    "A loss that draws, and counts"
    n = 0
    def __init__(self, seed):
        super().__init__()
        self.rngs = [np.random.default_rng(seed), random.Random(seed)]

    def __call__(self, pred, y):
        self.n += 1
        return F.cross_entropy(pred, y)*(1 + sum(o.random() for o in self.rngs) + self.n/9)


class DrawingModule(DrawingFunction, nn.Module): "The same as a module"


@pytest.mark.parametrize('loss', [DrawingModule, DrawingFunction])
@pytest.mark.parametrize('every', [2, 'epoch'])
def test_what_model_and_loss_count_and_draw_goes_on(loss, every, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'Net', Counting)
    def learner(seed, name): return make(seed, tmp_path/name, every=every, loss_func=loss(seed))
    whole = fit(learner(0, 'whole'))
    with killed(): fit(learner(0, 'b'), cbs=Kill('after_step', 9))
    learn = fit(learner(5, 'b'), resume=True)
    check_same(whole, learn)
    assert learn.model.step == EPOCHS*6


def test_best_weights_that_are_gone_are_told_when_a_fit_goes_on(tmp_path):
    def learner(seed, path): return make(seed, path, cbs=[partial(
        SaveModelCallback, min_delta=9., verbose=False)])
    learner(0, tmp_path/'a').fit(1)
    (tmp_path/'a'/'models'/'checkpoints').rename(tmp_path/'moved')
    learn = learner(1, tmp_path/'b')
    learn.checkpoints.folder = tmp_path/'moved'
    with pytest.warns(UserWarning, match='bestmodel of the .* is not in .*models: ') as told:
        learn.fit(3, resume=True)
    assert len(told) == 1 and learn.save_model.best == learn.recorder.values[1][1]
    assert (tmp_path/'b'/'models'/'bestmodel.pth').exists() and len(learn.recorder.values) == 3


def test_the_same_learner_goes_on_after_an_interrupt(unbroken, tmp_path):
    class Interrupt(Kill):
        def strike(self):
            self.left -= 1
            if self.left == 0: raise KeyboardInterrupt

    whole, _ = unbroken('tensors')
    learn = make(0, tmp_path)
    with pytest.raises(KeyboardInterrupt): fit(learn, cbs=Interrupt('after_loss', 10))
    check_same(whole, fit(learn, resume=True))


def test_nothing_to_go_on_from(tmp_path, capsys):
    learn = make(0, tmp_path)
    learn.checkpoints.verbose = True
    fit(learn, resume=True)
    assert capsys.readouterr().out.splitlines() == [
        f'no checkpoint in {tmp_path}/models/checkpoints: this fit starts anew']
    check_same(fit(make(0, tmp_path/'other')), learn)


@pytest.mark.parametrize('kwargs', [dict(every=0), dict(every='step'), dict(every=1.5),
                                    dict(keep=0), dict(keep='all'), dict(resume='no'),
                                    dict(verbose='no'), dict(folder=3)])
def test_bad_arguments(kwargs):
    with pytest.raises((ValueError, TypeError), match=f'^{next(iter(kwargs))}='):
        CheckpointCallback(**kwargs)


@pytest.mark.parametrize('path', [3, None, '', '.'])
def test_what_is_no_file_is_refused_by_its_name(path, tmp_path):
    learn = make(0, tmp_path)
    for verb in (learn.checkpoint, learn.restore):
        with pytest.raises((ValueError, TypeError), match=f'^path={path!r} must'): verb(path)


class Slots:
    "Draws, and keeps its generator in a slot"
    __slots__ = '__rng',
    def __init__(self, seed): self.__rng = random.Random(seed)
    def __call__(self, x): return x + self.__rng.random()


class Method:
    "Its method draws"
    def __init__(self, seed): self.rng = np.random.default_rng(seed)
    def move(self, x): return x + self.rng.random()


def with_closure(seed):
    rng, unbound = random.Random(seed), None
    def move(x): return x + rng.random() if unbound is None else x
    return move


def with_default(seed):
    made = random.Random(seed)
    def move(x, *, rng=made): return x + rng.random()
    return move


def with_builtin(seed):
    made = random.Random(seed).random
    return lambda x, draw=made: x + draw()


def moved(batch, move, rng): return default_collate([(move(x), y + 0) for x, y in batch])


movers = dict(slots=Slots, method=lambda seed: Method(seed).move, closure=with_closure,
              default=with_default, nested=lambda seed: partial(with_closure(seed)),
              builtin=with_builtin)


def moved_data(seed, path, kind):
    x, y, xv, yv = tensors()
    collate = partial(moved, move=movers[kind](seed), rng=None)
    return DataBunch(DataLoader(TensorDataset(x, y), BS, shuffle=True, collate_fn=collate),
                     DataLoader(TensorDataset(xv, yv), 6), device='cpu', path=path)


@pytest.mark.parametrize('kind', movers)
def test_chance_that_a_function_was_given_goes_on(kind, tmp_path):
    data = partial(moved_data, kind=kind)
    whole = fit(make(0, tmp_path/'whole', data))
    with killed(): fit(make(0, tmp_path/'b', data), cbs=Kill('after_step', 9))
    check_same(whole, fit(make(5, tmp_path/'b', data), resume=True))


def test_chance_of_the_process_and_long_lists_are_no_generators_of_a_loader():
    rng, many = random.Random(1), [random.Random(i) for i in range(101)]
    def draw(x): return x + rng.random() + many[0].random()
    loader = DataLoader([1, 2], collate_fn=partial(draw, a=random.random, b=np.random.rand))
    assert own_generators(loader) == [rng]


class Annealed:
    "A loss that is no module, and grows with the number of its calls"
    def __init__(self): self.n = 0
    def state_dict(self): return {'n': self.n} if self.n else {}
    def load_state_dict(self, state): self.n = state['n']

    def __call__(self, pred, y):
        self.n += 1
        return F.cross_entropy(pred, y)*(1 + self.n/100)


@pytest.mark.parametrize('nth', [3, 9, 13])
def test_a_loss_that_is_no_module_goes_on_too(nth, tmp_path):
    def learner(seed, name): return make(seed, tmp_path/name, every=2, loss_func=Annealed())
    whole = fit(learner(0, 'whole'))
    with killed(): fit(learner(0, 'b'), cbs=Kill('after_step', nth))
    learn = fit(learner(5, 'b'), resume=True)
    check_same(whole, learn)
    assert learn.loss_func.n == EPOCHS*8  # six batches of training, two of validation


def weighted(*weights): return nn.CrossEntropyLoss(torch.tensor(weights))


@pytest.mark.parametrize('theirs, mine, told, wrong', [
    (None, weighted(1., 2., 3.), 'weight is not in it, and stays', None),
    (weighted(1., 2., 3.), None, 'weight is left out', None),
    (weighted(1., 2., 3.), weighted(1., 2.), None, 'another loss: .*weight'),
    (weighted(1., 2., 3.), nn.CrossEntropyLoss(), 'weight is left out', None)])
def test_numbers_of_another_loss(theirs, mine, told, wrong, tmp_path):
    def learner(seed, loss): return make(seed, tmp_path, **({'loss_func': loss} if loss else {}))
    file = (first := learner(0, theirs)).fit(1).learn.checkpoint(tmp_path/'c.pt')
    other = learner(1, mine)
    before = {k: v.clone() for k, v in other.model.state_dict().items()}
    if wrong:
        with pytest.raises(ValueError, match=wrong): other.restore(file)
    else:
        with pytest.warns(UserWarning, match=told) as found: other.restore(file)
        assert len(found) == 1
    assert same_state(other.model.state_dict(), before if wrong else first.model.state_dict())


def test_by_hand(tmp_path):
    kwargs = dict(cbs=[History])
    learn = make(0, tmp_path/'a', **kwargs)
    learn.fit(1)
    file = learn.checkpoint(tmp_path/'there'/'mine.pt')
    values, history = list(learn.recorder.values), dict(learn.history.history)
    learn.fit(2, .05)
    other = make(7, tmp_path/'b', **kwargs)
    assert other.restore(file) is other
    assert same_state(values, other.recorder.values)
    assert same_state(history, other.history.history)
    other.fit(2, .05)
    check_same(learn, other)
    other.model = Wide()
    with pytest.raises(ValueError, match='head.weight'): other.restore(file)
    with pytest.raises(FileNotFoundError): other.restore(tmp_path/'none.pt')


def test_by_hand_what_is_left_out_is_told(tmp_path):
    learn = make(0, tmp_path, cbs=[EMACallback])
    learn.fit(1)
    file = learn.checkpoint(tmp_path/'c.pt')
    with pytest.warns(UserWarning, match='no EMACallback: what the checkpoint holds of it') as told:
        make(1, tmp_path).restore(file)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make(2, tmp_path, cbs=[EMACallback]).restore(file)


def flags(learn): return [p.requires_grad for p in learn.model.parameters()]


def frozen(seed, path, how, **kwargs):
    "A learner in which the groups before `how` are frozen, batch norm included"
    learn = make(seed, path, train_bn=False, **kwargs)
    learn.freeze_to(how)
    return learn


@pytest.mark.parametrize('opt_func', [sgd, torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize('before, after', [(1, 0), (0, 1)])
def test_by_hand_across_another_freezing(before, after, opt_func, tmp_path):
    kwargs = dict(opt_func=opt_func, every='epoch')
    whole = frozen(0, tmp_path/'whole', before, **kwargs)
    whole.fit(1)
    wanted, file = flags(whole), whole.checkpoint(tmp_path/'c.pt')
    whole.fit(2)  # nobody has frozen anything in between
    same = frozen(0, tmp_path/'same', before, **kwargs)
    same.fit(1)
    for trained in (None, False, True):
        learn = same if trained is None else frozen(7, tmp_path/f'new{trained}', after, **kwargs)
        learn.freeze_to(after)
        if trained is not False: learn.fit(1)
        learn.restore(file)
        assert flags(learn) == wanted
        learn.fit(2)
        check_same(whole, learn)


def test_by_hand_when_all_is_frozen(tmp_path):
    whole = make(0, tmp_path/'a')
    whole.fit(1)
    file = whole.checkpoint(tmp_path/'c.pt')
    whole.fit(1)
    learn = make(5, tmp_path/'b')
    learn.model.requires_grad_(False)
    learn.restore(file)
    learn.fit(1)
    check_same(whole, learn)


@pytest.mark.parametrize('trained', [False, True])
def test_what_does_not_fit_by_hand_changes_nothing(trained, tmp_path):
    learn = frozen(0, tmp_path, 1)
    learn.fit(1)
    file = learn.checkpoint(tmp_path/'c.pt')
    for change, message in ((dict(splitter=None), 'of other layer groups'),
                            (dict(opt_func=torch.optim.Adam), 'optimizer SGD, this is Adam')):
        other = Learner(tensor_data(3, tmp_path), Net(), F.cross_entropy, silent=True,
                        **(dict(opt_func=sgd, splitter=lambda m: [m.body, m.head]) | change))
        if trained: other.fit(1)
        weights = [o.clone() for o in other.model.state_dict().values()]
        opt, wanted, chance = other.opt, flags(other), rng_state()
        state = None if opt is None else {k: dict(v) for k, v in opt.state.items()}
        with pytest.raises(ValueError, match=message): other.restore(file)
        assert same_state(weights, list(other.model.state_dict().values()))
        assert flags(other) == wanted and other.opt is opt and same_state(chance, rng_state())
        assert state is None or state == {k: dict(v) for k, v in opt.state.items()}
        other.fit(1)


@pytest.mark.parametrize('new', [False, True])
def test_resuming_after_another_freezing_goes_on_as_before_and_says_so(new, tmp_path):
    whole = frozen(0, tmp_path/'whole', 1)
    whole.fit(2)
    learn = frozen(0, tmp_path/'same', 1)
    learn.fit(1, resume=True)
    if new: learn = frozen(5, tmp_path/'same', 0)
    learn.unfreeze()
    with pytest.warns(UserWarning, match=r"frozen=\[\] \(the checkpoint: \['body.0.weight'"):
        learn.fit(2, resume=True)
    assert flags(learn) == flags(whole)
    check_same(whole, learn)


class UnfreezesLate(Callback):
    "Trains all groups from the second epoch on"
    def begin_epoch(self):
        if self.run.epoch == 1: self.learn.unfreeze()


@pytest.mark.parametrize('nth', [7, 9, 14])
def test_what_a_callback_unfreezes_is_no_other_freezing(nth, tmp_path):
    kwargs = dict(cbs=[UnfreezesLate], every=2)
    whole = fit(frozen(0, tmp_path/'whole', 1, **kwargs))
    with killed(): fit(frozen(0, tmp_path/'b', 1, **kwargs), cbs=Kill('after_step', nth))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_same(whole, fit(frozen(4, tmp_path/'b', 1, **kwargs), resume=True))


def test_resuming_with_other_layer_groups_is_refused(tmp_path):
    make(0, tmp_path).fit(1)
    learn = make(1, tmp_path)
    learn.split(None)
    weights = [o.clone() for o in learn.model.state_dict().values()]
    with pytest.raises(ValueError, match='of other layer groups'): learn.fit(2, resume=True)
    assert same_state(weights, list(learn.model.state_dict().values())) and learn.opt is None


def test_lr_find_and_validate_write_nothing(tmp_path):
    learn = make(0, tmp_path)
    learn.lr_find(num_it=8, show_plot=False)
    learn.validate()
    learn.get_preds()
    assert not (tmp_path/'models').exists()
    learn.fit(0)
    assert not (tmp_path/'models').exists()


def raises(func, nth, error):
    "A function that fails when it is called for the `nth` time"
    calls = count(1)

    def call(*args, **kwargs):
        if next(calls) == nth: raise error
        return func(*args, **kwargs)
    return call


steps_of_writing = ['torch.save', 'os.fsync', 'os.replace', 'fastloop.state_files.Sealed.seal',
                    'fastloop.state_files.to_plain', 'fastloop.core._new_temp',
                    'fastloop.core._sync_folder', 'fastloop.callback.checkpoint.keep_newest']


@pytest.mark.parametrize('step', steps_of_writing)
@pytest.mark.parametrize('nth', [pytest.param(1, marks=rare), 5])
def test_killed_while_it_is_written(step, nth, unbroken, tmp_path, monkeypatch):
    whole, _ = unbroken('tensors')
    owner, name = step.rpartition('.')[::2]
    place = pkgutil.resolve_name(owner) if '.' in owner else importlib.import_module(owner)
    with monkeypatch.context() as m:
        m.setattr(place, name, raises(getattr(place, name), nth, Killed()))
        with killed(): fit(make(0, tmp_path, every=2))
    assert not list(tmp_path.rglob('*.tmp'))
    if newest(tmp_path): check_same(whole, fit(make(8, tmp_path), resume=True))


@pytest.mark.parametrize('step', ['torch.save', 'os.fsync', 'os.replace'])
def test_a_failure_ends_the_fit_only_if_it_is_the_first(step, unbroken, tmp_path, monkeypatch):
    whole, _ = unbroken('tensors')
    owner, name = step.split('.')
    place = importlib.import_module(owner)
    full = OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(place, name, raises(getattr(place, name), 1, full))
        with pytest.raises(OSError, match='The disk is full'): fit(make(0, tmp_path/'a'))
    assert not newest(tmp_path/'a')
    with monkeypatch.context() as m:
        m.setattr(place, name, raises(getattr(place, name), 5, full))
        learn = make(0, tmp_path/'b', every=2)
        with pytest.warns(UserWarning, match='could not be written.*The disk is full'): fit(learn)
    check_same(whole, learn)
    check_same(whole, fit(make(3, tmp_path/'b'), resume=True))


class Unplain(Callback):
    def state_dict(self): return {'learn': self.learn}
    def load_state_dict(self, state): pass


def test_a_state_that_is_no_data(tmp_path):
    with pytest.raises(TypeError, match=r"\['callbacks'\]\['Unplain'\]\['learn'\] holds a Learner"):
        fit(make(0, tmp_path, cbs=[Unplain]))


class KerasKill(keras.callbacks.Callback):
    "Ends the training after some batches"
    def __init__(self, left): self.left = left

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0: raise Killed


def keras_fit(seed, path, left=0, **kwargs):
    "Fit a model of Keras; its history, its weights, and its table"
    set_seed(seed)
    model = keras.models.Sequential([nn.Linear(5, 8), nn.Dropout(.2), nn.ReLU(), nn.Linear(8, 3)])
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])
    backup = keras.callbacks.BackupAndRestore(path/'backup', **kwargs)
    cbs = [backup, keras.callbacks.CSVLogger(path/'table.csv'), keras.callbacks.EarlyStopping(),
           keras.callbacks.ReduceLROnPlateau(patience=1), KerasKill(left)]
    x, y, xv, yv = tensors()
    found = model.fit(x, y, batch_size=BS, epochs=EPOCHS, verbose=0, callbacks=cbs,
                      validation_data=(xv, yv))
    assert not (path/'backup').exists()
    return found.history, model.get_weights(), (path/'table.csv').read_text()


@pytest.fixture(scope='module')
def keras_whole(tmp_path_factory): return keras_fit(0, tmp_path_factory.mktemp('keras'))


@pytest.mark.parametrize('left', [2, 6, 7, 11])
def test_keras(left, keras_whole, tmp_path):
    with killed(): keras_fit(0, tmp_path/'broken', left, save_freq=1)
    resumed = keras_fit(9, tmp_path/'broken', save_freq=1)
    assert keras_whole[0] == resumed[0] and same_state(keras_whole[1:], resumed[1:])


def many_kills(path, *lefts):
    "A table to go on with and numbered files, after a training that was killed so often"
    def again(left):
        set_seed(0)
        model = keras.models.Sequential([nn.Linear(5, 3)])
        model.compile('sgd', 'sparse_categorical_crossentropy')
        backup = keras.callbacks.BackupAndRestore(path/'backup', save_freq=1)
        saved = keras.callbacks.ModelCheckpoint(path/'{epoch}-{batch}', save_freq=4)
        evens = keras.callbacks.ModelCheckpoint(path/'{epoch}', period=2)
        tables = [keras.callbacks.CSVLogger(path/f'{o}.csv', append=o) for o in (True, False)]
        model.fit(*tensors()[:2], batch_size=BS, epochs=EPOCHS, verbose=0,
                  callbacks=[backup, saved, evens, *tables, KerasKill(left)])
    for left in lefts:
        with killed(): again(left)
    again(0)
    return {o.name: o.read_text() if o.suffix else '' for o in path.iterdir()}


@pytest.mark.parametrize('lefts', [(2, 1), (5,), (6, 1, 1), (7, 2, 2)])
def test_tables_and_numbered_files_of_keras_after_several_kills(lefts, tmp_path):
    for o in ('whole', 'killed'):
        (tmp_path/o).mkdir()
        (tmp_path/o/'True.csv').write_text('epoch,loss\n7,0.5\n')  # of an earlier training
    whole = many_kills(tmp_path/'whole')
    assert whole['True.csv'].count('\n') == EPOCHS + 2
    assert many_kills(tmp_path/'killed', *lefts) == whole


class ForV1:
    "Written for fastai v1"
    def __init__(self): self.seen = []

    def on_batch_end(self, smooth_loss, iteration, num_batch, epoch, train, **kwargs):
        if train: self.seen.append((float(smooth_loss), iteration, num_batch, epoch))


class ForV2(Callback):
    "Written for fastai v2"
    def __init__(self): self.seen = []
    def before_batch(self): self.seen.append((self.learn.training, self.epoch, self.train_iter))


class ForMiniai:
    "Written for miniai"
    def __init__(self): self.seen = []
    def after_batch(self, learn): self.seen.append((learn.epoch, learn.loss.item(), learn.iter))


@pytest.mark.parametrize('kind', [ForV1, ForV2, ForMiniai])
def test_callbacks_of_other_libraries_see_the_same(kind, unbroken, tmp_path, capsys):
    def seen(learn): return next(o.seen for o in learn.cbs if isinstance(o, kind))
    whole, _ = unbroken(kind.__name__, cbs=[kind])
    with killed(): fit(make(0, tmp_path, cbs=[kind]), cbs=Kill('after_step', 9))
    learn = make(3, tmp_path, cbs=[kind])
    learn.checkpoints.verbose = True
    check_same(whole, fit(learn, resume=True))
    assert seen(learn) and seen(whole)[-len(seen(learn)):] == seen(learn)
    said = capsys.readouterr().out
    assert said.count('without state in the checkpoint: ') == 1 and kind.__name__ in said


def test_epochs_of_some_steps_are_refused(tmp_path):
    model = keras.models.Sequential([nn.Linear(5, 3)])
    model.compile('sgd', 'sparse_categorical_crossentropy')
    backup = keras.callbacks.BackupAndRestore(tmp_path/'backup')
    with pytest.raises(ValueError, match='steps_per_epoch=2'):
        model.fit(*tensors()[:2], callbacks=[backup], steps_per_epoch=2, verbose=0)


if __name__ == '__main__':
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))


@pytest.mark.parametrize('verb, at', [('fit', 8), ('fit_one_cycle', 7), ('fine_tune', 8),
                                      ('fine_tune', 15)])
def test_who_asks_to_go_on_needs_no_callback(verb, at, tmp_path, capsys):
    def learner(path, **kwargs):
        learn = make(0, tmp_path/path, **kwargs)
        return learn.remove_cbs(learn.checkpoint_callback)
    whole = fit(learner('a'), verb, resume=True)
    with pytest.raises(Killed):
        fit(learner('b', cbs=[partial(Kill, 'after_step', at)]), verb, resume=True)
    rest = fit(learner('b'), verb, resume=True)
    assert 'going on from' in capsys.readouterr().out
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(isinstance(o, CheckpointCallback) for o in rest.cbs)
