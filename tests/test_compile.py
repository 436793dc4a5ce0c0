"""Compiled steps: the same numbers, files, hooks and errors, and how often torch compiles

Most tests use a back that counts graphs and runs them as they are. Those that need machine code are
skipped where no C++ compiler is found.
"""
import inspect
import pickle
from copy import copy, deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.callback.averages import EMACallback
from fastloop.callback.core import Callback, CancelFitException
from fastloop.callback.logger import CSVLogger
from fastloop.callback.mixup import MixUpCallback
from fastloop.callback.precision import MixedPrecision
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.compiled import CompiledCall, CompiledLoss, GraphReplay, find_cxx
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.train import compile_learner  # the module that hangs the verb on the learner

close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)
needs_cxx = pytest.mark.skipif('find_cxx() is None', reason='needs a C++ compiler')  # asked late


class Graphs:
    "A back that counts the graphs it gets and the calls of what it gave back"
    def __init__(self): self.made = self.ran = 0

    def __call__(self, graph, inputs):
        self.made += 1

        def run(*args):
            self.ran += 1
            return graph.forward(*args)
        return run


class Block(nn.Module):
    "A module of our own inside torch's"
    def __init__(self, n):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(n), nn.Linear(n, n)

    def forward(self, x): return x + self.linear(F.gelu(self.norm(x)))


def network(dropout=0.):
    return nn.Sequential(nn.Linear(6, 8), Block(8), nn.BatchNorm1d(8), nn.Dropout(dropout),
                         nn.Linear(8, 3))


def make(loss_func=F.cross_entropy, model=None, n=40, bs=16, tmp=None, valid=True, **kwargs):
    "A learner over 40 rows of three classes: batches of 16, 16 and 8; it validates on 20 and 4"
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n + 24, 6, generator=g), torch.arange(n + 24) % 3
    data = DataBunch.from_tensors(x[:n], y[:n], x[n:], y[n:], bs=bs, valid_bs=20, seed=0,
                                  device='cpu')
    if not valid: data.valid_dl = None
    torch.manual_seed(0)
    kwargs = dict(metrics=accuracy, wd=0., silent=True, path=tmp) | kwargs
    model = network() if model is None else model
    return Learner(data, model, loss_func, partial(SGD, momentum=.9), .05, **kwargs)


def compiled(*args, **kwargs):
    "The same learner, compiled; and what counts"
    graphs = Graphs()
    return make(*args, **kwargs).compile(backend=graphs), graphs


def check_same(a, b):
    "Losses, rows of the table, weights and buffers"
    close(torch.tensor(a.recorder.losses), torch.tensor(b.recorder.losses))
    rows = [[[o or 0. for o in row] for row in learn.recorder.values] for learn in (a, b)]
    close(*map(torch.tensor, rows))
    for (name, p), q in zip(a.model.state_dict().items(), b.model.state_dict().values()):
        close(p, q, msg=name)


class Flat:
    "A loss as fastai has them: no module, with an attribute `reduction`"
    def __init__(self): self.reduction = 'mean'

    def __call__(self, pred, yb): return F.cross_entropy(pred, yb, reduction=self.reduction)


class Seen(Callback):
    "What callbacks see"
    def begin_fit(self): self.found = []

    def after_loss(self):
        loss_func = getattr(self.learn.loss_func, 'func', self.learn.loss_func)
        self.found.append((type(self.model), self.pred.requires_grad, tuple(self.pred.shape),
                           self.loss.grad_fn is None, loss_func, self.in_train,
                           self.model.training, type(self.pred), type(self.loss)))


# ---- numbers -------------------------------------------------------------------------------------
losses = {'function': lambda: F.cross_entropy, 'module': nn.CrossEntropyLoss,
          'partial': lambda: partial(F.cross_entropy, label_smoothing=.1), 'object': Flat,
          'sum': lambda: nn.CrossEntropyLoss(reduction='sum'),
          'weights': lambda: nn.CrossEntropyLoss(torch.tensor([1., 2., 3.]))}


