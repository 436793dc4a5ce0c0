"""Break a fit at every event, and see whether the learner is left as it was.

`check_faults(make, cb)` fits once for each event, each exception and each side of the callback
under test: somebody before it in the order raises, or somebody after it.
"""
import contextlib
import sys
import threading
from itertools import product
from pathlib import Path

import torch

import fastloop
from fastloop.callback.core import Callback, events, order_of

exceptions = (RuntimeError, KeyboardInterrupt)
PACKAGE = str(Path(fastloop.__file__).parent), contextlib.__file__  # and its `with` blocks


class Interrupt:
    """Raises `KeyboardInterrupt` at the `k`-th moment, counted from 1, of the work it is `during`

    Moments are lines, calls and returns of anything that runs. With `package`, folders and files,
    they are the calls and returns of its functions and of what these call, but not where a
    generator gives something: the places where Python lets Ctrl-C come, but for the beginnings of
    loops.
    """
    def __init__(self, k, package=None):
        self.k, self.package, self.n, self.hit = k, package, 0, False

    def __call__(self, frame, event, arg):
        inside = not self.package or frame.f_code.co_filename.startswith(self.package)
        yields = self.package and event == 'return' and frame.f_code.co_flags & 0x20
        if not inside or yields or event == 'c_exception': return self
        self.n += 1
        if self.n == self.k:
            self.hit = not frame.f_code.co_flags & 0x20  # a generator that ends swallows it
            raise KeyboardInterrupt
        return self

    def swallowed(self, unraisable):
        "Python drops what is raised while an object is thrown away"
        self.hit = False

    def during(self, work):
        get, put = ((sys.getprofile, sys.setprofile) if self.package else
                    (sys.gettrace, sys.settrace))
        before, sys.unraisablehook, told = get(), self.swallowed, sys.unraisablehook
        put(self)
        try: work()
        finally:
            put(before)
            sys.unraisablehook = told


class Breaks(Callback):
    "Raises `error` when `event` comes for the `nth` time, once"
    def __init__(self, event, error, order, nth=1):
        self.event, self.error, self.order, self.left = event, error, order, nth
        setattr(self, event, self.raise_it)

    def raise_it(self):
        self.left -= 1
        if self.left == 0: raise self.error(f'broken in {self.event}')


def traits(learn):
    "What a callback may change for a run and has to put back"
    modules = dict(learn.model.named_modules())
    hooks = {k: {o: len(v) for o, v in vars(m).items() if o.endswith('_hooks')}
             for k, m in modules.items()}
    return dict(
        model=learn.model, loss_func=learn.loss_func, data=learn.data, hooks=hooks,
        loss_attributes={k: v for k, v in getattr(learn.loss_func, '__dict__', {}).items()
                         if isinstance(v, (str, int, float, bool, type(None)))},
        loaders=(learn.data.train_dl, learn.data.valid_dl),
        metrics=list(learn.metrics), cbs=list(learn.cbs),
        modes={k: m.training for k, m in modules.items()},
        dtypes={k: v.dtype for k, v in learn.model.state_dict().items()},
        trained={k: p.requires_grad for k, p in learn.model.named_parameters()},
        classes={k: type(m) for k, m in modules.items()},
        patched={k: [o for o in ('forward', 'step', 'state_dict') if o in vars(m)]
                 for k, m in modules.items()},
        step='step' in vars(learn.opt or object()) if hasattr(learn.opt, '__dict__') else False,
        autocast=(torch.is_autocast_enabled('cpu'), torch.is_autocast_enabled('cuda')),
        grad=torch.is_grad_enabled(), threads=[o for o in threading.enumerate() if not o.daemon])


def check_same(before, after, where):
    "Compare two answers of `traits`"
    for k, v in before.items():
        same = v is after[k] if k in ('model', 'loss_func', 'data') else v == after[k]
        assert same, f'{where}: {k} was {v!r} and is {after[k]!r}'


def moments(nth):
    """Errors, sides and times

    Of two errors, two sides and two times four combinations: each error occurs on each side and at
    each time, and each side at each time.
    """
    where = product(range(2), range(2), range(len(nth)))
    return [(exceptions[i], (-1000, 1000)[j], nth[k]) for i, j, k in where
            if len(nth) == 1 or (i+j+k) % 2 == 0]


def check_faults(make, make_cb, names=None, nth=(1, 2), epochs=2, check=None, fit=None):
    """Break fits of `make()` with `make_cb(learn)` attached at `names`, and use the learner again

    `names` are events, by default all of them; `nth` says at which time an event breaks the fit;
    `check(learn, cb)` looks at what else must hold; `fit(learn, cbs)` trains in another way.
    """
    def default_fit(learn, cbs): learn.fit(epochs, 1e-2, cbs=cbs)
    fit, broken = fit or default_fit, 0
    for event in names or [o for o in events if not o.startswith('after_cancel')]:
        for error, side, n in moments(nth):
            learn = make()
            cb = make_cb(learn)
            breaks = Breaks(event, error, order_of(cb)+side, n)
            before, where = traits(learn), f'{error.__name__} in {event} at {side}'
            try: fit(learn, [cb, breaks])
            except error as e: assert 'broken in' in str(e), where
            broken += breaks.left <= 0
            check_same(before, traits(learn), where)
            if check is not None: check(learn, cb)
            learn.fit(1, 1e-3)
            check_same(before, traits(learn), f'{where}, then a fit')
            assert all(p.isfinite().all() for p in learn.model.parameters()), where
    assert broken, 'no fit was broken'
