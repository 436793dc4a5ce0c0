"""Train a tiny problem with real fastai 1 and real fastai 2, and store the numbers they give.

`tests/golden/problem.json` holds the data and the first weights, `fastai1.json` and `fastai2.json`
what each library did with them: losses, learning rates, momenta, metrics, weights, and the order
in which its callbacks were called. fastloop takes no part in this; its tests read the files.

    python tools/make_golden.py problem     (NumPy is enough)
    python tools/make_golden.py fastai1     (in an environment that has fastai 1.0.61)
    python tools/make_golden.py fastai2     (in an environment that has fastai 2)

`--check` compares with the stored file instead of writing it. The environments, each a venv:

    fastai 1   pip install torch==2.13.0 numpy pandas matplotlib scipy pyyaml requests packaging
                   pillow beautifulsoup4 numexpr "fastprogress<1.1" "setuptools<80"
               pip install --no-deps fastai==1.0.61
    fastai 2   make test-peers makes one: .venv-peers/bin/python tools/make_golden.py fastai2

fastai 1 also asks for the modules bottleneck and pynvml; empty ones are put in their place here.

How to read the files. Numbers have nine digits, which is all of a float32. A run says under `args`
how it was set up and under `calls` what was called. Events are told by one letter each, which
`letters` explains. A `trace` has one entry an event: its name, those keys of the handler's state
that are new or have changed since the entry before, and a list of those that are gone, if any. In
it, a tensor of more than one number is told by its shape, another object by its type.
"""
import argparse
import collections
import contextlib
import functools
import importlib.metadata
import io
import json
import string
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np

folder = Path(__file__).resolve().parent.parent/'tests'/'golden'
BS = 8  # 43 rows make five batches of 8 and one of 3; 19 make 8, 8, 3


def make_problem():
    "Data and first weights, with three digits so that they are short and exact"
    rng = np.random.RandomState(42)
    x = rng.randn(62, 4)
    rule = rng.randn(4, 3)
    y = np.argmax(x@rule + .7*rng.randn(62, 3), 1)
    weights = {'0.weight': rng.randn(8, 4)/2, '0.bias': rng.randn(8)/4,
               'last.weight': rng.randn(3, 8)/3, 'last.bias': rng.randn(3)/4}
    return {'batch_size': BS, 'x_train': x[:43], 'y_train': y[:43], 'x_valid': x[43:],
            'y_valid': y[43:], **weights}


def tidy(o, digits=9):
    "`o` as what JSON can hold, floats rounded"
    if hasattr(o, 'tolist'): o = o.tolist()
    if isinstance(o, dict): return {str(k): tidy(v, digits) for k, v in o.items()}
    if isinstance(o, (list, tuple)): return [tidy(v, digits) for v in o]
    return float(f'{o:.{digits}g}') if isinstance(o, float) else o


def lines(o, depth=2, indent=''):
    "JSON with the keys of the first levels on lines of their own"
    rows = isinstance(o, list) and o and isinstance(o[0], (dict, list)) and depth > 1
    if depth == 0 or not o or not isinstance(o, dict) and not rows: return json.dumps(o)
    items = [''.join((f'{indent} ', '' if rows else f'{json.dumps(k)}: ',
                      lines(v, depth-1, indent+' ')))
             for k, v in (enumerate(o) if rows else o.items())]
    start, end = '[]' if rows else '{}'
    return f'{start}\n' + ',\n'.join(items) + f'\n{indent}{end}'


def load_problem():
    "The stored problem as tensors"
    import torch
    data = json.loads((folder/'problem.json').read_text())
    return {k: torch.tensor(v, dtype=torch.long if k[0] == 'y' else torch.float32)
            for k, v in data.items()}


