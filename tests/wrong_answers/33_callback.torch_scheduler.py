# ruff: noqa
# %% 1: half, for ever
class Halving(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [o/2 for o in self.base_lrs]

# %% 1: halved once before the first step
class Halving(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [o['lr']/2 for o in self.optimizer.param_groups]

# %% 1: `o/2**self.last_epoch` → `o/(1+self.last_epoch)`

# %% 1: one number for all groups
class Halving(lr_scheduler.LRScheduler):
    def get_lr(self):
        return self.base_lrs[0]/2**self.last_epoch

# %% 2: `0.1, total_iters=10` → `total_iters=10`

# %% 2: `total_iters=10` → `total_iters=5`

# %% 2: `milestones=[10]` → `milestones=[11]`

# %% 2: `0.99` → `0.01`

# %% 2: two schedules that do not know each other
def warm_then_decay(opt):
    lr_scheduler.LinearLR(opt, 0.1, total_iters=10)
    return lr_scheduler.ExponentialLR(opt, 0.99)

# %% 3: on the optimizer itself
def rate_at(make, opt, steps):
    sched = make(opt.opt)
    for _ in range(steps): sched.step()
    return opt.opt.param_groups[0]['lr']

# %% 3: on the optimizer, tidied up badly
def rate_at(make, opt, steps):
    rate = opt.lr
    sched = make(opt.opt)
    for _ in range(steps): sched.step()
    found, opt.lr = opt.lr, rate
    return found

# %% 3: `go_to(steps)` → `go_to(steps-1)`

# %% 3: `.values()['lr'][0]` → `.values()['lr']`

# %% 3: `    replay.go_to(steps)` → `    replay.step()`

# %% 4: a smaller step
def on_plateau(patience):
    return TorchScheduler(make=partial(lr_scheduler.ReduceLROnPlateau, factor=.5,
                                       patience=patience), monitor='train_loss')

# %% 4: the validation loss
def on_plateau(patience):
    return TorchScheduler(make=partial(lr_scheduler.ReduceLROnPlateau, patience=patience),
                          monitor='valid_loss')

# %% 4: no column
def on_plateau(patience):
    return TorchScheduler(make=partial(lr_scheduler.ReduceLROnPlateau, patience=patience))

# %% 4: torch's own patience
def on_plateau(patience):
    return TorchScheduler(make=lr_scheduler.ReduceLROnPlateau, monitor='train_loss')

# %% 4: higher is better
def on_plateau(patience):
    return TorchScheduler(make=partial(lr_scheduler.ReduceLROnPlateau, mode='max',
                                       patience=patience), monitor='train_loss')
