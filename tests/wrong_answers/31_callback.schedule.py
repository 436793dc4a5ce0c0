# ruff: noqa
# %% 1: a count of the training batches
class ByPosition(NaiveOneCycle):
    def begin_batch(self):
        if self.run.in_train: super().begin_batch()

# %% 1: a count that begins with each fit
class ByPosition(NaiveOneCycle):
    def begin_fit(self): self.count = 0
    def begin_batch(self):
        if self.run.in_train: super().begin_batch()

# %% 1: the position in the epoch
class ByPosition(NaiveOneCycle):
    def begin_batch(self):
        if not self.run.in_train: return
        sched = combined_cos(.3, self.lr_max/25, self.lr_max, self.lr_max/1e5)
        self.opt.lr = sched(self.run.iter/self.n)

# %% 2: a warm-up in each epoch
class Warmup(Scheduler):
    scheduled = ('lr',)
    def __init__(self, n, lr):
        super().__init__()
        self.n, self.lr = n, lr

    def _functions(self, epochs, iters, opt):
        return {'lr': lambda k: self.lr*min(1, k % iters/self.n)}

# %% 2: `min(1, k/self.n)` → `k/self.n`

# %% 2: `k/self.n` → `(k+1)/self.n`

# %% 2: `k/self.n` → `k/(epochs*iters)`

# %% 3: a cycle in each fit
def fit_in_two(learn, first, total, lr_max):
    for n in (first, total-first): learn.fit(n, cbs=OneCycleScheduler(lr_max=lr_max))

# %% 3: the second fit begins the plan anew
def fit_in_two(learn, first, total, lr_max):
    cb = OneCycleScheduler(lr_max=lr_max, tot_epochs=total)
    for n in (first, total-first): learn.fit(n, cbs=cb)

# %% 3: `start_epoch=first` → `start_epoch=1`

# %% 3: one fit
def fit_in_two(learn, first, total, lr_max):
    learn.fit(total, cbs=OneCycleScheduler(lr_max=lr_max))

# %% 4: a tenth of the position
def slower_body(sched):
    return ParamScheduler('lr', [lambda pos: sched(pos/10), sched])

# %% 4: the groups the other way round
def slower_body(sched):
    return ParamScheduler('lr', [sched, lambda pos: sched(pos)/10])

# %% 4: one schedule for both
def slower_body(sched):
    return ParamScheduler('lr', sched)

# %% 4: a straight line between the ends
def slower_body(sched):
    first, last = sched(0), sched(1)
    return ParamScheduler('lr', [sched_lin(first/10, last/10), sched_lin(first, last)])
