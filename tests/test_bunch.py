"`DataBunch`: what it knows, what it makes, what it refuses, and looks that leave no trace"
import multiprocessing
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.torch_core import default_device, end_workers

x, y = torch.randn(100, 3), torch.arange(100) % 7
xv, yv = torch.randn(30, 3), torch.arange(30) % 7


class Noisy(Dataset):
    "Items that use up random numbers of every kind"
    def __len__(self): return 40

    def __getitem__(self, i):
        noise = torch.rand(()) + random.random() + np.random.rand()
        return torch.tensor([i, float(noise)]), i % 3


class Doubled(TensorDataset):
    "Not just its tensors"
    def __getitem__(self, i): return tuple(2*o for o in super().__getitem__(i))


class Stream(IterableDataset):
    def __iter__(self): return iter([(torch.tensor(float(i)), i) for i in range(10)])


class Course:
    "The course's data set: neither torch's class nor tensors in the open"
    def __init__(self, x, y): self.x, self.y = x, y

    def __len__(self): return len(self.x)

    def __getitem__(self, i): return self.x[i], self.y[i]


def labels(dl): return [yb.tolist() for xb, yb in dl]


def test_the_course_way():
    train_ds, valid_ds = Course(x, y), Course(xv, yv)
    train_dl = DataLoader(train_ds, 16, shuffle=True)
    valid_dl = DataLoader(valid_ds, 32)
    data = DataBunch(train_dl, valid_dl, 10)
    assert data.train_dl is train_dl and data.valid_dl is valid_dl and data.c == 10
    assert data.train_ds is train_ds and data.valid_ds is valid_ds and data.bs == 16
    assert DataBunch(train_dl, valid_dl).c == 7
    assert data.device == default_device() and data.path == Path('.') and data.classes is None


def test_properties_follow_the_loaders():
    data = DataBunch.from_tensors(x, y, xv, yv, bs=10)
    data.train_dl = DataLoader(TensorDataset(xv, yv), 5)
    assert data.bs == 5 and len(data.train_ds) == 30


def test_from_tensors():
    data = DataBunch.from_tensors(x, y, xv, yv, bs=16, device='cpu', seed=3, path='somewhere')
    assert isinstance(data.train_dl, TensorLoader) and data.train_dl.shuffle
    assert (data.bs, data.valid_dl.bs, data.valid_dl.shuffle) == (16, 32, False)
    assert labels(data.train_dl) == labels(TensorLoader(x, y, bs=16, shuffle=True, seed=3))
    assert labels(data.valid_dl) == [yv.tolist()]
    assert data.path == Path('somewhere') and data.train_ds.tensors[0] is x and data.c == 7
    assert DataBunch.from_tensors(x, y, xv, yv, valid_bs=9, c=12).valid_dl.bs == 9
    alone = DataBunch.from_tensors(x, y)
    assert alone.valid_dl is None and alone.valid_ds is None and 'valid: none' in repr(alone)


def test_numpy_and_torch_make_the_same_batches():
    data = DataBunch.from_tensors(x.double().numpy(), y.to(torch.int32).numpy(),
                                  xv.double().numpy(), yv.to(torch.uint8).numpy(), seed=1)
    same = DataBunch.from_tensors(x, y, xv, yv, seed=1)
    for ours, theirs in ((data.train_dl, same.train_dl), (data.valid_dl, same.valid_dl)):
        for (xa, ya), (xb, yb) in zip(ours, theirs, strict=True):
            assert xa.dtype == torch.float32 and ya.dtype == torch.int64
            assert torch.equal(xa, xb) and torch.equal(ya, yb)
    pictures = np.zeros((4, 2, 2), dtype=np.uint8)
    kept = DataBunch.from_tensors(pictures, np.zeros(4)).train_ds.tensors
    assert kept[0].dtype == torch.uint8 and kept[1].dtype == torch.float32
    assert DataBunch.from_tensors(x.double(), y).train_ds.tensors[0].dtype == torch.float64