def make_model(kind):
    "The small network, with batch norm if `kind` is 'bn', its weights being the stored ones"
    import torch
    from torch import nn
    p = load_problem()
    # rounding must not be magnified: by Adam, in a bias right before batch norm, where the gradient
    # is nothing but rounding; by batch norm, where a column hardly varies within a short batch
    norm = [nn.BatchNorm1d(8, eps=.1)] if kind == 'bn' else []
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *norm, nn.Linear(8, 3))
    with torch.no_grad():
        for layer, name in ((model[0], '0'), (model[-1], 'last')):
            layer.weight.copy_(p[f'{name}.weight'])
            layer.bias.copy_(p[f'{name}.bias'])
    return model


def split_in_two(model):
    "All layers but the last, and the last one"
    return [list(model.children())[:-1], [model[-1]]]


def make_loaders():
    "Loaders that do not shuffle"
    from torch.utils.data import DataLoader, TensorDataset
    p = load_problem()
    return [DataLoader(TensorDataset(p[f'x_{o}'], p[f'y_{o}']), BS) for o in ('train', 'valid')]


def accuracy(pred, y):
    "Share of rows whose largest output is the right one"
    return (pred.argmax(-1) == y).float().mean()


def weights_of(model):
    "Parameters and buffers as lists"
    return {k: v.detach().tolist() for k, v in model.state_dict().items()}


def quietly(work):
    "What `work` gives, without what it prints"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return work()


# ---- fastai 1 ------------------------------------------------------------------------------------
def import_fastai1():
    "fastai 1 with stand-ins for two modules that it only imports"
    import pandas  # noqa: F401 (it must not see the stand-ins)
    for name in ('bottleneck', 'pynvml'): sys.modules.setdefault(name, types.ModuleType(name))
    warnings.simplefilter('ignore')
    import fastai.basics
    import fastai.train  # noqa: F401
    fastai.torch_core.defaults.device = 'cpu'
    return fastai


events1 = ['train_begin', 'epoch_begin', 'batch_begin', 'loss_begin', 'backward_begin',
           'backward_end', 'step_end', 'batch_end', 'epoch_end', 'train_end']
letters1 = dict(zip(events1, 'TEbldDsBeX'))


def seen(value):
    "What the trace tells of a value in the handler's state"
    if hasattr(value, 'shape'):
        return value.item() if value.numel() == 1 else f'tensor {list(value.shape)}'
    if isinstance(value, list) and all(hasattr(o, 'dtype') or isinstance(o, float) for o in value):
        return [float(o) for o in value]
    if value is None or isinstance(value, (bool, int, float)): return value
    return [seen(o) for o in value] if isinstance(value, list) else type(value).__name__


