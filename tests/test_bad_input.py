"Bad input: who is told what, and that nothing has changed by then"
import copy
import inspect
import pydoc
import random
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fastloop.all  # noqa: F401  its rooms hang their verbs on the learner
from fastloop import keras
from fastloop.__main__ import main
from fastloop.adapters.fastai1 import LearnerCallback
from fastloop.anneal import annealing_cos, combine_scheds
from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import Callback, TraceCallback
from fastloop.callback.cutmix import CutMix
from fastloop.callback.logger import CSVLogger, LambdaCallback
from fastloop.callback.lr_finder import LRFinder
from fastloop.callback.mixup import MixUpCallback
from fastloop.callback.phases import GeneralScheduler
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.recorder import Recorder
from fastloop.callback.remote import RemoteMonitor
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.schedule import OneCycleScheduler, ParamScheduler
from fastloop.callback.short import ShortEpoch
from fastloop.callback.stats import AvgStatsCallback
from fastloop.callback.tensorboard import TensorBoardCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateauCallback
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.torch_core import no_random
from fastloop.vision.data import ImageDataBunch
from fastloop.watch import look, page_of

keras_callbacks = keras.callbacks
g = torch.Generator().manual_seed(0)
X, Y = torch.randn(48, 4, generator=g), torch.randint(3, (48,), generator=g)
LINE = X.sum(1)
from_tensors, create = DataBunch.from_tensors, DataBunch.create
DS = TensorDataset(X, Y)


class Frame:
    "Looks like a data frame of pandas"
    def __init__(self): self.columns, self.iloc = ['a', 'b'], None
    def __len__(self): return 2
    def __array__(self, dtype=None, copy=None): return np.array([['a', 1], ['b', 2]], dtype=object)


class Endless(torch.utils.data.IterableDataset):
    "A stream of pairs, without a length"
    def __iter__(self): return zip(X, Y)


def net(out=3, hidden=8):
    with no_random(0):
        return nn.Sequential(nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU()),
                             nn.Linear(hidden, out))


def data(x=X, y=Y, **kwargs):
    return from_tensors(x, y, x[:16], y[:16], **dict(bs=16, seed=1, device='cpu') | kwargs)


def learner(path, bunch=None, model=None, **kwargs):
    return Learner(bunch or data(), model or net(), **dict(
        splitter=list, metrics=accuracy, path=path, silent=True) | kwargs)


def plain(o):
    "The same with tensors as bytes, to compare"
    if torch.is_tensor(o): return o.detach().numpy().tobytes()
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items()}
    return [plain(v) for v in o] if isinstance(o, (list, tuple)) else o


def state_of(learn):
    "Everything that a refused call leaves alone"
    loop, rec, opt = learn.data.train_dl, learn.recorder, learn.opt
    return dict(
        weights=plain(learn.model.state_dict()), mode=[o.training for o in learn.model.modules()],
        trained=[p.requires_grad for p in learn.model.parameters()], opt=plain(opt.state_dict()),
        same=[id(o) for o in (opt, learn.model, learn.loss_func, learn.data, *learn.cbs)],
        settings=[learn.lr, learn.wd, learn.opt.lr, learn.opt.mom, learn.opt.wd, learn.metrics],
        recorder=copy.deepcopy([rec.values, rec.losses, rec.lrs, rec.moms, rec.names]),
            running=learn.running,
        random=[random.getstate(), plain(torch.from_numpy(np.random.get_state()[1].view('i4'))),
                plain(torch.get_rng_state())],
        loader=loop.state_dict() if hasattr(loop, 'state_dict') else None,
        files={str(o): o.read_bytes() for o in learn.path.rglob('*') if o.is_file()},
        grad=torch.is_grad_enabled())


@contextmanager
def instead(learn, **fields):
    "Other data or another loss in a learner, for one call"
    old = {k: getattr(learn, k) for k in fields}
    vars(learn).update(fields)
    place = getattr(learn.data.train_dl, 'state_dict', dict)()
    try: yield learn
    finally:
        assert getattr(learn.data.train_dl, 'state_dict', dict)() == place
        vars(learn).update(old)


def fit(learn, *args, verb='fit', **kwargs):
    "A fit with other data, another loss or model"
    fields = {k: kwargs.pop(k) for k in ('data', 'loss_func') if k in kwargs}
    with instead(learn, **fields): getattr(learn, verb)(*(args or (1,)), **kwargs)


def batches(*batch): return DataBunch([batch]*3, device='cpu')


def refused(name, call, words, error=(ValueError, TypeError)):
    return pytest.param(call, words.split('|'), error, id=name)


KERAS = keras.models.Sequential([nn.Linear(4, 3)])
KERAS.compile('sgd', 'sparse_categorical_crossentropy')
EX, EY = X.numpy(), Y.numpy()

