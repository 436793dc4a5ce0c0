"""Callbacks of an installed fastai 2 on fastloop's learner do what they do on fastai's.

Each test trains the tiny problem twice, and `both` compares batch losses, learning rates, momenta,
validation losses, metrics and weights; the test itself looks at what only this callback leaves.
"""
import csv
from functools import partial

import numpy as np
import pytest
import torch

basics = pytest.importorskip('fastai.basics', reason='installed by `make test-peers`')
callbacks = pytest.importorskip('fastai.callback.all', reason='installed by `make test-peers`')
same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


# ---- tracking ------------------------------------------------------------------------------------
@pytest.mark.parametrize('options', [
    {'min_delta': 10., 'patience': 1}, {'min_delta': 10., 'patience': 2}, {'patience': 1},
    {'monitor': 'accuracy', 'patience': 1}, {'monitor': 'accuracy', 'comp': np.less},
    {'monitor': 'valid_loss', 'comp': np.greater, 'patience': 2}], ids=str)
def test_early_stopping(both, options):
    mine, theirs = both(lambda: [callbacks.EarlyStoppingCallback(**options)], epochs=5)
    assert len(mine.values) == len(theirs.values)
    assert ('early stopping' in mine.out) == ('early stopping' in theirs.out)
    assert mine.error is None
    a, b = mine.cbs[0], theirs.cbs[0]
    assert (a.wait, a.idx, a.new_best) == (b.wait, b.idx, b.new_best)
    same(float(a.best), float(b.best))


def test_early_stopping_stops_where_it_should(both):
    mine, _ = both(lambda: [callbacks.EarlyStoppingCallback(min_delta=10., patience=2)], epochs=8)
    assert len(mine.values) == 3  # the first is the best by far, then two without improvement


def test_early_stopping_can_be_used_again(both):
    make = lambda: [callbacks.EarlyStoppingCallback(min_delta=10., patience=1)]  # noqa: E731
    mine, theirs = both(make, epochs=4, fits=2)
    assert len(mine.losses) == len(theirs.losses) == 24


def test_a_name_that_will_not_be_there_is_refused(ours):
    res = ours([callbacks.EarlyStoppingCallback(monitor='no_such_metric')])
    assert res.error is not None and not res.losses


@pytest.mark.parametrize('options', [
    {}, {'fname': 'best'}, {'monitor': 'accuracy'}, {'every_epoch': True}, {'every_epoch': 2},
    {'at_end': True}, {'with_opt': True}, {'comp': np.greater}], ids=str)
def test_save_model(both, options):
    mine, theirs = both(lambda: [callbacks.SaveModelCallback(**options)], epochs=4)
    assert mine.files == theirs.files and mine.files
    for name in mine.files:
        saved = [torch.load(o.path/name, weights_only=False) for o in (mine, theirs)]
        a, b = (o['model'] if 'model' in o else o for o in saved)
        assert a.keys() == b.keys()
        for k in a: same(a[k], b[k])
    a, b = (o.cbs[0].last_saved_path for o in (mine, theirs))
    assert a.relative_to(mine.path) == b.relative_to(theirs.path)


def test_what_save_model_wrote_can_be_loaded_by_name(both):
    mine, theirs = both(lambda: [callbacks.SaveModelCallback(every_epoch=True)])
    for o in (mine, theirs): o.learn.load('model_1', with_opt=False)
    for a, b in zip(mine.learn.model.parameters(), theirs.learn.model.parameters()): same(a, b)


@pytest.mark.parametrize('options', [
    {'min_delta': 10., 'patience': 1}, {'min_delta': 10., 'patience': 2, 'factor': 3.},
    {'min_delta': 10., 'patience': 1, 'min_lr': .02}, {'monitor': 'accuracy', 'min_delta': 2.}],
    ids=str)
def test_reduce_lr_on_plateau(both, options):
    mine, theirs = both(lambda: [callbacks.ReduceLROnPlateau(**options)], epochs=5)
    assert mine.lrs[0] > mine.lrs[-1]
    assert mine.out.count('reducing lr') == theirs.out.count('reducing lr') > 0


