"AvgStatsCallback against numbers computed by hand, and what it may cost while batches run."
import re
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.callback.core import Callback, CancelBatchException, CancelEpochException
from fastloop.callback.stats import AvgStatsCallback
from fastloop.metrics import accuracy
from fastloop.runner import Runner


def learner(train=(8, 8, 3), valid=(5, 5, 1), seed=0):
    "Random images and labels in batches of these sizes, as a learner of four fields"
    g = torch.Generator().manual_seed(seed)

    def loader(sizes):
        return [(torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g))
                for n in sizes]
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    return SimpleNamespace(
        model=model, opt=torch.optim.SGD(model.parameters(), lr=0.1), loss_func=F.cross_entropy,
        data=SimpleNamespace(train_dl=loader(train), valid_dl=loader(valid) if valid else None))


def whole(learn):
    "Loss and accuracy of the validation set in one piece"
    xb, yb = (torch.cat(o) for o in zip(*learn.data.valid_dl))
    with torch.no_grad(): pred = learn.model(xb)
    return [F.cross_entropy(pred, yb).item(), (pred.argmax(1) == yb).double().mean().item()]


class Keep(Callback):
    "Keeps the loss of every training batch, before anybody else sees it"
    order = -100

    def begin_epoch(self): self.kept = []

    def after_loss(self):
        if self.in_train: self.kept.append((self.loss.item(), len(self.yb)))


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


# ---- the numbers ---------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(sizes, sizes)
def test_validation_is_that_of_the_whole_set(train, valid):
    learn, stats = learner(train, valid), AvgStatsCallback([accuracy], silent=True)
    Runner(stats).fit(2, learn)
    assert stats.valid_stats.avg_stats == pytest.approx(whole(learn), rel=1e-5)
    assert (stats.train_stats.count, stats.valid_stats.count) == (sum(train), sum(valid))


def test_training_is_weighted_by_batch_size():
    keep, stats = Keep(), AvgStatsCallback(accuracy, silent=True)
    Runner([stats, keep]).fit(2, learner())
    mean = sum(loss*n for loss, n in keep.kept)/sum(n for _, n in keep.kept)
    assert stats.train_stats.avg_stats[0] == pytest.approx(mean, rel=1e-6)
    assert stats.train_stats.all_stats[0] == pytest.approx(mean*19, rel=1e-6)