rows = [
    # ---- data ------------------------------------------------------------------------------------
    refused('empty list of batches', lambda o: DataBunch([]), 'train_dl|empty'),
    refused('empty training set', lambda o: create(TensorDataset(X[:0], Y[:0]), None),
        'train_ds|empty'),
    refused('empty loader later', lambda o: fit(o, data=type('D', (), dict(train_dl=[],
        valid_dl=None))()), 'training loader|empty'),
    refused('drop_last leaves nothing', lambda o: data(X[:20], Y[:20], bs=64, drop_last=True),
        'empty|drop_last'),
    refused('bs 0', lambda o: data(bs=0), 'bs=0|1 or more'),
    refused('bs negative', lambda o: create(DS, None, bs=-4), 'bs=-4|1 or more'),
    refused('bs text', lambda o: data(bs='64'), "bs='64'|whole number"),
    refused('bs fraction', lambda o: data(bs=6.4), 'bs=6.4|whole number'),
    refused('bs True', lambda o: data(bs=True), 'bs=True|whole number'),
    refused('valid_bs 0', lambda o: data(valid_bs=0), 'valid_bs=0'),
    refused('bs of TensorLoader', lambda o: TensorLoader(X, Y, bs=0), 'bs=0'),
    refused('num_workers', lambda o: create(DS, None, num_workers=-1), 'num_workers=-1'),
    refused('seed text', lambda o: data(seed='1'), "seed='1'|whole number"),
    refused('seed fraction', lambda o: TensorLoader(X, bs=4, seed=.5), 'seed=0.5'),
    refused('drop_last text', lambda o: data(drop_last='no'), "drop_last='no'|True"),
    refused('lengths', lambda o: from_tensors(X, Y[:-1]), 'x_train has 48|y_train has 47'),
    refused('lengths to validate', lambda o: from_tensors(X, Y, X[:9], Y[:8]),
        'x_valid has 9|y_valid has 8'),
    refused('lengths of TensorLoader', lambda o: TensorLoader(X, Y[:9], bs=4), '48|9'),
    refused('x_valid alone', lambda o: from_tensors(X, Y, X), 'x_valid|y_valid'),
    refused('valid_pct 1', lambda o: from_tensors(X, Y, valid_pct=1.), 'valid_pct=1.0|below 1'),
    refused('valid_pct negative', lambda o: from_tensors(X, Y, valid_pct=-.1), 'valid_pct=-0.1'),
    refused('valid_pct text', lambda o: from_tensors(X, Y, valid_pct='20%'), "valid_pct='20%'"),
    refused('valid_pct percent', lambda o: from_tensors(X, Y, valid_pct=20),
        'valid_pct=20|below 1'),
    refused('valid_pct twice', lambda o: data(valid_pct=.2), 'valid_pct|x_valid'),
    refused('fewer classes than labels', lambda o: data(classes=['a', 'b']), 'classes|2|label 2'),
    refused('classes a text', lambda o: data(classes='abc'), "classes='abc'|list"),
    refused('classes twice', lambda o: data(classes=['a', 'b', 'a']), "classes|'a'|twice"),
    refused('label no class', lambda o: from_tensors(X[:2], ['a', 'z'], classes=['a', 'b']),
        "y_train|'z'|a, b"),
    refused('device unknown', lambda o: data(device='cpuu'), "device='cpuu'"),
    refused('device not there', lambda o: data(device='cuda:77'), "device='cuda:77'"),
    refused('device of a wrong kind', lambda o: DataBunch(o.data.train_dl, device=3.5),
        'device=3.5'),
    refused('data frame', lambda o: from_tensors(Frame(), Y), 'x_train|Frame'),
    refused('list of texts', lambda o: from_tensors(['one', 'two'], [0, 1]), 'x_train|text'),
    refused('ragged', lambda o: from_tensors([[1., 2.], [1.]], [0, 1]), 'x_train'),
    refused('a dict', lambda o: from_tensors({'a': X}, Y), 'x_train|dict'),
    refused('x a number', lambda o: from_tensors(3., Y), 'x_train|row'),
    refused('y None', lambda o: from_tensors(X, None), 'y_train'),
    refused('arrays as loaders', lambda o: DataBunch(X, Y), 'train_dl|from_tensors'),
    refused('data sets as loaders', lambda o: DataBunch(DS, DS), 'train_dl|create'),
    refused('loader as data set', lambda o: create(o.data.train_dl, None),
        'train_ds|DataBunch(train_dl'),
    *[refused(f'{type(bad).__name__} as data set', lambda o, bad=bad: create(DS, bad),
        f'valid_ds|{type(bad).__name__}|from_tensors')
      for bad in (Frame(), (X, Y), ['one', 'two'], dict(x=X, y=Y), 'folder')],
    refused('an iterator', lambda o: DataBunch(iter([(X, Y)])), 'train_dl|iterator'),
    refused('pct of DataBunch path', lambda o: DataBunch([(X, Y)], path=3), 'path=3'),
    refused('test items of another shape', lambda o: o.data.test_dl(torch.zeros(2, 3, 4)),
        'items|(2, 3, 4)|(4,)'),
    refused('test items in batches of none', lambda o: o.data.test_dl(X, bs=0), 'bs=0'),
    refused('labels a table', lambda o: from_tensors(X[:2], Frame()), 'y_train|Frame|label'),
    refused('labels a dict', lambda o: from_tensors(X[:2], Y[:2], X[:2], {'a': 0, 'b': 1}),
        'y_valid|dict|label'),
    refused('validation narrower', lambda o: from_tensors(X, Y, X[:, :3], Y),
        'x_valid|(3,)|(4,)'),
    refused('validation no column', lambda o: from_tensors(X, LINE[:, None], X, LINE),
        'y_valid|()|(1,)'),
    refused('validation a column', lambda o: from_tensors(X, Y, X, Y[:, None]), 'y_valid|()|(1,)'),
    # ---- the learner -----------------------------------------------------------------------------
    refused('data a loader', lambda o: Learner(o.data.train_dl, o.model),
        'data|TensorLoader|DataBunch(train_dl, valid_dl)'),
    refused('data torch loader', lambda o: Learner(DataLoader(DS), o.model),
        'data|DataLoader|DataBunch(train_dl, valid_dl)'),
    refused('data a tuple', lambda o: Learner((o.data.train_dl, o.data.valid_dl), o.model),
        'data|tuple|DataBunch(train_dl, valid_dl)'),
    refused('data None', lambda o: Learner(None, o.model), 'data|DataBunch'),
    refused('data a frame', lambda o: Learner(Frame(), o.model), 'data|Frame|DataBunch'),
    refused('data arrays', lambda o: Learner((X, Y), o.model), 'data|from_tensors'),
    refused('model and data exchanged', lambda o: Learner(o.model, o.data), 'data'),
    refused('model class', lambda o: Learner(o.data, nn.Linear), 'model|Linear|class|Linear(…)'),
    refused('model function', lambda o: Learner(o.data, lambda x: x), 'model|function'),
    refused('model text', lambda o: Learner(o.data, 'resnet18'), "model|'resnet18'"),
    refused('model list', lambda o: Learner(o.data, [nn.Flatten()]), 'model|Sequential'),
    refused('loss by name', lambda o: learner(o.path, loss_func='mse'),
        "loss_func='mse'|nn.MSELoss()"),
    refused('loss by name, another', lambda o: learner(o.path, loss_func='cross_entropy'),
        "loss_func='cross_entropy'|nn.CrossEntropyLoss()"),
    refused('loss class', lambda o: learner(o.path, loss_func=nn.MSELoss), 'loss_func|MSELoss()'),
    refused('loss a tensor', lambda o: learner(o.path, loss_func=torch.ones(1)), 'loss_func'),
    refused('loss class later', lambda o: fit(o, loss_func=nn.MSELoss), 'loss_func|MSELoss()'),
    refused('loss name later', lambda o: fit(o, loss_func='mse'), "loss_func|'mse'"),
    refused('optimizer by name', lambda o: learner(o.path, opt_func='adam'),
        "opt_func='adam'|Adam"),
    refused('optimizer made', lambda o: learner(o.path, opt_func=o.opt.opt), 'opt_func|learn.opt'),
    refused('optimizer no function', lambda o: learner(o.path, opt_func=.1), 'opt_func=0.1'),
    refused('optimizer a module class', lambda o: learner(o.path, opt_func=nn.Linear).fit(1),
        'opt_func|Linear'),
    refused('optimizer a loss', lambda o: learner(o.path, opt_func=nn.MSELoss).fit(1),
        'opt_func|MSELoss'),
    *[refused(f'optimizer {bad.__name__}', lambda o, bad=bad: learner(o.path, opt_func=bad),
        f'opt_func|{bad.__name__}')
      for bad in (torch.optim.Optimizer, torch.optim.lr_scheduler.StepLR)],
    refused('optimizer none made', lambda o: learner(o.path, opt_func=lambda ps, lr: None).fit(1),
        'opt_func|None'),
    *[refused(f'no loss, batch a {type(bad).__name__} of {len(bad)}',
        lambda o, bad=bad: Learner(DataBunch([bad], device='cpu'), net()),
        f'{type(bad).__name__}|(xb, yb)')
      for bad in (dict(x=X, y=Y), (X,))],
    refused('metric by name', lambda o: learner(o.path, metrics='accuracy'), "metrics|'accuracy'"),
    refused('metric number', lambda o: learner(o.path, metrics=[1]), 'metrics|1'),
    refused('metric class', lambda o: learner(o.path, metrics=[dict]), 'metrics|dict'),
    refused('metric a callback', lambda o: learner(o.path, metrics=[SaveModelCallback()]),
        'metrics|SaveModel|cbs'),
    refused('callback no callback', lambda o: learner(o.path, cbs=[3]), 'cbs|3'),
    refused('callback by name', lambda o: learner(o.path, cbs='csv_logger'), "cbs|'csv_logger'"),
    refused('callback function', lambda o: learner(o.path, cbs=[lambda: 1]), 'cbs|function'),
    refused('callback_fns number', lambda o: learner(o.path, callback_fns=[3]), 'callback_fns|3'),
    refused('callback_fns object', lambda o: learner(o.path, callback_fns=[TraceCallback()]),
        'callback_fns|TraceCallback|cbs'),
    refused('lr text of a learner', lambda o: learner(o.path, lr='1e-3'), "lr='1e-3'|number"),
    refused('lr negative of a learner', lambda o: learner(o.path, lr=-1), 'lr=-1'),
    refused('wd negative', lambda o: learner(o.path, wd=-.1), 'wd=-0.1'),
    refused('wd text', lambda o: learner(o.path, wd='0.1'), "wd='0.1'"),
    refused('wd nan', lambda o: learner(o.path, wd=float('nan')), 'wd=nan'),
    refused('wd of wrong length', lambda o: fit(o, wd=[.1, .2, .3]), 'wd|3|2'),
    refused('path number', lambda o: learner(3), 'path=3'),
    refused('model_dir number', lambda o: learner(o.path, model_dir=3), 'model_dir=3'),
    refused('splitter text', lambda o: learner(o.path, splitter='layers'), "splitter='layers'"),
    refused('splitter gives numbers', lambda o: learner(o.path, splitter=lambda m: [1, 2]),
        'splitter|1'),
    refused('splitter gives nothing', lambda o: learner(o.path, splitter=lambda m: None),
        'splitter|None'),
    refused('splitter gives no group', lambda o: learner(o.path, splitter=lambda m: []),
        'splitter|[]'),
    refused('runner', lambda o: learner(o.path, runner=dict), 'runner|Runner'),
    # ---- fit -------------------------------------------------------------------------------------
    *[refused(f'{verb} epochs {bad!r}', lambda o, verb=verb, bad=bad: fit(o, bad, verb=verb),
        f'epochs|{bad!r}')
      for verb in ('fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune') for bad in (-1, 1.5, '3',
          True, None)],
    refused('rate and epochs exchanged', lambda o: o.fit_one_cycle(5e-2, 1), 'epochs|0.05'),
    refused('n_cycles 0', lambda o: o.fit_sgdr(0, 1), 'n_cycles|0'),
    refused('cycle_len 0', lambda o: o.fit_sgdr(1, 0), 'cycle_len|0'),
    refused('cycle_mult 0', lambda o: o.fit_sgdr(1, 1, cycle_mult=0), 'cycle_mult|0'),
    *[refused(f'{verb} lr {bad}', lambda o, verb=verb, bad=bad: fit(o, 1, bad, verb=verb),
        f'lr={bad!r}')
      for verb in ('fit', 'fit_one_cycle', 'fit_flat_cos') for bad in ('1e-3', -.1, float('nan'),
          float('inf'), True, [.1, .1, .1])],
    refused('lr a dict', lambda o: fit(o, 1, {'a': 1}), "lr='a'"),
    refused('sgdr lr', lambda o: o.fit_sgdr(1, 1, -.1), 'lr=-0.1'),
    refused('slice without end', lambda o: fit(o, 1, slice(None)), 'lr|slice(lo, hi)'),
    refused('slice of texts', lambda o: fit(o, 1, slice('a', 'b')), "lr|'a'"),
    refused('one of two lr negative', lambda o: fit(o, 1, [.1, -.1]), 'lr=-0.1|negative'),
    refused('slice without upper end', lambda o: fit(o, 1, slice(1e-3, None)), 'lr|upper end'),
    refused('lr_max 0', lambda o: o.fit_one_cycle(1, 0.), 'lr_max|0'),
    refused('cycle over', lambda o: o.fit_one_cycle(1, tot_epochs=2, start_epoch=2),
        'start_epoch=2'),
    refused('fine_tune div_factor', lambda o: o.fine_tune(1, div_factor=-1), 'div_factor=-1'),
    refused('model an optimizer', lambda o: Learner(net(), o.opt), 'data|BasicLearner'),
    refused('slice from 0', lambda o: fit(o, 1, slice(0, 1)), 'lr|above 0'),
    refused('slice of three', lambda o: fit(o, 1, slice(1e-3, 1e-2, 1e-1)),
        'lr|slice(lo, hi)|list'),
    refused('fit wd', lambda o: fit(o, wd=-1), 'wd=-1'),
    refused('fit cbs', lambda o: fit(o, cbs=3), 'cbs|3'),
    refused('fit callbacks', lambda o: fit(o, callbacks=['x']), "'x'|Callback"),
    refused('reset_opt text', lambda o: fit(o, reset_opt='no'), "reset_opt='no'|True"),
    refused('resume text', lambda o: fit(o, resume='no'), "resume='no'|True"),
    *[refused(f'{verb} pct_start {bad}', lambda o, verb=verb, bad=bad: fit(o, 1, verb=verb,
        pct_start=bad), f'pct_start={bad!r}')
      for verb in ('fit_one_cycle', 'fit_flat_cos', 'fine_tune') for bad in (-.1, 1.1, 30, '0.3',
          float('nan'))],
    *[refused(f'moms {bad}', lambda o, bad=bad: o.fit_one_cycle(1, moms=bad), f'moms={bad!r}')
      for bad in ((.9,), (.9, .8, .7, .6), ('a', 'b'), (1.2, .8), (-.1, .9), .9)],
    refused('div_factor', lambda o: o.fit_one_cycle(1, div_factor=0), 'div_factor=0'),
    refused('final_div', lambda o: o.fit_one_cycle(1, final_div=-1), 'final_div=-1'),
    refused('div_final', lambda o: o.fit_flat_cos(1, div_final=0), 'div_final=0'),
    refused('tot_epochs', lambda o: o.fit_one_cycle(5, tot_epochs=0), 'tot_epochs=0'),
    refused('start_epoch', lambda o: o.fit_one_cycle(5, start_epoch=9), 'start_epoch=9'),
    refused('anneal', lambda o: o.fit_one_cycle(1, anneal='coss'), "'coss'|cos"),
    refused('base_lr', lambda o: o.fine_tune(1, base_lr=-1), 'base_lr=-1'),
    refused('base_lr text', lambda o: o.fine_tune(1, base_lr='x'), "base_lr='x'"),
    refused('base_lr a list', lambda o: o.fine_tune(1, base_lr=[.1, .2]), 'base_lr=[0.1, 0.2]'),
    refused('base_lr a slice', lambda o: o.fine_tune(1, base_lr=slice(.1, .2)), 'base_lr=slice'),
    refused('lr_mult', lambda o: o.fine_tune(1, lr_mult=0), 'lr_mult=0'),
    refused('freeze_epochs', lambda o: o.fine_tune(1, freeze_epochs=-1), 'freeze_epochs|-1'),
    refused('fine_tune one group', lambda o: learner(o.path, splitter=None).fine_tune(1),
        'one layer group|splitter'),
    refused('fine_tune argument of the second fit', lambda o: o.fine_tune(1, moms=3), 'moms=3'),
    refused('freeze one group', lambda o: learner(o.path, splitter=None).freeze(),
        'one layer group|splitter'),
    refused('freeze_to 5', lambda o: o.freeze_to(5), 'freeze_to(5)|2 layer groups'),
    refused('freeze_to text', lambda o: o.freeze_to('a'), "freeze_to('a')"),
    refused('num_it', lambda o: o.lr_find(num_it=5), 'num_it=5|6'),
    refused('num_it text', lambda o: o.lr_find(num_it='100'), "num_it='100'"),
    refused('num_it fraction', lambda o: o.lr_find(num_it=9.5), 'num_it=9.5'),
    refused('start_lr', lambda o: o.lr_find(start_lr=0), 'start_lr=0'),
    refused('start_lr text', lambda o: o.lr_find(start_lr='1e-7'), "start_lr='1e-7'"),
    refused('end_lr', lambda o: o.lr_find(end_lr=-1), 'end_lr=-1'),
    refused('end below start', lambda o: o.lr_find(1., .1), 'start_lr|end_lr'),
    refused('lr_find lists', lambda o: o.lr_find([1e-7]*3, 1.), 'start_lr|3|2'),
    # ---- the first batch -------------------------------------------------------------------------
    refused('label too large', lambda o: fit(o, data=data(y=Y+1)), 'label 3|3 outputs|0 to 2'),
    refused('label negative', lambda o: fit(o, data=data(y=Y-1)), 'label -1|3 outputs'),
    refused('label not ignored', lambda o: fit(o, data=data(y=Y.masked_fill(Y == 0, 255)),
        loss_func=nn.CrossEntropyLoss(ignore_index=254)), 'label 255'),
    refused('y (n,) for (n, 1)', lambda o: learner(o.path, data(y=LINE), net(1)).fit(1),
        '(16, 1) and (16,)|y[:, None]'),
    refused('y (n, 1) for labels', lambda o: fit(o, data=data(y=Y[:, None])),
        '(16, 3) and (16, 1)|y[:, 0]'),
    refused('numbers for labels', lambda o: fit(o, data=data(y=LINE), loss_func=F.cross_entropy),
        '(16, 3) and (16,)|float|long'),
    refused('labels for numbers', lambda o: learner(o.path, data(y=Y.float()), net(1),
        loss_func=nn.BCEWithLogitsLoss()).fit(1), '(16, 1) and (16,)|y[:, None]'),
    refused('outputs for numbers', lambda o: fit(o, data=data(y=torch.zeros(48, 2)),
        loss_func=F.mse_loss), '(16, 3) and (16, 2)|mse_loss'),
    refused('features of x', lambda o: fit(o, data=data(torch.zeros(48, 5))), '(16, 5)|Linear'),
    refused('x not flat', lambda o: fit(o, data=data(torch.zeros(48, 2, 2))), '(16, 2, 2)'),
    refused('x float64', lambda o: fit(o, data=data(X.double())), 'float64|float32|x.to('),
    refused('x of labels', lambda o: fit(o, data=data(torch.zeros(48, 4, dtype=torch.long))),
        'int64|Linear(in_features=4'),
    refused('x bytes', lambda o: fit(o, data=data(torch.zeros(48, 4, dtype=torch.uint8))),
        'uint8|Linear'),
    refused('x complex', lambda o: fit(o, data=data(torch.zeros(48, 4, dtype=torch.complex64))),
        'complex64|Linear'),
    refused('batch of three', lambda o: fit(o, data=batches(X, X, Y)), 'tuple of 3|((a, b), y)'),
    refused('batch of one', lambda o: fit(o, data=batches(X)), 'tuple of 1|(xb, yb)'),
    refused('batch a tensor', lambda o: fit(o, data=DataBunch(DataLoader(X, 16), device='cpu')),
        'Tensor|TensorDataset(x, y)'),
    refused('batch a dict', lambda o: fit(o, data=DataBunch([dict(x=X, y=Y)], device='cpu')),
        'dict|(xb, yb)'),
    refused('batch of texts', lambda o: fit(o, data=batches(['one', 'two'], Y[:2])),
        'texts|numbers'),
    refused('y None', lambda o: fit(o, data=batches(X, None)), 'None'),
    refused('two inputs for one', lambda o: fit(o, data=batches((X, X), Y)), '2 inputs|Linear'),
    refused('named inputs', lambda o: fit(o, data=batches(dict(image=X), Y)), 'image|Sequential'),
    refused('loss not one number', lambda o: fit(o, loss_func=partial(F.cross_entropy,
        reduction='none')), 'loss|(16,)|one number'),
    refused('loss a float', lambda o: fit(o, loss_func=lambda p, y: 3.), 'loss|3.0|tensor'),
    refused('loss None', lambda o: fit(o, loss_func=lambda p, y: None), 'loss|None|tensor'),
    refused('loss of one argument', lambda o: fit(o, loss_func=lambda p: p.sum()),
        '1 positional argument'),
    refused('no loss', lambda o: fit(o, loss_func=None), 'loss'),
    refused('nothing to train', lambda o: learner(o.path, model=nn.Flatten(),
        splitter=None).fit(1), 'parameter'),
    refused('no length', lambda o: fit(o, verb='fit_one_cycle',
        data=DataBunch(DataLoader(Endless(), 16), device='cpu')), 'length'),
    refused('no length, flat', lambda o: fit(o, verb='fit_flat_cos',
        data=DataBunch(DataLoader(Endless(), 16), device='cpu')), 'length'),
    # ---- files and questions ---------------------------------------------------------------------
    *[refused(f'{verb} {bad!r}', lambda o, verb=verb, bad=bad: getattr(o, verb)(bad), words)
      for verb in ('save', 'load') for bad, words in (('../out', 'would leave'), ('', 'name'), (3,
          'name=3'), ('/tmp/x', 'would leave'))],
    refused('load another network', lambda o: o.load('other'),
        'another architecture|1.weight|(5, 8)|(3, 8)'),
    refused('load nothing', lambda o: o.load('nothing'), 'nothing.pth', FileNotFoundError),
    refused('validate without', lambda o: learner(o.path, from_tensors(X, Y, seed=1)).validate(),
        'validation loader|dl='),
    refused('validate shape', lambda o: o.validate([(torch.zeros(4, 5), Y[:4])]), '(4, 5)'),
    refused('validate number', lambda o: o.validate(3), 'dl=3'),
    refused('validate empty', lambda o: o.validate([]), 'dl=[]'),
    refused('validate metric', lambda o: o.validate(metrics='acc'), "'acc'"),
    refused('get_preds shape', lambda o: o.get_preds(torch.zeros(4, 5)), '(4, 5)|Linear'),
    refused('get_preds text', lambda o: o.get_preds('test'), "'test'"),
    refused('get_preds without loss', lambda o: o.get_preds(X, with_loss=True),
        'with_loss|targets'),
    refused('probabilities', lambda o: learner(o.path, data(y=LINE[:, None]),
        net(1)).get_preds(probabilities=True), 'probabilities'),
    refused('predict batch', lambda o: o.predict(X[:2]), '(2, 4)|(4,)'),
    refused('predict shape', lambda o: o.predict(torch.zeros(5)), '(1, 5)|Linear'),
    refused('predict text', lambda o: o.predict('cat.png'), "'cat.png'"),
    refused('predict None', lambda o: o.predict(None), 'None'),
    refused('export name', lambda o: o.export('model.bin'), 'model.bin|.pt2'),
    refused('export number', lambda o: o.export(3), '3'),
    refused('clip_grad', lambda o: o.clip_grad(-1), 'clip=-1'),
    refused('clip_grad text', lambda o: o.clip_grad('1'), "clip='1'"),
    refused('mixup', lambda o: o.mixup(0), 'alpha=0'),
    refused('mixup negative', lambda o: o.mixup(-.4), 'alpha=-0.4'),
    refused('add_cbs', lambda o: o.add_cbs(3), '3'),
    # ---- callbacks -------------------------------------------------------------------------------
    *[refused(f'{kind.__name__} {kwargs}', lambda o, kind=kind, kwargs=kwargs: fit(o,
        cbs=kind(**kwargs)), words)
      for kind, kwargs, words in (
        (EarlyStoppingCallback, dict(monitor='val_los'), "monitor='val_los'|valid_loss"),
        (EarlyStoppingCallback, dict(monitor=3), 'monitor=3'),
        (EarlyStoppingCallback, dict(mode='maximum'), "mode='maximum'|max"),
        (EarlyStoppingCallback, dict(patience=-1), 'patience=-1'),
        (EarlyStoppingCallback, dict(patience=1.5), 'patience=1.5'),
        (EarlyStoppingCallback, dict(min_delta=-1), 'min_delta=-1'),
        (EarlyStoppingCallback, dict(baseline='low'), "baseline='low'"),
        (SaveModelCallback, dict(monitor='acuracy'), "'acuracy'|accuracy"),
        (SaveModelCallback, dict(every='epochs'), "every='epochs'|'epoch'"),
        (SaveModelCallback, dict(every=0), 'every=0'),
        (SaveModelCallback, dict(name='../best'), 'would leave'),
        (SaveModelCallback, dict(name=3), 'name=3'),
        (SaveModelCallback, dict(keep=0), 'keep=0'),
        (ReduceLROnPlateauCallback, dict(factor=1), 'factor=1'),
        (ReduceLROnPlateauCallback, dict(factor=0), 'factor=0'),
        (ReduceLROnPlateauCallback, dict(factor='x'), "factor='x'"),
        (ReduceLROnPlateauCallback, dict(patience=-1), 'patience=-1'),
        (ReduceLROnPlateauCallback, dict(cooldown=-1), 'cooldown=-1'),
        (ReduceLROnPlateauCallback, dict(min_lr=-1), 'min_lr=-1'),
        (ReduceLROnPlateauCallback, dict(min_lr=[0, 0, 0]), 'min_lr|3|2'),
        (GradientClipping, dict(clip=-1), 'clip=-1'),
        (GradientClipping, dict(clip='x'), "clip='x'"),
        (GradientClipping, dict(by='values'), "by='values'|value"),
        (GradientAccumulation, dict(n_acc=0), 'n_acc=0'),
        (GradientAccumulation, dict(n_acc=2.5), 'n_acc=2.5'),
        (GradientAccumulation, dict(n_batches=0), 'n_batches=0'),
        (GradientAccumulation, dict(reduction='avg'), "reduction='avg'|mean"),
        (MixUpCallback, dict(alpha=-.1), 'alpha=-0.1'),
        (MixUpCallback, dict(alpha='x'), "alpha|'x'"),
        (CutMix, dict(alpha=0), 'alpha=0'),
        (CheckpointCallback, dict(every=0), 'every=0'),
        (CheckpointCallback, dict(every='batch'), "every='batch'|epoch"),
        (CheckpointCallback, dict(every=True), 'every=True'),
        (CheckpointCallback, dict(keep=0), 'keep=0'),
        (CheckpointCallback, dict(keep='all'), "keep='all'"),
        (CSVLogger, dict(filename=3), '3'),
        (CSVLogger, dict(filename='../log'), '../log'),
        (OneCycleScheduler, dict(lr_max='x'), "'x'"),
        (OneCycleScheduler, dict(lr_max=.1, pct_start=2), 'pct_start=2'),
        (OneCycleScheduler, dict(lr_max=[.1]*3), '3|2'),
        (OneCycleScheduler, dict(), 'lr_max'),
        (GeneralScheduler, dict(), 'phases'),
        (GeneralScheduler, dict(phases=[3]), 'phases|3'),
        (ParamScheduler, dict(pname='lr', sched_funcs=.1), 'lr|0.1'),
        (ParamScheduler, dict(pname='rate', sched_funcs=abs), "'rate'|lr"),
        (TerminateOnNaNCallback, dict(n_batches=0), 'n_batches=0'),
        (LRFinder, dict(num_it=3), 'num_it=3'),
        (ShortEpoch, dict(pct=2), 'pct=2'),
        (RemoteMonitor, dict(root='localhost:9000'), "'localhost:9000'|http"),
        (RemoteMonitor, dict(timeout=0), 'timeout=0'),
        (LambdaCallback, dict(after_epoch=3), 'after_epoch|3'),
        (AvgStatsCallback, dict(metrics='acc'), "'acc'"),
        (TensorBoardCallback, dict(log_dir=3), 'log_dir=3'),
    )],
    refused('combined fractions', lambda o: combine_scheds([.3, .3], [annealing_cos]*2),
        'pcts|0.6|1'),
    refused('combined negative', lambda o: combine_scheds([-.3, 1.3], [annealing_cos]*2),
        'pcts|-0.3'),
    refused('combined lengths', lambda o: combine_scheds([.3, .7], [annealing_cos]), 'pcts|2|1'),
    refused('combined text', lambda o: combine_scheds(['a', .7], [annealing_cos]*2), "'a'"),
    # ---- Keras -----------------------------------------------------------------------------------
    *[refused(f'keras fit {[*kwargs]} {str([*kwargs.values()][0])[:9]!r}', lambda o,
        kwargs=kwargs: KERAS.fit(**dict(x=EX, y=EY, verbose=0) | kwargs), words)
      for kwargs, words in (
        (dict(batch_size=0), 'batch_size=0'), (dict(batch_size='32'), "batch_size='32'"),
        (dict(epochs=-1), 'epochs|-1'), (dict(epochs=1.5), 'epochs|1.5'), (dict(epochs='3'),
            "epochs|'3'"),
        (dict(y=EY[:9]), '48|9'), (dict(y=None), 'y'), (dict(x=EX[:0], y=EY[:0]), 'x'),
        (dict(validation_split=1.5), 'validation_split=1.5'), (dict(validation_split=-.1),
            'validation_split=-0.1'),
        (dict(validation_data=EX), 'validation_data'), (dict(validation_data=(EX,)),
            'validation_data'), (dict(validation_data=(EX, EY, EY, EY)), 'validation_data'),
        (dict(validation_data=(EX, EY[:9])), '48|9'), (dict(x=[EX, EX]), '2 inputs'),
        (dict(initial_epoch=-1), 'initial_epoch=-1'), (dict(steps_per_epoch=0),
            'steps_per_epoch=0'),
        (dict(verbose='loud'), "verbose='loud'"), (dict(callbacks=[3]), '3 is no callback'),
            (dict(callbacks='csv'), "'csv' is no callback"),
        (dict(y=EY+5), 'label'), (dict(x=np.zeros((48, 5), 'f')), '(32, 5)'),
        (dict(x=['a', 'b'], y=[0, 1]), 'x'), (dict(class_weight=3), 'class_weight'))],
    *[refused(f'keras compile {kwargs}', lambda o,
        kwargs=kwargs: keras.models.Sequential([nn.Flatten()]).compile(**kwargs), words)
      for kwargs, words in (
        (dict(optimizer='adm'), "optimizer='adm'|adam"), (dict(optimizer=3), 'optimizer|3'),
        (dict(loss='mean_square_error'), "loss='mean_square_error'|mean_squared_error"),
            (dict(loss=3), 'loss|3'),
        (dict(loss='mse', metrics=['acuracy']), "'acuracy'|accuracy"), (dict(loss='mse',
            metrics=[3]), 'metric|3'))],
    refused('keras not compiled', lambda o: keras.models.Sequential([nn.Flatten()]).fit(EX, EY),
        'compile'),
    refused('keras predict shape', lambda o: KERAS.predict(np.zeros((3, 5), 'f')), '(3, 5)'),
    refused('keras predict bs', lambda o: KERAS.predict(EX, batch_size=0), 'batch_size=0'),
    refused('keras evaluate lengths', lambda o: KERAS.evaluate(EX, EY[:3]), '48|3'),
    refused('keras evaluate shape', lambda o: KERAS.evaluate(np.zeros((3, 5), 'f'), EY[:3]),
        '(3, 5)'),
    refused('keras early stopping', lambda o: keras_callbacks.EarlyStopping(mode='biggest'),
        "mode='biggest'|max"),
    refused('keras load', lambda o: KERAS.load_weights('nothing.weights.h5'), 'nothing',
        (FileNotFoundError, ValueError)),
]

