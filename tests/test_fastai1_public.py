"""Callbacks of the kinds that people published for fastai v1, with nothing changed but the import

Each is held against what fastai v1 computes, worked out by hand in plain torch.
"""
import copy
import io
import math

import numpy as np
import pytest
import torch
from processes import Program
from torch import nn
from torch.nn import functional as F

from fastloop.adapters import fastai1
from fastloop.adapters.fastai1 import (
    ActivationStats,
    Any,
    DatasetType,
    Dict,
    EarlyStoppingCallback,
    Floats,
    GeneralScheduler,
    HookCallback,
    LearnerCallback,
    MetricsList,
    OptimWrapper,
    Optional,
    ReduceLROnPlateauCallback,
    SaveModelCallback,
    Scheduler,
    Tensor,
    TrackerCallback,
    TrainingPhase,
    add_metrics,
    annealing_cos,
    annealing_exp,
    annealing_linear,
    dataclass,
    format_time,
    ifnone,
    is_listy,
    partial,
)
from fastloop.callback.core import Callback
from fastloop.callback.logger import CSVLogger, History, read_table
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD

N, N_VALID, BS = 48, 20, 8


def numbers():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + N_VALID, 4, generator=g)
    return x, x[:, :3].argmax(1)


def batches(x, y, bs=BS): return list(zip(x.split(bs), y.split(bs)))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def make(tmp_path='.', **kwargs):
    x, y = numbers()
    data = DataBunch(batches(x[:N], y[:N]), batches(x[N:], y[N:]), device='cpu', path=tmp_path)
    kwargs = dict(opt_func=SGD, lr=.1, wd=0., loss_func=F.cross_entropy, metrics=accuracy,
                  silent=True) | kwargs
    return Learner(data, net(), **kwargs)


def plain(epochs, step=None, model=None, lr=.1):
    "The loop by hand, or with `step(i, model, opt)`; gives the model and the smooth losses"
    x, y = numbers()
    model = model or net()
    opt, mean, smooth, i = torch.optim.SGD(model.parameters(), lr=lr), 0., [], 0
    for _ in range(epochs):
        for xb, yb in batches(x[:N], y[:N]):
            loss = F.cross_entropy(model(xb), yb)
            mean = .98*mean + .02*loss.item()
            smooth.append(mean/(1 - .98**(i+1)))
            loss.backward()
            if step is None:
                opt.step()
                opt.zero_grad()
            else: step(i, model, opt)
            i += 1
    return model, smooth


def valid_numbers(model):
    x, y = numbers()
    with torch.no_grad(): out = model(x[N:])
    return F.cross_entropy(out, y[N:]).item(), (out.argmax(1) == y[N:]).float().mean().item()


def flat(model): return torch.cat([p.detach().flatten() for p in model.parameters()])


def same(a, b): torch.testing.assert_close(flat(a), flat(b))


# ---- loggers -------------------------------------------------------------------------------------
def rows_by_hand(epochs):
    "What a logger of fastai v1 sees: epoch, smooth loss, validation loss, accuracy"
    found, model = [], net()
    for n in range(1, epochs+1):
        model, smooth = plain(n)
        found.append([n-1, smooth[-1], *valid_numbers(model)])
    return found


class NeptuneMonitor(LearnerCallback):
    def __init__(self, learn, run, prefix=''):
        super().__init__(learn)
        self.run, self.prefix = run, prefix

    def on_epoch_end(self, epoch:int, smooth_loss:Tensor, last_metrics:MetricsList,
                     **kwargs:Any)->None:
        metric_names = self.learn.recorder.names[:-1]
        for name, value in zip(metric_names, [epoch, smooth_loss] + last_metrics):
            self.run.append((self.prefix + name, float(value)))


def test_a_monitor_that_zips_the_recorders_names():
    sent, learn = [], make()
    learn.fit(2, callbacks=[NeptuneMonitor(learn, sent, 'fast.')])
    names = [f'fast.{o}' for o in ('epoch', 'train_loss', 'valid_loss', 'accuracy')]
    assert [o[0] for o in sent] == names*2
    assert [o[1] for o in sent] == pytest.approx(sum(rows_by_hand(2), []), rel=1e-4)


class SageMakerLog(LearnerCallback):
    "One line an epoch for a regular expression to read"
    def on_epoch_end(self, epoch, smooth_loss, last_metrics, **kwargs):
        stats = [epoch, smooth_loss] + ifnone(last_metrics, [])
        print('; '.join(f'{n}={s:.4f}' if not isinstance(s, int) else f'{n}={s}'
                        for n, s in zip(self.learn.recorder.names, stats)))


def test_lines_for_a_regular_expression(capsys):
    make(callback_fns=SageMakerLog).fit(1)
    want = rows_by_hand(1)[0]
    assert capsys.readouterr().out.strip() == \
        f'epoch=0; train_loss={want[1]:.4f}; valid_loss={want[2]:.4f}; accuracy={want[3]:.4f}'


class FileLogger(LearnerCallback):
    "The way in which fastai v1 itself wrote its CSV file"
    def __init__(self, learn, filename:str='history', append:bool=False):
        super().__init__(learn)
        self.filename, self.append = filename, append
        self.path, self.add_time = self.learn.path/f'{filename}.csv', True

    def on_train_begin(self, **kwargs:Any)->None:
        self.file = self.path.open('a' if self.append else 'w')
        end = None if self.add_time else -1
        self.file.write(','.join(self.learn.recorder.names[:end]) + '\n')

    def on_epoch_end(self, epoch:int, smooth_loss:Tensor, last_metrics:MetricsList,
                     **kwargs:Any)->bool:
        last_metrics = ifnone(last_metrics, [])
        stats = [str(stat) if isinstance(stat, int) else '#na#' if stat is None else f'{stat:.6f}'
                 for name, stat in zip(self.learn.recorder.names,
                                       [epoch, smooth_loss] + last_metrics)]
        if self.add_time: stats.append(format_time(0))
        self.file.write(','.join(stats) + '\n')

    def on_train_end(self, **kwargs:Any)->None: self.file.close()


def test_the_file_of_v1s_own_csv_logger(tmp_path):
    make(tmp_path, callback_fns=FileLogger).fit(2)
    header, *rows = (tmp_path/'history.csv').read_text().splitlines()
    assert header == 'epoch,train_loss,valid_loss,accuracy,time'
    for row, want in zip(rows, rows_by_hand(2)):
        epoch, *values, time = row.split(',')
        assert int(epoch) == want[0] and time == '00:00'
        assert [float(o) for o in values] == pytest.approx(want[1:], abs=2e-6)


class TensorboardLike(LearnerCallback):
    "Skips what it knows to be the first two columns; losses by iteration"
    def __init__(self, learn, loss_iters=5):
        super().__init__(learn)
        self.loss_iters, self.scalars, self.metrics_root = loss_iters, [], '/metrics/'

    def on_batch_end(self, last_loss:Tensor, iteration:int, train:bool, **kwargs:Any)->None:
        if train and iteration % self.loss_iters == 0:
            self.scalars.append(('train_loss', last_loss.item(), iteration))

    def on_epoch_end(self, last_metrics:MetricsList, iteration:int, **kwargs:Any)->None:
        recorder = self.learn.recorder
        for i, name in enumerate(recorder.names[2:]):
            if last_metrics is None or len(last_metrics) < i+1: return
            self.scalars.append((self.metrics_root + name, last_metrics[i].item(), iteration))


