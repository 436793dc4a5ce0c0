"""Several processes train one model: against a plain loop over the batches of all.

Each group of cases is one start of two processes, which do one case after the other.
"""
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fastloop.adapters.fastai1 import LearnerCallback
from fastloop.callback.averages import EMACallback
from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import (
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
)
from fastloop.callback.logger import CSVLogger
from fastloop.callback.mixup import MixUpCallback
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.tensorboard import TensorBoardCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateauCallback
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader, epoch_order
from fastloop.event_files import read_scalars
from fastloop.keras import callbacks as keras
from fastloop.learner import Learner
from fastloop.metric_functions import class_metrics, r2_score, rmse
from fastloop.metrics import EpochMetric, Metric, accuracy
from fastloop.optimizer import SGD, AdamW
from fastloop.ranks import Ranks, SharedFiles
from fastloop.train import fit_one_cycle
from fastloop.training_state import read_checkpoint

assert fit_one_cycle  # the module hangs the verbs on the learner
N, BS, VALID = 66, 8, 31


# ---- what is trained ----------------------------------------------------------------------------
def tensors(kind='classes', n=N, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    if kind == 'classes': return x, torch.randint(3, (n,), generator=g)
    if kind == 'ignored':
        y = torch.randint(3, (n,), generator=g)
        return x, y.where(torch.rand(n, generator=g) > .4, -100)
    return x, x[:, :1].sin() + .1*torch.randn(n, 1, generator=g)


def network(outputs=3, bn=False):
    torch.manual_seed(2)
    middle = [nn.BatchNorm1d(8)] if bn else []
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, outputs))


def make(kind='classes', loss=None, bn=False, loader='tensors', valid=VALID, device='cpu',
         **kwargs):
    x, y = tensors(kind)
    xv, yv = tensors(kind, valid, seed=3)
    data = DataBunch.from_tensors(x, y, xv, yv, bs=BS, seed=5, device=device)
    if loader != 'tensors':
        sampler = WeightedRandomSampler(torch.ones(N), N) if loader == 'weighted' else None
        ds, random = TensorDataset(x, y), RandomSampler(x)
        batches = BatchSampler(random, BS, False)
        if loader == 'batches': train = DataLoader(ds, batch_sampler=batches)
        elif loader == 'workers': train = DataLoader(ds, BS, shuffle=True, num_workers=1)
        else: train = DataLoader(ds, BS, shuffle=sampler is None, sampler=sampler)
        data = DataBunch(train, DataLoader(TensorDataset(xv, yv), 2*BS), device='cpu')
    numbers = kind == 'numbers'
    loss = loss or (F.mse_loss if numbers else F.cross_entropy)
    given = dict(opt_func=partial(SGD, momentum=.9), wd=0.,
                 metrics=[rmse] if numbers else [accuracy])
    return Learner(data, network(1 if numbers else 3, bn), loss, **{**given, **kwargs})


def whole(t): return t.full_tensor() if hasattr(t, 'full_tensor') else t


def outcome(learn):
    return dict(weights={k: whole(v) for k, v in learn.model.state_dict().items()},
                rows=learn.recorder.values, losses=learn.recorder.raw_losses,
                lrs=learn.recorder.lrs, n_iter=learn.run.n_iter)


# ---- the plain loop over the batches of all -----------------------------------------------------
def union_batches(epoch, count=2):
    "The rows of each step of all processes together"
    mine = N//count
    order = epoch_order(N, 5, epoch)[:mine*count].reshape(mine, count)
    return [o.flatten() for o in order.split(BS)]


def plain(kind='classes', loss=None, epochs=2, lr=.1, bn=False, window=1, clip=None, opt=None,
          first=None):
    "Weights, training losses of all batches, of the `first` of epoch 0; the losses of validation"
    x, y = tensors(kind)
    xv, yv = tensors(kind, VALID, seed=3)
    model = network(1 if kind == 'numbers' else 3, bn)
    loss = loss or (F.mse_loss if kind == 'numbers' else F.cross_entropy)
    opt = (opt or partial(torch.optim.SGD, momentum=.9))(model.parameters(), lr=lr)
    losses, valid = [], []
    for epoch in range(epochs):
        model.train()
        batches = union_batches(epoch)[:None if epoch else first]
        for i in range(0, len(batches), window):
            part = batches[i:i+window]
            rows = torch.cat(part)
            value = loss(model(x[rows]), y[rows])
            value.backward()
            losses.append(value.item())  # of the window; compared where that is one batch
            if clip: nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad(): valid.append(loss(model(xv), yv).item())
    return model, losses, valid


