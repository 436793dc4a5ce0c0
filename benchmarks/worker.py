"""One contender in a process of its own: `python -m benchmarks.worker NAME IN OUT`.

IN and OUT are numbers of open pipes: each line that comes in is a request, each line that goes out
is the answer, both JSON. The standard output is left to the contender, whose bar wants a terminal.
"""
import argparse
import json
import os
import statistics
import sys
import time

import torch

from benchmarks import by_hand


def contender(name):
    "The function that trains, and the data that it trains on"
    tiny = name.endswith('tiny')
    make = by_hand.line_data if tiny else by_hand.image_data
    if not name.startswith('fastloop'): return getattr(by_hand, name), make
    if name.startswith('fastloop_tower'):
        from benchmarks import compiled
        return getattr(compiled, name), make
    if name == 'fastloop_board':
        from benchmarks import board
        return board.fastloop_board, make
    from benchmarks import by_fastloop
    return getattr(by_fastloop, name), make


def timed(work, *args):
    "Seconds on the clock and of this process' own computing, and what `work` answers"
    wall, cpu = time.perf_counter(), time.process_time()
    result = work(*args)
    return {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu,
            'loss': result[0], 'accuracy': result[1]}


def peak_memory():
    "The most memory this process has ever held, in MB"
    try:
        with open('/proc/self/status') as f:
            return next(int(o.split()[1]) for o in f if o.startswith('VmHWM'))/1024
    except OSError:  # no Linux
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(1024**2 if sys.platform
                                                                   == 'darwin' else 1024)


def count_calls(work, *args):
    "How many Python and C functions `work` calls in this thread"
    count = 0

    def note(frame, event, arg):
        nonlocal count
        if event in ('call', 'c_call'): count += 1
    sys.setprofile(note)
    try: work(*args)
    finally: sys.setprofile(None)
    return count


def calls_per_step(name, steps=400):
    """Calls per step of a contender: what `steps` more of them add, divided by `steps`

    The least of five, since a bar that happens to be redrawn adds some.
    """
    work, make = contender(name)
    short, long = make(steps), make(2*steps)
    work(short, 1)  # imports and first-time work
    differences = [count_calls(work, long, 1) - count_calls(work, short, 1) for _ in range(5)]
    return min(differences)/steps


def extra_callbacks(steps, rounds):
    """Microseconds per step that one more callback costs: without, and with, a per-batch handler

    Model, loss and optimizer do nothing here, and one runner's fits take turns with nothing, one
    callback or the other: a tenth of a microsecond would be lost in what real steps vary by.
    """
    from benchmarks.by_fastloop import NoBatchEvents, OneBatchEvent, free_learner
    from fastloop.runner import Runner
    learn, kinds = free_learner(steps), ([], [NoBatchEvents], [OneBatchEvent])
    took = [[] for _ in kinds]
    for round_ in range(rounds + 1):
        for i in [(round_ + o) % 3 for o in range(3)]:  # each is first, second and last in turn
            run = Runner(cbs=[o() for o in kinds[i]])
            start = time.process_time()
            run.fit(1, learn)
            if round_: took[i].append((time.process_time() - start)*1e6/steps)
    return [statistics.median(b-a for a, b in zip(took[0], o)) for o in took[1:]]


def adapter_costs(steps, rounds):
    """Microseconds per step of `Linear(1, 1)` that callbacks written for other libraries cost

    In turn: native callbacks before any adapter is imported (what all others are compared with),
    the same with all adapters imported, and one callback of each other library.
    """
    from importlib import import_module

    from benchmarks.by_fastloop import OneMiniaiEvent, OneV1Event, OneV2Event, line_learner
    from fastloop.callback.core import adapters

    def fit(cbs=()):
        x = torch.randn(steps, 1)
        learn = line_learner((x, 3*x), list(cbs))
        start = time.process_time()
        learn.fit(1)
        return (time.process_time()-start)*1e6/steps
    alone = [fit() for _ in range(rounds + 1)][1:]
    for name in adapters: import_module(name)
    kinds = dict(native=[], v1=[OneV1Event], v2=[OneV2Event], miniai=[OneMiniaiEvent])
    names, took = list(kinds), {}
    for round_ in range(rounds + 1):
        for name in names[round_ % len(names):] + names[:round_ % len(names)]:
            found = fit(o() for o in kinds[name])
            if round_: took.setdefault(name, []).append(found)
    return {'known': statistics.median(took['native']) - statistics.median(alone),
            **{name: statistics.median(b-a for a, b in zip(took['native'], took[name]))
               for name in names[1:]}}


def answer(name, request, state):
    "What one request asks for"
    kind = request.pop('kind')
    if kind == 'calls': return calls_per_step(name, **request)
    if kind == 'callbacks': return extra_callbacks(**request)
    if kind == 'adapters': return adapter_costs(**request)
    if kind == 'features':
        from benchmarks.features import feature_costs
        return feature_costs(**request)
    work, make = contender(name)
    if request['n'] not in state: state[request['n']] = make(request['n'])
    found = timed(work, state[request['n']], request['epochs'])
    return {**found, 'peak': peak_memory()}


def main():
    "Answer until the requests end"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name')
    parser.add_argument('requests', type=int)
    parser.add_argument('answers', type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    state = {}
    with os.fdopen(args.requests) as requests, os.fdopen(args.answers, 'w') as answers:
        for line in requests:
            print(json.dumps(answer(args.name, json.loads(line), state)), file=answers, flush=True)


if __name__ == '__main__':
    main()
