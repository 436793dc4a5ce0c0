"The mistakes of any classifier: what is one, its losses, which item is which, how it shows"
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.glance import draw_images, in_short, short_name
from fastloop.interpret import ClassificationInterpretation, ItemTable
from fastloop.torch_core import set_seed
from fastloop.train import Learner

torch.manual_seed(0)
N, NAMES = 30, ['ant', 'bee', 'cat']
X, Y = torch.randn(N, 4), torch.arange(N) % 3


class Twice(nn.Module):
    "Two heads"
    def __init__(self, **kw):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x): return self.a(x), self.b(x)


class Keyed(nn.Module):
    "Takes a dictionary of numbers and words"
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.EmbeddingBag(9, 4), nn.Linear(8, 3)

    def forward(self, nums, words): return self.out(torch.cat([nums, self.words(words)], 1))


def learner(x=X, y=Y, model=None, loss=None, classes=NAMES, **how):
    set_seed(1)
    data = DataBunch.from_tensors(x, y, x, y, bs=8, seed=0, device='cpu', classes=classes)
    return Learner(data, model or nn.Linear(4, 3), loss, silent=True, **how)


def by_hand(learn):
    "Probabilities, answers and losses of the items of `X`, without any of the code under test"
    with torch.no_grad(): out = learn.model(X)
    probs = out.exp()/out.exp().sum(1, keepdim=True)
    return probs, out.argmax(1), -probs[range(N), Y].log()


def test_a_table_for_rows_of_numbers():
    learn = learner()
    probs, chosen, losses = by_hand(learn)
    worst = losses.sort(descending=True)[1][:4].tolist()
    table = learn.interpret().plot_top_losses(4)
    assert isinstance(table, ItemTable) and len(table) == 4
    assert table.header == ['item', 'input', 'truth', 'answer', 'probability', 'loss']
    for i, (item, text, truth, answer, p, loss) in zip(worst, table.rows):
        assert (item, truth, answer) == (i, NAMES[Y[i]], NAMES[chosen[i]])
        assert (p, loss) == pytest.approx((float(probs[i].max()), float(losses[i])), abs=1e-5)
        assert [float(o) for o in text.split()] == pytest.approx(X[i].tolist(), rel=1e-2)
    lines = repr(table).splitlines()
    assert len(lines) == 5 and len({len(o) for o in lines}) == 1
    assert table._repr_html_().count('<tr>') == 5
    assert list(table.to_frame().columns) == table.header