def words_in(words, text): return [o for o in words if o not in text]

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    "A learner that has something to lose, and that goes through all of this"
    learn = learner(tmp_path_factory.mktemp('learner'))
    learner(learn.path, model=net(5)).save('other')
    learn.fit(1, lr=.1)
    return learn


@pytest.mark.parametrize('call, words, error', rows)
def test_refused(call, words, error, learn):
    before = state_of(learn)
    with pytest.raises(error) as caught: call(learn)
    after = state_of(learn)
    lacks, changed = words_in(words,
        str(caught.value)), [k for k in before if before[k] != after[k]]
    assert not lacks and not changed, (lacks, changed, str(caught.value))
    learn.fit(1)
    assert len(learn.recorder.values) == 1 and learn.recorder.values[0][0] > 0


# ---- misspelt arguments, and the words of others -------------------------------------------------
image = ImageDataBunch
words = [
    ('Learner', lambda o: partial(Learner, o.data, o.model), dict(
        loss_fn='loss_func', loss_fun='loss_func', metric='metrics', criterion='loss_func',
        optimizer='opt_func', weight_decay='wd', learning_rate='lr', spliter='splitter')),
    ('fit', lambda o: partial(o.fit, 1), dict(
        lrr='lr', max_lr='lr', callback='callbacks', weight_decay='wd', rest_opt='reset_opt')),
    ('fit without epochs', lambda o: o.fit, dict(
        epoch='epochs', nb_epoch='epochs', max_epochs='epochs', max_nb_epochs='epochs')),
    ('fit_one_cycle', lambda o: partial(o.fit_one_cycle, 1), dict(
        max_lrs='max_lr', learning_rate='max_lr', momentum='moms', pct_strat='pct_start')),
    ('fit_flat_cos', lambda o: partial(o.fit_flat_cos, 1), dict(max_lr='lr', div_finl='div_final')),
    ('fit_sgdr', lambda o: partial(o.fit_sgdr, 1, 1), dict(cycle_mul='cycle_mult', lr='lr_max')),
    ('fine_tune', lambda o: partial(o.fine_tune, 1), dict(
        freeze_epoch='freeze_epochs', lr='base_lr', resett_opt='reset_opt')),
    ('lr_find', lambda o: o.lr_find, dict(
        num_iter='num_it', start='start_lr', n_iter='num_it', show_plots='show_plot')),
    ('validate', lambda o: o.validate, dict(metric='metrics', data='dl')),
    ('get_preds', lambda o: o.get_preds, dict(with_losses='with_loss', loader='dl')),
    ('predict', lambda o: o.predict, dict(item='x')),
    ('save', lambda o: o.save, dict(fname='name', file='name')),
    ('load', lambda o: partial(o.load, 'a'), dict(with_optim='with_opt')),
    ('export', lambda o: o.export, dict(fname='file')),
    ('mixup', lambda o: o.mixup, dict(alhpa='alpha')),
    ('clip_grad', lambda o: o.clip_grad, dict(gradient_clip_val='clip')),
    ('DataBunch', lambda o: DataBunch, dict(train_loader='train_dl', val_dl='valid_dl')),
    ('create', lambda o: partial(create, DS, None), dict(
        batch_size='bs', workers='num_workers', val_bs='valid_bs')),
    ('from_tensors', lambda o: partial(from_tensors, X, Y), dict(
        batch_size='bs', validation_split='valid_pct', vocab='classes', sed='seed')),
    ('TensorLoader', lambda o: partial(TensorLoader, X), dict(batch_size='bs', shufle='shuffle')),
    ('from_folder', lambda o: partial(image.from_folder, o.path), dict(
        batch_size='bs', ds_tfms='tfms', val_pct='valid_pct', item_tfms='tfms')),
    ('from_df', lambda o: partial(image.from_df, o.path, Frame()), dict(batch_size='bs')),
    ('from_csv', lambda o: partial(image.from_csv, o.path), dict(batch_size='bs')),
    ('from_name_re', lambda o: partial(image.from_name_re, o.path, ['a_1.png'], '(.*)_'), dict(
        batch_size='bs')),
    ('keras fit', lambda o: partial(KERAS.fit, EX, EY), dict(
        nb_epoch='epochs', bs='batch_size', validation_dat='validation_data')),
    ('keras evaluate', lambda o: partial(KERAS.evaluate, EX, EY), dict(bs='batch_size')),
    ('keras predict', lambda o: partial(KERAS.predict, EX), dict(bs='batch_size')),
    *[(kind.__name__, lambda o, kind=kind: kind, given) for kind, given in (
        (EarlyStoppingCallback, dict(patiance='patience', metric='monitor',
            restor_best='restore_best')),
        (SaveModelCallback, dict(filename='name', ever='every', reset_on_fits='reset_on_fit')),
        (ReduceLROnPlateauCallback, dict(gamma='factor', cool_down='cooldown')),
        (GradientClipping, dict(max_norm='clip')), (GradientAccumulation, dict(n_ac='n_acc')),
        (MixUpCallback, dict(alfa='alpha')), (CutMix, dict(alfa='alpha')),
        (CheckpointCallback, dict(keeps='keep', evry='every')), (CSVLogger,
            dict(file_name='filename')),
        (OneCycleScheduler, dict(max_lr='lr_max', lr='lr_max')), (LRFinder,
            dict(num_iter='num_it')),
        (TerminateOnNaNCallback, dict(raise_err='raise_error')), (Recorder, dict(metric='metrics')),
        (TensorBoardCallback, dict(logdir='log_dir')), (MixedPrecision, dict(dtyp='dtype')),
        (keras_callbacks.EarlyStopping, dict(patiance='patience')))]]