def test_a_writer_that_counts_columns():
    learn = make()
    learn.fit(1, callbacks=[cb := TensorboardLike(learn)])
    assert [o[0] for o in cb.scalars] == \
        ['train_loss']*2 + ['/metrics/valid_loss', '/metrics/accuracy']
    assert [o[2] for o in cb.scalars] == [0, 5, 6, 6]
    assert [o[1] for o in cb.scalars[2:]] == pytest.approx(rows_by_hand(1)[0][2:], rel=1e-4)


class WandbLike(TrackerCallback):
    "Logs, and keeps the best weights in a file that it opens itself"
    def __init__(self, learn, log_file, monitor=None, mode='auto'):
        super().__init__(learn, monitor=ifnone(monitor, 'valid_loss'), mode=mode)
        self.model_path, self.logged = log_file, []

    def on_train_begin(self, **kwargs): super().on_train_begin()

    def on_epoch_end(self, epoch=0, smooth_loss=None, last_metrics=None, **kwargs):
        current = self.get_monitor_value()
        if current is not None and self.operator(current, self.best):
            self.best = current
            with self.model_path.open('wb') as model_file: self.learn.save(model_file)
        self.logged.append({name: stat for name, stat in list(zip(
            self.learn.recorder.names, [epoch, smooth_loss] + (last_metrics or [])))[1:]})

    def on_train_end(self, **kwargs):
        if self.model_path.is_file():
            with self.model_path.open('rb') as model_file:
                self.learn.load(model_file, purge=False)
                self.loaded = True


def test_a_tracker_that_opens_the_file_itself(tmp_path):
    learn = make(tmp_path, lr=3.)  # a rate at which the last epoch is not the best
    learn.fit(5, callbacks=[cb := WandbLike(learn, tmp_path/'best.pth')])
    losses = [o['valid_loss'] for o in cb.logged]
    assert list(cb.logged[0]) == ['train_loss', 'valid_loss', 'accuracy'] and cb.loaded
    best = losses.index(min(losses))
    assert best < 4 and cb.best == min(losses)
    same(learn.model, plain(best+1, lr=3.)[0])


class MLflowLike(LearnerCallback):
    "Knows the names from the learner's metrics"
    def __init__(self, learn, params):
        super().__init__(learn)
        self.learn, self.params, self.logged = learn, params, []
        self.metrics_names = ['train_loss', 'valid_loss'] + [o.__name__ for o in learn.metrics]

    def on_epoch_end(self, epoch, **kwargs:Any)->None:
        metrics = [kwargs['smooth_loss']] + kwargs['last_metrics']
        for k, v in zip(self.metrics_names, metrics): self.logged.append((k, float(v), epoch))


def test_names_from_the_learners_metrics():
    learn = make()
    learn.fit(1, callbacks=[cb := MLflowLike(learn, {})])
    assert [o[0] for o in cb.logged] == ['train_loss', 'valid_loss', 'accuracy']
    assert [o[1] for o in cb.logged] == pytest.approx(rows_by_hand(1)[0][1:], rel=1e-4)


class BarWriter(LearnerCallback):
    "Talks to the bar it is given, and to the recorder's"
    def on_train_begin(self, pbar, **kwargs:Any):
        self.pbar, pbar.clean_on_interrupt = pbar, True

    def on_backward_begin(self, smooth_loss, **kwargs):
        self.learn.recorder.pbar.child.comment = f'{smooth_loss:.4f}'

    def on_epoch_end(self, epoch, **kwargs):
        self.pbar.write(f'epoch {epoch} is over')
        self.learn.recorder.pbar.write(['a', 'row'], table=True)
        self.pbar.update_graph([[range(2), self.learn.recorder.losses[-2:]]])


@pytest.mark.parametrize('silent', [True, False])
def test_the_bar_is_there(silent, capsys):
    make(silent=silent, callback_fns=BarWriter).fit(2)
    lines = capsys.readouterr().out.splitlines()
    assert (lines == []) == silent
    assert silent or sum('is over' in o for o in lines) == 2 == sum('a  row' in o for o in lines)


# ---- stop and save -------------------------------------------------------------------------------
class PatientEarlyStopping(EarlyStoppingCallback):
    "Does not look before some epochs are over"
    def __init__(self, learn, warmup=3, **kwargs):
        super().__init__(learn, **kwargs)
        self.warmup = warmup

    def on_epoch_end(self, epoch, **kwargs:Any):
        if epoch < self.warmup: return None
        return super().on_epoch_end(epoch, **kwargs)


@pytest.mark.parametrize('warmup,epochs', [(0, 2), (3, 5)])
def test_early_stopping_with_a_warm_up(warmup, epochs):
    learn = make(lr=1e-30)  # never better than in the first epoch that is looked at
    learn.fit(9, callbacks=[PatientEarlyStopping(learn, warmup, monitor='valid_loss', patience=1)])
    assert len(learn.recorder.values) == epochs


class OwnEarlyStopping(TrackerCallback):
    "The whole of it, as v1 wrote it"
    def __init__(self, learn, monitor='valid_loss', mode='auto', min_delta=0, patience=0):
        super().__init__(learn, monitor=monitor, mode=mode)
        self.min_delta, self.patience = min_delta, patience
        if self.operator == np.less: self.min_delta *= -1

    def on_train_begin(self, **kwargs:Any)->None:
        self.wait = 0
        super().on_train_begin(**kwargs)

    def on_epoch_end(self, epoch, **kwargs:Any)->Optional[Dict]:
        current = self.get_monitor_value()
        if current is None: return None
        if self.operator(current - self.min_delta, self.best): self.best, self.wait = current, 0
        else:
            self.wait += 1
            if self.wait > self.patience:
                print(f'Epoch {epoch}: early stopping')
                return {'stop_training': True}
        return None


@pytest.mark.parametrize('monitor', ['valid_loss', 'accuracy'])
def test_early_stopping_written_out(monitor, capsys):
    learn = make(lr=1e-30)
    learn.fit(9, callbacks=[cb := OwnEarlyStopping(learn, monitor, patience=2)])
    assert len(learn.recorder.values) == 4
    assert cb.best == learn.recorder.values[0][1+('acc' in monitor)]
    assert capsys.readouterr().out == 'Epoch 3: early stopping\n'


class SaveBest(LearnerCallback):
    def __init__(self, learn, name='best'):
        super().__init__(learn)
        self.name, self.best = name, None
        self.not_min += ['best']

    def on_epoch_end(self, epoch, last_metrics:MetricsList, **kwargs:Any)->None:
        if self.best is None or last_metrics[0] < self.best:
            self.best, self.best_epoch = last_metrics[0], epoch
            self.path = self.learn.save(self.name, return_path=True)

    def on_train_end(self, **kwargs): self.learn.load(self.name, purge=False)


def test_the_best_weights_are_loaded(tmp_path):
    learn = make(tmp_path, lr=3.)
    learn.fit(5, callbacks=[cb := SaveBest(learn)])
    assert cb.best_epoch < 4 and cb.path.is_file()
    same(learn.model, plain(cb.best_epoch+1, lr=3.)[0])


