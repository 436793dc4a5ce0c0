"""Callbacks as users of fastai v2 publish them: read after a star of fastai, or of ours

`made` names what each test makes of them; `left` what is compared afterwards.
"""
# ruff: noqa: F405, F821


class SharpnessAware(Callback):
    "Climbs to the worst point nearby, takes the gradient there, and steps from where it was"
    run_valid = False
    def __init__(self, rho=.05): self.rho, self.left = rho, []
    def before_step(self):
        grads = [p.grad.clone() for p in self.model.parameters()]
        norm = torch.stack([g.norm() for g in grads]).norm()
        moves = [g*self.rho/(norm+1e-12) for g in grads]
        with torch.no_grad():
            for p, e in zip(self.model.parameters(), moves): p.add_(e)
        self.opt.zero_grad()
        loss = self.learn.loss_func(self.model(*self.xb), *self.yb)
        loss.backward()
        with torch.no_grad():
            for p, e in zip(self.model.parameters(), moves): p.sub_(e)
        self.left.append(loss.item())


class AverageWeights(Callback):
    "A moving average of the weights, taken over at the end"
    order, run_valid = 70, False
    def __init__(self, decay=.9): self.decay = decay
    def before_fit(self): self.mean = {k: v.clone() for k, v in self.model.state_dict().items()}
    def after_batch(self):
        for k, v in self.model.state_dict().items():
            if v.is_floating_point(): self.mean[k].lerp_(v, 1-self.decay)
    def after_fit(self): self.learn.model.load_state_dict(self.mean)


class RunLogger(Callback):
    "What Neptune, ClearML or Aim are told"
    order = 61
    def before_fit(self):
        self.left, self.rows = [], []
        self.columns = len(self.recorder.metric_names)
    def after_batch(self):
        if not self.training: return
        row = dict(step=self.train_iter, epoch=round(self.epoch + (self.iter+1)/self.n_iter, 4))
        row |= {f'{k}_{i}': v for i, h in enumerate(self.opt.hypers) for k, v in h.items()
                if k in ('lr', 'mom')}
        self.left.append(row | dict(loss=round(self.loss.item(), 4)))
    def after_epoch(self):
        row = dict(zip(self.recorder.metric_names, self.recorder.log))
        self.rows.append({k: v for k, v in row.items() if k not in ('time', 'train_loss')})
        self.left.append([round(float(v), 4) for v in self.rows[-1].values()])


class Curriculum(Callback):
    "Takes more of the training set each epoch"
    def before_epoch(self):
        if self.epoch == 0: self.all, self.left = list(self.dls.train), []
        loaders = self.learn.dls
        self.learn.dls = type('Some', (), dict(
            train=self.all[:self.epoch+1], valid=loaders[1], device='cpu', n_inp=1,
            __getitem__=lambda self, i: (self.train, self.valid)[i]))()
    def after_batch(self): self.left.append((self.epoch, self.training, self.n_iter))


class NoisyLabels(Callback):
    "Replaces the loss for the time of the training, as MixUp does"
    run_valid = False
    def __init__(self, share=.2): self.share = share
    def before_train(self): self.old, self.learn.loss_func = self.learn.loss_func, self.lf
    def after_train(self): self.learn.loss_func = self.old
    def after_cancel_train(self): self.after_train()
    def before_batch(self):
        self.other = self.y.flip(0)
        self.learn.xb = tuple(o*1.5 for o in self.xb)
    def lf(self, pred, *yb):
        return torch.lerp(self.old(pred, *yb), self.old(pred, self.other), self.share)


class Predictions(Callback):
    "Looks at the predictions after each epoch, without the others"
    order = 62
    def before_fit(self): self.left = []
    def after_epoch(self):
        gone = [cb for cb in self.learn.cbs if getattr(cb, 'remove_on_fetch', False)]
        with self.learn.removed_cbs(gone) as learn, self.learn.no_logging():
            preds, targs = learn.get_preds(dl=self.dls.valid, inner=True, reorder=False)
        self.left.append((preds.softmax(1)[:, 0].mean().item(), targs.float().mean().item()))


class KeepBest(TrackerCallback):
    "Keeps the best weights in memory"
    def __init__(self, **kwargs): super().__init__(**kwargs)
    def before_fit(self):
        self.waited, self.left = 0, []
        super().before_fit()
    def after_epoch(self):
        super().after_epoch()
        self.waited = 0 if self.new_best else self.waited+1
        if self.new_best: self.kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.left.append((self.new_best, round(float(self.best), 4), self.idx, self.waited,
                          round(float(self.recorder.values[-1][self.idx]), 4)))
    def after_fit(self): self.learn.model.load_state_dict(self.kept)


