"Runs whose numbers are dictated, for the tests of callbacks that watch numbers"
import warnings
from types import SimpleNamespace

import torch
from faults import check_faults
from torch import nn
from torch.nn import functional as F

from fastloop.callback.core import Callback
from fastloop.callback.recorder import Recorder
from fastloop.callback.save import SaveModelCallback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, OptimWrapper
from fastloop.runner import Runner


class Script(Callback):
    "Fills the column `score` with numbers from a list"
    def __init__(self, values):
        super().__init__()
        self.values = values

    def begin_fit(self): self.recorder.add_metric_names('score')
    def after_epoch(self): self.recorder.values[-1][-1] = self.values[self.run.epoch]


def toy(opt=None, valid=None, groups=1, lr=1.):
    "A learner of four fields with one small batch"
    torch.manual_seed(0)
    layers = [nn.Linear(2, 2) for _ in range(groups)]
    batch = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(*layers)
    opt = opt(model.parameters()) if opt else OptimWrapper.create(SGD, lr, layers)
    return SimpleNamespace(model=model, opt=opt, loss_func=F.cross_entropy,
                           data=SimpleNamespace(train_dl=[batch], valid_dl=valid and [batch]))


def follow(values, *cbs, learn=None):
    "A run of one batch an epoch, with `values` as its scores"
    run = Runner([Recorder(), Script(values), *cbs])
    run.fit(len(values), learn or toy())
    return run


def make(path='.', valid=True, **kwargs):
    "A small learner on real tensors"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=g)
    y = x[:, :3].argmax(1)
    data = DataBunch.from_tensors(x[:24], y[:24], x[24:], y[24:], bs=8, seed=0, device='cpu',
                                  path=path)
    if not valid: data.valid_dl = None
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    return Learner(data, model, **(dict(metrics=accuracy, silent=True) | kwargs))


def weights(learn): return {k: v.clone() for k, v in learn.model.state_dict().items()}
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
def files(learn):
    folder = learn.path/learn.model_dir
    return sorted(o.name for o in folder.iterdir()) if folder.exists() else []


def through_file(state, tmp_path):
    "A state as a checkpoint would bring it back"
    torch.save(state, tmp_path/'state.pth')
    return torch.load(tmp_path/'state.pth', weights_only=True)


class Notes(Callback):
    "Keeps the weights of the end of each epoch"
    order = 50

    def begin_fit(self): self.weights = []
    def after_epoch(self): self.weights.append(weights(self.learn))


class Breaks(Callback):
    "Raises after a batch of the epoch `at`"
    def __init__(self, error, at=3):
        super().__init__()
        self.error, self.at = error, at

    def after_batch(self):
        if self.run.epoch == self.at and self.in_train: raise self.error('broken')


class BeginsLater(Callback):
    "Lets the run begin later, as a checkpoint does"
    def __init__(self, at):
        super().__init__()
        self.at = at

    def begin_fit(self): self.run.first_epoch = self.at


class Scores(Script):
    "A script for a whole learner, with its own metrics"


def save_run(tmp_path, scores, *extra, learn=None, **kwargs):
    learn = learn or make(tmp_path)
    cb, notes = SaveModelCallback(monitor='score', **(dict(mode='min', verbose=False) | kwargs)), \
        Notes()
    error = None
    try: learn.fit(len(scores), 1e-2, cbs=[Scores(scores), notes, cb, *extra])
    except BaseException as e: error = e
    return learn, cb, notes, error


def stored(learn, name): return torch.load(learn.model_file(name), weights_only=True)['model']


own = ['begin_fit', 'after_batch', 'after_epoch', 'after_fit']  # of variants, the events they use


def check_all_put_back(tmp_path, make_cb, names, nth):
    "Break a fit everywhere; files are whole, nothing goes on watching, the best weights are back"
    def check(learn, cb):
        assert not [o for o in files(learn) if o.endswith('.tmp') or o.startswith('.')]
        assert not getattr(cb, 'watching', False) and not getattr(cb, 'waiting', ())
        if isinstance(cb, SaveModelCallback) and cb.every == 'improvement' and cb.saved:
            assert same(weights(learn), stored(learn, 'bestmodel'))
        if getattr(cb, 'best_weights', None): assert same(weights(learn), cb.best_weights)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_faults(lambda: make(tmp_path), make_cb, names, nth, check=check)