class SaveEveryBest(SaveModelCallback):
    "Says what it does"
    def on_epoch_end(self, epoch:int, **kwargs:Any)->None:
        current = self.get_monitor_value()
        if current is not None and self.operator(current, self.best):
            self.said = [*getattr(self, 'said', []), (epoch, current)]
            self.best = current
            self.learn.save(f'own_{epoch}')

    def on_train_end(self, **kwargs): self.learn.load(f'own_{self.said[-1][0]}', purge=False)


def test_a_subclass_of_save_model(tmp_path):
    learn = make(tmp_path, lr=3.)
    learn.fit(5, callbacks=[cb := SaveEveryBest(learn, monitor='accuracy')])
    values, best = [o[2] for o in learn.recorder.values], -1
    want = [(i, best := o) for i, o in enumerate(values) if o > best]
    assert cb.said == want
    files = sorted(o.stem for o in (tmp_path/'models').iterdir())
    assert files == sorted(f'own_{i}' for i, _ in want)


class ReduceAndReload(ReduceLROnPlateauCallback):
    "Halves the rate by hand"
    def on_epoch_end(self, epoch, **kwargs:Any)->None:
        current = self.get_monitor_value()
        if self.operator(current, self.best): self.best, self.wait = current, 0
        else:
            self.wait += 1
            if self.wait > self.patience:
                self.learn.opt.lr *= .5
                self.wait = 0


def test_a_rate_that_is_halved_by_hand():
    learn = make(lr=1e-30)
    learn.fit(6, callbacks=[ReduceAndReload(learn, patience=1)])
    assert learn.recorder.lrs[::6] == pytest.approx([1e-30]*3 + [.5e-30]*2 + [.25e-30])


class StopAtTime(LearnerCallback):
    "Ends the fit when a clock says so"
    def __init__(self, learn, clock, seconds):
        super().__init__(learn)
        self.clock, self.seconds = clock, seconds

    def on_train_begin(self, **kwargs): self.started = next(self.clock)

    def on_batch_end(self, train, **kwargs:Any):
        if train and next(self.clock) - self.started > self.seconds:
            return {'stop_epoch': True, 'stop_training': True}


def test_an_end_by_the_clock():
    learn = make()
    learn.fit(9, callbacks=[StopAtTime(learn, iter(range(99)), 8)])
    assert learn.n_iter == 9 and len(learn.recorder.values) == 2


class Pruning(TrackerCallback):
    "Asks a study after each epoch"
    def __init__(self, learn, trial, monitor='accuracy'):
        super().__init__(learn, monitor=monitor)
        self.trial = trial

    def on_epoch_end(self, epoch:int, **kwargs:Any)->None:
        value = self.get_monitor_value()
        if value is None: return
        self.trial.append((epoch, float(value)))
        if len(self.trial) == 3: raise RuntimeError(f'Trial was pruned at epoch {epoch}.')


def test_a_trial_is_pruned():
    trial, learn = [], make()
    with pytest.raises(RuntimeError, match='pruned at epoch 2'):
        learn.fit(9, callbacks=[Pruning(learn, trial)])
    assert [o[1] for o in trial] == pytest.approx([o[3] for o in rows_by_hand(3)])


# ---- gradients -----------------------------------------------------------------------------------
class AccumulateScheduler(LearnerCallback):
    _order = -40
    def __init__(self, learn, n_step:int=1, drop_last:bool=False):
        super().__init__(learn)
        self.n_step, self.drop_last = n_step, drop_last

    def on_epoch_begin(self, **kwargs):
        self.acc_samples = self.acc_batches = 0.

    def on_batch_begin(self, last_input, last_target, train, **kwargs):
        if train:
            self.acc_samples += last_input.shape[0]
            self.acc_batches += 1

    def on_backward_end(self, **kwargs):
        if (self.acc_batches % self.n_step) != 0: return {'skip_step': True, 'skip_zero': True}
        for p in (self.learn.model.parameters()):
            if p.requires_grad: p.grad.div_(self.n_step)
        self.acc_samples = 0

    def on_epoch_end(self, **kwargs):
        if not self.drop_last and self.acc_batches % self.n_step:
            self.learn.opt.step()
            self.learn.opt.zero_grad()


def test_gradients_add_up_over_batches():
    learn = make()
    learn.fit(2, callbacks=[AccumulateScheduler(learn, n_step=3)])
    def step(i, model, opt):
        if i % 3 != 2: return
        for p in model.parameters(): p.grad /= 3
        opt.step()
        opt.zero_grad()
    same(learn.model, plain(2, step)[0])


@dataclass
class GradientStats(LearnerCallback):
    "Clips, and writes the norms down"
    clip:float = .1
    def on_train_begin(self, **kwargs): self.norms = []

    def on_backward_end(self, **kwargs):
        self.norms.append(nn.utils.clip_grad_norm_(self.learn.model.parameters(), self.clip).item())


def test_gradients_are_clipped():
    learn, norms = make(callback_fns=[partial(GradientStats, clip=.2)]), []
    learn.fit(1)
    def step(i, model, opt):
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), .2).item())
        opt.step()
        opt.zero_grad()
    same(learn.model, plain(1, step)[0])
    assert learn.gradient_stats.norms == pytest.approx(norms, rel=1e-4)


class StoreMeans(HookCallback):
    def on_train_begin(self, **kwargs):
        super().on_train_begin(**kwargs)
        self.acts = []

    def hook(self, m:nn.Module, i:Tensor, o:Tensor)->Tensor: return o.mean()

    def on_batch_end(self, train, **kwargs):
        if train: self.acts.append([o.item() for o in self.hooks.stored])


def test_hooks_on_layers():
    learn = make(callback_fns=[StoreMeans, ActivationStats])
    learn.fit(1)
    x, y = numbers()
    first = net()
    outs = [first[0](x[:BS]), first(x[:BS])]
    assert learn.store_means.acts[0] == pytest.approx([o.mean().item() for o in outs], rel=1e-4)
    assert learn.activation_stats.stats.shape == (2, 2, 6)
    assert learn.activation_stats.stats[1, :, 0].tolist() == \
        pytest.approx([o.std().item() for o in outs], rel=1e-4)
    assert not any(m._forward_hooks for m in learn.model.modules())


class SWA(LearnerCallback):
    "The mean of the weights after each epoch from one on"
    def __init__(self, learn, swa_start:int=1):
        super().__init__(learn)
        self.swa_model, self.swa_start = copy.deepcopy(learn.model), swa_start

    def on_train_begin(self, **kwargs): self.swa_n = 0

    def on_epoch_end(self, epoch, **kwargs):
        if epoch + 1 < self.swa_start: return
        for avg, p in zip(self.swa_model.parameters(), self.learn.model.parameters()):
            avg.data.mul_(self.swa_n/(self.swa_n+1.)).add_(p.data, alpha=1./(self.swa_n+1))
        self.swa_n += 1

    def on_train_end(self, **kwargs): self.learn.model.load_state_dict(self.swa_model.state_dict())


def test_averaged_weights():
    learn = make()
    learn.fit(4, callbacks=[SWA(learn, 2)])
    want = torch.stack([flat(plain(n)[0]) for n in (2, 3, 4)]).mean(0)
    torch.testing.assert_close(flat(learn.model), want)