@pytest.mark.parametrize('make, word, ours', [
    pytest.param(make, word, ours, id=f'{name}-{word}') for name, make, known in words
    for word, ours in known.items()])
def test_a_misspelt_argument_is_told_the_nearest(make, word, ours, learn):
    before = state_of(learn)
    with pytest.raises(TypeError, match=f"has no argument '{word}'; did you mean '{ours}'"):
        make(learn)(**{word: 3})
    assert state_of(learn) == before


@pytest.mark.parametrize('call, message', [
    (lambda o: o.fit_flat_cos(1, xyz=1), "has no argument 'xyz'; it has epochs, lr"),
    (lambda o: o.fit(1, cycle_len=1), "fit has no argument 'cycle_len'; it has epochs, lr"),
    (lambda o: EarlyStoppingCallback(xyz=1), 'patience, baseline, start_epoch, restore_best, comp, '
     'reset_on_fit, verbose$'),  # each once
    (lambda o: o.fit_one_cycle(1, max_lr=1, lr_max=1), 'another word for max_lr'),
    (lambda o: Learner(o.data, o.model, cbs=[], callbacks=[]), 'another word for cbs')])
def test_an_argument_unlike_any_and_one_given_twice(call, message, learn):
    with pytest.raises(TypeError, match=message): call(learn)


