"What is put back whatever gets in the way: a list of functions, a run that is interrupted, workers"
import contextlib
import multiprocessing
import random
import warnings
from itertools import count

import pytest
import torch
from faults import PACKAGE, Interrupt
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastloop.callback.core import Callback
from fastloop.clean_up import begin_batches, put_back
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.train import lr_find  # noqa: F401  its room hangs the verbs on the learner

ERRORS = {'e': ZeroDivisionError, 'k': KeyboardInterrupt}


def test_all_failures_but_the_first_are_notes_of_it():
    def fails(n): raise OSError(n)
    with pytest.raises(OSError) as e: put_back([lambda n=n: fails(n) for n in range(4)])
    assert e.value.args == (0,)
    assert e.value.__notes__ == [f'then the clean-up failed: OSError({n})' for n in (1, 2, 3)]


@given(st.lists(st.sampled_from(['', 'e', 'k', 'kk', 'ke', 'ek']), max_size=6))
def test_every_function_gets_its_turn(plans):
    "`k` is interrupted the first time and done the second, `e` fails, `kk` is interrupted twice"
    done, calls = [], [0]*len(plans)
    def step(i):
        plan, n = plans[i], calls[i]
        calls[i] += 1
        if n < len(plan): raise ERRORS[plan[n]](i)
        done.append(i)
    undos = [lambda i=i: step(i) for i in range(len(plans))]
    first = next((i for i, plan in enumerate(plans) if plan), None)
    if first is None: put_back(undos)
    else:
        with pytest.raises(ERRORS[plans[first][0]]) as e: put_back(undos)
        assert e.value.args == (first,)
    assert not undos
    assert done == [i for i, plan in enumerate(plans) if plan in ('', 'k')]
    assert calls == [dict(e=1, ek=1).get(plan, 1+len(plan[:1])) for plan in plans]


def test_the_same_list_goes_on_where_it_was():
    undos, done = [lambda: done.append(1), lambda: done.append(2)], []
    put_back(undos)
    put_back(undos)
    assert done == [1, 2]


# ---- workers -------------------------------------------------------------------------------------
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_workers_that_were_started_before_the_start_failed_are_ended(monkeypatch, error):
    started, real = [], multiprocessing.process.BaseProcess.start
    def start(process):
        if len(started) == 2: raise error('the third one')
        started.append(process)
        real(process)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', start)
    dl = DataLoader(TensorDataset(torch.zeros(8, 1)), 2, num_workers=3)
    with pytest.raises(error) as e, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch says that there are fewer cores
        begin_batches(dl)
    for process in started: process.join(30)
    assert not any(o.is_alive() for o in started), e


# ---- loaders -------------------------------------------------------------------------------------
class Stream(IterableDataset):
    "Gives what it has once, and nothing afterwards"
    def __init__(self, n): self.items = iter([(torch.randn(4), i % 3) for i in range(n)])
    def __iter__(self): return self.items


@pytest.mark.parametrize('part', ['training', 'validation'])
def test_a_stream_that_is_used_up_is_an_error(part):
    loaders = [(torch.randn(8, 4), torch.arange(8) % 3)], DataLoader(Stream(16), 8)
    learn = Learner(DataBunch(*(loaders if part == 'validation' else loaders[::-1])),
                    nn.Linear(4, 3), nn.CrossEntropyLoss(), silent=True)
    with pytest.raises(RuntimeError, match=f'{part} loader gave no batch in epoch 1'): learn.fit(3)
    assert learn.n_iter == (2 if part == 'training' else 2)


class Says:
    "A loader that gives `n` batches and says `said`"
    def __init__(self, n, said): self.n, self.said = n, said
    def __len__(self): return self.said
    def __iter__(self): return iter([(torch.randn(8, 4), torch.arange(8) % 3)]*self.n)


@pytest.mark.parametrize('n, said', [(10, 4), (4, 10), (1, 2)])
def test_a_loader_of_another_length_is_named_once_and_the_share_stays_within_one(n, said):
    learn = Learner(DataBunch(Says(n, said)), nn.Linear(4, 3), nn.CrossEntropyLoss(), silent=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        learn.fit_one_cycle(3, .1)
    assert len([o for o in found if f'{said} batches, and gave {n}' in str(o.message)]) == 1
    lrs, top = learn.recorder.lrs, max(learn.recorder.lrs)
    fall = lrs[lrs.index(top):]
    assert learn.pct_train <= 1 and fall == sorted(fall, reverse=True)


# ---- interrupts ----------------------------------------------------------------------------------
def learner():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 4, generator=g), torch.randint(3, (24,), generator=g)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(.1), nn.Linear(8, 3))
    model[2].eval()
    return Learner(DataBunch.from_tensors(x, y, x[:8], y[:8], bs=8, seed=1), model, lr=.1,
                   metrics=accuracy, silent=True, splitter=lambda model: [model[:2], model[2:]])


verbs = pytest.mark.parametrize('verb', [
    lambda learn: learn.fit(1), lambda learn: learn.validate(),
    lambda learn: learn.predict(torch.ones(4)), lambda learn: learn.summary(),
    lambda learn: learn.lr_find(num_it=6, show_plot=False), lambda learn: learn.fine_tune(1)],
    ids=['fit', 'validate', 'predict', 'summary', 'lr_find', 'fine_tune'])


def outlives(verb, interrupt):
    "Has the interrupt come, and left a learner that works?"
    learn, k, last = learner(), interrupt.k, None
    modes = [m.training for m in learn.model.modules()]
    assert all(p.requires_grad for p in learn.model.parameters())
    try: interrupt.during(lambda: verb(learn))
    except KeyboardInterrupt as e: last = e  # a notebook keeps it, and with it what its frames hold
    else: assert not interrupt.hit, k
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled('cpu'), k
    assert [m.training for m in learn.model.modules()] == modes, k
    assert all(p.requires_grad for p in learn.model.parameters()), k
    learn.fit(1)
    assert learn.n_iter == 3, k
    return interrupt.n >= k > 0 or last is not None


@verbs
def test_an_interrupt_anywhere_leaves_a_learner_that_works(verb):
    counter = Interrupt(-1)
    counter.during(lambda: verb(learner()))
    for k in random.Random(0).sample(range(1, counter.n), 12): outlives(verb, Interrupt(k))


@pytest.mark.rare
@verbs
def test_an_interrupt_at_any_call_leaves_a_learner_that_works(verb):
    for k in count(1, 5):  # each fifth of thousands
        if not outlives(verb, Interrupt(k, PACKAGE)): break
    assert k > 100


def test_callbacks_that_go_for_a_while_come_back_whenever_ctrl_c_comes():
    for k in count(1):
        interrupt, learn = Interrupt(k, PACKAGE[:1]), learner()
        def quietly(learn=learn):
            with learn.removed_cbs(learn.cbs[1:]): pass
            with learn.added_cbs(Callback()): pass
        with contextlib.suppress(KeyboardInterrupt): interrupt.during(quietly)
        assert [type(o).__name__ for o in learn.cbs] == ['TrainEvalCallback', 'Recorder'], k
        if interrupt.n < k: break
    assert k > 100