@pytest.mark.rare  # run by `make test-all` alone
@pytest.mark.parametrize('name', losses)
def test_every_kind_of_loss_gives_the_same_numbers(name):
    plain, (learn, graphs) = make(losses[name]()), compiled(losses[name]())
    for o in (plain, learn): o.fit(2)
    check_same(learn, plain)
    assert graphs.ran == 2*(3 + 2) + 2*(3 + 2) - 1  # model, and loss but for the first batch
    for kwargs in ({}, {'with_loss': True}):
        if name == 'partial' and kwargs: continue
        for a, b in zip(learn.get_preds(**kwargs), plain.get_preds(**kwargs)): close(a, b)
    assert learn.loss_func is not plain.loss_func or name == 'function'
    close(torch.tensor(learn.validate()), torch.tensor(plain.validate()))
    for a, b in zip(learn.predict(torch.ones(6)), plain.predict(torch.ones(6))):
        close(torch.as_tensor(a), torch.as_tensor(b))


callbacks = {'one cycle': lambda: OneCycleScheduler(lr_max=.1),
             'ema': lambda: EMACallback(decay=.5),
             'accumulation': lambda: GradientAccumulation(n_batches=2),
             'clipping': lambda: GradientClipping(clip=.1), 'csv': CSVLogger,
             'bf16': lambda: MixedPrecision(dtype='bf16'), 'fp16': MixedPrecision,
             'mixup': MixUpCallback, 'best': lambda: SaveModelCallback(monitor='valid_loss'),
             'several': lambda: [OneCycleScheduler(lr_max=.1), EMACallback(decay=.5),
                                 MixUpCallback(), GradientAccumulation(n_batches=2),
                                 GradientClipping(clip=.1)]}


@pytest.mark.rare  # run by `make test-all` alone
@pytest.mark.parametrize('name', callbacks)
def test_callbacks_do_and_see_what_they_always_do_and_see(name, tmp_path):
    found = []
    for how in ('plain', 'compiled'):
        learn = make(tmp=tmp_path/how)
        if how == 'compiled': learn.compile(backend='eager')
        seen = Seen()
        torch.manual_seed(1)
        cbs = callbacks[name]()
        learn.fit(2, cbs=[*(cbs if name == 'several' else [cbs]), seen])
        found.append((learn, seen.found))
    (plain, first), (learn, second) = found
    check_same(learn, plain)
    if name not in ('mixup', 'several'): assert first == second
    else: assert [o[:4] + o[5:] for o in first] == [o[:4] + o[5:] for o in second]
    for file in sorted(o for o in (tmp_path/'plain').rglob('*') if o.is_file()):
        other = tmp_path/'compiled'/file.relative_to(tmp_path/'plain')
        if file.suffix == '.pth':
            a, b = (torch.load(o, weights_only=True) for o in (file, other))
            assert list(a) == list(b) and list(a['model']) == list(b['model'])
        else: assert len(other.read_text().splitlines()) == len(file.read_text().splitlines())


@pytest.mark.rare  # machine code takes long to make; other backs are compared always
@needs_cxx
def test_machine_code_gives_the_same_numbers():
    plain = make(model=network(.3))
    learn = deepcopy(plain)
    assert learn.compile() is learn
    for o in (plain, learn):
        torch.manual_seed(1)  # dropout draws
        o.fit_one_cycle(2)
    check_same(learn, plain)
    close(learn.get_preds()[0], plain.get_preds()[0])
    close(*(o.model.eval()(torch.ones(2, 6)) for o in (learn, plain)))


inputs = {'two': (lambda x, z: (x, z), lambda y: y, F.mse_loss),
          'by name': (lambda x, z: {'z': z, 'x': x}, lambda y: y, F.mse_loss),
          'two targets': (lambda x, z: (x, z), lambda y: (y, -y),
                          lambda p, a, b: (p-a).pow(2).mean() + (p-b).abs().mean()),
          'with NumPy': (lambda x, z: (x, z), lambda y: y,
                         lambda p, y: (p-torch.from_numpy(y.numpy())).pow(2).mean())}