# ---- batches and losses --------------------------------------------------------------------------
class MixedLoss(nn.Module):
    def __init__(self, crit):
        super().__init__()
        self.crit = crit

    def forward(self, output, target):
        if target.dim() == 1: return self.crit(output, target)
        loss1 = F.cross_entropy(output, target[:, 0].long(), reduction='none')
        loss2 = F.cross_entropy(output, target[:, 1].long(), reduction='none')
        return (loss1*target[:, 2] + loss2*(1-target[:, 2])).mean()

    def get_old(self): return self.crit


class CutHalf(LearnerCallback):
    "Replaces half of the inputs by those of the batch turned round, and the loss for as long"
    def on_train_begin(self, **kwargs): self.learn.loss_func = MixedLoss(self.learn.loss_func)

    def on_batch_begin(self, last_input, last_target, train, **kwargs):
        if not train: return None
        new_input, turned = last_input.clone(), last_input.flip(0)
        new_input[:, :2] = turned[:, :2]
        share = torch.full((len(last_target),), .5)
        new_target = torch.stack([last_target.float(), last_target.flip(0).float(), share], 1)
        return {'last_input': new_input, 'last_target': new_target}

    def on_train_end(self, **kwargs): self.learn.loss_func = self.learn.loss_func.get_old()


def test_mixed_batches_and_their_loss():
    learn = make()
    learn.fit(1, callbacks=[CutHalf(learn)])
    x, y = numbers()
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    for xb, yb in batches(x[:N], y[:N]):
        mixed = torch.cat([xb.flip(0)[:, :2], xb[:, 2:]], 1)
        losses = [F.cross_entropy(model(mixed), o)/2 for o in (yb, yb.flip(0))]
        sum(losses).backward()
        opt.step()
        opt.zero_grad()
    same(learn.model, model)
    assert learn.loss_func is F.cross_entropy
    assert learn.recorder.values[0][1] == pytest.approx(valid_numbers(model)[0], rel=1e-4)


class TwoLosses(nn.Module):
    metric_names = ['fit', 'size']
    def forward(self, out, target):
        self.metrics = {'fit': F.cross_entropy(out, target), 'size': out.pow(2).mean()}
        return self.metrics['fit'] + .1*self.metrics['size']


class LossMetrics(LearnerCallback):
    "Columns for the parts of a loss; has to come before the recorder, and says so"
    _order = -20
    def on_train_begin(self, **kwargs):
        self.names = ifnone(self.learn.loss_func.metric_names, [])
        self.learn.recorder.add_metric_names(self.names)

    def on_epoch_begin(self, **kwargs):
        self.metrics, self.nums = {name: 0. for name in self.names}, 0

    def on_batch_end(self, last_target, train, **kwargs):
        if train: return
        bs = last_target[0].size(0) if is_listy(last_target) else last_target.size(0)
        for name in self.names:
            self.metrics[name] += bs*self.learn.loss_func.metrics[name].detach().cpu()
        self.nums += bs

    def on_epoch_end(self, last_metrics, **kwargs):
        if not self.nums: return None
        return {'last_metrics': last_metrics + [self.metrics[o]/self.nums for o in self.names]}


def test_columns_for_the_parts_of_a_loss(tmp_path):
    from fastloop.callback.logger import CSVLogger
    learn = make(tmp_path, loss_func=TwoLosses(), callback_fns=LossMetrics, cbs=CSVLogger())
    learn.fit(2)
    assert learn.recorder.names == ['train_loss', 'valid_loss', 'accuracy', 'fit', 'size']
    for row in learn.recorder.values:
        assert row[1] == pytest.approx(row[3] + .1*row[4], rel=1e-4) and len(row) == 5
    table = (tmp_path/'history.csv').read_text().splitlines()
    assert table[0] == 'epoch,train_loss,valid_loss,accuracy,fit,size,time'
    assert float(table[2].split(',')[4]) == pytest.approx(learn.recorder.values[1][3], rel=1e-4)


class AUROC(LearnerCallback):
    "The area under the curve of one class against the others, of all validation data together"
    _order = -20
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['auroc'])

    def on_epoch_begin(self, **kwargs): self.output, self.target = [], []

    def on_batch_end(self, last_target, last_output, train, **kwargs):
        if not train:
            self.output.append(last_output)
            self.target.append(last_target)

    def on_epoch_end(self, last_metrics, **kwargs):
        if len(self.output) > 0:
            preds = F.softmax(torch.cat(self.output), dim=1)[:, 0]
            return add_metrics(last_metrics, [area(preds, torch.cat(self.target) == 0)])


def area(scores, positive):
    "The share of pairs of a positive and a negative that stand in the right order"
    pairs = scores[positive][:, None] - scores[~positive][None]
    return ((pairs > 0).float() + (pairs == 0).float()/2).mean()


def test_area_under_the_curve():
    learn = make()
    learn.fit(2, callbacks=[AUROC(learn)])
    x, y = numbers()
    scores = plain(2)[0](x[N:]).softmax(1)[:, 0].detach()
    assert learn.recorder.names[-1] == 'auroc'
    assert learn.recorder.values[-1][-1] == pytest.approx(area(scores, y[N:] == 0).item())


# ---- schedules -----------------------------------------------------------------------------------
class OwnOneCycle(LearnerCallback):
    "One cycle, as v1 wrote it"
    def __init__(self, learn, lr_max:float, moms:Floats=(.95, .85), div_factor:float=25.,
                 pct_start:float=.3):
        super().__init__(learn)
        self.lr_max, self.moms, self.div_factor = lr_max, tuple(moms), div_factor
        self.pct_start = pct_start

    def steps(self, *steps_cfg):
        return [Scheduler(step, n_iter, func=func)
                for (step, (n_iter, func)) in zip(steps_cfg, self.phases)]

    def on_train_begin(self, n_epochs:int, epoch:int, **kwargs:Any)->None:
        n = len(self.learn.data.train_dl)*n_epochs
        a1 = int(n*self.pct_start)
        self.phases = ((a1, annealing_cos), (n-a1, annealing_cos))
        low_lr, end = self.lr_max/self.div_factor, self.lr_max/self.div_factor/1e4
        self.lr_scheds = self.steps((low_lr, self.lr_max), (self.lr_max, end))
        self.mom_scheds = self.steps(self.moms, (self.moms[1], self.moms[0]))
        self.opt = self.learn.opt
        self.opt.lr, self.opt.mom = self.lr_scheds[0].start, self.mom_scheds[0].start
        self.idx_s = 0

    def on_batch_end(self, train, **kwargs:Any)->None:
        if train:
            if self.idx_s >= len(self.lr_scheds): return {'stop_training': True, 'stop_epoch': True}
            self.opt.lr = self.lr_scheds[self.idx_s].step()
            self.opt.set_stat('mom', self.mom_scheds[self.idx_s].step())
            if self.lr_scheds[self.idx_s].is_done: self.idx_s += 1


def test_one_cycle_written_out():
    learn = make(opt_func=partial(SGD, momentum=.9))
    learn.fit(2, callbacks=[OwnOneCycle(learn, .5)])
    def cos(a, b, pct): return b + (a-b)/2*(math.cos(math.pi*pct)+1)
    up, down = [i/3 for i in range(3)], [i/9 for i in range(9)]
    lrs = [cos(.02, .5, o) for o in up] + [cos(.5, 2e-6, o) for o in down]
    moms = [cos(.95, .85, o) for o in up] + [cos(.85, .95, o) for o in down]
    assert learn.recorder.lrs == pytest.approx(lrs) and learn.recorder.moms == pytest.approx(moms)


