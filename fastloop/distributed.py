from collections.abc import Callable
from math import inf

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


from fastloop.callback.core import (
    Callback,
    CancelFitException,
    cancels,
    event_handlers,
    events,
    phases,
)
from fastloop.callback.experiment import ExperimentCallback
from fastloop.callback.logger import CSVLogger
from fastloop.callback.lr_finder import LRFinder
from fastloop.callback.recorder import find_recorder
from fastloop.callback.remote import RemoteMonitor
from fastloop.callback.tensorboard import TensorBoardCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.training import GradientAccumulation
from fastloop.core import add_note, be_quiet, check_word
from fastloop.mean_loss import LossRule
from fastloop.ranks import Ranks, is_one_of_many
from fastloop.shared_sums import needs_all, share_losses, share_mean, share_metrics
from fastloop.shares import DealtBatches, agree_on_order, share_training, share_validation
from fastloop.torch_core import (
    batch_size,
    call_model,
    model_device,
    rng_state,
    set_seed,
    to_detach,
)
from fastloop.training_state import read_checkpoint


class WholeCall(nn.Module):
    "A model that is called with a batch in one piece, as the loop calls it"
    def __init__(self, model: nn.Module,  # Any model
                 ask: Callable = call_model,  # Spreads the inputs over its arguments
                 ):
        super().__init__()
        self.model, self.ask = model, ask

    def forward(self, xb: object,  # Inputs of a batch
                ) -> object:  # What the model answers
        "Ask the model"
        return self.ask(self.model, xb)

def same_weights(model: nn.Module,  # The model of this process
                 ):
    "Give all processes the weights and buffers of process 0"
    with torch.no_grad():
        for o in (*model.parameters(), *model.buffers()): dist.broadcast(o, 0)


class SumOverRanks(torch.autograd.Function):
    "The sum of a tensor over all processes; gradients are added up likewise"
    @staticmethod
    def forward(ctx, t):
        t = t.clone()
        dist.all_reduce(t)
        return t

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad

class SharedBatchNorm(nn.BatchNorm1d):
    "Batch norm over the batches of all processes on CPUs, of any number of dimensions"
    def forward(self, x: torch.Tensor,  # (n, channels, …)
                ) -> torch.Tensor:  # The same shape
        "Normalise by mean and variance of all processes together"
        tracked = self.running_mean is not None
        if not self.training and tracked: return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0., self.eps)
        dims, shape = [0, *range(2, x.ndim)], [1, -1] + [1]*(x.ndim-2)
        n = torch.full_like(x[0].flatten(1).sum(1) if x.ndim > 2 else x[0], x.numel()/x.shape[1])
        total, n = SumOverRanks.apply(torch.stack([x.sum(dims), n.detach()]))
        off = x - (mean := total/n.detach()).view(shape)
        var = SumOverRanks.apply(off.square().sum(dims))/n.detach()
        if tracked: self.note(mean.detach(), (var*n/(n-1)).detach())
        x = off/(var + self.eps).sqrt().view(shape)
        return x*self.weight.view(shape) + self.bias.view(shape) if self.affine else x

    def note(self, mean: torch.Tensor,  # For each channel
             var: torch.Tensor,  # Unbiased, for each channel
             ):
        "Take a batch into the running statistics"
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1/float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var, share)

def share_batch_norm(model: nn.Module,  # Any model
                     ) -> nn.Module:  # The same; another one if it is a batch norm on a GPU itself
    "Let all batch norms of a model see the batches of all processes"
    if model_device(model).type == 'cuda': return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for o in model.modules():
        if type(o) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            o.__class__ = SharedBatchNorm
    return model


def in_pieces(model: nn.Module,  # On its device, the same in all processes
              options: dict,  # Keywords for `fully_shard`
              ) -> nn.Module:  # The same model; each process holds a piece of each parameter
    "Shard a model, layer by layer"
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = options.pop('mesh', None)
    if mesh is None: mesh = init_device_mesh(model_device(model).type, (dist.get_world_size(),))
    for layer in model.children():
        if any(True for _ in layer.parameters()) and not isinstance(layer, nn.ModuleList):
            fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)

def set_reshard(model: nn.Module,  # A model in pieces
                on: bool,  # Whether layers go into pieces again when they have answered
                ):
    "Keep a model whole to ask it, or take it into pieces again"
    for o in model.modules():
        if not hasattr(o, 'unshard'): continue
        o.set_reshard_after_forward(on, recurse=False)
        o.reshard() if on else o.unshard()