def test_the_two_ways_to_attach_it(capsys):
    found = []
    for run in (Runner(cbs=AvgStatsCallback([accuracy])),
                Runner(cb_funcs=partial(AvgStatsCallback, [accuracy]))):
        run.fit(2, learner())
        assert run.avg_stats is run.avg_stats_callback
        found.append(run.avg_stats.valid_stats.avg_stats)
    assert found[0] == found[1] and len(found[0]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == lines[4:] and [o[:5] for o in lines[:4]] == ['train', 'valid']*2
    assert all(re.fullmatch(r'(train|valid): \[[\d.]+, [\d.]+\]', o) for o in lines)


def test_each_epoch_begins_anew():
    stats, learn = AvgStatsCallback(silent=True), learner()
    Runner(stats).fit(3, learn)
    assert stats.train_stats.count == 19
    Runner(stats).fit(1, learn)
    assert stats.train_stats.count == 19


def test_what_others_do_to_the_loss_does_not_show():
    class Scale(Callback):
        def after_loss(self): self.run.loss = self.loss*1000
    plain, scaled = AvgStatsCallback(silent=True), AvgStatsCallback(silent=True)
    Runner(plain).fit(1, learner(train=[8]))
    Runner([Scale, scaled]).fit(1, learner(train=[8]))
    assert scaled.train_stats.avg_stats == plain.train_stats.avg_stats


# ---- broken off ----------------------------------------------------------------------------------
def test_cancelled_batches_are_not_counted():
    class Skip(Callback):
        def begin_batch(self):
            if self.iter == 1: raise CancelBatchException
    stats = AvgStatsCallback([accuracy], silent=True)
    with patch('fastloop.callback.stats.AvgStats.accumulate') as accumulate:
        Runner([stats, Skip]).fit(1, learner())
    assert accumulate.call_count == 4  # of six batches
    Runner([stats, Skip]).fit(1, learner())
    assert (stats.train_stats.count, stats.valid_stats.count) == (11, 6)


def test_an_epoch_broken_off_prints_what_there_is(capsys):
    class Stop(Callback):
        def begin_validate(self): raise CancelEpochException
    Runner([AvgStatsCallback(), Stop]).fit(1, learner())
    assert [o[:5] for o in capsys.readouterr().out.splitlines()] == ['train']


def test_without_validation_set(capsys):
    Runner(AvgStatsCallback()).fit(1, learner(valid=None))
    assert capsys.readouterr().out.startswith('train: [')


def test_after_a_failure_it_can_be_used_again():
    class Fail(Callback):
        def after_loss(self):
            if self.n_iter == 1: raise KeyboardInterrupt
    stats, learn = AvgStatsCallback(silent=True), learner()
    with pytest.raises(KeyboardInterrupt): Runner([stats, Fail]).fit(1, learn)
    assert stats.train_stats.count == 16
    Runner(stats).fit(1, learn)
    assert stats.valid_stats.avg_stats == pytest.approx(whole(learn)[:1], rel=1e-5)


# ---- what it costs, what it prints ---------------------------------------------------------------
def test_nothing_leaves_its_device_before_the_epoch_is_over():
    at = []

    class Where(Callback):
        order = -1000

        def begin_fit(self): at.append('begin_fit')
        def begin_batch(self): at.append('batch')
        def after_epoch(self): at.append('after_epoch')
    Runner(AvgStatsCallback([accuracy])).fit(1, learner())  # the first batch of a fit is checked
    stats, fetched = AvgStatsCallback([accuracy]), []
    names = ('item', 'tolist', '__float__', '__bool__', 'cpu', 'numpy', '__format__')

    def spy(name):
        real = getattr(torch.Tensor, name)

        def fetch(self, *args, **kwargs):
            fetched.append(at[-1])
            return real(self, *args, **kwargs)
        return patch.object(torch.Tensor, name, fetch)
    patches = [spy(o) for o in names]
    run = Runner([Where, stats])
    for o in patches: o.start()
    try:
        with patch('fastloop.first_batch.first_loss', lambda func, pred, yb: func(pred, yb)):
            run.fit(2, learner())
    finally:
        for o in patches: o.stop()
    assert set(fetched) == {'after_epoch'} and 0 < len(fetched) < 20


def test_no_graph_is_kept():
    stats = AvgStatsCallback([accuracy], silent=True)
    Runner(stats).fit(1, learner())
    right = stats.train_stats.metrics[0].mean.right
    kept = stats.train_stats.loss.mean.values + right.waiting + right.counts
    assert len(kept) == 6 and not any(o.requires_grad for o in kept)


@pytest.mark.parametrize('of_learner, own, printed', [
    (False, None, True), (True, None, False), (True, False, True), (False, True, False)])
def test_silence(capsys, of_learner, own, printed):
    learn, stats = learner(), AvgStatsCallback(silent=own)
    learn.silent = of_learner
    Runner(stats).fit(1, learn)
    assert bool(capsys.readouterr().out) == printed
    assert stats.valid_stats.avg_stats


class Logger(Callback):
    "A callback whose name is that of the function which prints"


@pytest.mark.parametrize('other', [[], [Logger()], [type('V2', (Callback,), dict(
    before_fit=lambda self: self.training))()]])
def test_a_logger_that_was_set_is_told_in_place_of_standard_output(capsys, other):
    learn, lines, stats = learner(), [], AvgStatsCallback()
    Runner([stats, *other]).fit(1, learn)
    said = capsys.readouterr().out.splitlines()
    assert [o[:7] for o in said] == ['train: ', 'valid: ']
    learn.logger, learn.silent = lines.append, True
    Runner(stats).fit(1, learn)
    assert [o[:7] for o in lines] == ['train: ', 'valid: '] and not capsys.readouterr().out


def test_what_is_no_metric_is_refused():
    with pytest.raises(TypeError, match='neither a function'): AvgStatsCallback(['accuracy'])
    with pytest.raises(TypeError, match='neither a function'): AvgStatsCallback(learner())


def test_its_state_in_the_middle_of_an_epoch():
    learn = learner()
    once, first, second = (AvgStatsCallback([accuracy]) for _ in range(3))
    run = SimpleNamespace(learn=learn, in_train=True)
    for cb in (once, first, second): cb.set_runner(run)
    for i, (run.xb, run.yb) in enumerate(learn.data.train_dl):
        run.pred = learn.model(run.xb)
        run.loss = F.cross_entropy(run.pred, run.yb)
        once.after_loss()
        (first if i < 2 else second).after_loss()
        if i == 1: second.load_state_dict(first.state_dict())
    assert second.train_stats.avg_stats == once.train_stats.avg_stats
    assert second.train_stats.count == 19 and second.valid_stats.count == 0


def test_an_epoch_that_was_skipped_is_not_printed(capsys):
    class Skip(Callback):
        order = -20
        def begin_epoch(self):
            if self.epoch == 1: raise CancelEpochException
    cb = AvgStatsCallback(accuracy)
    for _ in range(2):
        Runner([cb, Skip]).fit(3, learner())
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4 and len(set(lines)) == 4
    Skip.begin_epoch = lambda self: True
    Runner([cb, Skip]).fit(1, learner())
    assert not capsys.readouterr().out