def test_phases_given_to_the_general_scheduler():
    learn = make()
    n = len(learn.data.train_dl)
    phases = [TrainingPhase(n).schedule_hp('lr', (.01, .1), anneal=annealing_linear),
              TrainingPhase(2*n).schedule_hp('lr', .1)]
    learn.fit(3, callbacks=[GeneralScheduler(learn, phases)])
    assert learn.recorder.lrs == pytest.approx([.01 + .09*i/n for i in range(n)] + [.1]*2*n)


class WarmUp(LearnerCallback):
    "A rate that grows batch by batch through `set_stat`, and is read again with `get_stat`"
    def on_batch_begin(self, train, iteration, **kwargs):
        if train: self.learn.opt.set_stat('lr', .01*(iteration+1))
        self.rate = self.learn.opt.get_stat('lr')


def test_rates_set_by_name():
    learn = make(callback_fns=WarmUp)
    learn.fit(1)
    assert learn.recorder.lrs == pytest.approx([.01*(i+1) for i in range(6)])
    assert learn.warm_up.rate == pytest.approx(.06)


# ---- metrics that are callbacks ------------------------------------------------------------------
@dataclass
class ConfusionMatrix(Callback):
    "Counts pairs of what is true and what was said"
    def on_train_begin(self, **kwargs): self.n_classes = 0

    def on_epoch_begin(self, **kwargs): self.cm = None

    def on_batch_end(self, last_output:Tensor, last_target:Tensor, **kwargs):
        preds = last_output.argmax(-1).view(-1).cpu()
        if self.n_classes == 0: self.n_classes = last_output.shape[-1]
        if self.cm is None: self.cm = torch.zeros(self.n_classes, self.n_classes)
        for t, p in zip(last_target, preds): self.cm[t, p] += 1

    def on_epoch_end(self, **kwargs): self.metric = self.cm


@dataclass
class CMScores(ConfusionMatrix):
    average:Optional[str] = 'macro'
    eps:float = 1e-9

    def _recall(self): return (self.cm.diag()/(self.cm.sum(1) + self.eps)).mean()

    def _precision(self): return (self.cm.diag()/(self.cm.sum(0) + self.eps)).mean()


class Recall(CMScores):
    def on_epoch_end(self, last_metrics, **kwargs): return add_metrics(last_metrics, self._recall())


class Precision(CMScores):
    def on_epoch_end(self, last_metrics, **kwargs):
        return add_metrics(last_metrics, self._precision())


@dataclass
class FBeta(CMScores):
    beta:float = 2
    def on_train_begin(self, **kwargs):
        super().on_train_begin(**kwargs)
        self.beta2 = self.beta**2
        self.avg = self.average

    def on_epoch_end(self, last_metrics, **kwargs):
        prec, rec = self._precision(), self._recall()
        return add_metrics(last_metrics, (1+self.beta2)*prec*rec/(prec*self.beta2 + rec + self.eps))


@dataclass
class KappaScore(ConfusionMatrix):
    def on_epoch_end(self, last_metrics, **kwargs):
        expected = torch.outer(self.cm.sum(0), self.cm.sum(1))/self.cm.sum()
        wrong = 1 - torch.eye(self.n_classes)
        return add_metrics(last_metrics, 1 - (wrong*self.cm).sum()/(wrong*expected).sum())


class MatthewsCorreff(ConfusionMatrix):
    def on_epoch_end(self, last_metrics, **kwargs):
        t_sum, p_sum = self.cm.sum(1), self.cm.sum(0)
        n_correct, n_samples = self.cm.trace(), p_sum.sum()
        cov_ytyp = n_correct*n_samples - t_sum @ p_sum
        cov_ypyp, cov_ytyt = n_samples**2 - p_sum @ p_sum, n_samples**2 - t_sum @ t_sum
        return add_metrics(last_metrics, cov_ytyp/(cov_ytyt*cov_ypyp).sqrt())


def scores_by_hand(preds, targets):
    "Recall, precision, F2, kappa and Matthews' coefficient from what they mean, class by class"
    rec, prec = [], []
    for c in range(3):
        hits = sum(p == t == c for p, t in zip(preds, targets))
        rec.append(hits/max(targets.count(c), 1))
        prec.append(hits/max(preds.count(c), 1))
    r, p, n = sum(rec)/3, sum(prec)/3, len(preds)
    agree = sum(a == b for a, b in zip(preds, targets))/n
    chance = sum(preds.count(c)*targets.count(c) for c in range(3))/n**2
    def cov(a, b): return sum((np.array(a) == c).astype(float).dot(np.array(b) == c)/n
                              - a.count(c)*b.count(c)/n**2 for c in range(3))
    mcc = cov(preds, targets)/math.sqrt(cov(preds, preds)*cov(targets, targets))
    return [r, p, 5*p*r/(4*p + r), (agree-chance)/(1-chance), mcc]


def test_metrics_that_are_callbacks():
    kinds = [Recall(), Precision(), FBeta(beta=2), KappaScore(), MatthewsCorreff()]
    learn = make(metrics=[accuracy, *kinds])
    learn.fit(2)
    names = ['accuracy', 'recall', 'precision', 'f_beta', 'kappa_score', 'matthews_correff']
    assert learn.recorder.names[2:] == names
    x, y = numbers()
    preds = plain(2)[0](x[N:]).argmax(1)
    want = scores_by_hand(preds.tolist(), y[N:].tolist())
    assert learn.recorder.values[-1][3:] == pytest.approx(want, abs=1e-5)
    assert learn.validate()[2:] == pytest.approx(want, abs=1e-5)


def test_a_table_as_a_metric_is_no_number():
    matrix = ConfusionMatrix()
    learn = make(metrics=[matrix, accuracy])
    learn.fit(1)
    assert matrix.metric.sum() == N_VALID and learn.recorder.values[0][2] is None


class Moments(Callback):
    "Writes down what it is told"
    def __init__(self): self.heard = []

    def on_epoch_end(self, last_metrics, **kwargs):
        self.heard.append('epoch_end')
        return add_metrics(last_metrics, float(len(self.heard)))


for name in ('train_begin', 'epoch_begin', 'batch_begin', 'batch_end', 'train_end'):
    def moment(self, name=name, **kwargs):
        self.heard.append(name)
        self.told = getattr(self, 'told', {}) | {name: kwargs}
    setattr(Moments, f'on_{name}', moment)


def test_a_metric_has_all_its_moments():
    metric = Moments()
    learn = make(metrics=[metric])
    learn.fit(2)
    epoch = ['epoch_begin', *['batch_begin', 'batch_end']*3, 'epoch_end']
    assert metric.heard == ['train_begin', *epoch*2, 'train_end']
    assert metric.told['train_begin']['n_epochs'] == 2
    assert metric.told['batch_end']['iteration'] == 12 and not metric.told['batch_end']['train']
    assert metric.told['train_end']['exception'] is False
    assert [o[2] for o in learn.recorder.values] == [9., 17.]


def test_a_failing_fit_is_told_to_metrics():
    metric = Moments()
    class Fails(Callback):
        def after_epoch(self): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): make(metrics=[metric], cbs=Fails).fit(1)
    assert isinstance(metric.told['train_end']['exception'], ZeroDivisionError)


