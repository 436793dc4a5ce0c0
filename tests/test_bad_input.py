"Bad input: who is told what, and that nothing has changed by then"
import copy
import random
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastloop import keras
from fastloop.all import *  # noqa: F403

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
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU()),
                         nn.Linear(hidden, out))


def data(x=X, y=Y, **kwargs):
    return from_tensors(x, y, x[:16], y[:16], **dict(bs=16, seed=1, device='cpu') | kwargs)


def learner(path, bunch=None, model=None, **kwargs):
    return Learner(bunch or data(), model or net(), **dict(
        splitter=list, metrics=accuracy, path=path, silent=True) | kwargs)


def plain(o):
    "The same with tensors as lists, to compare"
    if torch.is_tensor(o): return o.tolist()
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items()}
    return [plain(v) for v in o] if isinstance(o, (list, tuple)) else o


def state_of(learn):
    "Everything that a refused call leaves alone"
    loop, rec, opt = learn.data.train_dl, learn.recorder, learn.opt
    return copy.deepcopy(dict(
        weights=plain(learn.model.state_dict()), mode=[o.training for o in learn.model.modules()],
        trained=[p.requires_grad for p in learn.model.parameters()], opt=plain(opt.state_dict()),
        same=[id(o) for o in (opt, learn.model, learn.loss_func, learn.data, *learn.cbs)],
        settings=[learn.lr, learn.wd, learn.opt.lr, learn.opt.mom, learn.opt.wd, learn.metrics],
        recorder=[rec.values, rec.losses, rec.lrs, rec.moms, rec.names], running=learn.running,
        random=[random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()],
        loader=loop.state_dict() if hasattr(loop, 'state_dict') else None,
        files={str(o): o.read_bytes() for o in learn.path.rglob('*') if o.is_file()},
        grad=torch.is_grad_enabled()))


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
    refused('empty list of batches', lambda l: DataBunch([]), 'train_dl|empty'),
    refused('empty training set', lambda l: create(TensorDataset(X[:0], Y[:0]), None), 'train_ds|empty'),
    refused('empty loader later', lambda l: fit(l, data=type('D', (), dict(train_dl=[], valid_dl=None))()), 'training loader|empty'),
    refused('drop_last leaves nothing', lambda l: data(X[:20], Y[:20], bs=64, drop_last=True), 'empty|drop_last'),
    refused('bs 0', lambda l: data(bs=0), 'bs=0|1 or more'),
    refused('bs negative', lambda l: create(DS, None, bs=-4), 'bs=-4|1 or more'),
    refused('bs text', lambda l: data(bs='64'), "bs='64'|whole number"),
    refused('bs fraction', lambda l: data(bs=6.4), 'bs=6.4|whole number'),
    refused('bs True', lambda l: data(bs=True), 'bs=True|whole number'),
    refused('valid_bs 0', lambda l: data(valid_bs=0), 'valid_bs=0'),
    refused('bs of TensorLoader', lambda l: TensorLoader(X, Y, bs=0), 'bs=0'),
    refused('num_workers', lambda l: create(DS, None, num_workers=-1), 'num_workers=-1'),
    refused('seed text', lambda l: data(seed='1'), "seed='1'|whole number"),
    refused('seed fraction', lambda l: TensorLoader(X, bs=4, seed=.5), 'seed=0.5'),
    refused('drop_last text', lambda l: data(drop_last='no'), "drop_last='no'|True"),
    refused('lengths', lambda l: from_tensors(X, Y[:-1]), 'x_train has 48|y_train has 47'),
    refused('lengths to validate', lambda l: from_tensors(X, Y, X[:9], Y[:8]), 'x_valid has 9|y_valid has 8'),
    refused('lengths of TensorLoader', lambda l: TensorLoader(X, Y[:9], bs=4), '48|9'),
    refused('x_valid alone', lambda l: from_tensors(X, Y, X), 'x_valid|y_valid'),
    refused('valid_pct 1', lambda l: from_tensors(X, Y, valid_pct=1.), 'valid_pct=1.0|below 1'),
    refused('valid_pct negative', lambda l: from_tensors(X, Y, valid_pct=-.1), 'valid_pct=-0.1'),
    refused('valid_pct text', lambda l: from_tensors(X, Y, valid_pct='20%'), "valid_pct='20%'"),
    refused('valid_pct percent', lambda l: from_tensors(X, Y, valid_pct=20), 'valid_pct=20|below 1'),
    refused('valid_pct twice', lambda l: data(valid_pct=.2), 'valid_pct|x_valid'),
    refused('fewer classes than labels', lambda l: data(classes=['a', 'b']), 'classes|2|label 2'),
    refused('classes a text', lambda l: data(classes='abc'), "classes='abc'|list"),
    refused('classes twice', lambda l: data(classes=['a', 'b', 'a']), "classes|'a'|twice"),
    refused('label no class', lambda l: from_tensors(X[:2], ['a', 'z'], classes=['a', 'b']), "y_train|'z'|a, b"),
    refused('device unknown', lambda l: data(device='cpuu'), "device='cpuu'"),
    refused('device not there', lambda l: data(device='cuda:77'), "device='cuda:77'"),
    refused('device of a wrong kind', lambda l: DataBunch(l.data.train_dl, device=3.5), 'device=3.5'),
    refused('data frame', lambda l: from_tensors(Frame(), Y), 'x_train|Frame'),
    refused('list of texts', lambda l: from_tensors(['one', 'two'], [0, 1]), 'x_train|text'),
    refused('ragged', lambda l: from_tensors([[1., 2.], [1.]], [0, 1]), 'x_train'),
    refused('a dict', lambda l: from_tensors({'a': X}, Y), 'x_train|dict'),
    refused('x a number', lambda l: from_tensors(3., Y), 'x_train|row'),
    refused('y None', lambda l: from_tensors(X, None), 'y_train'),
    refused('arrays as loaders', lambda l: DataBunch(X, Y), 'train_dl|from_tensors'),
    refused('data sets as loaders', lambda l: DataBunch(DS, DS), 'train_dl|create'),
    refused('loader as data set', lambda l: create(l.data.train_dl, None), 'train_ds|DataBunch(train_dl'),
    refused('an iterator', lambda l: DataBunch(iter([(X, Y)])), 'train_dl|iterator'),
    refused('pct of DataBunch path', lambda l: DataBunch([(X, Y)], path=3), 'path=3'),
    refused('test items of another shape', lambda l: l.data.test_dl(torch.zeros(2, 3, 4)), 'items|(3, 4)|(4,)'),
    refused('test items fewer columns', lambda l: l.data.test_dl(torch.zeros(2, 3)), 'items|(3,)|(4,)'),
    # ---- the learner -----------------------------------------------------------------------------
    refused('data a loader', lambda l: Learner(l.data.train_dl, l.model), 'data|TensorLoader|DataBunch(train_dl, valid_dl)'),
    refused('data torch loader', lambda l: Learner(DataLoader(DS), l.model), 'data|DataLoader|DataBunch(train_dl, valid_dl)'),
    refused('data a tuple', lambda l: Learner((l.data.train_dl, l.data.valid_dl), l.model), 'data|tuple|DataBunch(train_dl, valid_dl)'),
    refused('data None', lambda l: Learner(None, l.model), 'data|DataBunch'),
    refused('data a frame', lambda l: Learner(Frame(), l.model), 'data|Frame|DataBunch'),
    refused('data arrays', lambda l: Learner((X, Y), l.model), 'data|from_tensors'),
    refused('model and data exchanged', lambda l: Learner(l.model, l.data), 'data'),
    refused('model class', lambda l: Learner(l.data, nn.Linear), 'model|Linear|class|Linear(…)'),
    refused('model function', lambda l: Learner(l.data, lambda x: x), 'model|function'),
    refused('model text', lambda l: Learner(l.data, 'resnet18'), "model|'resnet18'"),
    refused('model list', lambda l: Learner(l.data, [nn.Linear(4, 3)]), 'model|Sequential'),
    refused('loss by name', lambda l: learner(l.path, loss_func='mse'), "loss_func='mse'|nn.MSELoss()"),
    refused('loss by name, another', lambda l: learner(l.path, loss_func='cross_entropy'), "loss_func='cross_entropy'|nn.CrossEntropyLoss()"),
    refused('loss class', lambda l: learner(l.path, loss_func=nn.MSELoss), 'loss_func|MSELoss()'),
    refused('loss a tensor', lambda l: learner(l.path, loss_func=torch.ones(1)), 'loss_func'),
    refused('loss class later', lambda l: fit(l, loss_func=nn.MSELoss), 'loss_func|MSELoss()'),
    refused('loss name later', lambda l: fit(l, loss_func='mse'), "loss_func|'mse'"),
    refused('optimizer by name', lambda l: learner(l.path, opt_func='adam'), "opt_func='adam'|Adam"),
    refused('optimizer made', lambda l: learner(l.path, opt_func=torch.optim.SGD(l.model.parameters(), lr=.1)), 'opt_func|learn.opt'),
    refused('optimizer no function', lambda l: learner(l.path, opt_func=.1), 'opt_func=0.1'),
    refused('optimizer a module class', lambda l: learner(l.path, opt_func=nn.Linear).fit(1), 'opt_func|Linear'),
    refused('optimizer a loss', lambda l: learner(l.path, opt_func=nn.MSELoss).fit(1), 'opt_func|MSELoss'),
    refused('metric by name', lambda l: learner(l.path, metrics='accuracy'), "metrics|'accuracy'"),
    refused('metric number', lambda l: learner(l.path, metrics=[1]), 'metrics|1'),
    refused('metric class', lambda l: learner(l.path, metrics=[dict]), 'metrics|dict'),
    refused('callback no callback', lambda l: learner(l.path, cbs=[3]), 'cbs|3'),
    refused('callback by name', lambda l: learner(l.path, cbs='csv_logger'), "cbs|'csv_logger'"),
    refused('callback function', lambda l: learner(l.path, cbs=[lambda: 1]), 'cbs|function'),
    refused('callback_fns number', lambda l: learner(l.path, callback_fns=[3]), 'callback_fns|3'),
    refused('callback_fns object', lambda l: learner(l.path, callback_fns=[TraceCallback()]), 'callback_fns|TraceCallback|cbs'),
    refused('lr text of a learner', lambda l: learner(l.path, lr='1e-3'), "lr='1e-3'|number"),
    refused('lr negative of a learner', lambda l: learner(l.path, lr=-1), 'lr=-1'),
    refused('wd negative', lambda l: learner(l.path, wd=-.1), 'wd=-0.1'),
    refused('wd text', lambda l: learner(l.path, wd='0.1'), "wd='0.1'"),
    refused('wd nan', lambda l: learner(l.path, wd=float('nan')), 'wd=nan'),
    refused('wd of wrong length', lambda l: fit(l, wd=[.1, .2, .3]), 'wd|3|2'),
    refused('path number', lambda l: learner(3), 'path=3'),
    refused('model_dir number', lambda l: learner(l.path, model_dir=3), 'model_dir=3'),
    refused('model_dir outside', lambda l: learner(l.path, model_dir='../..').save('a'), 'model_dir|..'),
    refused('splitter text', lambda l: learner(l.path, splitter='layers'), "splitter='layers'"),
    refused('splitter gives numbers', lambda l: learner(l.path, splitter=lambda m: [1, 2]), 'splitter|1'),
    refused('runner', lambda l: learner(l.path, runner=dict), 'runner|Runner'),
    # ---- fit -------------------------------------------------------------------------------------
    *[refused(f'{verb} epochs {bad!r}', lambda l, verb=verb, bad=bad: fit(l, bad, verb=verb), f'epochs|{bad!r}')
      for verb in ('fit', 'fit_one_cycle', 'fit_flat_cos', 'fine_tune') for bad in (-1, 1.5, '3', True, None)],
    refused('n_cycles 0', lambda l: l.fit_sgdr(0, 1), 'n_cycles|0'),
    refused('cycle_len 0', lambda l: l.fit_sgdr(1, 0), 'cycle_len|0'),
    refused('cycle_mult 0', lambda l: l.fit_sgdr(1, 1, cycle_mult=0), 'cycle_mult|0'),
    *[refused(f'{verb} lr {bad}', lambda l, verb=verb, bad=bad: fit(l, 1, bad, verb=verb), f'lr={bad!r}')
      for verb in ('fit', 'fit_one_cycle', 'fit_flat_cos') for bad in (
          '1e-3', -.1, float('nan'), float('inf'), True, {'a': 1}, [.1, .1, .1], [.1, 'x'][1:])],
    refused('sgdr lr', lambda l: l.fit_sgdr(1, 1, -.1), 'lr=-0.1'),
    refused('slice without end', lambda l: fit(l, 1, slice(None)), 'lr|slice(lo, hi)'),
    refused('slice of texts', lambda l: fit(l, 1, slice('a', 'b')), "lr|'a'"),
    refused('slice from 0', lambda l: fit(l, 1, slice(0, 1)), 'lr|above 0'),
    refused('fit wd', lambda l: fit(l, wd=-1), 'wd=-1'),
    refused('fit cbs', lambda l: fit(l, cbs=3), 'cbs|3'),
    refused('fit callbacks', lambda l: fit(l, callbacks=['x']), "callbacks|'x'"),
    refused('one callback twice', lambda l: fit(l, cbs=(cb := TraceCallback()), callbacks=cb), 'TraceCallback|twice'),
    refused('resume without checkpoints', lambda l: fit(l, resume=True), 'resume=True|CheckpointCallback'),
    refused('reset_opt text', lambda l: fit(l, reset_opt='no'), "reset_opt='no'|True"),
    refused('resume text', lambda l: fit(l, resume='no'), "resume='no'|True"),
    *[refused(f'{verb} pct_start {bad}', lambda l, verb=verb, bad=bad: fit(l, 1, verb=verb, pct_start=bad), f'pct_start={bad!r}')
      for verb in ('fit_one_cycle', 'fit_flat_cos', 'fine_tune') for bad in (-.1, 1.1, 30, '0.3', float('nan'))],
    *[refused(f'moms {bad}', lambda l, bad=bad: l.fit_one_cycle(1, moms=bad), f'moms={bad!r}')
      for bad in ((.9,), (.9, .8, .7, .6), ('a', 'b'), (1.2, .8), (-.1, .9), .9)],
    refused('div_factor', lambda l: l.fit_one_cycle(1, div_factor=0), 'div_factor=0'),
    refused('final_div', lambda l: l.fit_one_cycle(1, final_div=-1), 'final_div=-1'),
    refused('div_final', lambda l: l.fit_flat_cos(1, div_final=0), 'div_final=0'),
    refused('tot_epochs', lambda l: l.fit_one_cycle(5, tot_epochs=3), 'tot_epochs=3'),
    refused('anneal', lambda l: l.fit_one_cycle(1, anneal='coss'), "'coss'|cos"),
    refused('base_lr', lambda l: l.fine_tune(1, base_lr=-1), 'base_lr=-1'),
    refused('base_lr text', lambda l: l.fine_tune(1, base_lr='x'), "base_lr='x'"),
    refused('lr_mult', lambda l: l.fine_tune(1, lr_mult=0), 'lr_mult=0'),
    refused('freeze_epochs', lambda l: l.fine_tune(1, freeze_epochs=-1), 'freeze_epochs|-1'),
    refused('fine_tune one group', lambda l: learner(l.path, splitter=None).fine_tune(1), 'one layer group|splitter'),
    refused('fine_tune argument of the second fit', lambda l: l.fine_tune(1, moms=3), 'moms=3'),
    refused('freeze one group', lambda l: learner(l.path, splitter=None).freeze(), 'one layer group|splitter'),
    refused('freeze_to 5', lambda l: l.freeze_to(5), 'freeze_to(5)|2 layer groups'),
    refused('freeze_to text', lambda l: l.freeze_to('a'), "freeze_to('a')"),
    refused('num_it', lambda l: l.lr_find(num_it=5), 'num_it=5|6'),
    refused('num_it text', lambda l: l.lr_find(num_it='100'), "num_it='100'"),
    refused('num_it fraction', lambda l: l.lr_find(num_it=9.5), 'num_it=9.5'),
    refused('start_lr', lambda l: l.lr_find(start_lr=0), 'start_lr=0'),
    refused('start_lr text', lambda l: l.lr_find(start_lr='1e-7'), "start_lr='1e-7'"),
    refused('end_lr', lambda l: l.lr_find(end_lr=-1), 'end_lr=-1'),
    refused('end below start', lambda l: l.lr_find(1., .1), 'start_lr|end_lr'),
    refused('lr_find lists', lambda l: l.lr_find([1e-7]*3, 1.), 'start_lr|3|2'),
    # ---- the first batch -------------------------------------------------------------------------
    refused('label too large', lambda l: fit(l, data=data(y=Y+1)), 'label 3|3 outputs|0 to 2'),
    refused('label negative', lambda l: fit(l, data=data(y=Y-1)), 'label -1|3 outputs'),
    refused('label not ignored', lambda l: fit(l, data=data(y=Y.masked_fill(Y == 0, 255)), loss_func=nn.CrossEntropyLoss(ignore_index=254)), 'label 255'),
    refused('y (n,) for (n, 1)', lambda l: learner(l.path, data(y=LINE), net(1)).fit(1), '(16, 1) and (16,)|y[:, None]'),
    refused('y (n, 1) for labels', lambda l: fit(l, data=data(y=Y[:, None])), '(16, 3) and (16, 1)|y[:, 0]'),
    refused('numbers for labels', lambda l: fit(l, data=data(y=LINE), loss_func=F.cross_entropy), '(16, 3) and (16,)|float|long'),
    refused('labels for numbers', lambda l: learner(l.path, data(y=Y), net(1), loss_func=nn.BCEWithLogitsLoss()).fit(1), '(16, 1) and (16,)'),
    refused('outputs for numbers', lambda l: fit(l, data=data(y=torch.zeros(48, 2)), loss_func=F.mse_loss), '(16, 3) and (16, 2)|mse_loss'),
    refused('features of x', lambda l: fit(l, data=data(torch.zeros(48, 5))), '(16, 5)|Linear'),
    refused('x not flat', lambda l: fit(l, data=data(torch.zeros(48, 2, 2))), '(16, 2, 2)'),
    refused('x float64', lambda l: fit(l, data=data(X.double())), 'float64|float32|x.to('),
    refused('x of labels', lambda l: fit(l, data=data(torch.zeros(48, 4, dtype=torch.long))), 'int64|float'),
    refused('x bytes', lambda l: fit(l, data=data(torch.zeros(48, 4, dtype=torch.uint8))), 'uint8|float'),
    refused('x complex', lambda l: fit(l, data=data(torch.zeros(48, 4, dtype=torch.complex64))), 'complex64|float32'),
    refused('batch of three', lambda l: fit(l, data=batches(X, X, Y)), 'tuple of 3|((a, b), y)'),
    refused('batch of one', lambda l: fit(l, data=batches(X)), 'tuple of 1|(xb, yb)'),
    refused('batch a tensor', lambda l: fit(l, data=DataBunch(DataLoader(X, 16), device='cpu')), 'Tensor|TensorDataset(x, y)'),
    refused('batch a dict', lambda l: fit(l, data=DataBunch([dict(x=X, y=Y)], device='cpu')), 'dict|(xb, yb)'),
    refused('batch of texts', lambda l: fit(l, data=batches(['one', 'two'], Y[:2])), 'texts|Linear'),
    refused('y None', lambda l: fit(l, data=batches(X, None)), 'None'),
    refused('two inputs for one', lambda l: fit(l, data=batches((X, X), Y)), '2 inputs|Sequential'),
    refused('named inputs', lambda l: fit(l, data=batches(dict(image=X), Y)), 'image|Sequential'),
    refused('loss not one number', lambda l: fit(l, loss_func=partial(F.cross_entropy, reduction='none')), 'loss|(16,)|one number'),
    refused('loss a float', lambda l: fit(l, loss_func=lambda p, y: 3.), 'loss|3.0|tensor'),
    refused('loss None', lambda l: fit(l, loss_func=lambda p, y: None), 'loss|None|tensor'),
    refused('loss without a graph', lambda l: fit(l, loss_func=lambda p, y: F.cross_entropy(p.detach(), y)), 'loss|gradient'),
    refused('loss of one argument', lambda l: fit(l, loss_func=lambda p: p.sum()), 'loss'),
    refused('no loss', lambda l: fit(l, loss_func=None), 'loss'),
    refused('nothing to train', lambda l: learner(l.path, model=nn.Flatten()).fit(1), 'parameters'),
    refused('no length', lambda l: fit(l, verb='fit_one_cycle', data=DataBunch(DataLoader(Endless(), 16), device='cpu')), 'length'),
    refused('no length, flat', lambda l: fit(l, verb='fit_flat_cos', data=DataBunch(DataLoader(Endless(), 16), device='cpu')), 'length'),
    # ---- files and questions ---------------------------------------------------------------------
    *[refused(f'{verb} {bad!r}', lambda l, verb=verb, bad=bad: getattr(l, verb)(bad), words)
      for verb in ('save', 'load') for bad, words in (('../out', 'would leave'), ('', 'name'), (3, 'name=3'), ('/tmp/x', 'would leave'))],
    refused('load another network', lambda l: [learner(l.path, model=net(5)).save('other'), l.load('other')], 'another architecture|1.weight|(5, 8)|(3, 8)'),
    refused('load nothing', lambda l: l.load('nothing'), 'nothing.pth', FileNotFoundError),
    refused('validate without', lambda l: fit(l, verb='validate', data=from_tensors(X, Y)) if 0 else [instead(l), learner(l.path, from_tensors(X, Y)).validate()], 'validation loader|dl='),
    refused('validate shape', lambda l: l.validate([(torch.zeros(4, 5), Y[:4])]), '(4, 5)'),
    refused('validate number', lambda l: l.validate(3), 'dl=3'),
    refused('validate empty', lambda l: l.validate([]), 'dl=[]'),
    refused('validate metric', lambda l: l.validate(metrics='acc'), "'acc'"),
    refused('get_preds shape', lambda l: l.get_preds(torch.zeros(4, 5)), '(5,)|(4,)'),
    refused('get_preds text', lambda l: l.get_preds('test'), "'test'"),
    refused('get_preds without loss', lambda l: l.get_preds(X, with_loss=True), 'with_loss|targets'),
    refused('probabilities', lambda l: learner(l.path, data(y=LINE[:, None]), net(1)).get_preds(probabilities=True), 'probabilities'),
    refused('predict batch', lambda l: l.predict(X[:2]), '(2, 4)|(4,)'),
    refused('predict shape', lambda l: l.predict(torch.zeros(5)), '(5,)|(4,)'),
    refused('predict text', lambda l: l.predict('cat.png'), "'cat.png'"),
    refused('predict None', lambda l: l.predict(None), 'None'),
    refused('export name', lambda l: l.export('model.bin'), 'model.bin|.pt2'),
    refused('export number', lambda l: l.export(3), '3'),
    refused('clip_grad', lambda l: l.clip_grad(-1), 'clip=-1'),
    refused('clip_grad text', lambda l: l.clip_grad('1'), "clip='1'"),
    refused('mixup', lambda l: l.mixup(0), 'alpha=0'),
    refused('mixup negative', lambda l: l.mixup(-.4), 'alpha=-0.4'),
    refused('add_cbs', lambda l: l.add_cbs(3), '3'),
    # ---- callbacks -------------------------------------------------------------------------------
    *[refused(f'{kind.__name__} {kwargs}', lambda l, kind=kind, kwargs=kwargs: fit(l, cbs=kind(**kwargs)), words)
      for kind, kwargs, words in (
        (EarlyStoppingCallback, dict(monitor='val_loss'), "'val_loss'|valid_loss"),
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
        (MixUpCallback, dict(alpha='x'), "alpha='x'"),
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
        (ParamScheduler, dict(pname='rate', sched_funcs=lambda p: p), "'rate'|lr"),
        (TerminateOnNaNCallback, dict(n_batches=0), 'n_batches=0'),
        (LRFinder, dict(num_it=3), 'num_it=3'),
        (ShortEpoch, dict(pct=2), 'pct=2'),
        (RemoteMonitor, dict(root='localhost:9000'), "'localhost:9000'|http"),
        (RemoteMonitor, dict(timeout=0), 'timeout=0'),
        (LambdaCallback, dict(on_epoch_end=3), 'on_epoch_end|3'),
        (AvgStatsCallback, dict(metrics='acc'), "'acc'"),
        (TensorBoardCallback, dict(log_dir=3), 'log_dir=3'),
    )],
    refused('combined fractions', lambda l: combine_scheds([.3, .3], [SchedCos(0, 1)]*2), 'pcts|0.6|1'),
    refused('combined negative', lambda l: combine_scheds([-.3, 1.3], [SchedCos(0, 1)]*2), 'pcts|-0.3'),
    refused('combined lengths', lambda l: combine_scheds([.3, .7], [SchedCos(0, 1)]), 'pcts|2|1'),
    refused('combined text', lambda l: combine_scheds(['a', .7], [SchedCos(0, 1)]*2), "'a'"),
    # ---- Keras -----------------------------------------------------------------------------------
    *[refused(f'keras fit {kwargs}', lambda l, kwargs=kwargs: KERAS.fit(**dict(x=EX, y=EY, verbose=0) | kwargs), words)
      for kwargs, words in (
        (dict(batch_size=0), 'batch_size=0'), (dict(batch_size='32'), "batch_size='32'"),
        (dict(epochs=-1), 'epochs|-1'), (dict(epochs=1.5), 'epochs|1.5'), (dict(epochs='3'), "epochs|'3'"),
        (dict(y=EY[:9]), '48|9'), (dict(y=None), 'y'), (dict(x=EX[:0], y=EY[:0]), 'x'),
        (dict(validation_split=1.5), 'validation_split=1.5'), (dict(validation_split=-.1), 'validation_split=-0.1'),
        (dict(validation_data=EX), 'validation_data'), (dict(validation_data=(EX,)), 'validation_data'),
        (dict(initial_epoch=-1), 'initial_epoch=-1'), (dict(steps_per_epoch=0), 'steps_per_epoch=0'),
        (dict(verbose='loud'), "verbose='loud'"), (dict(callbacks=[3]), 'callbacks|3'), (dict(callbacks='csv'), "callbacks|'csv'"),
        (dict(y=EY+5), 'label'), (dict(x=np.zeros((48, 5), 'f')), '(32, 5)'),
        (dict(x=['a', 'b'], y=[0, 1]), 'x'), (dict(class_weight=3), 'class_weight'))],
    *[refused(f'keras compile {kwargs}', lambda l, kwargs=kwargs: keras.models.Sequential([nn.Linear(4, 3)]).compile(**kwargs), words)
      for kwargs, words in (
        (dict(optimizer='adm'), "optimizer='adm'|adam"), (dict(optimizer=3), 'optimizer|3'),
        (dict(loss='mean_square_error'), "loss='mean_square_error'|mean_squared_error"), (dict(loss=3), 'loss|3'),
        (dict(loss='mse', metrics=['acuracy']), "'acuracy'|accuracy"), (dict(loss='mse', metrics=[3]), 'metric|3'))],
    refused('keras not compiled', lambda l: keras.models.Sequential([nn.Linear(4, 3)]).fit(EX, EY), 'compile'),
    refused('keras predict shape', lambda l: KERAS.predict(np.zeros((3, 5), 'f')), '(3, 5)'),
    refused('keras predict bs', lambda l: KERAS.predict(EX, batch_size=0), 'batch_size=0'),
    refused('keras evaluate lengths', lambda l: KERAS.evaluate(EX, EY[:3]), '48|3'),
    refused('keras evaluate shape', lambda l: KERAS.evaluate(np.zeros((3, 5), 'f'), EY[:3]), '(3, 5)'),
    refused('keras early stopping', lambda l: keras_callbacks.EarlyStopping(mode='biggest'), "mode='biggest'|max"),
    refused('keras load', lambda l: KERAS.load_weights('nothing.weights.h5'), 'nothing', (FileNotFoundError, ValueError)),
]

def words_in(words, text): return [o for o in words if o not in text]

@pytest.mark.parametrize('call, words, error', rows)
def test_refused(call, words, error, tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, lr=.1)
    before = state_of(learn)
    with pytest.raises(error) as caught: call(learn)
    after = state_of(learn)
    lacks, changed = words_in(words, str(caught.value)), [k for k in before if before[k] != after[k]]
    changed = [k for k in changed if not (k == 'files' and 'other.pth' in str(after[k]))]
    assert not lacks and not changed, (lacks, changed, str(caught.value))
    learn.fit(1)
    assert len(learn.recorder.values) == 1 and learn.recorder.values[0][0] > 0