def test_words_that_are_understood(tmp_path):
    "fastai's words for ours do the same"
    learn = Learner(dls=data(), model=net(), callbacks=[TraceCallback()], path=tmp_path,
        silent=True)
    assert learn.trace is learn.cbs[0] and learn.metrics == []
    for words in (dict(n_epoch=1, lr_max=1e-2, div=10., div_final=1e3), dict(epochs=1, lr=1e-2,
        div=10.,
                  final_div=1e3)):
        learn.fit_one_cycle(**words)
        assert learn.recorder.lrs[0] == pytest.approx(1e-3)
    assert len(learner(tmp_path, metrics=accuracy).metrics) == 1  # one that is in no list
    learn = learner(tmp_path, cbs=TraceCallback)  # a class, and one that is in no list
    learn.fit(1, cbs=TraceCallback(), callbacks=[TraceCallback])
    assert sum(isinstance(o, TraceCallback) for o in learn.run.cbs) == 3
    labels = nn.CrossEntropyLoss(ignore_index=2)
    learner(tmp_path, model=net(2), loss_func=labels, metrics=None).fit(1)
    assert ImageDataBunch.from_folder.__name__ == 'from_folder'


class Own(Callback):
    "A user's callback, which keeps what it is given"
    def __init__(self, **kwargs): self.kept = kwargs


