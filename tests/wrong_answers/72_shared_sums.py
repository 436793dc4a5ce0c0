# ruff: noqa
# %% 1: the mean of the roots
def rmse_of_all(mine, rows, ranks): return ranks.total([mine])[0]/ranks.count

# %% 1: a weighted mean of the roots
def rmse_of_all(mine, rows, ranks):
    total, count = ranks.total([mine*rows, rows])
    return total/count

# %% 1: `(squares/count)**0.5` → `squares/count`

# %% 2: the mean of the means
def joined(mean, sums):
    means = [a/b for a, b in sums if b] + ([] if mean.compute() is None else [float(mean.compute())])
    return sum(means)/len(means) if means else None

# %% 2: the last one alone
def joined(mean, sums):
    if sums: share_mean(mean, other_brings(list(sums[-1])))
    return mean.compute()

# %% 2: a mean counts as one row
def joined(mean, sums):
    for total, rows in sums:
        if rows: mean.add(torch.tensor(total/rows), 1)
    return mean.compute()

# %% 3: the median of the medians
class MedianDistance:
    def reset(self): self.found = []
    def update(self, pred, yb): self.found.append((pred-yb).abs().median())
    def compute(self): return torch.stack(self.found).median()

# %% 3: with its sign
class MedianDistance:
    def reset(self): self.found = []
    def update(self, pred, yb): self.found.append(pred-yb)
    def compute(self): return torch.cat(self.found).median()

# %% 3: never forgotten
class MedianDistance:
    found = []
    def reset(self): pass
    def update(self, pred, yb): self.found.append((pred-yb).abs())
    def compute(self): return torch.cat(self.found).median()
