"What is trained follows the model, and who may fit a learner; what a refused first batch leaves"
import copy
import pickle
import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import Callback
from fastloop.callback.schedule import try_out
from fastloop.callback.torch_scheduler import TorchScheduler
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.optimizer import SGD, OptimWrapper
from fastloop.runner import Runner
from fastloop.train import lr_find  # noqa: F401  its room hangs the verbs on the learner


def data(n=64, bs=16):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g)
    return DataBunch.from_tensors(x, y, x[:32], y[:32], bs=bs, seed=1, device='cpu')


def net(p=0.):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(p), nn.Linear(8, 3))


def make(model=None, **kwargs):
    return Learner(data(), net() if model is None else model, **dict(lr=.1, silent=True) | kwargs)


def moved(learn, *args, **kwargs):
    "Names of the parameters that a fit has changed"
    before = {k: p.detach().clone() for k, p in learn.model.named_parameters()}
    learn.fit(1, *args, **kwargs)
    return {k for k, p in learn.model.named_parameters() if not torch.equal(p, before[k])}


ALL = {'0.weight', '0.bias', '2.weight', '2.bias'}


def steps(learn):
    "How many steps the optimizer has taken with each parameter"
    return {k: int(learn.opt.state[p]['step']) for k, p in learn.model.named_parameters()
            if p in learn.opt.state}


# ---- the optimizer follows the model -------------------------------------------------------------
def test_a_layer_that_is_unfrozen_by_hand_is_trained_and_the_others_keep_their_state():
    model = net()
    model[0].requires_grad_(False)
    learn = make(model)
    assert moved(learn) == {'2.weight', '2.bias'}
    opt = learn.opt
    model[0].requires_grad_(True)
    assert moved(learn) == ALL and learn.opt is opt
    assert steps(learn) == {'0.weight': 4, '0.bias': 4, '2.weight': 8, '2.bias': 8}


def test_a_layer_that_is_frozen_by_hand_rests_and_comes_back_with_its_state():
    learn = make()
    learn.fit(1)
    learn.model[0].requires_grad_(False)
    assert moved(learn) == {'2.weight', '2.bias'}
    learn.model[0].requires_grad_(True)
    assert moved(learn) == ALL
    assert steps(learn) == {'0.weight': 8, '0.bias': 8, '2.weight': 12, '2.bias': 12}


@pytest.mark.parametrize('splitter', [None, lambda m: [m[0], m[2]]])
def test_a_new_head_is_trained(splitter):
    learn = make(splitter=splitter)
    learn.fit(1)
    learn.model[2] = nn.Linear(8, 3)
    assert moved(learn) == ALL
    assert steps(learn) == {'0.weight': 8, '0.bias': 8, '2.weight': 4, '2.bias': 4}
    assert len(learn.layer_groups) == (2 if splitter else 1)
    assert len({id(p) for g in learn.opt.param_groups for p in g['params']}) == 4


@pytest.mark.parametrize('fits', [0, 1])
def test_another_model_is_trained(fits):
    learn = make(splitter=lambda m: [m[0], m[2]])
    for _ in range(fits): learn.fit(1)
    learn.model = net()
    assert moved(learn, lr=slice(.01, .1)) == ALL
    assert learn.opt.read_val('lr') == [.01, .1]
    learn.freeze()
    assert moved(learn) == {'2.weight', '2.bias'}


def test_weight_norm_after_a_fit_is_trained():
    learn = make()
    learn.fit(1)
    parametrizations.weight_norm(learn.model[0])
    assert len(moved(learn)) == 5


def test_another_opt_func_makes_another_optimizer():
    learn = make()
    learn.fit(1)
    learn.opt_func = SGD
    assert moved(learn) == ALL and type(learn.opt.opt) is torch.optim.SGD


@pytest.mark.parametrize('kind', ['plain', 'wrapper'])
def test_an_optimizer_that_is_given_is_used(kind):
    learn = make()
    learn.fit(1)
    mine = torch.optim.SGD(learn.model[2].parameters(), lr=1., momentum=.8)
    learn.opt = mine if kind == 'plain' else OptimWrapper(mine)
    assert moved(learn) == {'2.weight', '2.bias'}
    assert learn.opt.opt is mine and learn.opt.mom == .8 and learn.opt.lr == .1
    assert moved(learn) == {'2.weight', '2.bias'}  # it stays somebody's own


