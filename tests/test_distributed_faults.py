"Several processes, of which one fails, stops, is killed or slow; and trainings that go on."
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
import ranks
import torch
import torch.distributed as dist
from test_distributed import VALID, N, make, outcome
from torch import nn
from torch.torch_version import TorchVersion

from fastloop.callback.averages import EMACallback
from fastloop.callback.checkpoint import CheckpointCallback
from fastloop.callback.core import Callback
from fastloop.callback.tracker import EarlyStoppingCallback
from fastloop.callback.training import GradientAccumulation
from fastloop.keras import callbacks as keras
from fastloop.state_files import numbered_files

rare = pytest.mark.rare  # run by `make test-all` alone


class Strike(Callback):
    "Does something in one process, after the third step"
    order = 200  # after those that keep checkpoints
    def __init__(self, what, event='after_batch', at=3):
        super().__init__()
        self.what, self.at = what, at
        if what is not None: setattr(self, event, self.strike)

    def strike(self):
        if self.run.n_iter == self.at and self.run.in_train: self.what()


def fail(): raise ValueError('no such picture')
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def interrupt(): raise KeyboardInterrupt
def wait(): time.sleep(1.5)


def struck(rank, what, event='after_batch', timeout=6.):
    "Fit while process 1 is struck; what came of it"
    learn = make().to_distributed(timeout=timeout)
    try: learn.fit(2, .1, cbs=Strike(what if rank else None, event))
    except BaseException as e:
        notes = getattr(e, '__notes__', [])
        return dict(kind=type(e).__name__, words=f'{e} {notes}')
    return outcome(learn)


@pytest.fixture(scope='module')
def server():
    forks = ranks.server('test_distributed', 'test_distributed_faults')
    yield forks
    forks.close()


def one(server, tmp_path, work, **kwargs):
    "What two processes answered to one case, and how they ended"
    found, codes = ranks.run(server, str(tmp_path), [('it', work)], limit=60, **kwargs)
    return {rank: answer for rank, (answer, _) in found.get('it', {}).items()}, codes


@pytest.mark.parametrize('event', ['after_batch', pytest.param('after_pred', marks=rare)])
def test_an_exception_in_one_ends_the_other_with_its_words(server, tmp_path, event):
    found, _ = one(server, tmp_path, partial(struck, what=fail, event=event))
    assert found[1]['kind'] == 'ValueError' and 'no such picture' in found[1]['words']
    assert found[0]['kind'] == 'RuntimeError' and 'no such picture' in found[0]['words']


def different_data(rank):
    "Fit with fewer rows in process 1; what came of it"
    learn = make().to_distributed(timeout=30.)
    if rank: learn.data = make(valid=4).data
    try: learn.fit(1, .1)
    except BaseException as e: return dict(kind=type(e).__name__, words=str(e))
    return outcome(learn)


def test_different_data_are_refused_at_once_in_each_process(server, tmp_path):
    found, _ = one(server, tmp_path, different_data)
    assert found[0] == found[1] and found[0]['kind'] == 'ValueError'
    assert f'[[{N}, {VALID}], [{N}, 4]]' in found[0]['words']


class ByHand(Callback):
    "Asks the model itself before each step, and calls backward on what comes of it"
    average = False
    def begin_step(self):
        self.learn.opt.zero_grad()
        self.learn.loss_func(self.learn.model(self.run.xb), self.run.yb).backward()
        for p in self.learn.model.parameters() if self.average else ():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


def by_hand(rank, average, strategy='ddp'):
    "Fit with gradients that somebody else computes; what came of it"
    cb, learn = ByHand(), make().to_distributed(strategy, timeout=30.)
    cb.average = average
    try: learn.fit(2, .1, cbs=cb)
    except BaseException as e: return dict(kind=type(e).__name__, words=str(e))
    return outcome(learn)


def test_gradients_that_were_not_averaged_are_noticed_in_each_process(server, tmp_path):
    found, _ = one(server, tmp_path, partial(by_hand, average=False))
    assert found[0] == found[1] and found[0]['kind'] == 'RuntimeError'
    assert "different weights '0.weight'" in found[0]['words'] and 'averaged' in found[0]['words']


@pytest.mark.parametrize('how', [dict(average=True), dict(average=False, strategy='fsdp')])
def test_gradients_that_were_averaged_are_left_alone(server, tmp_path, how):
    found, _ = one(server, tmp_path, partial(by_hand, **how))
    assert found[0] == found[1] and found[0]['n_iter'] == 10


@rare
def one_row(rank):
    "Batch norm, and one row in the last batch of each process"
    try: make(bn=True).to_distributed(timeout=6.).fit(1, .1)
    except ValueError as e: return f'{e} {e.__notes__}'


@rare
def test_batch_norm_on_a_single_row_is_explained(server, tmp_path):
    found, _ = one(server, tmp_path, one_row)
    assert all('one row in its last batch' in o and 'sync_bn=True' in o for o in found.values())


def test_an_interrupt_of_one_ends_the_other(server, tmp_path):
    found, _ = one(server, tmp_path, partial(struck, what=interrupt))
    assert found[1]['kind'] == 'KeyboardInterrupt' and found[0]['kind'] == 'RuntimeError'


@rare
def test_a_killed_process_ends_the_other(server, tmp_path):
    found, codes = one(server, tmp_path, partial(struck, what=kill))
    assert codes[1] == -signal.SIGKILL and 1 not in found
    assert found[0]['kind'] == 'RuntimeError' and 'another process has ended' in found[0]['words']