weighted = partial(F.cross_entropy, weight=torch.tensor([1., 5., .2]))
summed = nn.CrossEntropyLoss(reduction='sum')


def trained(rank, how=None, fit='fit', lr=.1, epochs=2, cbs=None, **kwargs):
    learn = make(**kwargs).to_distributed(timeout=15, **(how or {}))
    getattr(learn, fit)(epochs, lr, cbs=[o() for o in cbs or ()])
    return outcome(learn)


adam = partial(torch.optim.AdamW, weight_decay=.01, eps=1e-3, betas=(.9, .99))
AGREE = {  # what the processes do, and the plain loop that does the same
    'sgd': (dict(), dict()),
    'adamw': (dict(opt_func=AdamW, wd=.01, lr=.01), dict(opt=adam, lr=.01)),
    'numbers': (dict(kind='numbers'), dict(kind='numbers')),
    'weights of classes': (dict(loss=weighted), dict(loss=weighted)),
    'ignored labels': (dict(kind='ignored'), dict(kind='ignored')),
    'summed loss': (dict(loss=summed, lr=.005), dict(loss=summed, lr=.005)),
    'sync_bn': (dict(bn=True, how=dict(sync_bn=True)), dict(bn=True)),
    'accumulation': (dict(cbs=[partial(GradientAccumulation, n_batches=2)]), dict(window=2)),
    'accumulation, ignored labels': (
        dict(kind='ignored', cbs=[partial(GradientAccumulation, n_batches=2)]),
        dict(kind='ignored', window=2)),
    'clipping': (dict(cbs=[partial(GradientClipping, clip=.05)]), dict(clip=.05)),
    'fsdp': (dict(how=dict(strategy='fsdp')), dict()),
    'fsdp, clipping': (dict(how=dict(strategy='fsdp'), cbs=[partial(GradientClipping, clip=.05)]),
                       dict(clip=.05)),
    'fsdp, accumulation': (
        dict(how=dict(strategy='fsdp'), cbs=[partial(GradientAccumulation, n_batches=2)]),
        dict(window=2)),
    'fsdp, adamw': (dict(how=dict(strategy='fsdp'), opt_func=AdamW, wd=.01, lr=.01),
                    dict(opt=adam, lr=.01)),
}
for name in ('adamw', 'fsdp, adamw'):
    AGREE[name][0]['opt_func'] = partial(AdamW, eps=1e-3, betas=(.9, .99))


# ---- other things that have to agree ------------------------------------------------------------
LITTLE = [(o, n) for o in ('ddp', 'fsdp') for n in (1, 33)]
LOADERS = 'tensors', 'torch', 'weighted', 'batches', 'workers'


def other_loader(rank, loader):
    learn = make(loader=loader)
    learn.to_distributed(timeout=15)
    seen = []

    class Look(Callback):
        def begin_batch(self): seen.append((self.run.epoch, self.run.in_train, self.run.xb.clone()))
    learn.fit(2, .1, cbs=Look())
    rows = {(e, t): torch.cat([x for a, b, x in seen if (a, b) == (e, t)])
            for e in (0, 1) for t in (True, False)}
    return dict(outcome(learn), batches=len(seen), train=[rows[0, True], rows[1, True]],
                valid=rows[0, False])


def pairs(x, y, bs):
    "Batches in a list"
    return list(zip(x.split(bs), y.split(bs)))


def torch_loader(x, y, bs): return DataLoader(TensorDataset(x, y), bs, shuffle=True)


NEW = {'tensors': partial(TensorLoader, shuffle=True), 'torch': torch_loader, 'list': pairs}
PUT_IN = [(o, 'data') for o in NEW] + [('tensors', 'pass'), ('torch', 'pass'), ('list', 'share')]


