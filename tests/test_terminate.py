"A loss that is no number ends the fit, in time where that costs nothing"
import math

import pytest
from scripted import (
    check_all_put_back,
    make,
    own,
    same,
    save_run,
    through_file,
    weights,
)

from fastloop.callback.core import Callback
from fastloop.callback.terminate import TerminateOnNaNCallback

nan, inf = math.nan, math.inf


# ---- nan -----------------------------------------------------------------------------------------
class Spoils(Callback):
    "Makes the loss of one batch what it should not be"
    def __init__(self, value, epoch, batch):
        super().__init__()
        self.value, self.at = value, (epoch, batch)

    def after_loss(self):
        if self.in_train and (self.run.epoch, self.run.iter) == self.at:
            self.run.loss = self.run.loss*self.value


class Aside(TerminateOnNaNCallback):
    "Treats the losses as on a device that must not be waited for"
    def sees_at_once(self, loss): return False


@pytest.mark.parametrize('value, text', [(nan, 'nan'), (inf, 'inf'), (-inf, '-inf')])
def test_nan_stops_before_the_weights_are_ruined(value, text, capsys):
    heard = []
    class Hears(Callback):
        order = 99
        def begin_validate(self): heard.append(self.run.epoch)
        def after_cancel_fit(self): heard.append('cancelled')
    learn, cb = make(), TerminateOnNaNCallback()
    learn.fit(4, .1, cbs=[cb, Spoils(value, 2, 1), Hears()])
    assert capsys.readouterr().out == (f'Epoch/Batch (2/1): loss is {text} at learning rate 0.1, '
                                       'training stopped\n')
    assert cb.stopped_at == (2, 1) and str(cb.bad_loss) == text and heard == [0, 1, 'cancelled']
    assert all(p.isfinite().all() for p in learn.model.parameters())
    assert len(learn.recorder.values) == 2


@pytest.mark.parametrize('n, noticed', [(1, 1), (2, 1), (3, 2), (50, 2)])
def test_losses_that_are_looked_at_later(n, noticed, capsys):
    last = []
    class Last(Callback):
        order = 1
        def after_loss(self): last.append((self.run.epoch, self.run.iter, self.in_train))
    learn, cb = make(), Aside(n_batches=n)
    learn.fit(4, .1, cbs=[cb, Spoils(nan, 1, 1), Last()])
    assert cb.stopped_at == (1, 1) and '(1/1): loss is nan' in capsys.readouterr().out
    assert last[-1] == (1, noticed, True) and cb.waiting == []  # no validation, nothing held


def test_looking_later_reads_no_number_in_a_batch(monkeypatch):
    cb, reads = Aside(n_batches=100), []
    real = cb.check
    cb.check = lambda: (reads.append(cb.run.iter), real())
    make().fit(2, cbs=cb)
    assert reads == [2, 2] and cb.stopped_at is None


def test_validation_losses_do_not_stop_training():
    class Spoil(Callback):
        def after_loss(self):
            if not self.in_train: self.run.loss = self.run.loss*nan
    learn, cb = make(), TerminateOnNaNCallback()
    learn.fit(2, cbs=[cb, Spoil()])
    assert cb.stopped_at is None and len(learn.recorder.values) == 2


def test_an_error_instead_of_an_end():
    with pytest.raises(RuntimeError, match=r'\(0/1\): loss is inf'):
        make().fit(1, cbs=[TerminateOnNaNCallback(raise_error=True), Spoils(inf, 0, 1)])


def test_nan_and_then_another_fit(capsys):
    cb, learn = TerminateOnNaNCallback(verbose=False), make()
    learn.fit(1, cbs=[cb, Spoils(nan, 0, 0)])
    assert cb.stopped_at == (0, 0) and capsys.readouterr().out == ''
    learn.fit(1, cbs=cb)
    assert cb.stopped_at is None


def test_losses_not_looked_at_survive_a_restart(tmp_path):
    states = []
    class Takes(Callback):
        order = 99
        def after_batch(self):
            if self.in_train and self.run.iter == 1: states.append(first.state_dict())
    first, second = Aside(verbose=False), Aside(verbose=False)
    make().fit(1, .1, cbs=[first, Spoils(nan, 0, 1), Takes()])
    state = through_file(states[0], tmp_path)
    assert [o[1:] for o in state['waiting']] == [(0, 0, .1), (0, 1, .1)]
    second.load_state_dict(state)
    make().fit(1, .1, cbs=second)
    assert second.stopped_at == (0, 1)
    make().fit(1, .1, cbs=second)
    assert second.stopped_at is None


def test_the_best_weights_after_nan(tmp_path):
    learn, cb, notes, _ = save_run(tmp_path, [3, 1, 2, 2], TerminateOnNaNCallback(verbose=False),
                                   Spoils(nan, 3, 1))
    assert same(weights(learn), notes.weights[1])


@pytest.mark.parametrize('n', [0, -1, 1.5, None])
def test_bad_number_of_batches(n):
    with pytest.raises(ValueError, match='n_batches'): TerminateOnNaNCallback(n_batches=n)


# ---- faults --------------------------------------------------------------------------------------
@pytest.mark.parametrize('make_cb, names, nth', [
    (lambda learn: TerminateOnNaNCallback(), None, (2,)),
    (lambda learn: Aside(n_batches=2), ['after_loss', *own], (2, 3))])
def test_faults(tmp_path, make_cb, names, nth):
    check_all_put_back(tmp_path, make_cb, names, nth)
