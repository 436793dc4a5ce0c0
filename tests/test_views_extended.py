"""What code in the wild does with fastai v2, miniai, v1 and the course beyond their examples

Each case is compared with a loop by hand, or with what the source of the library says.
"""
import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

import fastloop.adapters.course as course
import fastloop.adapters.fastai2 as v2
import fastloop.adapters.miniai as mini
from fastloop.all import (
    SGD,
    AdamW,
    Callback,
    CancelBatchException,
    CheckpointCallback,
    DataBunch,
    Learner,
    LearnerCallback,
    OptimWrapper,
    accuracy,
)
from fastloop.callback.recorder import Recorder

same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)


def rows():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(8), x[:, :3].argmax(1).split(8)))


train = rows()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def learner(cbs=None, **kwargs):
    kwargs = dict(metrics=accuracy) | kwargs
    return Learner(DataBunch(train, train[:2], device='cpu'), net(), F.cross_entropy, SGD, cbs=cbs,
                   wd=0., silent=True, **kwargs)


def by_hand(steps, opt_func=torch.optim.SGD, model=None, loss_func=F.cross_entropy, **kwargs):
    "The weights after a loop as short as can be"
    model = net() if model is None else model
    opt = opt_func(model.parameters(), **kwargs)
    for i in range(steps):
        xb, yb = train[i % len(train)]
        loss_func(model(xb), yb).backward()
        opt.step()
        opt.zero_grad()
    return model


def check_weights(a, b): same(a.state_dict(), b.state_dict())


# ---- copies --------------------------------------------------------------------------------------
class Plain(Callback):
    def before_batch(self): self.seen = self.train_iter


class Mini(Callback):
    def before_fit(self, learn): self.learner = learn


@pytest.mark.parametrize('cb', [Plain, Mini])
def test_a_learner_that_has_met_them_can_be_copied(cb):
    learn = learner(cb())
    learn.fit(1, .1)
    for twin in (copy.deepcopy(learn), pickle.loads(pickle.dumps(learn))):
        check_weights(twin.model, learn.model)
        before = learn.model[0].weight.clone()
        twin.fit(1, .1)
        assert torch.equal(learn.model[0].weight, before)


# ---- optimizers ----------------------------------------------------------------------------------
@pytest.mark.parametrize('opt_func', [partial(torch.optim.SGD, weight_decay=.5), torch.optim.AdamW])
@pytest.mark.parametrize('kind', ['miniai', 'course'])
def test_the_decay_of_the_optimizer_is_kept(kind, opt_func):
    if kind == 'miniai':
        learn = mini.MiniaiLearner(net(), mini.data_loaders(train, train[:2]), F.cross_entropy,
                                   lr=.1, opt_func=opt_func)
    else: learn = course.CourseLearner(net(), DataBunch(train, train[:2]), F.cross_entropy,
                                       opt_func=opt_func, lr=.1)
    learn.fit(1)
    check_weights(learn.model, by_hand(5, opt_func, lr=.1))
    assert len(learn.opt.param_groups) == 1


def test_miniai_has_a_new_optimizer_in_each_fit():
    opt_func = partial(torch.optim.SGD, momentum=.9)
    learn = mini.MiniaiLearner(net(), mini.data_loaders(train, train[:2]), F.cross_entropy, lr=.1,
                               opt_func=opt_func)
    for _ in range(2): learn.fit(1)
    model = by_hand(5, opt_func, lr=.1)
    check_weights(learn.model, by_hand(5, opt_func, model, lr=.1))


def test_the_one_group_of_miniai_has_all_parameters():
    class Warm(mini.Callback):
        def before_batch(self, learn): learn.opt.param_groups[0]['lr'] = .05
    learn = mini.MiniaiLearner(net(), mini.data_loaders(train, train[:2]), F.cross_entropy, lr=.1,
                               cbs=Warm())
    learn.fit(1)
    check_weights(learn.model, by_hand(5, lr=.05))
    LambdaLR(learn.opt, [lambda epoch: .5])
    assert [o.shape for o in learn.opt.param_groups[0]['params']] == [
        o.shape for o in learn.model.parameters()]


