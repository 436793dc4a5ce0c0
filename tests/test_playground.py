"Pictures of schedules: their curves against those of a fit, and a panel true to its call"
import copy
import sys
from types import SimpleNamespace

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedule import all_kinds, iters, kinds, seen, toy

from fastloop.anneal import sched_cos, sched_exp, sched_lin, sched_no
from fastloop.callback.playground import SchedulePlayground, plot_sched
from fastloop.callback.schedule import OneCycleScheduler

matplotlib.use('agg')


# ---- pictures ------------------------------------------------------------------------------------
def lines(fig): return [line for ax in fig.axes for line in ax.get_lines()]


def test_a_function_is_drawn():
    fig = plot_sched(sched_cos(1., 0.))
    line, = lines(fig)
    assert fig.axes[0].get_xlabel() == 'share of training' and line.get_xdata()[-1] == 1
    assert line.get_ydata()[250] == pytest.approx(.5) and fig.axes[0].get_ylabel() == 'value'


def test_a_dictionary_is_drawn():
    plan = {'lr': sched_exp(1e-6, 1.), 'mom': sched_lin(.8, .9), 'wd': [sched_no(0, 0)]*2}
    fig = plot_sched(plan)
    assert [ax.get_ylabel() for ax in fig.axes] == ['learning rate', 'momentum', 'weight decay']
    assert [ax.get_yscale() for ax in fig.axes] == ['log', 'linear', 'linear']
    assert fig.axes[2].get_legend() is not None and fig.axes[0].get_legend() is None
    assert fig.axes[-1].get_xlabel() == 'share of training'
    fig = plot_sched(plan, epochs=2, iters=10)
    assert len(lines(fig)[0].get_xdata()) == 20 and fig.axes[-1].get_xlabel() == 'batch'


@kinds
def test_a_scheduler_is_drawn(kind):
    learn = toy()
    learn.create_opt(.1)
    cb = all_kinds()[kind]
    fig = plot_sched(cb, epochs=4, iters=iters, opt=learn.opt)
    assert list(lines(fig)[0].get_ydata()) == pytest.approx(seen(learn, [cb], 4, lr=.1).column())
    for kwargs in ({}, dict(epochs=2), dict(iters=2)):
        with pytest.raises(ValueError, match='give both'): plot_sched(cb, **kwargs)


def test_one_axis_for_all():
    from matplotlib.figure import Figure
    ax = Figure().subplots()
    fig = plot_sched(OneCycleScheduler(lr_max=.1), 2, 10, ax=ax)
    assert fig is ax.figure and len(fig.axes) == 2
    assert fig.axes[0].get_lines()[0].get_color() != fig.axes[1].get_lines()[0].get_color()
    plot_sched({'lr': sched_no(1, 1), 'mom': sched_no(1, 1), 'wd': sched_no(0, 0)},
               ax=Figure().subplots())


def test_drawing_leaves_the_optimizer_alone():
    learn = toy()
    learn.create_opt(.1)
    before = copy.deepcopy(learn.opt.state_dict())
    for cb in all_kinds(): plot_sched(cb, 2, iters, opt=learn.opt)
    assert learn.opt.state_dict() == before and not hasattr(learn.opt, '_opt_called')


# ---- the panel -----------------------------------------------------------------------------------
def take(epochs, max_lr, **kwargs): return epochs, OneCycleScheduler(lr_max=max_lr, **kwargs)


def evaluated(play): return eval(play.call, {'learn': SimpleNamespace(fit_one_cycle=take)})


class Quiet(SchedulePlayground):
    "Draws nothing, so that many settings can be tried"
    def redraw(self, change=None): self.text.value = self.call


moves = dict(lr_max=.0371, pct_start=.17, div_factor=11.3, final_div=12345., high=.93, low=.71,
             anneal='linear')


def test_the_call_makes_what_is_drawn():
    play = Quiet(3, 20, .01)
    assert play.call == 'learn.fit_one_cycle(3, max_lr=0.01)'
    for name, value in moves.items():
        play.controls[name].value = value
        epochs, cb = evaluated(play)
        assert epochs == 3 and cb.values(3, 20) == play.scheduler().values(3, 20)
        assert cb.values(3, 20) != OneCycleScheduler(lr_max=.01).values(3, 20)
    assert 'max_lr=0.0371, moms=(0.93, 0.71)' in play.call and "anneal='linear'" in play.call


def test_the_picture_follows():
    play = SchedulePlayground(epochs=3, iters=20)
    before, text = play.picture.value, play.text.value
    play.controls['pct_start'].value = .8
    assert play.picture.value != before and play.text.value != text
    assert play.picture.value[:4] == b'\x89PNG' and 'pct_start=0.8' in play.text.value
    play.controls['pct_start'].value = .3
    assert play.picture.value == before and play.text.value == text
    play.close()


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-6, 10), st.floats(0, 1), st.floats(1, 1e4), st.floats(1, 1e8), st.floats(0, 1),
       st.sampled_from(['cos', 'linear', 'no']))
def test_any_call(lr_max, pct_start, div, final, high, anneal):
    play = Quiet(2, 10, .01)
    for k, v in dict(lr_max=lr_max, pct_start=pct_start, div_factor=div, final_div=final, high=high,
                     anneal=anneal).items(): play.controls[k].value = v
    assert evaluated(play)[1].values(2, 10) == play.scheduler().values(2, 10)


@pytest.mark.parametrize('lr_max', [.0123456, 1e-9, 250., .1+.2, 1, 3.3333e-5])
def test_the_number_given_is_not_touched(lr_max):
    play = Quiet(3, 20, lr_max)
    slider = play.controls['lr_max']
    assert play.arguments == {'max_lr': lr_max} and slider.value == lr_max
    assert float(f'{slider.value:{slider.readout_format}g}') == lr_max  # as it is shown
    assert evaluated(play)[1].values(3, 20) == OneCycleScheduler(lr_max=lr_max).values(3, 20)
    assert 10**slider.min <= lr_max <= 10**slider.max
    play.controls['pct_start'].value = .5
    assert play.arguments['max_lr'] == lr_max


def test_labels_have_room():
    widest = max(len(o.description) for o in Quiet().controls.values())
    for o in Quiet().controls.values():
        assert float(o.style.description_width.removesuffix('em')) >= .7*widest


def test_what_cannot_be_is_said_and_escaped():
    play = SchedulePlayground()
    before = play.picture.value
    play.controls['low'].value = 0.
    play.controls['anneal'].value = 'exp'
    assert 'above 0' in play.text.value and play.picture.value != before
    class Odd(SchedulePlayground):
        call = '<script>&'
    assert '&lt;script&gt;&amp;' in Odd().text.value
    for kwargs in (dict(epochs=0), dict(iters=0), dict(lr_max=0.)):
        with pytest.raises(ValueError, match='number'): SchedulePlayground(**kwargs)


def test_the_panel_is_displayed(monkeypatch):
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, 'display', shown.append)
    play = SchedulePlayground()
    play._ipython_display_()
    assert shown == [play.panel]
    assert {play.picture, *play.controls.values()} <= set(widgets_in(play.panel))


def widgets_in(w): return [w, *(o for c in getattr(w, 'children', ()) for o in widgets_in(c))]


def test_without_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match='pip install "ipywidgets>=8"'): SchedulePlayground()


def test_pyplot_keeps_no_figures():
    import matplotlib.pyplot as plt
    plt.close('all')
    play = SchedulePlayground()
    play.controls['pct_start'].value = .1
    plot_sched(sched_no(1, 1))
    assert plt.get_fignums() == []
