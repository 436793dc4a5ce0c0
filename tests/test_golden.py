"""What real fastai 1 and real fastai 2 gave for a tiny problem, asked of fastloop.

`tools/make_golden.py` made the numbers, and says how to read them. What is different from
fastai on purpose stands in `other_errors`, `other_exceptions` and `differences2`.
"""
import json
import sys
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from fastloop.adapters.fastai1 import CallbackHandler, initial_state
from fastloop.anneal import Stepper, annealing_cos, combined_cos
from fastloop.callback import core
from fastloop.callback.core import Callback, TraceCallback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.optimizer import OptimWrapper

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent/'tools'))
import make_golden  # noqa: E402
from make_golden import (  # noqa: E402
    accuracy,
    events1,
    letters1,
    seen,
    split_in_two,
    weights_of,
)

one = json.loads((here/'golden'/'fastai1.json').read_text())
two = json.loads((here/'golden'/'fastai2.json').read_text())
opt_funcs = {'sgd': optim.SGD, 'momentum': partial(optim.SGD, momentum=.9),
             'adam': partial(optim.Adam, betas=(.9, .99)),
             'rmsprop': partial(optim.RMSprop, alpha=.9)}


make_loaders, first_model = cache(make_golden.make_loaders), cache(make_golden.make_model)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "More of them would only wait for each other, so small is the problem"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model(kind): return deepcopy(first_model(kind))


def close(got, wanted):
    "Numbers in lists, whose places without a number are the same"
    if isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted), (got, wanted)
        for a, b in zip(got, wanted): close(a, b)
    elif wanted is None: assert got is None
    else: assert abs(float(got)-wanted) <= max(1e-5*abs(wanted), 1e-6), (got, wanted)


def check_weights(model, weights):
    "The model has these weights, batch norm's running means included"
    state = model.state_dict()
    assert list(state) == list(weights)
    for k, v in weights.items(): close(state[k].tolist(), v)


def make_learner(args, loaders=None, **kwargs):
    "A learner set up as `args` say"
    options = {'wd': 0., 'opt_func': opt_funcs[args['opt']], **{k: args[k] for k in
               ('wd', 'true_wd', 'bn_wd') if k in args}, **kwargs}
    return Learner(DataBunch(*(loaders or make_loaders())), make_model(args.get('model', 'plain')),
                   F.cross_entropy, metrics=[accuracy], silent=True,
                   splitter=split_in_two if args.get('groups') == 2 else None, **options)


def as_rate(lr):
    "The stored learning rate as an argument of `fit`; a list stands for a slice"
    return slice(*lr) if isinstance(lr, list) else lr


# ---- fastai 1: a loop written by hand, and callbacks ---------------------------------------------
class ByHand:
    "fastai 1's own loop, driving a `CallbackHandler`"
    def __init__(self, args):
        self.model, self.loaders = make_model(args.get('model', 'plain')), make_loaders()
        self.groups = split_in_two(self.model) if args.get('groups') == 2 else [self.model]
        self.opt = OptimWrapper.create(
            opt_funcs[args['opt']], 1., self.groups, wd=args.get('wd', 0.),
            true_wd=args.get('true_wd', True), bn_wd=args.get('bn_wd', True))

    def fit(self, epochs, lr, callbacks, metrics=(accuracy,)):
        if isinstance(lr, slice): lr = [lr.start or lr.stop/10, lr.stop]
        self.opt.lr = lr
        self.handler = handler = CallbackHandler(callbacks, list(metrics))
        handler.on_train_begin(epochs, object(), list(metrics))
        exception = False
        try:
            for _ in range(handler.state_dict['epoch'], epochs):
                self.model.train()
                handler.on_epoch_begin()
                for xb, yb in self.loaders[0]:
                    xb, yb = handler.on_batch_begin(xb, yb)
                    loss = handler.on_loss_begin(self.model(xb))
                    loss = handler.on_backward_begin(F.cross_entropy(loss, yb))
                    if not handler.state_dict['skip_bwd']: loss.backward()
                    if not handler.on_backward_end(): self.opt.step()
                    if not handler.on_step_end(): self.opt.zero_grad()
                    if handler.on_batch_end(loss.detach()): break
                value = None if handler.skip_validate else self.validate(handler)
                if handler.on_epoch_end(value): break
        except Exception as e:
            exception = e
            raise
        finally: handler.on_train_end(exception)

    def validate(self, handler):
        self.model.eval()
        losses, sizes = [], []
        with torch.no_grad():
            for xb, yb in self.loaders[1]:
                xb, yb = handler.on_batch_begin(xb, yb, train=False)
                losses.append(F.cross_entropy(handler.on_loss_begin(self.model(xb)), yb))
                sizes.append(len(yb))
                if handler.on_batch_end(losses[-1]): break
        return sum(o*n for o, n in zip(losses, sizes))/sum(sizes)