class Two(nn.Module):
    "Two inputs, a question that the graph cannot answer, and a count of its calls"
    def __init__(self):
        super().__init__()
        self.one, self.two, self.calls = nn.Linear(3, 4), nn.Linear(2, 4), 0

    def forward(self, x, z):
        self.calls += 1
        out = self.one(x) + self.two(z)
        return out if float(x.sum()) < 1e9 else -out


@pytest.mark.parametrize('name', inputs)
def test_batches_of_every_shape(name):
    take_x, take_y, loss_func = inputs[name]
    g = torch.Generator().manual_seed(0)
    batches = [(take_x(torch.randn(n, 3, generator=g), torch.randn(n, 2, generator=g)),
                take_y(torch.randn(n, 4, generator=g))) for n in (8, 8, 5)]
    plain = Learner(DataBunch(batches, batches[:1]), Two(), loss_func, SGD, .05, silent=True)
    learn = deepcopy(plain).compile(backend='eager')
    for o in (plain, learn): o.fit(2)
    check_same(learn, plain)
    assert learn.model.calls == plain.model.calls


# ---- how often -----------------------------------------------------------------------------------
def test_a_short_last_batch_costs_something_once():
    learn, graphs = compiled()
    learn.fit(1)
    assert graphs.made == 6  # model and loss: a full batch, any length, without gradients
    for again in (lambda: learn.fit(3), learn.validate, learn.get_preds,
                  lambda: learn.fit_one_cycle(2), lambda: learn.fit(1, cbs=EMACallback)):
        again()
        assert graphs.made == 6


def test_batches_of_one_size_compile_once_each():
    learn, graphs = compiled(n=48, valid=False)
    learn.fit(2)
    assert graphs.made == 2


def test_a_last_batch_of_one_row_is_compiled_once():
    learn, graphs = compiled(n=33, model=nn.Linear(6, 3))
    learn.fit(1)
    before = graphs.made
    learn.fit(2)
    assert graphs.made == before


def test_dynamic_from_the_beginning():
    graphs = Graphs()
    learn = make().compile(backend=graphs, dynamic=True)
    learn.fit(2)
    before = graphs.made
    learn.fit(2)
    assert graphs.made == before


def test_learners_do_not_take_room_from_each_other():
    for _ in range(4):  # 12 versions of the code of `nn.Sequential`
        learn, graphs = compiled(model=nn.Sequential(nn.Linear(6, 3)))
        learn.fit(1)
        assert graphs.made == 6 and graphs.ran == 9


def test_layers_are_thawed_one_by_one_and_everything_stays_compiled():
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(5)], nn.Linear(6, 3))
    learn = make(model=model, layer_groups=list(model))
    graphs = Graphs()
    learn.compile(backend=graphs)
    plain = make(model=deepcopy(model), layer_groups=None)
    plain.split(list(plain.model))
    for n in range(len(model)-1, -1, -1):
        before = graphs.ran
        for o in (learn, plain):
            o.freeze_to(n)
            o.fit(1)
        if 'recompile_limit' in inspect.signature(torch.compile).parameters:
            assert graphs.ran - before == 3 + 2 + 2 + 2, n
    check_same(learn, plain)
    made = graphs.made
    learn.freeze()
    learn.fit(1)
    assert graphs.made == made  # known already


def test_another_head_is_compiled_too():
    learn, graphs = compiled(n=32, valid=False)
    learn.fit(1)
    made = graphs.made
    learn.model[-1] = nn.Linear(8, 3)
    with torch.no_grad(): learn.model[-1].weight.fill_(0.).add_(torch.eye(3, 8))
    plain = deepcopy(learn)
    ran = graphs.ran
    for o in (learn, plain): o.fit(1)
    assert graphs.ran == ran + 3 and graphs.made >= made
    check_same(learn, plain)