class StopAfter(Callback):
    "Stops when enough batches were seen"
    order = 80
    def __init__(self, n): self.n, self.left = n, []
    def after_batch(self):
        if self.training and self.train_iter >= self.n: raise CancelFitException()
    def after_cancel_fit(self): self.left.append('cancelled')
    def after_fit(self): self.left.append(self.epoch)


class ActivationMeans(Callback):
    "Hooks on layers, as in the notebooks on initialisation"
    def before_fit(self):
        self.left = []
        self.hooks = [m.register_forward_hook(self.look) for m in self.model.children()]
    def look(self, module, inp, out):
        if self.training: self.left.append(round(out.detach().mean().item(), 4))
    def after_fit(self):
        for o in self.hooks: o.remove()


class PerClass(Callback):
    "Right answers by class; answers only `after_` events"
    def after_batch(self):
        if self.training: return
        if not hasattr(self, 'right'): self.right = [0, 0, 0]
        for p, t in zip(self.pred.argmax(1), self.y): self.right[t] += int(p == t)
    def after_validate(self):
        self.left = getattr(self, 'left', []) + [tuple(self.right)]
        self.right = [0, 0, 0]


class SkipBadBatches(Callback):
    "Leaves out batches whose loss is too large"
    run_valid = False
    def __init__(self, most): self.most, self.left = most, []
    def after_loss(self):
        if self.loss.item() > self.most:
            self.left.append((self.epoch, self.iter))
            raise CancelBatchException()


class WarmUp(Callback):
    "Raises the rate over the first batches"
    run_valid = False
    def __init__(self, n): self.n = n
    def before_fit(self): self.base = [h['lr'] for h in self.opt.hypers]
    def before_batch(self):
        share = min(1., (self.train_iter+1)/self.n)
        for h, lr in zip(self.opt.hypers, self.base): h['lr'] = lr*share


class PartOfAnEpoch(Callback):
    "Says so in `__init__` that it does not validate, and has one handler"
    def __init__(self, pct): self.pct, self.run_valid, self.left = pct, False, []
    def after_batch(self):
        self.left.append((self.iter, self.n_iter, round(self.pct_train, 4)))
        if (self.iter+1)/self.n_iter >= self.pct: raise CancelTrainException


class Freeze(Callback):
    "Trains the head alone at first"
    def __init__(self, n): self.n = n
    def before_epoch(self):
        body = list(self.model.children())[0]
        for p in body.parameters(): p.requires_grad_(self.epoch >= self.n)


class Penalty(Callback):
    "Adds a penalty to the loss"
    run_valid = False
    def __init__(self, share): self.share = share
    def after_loss(self):
        penalty = sum(p.abs().sum() for p in self.learn.model.parameters())
        self.learn.loss_grad = self.learn.loss_grad + self.share*penalty


class SkipSteps(Callback):
    "Leaves out every third step, as after an overflow, and every fourth backward pass"
    def __init__(self): self.left = []
    def before_backward(self):
        if self.train_iter % 4 == 3: raise CancelBackwardException
    def before_step(self):
        self.left.append(sum(p.grad.abs().sum().item() for p in self.model.parameters()))
        if self.train_iter % 3 == 1: raise CancelStepException


class Unfreeze(Callback):
    "Trains the last layer group at first, and reads its own switches"
    def __init__(self): self.left = []
    def before_epoch(self):
        self.learn.freeze_to(-1 if self.epoch == 0 else 0)
        self.left.append((self.run_train, self.run_valid))


made = dict(
    SharpnessAware=lambda: SharpnessAware(), AverageWeights=lambda: AverageWeights(),
    RunLogger=lambda: RunLogger(), Curriculum=lambda: Curriculum(),
    NoisyLabels=lambda: NoisyLabels(), Predictions=lambda: Predictions(),
    KeepBest=lambda: KeepBest(monitor='valid_loss'), StopAfter=lambda: StopAfter(5),
    ActivationMeans=lambda: ActivationMeans(), PerClass=lambda: PerClass(),
    SkipBadBatches=lambda: SkipBadBatches(1.05), WarmUp=lambda: WarmUp(6),
    PartOfAnEpoch=lambda: PartOfAnEpoch(.4), Penalty=lambda: Penalty(.01),
    SkipSteps=lambda: SkipSteps(), Unfreeze=lambda: Unfreeze())
