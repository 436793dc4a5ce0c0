"""Callbacks as people publish them for fastai v2, miniai and the course, but for the import line

Those of miniai and of the course run beside a loop as short as theirs; those of fastai v2 run here
by themselves, and beside the real library in `peers/test_peers_public.py`.
"""
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastloop.adapters.miniai as miniai
from fastloop.callback.core import written_for
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner

same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
folder = Path(__file__).parent/'public'


def read(file, star):
    "The names of a file of callbacks, read after an import line"
    space = {'__name__': f'public_{file}'}
    exec(f'{star}\n{(folder/file).with_suffix(".py").read_text()}', space)
    return space


def problem(n_parts=2):
    "A model and two loaders, the same each time"
    torch.manual_seed(0)
    x, y = torch.randn(40, 2), torch.randn(40, 1)
    parts = [o.split(8) for o in (x, y)]
    train = list(zip(*parts)) if n_parts == 2 else list(zip(x.split(8), (x*2).split(8), y.split(8)))
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    return model, train, train[:2]


# ---- miniai --------------------------------------------------------------------------------------
class CancelBatchException(Exception): pass
class CancelEpochException(Exception): pass
class CancelFitException(Exception): pass


class Base: order = 0


class MiniTrainCB(Base):
    def __init__(self, n_inp=1): self.n_inp = n_inp
    def predict(self, learn): learn.preds = learn.model(*learn.batch[:self.n_inp])
    def get_loss(self, learn): learn.loss = learn.loss_func(learn.preds, *learn.batch[self.n_inp:])
    def backward(self, learn): learn.loss.backward()
    def step(self, learn): learn.opt.step()
    def zero_grad(self, learn): learn.opt.zero_grad()


MiniTrainCB.__name__ = 'TrainCB'


class Mini:
    "A loop as the notebooks of miniai build it, in few lines"
    def __init__(self, model, train, valid, loss_func, lr, cbs):
        self.model, self.loss_func, self.lr, self.cbs = model, loss_func, lr, cbs
        self.dls = type('Dls', (), dict(train=train, valid=valid))()

    def tell(self, name):
        for cb in sorted(self.cbs, key=lambda o: o.order):
            if (method := getattr(cb, name, None)) is not None: method(self)

    def phase(self, name, error, work):
        try:
            self.tell(f'before_{name}')
            work()
            self.tell(f'after_{name}')
        except error: pass
        finally: self.tell(f'cleanup_{name}')

    def fit(self, n_epochs, train=True, valid=True):
        self.n_epochs, self.epochs = n_epochs, range(n_epochs)
        self.opt = torch.optim.SGD(self.model.parameters(), self.lr)
        def all_epochs():
            for self.epoch in self.epochs:
                if train: self.one_epoch(True)
                if valid: self.one_epoch(False)
        self.phase('fit', CancelFitException, all_epochs)

    def one_epoch(self, training):
        self.training = training
        self.model.train(training)
        self.dl = self.dls.train if training else self.dls.valid
        def all_batches():
            for self.iter, self.batch in enumerate(self.dl):
                self.phase('batch', CancelBatchException, self.one_batch)
        with torch.set_grad_enabled(training):
            self.phase('epoch', CancelEpochException, all_batches)

    def one_batch(self):
        for o in ('predict', 'after_predict', 'get_loss', 'after_loss'): self.tell(o)
        if not self.training: return
        for o in ('backward', 'after_backward', 'step', 'after_step', 'zero_grad'): self.tell(o)


ours = read('miniai', 'from fastloop.adapters.miniai import *')
names_of_theirs = dict(Callback=Base, TrainCB=MiniTrainCB, torch=torch, partial=partial,
                       math=__import__('math'), CancelBatchException=CancelBatchException,
                       CancelEpochException=CancelEpochException,
                       CancelFitException=CancelFitException)
theirs = dict(names_of_theirs)
exec((folder/'miniai.py').read_text(), theirs)


@pytest.mark.parametrize('name', list(ours['made']))
def test_miniai(name):
    mine, yours = (o['made'][name]() for o in (ours, theirs))
    assert written_for(mine) == 'miniai'
    model, train, valid = problem()
    other, _, _ = problem()
    dls = miniai.data_loaders(train, valid)
    learn = miniai.Learner(model, dls, F.mse_loss, lr=.05, cbs=[mine])
    learn.fit(3)
    loop = isinstance(yours, MiniTrainCB)
    cbs = [yours] if loop else [MiniTrainCB(), yours]
    Mini(other, train, valid, F.mse_loss, .05, cbs).fit(3)
    for a, b in zip(model.parameters(), other.parameters()): same(a, b)
    assert getattr(mine, 'left', None) == getattr(yours, 'left', None)