def test_fine_tuning():
    model = network()
    learn, plain = (make(model=deepcopy(model)) for _ in range(2))
    for o in (learn, plain): o.split([o.model[:2], o.model[2:]])
    learn.compile(backend='eager')
    for o in (learn, plain): o.fine_tune(1)
    check_same(learn, plain)


def test_a_search_for_a_rate_puts_everything_back():
    learn, plain = compiled()[0], make()
    found = [o.lr_find(num_it=20, show_plot=False) for o in (learn, plain)]
    assert found[0] == found[1]
    before = {k: v.clone() for k, v in plain.model.state_dict().items()}
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, before[k])
    assert isinstance(learn.model._compiled_call_impl, CompiledCall)
    for o in (learn, plain): o.fit(1)
    check_same(learn, plain)


# ---- files and copies ----------------------------------------------------------------------------
def test_the_files_are_the_same_and_load_everywhere(tmp_path):
    learn, plain = compiled(tmp=tmp_path/'a')[0], make(tmp=tmp_path/'b')
    for o in (learn, plain): o.fit(1)
    files = [o.save('weights') for o in (learn, plain)]
    a, b = (torch.load(o, weights_only=True) for o in files)
    assert list(a['model']) == list(b['model'])
    for k in a['model']: close(a['model'][k], b['model'][k])
    network().load_state_dict(a['model'])
    for o in (learn, plain): o.fit(1)
    learn.load('weights')
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, a['model'][k])
    fresh = make(tmp=tmp_path/'a').load('weights')
    close(fresh.get_preds()[0], learn.get_preds()[0])


@pytest.mark.parametrize('loss', [F.cross_entropy, nn.CrossEntropyLoss()])
@pytest.mark.parametrize('how', [deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_are_whole_and_uncompiled(how, loss):
    learn, graphs = compiled(loss, n=32, valid=False)
    learn.fit(1)
    other, ran = how(learn), graphs.ran
    assert type(other.model) is nn.Sequential and other.model._compiled_call_impl is None
    assert type(other.loss_func) is type(loss) and not isinstance(other.loss_func, CompiledLoss)
    other.fit(1)
    assert graphs.ran == ran
    learn.fit(1)
    assert graphs.ran > ran
    check_same(learn, other)


def test_a_wrapped_loss_is_seen_through():
    inner = Flat()
    loss = CompiledLoss(inner, {'backend': 'eager'})
    other = copy(loss)
    other.reduction = 'none'
    assert inner.reduction == loss.reduction == 'mean' and type(other) is Flat
    loss.reduction = 'sum'
    pred, yb = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert inner.reduction == 'sum'
    close(loss(pred, yb), F.cross_entropy(pred, yb, reduction='sum'))
    with pytest.raises(AttributeError): loss.nothing  # noqa: B018
    assert 'Flat' in repr(loss)


# ---- hooks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_forward_pre_hook',
                                  'register_full_backward_hook'])
@pytest.mark.parametrize('layer', [lambda m: m, lambda m: m[1].linear])
def test_hooks_are_heard_while_they_are_there(kind, layer):
    (learn, graphs), calls = compiled(n=32, valid=False), []
    learn.fit(1)
    ran = graphs.ran
    hook = getattr(layer(learn.model), kind)(lambda *args: calls.append(len(args)))
    learn.model.train()
    learn.model(torch.randn(16, 6, requires_grad=True)).sum().backward()
    assert len(calls) == 1 and graphs.ran == ran
    learn.model.zero_grad()
    hook.remove()
    learn.fit(1)
    assert len(calls) == 1 and graphs.ran > ran


def test_hooks_that_were_there_are_compiled_and_may_go():
    calls, learn, graphs = [], make(), Graphs()
    hook = learn.model[1].register_forward_hook(lambda *args: calls.append(1))
    learn.compile(backend=graphs)
    x = torch.randn(16, 6)
    for _ in range(2): learn.model(x)
    assert len(calls) == 2 and graphs.ran
    hook.remove()
    out, ran = learn.model(x), graphs.ran
    assert len(calls) == 2 and out.shape == (16, 3) and ran
    learn.model(x)
    assert graphs.ran == ran + 1


