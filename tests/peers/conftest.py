"""The tiny problem of `tests/golden`, trained by fastai and by fastloop in one process.

These tests want real objects of other libraries, which `make test-peers` installs into an
environment of their own. Elsewhere they are skipped.
"""
import contextlib
import io
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

os.environ.setdefault('KERAS_BACKEND', 'torch')
if torch.version.cuda is None:
    # torchvision's compiled part wants a torch with CUDA; without it, importing torchvision needs
    # the names of two operators that it would define
    _operators = torch.library.Library('torchvision', 'DEF')
    for _name in ('nms', 'qnms'):
        _operators.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent/'tools'))
from make_golden import accuracy, load_problem, make_model, split_in_two  # noqa: E402


def make_batches(few):
    "The batches of the problem as lists, which draw no random numbers; of `few`, 2 and 1"
    p = load_problem()
    train, valid = (list(zip(p[f'x_{o}'].split(8), p[f'y_{o}'].split(8)))
                    for o in ('train', 'valid'))
    return (train[:2], valid[:1]) if few else (train, valid)


def notes():
    "What a run leaves behind, filled in while it runs"
    return SimpleNamespace(losses=[], lrs=[], moms=[], valid_batches=0)


def finish(log, learn, out, caught, error, path):
    "The rest of what a run leaves behind"
    if learn is None: raise error
    log.learn, log.error, log.out = learn, error, out.getvalue()
    log.shadowed = [str(o.message) for o in caught if 'shadowing' in str(o.message)]
    log.values = [[float(o) for o in row if o is not None] for row in learn.recorder.values]
    log.weights = {k: v.detach().clone() for k, v in learn.model.state_dict().items()}
    log.files = sorted(o.relative_to(path).as_posix() for o in path.rglob('*') if o.is_file())
    log.path = path
    return log


@contextlib.contextmanager
def watched():
    "Printed text, warnings and the one exception of what happens inside"
    res = SimpleNamespace(out=io.StringIO(), error=None, caught=[])
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(res.out):
        warnings.simplefilter('always')
        try: yield res
        except (Exception, KeyboardInterrupt) as e: res.error = e
    res.caught += caught


def fit_fastai(path, cbs, epochs=3, lr=.1, loss=None, model='plain', two_groups=False, seed=0,
               fits=1, few=False):
    "Train with real fastai"
    from fastai.basics import SGD, Callback, DataLoaders, Learner, params
    from fastai.callback.progress import ProgressCallback

    class Probe(Callback):
        order = -100

        def after_loss(self):
            if not self.training: log.valid_batches += 1
            else:
                log.losses.append(self.loss.item())
                log.lrs.append([o['lr'] for o in self.opt.hypers])
                log.moms.append([o['mom'] for o in self.opt.hypers])
    log, learn, split = notes(), None, {}
    if two_groups:
        split = {'splitter': lambda m: [params(nn.Sequential(*o)) for o in split_in_two(m)]}
    dls = DataLoaders(*make_batches(few), device='cpu')
    torch.manual_seed(seed)
    with watched() as seen:
        learn = Learner(dls, make_model(model), loss or nn.CrossEntropyLoss(), metrics=[accuracy],
                        opt_func=partial(SGD, mom=.9), path=path, cbs=[Probe(), *cbs], **split)
        learn.remove_cb(ProgressCallback)
        for _ in range(fits): learn.fit(epochs, lr)
    return finish(log, learn, seen.out, seen.caught, seen.error, path)


def fit_fastloop(path, cbs, epochs=3, lr=.1, loss=None, model='plain', two_groups=False, seed=0,
                 fits=1, few=False):
    "Train the same with fastloop"
    from fastloop.callback.core import Callback
    from fastloop.data.bunch import DataBunch
    from fastloop.learner import Learner

    class Probe(Callback):
        order = -100

        def after_loss(self):
            if not self.in_train: log.valid_batches += 1
            else:
                log.losses.append(self.loss.item())
                log.lrs.append(self.learn.opt.read_val('lr'))
                log.moms.append(self.learn.opt.read_val('mom'))
    log, learn = notes(), None
    data = DataBunch(*make_batches(few), path=path)
    torch.manual_seed(seed)
    with watched() as seen:
        # fastai, too, spares biases and batch norm from weight decay
        learn = Learner(data, make_model(model), loss or nn.CrossEntropyLoss(), wd=0., bn_wd=False,
                        opt_func=partial(torch.optim.SGD, momentum=.9), metrics=[accuracy],
                        splitter=split_in_two if two_groups else None, silent=True,
                        cbs=[Probe(), *cbs])
        for _ in range(fits): learn.fit(epochs, lr)
    return finish(log, learn, seen.out, seen.caught, seen.error, path)


def assert_same(ours, theirs):
    "Batch losses, hyper-parameters, validation losses, metrics and weights agree"
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    assert type(ours.error) is type(theirs.error), (ours.error, theirs.error)
    assert ours.valid_batches == theirs.valid_batches
    for name in ('losses', 'lrs', 'moms'):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert len(a) == len(b), name
        a, b = torch.tensor(a).double(), torch.tensor(b).double()
        close(a, b, msg=lambda text: f'{name}: {text}')  # noqa: B023
    # the first column is fastai's smoothed training loss, and our mean
    a, b = ([row[1:] for row in o.values] for o in (ours, theirs))
    assert [len(o) for o in a] == [len(o) for o in b]
    for x, y in zip(a, b): close(torch.tensor(x).double(), torch.tensor(y).double())
    assert ours.weights.keys() == theirs.weights.keys()
    for k, v in theirs.weights.items(): close(ours.weights[k], v, msg=lambda text: f'{k}: {text}')  # noqa: B023


@pytest.fixture
def both(tmp_path):
    """Trains the problem twice, with fresh callbacks each time, and compares

    Called with a function that makes the callbacks; gives what ours and theirs left behind.
    """
    def run(make, compare=True, **kwargs):
        res = []
        for name, fit in (('fastloop', fit_fastloop), ('fastai', fit_fastai)):
            folder = tmp_path/name
            folder.mkdir(exist_ok=True)
            cbs = make()
            res.append(fit(folder, cbs, **kwargs))
            res[-1].cbs = cbs
        if compare: assert_same(*res)
        return res
    return run


@pytest.fixture
def ours(tmp_path):
    "Trains the problem with fastloop; called with callbacks, gives what the run left behind"
    return lambda cbs, **kwargs: fit_fastloop(tmp_path, cbs, **kwargs)
