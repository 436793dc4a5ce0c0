"""Data and models as people bring them: sets, graphs, recurrent nets, time steps first, buckets.

Each is compared with a loop by hand.
"""
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from fastloop.callback.core import Callback
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.data.bunch import DataBunch
from fastloop.export import Predictor
from fastloop.learner import Learner
from fastloop.metrics import EpochMetric
from fastloop.model_file import export_learner
from fastloop.torch_core import batch_size, call_model, to_device

g = torch.Generator().manual_seed(0)


def learner(dl, model, loss_func, valid=None, **kwargs):
    data = DataBunch(dl, valid or dl, device='cpu')
    return Learner(data, model, loss_func, silent=True, **kwargs)


# ---- lists of items ------------------------------------------------------------------------------
class Bag(nn.Module):
    "One answer to a list of sets, each of another size"
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(6, 3)

    def forward(self, xs): return torch.stack([self.layer(x).sum(0) for x in xs])


def bags(n=7, bs=3):
    items = [(torch.randn(3 + i % 4, 6, generator=g), i % 3) for i in range(n)]
    def collate(rows): return [o[0] for o in rows], torch.tensor([o[1] for o in rows])
    return DataLoader(items, bs, collate_fn=collate)


def test_a_last_batch_of_one_is_a_list_like_the_others():
    dl = bags()
    learn = learner(dl, Bag(), F.cross_entropy)
    with torch.no_grad():
        want = sum(F.cross_entropy(learn.model(x), y).item()*len(y) for x, y in dl)/7
        answers = torch.cat([learn.model(x) for x, _ in dl])
    assert learn.validate()[0] == pytest.approx(want, abs=1e-6)
    torch.testing.assert_close(learn.get_preds()[0], answers)
    learn.fit(1, .1)
    assert len(learn.recorder.losses) == 3


def test_one_input_in_a_tuple_is_that_input():
    model = nn.Linear(2, 1)
    x = torch.randn(1, 2)
    for xb in ((x,), [x]): torch.testing.assert_close(call_model(model, xb), model(x))


# ---- how long a pass is --------------------------------------------------------------------------
class Buckets(Sampler):
    "Another number of batches in each epoch"
    def __init__(self, lengths): self.lengths, self.epoch = lengths, 0
    def set_epoch(self, epoch): self.epoch = epoch
    def __len__(self): return self.lengths[self.epoch]
    def __iter__(self): return iter([[0, 1]]*self.lengths[self.epoch])


def test_a_pass_is_as_long_as_its_epoch_says():
    class Notes(Callback):
        def begin_batch(self):
            seen.append((self.epoch, self.iters))
            shares.append(self.run.pct_train)
    seen, shares = [], []
    ds = TensorDataset(torch.randn(4, 3), torch.randn(4, 1))
    learn = learner(DataLoader(ds, batch_sampler=Buckets([3, 6, 3])), nn.Linear(3, 1), F.mse_loss,
                    valid=[(torch.randn(2, 3), torch.randn(2, 1))])
    learn.fit(3, .1, cbs=[OneCycleScheduler(lr_max=.1), Notes()])
    train = [o for o, share in zip(seen, shares) if o[1] in (3, 6)]
    assert train == [(0, 3)]*3 + [(1, 6)]*6 + [(2, 3)]*3
    assert shares == sorted(shares) and shares[3] == pytest.approx(1/3)
    rates = learn.recorder.lrs
    assert rates[9:] == sorted(rates[9:], reverse=True) and len(set(rates[3:])) == 9


# ---- answers in several parts --------------------------------------------------------------------
class Recurrent(nn.Module):
    "Answers, and the hidden state with the layers first"
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(3, 5, 2, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        out, hidden = self.cell(x)
        return self.head(out[:, -1]), hidden


def recurrent(bs):
    torch.manual_seed(0)
    x, y = torch.randn(20, 7, 3), torch.randint(0, 2, (20,))
    data = DataBunch.from_tensors(x, y, x, y, bs=8, valid_bs=bs, device='cpu')
    right = EpochMetric(lambda p, t: (p[0].argmax(1) == t).float().mean(), 'right')
    return x, y, Learner(data, Recurrent(), lambda o, y: F.cross_entropy(o[0], y), metrics=right,
                         silent=True)


@pytest.mark.parametrize('bs', [3, 7, 8, 9, 20])
def test_an_answer_and_a_hidden_state_stay_two(bs):
    x, y, learn = recurrent(bs)
    with torch.no_grad(): want, hidden = learn.model.eval()(x)
    (answers, states), targets = learn.get_preds()
    torch.testing.assert_close(answers, want)
    torch.testing.assert_close(states, hidden)
    assert torch.equal(targets, y)
    score = (want.argmax(1) == y).float().mean().item()
    assert learn.validate()[1] == pytest.approx(score, abs=1e-6)
    one, state = learn.predict(x[3])[0]
    torch.testing.assert_close(one, want[3])
    torch.testing.assert_close(state, hidden[:, 3])


@pytest.mark.parametrize('bs', [8, 20])
def test_a_file_answers_in_several_parts_too(bs, tmp_path):
    x, _, learn = recurrent(8)
    (want, hidden), _ = learn.get_preds()
    found, _ = Predictor.load(export_learner(learn, tmp_path/'m.pt2'), 'cpu').get_preds(x, bs=bs)
    torch.testing.assert_close(found[0], want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], hidden, atol=1e-5, rtol=1e-4)