def test_what_joins_is_said_in_one_line_and_what_is_left_out_in_one_warning(capsys):
    learn = make()
    learn.fit(1)
    learn.silent, learn.model[2] = False, nn.Linear(8, 3)
    learn.fit(1)
    assert [o for o in capsys.readouterr().out.splitlines() if '2.weight, 2.bias' in o]
    model = net()
    learn = make(model, layer_groups=[model[2]])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        for _ in range(2): learn.fit(2)
    found = [str(o.message) for o in found if o.category is UserWarning]
    assert len(found) == 1 and '0.weight, 0.bias' in found[0]


@pytest.mark.parametrize('way', ['verb', 'hand', 'head'])
def test_a_callback_may_unfreeze_in_the_middle_of_a_fit(way):
    class Thaw(Callback):
        def begin_epoch(self):
            if self.epoch != 1: return
            if way == 'verb': self.learn.unfreeze()
            elif way == 'hand': self.learn.model[0].requires_grad_(True)
            else: self.learn.model[0] = nn.Linear(4, 8)
    learn = make(splitter=lambda m: [m[0], m[2]])
    learn.freeze()
    learn.fit(2, cbs=Thaw())
    assert steps(learn) == {'0.weight': 4, '0.bias': 4, '2.weight': 8, '2.bias': 8}


# ---- weight decay and rates are those of the fit -------------------------------------------------
SMALL = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def alike(model, other, atol=1e-6):
    for p, q in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(p, q, rtol=0, atol=atol)


@pytest.mark.parametrize('wds', [(None, .3, None), (.3, None)])
@pytest.mark.parametrize('given', [False, True])
@pytest.mark.parametrize('opt_func', [
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW,
    lambda params, lr=.1: torch.optim.SGD(params, lr, weight_decay=.05)])
def test_a_decay_named_in_one_fit_is_that_of_this_fit_alone(opt_func, given, wds):
    "An optimizer that decays as it was made to, by the learner's word or because it was given"
    learn = Learner(DataBunch([SMALL]), net(), F.cross_entropy, opt_func, lr=.1, silent=True,
                    **({} if given else dict(wd=None)))
    if given: learn.opt = opt_func(learn.model.parameters(), lr=.1)
    twin = net()
    opt = opt_func(twin.parameters(), lr=.1)
    own = opt.param_groups[0]['weight_decay']
    for wd in wds:
        learn.fit(1, wd=wd)
        opt.param_groups[0]['weight_decay'] = own if wd is None else wd
        opt.zero_grad()
        F.cross_entropy(twin(SMALL[0]), SMALL[1]).backward()
        opt.step()
    alike(learn.model, twin)


def test_each_parameter_group_gets_its_own_decay_back():
    def opt_func(groups, lr):
        for i, group in enumerate(groups): group['weight_decay'] = .1 if i % 2 == 0 else 0.
        return torch.optim.SGD(groups, lr)
    learn = make(opt_func=opt_func, wd=None, splitter=lambda m: [m[0], m[2]])
    found = []
    for wd in (None, [.2, .3], None):
        learn.fit(1, wd=wd)
        found.append([o['weight_decay'] for o in learn.opt.param_groups])
    assert found == [[.1, 0.]*2, [.2, .2, .3, .3], [.1, 0.]*2]


@pytest.mark.parametrize('wd', [0., 1e-2])
def test_a_given_optimizer_without_a_decay_is_asked_for_none(wd):
    learn = make(wd=wd)
    learn.opt = torch.optim.Rprop(learn.model.parameters(), lr=.01)
    assert moved(learn) == moved(learn, wd=0.) == ALL
    with pytest.raises(ValueError, match="Rprop has no 'wd'"): learn.fit(1, wd=.1)