@pytest.mark.parametrize('opt_func', [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, AdamW])
def test_a_learner_without_a_decay_of_its_own(opt_func):
    learn = Learner(DataBunch(train, device='cpu'), net(), F.cross_entropy, opt_func, wd=None,
                    silent=True)
    for _ in range(2): learn.fit(1, .01)
    check_weights(learn.model, by_hand(10, opt_func, lr=.01))


def test_another_optimizer_inside_the_wrapper():
    p = nn.Parameter(torch.ones(2))
    opt = OptimWrapper(torch.optim.SGD([p], .1))
    opt.opt = torch.optim.SGD([p], 1.)
    p.grad = torch.ones(2)
    opt.step()
    assert p.tolist() == [0., 0.] and opt.lr == 1.
    opt.lr = .5
    assert opt.opt.param_groups[0]['lr'] == .5
    other = OptimWrapper.create(torch.optim.SGD, .1, [nn.Linear(2, 2)], wd=.3, true_wd=True)
    opt.opt = other  # a wrapper is taken for what is in it
    assert (opt.lr, opt.wd, opt.true_wd) == (.1, .3, True)
    assert pickle.loads(pickle.dumps(opt)).wd == .3


def test_v1_exchanges_the_optimizer_inside():
    class Swap(LearnerCallback):
        def on_train_begin(self, **kwargs):
            self.learn.opt.opt = self.learn.opt.new([self.learn.model]).opt

        def on_batch_begin(self, **kwargs): self.learn.opt.lr = .5
    learn = learner()
    for _ in range(2): learn.fit(1, .1, callbacks=[Swap(learn)])
    assert learn.recorder.lrs == [.5]*5
    check_weights(learn.model, by_hand(10, lr=.5))


def test_v1_takes_turns_with_two_optimizers():
    "As a trainer of a GAN does: parts of a model with an optimizer each"
    class Turns(LearnerCallback):
        def on_train_begin(self, **kwargs):
            parts = self.learn.model[0], self.learn.model[2]
            self.opts = [self.learn.opt.new([o]) for o in parts]

        def on_batch_begin(self, num_batch, train, **kwargs):
            if train: self.learn.opt.opt = self.opts[num_batch % 2].opt
    learn = learner()
    learn.fit(1, .1, callbacks=[Turns(learn)])
    model = net()
    opts = [torch.optim.SGD(model[i].parameters(), .1) for i in (0, 2)]
    for i, (xb, yb) in enumerate(train):
        F.cross_entropy(model(xb), yb).backward()
        opts[i % 2].step()
        opts[i % 2].zero_grad()
    check_weights(learn.model, model)


# ---- what v2 records -----------------------------------------------------------------------------
def test_v2_metrics_see_what_callbacks_made_of_a_batch():
    class Right(Callback):
        def before_fit(self): pass
        def after_loss(self): self.learn.pred = F.one_hot(self.y, 3).float()
    learn = learner(Right())
    learn.fit(1, .1)
    assert learn.recorder.values[0][2] == 1.


def test_v2_losses_are_recorded_as_callbacks_left_them():
    class Twice(Callback):
        def before_fit(self): pass
        def after_loss(self): self.learn.loss = self.loss.detach()*2
    one, two = learner(Twice()), learner()
    for o in (one, two): o.fit(1, .1)
    same(torch.tensor(one.recorder.values[0][:2]), torch.tensor(two.recorder.values[0][:2])*2)
    check_weights(one.model, two.model)


def test_v2_a_batch_of_its_own_is_recorded():
    class Own(Callback):
        def before_batch(self):
            if not self.training: return
            loss = F.cross_entropy(self.model(self.x), self.y)
            loss.backward()
            self.opt.step()
            self.opt.zero_grad()
            self.learn.loss = loss.detach()
            raise CancelBatchException
    one, two = learner(Own()), learner()
    for o in (one, two): o.fit(1, .1)
    check_weights(one.model, two.model)
    same(torch.tensor(one.recorder.values), torch.tensor(two.recorder.values))
    assert len(one.recorder.lrs) == 5