def test_reduce_lr_on_plateau_reduces_all_groups(both):
    mine, _ = both(lambda: [callbacks.ReduceLROnPlateau(min_delta=10.)], epochs=4, two_groups=True,
                   lr=slice(.01, .1))
    same(torch.tensor(mine.lrs[-1]), torch.tensor([.0001, .001]))


@pytest.mark.parametrize('lr', [.1, 1e20])
def test_terminate_on_nan(both, lr):
    mine, theirs = both(lambda: [callbacks.TerminateOnNaNCallback()], lr=lr, compare=lr < 1)
    assert len(mine.losses) == len(theirs.losses) and mine.error is theirs.error is None
    assert (len(mine.losses) < 18) == (lr > 1)
    assert len(mine.values) == len(theirs.values)


def test_trackers_stay_out_of_a_search_for_the_learning_rate(ours):
    "fastai's trackers ask for an attribute called `lr_finder`"
    class LRFinder(basics.Callback):
        pass
    res = ours([LRFinder(), callbacks.EarlyStoppingCallback(min_delta=10., patience=1)], epochs=4)
    assert res.error is None and len(res.values) == 4


# ---- training ------------------------------------------------------------------------------------
@pytest.mark.parametrize('norm', [.05, 1., 100.])
def test_gradient_clip(both, norm):
    both(lambda: [callbacks.GradientClip(norm)])


@pytest.mark.parametrize('n_acc', [1, 16, 20, 32])
def test_gradient_accumulation(both, n_acc):
    mine, theirs = both(lambda: [callbacks.GradientAccumulation(n_acc)])
    assert mine.cbs[0].count == theirs.cbs[0].count


def test_gradient_accumulation_leaves_the_recorded_losses_alone(both):
    mine, theirs = both(lambda: [callbacks.GradientAccumulation(1000)], epochs=1)
    from_weights_that_never_moved = theirs.losses
    same(torch.tensor(mine.losses), torch.tensor(from_weights_that_never_moved))
    smooth = [float(o) for o in mine.learn.recorder.losses]
    same(torch.tensor(smooth), torch.stack(list(theirs.learn.recorder.losses)))


def test_accumulation_and_clipping_together(both):
    both(lambda: [callbacks.GradientClip(.1), callbacks.GradientAccumulation(16)])


@pytest.mark.parametrize('alpha', [.4, 2.])
def test_mix_up(both, alpha):
    loss = basics.CrossEntropyLossFlat()
    mine, theirs = both(lambda: [callbacks.MixUp(alpha)], loss=loss, seed=3)
    assert mine.learn.loss_func is loss and theirs.learn.loss_func is loss
    plain, _ = both(list, loss=loss, seed=3)
    assert mine.losses != plain.losses


def test_mix_up_of_targets_that_are_no_classes(both):
    class OneHot(basics.Callback):
        order = -1

        def before_batch(self):
            self.learn.yb = tuple(torch.nn.functional.one_hot(o, 3).float() for o in self.yb)

    # accuracy cannot compare with targets of another shape, so the losses are all there is
    mine, theirs = both(lambda: [OneHot(), callbacks.MixUp()], seed=3, compare=False, epochs=1)
    same(torch.tensor(mine.losses), torch.tensor(theirs.losses))
    assert len(mine.losses) == 6


def test_mix_up_gives_the_loss_back_when_training_is_broken_off(ours):
    "Where fastai leaves it in place"
    class Interrupt(basics.Callback):
        order = 50

        def after_batch(self):
            if self.train_iter == 2: raise KeyboardInterrupt
    loss = basics.CrossEntropyLossFlat()
    res = ours([callbacks.MixUp(), Interrupt()], loss=loss)
    assert isinstance(res.error, KeyboardInterrupt) and len(res.losses) == 2
    assert res.learn.loss_func is loss


def test_cut_mix(both):
    class AsImages(basics.Callback):
        order = -1

        def before_batch(self): self.learn.xb = tuple(o.view(-1, 1, 2, 2) for o in self.xb)

    class AsRows(basics.Callback):
        order = 1

        def before_batch(self): self.learn.xb = tuple(o.reshape(-1, 4) for o in self.xb)
    both(lambda: [AsImages(), callbacks.CutMix(1.), AsRows()], seed=3,
         loss=basics.CrossEntropyLossFlat())