@pytest.mark.parametrize('number', [torch.tensor, lambda o: [torch.tensor(o)]])
def test_tensors_that_are_given_as_numbers_are_written_to_by_nobody(number):
    rate, top, decay = number(.1), number(.2), number(.3)
    learn = make(lr=rate, wd=decay)
    for kwargs in ({}, dict(lr=.05, wd=.01), dict(lr=.05), {}): learn.fit(1, **kwargs)
    assert (learn.opt.lr, learn.opt.wd) == pytest.approx((.1, .3))
    learn.fit_one_cycle(1, max_lr=top)
    for kwargs in ({}, dict(lr=top)): learn.fit_flat_cos(1, **kwargs)
    learn.lr_find(num_it=10, show_plot=False)
    assert learn.lr is rate and learn.wd is decay
    assert (rate, top, decay) == (number(.1), number(.2), number(.3))


def test_a_rate_that_the_optimizer_keeps_as_a_tensor_is_put_back():
    "It stays the very tensor that a captured graph reads"
    learn = make()
    learn.opt = torch.optim.SGD(learn.model.parameters(), lr=(inside := torch.tensor(.1)))
    learn.fit(1)
    labels = learn.data.train_dl.tensors[1]
    kept = labels.clone()
    labels[:] = 7
    with pytest.raises(ValueError, match='label 7'): learn.fit(1, lr=.05)
    labels.copy_(kept)
    try_out(learn.opt, 'lr', .5)
    assert learn.opt.lr is inside and inside.item() == pytest.approx(.1)
    other = learn.opt.new([learn.model])
    other.lr = 5.
    assert inside.item() == pytest.approx(.1)


# ---- what no fit names is as the optimizer was made ----------------------------------------------
def in_groups(opt, key): return [o[key] for o in getattr(opt, 'opt', opt).param_groups]


def stepped(twin, opt, **values):
    "One step by hand, each parameter group with the values of this fit"
    for key, some in values.items():
        for group, value in zip(opt.param_groups, some): group[key] = value
    opt.zero_grad()
    F.cross_entropy(twin(SMALL[0]), SMALL[1]).backward()
    opt.step()


def two_momenta(model):
    return torch.optim.SGD([dict(params=model[0].parameters(), momentum=.5),
                            dict(params=model[2].parameters())], lr=.1, momentum=.9)


@pytest.mark.parametrize('between', [None, .2, [.2, .3]])
@pytest.mark.parametrize('given', [False, True])
def test_each_parameter_group_keeps_its_own_momentum(given, between):
    def opt_func(groups, lr):
        made = [{**o, 'momentum': m} for o, m in zip(groups, (.5, .5, .9, .9))]
        return torch.optim.SGD(made, lr=lr)
    learn = Learner(DataBunch([SMALL]), net(), F.cross_entropy, opt_func, lr=.1, silent=True,
                    wd=None, splitter=lambda m: [m[0], m[2]])
    if given: learn.opt = two_momenta(learn.model)
    twin = net()
    opt = two_momenta(twin)
    for _ in range(3):
        learn.fit(1)
        assert in_groups(learn.opt, 'momentum')[::1 if given else 2] == [.5, .9]
        if between is not None: learn.opt.mom = between  # the next fit sets its own
        stepped(twin, opt)
    alike(learn.model, twin)


class Leaves(Callback):
    "Sets a value of the optimizer, as a schedule does, and leaves it there"
    def __init__(self, key, value): self.key, self.value = key, value
    def begin_fit(self): self.learn.opt.set_val(self.key, self.value)


@pytest.mark.parametrize('kind, key, value', [
    ('Adam', 'beta', .5), ('Adam', 'mom', .5), ('Adam', 'betas', (.5, .6)), ('Adam', 'eps', 1.),
    ('Adam', 'wd', .3), ('RMSprop', 'beta', .5), ('RMSprop', 'mom', .5), ('SGD', 'dampening', .5),
    ('Adadelta', 'rho', .5)])
