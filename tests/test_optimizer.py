"The optimizer wrapper against torch's own optimizers, step by step, and where it must step aside."
import copy
import io
import pickle
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Program
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from fastloop import optimizer as module
from fastloop.fused import FusedStep
from fastloop.optimizer import SGD, Adam, AdamW, OptimWrapper, RMSprop, as_wrapper
from fastloop.param_groups import split_no_wd_params

optim = torch.optim


def make_model(norm=True, dtype=torch.float32):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 6), *([nn.LayerNorm(6)] if norm else []), nn.Tanh(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).to(dtype)


def batches(n=6, dtype=torch.float32):
    gen = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 8, generator=gen, dtype=dtype),
             torch.randint(0, 3, (16,), generator=gen)) for _ in range(n)]


def train(model, opt, n=6, dtype=torch.float32):
    "The weights after each step"
    path = []
    for xb, yb in batches(n, dtype):
        nn.functional.cross_entropy(model(xb), yb).backward()
        opt.step()
        opt.zero_grad()
        path.append([p.detach().clone() for p in model.parameters()])
    return path


def assert_same(path, other, **kwargs):
    for a, b in zip(path, other, strict=True):
        torch.testing.assert_close(list(a), list(b), **kwargs)


exact = {'rtol': 0, 'atol': 0}
by_torch = [
    (optim.SGD, {}), (optim.SGD, {'momentum': 0.9}),
    (optim.SGD, {'momentum': 0.9, 'nesterov': True}),
    (optim.SGD, {'momentum': 0.9, 'dampening': 0.1}), (optim.SGD, {'maximize': True}),
    (optim.SGD, {'momentum': 0.9, 'foreach': True}), (optim.SGD, {'momentum': 0.9, 'fused': True}),
    (optim.Adam, {}), (optim.Adam, {'amsgrad': True}), (optim.Adam, {'foreach': True}),
    (optim.AdamW, {'betas': (0.8, 0.9)}), (optim.AdamW, {'fused': True}),
    (optim.AdamW, {'amsgrad': True, 'maximize': True}),
    (optim.RMSprop, {}), (optim.RMSprop, {'momentum': 0.5, 'centered': True}),
    (optim.Adagrad, {}), (optim.Adagrad, {'fused': True}), (optim.NAdam, {}), (optim.RAdam, {}),
    (optim.Adamax, {}), (optim.Adadelta, {}), (optim.ASGD, {}), (optim.Rprop, {}),
    *([(optim.Adafactor, {})] if hasattr(optim, 'Adafactor') else [])]