class ShownLoss(torch.autograd.Function):
    "A loss that shows one value, and whose gradient is multiplied"
    @staticmethod
    def forward(ctx, loss, value, factor):
        ctx.factor = factor
        return torch.full_like(loss, value)

    @staticmethod
    def backward(ctx, grad): return grad*ctx.factor, None, None

class ToldRule:
    "Says what a batch counts, in place of a `LossRule`"
    def __init__(self, rule: LossRule,  # Of the loss
                 ):
        self.loss_func, self.summed, self.told = rule.loss_func, rule.summed, 0.

    def weight(self, xb: object,  # Ignored
               yb: object,  # Ignored
               ) -> float:  # The same in all processes
        "What the batch of a process counts on average"
        return self.told

def counts_labels(rule: LossRule,  # Of the loss
                  dl: object,  # The training loader
                  ) -> bool:  # Whether batches of one size may count differently
    "Do weights of classes, or labels to be ignored, decide how much a batch counts?"
    if rule.says: return True
    if rule.rules is None: return False
    weight, ignored = rule.rules
    labels = getattr(getattr(dl, 'dataset', None), 'tensors', [None])[-1]
    if weight is not None or labels is None: return True
    return not labels.is_floating_point() and bool((labels == ignored).any())


writers = CSVLogger, TensorBoardCallback, RemoteMonitor, ExperimentCallback
_onlookers = 'DashboardCallback',  # of rooms that come later, or of others

def writes(cb: object,  # A callback written for any library
           ) -> bool:  # Whether only process 0 needs it
    "Does a callback do nothing but pass on what happens?"
    return (isinstance(cb, writers) or type(cb).__name__ in _onlookers
            or bool(getattr(type(cb), 'only_first_process', False)))

def hush(cb: object,  # A callback
         ):
    "Let a callback hear of nothing; it stays where it is"
    for event, handler in event_handlers(cb): vars(cb)[handler.__name__] = vars(cb)[event] = None


stages = (('after_step', 'after_batch', 'after_cancel_batch'),
          ('begin_batch', 'after_pred', 'after_loss', 'begin_backward'),
          ('after_backward', 'begin_step'))
failed = 99  # what a process brings to the next meeting when it cannot go on
widths = {phase: len(phases)-i for i, phase in enumerate(phases)}  # the widest is the largest

def may_break_off(cb: object,  # A callback
                  ) -> bool:  # Whether it may do so in one process alone
    "May a callback break off something inside a pass?"
    home = type(cb).__module__.split('.')[0]
    return home != 'fastloop' or isinstance(cb, TerminateOnNaNCallback)

def watched_stages(run: object,  # A runner
                   ) -> list:  # A truth for each of `stages`
    "Between which meetings in a batch might somebody break off?"
    return [any(may_break_off(cb) for event in stage for cb, _ in run.handlers[event])
            for stage in stages]


def counts_differ(rule: LossRule,  # Of the loss
                  dl: object,  # The training loader
                  ) -> bool:  # Whether each batch has to be weighed
    "May batches of two processes count differently?"
    return counts_labels(rule, dl) or isinstance(dl, DealtBatches)

def weigh_loss(cb: Callback,  # The callback below
               ):
    "Weigh the loss of this process, so that the average of all gradients is that of all rows"
    run, rule, ranks = cb.run, cb.rule, cb.ranks
    loss, weight = float(run.loss.detach()), float(rule.weight(run.xb, run.yb))
    sums = ranks.total([weight, loss if rule.summed else loss*weight if weight else 0.])
    mean = sums[0]/ranks.count
    if cb.gathering is not None:
        if not isinstance(cb.gathering.rule, ToldRule): cb.gathering.rule = ToldRule(rule)
        cb.gathering.rule.told = mean
    factor = ranks.count if rule.summed else weight/mean if mean else 1.
    if cb.finder is not None: loss = sums[1] if rule.summed else sums[1]/sums[0]
    run.loss = ShownLoss.apply(run.loss, loss, factor)

def forget_batches(recorder: Callback,  # A `Recorder`
                   n: int,  # How many
                   ):
    "Strike out batches that another process had broken off before it had a loss"
    sizes = recorder.sizes[:-n]
    recorder.history.load_state_dict(dict(raw=recorder.raw_losses[:-n], beta=recorder.beta))
    recorder.weights.reset()
    for o in sizes: recorder.weights.add(o)
    del recorder.lrs[-n:], recorder.moms[-n:]