class Guests:
    "A learner, to which callbacks of fastai 1 are attached"
    def __init__(self, args):
        self.learn = make_learner(args)
        self.learn.create_opt()
        self.model, self.opt = self.learn.model, self.learn.opt

    def fit(self, epochs, lr, callbacks): self.learn.fit(epochs, lr, callbacks=callbacks)


class Attached(Guests):
    "A learner to which a `CallbackHandler` is attached that has callbacks of fastai 1"
    def fit(self, epochs, lr, callbacks):
        self.learn.fit(epochs, lr, cbs=[CallbackHandler(callbacks)])


ways = pytest.mark.parametrize('way', [ByHand, Guests, Attached])


def v1_class(**handlers):
    "A class with `on_*` methods that knows nothing of any library"
    return type('V1', (), {f'on_{k}': v for k, v in handlers.items()})


class Probe1:
    "Keeps what the probe of `make_golden` keeps"
    _order = 100

    def __init__(self, owner):
        self.owner = owner
        for o in 'lrs moms wds losses smooth valid_losses metrics'.split(): setattr(self, o, [])

    def on_batch_begin(self, train, **kwargs):
        if not train: return
        self.lrs.append(self.owner.opt.read_val('lr'))
        self.moms.append(self.owner.opt.mom)
        self.wds.append(self.owner.opt.wd)

    def on_backward_begin(self, last_loss, smooth_loss, **kwargs):
        self.losses.append(last_loss.item())
        self.smooth.append(smooth_loss.item())

    def on_epoch_end(self, last_metrics, **kwargs):
        self.valid_losses.append(last_metrics[0])
        self.metrics.append(last_metrics[1:])


class Phases:
    "Hyper-parameters as fastai 1 sets them: when training begins, and at the end of each batch"
    def __init__(self, owner, phases): self.owner, self.phases = owner, phases

    def on_train_begin(self, **kwargs): self.put([o.start for o in self.phases[0]])

    def put(self, values): self.owner.opt.lr, self.owner.opt.mom = values

    def on_batch_end(self, train, **kwargs):
        if not train: return
        self.put([o.step() for o in self.phases[0]])
        if self.phases[0][0].is_done: self.phases = self.phases[1:]


class NativePhases(Callback):
    "The same, in the words of fastloop"
    def __init__(self, phases): self.phases = phases

    def begin_fit(self): self.phases.on_train_begin()

    def after_batch(self): self.phases.on_batch_end(self.in_train)


def one_cycle1(epochs, max_lr, moms=(.95, .85), div_factor=25., pct_start=.3, final_div=None):
    "The phases of fastai 1's one-cycle schedule over batches: up, and down"
    n, final_div = epochs*6, final_div or div_factor*1e4
    start, top, end = ([o/d for o in max_lr] if isinstance(max_lr, list) else max_lr/d
                       for d in (div_factor, 1, final_div))
    rise = int(n*pct_start)
    return [[Stepper(o, count, annealing_cos) for o in pair] for count, pair in (
        (rise, ((start, top), tuple(moms))), (n-rise, ((top, end), tuple(moms[::-1]))))]


def flat_cos1(epochs, lr, moms=(.95, .85), start_pct=.72):
    "The phases of fastai 1's `fit_fc`"
    flat = int(epochs*6*start_pct)
    return [[Stepper(lr, flat), Stepper(moms[0], flat)],
            [Stepper((lr, 0.), epochs*6-flat, annealing_cos), Stepper(moms[1], epochs*6-flat)]]


def plan1(verb, kwargs):
    "Number of epochs, learning rate, and phases of a stored call"
    kwargs = dict(kwargs)
    epochs = [kwargs.pop(o) for o in ('epochs', 'cyc_len', 'tot_epochs') if o in kwargs][0]
    lr = kwargs.pop('max_lr' if verb == 'fit_one_cycle' else 'lr')
    make = {'fit': None, 'fit_one_cycle': one_cycle1, 'fit_fc': flat_cos1}[verb]
    return epochs, as_rate(lr), make and make(epochs, lr, **kwargs)


