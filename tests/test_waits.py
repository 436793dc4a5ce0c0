"""Nothing in a step waits for a GPU: seen without one.

From the second batch of each pass on, tensors say that they are on a GPU, and whatever would make
the program wait for it is an error: numbers taken out of tensors, sizes that depend on values.
"""
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import Callback
from fastloop.callback.logger import CSVLogger
from fastloop.callback.mixup import MixUpCallback
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.callback.stats import AvgStatsCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateauCallback
from fastloop.callback.training import BnFreeze, GradientAccumulation, GradientClipping
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metric_functions import error_rate, top_k_accuracy
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, AdamW
from fastloop.train import lr_find  # noqa: F401  its room hangs the verbs on the learner

T = torch.Tensor
WAITING = {T.item, T.tolist, T.cpu, T.numpy, T.nonzero, T.__bool__, T.__float__, T.__int__,
           T.__index__, T.__contains__, T.masked_select, torch.masked_select, torch.nonzero,
           torch.equal, T.equal, T.unique, torch.unique, torch.allclose, T.allclose, T.is_nonzero}
SAYS = {T.is_cpu.__get__: False, T.is_cuda.__get__: True}
aten = torch.ops.aten
WAITING_BELOW = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal,
                 aten.is_nonzero, aten._unique2, aten.item}


class WaitsError(AssertionError): pass


class OnAGPU(TorchFunctionMode):
    "Tensors say that they are on a GPU, and give no numbers away"
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in SAYS: return SAYS[func]
        if func in WAITING: raise WaitsError(f'{func.__name__} waits')
        if func is torch.empty and kwargs.pop('pin_memory', False):
            return Arriving(func(*args, **kwargs))
        return func(*args, **kwargs)


class Below(TorchDispatchMode):
    "The same for what torch does inside"
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        masks = packet is aten.index and any(o is not None and o.dtype in (torch.bool, torch.uint8)
                                             for o in args[1])
        if packet in WAITING_BELOW or masks: raise WaitsError(f'{func} waits')
        return func(*args, **(kwargs or {}))


class Arriving:
    "Numbers in pinned memory, which are read without waiting"
    def __init__(self, there): self.there = there
    def copy_(self, numbers, non_blocking=False):
        assert non_blocking
        with torch._C.DisableTorchFunction(): self.there.copy_(numbers)
    def tolist(self):
        with torch._C.DisableTorchFunction(): return self.there.numpy().tolist()


class Watch(Callback):
    "No waiting from the second batch of each pass to its last"
    order, on = 1e9, None

    def __init__(self):
        super().__init__()
        self.modes, self.watched = [], 0

    def after_batch(self):
        last = self.run.iter == self.run.iters - 1
        if self.run.iter == 0 and not last:
            self.modes = [OnAGPU(), Below()]
            for o in self.modes: o.__enter__()
        self.watched += bool(self.modes)
        if last: self.leave()

    def leave(self):
        for o in self.modes[::-1]: o.__exit__(None, None, None)
        self.modes = []

    after_cancel_batch = after_cancel_train = after_cancel_validate = after_fit = leave


@pytest.fixture
def streams(monkeypatch):
    "Streams and events of a GPU that has done everything at once"
    event = SimpleNamespace(query=lambda: True, synchronize=lambda: None)
    stream = SimpleNamespace(record_event=lambda: event)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device=None: stream)


def data(loader=False):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 3, 4, 4, generator=g), torch.randint(0, 5, (96,), generator=g)
    if not loader: return DataBunch.from_tensors(x, y, x[:40], y[:40], bs=16, valid_bs=8)
    return DataBunch(DataLoader(TensorDataset(x, y), 16, shuffle=True),
                     DataLoader(TensorDataset(x[:40], y[:40]), 8))


def learner(tmp_path, loader=False, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(.1),
                          nn.Linear(16, 5))
    kwargs = dict(metrics=[accuracy], silent=True, path=tmp_path) | kwargs
    return Learner(data(loader), model, kwargs.pop('loss_func', nn.CrossEntropyLoss()), **kwargs)


