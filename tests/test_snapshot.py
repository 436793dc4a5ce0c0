"A snapshot of a training: everything comes back in place, whatever it was."
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_lr_finder import Hoards, loaders, make, x_train, y_train
from torch import nn
from torch.nn import functional as F

from fastloop.callback.snapshot import TrainingSnapshot, put_back, same_state
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.torch_core import set_seed


def test_optimizers_with_nested_state():
    model = nn.Linear(4, 3)
    opt = torch.optim.LBFGS(model.parameters(), lr=.1)
    x, y = x_train, y_train

    def step():
        def closure():
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss
        opt.step(closure)
    step()
    learn = SimpleNamespace(model=model, opt=opt, loss_func=F.cross_entropy,
                            data=SimpleNamespace(train_dl=[(x, y)]))
    before, snapshot = deepcopy((opt.state_dict(), model.state_dict())), TrainingSnapshot(learn)
    step()
    step()
    after = deepcopy(model.state_dict())
    snapshot.restore()
    assert same_state(before, (opt.state_dict(), model.state_dict()))
    step()
    step()
    assert same_state(after, model.state_dict())


def test_lazy_layers_learn_their_size_again():
    set_seed(0)
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 3))
    learn = SimpleNamespace(model=model, opt=None, loss_func=F.cross_entropy,
                            data=SimpleNamespace(train_dl=loaders['list']()))
    state, snapshot = torch.get_rng_state(), TrainingSnapshot(learn)
    model(x_train)
    weight = model[0].weight.clone()
    assert type(model[0]) is nn.Linear
    snapshot.restore()
    assert type(model[0]) is nn.LazyLinear and torch.nn.parameter.is_lazy(model[0].weight)
    assert type(model[1]) is nn.LazyBatchNorm1d and torch.equal(state, torch.get_rng_state())
    model(x_train)
    assert type(model[0]) is nn.Linear and torch.equal(weight, model[0].weight)


def test_shared_and_unusual_tensors():
    model = nn.Module()
    model.a, model.b = nn.Linear(3, 3), nn.Linear(3, 3)
    model.b.weight = model.a.weight
    model.register_buffer('wide', torch.zeros(1).expand(4))
    model.register_buffer('none', None)
    model.register_buffer('short', torch.ones(2, dtype=torch.float16))
    model.register_buffer('minus', torch.tensor([-0.]))
    model.register_buffer('sparse', torch.eye(3).to_sparse())
    with torch.inference_mode(): model.kept = torch.ones(2)
    learn = SimpleNamespace(model=model, opt=None, loss_func=None,
                            data=SimpleNamespace(train_dl=[]))
    before, snapshot = {k: v.clone() for k, v in model.named_buffers()}, TrainingSnapshot(learn)
    with torch.no_grad():
        model.a.weight += 1
        model.short += 1
        model.minus.zero_()
        model.none = torch.ones(3)
        model.sparse *= 2
    model.short = model.short.clone()
    model.register_buffer('new', torch.ones(1))
    model.c = nn.Linear(1, 1)
    model.a.register_forward_hook(print)
    snapshot.restore()
    assert dict(model.named_buffers()).keys() == before.keys() and model.none is None
    for k, v in before.items(): assert torch.equal(getattr(model, k).to_dense(), v.to_dense()), k
    assert torch.signbit(model.minus).all()
    assert model.b.weight is model.a.weight and not model.a._forward_hooks
    assert not hasattr(model, 'c') and model.short.dtype == torch.float16


def test_same_compares():
    a = {'x': [torch.ones(2), np.ones(2), (1, float('nan'))]}
    assert same_state(a, deepcopy(a))
    for b in ({'x': [torch.ones(2), np.ones(2), (2, float('nan'))]}, {'y': a['x']}, [1],
              {'x': [torch.ones(2).half(), np.ones(2), (1, float('nan'))]}, {'x': a['x'][:2]}):
        assert not same_state(a, b)


def test_all_are_put_back_when_some_fail():
    called = []

    def fails(error, name):
        called.append(name)
        raise error(name)
    undos = [lambda: called.append('first'), lambda: fails(ValueError, 'a'),
             lambda: fails(KeyError, 'b'), lambda: called.append('last')]
    with pytest.raises(ValueError, match='a'): put_back(undos)
    assert called == ['first', 'a', 'b', 'last']


def test_what_is_spared_stays_changed():
    learn = make()
    learn.add_cbs([cb := Hoards(), other := Hoards()])
    snapshot = TrainingSnapshot(learn, spare=[other])
    learn.fit(1)
    snapshot.restore()
    assert cb.count == 0 and cb.names == ['a'] and other.count > 0 and len(other.names) > 1
    assert snapshot.restore() is None and cb.count == 0  # as often as one likes


def test_large_data_is_not_copied():
    x, copies = torch.zeros(1000, 50), []
    learn = make()
    learn.data = DataBunch(TensorLoader(x, torch.zeros(1000).long(), bs=100), device='cpu')
    learn.add_cbs(cb := Hoards())
    cb.mine = learn.data
    real = torch.Tensor.clone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'clone', lambda t: copies.append(t.numel()) or real(t))
        TrainingSnapshot(learn)
    assert copies and max(copies) <= 1000
