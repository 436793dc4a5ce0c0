"Laws of `TensorLoader`: orders, places, memory, and what it refuses"
import copy
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader, in_order
from fastloop.learner import Learner
from fastloop.torch_core import end_workers, set_epoch

sizes = st.integers(1, 40)
seeds = st.integers(-2**40, 2**70)
epochs = st.integers(0, 5)


def items(dl):
    "The batches of one pass as lists, of a loader over one row of numbers"
    return [batch[0].tolist() for batch in dl]


def flat(batches): return [o for batch in batches for o in batch]


def loader(n, bs, seed=0, **kwargs):
    return TensorLoader(torch.arange(n), bs=bs, shuffle=True, seed=seed, **kwargs)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, seeds, epochs, st.booleans())
def test_every_epoch_is_a_permutation(n, bs, seed, epoch, drop_last):
    dl = loader(n, bs, seed, drop_last=drop_last)
    dl.set_epoch(epoch)
    batches = items(dl)
    expected = [bs]*(n//bs) + ([n % bs] if n % bs and not drop_last else [])
    assert [len(o) for o in batches] == expected
    assert len(dl) == len(batches)
    seen = flat(batches)
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(n))
    if not drop_last: assert sorted(seen) == list(range(n))


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, seeds, epochs)
def test_order_of_an_epoch_does_not_depend_on_history(n, bs, seed, epoch):
    a, b, c = (loader(n, bs, seed) for _ in range(3))
    for _ in range(epoch): items(a)
    for _ in range(epoch):  # left early each time
        for _ in b: break
    c.set_epoch(epoch)
    torch.rand(7)
    want = items(a)
    assert items(b) == want and items(c) == want
    assert flat(want) == flat(items_at(n, n, seed, epoch))  # nor on the batch size


def items_at(n, bs, seed, epoch):
    dl = loader(n, bs, seed)
    dl.set_epoch(epoch)
    return items(dl)


@settings(deadline=None, max_examples=80)
@given(sizes, sizes, seeds, epochs, st.integers(0, 40), st.booleans(), st.booleans())
def test_state_in_mid_epoch_goes_on_as_if_uninterrupted(n, bs, seed, epoch, k, shuffle, drop_last):
    kwargs = dict(bs=bs, shuffle=shuffle, drop_last=drop_last)
    dl = TensorLoader(torch.arange(n), seed=seed, **kwargs)
    for _ in range(epoch): items(dl)
    k, batches = min(k, len(dl)), iter(dl)
    for _ in range(k): next(batches)
    state = json.loads(json.dumps(dl.state_dict()))
    want = [[b[0].tolist() for b in batches], items(dl), items(dl)]
    other = TensorLoader(torch.arange(n), seed=seed + 1, **kwargs)
    items(other)
    other.load_state_dict(state)
    assert [items(other) for _ in range(3)] == want


def test_state_read_in_the_loop_and_after_a_break():
    dl = loader(10, 3, 5)
    whole = items(loader(10, 3, 5))
    for i, _ in enumerate(dl):
        if i == 1:
            state = dl.state_dict()
            break
    assert state == dl.state_dict()
    assert (state['epoch'], state['position']) == (0, 2)
    other = loader(10, 3, 5)
    other.load_state_dict(state)
    assert (other.epoch, other.position) == (0, 2)
    assert items(other) == whole[2:]
    assert items(dl) == items(other) == items_at(10, 3, 5, 1)  # both are in the next epoch


def test_a_finished_pass_is_the_start_of_the_next_epoch():
    dl = loader(6, 2)
    items(dl)
    assert (dl.epoch, dl.position) == (1, 0)
    dl.end_epoch()
    assert (dl.epoch, dl.position) == (1, 0)
    for _ in dl: break
    dl.end_epoch()
    assert (dl.epoch, dl.position) == (2, 0)
    state = dl.state_dict()
    want = items(dl)
    dl.load_state_dict(state)
    assert items(dl) == want == items_at(6, 2, 0, 2)