def begin_together(learn: object,  # A learner
                   cb: Callback,  # The callback below
                   ):
    "Give all processes the same model, other random numbers, and one that speaks"
    rank, model, split = cb.ranks.rank, learn.model, False
    if cb.sync_bn: model = share_batch_norm(model)
    same_weights(model)
    if cb.strategy == 'fsdp': model = in_pieces(model, dict(cb.options))
    learn.model = model
    if hasattr(learn, 'split') and (cb.sync_bn or cb.strategy == 'fsdp'):
        learn.split(learn.origin[0])
    share_training(learn.data.train_dl, cb.ranks)
    set_seed(torch.initial_seed() + 7919*rank)  # other dropout, other augmentation
    if rank:
        be_quiet()
        learn.silent = True

def tell_failure(ranks: Ranks,  # The processes
                 e: BaseException,  # What has ended the fit of this one
                 ):
    "Tell the others why they wait in vain, or ourselves why we did"
    if first := ranks.said(): add_note(e, f'another process failed first: {first}')
    elif isinstance(e, RuntimeError) and ('gloo' in str(e) or 'NCCL' in str(e)): add_note(
        e, f'another process has ended, or did not answer within {ranks.timeout:g} seconds')
    patience = min(5., ranks.timeout) if isinstance(e, Exception) else .2
    ranks.fail(failed, f'{type(e).__name__}: {e}'[:500], patience)


class Meetings:
    "When the processes of a fit meet, and what they break off together"
    def __init__(self, ranks: object,  # The processes
                 ):
        self.ranks, self.inside, self.over, self.told = ranks, False, False, False
        self.closed = False  # whether the epoch is over
        self.due, self.watched = 0, [False]*3  # the stage that we are in; where meetings are

    def meet(self, code: int = 0,  # What this process breaks off; see `widths`
             known: tuple = (),  # Phases that are over here
             ):
        """Wait for the others, and break off what one of them breaks off

        Raises: a cancel exception; RuntimeError if another process has failed.
        """
        found = self.ranks.meet(code)
        if found == failed: raise RuntimeError(f'another process has failed: {self.ranks.said()}')
        phase = next((k for k, v in widths.items() if v == found), None)
        if found <= code or phase in known: return
        self.told = True
        raise cancels[f'begin_{phase}']

    def begin_pass(self, watched: list,  # A truth for each of `stages`
                   ):
        "The last meeting before the batches"
        self.meet()
        self.watched = [bool(o) for o in self.ranks.total([float(o) for o in watched])]
        self.inside, self.due = True, 0

    def pass_by(self, i: int,  # Number of the stage that ends here
                ):
        "A meeting inside a batch, if somebody might have broken off something"
        if not self.inside: return
        self.due = (i+1) % 3
        if self.watched[i]: self.meet()

    def end_pass(self):
        "The meeting after the batches"
        if not self.inside: return
        self.inside = False
        self.meet(known=('train', 'batch', 'backward', 'step'))

    def end_epoch(self):
        "The meeting after an epoch, unless it was broken off"
        if not self.closed: self.meet(known=phases[1:])
        self.closed = True

    def end_fit(self):
        "The last meeting"
        if not self.over: self.meet(known=phases)
        self.over = True

    def left(self, phase: str,  # What was broken off here
             ):
        "Tell the others, unless it was they who told us"
        told, self.told, due, inside = self.told, False, self.due, self.inside
        wide = phase in ('train', 'epoch', 'fit')
        if wide:
            self.inside, self.over = False, self.over or phase == 'fit'
            self.closed = self.closed or phase == 'epoch'
        elif not inside or not due: return  # the batch is over, or nobody waits for it
        else: self.due = 2 if phase == 'backward' else 0
        if not told and (self.watched[due] if inside else wide): self.meet(widths[phase])