def test_create_chooses_the_loader():
    ds = TensorDataset(x, y)
    data = DataBunch.create(ds, TensorDataset(xv, yv), bs=16, device='cpu')
    assert isinstance(data.train_dl, TensorLoader) and data.train_ds is ds
    for other in (Noisy(), Course(x, y), Subset(ds, range(50)), [(x[0], 1)]*20, Doubled(x, y)):
        data = DataBunch.create(other, other, bs=16, device='cpu')
        assert isinstance(data.train_dl, DataLoader) and data.train_ds is other
        assert data.valid_dl.batch_size == 32 and not data.train_dl.pin_memory
    assert max(flat(labels(DataBunch.create(Doubled(x, y), None).train_dl))) == 12
    stream = DataBunch.create(Stream(), Stream(), bs=4, device='cpu')
    assert labels(stream.train_dl) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and stream.bs == 4
    assert DataBunch.create(ds, None).valid_dl is None
    if not torch.cuda.is_available(): return
    assert DataBunch.create(Noisy(), Noisy(), device='cuda').train_dl.pin_memory


def flat(batches): return [o for batch in batches for o in batch]


def test_torch_loader_order_is_a_function_of_the_seed():
    def orders(seed, disturb):
        data = DataBunch.create(Course(x, torch.arange(100)), Course(xv, yv), bs=16, seed=seed)
        res = []
        for _ in range(3):
            if disturb: torch.rand(5), labels(data.valid_dl), data.one_batch()
            res.append(labels(data.train_dl))
        return res
    assert orders(1, False) == orders(1, True) != orders(2, False)
    torch.manual_seed(5)
    a = orders(None, False)
    torch.manual_seed(5)
    assert orders(None, True) == a != orders(None, False)


def test_a_batch_is_fetched_at_once():
    class Batched(Course):
        calls = 0

        def __getitems__(self, indices):
            Batched.calls += 1
            return [self[i] for i in indices]
    labels(DataBunch.create(Batched(x, y), None, bs=10).train_dl)
    assert Batched.calls == 10


def test_workers():
    data = DataBunch.create(Noisy(), Noisy(), bs=8, num_workers=1, device='cpu', seed=1)
    same = DataBunch.create(Noisy(), Noisy(), bs=8, num_workers=0, device='cpu', seed=1)
    seen = []
    for xb, _ in data.train_dl:
        data.one_batch()  # in the middle of a pass with live workers
        seen.append(xb[:, 0].tolist())
    assert seen == [xb[:, 0].tolist() for xb, _ in same.train_dl]
    assert sorted(flat(seen)) == list(range(40))


@pytest.mark.parametrize('ds,c', [
    (TensorDataset(x, y), 7), (TensorDataset(x, y.to(torch.uint8)), 7),
    (TensorDataset(x, torch.rand(100)), 1), (TensorDataset(x, torch.rand(100, 4)), 4),
    (TensorDataset(x, torch.zeros(100, 4, dtype=torch.long)), None),
    (TensorDataset(x, torch.zeros(100, dtype=torch.bool)), None),
    (TensorDataset(x), None), (Noisy(), None), (Course(x, y.numpy()), 7),
    (Subset(Subset(TensorDataset(x, y), range(50)), range(3)), 7)])
def test_c(ds, c):
    assert DataBunch(DataLoader(ds, 10), None).c == c
    assert DataBunch(DataLoader(ds, 10), None, c=5).c == 5
    named = Course(x, y)
    named.classes = ['a', 'b', 'c']
    data = DataBunch(DataLoader(Subset(named, [1, 2]), 2), None)
    assert data.c == 3 and data.classes == ['a', 'b', 'c']
    named.c = 4
    assert DataBunch(DataLoader(named, 2), None).c == 4


