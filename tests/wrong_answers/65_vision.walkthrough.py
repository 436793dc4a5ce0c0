# ruff: noqa
# %% 1: `    learn.unfreeze()` → ``

# %% 1: `    learn.freeze()` → ``


# %% 1: a tenth of the rate for the body
def train_head(learn, epochs, lr):
    learn.fit_one_cycle(epochs, slice(lr/10, lr))

# %% 1: another loop without a cycle's highest rate
def train_head(learn, epochs, lr):
    learn.freeze()
    learn.fit_one_cycle(epochs, lr/10)
    learn.unfreeze()

# %% 2: `matrix.sum(1)` → `matrix.sum(0)`

# %% 2: the smallest count
def weakest(judge):
    matrix = judge.confusion_matrix()
    at = int(matrix.diagonal().argmin())
    return judge.classes[at], float(matrix.diagonal()[at]/matrix.sum(1)[at])

# %% 2: `judge.classes[int(recall.argmin())]` → `int(recall.argmin())`

# %% 3: `min(one) > max(other) and ` → ``

# %% 3: ` and mean-p > 2*(p*(1-p)/n)**0.5` → ``

# %% 3: `/n)**0.5` → `/n)`