def put_in(rank, kind, where):
    "A callback puts another loader in, into the data or for one pass; the rows of the last pass"
    x, y = (o[:40] for o in tensors(seed=4))

    class Curriculum(Callback):
        rows = ()
        def begin_epoch(self):
            if self.run.epoch == 1 and where == 'data':
                self.learn.data.train_dl = NEW[kind](x, y, bs=8)
            if self.run.epoch == 2 and where == 'pass': self.run.dl = NEW[kind](x, y, bs=8)
            if self.run.epoch == 2 and where == 'share': self.run.dl = list(self.run.dl)

        def begin_batch(self):
            if self.run.in_train and self.run.epoch == 2: self.rows += tuple(self.run.xb.tolist())
    learn = make().to_distributed(timeout=15)
    learn.fit(3, .1, cbs=(cb := Curriculum()))
    return outcome(learn), cb.rows


class Told(keras.Callback):
    "The logs of each epoch"
    def on_epoch_end(self, epoch, logs=None): self.model.learn.told.append(dict(logs))


class Smoothed(LearnerCallback):
    "The smoothed loss at the end of each epoch"
    def on_epoch_end(self, smooth_loss, **kwargs):
        self.learn.told.append({'smooth': float(smooth_loss)})


CALLBACKS = {  # verb, and callbacks; mixup draws in each process by itself
    'ema': ('fit', lambda: [EMACallback(decay=.9)]), 'one cycle': ('fit_one_cycle', list),
    'flat cos': ('fit_flat_cos', list),
    'fsdp, ema': ('fit', lambda: [EMACallback(decay=.9)]),
    'fsdp, best weights': ('fit', lambda: [
        EarlyStoppingCallback(restore_best=True, mode='max', patience=9),
        keras.EarlyStopping(restore_best_weights=True, patience=9)]),
    'fsdp, tied': ('fit', list),
    'plateau': ('fit', lambda: [ReduceLROnPlateauCallback(patience=0, min_delta=9.)]),
    'stopping': ('fit', lambda: [EarlyStoppingCallback(patience=0, min_delta=9.)]),
    'best': ('fit', lambda: [SaveModelCallback()]),
    'keras': ('fit', lambda: [Told(), keras.ReduceLROnPlateau('loss', .5, 1, min_delta=9.)]),
    'fastai v1': ('fit', lambda: [Smoothed]),
    'bf16': ('fit', list), 'mixup': ('fit', lambda: [MixUpCallback()])}


def with_callbacks(learn, name, epochs=3):
    verb, make_cbs = CALLBACKS[name]
    learn.told = []
    if name == 'bf16': learn.to_bf16()
    if name == 'keras': learn.metrics = [accuracy, EpochMetric(lambda p, y: p.std(), 'std')]
    cbs = [o(learn) if isinstance(o, type) else o for o in make_cbs()]
    getattr(learn, verb)(epochs, .1, cbs=cbs)
    return dict(outcome(learn), told=learn.told)


def tie(learn):
    "Two layers with one weight"
    learn.model.append(nn.Linear(3, 8)).append(nn.Linear(8, 3))
    learn.model[4].weight = learn.model[2].weight
    learn.split(None)
    return learn


def callbacks(rank):
    found = {}
    for name in CALLBACKS:
        learn = make(path=f'cbs {name}')
        if 'tied' in name: tie(learn)
        learn.to_distributed('fsdp' if 'fsdp' in name else 'ddp', timeout=15)
        found[name] = with_callbacks(learn, name)
    return found


class StopsInWindow(Callback):
    "Breaks off the first pass behind its third batch, inside a window of two"
    order = 50
    def after_batch(self):
        if self.run.in_train and (self.run.epoch, self.run.iter) == (0, 2):
            raise CancelTrainException


def windows(rank, strategy):
    "A window that is broken off; and how often gradients were sent"
    sent = []

    class Counts(Callback):
        def begin_batch(self):
            net = self.learn.distributed.net
            if not self.run.in_train or net is None or hasattr(net, 'counted'): return
            net.counted = True
            net.register_comm_hook(None, self.count)

        @staticmethod
        def count(state, bucket):
            sent.append(1)
            return allreduce_hook(None, bucket)
    learn = make().to_distributed(strategy, timeout=15)
    learn.fit(2, .1, cbs=[GradientAccumulation(n_batches=2), StopsInWindow(), Counts()])
    return outcome(learn), len(sent)