class DistributedCallback(Callback):
    """Trains one model in several processes, each of which has a share of the rows

    Raises: ValueError if `strategy` is not known.
    Source: PyTorch's `DistributedDataParallel` and `fully_shard`; all the arithmetic is theirs.
    """
    name, can_resume, ranks, net, meetings = 'distributed', True, None, None, None
    plain = finder = gathering = rule = kept = trained = None
    uneven, sharing, gathered, done = False, False, True, 0  # done: losses of this epoch that are those of all
    orders = {**dict.fromkeys(('begin_fit', 'begin_batch', 'after_train', 'after_fit',
                               'after_cancel_batch', 'after_cancel_step', 'after_cancel_backward',
                               'after_cancel_train', 'after_cancel_epoch', 'after_cancel_fit'),
                              -inf),
              **dict.fromkeys(('begin_train', 'begin_backward', 'begin_step'), inf),
              **dict.fromkeys(('after_loss', 'after_validate', 'after_epoch'), -11),
              'begin_validate': -18.5}

    def __init__(self, learn: object = None,  # The learner
                 strategy: str = 'ddp',  # `ddp`: each process has the model; `fsdp`: a piece of it
                 sync_bn: bool = False,  # Let batch norm see the batches of all processes
                 timeout: float = 600.,  # Seconds to wait for another process at most
                 **options: object,  # For torch's `DistributedDataParallel` or `fully_shard`
                 ):
        super().__init__(learn)
        self.strategy = check_word('strategy', strategy, ('ddp', 'fsdp'))
        self.sync_bn, self.timeout, self.options = sync_bn, timeout, options

    # ---- before a fit ----------------------------------------------------------------------------
    def join(self):
        "Find the other processes; nothing happens if there are none"
        if self.ranks is not None or not is_one_of_many(): return
        self.ranks = Ranks.join(model_device(self.learn.model), self.timeout)
        begin_together(self.learn, self)

    def set_runner(self, run: object,  # The runner that will announce events
                   ):
        "Before the first event: join the others, and hush those who would write a second time"
        super().set_runner(run)
        if run.learn is not None: self.join()
        if self.ranks is None or not self.ranks.rank: return
        for cb in run.cbs:
            if writes(cb): hush(cb)

    def begin_fit(self):
        "Agree on the order of the rows, and let the loop call the model by way of torch"
        run, self.net, self.sharing, self.done = self.run, None, False, 0
        self.gathered = True
        if self.ranks is None: return
        if not self.ranks.open: raise RuntimeError(
            'the processes have parted: start them again')
        self.meetings = Meetings(self.ranks)
        if not run.epochs: return
        data, self.sharing = self.learn.data, True
        dl = share_training(data.train_dl, self.ranks)
        if dl is not data.train_dl: data.train_dl = dl
        agree_on_order(dl, self.ranks)
        self.finder, self.gathering = (next((cb for cb in run.cbs if isinstance(cb, o)), None)
                                       for o in (LRFinder, GradientAccumulation))
        self.rule = LossRule(self.learn.loss_func)
        self.uneven = bool(self.ranks.meet(counts_differ(self.rule, dl)))
        self.plain, run.ask = run.ask, self.ask

    def ask(self, model: nn.Module,  # Any model
            xb: object,  # Inputs of a batch
            ) -> object:  # What it answers
        "Ask the model; in training by way of torch, which averages the gradients later"
        mine = self.net is not None and self.run.in_train and model is self.learn.model
        return self.net(xb) if mine else self.plain(model, xb)

    # ---- a pass over the training data -----------------------------------------------------------
    def begin_epoch(self):
        "No loss of this epoch is known yet"
        self.done = 0
        if self.sharing: self.meetings.closed = False

    def begin_train(self):
        "Let torch average the gradients of what is trained now"
        if self.ranks is None: return
        self.meetings.begin_pass(watched_stages(self.run))
        self.gathered = False
        trained = [id(p) for p in self.learn.model.parameters() if p.requires_grad]
        if self.strategy == 'fsdp' or self.net is not None and trained == self.trained: return
        self.trained, model = trained, WholeCall(self.learn.model, self.plain)
        self.net = DistributedDataParallel(model, **self.options) if trained else None

    def begin_batch(self):
        "Average the gradients in this batch, unless a window stays open"
        if not self.sharing or not self.run.in_train: return
        self.meetings.pass_by(0)
        if (window := self.gathering) is None or self.net is None: return
        size = batch_size(self.run.xb, self.run.yb)
        self.net.require_backward_grad_sync = window.is_full(window.samples+size, window.batches+1)

    def after_loss(self):
        "Weigh this loss among those of the others, or keep what a metric has to see"
        run = self.run
        if not self.sharing: return
        if not run.in_train:
            if self.kept is not None: self.kept.append(to_detach((run.pred, run.yb)))
            return
        if self.rule.summed or self.uneven or self.finder is not None: weigh_loss(self)

    def begin_backward(self):
        "The last meeting before gradients travel"
        if self.sharing: self.meetings.pass_by(1)

    def begin_step(self):
        "The last meeting before the step"
        if self.sharing: self.meetings.pass_by(2)

    def after_train(self):
        "All have done the same batches; their buffers are those of process 0"
        if not self.sharing: return
        self.meetings.end_pass()
        for o in self.learn.model.buffers(): dist.broadcast(o, 0)

    # ---- measuring -------------------------------------------------------------------------------
    def begin_validate(self):
        "Take a share of the rows, where somebody measures"
        if self.ranks is None or (recorder := find_recorder(self.run)) is None: return
        self.run.dl, self.sharing = share_validation(self.run.dl, self.ranks), True
        self.kept = [] if any(map(needs_all, recorder.metrics)) else None
        if self.strategy == 'fsdp': set_reshard(self.learn.model, on=False)

    def after_validate(self):
        "Loss and metrics are those of all rows"
        if not self.sharing: return
        if self.strategy == 'fsdp': set_reshard(self.learn.model, on=True)
        self.meetings.meet(known=('validate',))
        recorder, kept, self.kept = find_recorder(self.run), self.kept, None
        if recorder is None: return
        share_mean(recorder.valid.mean, self.ranks)
        share_metrics(recorder.metrics, kept or [], self.ranks)

    def gather_losses(self, last: bool = False,  # Whether the epoch is over
                      ) -> bool:  # `False` if the fit has failed, and nobody can be asked
        "Let the training losses written down so far be those of all processes together"
        if self.run.exception is not None: return False
        self.gathered = last
        recorder = find_recorder(self.run)
        if recorder is None: return True
        mine = len(recorder.weights)-self.done
        new = -self.ranks.meet(-mine)
        if mine > new: forget_batches(recorder, mine-new)
        if not new: return True
        losses, sizes, rule = recorder.raw_losses, recorder.sizes, recorder.rule
        found, weights = share_losses(losses[-new:], sizes[-new:], rule.summed, self.ranks)
        recorder.history.load_state_dict(dict(raw=losses[:-new] + found, beta=recorder.beta))
        recorder.weights.reset()
        for o in (*sizes[:-new], *weights): recorder.weights.add(o)
        self.done += new
        return True

    def after_epoch(self):
        "The losses of this epoch are those of all processes together"
        if not self.sharing: return
        try: self.meetings.end_epoch()
        except CancelFitException:
            self.gather_losses(last=True)
            raise
        self.gather_losses(last=True)

    # ---- the end, and what is broken off ---------------------------------------------------------
    def left(self, phase: str,  # What was broken off
             ):
        "Tell the others"
        if self.sharing: self.meetings.left(phase)

    def after_cancel_batch(self): self.left('batch')
    def after_cancel_backward(self): self.left('backward')
    def after_cancel_step(self): self.left('step')
    def after_cancel_train(self): self.left('train')
    def after_cancel_epoch(self): self.left('epoch')
    def after_cancel_fit(self): self.left('fit')

    def after_fit(self):
        "Tell the others if something went wrong, and leave nothing behind"
        sharing, run, self.sharing, self.net = self.sharing, self.run, False, None
        self.kept = self.finder = self.gathering = None
        vars(run).pop('ask', None)
        if not sharing: return
        if run.exception is not None: tell_failure(self.ranks, run.exception)
        elif run.epochs:
            self.meetings.end_fit()
            if not self.gathered: self.gather_losses(last=True)

    # ---- checkpoints -----------------------------------------------------------------------------
    def all_random(self) -> dict:  # Plain data
        "The random numbers of all processes, and what each has gathered for its next step"
        mine, window = rng_state(), self.gathering
        grads = window.state_dict()['grads'] if window is not None and self.sharing else None
        return dict(random=mine, ranks=self.ranks.gather(mine), windows=self.ranks.gather(grads))

    def newest(self, files: object,  # The folder of checkpoints
               ) -> tuple:  # Path and state; twice `None` if there is none
        "The checkpoint that process 0 takes"
        path, state = files.newest() if not self.ranks.rank else (None, None)
        path = self.ranks.share(path)
        if self.ranks.rank and path is not None: state = read_checkpoint(path)
        return path, state

    def taken_up(self, state: dict,  # A checkpoint
                 ):
        "Go on with what was gathered before"
        recorder, windows = find_recorder(self.run), state.get('windows') or []
        self.done = 0 if recorder is None else len(recorder.weights)
        if self.gathering is not None and len(windows) == self.ranks.count:
            self.gathering.pending = windows[self.ranks.rank] or None


def join_processes(learn: object,  # The learner
                   strategy: str = 'ddp',  # `ddp`: each process has the model; `fsdp`: a piece of it
                   sync_bn: bool = False,  # Let batch norm see the batches of all processes
                   timeout: float = 600.,  # Seconds to wait for another process at most
                   **options: object,  # For torch's `DistributedDataParallel` or `fully_shard`
                   ) -> object:  # The same learner
    """What `learn.to_distributed` does

    Raises: ValueError if `strategy` is not known; RuntimeError in a fit.
    """
    new = DistributedCallback(None, strategy, sync_bn, timeout, **options)
    if getattr(learn, 'running', False): raise RuntimeError('to_distributed: a fit is running')
    if not is_one_of_many(): return learn
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, DistributedCallback)])
    learn.add_cbs(new)
    new.join()
    return learn