# ---- fastai 1: runs ------------------------------------------------------------------------------
def kept_momentum(fits):
    "fastai 1 goes on with the momentum a fit before has left; a fit of fastloop sets its own"
    class KeptMomentum(Callback):
        def begin_fit(self): self.learn.opt.mom = fits[-1]['moms'][0]
    return KeptMomentum()


@ways
@pytest.mark.parametrize('name', one['runs'])
def test_fastai1_runs(name, way):
    run = one['runs'][name]
    trainer = way(run['args'])
    for (verb, kwargs), fit in zip(run['calls'], run['fits']):
        epochs, lr, phases = plan1(verb, kwargs)
        probe = Probe1(trainer)
        cbs = [probe, *([Phases(trainer, phases)] if phases else [])]
        if (name, verb) == ('one_cycle_then_fit', 'fit') and way is not ByHand:
            trainer.learn.add_cbs(kept_momentum(run['fits']))
        trainer.fit(epochs, lr, cbs)
        for k in ('lrs', 'moms', 'wds', 'losses', 'smooth', 'valid_losses', 'metrics'):
            close(getattr(probe, k), fit[k])
        check_weights(trainer.model, fit['weights'])


class Probe(Callback):
    "Keeps each batch's loss and hyper-parameters"
    order = 100

    def begin_fit(self): self.losses, self.lrs, self.moms, self.wds, self.pcts = [], [], [], [], []

    def begin_batch(self):
        if not self.in_train: return
        self.pcts.append(self.pct_train)
        for values, name in ((self.lrs, 'lr'), (self.moms, 'mom'), (self.wds, 'wd')):
            values.append(self.opt.read_val(name))

    def begin_backward(self): self.losses.append(self.loss.item())


@pytest.mark.parametrize('name', one['runs'])
def test_fastai1_runs_native(name):
    run = one['runs'][name]
    learn = make_learner(run['args'])
    for (verb, kwargs), fit in zip(run['calls'], run['fits']):
        epochs, lr, phases = plan1(verb, kwargs)
        probe, cbs = Probe(), []
        if phases: cbs.append(NativePhases(Phases(learn, phases)))
        if (name, verb) == ('one_cycle_then_fit', 'fit'): cbs.append(kept_momentum(run['fits']))
        learn.fit(epochs, lr, cbs=[probe, *cbs])
        recorder = learn.recorder
        close(probe.lrs, fit['lrs'])
        close([o[-1] for o in probe.moms], fit['moms'])
        close([o[-1] for o in probe.wds], fit['wds'])
        close(probe.losses, fit['losses'])
        close(recorder.raw_losses, fit['losses'])
        close(recorder.losses, fit['smooth'])
        close(recorder.lrs, [o[-1] for o in fit['lrs']])
        close(recorder.moms, fit['moms'])
        close([o[1] for o in recorder.values], fit['valid_losses'])
        close(recorder.val_losses, fit['valid_losses'])
        close([o[2:] for o in recorder.values], fit['metrics'])
        check_weights(learn.model, fit['weights'])


def test_a_fit_sets_its_own_momentum():
    learn, probe = make_learner({'opt': 'momentum'}), Probe()
    learn.fit(2, .2, cbs=[NativePhases(Phases(learn, one_cycle1(2, .2)))])
    learn.fit(1, .05, cbs=[probe])
    assert probe.moms == [[.9]]*6 and one['runs']['one_cycle_then_fit']['fits'][1]['moms'][0] == .95


# ---- fastai 1: accumulation ----------------------------------------------------------------------
@ways
@pytest.mark.parametrize('name', one['accumulation'])
def test_fastai1_accumulation(name, way):
    run = one['accumulation'][name]

    def on_backward_end(self, num_batch, **kwargs):
        wait = (num_batch+1) % run['n_batches'] != 0
        return {'skip_step': wait, 'skip_zero': wait}
    trainer = way(run['args'])
    probe = Probe1(trainer)
    trainer.fit(run['epochs'], run['lr'], [v1_class(backward_end=on_backward_end)(), probe])
    close(probe.losses, run['losses'])
    close(probe.valid_losses, run['valid_losses'])
    check_weights(trainer.model, run['weights'])


