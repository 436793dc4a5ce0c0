"""Checkpoints and real processes: killed, interrupted, with a disk that is full.

The processes are forked from one that has imported everything, so that each costs some hundredths
of a second.
"""
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from processes import Forks
from test_checkpoint import Kill, features, fit, loader_data, make, outcome

from fastloop.callback.checkpoint import CheckpointFolder
from fastloop.callback.snapshot import same_state
from fastloop.loader_place import counters
from fastloop.state_files import numbered_files, read_state, write_state
from fastloop.torch_core import rng_state

rare = pytest.mark.rare  # run by `make test-all` alone


class KillReally(Kill):
    "Kills the process when `event` comes for the `nth` time"
    def strike(self):
        self.left -= 1
        if self.left == 0: os.kill(os.getpid(), signal.SIGKILL)


class Slow(Kill):
    "Says that a batch is done, and waits a little; after batch `last`, until it is interrupted"
    def __init__(self, pipe, last):
        super().__init__('after_step', 0)
        self.pipe, self.last, self.order = pipe, last, 200

    def strike(self):
        self.pipe.send_bytes(b'.')
        time.sleep(60 if self.run.n_iter + 1 == self.last else .002)


@pytest.fixture(scope='module')
def forks():
    found = Forks('torch', 'numpy', 'fastloop.all', 'test_checkpoint', 'test_checkpoint_processes')
    yield found
    found.close()


def train(path, seed, verb, kwargs, resume, kill, answer):
    "The body of a process: train, and leave what came of it in a file"
    torch.set_num_threads(1)
    learn = make(seed, Path(path), **{'every': 1, **kwargs})
    fit(learn, verb, resume=resume, cbs=kill)
    write_state(answer, outcome(learn))


def run(forks, tmp_path, seed, kwargs, resume=False, kill=None, verb='fit'):
    "Train in a process; its exit status, and what came of it"
    answer = tmp_path/'answer.pt'
    answer.unlink(missing_ok=True)
    process = forks.start(train, tmp_path/'run', seed, verb, kwargs, resume, kill, answer)
    process.join(120)
    return process.exitcode, read_state(answer) if answer.exists() else None


def check_same(one, two):
    for k, v in one.items(): assert same_state(v, two[k]), f'{k}: {v} and {two[k]}'


trainings = {'tensors': ('fit', dict(cbs=features['best'])),
             'one cycle': ('fit_one_cycle', dict(data=loader_data, cbs=features['accumulation'])),
             'workers': ('fit', dict(data=partial(loader_data, workers=1)))}


@rare
@pytest.mark.parametrize('name', trainings)
def test_killed_at_every_batch(name, forks, tmp_path):
    verb, kwargs = trainings[name]
    (tmp_path/'whole').mkdir()
    code, whole = run(forks, tmp_path/'whole', 0, kwargs, verb=verb)
    assert code == 0
    code, _ = run(forks, tmp_path, 0, kwargs, kill=KillReally('after_step', 2), verb=verb)
    assert code == -signal.SIGKILL
    for n in range(2, 19):  # each process comes one batch further than the one before
        code, _ = run(forks, tmp_path, n, kwargs, True, KillReally('after_step', 2), verb)
        assert code == (-signal.SIGKILL if n < 18 else 0), n
    code, last = run(forks, tmp_path, 99, kwargs, True, verb=verb)
    assert code == 0
    check_same(whole, last)


def save(path, pipe):
    "The body of a process: save, again and again, and say how many seconds each time took"
    files = CheckpointFolder(Path(path), keep=3)
    weights, i = torch.ones(20_000), 0
    nothing = dict.fromkeys(('opt', 'opt_kind', 'loss', 'start', 'cut', 'stage'))
    state = dict(model={'w': weights}, run=dict.fromkeys(counters, 0), random=rng_state(),
                 **{k: {} for k in ('buffers', 'grads', 'callbacks')}, **nothing,
                 **{k: [] for k in ('trained', 'latest', 'parts', 'data', 'loaders')})
    while True:
        start = time.perf_counter()
        files.write(state, f'step{i}')
        pipe.send(time.perf_counter() - start)
        weights += 1
        i += 1


def count_messages(pipe):
    "What a process that is gone has said"
    for i in count():
        try: pipe.recv_bytes()
        except EOFError: return i


def kill_while_saving(forks, tmp_path, tries):
    "Kill such a process somewhere in a save; after each time, the newest file must be whole"
    rng = random.Random(0)
    for i in range(tries):
        ours, theirs = forks.context.Pipe(duplex=False)
        process = forks.start(save, tmp_path, theirs)
        theirs.close()
        whole = rng.randint(1, 4)
        for _ in range(whole): seconds = ours.recv()
        time.sleep(rng.uniform(0, seconds))  # a part of the next save, however slow the disk is
        process.kill()
        process.join()
        said = whole + count_messages(ours)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            path, state = CheckpointFolder(tmp_path).newest()
        done = int(path.stem.partition('step')[2]) + 1
        assert said <= done <= said + 1 and (state['model']['w'] == done).all(), i
        assert len(list(tmp_path.glob('*.tmp'))) <= 1 and len(numbered_files(tmp_path)) <= 4