@dataclass
class Fields(LearnerCallback):
    "A user's callback of fields"
    clip: float = 1.


class Derived(EarlyStoppingCallback):
    "A user's callback that adds an argument to one of ours"
    def __init__(self, *args, extra=None, **kwargs): super().__init__(*args, **kwargs)


def test_callbacks_of_users_take_what_they_say():
    assert Own(anything=3).kept == dict(anything=3)
    assert Derived(extra=3, patience=2).patience == 2
    assert copy.copy(Derived(patience=2)).patience == 2
    with pytest.raises(TypeError, match='patiance'): Derived(patiance=2)
    with pytest.raises(TypeError, match="'clap'; did you mean 'clip'"): Fields(clap=2)


def test_nan_trains_on_and_is_shown_or_ends_the_fit(tmp_path, capsys):
    bunch = data(X.masked_fill(X > 2, float('nan')))
    learn = learner(tmp_path, bunch, silent=False)
    learn.fit(1)
    assert np.isnan(learn.recorder.values[0][0]) and 'nan' in capsys.readouterr().out
    learn = learner(tmp_path, bunch)
    learn.fit(2, cbs=TerminateOnNaNCallback())
    assert len(learn.recorder.raw_losses) < 6 and 'nan' in capsys.readouterr().out.lower()


