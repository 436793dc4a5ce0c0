"""Callbacks as readers of the fastai course publish them: after a star of ours, or of its loop"""
# ruff: noqa: F405, F821


class RateFinder(Callback):
    _order = 1
    def __init__(self, max_iter=100, min_lr=1e-4, max_lr=10):
        self.max_iter, self.min_lr, self.max_lr = max_iter, min_lr, max_lr
        self.best, self.left = 1e9, []
    def begin_batch(self):
        if not self.in_train: return
        pos = self.n_iter/self.max_iter
        lr = self.min_lr*(self.max_lr/self.min_lr)**pos
        for pg in self.opt.hypers: pg['lr'] = lr
        self.left.append(round(lr, 6))
    def after_step(self):
        if self.n_iter >= self.max_iter or self.loss > self.best*10: raise CancelTrainException()
        if self.loss < self.best: self.best = self.loss


class Lengths(Callback):
    def begin_fit(self): self.left = []
    def begin_epoch(self): self.left.append(('epoch', len(self.dl)))
    def begin_validate(self): self.left.append(('valid', len(self.dl)))
    def after_batch(self): self.left.append((self.iter, self.iters, round(self.n_epochs, 3)))


class Debug(Callback):
    _order = 999
    def __init__(self): self.left = []
    def __call__(self, cb_name): self.left.append(cb_name)


class Stats(Callback):
    "Sums by hand, and a row to the logger"
    def __init__(self): self.left = []
    def begin_epoch(self): self.sums = [0., 0.]
    def after_loss(self):
        if not self.in_train: self.sums[0] += self.loss.item()*len(self.xb)
    def after_batch(self):
        if not self.in_train: self.sums[1] += len(self.xb)
    def after_epoch(self):
        self.left.append(round(self.sums[0]/self.sums[1], 4))
        self.logger(f'{self.left[-1]:.3f}')


class LoggerSetter(Callback):
    def begin_fit(self):
        self.left = []
        self.run.logger = self.left.append
    def after_epoch(self): self.logger(['epoch', self.epoch])


class BatchTransform(Callback):
    _order = 2
    def begin_batch(self): self.run.xb = self.xb*2


class Mix(Callback):
    "The shape of mixup"
    _order = 90
    def begin_fit(self): self.old, self.run.loss_func = self.run.loss_func, self.mixed
    def begin_batch(self):
        if not self.in_train: return
        self.yb1 = self.yb.flip(0)
        self.run.xb = self.xb*.7 + self.xb.flip(0)*.3
    def after_fit(self): self.run.loss_func = self.old
    def mixed(self, pred, yb):
        if not self.in_train: return self.old(pred, yb)
        return self.old(pred, yb)*.7 + self.old(pred, self.yb1)*.3


class Sched(Callback):
    _order = 1
    def __init__(self, pname, f): self.pname, self.f, self.left = pname, f, []
    def set_param(self):
        for h in self.opt.hypers: h[self.pname] = self.f(self.n_epochs/self.epochs)
        self.left.append(round(self.opt.hypers[-1][self.pname], 5))
    def begin_batch(self):
        if self.in_train: self.set_param()


class Clip(Callback):
    def after_backward(self): nn.utils.clip_grad_norm_(self.model.parameters(), .1)


class Stop(Callback):
    "Returns what stops, and is told of it"
    def __init__(self): self.left = []
    def after_epoch(self): self.left.append(self.epoch)
    def after_step(self):
        if self.n_iter >= 6: raise CancelTrainException()
    def after_fit(self): self.left.append(self.n_iter)


class Grads(Callback):
    def begin_fit(self): self.left = []
    def after_backward(self):
        self.left.append(round(sum(p.grad.abs().sum() for p in self.model.parameters()).item(), 4))


class SkipBatch(Callback):
    def __init__(self): self.left = []
    def after_pred(self):
        if self.iter == 1: raise CancelBatchException()
    def after_batch(self): self.left.append((self.in_train, self.iter))


made = dict(
    RateFinder=lambda: RateFinder(8), Lengths=lambda: Lengths(), Debug=lambda: Debug(),
    Stats=lambda: Stats(), LoggerSetter=lambda: LoggerSetter(),
    BatchTransform=lambda: BatchTransform(), Mix=lambda: Mix(),
    Sched=lambda: Sched('lr', lambda pos: .1*(1-pos)), Clip=lambda: Clip(), Stop=lambda: Stop(),
    Grads=lambda: Grads(), SkipBatch=lambda: SkipBatch())
