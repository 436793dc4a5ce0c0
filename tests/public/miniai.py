"""Callbacks as readers of miniai publish them: after a star of ours, or of a loop like miniai's"""
# ruff: noqa: F405, F821


class MetricsCB(Callback):
    "Means of each pass"
    def __init__(self, **ms): self.ms, self.left = ms, []
    def before_fit(self, learn): learn.metrics = self
    def before_epoch(self, learn): self.sums, self.n = {k: 0. for k in (*self.ms, 'loss')}, 0
    def after_batch(self, learn):
        x, y, *_ = learn.batch
        for k, m in self.ms.items(): self.sums[k] += m(learn.preds, y).item()*len(x)
        self.sums['loss'] += learn.loss.item()*len(x)
        self.n += len(x)
    def after_epoch(self, learn):
        row = {k: round(v/self.n, 4) for k, v in self.sums.items()}
        self.left.append(dict(epoch=learn.epoch, train=learn.model.training, **row))


class Barred(Callback):
    "Puts a bar around the epochs and around each loader"
    order = MetricsCB.order + 1
    class Bar:
        def __init__(self, of): self.of, self.comment = of, ''
        def __iter__(self): return iter(self.of)
        def __len__(self): return len(self.of)
    def before_fit(self, learn):
        self.left = []
        learn.epochs = self.outer = self.Bar(learn.epochs)
    def before_epoch(self, learn): learn.dl = self.Bar(learn.dl)
    def after_batch(self, learn):
        learn.dl.comment = f'{learn.loss.item():.3f}'
        self.left.append((learn.epoch, learn.iter, len(learn.dl), learn.dl.comment))


class FewBatches(Callback):
    "Goes through a part of each loader"
    def __init__(self, n): self.n, self.left = n, []
    def before_epoch(self, learn): learn.dl = list(learn.dl)[:self.n]
    def after_batch(self, learn): self.left.append((learn.epoch, learn.training, learn.iter))


class FewerEpochs(Callback):
    "Changes how many epochs there are"
    def __init__(self): self.left = []
    def before_fit(self, learn): learn.epochs = range(learn.n_epochs-1)
    def after_epoch(self, learn): self.left.append((learn.epoch, learn.training))


class FindRate(Callback):
    "Raises the rate with each batch until the loss explodes"
    def __init__(self, gamma=2., most=3.): self.gamma, self.most, self.left = gamma, most, []
    def before_fit(self, learn):
        self.sched = torch.optim.lr_scheduler.ExponentialLR(learn.opt, self.gamma)
        self.least = math.inf
    def after_batch(self, learn):
        if not learn.training: raise CancelEpochException()
        self.left.append((round(learn.opt.param_groups[0]['lr'], 5), round(learn.loss.item(), 4)))
        if learn.loss < self.least: self.least = learn.loss
        if learn.loss > self.least*self.most: raise CancelFitException()
        self.sched.step()
    def cleanup_fit(self, learn): self.left.append('cleaned up')


class Momentum(TrainCB):
    "Gradients that fade"
    def __init__(self, mom=.85):
        super().__init__()
        self.mom = mom
    def zero_grad(self, learn):
        with torch.no_grad():
            for p in learn.model.parameters(): p.grad *= self.mom


class Scaled(TrainCB):
    "The shape of mixed precision, with a scale in place of half precision"
    def before_fit(self, learn): self.scale, self.left = 8., []
    def backward(self, learn): (learn.loss*self.scale).backward()
    def step(self, learn):
        for p in learn.model.parameters(): p.grad /= self.scale
        self.left.append(round(sum(p.grad.abs().sum() for p in learn.model.parameters()).item(), 4))
        learn.opt.step()


class Diffusion(TrainCB):
    "Makes its input and target from what the loader gives, and asks the model in its own way"
    def before_batch(self, learn):
        x, y = learn.batch
        learn.batch = (x, torch.full((len(x), 1), .5)), y
    def predict(self, learn):
        x, t = learn.batch[0]
        learn.preds = learn.model(x*t)
    def get_loss(self, learn): learn.loss = learn.loss_func(learn.preds, learn.batch[1])*2


class Smooth(Callback):
    "Changes predictions, and after the loss the loss"
    def after_predict(self, learn): learn.preds = learn.preds*.5
    def after_loss(self, learn): learn.loss = learn.loss + sum(
        p.pow(2).sum() for p in learn.model.parameters())*.01


class Augment(Callback):
    "Changes the batch, in training alone"
    order = 1
    def before_batch(self, learn):
        if learn.training: learn.batch = [learn.batch[0]+.25, learn.batch[1]]


class Stats(Callback):
    "Hooks on the layers"
    def before_fit(self, learn):
        self.left = []
        self.hooks = [m.register_forward_hook(partial(self.look, learn)) for m in learn.model]
    def look(self, learn, layer, inp, out):
        if learn.training: self.left.append(round(out.detach().std().item(), 4))
    def cleanup_fit(self, learn):
        for h in self.hooks: h.remove()


class Halfway(Callback):
    "Breaks off a batch here and a pass there"
    def __init__(self): self.left = []
    def after_predict(self, learn):
        if learn.iter == 1: raise CancelBatchException()
    def after_batch(self, learn):
        self.left.append(('after', learn.epoch, learn.iter))
        if learn.training and learn.iter == 2: raise CancelEpochException()
    def cleanup_batch(self, learn): self.left.append(('clean', learn.iter))
    def after_epoch(self, learn): self.left.append(('epoch', learn.training))


class Rates(Callback):
    "What the rates were, with a scheduler of torch"
    order = 3
    def __init__(self): self.left = []
    def before_fit(self, learn):
        self.sched = torch.optim.lr_scheduler.OneCycleLR(
            learn.opt, .2, total_steps=len(learn.dls.train)*learn.n_epochs)
    def after_batch(self, learn):
        if not learn.training: return
        self.left.append(round(learn.opt.param_groups[0]['lr'], 5))
        self.sched.step()


made = dict(
    MetricsCB=lambda: MetricsCB(mae=lambda p, y: (p-y).abs().mean()), Barred=lambda: Barred(),
    FewBatches=lambda: FewBatches(2), FewerEpochs=lambda: FewerEpochs(),
    FindRate=lambda: FindRate(), Momentum=lambda: Momentum(), Scaled=lambda: Scaled(),
    Diffusion=lambda: Diffusion(), Smooth=lambda: Smooth(), Augment=lambda: Augment(),
    Stats=lambda: Stats(), Halfway=lambda: Halfway(), Rates=lambda: Rates())