@pytest.mark.parametrize('cls, kwargs', by_torch, ids=lambda o: getattr(o, '__name__', str(o)))
def test_equals_torch(cls, kwargs):
    "The same steps and the same state as the optimizer inside would have taken by itself"
    model, plain_model = make_model(), make_model()
    wd = {'weight_decay': 0.1} if cls not in (optim.Rprop,) else {}
    plain = cls(plain_model.parameters(), lr=0.01, **wd, **kwargs)
    opt = OptimWrapper.create(partial(cls, **kwargs), 0.01, [model], wd=wd.get('weight_decay', 0.),
                              true_wd=cls.__name__ in ('AdamW', 'Adafactor'))
    assert_same(train(model, opt), train(plain_model, plain), rtol=1e-4, atol=1e-6)
    for p, q in zip(model.parameters(), plain_model.parameters(), strict=True):
        assert list(opt.state[p]) == list(plain.state[q])
        for o, plain_o in zip(opt.state[p].values(), plain.state[q].values()):
            torch.testing.assert_close(o, plain_o, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('cls', [partial(optim.SGD, momentum=0.9), optim.SGD, optim.Adam,
                                 optim.AdamW])
def test_equals_fused_to_the_last_bit(cls, dtype):
    model, plain_model = make_model(dtype=dtype), make_model(dtype=dtype)
    plain = cls(plain_model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    true_wd = cls is optim.AdamW
    opt = OptimWrapper.create(cls, 0.01, [model], wd=0.1, true_wd=true_wd)
    assert_same(train(model, opt, dtype=dtype), train(plain_model, plain, dtype=dtype), **exact)
    assert opt.fused_step.runs is not None and len(opt.fused_step.runs) == 1


def test_values_per_layer_group():
    "Two layer groups with their own rates, momenta and decay, against groups written by hand"
    model, other = make_model(norm=False), make_model(norm=False)
    opt = OptimWrapper.create(AdamW, [1e-3, 1e-2], [model[0], model[2]], wd=[0.1, 0.2],
                              true_wd=True, bn_wd=False)
    opt.mom, opt.beta = [0.8, 0.9], [0.95, 0.99]
    def group(p, i, wd):
        return {'params': [p], 'lr': [1e-3, 1e-2][i], 'weight_decay': wd,
                'betas': [(0.8, 0.95), (0.9, 0.99)][i]}
    plain = optim.AdamW([group(other[0].weight, 0, 0.1), group(other[0].bias, 0, 0.),
                         group(other[2].weight, 1, 0.2), group(other[2].bias, 1, 0.)], fused=True)
    assert_same(train(model, opt), train(other, plain), **exact)
    assert opt.read_defaults() == {'lr': [1e-3, 1e-2], 'mom': [0.8, 0.9], 'beta': [0.95, 0.99],
                                   'wd': [0.1, 0.2]}


def decayed_by_hand(cls, true_wd, bn_wd=True, lr=0.01, wd=0.3, **kwargs):
    "Either kind of decay written out around an optimizer that has none"
    model = make_model()
    opt = cls(model.parameters(), lr=lr, weight_decay=0., **kwargs)
    path = []
    for xb, yb in batches():
        nn.functional.cross_entropy(model(xb), yb).backward()
        with torch.no_grad():
            for p in model.parameters():
                if bn_wd or p.ndim > 1:
                    if true_wd:
                        p.mul_(1 - lr*wd)
                    else:
                        p.grad.add_(p, alpha=wd)
        opt.step()
        opt.zero_grad()
        path.append([p.detach().clone() for p in model.parameters()])
    return path


@pytest.mark.parametrize('bn_wd', [True, False])
@pytest.mark.parametrize('true_wd', [True, False])
@pytest.mark.parametrize('cls', [optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam,
                                 optim.RMSprop, optim.Adagrad, optim.Adamax])
def test_both_kinds_of_decay(cls, true_wd, bn_wd):
    kwargs = {'momentum': 0.9} if cls is optim.SGD else {}
    model = make_model()
    opt = OptimWrapper.create(partial(cls, **kwargs), 0.01, [model], 0.3, true_wd, bn_wd)
    assert opt.wd == 0.3
    assert_same(train(model, opt), decayed_by_hand(cls, true_wd, bn_wd, **kwargs),
                rtol=1e-4, atol=1e-6)


def test_adafactor_and_muon_decay_their_own_way():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    kinds = [getattr(optim, o) for o in ('Adafactor', 'Muon') if hasattr(optim, o)]
    for cls in kinds:
        opt = OptimWrapper.create(cls, 0.01, [model], wd=0.1, true_wd=True)
        assert opt.param_groups[0]['weight_decay'] == 0.1 == opt.wd
        with pytest.raises(ValueError, match='no weight decay of the L2 kind'):
            OptimWrapper.create(cls, 0.01, [model], wd=0.1)


def test_no_gradient_no_decay():
    used, idle = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    for cls in (optim.SGD, optim.AdamW, optim.RMSprop):
        opt = OptimWrapper.create(cls, 0.1, [[used, idle]], wd=0.1, true_wd=True)
        used.grad = torch.zeros(2, 2)
        before = used.detach().clone()
        opt.step()
        torch.testing.assert_close(used.detach(), before*(1 - 0.1*0.1))
        assert torch.equal(idle, torch.ones(2, 2))


@pytest.mark.parametrize('true_wd', [True, False])
def test_lbfgs_and_closures(true_wd):
    "One group whatever the model, and the closure is passed through"
    model, other = make_model(norm=False), make_model(norm=False)
    (xb, yb), wd = batches(1)[0], 0.1*true_wd
    opt = OptimWrapper.create(optim.LBFGS, 0.5, [model], wd=wd, true_wd=true_wd)
    plain = optim.LBFGS(other.parameters(), lr=0.5)
    def closure(model, opt):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(xb), yb)
        loss.backward()
        return loss
    for _ in range(3):
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(1 - 0.5*wd)
        loss, plain_loss = (o.step(partial(closure, m, o)) for m, o in [(model, opt),
                                                                        (other, plain)])
        torch.testing.assert_close(loss, plain_loss)
    assert len(opt.param_groups) == 1 and opt.lr == 0.5 and opt.mom is None
    with pytest.raises(ValueError, match='LBFGS'):
        OptimWrapper.create(optim.LBFGS, 0.5, [model[0], model[2]])
    sgd = OptimWrapper.create(SGD, 0.1, [model])
    assert sgd.step(partial(closure, model, sgd)) is not None


# layer groups

def test_split():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(2, 3),
        nn.MultiheadAttention(4, 2), nn.GroupNorm(1, 2), nn.Embedding(3, 2), nn.PReLU())
    decay, rest = split_no_wd_params(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in rest] == [
        '0.bias', '1.weight', '1.bias', '2.bias_ih_l0', '2.bias_hh_l0', '3.in_proj_bias',
        '3.out_proj.bias', '4.weight', '4.bias']
    assert len(decay) + len(rest) == len(list(model.parameters()))


def test_ways_to_give_layer_groups():
    model = make_model()
    sizes = lambda groups: [len(o) for o in split_no_wd_params(groups)]
    params = list(model.parameters())
    assert sizes(model) == sizes([model]) == sizes([[model]]) == sizes(params) == [2, 4]
    assert sizes(model.parameters()) == sizes([params]) == [2, 4]
    assert sizes([model[:2], model[2:]]) == sizes([params[:4], params[4:]]) == [1, 3, 1, 1]
    assert sizes(nn.ModuleList([model[0], model[3]])) == [1, 1, 1, 1]
    assert sizes([[model[0], model[1]], [model[3].weight]]) == [1, 3, 1, 0]


