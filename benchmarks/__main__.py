"""Measure fastloop against loops written by hand and write the table into benchmarks/README.md.

The contenders run in processes of their own, one thread each, and take turns: each round times all
of them, so that a machine that grows slower grows slower for all. The ratios are the medians of
the rounds' ratios.
"""
import argparse
import fcntl
import json
import os
import platform
import pty
import re
import statistics
import struct
import subprocess
import sys
import termios
import threading
from importlib.metadata import version
from pathlib import Path

here = Path(__file__).resolve().parent
root = here.parent
median = statistics.median


class Worker:
    "A contender's process, with a terminal of its own for its bar to be drawn on"

    def __init__(self, name):
        self.name, self.drawn = name, 0
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('4H', 24, 100, 0, 0))  # rows, columns
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'TERM': 'xterm', 'COLUMNS': '100'}
        env.pop('FASTLOOP_PROGRESS', None)
        command = [sys.executable, '-m', 'benchmarks.worker', name, theirs_in, theirs_out]
        self.process = subprocess.Popen(list(map(str, command)), cwd=root, env=env, stdin=slave,
                                        stdout=slave, stderr=slave,
                                        pass_fds=(theirs_in, theirs_out))
        for o in (slave, theirs_in, theirs_out): os.close(o)
        self.requests, self.answers = os.fdopen(ours_out, 'w'), os.fdopen(ours_in)
        self.text = b''
        self.thread = threading.Thread(target=self._drain, daemon=True)
        self.thread.start()

    def _drain(self):
        "Read what the contender draws, as a terminal does, and remember the end of it"
        while True:
            try: part = os.read(self.master, 65536)
            except OSError: return
            if not part: return
            self.drawn += part.count(b'\r') - part.count(b'\r\n')
            self.text = (self.text + part)[-4000:]

    def ask(self, **request):
        "Send a request and wait for the answer"
        print(json.dumps(request), file=self.requests, flush=True)
        line = self.answers.readline()
        if line: return json.loads(line)
        self.process.wait()
        self.thread.join(1)
        raise SystemExit(f'{self.name} failed:\n{self.text.decode(errors="replace")}')

    def __enter__(self): return self

    def __exit__(self, *_):
        self.requests.close()
        self.process.wait()
        self.answers.close()
        self.thread.join(1)
        os.close(self.master)


def measure(names, rounds, **request):
    "The answers of each contender, round by round; the first round warms up and is not counted"
    workers = {name: Worker(name) for name in names}
    found = {name: [] for name in names}
    try:
        for round_ in range(rounds + 1):
            for name in list(names)[::-1 if round_ % 2 else 1]:  # nobody always goes first
                result = workers[name].ask(kind='time', **request)
                if round_: found[name].append(result)
        for name, worker in workers.items():
            if name in ('fastloop', 'fastloop_tiny') and not worker.drawn:
                raise SystemExit(f'{name}: the bar was not drawn, so this is no fair comparison')
    finally:
        for worker in workers.values(): worker.__exit__()
    return found


def ratio(found, a, b, key):
    "The median of the rounds' ratios"
    return median(x[key]/y[key] for x, y in zip(found[a], found[b]))


def per_step(found, name, steps, key='wall'):
    "Microseconds a step"
    return median(o[key] for o in found[name])*1e6/steps


def row(work, against, measured, budget, kept):
    "A row of the table, with the sign that is printed for minus"
    return (work, against, re.sub(r'-(?=\d)', '−', measured), budget, kept)


