"""Callbacks as people publish them for fastai v2, miniai and the course, with the import line changed

Those of miniai and of the course run beside a loop as short as theirs; those of fastai v2 run here
by themselves, and beside the real library in `peers/test_peers_public.py`.
"""
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastloop.adapters.miniai as miniai
from fastloop.callback.core import written_for
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner

same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
folder = Path(__file__).parent/'public'


def read(file, star):
    "The names of a file of callbacks, read after an import line"
    space = {'__name__': f'public_{file}'}
    exec(f'{star}\n{(folder/file).with_suffix(".py").read_text()}', space)
    return space


def problem(n_parts=2):
    "A model and two loaders, the same each time"
    torch.manual_seed(0)
    x, y = torch.randn(40, 2), torch.randn(40, 1)
    parts = [o.split(8) for o in (x, y)]
    train = list(zip(*parts)) if n_parts == 2 else list(zip(x.split(8), (x*2).split(8), y.split(8)))
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    return model, train, train[:2]


# ---- miniai --------------------------------------------------------------------------------------
class CancelBatchException(Exception): pass
class CancelEpochException(Exception): pass
class CancelFitException(Exception): pass


class Base: order = 0


class MiniTrainCB(Base):
    def __init__(self, n_inp=1): self.n_inp = n_inp
    def predict(self, learn): learn.preds = learn.model(*learn.batch[:self.n_inp])
    def get_loss(self, learn): learn.loss = learn.loss_func(learn.preds, *learn.batch[self.n_inp:])
    def backward(self, learn): learn.loss.backward()
    def step(self, learn): learn.opt.step()
    def zero_grad(self, learn): learn.opt.zero_grad()


MiniTrainCB.__name__ = 'TrainCB'


class Mini:
    "A loop as the notebooks of miniai build it, in few lines"
    def __init__(self, model, train, valid, loss_func, lr, cbs):
        self.model, self.loss_func, self.lr, self.cbs = model, loss_func, lr, cbs
        self.dls = type('Dls', (), dict(train=train, valid=valid))()

    def tell(self, name):
        for cb in sorted(self.cbs, key=lambda o: o.order):
            if (method := getattr(cb, name, None)) is not None: method(self)

    def phase(self, name, error, work):
        try:
            self.tell(f'before_{name}')
            work()
            self.tell(f'after_{name}')
        except error: pass
        finally: self.tell(f'cleanup_{name}')

    def fit(self, n_epochs, train=True, valid=True):
        self.n_epochs, self.epochs = n_epochs, range(n_epochs)
        self.opt = torch.optim.SGD(self.model.parameters(), self.lr)
        def all_epochs():
            for self.epoch in self.epochs:
                if train: self.one_epoch(True)
                if valid: self.one_epoch(False)
        self.phase('fit', CancelFitException, all_epochs)

    def one_epoch(self, training):
        self.training = training
        self.model.train(training)
        self.dl = self.dls.train if training else self.dls.valid
        def all_batches():
            for self.iter, self.batch in enumerate(self.dl):
                self.phase('batch', CancelBatchException, self.one_batch)
        with torch.set_grad_enabled(training):
            self.phase('epoch', CancelEpochException, all_batches)

    def one_batch(self):
        for o in ('predict', 'after_predict', 'get_loss', 'after_loss'): self.tell(o)
        if not self.training: return
        for o in ('backward', 'after_backward', 'step', 'after_step', 'zero_grad'): self.tell(o)


ours = read('miniai', 'from fastloop.adapters.miniai import *')
names_of_theirs = dict(Callback=Base, TrainCB=MiniTrainCB, torch=torch, partial=partial,
                       math=__import__('math'), CancelBatchException=CancelBatchException,
                       CancelEpochException=CancelEpochException,
                       CancelFitException=CancelFitException)
theirs = dict(names_of_theirs)
exec((folder/'miniai.py').read_text(), theirs)


@pytest.mark.parametrize('name', list(ours['made']))
def test_miniai(name):
    mine, yours = (o['made'][name]() for o in (ours, theirs))
    assert written_for(mine) == 'miniai'
    model, train, valid = problem()
    other, _, _ = problem()
    dls = miniai.data_loaders(train, valid)
    learn = miniai.Learner(model, dls, F.mse_loss, lr=.05, cbs=[mine])
    learn.fit(3)
    loop = isinstance(yours, MiniTrainCB)
    reference = Mini(other, train, valid, F.mse_loss, .05, [yours] if loop else [MiniTrainCB(), yours])
    reference.fit(3)
    for a, b in zip(model.parameters(), other.parameters()): same(a, b)
    assert getattr(mine, 'left', None) == getattr(yours, 'left', None)


def test_a_batch_of_three_parts_and_a_model_of_two_inputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(2, 1)
        def forward(self, a, b): return self.layer(a+b)
    _, train, valid = problem(3)
    model, other = Both(), Both()
    learn = miniai.MiniaiLearner(model, miniai.data_loaders(train, valid), cbs=miniai.TrainCB(n_inp=2))
    learn.fit(2)
    Mini(other, train, valid, F.mse_loss, .1, [MiniTrainCB(2)]).fit(2)
    same(model.layer.weight, other.layer.weight)
    assert len(learn.batch) == 3 and learn.preds.shape == (8, 1) and not learn.preds.requires_grad


def test_a_pair_is_the_one_input_of_a_model_that_takes_one():
    class OnePair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)
        def forward(self, pair): return self.layer(pair[0]*pair[1])
    seen = []

    class Look:
        def before_batch(self, learn): seen.append((len(learn.batch), len(learn.batch[0])))
    _, train, _ = problem()
    train = [((x, torch.ones(len(x), 1)), y) for x, y in train]
    Learner(DataBunch(train, train), OnePair(), F.mse_loss, silent=True).fit(1, cbs=[Look()])
    assert set(seen) == {(2, 2)}


def test_a_fit_may_only_measure_or_only_train():
    for train, valid in ((True, False), (False, True), (False, False)):
        found = []
        for cb, base in ((ours['FewerEpochs'](), None), (theirs['FewerEpochs'](), MiniTrainCB())):
            model, tr, va = problem()
            before = model[0].weight.clone()
            if base is None:
                miniai.Learner(model, miniai.data_loaders(tr, va), cbs=cb).fit(3, train, valid)
            else: Mini(model, tr, va, F.mse_loss, .1, [base, cb]).fit(3, train, valid)
            found.append(cb.left)
            assert torch.equal(before, model[0].weight) != train
        assert found[0] == found[1]


def test_epochs_that_are_no_numbers_in_a_row_are_refused():
    class Twice:
        def before_fit(self, learn): learn.epochs = [0, 0, 1]
    model, train, valid = problem()
    learn = miniai.Learner(model, miniai.data_loaders(train, valid))
    with pytest.raises(ValueError, match='in a row'): learn.fit(2, cbs=[Twice()])
    learn.fit(1)  # and the learner is as it was
    assert learn.run.n_iter == 5