def test_v2_a_model_that_computes_its_loss():
    class Keeps(Callback):
        def before_batch(self): self.kept, self.learn.yb = self.yb, ()

        def after_pred(self):
            self.learn.loss_grad = F.cross_entropy(self.pred, *self.kept)
            self.learn.loss = self.loss_grad.clone()

        def after_loss(self): self.learn.yb = self.kept
    one, two = learner(Keeps()), learner()
    for o in (one, two): o.fit(2, .1)
    check_weights(one.model, two.model)
    same(torch.tensor(one.recorder.values), torch.tensor(two.recorder.values))


def test_v2_metrics_that_a_callback_adds():
    def one(pred, yb): return torch.tensor(1.)
    class Adds(Callback):
        def before_fit(self): self.learn.metrics = [*self.learn.metrics, one]
    learn = learner(Adds())
    learn.fit(1, .1)
    assert learn.recorder.names[-1] == 'one' and learn.recorder.values[0][-1] == 1.
    assert len(learn.recorder.values[0]) == 4


def test_v2_the_log_of_an_epoch_under_way():
    class Logs(Callback):
        order = 61
        def before_fit(self): self.logs = []
        def after_train(self): self.logs.append(list(self.recorder.log))
        def after_validate(self): self.logs.append(list(self.recorder.log))
    learn = learner(cb := Logs())
    learn.fit(2, .1)
    rows = learn.recorder.values
    assert cb.logs == [[0, rows[0][0]], [0, *rows[0]], [1, rows[1][0]], [1, *rows[1]]]


# ---- v2's metrics --------------------------------------------------------------------------------
class Accuracy(v2.Metric):
    def __init__(self): self.reset()
    def reset(self): self.right = self.rows = 0

    def accumulate(self, learn):
        self.right += (learn.pred.argmax(1) == learn.y).sum().item()
        self.rows += len(learn.y)

    @property
    def value(self): return self.right/self.rows


class LossOfModel(v2.AvgMetric):
    def __init__(self): super().__init__(F.cross_entropy)

    def accumulate(self, learn):
        self.total += learn.loss.mean()*len(learn.y)
        self.count += len(learn.y)

    @property
    def name(self): return 'the loss'


def test_v2_metrics_are_extended():
    many = v2.AccumMetric(lambda p, y: (p == y).float().mean(), dim_argmax=1, name='many')
    learn = learner(metrics=[Accuracy(), LossOfModel(), many, v2.AvgMetric(accuracy), accuracy])
    learn.fit(1, .1)
    _, loss, *found = learn.recorder.values[0]
    same(torch.tensor(found), torch.tensor([found[-1], loss, *[found[-1]]*3]))
    assert learn.recorder.names[2:] == ['accuracy', 'the loss', 'many', 'accuracy_1', 'accuracy_2']


def test_v2_a_metric_sees_the_run():
    class Sees(v2.Metric):
        value = property(lambda self: self.seen)
        def reset(self): self.seen = None

        def accumulate(self, learn):
            assert learn.xb[0].shape[0] == len(learn.y) and learn.x is learn.xb[0]
            self.seen = learn.loss_func(learn.pred, learn.y).item() - learn.loss.item()
    learn = learner(metrics=Sees())
    learn.fit(1, .1)
    assert learn.recorder.values[0][2] == 0.


# ---- our classes in their words ------------------------------------------------------------------
def in_v2_words(base):
    class Own(base):
        def before_fit(self): super().before_fit()
    return Own


@pytest.mark.parametrize('make', [
    lambda kind: kind(v2.ParamScheduler)({'lr': v2.SchedExp(1e-3, 1.)}),
    lambda kind: kind(v2.MixUp)(alpha=.4), lambda kind: kind(v2.GradientAccumulation)(n_acc=16)])
