"The same work as in `by_hand`, given to fastloop."
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.by_hand import BS, LR, MOMS, VALID_BS, mlp, one_weight
from fastloop.all import (
    SGD,
    Callback,
    CheckpointCallback,
    DataBunch,
    F,
    Learner,
    accuracy,
    nn,
)
from fastloop.callback.schedule import OneCycleScheduler


def image_learner(data, bunch=None):
    "The network of the comparison with recorder, accuracy, bar and one-cycle"
    bunch = bunch or DataBunch.from_tensors(*data, bs=BS, valid_bs=VALID_BS)
    return Learner(bunch, mlp(), F.cross_entropy, opt_func=SGD, metrics=[accuracy], wd=0.,
                   cbs=[OneCycleScheduler(lr_max=LR, moms=MOMS)])


def fastloop(data, epochs, bunch=None):
    "One fit; the mean loss and the accuracy of the last epoch"
    learn = image_learner(data, bunch)
    learn.fit(epochs, LR)
    train_loss, _, score = learn.recorder.values[-1]
    return float(train_loss), float(score)


def fastloop_validated(data, epochs):
    "The mean loss and the accuracy of the validation rows, as often as there are epochs"
    learn = image_learner(data)
    for _ in range(epochs): loss, score = learn.validate()
    return loss, score


def fastloop_predicted(data, epochs):
    "The answers to all validation rows, as often as there are epochs"
    learn = image_learner(data)
    for _ in range(epochs): preds, labels = learn.get_preds()
    return 0., float(accuracy(preds, labels))


def fastloop_loader(data, epochs):
    "The same, given torch's `DataLoader` over the tensors; the mean loss and the accuracy"
    x, y, x_valid, y_valid = data
    bunch = DataBunch(DataLoader(TensorDataset(x, y), BS, shuffle=True),
                      DataLoader(TensorDataset(x_valid, y_valid), VALID_BS))
    return fastloop(data, epochs, bunch)


def fastloop_checkpoint(data, epochs):
    "The same fit with a checkpoint after each epoch"
    learn = image_learner(data)
    with TemporaryDirectory(dir='.') as folder:  # on a disk, where `/tmp` may be memory
        learn.fit(epochs, LR, cbs=CheckpointCallback(folder=folder))
    train_loss, _, score = learn.recorder.values[-1]
    return float(train_loss), float(score)


def line_learner(data, cbs=()):
    "One weight, batches of one row, recorder and bar on, no metric, no validation"
    bunch = DataBunch.from_tensors(*data, None, None, bs=1)
    return Learner(bunch, one_weight(), F.mse_loss, opt_func=SGD, wd=0., cbs=list(cbs))


def fastloop_tiny(data, epochs):
    "One fit; the mean loss of the last epoch"
    learn = line_learner(data)
    learn.fit(epochs, 1e-3)
    return float(learn.recorder.values[-1][0]), 0.


class FreeLoss(torch.Tensor):
    "A loss whose backward pass takes no time"
    def backward(self): pass


class FreeOptimizer:
    "An optimizer that takes no time"
    def step(self): pass
    def zero_grad(self): pass


def free_learner(steps):
    "What a runner needs, with nothing to compute"
    loss = torch.zeros(()).as_subclass(FreeLoss)
    data = SimpleNamespace(train_dl=[(0, 0)]*steps, valid_dl=None)
    return SimpleNamespace(model=nn.Identity(), opt=FreeOptimizer(), data=data,
                           loss_func=lambda pred, y: loss)


class NoBatchEvents(Callback):
    "A callback that hears nothing of batches"

    def begin_fit(self):
        "Nothing"


class OneBatchEvent(Callback):
    "A callback that hears of every batch and does nothing"

    def after_batch(self):
        "Nothing"


class OneV1Event:
    "A callback of fastai v1 that hears of every batch and does nothing"
    def on_batch_end(self, **kwargs):
        "Nothing"


class OneV2Event:
    "A callback of fastai v2 that hears of every batch and does nothing"
    def before_batch(self):
        "Nothing"


class OneMiniaiEvent:
    "A callback of miniai that hears of every batch and does nothing"
    def before_batch(self, learn):
        "Nothing"