def test_killed_while_saving(forks, tmp_path): kill_while_saving(forks, tmp_path, 10)


@rare
def test_killed_while_saving_a_hundred_times(forks, tmp_path):
    kill_while_saving(forks, tmp_path, 100)


def interrupted(path, pipe, resume, answer, last):
    torch.set_num_threads(1)
    learn = make(0 if not resume else 7, Path(path), cbs=features['table'], every=1)
    try: fit(learn, resume=resume, cbs=Slow(pipe, last))
    except KeyboardInterrupt: os._exit(9)
    write_state(answer, outcome(learn))


def test_interrupted_at_random_moments(forks, tmp_path):
    rng, answer = random.Random(1), tmp_path/'answer.pt'
    (tmp_path/'whole').mkdir()
    _, whole = run(forks, tmp_path/'whole', 0, dict(cbs=features['table']))
    for i in range(6):  # five processes that come at most three batches further each, and the last
        ours, theirs = forks.context.Pipe(duplex=False)
        last = 3*(i + 1) if i < 5 else None
        process = forks.start(interrupted, tmp_path/'run', theirs, i > 0, answer, last)
        theirs.close()
        for _ in range(1 if i else 2): ours.recv_bytes()  # at the second there is a checkpoint
        time.sleep(rng.uniform(0, .01))
        if last: os.kill(process.pid, signal.SIGINT)
        process.join(120)
        assert process.exitcode == (9 if last else 0), i
    check_same(whole, read_state(answer))


class Fills(Kill):
    "Lets no file grow any more from some moment on"
    def strike(self):
        self.left -= 1
        if self.left == 0: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))


def full(path, event, nth, answer):
    torch.set_num_threads(1)
    learn, said = make(0, Path(path), every=1), None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        try: fit(learn, cbs=Fills(event, nth))
        except OSError as e: said = f'{type(e).__name__}: {e}'
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write_state(answer, dict(error=said, told=[str(o.message) for o in told], **outcome(learn)))


def test_a_full_disk(forks, tmp_path):
    (tmp_path/'whole').mkdir()
    _, whole = run(forks, tmp_path/'whole', 0, {})
    answers = []
    for nth in (1, 7):
        process = forks.start(full, tmp_path/f'{nth}', 'after_step', nth, tmp_path/f'{nth}.pt')
        process.join(120)
        answers.append(read_state(tmp_path/f'{nth}.pt'))
    first, later = answers
    assert first['error'].startswith('OSError') and len(first['losses']) == 1
    assert not numbered_files(tmp_path/'1/models/checkpoints')
    assert later['error'] is None and len(later['told']) >= 5
    assert all('could not be written' in o for o in later['told'])
    check_same(whole, later)
    assert numbered_files(tmp_path/'7/models/checkpoints')[0][0] == 6
    learn = fit(make(3, tmp_path/'7', every=1), resume=True)
    check_same(whole, outcome(learn))


@rare
def test_a_new_interpreter(tmp_path):
    "As a user would do it: a script that is killed, and started again"
    script = tmp_path/'train.py'
    script.write_text('''
import os, sys
from fastloop.all import *

set_seed(int(sys.argv[1]))
x = torch.linspace(-1, 1, 96)[:, None]
data = DataBunch.from_tensors(x, x**3, x, x**3, bs=8, device='cpu', path=sys.argv[2])
model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(.1), nn.ReLU(), nn.Linear(8, 1))
learn = Learner(data, model, nn.MSELoss(), cbs=[CheckpointCallback(every=5), CSVLogger()])

class Kill(Callback):
    def after_step(self):
        if self.run.n_iter == 26 and sys.argv[3] == 'kill': os.kill(os.getpid(), 9)

learn.fit_one_cycle(4, 1e-2, cbs=Kill(), resume=True)
print(sum(p.double().sum().item() for p in model.parameters()), learn.recorder.raw_losses[-9:])
''')
    def start(seed, folder, what):
        return subprocess.run([sys.executable, script, str(seed), tmp_path/folder, what], text=True,
                              capture_output=True, timeout=120)
    whole, killed = start(1, 'a', ''), start(1, 'b', 'kill')
    assert killed.returncode == -9 and 'this fit starts anew' in killed.stdout, killed.stderr
    resumed = start(2, 'b', '')
    assert '000005-epoch2-batch1.pt: 2 of 4 epochs are done, batch 1\n' in resumed.stdout
    assert whole.stdout.splitlines()[-1] == resumed.stdout.splitlines()[-1]
    tables = [[o.rpartition(',')[0] for o in (tmp_path/k/'history.csv').read_text().splitlines()]
              for k in 'ab']
    assert tables[0] == tables[1] and len(tables[0]) == 5


if __name__ == '__main__':
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
