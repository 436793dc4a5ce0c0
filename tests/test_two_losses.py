"""Callbacks of fastai v2 that write `loss`, `loss_grad` or both, and what a validation tells them

The gradients are compared with those of the sum that was meant, computed by torch alone.
"""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.adapters.fastai2 import Callback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner

g = torch.Generator().manual_seed(0)
X = torch.randn(20, 4, generator=g)
Y = (X.sum(1) > 0).long()


def make(bs=20, model=None):
    torch.manual_seed(1)
    data = DataBunch.from_tensors(X, Y, X, Y, bs=bs, seed=0)
    return Learner(data, model or nn.Linear(4, 2), F.cross_entropy, opt_func=torch.optim.SGD, wd=0.,
                   silent=True)


def penalty(cb): return .5*sum(p.pow(2).sum() for p in cb.learn.model.parameters())


class Writes(Callback):
    "Does what `text` says, after the loss"
    run_valid = False
    def __init__(self, *steps): self.steps = steps

    def before_batch(self): pass

    def after_loss(self):
        for step in self.steps: getattr(self, step)()

    def loss_in_place(self): self.learn.loss += penalty(self)
    def loss_anew(self): self.learn.loss = self.learn.loss + penalty(self)
    def grad_in_place(self): self.learn.loss_grad += penalty(self)
    def grad_anew(self): self.learn.loss_grad = self.learn.loss_grad + penalty(self)
    def look(self): self.seen = self.learn.loss.item(), self.learn.loss_grad.item()
    def mean(self): self.learn.loss_grad.div_(2)
    def number(self): self.learn.loss = self.learn.loss.detach() + penalty(self).detach()


class Looks(Writes):
    order = -5
    def __init__(self): super().__init__('look')


class Gradient(Callback):
    order = 90
    def before_batch(self): pass
    def after_backward(self): self.found = self.learn.model.bias.grad.clone()


def found(*cbs):
    gradient, learn = Gradient(), make()
    learn.fit(1, .1, cbs=[*cbs, gradient])
    return gradient.found, learn.recorder.raw_losses[0]


def meant(penalties, share=1.):
    "The gradient of the loss with the penalty so many times, and the loss"
    model = make().model
    loss = F.cross_entropy(model(X), Y)
    pen = .5*sum(p.pow(2).sum() for p in model.parameters())
    (share*(loss + penalties*pen)).backward()
    return model.bias.grad, loss.item(), pen.item()


both = [(a, b) for a in ('loss_in_place', 'loss_anew') for b in ('grad_in_place', 'grad_anew')]


@pytest.mark.parametrize('before', [[], ['look'], ['beside']])
@pytest.mark.parametrize('steps, in_grad, in_loss', [
    ([], 0, 0), (['loss_in_place'], 1, 1), (['loss_anew'], 1, 1), (['grad_in_place'], 1, 0),
    (['grad_anew'], 1, 0), (['number'], 0, 1), (['number', 'grad_anew'], 1, 1),
    *[([a, b], 1, 1) for a, b in both], *[([b, a], 1, 1) for a, b in both]], ids=str)
def test_the_gradient_is_that_of_the_loss_that_was_meant(steps, in_grad, in_loss, before):
    "Whoever only looks, before or beside, changes nothing"
    others = [Looks()] if before == ['beside'] else []
    mine = Writes(*([] if others else before), *steps)
    (grad, loss), (want, plain, pen) = found(*others, mine), meant(in_grad)
    torch.testing.assert_close(grad, want)
    assert loss == pytest.approx(plain + in_loss*pen, rel=1e-5)


@pytest.mark.parametrize('steps', [['mean'], ['look', 'mean'], ['mean', 'look']])
def test_half_of_loss_grad_is_half_the_gradient(steps):
    (grad, loss), (want, plain, _) = found(Writes(*steps)), meant(0, .5)
    torch.testing.assert_close(grad, want)
    assert loss == pytest.approx(plain, rel=1e-5)


class InstalledBase:
    "As the base class of an installed fastai 2, as far as this needs it"
    __module__ = 'fastai.callback.core'
    order, name, run, run_train, run_valid, learn = 0, 'installed', True, True, True, None

    def __call__(self, event):
        if self.learn.training: getattr(self, event, lambda: None)()


@pytest.mark.parametrize('steps, in_grad', [(['loss_in_place'], 0), (['loss_anew'], 0),
                                            (['loss_in_place', 'grad_in_place'], 1)])
