# ruff: noqa
# %% 1: ` + cm[self.b, self.a]` → ``

# %% 1: `cm.sum()` → `(cm.sum() - cm.trace())`

# %% 1: `cm.sum()` → `cm[[self.a, self.b]].sum()`

# %% 2: `cm.sum(1)` → `cm.sum(0)`

# %% 2: the mean of both, less 1
class Youden(ConfusionMatrix):
    def score(self, cm): return ratio(cm.diag(), cm.sum(1)).mean() - 1

# %% 2: nothing by nothing
class Youden(ConfusionMatrix):
    def score(self, cm): return (cm.diag()/cm.sum(1)).sum() - 1

# %% 3: `    metric.on_epoch_begin()` → ``

# %% 3: the mean of the batches
def measured(metric, preds, targets, bs):
    found = []
    for p, t in zip(preds.split(bs), targets.split(bs)):
        metric.on_epoch_begin()
        metric.on_batch_end(last_output=torch.eye(2)[p], last_target=t)
        metric.on_epoch_end()
        found.append(metric.metric)
    return sum(found)/len(found)

# %% 3: `last_output=torch.eye(2)[p]` → `last_output=p`