def test_any_sized_iterable_is_a_loader():
    batches = [(x[:4], y[:4]), (x[4:6], y[4:6])]
    data = DataBunch(batches, tuple(batches), device='cpu')
    assert data.train_dl is batches and data.bs == 4 and data.c is None and data.train_ds is None
    assert torch.equal(data.one_batch()[0], x[:4])

    class Own:
        def __len__(self): return 2

        def __iter__(self): return iter(batches)
    own = Own()
    data = DataBunch(own, own, c=7, device='cpu')
    assert data.train_dl is own and data.bs is None and data.one_batch(train=False)[0].shape[0] == 4
    assert repr(data).startswith('DataBunch(train: 2 batches of None, valid: 2 batches, c=7')


def states():
    return (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
            np.random.get_state()[2])


@pytest.mark.parametrize('make', [
    lambda: DataLoader(Noisy(), 8, shuffle=True),
    lambda: DataLoader(Noisy(), 8, shuffle=True, generator=torch.Generator().manual_seed(1)),
    lambda: DataLoader(Noisy(), 8, sampler=torch.utils.data.RandomSampler(
        Noisy(), generator=torch.Generator().manual_seed(2))),
    lambda: DataLoader(Noisy(), 8, shuffle=True, num_workers=1),
    lambda: DataLoader(Noisy(), None, shuffle=True),
    lambda: TensorLoader(x, y, bs=8, shuffle=True),
    lambda: DataBunch.create(Noisy(), None, bs=8).train_dl])
def test_one_batch_leaves_no_trace(make):
    def run(look):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        dl, res = make(), []
        data = DataBunch(dl, dl, device='cpu')
        for _ in range(2):
            if look:
                stood = states()
                looked = data.one_batch()
                data.one_batch(train=False)
                assert states() == stood
            seen = [[torch.as_tensor(o).tolist() for o in batch] for batch in dl]
            if look and getattr(dl, 'num_workers', 0) == 0:  # what was shown is what comes
                assert [torch.as_tensor(o).tolist() for o in looked] == seen[0]
            res.append(seen)
        return res
    assert run(look=True) == run(look=False)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 30))
def test_one_batch_in_mid_epoch(n, bs, k):
    def make(): return DataBunch.from_tensors(torch.arange(n), torch.arange(n), bs=bs, seed=1)
    data, plain, seen = make(), make(), []
    for i, (xb, _) in enumerate(data.train_dl):
        seen.append(xb.tolist())
        if i == k:
            state = data.train_dl.state_dict()
            data.one_batch()
            assert data.train_dl.state_dict() == state
    assert seen == [xb.tolist() for xb, _ in plain.train_dl]
    assert labels(data.train_dl) == labels(plain.train_dl)


def test_a_loader_of_ones_own_with_a_place_is_put_back():
    class Own:
        at = 0

        def __len__(self): return 3

        def __iter__(self):
            while self.at < 3:
                self.at += 1
                yield x[:2], y[:2]

        def state_dict(self): return {'at': self.at}

        def load_state_dict(self, state): self.at = state['at']
    own = Own()
    DataBunch(own, device='cpu').one_batch()
    assert own.at == 0


ok = [(x[:4], y[:4])]


@pytest.mark.parametrize('dl,error,words', [
    ([], ValueError, ['empty']),
    (DataLoader([], 4), ValueError, ['empty']),
    (TensorLoader(x[:3], bs=4, drop_last=True), ValueError, ['empty', 'drop_last']),
    (x, TypeError, ['Tensor', 'from_tensors']), (x.numpy(), TypeError, ['ndarray', 'from_tensors']),
    ((x, y), TypeError, ['from_tensors']),
    (TensorDataset(x, y), TypeError, ['TensorDataset', 'DataBunch.create']),
    (Noisy(), TypeError, ['Noisy', 'DataBunch.create']),
    (Course(x, y), TypeError, ['Course', 'DataBunch.create']),
    ((b for b in ok), TypeError, ['generator', 'one epoch']),
    (iter(ok), TypeError, ['one epoch']), (3, TypeError, ['int']), ('train', TypeError, ['str']),
    ({'x': x}, TypeError, ['dict'])])