class Fastai1:
    "Makes learners of fastai 1 and records what they do"

    def __init__(self):
        self.lib = import_fastai1()
        self.path = Path(tempfile.mkdtemp())

    def opt_func(self, name):
        "The optimizer that a run names"
        from torch import optim
        return {'sgd': optim.SGD, 'momentum': functools.partial(optim.SGD, momentum=.9),
                'adam': self.lib.basics.AdamW,
                'rmsprop': functools.partial(optim.RMSprop, alpha=.9)}[name]

    def learner(self, args):
        "A learner made as `args` say"
        from torch.nn import functional as F
        data = self.lib.basics.DataBunch(*make_loaders(), path=self.path, device='cpu',
                                         no_check=True)
        model = make_model(args.get('model', 'plain'))
        learn = self.lib.basics.Learner(
            data, model, opt_func=self.opt_func(args['opt']), loss_func=F.cross_entropy,
            metrics=[accuracy], wd=args.get('wd', 0.), true_wd=args.get('true_wd', True),
            bn_wd=args.get('bn_wd', True), silent=True)
        return learn.split(split_in_two) if args.get('groups') == 2 else learn

    def probe(self, learn):
        "A callback that keeps the numbers of a run"
        class Probe(self.lib.basics.Callback):
            _order = 100

            def __init__(self):
                for o in 'lrs moms wds losses smooth valid_losses metrics events'.split():
                    setattr(self, o, [])

            def on_batch_begin(self, train, **kwargs):
                if train:
                    self.lrs.append(list(learn.opt._lr))
                    self.moms.append(learn.opt.mom)
                    self.wds.append(learn.opt.wd)

            def on_backward_begin(self, last_loss, smooth_loss, **kwargs):
                self.losses.append(last_loss.item())
                self.smooth.append(smooth_loss.item())

            def on_epoch_end(self, last_metrics, **kwargs):
                self.valid_losses.append(last_metrics[0])
                self.metrics.append([float(o) for o in last_metrics[1:]])
        return Probe()

    def announcer(self, order=-100):
        "A callback that writes down one letter for every event"
        class Announcer(self.lib.basics.Callback):
            _order, events, exception = order, '', None

        for event, letter in letters1.items():
            def handler(self, letter=letter, **kwargs):
                self.events += letter
                if letter == 'X': self.exception = kwargs['exception']
            setattr(Announcer, f'on_{event}', handler)
        return Announcer()

    def run(self, args, calls):
        "What a learner set up as `args` gives for `calls`, one after the other"
        learn = self.learner(args)
        res = {'args': args, 'calls': calls, 'fits': []}
        for name, kwargs in calls:
            probe, kwargs = self.probe(learn), dict(kwargs)
            for key in ('lr', 'max_lr'):
                if isinstance(kwargs.get(key), list): kwargs[key] = slice(*kwargs[key])
            quietly(lambda: getattr(learn, name)(callbacks=[probe], **kwargs))  # noqa: B023
            fit = {k: v for k, v in vars(probe).items() if k != 'events'}
            assert fit['smooth'] == [float(o) for o in learn.recorder.losses]
            assert [o[-1] for o in fit['lrs']] == [float(o) for o in learn.recorder.lrs]
            res['fits'].append({**fit, 'weights': weights_of(learn.model)})
        return res

    def finder(self, args, kwargs):
        "The learning rate finder's curve"
        learn = self.learner(args)
        before = weights_of(learn.model)
        quietly(lambda: learn.lr_find(**kwargs))
        assert weights_of(learn.model) == before
        return {'args': args, 'calls': [['lr_find', kwargs]], 'lrs': learn.recorder.lrs,
                'losses': [o.item() for o in learn.recorder.losses]}

    def answering(self, spec):
        "What happens if a callback gives an answer: spec is event, where, and the answer"
        event, where, answer = spec['event'], spec.get('when', {}), spec['answer']
        learn = self.learner({'opt': 'momentum'})
        announcer, probe = self.announcer(), self.probe(learn)

        class Answer(self.lib.basics.Callback):
            pass

        def handler(cb, **state):
            if any(state.get(k) != v for k, v in where.items()): return None
            if 'raise' in spec:
                raise {'ValueError': ValueError, 'KeyboardInterrupt': KeyboardInterrupt}[
                    spec['raise']]('on purpose')
            if not isinstance(answer, dict): return answer
            return {k: state[k]*v[1] if isinstance(v, list) else v for k, v in answer.items()}
        setattr(Answer, f'on_{event}', handler)
        res, error = dict(spec), None
        try: quietly(lambda: learn.fit(spec.get('epochs', 2), .1,
                                       callbacks=[announcer, Answer(), probe]))
        except BaseException as e: error = e
        res['error'] = None if error is None else [type(error).__name__, str(error)]
        given = announcer.exception
        res['exception'] = given if given in (None, False) else type(given).__name__
        res['events'] = announcer.events
        res |= {k: getattr(probe, k) for k in ('losses', 'smooth', 'valid_losses', 'metrics')}
        res['last_weights'] = learn.model[-1].weight.tolist()
        return res

    def accumulation(self, n):
        "Gradients of `n` batches for one step, by the answers skip_step and skip_zero"
        learn = self.learner({'opt': 'momentum'})

        class Accumulate(self.lib.basics.Callback):
            def on_backward_end(self, num_batch, **kwargs):
                wait = (num_batch+1) % n != 0
                return {'skip_step': wait, 'skip_zero': wait}
        probe = self.probe(learn)
        quietly(lambda: learn.fit(2, .1, callbacks=[Accumulate(), probe]))
        return {'args': {'opt': 'momentum'}, 'n_batches': n, 'lr': .1, 'epochs': 2,
                'losses': probe.losses, 'valid_losses': probe.valid_losses,
                'weights': weights_of(learn.model)}

    def trace(self):
        "The handler's state at every event of a fit of two epochs"
        learn, state, res = self.learner({'opt': 'momentum'}), {}, []

        class Trace(self.lib.basics.Callback):
            pass

        def note(cb, name, kwargs):
            now = {k: seen(v) for k, v in kwargs.items()} | {'pbar': 'progress bar'}
            gone = sorted(set(state) - set(now))
            res.append([name, {k: v for k, v in now.items() if k not in state or
                               (type(v), v) != (type(state[k]), state[k])}] + [gone]*bool(gone))
            state.clear()
            state.update(now)
        for o in events1:
            setattr(Trace, f'on_{o}', lambda cb, o=o, **kwargs: note(cb, o, kwargs))
        quietly(lambda: learn.fit(2, .1, callbacks=[Trace()]))
        return res

    def order(self):
        "Who is called when: two metrics and three callbacks with order numbers"
        calls, lib = [], self.lib.basics

        def make(name, order):
            cls = type(name, (lib.Callback,), {'_order': order})
            for o in events1:
                def handler(cb, o=o, **kwargs): calls.append(f'{name} {o}')
                setattr(cls, f'on_{o}', handler)
            return cls()
        learn = self.learner({'opt': 'sgd'})
        learn.metrics = [make('metric1', 9), make('metric2', -9)]
        quietly(lambda: learn.fit(1, .1, callbacks=[make('late', 5), make('first', 0),
                                                    make('second', 0)]))
        short = []
        for o in calls:  # tell repeated batches once
            who, event = o.split()
            if not short or short[-1][0] != event: short.append([event, []])
            short[-1][1].append(who)
        return short

    def build(self):
        "All runs"
        def fit(lr): return ['fit', {'epochs': 3, 'lr': lr}]
        m, a = {'opt': 'momentum'}, {'opt': 'adam', 'wd': .01}
        runs = {
            'fit_sgd': self.run({'opt': 'sgd'}, [fit(.1)]),
            'fit_momentum': self.run(m, [fit(.1)]),
            'fit_adam': self.run(a, [fit(.01)]),
            'fit_rmsprop': self.run({'opt': 'rmsprop'}, [fit(.01)]),
            'fit_twice': self.run(m, [fit(.1), fit(.05)]),
            'one_cycle_momentum': self.run(m, [['fit_one_cycle', {'cyc_len': 3, 'max_lr': .2}]]),
            'one_cycle_adam': self.run(a, [['fit_one_cycle', {'cyc_len': 3, 'max_lr': .05}]]),
            'one_cycle_sgd': self.run({'opt': 'sgd'},
                                      [['fit_one_cycle', {'cyc_len': 2, 'max_lr': .2}]]),
            'one_cycle_given': self.run(m, [['fit_one_cycle', {
                'cyc_len': 2, 'max_lr': .2, 'moms': [.9, .8], 'div_factor': 10., 'pct_start': .45,
                'final_div': 100.}]]),
            'one_cycle_groups': self.run({**m, 'groups': 2}, [['fit_one_cycle', {
                'cyc_len': 2, 'max_lr': [.02, .2]}]]),
            'one_cycle_then_fit': self.run(m, [['fit_one_cycle', {'cyc_len': 2, 'max_lr': .2}],
                                               fit(.05)]),
            'flat_cos': self.run(a, [['fit_fc', {'tot_epochs': 3, 'lr': .05}]]),
            'groups_two_ends': self.run({**m, 'groups': 2}, [fit([.01, .1])]),
            'groups_one_end': self.run({**m, 'groups': 2}, [fit([.1])])}
        for opt, lr in (('momentum', .05), ('adam', .01)):
            for true_wd in (True, False):
                for bn_wd in (True, False):
                    args = {'opt': opt, 'model': 'bn', 'wd': .1, 'true_wd': true_wd, 'bn_wd': bn_wd}
                    name = f"{opt}_{'true' if true_wd else 'l2'}_{'bn' if bn_wd else 'no_bn'}"
                    runs[f'decay_{name}'] = self.run(args, [fit(lr)])
        return {'versions': versions('fastai', 'torch', 'numpy'), 'runs': runs,
                'lr_find': {'to_the_end': self.finder(m, {'end_lr': 1., 'num_it': 20}),
                            'diverging': self.finder(m, {'end_lr': 1000., 'num_it': 40}),
                            'not_stopped': self.finder(m, {'end_lr': 100., 'num_it': 20,
                                                           'stop_div': False})},
                'accumulation': {f'every_{n}': self.accumulation(n) for n in (2, 3)},
                'letters': letters1, 'answers': {k: self.answering(v) for k, v in answers.items()},
                'order': self.order(), 'trace': self.trace()}