def test_shared_and_frozen_parameters():
    model = make_model(norm=False)
    model[2].bias = nn.Parameter(torch.zeros(3))
    tied = nn.Linear(8, 6)
    tied.weight = model[0].weight
    opt = OptimWrapper.create(SGD, 0.1, [model[0], [tied, tied], model[2]])
    assert [len(group['params']) for group in opt.param_groups] == [1, 1, 0, 1, 1, 1]
    model[0].requires_grad_(False)
    opt = OptimWrapper.create(SGD, [0.1, 0.2], [model[0], model[2]])
    assert [len(group['params']) for group in opt.param_groups] == [0, 0, 1, 1]
    before = copy.deepcopy(model.state_dict())
    train(model, opt, 1)
    assert torch.equal(before['0.weight'], model[0].weight)
    assert not torch.equal(before['2.weight'], model[2].weight)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match='no parameter in them requires a gradient'):
        OptimWrapper.create(SGD, 0.1, [model])


def test_new_keeps_the_values_and_forgets_the_rest():
    model = make_model()
    opt = OptimWrapper.create(partial(AdamW, eps=1e-5), [0.1, 0.2], [model[:2], model[2:]],
                              [0.3, 0.4], bn_wd=False)
    opt.mom = [0.8, 0.85]
    opt.set_val('eps', [1e-4, 1e-3])
    train(model, opt, 2)
    new = opt.new([model[:2], model[2:]])
    assert new.read_defaults() == opt.read_defaults() and new.read_val('eps') == [1e-4, 1e-3]
    assert not new.state and opt.state and new.true_wd is False and new.bn_wd is False
    assert [group['weight_decay'] for group in new.param_groups] == [0.3, 0., 0.4, 0.]
    one = opt.new([model])
    assert (one.lr, one.mom, one.wd, one.read_val('eps')) == (0.2, 0.85, 0.4, [1e-3])
    wrapped = OptimWrapper(optim.SGD(model.parameters(), 0.1, 0.9), wd=0.2, true_wd=True)
    again = wrapped.new([model[:2], model[2:]])
    assert (again.lr, again.mom, again.wd, again.true_wd) == (0.1, 0.9, 0.2, True)


def test_wrapping_leaves_the_optimizer_as_it_is():
    model, other = make_model(), make_model()
    kwargs = {'lr': 0.01, 'weight_decay': 0.3, 'fused': True}
    opt = OptimWrapper(optim.AdamW(model.parameters(), **kwargs))
    assert (opt.lr, opt.wd, opt.true_wd, len(opt.param_groups)) == (0.01, 0.3, True, 1)
    assert_same(train(model, opt), train(other, optim.AdamW(other.parameters(), **kwargs)), **exact)
    l2 = OptimWrapper(optim.SGD(model.parameters(), 0.1, weight_decay=0.2))
    assert (l2.wd, l2.true_wd) == (0.2, False)
    plain = optim.SGD(model.parameters(), 0.1, weight_decay=0.2)
    assert OptimWrapper(plain, true_wd=True).wd == 0.2


def test_one_set_of_names_for_any_optimizer():
    model = make_model()
    plain = optim.Adam(model.parameters(), lr=0.3)
    before = {**plain.param_groups[0]}
    opt = as_wrapper(plain)
    assert as_wrapper(opt) is opt and opt.opt is plain
    assert all(plain.param_groups[0][k] is v for k, v in before.items())
    assert (opt.lr, opt.mom, opt.beta, opt.wd) == (0.3, 0.9, 0.999, 0)
    opt.set_val('mom', 0.8)
    assert plain.param_groups[0]['betas'] == (0.8, 0.999)
    with pytest.raises(TypeError, match='a torch optimizer is needed, not Sequential'):
        as_wrapper(model)


# hyper-parameters

numbers = st.floats(0, 1, allow_nan=False)