def test_what_is_no_loader(dl, error, words):
    for name, args in (('train_dl', (dl, ok)), ('valid_dl', (ok, dl))):
        with pytest.raises(error) as e: DataBunch(*args)
        assert all(word in str(e.value) for word in [name, *words]), e.value


def test_bad_arguments():
    ds = TensorDataset(x, y)
    stood = torch.get_rng_state()
    with pytest.raises(TypeError, match='train_dl'): DataBunch(None, ok)
    for kwargs in (dict(bs=0), dict(bs=1.5), dict(valid_bs=0), dict(num_workers=-1),
                   dict(seed='a')):
        name, value = next(iter(kwargs.items()))
        with pytest.raises(ValueError, match=name) as e: DataBunch.create(ds, ds, **kwargs)
        assert repr(value) in str(e.value)
    with pytest.raises(ValueError, match='train_ds is empty'): DataBunch.create([], ds, seed=1)
    with pytest.raises(ValueError, match='valid_ds is empty'): DataBunch.create(ds, [], seed=1)
    for wrong in (x, DataLoader(ds), TensorLoader(x, bs=2), None, 3):
        with pytest.raises(TypeError, match='train_ds'): DataBunch.create(wrong, ds, seed=1)
    with pytest.raises(ValueError, match='x_train has 100, y_train has 30'):
        DataBunch.from_tensors(x, yv, xv, yv)
    with pytest.raises(ValueError, match='x_valid has 30, y_valid has 100'):
        DataBunch.from_tensors(x, y, xv, y)
    with pytest.raises(ValueError, match='x_valid and y_valid'): DataBunch.from_tensors(x, y, xv)
    with pytest.raises(ValueError, match='x_train is empty'): DataBunch.from_tensors(x[:0], y[:0])
    with pytest.raises(TypeError, match='y_train'): DataBunch.from_tensors(x, [{}]*100)
    with pytest.raises(TypeError, match='x_train'): DataBunch.from_tensors(['a']*100, y)
    for pct in (1, -.1, 1.5, 'a', True):
        with pytest.raises(ValueError, match='valid_pct'):
            DataBunch.from_tensors(x, y, valid_pct=pct, seed=1)
    with pytest.raises(ValueError, match='valid_pct=0.2 and x_valid'):
        DataBunch.from_tensors(x, y, xv, yv, valid_pct=.2)
    with pytest.raises(ValueError, match='bs'): DataBunch.from_tensors(x, y, bs=0)
    with pytest.raises(ValueError, match='valid_dl is None'): DataBunch(ok).one_batch(train=False)
    assert torch.equal(torch.get_rng_state(), stood)


def test_a_stream_without_length_is_a_loader():
    data = DataBunch(DataLoader(Stream(), 4), device='cpu')
    assert data.one_batch()[1].tolist() == [0, 1, 2, 3] and 'train: ' in repr(data)


def test_workers_end_with_the_training():
    data = DataBunch(DataLoader(Noisy(), 8, num_workers=1, persistent_workers=True))
    list(data.train_dl)
    assert multiprocessing.active_children()
    end_workers(data.train_dl)
    assert not multiprocessing.active_children()
    end_workers(data.train_dl)
    end_workers(None)
    assert len(list(data.train_dl)) == 5
    end_workers(data.train_dl)


# ---- labels that are texts, a share set aside, a last batch of one -------------------------------
words = np.array(['shoe', 'bag', 'shoe', 'shirt', 'bag'])


@pytest.mark.parametrize('made', [words, list(words), tuple(map(str, words)), words.astype(object)])
def test_texts_become_numbers_and_classes(made):
    data = DataBunch.from_tensors(x[:5], made, x[:2], ['bag', 'shirt'], device='cpu')
    assert data.classes == data.valid_ds.classes == ['bag', 'shirt', 'shoe'] and data.c == 3
    assert all(type(o) is str for o in data.classes)
    assert data.train_ds.tensors[1].tolist() == [2, 0, 2, 1, 0]
    assert data.valid_ds.tensors[1].tolist() == [0, 1]
    assert data.train_ds.tensors[1].dtype == torch.int64


