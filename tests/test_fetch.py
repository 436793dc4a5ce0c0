"Whole batches are the batches that torch's own loader gives, and so are its random numbers"
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
    random_split,
)
from torch.utils.data._utils.collate import default_collate_fn_map

from fastloop.clean_up import Passes, begin_batches
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.fetch import Ahead, draws_nothing, on_its_way, whole_batches
from fastloop.learner import Learner
from fastloop.torch_core import end_workers
from fastloop.train import lr_find  # noqa: F401  its room hangs the verbs on the learner

N = 37


def tensors(*dtypes):
    g = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(N, 2, 3, generator=g), torch.arange(N),
                         *[torch.randint(0, 2, (N, 1), generator=g).to(o) for o in dtypes])


def split(i):
    return random_split(tensors(), [20, 17], generator=torch.Generator().manual_seed(1))[i]


class Own(TensorDataset):
    def __getitem__(self, i): return tuple(o + torch.rand(()) for o in super().__getitem__(i))


class OwnSubset(Subset):
    def __getitem__(self, i): return tuple(o*2 for o in super().__getitem__(i))
    def __getitems__(self, numbers): return [self[i] for i in numbers]


class Tagged(torch.Tensor): pass


def backwards(ds): return list(range(len(ds)))[::-1]


DATA = {
    'two': tensors,
    'many': lambda: tensors(torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16,
                            torch.float64, torch.uint16, torch.uint32, torch.uint64),
    'one': lambda: TensorDataset(torch.arange(N)),
    'subset': lambda: Subset(tensors(), [5, 3, 3, 30, -1, 7, 2]),
    'range': lambda: Subset(tensors(), range(10, 30, 2)),
    'array': lambda: Subset(tensors(), np.arange(9)[::-1]),
    'tensor': lambda: Subset(tensors(), torch.randperm(N, generator=torch.Generator())[:11]),
    'tensors': lambda: Subset(tensors(), list(torch.arange(7))),
    'split': lambda: split(1),
    'nested': lambda: Subset(Subset(split(0), range(15)), np.array([3, 4, 1, 8])),
    # what is left to torch
    'own': lambda: Own(torch.randn(N), torch.randn(N)),
    'own below': lambda: Subset(Own(torch.randn(N), torch.randn(N)), range(9)),
    'own subset': lambda: OwnSubset(tensors(), range(9)),
    'two of them': lambda: ConcatDataset([tensors(), tensors()]),
    'turned': lambda: TensorDataset(torch.randn(N, 4, 5, 3).permute(0, 3, 1, 2)),
    'sliced': lambda: TensorDataset(torch.randn(N, 8)[:, ::2]),
    'complex': lambda: TensorDataset(torch.randn(N, dtype=torch.complex64).conj()),
    'gradients': lambda: TensorDataset(torch.randn(N, requires_grad=True)),
    'class': lambda: TensorDataset(torch.randn(N).as_subclass(Tagged)),
    'items': lambda: [(torch.tensor(i), i) for i in range(N)],
}
LEFT = ['own', 'own below', 'own subset', 'two of them', 'items']
HOW = {
    'plain': lambda ds: dict(batch_size=8),
    'shuffled': lambda ds: dict(batch_size=8, shuffle=True),
    'short': lambda ds: dict(batch_size=8, shuffle=True, drop_last=True),
    'generator': lambda ds: dict(batch_size=5, shuffle=True,
                                 generator=torch.Generator().manual_seed(5)),
    'again': lambda ds: dict(batch_size=4, sampler=RandomSampler(ds, True, 50)),
    'weighted': lambda ds: dict(batch_size=4, sampler=WeightedRandomSampler([1.]*len(ds), 9)),
    'some': lambda ds: dict(batch_size=4, sampler=SubsetRandomSampler(np.arange(len(ds))[::2])),
    'permutation': lambda ds: dict(batch_size=4, sampler=torch.randperm(len(ds))),
    'backwards': lambda ds: dict(batch_size=4, sampler=backwards(ds)),
    'negative': lambda ds: dict(batch_size=4, sampler=[-o-1 for o in range(len(ds))]),
    'batches': lambda ds: dict(batch_sampler=[[0, 3], [2], [1, 1, 1]]),
    'sampler of batches': lambda ds: dict(batch_sampler=BatchSampler(RandomSampler(ds), 3, True)),
    'of tensors': lambda ds: dict(batch_sampler=list(torch.arange(len(ds)).split(4))),
    'one by one': lambda ds: dict(batch_size=None, shuffle=True),
    'collated': lambda ds: dict(batch_size=3, collate_fn=lambda items: len(items)),
}
UNLIKELY = ['one by one', 'collated']