@given(st.data(), st.integers(1, 4), st.sampled_from(['lr', 'mom', 'beta', 'wd']),
       st.sampled_from([optim.Adam, optim.AdamW, optim.RMSprop]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_set_is_read(data, n, name, cls, true_wd):
    "One value or one per group, and the other names stay as they were"
    opt = OptimWrapper.create(cls, 0.1, [[nn.Parameter(torch.ones(2, 2))] for _ in range(n)],
                              0.1, true_wd)
    before = opt.read_defaults()
    vals = data.draw(st.one_of(numbers, st.lists(numbers, min_size=n, max_size=n)))
    setattr(opt, name, vals)
    want = vals if isinstance(vals, list) else [vals]*n
    assert opt.read_val(name) == want and getattr(opt, name) == want[-1]
    assert opt.read_defaults() == {**before, name: want}
    opt.set_val(name, before[name])
    assert opt.read_defaults() == before


@pytest.mark.parametrize('make', [np.array, torch.tensor, tuple, list, iter])
def test_values_become_plain_numbers(make):
    opt = OptimWrapper.create(SGD, 0.1, [[nn.Parameter(torch.ones(2, 2))] for _ in range(2)])
    opt.lr = make([0.25, 0.5])
    assert opt.read_val('lr') == [0.25, 0.5] and {type(o) for o in opt.read_val('lr')} == {float}
    opt.mom = np.float64(0.5)
    assert type(opt.mom) is float
    opt.lr = rate = torch.tensor(0.5)
    assert opt.lr is rate
    opt.lr = 0.25  # that tensor still, for whoever reads it at each step
    assert opt.lr is rate and opt.read_val('lr') == [0.25, 0.25]
    opt.lr = [0.5, 0.75]
    assert opt.read_val('lr') == [0.5, 0.75]


def test_what_the_optimizer_lacks():
    params = [nn.Parameter(torch.ones(2, 2))]
    opt = OptimWrapper.create(optim.Adagrad, 0.1, [params])
    assert opt.mom is None and opt.beta is None and opt.read_val('momentum') is None
    opt.mom = None
    for name, act in {'mom': lambda: setattr(opt, 'mom', 0.9),
                      'beta': lambda: setattr(opt, 'beta', 0.9),
                      'momentum': lambda: opt.set_val('momentum', 0.9),
                      'params': lambda: opt.set_val('params', [])}.items():
        with pytest.raises(ValueError, match=f"Adagrad has no '{name}'; it has lr, wd"):
            act()
    rprop = OptimWrapper.create(optim.Rprop, 0.1, [params])
    assert rprop.wd is None
    with pytest.raises(ValueError, match='Rprop has no weight decay of the L2 kind'):
        OptimWrapper.create(optim.Rprop, 0.1, [params], wd=0.1)
    assert OptimWrapper.create(optim.Rprop, 0.1, [params], wd=0.1, true_wd=True).wd == 0.1
    assert OptimWrapper.create(RMSprop, 0.1, [params]).beta == 0.99
    with pytest.raises(AttributeError, match='no_such_thing'):
        print(opt.no_such_thing)


def test_bad_values_change_nothing():
    params = [[nn.Parameter(torch.ones(2, 2))] for _ in range(2)]
    opt = OptimWrapper.create(AdamW, 0.1, params, wd=0.2)
    before = copy.deepcopy([{k: v for k, v in o.items() if k != 'params'}
                            for o in opt.param_groups])
    for act, words in [
            (lambda: setattr(opt, 'lr', [1., 2., 3.]), '3 values, but there are 2 layer groups'),
            (lambda: setattr(opt, 'mom', [1.]), '1 values, but there are 2 layer groups'),
            (lambda: setattr(opt, 'wd', 'much'), "wd must be a number .* 'much'"),
            (lambda: setattr(opt, 'lr', [0.1, None]), 'lr must be a number'),
            (lambda: setattr(opt, 'lr', None), 'lr must be a number'),
            (lambda: opt.set_val('betas', 0.9), 'betas takes a pair'),
            (lambda: opt.set_val('eps', [1., 2., 3.]), 'eps=.* has 3 values')]:
        with pytest.raises(ValueError, match=words):
            act()
    assert before == [{k: v for k, v in o.items() if k != 'params'} for o in opt.param_groups]


@pytest.mark.parametrize('make, error, words', [
    (lambda: OptimWrapper.create(SGD, [0.1, 0.2], [make_model()]), ValueError,
     '2 values, but there are 1 layer groups'),
    (lambda: OptimWrapper.create(SGD, 0.1, [make_model()], wd=[0.1, 0.2]), ValueError,
     '2 values, but there are 1 layer groups'),
    (lambda: OptimWrapper.create(SGD, -1., [make_model()]), ValueError, 'learning rate'),
    (lambda: OptimWrapper.create(SGD, 'fast', [make_model()]), ValueError, 'lr must be a number'),
    (lambda: OptimWrapper.create(SGD, 0.1, []), ValueError, 'no parameter'),
    (lambda: OptimWrapper.create(SGD, 0.1, ['abc']), TypeError, "not str: 'abc'"),
    (lambda: OptimWrapper.create(SGD, 0.1, [{'params': []}]), TypeError, 'not dict'),
    (lambda: OptimWrapper.create(SGD, 0.1, [3]), TypeError, 'not int: 3'),
    (lambda: OptimWrapper(make_model()), TypeError, 'a torch optimizer is needed, not Sequential'),
    (lambda: OptimWrapper(OptimWrapper.create(SGD, 0.1, [make_model()])), TypeError, 'needed'),
    (lambda: OptimWrapper(SGD(make_model().parameters()), bn_wd=False), ValueError, 'bn_wd=False'),
])
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_ways_to_write_an_optimizer_function():
    "A class, a partial, a function with or without a learning rate of its own"
    model = make_model()
    for opt_func in (optim.SGD, SGD, partial(SGD, lr=9.), lambda p, lr: optim.SGD(p, lr),
                     lambda p: optim.SGD(p, 9.), lambda p, **kwargs: optim.SGD(p, 9., **kwargs)):
        opt = OptimWrapper.create(opt_func, [0.1, 0.2], [model[:2], model[2:]])
        assert opt.read_val('lr') == [0.1, 0.2]


def test_defaults_of_the_usual_optimizers():
    params = [nn.Parameter(torch.ones(2))]
    assert AdamW(params).defaults['betas'] == Adam(params).defaults['betas'] == (0.9, 0.99)
    for ours, torchs in [(SGD, optim.SGD), (Adam, optim.Adam), (AdamW, optim.AdamW),
                         (RMSprop, optim.RMSprop)]:
        want = {k: v for k, v in torchs(params, lr=0.1).defaults.items() if k != 'betas'}
        got = ours(params, lr=0.1)
        assert type(got) is torchs
        assert {k: v for k, v in got.defaults.items() if k != 'betas'} == want


# saving and copying

def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize('true_wd', [True, False])
@pytest.mark.parametrize('cls', [partial(SGD, momentum=0.9), AdamW, RMSprop, optim.Adagrad])
def test_going_on_from_a_file(cls, true_wd):
    "Bit for bit, empty parameter groups, hyper-parameters and decay included"
    model = make_model()
    groups = lambda m: [m[:1], m[1:2], m[2:]]  # the middle one has no weights at all
    opt = OptimWrapper.create(cls, [0.01, 0.02, 0.03], groups(model), [0.1, 0.2, 0.3], true_wd,
                              bn_wd=False)
    train(model, opt)
    state, weights = saved(opt.state_dict()), copy.deepcopy(model.state_dict())
    straight = train(model, opt)
    other_model = make_model()
    other_model.load_state_dict(weights)
    other = OptimWrapper.create(cls, 1., groups(other_model), 0., true_wd, bn_wd=False)
    other.load_state_dict(state)
    assert other.read_defaults() == opt.read_defaults()
    assert_same(train(other_model, other), straight, **exact)


def test_files_go_both_ways_between_wrapper_and_torch():
    model, other = make_model(), make_model()
    plain = optim.Adam(other.parameters(), lr=0.02)
    train(other, plain)
    model.load_state_dict(other.state_dict())
    opt = OptimWrapper(optim.Adam(model.parameters(), lr=0.5))
    opt.load_state_dict(saved(plain.state_dict()))
    assert opt.lr == 0.02
    assert_same(train(model, opt), train(other, plain), rtol=1e-4, atol=1e-6)
    plain.load_state_dict(saved(opt.state_dict()))
    assert_same(train(make_model(), plain), train(make_model(), plain), **exact)


@pytest.mark.parametrize('saved_kind', [True, False])
@pytest.mark.parametrize('cls', [optim.SGD, optim.AdamW])
def test_loading_keeps_our_kind_of_decay(cls, saved_kind):
    model = make_model()
    theirs = OptimWrapper.create(cls, 0.1, [model], 0.3, true_wd=saved_kind)
    ours = OptimWrapper.create(cls, 0.1, [model], 0.1, true_wd=not saved_kind, bn_wd=False)
    ours.load_state_dict(theirs.state_dict())
    assert ours.wd == 0.3 and ours.true_wd is not saved_kind
    assert ours.read_val('wd') == [0.3]
    spared = ours.param_groups[1]
    assert spared['weight_decay'] == 0. == spared.get('true_weight_decay', 0.)
    fresh = make_model()
    ours = OptimWrapper.create(cls, 0.01, [fresh], 0.1, true_wd=not saved_kind)
    state = OptimWrapper.create(cls, 0.01, [fresh], 0.3, true_wd=saved_kind).state_dict()
    ours.load_state_dict(state)
    assert_same(train(fresh, ours), decayed_by_hand(cls, not saved_kind), rtol=1e-4, atol=1e-6)


def test_a_foreign_state_is_refused():
    model = make_model()
    opt = OptimWrapper.create(AdamW, 0.1, [model])
    before = opt.read_defaults()
    for state, words in [(OptimWrapper.create(SGD, 0.2, [model]).state_dict(), 'it has no betas'),
                         (AdamW(model.parameters()).state_dict(), 'different number')]:
        with pytest.raises(ValueError, match=words):
            opt.load_state_dict(state)
    assert opt.read_defaults() == before


@pytest.mark.parametrize('dup', [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on_alike(dup):
    model = make_model()
    opt = OptimWrapper.create(AdamW, 0.01, [model], 0.1, true_wd=False)  # AdamW forgets that
    lr_scheduler.StepLR(opt, 1)  # leaves a function of its own in place of `step`
    train(model, opt)
    model2, opt2 = dup((model, opt))
    assert opt2.true_wd is False and opt2.param_groups[0]['params'][0] is model2[0].weight
    assert_same(train(model2, opt2), train(model, opt), **exact)


@pytest.mark.parametrize('cls', [SGD, AdamW, RMSprop, partial(optim.Adagrad,
                                                              initial_accumulator_value=0.5)])
def test_clear(cls):
    model = make_model()
    opt = OptimWrapper.create(cls, 0.01, [model], 0.1)
    train(model, opt)
    opt.clear()
    model.load_state_dict(make_model().state_dict())
    other = make_model()
    fresh = OptimWrapper.create(cls, 0.01, [other], 0.1)
    assert_same(train(model, opt), train(other, fresh), **exact)


@pytest.mark.parametrize('write', [
    lambda opt: setattr(opt, 'mom', 0.5), lambda opt: opt.set_val('momentum', 0.5),
    lambda opt: [group.update(momentum=0.5) for group in opt.param_groups]])
def test_momentum_that_comes_after_the_first_step(write):
    p = torch.nn.Parameter(torch.tensor([5.]))
    opt, square, kept, want = OptimWrapper.create(RMSprop, 0.1, [[p]]), 0., 0., 5.
    for step, grad in enumerate([1., 2., -1., 3.]):
        if step == 2: write(opt)
        p.grad = torch.tensor([grad])
        opt.step()
        square = .99*square + .01*grad**2
        kept = (.5 if step > 2 else 0.)*kept + grad/(square**.5 + 1e-8)
        want -= .1*kept
        assert p.item() == pytest.approx(want, rel=1e-5)


# torch's own schedulers, hooks and scalers

def test_schedulers_of_torch():
    makers = [
        lambda o: lr_scheduler.StepLR(o, 2), lambda o: lr_scheduler.ExponentialLR(o, 0.5),
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1/(epoch + 1)),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 1., 2),
        lambda o: lr_scheduler.OneCycleLR(o, 1., total_steps=9),
        lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 0.1, 2),
                                                lr_scheduler.StepLR(o, 2)], [2])]
    for make in makers:
        for cls in (partial(optim.SGD, momentum=0.9), optim.AdamW):
            model, other = make_model(), make_model()
            opt = OptimWrapper.create(cls, [0.1, 0.2], [model[:2], model[2:]])
            plain = cls([{'params': other[:2].parameters(), 'lr': 0.1},
                         {'params': other[2:].parameters(), 'lr': 0.2}], lr=0.2)
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                sched, plain_sched = make(opt), make(plain)
                for _ in range(7):
                    train(model, opt, 1), train(other, plain, 1)
                    sched.step(), plain_sched.step()
                    assert opt.read_val('lr') == [o['lr'] for o in plain.param_groups]
                    mom = plain.param_groups[1].get('momentum') or plain.param_groups[1]['betas'][0]
                    assert opt.lr == plain.param_groups[-1]['lr'] and opt.mom == mom
    plateau = lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0)
    lr = opt.lr
    for loss in (1., 2.):
        plateau.step(loss)
    assert opt.lr == lr/2


