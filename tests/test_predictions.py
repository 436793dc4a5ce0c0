"A trained model is asked about items of any kind, and its answers keep their form and their order."
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.interpret import interpret
from fastloop.learner import Learner
from fastloop.model_file import model_settings
from fastloop.summaries import answer_table

g = torch.Generator().manual_seed(0)
x, y = torch.randn(40, 4, generator=g), torch.randint(0, 3, (40,), generator=g)
ids, numbers = torch.randint(0, 9, (30, 2), generator=g), torch.randn(30, 3, generator=g)
names = ['bag', 'boot', 'coat']


def classifier():
    torch.manual_seed(0)
    data = DataBunch.from_tensors(x, y, x, y, bs=8, classes=names, device='cpu')
    return Learner(data, nn.Linear(4, 3), silent=True)


@pytest.mark.parametrize('kept', [
    tuple(names), np.array(names), {'coat': 2, 'bag': 0, 'boot': 1},
    {2: 'coat', 0: 'bag', 1: 'boot'}])
@pytest.mark.parametrize('bunch', [False, True])
def test_names_of_classes_in_whatever_they_are_kept(kept, bunch):
    learn = classifier()
    if bunch: learn.data.train_ds.classes = kept
    else: learn.data = SimpleNamespace(train_dl=learn.data.train_dl, valid_dl=learn.data.valid_dl,
                                       valid_ds=learn.data.valid_ds, classes=kept)
    name, number, _ = learn.predict(x[0])
    assert name == names[int(number)] == names[int(learn.model(x[:1]).argmax())]
    assert interpret(learn).classes == names
    assert model_settings(learn, {}, {})['classes'] == names
    lines = answer_table(torch.eye(3), torch.arange(3), learn.data.classes).splitlines()
    assert lines[2:] == [f'| {o} | {o} |' for o in names]
    assert DataBunch.from_tensors(x, y, classes=kept).classes == names


@pytest.mark.parametrize('kept', [None, [], np.array([]), {}])
def test_without_names_classes_are_numbers(kept):
    learn = classifier()
    learn.data.train_ds.classes = kept
    name, number, _ = learn.predict(x[0])
    assert name == int(number) and interpret(learn).classes == ['0', '1', '2']


class Heads(nn.Module):
    "Two answers to one question, in the form that `form` makes"
    def __init__(self, form):
        super().__init__()
        self.a, self.b, self.form = nn.Linear(4, 3), nn.Linear(4, 1), form

    def forward(self, x): return self.form(self.a(x), self.b(x))


class Mixed(nn.Module):
    "Two inputs, one of them whole numbers"
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 2), nn.Linear(7, 1)

    def forward(self, cat, num):
        return self.head(torch.cat([self.words(cat).flatten(1), num], 1)).squeeze(1)


class Rows(Dataset):
    def __init__(self, form): self.form = form
    def __len__(self): return 30

    def __getitem__(self, i):
        return self.form(cat=ids[i], num=numbers[i]), (ids[i].sum() > 8).float()


def mixed(form):
    torch.manual_seed(0)
    data = DataBunch.create(Rows(form), Rows(form), bs=8, device='cpu')
    return Learner(data, Mixed(), F.binary_cross_entropy_with_logits, silent=True)


unlabelled = {
    'a tensor': x, 'an array': x.numpy(), 'float64': x.double().numpy(), 'rows': x.tolist(),
    'tensors in a list': list(x), 'arrays in a list': list(x.numpy()),
    'a TensorLoader': TensorLoader(x, bs=7), 'a data set': TensorDataset(x),
    'a DataLoader': DataLoader(TensorDataset(x), 7), 'batches of tensors': DataLoader(x, 7),
    'backwards in memory': x.flip(0).numpy()[::-1]}


@pytest.mark.parametrize('items', unlabelled.values(), ids=list(unlabelled))
def test_items_without_targets_are_answered_in_order(items):
    learn = classifier()
    preds, targets = learn.get_preds(items)
    assert targets is None
    torch.testing.assert_close(preds, learn.model(x).detach())
    assert learn.model.training  # as it was