def test_two_passes_at_once_do_not_disturb_each_other():
    dl = loader(10, 2)
    first, second = iter(dl), iter(dl)
    mixed = [(next(first)[0].tolist(), next(second)[0].tolist()) for _ in range(5)]
    assert [a for a, _ in mixed] == items_at(10, 2, 0, 0)
    assert [b for _, b in mixed] == items_at(10, 2, 0, 1)
    third = iter(dl)
    next(third)
    assert list(first) == [] and (dl.epoch, dl.position) == (2, 1)  # the newest pass counts


def test_peek_leaves_place_and_live_pass_alone():
    dl, plain = loader(10, 4, 3), loader(10, 4, 3)
    assert torch.equal(dl.peek()[0], dl.peek()[0])
    seen = []
    for batch in dl:
        seen.append(batch[0].tolist())
        state = dl.state_dict()
        assert dl.peek()[0].tolist() == items_at(10, 4, 3, 1)[0]
        assert dl.state_dict() == state
    assert seen == items(plain)
    assert items(dl) == items(plain)
    dl.load_state_dict(state)  # saved after the last batch: nothing left, so peek looks further
    assert dl.peek()[0].tolist() == items_at(10, 4, 3, 1)[0]
    assert items(dl) == [] and items(dl) == items_at(10, 4, 3, 1)
    with pytest.raises(ValueError, match='no batch'):
        TensorLoader(torch.arange(2), bs=3, drop_last=True).peek()


def test_seed_is_drawn_once_and_only_for_shuffling():
    torch.manual_seed(1)
    a, b = (TensorLoader(torch.arange(9), bs=2, shuffle=True) for _ in range(2))
    torch.manual_seed(1)
    again = TensorLoader(torch.arange(9), bs=2, shuffle=True)
    assert a.seed == again.seed != b.seed and items(a) == items(again)
    stood = torch.get_rng_state()
    plain = TensorLoader(torch.arange(9), bs=2)
    seeded = TensorLoader(torch.arange(9), bs=2, shuffle=True, seed=1)
    items(plain), items(seeded), items(a)
    assert torch.equal(torch.get_rng_state(), stood)
    assert plain.seed is None and flat(items(plain)) == list(range(9))