def test_summary_sees_every_layer():
    learn, _ = compiled()
    learn.fit(1)
    assert str(learn.summary()) == str(make().summary())


# ---- there and back ------------------------------------------------------------------------------
@pytest.mark.parametrize('loss', [F.cross_entropy, nn.CrossEntropyLoss()])
def test_the_way_back(loss):
    learn, graphs = compiled(loss)
    learn.compile(mode='reduce-overhead', backend=graphs)
    assert sum(isinstance(cb, GraphReplay) for cb in learn.cbs) == 1
    assert learn.compile(disable=True) is learn
    assert learn.loss_func is loss and learn.model._compiled_call_impl is None
    assert getattr(loss, '_compiled_call_impl', None) is None
    assert not any(isinstance(cb, GraphReplay) for cb in learn.cbs)
    learn.fit(1)
    assert graphs.made == 0


def test_compiling_twice_replaces():
    learn, first = compiled()
    second = Graphs()
    learn.compile(backend=second)
    learn.fit(1)
    assert first.made == 0 and second.made == 6 and learn.loss_func.func is F.cross_entropy


def test_torch_gets_model_and_loss_and_the_keywords(monkeypatch):
    given = []

    def fake(func, **kwargs):
        given.append(kwargs)
        return func
    monkeypatch.setattr(torch, 'compile', fake)
    learn = make()
    options = dict(mode='max-autotune', fullgraph=True, backend='cudagraphs')
    assert compile_learner(learn, **options) is learn and given == [options]*2
    learn.fit(1)
    plain = make()
    plain.fit(1)
    check_same(learn, plain)


def test_a_fit_that_is_broken_off_leaves_it_compiled():
    class Stop(Callback):
        def after_batch(self): raise CancelFitException

    class Fail(Callback):
        def after_batch(self): raise KeyboardInterrupt
    learn, graphs = compiled(valid=False)
    learn.fit(1, cbs=Stop)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Fail)
    ran = graphs.ran
    learn.fit(1)
    assert graphs.ran > ran


# ---- refusals ------------------------------------------------------------------------------------
@pytest.mark.parametrize('kwargs, error, words', [
    (dict(mode='fast'), RuntimeError, 'reduce-overhead'), (dict(backend='none'), Exception, 'none'),
    (dict(moode='default'), TypeError, 'moode'), (dict(options={'no': 1}), RuntimeError, 'no'),
    (dict(mode='default', options={}), RuntimeError, 'both')])
def test_bad_keywords_are_refused_and_nothing_has_changed(kwargs, error, words):
    if 'backend' not in kwargs and find_cxx() is None: pytest.skip('needs a C++ compiler')
    learn, graphs = compiled(n=32, valid=False)
    before = learn.model._compiled_call_impl, learn.loss_func
    with pytest.raises(error, match=words): learn.compile(**kwargs)
    assert (learn.model._compiled_call_impl, learn.loss_func) == before
    learn.fit(1)
    assert graphs.ran


def test_without_a_compiler_it_says_so(monkeypatch):
    from torch._inductor import config
    monkeypatch.setattr(config.cpp, 'cxx', (None, 'no-such-compiler'))
    learn = make()
    with pytest.raises(RuntimeError, match=r'C\+\+ compiler.*install'): learn.compile()
    assert learn.loss_func is F.cross_entropy and learn.model._compiled_call_impl is None
    with pytest.raises(RuntimeError, match='install'): learn.compile(backend=None, mode='default')
    learn.compile(backend='eager').fit(1)
    learn.compile(disable=True)  # needs none


