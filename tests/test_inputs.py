"Items that a model is asked about: in the types of the training, none lost, none written to"
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fastloop.data.bunch import DataBunch
from fastloop.export import Predictor
from fastloop.inputs import InputLoader, as_type, cut, inputs_like, is_column
from fastloop.train import Learner

x = torch.randn(13, 4, generator=torch.Generator().manual_seed(0))
names = [f'n{i}' for i in range(13)]


class Items(Dataset):
    "Items made by a function of their number"
    def __init__(self, make): self.make = make

    def __len__(self): return 13

    def __getitem__(self, i): return self.make(i), i % 3


class Sum(nn.Module):
    "Adds its inputs, and perhaps spoils them"
    def __init__(self, spoil=False):
        super().__init__()
        self.layer, self.spoil = nn.Linear(4, 3), spoil

    def forward(self, a, b=None, name=None):
        tensors = [o for o in (a, b) if torch.is_tensor(o)]
        found = self.layer(sum(tensors))
        if self.spoil and not self.training:
            for t in tensors: t.fill_(7.)
        return found


def learner(make, **kwargs):
    return Learner(DataBunch.create(Items(make), Items(make), bs=4, device='cpu'), Sum(**kwargs),
                   silent=True)


# ---- several inputs ------------------------------------------------------------------------------
@pytest.mark.parametrize('lengths', [(8, 13), (5, 1), (13, 5)])
@pytest.mark.parametrize('kind', [tuple, dict])
def test_inputs_of_different_lengths_are_refused(lengths, kind, tmp_path):
    "By the learner as by what it exports, and before the model is asked anything"
    def put(a, b): return (a, b) if kind is tuple else {'a': a, 'b': b}
    learn = learner(lambda i: put(x[i], x[i]))
    asked, items = [], put(*(x[:n] for n in lengths))
    learn.model.register_forward_hook(lambda *args: asked.append(args))
    with pytest.raises(ValueError, match=r'items: the inputs have \[\d+, \d+\] rows') as mine:
        learn.get_preds(items)
    assert not asked and str(sorted(lengths)) in str(mine.value)
    if kind is dict: return
    predictor = Predictor.load(learn.export(tmp_path/'two.pt2'))
    with pytest.raises(ValueError) as theirs: predictor.get_preds(items)
    assert str(theirs.value) in str(mine.value)


@pytest.mark.parametrize('kind', ['pair', 'dict', 'one'])
def test_a_model_that_writes_to_its_inputs_spoils_no_item(kind):
    put = dict(pair=lambda a, b: (a, b), dict=lambda a, b: {'a': a, 'b': b}, one=lambda a, b: a)
    learn = learner(lambda i: put[kind](x[i], x[i]), spoil=True)
    mine, other = x.numpy().copy(), x.clone()
    wanted = learn.model.layer(x if kind == 'one' else x + x)
    for _ in range(2):
        torch.testing.assert_close(learn.get_preds(put[kind](mine, other))[0], wanted.detach())
    assert np.array_equal(mine, x.numpy()) and torch.equal(other, x)
    batches = learn.data.test_dl(put[kind](mine, other), bs=5)
    for _ in range(2):  # and a loader can be gone through again
        assert len(batches) == 3
        torch.testing.assert_close(learn.get_preds(batches)[0], wanted.detach())


def test_items_are_copied_a_batch_at_a_time():
    a, b = torch.zeros(6, 2), torch.zeros(6)
    loader = iter(InputLoader('items', (a, b), 2))
    (first, _), _ = next(loader)
    a += 1
    assert first.sum() == 0 and next(loader)[0][0].tolist() == [[1, 1]]*2


# ---- whole numbers -------------------------------------------------------------------------------
kinds = dict(uint8=(0, 2**8), int8=(-2**7, 2**7), int16=(-2**15, 2**15), int32=(-2**31, 2**31),
             int64=(-2**63, 2**63))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(list(kinds)), st.sampled_from(list(kinds)), st.data())
def test_whole_numbers_stay_or_are_refused(given_in, wanted, data):
    low, high = kinds[given_in]
    edges = [o + i for ends in kinds.values() for o in ends for i in (-1, 0, 1)]
    numbers = data.draw(st.lists(st.sampled_from([o for o in edges if low <= o < high]),
                                 min_size=1))
    t = torch.tensor(numbers, dtype=getattr(torch, given_in))
    outside = [o for o in numbers if not kinds[wanted][0] <= o < kinds[wanted][1]]
    if not outside: assert as_type('x', t, getattr(torch, wanted)).tolist() == numbers
    else:
        with pytest.raises(ValueError, match=f'^x: {outside[0]} .* {wanted}'):
            as_type('x', t, getattr(torch, wanted))