it2, last = {'train': True, 'iteration': 2}, {'epoch': 0}
answers = {  # `["times", 2.0]` stands for twice the value in the state
    'skip_bwd': {'event': 'backward_begin', 'when': it2, 'answer': {'skip_bwd': True}},
    'skip_bwd_early': {'event': 'batch_begin', 'when': it2, 'answer': {'skip_bwd': True}},
    'skip_step': {'event': 'backward_end', 'when': it2, 'answer': {'skip_step': True}},
    'skip_step_early': {'event': 'backward_begin', 'when': it2, 'answer': {'skip_step': True}},
    'skip_zero': {'event': 'step_end', 'when': it2, 'answer': {'skip_zero': True}},
    'skip_step_and_zero': {'event': 'backward_end', 'when': it2,
                           'answer': {'skip_step': True, 'skip_zero': True}},
    'stop_epoch': {'event': 'batch_end', 'when': it2, 'answer': {'stop_epoch': True}},
    'stop_epoch_early': {'event': 'loss_begin', 'when': it2, 'answer': {'stop_epoch': True}},
    'stop_epoch_in_validation': {'event': 'batch_end', 'when': {'train': False, 'epoch': 0},
                                 'answer': {'stop_epoch': True}},
    'stop_training_in_batch': {'event': 'batch_end', 'when': it2,
                               'answer': {'stop_training': True}},
    'stop_training_in_epoch_begin': {'event': 'epoch_begin', 'when': last,
                                     'answer': {'stop_training': True}},
    'stop_training_in_epoch_end': {'event': 'epoch_end', 'when': last,
                                   'answer': {'stop_training': True}},
    'stop_both': {'event': 'batch_end', 'when': it2,
                  'answer': {'stop_epoch': True, 'stop_training': True}},
    'stop_all': {'event': 'batch_end', 'when': it2,
                 'answer': {'stop_epoch': True, 'stop_training': True, 'skip_validate': True}},
    'skip_validate': {'event': 'train_begin', 'answer': {'skip_validate': True}},
    'skip_validate_from_second': {'event': 'epoch_end', 'when': last,
                                  'answer': {'skip_validate': True}},
    'change_input': {'event': 'batch_begin', 'answer': {'last_input': ['times', 2.]}},
    'change_target': {'event': 'batch_begin', 'answer': {'last_target': ['times', 0]}},
    'change_output': {'event': 'loss_begin', 'answer': {'last_output': ['times', .5]}},
    'change_loss': {'event': 'backward_begin', 'answer': {'last_loss': ['times', .25]}},
    'change_metrics': {'event': 'epoch_end', 'answer': {'last_metrics': ['times', 2]}},
    'start_at_epoch_1': {'event': 'train_begin', 'epochs': 3, 'answer': {'epoch': 1}},
    'unknown_key': {'event': 'batch_end', 'answer': {'stop_the_epoch': True}},
    'key_not_there_yet': {'event': 'train_begin', 'answer': {'stop_training': True}},
    'key_not_there_in_first_epoch': {'event': 'epoch_begin', 'answer': {'stop_epoch': True}},
    'bare_true': {'event': 'batch_end', 'answer': True},
    'raise_in_batch_end': {'event': 'batch_end', 'when': it2, 'answer': None,
                           'raise': 'ValueError'},
    'interrupt_in_batch_end': {'event': 'batch_end', 'when': it2, 'answer': None,
                               'raise': 'KeyboardInterrupt'},
    'raise_in_validation': {'event': 'batch_end', 'when': {'train': False}, 'answer': None,
                            'raise': 'ValueError'},
    'raise_in_train_begin': {'event': 'train_begin', 'answer': None, 'raise': 'ValueError'},
    'raise_in_train_end': {'event': 'train_end', 'answer': None, 'raise': 'ValueError'},
}


