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

# %% 2: the lowest loss
class BestEpoch(AvgStatsCallback):
    def begin_fit(self):
        super().begin_fit()
        self.best, self.best_epoch = float('inf'), None

    def after_epoch(self):
        super().after_epoch()
        loss = self.valid_stats.avg_stats[0]
        if loss < self.best: self.best, self.best_epoch = loss, self.epoch

# %% 2: a second fit does not begin anew
class BestEpoch(AvgStatsCallback):
    best, best_epoch = -1., None

    def after_epoch(self):
        super().after_epoch()
        accuracy = self.valid_stats.avg_stats[1]
        if accuracy > self.best: self.best, self.best_epoch = accuracy, self.epoch

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

# %% 4: no training
class ValidOnly(AvgStatsCallback):
    def begin_batch(self): return self.in_train

# %% 4: forgotten when it is printed
class ValidOnly(AvgStatsCallback):
    def after_epoch(self):
        super().after_epoch()
        self.train_stats.reset()

# %% 2: better than the epoch before
class BestEpoch(AvgStatsCallback):
    def begin_fit(self):
        super().begin_fit()
        self.before, self.best_epoch = -1., None

    def after_epoch(self):
        super().after_epoch()
        accuracy = self.valid_stats.avg_stats[1]
        if accuracy > self.before: self.best_epoch = self.epoch
        self.before = accuracy
