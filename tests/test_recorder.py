"The recorder: what it writes down, what it costs, and its pictures"
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelValidException,
)
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.recorder import LossHistory, Recorder, SmoothenValue, find_recorder
from fastloop.core import show_figure
from fastloop.metrics import EpochMetric, accuracy
from fastloop.optimizer import SGD, Adam, OptimWrapper
from fastloop.runner import Runner

matplotlib.use('agg')


def toy(sizes=(8, 8, 3), opt=None):
    g = torch.Generator().manual_seed(0)
    def batch(n): return torch.randn(n, 2, generator=g), torch.randint(0, 3, (n,), generator=g)
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    opt = opt(model) if opt else torch.optim.SGD(model.parameters(), lr=.1, momentum=.8)
    data = SimpleNamespace(train_dl=[batch(n) for n in sizes], valid_dl=[batch(n) for n in (5, 2)])
    return SimpleNamespace(model=model, opt=opt, data=data, loss_func=F.cross_entropy,
                           metrics=[accuracy])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0, .999))
def test_smoothing_is_the_weighted_mean_that_the_formula_says(values, beta):
    smoothen = SmoothenValue(beta)
    for v in values: got = smoothen.add_value(v)
    weights = [beta**(len(values)-1-i) for i in range(len(values))]
    want = sum(w*v for w, v in zip(weights, values))/sum(weights)
    assert got == smoothen.smooth and got == pytest.approx(want, rel=1e-6, abs=1e-6)
    assert smoothen.n == len(values)


@pytest.mark.parametrize('beta', [1, -.1, 2])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match='beta'): SmoothenValue(beta)


@given(st.lists(st.floats(0, 10, width=32), max_size=40), st.integers(1, 7), st.integers(1, 9))
def test_losses_come_back_in_order_however_often_they_are_fetched(values, keep, every):
    history = LossHistory(.9)
    history.keep = keep
    for i, v in enumerate(values):
        history.add(torch.tensor(v))
        if i % every == 0: history.sync()
        assert len(history.waiting) < keep
    history.sync()
    assert history.raw == values and len(history.smooth) == len(values)


def test_nothing_is_fetched_before_the_epoch_ends():
    fetched = []
    class Watched(LossHistory):
        def sync(self):
            fetched.append(1)
            return super().sync()
    class Look(Callback):
        order = 99
        def begin_fit(self): self.recorder.history = Watched()
        def after_batch(self): assert not fetched
    Runner([Recorder(), Look()]).fit(1, toy())
    assert fetched


def test_the_losses_kept_hold_no_graph():
    recorder = Recorder()
    class Look(Callback):
        def after_batch(self):
            if self.in_train: assert not self.recorder.history.waiting[-1].requires_grad
    Runner([recorder, Look()]).fit(1, toy())


def test_the_loss_is_recorded_before_others_change_it():
    class Scale(Callback):
        def after_loss(self): self.run.loss = self.loss*1000
    a, b = Recorder(), Recorder()
    Runner(a).fit(1, toy(opt=lambda m: torch.optim.SGD(m.parameters(), lr=0.)))
    Runner([b, Scale()]).fit(1, toy(opt=lambda m: torch.optim.SGD(m.parameters(), lr=0.)))
    assert a.raw_losses == b.raw_losses


@pytest.mark.parametrize('make,lr,mom', [
    (lambda m: torch.optim.SGD(m.parameters(), lr=.1, momentum=.8), .1, .8),
    (lambda m: torch.optim.Adam(m.parameters(), lr=.2, betas=(.7, .9)), .2, .7),
    (lambda m: torch.optim.Adagrad(m.parameters(), lr=.3), .3, None),
    (lambda m: OptimWrapper.create(SGD, .4, [m]), .4, 0.),
    (lambda m: OptimWrapper.create(Adam, .5, [m]), .5, .9)])
def test_hyper_parameters_of_any_optimizer(make, lr, mom):
    recorder = Recorder()
    Runner(recorder).fit(2, toy(opt=make))
    assert recorder.lrs == [lr]*6 and recorder.moms == [mom]*6 and recorder.nb_batches == [3, 3]