@pytest.mark.parametrize('given', [False, True])
def test_what_a_schedule_sets_is_gone_in_the_next_fit(given, kind, key, value):
    opt_func = getattr(torch.optim, kind)
    learn = Learner(DataBunch([SMALL]), net(), F.cross_entropy, opt_func, lr=.1, silent=True,
                    wd=None)
    if given: learn.opt = opt_func(learn.model.parameters(), lr=.1)
    twin = net()
    opt = opt_func(twin.parameters(), lr=.1)
    own = {**opt.param_groups[0]}
    for sets in (True, False, True, False):
        learn.fit(1, cbs=Leaves(key, value) if sets else None)
        now = {**own}
        if sets:
            found = dict(beta=dict(betas=(.9, value), alpha=value), wd=dict(weight_decay=value),
                         mom=dict(betas=(value, .999), momentum=value)).get(key, {key: value})
            now |= {k: v for k, v in found.items() if k in own}
        stepped(twin, opt, **{k: [v] for k, v in now.items() if k != 'params'})
        assert {k: in_groups(learn.opt, k)[0] for k in own if k != 'params'} == {
            k: v for k, v in now.items() if k != 'params'}
    alike(learn.model, twin)


def test_a_value_that_is_set_by_hand_between_fits_is_set_anew_like_the_momentum():
    learn = make(opt_func=torch.optim.Adam, wd=0.)
    learn.fit(1)
    learn.opt.mom, learn.opt.beta, eps = .1, .2, learn.opt.set_val('eps', 1.)
    assert eps == [1.] and in_groups(learn.opt, 'betas') == [(.1, .2)]*2
    learn.fit(1)
    assert in_groups(learn.opt, 'betas') == [(.9, .999)]*2
    assert in_groups(learn.opt, 'eps') == [1e-8]*2


class Counts(torch.optim.SGD):
    "Keeps what it has counted in its groups, as some optimizers do, and hides what it is made with"
    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)
        for group in self.param_groups: group.update(seen=0, scale=1.)

    def step(self, closure=None):
        for group in self.param_groups: group['seen'] += 1
        return super().step(closure)


def test_what_an_optimizer_counts_in_its_groups_goes_on():
    learn = make(opt_func=lambda params, lr: Counts(params, lr=lr, momentum=.9), wd=0.)
    for fits in (1, 2):
        learn.fit(1)
        assert in_groups(learn.opt, 'seen') == [4*fits]*2 and learn.opt.mom == .9
        learn.opt.mom = .1
        for group in learn.opt.param_groups: group['nesterov'] = True
    assert in_groups(learn.opt, 'nesterov') == [True]*2


def test_a_layer_that_joins_has_the_values_its_group_was_made_with():
    learn = make(opt_func=torch.optim.Adam, wd=0.)
    learn.fit(1, cbs=Leaves('beta', .5))
    learn.model[2] = nn.Linear(8, 3)
    assert moved(learn) == ALL and in_groups(learn.opt, 'betas') == [(.9, .999)]*2


def test_an_optimizer_put_inside_the_wrapper_keeps_its_own_values():
    learn = make(opt_func=partial(SGD, momentum=.9), wd=0.)
    learn.fit(1)
    learn.opt.opt = torch.optim.SGD(learn.model.parameters(), lr=.1, momentum=.3)
    learn.fit(1)
    assert in_groups(learn.opt, 'momentum') == [.3]


# ---- the rates of an optimizer that is given -----------------------------------------------------
def two_rates(model, lrs=(.2, .05)):
    return torch.optim.SGD([dict(params=model[i].parameters(), lr=lr)
                            for i, lr in zip((0, 2), lrs)], lr=1.)


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_given_optimizer_keeps_rates_that_differ_unless_a_fit_names_others(wrapped):
    learn = Learner(DataBunch([SMALL]), net(), F.cross_entropy, lr=.1, silent=True)
    opt = two_rates(learn.model)
    learn.opt = OptimWrapper(opt) if wrapped else opt
    twin = net()
    other = two_rates(twin)
    for lr, rates in ((None, (.2, .05)), (.3, (.3, .3)), (None, (.2, .05)), ([.1, .4], (.1, .4)),
                      (slice(.01, .1), (.01, .1)), (None, (.2, .05))):
        learn.fit(1, lr)
        stepped(twin, other, lr=rates)
        assert in_groups(learn.opt, 'lr') == pytest.approx(rates)
    alike(learn.model, twin)
    with pytest.raises(ValueError, match='has 3 rates for 2 layer groups'): learn.fit(1, [.1]*3)


