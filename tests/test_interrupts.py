"""An interrupt that comes while a state is being read changes nothing of it.

Ctrl-C can come between any two lines. A checkpoint that it has stopped is written again when the
fit ends, so reading a state may bring things together, but not half of them.
"""
import copy
from itertools import count

import pytest
import torch
from faults import PACKAGE, Interrupt
from test_checkpoint import check_same, contents, features, fit, make

from fastloop.all import Callback
from fastloop.callback.recorder import LossHistory
from fastloop.callback.snapshot import same_state
from fastloop.mean_loss import BatchWeights, WeightedMean


def interrupted_everywhere(made, read, copied=copy.deepcopy):
    "How many interrupts `read` has outlived, each time with the same answer"
    expected = read(copied(made))
    for k in count(1):
        one, interrupt = copied(made), Interrupt(k, PACKAGE)
        try: interrupt.during(lambda one=one: read(one))
        except KeyboardInterrupt: pass
        if interrupt.n < k: return k-1  # it did not come: there are no more places
        assert same_state(read(one), expected), f'interrupted at call {k}'


def labels(n=3): return [torch.randint(0, 3, (size,)) for size in [4]*n + [2]]


def weights():
    made = BatchWeights()
    for i, o in enumerate(labels()):
        made.add_labels(o, (None, -100) if i < 2 else (torch.ones(3), 1))
    made.add(5)
    for o in labels(): made.add_labels(o, (None, 1))
    return made


def losses():
    made = LossHistory()
    for o in torch.rand(7): made.add(o)
    made.sync()
    for o in torch.rand(5): made.add(o)
    return made


def mean():
    made = WeightedMean()
    for o, y in zip(torch.rand(4), labels()): made.add_labels(o, y, (None, 1))
    made.add(torch.rand(()), 3)
    return made


readings = {
    'weights': (weights, lambda o: o.floats()),
    'total': (weights, lambda o: o.total()),
    'losses': (losses, lambda o: (o.state_dict(), o.smooth)),
    'losses that come': (losses, lambda o: (o.sync(wait=False), o.sync(), o.raw, o.smooth)[2:]),
    'mean': (mean, lambda o: o.state_dict()),
    'mean that is added up': (mean, lambda o: (o.add_up(), o.sums())[1:])}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # of generators
@pytest.mark.parametrize('name', readings)
def test_interrupted_while_reading(name):
    torch.manual_seed(0)
    make_one, read = readings[name]
    assert interrupted_everywhere(make_one(), read) > 3


class Reads(Callback):
    "Reads the state of all other callbacks at some moments, interrupted everywhere"
    order, total = 95, 0

    def after_batch(self):
        run = self.run
        if (run.in_train, run.epoch, run.iter) not in [(True, 0, 1), (True, 1, 2), (False, 1, 0)]:
            return
        for cb in run.cbs:
            if hasattr(cb, 'state_dict'): self.total += interrupted_everywhere(
                cb, lambda o: copy.deepcopy(o.state_dict()), lambda o: o)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('name', ['accumulation', 'average', 'float16', 'stopping',
                                  'plateau', 'best', 'every', 'table', 'board', 'not a number'])
def test_interrupted_while_a_fit_is_read(name, tmp_path):
    for o in ('whole', 'read'): (tmp_path/o).mkdir()
    whole = fit(make(0, tmp_path/'whole', cbs=features[name], every='epoch'))
    learn, reads = make(0, tmp_path/'read', cbs=features[name], every='epoch'), Reads()
    fit(learn, cbs=reads)
    check_same(whole, learn)
    assert reads.total > 50
    assert same_state(contents(tmp_path/'whole'), contents(tmp_path/'read'))