# ---- the learner ---------------------------------------------------------------------------------
class Confident(LearnerCallback):
    "Asks the learner for all predictions when an epoch ends"
    def on_epoch_end(self, **kwargs):
        preds, targets = self.learn.get_preds(ds_type=DatasetType.Valid)
        self.found = preds.sum(1), (preds.argmax(1) == targets).float().mean().item()
        self.again = self.learn.validate(self.learn.data.valid_dl)


def test_predictions_in_the_middle_of_a_fit():
    learn = make()
    learn.fit(2, callbacks=[cb := Confident(learn)])
    torch.testing.assert_close(cb.found[0], torch.ones(N_VALID))  # probabilities, as in fastai v1
    assert cb.found[1] == pytest.approx(learn.recorder.values[-1][2])
    assert cb.again == pytest.approx(learn.recorder.values[-1][1:], rel=1e-4)
    same(learn.model, plain(2)[0])


class Looks(LearnerCallback):
    "Reads what v1's recorder keeps"
    def on_epoch_end(self, epoch, num_batch, **kwargs):
        rec = self.learn.recorder
        self.seen = dict(losses=rec.losses[-1], metrics=list(rec.metrics), val=list(rec.val_losses),
                         lrs=rec.lrs[-1], opt=rec.opt.lr, own=self.recorder.names)
        self.stacked = torch.stack(rec.losses)


def test_what_the_recorder_keeps():
    learn = make()
    learn.fit(2, callbacks=[cb := Looks(learn)])
    seen, smooth = cb.seen, plain(2)[1]
    assert isinstance(seen['losses'], Tensor)
    assert cb.stacked.tolist() == pytest.approx(smooth, rel=1e-4)
    assert [o[0].item() for o in seen['metrics']] == [o[2] for o in learn.recorder.values]
    assert seen['own'][0] == 'epoch' and seen['own'][-1] == 'time' and seen['opt'] == seen['lrs']
    assert cb.learn is learn and learn.recorder.names[0] == 'train_loss'  # ours, after the fit


def test_callbacks_are_lists_to_append_to():
    learn = make()
    learn.callback_fns.append(partial(GradientStats, clip=.3))
    learn.callbacks.append(SaveBest(learn))
    learn.callbacks += [WarmUp(learn)]
    assert [type(o) for o in learn.callbacks] == [GradientStats, SaveBest, WarmUp]
    assert learn.gradient_stats.clip == .3 and len(learn.callback_fns) == 3
    del learn.callbacks[1]
    learn.callbacks = [o for o in learn.callbacks if not isinstance(o, WarmUp)]
    assert [type(o) for o in learn.callbacks] == [GradientStats]
    learn.fit(1)
    assert len(learn.gradient_stats.norms) == 6
    copy.deepcopy(learn)


def test_the_view_is_gone_when_a_fit_fails(tmp_path):
    class Fails(LearnerCallback):
        def on_batch_end(self, **kwargs):
            assert self.learn.recorder.names[0] == 'epoch'
            raise ZeroDivisionError
    learn = make(tmp_path, cbs=(cb := Fails(None)))
    with pytest.raises(ZeroDivisionError): learn.fit(1)
    assert cb.learn is learn
    with pytest.raises(FileNotFoundError): learn.load('nothing', purge=False)


def test_one_star_brings_what_such_files_live_on():
    lines = ['from fastloop.adapters.fastai1 import *',
             'class A(LearnerCallback):',
             '    def f(self, a:Any, b:Tuple[int], c:MetricsList, d:Rank0Tensor)->PBar: pass',
             'assert is_listy([1]) and is_tuple((1,)) and ifnone(None, 1) == 1',
             'assert add_metrics([1], [2]) == {"last_metrics": [1, 2]}',
             'assert format_time(61) == "01:01" and isinstance(1., Floats)',
             'assert callbacks.tracker.SaveModelCallback is SaveModelCallback',
             'names = Tensor, Scheduler, Learner, Callback, CallbackHandler, nn, F, np, partial',
             'import sys',
             'print([o for o in ("matplotlib", "pandas") if o in sys.modules])']
    done = Program('\n'.join(lines)).end()
    assert done.stdout == '[]\n', done.stderr


def test_weights_through_a_file_object():
    learn, file = make(), io.BytesIO()
    class Keeps(LearnerCallback):
        def on_train_begin(self, **kwargs): self.learn.save(file)
        def on_train_end(self, **kwargs):
            file.seek(0)
            self.learn.load(file)
    learn.fit(1, callbacks=[Keeps(learn)])
    same(learn.model, net())




# ---- the model's mode, two optimizers, a search --------------------------------------------------
class FreezeBatchNorm(LearnerCallback):
    "Keeps the statistics of batch norm as they are"
    def on_epoch_begin(self, **kwargs:Any)->None:
        for m in self.learn.model.modules():
            if isinstance(m, nn.BatchNorm1d): m.eval()


def test_batch_norm_stays_frozen_in_training():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    learn = Learner(make().data, model, F.cross_entropy, lr=.1, silent=True,
                    callback_fns=FreezeBatchNorm)
    modes = []
    class Modes(Callback):
        def begin_batch(self): modes.append([m.training for m in self.model] + [self.in_train])
    learn.fit(2, cbs=Modes)
    assert model[1].running_mean.tolist() == [0.]*3
    train = [o[:2] for o in modes if o[2]]
    assert train == [[True, False]]*12  # and batch norm alone
    assert [o[:2] for o in modes if not o[2]] == [[False, False]]*6
    learn.remove_cbs(learn.freeze_batch_norm)
    learn.fit(1)
    assert model[1].running_mean.tolist() != [0.]*3


class TwoOptimizers(LearnerCallback):
    "Trains one half of the model, then the other, each with an optimizer of its own"
    def on_train_begin(self, **kwargs):
        self.opts = [self.learn.opt.new([m]) for m in (self.learn.model[0], self.learn.model[2])]
        self.before = self.learn.opt

    def on_batch_begin(self, iteration, train, **kwargs):
        if train: self.learn.opt = self.opts[iteration % 2]

    def on_backward_begin(self, last_loss, **kwargs): return {'last_loss': 2*last_loss}

    def on_step_end(self, **kwargs): self.learn.model.zero_grad()

    def on_train_end(self, **kwargs): self.learn.opt = self.before


def test_two_optimizers_take_turns():
    learn = make()
    learn.fit(1, callbacks=[TwoOptimizers(learn)])
    model = net()
    opts, (x, y) = [torch.optim.SGD(m.parameters(), lr=.1) for m in (model[0], model[2])], numbers()
    for i, (xb, yb) in enumerate(batches(x[:N], y[:N])):
        (2*F.cross_entropy(model(xb), yb)).backward()
        opts[i % 2].step()
        model.zero_grad()
    same(learn.model, model)


