# ruff: noqa
# %% 1: some events
class Events(Callback):
    def __init__(self): self.events = []
    def begin_fit(self): self.events.append('begin_fit')
    def begin_epoch(self): self.events.append('begin_epoch')
    def begin_batch(self): self.events.append('begin_batch')

# %% 1: begun anew in each fit
class Events(Callback):
    def __init__(self): self.events = []
    def __call__(self, event):
        if event == 'begin_fit': self.events = []
        self.events.append(event)

# %% 1: each name once
class Events(Callback):
    def __init__(self): self.events = []
    def __call__(self, event):
        if event not in self.events: self.events.append(event)

# %% 2: the first epoch too
class HalveRate(Callback):
    def begin_epoch(self):
        for o in self.opt.hypers: o['lr'] /= 2

# %% 2: the first group alone
class HalveRate(Callback):
    def begin_epoch(self):
        if self.epoch > 0: self.opt.hypers[0]['lr'] /= 2

# %% 2: `self.epoch > 0` → `self.epoch == 1`

# %% 3: `self.iter+1` → `self.n_iter+1`

# %% 3: `CancelEpochException` → `CancelTrainException`

# %% 3: `self.iter+1 >= self.n` → `self.iter >= self.n`