# ---- fastai 2 ------------------------------------------------------------------------------------
class Fastai2:
    "Makes learners of fastai 2 and records what they do"

    def __init__(self):
        warnings.simplefilter('ignore')
        import fastai.basics
        import fastai.callback.all
        import fastai.callback.training
        self.lib, self.training = fastai.basics, fastai.callback.training
        self.path = Path(tempfile.mkdtemp())
        self.events = [o for o in dir(fastai.callback.core.event)
                       if o.startswith(('before_', 'after_'))]
        order = ['after_create', 'before_fit', 'before_epoch', 'before_train', 'before_batch',
                 'after_pred', 'after_loss', 'before_backward', 'after_backward', 'before_step',
                 'after_step', 'after_batch', 'after_train', 'before_validate', 'after_validate',
                 'after_epoch', 'after_fit']
        self.events.sort(key=lambda o: order.index(o) if o in order else len(order))
        self.letters = dict(zip(self.events, string.ascii_letters))

    def opt_func(self, name):
        "The optimizer that a run names"
        lib = self.lib
        return {'sgd': lib.SGD, 'momentum': functools.partial(lib.SGD, mom=.9), 'adam': lib.Adam,
                'l2_momentum': functools.partial(lib.SGD, mom=.9, decouple_wd=False)}[name]

    def learner(self, args, loaders=None):
        "A learner made as `args` say"
        from torch import nn
        dls = self.lib.DataLoaders(*(loaders or make_loaders()), device='cpu')
        two = {'splitter': lambda m: [self.lib.params(nn.Sequential(*o)) for o in split_in_two(m)]}
        with quietly_no_bar(self.lib):
            return self.lib.Learner(
                dls, make_model(args.get('model', 'plain')), nn.CrossEntropyLoss(),
                opt_func=self.opt_func(args['opt']), metrics=[accuracy], path=self.path,
                wd=args.get('wd'), wd_bn_bias=args.get('wd_bn_bias', False),
                **(two if args.get('groups') == 2 else {}))

    def probe(self):
        "A callback that keeps the numbers of a run"
        class Probe(self.lib.Callback):
            order, run_valid = 100, False  # after the one that sets hyper-parameters

            def before_fit(self):
                for o in 'batch_losses smooth hypers pcts'.split(): setattr(self, o, [])

            def before_batch(self):
                self.hypers.append([{k: float(v) for k, v in o.items()} for o in self.opt.hypers])
                self.pcts.append(self.pct_train)

            def after_batch(self):
                self.batch_losses.append(self.loss.item())
                self.smooth.append(self.smooth_loss.item())
        return Probe()

    def run(self, args, calls, extra=()):
        "What a learner set up as `args` gives for `calls`, one after the other"
        learn = self.learner(args)
        res = {'args': args, 'calls': calls, 'fits': []}
        for name, kwargs in calls:
            probe, kwargs = self.probe(), dict(kwargs)
            for key in ('lr', 'lr_max'):
                if isinstance(kwargs.get(key), list): kwargs[key] = slice(*kwargs[key])
            cbs = [probe, *(make() for make in extra)]
            quietly(lambda: getattr(learn, name)(cbs=cbs, **kwargs))  # noqa: B023
            hypers = {k: [[o[k] for o in batch] for batch in probe.hypers]
                      for k in probe.hypers[0][0]}
            same = {k: v[0] for k, v in hypers.items() if all(o == v[0] for o in v)}
            values = [list(o) for o in learn.recorder.values]
            res['fits'].append({
                'losses': probe.batch_losses, 'smooth': probe.smooth, 'pct_train': probe.pcts,
                'constant': same, **{f'{k}s': v for k, v in hypers.items() if k not in same},
                'names': list(learn.recorder.metric_names), 'values': values,
                'weights': weights_of(learn.model)})
        return res

    def canceller(self, event, cancel, when):
        "A callback that raises `cancel` at `event`, once"
        class Canceller(self.lib.Callback):
            order, done = 99, False  # when the library's own callbacks have been asked

        def handler(cb):
            if when == 'validate' and getattr(cb, 'training', True): return
            if not cb.done:
                cb.done = True
                raise cancel()
        setattr(Canceller, event, handler)
        return Canceller()

    def announcer(self):
        "A callback that writes down one letter for every event, before any other is asked"
        class Announcer(self.lib.Callback):
            order, heard = -100, ''

        for event, letter in self.letters.items():
            def handler(cb, letter=letter): cb.heard += letter
            setattr(Announcer, event, handler)
        return Announcer()

    def cancelled(self, event, cancel, when='train'):
        "The events of two epochs, two batches to train and one to validate, with one cancel"
        train, valid = make_loaders()
        few = [list(train)[:2], list(valid)[:1]]
        learn, announcer = self.learner({'opt': 'sgd'}, few), self.announcer()
        learn.create_opt()
        counts = collections.Counter()

        def counted(name, method):
            counts[name] += 1
            return method()
        for name in ('step', 'zero_grad'):
            method = getattr(learn.opt, name)
            setattr(learn.opt, name, functools.partial(counted, name, method))
        error, cbs = None, [announcer]
        if event is not None: cbs.append(self.canceller(event, cancel, when))
        try: quietly(lambda: learn.fit(2, .1, cbs=cbs))
        except Exception as e: error = type(e).__name__
        return [announcer.heard, counts['step'], counts['zero_grad'], error]

    def cancels(self):
        "Every cancel exception, raised at every event"
        names = [f'Cancel{o}Exception' for o in
                 ('Fit', 'Epoch', 'Train', 'Valid', 'Batch', 'Backward', 'Step')]
        res = {'none': self.cancelled(None, None)}
        for when in ('train', 'validate'):
            for event in self.events:
                inner = event.endswith(('_batch', '_pred', '_loss'))
                if 'cancel' in event or 'create' in event or when == 'validate' and not inner:
                    continue
                for name in names:
                    cancel = getattr(self.lib, name)
                    res[f'{name} in {event} of {when}'] = self.cancelled(event, cancel, when)
        return res

    def build(self):
        "All runs"
        m, a = {'opt': 'momentum'}, {'opt': 'adam'}
        fit, slow = ([['fit', {'n_epoch': 3, 'lr': o}]] for o in (.1, .05))
        accumulate = functools.partial(self.training.GradientAccumulation, 16)
        clip = functools.partial(self.training.GradientClip, .1)
        short = functools.partial(self.training.ShortEpochCallback, .5)
        runs = {
            'fit_sgd': self.run({'opt': 'sgd'}, fit), 'fit_momentum': self.run(m, fit),
            'fit_adam': self.run(a, [['fit', {'n_epoch': 3, 'lr': .01}]]),
            'fit_twice': self.run(m, [['fit', {'n_epoch': 2, 'lr': .1}],
                                      ['fit', {'n_epoch': 2, 'lr': .05}]]),
            'decay_true': self.run({**m, 'model': 'bn', 'wd': .1}, slow),
            'decay_true_bn_bias': self.run({**m, 'model': 'bn', 'wd': .1, 'wd_bn_bias': True},
                                           slow),
            'decay_l2': self.run({'opt': 'l2_momentum', 'model': 'bn', 'wd': .1}, slow),
            'groups_two_ends': self.run({**m, 'groups': 2},
                                        [['fit', {'n_epoch': 3, 'lr': [.01, .1]}]]),
            'groups_one_end': self.run({**m, 'groups': 2}, [['fit', {'n_epoch': 3, 'lr': [.1]}]]),
            'one_cycle_momentum': self.run(m, [['fit_one_cycle', {'n_epoch': 3, 'lr_max': .2}]]),
            'one_cycle_adam': self.run(a, [['fit_one_cycle', {'n_epoch': 3, 'lr_max': .05}]]),
            'one_cycle_given': self.run(m, [['fit_one_cycle', {
                'n_epoch': 2, 'lr_max': .2, 'div': 10., 'div_final': 100., 'pct_start': .45,
                'moms': [.9, .8, .95]}]]),
            'one_cycle_groups': self.run({**m, 'groups': 2}, [['fit_one_cycle', {
                'n_epoch': 2, 'lr_max': [.02, .2]}]]),
            'flat_cos': self.run(a, [['fit_flat_cos', {'n_epoch': 3, 'lr': .05}]]),
            'flat_cos_given': self.run(m, [['fit_flat_cos', {
                'n_epoch': 2, 'lr': .1, 'pct_start': .4, 'div_final': 100.}]]),
            'accumulate_16': self.run(m, fit, [accumulate]),
            'clip': self.run(m, fit, [clip]), 'short_epoch': self.run(m, fit, [short])}
        cancels = self.cancels()
        return {'versions': versions('fastai', 'fastcore', 'torch', 'numpy'), 'runs': runs,
                'letters': self.letters,
                'cancels_columns': ['events', 'steps', 'zero_grads', 'error'], 'cancels': cancels}