def test_a_scheduler_on_the_optimizer_inside():
    "It counts the steps of the optimizer it knows, so those must go through it"
    model = make_model()
    opt = OptimWrapper(optim.SGD(model.parameters(), lr=1.))
    sched = lr_scheduler.StepLR(opt.opt, 1, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        train(model, opt, 1)
        sched.step()
    assert opt.lr == 0.5


def test_hooks_and_profiler_see_each_step():
    model, seen = make_model(), []
    opt = OptimWrapper.create(AdamW, 0.01, [model])
    train(model, opt, 1)
    handles = [opt.register_step_pre_hook(lambda o, a, k: seen.append(('pre', o))),
               opt.opt.register_step_post_hook(lambda o, a, k: seen.append(('post', o))),
               register_optimizer_step_post_hook(lambda o, a, k: seen.append(('all', o)))]
    train(model, opt, 2)
    for handle in handles:
        handle.remove()
    train(model, opt, 1)
    assert seen == [('pre', opt.opt), ('post', opt.opt), ('all', opt.opt)]*2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as prof:
        train(model, opt, 2)
    events = {o.key: o.count for o in prof.key_averages()}
    assert events['Optimizer.step#AdamW.step'] == 2


@pytest.mark.parametrize('kwargs', [{}, {'fused': True}])
def test_gradient_scaler(kwargs):
    "It unscales before our step, and an overflow skips decay and step alike"
    model, other = make_model(), make_model()
    opt = OptimWrapper.create(partial(SGD, **kwargs), 0.1, [model], 0.1, true_wd=True)
    plain = OptimWrapper.create(SGD, 0.1, [other], 0.1, true_wd=True)
    scaler = torch.amp.GradScaler('cpu', init_scale=8.)
    for xb, yb in batches(2):
        scaler.scale(nn.functional.cross_entropy(model(xb), yb)).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    assert_same([list(model.parameters())], [train(other, plain, 2)[-1]])
    before = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.inf)
    scaler.scale(torch.ones(()))
    scaler.step(opt)
    scaler.update()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_added_groups():
    model, extra = make_model(), nn.Linear(2, 2)
    opt = OptimWrapper.create(SGD, 0.1, [model], 0.2, true_wd=True)
    opt.add_param_group({'params': extra, 'lr': 0.5})
    assert [len(o['params']) for o in opt.param_groups] == [2, 4, 1, 1]
    assert opt.read_val('lr') == [0.1, 0.5]
    opt.wd = [0.1, 0.3]
    extra.weight.grad = torch.zeros(2, 2)
    before = extra.weight.detach().clone()
    opt.step()
    torch.testing.assert_close(extra.weight.detach(), before*(1 - 0.5*0.3))