def test_a_batch_of_three_parts_and_a_model_of_two_inputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(2, 1)
        def forward(self, a, b): return self.layer(a+b)
    _, train, valid = problem(3)
    model, other = Both(), Both()
    dls = miniai.data_loaders(train, valid)
    learn = miniai.MiniaiLearner(model, dls, cbs=miniai.TrainCB(n_inp=2))
    learn.fit(2)
    Mini(other, train, valid, F.mse_loss, .1, [MiniTrainCB(2)]).fit(2)
    same(model.layer.weight, other.layer.weight)
    assert len(learn.batch) == 3 and learn.preds.shape == (8, 1) and not learn.preds.requires_grad


def test_a_pair_is_the_one_input_of_a_model_that_takes_one():
    class OnePair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)
        def forward(self, pair): return self.layer(pair[0]*pair[1])
    seen = []

    class Look:
        def before_batch(self, learn): seen.append((len(learn.batch), len(learn.batch[0])))
    _, train, _ = problem()
    train = [((x, torch.ones(len(x), 1)), y) for x, y in train]
    Learner(DataBunch(train, train), OnePair(), F.mse_loss, silent=True).fit(1, cbs=[Look()])
    assert set(seen) == {(2, 2)}


def test_a_fit_may_only_measure_or_only_train():
    for train, valid in ((True, False), (False, True), (False, False)):
        found = []
        for cb, base in ((ours['FewerEpochs'](), None), (theirs['FewerEpochs'](), MiniTrainCB())):
            model, tr, va = problem()
            before = model[0].weight.clone()
            if base is None:
                miniai.Learner(model, miniai.data_loaders(tr, va), cbs=cb).fit(3, train, valid)
            else: Mini(model, tr, va, F.mse_loss, .1, [base, cb]).fit(3, train, valid)
            found.append(cb.left)
            assert torch.equal(before, model[0].weight) != train
        assert found[0] == found[1]


def test_epochs_that_are_no_numbers_in_a_row_are_refused():
    class Twice:
        def before_fit(self, learn): learn.epochs = [0, 0, 1]
    model, train, valid = problem()
    learn = miniai.Learner(model, miniai.data_loaders(train, valid))
    with pytest.raises(ValueError, match='in a row'): learn.fit(2, cbs=[Twice()])
    learn.fit(1)  # and the learner is as it was
    assert learn.run.n_iter == 5


# ---- the course ----------------------------------------------------------------------------------
class CourseBase:
    _order = 0
    def __getattr__(self, name): return getattr(self.__dict__['run'], name)
    def __call__(self, name): return bool((f := getattr(type(self), name, None)) and f(self))


class CancelTrainException(Exception): pass


class CourseOpt(torch.optim.SGD):
    hypers = property(lambda self: self.param_groups)


class Course:
    "A loop as the lessons of the course build it, in few lines"
    logger = print

    def __init__(self, model, data, loss_func, lr, cbs):
        self.model, self.data, self.loss_func, self.cbs = model, data, loss_func, cbs
        self.opt = CourseOpt(model.parameters(), lr)
        for cb in cbs: cb.run = self

    def __call__(self, name):
        return [cb(name) for cb in sorted(self.cbs, key=lambda o: o._order)]

    def fit(self, epochs):
        self.epochs, self.n_iter, self.n_epochs = epochs, 0, 0.
        try:
            self('begin_fit')
            for self.epoch in range(epochs):
                self.dl, self.in_train, self.n_epochs = self.data.train_dl, True, float(self.epoch)
                self.model.train()
                self('begin_epoch')
                self.all_batches()
                self.dl, self.in_train = self.data.valid_dl, False
                self.model.eval()
                self('begin_validate')
                with torch.no_grad(): self.all_batches()
                self('after_epoch')
        except CancelTrainException: self('after_cancel_train')
        finally: self('after_fit')

    def all_batches(self):
        self.iters = len(self.dl)
        for self.iter, (self.xb, self.yb) in enumerate(self.dl): self.one_batch()

    def one_batch(self):
        try:
            self('begin_batch')
            self.pred = self.model(self.xb)
            self('after_pred')
            self.loss = self.loss_func(self.pred, self.yb)
            self('after_loss')
            if not self.in_train: return
            self.loss.backward()
            self('after_backward')
            self.opt.step()
            self('after_step')
            self.opt.zero_grad()
        except CancelBatchException: self('after_cancel_batch')
        finally:
            if self.in_train: self.n_iter, self.n_epochs = self.n_iter+1, self.n_epochs+1/self.iters
            self('after_batch')