@pytest.mark.parametrize('shape', [(2, 3), (3, 2), (2, 1, 3), (2,)])
def test_rows_of_two_in_lists_are_no_batches(shape):
    torch.manual_seed(0)
    x, n = torch.randn(20, *shape), torch.Size(shape).numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(n, 3))
    data = DataBunch.from_tensors(x, torch.randint(0, 3, (20,)), bs=8, device='cpu')
    learn = Learner(data, model, silent=True)
    torch.testing.assert_close(learn.get_preds(x.tolist())[0], model(x).detach())
    torch.testing.assert_close(learn.get_preds([[x, None]])[0], model(x).detach())


@pytest.mark.parametrize('items', [TensorDataset(x, y), TensorLoader(x, y, bs=9), [(x, y)],
                                   [(x[:9], y[:9]), (x[9:], y[9:])]])
def test_targets_that_are_there_come_back(items):
    preds, targets, losses = classifier().get_preds(items, with_loss=True)
    assert torch.equal(targets, y)
    torch.testing.assert_close(losses, F.cross_entropy(preds, y, reduction='none'))


def test_the_training_loader_answers_in_the_order_of_its_data_set():
    learn = classifier()
    preds, targets = learn.get_preds(learn.data.train_dl)
    assert torch.equal(targets, y)
    torch.testing.assert_close(preds, learn.model(x).detach())


def test_probabilities():
    learn = classifier()
    probs, _ = learn.get_preds(x, probabilities=True)
    torch.testing.assert_close(probs, learn.model(x).softmax(1).detach())
    yes = mixed(dict).get_preds(probabilities=True)[0]
    assert yes.shape == (30,) and ((0 < yes) & (yes < 1)).all()
    for loss_func, model in ((F.mse_loss, nn.Linear(4, 1)),
                             (lambda pred, y: pred[0].sum(), Heads(lambda a, b: (a, b)))):
        learn = Learner(learn.data, model, loss_func, silent=True)
        with pytest.raises(ValueError, match='probabilities: the model answers a'):
            learn.get_preds(x, probabilities=True)


forms = {'tuple': lambda a, b: (a, b), 'list': lambda a, b: [a, b],
         'dict': lambda a, b: {'a': a, 'b': b}, 'nested': lambda a, b: {'ab': (a, [b])}}


@pytest.mark.parametrize('form', forms.values(), ids=list(forms))
def test_an_answer_comes_back_in_its_own_form(form):
    data = classifier().data

    def first(o): return next(iter(o.values() if isinstance(o, dict) else o))

    def loss_func(pred, y):
        a = first(pred)
        return F.cross_entropy(first(a) if isinstance(a, tuple) else a, y)
    learn = Learner(data, Heads(form), loss_func, silent=True)
    learn.fit(1)
    with torch.no_grad(): expected = learn.model.eval()(x)
    preds, targets = learn.get_preds()
    torch.testing.assert_close(preds, expected)
    assert torch.equal(targets, y)
    for one in learn.predict(x[5]):
        torch.testing.assert_close(one, form(*[head(x[5]).detach()
                                               for head in (learn.model.a, learn.model.b)]))


def test_one_answer_for_each_image_in_a_list():
    "What detection models give: a dict for each item of a batch"
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 8)

        def forward(self, x): return [{'boxes': o.view(2, 4)} for o in self.head(x)]
    learn = Learner(classifier().data, Boxes(), lambda pred, y: pred[0]['boxes'].sum(), silent=True)
    preds, _ = learn.get_preds(x)
    assert len(preds) == 40 and preds[3]['boxes'].shape == (2, 4)
    torch.testing.assert_close(learn.predict(x[3])[0], preds[3])


@pytest.mark.parametrize('form', [dict, lambda **parts: tuple(parts.values()),
                                  lambda **parts: list(parts.values())])
def test_several_inputs(form):
    learn = mixed(form)
    expected = learn.model(ids, numbers).detach()
    torch.testing.assert_close(learn.get_preds()[0], expected)
    raw = form(cat=ids.int().numpy(), num=numbers.double().numpy())
    preds, targets = learn.get_preds(raw)
    torch.testing.assert_close(preds, expected)
    assert targets is None
    name, number, prob = learn.predict(form(cat=ids[4].tolist(), num=numbers[4].tolist()))
    torch.testing.assert_close(prob[0], expected[4].sigmoid())
    assert name == int(number) == int(prob > .5)


@pytest.mark.parametrize('item', [x[0], x[0].numpy(), x[0].double().numpy(), x[0].tolist(),
                                  tuple(x[0].tolist())])