class OwnLRFinder(LearnerCallback):
    "A search for a rate that saves, stops early and loads again"
    def __init__(self, learn, start_lr:float=1e-5, end_lr:float=10, num_it:int=8):
        super().__init__(learn)
        self.data, self.sched = learn.data, Scheduler((start_lr, end_lr), num_it, annealing_exp)

    def on_train_begin(self, pbar, **kwargs:Any)->None:
        pbar.clean_on_interrupt = True
        self.learn.save('tmp', with_opt=False)
        self.opt = self.learn.opt
        self.opt.lr = self.sched.start
        self.best_loss = 0.
        return {'skip_validate': True}

    def on_batch_end(self, iteration:int, smooth_loss:Tensor, train:bool, **kwargs:Any)->None:
        if iteration == 0 or smooth_loss < self.best_loss: self.best_loss = smooth_loss
        self.opt.lr = self.sched.step()
        if self.sched.is_done or smooth_loss > 4*self.best_loss or torch.isnan(smooth_loss):
            return {'stop_epoch': True, 'stop_training': True}

    def on_train_end(self, **kwargs:Any)->None:
        self.learn.load('tmp', with_opt=False, purge=False)
        (self.learn.path/self.learn.model_dir/'tmp.pth').unlink()
        for cb in self.callbacks:
            if hasattr(cb, 'reset'): cb.reset()


def test_a_search_for_a_rate(tmp_path):
    learn = make(tmp_path)
    learn.fit(3, callbacks=[OwnLRFinder(learn)])
    assert learn.recorder.lrs == pytest.approx([1e-5*1e6**(i/8) for i in range(8)])
    assert [o[1] for o in learn.recorder.values] == [None]*2
    same(learn.model, net())
    assert not list((tmp_path/'models').iterdir())


class StopAfterBatches(LearnerCallback):
    def __init__(self, learn, n_batches:int=2):
        super().__init__(learn)
        self.stop, self.n = False, n_batches-1

    def on_batch_end(self, iteration, **kwargs):
        if iteration == self.n:
            return {'stop_epoch': True, 'stop_training': True, 'skip_validate': True}


def test_a_few_batches_and_no_validation():
    learn = make(callback_fns=partial(StopAfterBatches, n_batches=3))
    learn.fit(2)
    assert learn.n_iter == 3 and len(learn.recorder.values) == 1
    assert learn.recorder.values[0][1] is None


class OnlineHardExamples(LearnerCallback):
    "Takes the gradient of the larger half of the losses"
    def on_loss_begin(self, last_output, train, **kwargs): self.out = last_output

    def on_backward_begin(self, last_loss, last_target, **kwargs):
        losses = F.cross_entropy(self.out, last_target, reduction='none')
        return {'last_loss': losses.topk(len(losses)//2)[0].mean()}


def test_the_hardest_examples():
    learn = make(callback_fns=OnlineHardExamples)
    learn.fit(1)
    model, (x, y) = net(), numbers()
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    for xb, yb in batches(x[:N], y[:N]):
        F.cross_entropy(model(xb), yb, reduction='none').topk(BS//2)[0].mean().backward()
        opt.step()
        opt.zero_grad()
    same(learn.model, model)


class GraphShower(LearnerCallback):
    "Hands the curves to the bar"
    def on_epoch_end(self, n_epochs:int, last_metrics:MetricsList, **kwargs)->None:
        rec = self.learn.recorder
        iters, val_iter = list(range(len(rec.losses))), np.array(rec.nb_batches).cumsum()
        self.x_bounds = (0, (n_epochs - len(rec.nb_batches))*rec.nb_batches[-1] + len(rec.losses))
        self.y_bounds = (0, max(max(Tensor(rec.losses)), max(Tensor(rec.val_losses))).item())
        rec.pbar.update_graph([(iters, rec.losses), (val_iter, rec.val_losses)], self.x_bounds,
                              self.y_bounds)


def test_curves_for_the_bar():
    learn = make(callback_fns=GraphShower)
    learn.fit(2)
    assert learn.graph_shower.x_bounds == (0, 12)
    assert learn.graph_shower.y_bounds[1] == pytest.approx(max(
        *learn.recorder.losses, *learn.recorder.val_losses), rel=1e-5)


class MemoryLike(LearnerCallback):
    "Several columns at once"
    _order = -20
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['cpu used', 'peak'])

    def on_epoch_begin(self, **kwargs): self.peak = 0

    def on_batch_end(self, num_batch, **kwargs): self.peak = max(self.peak, num_batch)

    def on_epoch_end(self, last_metrics:MetricsList, epoch, **kwargs):
        return add_metrics(last_metrics, [epoch, self.peak])


class LateColumn(LearnerCallback):
    "One more, behind all others"
    _order = 99
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['late'])

    def on_epoch_end(self, last_metrics, **kwargs):
        return add_metrics(last_metrics, len(last_metrics))


def test_columns_of_every_order():
    learn = make(callback_fns=[LateColumn, MemoryLike])
    for _ in range(2): learn.fit(2)
    assert learn.recorder.names[2:] == ['accuracy', 'cpu used', 'peak', 'late']
    assert [o[3:] for o in learn.recorder.values] == [[0, 6, 4], [1, 6, 4]]


# ---- first months, and files that change more than a callback ------------------------------------
class FirstMonths(Callback):
    "Keeps the learner itself, and hands its number to the recorder"
    _order = -20
    def __init__(self, learn, **kwargs): self.learn = learn

    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['share'])

    def on_epoch_begin(self, **kwargs): self.output = []

    def on_batch_end(self, last_output, train, **kwargs):
        if not train: self.output.append(last_output)

    def on_epoch_end(self, last_target, last_output, **kwargs):
        assert len(last_target) == len(last_output) and not self.learn.recorder.no_val
        self.learn.recorder.add_metrics([(torch.cat(self.output).argmax(1) == 0).float().mean()])


def test_the_recorder_takes_numbers_too():
    learn = make()
    learn.fit(2, callbacks=[FirstMonths(learn)])
    x, y = numbers()
    share = (plain(2)[0](x[N:]).argmax(1) == 0).float().mean().item()
    assert learn.recorder.names[-1] == 'share'
    assert learn.recorder.values[-1][-1] == pytest.approx(share)


class BestOfTwo(TrackerCallback):
    "Calls what dataclasses had, and counts epochs from one"
    def __init__(self, learn, monitor:str='val_loss', mode:str='auto', prefix:str='m'):
        super().__init__(learn, monitor=monitor, mode=mode)
        self.best_acc, self.prefix, self.saved = 0.0001, prefix, []
        super().__post_init__()

    def on_epoch_end(self, epoch, **kwargs:Any)->None:
        acc = float(self.learn.recorder.metrics[epoch-1][0])
        val_loss = self.learn.recorder.val_losses[epoch-1]
        if acc > self.best_acc:
            self.best_acc = acc
            self.saved.append(f'{self.prefix}_{int(acc*1000)}_{int(val_loss*1000)}')


def test_numbers_by_epoch():
    learn = make()
    learn.fit(3, callbacks=[partial(BestOfTwo, prefix='net')(learn)])
    rows, best, want = learn.recorder.values, 0.0001, []
    for row in [rows[0], rows[0], rows[1]]:
        if row[2] > best:
            best = row[2]
            want.append(f'net_{int(row[2]*1000)}_{int(row[1]*1000)}')
    assert learn.best_of_two.saved == want


class PatientOptimizer(OptimWrapper):
    "Steps when it is told to, and not when the loop says so"
    def step(self): pass
    def zero_grad(self): pass
    def real_step(self): super().step()
    def real_zero_grad(self): super().zero_grad()


@dataclass
class AccumulateStep(LearnerCallback):
    def __init__(self, learn:Any, n_step:int=1):
        super().__init__(learn)
        self.n_step = n_step

    def on_epoch_begin(self, **kwargs): self.acc_batches = 0

    def on_batch_begin(self, last_input, last_target, train, **kwargs): self.acc_batches += train

    def on_backward_end(self, **kwargs):
        if self.acc_batches % self.n_step: return
        for p in self.learn.model.parameters():
            if p.requires_grad: p.grad.div_(self.n_step)
        self.learn.opt.real_step()
        self.learn.opt.real_zero_grad()