def test_a_metric_goes_on_with_its_sizes_after_a_state_is_loaded():
    x, y, learn = recurrent(8)
    metric, again = learn.metrics[0], EpochMetric(learn.metrics[0].func, 'right')
    whole = metric.fresh()
    learn.model.eval()
    def ask(metric, rows): metric.update(tuple(o.detach() for o in learn.model(x[rows])), y[rows])
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)): ask(whole, rows)
    ask(metric, slice(0, 8))
    again.load_state_dict(metric.state_dict())
    for rows in (slice(8, 16), slice(16, 20)): ask(again, rows)
    assert again == float(whole.value if hasattr(whole, 'value') else whole)


@pytest.mark.parametrize('bs', [2, 4, 8])
def test_time_steps_first_are_joined_by_items(bs):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x): return self.layer(x).log_softmax(-1).transpose(0, 1)
    torch.manual_seed(0)
    x = torch.randn(8, 12, 4)
    y = torch.randint(1, 6, (8, 5)), torch.full((8,), 12), torch.full((8,), 5)
    batches = [(x[i:i+bs], tuple(o[i:i+bs] for o in y)) for i in range(0, 8, bs)]
    learn = learner(batches, Steps(), lambda p, t, n, m: F.ctc_loss(p, t, n, m))
    preds, targets = learn.get_preds()
    with torch.no_grad(): torch.testing.assert_close(preds, learn.model(x))
    assert torch.equal(targets[0], y[0])
    torch.testing.assert_close(learn.predict(x[2])[0], preds[:, 2])


@pytest.mark.parametrize('bs', [1, 2, 3])
def test_an_entry_for_each_item_whatever_they_look_like(bs):
    "Boxes of as many rows in each picture of a batch are no second answer"
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x): return [self.layer(o).expand(5) for o in x]
    x, boxes = torch.randn(6, 4), [torch.zeros(5 + i//bs, 2) for i in range(6)]
    batches = [(x[i:i+bs], boxes[i:i+bs]) for i in range(0, 6, bs)]
    def loss(preds, targets): return torch.stack([p.mean() + 0*t.sum()
                                                  for p, t in zip(preds, targets)]).mean()
    preds, targets = learner(batches, Detector(), loss).get_preds()
    assert [len(o) for o in targets] == [len(o) for o in boxes]
    if bs > 1: assert len(preds) == 6 and all(o.shape == (5,) for o in preds)


# ---- memory that is used again -------------------------------------------------------------------
@pytest.mark.parametrize('banks', [1, 2, 3])
def test_targets_of_a_loader_with_several_banks_of_memory(banks):
    class Ring:
        def __init__(self): self.banks = [torch.empty(2) for _ in range(banks)]
        def __len__(self): return 5
        def __iter__(self):
            for i in range(5):
                yb = self.banks[i % banks]
                yb.copy_(torch.tensor([2.*i, 2*i+1]))
                yield torch.randn(2, 3), yb
    learn = learner(Ring(), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), F.mse_loss)
    assert learn.get_preds()[1].tolist() == list(range(10))


# ---- objects -------------------------------------------------------------------------------------
class Graphs:
    "A batch of graphs, as PyTorch Geometric makes them"
    def __init__(self, x, y, of): self.x, self.y, self.of = x, y, of
    num_graphs = property(lambda self: len(self.y))
    def to(self, device): return Graphs(self.x.to(device), self.y.to(device), self.of.to(device))


class GraphNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch):
        return torch.zeros(batch.num_graphs, 2).index_add(0, batch.of, self.layer(batch.x))