def training_rows(args):
    "Time of the training, per step and as a ratio"
    n, epochs = (10_000, 1) if args.quick else (50_000, 2)
    names = ['fastloop', 'slices', 'rows', 'loader', 'floor']
    found = measure(names, args.rounds, n=n, epochs=epochs)
    scores = {k: median(o['accuracy'] for o in v) for k, v in found.items() if k != 'floor'}
    if max(scores.values()) - min(scores.values()) > 0.02:
        raise SystemExit(f'the contenders do not do the same work, accuracies: {scores}')
    steps = epochs*-(-n//64)
    ours = per_step(found, 'fastloop', steps)
    for name, what, budget in [('slices', 'by hand, slices of shuffled tensors', 0.72),
                               ('rows', 'by hand, rows gathered for each batch', None),
                               ('loader', "by hand, torch's `DataLoader`", 0.53),
                               ('floor', 'the floor of eager torch, without any feature', None)]:
        wall, cpu = (ratio(found, 'fastloop', name, key) for key in ('wall', 'cpu'))
        theirs = per_step(found, name, steps)
        yield row('training, µs a step with its share of validation', what,
                  f'{ours:.0f} / {theirs:.0f} = {wall:.2f} × (of computing time: {cpu:.2f} ×)',
                  f'{budget:.2f} ×' if budget else '', wall <= budget if budget else None)


def validation_rows(args):
    "Time of a validation alone, and of predictions"
    n, passes = (10_000, 10) if args.quick else (50_000, 20)
    found = measure(['fastloop_validated', 'validated', 'fastloop_predicted', 'predicted'],
                    2*args.rounds, n=n, epochs=passes)
    batches = passes*-(-n//5//128)
    for name, what in [('validated', '`validate`, µs a batch'),
                       ('predicted', '`get_preds`, µs a batch')]:
        ours, theirs = (per_step(found, o, batches) for o in (f'fastloop_{name}', name))
        wall, cpu = (ratio(found, f'fastloop_{name}', name, key) for key in ('wall', 'cpu'))
        yield row(what, 'by hand, under `no_grad`',
                  f'{ours:.0f} / {theirs:.0f} = {wall:.2f} × (of computing time: {cpu:.2f} ×)',
                  '1.05 ×', wall <= 1.05)


def feature_rows(args):
    "What each feature adds to a step: a table of its own"
    with Worker('fastloop') as worker:
        found = worker.ask(kind='features', n=12_800 if args.quick else 51_200, rounds=args.rounds)
    for name, took, added in found:
        yield row(name, '', f'{took:.0f}', '' if added is None else f'{added:+.1f}', None)


def tiny_rows(args):
    "What a step costs when the model costs nothing"
    n = 2_000
    found = measure(['fastloop_tiny', 'tiny'], 2*args.rounds, n=n, epochs=1)
    ours, theirs = (per_step(found, o, n) for o in ('fastloop_tiny', 'tiny'))
    extra = {key: median((x[key]-y[key])*1e6/n for x, y in zip(found['fastloop_tiny'],
                                                              found['tiny']))
             for key in ('wall', 'cpu')}
    yield row('`Linear(1, 1)`, batch of one, µs a step', 'by hand, slices',
              f"{ours:.1f} − {theirs:.1f} = {extra['wall']:+.1f} (of computing time: "
              f"{extra['cpu']:+.1f})", '− 15', extra['wall'] <= -15)
    with Worker('fastloop_tiny') as worker:
        none, one = worker.ask(kind='callbacks', steps=5000, rounds=6*args.rounds)
    # what happens once a fit is spread over its steps: 0 is measured as some thousandths
    yield row('one more callback, no per-batch handler, µs a step', 'the run without it',
              f'{none:+.3f}', '+ 0', none < 0.05)
    yield row('one more callback, one empty per-batch handler, µs a step', 'the run without it',
              f'{one:+.3f}', '+ 0.3', one <= 0.3)


def calls():
    "Calls per step of `Linear(1, 1)`: fastloop's and the hand-written loop's"
    found = []
    for name in ('fastloop_tiny', 'tiny'):
        with Worker(name) as worker: found.append(worker.ask(kind='calls'))
    return found


def call_rows(args):
    ours, theirs = calls()
    yield row('Python and C function calls a step of that loop', 'by hand, slices',
              f'{ours:.0f} − {theirs:.0f} = {ours-theirs:+.0f}', '− 30', ours - theirs <= -30)


def adapter_rows(args):
    "What callbacks written for other libraries add to a step"
    with Worker('fastloop_tiny') as worker:
        found = worker.ask(kind='adapters', steps=8000, rounds=args.rounds)
    against = 'native callbacks, no adapter imported'
    yield row('native callbacks with all adapters imported, µs a step', against,
              f"{found['known']:+.2f}", '+ 0', found['known'] < 0.5)
    for name, what in [('v1', 'fastai v1'), ('v2', 'fastai v2'), ('miniai', 'miniai')]:
        yield row(f'one callback of {what} with one per-batch handler, µs a step', against,
                  f'{found[name]:+.2f}', '', None)


TIME_IMPORT = '''
import time, torch
start = time.perf_counter()
import fastloop.all
print(time.perf_counter() - start)
'''


def import_rows(args):
    "Seconds to import everything once torch is there"
    command = [sys.executable, '-c', TIME_IMPORT]
    took = [float(subprocess.check_output(command, cwd=root, text=True).split()[-1])
            for _ in range(1 + args.rounds//2)]
    yield row('`import fastloop.all`, s', '`import torch` alone', f'{median(took):+.2f}', '+ 0.5',
              median(took) <= 0.5)


def memory_rows(args):
    "The most memory that a process held which imported what it needs and trained once"
    n, epochs = (10_000, 1) if args.quick else (50_000, 2)
    peaks = {o: [] for o in ('fastloop', 'slices', 'rows')}
    for _ in range(1 if args.quick else 3):
        for name, found in peaks.items():
            with Worker(name) as worker:
                found.append(worker.ask(kind='time', n=n, epochs=epochs)['peak'])
    ours = median(peaks['fastloop'])
    for name, what in [('slices', 'slices of shuffled tensors'),
                       ('rows', 'rows gathered for each batch')]:
        theirs = median(peaks[name])
        yield row('peak memory of the training, MB', f'by hand, {what}',
                  f'{ours:.0f} / {theirs:.0f} = {ours/theirs:.2f} ×', '1.05 ×',
                  ours/theirs <= 1.05)


def loader_rows(args):
    "The training given torch's `DataLoader`, beside the loop over the same loader"
    n, epochs = (10_000, 1) if args.quick else (50_000, 2)
    found = measure(['fastloop_loader', 'loader'], args.rounds, n=n, epochs=epochs)
    wall, cpu = (ratio(found, 'fastloop_loader', 'loader', key) for key in ('wall', 'cpu'))
    ours, theirs = (per_step(found, o, epochs*-(-n//64)) for o in ('fastloop_loader', 'loader'))
    yield row("training given torch's `DataLoader` over tensors, µs a step",
              'by hand, over the same loader',
              f'{ours:.0f} / {theirs:.0f} = {wall:.2f} × (of computing time: {cpu:.2f} ×)',
              '', None)


def compile_rows(args):
    "What `learn.compile()` makes of a training; the first round, which compiles, is not counted"
    from fastloop.compiled import find_cxx
    what = 'training of a tower under `learn.compile()`, µs a step', 'the same training without'
    if find_cxx() is None:
        yield row(*what, 'no C++ compiler here', '0.85 ×', None)
        return
    n, epochs = (10_000, 1) if args.quick else (50_000, 1)
    ours, theirs = 'fastloop_tower_compiled', 'fastloop_tower'
    found = measure([ours, theirs], args.rounds, n=n, epochs=epochs)
    scores = [median(o['accuracy'] for o in found[name]) for name in (ours, theirs)]
    if abs(scores[0] - scores[1]) > 0.02: raise SystemExit(f'not the same work: {scores}')
    wall, cpu = (ratio(found, ours, theirs, key) for key in ('wall', 'cpu'))
    steps = epochs*-(-n//256)
    yield row(*what, f'{per_step(found, ours, steps):.0f} / {per_step(found, theirs, steps):.0f} = '
              f'{wall:.2f} × (of computing time: {cpu:.2f} ×)', '0.85 ×', wall <= 0.85)


def added_rows(what, ours, args, size, steps, unit, budget):
    "What `ours` adds to the training that is measured everywhere; `steps` are those of an epoch"
    (n, epochs), theirs = size, 'fastloop'
    found = measure([ours, theirs], args.rounds, n=n, epochs=epochs)
    wall, cpu = (ratio(found, ours, theirs, key) for key in ('wall', 'cpu'))
    times = [per_step(found, o, epochs*steps) for o in (ours, theirs)]
    yield row(*what, f'{times[0]:{unit}} / {times[1]:{unit}} = {wall:.3f} × (of computing time: '
              f'{cpu:.3f} ×)', f'{budget} ×', wall <= budget)


def checkpoint_rows(args):
    "What a checkpoint after each epoch adds to the training"
    what = 'training with a checkpoint each epoch, ms an epoch', 'the same training without'
    size = (10_000, 2) if args.quick else (50_000, 8)
    return added_rows(what, 'fastloop_checkpoint', args, size, 1000, '.1f', 1.02)


def board_rows(args):
    "What the live board adds to the training with the bar"
    what = ('training with the live board, µs a step',
            'the same training with the bar alone')
    size = (10_000, 8) if args.quick else (50_000, 16)
    return added_rows(what, 'fastloop_board', args, size, -(-size[0]//64), '.0f', 1.05)


PARTS = {'training': training_rows, 'loader': loader_rows, 'validation': validation_rows,
         'tiny': tiny_rows, 'adapters': adapter_rows, 'calls': call_rows, 'import': import_rows,
         'memory': memory_rows, 'features': feature_rows, 'compile': compile_rows,
         'checkpoint': checkpoint_rows, 'board': board_rows}


HEAD = ('work', 'against', 'fastloop, by hand, difference or ratio', 'at most', 'kept')


def table(found, head=HEAD):
    "The rows as a Markdown table"
    words = {True: 'yes', False: '**no**', None: ''}
    lines = [head, ['---']*len(head), *[[*o[:-1], words[o[-1]]] for o in found]]
    return '\n'.join(f"| {' | '.join(o)} |" for o in lines)


def machine():
    "What it ran on"
    cpu = platform.processor() or platform.machine()
    try:
        found = re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(), flags=re.M)
        cpu = found[1] if found else cpu
    except OSError: pass
    return (f'{cpu}, {os.cpu_count()} cores, one thread used; {platform.system()}; Python '
            f'{platform.python_version()}, torch {version("torch")}')


def feature_table(found):
    "The rows of the features as a Markdown table"
    lines = [('what a step has', 'µs of computing time', 'more than the line before')]
    lines += [['---', '--:', '--:'], *[(o[0] if i < 4 else f'+ {o[0]}', o[2], o[3])
                                       for i, o in enumerate(found)]]
    return '\n'.join(f"| {' | '.join(o)} |" for o in lines)


def write(text, name='results'):
    "Put the results between their markers in README.md"
    path = here/'README.md'
    old = path.read_text(encoding='utf-8')
    new = re.sub(rf'(<!-- {name} -->\n).*?(<!-- end of {name} -->)',
                 lambda m: f'{m[1]}\n{text}\n\n{m[2]}', old, flags=re.S)
    if new == old and text not in old: raise SystemExit('README.md has no markers for the results')
    path.write_text(new, encoding='utf-8')


def main():
    "Parse the command line, measure, print, write"
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('parts', nargs='*', help=f"some of {', '.join(PARTS)}; all if none is "
                        'named; results are written only when all are measured')
    parser.add_argument('--quick', action='store_true', help='few rounds, a fifth of the data, '
                        'nothing written')
    parser.add_argument('--rounds', type=int, help='how often each contender runs')
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown: parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    args.rounds = args.rounds or (3 if args.quick else 11)
    found = {}
    for name in args.parts or PARTS:
        for o in PARTS[name](args):
            found.setdefault(name, []).append(o)
            print(f"{o[0]:60} {o[1]:44} {o[2]}   (budget {o[3] or 'none'})", flush=True)
    if args.quick or args.parts: return
    write(feature_table(found.pop('features')), 'features')
    write(f'{table([o for rows in found.values() for o in rows])}\n\nMeasured with `make bench` '
          f'({args.rounds} rounds) on {machine()}.')
    print('written into benchmarks/README.md')


if __name__ == '__main__':
    main()
