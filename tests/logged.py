"A small learner whose rows are logged, and a disk that fails"
import os
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD

brief = ['begin_fit', 'begin_epoch', 'after_epoch', 'after_fit']


def make(path, metrics=(accuracy,), valid=True, **kwargs):
    g = torch.Generator().manual_seed(0)
    def batch(n): return torch.randn(n, 2, generator=g), torch.randint(0, 3, (n,), generator=g)
    torch.manual_seed(0)
    valid_dl = [batch(5)] if valid else None
    data = SimpleNamespace(train_dl=[batch(8), batch(3)], valid_dl=valid_dl)
    return Learner(data, nn.Linear(2, 3), F.cross_entropy, opt_func=SGD, metrics=list(metrics),
                   path=path, silent=True, **kwargs)


class HalfDisk:
    "Lets `os.fsync` fail, after part of the row was written"
    def __init__(self, monkeypatch, error=None):
        self.full, self.real, self.error = False, os.fsync, error or OSError(28, 'No space left')
        self.torn = False
        monkeypatch.setattr(os, 'fsync', self)

    def __call__(self, fd):
        if not self.full: return self.real(fd)
        if not self.torn: os.ftruncate(fd, os.fstat(fd).st_size-3)
        self.torn = True
        raise self.error


def open_files():
    return len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
