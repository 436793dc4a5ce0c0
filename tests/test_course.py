"Lesson 9 of the fastai course, as a reader of its notes would type it"
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastloop.all import (
    AvgStatsCallback,
    BasicLearner,
    Callback,
    CancelFitException,
    DataBunch,
    Runner,
    TensorLoader,
    TrainEvalCallback,
    accuracy,
    camel2snake,
    listify,
)


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(400, 20, generator=g), torch.randn(20, 10, generator=g)
    y = (x @ w).argmax(1)
    train = TensorLoader(x[:330], y[:330], bs=64, shuffle=True, seed=0)
    valid = TensorLoader(x[330:], y[330:], bs=128)
    return DataBunch(train, valid, 10, device='cpu')


def get_model(data, lr=.5, nh=50):
    torch.manual_seed(0)
    m = data.train_ds.tensors[0].shape[1]
    model = nn.Sequential(nn.Linear(m, nh), nn.ReLU(), nn.Linear(nh, data.c))
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def create_learner(data, loss_func=F.cross_entropy):
    return BasicLearner(*get_model(data), loss_func, data)


def test_names():
    assert camel2snake('TrainEvalCallback') == 'train_eval_callback'
    assert TrainEvalCallback().name == 'train_eval'
    assert [listify(o) for o in (None, [1], 'abc', (1, 2), 3)] == [[], [1], ['abc'], [1, 2], [3]]


def test_fit_with_stats(data, capsys):
    learn, stats = create_learner(data), AvgStatsCallback([accuracy])
    run = Runner(cbs=stats)
    run.fit(2, learn)
    loss, acc = stats.valid_stats.avg_stats
    x, y = data.valid_ds.tensors
    with torch.no_grad(): pred = learn.model(x)
    assert loss == pytest.approx(F.cross_entropy(pred, y).item(), rel=1e-5)
    assert acc == pytest.approx(accuracy(pred, y).item(), rel=1e-5)
    printed = capsys.readouterr().out
    assert printed.count('train: [') == printed.count('valid: [') == 2


def test_callbacks_from_functions(data):
    accuracy_callback = partial(AvgStatsCallback, accuracy)
    run = Runner(cb_funcs=accuracy_callback)
    run.fit(1, create_learner(data))
    assert run.avg_stats.valid_stats.avg_stats[1] > .2
    assert len(run.avg_stats.train_stats.avg_stats) == 2


def test_a_test_callback_stops_after_ten_iterations(data):
    class TestCallback(Callback):
        _order = 1
        def after_batch(self):
            if self.n_iter >= 10: raise CancelFitException
    run = Runner(cbs=TestCallback())
    run.fit(3, create_learner(data))
    assert run.n_iter == 10 and run.epoch == 1


def test_the_older_test_callback_reads_the_counter_through_another_callback(data):
    class TestCallback(Callback):
        def after_batch(self):
            if self.train_eval.n_iter >= 3: return True
    run = Runner(cbs=[TestCallback()])
    run.fit(1, create_learner(data))
    assert run.n_iter == 3


def test_the_four_fields(data):
    learn = create_learner(data)
    run = Runner()
    run.fit(1, learn)
    for name in ('model', 'opt', 'loss_func', 'data'):
        assert getattr(run, name) is getattr(learn, name)
    assert data.train_dl.bs == 64 and data.c == 10 and len(data.valid_ds) == 70


@pytest.mark.parametrize('event', ['after_pred', 'after_loss', 'after_backward', 'after_step'])
def test_stop_ends_a_pass_and_leaves_no_gradients(data, event):
    "A runner copied from the course looks at `self.stop` before each batch, and then clears it"
    from fastloop.adapters import course
    class Few(course.Callback):
        seen = 0

        def begin_batch(self):
            if self.in_train: self.clean = all(p.grad is None for p in self.model.parameters())

        def act(self):
            self.seen += self.in_train
            if self.in_train and self.seen % 3 == 0:
                self.run.stop = True
                return True
    setattr(Few, event, Few.act)
    few, (model, opt) = Few(), get_model(data)
    run = course.Runner([few, AvgStatsCallback(accuracy, silent=True)])
    run.fit(2, BasicLearner(model, opt, F.cross_entropy, data))
    assert few.seen == 6
    course.Learner(model, data, F.cross_entropy, cbs=[again := Few()]).fit(1)
    assert again.seen == 3
