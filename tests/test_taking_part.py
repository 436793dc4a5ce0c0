"Who takes part when a learner is asked: those that change batches, predictions or precision"
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fastloop.callback.core import Callback
from fastloop.callback.logger import CSVLogger
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.callback.tracker import EarlyStoppingCallback
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.learner import Learner
from fastloop.metrics import AverageMetric, EpochMetric, accuracy
from fastloop.train import to_bf16  # noqa: F401  its room hangs the verbs on the learner


class Native(Callback):
    def begin_batch(self): self.run.xb = self.xb*10


class AfterPred(Callback):
    def after_pred(self): self.run.pred = self.pred*10


class Version1:
    def on_batch_begin(self, last_input, **kwargs): return {'last_input': last_input*10}


class Version1Output:
    def on_loss_begin(self, last_output, **kwargs): return {'last_output': last_output*10}


class Version2(Callback):
    def before_batch(self): self.learn.xb = tuple(o*10 for o in self.learn.xb)


class Miniai:
    order = 0
    def before_batch(self, learn): learn.batch = learn.batch[0]*10, learn.batch[1]


KINDS = [Native, AfterPred, Version1, Version1Output, Version2, Miniai]


def make(cbs=(), path='.', **kwargs):
    torch.manual_seed(0)
    x, y = torch.randn(48, 4), torch.randint(3, (48,))
    data = DataBunch.from_tensors(x, y, x[:20], y[:20], bs=16, seed=1, path=path)
    return Learner(data, nn.Linear(4, 3), nn.CrossEntropyLoss(), lr=.1, metrics=accuracy,
                   silent=True, cbs=cbs, **kwargs)


@pytest.mark.parametrize('kind', KINDS)
def test_the_row_of_the_fit_is_what_validate_says_and_what_the_predictions_give(kind):
    learn = make(kind())
    learn.fit(2)
    row = learn.recorder.values[-1][1:]
    assert learn.validate() == pytest.approx(row)
    preds, targets = learn.get_preds()
    assert F.cross_entropy(preds, targets).item() == pytest.approx(row[0], abs=1e-6)
    probs = torch.stack([learn.predict(x)[2] for x, _ in learn.data.valid_ds])
    torch.testing.assert_close(probs, preds.softmax(1))
    learn.fit(1)  # it still belongs to the learner
    assert learn.validate() == pytest.approx(learn.recorder.values[-1][1:])


def test_precision_takes_part():
    learn = make().to_bf16()
    learn.fit(1)
    assert learn.validate() == pytest.approx(learn.recorder.values[-1][1:])
    wide, _ = make().get_preds()
    narrow, _ = make().to_bf16().get_preds()
    assert not torch.equal(wide, narrow) and torch.allclose(wide, narrow, atol=.1)


def test_what_a_callback_knows_of_its_run_is_what_it_was():
    cb = Native()
    learn = make(cb)
    learn.fit(1)
    run = cb.run
    learn.validate()
    learn.predict(torch.ones(4))
    assert cb.run is run and cb.learn is learn and learn.run is run


def test_those_that_record_write_stop_or_plan_stay_out(tmp_path):
    learn = make(path=tmp_path)
    cbs = [CSVLogger(), SaveModelCallback(), EarlyStoppingCallback(patience=5),
           OneCycleScheduler(lr_max=.1)]
    assert not any(cb.in_validate for cb in [*cbs, learn.recorder])
    learn.add_cbs(cbs)
    learn.fit(2)
    rows, written = [list(o) for o in learn.recorder.values], (tmp_path/'history.csv').read_text()
    best, rate = learn.early_stopping.best, learn.opt.lr
    learn.validate()
    learn.get_preds()
    assert learn.recorder.values == rows and (tmp_path/'history.csv').read_text() == written
    assert learn.early_stopping.best == best and learn.opt.lr == rate


@pytest.mark.parametrize('wanted', [True, False])
def test_a_callback_says_itself_whether_it_takes_part(wanted):
    cb = Native()
    cb.in_validate = wanted
    learn = make(cb)
    plain = make().validate()
    assert (learn.validate() == plain) != wanted


def test_a_callback_that_asks_its_learner_is_not_asked_without_end():
    class Asks(Callback):
        asked = 0
        def begin_batch(self):
            Asks.asked += 1
            self.learn.validate()
    learn = make(Asks())
    learn.fit(1)
    assert Asks.asked < 100


# ---- one object is attached once -----------------------------------------------------------------
class Counts(Callback):
    def begin_fit(self): self.n = 0
    def begin_epoch(self): self.n += 1


class CountsVersion1:
    n = 0
    def on_epoch_begin(self, **kwargs): self.n += 1