def test_the_loss_of_an_installed_fastai_is_for_the_reports(steps, in_grad):
    class Installed(InstalledBase):
        def __init__(self, *steps): self.steps = steps
        def after_loss(self): Writes.after_loss(self)
    for step in ('loss_in_place', 'loss_anew', 'grad_in_place'):
        setattr(Installed, step, vars(Writes)[step])
    (grad, loss), (want, plain, pen) = found(Installed(*steps)), meant(in_grad)
    torch.testing.assert_close(grad, want)
    assert loss == pytest.approx(plain + pen, rel=1e-5)


# ---- what a validation tells ---------------------------------------------------------------------
class Score(Callback):
    "Gathers what it is told of, from the beginning of each epoch on"
    def before_epoch(self): self.rows = 0
    def after_pred(self): self.rows += 0 if self.training else len(self.pred)
    def after_validate(self): self.all = self.rows


def test_a_validation_alone_begins_as_an_epoch_does():
    score, learn = Score(), make(bs=10)
    learn.add_cbs(score)
    learn.fit(1, .1)
    assert score.all == 20
    learn.validate([(X[:6], Y[:6])])
    assert score.all == 6
    learn.get_preds([(X[:3], Y[:3]), (X[:4], Y[:4])])
    assert score.all == 7


class MCDropout(Callback):
    "Leaves dropout on"
    def before_validate(self):
        for m in self.model.modules():
            if isinstance(m, nn.Dropout): m.train()


def test_callbacks_for_one_validation():
    class Asks(Callback):
        def before_fit(self): pass

        def after_epoch(self):
            learn = self.learn
            self.preds = [learn.get_preds(cbs=[MCDropout()])[0] for _ in range(2)]
            self.losses = [learn.validate(cbs=MCDropout())[0] for _ in range(2)]
            self.plain = [learn.get_preds()[0] for _ in range(2)]
    asks, model = Asks(), nn.Sequential(nn.Linear(4, 50), nn.Dropout(.5), nn.Linear(50, 2))
    learn = make(10, model)
    learn.fit(2, .1, cbs=asks)
    assert not torch.equal(*asks.preds) and asks.losses[0] != asks.losses[1]
    assert torch.equal(*asks.plain) and not any(isinstance(o, MCDropout) for o in learn.cbs)


@pytest.mark.parametrize('switch', [dict(save_preds='preds'), dict(act=torch.sigmoid),
                                    dict(concat_dim=1), dict(with_input=True)])
def test_a_switch_that_is_not_offered_is_refused(switch):
    class Asks(Callback):
        def before_fit(self): pass
        def after_epoch(self): self.learn.get_preds(reorder=True, inner=True, **switch)
    with pytest.raises(ValueError, match=f'get_preds: {[*switch][0]} is not offered'):
        make().fit(1, cbs=Asks())


@pytest.mark.parametrize('left_out', [0, 1, 3])
def test_a_batch_without_targets_is_left_out(left_out):
    class Skips(Callback):
        run_valid = False
        def before_batch(self):
            if self.iter == left_out: self.learn.yb = ()
    learn, steps = make(bs=5), []
    learn.fit(1, .1, cbs=Skips())
    again = make(bs=5)
    for i, (xb, yb) in enumerate(again.data.train_dl):
        if i == left_out: continue
        loss = F.cross_entropy(again.model(xb), yb)
        steps.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for p in again.model.parameters():
                p -= .1*p.grad
                p.grad = None
    torch.testing.assert_close(learn.model.weight, again.model.weight)
    assert learn.recorder.raw_losses == pytest.approx(steps)


@pytest.mark.parametrize('write', ['loss', 'loss_grad', 'both', 'in turns'])
def test_a_loss_that_a_callback_computes_is_trained_with(write):
    "There is none before it, and none of the batch before counts"
    class Own(Callback):
        def before_batch(self): self.kept, self.learn.yb = self.yb, ()

        def after_pred(self):
            loss = F.cross_entropy(self.pred, *self.kept)
            grad = write in ('loss_grad', 'both') or write == 'in turns' and self.iter % 2
            if grad: self.learn.loss_grad = loss
            if not grad or write != 'loss_grad': self.learn.loss = loss.clone()

        def after_loss(self): self.learn.yb = self.kept
    own, plain = make(bs=5), make(bs=5)
    for learn, cbs in ((own, Own()), (plain, None)): learn.fit(2, .1, cbs=cbs)
    torch.testing.assert_close(own.model.weight, plain.model.weight)
    if write != 'loss_grad': assert own.recorder.values == plain.recorder.values