course = read('course', 'from fastloop.adapters.course import *')
lesson = dict(Callback=CourseBase, CancelTrainException=CancelTrainException, nn=nn,
              CancelBatchException=CancelBatchException)
exec((folder/'course.py').read_text(), lesson)
there = set('begin_fit begin_epoch begin_batch after_pred after_loss after_backward after_step '
            'after_batch begin_validate after_epoch after_fit'.split())


@pytest.mark.parametrize('name', list(course['made']))
def test_the_course(name, capsys):
    mine, yours = (o['made'][name]() for o in (course, lesson))
    assert written_for(mine) == 'fastloop'
    (model, train, valid), (other, _, _) = problem(), problem()
    data = DataBunch(train, valid)
    reference = Course(other, data, F.mse_loss, .05, [yours])
    reference.fit(2)
    printed = capsys.readouterr().out
    learn = course['Learner'](model, data, F.mse_loss, lr=.05, cbs=mine)
    learn.fit(2)
    assert capsys.readouterr().out == printed
    for a, b in zip(model.parameters(), other.parameters()): same(a, b)
    left = getattr(mine, 'left', None)
    if name == 'Debug': left = [o for o in left if o in there]
    assert left == getattr(yours, 'left', None)


def test_the_course_prints_what_its_callbacks_print(capsys):
    model, train, valid = problem()
    stats = course['AvgStatsCallback'](lambda pred, yb: (pred-yb).abs().mean())
    learn = course['Learner'](model, DataBunch(train, valid), F.mse_loss, lr=.05, cbs=stats)
    learn.fit(2)
    said = capsys.readouterr().out.splitlines()
    assert [o[:7] for o in said] == ['train: ', 'valid: ']*2


def test_the_course_finds_a_rate_with_its_own_arguments():
    model, train, valid = problem()
    before = [p.clone() for p in model.parameters()]
    find = course['LR_Find'](max_iter=8, min_lr=1e-4, max_lr=1)
    learn = course['Learner'](model, DataBunch(train, valid), F.mse_loss, lr=.05, cbs=find)
    learn.fit(8)
    assert find.lrs == pytest.approx([1e-4*(1/1e-4)**(i/8) for i in range(8)])
    for a, b in zip(model.parameters(), before): same(a, b)


# ---- fastai v2, without fastai -------------------------------------------------------------------
v2 = read('v2', 'from fastloop.adapters.fastai2 import *')


@pytest.mark.parametrize('name', list(v2['made']))
def test_fastai_v2(name):
    cb = v2['made'][name]()
    assert written_for(cb) == 'fastai v2'
    torch.manual_seed(0)
    x, y = torch.randn(24, 4), torch.arange(24) % 3
    train = list(zip(x.split(8), y.split(8)))
    learn = v2['Learner'](DataBunch(train, train[:2]), nn.Sequential(nn.Linear(4, 3)),
                          nn.CrossEntropyLoss(), silent=True)
    learn.fit(2, cbs=cb)
    assert getattr(cb, 'left', True) not in ([], None) or name == 'SkipBadBatches'


def test_every_name_of_every_star_is_there():
    from importlib import import_module
    for name in ('course', 'fastai2', 'miniai'):
        module = import_module(f'fastloop.adapters.{name}')
        assert all(getattr(module, o) is not None for o in module.__all__)
        with pytest.raises(AttributeError, match='nothing_like_it'): module.nothing_like_it()


# ---- subclasses of the learners ------------------------------------------------------------------
class MomentumLearner(miniai.TrainLearner):
    "As miniai's notebook on accelerated descent has it, but for the base class"
    def __init__(self, model, dls, loss_func, lr=None, cbs=None, opt_func=torch.optim.SGD, mom=.85):
        self.mom = mom
        super().__init__(model, dls, loss_func, lr, cbs, opt_func)
    def zero_grad(self):
        with torch.no_grad():
            for p in self.model.parameters(): p.grad *= self.mom