@pytest.mark.parametrize('kind', [Counts, CountsVersion1])
@pytest.mark.parametrize('where', ['fit', 'twice in fit', 'added', 'callbacks'])
def test_an_object_that_is_given_twice_is_attached_once(kind, where):
    cb = kind()
    learn = make(cb)
    if where == 'fit': learn.fit(2, cbs=cb)
    elif where == 'twice in fit': learn.fit(2, cbs=[cb, cb])
    elif where == 'callbacks': learn.fit(2, callbacks=[cb])
    else:
        with learn.added_cbs(cb): learn.fit(2)
        learn.add_cbs([cb, cb])
    assert cb.n == 2 and sum(o is cb for o in learn.cbs) == 1


def test_two_objects_of_a_kind_are_two():
    one, other = Counts(), Counts()
    make(one).fit(2, cbs=other)
    assert one.n == other.n == 2


# ---- in order ------------------------------------------------------------------------------------
def test_predictions_of_the_training_set_come_in_its_order_and_leave_its_place_alone():
    learn = make()
    place = learn.data.train_dl.state_dict()
    first, again = (learn.get_preds(learn.data.train_dl) for _ in range(2))
    x, y = learn.data.train_ds.tensors
    assert torch.equal(first[1], y) and torch.equal(first[0], again[0])
    torch.testing.assert_close(first[0], learn.model(x).detach())
    assert learn.data.train_dl.state_dict() == place
    assert learn.validate(learn.data.train_dl)[0] == pytest.approx(
        F.cross_entropy(learn.model(x), y).item())


# ---- several labels, pixels, answers in a dictionary ---------------------------------------------
def ask(model, loss_func, y, x=None, item=None):
    torch.manual_seed(0)
    x = torch.randn(8, 4) if x is None else x
    learn = Learner(DataBunch.from_tensors(x, y, x, y, bs=4), model, loss_func, silent=True)
    return learn, learn.predict(x[0] if item is None else item)


def test_several_labels_are_all_that_are_more_probable_than_not():
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    with torch.no_grad(): model.bias.copy_(torch.tensor([2., -2., 3.]))
    learn, (names, mask, probs) = ask(model, nn.BCEWithLogitsLoss(), torch.ones(8, 3))
    assert names == [0, 2] and mask.tolist() == [True, False, True]
    torch.testing.assert_close(probs, torch.tensor([2., -2., 3.]).sigmoid())
    learn.data.train_ds.classes = ['cat', 'dog', 'fox']
    assert learn.predict(torch.zeros(4))[0] == ['cat', 'fox']


def test_pixels_have_a_class_each():
    x = torch.randn(8, 2, 5, 6)
    learn, (answer, number, probs) = ask(nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(),
                                         torch.zeros(8, 5, 6, dtype=torch.long), x)
    assert probs.shape == (3, 5, 6) and number.shape == (5, 6)
    torch.testing.assert_close(probs.sum(0), torch.ones(5, 6))
    assert torch.equal(number, learn.model(x[:1])[0].argmax(0))


def test_an_answer_that_is_a_dictionary_comes_back_as_one():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
        def forward(self, x): return {'logits': self.layer(x), 'raw': x}
    def loss(pred, y): return F.cross_entropy(pred['logits'], y)
    learn, (answer, *_) = ask(Two(), loss, torch.arange(8) % 3)
    assert answer['logits'].shape == (3,) and answer['raw'].shape == (4,)
    preds, y = learn.get_preds()
    assert preds['logits'].shape == (8, 3) and torch.equal(y, torch.arange(8) % 3)


def test_an_array_is_converted_as_the_data_were():
    import numpy as np
    x = np.random.RandomState(0).randn(8, 4)
    learn, (number, *_) = ask(nn.Linear(4, 3), nn.CrossEntropyLoss(), np.arange(8) % 3, x)
    assert number == learn.model(torch.tensor(x[:1], dtype=torch.float32)).argmax().item()


class Asks(Callback):
    "Measures another data set at an event of the validation"
    def __init__(self, event, dl):
        self.dl = dl
        setattr(self, event, self.ask)

    def ask(self):
        if not self.in_train: self.scores = self.learn.validate(self.dl)


@pytest.mark.parametrize('event', ['begin_validate', 'begin_batch', 'after_pred', 'after_batch',
                                   'after_validate'])
@pytest.mark.parametrize('make', [
    lambda: EpochMetric(F.l1_loss), lambda: AverageMetric(F.l1_loss), lambda: F.l1_loss,
    lambda: torchmetrics.MeanAbsoluteError()], ids=['epoch', 'average', 'function', 'torchmetrics'])
