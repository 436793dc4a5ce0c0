"""What real fastai 1 and 2 gave for a tiny problem, asked of fastloop.

`tools/make_golden.py` made the numbers, and says how to read them.
"""
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import optim
from torch.nn import functional as F

from fastloop.callback import core
from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent/'tools'))
from make_golden import (  # noqa: E402
    accuracy,
    events1,
    letters1,
    make_loaders,
    make_model,
    seen,
    split_in_two,
)

one = json.loads((here/'golden'/'fastai1.json').read_text())
two = json.loads((here/'golden'/'fastai2.json').read_text())
same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
opt_funcs = {'sgd': optim.SGD, 'momentum': partial(optim.SGD, momentum=.9),
             'adam': partial(optim.Adam, betas=(.9, .99)),
             'rmsprop': partial(optim.RMSprop, alpha=.9)}


def close(a, b): same(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))


def make_learner(args, loaders=None, **kwargs):
    "A learner set up as `args` say"
    options = {'wd': 0., 'opt_func': opt_funcs[args['opt']], **{k: args[k] for k in
               ('wd', 'true_wd', 'bn_wd') if k in args}, **kwargs}
    return Learner(DataBunch(*(loaders or make_loaders())), make_model(args.get('model', 'plain')),
                   F.cross_entropy, metrics=[accuracy], silent=True,
                   splitter=split_in_two if args.get('groups') == 2 else None, **options)


class Probe(Callback):
    "Keeps each batch's loss and hyper-parameters"
    order = -5  # before callbacks that change the loss

    def begin_fit(self): self.losses, self.lrs, self.moms = [], [], []

    def after_loss(self):
        if self.in_train:
            self.losses.append(self.loss.item())
            self.lrs.append(self.opt.read_val('lr'))
            self.moms.append(self.opt.mom)


def call(learn, name, kwargs, probe):
    "Call `learn.fit` or another verb, if it is there"
    kwargs = dict(kwargs)
    for key in ('lr', 'max_lr', 'lr_max'):
        if isinstance(kwargs.get(key), list): kwargs[key] = slice(*kwargs[key])
    if not hasattr(learn, name): pytest.skip(f'no Learner.{name} yet')
    args = [kwargs.pop(o) for o in ('epochs', 'cyc_len', 'tot_epochs', 'n_epoch') if o in kwargs]
    rate = [kwargs.pop(o) for o in ('lr', 'max_lr', 'lr_max') if o in kwargs]
    getattr(learn, name)(*args, *rate, cbs=[probe], **kwargs)


def check_weights(learn, weights):
    "The model has these weights"
    for k, v in weights.items(): close(learn.model.state_dict()[k].tolist(), v)


# ---- fastai 1 ------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', one['runs'])
def test_fastai1_runs(name):
    run = one['runs'][name]
    learn = make_learner(run['args'])
    for (verb, kwargs), fit in zip(run['calls'], run['fits']):
        if verb == 'fit_fc': pytest.skip('fit_flat_cos follows fastai 2')
        if (name, verb) == ('one_cycle_then_fit', 'fit'):
            break  # fastai goes on with the momentum one-cycle ended with, a fit here does not
        probe = Probe()
        call(learn, verb, kwargs, probe)
        close(probe.lrs, fit['lrs'])
        close([o or 0 for o in probe.moms], [o or 0 for o in fit['moms']])
        close(probe.losses, fit['losses'])
        close([float(o) for o in learn.recorder.losses], fit['smooth'])
        close([o[1] for o in learn.recorder.values], fit['valid_losses'])
        close([o[2:] for o in learn.recorder.values], fit['metrics'])
        check_weights(learn, fit['weights'])


@pytest.mark.parametrize('name', one['lr_find'])
def test_fastai1_lr_find(name):
    run = one['lr_find'][name]
    learn = make_learner(run['args'])
    if not hasattr(learn, 'lr_find'): pytest.skip('no Learner.lr_find yet')
    learn.lr_find(**run['calls'][0][1], show_plot=False)
    same(torch.tensor(list(map(float, learn.recorder.lrs))), torch.tensor(run['lrs']))
    close([float(o) for o in learn.recorder.losses], run['losses'])


def v1_class(**handlers):
    "A class with `on_*` methods that knows nothing of any library"
    return type('V1', (), {f'on_{k}': v for k, v in handlers.items()})


@pytest.mark.parametrize('name', one['accumulation'])
def test_fastai1_accumulation(name):
    run = one['accumulation'][name]

    def on_backward_end(self, num_batch, **kwargs):
        wait = (num_batch+1) % run['n_batches'] != 0
        return {'skip_step': wait, 'skip_zero': wait}
    learn, probe = make_learner(run['args']), Probe()
    learn.fit(run['epochs'], run['lr'], cbs=[v1_class(backward_end=on_backward_end)(), probe])
    close(probe.losses, run['losses'])
    close([o[1] for o in learn.recorder.values], run['valid_losses'])
    check_weights(learn, run['weights'])


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


# wanted to be different: all keys are there from the start, early fastai 1.0 answered with bare
# values, and `on_train_end` comes on every exit
other = ('key_not_there_yet', 'key_not_there_in_first_epoch', 'bare_true', 'raise_in_train_begin')