class OwnParts(miniai.Learner):
    "Overrides all parts, some by way of those of the base class"
    def predict(self):
        self.batch = self.batch[0]+.5, self.batch[1]
        self.preds = self.model(self.batch[0])*2
    def get_loss(self):
        super().get_loss()
        self.loss = self.loss + self.preds.abs().mean()
    def backward(self): (self.loss*3).backward()
    def step(self):
        for p in self.model.parameters(): p.grad /= 2
        super().step()
    def zero_grad(self): super().zero_grad()


class Asked(miniai.Learner):
    "Looks, and leaves everything to the base class"
    def predict(self):
        self.seen = [*getattr(self, 'seen', []), (self.training, self.iter, len(self.batch))]
        super().predict()


def by_hand(learn, model, train, lr, epochs=2):
    "What the learner is to do, written out"
    opt = torch.optim.SGD(model.parameters(), lr)
    own = isinstance(learn, OwnParts)
    for x, y in train*epochs:
        pred = model(x+.5)*2 if own else model(x)
        loss = F.mse_loss(pred, y)
        ((loss+pred.abs().mean())*3 if own else loss).backward()
        for p in model.parameters(): p.grad /= 2 if own else 1
        opt.step()
        for p in model.parameters(): p.grad *= .85 if isinstance(learn, MomentumLearner) else 0


@pytest.mark.parametrize('kind', [MomentumLearner, OwnParts, Asked])
@pytest.mark.parametrize('cbs', [(), [ours['Momentum'](), miniai.TrainCB()]])
def test_what_a_subclass_of_miniais_learner_overrides_is_done(kind, cbs):
    (model, train, valid), (other, _, _) = problem(), problem()
    learn = kind(model, miniai.data_loaders(train, valid), F.mse_loss, cbs=cbs[kind is Asked:])
    learn.fit(2, lr=.05)
    by_hand(learn, other, train, .05)
    for a, b in zip(model.parameters(), other.parameters()): same(a, b)
    assert learn.batch[0].shape == (8, 2) and learn.preds.shape == (8, 1)
    rows = [(True, i, 2) for i in range(5)] + [(False, i, 2) for i in range(2)]
    assert getattr(learn, 'seen', rows*2) == rows*2
    assert not {'ask', 'compute_loss', 'backward_and_step', 'one_batch'} & vars(learn.run).keys()


def test_a_part_of_the_learner_may_break_off_a_pass_and_needs_a_rate():
    class Two(miniai.Learner):
        def predict(self):
            if self.iter == 2: raise CancelEpochException
            super().predict()
    model, train, valid = problem()
    learn = Two(model, miniai.data_loaders(train, valid), lr=None)
    with pytest.raises(ValueError, match='learning rate'): learn.fit(1)
    learn.fit(2, lr=.1)
    assert learn.run.n_iter == 4 and len(learn.recorder.values) == 2


def test_a_miniai_learner_without_overrides_uses_the_loop_as_it_is():
    model, train, valid = problem()
    learn = miniai.Learner(model, miniai.data_loaders(train, valid))
    own = []

    class Look(miniai.Callback):
        def begin_batch(self): own.append(vars(self.run).keys() & {'ask', 'one_batch', '_parts'})
    learn.fit(1, cbs=[Look()])
    assert own == [set()]*7 and len(learn.predict(torch.zeros(2))) == 3


# ---- what the stars bring along ------------------------------------------------------------------
def test_a_device_is_a_word_and_batches_come_to_the_cpu():
    assert miniai.def_device in ('cpu', 'cuda', 'mps')
    names = {}
    exec('''
from fastloop.adapters.miniai import *
class DeviceCB(Callback):
    def __init__(self, device=def_device): fc.store_attr()
    def before_fit(self, learn):
        if hasattr(learn.model, 'to'): learn.model.to(self.device)
    def before_batch(self, learn): learn.batch = to_device(learn.batch, device=self.device)
''', names)
    for kind in (names['DeviceCB'], miniai.DeviceCB):
        model, train, valid = problem()
        cb = kind()
        miniai.Learner(model, miniai.data_loaders(train, valid), cbs=cb).fit(1)
        assert cb.device == miniai.def_device
        assert {o.device.type for o in model.parameters()} == {cb.device}
    half = torch.ones(2, requires_grad=True).half()
    a, (b, c) = miniai.to_cpu([half, (half.float(), {'x': half})])
    assert a.dtype == c['x'].dtype == torch.float32 and not b.requires_grad