def test_numbers_of_other_kinds_are_converted_as_ever():
    assert as_type('x', torch.tensor([2, 0]), torch.bool).tolist() == [True, False]
    assert as_type('x', torch.tensor([True]), torch.uint8).tolist() == [1]
    assert as_type('x', torch.tensor([3.]), torch.int64).tolist() == [3]
    assert as_type('x', torch.tensor([], dtype=torch.int64), torch.uint8).dtype == torch.uint8
    assert as_type('x', torch.from_numpy(np.array([7], dtype='uint16')), torch.uint8).item() == 7
    for wrong in (.5, float('nan'), float('inf')):
        with pytest.raises(ValueError): as_type('x', torch.tensor([wrong]), torch.int64)


def test_words_beyond_the_type_of_the_training_are_refused(tmp_path):
    "260 is no word of a model that was trained with bytes, and no 4 either"
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(300, 3)

        def forward(self, x): return self.table(x.long()).mean(1)
    ids = torch.arange(120).reshape(20, 6).byte()
    learn = Learner(DataBunch.from_tensors(ids, torch.arange(20) % 3, ids, torch.arange(20) % 3),
                    Words(), silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'words.pt2'))
    for asked in (learn, predictor):
        for wrong in (260, -1):
            for ask, shape in ((asked.get_preds, (1, 6)), (asked.predict, 6)):
                with pytest.raises(ValueError, match=f'{wrong} cannot be written as uint8'):
                    ask(np.full(shape, wrong))
        found = asked.get_preds(np.full((1, 6), 255))[0]
        torch.testing.assert_close(found[0], learn.model.table.weight[255].detach())


# ---- texts among the inputs ----------------------------------------------------------------------
@pytest.mark.parametrize('make', [lambda a, name: {'a': a, 'name': name},
                                  lambda a, name: (a, name)], ids=['dict', 'tuple'])
def test_texts_among_the_inputs_are_one_input(make):
    learn, seen = learner(lambda i: make(x[i], names[i])), []

    def look(model, args, kwargs):
        a, column = [*args, *kwargs.values()]
        assert len(a) == len(column) and isinstance(column, (list, tuple))
        seen.extend(zip(a.tolist(), column))
    learn.model.register_forward_pre_hook(look, with_kwargs=True)
    learn.fit(1)
    wanted, pairs = learn.model.layer(x).detach(), list(zip(x.tolist(), names))
    for column in (names, tuple(names), np.array(names)):
        seen.clear()
        torch.testing.assert_close(learn.get_preds(make(x, column))[0], wanted)
        assert seen == pairs and all(type(name) is str for _, name in seen)
    seen.clear()
    assert torch.allclose(learn.predict(make(x[2], 'n2'))[2], wanted[2].softmax(0))
    assert seen == pairs[2:3]
    for wrong, error in ((names[:5], ValueError), ('n0', TypeError), (3, TypeError)):
        with pytest.raises(error, match='items'): learn.get_preds(make(x, wrong))


def test_texts_alone():
    class Lengths(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 3)

        def forward(self, texts): return self.layer(torch.tensor([[float(len(o))] for o in texts]))
    words = ['a'*i for i in range(13)]
    data = DataBunch.create(Items(lambda i: words[i]), Items(lambda i: words[i]), bs=4)
    learn = Learner(data, Lengths(), silent=True)
    assert len(data.example) == 1
    wanted = learn.model.layer(torch.arange(13.)[:, None]).detach()
    torch.testing.assert_close(learn.get_preds(words)[0], wanted)
    torch.testing.assert_close(learn.predict(words[3])[2], wanted[3].softmax(0))
    torch.testing.assert_close(learn.get_preds(words[3:4])[0], wanted[3:4])


def test_what_a_loader_leaves_as_it_is_and_what_it_does_not():
    "torch's own collate function says what a column is"
    for item, columns in (({'a': x[0], 'n': 'b'}, [False, True]), ((x[0], b'b'), [False, True]),
                          ((1, 2.), [False, False]), (({'n': 'b'}, ('b', 'c')), [False, False])):
        batch, = DataLoader([item]*3, 3)
        parts = list(batch.values()) if isinstance(batch, dict) else batch
        assert [is_column(o) for o in parts] == columns
    assert not is_column([]) and not is_column('ab') and not is_column([np.zeros(2)]*2)
    assert [o['n'] for o in cut({'n': names}, 5)] == [names[:5], names[5:10], names[10:]]
    assert inputs_like('x', 'shoe', ('bag',), one=True) == [('shoe',)]