def state():
    "Where all random numbers stand, as values that are compared at once"
    return (torch.get_rng_state().numpy().tobytes(), hash(random.getstate()),
            np.random.get_state()[2])


def passes(dl, begin, seed=7):
    "Two passes, and where the random numbers stand after each batch"
    torch.manual_seed(seed)
    found = []
    for _ in range(2):
        end_workers(dl)  # as each pass of a run does
        batches = begin(dl)
        if hasattr(batches, '__len__'): found.append(len(batches))
        for batch in batches: found.append((batch, state()))
        if dl.generator is not None: found.append(dl.generator.get_state().numpy().tobytes())
        found.append(state())
    return found


def assert_same(a, b):
    "Of one type, shape, order in memory and value"
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.stride(), a.is_conj()) == (b.dtype, b.shape, b.stride(),
                                                               b.is_conj())
        assert a.requires_grad == b.requires_grad
        assert a.resolve_conj().detach().numpy(force=True).tobytes() == b.resolve_conj().detach(
            ).numpy(force=True).tobytes() if a.dtype != torch.bfloat16 else torch.equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True): assert_same(*pair)
    else: assert a == b


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('data', DATA)
def test_the_same_batches_and_the_same_random_numbers(data, how):
    def make():
        torch.manual_seed(1)
        ds = DATA[data]()
        return DataLoader(ds, **HOW[how](ds))
    if data == 'own subset' and not hasattr(Subset, '__getitems__'): pytest.skip('an early torch')
    assert_same(passes(make(), begin_batches), passes(make(), iter))
    if data in LEFT or how in UNLIKELY: assert whole_batches(dl := make()) is dl


@pytest.mark.rare  # run by `make test-all` alone
@pytest.mark.parametrize('data', ['two', 'nested', 'own'])
@pytest.mark.parametrize('how', [dict(num_workers=2), dict(num_workers=1, persistent_workers=True),
                                 dict(num_workers=1, multiprocessing_context='fork'),
                                 dict(num_workers=1, prefetch_factor=4)])
def test_the_same_with_workers(data, how):
    def make():
        torch.manual_seed(1)
        return DataLoader(DATA[data](), 4, shuffle=True, **how)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch says that there are fewer cores
        assert_same(passes(make(), begin_batches), passes(make(), iter))


def shift(number, by): get_worker_info().dataset.tensors[0].add_(by + number)


def replace(number):
    ds = get_worker_info().dataset
    ds.tensors = tuple(o + 1 for o in ds.tensors)


@pytest.mark.parametrize('start', [partial(shift, by=3), replace])
def test_what_a_worker_does_to_its_data_set_when_it_starts(start):
    def make(): return DataLoader(tensors(), 4, num_workers=1, worker_init_fn=start)
    assert_same(passes(make(), begin_batches), passes(make(), iter))
    assert tensors().tensors[1][0] == 0


@pytest.mark.parametrize('data', ['two', 'one', 'subset', 'range', 'split', 'nested'])
def test_no_item_is_asked_for_and_none_is_collated(data, monkeypatch):
    dl = DataLoader(DATA[data](), 4)
    if data == 'subset': dl.dataset.indices = dl.dataset.indices[:4]  # a negative one is torch's
    n, cls = len(dl.dataset), type(dl.dataset)
    def never(*args, **kwargs): raise AssertionError('item by item')
    monkeypatch.setattr(TensorDataset, '__getitem__', never)
    monkeypatch.setattr(Subset, '__getitem__', never)
    monkeypatch.setattr(torch, 'stack', never)
    assert sum(len(batch[0]) for batch in begin_batches(dl)) == n
    assert type(dl.dataset) is cls


