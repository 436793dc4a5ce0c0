"""What each feature of a step costs: the same training, with one more of them each time.

It begins with what torch takes in eager mode and nothing else, the floor: the rows of some batches
gathered in one call, the optimizer's kernel called directly, gradients set to `None`.
"""
import statistics
import time

import torch
import torch.nn.functional as F

from benchmarks.by_hand import BS, LR, MOMS, VALID_BS, gathered, image_data, mlp, train_bare
from fastloop.all import (
    SGD,
    DataBunch,
    Learner,
    ProgressCallback,
    Recorder,
    TensorLoader,
    accuracy,
)
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.optimizer import OptimWrapper


def bare(data):
    "The floor"
    train_bare(mlp(), gathered(*data[:2]))


def served(data):
    "The floor, with batches from `TensorLoader`"
    train_bare(mlp(), TensorLoader(*data[:2], bs=BS, shuffle=True))


def stepped(data):
    "The same with the optimizer of fastloop"
    model = mlp()
    opt = OptimWrapper.create(SGD, LR, [model], wd=0.)
    opt.mom = MOMS[1]
    for xb, yb in TensorLoader(*data[:2], bs=BS, shuffle=True):
        F.cross_entropy(model(xb), yb).backward()
        opt.step()
        opt.zero_grad()


def fitted(*parts):
    "One epoch of a learner that has these parts: recorder, one-cycle, bar, validation, accuracy"
    def fit(data):
        data = data if 'validation' in parts else (*data[:2], None, None)
        bunch = DataBunch.from_tensors(*data, bs=BS, valid_bs=VALID_BS)
        learn = Learner(bunch, mlp(), F.cross_entropy, wd=0.,
                        opt_func=lambda params, lr: SGD(params, lr, momentum=MOMS[1]),
                        metrics=[accuracy] if 'accuracy' in parts else [],
                        cbs=OneCycleScheduler(lr_max=LR, moms=MOMS) if 'one-cycle' in parts else [])
        for name, kind in (('recorder', Recorder), ('bar', ProgressCallback)):
            if name not in parts: learn.remove_cbs([cb for cb in learn.cbs if type(cb) is kind])
        learn.fit(1, LR)
    return fit


def steps_of_features():
    "What is timed, each with one thing more than the one before"
    names = ['recorder', 'one-cycle', 'bar', 'validation', 'accuracy']
    found = {'the floor: eager torch without any feature': bare,
             'batches from `TensorLoader`': served,
             'the optimizer: hooks, changed groups and states are noticed': stepped,
             'the runner: events, cancelling, the first batch checked': fitted()}
    for i, name in enumerate(names): found[name] = fitted(*names[:i+1])
    return found


def feature_costs(n, rounds):
    "Microseconds a step of each, in turns; the second number is what it adds to the one before"
    data, kinds = image_data(n), steps_of_features()
    took, steps = {name: [] for name in kinds}, -(-n//BS)
    torch.set_num_threads(1)
    for round_ in range(rounds + 1):
        for name in list(kinds)[::-1 if round_ % 2 else 1]:
            start = time.process_time()
            kinds[name](data)
            if round_: took[name].append((time.process_time() - start)*1e6/steps)
    rows, before = [], None
    for name, mine in took.items():
        added = statistics.median(b-a for a, b in zip(before, mine)) if before else None
        rows.append((name, statistics.median(mine), added))
        before = mine
    return rows