@pytest.mark.parametrize('name', [o for o in one['answers'] if o not in other])
def test_fastai1_answers(name):
    spec = one['answers'][name]
    learn, error = make_learner({'opt': 'momentum'}), None
    announcer, probe = v1_announcer(), Probe()
    if name == 'change_loss': probe.order = 5
    try: learn.fit(spec.get('epochs', 2), .1, cbs=[announcer, v1_answer(spec), probe])
    except BaseException as e: error = e
    assert (error is None) == (spec['error'] is None), error
    assert announcer.events == spec['events']
    if spec['error'] is None:
        assert announcer.exception is False
        close([o[1] for o in learn.recorder.values if o[1] is not None],
              [o for o in spec['valid_losses'] if o is not None])
        close(learn.model[-1].weight.tolist(), spec['last_weights'])
    elif name != 'interrupt_in_batch_end' and spec['exception']:
        assert type(announcer.exception) is type(error)


def test_fastai1_trace():
    "Every key of the state at every event; keys that come later there may be there from the start"
    state, rows = {}, []

    def note(name): return lambda self, **kwargs: rows.append(
        (name, {k: seen(v) for k, v in kwargs.items()}))
    cls = v1_class(**{o: note(o) for o in events1})
    learn = make_learner({'opt': 'momentum'})
    learn.fit(2, .1, cbs=[cls()])
    assert [o[0] for o in rows] == [o[0] for o in one['trace']]
    for (name, got), (_, new, *gone) in zip(rows, one['trace']):
        state = {k: v for k, v in (state | new).items() if k not in sum(gone, [])}
        for k, v in state.items():
            if k in ('pbar', 'metrics', 'metrics_names'): assert k in got
            elif isinstance(v, (float, list)) and not isinstance(v, bool) and v is not None:
                close(got[k], v)
            else: assert got[k] == v, (name, k)


def test_fastai1_order():
    calls = []

    def make(name, order):
        def note(event): return lambda self, **kwargs: calls.append((name, event))
        cls = v1_class(**{o: note(o) for o in events1})
        cls._order, cls.__name__ = order, name
        return cls()
    learn = make_learner({'opt': 'sgd'})
    learn.fit(1, .1, cbs=[make('late', 5), make('first', 0), make('second', 0)])
    short = []
    for who, event in calls:
        if not short or short[-1][0] != event: short.append([event, []])
        short[-1][1].append(who)
    wanted = [[event, [o for o in who if 'metric' not in o]] for event, who in one['order']]
    assert short == wanted


# ---- fastai 2 ------------------------------------------------------------------------------------
options2 = {'sgd': {'opt': 'sgd'}, 'momentum': {'opt': 'momentum'}, 'l2_momentum':
            {'opt': 'momentum', 'true_wd': False}, 'adam': {'opt': 'adam', 'wd': .01}}


@pytest.mark.parametrize('name', [k for k in two['runs']
                                  if k not in ('accumulate_16', 'clip', 'short_epoch')])
def test_fastai2_runs(name):
    run = two['runs'][name]
    args = {**options2[run['args']['opt']], **{k: v for k, v in run['args'].items() if k != 'opt'},
            'bn_wd': run['args'].get('wd_bn_bias', False)}
    adam = {'opt_func': partial(optim.Adam, betas=(.9, .99), eps=1e-5)}
    learn = make_learner(args, **(adam if run['args']['opt'] == 'adam' else {}))
    for (verb, kwargs), fit in zip(run['calls'], run['fits']):
        if verb == 'fit_one_cycle': pytest.skip('fit_one_cycle follows fastai 1')
        probe = Probe()
        call(learn, verb, kwargs, probe)
        n = len(fit['losses'])
        close(probe.lrs, fit.get('lrs', [fit['constant'].get('lr')]*n))
        close(probe.losses, fit['losses'])
        close([float(o) for o in learn.recorder.losses], fit['smooth'])
        close([o[1:] for o in learn.recorder.values], [o[1:] for o in fit['values']])
        check_weights(learn, fit['weights'])


names = {v: k for k, v in two['letters'].items()}
spellings = {'native': lambda o: o.replace('before_', 'begin_'), 'fastai 2': lambda o: o}


def class_of(handlers, **attributes):
    return type('Said', (Callback,), {**handlers, **attributes})


@pytest.mark.parametrize('spelling', spellings)
@pytest.mark.parametrize('case', two['cancels'])
def test_fastai2_cancels(case, spelling):
    "The same events, and as many steps; a cancelled step keeps its gradients here"
    events, steps, zeros, error = two['cancels'][case]
    spell, cbs = spellings[spelling], []

    def note(letter): return lambda self: self.heard.append(letter)
    handlers = {spell(names[o]): note(o) for o in names if names[o] != 'after_create'}
    cbs.append(class_of(handlers, order=-100, heard=[])())
    if case != 'none':
        name, _, event, _, part = case.split()

        def handler(self):
            if not self.done and not (part == 'validate' and self.in_train):
                self.done.append(1)
                raise getattr(core, name)
        cbs.append(class_of({spell(event): handler}, order=99, done=[])())
    train, valid = make_loaders()
    learn = make_learner({'opt': 'sgd'}, [list(train)[:2], list(valid)[:1]])
    learn.create_opt()
    counts = {'step': 0, 'zero_grad': -1}  # one when the fit begins

    def counted(verb, method, *args):
        counts[verb] += 1
        return method(*args)
    for o in counts: setattr(learn.opt, o, partial(counted, o, getattr(learn.opt, o)))
    raised = None
    try: learn.fit(2, .1, cbs=cbs)
    except RuntimeError as e: raised = e
    heard = ''.join(cbs[0].heard)
    assert (raised is None) == (error is None)
    if error is None:
        assert heard == events and counts['step'] == steps
        assert counts['zero_grad'] == zeros - ('CancelStep' in case)
    else:
        assert heard.rstrip('q') == events.rstrip('q')
        assert error.removesuffix('Exception') in str(raised)