def test_a_schedule_set_in_begin_batch_is_what_this_batch_uses():
    class Set(Callback):
        def begin_batch(self):
            if self.in_train: self.learn.opt.param_groups[0]['lr'] = self.n_iter
    recorder = Recorder()
    Runner([recorder, Set()]).fit(1, toy())
    assert recorder.lrs == [0, 1, 2]


@pytest.mark.parametrize('event', ['begin_train', 'begin_epoch'])
def test_broken_off_epochs(event):
    def stop(self): raise CancelEpochException
    recorder = Recorder()
    Runner([recorder, type('Stop', (Callback,), {event: stop})]).fit(2, toy())
    assert recorder.values == [[None]*3]*2 and recorder.nb_batches == [0, 0]


def test_a_fit_broken_off_in_mid_epoch_keeps_the_losses():
    class Stop(Callback):
        def after_step(self):
            if self.n_iter == 1: raise CancelFitException
    recorder = Recorder()
    Runner([recorder, Stop()]).fit(2, toy())
    assert recorder.values == [] and len(recorder.losses) == 2


def test_weights_of_means_come_from_the_targets():
    learn = toy()
    learn.data.train_dl = [({'input': xb}, yb) for xb, yb in learn.data.train_dl]
    recorder = Recorder()
    Runner(recorder).fit(1, learn)
    want = sum(o*n for o, n in zip(recorder.raw_losses, (8, 8, 3)))/19
    assert recorder.values[0][0] == pytest.approx(want)


def test_nan_shows_as_nan():
    learn = toy()
    learn.loss_func = lambda pred, yb: pred.sum()*float('nan')
    recorder = Recorder()
    Runner(recorder).fit(1, learn)
    assert str(recorder.values[0][0]) == 'nan' and str(recorder.values[0][1]) == 'nan'


def test_metrics_print_as_numbers_while_the_epoch_ends():
    said = []
    class Print(Callback):
        def after_epoch(self): said.append(f'{self.learn.loss:.4f} {self.recorder.metrics[0]:.4f}')
    learn = toy()
    class WithRun(SimpleNamespace):
        def __getattr__(self, name): return getattr(self.__dict__['run'], name)
    learn = WithRun(**vars(learn))
    recorder = Recorder()
    Runner([recorder, Print()]).fit(2, learn)
    assert said[1].endswith(f'{recorder.values[1][2]:.4f}') and said[0].count('.') == 2


def test_names_and_added_columns():
    class Extra(Callback):
        order = 5
        def begin_fit(self): self.recorder.add_metric_names(['extra'])
        def after_epoch(self): self.recorder.values[-1][-1] = 7.
    recorder = Recorder()
    Runner([recorder, Extra()]).fit(2, toy())
    assert recorder.names == ['train_loss', 'valid_loss', 'accuracy', 'extra']
    assert recorder.header == ['epoch', *recorder.names, 'time']
    assert [row[-1] for row in recorder.values] == [7., 7.] and len(recorder.times) == 2


class Late(Callback):
    "Adds a column in the second epoch; may have shortened the row before"
    order = 5
    def __init__(self, cuts): self.cuts = cuts
    def after_epoch(self):
        recorder = self.recorder
        if self.run.epoch == 1:
            if self.cuts: del recorder.values[0][2:]
            self.before = recorder.state_dict()
            recorder.add_metric_names(['late'])
        if self.run.epoch: recorder.values[-1][-1] = 7.


@pytest.mark.parametrize('cuts', [False, True])
def test_a_column_that_comes_late_is_empty_before(cuts):
    pandas = pytest.importorskip('pandas')
    recorder, late, progress = Recorder(), Late(cuts), ProgressCallback(mode='plain')
    Runner([recorder, late, progress]).fit(3, toy())
    assert late.before['metrics_names'] == ['accuracy'] and late.before['values'][1][2] != 7
    assert [len(o) for o in late.before['values']] == [2 if cuts else 3, 3]
    frame = recorder.to_frame()
    assert list(frame['time']) == recorder.times and frame['late'].tolist()[1:] == [7, 7]
    assert pandas.isna(frame['late'][0]) and pandas.isna(frame['accuracy'][0]) == cuts
    for text in (recorder.table.text, progress.text):
        cells = [o.split()[-2:] for o in text.splitlines()]
        assert cells[0] == ['late', 'time'] and cells[1][0] == '#na#' and ':' in cells[1][1]
    assert progress.text.splitlines()[1:] == recorder.table.text.splitlines()[1:] or cuts
    lines = [list(o.lines[0].get_xdata()) for o in recorder.plot_metrics().axes]
    assert lines == [[6, 9] if cuts else [3, 6, 9], [6, 9]]