def test_the_callbacks_that_files_of_miniai_begin_with(capsys):
    class Off(list):
        "A metric object: the mean distance"
        def reset(self): self.clear()
        def update(self, pred, y): self.append(((pred-y).abs().sum().item(), len(y)))
        def compute(self): return sum(a for a, _ in self)/sum(n for _, n in self)

    model, train, valid = problem()
    other, _, _ = problem()
    rows, both = [], miniai.MetricsCB(Off(), mae=Off())
    both._log = rows.append
    sched = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=.5)
    rec = miniai.RecorderCB(lr=lambda cb: cb.pg['lr'])
    cbs = [both, rec, miniai.BatchSchedCB(sched),
           miniai.BatchTransformCB(lambda b: (b[0]+1, b[1]), on_val=False)]
    learn = miniai.MomentumLearner(model, miniai.data_loaders(train, valid), F.mse_loss, cbs=cbs)
    learn.fit(1, lr=.1)
    opt, found = torch.optim.SGD(other.parameters(), .1), []
    for i, (x, y) in enumerate(train):
        opt.param_groups[0]['lr'] = .1*.5**i
        pred = other(x+1)
        loss = F.mse_loss(pred, y)
        loss.backward()
        opt.step()
        for p in other.parameters(): p.grad *= .85
        found.append((loss.item(), (pred-y).abs().mean().item()))
    for a, b in zip(model.parameters(), other.parameters()): same(a, b)
    loss, mae = (f'{sum(o)/5:.3f}' for o in zip(*found))
    assert rows[0] == dict(mae=mae, Off=mae, loss=loss, epoch=0, train='train')
    assert rows[1]['train'] == 'eval'
    assert rec.recs['lr'] == pytest.approx([.1*.5**i for i in range(5)])


def test_one_batch_and_the_rates_of_the_finder():
    model, train, valid = problem()
    learn = miniai.Learner(model, miniai.data_loaders(train, valid), cbs=miniai.SingleBatchCB())
    learn.fit(3)
    assert learn.run.n_iter == 1
    mine, yours = miniai.LRFinderCB(2., 3), theirs['FindRate'](2., 3.)
    (model, _, _), (other, _, _) = problem(), problem()
    miniai.Learner(model, miniai.data_loaders(train, valid), lr=.05, cbs=mine).fit(9)
    Mini(other, train, valid, F.mse_loss, .05, [MiniTrainCB(), yours]).fit(9)
    assert [round(o, 5) for o in mine.lrs] == [o[0] for o in yours.left[:-1]]


@pytest.mark.parametrize('star', ['fastai2', 'miniai', 'course'])
@pytest.mark.parametrize('name', ['_do_one_batch', '_step', '_backward', 'one_batch', '_split'])
def test_a_learner_that_overrides_a_part_that_is_not_there_is_refused(star, name):
    from importlib import import_module
    base = import_module(f'fastloop.adapters.{star}').Learner
    own = type('Own', (base,), {name: lambda self, *args: None})
    model, train, valid = problem()
    data = DataBunch(train, valid)
    args = (data, model) if star == 'fastai2' else (model, data)
    with pytest.raises(TypeError, match=f'Own.{name} would never be called.*Runner'):
        own(*args, F.mse_loss)
    base(*args, F.mse_loss)


fetching = '''
class Fetch(Callback):
    "Keeps what the model says of a loader after each validation"
    remove_on_fetch = True
    def __init__(self, ds_idx=1, reorder=True): self.ds_idx, self.reorder = ds_idx, reorder
    def after_validate(self):
        others = [cb for cb in self.learn.cbs if getattr(cb, 'remove_on_fetch', False)]
        with self.learn.removed_cbs(others):
            self.preds = self.learn.get_preds(ds_idx=self.ds_idx, inner=True, reorder=self.reorder)
'''


@pytest.mark.parametrize('without', ['remove_on_fetch = True', ', inner=True, reorder=self.reorder',
                                     'nothing'])