def test_orders_of_neighbouring_seeds_and_epochs_differ():
    orders = {tuple(flat(items_at(30, 30, seed, epoch))) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64


def test_orders_stay_what_they_were():
    "A place saved today must mean the same batches tomorrow"
    assert flat(items_at(10, 4, 42, 0)) == [4, 9, 2, 5, 0, 3, 1, 6, 8, 7]
    assert flat(items_at(10, 4, 42, 1)) == [3, 5, 1, 7, 4, 8, 0, 2, 6, 9]


@pytest.mark.parametrize('rows,bs', [(1000, 7), (5000, 64), (300, 300), (130, 1)])
@pytest.mark.parametrize('shuffle', [False, True])
def test_rows_belong_together(rows, bs, shuffle):
    "Against plain indexing, over the borders of the gathered groups, for several tensors"
    y = torch.arange(rows)
    x, z = torch.randn(rows, 3, 50), torch.randint(0, 255, (rows,), dtype=torch.uint8)
    seen = []
    for xb, yb, zb in TensorLoader(x, y, z, bs=bs, shuffle=shuffle, seed=1):
        assert torch.equal(xb, x[yb]) and torch.equal(zb, z[yb])
        seen += yb.tolist()
    assert sorted(seen) == list(range(rows)) and (seen == list(range(rows))) != shuffle


def test_same_batches_as_torch_without_shuffling():
    x, y = torch.randn(25, 3), torch.arange(25)
    for drop_last in (False, True):
        ours = list(TensorLoader(x, y, bs=4, drop_last=drop_last))
        theirs = list(DataLoader(TensorDataset(x, y), 4, drop_last=drop_last))
        for a, b in zip(ours, theirs, strict=True):
            assert isinstance(a, tuple) and all(map(torch.equal, a, b))


@pytest.mark.parametrize('dtype', 'float64 float32 uint8 uint16 bool >i4 complex64'.split())
def test_numpy_arrays_give_what_tensors_give(dtype):
    x = np.arange(24).reshape(12, 2).astype(dtype)
    t = torch.as_tensor(x.astype(x.dtype.newbyteorder('=')))
    a = list(TensorLoader(x, bs=5, shuffle=True, seed=3))
    b = list(TensorLoader(t, bs=5, shuffle=True, seed=3))
    assert [xb.dtype for xb, in a] == [t.dtype]*3
    assert all(torch.equal(one, two) for (one,), (two,) in zip(a, b, strict=True))


@pytest.mark.filterwarnings('error')
def test_awkward_arrays_and_lists():
    frozen = np.frombuffer(bytes(range(6)), dtype=np.uint8)
    assert flat(items(TensorLoader(frozen, bs=4))) == list(range(6))
    assert flat(items(TensorLoader(np.arange(6)[::-1], bs=4))) == [5, 4, 3, 2, 1, 0]
    assert flat(items(TensorLoader([1, 2, 3], bs=2))) == [1, 2, 3]
    array = np.zeros(4)
    dl = TensorLoader(array, bs=4)
    array[0] = 1  # shared, not copied
    assert next(iter(dl))[0][0] == 1


def test_batches_can_be_changed_without_harm():
    x = torch.ones(1000, 10)
    for xb, in TensorLoader(x, bs=8, shuffle=True, seed=0):
        xb.mul_(0)
        assert not xb._is_view()
    assert x.sum() == 10000
    first, second = list(TensorLoader(torch.ones(8), bs=4, shuffle=True, seed=0))
    weight = torch.ones(4, requires_grad=True)
    loss = (weight*first[0]).sum()
    second[0].mul_(3)  # a change to a neighbour is none to what `loss` has kept
    loss.backward()
    assert weight.grad.tolist() == [1]*4 and first[0].tolist() == [1]*4
    inputs = first[0].requires_grad_()
    (inputs*2).sum().backward()
    assert inputs.grad.tolist() == [2]*4


def test_unshuffled_batches_share_the_memory_of_the_data():
    x = torch.arange(20.).view(10, 2)
    for i, (xb,) in enumerate(TensorLoader(x, bs=4)):  # the first is a copy, to see what happens
        assert torch.equal(xb, x[4*i:4*i+4])
        assert (xb.data_ptr() == x[4*i].data_ptr()) == (i > 0)


@pytest.mark.parametrize('mode', [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_who_writes_to_batches_does_not_write_to_the_data(mode):
    x, y = torch.arange(20.).view(10, 2), torch.arange(10)
    kept = x.clone(), y.clone()
    for _ in range(2):
        with mode():
            for i, (xb, yb) in enumerate(TensorLoader(x, y, bs=4)):
                assert torch.equal(xb, kept[0][4*i:4*i+4]) and torch.equal(yb, kept[1][4*i:4*i+4])
                (xb if i else yb).mul_(0)
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


@pytest.mark.parametrize('start', [1, 2])  # the last batch is seen as well
def test_who_begins_to_write_later_is_told(start):
    x = torch.zeros(10, 2)
    with pytest.raises(RuntimeError, match=f'batch {start} was written to.*xb = xb\\*2'):
        for i, (xb,) in enumerate(TensorLoader(x, bs=4)):
            if i >= start: xb.add_(1)
    assert (x != 0).any(1).sum() == (4 if start == 1 else 2)


def test_a_model_that_writes_to_its_inputs_answers_the_same_each_time():
    class Centred(torch.nn.Linear):
        def forward(self, x):
            x -= 1
            return super().forward(x)
    x, y = torch.randn(10, 2), torch.randn(10, 2)
    kept = x.clone()
    learn = Learner(DataBunch.from_tensors(x, y, x, y, bs=4), Centred(2, 2), silent=True)
    learn.fit(2)
    assert learn.validate() == learn.validate() == [learn.recorder.values[-1][1]]
    torch.testing.assert_close(learn.get_preds()[0],
                               torch.nn.functional.linear(kept - 1, *learn.model.parameters()))
    assert torch.equal(x, kept)


def test_memory_of_a_batch_is_bounded():
    x = torch.zeros(20000, 100)  # 8 MB
    kept = {xb.untyped_storage().data_ptr(): xb.untyped_storage().nbytes()
            for xb, in TensorLoader(x, bs=64, shuffle=True, seed=0)}
    assert max(kept.values()) <= 2**19
    big, = next(iter(TensorLoader(x, bs=10000, shuffle=True, seed=0)))
    assert big.untyped_storage().nbytes() == 10000*100*4


def test_a_graph_is_left_outside():
    x = torch.ones(6, requires_grad=True)
    for xb, in TensorLoader(x*2, bs=2, shuffle=True): assert not xb.requires_grad


def count_calls(dl):
    calls = 0

    def hook(frame, event, arg):
        nonlocal calls
        calls += event in ('call', 'c_call')
    old = sys.getprofile()
    sys.setprofile(hook)
    try:
        for _ in dl: pass
    finally: sys.setprofile(old)
    return calls/len(dl)


def test_no_work_per_item():
    few, many = [count_calls(TensorLoader(torch.zeros(n), torch.zeros(n), bs=bs, shuffle=True))
                 for n, bs in ((6400, 64), (64000, 640))]
    assert few < 10 and many < 10


def test_attributes():
    x, y = torch.zeros(10, 3), torch.arange(10)
    dl = TensorLoader(x, y, bs=np.int64(4), shuffle=True, device='cpu', seed=1)
    assert dl.tensors[0] is x and dl.dataset.tensors[1] is y and len(dl.dataset) == dl.n == 10
    assert (dl.bs, dl.shuffle, dl.drop_last, dl.device) == (4, True, False, torch.device('cpu'))
    assert repr(dl) == 'TensorLoader(3 batches of 4, 10 items)'
    assert isinstance(next(iter(TensorLoader(x, bs=4))), tuple)


def test_copies_and_pickles_keep_the_place():
    dl = loader(10, 3, 1)
    next(iter(dl))
    for other in (copy.deepcopy(dl), pickle.loads(pickle.dumps(dl))):
        assert other.state_dict() == dl.state_dict()
        assert items(other) == items_at(10, 3, 1, 1)


x10 = torch.zeros(10)


@pytest.mark.parametrize('args,kwargs,error,words', [
    ((x10,), dict(bs=0), ValueError, ['bs', '0', '1 or more']),
    ((x10,), dict(bs=-3), ValueError, ['bs', '-3']),
    ((x10,), dict(bs=2.5), ValueError, ['bs', '2.5']),
    ((x10,), dict(bs=True), ValueError, ['bs', 'True']),
    ((x10,), dict(bs='64'), ValueError, ['bs', "'64'"]),
    ((x10,), dict(bs=None), ValueError, ['bs', 'None']),
    ((), dict(bs=4), ValueError, ['tensors', 'empty']),
    ((x10, x10[:9]), dict(bs=4), ValueError, ['tensors[0] has 10', 'tensors[1] has 9']),
    ((x10[:0],), dict(bs=4), ValueError, ['tensors[0]', 'empty']),
    ((torch.tensor(1.),), dict(bs=4), ValueError, ['tensors[0]', 'number']),
    ((x10, ['a']*10), dict(bs=4), TypeError, ['tensors[1]', 'list']),
    ((x10,), dict(bs=4, seed=1.5), ValueError, ['seed', '1.5']),
    ((x10,), dict(bs=4, seed='a', shuffle=True), ValueError, ['seed', "'a'"]),
])
def test_bad_input(args, kwargs, error, words):
    stood = torch.get_rng_state()
    with pytest.raises(error) as e: TensorLoader(*args, **kwargs)
    assert all(word in str(e.value) for word in words), e.value
    assert torch.equal(torch.get_rng_state(), stood)


@pytest.mark.parametrize('change,words', [
    (dict(n=11), ['n=11', 'n=10']), (dict(bs=5), ['bs=5', 'bs=3']),
    (dict(shuffle=False), ['shuffle=False']), (dict(position=5), ['position=5', '4 batches']),
    (dict(epoch=-1), ['epoch', '-1']), (dict(position=1.5), ['position', '1.5']),
    (dict(seed=None), ['seed', 'None'])])
def test_a_state_of_another_loader_is_refused_and_changes_nothing(change, words):
    dl = loader(10, 3, 1)
    batches = iter(dl)
    next(batches), next(batches)
    before = dl.state_dict()
    with pytest.raises(ValueError) as e: dl.load_state_dict({**before, **change})
    assert all(word in str(e.value) for word in words), e.value
    assert dl.state_dict() == before


def test_incomplete_state_and_bad_epoch():
    dl = loader(10, 3, 1)
    with pytest.raises(ValueError, match='seed'): dl.load_state_dict({'epoch': 1, 'position': 0})
    for epoch in (-1, 1.5, 'a'):
        with pytest.raises(ValueError, match='epoch'): dl.set_epoch(epoch)
    assert items(dl) == items_at(10, 3, 1, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_on_a_gpu_the_batches_are_the_same():
    x = torch.randn(100, 7)
    dl = TensorLoader(x, bs=9, shuffle=True, seed=4, device='cuda')
    for (a,), (b,) in zip(dl, TensorLoader(x, bs=9, shuffle=True, seed=4), strict=True):
        assert a.is_cuda and torch.equal(a.cpu(), b)


# ---- in order ------------------------------------------------------------------------------------
class Oversampled(Sampler):
    "Deals some items twice, as samplers against rare classes do"
    def __init__(self, n): self.n = n
    def __iter__(self): return iter([0, 0, *torch.randperm(self.n).tolist()])
    def __len__(self): return self.n + 2


class Buckets(Sampler):
    "Whole batches, drawn from a generator of its own"
    def __init__(self, n):
        self.n, self.generator, self.epoch = n, torch.Generator().manual_seed(3), 0

    def __iter__(self):
        self.epoch += 1
        return iter(torch.randperm(self.n, generator=self.generator).split(3))

    def __len__(self): return -(-self.n//3)


class Numbered(list):
    "Items that want to know the epoch"
    epoch = None
    def set_epoch(self, epoch): self.epoch = epoch


class Rows(Dataset):
    "Items that are asked for by the batch"
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, rows): return torch.arange(self.n)[rows]


class OneByOne(Sampler):
    "Numbers as tensors, some of them twice"
    def __len__(self): return 12
    def __iter__(self): return iter(torch.multinomial(torch.ones(10), 12, replacement=True))


class Shouting(DataLoader):
    "Does something to each batch"
    def __iter__(self): return (batch*100 for batch in super().__iter__())


ten = list(range(10))
LOADERS = {
    'shuffled': lambda: DataLoader(ten, batch_size=4, shuffle=True),
    'short': lambda: DataLoader(ten, batch_size=4, shuffle=True, drop_last=True),
    'short and in order': lambda: DataLoader(ten, batch_size=4, drop_last=True),
    'weighted': lambda: DataLoader(ten, batch_size=4,
                                   sampler=WeightedRandomSampler([1.]*9 + [50.], 30)),
    'oversampled': lambda: DataLoader(ten, batch_size=4, sampler=Oversampled(10)),
    'few of many': lambda: DataLoader(ten, batch_size=4, sampler=RandomSampler(ten, num_samples=3)),
    'buckets': lambda: DataLoader(ten, batch_sampler=Buckets(10)),
    'batches by hand': lambda: DataLoader(ten, batch_sampler=BatchSampler(
        RandomSampler(ten), 4, drop_last=True)),
    'a sampler of batches': lambda: DataLoader(Rows(10), batch_size=None, sampler=BatchSampler(
        RandomSampler(ten), 4, drop_last=False)),
    'tensors of one number': lambda: DataLoader(ten, batch_size=4, sampler=OneByOne()),
    'one by one': lambda: DataLoader(ten, batch_size=None, shuffle=True),
    'own generator': lambda: DataLoader(ten, batch_size=4, shuffle=True,
                                        generator=torch.Generator().manual_seed(5)),
    'workers': lambda: DataLoader(ten, batch_size=4, shuffle=True, num_workers=1,
                                  persistent_workers=True)}


def numbers(dl): return [i for batch in dl for i in torch.as_tensor(batch).reshape(-1).tolist()]


@pytest.mark.parametrize('name', LOADERS)
def test_in_order_serves_each_item_once_and_moves_nothing(name):
    torch.manual_seed(0)
    alone = [numbers(LOADERS[name]()) for _ in range(1)][0]
    torch.manual_seed(0)
    dl = LOADERS[name]()
    state = torch.get_rng_state()
    sorted_dl = in_order(dl)
    assert numbers(sorted_dl) == numbers(sorted_dl) == ten
    assert len(sorted_dl) == len(list(sorted_dl))
    assert torch.equal(torch.get_rng_state(), state)
    assert numbers(dl) == alone
    end_workers(dl)


def test_in_order_keeps_to_a_subset_and_to_what_is_in_order():
    held = DataLoader(ten, batch_size=2, sampler=SubsetRandomSampler([7, 1, 4]))
    assert numbers(in_order(held)) == [1, 4, 7]
    for dl in (DataLoader(ten, batch_size=4), [(1, 2)], DataLoader(Stream(), batch_size=2)):
        assert in_order(dl) is dl


def test_in_order_leaves_the_place_of_a_loader_that_does_not_shuffle():
    dl = TensorLoader(torch.arange(4), bs=2)
    list(dl)
    place = dl.state_dict()
    assert flat(items(in_order(dl))) == [0, 1, 2, 3] and dl.state_dict() == place


class Stream(IterableDataset):
    def __iter__(self): return iter(range(4))


def test_in_order_keeps_what_a_subclass_does_to_its_batches():
    assert numbers(in_order(Shouting(ten, batch_size=4, shuffle=True))) == [o*100 for o in ten]


def test_in_order_leaves_the_place_in_the_middle_of_an_epoch():
    dl = loader(10, 3, drop_last=True)
    batches = iter(dl)
    next(batches)
    place = dl.state_dict()
    assert flat(items(in_order(dl))) == ten and dl.state_dict() == place
    assert len(in_order(dl)) == 4 and len(list(batches)) == 2


# ---- epochs --------------------------------------------------------------------------------------
def test_set_epoch_tells_samplers_and_data_sets_once():
    told = []
    class Told(Sampler):
        def __init__(self, name, sampler=()): self.name, self.sampler = name, sampler
        def __iter__(self): return iter([[0]])
        def __len__(self): return 1
        def set_epoch(self, epoch): told.append((self.name, epoch))
    set_epoch(DataLoader(ten, sampler=Told('sampler')), 3)
    set_epoch(DataLoader(ten, batch_sampler=Told('batches', Told('inner'))), 4)
    assert told == [('sampler', 3), ('batches', 4), ('inner', 4)]
    data = Numbered(ten)
    set_epoch(DataLoader(Subset(Subset(data, [0, 1]), [0])), 5)
    assert data.epoch == 5
    set_epoch([(1, 2)], 0)
    set_epoch(None, 0)


def test_set_epoch_leaves_the_place_of_a_loader_that_keeps_its_own():
    dl = loader(10, 3)
    place = dl.state_dict()
    set_epoch(dl, 7)
    assert dl.state_dict() == place


@pytest.mark.parametrize('kept', [False, True])
def test_workers_see_the_data_set_as_it_is_at_each_pass(kept):
    data = Numbered([1, 1])
    dl, seen = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=kept), []
    for epoch in range(3):
        data[0] = 10*epoch
        set_epoch(dl, epoch)
        seen.append(numbers(dl))
    end_workers(dl)
    assert seen == [[0, 1], [10, 1], [20, 1]]


@pytest.mark.parametrize('grads', [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_numpy_that_writes_to_batches_does_not_write_to_the_data(grads):
    "torch does not notice it"
    x, y = torch.randn(10, 2), torch.randn(10)
    kept = x.clone(), y.clone()
    with grads():
        for i, (xb, yb) in enumerate(TensorLoader(x, y, bs=4)):
            assert torch.equal(xb, kept[0][4*i:4*i+4]) and torch.equal(yb, kept[1][4*i:4*i+4])
            yb.numpy()[:] = 7
            xb.data.sub_(1)
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


def test_data_with_nan_are_served_as_they_are():
    x = torch.full((10, 2), torch.nan)
    assert sum(xb.isnan().sum() for xb, in TensorLoader(x, bs=4)) == 20