def test_only_numbers_are_drawn():
    recorder, late = Recorder(), Late(cuts=False)
    Runner([recorder, late]).fit(3, toy())
    recorder.values[1][-1] = 'warm-up'
    axes = recorder.plot_metrics().axes
    assert [list(o.lines[0].get_xdata()) for o in axes] == [[3, 6, 9], [9]]


@pytest.mark.parametrize('order', [-15, -5])
def test_a_validation_that_is_skipped_has_no_numbers(order):
    class Seldom(Callback):
        def begin_validate(self):
            if self.epoch % 2: raise CancelValidException
    Seldom.order = order
    recorder = Recorder()
    Runner([recorder, Seldom]).fit(4, toy())
    assert [row[1:] == [None, None] for row in recorder.values] == [False, True]*2
    assert len(recorder.val_losses) == 2


def test_each_fit_starts_again():
    recorder, learn = Recorder(), toy()
    for _ in range(2): Runner(recorder).fit(2, learn)
    assert len(recorder.values) == 2 and len(recorder.losses) == 6


def test_state_as_plain_data(tmp_path):
    recorder = Recorder()
    Runner(recorder).fit(2, toy())
    torch.save(recorder.state_dict(), tmp_path/'state.pth')
    other = Recorder()
    other.load_state_dict(torch.load(tmp_path/'state.pth', weights_only=True))
    assert other.state_dict() == recorder.state_dict() and other.losses == recorder.losses
    other.history.add(torch.tensor(1.))
    assert len(other.losses) == len(recorder.losses) + 1


def test_find_recorder_asks_for_the_class():
    class Mine(Callback): name = 'recorder'
    run = Runner([Recorder(), Mine()])
    assert type(run.recorder) is Mine and type(find_recorder(run)) is Recorder
    assert find_recorder(Runner()) is None


def test_two_recorders_measure_each_row_once():
    learn, rows = toy(), EpochMetric(lambda pred, yb: len(pred), 'rows')
    learn.metrics, first, second = [rows], Recorder(), Recorder()
    Runner([first, second]).fit(2, learn)
    assert [row[2] for row in first.values] == [row[2] for row in second.values] == [7, 7]
    assert rows.value == 7 and first.metrics[0] is rows
    own = EpochMetric(lambda pred, yb: len(pred), 'rows')
    Runner([first, Recorder(metrics=own)]).fit(1, learn)
    assert own.value == 7


# pictures

@pytest.fixture(scope='module')
def recorded():
    recorder = Recorder()
    learn = toy(sizes=(4,)*30)
    class Ramp(Callback):
        def begin_batch(self):
            if self.in_train: self.learn.opt.param_groups[0]['lr'] = 1e-4*1.2**self.n_iter
    Runner([recorder, Ramp()]).fit(2, learn)
    return recorder


def test_plots_show_what_was_recorded(recorded):
    line = recorded.plot().axes[0].lines[0]
    assert list(line.get_xdata()) == recorded.lrs[10:-5] and len(line.get_ydata()) == 45
    assert recorded.plot().axes[0].get_xscale() == 'log'
    lr, mom = recorded.plot_lr(show_moms=True).axes
    assert list(lr.lines[0].get_ydata()) == recorded.lrs
    assert list(mom.lines[0].get_ydata()) == recorded.moms
    losses, valid = recorded.plot_losses().axes[0].lines
    assert list(losses.get_ydata()) == recorded.losses
    assert list(valid.get_xdata()) == [30, 60] and list(valid.get_ydata()) == recorded.val_losses
    metric = recorded.plot_metrics().axes[0].lines[0]
    assert list(metric.get_ydata()) == [row[2] for row in recorded.values]