def test_one_item_of_any_kind(item):
    learn = classifier()
    name, number, probs = learn.predict(item)
    torch.testing.assert_close(probs, learn.model(x[0]).softmax(0).detach())
    assert name == names[int(number)] and int(number) == int(probs.argmax())


refused = {
    'a batch for one item': (lambda learn: learn.predict(x), r'x: an item has shape \(40, 4\)'),
    'one item for a batch': (lambda learn: learn.get_preds(x[0]),
                             r'trained with \(4,\) for each item: this is one item'),
    'inputs and targets': (lambda learn: learn.get_preds((x, y)),
                           'items: these are no rows of one'),
    'rows of two kinds': (lambda learn: learn.get_preds([x[0], [1., 2., 3., 4.]]),
                          'items: these are no rows of one'),
    'words': (lambda learn: learn.predict(['a', 'b', 'c', 'd']), 'x must be a tensor or a numeric'),
    'nothing': (lambda learn: learn.get_preds([]), 'has no batches'),
    'no rows': (lambda learn: learn.get_preds(x[:0]), 'at least one item'),
    'losses of the unlabelled': (lambda learn: learn.get_preds(x, with_loss=True), 'no targets'),
    'three in a batch': (lambda learn: learn.get_preds(TensorLoader(x, x, y, bs=8)), 'no pair'),
    'no size of batches': (lambda learn: learn.data.test_dl(x, bs=-1), 'bs'),
    'an input missing': (lambda learn: mixed(dict).predict({'cat': [1, 2]}), r'\(cat, num\)'),
    'one input of two': (lambda learn: mixed(dict).get_preds(numbers), 'a dict of 2 inputs')}


@pytest.mark.parametrize('ask, message', refused.values(), ids=list(refused))
def test_what_cannot_be_asked_is_refused(ask, message):
    learn = classifier()
    before = torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=message): ask(learn)
    if 'mixed' not in ask.__code__.co_names: assert torch.equal(torch.get_rng_state(), before)
    assert len(learn.get_preds(x)[0]) == 40  # and asks on


def test_asking_leaves_the_training_as_it_was():
    "The same weights after a fit, whether or not the model was asked before and within it"
    class Asks(Callback):
        def after_batch(self):
            if self.in_train: self.learn.get_preds(x[:5]), self.learn.predict(x[0])

    def weights(*cbs, asked=False):
        learn = classifier()
        learn.data.train_dl.seed = 3
        if asked: learn.get_preds(x.numpy()), learn.predict(x[1].tolist())
        learn.fit(2, cbs=[*cbs])
        return learn.model.weight.detach()
    assert torch.equal(weights(), weights(Asks(), asked=True))


def test_a_test_loader_is_cut_as_asked():
    data = classifier().data
    assert [len(xb) for xb, in data.test_dl(x)] == [16, 16, 8]
    assert [len(xb) for xb, in data.test_dl(x.numpy(), bs=30)] == [30, 10]
    batches = mixed(dict).data.test_dl({'cat': ids, 'num': numbers}, bs=20)
    assert [len(xb['cat']) for xb, yb in batches if yb is None] == [20, 10]


def test_workers_of_a_loader_end_with_the_answers():
    from multiprocessing import active_children
    before = set(active_children())
    loader = DataLoader(TensorDataset(x), 7, num_workers=2)
    assert len(classifier().get_preds(loader)[0]) == 40
    assert set(active_children()) <= before