@rare
def test_a_slow_process_is_waited_for(server, tmp_path):
    found, _ = one(server, tmp_path, partial(struck, what=wait))
    assert found[0]['weights'] == found[1]['weights'] and found[0]['n_iter'] == 10


# ---- going on -----------------------------------------------------------------------------------
def dropout(learn):
    "The same learner with dropout, whose numbers differ from process to process"
    learn.model.insert(2, nn.Dropout(.3))
    return learn


def kept(rank, folder, resume=False, every=2, at=None, loader='tensors', cbs=(), how=None, epochs=2,
         together=True):
    learn = dropout(make(loader=loader, path=folder))
    if together: learn.to_distributed(timeout=20, **(how or {}))
    keeper = CheckpointCallback(every=every, verbose=False)
    try: learn.fit(epochs, .1, cbs=[keeper, *(o() for o in cbs), Strike(at and fail, at=at)],
                   resume=resume)
    except (ValueError, RuntimeError): return 'stopped'
    return outcome(learn)


class FollowsAccuracy(keras.Callback):
    "A rate that depends on the accuracy in training"
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = .1*logs['accuracy']


RESUMED = {'tensors': dict(at=4), 'torch': dict(at=4, loader='torch'),
           'weighted': dict(at=8, loader='weighted'), 'epochs': dict(at=7, every='epoch'),
           'accumulation': dict(at=4, every=3, cbs=[partial(GradientAccumulation, n_batches=2)]),
           'averages': dict(at=8, cbs=[partial(EMACallback, decay=.9)]),
           'keras': dict(at=4, cbs=[FollowsAccuracy]),
           'fsdp': dict(at=4, how=dict(strategy='fsdp')),
           'fsdp, kept weights': dict(
               at=8, every=1, how=dict(strategy='fsdp'), cbs=[
                   partial(EMACallback, decay=.9), partial(GradientAccumulation, n_batches=2),
                   partial(EarlyStoppingCallback, patience=9, restore_best=True)])}


@pytest.mark.parametrize('name', [pytest.param(o, marks=rare if o != 'tensors' else ())
                                  for o in RESUMED])
def test_two_processes_go_on_bit_for_bit(server, tmp_path, name):
    how = dict(RESUMED[name])
    at = how.pop('at')
    whole, _ = one(server, tmp_path, partial(kept, folder=str(tmp_path/'whole'), **how))
    work = partial(kept, folder=str(tmp_path/'part'), **how)
    first, _ = one(server, tmp_path, partial(work, at=at))
    assert first == {0: 'stopped', 1: 'stopped'}
    assert numbered_files(tmp_path/'part'/'models'/'checkpoints')
    second, _ = one(server, tmp_path, partial(work, resume=True))
    assert repr(second[0]) == repr(second[1]) and repr(second[0]) == repr(whole[0])


@rare
def test_a_checkpoint_of_two_goes_on_in_one(server, tmp_path):
    work = partial(kept, folder=str(tmp_path/'run'), every='epoch')
    assert one(server, tmp_path, partial(work, at=7))[0][0] == 'stopped'
    with pytest.warns(UserWarning, match='of 2 processes, this training has 1'):
        alone = kept(0, str(tmp_path/'run'), every='epoch', resume=True, together=False)
    assert alone['n_iter'] == 5+9 and len(alone['rows']) == 2


SCRIPT = '''
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_distributed_faults import CheckpointCallback, Strike, dropout, kill, make, outcome
from fastloop.state_files import write_state
learn = dropout(make(path={folder!r})).to_distributed(timeout=20)
rank = int(os.environ['RANK'])
first = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0' and {kill!r}
learn.fit(2, .1, cbs=[CheckpointCallback(every=2), Strike(kill if first and rank else None, at=5)],
          resume=True)
if not rank: write_state({answer!r}, outcome(learn))
'''


def launch(tmp_path, name, **kwargs):
    "Run a script under torchrun; its exit status and what it printed"
    script, answer = tmp_path/f'{name}.py', tmp_path/f'{name}.pt'
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path/name),
                                    answer=str(answer), **kwargs))
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
               '--max-restarts=1', '--monitor-interval=0.2', '--standalone', str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    return done, answer


@rare
def test_torchrun_starts_again_and_goes_on_bit_for_bit(tmp_path):
    from fastloop.callback.snapshot import same_state
    from fastloop.state_files import read_state
    broken, part = launch(tmp_path, 'broken', kill=True)
    assert broken.returncode == 0, broken.stderr[-2000:]
    whole, all_ = launch(tmp_path, 'whole', kill=False)
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert 'going on from' in broken.stdout
    one, two = read_state(part), read_state(all_)
    for k in ('weights', 'losses', 'lrs', 'n_iter'): assert same_state(one[k], two[k])


@rare
def test_an_interrupt_of_the_launcher_ends_all(tmp_path):
    script = tmp_path/'long.py'
    script.write_text(textwrap.dedent(f'''
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_distributed import make
        learn = make().to_distributed(timeout=20)
        print('begun', flush=True)
        learn.fit(100_000, .1)
        '''))
    process = subprocess.Popen([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
                                f'--master-port={ranks.free_port()}', str(script)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if 'valid_loss' in line: break
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) != 0





def test_a_torch_that_is_too_old_for_pieces_is_told(monkeypatch):
    learn = make()
    before = list(learn.cbs)
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.6.0+cu124'))
    with pytest.raises(RuntimeError, match="'fsdp' needs torch 2.8 or newer, this is 2.6.0"):
        learn.to_distributed('fsdp')
    assert learn.cbs == before and learn.to_distributed('ddp') is learn