def test_classes_may_be_given():
    data = DataBunch.from_tensors(x[:5], words, classes=['shoe', 'hat', 'bag', 'shirt'])
    assert data.train_ds.tensors[1].tolist() == [0, 2, 0, 3, 2] and data.c == 4
    data = DataBunch.from_tensors(x, y, classes=[f'number {i}' for i in range(9)])
    assert data.c == 9 and data.classes[8] == 'number 8' and data.train_ds.tensors[1] is y
    for kwargs in (dict(classes=['shoe', 'bag']), dict(x_valid=x[:1], y_valid=['hat'])):
        with pytest.raises(ValueError, match='(shirt|hat).*no class.*bag'):
            DataBunch.from_tensors(x[:5], words, **kwargs)


def test_a_share_is_set_aside():
    n = torch.arange(100)
    data = DataBunch.from_tensors(n, n, valid_pct=.25, seed=3, bs=10)
    train, valid = (o.tensors[0].tolist() for o in (data.train_ds, data.valid_ds))
    assert len(valid) == 25 and sorted(train + valid) == n.tolist() and valid != n[:25].tolist()
    again = DataBunch.from_tensors(n, n, valid_pct=.25, seed=3, bs=50)
    assert again.valid_ds.tensors[0].tolist() == valid
    other = DataBunch.from_tensors(n, n, valid_pct=.25, seed=4)
    assert other.valid_ds.tensors[0].tolist() != valid
    assert DataBunch.from_tensors(n, n, valid_pct=0).valid_dl is None
    assert len(DataBunch.from_tensors(n, n, valid_pct=.001).valid_ds) == 1
    shoes = DataBunch.from_tensors(x[:5], words, valid_pct=.4, seed=1)
    assert shoes.valid_ds.classes == shoes.classes == ['bag', 'shirt', 'shoe']


def test_floats_are_of_the_default_type():
    numbers = np.zeros((4, 2)), np.zeros(4)
    torch.set_default_dtype(torch.float64)
    try: wide = DataBunch.from_tensors(*numbers).train_ds.tensors
    finally: torch.set_default_dtype(torch.float32)
    assert [o.dtype for o in wide] == [torch.float64]*2
    assert [o.dtype for o in DataBunch.from_tensors(*numbers).train_ds.tensors] == [torch.float32]*2


@pytest.mark.parametrize('kind', ['tensors', 'items'])
@pytest.mark.parametrize('n, drop_last, sizes', [
    (9, None, [4, 4]), (10, None, [4, 4, 2]), (1, None, [1]), (8, None, [4, 4]),
    (9, False, [4, 4, 1]), (10, True, [4, 4])])
def test_a_last_batch_of_one_is_left_out(kind, n, drop_last, sizes):
    class Items(Course): pass
    ds = (TensorDataset if kind == 'tensors' else Items)(x[:n], y[:n])
    data = DataBunch.create(ds, ds, bs=4, valid_bs=4, drop_last=drop_last, device='cpu')
    assert [len(yb) for _, yb in data.train_dl] == sizes
    assert len(data.train_dl) == len(sizes)
    assert sum(len(yb) for _, yb in data.valid_dl) == n
    if kind == 'tensors':
        same = DataBunch.from_tensors(x[:n], y[:n], bs=4, drop_last=drop_last)
        assert [len(yb) for _, yb in same.train_dl] == sizes


def test_batches_of_one_stay_when_they_are_asked_for():
    assert len(DataBunch.from_tensors(x, y, bs=1).train_dl) == 100
    with pytest.raises(ValueError, match='drop_last'): DataBunch.from_tensors(x, y, bs=128,
                                                                              drop_last=True)


# ---- labels that are no row of labels, and labels that do not fit --------------------------------
class Row:
    "A row of values of another library, as a Series of pandas is"
    def __init__(self, values): self.values = values

    def __len__(self): return len(self.values)

    def __iter__(self): return iter(self.values)

    def __array__(self, *args, **kwargs): return self.values


