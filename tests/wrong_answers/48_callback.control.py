# ruff: noqa
# %% 1: `rate(2)` → `rate(1)`

# %% 1: `        if not self.in_train: return` → ``

# %% 1: the rate is written by hand
class Slower(Callback):
    def __init__(self, start, end): self.start, self.end = start, end
    def after_batch(self):
        if not self.in_train: return
        if self.run.n_iter == self.start: self.learn.opt.lr *= 0.5
        if self.run.n_iter == self.end: self.learn.opt.lr *= 2

# %% 1: half of it in each batch
class Slower(Callback):
    def __init__(self, start, end): self.start, self.end = start, end
    def after_batch(self):
        if self.in_train and self.start <= self.run.n_iter < self.end: self.learn.control.rate(0.5)

# %% 2: `stop()` → `stop('epoch')`

# %% 2: `        if self.in_train and self.run.loss.item() < self.least: self.learn.control.stop()` → `        return self.in_train and self.run.loss.item() < self.least`

# %% 2: the smoothed loss of the epoch
class StopBelow(Callback):
    def __init__(self, least): self.least = least
    def after_epoch(self):
        if self.learn.recorder.losses[-1] < self.least: self.learn.control.stop()

# %% 3: only the rates
class Replay(Callback):
    def __init__(self, interventions): self.interventions = list(interventions)
    def after_batch(self):
        if not self.in_train: return
        for what, n, value in self.interventions:
            if n == self.run.n_iter and what == 'rate': self.learn.control.rate(value)

# %% 3: one for each batch
class Replay(Callback):
    def __init__(self, interventions): self.by_batch = {n: (o, v) for o, n, v in interventions}
    def after_batch(self):
        if self.in_train and self.run.n_iter in self.by_batch:
            self.learn.control.ask(*self.by_batch[self.run.n_iter])

# %% 3: everything at the beginning
class Replay(Callback):
    def __init__(self, interventions): self.interventions = list(interventions)
    def begin_fit(self):
        for what, n, value in self.interventions: self.learn.control.ask(what, value)
