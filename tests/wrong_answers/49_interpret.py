# ruff: noqa
# %% 1: right answers too
def surest(judge, k): return judge.preds.max(1).values.argsort(descending=True)[:k]

# %% 1: in the order of the items
def surest(judge, k): return (judge.pred_class != judge.targets).nonzero()[:k, 0].flip(0)

# %% 1: all mistakes
def surest(judge, k):
    wrong = (judge.pred_class != judge.targets).nonzero().flatten()
    return wrong[judge.preds[wrong].amax(1).argsort(descending=True)]

# %% 1: the first mistakes
def surest(judge, k): return (judge.pred_class != judge.targets).nonzero().flatten()[:k]

# %% 2: the precision
def recall_of(judge, name):
    column = judge.confusion_matrix()[:, judge.classes.index(name)]
    return column[judge.classes.index(name)]/column.sum()

# %% 2: the share of all items
def recall_of(judge, name):
    i, counts = judge.classes.index(name), judge.confusion_matrix()
    return counts[i, i]/counts.sum()

# %% 3: right answers too
def doubtful(judge, least): return (judge.preds.max(1).values >= least).nonzero()[:, 0].tolist()

# %% 3: `>= least` → `> least`