class Table:
    "What a data frame shows of itself: going through it gives the names of its columns"
    columns = ['u', 'v', 'w']

    def __len__(self): return 3

    def __iter__(self): return iter(self.columns)

    def to_numpy(self): return np.eye(3)

    def __array__(self, *args, **kwargs): return self.to_numpy()


@pytest.mark.parametrize('wrong,words', [
    (Table(), ['Table', 'write {}.to_numpy()']), ({'a': 0, 'b': 1, 'c': 2}, ['dict']),
    ({'a', 'b', 'c'}, ['set']), ('abc', ['str']), (b'abc', ['bytes'])],
    ids=['table', 'dict', 'set', 'str', 'bytes'])
def test_a_table_or_a_set_is_no_row_of_labels(wrong, words):
    good = ['a', 'b', 'c']
    for name, args in (('y_train', (x[:3], wrong)), ('y_train', (x[:3], wrong, x[:3], good)),
                       ('y_valid', (x[:3], good, x[:3], wrong))):
        with pytest.raises(TypeError) as e: DataBunch.from_tensors(*args)
        for word in [name, 'label for each item', *words]: assert word.format(name) in str(e.value)


def test_a_column_of_a_table_is_a_row_of_labels():
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame({'y': ['b', 'a', 'b']}, index=[5, 3, 4])
    row = Row(np.array(['b', 'a', 'b'], dtype=object))
    for made in (row, frame['y'], frame['y'].astype('category')):
        data = DataBunch.from_tensors(x[:3], made)
        assert data.train_ds.tensors[1].tolist() == [1, 0, 1] and data.classes == ['a', 'b']
    with pytest.raises(TypeError, match=r'DataFrame: write y_train\.to_numpy\(\)'):
        DataBunch.from_tensors(x[:3], frame)


@pytest.mark.parametrize('seed', range(6))
def test_a_rare_class_counts_wherever_it_falls(seed):
    "In every split there are as many outputs as there are different labels"
    rare = torch.tensor([0]*10 + [1]*9 + [2])
    split = DataBunch.from_tensors(x[:20], rare, valid_pct=.2, seed=seed)
    assert split.c == len(set(rare.tolist()))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    parts = [Subset(TensorDataset(x[:20], rare), o.tolist()) for o in (order[:16], order[16:])]
    whole = [TensorDataset(x[o], rare[o]) for o in (order[:16], order[16:])]
    for pair in (parts, whole, [Course(*o.tensors) for o in whole]):
        assert DataBunch.create(*pair, bs=4).c == 3
        assert DataBunch(*[DataLoader(o, 4) for o in pair]).c == 3


def test_labels_of_the_validation_change_nothing_else():
    counted = TensorDataset(x, y), TensorDataset(xv, torch.rand(30))
    assert DataBunch.create(*counted).c == 7
    assert DataBunch.create(TensorDataset(x, torch.rand(100)), TensorDataset(xv, yv)).c == 1
    assert DataBunch.create(counted[0], Noisy()).c == 7
    assert DataBunch.create(Noisy(), Noisy()).c is None
    assert DataBunch.create(*counted, c=4).c == 4
    named = Course(x, y)
    named.classes = list('abcdefg')
    assert DataBunch.create(named, TensorDataset(xv, yv + 20)).c == 7


@pytest.mark.parametrize('form', [
    list, np.array, torch.tensor, lambda o: Row(np.array(o)), lambda o: np.array(o)[:, None],
    lambda o: [[i] for i in o], lambda o: torch.tensor(o, dtype=torch.int32)],
    ids=['list', 'array', 'tensor', 'row', 'column', 'lists', 'int32'])