def test_who_measures_something_else_in_a_validation_leaves_its_metrics_alone(event, make):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=g)
    y = x.sum(1, keepdim=True)
    other = TensorLoader(10*x, y, bs=8)
    def fit(*cbs):
        torch.manual_seed(0)
        learn = Learner(DataBunch.from_tensors(x, y, x[:16], y[:16], bs=8, seed=0),
                        nn.Linear(4, 1), F.mse_loss, lr=.01, metrics=[make()], silent=True)
        return learn, learn.fit(1, cbs=cbs).values
    (_, alone), (learn, asked) = fit(), fit(asks := Asks(event, other))
    assert asked == alone
    with torch.no_grad(): pred = learn.model(10*x)
    assert asks.scores == pytest.approx([F.mse_loss(pred, y).item(), F.l1_loss(pred, y).item()])


@pytest.mark.parametrize('kind', ['bunch', 'tensors', 'torch', 'subset', 'batches'])
def test_a_loader_that_shuffles_is_gone_through_in_the_order_of_its_items(kind):
    "Each item once; the loader is not touched"
    x = torch.arange(11.)[:, None]
    ds, bs = TensorDataset(x, (x[:, 0] > 5).long()), 4
    dl = {'bunch': lambda: DataBunch.from_tensors(*ds.tensors, bs=bs, seed=0).train_dl,
          'tensors': lambda: TensorLoader(*ds.tensors, bs=bs, shuffle=True, drop_last=True),
          'torch': lambda: DataLoader(ds, bs, shuffle=True),
          'subset': lambda: DataLoader(ds, bs, sampler=SubsetRandomSampler([7, 2, 9])),
          'batches': lambda: DataLoader(
              ds, batch_sampler=BatchSampler(RandomSampler(ds), bs, True)),
          }[kind]()
    learn = Learner(DataBunch(dl, dl), nn.Linear(1, 2), silent=True)
    learn.data.train_dl = None
    items = sorted([7, 2, 9]) if kind == 'subset' else list(range(11))
    random = torch.get_rng_state()
    for asked in (dl, None):
        preds, targets = learn.get_preds(asked)
        with torch.no_grad(): torch.testing.assert_close(preds, learn.model(x[items]))
        assert torch.equal(targets, ds.tensors[1][items])
        want = F.cross_entropy(preds, targets).item()
        assert learn.validate(asked)[0] == pytest.approx(want, rel=1e-5)
    assert getattr(dl, 'epoch', 0) == 0 and torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize('make', [
    lambda ds: DataLoader(ds, 4, sampler=[3, 1, 2, 1]),
    lambda ds: DataLoader(ds, 4, sampler=RandomSampler(ds, num_samples=3)),
    lambda ds: DataLoader(ds, 4, sampler=WeightedRandomSampler([0.]*10 + [1.], 5)),
    lambda ds: DataLoader(ds, 4, drop_last=True)], ids=['list', 'some', 'weighted', 'whole'])
def test_a_loader_that_deals_what_somebody_has_chosen_is_taken_as_it_is(make):
    x = torch.arange(11.)[:, None]
    data = DataBunch(TensorLoader(x, x, bs=4), make(TensorDataset(x, x)))
    learn = Learner(data, nn.Linear(1, 1), silent=True)
    torch.manual_seed(1)
    want = torch.cat([xb for xb, _ in learn.data.valid_dl])
    torch.manual_seed(1)
    assert torch.equal(learn.get_preds()[1], want)


class Buffered:
    "A loader that fills the same tensors again and again"
    def __init__(self, x, y): self.x, self.y, self.batch = x, y, (x[:4].clone(), y[:4].clone())

    def __len__(self): return len(self.x)//4

    def __iter__(self):
        for i in range(len(self)):
            for o, rows in zip(self.batch, (self.x, self.y)): o.copy_(rows[4*i:4*i+4])
            yield self.batch


class Reuses(nn.Linear):
    "A model that answers in a tensor of its own"
    def forward(self, x):
        pred = super().forward(x)
        if not hasattr(self, 'out'): self.out = pred.clone()
        return self.out.copy_(pred)


@pytest.mark.parametrize('kind', [nn.Linear, Reuses])
def test_answers_and_labels_are_kept_whoever_uses_their_memory_again(kind):
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    dl = Buffered(x, y)
    learn = Learner(DataBunch(dl, dl), kind(4, 3), silent=True, metrics=[accuracy])
    preds, targets, losses = learn.get_preds(with_loss=True)
    with torch.no_grad(): want = F.linear(x, learn.model.weight, learn.model.bias)
    torch.testing.assert_close(preds, want)
    torch.testing.assert_close(losses, F.cross_entropy(want, y, reduction='none'))
    assert targets.tolist() == y.tolist()
    assert learn.validate()[1] == pytest.approx((want.argmax(1) == y).float().mean().item())