@pytest.mark.parametrize('top', [[.1, .4], slice(.1, .4)])
def test_a_cycle_of_two_rates_for_a_given_optimizer(top):
    given, own = make(), make(splitter=lambda m: [m[0], m[2]])
    given.opt = two_rates(given.model)
    for learn in (given, own): learn.fit_one_cycle(1, top)
    rates = given.opt.read_val('lr')
    assert rates == own.opt.read_val('lr') and rates[1] == pytest.approx(4*rates[0])


@pytest.mark.parametrize('way', ['reset', 'create'])
def test_a_new_optimizer_has_the_rates_of_the_layer_groups(way):
    learn = make(splitter=lambda m: [m[0], m[1], m[2]])
    learn.opt = two_rates(learn.model)
    learn.fit(1)
    lrs = [.1, .2, .3]
    if way == 'create': learn.create_opt(lrs)
    learn.fit(1, lrs, reset_opt=way == 'reset')
    assert learn.opt.read_val('lr') == lrs and type(learn.opt.opt) is torch.optim.AdamW


def test_a_refused_rate_leaves_a_given_optimizer_as_it_was():
    learn = make()
    learn.opt = opt = two_rates(learn.model)
    for reset, lr in ((False, [.1]*3), (True, [.1]*2)):
        with pytest.raises(ValueError, match=f'{len(lr)} rates for {1 if reset else 2} layer'):
            learn.fit(1, lr, reset_opt=reset)
        assert learn.opt is opt and in_groups(opt, 'lr') == [.2, .05]


# ---- what nobody can train with ------------------------------------------------------------------
@pytest.mark.parametrize('model, opt_func, text', [
    (None, torch.optim.LBFGS, 'LBFGS'), (nn.LazyLinear(3), SGD, 'no shape yet')])
def test_what_no_step_can_be_taken_with_is_refused_before_the_first(model, opt_func, text):
    learn = make(model, opt_func=opt_func, wd=0.)
    with pytest.raises(ValueError, match=text): learn.fit(1)
    assert learn.opt is None


class ClosureRunner(Runner):
    "A loop of one's own, as the error advises"
    def backward_and_step(self):
        def closure():
            self.opt.zero_grad()
            loss = self.loss_func(self.model(self.xb), self.yb)
            loss.backward()
            return loss
        self.opt.step(closure)


@pytest.mark.parametrize('given', [False, True])
def test_a_loop_with_its_own_step_takes_an_optimizer_with_a_closure(given):
    learn = Learner(DataBunch([SMALL]), net(), F.cross_entropy, torch.optim.LBFGS, lr=.5, wd=0.,
                    silent=True, runner=ClosureRunner)
    if given: learn.opt = torch.optim.LBFGS(learn.model.parameters(), lr=.5)
    twin = net()
    opt = torch.optim.LBFGS(twin.parameters(), lr=.5)

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(twin(SMALL[0]), SMALL[1])
        loss.backward()
        return loss
    for _ in range(2):
        learn.fit(1)
        opt.step(closure)
    alike(learn.model, twin, 1e-3)  # the order of the parameters is another: so is the rounding


def test_a_lazy_layer_that_has_seen_a_batch_is_trained():
    learn = make(nn.LazyLinear(3))
    learn.model(learn.data.one_batch()[0])
    assert moved(learn) == {'weight', 'bias'}


# ---- a refused first batch -----------------------------------------------------------------------
@pytest.mark.parametrize('had_opt', [False, True])
def test_a_refused_first_batch_leaves_everything_as_it_was(had_opt):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(.5), nn.Linear(4, 3))
    learn = make(model)
    if had_opt: learn.fit(1, lr=.3)
    learn.data.train_dl.tensors[1][:] = 7
    loader, opt = learn.data.train_dl.state_dict(), learn.opt
    state = copy.deepcopy([model.state_dict(), opt and opt.state_dict()])
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match='label 7'): learn.fit(1, lr=.1, wd=.5)
    assert torch.equal(torch.get_rng_state(), random) and learn.opt is opt
    assert learn.data.train_dl.state_dict() == loader
    after = [model.state_dict(), opt and opt.state_dict()]
    assert str(after) == str(state)


