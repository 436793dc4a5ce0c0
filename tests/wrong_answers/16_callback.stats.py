# ruff: noqa
# %% 1: all weigh the same
def weight_of_last(n, bs):
    return 1.

# %% 1: an even cut leaves nothing
def weight_of_last(n, bs):
    return n/(-(-n//bs)*max(1, n % bs))

# %% 2: the last one
class BestEpoch(AvgStatsCallback):
    def after_epoch(self):
        super().after_epoch()
        self.best_epoch = self.epoch

# %% 2: `avg_stats[1]` → `avg_stats[0]`

# %% 3: the output, not its probability
def confidence(pred, yb):
    return pred.amax(1).mean()

# %% 3: the right class, not the preferred one
def confidence(pred, yb):
    return pred.softmax(1)[range(len(yb)), yb].mean()

# %% 4: `not self.in_train` → `self.in_train`

# %% 4: nothing at all
class ValidOnly(AvgStatsCallback):
    def after_loss(self): pass