def test_changes_between_and_within_epochs_are_seen():
    ds = tensors()
    dl, seen = DataLoader(Subset(ds, list(range(12))), 4), []
    for i, batch in enumerate(begin_batches(dl)):
        seen.append(batch[1].tolist())
        if i == 0: ds.tensors[1].add_(100)  # in place
        if i == 1: ds.tensors = ds.tensors[0], -ds.tensors[1]  # others
    dl.dataset.indices = [1]
    assert seen == [[0, 1, 2, 3], [104, 105, 106, 107], [-108, -109, -110, -111]]
    assert [o[1].tolist() for o in begin_batches(dl)] == [[-101]]


def test_a_change_of_the_tables_of_torch_is_obeyed(monkeypatch):
    dl = DataLoader(tensors(), 4)
    assert whole_batches(dl) is not dl
    monkeypatch.setitem(default_collate_fn_map, torch.Tensor, lambda items, **_: 'mine')
    assert whole_batches(dl) is dl and next(begin_batches(dl)) == ['mine']*2


class OwnLoader(DataLoader):
    def __iter__(self): return iter([1])


@pytest.mark.parametrize('make', [
    lambda: OwnLoader(tensors(), 4), lambda: [1], lambda: TensorLoader(torch.zeros(3), bs=2),
    lambda: DataLoader(tensors(), 4, collate_fn=lambda items: default_collate(items))])
def test_what_is_no_loader_of_torch_stays_as_it_is(make):
    dl = make()
    assert whole_batches(dl) is dl


@pytest.mark.parametrize('sampler', [[0, 99], ['a'], [0.5], [[1, 2]], [None]])
def test_errors_are_those_of_torch(sampler):
    def error(begin):
        with pytest.raises(Exception) as e: list(begin(DataLoader(tensors(), 4, sampler=sampler)))
        return type(e.value), str(e.value)
    try: expected = error(iter)
    except BaseException: expected = list(iter(DataLoader(tensors(), 4, sampler=sampler)))
    if isinstance(expected, tuple): assert error(begin_batches) == expected
    else: assert_same(list(begin_batches(DataLoader(tensors(), 4, sampler=sampler))), expected)