@pytest.mark.parametrize('x, model, text', [
    (torch.zeros(8, 4, dtype=torch.float64), nn.Linear(4, 3), 'x.to'),
    (torch.zeros(8, 4), nn.Linear(4, 3).double(), 'torch.float64')])
def test_another_precision_than_the_model_is_refused_with_the_remedy(x, model, text):
    learn = Learner(DataBunch([(x, torch.arange(8) % 3)], None), model, nn.CrossEntropyLoss(),
                    silent=True)
    with pytest.raises(ValueError, match=text): learn.fit(1)


# ---- one fit at a time ---------------------------------------------------------------------------
class At(Callback):
    "Calls a function at an event of the second epoch"
    in_validate = in_lr_find = False

    def __init__(self, event, func):
        self.func = func
        setattr(self, event, self.go)

    def go(self):
        if self.epoch == 1 and self.run.iter in (1, 3): self.func(self.learn)


def told(cbs=None):
    learn = make(net(.5), cbs=cbs)
    torch.manual_seed(3)
    learn.fit(3)
    return (learn.recorder.values, learn.recorder.losses, learn.n_iter,
            [p.tolist() for p in learn.model.parameters()])


@pytest.mark.parametrize('event', ['begin_epoch', 'begin_batch', 'after_pred', 'after_backward',
                                   'after_step', 'after_batch', 'begin_validate', 'after_epoch'])
@pytest.mark.parametrize('ask', [
    lambda learn: learn.validate(), lambda learn: learn.get_preds(),
    lambda learn: learn.get_preds(learn.data.train_dl), lambda learn: learn.predict(torch.ones(4)),
    lambda learn: learn.lr_find(num_it=10, show_plot=False)],
    ids=['validate', 'get_preds', 'training', 'predict', 'lr_find'])
def test_a_question_inside_a_run_leaves_the_run_as_it_was(ask, event):
    assert told(At(event, ask)) == told()


def test_a_fit_inside_a_fit_is_refused_and_a_copy_can():
    learn = make(cbs=At('after_batch', lambda learn: learn.fit(1)))
    with pytest.raises(RuntimeError, match='deepcopy'): learn.fit(2)
    copies = []
    def fit_copy(learn):
        copies.append(copy.deepcopy(learn))
        copies[-1].remove_cbs([cb for cb in copies[-1].cbs if isinstance(cb, At)])
        copies[-1].fit(1)
    learn = make(cbs=At('after_backward', fit_copy))
    learn.fit(2)
    assert len(copies) == 2 and copies[0].n_iter == 4 and learn.n_iter == 8
    assert torch.equal(torch.tensor(told()[0]), torch.tensor(told(At('begin_fit', int))[0]))


def test_a_fit_in_another_thread_is_refused():
    learn, begun, go_on = make(), threading.Event(), threading.Event()
    class Wait(Callback):
        def after_batch(self):
            begun.set()
            go_on.wait(60)
    thread = threading.Thread(target=learn.fit, args=(1,), kwargs=dict(cbs=Wait()))
    thread.start()
    assert begun.wait(60)
    with pytest.raises(RuntimeError, match='another thread'): learn.fit(1)
    go_on.set()
    thread.join()
    assert moved(learn) == ALL


class Ends(Callback):
    "Fails in the third batch"
    def __init__(self, error): self.error = error

    def after_loss(self):
        if self.run.n_iter == 2: raise self.error


@pytest.mark.parametrize('way', [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError, None])
def test_a_learner_can_be_copied_after_any_end(way, error):
    learn = make()
    if error is None: learn.fit(1)
    else:
        with pytest.raises(error): learn.fit(1, cbs=Ends(error))
    other = way(learn)
    learn.fit(1)
    other.fit(1)
    assert other.recorder.values[-1][0] == pytest.approx(learn.recorder.values[-1][0], abs=.5)
    assert not learn.loss.requires_grad


# ---- a loss that has weights of its own ----------------------------------------------------------
class Uncertain(nn.Module):
    "A squared error with a weight that is learned (Kendall et al., 2018)"
    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.zeros(()))

    def forward(self, pred, yb): return (-self.s).exp()*F.mse_loss(pred, yb) + self.s