@pytest.mark.parametrize('pct', [.01, .5, .9])
@pytest.mark.parametrize('short_valid', [True, False])
def test_short_epoch(both, pct, short_valid):
    mine, theirs = both(lambda: [callbacks.ShortEpochCallback(pct, short_valid)], compare=False)
    same(torch.tensor(mine.losses), torch.tensor(theirs.losses))
    assert mine.valid_batches == theirs.valid_batches
    for k, v in theirs.weights.items(): same(mine.weights[k], v)


def test_bn_freeze(both):
    class Freeze(basics.Callback):
        order = -5

        def before_fit(self):
            for o in self.model[2].parameters(): o.requires_grad_(False)
    both(lambda: [Freeze(), callbacks.BnFreeze()], model='bn')


def test_mixed_precision_where_there_is_no_gpu(both):
    "It changes nothing there, but writes the scaler on the learner and reads it back"
    if torch.cuda.is_available(): pytest.skip('with a GPU it would change numbers')
    both(lambda: [callbacks.MixedPrecision()])


# ---- schedules -----------------------------------------------------------------------------------
schedules = {
    'lr': lambda: {'lr': callbacks.SchedLin(.1, .01)},
    'lr and mom': lambda: {'lr': callbacks.combined_cos(.25, .01, .1, .001),
                           'mom': callbacks.combined_cos(.25, .95, .85, .95)},
    'three parts': lambda: {'lr': callbacks.combine_scheds(
        [.2, .5, .3], [callbacks.SchedNo(.01, .01), callbacks.SchedPoly(.01, .1, 2),
                       callbacks.SchedExp(.1, .001)])},
    'weight decay': lambda: {'wd': callbacks.SchedCos(.1, .0)}}


@pytest.mark.parametrize('name', schedules)
def test_param_scheduler(both, name):
    mine, theirs = both(lambda: [callbacks.ParamScheduler(schedules[name]())])
    ours, real = mine.learn.recorder.hps, theirs.learn.recorder.hps
    assert ours.keys() == real.keys()
    for k in real: same(torch.tensor(list(map(float, ours[k]))), torch.tensor(list(real[k])))


@pytest.mark.parametrize('rates', [np.array([.01, .1]), [.02, .2]], ids=str)
def test_param_scheduler_with_a_rate_for_each_group(both, rates):
    rates = np.array(rates)
    sched = callbacks.combined_cos(.3, rates/25, rates, rates/1e5)
    mine, _ = both(lambda: [callbacks.ParamScheduler({'lr': sched})], two_groups=True)
    assert all(abs(b/a - 10) < 1e-3 for a, b in mine.lrs)


def test_param_scheduler_with_a_slice(both):
    both(lambda: [callbacks.ParamScheduler({'lr': lambda pct: slice(.01, .1*(1+pct))})],
         two_groups=True)


# ---- looking -------------------------------------------------------------------------------------
def test_csv_logger(both):
    mine, theirs = both(lambda: [callbacks.CSVLogger()])
    a, b = (list(csv.DictReader((o.path/'history.csv').open())) for o in (mine, theirs))
    assert list(a[0]) == list(b[0]) == 'epoch train_loss valid_loss accuracy time'.split()
    assert [o['epoch'] for o in a] == [o['epoch'] for o in b] == ['0', '1', '2']
    for x, y in zip(a, b):
        for k in ('valid_loss', 'accuracy'): same(float(x[k]), float(y[k]))
        assert float(x['train_loss']) > 0 and ':' in x['time']
    assert list(mine.cbs[0].read_log().valid_loss) == [float(o['valid_loss']) for o in a]


def test_csv_logger_named_and_appended_to(both):
    mine, theirs = both(lambda: [callbacks.CSVLogger('log.csv', append=True)], fits=2)
    a, b = ([o.split(',')[0] for o in (res.path/'log.csv').read_text().splitlines()]
            for res in (mine, theirs))
    assert [o for o in a if o != 'epoch'] == [o for o in b if o != 'epoch'] == list('012012')


