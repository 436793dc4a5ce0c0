# ruff: noqa
# %% 1: in place, so that the loader's numbers change
class Shift:
    def before_batch(self, learn): learn.batch[1].add_(1)

# %% 1: a name that miniai does not have
class Shift:
    def before_batch(self, learn): learn.yb = learn.batch[1]+1

# %% 1: `xb, yb+1` → `xb+1, yb`

# %% 1: training alone
class Shift:
    def before_batch(self, learn):
        if learn.training: learn.batch = learn.batch[0], learn.batch[1]+1

# %% 2: `learn.training and ` → ``

# %% 2: `learn.iter+1` → `learn.iter`

# %% 2: `raise CancelEpochException` → `raise StopIteration`

# %% 2: counted over the whole fit
class CancelEpochException(Exception): pass
class Few:
    def __init__(self, n): self.n = n
    def before_fit(self, learn): self.count = 0
    def after_batch(self, learn):
        self.count += 1
        if learn.training and self.count == self.n: raise CancelEpochException

# %% 3: never set back
class Broken:
    def before_fit(self, learn): self.shares, self.whole, self.all = [], 0, 0
    def after_batch(self, learn): self.whole += 1
    def cleanup_batch(self, learn): self.all += 1
    def after_epoch(self, learn): self.shares.append(1 - self.whole/self.all)

# %% 3: `1 - self.whole/self.all` → `self.whole/self.all`

# %% 3: once a fit
class Broken:
    def before_fit(self, learn): self.shares, self.whole, self.all = [], 0, 0
    def after_batch(self, learn): self.whole += 1
    def cleanup_batch(self, learn): self.all += 1
    def after_fit(self, learn): self.shares.append(1 - self.whole/self.all)
