# ruff: noqa
# %% 1: `table[truth, said]` → `table[said, truth]`

# %% 1: `+= 1` → `= 1`

# %% 1: `pred.shape[1], pred.shape[1]` → `yb.max() + 1, yb.max() + 1`

# %% 2: accuracy
def precision(pred, yb):
    return ((pred > 0) == yb).float().mean()

# %% 2: recall
def precision(pred, yb):
    return yb[pred > 0].sum()/yb.sum().clamp(min=1)

# %% 2: nothing by nothing
def precision(pred, yb):
    return yb[pred > 0].float().mean()

# %% 2: `pred > 0` → `pred >= 0`

# %% 3: `/(1 - self.beta**self.batches)` → ``

# %% 3: all batches weigh the same
class Recent:
    def __init__(self, func, beta): self.func = func

    def reset(self): self.values = []

    def update(self, pred, yb): self.values.append(self.func(pred, yb))

    def compute(self): return sum(self.values)/len(self.values)

# %% 3: `self.beta*self.mean + (1 - self.beta)*` → `(1 - self.beta)*self.mean + self.beta*`

# %% 2: `pred > 0` → `pred > .5`