def test_csv_logger_leaves_no_file_open_and_no_logger_behind(ours):
    class Interrupt(basics.Callback):
        def after_batch(self):
            if self.train_iter == 8: raise KeyboardInterrupt
    logger = callbacks.CSVLogger()
    res = ours([logger, Interrupt()])
    assert isinstance(res.error, KeyboardInterrupt) and logger.file.closed
    assert len((res.path/'history.csv').read_text().splitlines()) == 2
    res.learn.remove_cbs([o for o in res.learn.cbs])
    res.learn.fit(1)  # writes nowhere


@pytest.mark.parametrize('options', [{}, {'every': 2}, {'with_hist': True},
                                     {'include_paramless': True}], ids=str)
def test_activation_stats(both, options):
    mine, theirs = both(lambda: [callbacks.ActivationStats(**options)])
    a, b = mine.cbs[0].stats, theirs.cbs[0].stats
    assert len(a) == len(b) and len(a[0]) == len(b[0])
    for layer in range(len(b[0])):
        for x, y in zip(mine.cbs[0].layer_stats(layer), theirs.cbs[0].layer_stats(layer)):
            same(torch.tensor(list(x)), torch.tensor(list(y)))
    if 'with_hist' in options: same(mine.cbs[0].hist(0), theirs.cbs[0].hist(0))
    assert not any(o._forward_hooks for o in mine.learn.model.modules())


def test_activation_stats_of_chosen_modules(both):
    class FirstLayer(callbacks.ActivationStats):
        def before_fit(self):
            self.modules = [self.model[0]]
            super().before_fit()
    mine, theirs = both(lambda: [FirstLayer()])
    assert len(mine.cbs[0].stats[0]) == len(theirs.cbs[0].stats[0]) == 1


def test_collect_data(both):
    from fastai.callback.data import CollectDataCallback
    mine, theirs = both(lambda: [CollectDataCallback()], epochs=1)
    assert len(mine.cbs[0].data) == len(theirs.cbs[0].data) == 9
    for a, b in zip(mine.cbs[0].data, theirs.cbs[0].data):
        (xa, ya, pred_a, loss_a), (xb, yb, pred_b, loss_b) = a, b
        same(xa[0], xb[0])
        same(ya[0], yb[0])
        same(pred_a, pred_b)
        same(loss_a, loss_b)


# ---- all together --------------------------------------------------------------------------------
def many():
    "Callbacks that do not get in each other's way"
    return [callbacks.CSVLogger(), callbacks.GradientClip(.5), callbacks.SaveModelCallback(),
            callbacks.ActivationStats(), callbacks.TerminateOnNaNCallback(),
            callbacks.ParamScheduler({'lr': callbacks.SchedLin(.1, .01)}),
            callbacks.EarlyStoppingCallback(patience=2), callbacks.GradientAccumulation(16)]


def test_many_at_once(both):
    mine, theirs = both(many)
    assert mine.files == theirs.files


def test_the_order_of_attachment_does_not_matter_where_order_numbers_differ(ours):
    a = ours(many())
    b = ours(many()[::-1])
    assert a.losses == b.losses and a.lrs == b.lrs


@pytest.mark.parametrize('make', [
    lambda: [callbacks.EarlyStoppingCallback()], lambda: [callbacks.SaveModelCallback()],
    lambda: [callbacks.ReduceLROnPlateau()], lambda: [callbacks.GradientAccumulation(16)],
    lambda: [callbacks.CSVLogger()], lambda: [callbacks.ShortEpochCallback(.5)],
    lambda: [callbacks.ParamScheduler({'lr': callbacks.SchedNo(.1, .1)})]])
def test_no_warning_about_shadowed_attributes(both, make):
    "fastai warns if a callback keeps something under a name that the learner has"
    mine, theirs = both(make, compare=False)
    assert mine.shadowed == theirs.shadowed == []


def test_attached_callbacks_are_found_by_name(ours):
    cbs = many()
    res = ours(cbs)
    for cb in cbs: assert getattr(res.learn, cb.name) is cb


def test_callbacks_for_one_fit_only(ours):
    res = ours([])
    stopper = callbacks.EarlyStoppingCallback(min_delta=10., patience=1)
    res.learn.fit(5, .1, cbs=[stopper])
    assert len(res.learn.recorder.values) == 2
    res.learn.fit(3, .1)
    assert len(res.learn.recorder.values) == 3