ATTACHED = {
    'nothing': lambda: [],
    'the promised ones': lambda: [OneCycleScheduler(lr_max=.1), Bar(mode='terminal'), CSVLogger(),
                                  SaveModelCallback()],
    'bar in a notebook': lambda: [Bar(mode='notebook')],
    'early stopping': lambda: [EarlyStoppingCallback(patience=9)],
    'plateau': lambda: [ReduceLROnPlateauCallback(patience=0)],
    'clipping': lambda: [GradientClipping(clip=.1)],
    'clipping values': lambda: [GradientClipping(clip=.1, by='value')],
    'accumulation': lambda: [GradientAccumulation(n_batches=2)],
    'accumulated samples': lambda: [GradientAccumulation(n_acc=40)],
    'frozen batch norm': lambda: [BnFreeze()],
    'averages': lambda: [EMACallback()],
    'bf16': lambda: [MixedPrecision(dtype='bf16')],
    'mixup': lambda: [MixUpCallback()],
    'statistics': lambda: [AvgStatsCallback([accuracy])],
    'nan': lambda: [TerminateOnNaNCallback()],
}


class Bar(ProgressCallback):
    "Drawn at every batch"
    interval = 0.


@pytest.mark.parametrize('opt_func', [SGD, AdamW])
@pytest.mark.parametrize('name', ATTACHED)
def test_no_step_waits(name, opt_func, tmp_path, streams, capfd):
    watch = Watch()
    learn = learner(tmp_path, opt_func=opt_func)
    learn.fit(2, .01, cbs=[*ATTACHED[name](), watch])
    assert watch.watched == 2*(6 + 5)


@pytest.mark.parametrize('how', [
    dict(loss_func=nn.CrossEntropyLoss(weight=torch.ones(5), label_smoothing=.1)),
    dict(loss_func=nn.CrossEntropyLoss(ignore_index=3)),
    dict(metrics=[accuracy, error_rate, top_k_accuracy]), dict(loader=True)])
def test_no_step_waits_with_other_losses_metrics_and_loaders(how, tmp_path, streams):
    watch = Watch()
    learner(tmp_path, **how).fit_one_cycle(2, .1, cbs=[watch])
    assert watch.watched == 2*(6 + 5)


def test_a_validation_waits_for_nothing_in_between(tmp_path, streams):
    learn, watch = learner(tmp_path), Watch()
    watch.after_pred = lambda: None  # so that it takes part
    learn.add_cbs(watch) if hasattr(learn, 'add_cbs') else learn.cbs.append(watch)
    learn.validate()
    assert watch.watched == 5


def test_the_watch_sees_what_waits(tmp_path, streams):
    class Asks(Callback):
        def __init__(self, ask):
            super().__init__()
            self.ask = ask

        def after_loss(self): self.ask(self.run.loss, self.run.yb)
    for ask in (lambda loss, yb: loss.item(), lambda loss, yb: float(loss.detach()),
                lambda loss, yb: yb[yb > 1], lambda loss, yb: yb.nonzero(),
                lambda loss, yb: bool((yb > 1).any()), lambda loss, yb: loss.tolist()):
        with pytest.raises(WaitsError): learner(tmp_path).fit(1, cbs=[Asks(ask), Watch()])


class Late:
    "An event that comes when it is asked the third time"
    def __init__(self, log): self.asked, self.log = 0, log
    def query(self):
        self.asked += 1
        return self.asked > 2
    def synchronize(self): self.log.append(self.asked)


def test_the_bar_shows_what_has_arrived(tmp_path, monkeypatch, capfd):
    "Losses that are under way are not waited for; in the end none is missing"
    waited, shown = [], []
    stream = SimpleNamespace(record_event=lambda: Late(waited))
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device=None: stream)
    class Seen(Callback):
        order = 1e8
        def after_loss(self):
            if self.run.in_train: shown.append(len(self.recorder.history.raw))
    learn = learner(tmp_path)
    bar = Bar(mode='terminal')
    learn.fit(1, .01, cbs=[bar, Seen(), Watch()])
    assert shown[-1] < 5 and len(learn.recorder.raw_losses) == 6
    assert shown == sorted(shown)
    other = learner(tmp_path)
    other.fit(1, .01)
    assert learn.recorder.losses == pytest.approx(other.recorder.losses)