@contextlib.contextmanager
def quietly_no_bar(lib):
    "Learners made inside have no progress bar"
    from fastai.callback.progress import ProgressCallback
    kept = lib.defaults.callbacks
    lib.defaults.callbacks = [o for o in kept if o is not ProgressCallback]
    try: yield
    finally: lib.defaults.callbacks = kept


# ---- the command ---------------------------------------------------------------------------------
def versions(*names):
    "Versions of the packages, the first of which gave the numbers"
    return {o: importlib.metadata.version(o).split('+')[0] for o in names}


def differences(a, b, place='', tolerance=1e-6):
    "Where two stored files differ"
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted({*a, *b}):
            yield from differences(a.get(k), b.get(k), f'{place}/{k}', tolerance)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)): yield from differences(x, y, f'{place}/{i}')
    elif isinstance(a, float) and isinstance(b, (int, float)):
        if abs(a-b) > tolerance*max(1, abs(a)): yield f'{place}: {a} and {b}'
    elif a != b: yield f'{place}: {a} and {b}'


def main(argv=None):
    "Parse the command line and do what it says"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('problem', 'fastai1', 'fastai2'))
    parser.add_argument('--check', action='store_true', help='only compare with the stored file')
    args = parser.parse_args(argv)
    if args.what == 'problem': data = tidy({k: np.round(v, 3) if k != 'batch_size' else v
                                            for k, v in make_problem().items()})
    else: data = tidy({'fastai1': Fastai1, 'fastai2': Fastai2}[args.what]().build())
    target = folder/f'{args.what}.json'
    text = lines(data, 1 if args.what == 'problem' else 5) + '\n'
    if args.check:
        found = list(differences(json.loads(target.read_text()), json.loads(text)))
        print(*found or [f'{target.name}: the same'], sep='\n')
        return len(found) > 0
    folder.mkdir(exist_ok=True)
    target.write_text(text)
    print(f'{target.name}: {len(text)} bytes')


if __name__ == '__main__':
    sys.exit(main())