@pytest.mark.parametrize('name', one['accumulation'])
def test_fastai1_accumulation_native(name):
    run = one['accumulation'][name]

    class Accumulate(Callback):
        def begin_step(self): return (self.iter+1) % run['n_batches'] != 0
    learn = make_learner(run['args'])
    learn.fit(run['epochs'], run['lr'], cbs=Accumulate)
    close(learn.recorder.raw_losses, run['losses'])
    close(learn.recorder.val_losses, run['valid_losses'])
    check_weights(learn.model, run['weights'])


# ---- fastai 1: answers ---------------------------------------------------------------------------
def v1_answer(spec):
    "A callback that gives the answer of `spec`"
    def handler(self, **state):
        if any(state.get(k) != v for k, v in spec.get('when', {}).items()): return None
        if 'raise' in spec:
            raise {'ValueError': ValueError, 'KeyboardInterrupt': KeyboardInterrupt}[
                spec['raise']]('on purpose')
        if not isinstance(spec['answer'], dict): return spec['answer']
        return {k: state[k]*v[1] if isinstance(v, list) else v for k, v in spec['answer'].items()}
    return v1_class(**{spec['event']: handler})()


def v1_announcer():
    "A callback that writes down one letter for each event, before any other is asked"
    def make(letter):
        def handler(self, **kwargs):
            self.events += letter
            if letter == 'X': self.exception = kwargs['exception']
        return handler
    cls = v1_class(**{o: make(letters1[o]) for o in events1})
    cls._order, cls.events, cls.exception = -100, '', None
    return cls()


def answered(way, spec):
    "What happens in a fit in which one callback answers as `spec` says"
    trainer, error = way({'opt': 'momentum'}), None
    announcer, probe = v1_announcer(), Probe1(trainer)
    try: trainer.fit(spec.get('epochs', 2), .1, [announcer, v1_answer(spec), probe])
    except BaseException as e: error = e
    return trainer, announcer, probe, error


def check_answered(res, spec):
    "Events and numbers are those of `spec`"
    trainer, announcer, probe, _ = res
    assert announcer.events == spec['events']
    for k in ('losses', 'smooth', 'valid_losses', 'metrics'): close(getattr(probe, k), spec[k])
    close(trainer.model[-1].weight.tolist(), spec['last_weights'])


quiet = one['runs']['fit_momentum']  # of three epochs; the first two are those of a quiet fit
# wanted to be different: all keys are there from the start, so that no answer with one is refused;
# bare values are understood; `True` from `on_batch_end` stops this pass over the data
other_errors = {'key_not_there_yet': None, 'key_not_there_in_first_epoch': None, 'bare_true': None,
                'unknown_key': ValueError}
# and `on_train_end` comes whenever a fit of a learner ends, and is given what has ended it
other_exceptions = {'raise_in_train_begin': ValueError, 'interrupt_in_batch_end': KeyboardInterrupt,
                    'unknown_key': ValueError}


@ways
@pytest.mark.parametrize('name', [o for o in one['answers'] if other_errors.get(o, 0) is not None])
def test_fastai1_answers(name, way):
    spec = one['answers'][name]
    res = _, announcer, _, error = answered(way, spec)
    wanted = spec['error'] and {'ValueError': ValueError, 'KeyboardInterrupt': KeyboardInterrupt,
                                'Exception': other_errors.get(name)}[spec['error'][0]]
    assert type(error) is (wanted or type(None)), error
    if 'raise' in spec: assert str(error).startswith(spec['error'][1])
    given = spec['exception'] and wanted
    if name in other_exceptions and (way is not ByHand or name == 'unknown_key'):
        given, spec = other_exceptions[name], {**spec, 'events': spec['events'].rstrip('X')+'X'}
    if given: assert type(announcer.exception) is given
    else: assert announcer.exception is given
    check_answered(res, spec)


@ways
@pytest.mark.parametrize('name', ['key_not_there_yet', 'key_not_there_in_first_epoch'])
def test_early_keys_are_reset_in_time(name, way):
    "They are set anew before they could matter, so the fit is a quiet one"
    res = answered(way, one['answers'][name])
    fit, done = quiet['fits'][0], one['answers']['start_at_epoch_1']
    n = {'losses': 12, 'smooth': 12, 'valid_losses': 2, 'metrics': 2}
    assert res[3] is None and res[1].exception is False
    check_answered(res, {**{k: fit[k][:v] for k, v in n.items()}, 'events': done['events'],
                         'last_weights': done['last_weights']})