def test_a_logger_of_before_keeps_its_file(tmp_path):
    "A refused fit leaves the CSV of the fit before, and what other callbacks know"
    save, stop = SaveModelCallback(), EarlyStoppingCallback(patience=9)
    learn = learner(tmp_path, cbs=[CSVLogger(), save, stop, CheckpointCallback()])
    learn.fit(2)
    before, best = state_of(learn), (save.best, stop.best)
    for bad in (dict(data=data(y=Y+1)), dict(data=data(torch.zeros(48, 5)))):
        with pytest.raises(ValueError): fit(learn, **bad)
        assert state_of(learn) == before and (save.best, stop.best) == best


@pytest.mark.parametrize('losses', [
    ['1e308', '-1e308'], ['1.7e308', '1.7e308', '-1.7e308'], ['5e-324', '0.0'], ['1e-310', '1e308'],
    ['1e308'], ['inf', '-1e308', 'nan', '1e308']])
def test_watch_draws_numbers_at_the_end_of_what_floats_can_hold(losses, tmp_path, capsys):
    lines = [f'{i},{o},{o},{o}' for i, o in enumerate(losses)]
    (tmp_path/'history.csv').write_text(
        '\n'.join(['epoch,train_loss,valid_loss,accuracy', *lines, '']))
    assert main(['watch', str(tmp_path), '--once']) == 0
    drawn = capsys.readouterr().out
    assert f'{len(losses)} epochs' in drawn and 'loss:  * training  o validation' in drawn
    assert sum(line.count('o') for line in drawn.split('\n') if '|' in line) > 0  # curves
    picture = page_of(look(tmp_path))
    numbers = re.findall(r'points="([^"]+)"', picture)
    assert numbers and not any(o in ' '.join(numbers) for o in ('nan', 'inf'))