# the fused step must notice what changes, and step aside where it does not fit

@pytest.mark.parametrize('cls, taken', [(optim.SGD, True), (optim.RMSprop, False)])
def test_fused_step_of_a_plain_optimizer(cls, taken):
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    assert FusedStep(cls([p], lr=0.5))() is taken
    assert torch.equal(p, torch.full((2,), 0.5 if taken else 1.))


fused_kinds = pytest.mark.parametrize('cls', [partial(optim.SGD, momentum=0.9), optim.Adam])


def come_and_go(who):
    "Only the parameters with these numbers have a gradient from now on"
    def act(opt, params):
        for i in who: params[i].grad = torch.full((2, 3), i + 1.)
    return act


def by_columns(*names):
    "The numbers of parameter or gradient lie by columns; a kernel would take them as they lie"
    def lay(o, name):
        res = o.t().contiguous().t() if name in names else o.contiguous()
        assert res.is_contiguous() == (name not in names)
        return res
    def act(opt, params):
        params[0].data = lay(params[0].data, 'parameter')
        params[0].grad = lay(torch.arange(6.).view(2, 3)**2, 'gradient')
    return act


def with_state(change):
    "All have a gradient, and the state of the first parameter is changed"
    def act(opt, params):
        for p in params: p.grad = torch.ones(2, 3)
        state = opt.state.get(params[0], {})
        for key in state.keys() & {'momentum_buffer', 'exp_avg'}: change(opt.state, params[0], key)
    return act