@ways
def test_bare_true(way):
    "`True` from `on_batch_end` does what `{'stop_epoch': True}` does"
    trainer, announcer, probe, error = answered(way, one['answers']['bare_true'])
    other = answered(way, {'event': 'batch_end', 'answer': {'stop_epoch': True}})
    assert error is None and announcer.events == other[1].events == 'TEbldDsBblBeEbldDsBblBeX'
    assert probe.losses == other[2].losses and probe.valid_losses == other[2].valid_losses
    assert trainer.model[-1].weight.equal(other[0].model[-1].weight)


flags = ('skip_bwd', 'skip_step', 'skip_zero', 'stop_epoch', 'stop_training', 'skip_validate')


@pytest.mark.parametrize('event', events1[:-1])
@pytest.mark.parametrize('flag', flags)
def test_flags_at_every_event(flag, event):
    "What is not stored: a flag raised once does the same on a learner as on fastai 1's own loop"
    when = {'iteration': 2} if event[:5] in ('batch', 'loss_', 'backw', 'step_') else {'epoch': 0}
    spec = {'event': event, 'when': when, 'answer': {flag: True}}
    (mine, a, x, error), (learner, b, y, other) = (answered(way, spec) for way in (ByHand, Guests))
    assert a.events == b.events and error is other is None
    for k in ('losses', 'smooth', 'valid_losses', 'metrics'): close(getattr(x, k), getattr(y, k))
    check_weights(learner.model, weights_of(mine.model))


# ---- fastai 1: the state, and who is asked when --------------------------------------------------
def scalar(v): return v is None or isinstance(v, (bool, int, float))


@ways
def test_fastai1_trace(way):
    "Every key at every event; a key that comes later there has its first value here until then"
    state, rows, first = {}, [], initial_state()

    def note(name): return lambda self, **kwargs: rows.append(
        (name, {k: seen(v) for k, v in kwargs.items()}))
    way({'opt': 'momentum'}).fit(2, .1, [v1_class(**{o: note(o) for o in events1})()])
    assert [o[0] for o in rows] == [o[0] for o in one['trace']]
    for (name, got), (_, new, *gone) in zip(rows, one['trace']):
        state = {k: v for k, v in (state | new).items() if k not in sum(gone, [])}
        extra = {'exception'} if name == 'train_end' else set()
        assert set(got) - set(state) - extra <= set(first)
        for k in set(got) - set(state) - extra: assert got[k] == first[k], (name, k)
        for k, v in state.items():
            if k == 'pbar': continue  # fastai's own, of which there is none here
            if isinstance(v, bool) or not scalar(v) and not isinstance(v, list):
                assert got[k] == v and type(got[k]) is type(v), (name, k)
            elif v in (['function'], ['str']): assert got[k] == v, (name, k)
            else: close(got[k], v)


def asked_in_turn(calls):
    "Who was asked, event by event"
    short = []
    for who, event in calls:
        if not short or short[-1][0] != event: short.append([event, []])
        short[-1][1].append(who)
    return short


@pytest.mark.parametrize('way', ['by hand', 'attached', 'guests'])
def test_fastai1_order(way):
    "Metrics before callbacks, callbacks by number"
    calls, args = [], {'opt': 'sgd'}

    def make(name, order):
        def note(event): return lambda self, **kwargs: calls.append((name, event))
        cls = v1_class(**{o: note(o) for o in events1})
        cls._order, cls.__name__ = order, name
        return cls()
    callbacks = [make('late', 5), make('first', 0), make('second', 0)]
    metrics = [make('metric1', 9), make('metric2', -9)]
    if way == 'by hand': ByHand(args).fit(1, .1, callbacks, metrics)
    elif way == 'attached': make_learner(args).fit(1, .1, cbs=CallbackHandler(callbacks, metrics))
    else: make_learner(args).fit(1, .1, cbs=callbacks)  # a learner's metrics are its recorder's
    wanted = one['order']
    if way == 'guests': wanted = [[e, [o for o in who if o[:3] != 'met']] for e, who in wanted]
    assert asked_in_turn(calls) == wanted