# ---- in a run ------------------------------------------------------------------------------------
def learner(train, valid=None):
    torch.manual_seed(0)
    return Learner(DataBunch(train, valid), nn.Sequential(nn.Flatten(), nn.Dropout(.5),
                                                          nn.Linear(6, N)),
                   nn.CrossEntropyLoss(), silent=True)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_fit_is_that_of_the_loop_over_the_same_loader(workers):
    def make(): return DataLoader(tensors(), 8, shuffle=True, num_workers=workers)
    learn, other = learner(make()), learner(make())
    torch.manual_seed(2)
    learn.fit(2, .1, wd=0.)
    torch.manual_seed(2)
    model, dl = other.model, other.data.train_dl
    opt = torch.optim.AdamW(model.parameters(), .1, betas=(.9, .99), weight_decay=0.)
    model.train()
    for _ in range(2):
        for xb, yb in dl:
            other.loss_func(model(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    for p, q in zip(learn.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def test_predictions_validation_and_finder_fetch_whole_batches(monkeypatch):
    def never(*args): raise AssertionError('item by item')
    monkeypatch.setattr(TensorDataset, '__getitem__', never)
    dl = DataLoader(tensors(), 8, shuffle=True)
    learn = learner(dl, DataLoader(Subset(tensors(), range(9)), 4))
    learn.fit(1)
    learn.validate()
    assert learn.get_preds(dl)[1].tolist() == list(range(N))
    learn.lr_find(num_it=10, show_plot=False)


@pytest.mark.parametrize('persistent', [False, True])
def test_no_worker_is_left(persistent):
    import multiprocessing
    dl = DataLoader(tensors(), 4, num_workers=1, persistent_workers=persistent)
    learn = learner(dl)
    class Stop:
        def after_batch(self): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): learn.fit(1, cbs=[Stop()])
    assert not multiprocessing.active_children()
    learn.fit(1)
    assert not multiprocessing.active_children()
    assert len(list(dl)) == len(dl)


# ---- on the way to a GPU, with a stream that only writes down ------------------------------------
class Noted:
    def __init__(self, log): self.log = log
    def start(self, batch):
        self.log.append(('copy', batch))
        return batch

    def finish(self, batch):
        self.log.append(('wait', batch))
        return batch


def noted(batches, early, fail=None):
    log = []
    def source():
        for i in range(batches):
            log.append(('fetch', i))
            if i == fail: raise OSError(i)
            yield i
    try:
        for i in Ahead(source(), Noted(log), early): log.append(('use', i))
    except OSError: log.append(('error', fail))
    return log


def test_the_next_batch_is_on_its_way_before_this_one_is_used():
    on_its_turn = [(what, i) for i in range(3) for what in ('fetch', 'copy', 'wait', 'use')]
    assert noted(3, 0) == on_its_turn
    assert noted(3, 3) == [('fetch', 0), ('copy', 0), ('wait', 0), ('fetch', 1), ('copy', 1),
                           ('use', 0), ('wait', 1), ('fetch', 2), ('copy', 2), ('use', 1),
                           ('wait', 2), ('use', 2)]
    assert [o for o in noted(3, 2) if o[0] == 'use'] == [('use', i) for i in range(3)]


@pytest.mark.parametrize('early', [0, 5])
@pytest.mark.parametrize('fail', [0, 1, 4])
def test_an_error_comes_when_its_turn_has_come(early, fail):
    log = noted(5, early, fail)
    assert [o[1] for o in log if o[0] == 'use'] == list(range(fail)) and log[-1] == ('error', fail)


def test_an_interrupt_while_fetching_early_comes_at_once():
    def source():
        yield 1
        raise KeyboardInterrupt
    batches = Ahead(source(), Noted([]), 2)
    with pytest.raises(KeyboardInterrupt): next(batches)


@pytest.mark.parametrize('bs', [1, 4, 20])
def test_the_place_is_what_was_handed_out(bs, monkeypatch):
    "A `TensorLoader` whose batches are fetched one ahead tells the place that it always tells"
    log = []
    monkeypatch.setattr('fastloop.fetch.SideStream', lambda device: Noted(log))
    def states(begin):
        dl = TensorLoader(torch.arange(11), bs=bs, shuffle=True, seed=1)
        dl.load_state_dict({**dl.state_dict(), 'epoch': 2, 'position': min(1, len(dl)-1)})
        return [(batch[0].tolist(), dl.state_dict()) for _ in range(2)
                for batch in begin(dl)], dl.state_dict()
    cuda = torch.device('cuda', 0)
    assert states(lambda dl: on_its_way(dl, cuda, begin_batches)) == states(iter)
    if bs < 11: assert [o[0] for o in log[:4]] == ['copy', 'wait', 'copy', 'wait']


def test_a_run_on_a_gpu_sees_the_same_batches_and_random_numbers(monkeypatch):
    log = []
    monkeypatch.setattr('fastloop.fetch.SideStream', lambda device: Noted(log))
    class Drawn(TensorDataset):
        def __getitem__(self, i): return super().__getitem__(i)[0] + torch.rand(()), torch.rand(())
    def seen(dl, device):
        torch.manual_seed(3)
        begun, found = Passes(), []
        for epoch in range(2):
            batches = begun.begin(dl, epoch, device)
            for batch in batches: found.append((batch, torch.rand(()), state()))  # a callback draws
            begun.end(dl, batches)
        return found
    for ds in (tensors(), Drawn(*tensors().tensors[:1]), Subset(tensors(), range(9))):
        pair = [seen(DataLoader(ds, 4, shuffle=True, generator=torch.Generator().manual_seed(0)),
                     o) for o in (None, torch.device('cuda', 0))]
        assert_same(*pair)
    assert {o[0] for o in log} == {'copy', 'wait'}


@pytest.mark.parametrize('make, quiet', [
    (lambda: DataLoader(tensors(), 4, shuffle=True), True),
    (lambda: DataLoader(DATA['nested'](), 2), True),
    (lambda: DataLoader(DATA['own'](), 2, num_workers=1), True),
    (lambda: DataLoader(DATA['own'](), 2), False),
    (lambda: DataLoader(tensors(), batch_sampler=[[1], [2]]), False),
    (lambda: DataLoader(tensors(), 2, sampler=range(3)), False),
    (lambda: [1, 2], False)])
def test_only_what_draws_nothing_is_fetched_early(make, quiet):
    assert draws_nothing(make()) is quiet


def test_only_the_loader_itself_is_fetched_early_and_only_from_the_host():
    class Varied(TensorLoader): pass
    assert TensorLoader(torch.zeros(3), bs=1).draws_nothing
    assert not Varied(torch.zeros(3), bs=1).draws_nothing