def search(rank):
    "The search for a rate agrees, and a fit after it is as one without it"
    learn = make().to_distributed(timeout=15)
    found = learn.lr_find(num_it=24, show_plot=False)
    losses = learn.recorder.raw_losses
    learn.fit(1, .1)
    other = make().to_distributed(timeout=15)
    other.fit(1, .1)
    return list(found), losses, outcome(learn), outcome(other)


class Furthest(Metric):
    "The largest error: a metric of a user, whose sums nobody knows"
    def __init__(self): super().__init__('furthest')
    def _clear(self): self.top = torch.tensor(0.)
    def _add(self, pred, targets, size):
        self.top = torch.maximum(self.top, (pred-targets[0]).abs().max())
    def _result(self): return self.top


def torch_metrics(rank):
    "Objects of torchmetrics, which need all rows"
    learn = make(metrics=[accuracy, *class_metrics(3)]).to_distributed(timeout=15)
    learn.fit(1, .1)
    return outcome(learn), learn.validate()


def measures():
    return [rmse, r2_score, Furthest(), EpochMetric(lambda p, y: (p*y).std(), 'std')]


def metrics(rank):
    learn = make('numbers', metrics=measures()).to_distributed(timeout=15)
    learn.fit(1, .1)
    some = measures()[:1]+measures()[2:3]
    few = make('numbers', valid=1, metrics=some).to_distributed(timeout=15)
    few.fit(1, .1)
    again = learn.validate()
    return outcome(learn), again, outcome(few), few.validate()


def little(rank, strategy, valid):
    "One row to validate, or one batch more in one process; and training goes on"
    learn = make(valid=valid).to_distributed(strategy, timeout=15)
    learn.validate()
    learn.fit(2, .1)
    return outcome(learn), learn.validate()


def freezing(rank):
    "Layers are frozen and unfrozen between epochs, and a new parameter joins"
    class Thaw(Callback):
        def begin_epoch(self):
            if self.run.epoch == 1: self.learn.unfreeze()
    learn = make(splitter=lambda m: [m[0], m[2]]).to_distributed(timeout=15)
    learn.freeze()
    learn.fit(2, .1, cbs=Thaw())
    names = list(learn.model.state_dict())
    return dict(outcome(learn), names=names, text=str(learn.summary()))


def files(rank):
    "One process writes and prints"
    learn = make(path=f'files{rank}').to_distributed(timeout=15)
    learn.path = Path('files')
    learn.fit(2, .1, cbs=[CSVLogger(), SaveModelCallback(), TensorBoardCallback(),
                          EarlyStoppingCallback(patience=1, min_delta=10.)])
    found = outcome(learn)
    saved = learn.save('by_hand')
    learn.distributed.ranks.meet()
    return found, sorted(str(o) for o in Path('files').rglob('*') if o.is_file()), saved.exists()


def read_at_once(rank):
    "What one process writes slowly is read by all straight afterwards"
    learn = make(path=f'at once{rank}').to_distributed(timeout=15)
    learn.path = Path('at once')
    found, save = [], torch.save

    def slowly(*args, **kwargs):
        if not rank: time.sleep(.3)
        return save(*args, **kwargs)
    with patch('torch.save', slowly):
        for value in (1., 2.):
            with torch.no_grad(): learn.model[0].weight.fill_(value)
            learn.save('again')
            learn.checkpoint('at once/again.pt')
            for read in (partial(learn.load, 'again'), partial(learn.restore, 'at once/again.pt')):
                with torch.no_grad(): learn.model[0].weight.fill_(9.)
                read()
                found.append(learn.model[0].weight[0, 0].item())
    return found


def fsdp_files(rank):
    "Weights of a model in pieces are whole in the file, and can be loaded again"
    learn = make(path='pieces', opt_func=AdamW).to_distributed('fsdp', timeout=15)
    learn.fit(1, .01)
    before = outcome(learn)
    learn.save('weights')
    learn.distributed.ranks.meet()
    learn.fit(1, .01)
    learn.load('weights')
    return before, outcome(learn)['weights'], learn.get_preds()[0].shape