# ---- fastai 2: runs ------------------------------------------------------------------------------
def one_cycle2(lr_max, div=25., div_final=1e5, pct_start=.25, moms=(.95, .85, .95)):
    "fastai 2's one-cycle schedule"
    lr = lr_max if isinstance(lr_max, list) else [lr_max]
    return {'lr': combined_cos(pct_start, [o/div for o in lr], lr, [o/div_final for o in lr]),
            'mom': combined_cos(pct_start, *moms)}


def flat_cos2(lr, div_final=1e5, pct_start=.75):
    "fastai 2's schedule of a constant rate that goes down in the end"
    return {'lr': combined_cos(pct_start, [lr], [lr], [lr/div_final])}


class Native:
    "What fastai 2's callbacks do, in the words of fastloop"
    class Probe(Callback):
        order = 100

        def begin_fit(self): self.hypers, self.pcts = [], []

        def begin_batch(self):
            if not self.in_train: return
            values = [self.opt.read_val(o) for o in ('lr', 'mom', 'wd')]
            self.hypers.append([dict(zip(('lr', 'mom', 'wd'), o)) for o in zip(*values)])
            self.pcts.append(self.pct_train)

    class Follow(Callback):
        order = 60

        def __init__(self, scheds): self.scheds = scheds

        def begin_batch(self):
            for k, sched in self.scheds.items() if self.in_train else ():
                value = sched(self.pct_train)
                one_for_all = isinstance(value, list) and len(value) == 1
                self.opt.set_val(k, value[0] if one_for_all else value)

    class Clip(Callback):
        def begin_step(self): nn.utils.clip_grad_norm_(self.model.parameters(), .1)

    class Accumulate(Callback):
        count = 0

        def after_loss(self):
            if self.in_train: self.run.loss = self.loss*len(self.yb)/16

        def begin_step(self):
            self.count += len(self.yb)
            if self.count < 16: return True
            self.count = 0

    class ShortEpoch(Callback):
        def after_batch(self): return self.iter/self.iters >= .5


class Fastai2:
    "The same in the words of fastai 2; `losses` and `smooth` are what its learner tells"
    class Probe(Callback):
        order, run_valid = 100, False

        def before_fit(self): self.hypers, self.pcts, self.losses, self.smooth = [], [], [], []

        def before_batch(self):
            self.hypers.append([dict(o) for o in self.opt.hypers])
            self.pcts.append(self.pct_train)

        def after_batch(self):
            self.losses.append(self.learn.loss.item())
            self.smooth.append(float(self.smooth_loss))

    class Follow(Callback):
        order, run_valid = 60, False

        def __init__(self, scheds): self.scheds = scheds

        def before_batch(self):
            for k, sched in self.scheds.items(): self.opt.set_hyper(k, sched(self.pct_train))

    class Clip(Callback):
        order = 11

        def before_step(self): nn.utils.clip_grad_norm_(self.parameters(), .1)

    class Accumulate(Callback):
        order, run_valid = 6, False

        def before_fit(self): self.count = 0

        def after_loss(self): self.learn.loss_grad /= 16/len(self.learn.yb[0])

        def before_step(self):
            self.learn.loss_grad *= 16/len(self.y)
            self.count += len(self.y)
            if self.count < 16: raise core.CancelBatchException()
            self.count = 0

    class ShortEpoch(Callback):
        run_train = True

        def after_batch(self):
            if self.iter/self.n_iter < .5: return
            raise core.CancelTrainException if self.training else core.CancelValidException


class Validated(Callback):
    "The losses of the batches of validation, each with the number of rows"
    def begin_fit(self): self.losses = []

    def begin_validate(self): self.losses.append([])

    def after_loss(self):
        if not self.in_train: self.losses[-1].append([self.loss.item(), len(self.yb)])


def weighted(losses):
    "The mean of pairs of a loss and a number of rows"
    return sum(o*n for o, n in losses)/sum(n for _, n in losses)


extras2 = {'clip': 'Clip', 'accumulate_16': 'Accumulate', 'short_epoch': 'ShortEpoch'}
options2 = {'sgd': {'opt': 'sgd'}, 'momentum': {'opt': 'momentum'}, 'adam': {
    'opt': 'adam', 'wd': .01}, 'l2_momentum': {'opt': 'momentum', 'true_wd': False}}


