"A network that gains from `learn.compile()`, trained with and without; compiling is not counted."
import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.by_hand import VALID_BS
from fastloop.all import SGD, DataBunch, Learner, accuracy
from fastloop.callback.schedule import OneCycleScheduler

BS, WIDTH, DEPTH = 256, 64, 4


class Norm(nn.Module):
    "Layer norm, as its formula"
    def __init__(self, n):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))

    def forward(self, x):
        "Mean 0 and variance 1 in each row, then the scale and the shift of each column"
        x = x - x.mean(-1, keepdim=True)
        return x*torch.rsqrt((x*x).mean(-1, keepdim=True) + 1e-5)*self.scale + self.shift


def gelu(x):
    "The activation of GPT-2, as its formula"
    return 0.5*x*(1 + torch.tanh(math.sqrt(2/math.pi)*(x + 0.044715*x**3)))


class Block(nn.Module):
    "Norm, activation, one layer, and the way around them"
    def __init__(self, n):
        super().__init__()
        self.norm, self.linear = Norm(n), nn.Linear(n, n)

    def forward(self, x):
        "Of the same shape"
        return x + self.linear(gelu(self.norm(x)))


def tower():
    "The network: 784 inputs, 10 outputs"
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, WIDTH), *[Block(WIDTH) for _ in range(DEPTH)],
                         Norm(WIDTH), nn.Linear(WIDTH, 10))


learners = {}  # of this process; compiled once


def train(data, epochs, is_compiled):
    "One fit from the first weights on; the mean loss and the accuracy of the last epoch"
    if is_compiled not in learners:
        bunch = DataBunch.from_tensors(*data, bs=BS, valid_bs=VALID_BS)
        learners[is_compiled] = Learner(bunch, tower(), F.cross_entropy, opt_func=SGD, wd=0.,
                                        metrics=[accuracy])
        if is_compiled: learners[is_compiled].compile()
    learn = learners[is_compiled]
    learn.model.load_state_dict(tower().state_dict())
    learn.fit(epochs, 0.05, cbs=OneCycleScheduler(lr_max=0.05), reset_opt=True)
    train_loss, _, score = learn.recorder.values[-1]
    return float(train_loss), float(score)


def fastloop_tower(data, epochs):
    "As it is written"
    return train(data, epochs, is_compiled=False)


def fastloop_tower_compiled(data, epochs):
    "Compiled; the first fit of a process compiles"
    return train(data, epochs, is_compiled=True)
