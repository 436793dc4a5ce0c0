"What is trained follows the model, and who may fit a learner; what a refused first batch leaves"
import copy
import pickle
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.optimizer import SGD, OptimWrapper
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


# ---- what nobody can train with ------------------------------------------------------------------
@pytest.mark.parametrize('model, opt_func, text', [
    (None, torch.optim.LBFGS, 'LBFGS'), (nn.LazyLinear(3), SGD, 'no shape yet')])
def test_what_no_step_can_be_taken_with_is_refused_before_the_first(model, opt_func, text):
    learn = make(model, opt_func=opt_func, wd=0.)
    with pytest.raises(ValueError, match=text): learn.fit(1)
    assert learn.opt is None


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