def test_classes_are_counted_in_every_form(form):
    def ask(y_train, y_valid=(0, 1)):
        return DataBunch.from_tensors(x[:3], form(y_train), x[:2], form(y_valid),
                                      classes=['a', 'b'])
    assert ask([0, 1, 1]).classes == ['a', 'b']
    for name, wrong, args in (('y_train', 2, ([0, 1, 2],)), ('y_train', -1, ([0, -1, 1],)),
                              ('y_valid', 5, ([0, 1, 1], [0, 5]))):
        with pytest.raises(ValueError, match=f'classes has 2 names.*{name} has the label {wrong}$'):
            ask(*args)


def test_labels_that_are_no_numbers_of_classes_need_no_names():
    left_out = torch.tensor([0, -100, 1])  # the number that torch's losses leave out
    assert DataBunch.from_tensors(x[:3], left_out, classes=['a', 'b']).c == 2
    picture = torch.full((3, 2, 2), 255)
    assert DataBunch.from_tensors(x[:3], picture, classes=['a', 'b']).c == 2
    for columns in (1, 2):
        assert DataBunch.from_tensors(x[:3], torch.ones(3, columns), classes=['a', 'b']).c == 2
    assert DataBunch.from_tensors(x[:3], torch.ones(3, 1), classes=['spam']).c == 1
    with pytest.raises(ValueError, match='2 names, but y_train has 3 columns'):
        DataBunch.from_tensors(x[:3], torch.ones(3, 3), classes=['a', 'b'])


# ---- data to validate with, as those to train with -----------------------------------------------
def test_validation_data_get_the_types_of_the_training():
    "Whatever they are given in, each number is the same afterwards"
    numbers, whole = torch.arange(6.).reshape(2, 3), torch.arange(6).reshape(2, 3)
    for like in (numbers, numbers.double(), numbers.half(), whole, whole.to(torch.uint8)):
        for put in (numbers, whole, whole.int(), whole.numpy(), numbers.double(), whole.tolist()):
            data = DataBunch.from_tensors(like, [0, 1], put, [1., 0.])
            xb, yb = data.valid_ds.tensors
            assert xb.dtype == like.dtype and xb.tolist() == numbers.tolist()
            assert yb.dtype == torch.int64 and yb.tolist() == [1, 0]
    prices = DataBunch.from_tensors(numbers, [.5, 1.], numbers, [2, 3]).valid_ds.tensors[1]
    assert prices.dtype == torch.float32 and prices.tolist() == [2, 3]
    same = DataBunch.from_tensors(x, y, xv, yv)
    assert same.valid_ds.tensors[0] is xv and same.valid_ds.tensors[1] is yv


@pytest.mark.parametrize('name,words,args', [
    ('x_valid', ['(2,)', '(3,)'], (x, y, xv[:, :2], yv)),
    ('x_valid', ['(3, 1)', '(3,)'], (x, y, xv[..., None], yv)),
    ('x_valid', ['0.5', 'int64'], (y[:, None], y, torch.full((30, 1), .5), yv)),
    ('x_valid', ['260', 'uint8'], (y[:, None].byte(), y, yv[:, None] + 260, yv)),
    ('y_valid', ['0.5', 'int64'], (x, y, xv, torch.full((30,), .5))),
    ('y_valid', ['(2,)', '(3,)'], (x, x, xv, xv[:, :2]))])
def test_validation_data_unlike_those_to_train_with(name, words, args):
    with pytest.raises(ValueError) as e: DataBunch.from_tensors(*args)
    assert all(word in str(e.value) for word in [name, *words]), e.value


def test_validation_data_may_be_of_another_size():
    "Pictures, sentences, and classes where the training has probabilities"
    for small, large in ((torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 9, 12)),
                         (torch.ones(4, 5).long(), torch.ones(4, 9).long()),
                         (torch.zeros(4, 6, 3), torch.zeros(4, 9, 3))):
        data = DataBunch.from_tensors(small, y[:4], large, y[:4])
        assert data.valid_ds.tensors[0] is large
    soft = DataBunch.from_tensors(x, torch.rand(100, 7).softmax(1), xv, yv)
    assert soft.valid_ds.tensors[1] is yv and soft.c == 7