@pytest.mark.parametrize('words', [Native, Fastai2])
@pytest.mark.parametrize('name', two['runs'])
def test_fastai2_runs(name, words):
    run = two['runs'][name]
    args = {**options2[run['args']['opt']], **{k: v for k, v in run['args'].items() if k != 'opt'},
            'bn_wd': run['args'].get('wd_bn_bias', False)}
    adam = {'opt_func': partial(optim.Adam, betas=(.9, .99), eps=1e-5)}
    learn = make_learner(args, **(adam if run['args']['opt'] == 'adam' else {}))
    for (verb, kwargs), fit in zip(run['calls'], run['fits']):
        kwargs, probe, validated = dict(kwargs), words.Probe(), Validated()
        epochs, lr = kwargs.pop('n_epoch'), kwargs.pop('lr_max' if 'lr_max' in kwargs else 'lr')
        cbs = [probe, validated, *([getattr(words, extras2[name])] if name in extras2 else [])]
        if verb != 'fit':
            make = {'fit_one_cycle': one_cycle2, 'fit_flat_cos': flat_cos2}[verb]
            cbs.append(words.Follow(make(lr, **kwargs)))
        learn.fit(epochs, as_rate(lr), cbs=cbs)
        if name == 'short_epoch': check_short2(fit, learn.recorder, validated)
        else: check_rows2(fit, learn.recorder, probe)
        for k, values in fit['constant'].items():
            if k in probe.hypers[0][0]: close([[o[k] for o in b] for b in probe.hypers],
                                              [values]*len(probe.hypers))
        close(probe.pcts, fit['pct_train'])
        assert learn.recorder.names == fit['names'][1:-1] and learn.recorder.header == fit['names']
        check_weights(learn.model, fit['weights'])


def check_rows2(fit, recorder, probe):
    "Losses, metrics and hyper-parameters are those of fastai 2"
    close(recorder.raw_losses, fit['losses'])
    close(recorder.losses, fit['smooth'])
    close(getattr(probe, 'losses', fit['losses']), fit['losses'])
    close(getattr(probe, 'smooth', fit['smooth']), fit['smooth'])
    for k in ('lr', 'mom'):
        if f'{k}s' in fit: close([[o[k] for o in b] for b in probe.hypers], fit[f'{k}s'])
    close([o[1:] for o in recorder.values], [o[1:] for o in fit['values']])
    # there, `train_loss` is the smoothed loss of the last batch; here, the mean over the epoch
    sizes, ends = [8]*5+[3], range(6, len(fit['losses'])+1, 6)
    close([fit['smooth'][i-1] for i in ends], [o[0] for o in fit['values']])
    close([o[0] for o in recorder.values],
          [weighted(list(zip(fit['losses'][i-6:i], sizes))) for i in ends])


def check_short2(fit, recorder, validated):
    """fastai's callbacks are not told of the batch behind which training was broken off, and its
    recorder writes no row; here, an `after_batch` is for all, and the row tells what was done"""
    losses, kept = recorder.raw_losses, [i for i in range(12) if i % 4 != 3]
    assert len(losses) == 12 and fit['values'] == [[]]*3
    close([losses[i] for i in kept], fit['losses'])
    close([o[:2] for o in recorder.values],
          [[sum(losses[4*i:4*i+4])/4, weighted(validated.losses[i])] for i in range(3)])


# ---- fastai 2: events ----------------------------------------------------------------------------
differences2 = """
- a cancelled step keeps its gradients: there, `zero_grad` is called all the same
  (and here, if a callback of another library has raised its own `CancelStepException`)
- a cancel that meets no phase it could break off is a RuntimeError: there, it escapes as it is
- `after_fit` always comes: there, it does not if an exception passes
- if a cancel is raised in `after_P`, handlers behind it are asked, too: there, they are not
"""
few = [list(o)[:n] for o, n in zip(make_loaders(), (2, 1))]  # the batches of the table
letter_of = {k: v for k, v in two['letters'].items() if k != 'after_create'}
phases2 = ('Fit', 'Epoch', 'Train', 'Valid', 'Batch', 'Backward', 'Step')
foreign = {o: type(f'Cancel{o}Exception', (Exception,), {}) for o in phases2}
true_means = {'before_fit': 'Fit', 'before_epoch': 'Epoch', 'before_train': 'Train',
              'before_validate': 'Valid', 'before_batch': 'Batch', 'before_backward': 'Backward',
              'before_step': 'Step', 'after_pred': 'Batch', 'after_loss': 'Batch',
              'after_backward': 'Batch', 'after_step': 'Batch', 'after_epoch': 'Fit'}