def test_our_classes_are_extended_in_v2s_words(make):
    one, two = learner(make(in_v2_words)), learner(make(lambda o: o))
    for o in (one, two):
        torch.manual_seed(3)
        o.fit(2, .1)
    check_weights(one.model, two.model)
    assert one.recorder.lrs == two.recorder.lrs


def test_a_handler_of_ours_is_called_by_its_v2_name():
    class Mixes(v2.MixUp):
        def before_batch(self):
            assert isinstance(self.learn.xb, tuple)
            super().before_batch()
            assert isinstance(self.learn.xb, tuple)
    one, two = learner(Mixes(alpha=.4)), learner(v2.MixUp(alpha=.4))
    for o in (one, two):
        torch.manual_seed(3)
        o.fit(1, .1)
    check_weights(one.model, two.model)


# ---- others --------------------------------------------------------------------------------------
def test_miniai_exchanges_loaders_and_all():
    class Prepares(mini.Callback):
        def before_fit(self, learn):
            learn.model, learn.opt, learn.dls.train, learn.dls.valid = (
                learn.model, learn.opt, train[:3], train[:1])
    learn = mini.MiniaiLearner(net(), mini.data_loaders(train, train[:2]), F.cross_entropy, lr=.1,
                               cbs=Prepares())
    learn.fit(1)
    check_weights(learn.model, by_hand(3, lr=.1))


def test_callbacks_are_removed_by_their_class():
    learn = learner([Plain(), Plain()])
    learn.remove_cbs(Plain)
    assert not [o for o in learn.cbs if isinstance(o, Plain)]
    with learn.removed_cbs(Recorder): assert not [o for o in learn.cbs if isinstance(o, Recorder)]
    assert len([o for o in learn.cbs if isinstance(o, Recorder)]) == 1


def test_batch_norm_in_groups_of_parameters_is_not_frozen():
    "fastai v2's splitters give parameters, and its `freeze` lets batch norm learn"
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    learn = Learner(DataBunch(train, device='cpu'), model, F.cross_entropy, silent=True,
                    splitter=lambda m: [[*m[0].parameters(), *m[1].parameters()],
                                        list(m[3].parameters())])
    learn.freeze()
    assert [p.requires_grad for p in model.parameters()] == [False]*2 + [True]*4
    learn.train_bn = False
    learn.freeze()
    assert [p.requires_grad for p in model.parameters()] == [False]*4 + [True]*2


def test_v1_the_numbers_of_the_last_epoch_are_there_after_a_kill(tmp_path):
    class Curriculum(LearnerCallback):
        def on_epoch_begin(self, last_metrics, **kwargs):
            if last_metrics: self.learn.opt.lr = .05*float(last_metrics[0])

    def make(path):
        return learner(CheckpointCallback(verbose=False), path=path, callback_fns=[Curriculum])

    class Dies(Callback):
        def begin_batch(self):
            if self.run.in_train and self.run.n_iter == 6: raise KeyboardInterrupt
    whole = make(tmp_path/'a')
    whole.fit(3, .1)
    with pytest.raises(KeyboardInterrupt): make(tmp_path/'b').fit(3, .1, cbs=Dies())
    again = make(tmp_path/'b')
    again.fit(3, .1, resume=True)
    assert again.recorder.lrs == whole.recorder.lrs and len(set(whole.recorder.lrs)) == 3
    for a, b in zip(again.model.parameters(), whole.model.parameters()): assert torch.equal(a, b)


def test_a_validation_batch_that_is_left_out_is_not_recorded():
    class Skips(Callback):
        def begin_batch(self):
            if not self.in_train and self.run.iter == 1: return True
    one, two = learner([Plain(), Skips()]), learner()
    two.data.valid_dl = train[:1]
    for o in (one, two): o.fit(1, .1)
    same(torch.tensor(one.recorder.values), torch.tensor(two.recorder.values))


# ---- v2: what 2.8 does beyond --------------------------------------------------------------------
def star(): return {o: getattr(v2, o) for o in v2.__all__}