def test_who_gives_a_loss_with_weights_that_nobody_trains_is_told():
    def fit(with_loss):
        torch.manual_seed(0)
        x = torch.randn(40, 3)
        loss, data = Uncertain(), DataBunch.from_tensors(x, 5*x.sum(1, keepdim=True), bs=8, seed=0)
        splitter = (lambda model: [model, loss]) if with_loss else None
        Learner(data, nn.Linear(3, 1), loss, splitter=splitter, silent=True).fit(2, .05)
        return loss.s.item()
    with pytest.warns(UserWarning, match=r'loss has parameters that are not trained: s;.*splitter'):
        assert fit(False) == 0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert fit(True) != 0


# ---- groups that are not the layer groups --------------------------------------------------------
def three_groups(groups, lr=.1):
    "Two weights with rates of their own, and biases that do not decay"
    params = [p for o in groups for p in o['params']]
    first, last = [p for p in params if p.ndim > 1]
    return torch.optim.AdamW([
        dict(params=[first], lr=.01, weight_decay=.1), dict(params=[last], lr=.03, weight_decay=.1),
        dict(params=[p for p in params if p.ndim < 2], lr=.03, weight_decay=0.)])


def small(**kwargs):
    return Learner(DataBunch([SMALL]), net(), F.cross_entropy, silent=True, **dict(lr=.1) | kwargs)


def follow(learn, opt_of, n=3, atol=1e-6):
    "Is the learner's model what `n` steps by hand make of another one?"
    twin = net()
    opt = opt_of(twin)
    for _ in range(n): stepped(twin, opt)
    alike(learn.model, twin, atol)


def test_groups_that_the_opt_func_lays_out_stay_as_they_are():
    learn = small(opt_func=three_groups, wd=None)
    for _ in range(3): learn.fit(1)
    assert in_groups(learn.opt, 'lr') == [.01, .03, .03]
    follow(learn, lambda m: three_groups([dict(params=list(m.parameters()))]))
    learn.fit(1, [.1, .2, .3])
    assert in_groups(learn.opt, 'lr') == [.1, .2, .3]
    learn.model[2] = nn.Linear(8, 3)
    learn.fit(1)
    assert in_groups(learn.opt, 'lr') == [.01, .03, .03]
    assert moved(learn) == ALL and len(learn.opt.param_groups[2]['params']) == 4


def two_kinds(model):
    return torch.optim.Adam([dict(params=model[i].parameters(), decoupled_weight_decay=kind)
                             for i, kind in ((0, False), (2, True))], lr=.1, weight_decay=.3)


def test_groups_that_decay_in_two_ways_keep_theirs():
    learn = small()
    learn.opt = two_kinds(learn.model)
    for _ in range(3): learn.fit(1)
    follow(learn, two_kinds)
    assert in_groups(learn.opt, 'decoupled_weight_decay') == [False, True]


class TwoRules(torch.optim.Optimizer):
    "Groups with a momentum, and groups with betas"
    def __init__(self, groups): super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            keep = group['momentum'] if 'momentum' in group else group['betas'][0]
            for p in group['params']:
                state = self.state[p]
                state['m'] = state.get('m', torch.zeros_like(p))*keep + p.grad
                p -= group['lr']*state['m']


def two_rules(model):
    return TwoRules([dict(params=model[0].parameters(), lr=.02, momentum=.9, weight_decay=0.),
                     dict(params=model[2].parameters(), lr=.1, betas=(.8, .9), weight_decay=0.)])


def test_groups_with_other_names_for_their_values():
    learn = small()
    learn.opt = two_rules(learn.model)
    for _ in range(3): learn.fit(1)
    follow(learn, two_rules)
    opt = learn.opt
    assert (opt.mom, opt.beta, opt.read_val('mom')) == (.8, .9, [.9, .8])
    assert opt.read_val('momentum') == [.9, .8]
    assert opt.read_val('betas') == ([None, .8], [None, .9])
    state = copy.deepcopy(opt.state_dict())
    opt.mom = .95
    assert 'betas' in repr(opt) and opt.read_val('mom') == [.95, .95]
    assert 'momentum' not in opt.param_groups[1]
    opt.load_state_dict(state)
    assert opt.read_val('mom') == [.9, .8]