def keep(state, p, key): pass
def swap(state, p, key): state[p][key] = torch.full((2, 3), 0.5)
def whole(state, p, key): state[p] = {k: v.clone() + 1 for k, v in state[p].items()}
def clear(state, p, key): state.clear()
def drop(state, p, key): state.pop(p)
def double(state, p, key): state[p][key].mul_(2)


def momentum(value):
    "All have a gradient, and the groups another momentum"
    def act(opt, params):
        for p in params: p.grad = torch.ones(2, 3)
        for group in opt.param_groups:
            if 'betas' in group: group['betas'] = (value, group['betas'][1])
            else: group['momentum'] = value
    return act


def replaced(opt, params):
    "Another parameter stands in the place of the first one"
    params[0] = opt.param_groups[0]['params'][0] = nn.Parameter(torch.full((2, 3), 7.))
    for p in params: p.grad = torch.ones(2, 3)


stories = {
    'gradients come and go': (
        [come_and_go(o) for o in ([], [0, 1], [0, 1], [2], [0, 3], [1, 2, 3], [], [0, 1, 2, 3])],
        True),
    'gradient by columns': ([by_columns('gradient')]*3, False),
    'both by columns': ([by_columns('parameter', 'gradient')]*3, False),
    'parameter by columns': ([by_columns('parameter')]*3, False),
    'gradient by columns later': ([by_columns(), *[by_columns('gradient')]*2], False),
    'state replaced': ([with_state(o) for o in (keep, keep, swap, whole, double, clear, keep, drop,
                                                keep)], True),
    'momentum switched': ([momentum(o) for o in (0., 0., 0.9, 0.9, 0.5, 0., 0., 0.9)], True),
    'parameter replaced': ([with_state(keep), replaced, with_state(keep)], True)}


@pytest.mark.parametrize('story', stories)
@pytest.mark.parametrize('cls', [partial(optim.SGD, momentum=0.9), optim.SGD, optim.Adam])
def test_whatever_changes_between_steps_counts(cls, story):
    "Step by step what torch computes, and in the end the kernel is used if it fits"
    def start(make):
        params = [nn.Parameter(torch.arange(6.).view(2, 3) + i) for i in range(4)]
        return make(params), params
    both = start(lambda o: OptimWrapper.create(cls, 0.1, [o])), start(partial(cls, lr=0.1))
    acts, fits = stories[story]
    for act in acts:
        for opt, params in both:
            act(opt, params)
            opt.step()
            opt.zero_grad()
        assert_same([both[0][1]], [both[1][1]])
    assert (both[0][0].fused_step.runs is not None) == fits


def make_conv():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3), nn.Conv2d(1, 4, 3),
                          nn.Flatten())
    return model.to(memory_format=torch.channels_last)


def train_conv(model, opt, n=4, change=None):
    gen, path = torch.Generator().manual_seed(1), []
    for i in range(n):
        if change:
            change(model, i)
        xb = torch.randn(4, 3, 9, 9, generator=gen).to(memory_format=torch.channels_last)
        model(xb).square().mean().backward()
        opt.step()
        opt.zero_grad()
        path.append([p.detach().clone() for p in model.parameters()])
    return path


def to_other_format(model, i):
    model.to(memory_format=torch.channels_last if i % 2 else torch.contiguous_format)


def spoil_gradients(model, i):
    "From now on the gradient of the first weight lies in another order than the weight"
    if i == 2:
        p = model[0].weight
        p.register_post_accumulate_grad_hook(
            lambda p: setattr(p, 'grad', p.grad.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1,
                                                                                         2)))