def test_v2_a_batch_whose_gradients_are_no_numbers_is_left_out():
    "The next batch begins with none, as fastai's `zero_grad` comes after every step"
    class Guard(v2.Callback):
        def before_batch(self):
            if self.train_iter == 1: self.learn.xb = (self.x*float('nan'),)
        def before_step(self):
            if not all(p.grad.isfinite().all() for p in self.model.parameters()):
                raise star()['CancelStepException']
    learn, model = learner(lr=.1), net()
    learn.fit(1, cbs=Guard())
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    for i, (xb, yb) in enumerate(train):
        if i == 1: continue
        opt.zero_grad()
        F.cross_entropy(model(xb), yb).backward()
        opt.step()
    check_weights(learn.model, model)


def test_v2_a_step_without_its_backward_pass_has_gradients_of_zero():
    "fastai's `zero_grad` leaves zeros, so momentum moves the weights on"
    class Skip(v2.Callback):
        def before_backward(self):
            if self.train_iter == 2: raise star()['CancelBackwardException']
    data, model = DataBunch(train, train[:2], device='cpu'), net()
    learn = Learner(data, net(), F.cross_entropy, partial(SGD, momentum=.9), lr=.1, wd=0., cbs=Skip,
                    silent=True)
    learn.fit(1)
    opt = torch.optim.SGD(model.parameters(), .1, .9)
    for i, (xb, yb) in enumerate(train):
        if i != 2: F.cross_entropy(model(xb), yb).backward()
        opt.step()
        opt.zero_grad(set_to_none=False)
    check_weights(learn.model, model)


def test_v2_the_switches_can_be_read():
    class Ask(Callback):
        def before_batch(self): self.found = self.run_train, self.run_valid
    cb = Ask()
    learner(cb).fit(1)
    assert cb.found == (True, True)
    cb.run_valid = False
    learner(cb).fit(1)
    assert cb.found == (True, False)


@pytest.mark.parametrize('call', [lambda learn: learn.freeze_to(1), lambda learn: learn.freeze(),
                                  lambda learn: learn.unfreeze()])
def test_v2_freezing_in_a_fit_forgets_the_momentum(call):
    "fastai's `freeze_to` ends with `opt.clear_state()`"
    class Freeze(Callback):
        def before_epoch(self):
            if self.epoch == 1: call(self.learn)
    data, model = DataBunch(train, train[:2], device='cpu'), net()
    learn = Learner(data, net(), F.cross_entropy, partial(SGD, momentum=.9), lr=.1, wd=0.,
                    splitter=lambda m: [m[:1], m[1:]], silent=True)
    learn.fit(2, cbs=Freeze())
    frozen = [o.requires_grad for o in learn.model.parameters()]
    for epoch in range(2):
        for p, on in zip(model.parameters(), frozen if epoch else [True]*4): p.requires_grad_(on)
        opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], .1, .9)
        for xb, yb in train:
            F.cross_entropy(model(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    check_weights(learn.model, model)


@pytest.mark.parametrize('version, more', [('fastai1', ()), ('fastai2', (False,))])
def test_hooks_keep_what_a_layer_gives(version, more):
    "Gradients come in a tuple; v2 has `cpu` before `grad`"
    space, layer, x = {}, nn.Linear(2, 3), torch.ones(4, 2, requires_grad=True)
    exec(f'from fastloop.adapters.{version} import *', space)
    with space['hook_output'](layer, False) as plain, space['hook_outputs'](
            [layer], True, *more, True) as hooks:
        (out := layer(x)).square().sum().backward()
    assert plain.stored.requires_grad and torch.equal(plain.stored, out)
    assert isinstance(hooks.stored[0], tuple) and torch.equal(hooks.stored[0][0], 2*out)


@pytest.mark.parametrize('cpu', [True, False])
def test_hooks_of_v2_bring_what_they_keep_to_main_memory(cpu):
    class Far(torch.Tensor):
        def cpu(self): return torch.ones(1)
    layer = nn.Identity()
    with star()['hook_output'](layer, True, cpu) as hook: layer(torch.zeros(1).as_subclass(Far))
    assert hook.stored.item() == cpu