def same_as_alone(learn):
    before = list(learn.cbs)
    assert learn.to_distributed() is learn and learn.cbs == before
    return learn


# ---- breaking off -------------------------------------------------------------------------------
class Breaks(Callback):
    "Breaks off a phase in one process, at one event of the fourth batch"
    order = 30
    def __init__(self, event, kind, rank, only=1, at=3):
        super().__init__()
        self.kind, self.active, self.at = kind, rank == only, at
        setattr(self, event, self.strike)

    def strike(self):
        if not self.active or self.run.n_iter < self.at: return None
        self.active = False
        if self.kind is not True: raise self.kind
        return True


class Skips(LearnerCallback):
    "Skips the backward pass or the step of the fourth batch in one process, as fastai v1 does"
    def __init__(self, learn, flag, active):
        super().__init__(learn)
        self.flag, self.active = flag, active

    def on_backward_begin(self, iteration, **kwargs):
        return {self.flag: True} if self.active and iteration == 3 else None


EVENTS = ['begin_batch', 'after_pred', 'after_loss', 'begin_backward', 'after_backward',
          'begin_step', 'after_step', 'after_batch', 'after_train', 'begin_validate',
          'after_validate', 'begin_epoch', 'begin_train', 'after_epoch']
KINDS = {'fit': CancelFitException, 'train': CancelTrainException, 'epoch': CancelEpochException,
         'batch': CancelBatchException, 'step': CancelStepException,
         'backward': CancelBackwardException, 'true': True}
BREAKS = [(o, 'fit') for o in EVENTS] + [
    ('after_loss', 'train'), ('after_batch', 'train'), ('after_batch', 'epoch'),
    ('begin_validate', 'epoch'), ('after_pred', 'batch'), ('begin_backward', 'batch'),
    ('begin_step', 'step'), ('after_backward', 'batch'), ('begin_backward', 'backward'),
    ('begin_step', 'true'), ('begin_backward', 'true'), ('begin_batch', 'true'),
    ('begin_batch', 'batch')]
EARLY = [(o, bn, at) for o in ('batch', 'true') for bn, at in ((False, 1), (True, 3))]


def breaking(rank, event, phase, at=3, bn=False):
    learn = make(bn=bn).to_distributed(sync_bn=bn, timeout=15)
    learn.fit(2, .1, cbs=Breaks(event, KINDS[phase], rank, at=at))
    return outcome(learn)


def skipping(rank, flag):
    learn = make().to_distributed(timeout=15)
    learn.fit(2, .1, cbs=Skips(learn, flag, rank == 1))
    return outcome(learn)


def nan(rank):
    "One process alone has a loss that is no number"
    class Spoil(Callback):
        order = -20
        def after_loss(self):
            run = self.run
            if rank and run.n_iter == 2 and run.in_train: run.loss = run.loss*torch.nan
    learn = make().to_distributed(timeout=15)
    learn.fit(2, .1, cbs=[Spoil(), TerminateOnNaNCallback()])
    return outcome(learn)


def written(rank):
    "One process ends the fit where checkpoints are written; and files under Keras' names"
    learn = make(path='written').to_distributed(timeout=15)
    learn.fit(3, .1, cbs=[
        CheckpointCallback(verbose=False), keras.CSVLogger('written/log.csv'),
        keras.TensorBoard('written/board'), Breaks('after_epoch', CancelFitException, rank)])
    learn.distributed.ranks.meet()
    boards = list(Path('written/board').glob('*tfevents*'))
    return outcome(learn), Path('written/log.csv').read_text().splitlines(), len(boards)