# ---- what the question mark shows ----------------------------------------------------------------
shown = [(name, lambda o, name=name: getattr(o, name), said) for name, said in dict(
    fit='epochs : int|Number of epochs, 0 or more|default None|slice|resume',
    fit_one_cycle='max_lr|Top rate|pct_start : float, default 0.3|reset_opt : bool, default False',
    fit_flat_cos='div_final|callbacks|resume', fit_sgdr='cycle_len', fine_tune='freeze_epochs|moms',
    lr_find='num_it : int, default 100|6 or more', validate='metrics', get_preds='with_loss',
    predict='One item', save='name', load='strict', export='.onnx', mixup='alpha',
    clip_grad='Largest norm').items()] + [
    ('DataBunch.create', lambda o: DataBunch.create,
        'bs : int, default 64|items in a training batch'),
    ('DataBunch.from_tensors', lambda o: DataBunch.from_tensors, 'valid_pct|share'),
    ('from_folder', lambda o: ImageDataBunch.from_folder, 'tfms|variations')]


@pytest.mark.parametrize('get, said', [o[1:] for o in shown], ids=[o[0] for o in shown])
def test_help_and_the_question_mark_list_the_parameters(get, said, learn):
    from IPython.core.oinspect import Inspector
    func = get(learn)
    info, text = Inspector(theme_name='nocolor').info(func), pydoc.render_doc(func,
        renderer=pydoc.plaintext)
    for words in said.split('|'):
        assert words in info['docstring'] and words in text
    known = [o for o in inspect.signature(func).parameters if o != 'purge']
    assert 'kwargs' not in known and all(f'\n{o} : ' in info['docstring'] for o in known)
    assert all(o in info['definition'] for o in known)