def test_graphs_count_and_go_where_the_model_is():
    torch.manual_seed(0)
    batches = []
    for n in (4, 4, 2):
        of = torch.arange(n).repeat_interleave(3)
        graphs = Graphs(torch.randn(len(of), 3), torch.randint(2, (n,)), of)
        batches.append((graphs, graphs))
    learn = learner(batches, GraphNet(), lambda pred, batch: F.cross_entropy(pred, batch.y))
    with torch.no_grad():
        want = sum(F.cross_entropy(learn.model(o), o.y).item()*o.num_graphs for o, _ in batches)/10
    assert learn.validate()[0] == pytest.approx(want, abs=1e-6)
    moved = to_device((batches[0][0], [torch.ones(2), 'a.png', nn.Linear, nn.Linear(1, 1)]), 'meta')
    assert {o.device.type for o in vars(moved[0]).values()} == {'meta'}
    assert moved[1][1:3] == ['a.png', nn.Linear] and moved[1][3].weight.device.type == 'cpu'
    assert batch_size(batches[0][0]) == 4 and batch_size(object()) == 1


Two = namedtuple('Two', 'a b')


@pytest.mark.parametrize('bunch', [True, False])
def test_named_inputs_keep_their_names(bunch):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, two): return self.layer(two.a) + self.layer(two.b)
    torch.manual_seed(0)
    two = Two(torch.randn(4, 3), torch.randn(4, 3))
    learn = learner([(two, torch.randn(4, 1))], Sum(), F.mse_loss)
    if not bunch: learn.data = type('Plain', (), dict(train_dl=[], valid_dl=[], device=None))()
    with torch.no_grad(): want = learn.model(two)
    torch.testing.assert_close(learn.predict(Two(two.a[1], two.b[1]))[0], want[1])
    if bunch: torch.testing.assert_close(learn.get_preds(dl=two)[0], want)


def test_one_sequence_is_packed_as_those_trained_on():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRU(3, 5), nn.Linear(5, 2)

        def forward(self, packed):
            out, lengths = pad_packed_sequence(self.cell(packed)[0], batch_first=True)
            return self.head(out[torch.arange(len(lengths)), lengths-1])
    torch.manual_seed(0)
    rows = [torch.randn(n, 3) for n in (5, 2, 4)]
    packed = pack_sequence(rows, enforce_sorted=False)
    learn = learner([(packed, torch.tensor([0, 1, 1]))], Reader(), F.cross_entropy)
    want = learn.get_preds()[0]
    torch.testing.assert_close(learn.predict(rows[1])[2], want[1].softmax(0))
    torch.testing.assert_close(learn.predict(pack_sequence([rows[1]]))[2], want[1].softmax(0))
    torch.testing.assert_close(learn.get_preds(dl=rows)[0], want)


# ---- data sets -----------------------------------------------------------------------------------
class Words(Dataset):
    "Sentences of different lengths, with labels or without"
    def __init__(self, labels=True): self.labels = labels
    def __len__(self): return 9

    def __getitem__(self, i):
        words = torch.arange(1 + i % 4)
        return (words, i % 2) if self.labels else words


def pad(rows):
    return (pad_sequence([o[0] for o in rows], batch_first=True),
            torch.tensor([o[1] for o in rows]))


def test_a_data_set_is_collated_as_in_validation():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x): return self.head(self.words(x).mean(1))
    dl = DataLoader(Words(), 4, collate_fn=pad)
    learn = learner(dl, Mean(), F.cross_entropy)
    learn.fit(1)
    torch.testing.assert_close(learn.get_preds(dl=Words()), learn.get_preds())
    alike = [torch.arange(3)]*5  # without labels, which `pad` wants
    class Alike(Dataset):
        def __len__(self): return 5
        def __getitem__(self, i): return alike[i]
    with torch.no_grad(): want = learn.model(torch.stack(alike))
    torch.testing.assert_close(learn.get_preds(dl=Alike())[0], want)


@pytest.mark.parametrize('classes', [10, None, lambda: 3])
def test_other_things_called_classes_or_tensors(classes):
    class Own(Dataset):
        def __len__(self): return 6
        def __getitem__(self, i): return torch.ones(3)*i, i % 2
    ds = Own()
    ds.classes, ds.tensors = classes, dict(x=torch.ones(2), y=torch.ones(2))
    data = DataBunch(DataLoader(ds, 2), None, device='cpu')
    assert data.classes is None and data.c is None


def test_sparse_rows_are_refused_in_words():
    x = torch.eye(4).to_sparse()
    with pytest.raises(ValueError, match=r'x_train is sparse .* write \.to_dense\(\)'):
        DataBunch.from_tensors(x, torch.arange(4), device='cpu')