def test_what_is_compiled_already_or_has_no_shapes_is_refused():
    model = nn.Linear(6, 3)
    cases = [(torch.compile(model, backend='eager'), 'compiled already'),
             (nn.LazyLinear(3), 'no shape yet')]
    for model, words in cases:
        with pytest.raises(ValueError, match=words): make(model=model).compile(backend='eager')


def test_not_during_a_fit():
    class Late(Callback):
        def begin_batch(self): self.learn.compile(backend='eager')
    learn = make()
    with pytest.raises(RuntimeError, match='before it'): learn.fit(1, cbs=Late)
    assert learn.loss_func is F.cross_entropy and learn.model._compiled_call_impl is None


mistakes = {'a label too many': lambda learn: learn.data.train_ds.tensors[1].fill_(7),
            'doubles': lambda learn: learn.model.double(),
            'no pair': lambda learn: setattr(learn.data, 'train_dl', [torch.zeros(4)]),
            'a column': lambda learn: (learn.model.append(nn.Linear(3, 1)), setattr(
                learn.data, 'train_dl', [(torch.randn(4, 6), torch.zeros(4))]))}


@pytest.mark.parametrize('name', mistakes)
def test_mistakes_are_found_in_the_same_words(name):
    errors = []
    for how in ('plain', 'compiled'):
        learn = make(loss_func=F.mse_loss if name == 'a column' else F.cross_entropy)
        mistakes[name](learn)
        if how == 'compiled': learn.compile(backend='eager')
        before = [o.clone() for o in learn.model.state_dict().values()]
        with pytest.raises(ValueError) as e: learn.fit(1)
        errors.append(str(e.value).split(' (')[0])
        for a, b in zip(before, learn.model.state_dict().values()): assert torch.equal(a, b)
    assert errors[0] == errors[1]


# ---- CUDA graphs, as far as they can be seen without a GPU ---------------------------------------
class Replayed:
    "A back that writes the results of a graph into the same memory each time, as CUDA graphs do"
    def __init__(self): self.places = {}

    def __call__(self, graph, inputs):
        def run(*args):
            found = []
            for i, o in enumerate(graph.forward(*args)):
                place = self.places.setdefault((id(graph), i, o.shape), torch.empty_like(o))
                found.append(place.copy_(o))
            return tuple(found)
        return run


class Everywhere(GraphReplay):
    def begin_fit(self): self.on = True


class Keep(Callback):
    "Keeps predictions and losses without copying them"
    def begin_fit(self): self.kept = []

    def after_loss(self): self.kept += [self.pred, self.loss]


@pytest.mark.parametrize('copies', [True, False])
def test_results_outlive_the_next_batch(copies, monkeypatch):
    marks = []
    monkeypatch.setattr(torch.compiler, 'cudagraph_mark_step_begin', lambda: marks.append(1))
    found = []
    for backend in ('eager', Replayed()):
        learn = make()
        learn.data.valid_dl = [o for _ in range(3) for o in list(learn.data.valid_dl)[:1]]
        learn.data.valid_dl = [(x+i, y) for i, (x, y) in enumerate(learn.data.valid_dl)]
        learn.compile(backend=backend)
        keep = Keep()
        cbs = [keep, *([Everywhere()] if copies else [])]
        learn.runner(cbs).evaluate(learn.data.valid_dl, learn)
        found.append(keep.kept)
    same = [torch.allclose(a, b) for a, b in zip(*found)]
    assert all(same) if copies else not all(same)
    assert len(marks) == (6 if copies else 0)


def test_gathered_gradients_are_copied():
    places = []

    class Look(Callback):
        order = 90

        def after_backward(self): places.append(self.model[0].weight.grad.data_ptr())

        def after_cancel_step(self): places.append(self.model[0].weight.grad.data_ptr())
    learn, plain = make(), make()
    learn.fit(1, cbs=[GradientAccumulation(n_batches=3), Everywhere(), Look()])
    plain.fit(1, cbs=GradientAccumulation(n_batches=3))
    assert places[0] != places[1] and len(places) == 5
    check_same(learn, plain)