def test_an_optimizer_that_waits():
    class Patient(Learner):
        def create_opt(self, lr:Floats=None, wd:Floats=0.):
            super().create_opt(lr, wd)
            self.opt = PatientOptimizer.create(self.opt_func, lr, self.layer_groups, wd=wd,
                                               true_wd=self.true_wd, bn_wd=self.bn_wd)
    learn = Patient(make().data, net(), F.cross_entropy, opt_func=SGD, lr=.1, wd=0., silent=True)
    learn.fit(1, callbacks=[AccumulateStep(learn, 2)])
    def step(i, model, opt):
        if i % 2 == 0: return
        for p in model.parameters(): p.grad /= 2
        opt.step()
        opt.zero_grad()
    same(learn.model, plain(1, step)[0])


class ActivationPenalty(LearnerCallback):
    "Changes the loss in place, in training alone"
    def on_loss_begin(self, last_output, **kwargs):
        if self.learn.model.training:
            self.raw = last_output
            return {'last_output': last_output*1}

    def on_backward_begin(self, last_loss, **kwargs):
        if self.learn.model.training:
            last_loss += .1*self.raw.pow(2).mean()
            return {'last_loss': last_loss}


def test_a_loss_that_is_changed_in_place():
    learn = make(callback_fns=ActivationPenalty)
    learn.fit(1)
    model, (x, y) = net(), numbers()
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    for xb, yb in batches(x[:N], y[:N]):
        out = model(xb)
        (F.cross_entropy(out, yb) + .1*out.pow(2).mean()).backward()
        opt.step()
        opt.zero_grad()
    same(learn.model, model)
    assert learn.recorder.values[0][1] == pytest.approx(valid_numbers(model)[0], rel=1e-4)


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x): return self.module(x)


class WrapWhileTraining(LearnerCallback):
    "Trains the model inside another, as for several devices"
    def on_train_begin(self, **kwargs): self.learn.model = Wrapped(self.learn.model)

    def on_train_end(self, **kwargs): self.learn.model = self.learn.model.module


def test_a_model_that_is_wrapped_while_it_trains():
    learn = make(callback_fns=WrapWhileTraining)
    for _ in range(2): learn.fit(1)
    assert isinstance(learn.model, nn.Sequential)
    same(learn.model, plain(2)[0])


def test_a_batch_of_the_kind_that_is_asked_for():
    data = make().data
    x, y = numbers()
    assert torch.equal(data.one_batch(DatasetType.Valid)[0], x[N:N+BS])
    assert torch.equal(data.one_batch(DatasetType.Train)[0], x[:BS])
    assert data.batch_size == BS


def test_a_tracker_without_validation_has_nothing_to_track():
    learn, trial = make(), []
    learn.data.valid_dl = None
    learn.fit(2, callbacks=[Pruning(learn, trial)])
    assert trial == [] and len(learn.recorder.values) == 2


@pytest.mark.parametrize('average', ['macro', 'weighted', 'micro'])
def test_the_metrics_that_the_star_brings(average):
    kinds = [getattr(fastai1, o)(average) for o in ('Recall', 'Precision', 'FBeta')]
    others = [fastai1.KappaScore(), fastai1.MatthewsCorreff()]
    learn = make(metrics=[*kinds, *others])
    learn.fit(2)
    x, y = numbers()
    preds, targets = plain(2)[0](x[N:]).argmax(1).tolist(), y[N:].tolist()
    got = learn.recorder.values[-1][2:]
    if average == 'macro': assert got[0:2] + got[3:] == pytest.approx(
        [o for i, o in enumerate(scores_by_hand(preds, targets)) if i != 2], abs=1e-5)
    if average == 'micro': assert got[:3] == pytest.approx([valid_numbers(plain(2)[0])[1]]*3)
    if average == 'weighted':
        f2, recall = [], []
        for c in range(3):
            hits = sum(p == t == c for p, t in zip(preds, targets))
            f2.append(5*hits/max(4*targets.count(c) + preds.count(c), 1)*targets.count(c)/N_VALID)
            recall.append(hits/N_VALID)
        assert got[0] == pytest.approx(sum(recall)) and got[2] == pytest.approx(sum(f2))


@pytest.mark.parametrize('weights', [None, 'linear', 'quadratic'])
def test_kappa_counts_how_far_an_error_is(weights):
    g = torch.Generator().manual_seed(1)
    said, true = torch.randint(4, (2, 60), generator=g)
    metric = fastai1.KappaScore(weights)
    for p, t in zip(said.split(7), true.split(7)):
        metric.on_batch_end(last_output=F.one_hot(p, 4).float(), last_target=t)
    costs = {None: lambda d: float(d > 0), 'linear': lambda d: d, 'quadratic': lambda d: d*d}
    cost = costs[weights]
    seen = np.mean([cost(abs(int(p)-int(t))) for p, t in zip(said, true)])
    chance = np.mean([cost(abs(int(p)-int(t))) for p in said for t in true])
    assert metric.on_epoch_end(last_metrics=[0.])['last_metrics'][1].item() == \
        pytest.approx(1 - seen/chance, rel=1e-4)


@pytest.mark.parametrize('as_answer', [lambda o: o, bool, torch.as_tensor])
def test_what_a_comparison_gives_is_an_answer(as_answer):
    class GoodEnough(LearnerCallback):
        def on_epoch_end(self, epoch, last_metrics, **kwargs):
            return as_answer(last_metrics[0] < rows[1][2] + 1e-4)
    rows, learn = rows_by_hand(2), make(callback_fns=GoodEnough)
    learn.fit(5)
    assert len(learn.recorder.values) == 2


# ---- names, columns and rates that people rely on ------------------------------------------------
@pytest.mark.parametrize('order', [-20, 0, 9, 10, 11, 50, 71, 99, 1000])
def test_a_column_reaches_table_and_files_at_every_order(order, tmp_path):
    class Extra(LearnerCallback):
        _order = order
        def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['extra'])
        def on_epoch_end(self, epoch, last_metrics, **kwargs):
            return {'last_metrics': [*last_metrics, 7. + epoch]}
    learn, history = make(tmp_path, silent=False), History()
    best = SaveModelCallback(monitor='extra', mode='max', verbose=False)
    learn.fit(2, cbs=[CSVLogger(), history, best], callbacks=[Extra(learn)])
    assert [row[-1] for row in learn.recorder.values] == [7., 8.]
    assert read_table(tmp_path/'history.csv')['extra'] == history.history['extra'] == [7., 8.]
    rows = [o.split() for o in learn.progress.text.splitlines()]
    assert rows[0][-2] == 'extra' and [row[-2] for row in rows[1:]] == ['7.000000', '8.000000']
    assert best.best == 8.


def test_the_snippets_of_the_documents_find_their_names():
    namespace = {}
    exec('from fastloop.adapters.fastai1 import *', namespace)
    assert {'simple_cnn', 'Stepper', 'do_annealing_poly', 'resnet34', 'ImageDataBunch',
            'GeneralScheduler', 'AverageMetric', 'CallbackHandler'} <= namespace.keys()