def test_a_cycle_moves_what_each_group_has():
    class Moments(Callback):
        def after_loss(self):
            one, other = self.opt.param_groups
            seen.append((one['momentum'], *other['betas']))
            assert 'betas' not in one and 'momentum' not in other
    seen, learn = [], small()
    learn.opt = two_rules(learn.model)
    learn.fit_one_cycle(4, moms=(.95, .85), pct_start=.5, cbs=[Moments()])
    assert [o[0] for o in seen] == [o[1] for o in seen] == learn.recorder.moms
    assert max(learn.recorder.moms) == .95 and {o[2] for o in seen} == {.9}


def test_torchs_schedules_follow_such_groups():
    learn, make = small(), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, .5)
    learn.opt = two_rules(learn.model)
    learn.fit(3, cbs=[TorchScheduler(make=make)])
    twin = net()
    opt = two_rules(twin)
    sched = make(opt)
    for _ in range(3):
        stepped(twin, opt)
        sched.step()
    alike(learn.model, twin, 1e-6)


def test_a_rate_in_a_tensor_stays_that_tensor():
    rate, learn = torch.tensor(.1), small()
    learn.opt = torch.optim.Adam(learn.model.parameters(), lr=rate, foreach=False)
    learn.fit_one_cycle(2)
    assert learn.opt.param_groups[0]['lr'] is rate
    assert rate.item() == pytest.approx(learn.recorder.lrs[-1])


# ---- who gives an optimizer keeps it -------------------------------------------------------------
def test_a_given_optimizer_outlives_freezing_and_a_file_of_another(tmp_path):
    saved, learn = small(path=tmp_path), small(path=tmp_path, splitter=lambda m: [m[0], m[2]])
    saved.fit(1)
    saved.save('adam')
    learn.opt = opt = torch.optim.SGD(learn.model.parameters(), lr=.1, momentum=.9)
    learn.freeze()
    assert learn.opt is opt and moved(learn) == {'2.weight', '2.bias'}
    learn.fine_tune(1)
    assert learn.opt.opt is opt and opt.state
    with pytest.warns(UserWarning, match='starts anew'): learn.load('adam')
    assert learn.opt.opt is opt and not opt.state


class NovoGrad(torch.optim.Optimizer):
    "Keeps one number for each layer where Adam keeps as many as there are weights"
    def __init__(self, params, lr=.01): super().__init__(params, dict(lr=lr, betas=(.95, .98)))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            keep, keep_square = group['betas']
            for p in group['params']:
                state = self.state[p]
                if not state: state.update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros([]))
                state['exp_avg_sq'].lerp_(p.grad.pow(2).sum(), 1-keep_square)
                state['exp_avg'].mul_(keep).add_(p.grad/(state['exp_avg_sq'].sqrt() + 1e-8))
                p.add_(state['exp_avg'], alpha=-group['lr'])


def test_averages_of_another_form_are_loaded_and_resumed(tmp_path):
    def learner(): return small(opt_func=NovoGrad, lr=.01, wd=None, path=tmp_path)
    whole, half = learner(), learner()
    whole.fit(4)
    half.fit(2, cbs=[CheckpointCallback()])
    half.save('half')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        again = learner().load('half')
    again.fit(2)
    resumed = learner()
    resumed.fit(4, resume=True)
    for o in (again, resumed): alike(o.model, whole.model, 0.)


@pytest.mark.parametrize('how', ['given', 'made'])
@pytest.mark.parametrize('verb', ['fit_one_cycle', 'fit_flat_cos', 'fit_sgdr'])
def test_a_schedule_keeps_rates_that_differ(verb, how):
    args = (1, 1) if verb == 'fit_sgdr' else (1,)
    learn = small(wd=None, **dict(opt_func=three_groups) if how == 'made' else {})
    if how == 'given': learn.opt = three_groups([dict(params=list(learn.model.parameters()))])
    for _ in range(2):
        getattr(learn, verb)(*args)
        first, *others = in_groups(learn.opt, 'lr')
        assert others == pytest.approx([3*first]*2)