def native(event): return event.replace('before_', 'begin_')


def class_of(base, handlers, **attributes):
    return type('Said', base, {**handlers, **attributes})


def announcer2(base):
    "A callback that writes down the letter of each event, in fastai 2's words"
    def note(letter): return lambda self: self.heard.append(letter)
    return class_of(base, {k: note(v) for k, v in letter_of.items()}, order=-100, heard=[])()


class LateTrace(TraceCallback):
    "The events as the last of all callbacks hears them"
    order = 200


def letters2(trace):
    "The events of a trace, by their letters"
    by_native = {native(k): v for k, v in letter_of.items()}
    return ''.join(by_native[o] for o in trace.events)


def canceller(case, base, spell, answer):
    "A callback that raises the exception of `case`, or answers `True`, once"
    name, _, event, _, part = case.split()
    phase = name.removeprefix('Cancel').removesuffix('Exception')

    def handler(self):
        in_train = self.learn.training if answer == 'foreign' else self.in_train
        if self.done or part == 'validate' and in_train: return None
        self.done.append(1)
        if answer is True: return True
        raise foreign[phase] if answer == 'foreign' else getattr(core, name)
    marks = {'run_train': True} if answer == 'foreign' else {}  # else `after_X` alone is native
    return class_of(base, {spell(event): handler}, order=99, done=[], **marks)()


ways2 = {'native': ((Callback,), native, None), 'true': ((Callback,), native, True),
         'fastai 2': ((Callback,), str, None), 'foreign': ((), str, 'foreign')}


def by_true(case):
    "Whether a handler of fastloop can ask for this cancel by answering `True`"
    if case == 'none': return False
    name, _, event, _, part = case.split()
    means = {**true_means, 'after_batch': 'Train' if part == 'train' else 'Valid'}
    return name == f'Cancel{means.get(event)}Exception'


def said(case, way):
    "Whether `way` has a say in `case`; what no phase catches is asked of one way only"
    return by_true(case) if way == 'true' else way == 'native' or two['cancels'][case][3] is None


@pytest.mark.parametrize('case, way', [(case, way) for case in two['cancels'] for way in ways2
                                       if said(case, way)])
def test_fastai2_cancels(case, way):
    base, spell, answer = ways2[way]
    events, steps, zeros, error = two['cancels'][case]
    early = TraceCallback() if spell is native else announcer2(base)
    cbs = [early, *([late := LateTrace()] if spell is native else [])]
    if case != 'none': cbs.append(canceller(case, base, spell, answer))
    learn = make_learner({'opt': 'sgd'}, few)
    learn.create_opt()
    counts = {'step': 0, 'zero_grad': -1}  # one when the fit begins

    def counted(verb, method, *args):
        counts[verb] += 1
        return method(*args)
    for o in counts: setattr(learn.opt, o, partial(counted, o, getattr(learn.opt, o)))
    raised = None
    try: learn.fit(2, .1, cbs=cbs)
    except RuntimeError as e: raised = e
    assert (raised is None) == (error is None)
    if error is not None:
        assert error.replace('Valid', 'Validate') in str(raised)
        events = events.rstrip('q')+'q'
    assert (letters2(early) if spell is native else ''.join(early.heard)) == events
    keeps = case.startswith('CancelStep') and error is None and way != 'foreign'
    assert counts == {'step': steps, 'zero_grad': zeros-keeps}
    if spell is native: check_late(case, letters2(late), events, error is not None, way == 'true')


def check_late(case, heard, events, error, answered_true):
    """Handlers behind the one that cancels are asked if the event ends a phase, else they are not;
    behind one that answers `True`, all are"""
    if case == 'none' or answered_true: wanted = events
    else:
        _, _, event, _, part = case.split()
        i = events.index(letter_of[event], events.index('n') if part == 'validate' else 0)
        ends = event.removeprefix('after_') in ('fit', 'epoch', 'train', 'validate', 'batch',
                                                'backward', 'step')
        told = 'after' in event and ends and (not error or event == 'after_fit')
        wanted = events if told else events[:i]+events[i+1:]
    assert heard == wanted