# ---- the two processes, once --------------------------------------------------------------------
CASES = [*((f'agree {k}', partial(trained, **v[0])) for k, v in AGREE.items()),
         *((f'loader {o}', partial(other_loader, loader=o)) for o in LOADERS),
         ('callbacks', callbacks), ('search', search), ('metrics', metrics), ('freezing', freezing),
         *((f'window {o}', partial(windows, strategy=o)) for o in ('ddp', 'fsdp')),
         ('torchmetrics', torch_metrics),
         *((f'little {o} {n}', partial(little, strategy=o, valid=n)) for o, n in LITTLE),
         ('files', files), ('written', written), ('at once', read_at_once),
         ('fsdp files', fsdp_files),
         *((f'put in {o} {w}', partial(put_in, kind=o, where=w)) for o, w in PUT_IN),
         *((f'break {e} {p}', partial(breaking, event=e, phase=p)) for e, p in BREAKS),
         *((f'early {p} {bn} {at}', partial(breaking, event='begin_batch', phase=p, bn=bn, at=at))
           for p, bn, at in EARLY),
         *((o, partial(skipping, flag=o)) for o in ('skip_step', 'skip_bwd')),
         ('nan', nan)]


@pytest.fixture(scope='module')
def server():
    forks = ranks.server('test_distributed', 'torchmetrics')
    yield forks
    forks.close()


@pytest.fixture(scope='module')
def found(server, tmp_path_factory):
    "What both processes answered to each case"
    folder = tmp_path_factory.mktemp('ranks')
    return ranks.run(server, str(folder), CASES)[0] | {'folder': folder}


def answers(found, name):
    "What process 0 and process 1 answered"
    assert set(found.get(name, ())) == {0, 1}, f'{name}: no answer from both'
    for rank in (0, 1):
        answer = found[name][rank][0]
        assert 'error' not in (answer if isinstance(answer, dict) else ()), answer['error']
    return found[name][0][0], found[name][1][0]


def close(a, b, eps=1e-5):
    x, y = (torch.tensor(o, dtype=torch.float64) for o in (a, b))
    assert torch.allclose(x, y, rtol=eps, atol=eps, equal_nan=True), f'{a}\n{b}'


def answered(weights, x, outputs=3):
    "What a network with these weights answers in one process"
    model = network(outputs)
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    with torch.no_grad(): return model(x)


def check_agrees(found, name, eps=1e-5):
    one, two = answers(found, f'agree {name}')
    assert repr(one) == repr(two)
    model, losses, valid = plain(**AGREE[name][1])
    for k, v in model.state_dict().items():
        if 'num_batches' not in k: close(one['weights'][k], v.tolist(), eps)
    if AGREE[name][1].get('window', 1) == 1: close(one['losses'], losses, eps)
    if 'summed' not in name: close([row[1] for row in one['rows']], valid, eps)


@pytest.mark.parametrize('name', AGREE)
def test_two_processes_are_one_loop_over_the_batches_of_both(found, name):
    check_agrees(found, name)


@pytest.mark.parametrize('loader', LOADERS)
def test_each_pass_is_dealt_and_each_row_is_validated_once(found, loader):
    one, two = answers(found, f'loader {loader}')
    assert one['batches'] == two['batches'] and one['weights'] == two['weights']
    x, valid = tensors()[0].tolist(), tensors(n=VALID, seed=3)[0].double().tolist()
    assert one['valid'] + two['valid'] == valid
    for a, b in zip(one['train'], two['train']):
        assert len(a) == len(b) == N//2
        if loader != 'weighted': assert sorted(a+b) == sorted(torch.tensor(x).double().tolist())
    assert one['train'][0] != one['train'][1]