def test_a_callback_that_fetches_predictions_in_the_words_of_v2(without):
    space = {'__name__': 'published'}
    exec('from fastloop.adapters.fastai2 import *' + fetching.replace(without, ''), space)
    cb = space['Fetch'](ds_idx=0)
    assert written_for(cb) == 'fastai v2'
    model, train, valid = problem()
    Learner(DataBunch(train, valid), model, F.mse_loss, silent=True).fit(2, cbs=cb)
    with torch.no_grad(): same(cb.preds[0], torch.cat([model(x) for x, _ in train]))


def test_a_callback_that_asks_in_our_words_stays_ours():
    class Ask(miniai.Callback):
        def after_validate(self): self.preds = self.learn.get_preds(dl=self.data.train_dl)

    class Sort(miniai.Callback):
        def after_validate(self): self.found = dict(inner=1, reorder=2)
    assert [written_for(o) for o in (Ask(), Sort())] == ['fastloop']*2


mixing = '''
from torch.distributions.beta import Beta

class Mix(Callback):
    "Mixes each batch with itself in another order, and the losses likewise"
    run_valid = False
    def __init__(self, alpha=.4):
        self.distrib, self.weights = Beta(tensor(alpha), tensor(alpha)), []
    def before_train(self): self.old, self.learn.loss_func = self.learn.loss_func, self.loss_of
    def after_train(self): self.learn.loss_func = self.old
    def after_cancel_train(self): self.after_train()
    def before_batch(self):
        self.lam = self.distrib.sample((self.y.size(0),))
        self.weights.append(to_np(self.lam))
        mixed = L(self.xb).map(lambda x: torch.lerp(x.flip(0), x, unsqueeze(self.lam, n=1)))
        self.learn.xb, self.other = tuple(mixed), tuple(y.flip(0) for y in self.yb)
    def loss_of(self, pred, *yb):
        if not self.training: return self.old(pred, *yb)
        with NoneReduce(self.old) as lf:
            loss = torch.lerp(lf(pred, *self.other), lf(pred, *yb), self.lam)
        return reduce_loss(loss, getattr(self.old, 'reduction', 'mean'))
'''


@pytest.mark.parametrize('loss_func', [F.cross_entropy, nn.CrossEntropyLoss(reduction='sum')])
def test_a_mixing_callback_of_v2_finds_its_helpers(loss_func):
    space = {'__name__': 'published'}
    exec('from fastloop.adapters.fastai2 import *' + mixing, space)
    torch.manual_seed(0)
    train = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(3)]
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    cb = space['Mix']()
    learn = Learner(DataBunch(train, train[:2]), model, loss_func, opt_func=torch.optim.SGD,
                    lr=.05, wd=0., silent=True)
    learn.fit(2, cbs=cb)
    opt, total = torch.optim.SGD(other.parameters(), .05), torch.mean
    if loss_func is not F.cross_entropy: total = torch.sum
    for w, (x, y) in zip(map(torch.tensor, cb.weights), train*2, strict=True):
        pred = other(w[:, None]*x + (1-w[:, None])*x.flip(0))
        each = [F.cross_entropy(pred, o, reduction='none') for o in (y, y.flip(0))]
        total(w*each[0] + (1-w)*each[1]).backward()
        opt.step()
        opt.zero_grad()
    same(model.weight, other.weight)
    assert learn.loss_func is loss_func and space['pd'].DataFrame({'a': [1]}).shape == (1, 1)
    with space['hook_output'](other) as hook: other(x)
    same(hook.stored, other(x).detach())


def test_two_callbacks_of_the_course_and_hooks_of_miniai():
    (model, train, valid), (other, _, _) = problem(), problem()
    cbs = [course['CudaCallback'](torch.device('cpu')),
           course['BatchTransformXCallback'](lambda x: x*2)]
    course['Learner'](model, DataBunch(train, valid), F.mse_loss, lr=.05, cbs=cbs).fit(1)
    opt = torch.optim.SGD(other.parameters(), .05)
    for x, y in train:
        F.mse_loss(other(x*2), y).backward()
        opt.step()
        opt.zero_grad()
    same(model[0].weight, other[0].weight)
    def keep(hook, layer, inp, out): hook.kept = out.detach()
    with miniai.Hooks(model, keep) as hooks: out = model(train[0][0])
    assert len(hooks) == 3 and torch.equal(hooks[2].kept, out.detach())
    assert not any(layer._forward_hooks for layer in model)