def test_results_are_spread_over_the_validation_set():
    learn = learner()
    table = learn.show_results()
    assert [o[0] for o in table.rows] == [i*N//9 for i in range(9)]
    assert [o[2] for o in table.rows] == [NAMES[Y[i*N//9]] for i in range(9)]
    assert len(learn.show_results(2)) == 4 and len(learn.show_results(max_n=5)) == 5
    assert len(learn.show_results(9)) == N
    first = learn.show_results(2, learn.data.train_dl)
    assert len(first) == 4 and isinstance(first, ItemTable)
    for bad in (dict(rows=0), dict(rows=1.5), dict(max_n=0)):
        with pytest.raises(ValueError, match=next(iter(bad))): learn.show_results(**bad)


def test_training_goes_on_as_if_nobody_had_looked():
    a, b = learner(), learner()
    a.fit(1)
    b.fit(1)
    a.show_results()
    a.interpret(a.data.train_dl).plot_top_losses(2)
    a.fit(1)
    b.fit(1)
    for p, q in zip(a.model.parameters(), b.model.parameters()): assert torch.equal(p, q)


own = lambda pred, yb: 3*F.cross_entropy(pred, yb)  # knows nothing but the mean


class Stubborn(nn.Module):
    "Has the word reduction and takes no notice of it"
    reduction = 'mean'
    def forward(self, pred, yb): return F.cross_entropy(pred, yb)


@pytest.mark.parametrize('loss, times', [
    (F.cross_entropy, 1), (nn.CrossEntropyLoss(), 1), (own, 3), (Stubborn(), 1)])
def test_losses_of_all_kinds(loss, times):
    learn = learner(loss=loss)
    probs, _, losses = by_hand(learn)
    judge = learn.interpret()
    assert torch.allclose(judge.losses, times*losses, atol=1e-5)
    assert torch.allclose(judge.preds, probs, atol=1e-6)


def test_answers_that_are_probabilities_stay_so():
    loss = lambda pred, yb: -pred[range(len(yb)), yb].log().mean()
    learn = learner(model=nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), loss=loss)
    with torch.no_grad(): assert torch.allclose(learn.interpret().preds, learn.model(X), atol=1e-6)


@pytest.mark.parametrize('flat', [True, False])
@pytest.mark.parametrize('loss', [nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits,
                                  nn.BCELoss()])
def test_yes_or_no(loss, flat):
    y = (Y > 0).float() if flat else (Y > 0).float()[:, None]
    layers = [nn.Linear(4, 1)] + [nn.Flatten(0)]*flat + [nn.Sigmoid()]*isinstance(loss, nn.BCELoss)
    learn = learner(X, y, nn.Sequential(*layers), loss, classes=['no', 'yes'])
    judge = learn.interpret()
    with torch.no_grad(): p = learn.model(X).flatten()
    if not isinstance(loss, nn.BCELoss): p = p.sigmoid()
    assert torch.allclose(judge.preds[:, 1], p, atol=1e-6)
    assert torch.equal(judge.pred_class, (p > .5).long()) and torch.equal(judge.targets, (Y > 0)*1)
    truth = y.flatten()
    assert torch.allclose(judge.losses, -(truth*p.log() + (1-truth)*(1-p).log()), atol=1e-5)
    assert {o[2] for o in learn.show_results().rows} == {'no', 'yes'}


def test_one_hot_targets():
    learn = learner(X, torch.eye(3)[Y], loss=F.cross_entropy)
    assert torch.equal(learn.interpret().targets, Y)


@pytest.mark.parametrize('x, y, model, loss, words', [
    (X, torch.randn(N), nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), None, 'numbers as targets'),
    (X, torch.randn(N, 1), nn.Linear(4, 1), None, 'numbers as targets'),
    (X, torch.randn(N, 3), nn.Linear(4, 3), None, 'several labels for each item, or numbers'),
    (X, torch.eye(3)[Y], nn.Linear(4, 3), nn.BCEWithLogitsLoss(), 'several labels'),
    (X, Y, Twice(), lambda p, y: F.cross_entropy(p[0], y), 'a tuple of 2 answers'),
    (torch.randn(N, 1, 4, 4), torch.zeros(N, 4, 4).long(), nn.Conv2d(1, 2, 1), F.cross_entropy,
     'many answers for each item')])
def test_what_is_no_choice_of_one_class(x, y, model, loss, words):
    learn = learner(x, y, model, loss, classes=None)
    for call in (learn.interpret, learn.show_results):
        with pytest.raises(ValueError, match='class numbers.*' + words): call()
    learn.fit(1)  # nothing is broken by the question


def test_one_of_two_heads_by_hand():
    learn = learner(model=Twice(), loss=lambda p, y: F.cross_entropy(p[0], y))
    preds, targets = learn.get_preds()
    losses = F.cross_entropy(preds[0], targets, reduction='none')
    judge = ClassificationInterpretation(learn, preds[0].softmax(1), targets, losses)
    assert int(judge.confusion_matrix().sum()) == N and len(judge.plot_top_losses(3)) == 3


def test_inputs_in_a_dictionary_and_labels_that_are_texts():
    x = dict(nums=X, words=torch.randint(9, (N, 12)))
    batches = [({k: v[i:i+8] for k, v in x.items()}, Y[i:i+8]) for i in range(0, N, 8)]
    learn = Learner(DataBunch(batches, batches, c=3, device='cpu'), Keyed(), F.cross_entropy,
                    silent=True)
    judge = learn.interpret()
    i = int(judge.top_losses(1)[1])
    text = judge.plot_top_losses(1).rows[0][1]
    assert text.startswith('nums: ') and f'words: {" ".join(map(str, x["words"][i, :3].tolist()))}'\
        in text
    assert len(learn.show_results()) == 8  # the first batch
    learn = learner(y=[NAMES[i] for i in Y.tolist()], classes=None)
    assert {o[2] for o in learn.show_results().rows} == set(NAMES)


class Sentences(Dataset):
    "Texts that a collate function turns into numbers"
    texts = [f'{w} film number {i}' for i, w in enumerate(['good', 'bad']*6)]
    def __len__(self): return len(self.texts)
    def __getitem__(self, i): return self.texts[i], i % 2

    @staticmethod
    def collate(items):
        x = torch.tensor([[len(t), t.startswith('good')] for t, _ in items]).float()
        return x, torch.tensor([y for _, y in items])


def test_texts_that_a_collate_function_reads():
    dl = DataLoader(Sentences(), 5, collate_fn=Sentences.collate)
    data = DataBunch(dl, dl, c=2, device='cpu')
    learn = Learner(data, nn.Linear(2, 2), F.cross_entropy, silent=True)
    rows = learn.show_results(max_n=4).rows
    assert [o[0] for o in rows] == [0, 3, 6, 9] and len(learn.interpret().losses) == 12
    assert learn.interpret().plot_top_losses(1).rows[0][1] in Sentences.texts


def test_numbers_of_words_as_text():
    x = torch.arange(N*5).reshape(N, 5) % 7
    learn = learner(x, Y, nn.Sequential(nn.EmbeddingBag(7, 4), nn.Linear(4, 3)))
    assert learn.show_results().rows[0][1] == '0 1 2 3 4'
    words = 'abcdefg'
    read = learn.show_results(as_text=lambda o: ''.join(words[i] for i in o))
    assert read.rows[0][1] == 'abcde'
    assert learn.interpret().plot_top_losses(1, as_text=lambda o: 'x').rows[0][1] == 'x'


ds = TensorDataset(X, Y)


@pytest.mark.parametrize('dl, items', [
    (DataLoader(ds, 8, shuffle=True), range(N)), (DataLoader(ds, 7, drop_last=True), range(N)),
    (DataLoader(Subset(ds, [3, 9, 4]), 2), [3, 9, 4]), ([(X[:8], Y[:8]), (X[8:], Y[8:])], range(N)),
    (DataLoader(ds, 8, sampler=SubsetRandomSampler([5, 2, 8])), [2, 5, 8]),
    (TensorLoader(X, Y, bs=8, shuffle=True), range(N))])
def test_an_item_is_the_item_of_its_number(dl, items):
    learn = learner()
    judge = learn.interpret(dl)
    items = list(items)
    probs, _, losses = by_hand(learn)
    assert torch.allclose(judge.losses, losses[items], atol=1e-5)
    for number, text, truth, _, p, _ in judge.plot_top_losses(99).rows:
        i = items[number]
        assert text == in_short(X[i]) and truth == NAMES[Y[i]]
        assert p == pytest.approx(float(probs[i].max()), abs=1e-5)
    learn.data.valid_dl = dl
    for _, text, truth, *_ in learn.show_results().rows:
        assert truth == NAMES[Y[next(i for i in items if in_short(X[i]) == text)]]


def test_labels_that_do_not_count():
    y = Y.clone()
    y[:5] = -100
    judge = learner(y=y).interpret()
    assert int(judge.confusion_matrix().sum()) == N-5 and len(judge.losses) == N
    assert judge.show_results([0]).rows[0][2] == 'none'


def test_names_that_are_too_few_or_too_many():
    learn = learner(classes=None)
    learn.data.train_ds.classes = ['ant']
    assert learn.interpret().classes == ['ant', '1', '2']
    assert learner(classes=[*NAMES, 'dog']).interpret().classes == NAMES
    assert learner(classes=None).interpret().classes == ['0', '1', '2']


@pytest.mark.parametrize('n', [2, 40, 300])
def test_a_matrix_of_any_size_is_drawn(n, monkeypatch):
    import matplotlib
    monkeypatch.delenv('DISPLAY', raising=False)
    y = torch.arange(N) % n
    learn = learner(X, y, nn.Linear(4, n), classes=None)
    judge = learn.interpret()
    hows = dict(), dict(normalize=True, title='all', cmap='Greens'), dict(figsize=(3, 2))
    for how in hows if n < 300 else hows[2:]:
        fig = judge.plot_confusion_matrix(**how)
        assert isinstance(fig, matplotlib.figure.Figure)
        fig.savefig(io.BytesIO(), format='png')
        assert len(fig.axes[0].texts) == (n*n if n <= 35 else 0)
        assert len(fig.axes[0].get_xticks()) <= 50
    assert tuple(fig.get_size_inches()) == (3, 2)


@pytest.mark.parametrize('shape, drawn', [((1, 8, 8), True), ((3, 8, 9), True), ((4, 8, 8), True),
                                          ((5, 8, 8), False), ((3, 8, 2), False), ((64,), False)])
def test_what_is_drawn(shape, drawn):
    x = torch.rand(N, *shape)
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    model(x)
    learn = learner(x, Y, model)
    shown = learn.show_results(2)
    assert isinstance(shown, ItemTable) != drawn
    if not drawn: return
    titles = [ax.get_title() for ax in shown.axes]
    for title, i in zip(titles, [0, 7, 15, 22]):
        assert title.startswith(f'truth: {NAMES[Y[i]]}\nanswer: ')
    fig = learn.interpret().plot_top_losses(5, figsize=(9, 6))
    assert tuple(fig.get_size_inches()) == (9, 6)
    assert len(learn.interpret().plot_top_losses(5, nrows=1).axes) == 5
    assert learn.interpret().plot_confusion_matrix(figsize=(4, 4), dpi=60).get_dpi() == 60
    fig.savefig(io.BytesIO(), format='png')
    assert isinstance(learn.show_results(2, as_text=lambda o: 'none'), ItemTable)


def test_names_cannot_be_markup():
    bad = ['<script>', 'a$b$', 'x'*60]
    learn = learner(classes=bad)
    html = learn.show_results()._repr_html_()
    assert '<script>' not in html and '&lt;script&gt;' in html
    learn.interpret().plot_confusion_matrix().savefig(io.BytesIO(), format='png')
    assert learn.interpret().most_confused()[0][0] in bad


@pytest.mark.parametrize('x, text', [
    (torch.arange(3), '0 1 2'), (np.arange(12.).reshape(3, 4), '0 1 2 3 4 5 … (3 x 4)'),
    (torch.tensor(2.5), '2.5'), (torch.ones(2).bfloat16(), '1 1'), ('a\n b', 'a b'), (7, '7'),
    (torch.tensor([True, False]), 'True False'), ({'a': 1, 'b': torch.zeros(9)},
                                                  'a: 1, b: 0 0 0 … (9)'),
    ((torch.ones(1), 'word'), '1 | word'), (torch.zeros(0), ''), (None, 'None')])
def test_in_short(x, text): assert in_short(x) == text


def test_fields_that_stay_empty():
    fig = draw_images(np.zeros((3, 4, 4, 1)), [short_name('$x')]*3, 2, (1, 1))
    assert [bool(ax.images) for ax in fig.axes] == [True, True, True, False]