@pytest.mark.parametrize('kind, where', PUT_IN)
def test_a_loader_that_a_callback_puts_in_is_dealt(found, kind, where):
    (one, mine), (two, yours) = answers(found, f'put in {kind} {where}')
    assert one['weights'] == two['weights'] and one['losses'] == two['losses']
    n = {'list data': 16, 'list share': N//2}.get(f'{kind} {where}', 20)  # a list: whole batches
    assert len(mine) == len(yours) == n and len({tuple(o) for o in mine+yours}) == 2*n


class Union:
    "A loader for one process: the batches of both"
    def __init__(self): self.epoch, (self.x, self.y) = 0, tensors()
    def set_epoch(self, epoch): self.epoch = epoch
    def __len__(self): return len(union_batches(0))
    def __iter__(self): return ((self.x[o], self.y[o]) for o in union_batches(self.epoch))


@pytest.mark.parametrize('name', CALLBACKS)
def test_callbacks_do_what_they_do_in_one_process(found, name, tmp_path):
    one, two = (o[name] for o in answers(found, 'callbacks'))
    assert one == two
    if name == 'mixup': return
    alone = make(path=tmp_path, silent=True)
    if 'tied' in name: tie(alone)
    alone.data.train_dl = Union()
    expected, eps = with_callbacks(alone, name), 2e-2 if name == 'bf16' else 1e-5
    for k, v in expected['weights'].items(): close(one['weights'][k], v.tolist(), eps)
    for a, b in zip(one['rows'], expected['rows'], strict=True): close(a[:2], b[:2], eps)
    for a, b in zip(one['told'], expected['told'], strict=True):
        assert list(a) == list(b)
        close(list(a.values()), list(b.values()), eps)
    assert one['lrs'] == expected['lrs'] and one['n_iter'] == expected['n_iter']


def test_the_search_agrees_and_leaves_no_trace(found):
    one, two = answers(found, 'search')
    assert one == two
    assert len(one[1]) >= 6 and one[2] == one[3]


def test_metrics_are_those_of_all_rows(found):
    one, two = answers(found, 'metrics')
    assert one == two
    xv, yv = tensors('numbers', VALID, seed=3)
    pred = answered(one[0]['weights'], xv, outputs=1)
    right = [F.mse_loss(pred, yv), rmse(pred, yv), r2_score(pred, yv), (pred-yv).abs().max(),
             (pred*yv).std()]
    close(one[0]['rows'][0][1:], [float(o) for o in right], 1e-6)
    close(one[1], [float(o) for o in right], 1e-6)
    close(one[2]['rows'][0][1:], one[3], 1e-6)
    assert None not in one[2]['rows'][0]


def test_metrics_of_torchmetrics(found):
    torchmetrics = pytest.importorskip('torchmetrics')
    one, two = answers(found, 'torchmetrics')
    assert one == two
    xv, yv = tensors(n=VALID, seed=3)
    pred = answered(one[0]['weights'], xv).softmax(1)
    kinds = [getattr(torchmetrics.classification, f'Multiclass{o}')(num_classes=3)
             for o in ('F1Score', 'Precision', 'Recall', 'AUROC')]
    close(one[1][2:], [float(o(pred, yv)) for o in kinds])
    close(one[0]['rows'][0][3:], one[1][2:])


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_a_window_that_is_broken_off_is_of_all_processes(found, strategy):
    one, two = answers(found, f'window {strategy}')
    assert one == two
    expected, _, _ = plain(window=2, first=3)
    for k, v in expected.state_dict().items(): close(one[0]['weights'][k], v.tolist())
    if strategy == 'ddp': assert one[1] == 1 + 3  # once a window, and by hand where it broke off


@pytest.mark.parametrize('strategy, valid', LITTLE)
def test_little_to_validate(found, strategy, valid):
    one, two = answers(found, f'little {strategy} {valid}')
    assert one == two
    xv, yv = tensors(n=valid, seed=3)
    pred = answered(one[0]['weights'], xv)
    right = [float(F.cross_entropy(pred, yv)), float(accuracy(pred, yv))]
    close(one[1], right)
    close(one[0]['rows'][-1][1:], right)
    expected, _, _ = plain()
    for k, v in expected.state_dict().items(): close(one[0]['weights'][k], v.tolist())


def test_frozen_layers_join_later(found):
    one, two = answers(found, 'freezing')
    assert one['weights'] == two['weights']
    assert one['names'] == list(network().state_dict())
    assert one['weights']['0.weight'] != network().state_dict()['0.weight'].double().tolist()


def test_one_process_prints_and_writes(found):
    one, two = answers(found, 'files')
    assert one == two and one[0]['n_iter'] == 10
    boards = [o for o in one[1] if 'tfevents' in o]
    assert [o for o in one[1] if o not in boards] == [
        'files/history.csv', 'files/models/bestmodel.pth', 'files/models/by_hand.pth']
    assert len(boards) == 2  # epochs and batches, of one process
    curves = read_scalars(found['folder']/'files'/'logs')
    assert curves['valid_loss'][1] == pytest.approx([row[1] for row in one[0]['rows']])
    rows = (found['folder']/'files'/'history.csv').read_text().splitlines()
    assert len(rows) == 3
    printed = [found['files'][o][1] for o in (0, 1)]
    assert 'valid_loss' in printed[0] and printed[1] == ''


@pytest.mark.parametrize('rank', [0, 1])
def test_files_are_read_and_written_when_the_group_is_gone(rank):
    "As at the end of a script that has ended the group which it began"
    files = SharedFiles(rank, 60.)
    files.note(Path('weights.pth'))
    files.wait(Path('weights.pth'))


def threads():
    "How many threads this process has, those of torch included"
    return len(list(Path('/proc/self/task').iterdir()))


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='/proc tells of threads')
@pytest.mark.parametrize('parted', [False, True])
def test_no_thread_is_left_that_could_meet_the_end_of_python(tmp_path, parted):
    "One that frees a tensor while Python ends would abort the process"
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/meeting', rank=0, world_size=1)
    before, ours = threads(), Ranks()
    try:
        assert ours.meet(3) == 3 and threads() > before
        if parted: dist.destroy_process_group()
        ours.close()
        assert threads() <= before and dist.is_initialized() is not parted
    finally:
        if dist.is_initialized(): dist.destroy_process_group()


