# ruff: noqa
# %% 1: `if warmup else decay` → ``

# %% 1: no warm-up
def share_of_first(steps, decay, warmup): return decay**steps

# %% 1: counted from 0
def share_of_first(steps, decay, warmup):
    left = 1.
    for t in range(steps): left *= min(decay, (1+t)/(10+t)) if warmup else decay
    return left

# %% 1: what has come from the others
def share_of_first(steps, decay, warmup):
    left = 1.
    for t in range(1, steps+1): left *= min(decay, (1+t)/(10+t)) if warmup else decay
    return 1-left

# %% 2: only for the validation
holds_average = dict(begin_batch=False, after_step=False, begin_validate=True, after_epoch=False,
                     begin_epoch=False, after_fit=True)

# %% 2: put in in the end
holds_average = dict(begin_batch=False, after_step=False, begin_validate=False, after_epoch=False,
                     begin_epoch=False, after_fit=True)

# %% 2: from the first epoch on
holds_average = dict(begin_batch=False, after_step=False, begin_validate=True, after_epoch=True,
                     begin_epoch=True, after_fit=True)

# %% 3: begins at the first weights
class MeanCallback(Callback):
    def begin_fit(self):
        self.average, self.steps = [o.detach().clone() for o in self.learn.model.parameters()], 1

    def after_step(self):
        self.steps += 1
        for a, p in zip(self.average, self.learn.model.parameters()):
            a += (p.detach()-a)/self.steps

# %% 3: `/self.steps` → `*(1-0.999)`

# %% 3: the sum
class MeanCallback(Callback):
    def begin_fit(self):
        self.average = [torch.zeros_like(o) for o in self.learn.model.parameters()]

    def after_step(self):
        for a, p in zip(self.average, self.learn.model.parameters()): a += p.detach()

# %% 3: the second fit goes on from the first
class MeanCallback(Callback):
    steps = 0
    def begin_fit(self):
        if not self.steps:
            self.average = [torch.zeros_like(o) for o in self.learn.model.parameters()]

    def after_step(self):
        self.steps += 1
        for a, p in zip(self.average, self.learn.model.parameters()):
            a += (p.detach()-a)/self.steps