@pytest.mark.parametrize('bs', [8, 40])
def test_parts_of_an_answer_that_are_no_rows_keep_their_places(bs):
    "A tuple beside whose tensors stand `None`, a number, or one number for a batch"
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
        def forward(self, x):
            out = self.layer(x)
            return out, None, out.mean(), 7, (out*2, None)
    torch.manual_seed(0)
    data = DataBunch.from_tensors(x, y, x, y, bs=8, valid_bs=bs, device='cpu')
    learn = Learner(data, Parts(), lambda pred, y: F.cross_entropy(pred[0], y), silent=True)
    rows, nothing, means, sevens, (twice, none) = learn.get_preds()[0]
    want = learn.model.layer(x)
    torch.testing.assert_close(rows, want)
    torch.testing.assert_close(means, torch.stack([o.mean() for o in want.split(bs)]))
    torch.testing.assert_close(twice, 2*want)
    assert nothing is none is None and sevens == [7]*(40//bs)
    one = learn.predict(x[3])[0]
    torch.testing.assert_close(one[0], want[3])
    assert one[1] is None and one[3] == 7 and one[4][1] is None


def test_lists_with_an_entry_for_each_item_stay_lists_of_items():
    from fastloop.inputs import joined
    boxes = [torch.zeros(2, 4), torch.zeros(1, 4)]
    assert len(joined([boxes, boxes[:1]])) == 3
    assert joined([['a', 'b'], ['c']]) == ['a', 'b', 'c']
    assert joined([({'k': 1}, {'k': 2}), ({'k': 3},)]) == [{'k': 1}, {'k': 2}, {'k': 3}]
    assert joined([[torch.ones(2), None], [None]])[1:] == [None, None]


def test_a_model_that_writes_to_its_inputs_spoils_no_item():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            x /= 255
            return self.layer(x)
    x, y = torch.rand(16, 4)*255, torch.randint(3, (16,))
    learn = Learner(DataBunch.from_tensors(x.clone(), y, bs=8, device='cpu'), Scales(),
                    nn.CrossEntropyLoss(), silent=True)
    for item in (x[0].clone(), x[0].numpy().copy()):
        learn.predict(item)
        assert (torch.as_tensor(item) == x[0]).all()


@pytest.mark.parametrize('verb', ['validate', 'get_preds'])
def test_asking_a_loader_whose_processes_are_at_work(verb):
    "The pass that is under way goes on to its end"
    class Items(TensorDataset): "Fetched one by one"
    class Asks(Callback):
        def after_batch(self):
            if self.in_train and self.run.iter == 1: getattr(self.learn, verb)(self.data.train_dl)
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    dl = DataLoader(Items(x, y), 4, num_workers=1, persistent_workers=True,
                    multiprocessing_context='fork')
    learn = Learner(DataBunch(dl, None, device='cpu'), nn.Linear(4, 3), nn.CrossEntropyLoss(),
                    cbs=Asks(), silent=True)
    learn.fit(2)
    assert learn.recorder.nb_batches == [5, 5]


def test_answers_of_different_lengths_are_a_list_of_items():
    "Batches that are padded to the longest of their own sentences"
    class Pads:
        def __init__(self): self.batches = [(torch.randn(4, n, 5), torch.randint(3, (4, n)))
                                            for n in (3, 6)]

        def __iter__(self): return iter(self.batches)
        def __len__(self): return 2

    def loss(pred, yb): return nn.functional.cross_entropy(pred.flatten(0, 1), yb.flatten())
    dl = Pads()
    learn = Learner(DataBunch(dl, dl, device='cpu'), nn.Linear(5, 3), loss, silent=True)
    learn.fit(1)
    preds, targets = learn.get_preds()
    assert [o.shape for o in preds] == [(3, 3)]*4 + [(6, 3)]*4
    for i, (xb, yb) in enumerate(dl.batches):
        for j in range(4):
            torch.testing.assert_close(preds[4*i+j], learn.model(xb[j]).detach())
            assert torch.equal(targets[4*i+j], yb[j])


@pytest.mark.parametrize('verb', ['validate', 'get_preds'])
def test_a_generator_can_be_asked_about_in_a_run(verb):
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    found = []
    class Asks(Callback):
        def after_epoch(self):
            found.append(getattr(self.learn, verb)((x[i:i+4], y[i:i+4]) for i in (0, 4)))
    learn = Learner(DataBunch([(x, y)], None, device='cpu'), nn.Linear(4, 3), nn.CrossEntropyLoss(),
                    cbs=Asks(), silent=True)
    learn.fit(1)
    whole = getattr(learn, verb)([(x, y)])
    torch.testing.assert_close(torch.as_tensor(found[0][0]), torch.as_tensor(whole[0]))


class Deaf(nn.Module):
    "A loss that has a word `reduction` and does not listen to it"
    def __init__(self, reduction='mean'):
        super().__init__()
        self.reduction, self.loss = reduction, nn.CrossEntropyLoss()

    def forward(self, pred, yb): return self.loss(pred, yb)


class Flat(nn.CrossEntropyLoss):
    "Puts the pixels of all items behind each other, as fastai's losses do"
    def forward(self, pred, yb):
        return super().forward(pred.movedim(1, -1).flatten(0, -2), yb.flatten())


pixels = torch.randint(0, 3, (9, 6, 6), generator=g)
pixels[:4, :3], pixels[4, :, 2] = 255, 255  # not as many in each item
masked = torch.randn(9, 1, 6, 6, generator=g), pixels


@pytest.mark.parametrize('loss, data, model', [
    (nn.MSELoss(), (x, torch.rand(40, 4, generator=g)), nn.Linear(4, 4)),
    (nn.MSELoss(reduction='sum'), (x, torch.rand(40, 4, generator=g)), nn.Linear(4, 4)),
    (nn.KLDivLoss(reduction='batchmean'), (x, torch.rand(40, 4, generator=g)), nn.Linear(4, 4)),
    (nn.L1Loss(), (x, torch.rand(40, 4, generator=g)), nn.Linear(4, 4)),
    (nn.CrossEntropyLoss(ignore_index=255), masked, nn.Conv2d(1, 3, 1)),
    (Flat(), (masked[0], pixels % 3), nn.Conv2d(1, 3, 1)),
    (F.cross_entropy, (x, y), nn.Linear(4, 3)), (Deaf(), (x, y), nn.Linear(4, 3))], ids=range(8))
def test_the_loss_of_an_item_is_that_of_the_item_alone(loss, data, model):
    bunch = DataBunch.from_tensors(*data, *data, bs=8, valid_bs=7)
    learn = Learner(bunch, model, loss, silent=True)
    preds, targets, losses = learn.get_preds(with_loss=True)
    alone = [loss(preds[i:i+1], targets[i:i+1]) for i in range(len(preds))]
    torch.testing.assert_close(losses, torch.stack(alone))


def test_one_name_is_that_of_what_is_there_or_not():
    "A yes-or-no output with the name of the yes; without names it is class 0 or 1"
    found = (y > 0).float()[:, None]
    for classes in (['spam'], None):
        data = DataBunch.from_tensors(x, found, x, found, classes=classes)
        learn = Learner(data, nn.Linear(4, 1), nn.BCEWithLogitsLoss(), silent=True)
        answers = [learn.predict(o) for o in x]
        yes = [bool(learn.model(o) > 0) for o in x]
        assert {*yes} == {True, False}
        want = [['spam'] if o else [] for o in yes] if classes else [int(o) for o in yes]
        assert [name for name, *_ in answers] == want


# ---- inside a fit --------------------------------------------------------------------------------
class Keeps(nn.CrossEntropyLoss):
    "A loss that keeps something of its batch"
    def forward(self, pred, yb):
        self.rows = len(yb)
        return super().forward(pred, yb)


class Asks(Callback):
    "Asks the learner in the middle of training"
    def __init__(self, question, event):
        setattr(self, event, self.ask_once)
        self.question, self.event = question, event

    def ask_once(self):
        if self.in_train and self.iter == 1: self.question(self.learn)


@pytest.mark.parametrize('event', ['begin_batch', 'after_loss', 'after_batch'])
@pytest.mark.parametrize('question', [
    lambda learn: None, lambda learn: learn.validate(), lambda learn: learn.get_preds(),
    lambda learn: learn.get_preds(with_loss=True),
    lambda learn: learn.validate(learn.data.train_dl)])
def test_a_fit_does_not_notice_that_its_learner_was_asked(question, event):
    "A loader of torch draws a number when it begins: batches and dropout were others then"
    def trained(*cbs):
        torch.manual_seed(0)
        train, valid = TensorDataset(x, y), TensorDataset(x[:12], y[:12])
        data = DataBunch(DataLoader(train, 8, shuffle=True), DataLoader(valid, 5), device='cpu')
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(.5), nn.Linear(8, 3))
        learn, rows = Learner(data, model, Keeps(), silent=True), []

        class Rows(Callback):
            order = 99
            def begin_backward(self): rows.append((self.learn.loss_func.rows, self.xb))
        learn.fit(2, cbs=[*cbs, Rows()])
        return rows, learn.model.state_dict()
    (rows, weights), (others, want) = trained(Asks(question, event)), trained()
    assert [n for n, _ in rows] == [n for n, _ in others] == [8]*10
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(rows, others))
    assert all(torch.equal(want[k], weights[k]) for k in want)
