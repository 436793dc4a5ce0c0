# ruff: noqa
# %% 1: errors take each other away
def mape(pred, yb):
    return 100*((pred - yb)/yb).mean().abs()

# %% 1: `/yb` → `/pred`

# %% 1: a share
def mape(pred, yb):
    return ((pred - yb)/yb).abs().mean()

# %% 2: a mean over batches
class RunningR2:
    def reset(self): self.values = []
    def update(self, pred, yb): self.values.append(r2_score(pred, yb))
    def compute(self): return sum(self.values)/len(self.values)

# %% 2: ` - self.sum**2/self.n` → ``

# %% 3: one is enough
def smallest_k(pred, yb, share):
    return 1

# %% 3: all of them are safe
def smallest_k(pred, yb, share):
    return pred.shape[1]

# %% 3: `>= share` → `> share - 0.2`

# %% 1: the errors together by the numbers together
def mape(pred, yb):
    return 100*(pred - yb).abs().sum()/yb.abs().sum()

# %% 2: lists of batches
class RunningR2:
    def reset(self): self.pred, self.yb = [], []

    def update(self, pred, yb):
        self.pred.append(pred)
        self.yb.append(yb)

    def compute(self): return r2_score(torch.cat(self.pred), torch.cat(self.yb))