def test_what_is_written_when_one_process_ends_the_fit(found):
    one, two = answers(found, 'written')
    assert one == two
    assert one[0]['n_iter'] == 5 and len(one[0]['rows']) == 1
    assert [o.split(',')[0] for o in one[1]] == ['epoch', '0'] and one[2] == 1
    state, = (found['folder']/'written'/'models'/'checkpoints').glob('*.pt')
    assert read_checkpoint(state)['cut'] == 'fit'


def test_what_one_process_writes_is_read_by_all(found):
    assert answers(found, 'at once') == ([1., 1., 2., 2.],)*2


def test_weights_in_pieces_are_whole_in_a_file(found):
    one, two = answers(found, 'fsdp files')
    assert one == two and one[0]['weights'] == one[1] and one[2] == [VALID, 3]
    state = torch.load(found['folder']/'pieces'/'models'/'weights.pth', weights_only=True)
    assert {k: v.double().tolist() for k, v in state['model'].items()} == one[1]
    alone = make(path=found['folder']/'pieces', opt_func=AdamW)
    alone.load('weights')
    assert {k: v.double().tolist() for k, v in alone.model.state_dict().items()} == one[1]


@pytest.mark.parametrize('event, phase', BREAKS)
def test_what_one_breaks_off_all_break_off(found, event, phase):
    one, two = answers(found, f'break {event} {phase}')
    assert one['weights'] == two['weights']
    assert one['n_iter'] == two['n_iter'] and one['losses'] == two['losses']
    steps = {'begin_batch': 3, 'after_pred': 3, 'after_loss': 3, 'begin_backward': 3,
             'after_backward': 3, 'begin_step': 3, 'after_step': 4, 'after_batch': 3}
    if phase == 'fit': assert one['n_iter'] == steps.get(event, 5)


@pytest.mark.parametrize('event, phase', [('begin_step', 'step'), ('begin_backward', 'backward'),
                                          ('begin_batch', 'batch')])
def test_true_of_one_process_is_the_exception_that_it_stands_for(found, event, phase):
    answered, raised = (answers(found, f'break {event} {o}')[0] for o in ('true', phase))
    assert answered == raised


@pytest.mark.parametrize('name', [f'early {p} {bn} {at}' for p, bn, at in EARLY]
                         + ['skip_step', 'skip_bwd'])
def test_what_one_skips_all_skip(found, name):
    one, two = answers(found, name)
    assert one['weights'] == two['weights'] and one['n_iter'] == two['n_iter'] == 10
    assert one['losses'] == two['losses'] and len(one['losses']) == (9 if 'early' in name else 10)


def test_a_loss_that_is_no_number_stops_all(found):
    one, two = answers(found, 'nan')
    assert one['weights'] == two['weights'] and one['n_iter'] == two['n_iter'] == 2


def test_alone_nothing_changes():
    learn = same_as_alone(make())
    other = make()
    for o in (learn, other): o.fit(1, .1)
    assert outcome(learn)['losses'] == outcome(other)['losses']
    with pytest.raises(ValueError, match='strategy'): learn.to_distributed('dpp')