def test_plots_take_an_axis_and_leak_no_figure(recorded):
    import matplotlib.pyplot as plt
    before = plt.get_fignums()
    fig, ax = plt.subplots()
    for draw in (recorded.plot, recorded.plot_lr, recorded.plot_losses, recorded.plot_metrics):
        assert draw(ax=ax) is fig
        assert draw() is not fig
        assert ax.get_xlabel() and ax.get_ylabel()
    plt.close(fig)
    assert plt.get_fignums() == before


def test_the_suggestion_is_the_steepest_point():
    recorder = Recorder()
    recorder.lrs = [10.**i for i in range(5)]
    recorder.history.load_state_dict(dict(raw=[5., 5., 1., 1., 1.], beta=0.))
    recorder.plot(skip_start=0, skip_end=0, suggestion=True)
    assert recorder.min_grad_lr in (10., 100.)


def test_nothing_recorded():
    for draw in ('plot', 'plot_lr', 'plot_losses'):
        with pytest.raises(ValueError, match='nothing was recorded'): getattr(Recorder(), draw)()
    with pytest.raises(ValueError, match='no metrics'): Recorder().plot_metrics()


def test_return_fig_shows_instead_of_returning(recorded, monkeypatch):
    "Nothing is returned; the figure is shown once, and not at all if the axis was the caller's"
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr('fastloop.plots.show_figure', shown.append)
    draws = recorded.plot, recorded.plot_lr, recorded.plot_losses, recorded.plot_metrics
    for n, draw in enumerate(draws, 1):
        assert draw(return_fig=False) is None and len(shown) == n and shown[-1].axes[0].lines
        assert draw(return_fig=True).axes[0].lines and len(shown) == n
    fig, ax = plt.subplots()
    plt.close(fig)
    for draw in draws: assert draw(ax=ax, return_fig=False) is None
    assert len(shown) == len(draws) and not plt.get_fignums()


def test_no_window_and_no_display_in_a_script(recorded):
    assert show_figure(recorded.plot_losses()) is False


@pytest.mark.parametrize('lrs, scale', [
    ([1e-3*10**(i/5) for i in range(20)], 'log'),  # a search
    ([1e-3]*20, 'linear'), ([.1 - .005*i for i in range(20)], 'linear'),
    ([0.]*5 + [1.]*5, 'linear'), ([1e-3, .5, 1., .5, 1e-6], 'linear')])
def test_rates_of_a_search_are_drawn_on_a_logarithmic_axis(lrs, scale):
    recorder = Recorder()
    recorder.lrs, recorder.moms = lrs, [None]*len(lrs)
    assert recorder.plot_lr().axes[0].get_yscale() == scale
    assert len(recorder.plot_lr(show_moms=True).axes) == 1  # there is no momentum to show


def test_points_and_batches_stay_together_when_ends_are_left_out(recorded):
    ends = [sum(recorded.nb_batches[:i+1]) for i in range(len(recorded.nb_batches))]
    fig = recorded.plot_losses(skip_start=ends[0] + 1)
    training, valid = fig.axes[0].lines
    assert training.get_xdata()[0] == ends[0] + 1
    assert list(valid.get_xdata()) == ends[1:]
    assert list(recorded.plot_metrics(skip_end=1).axes[0].lines[0].get_xdata()) == ends[:-1]
    for draw in (recorded.plot, recorded.plot_lr, recorded.plot_losses):
        with pytest.raises(ValueError, match='skip_end=-1'): draw(skip_end=-1)


def test_an_epoch_broken_off_before_the_recorder_heard_of_it():
    class Early(Callback):
        order = -50
        def begin_epoch(self):
            if self.epoch != 1: raise CancelEpochException
    recorder, learn = Recorder(), toy()
    Runner([recorder, Early()]).fit(3, learn)
    assert [len(row) for row in recorder.values] == [3, 3, 3]
    assert [row[0] is None for row in recorder.values] == [True, False, True]
    assert recorder.values[0] == recorder.values[2] == [None]*3
    assert recorder.nb_batches[0] == recorder.nb_batches[2] == 0