@pytest.mark.parametrize('change', [None, to_other_format, spoil_gradients])
@pytest.mark.parametrize('cls', [partial(optim.SGD, momentum=0.9), optim.SGD, optim.Adam,
                                 optim.AdamW])
def test_channels_last(cls, change):
    "The kernel is used, and what it computes is what torch's own optimizer computes"
    model, plain_model = make_conv(), make_conv()
    opt = OptimWrapper.create(cls, 0.01, [model], wd=0.1, true_wd=cls is optim.AdamW)
    plain = cls(plain_model.parameters(), lr=0.01, weight_decay=0.1, fused=False)
    assert_same(train_conv(model, opt, 5, change), train_conv(plain_model, plain, 5, change),
                rtol=1e-4, atol=1e-6)
    if change is None:
        assert opt.fused_step.runs is not None
        strides = [p.stride() for p in model.parameters()]
        assert strides == [p.stride() for p in make_conv().parameters()]


@fused_kinds
def test_state_of_a_wrong_shape_is_never_given_to_the_kernel(cls):
    p = nn.Parameter(torch.ones(4, 3))
    opt = OptimWrapper.create(cls, 0.1, [[p]])
    p.grad = torch.ones(4, 3)
    opt.step()
    p.grad = None
    p.data = torch.ones(400, 3)
    p.grad = torch.ones(400, 3)
    with pytest.raises(RuntimeError, match='size'):
        opt.step()


def test_sparse_gradients_mixed_types_and_tensor_rates():
    def embedding():
        torch.manual_seed(0)
        return nn.Embedding(5, 3, sparse=True)
    emb, other = embedding(), embedding()
    opt, plain = OptimWrapper.create(SGD, 0.1, [emb]), optim.SGD(other.parameters(), lr=0.1)
    for m, o in ((emb, opt), (other, plain)):
        for _ in range(2):
            m(torch.tensor([1, 3])).pow(2).sum().backward()
            o.step()
            o.zero_grad()
    assert_same([[emb.weight]], [[other.weight]], **exact)
    mixed = [nn.Parameter(torch.ones(2, dtype=o)) for o in (torch.float32, torch.float64)]
    opt = OptimWrapper.create(Adam, 0.1, [mixed])
    for p in mixed:
        p.grad = torch.ones_like(p)
    opt.step()
    torch.testing.assert_close(mixed[0].double(), mixed[1])
    model, other = make_model(), make_model()
    opt = OptimWrapper.create(SGD, torch.tensor(0.1), [model], 0.1, true_wd=True)
    assert_same(train(model, opt),
                train(other, OptimWrapper.create(SGD, 0.1, [other], 0.1, true_wd=True)))


def test_set_to_none():
    p = nn.Parameter(torch.ones(2))
    opt = OptimWrapper.create(SGD, 0.1, [[p]])
    p.grad = torch.ones(2)
    opt.zero_grad(set_to_none=False)
    assert torch.equal(p.grad, torch.zeros(2))
    opt.zero_grad()
    assert p.grad is None


# what it costs

def calls(func):
    "Python and C functions called by `func`"
    n = 0
    def count(frame, event, arg):
        nonlocal n
        n += event in ('call', 'c_call')
    sys.setprofile(count)
    try:
        func()
    finally:
        sys.setprofile(None)
    return n


@pytest.mark.parametrize('cls', [partial(optim.SGD, momentum=0.9), optim.AdamW])
def test_a_step_calls_fewer_functions_than_torch_alone(cls):
    model, other = make_model(), make_model()
    opt, plain = OptimWrapper.create(cls, 0.1, [model]), cls(other.parameters(), lr=0.1)
    counts = []
    for m, o in ((model, opt), (other, plain)):
        train(m, o, 2)
        for p in m.parameters():
            p.grad = torch.ones_like(p)
        counts.append(calls(lambda o=o: (o.step(), o.zero_grad())))
    assert counts[0] < counts[1]/2


def test_training_does_not_load_the_compiler():
    code = '''
import sys, torch
from fastloop.optimizer import AdamW, OptimWrapper
model = torch.nn.Linear(2, 2)
opt = OptimWrapper.create(AdamW, 0.1, [model], 0.1, true_wd=True)
for _ in range(2):
    model(torch.ones(1, 2)).sum().backward()
    opt.lr, opt.mom = 0.2, 0.8
    opt.step()
    opt.zero_grad()
opt.load_state_dict(opt.state_dict())
assert 'torch._dynamo' not in sys.modules and 'matplotlib' not in sys.modules
for method in ('add_param_group', 'state_dict', 'load_state_dict'):
    func = getattr(torch.optim.Optimizer, method).__wrapped__
    assert not hasattr(func, '__dynamo_disable')
'''
    assert (done := Program(code).end()).returncode == 0, done.stderr


def test_exports():
    assert set(module.__all__) == {'OptimWrapper', 'SGD', 'Adam', 'AdamW', 'RMSprop'}
