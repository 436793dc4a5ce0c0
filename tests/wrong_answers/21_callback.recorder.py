# ruff: noqa
# %% 1: `/(1 - beta**n)` → ``

# %% 1: right for a beta of 0
def smoothed(values, beta):
    return values

# %% 2: a name, and no number
class GradNorm(Callback):
    def begin_fit(self): find_recorder(self.run).add_metric_names('grad_norm')

# %% 2: `for p in self.model.parameters()]).norm()` → `for p in self.model.parameters()]).sum()`

# %% 2: `.values[-1][-1] = self.norm.item()` → `.values[-1].append(self.norm.item())`

# %% 3: `begin_train` → `begin_epoch`

# %% 3: `begin_train` → `after_batch`

# %% 3: `self.epoch == self.wanted` → `True`
