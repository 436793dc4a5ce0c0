# ruff: noqa
# %% 1: `, axis=-1` → ``

# %% 1: `+epsilon()` → ``

# %% 1: `/(abs(y_true)+epsilon())` → `/(y_true+epsilon())`

# %% 1: `/(abs(y_true)+epsilon())` → `/(abs(y_pred)+epsilon())`

# %% 2: a name of its own
def scale(x, factor): x = get_value(x)*factor

# %% 2: the value is returned
def scale(x, factor): return get_value(x)*factor

# %% 2: `get_value(x)*factor` → `factor`

# %% 2: variables alone
def scale(x, factor): x.assign(x.numpy()*factor)

# %% 3: copies
def zero(model):
    for o in model.get_weights(): o[:] = 0

# %% 3: the matrices alone
def zero(model):
    batch_set_value([(o, np.zeros(o.shape)) for o in model.weights if len(o.shape) == 2])

# %% 3: values instead of variables
def zero(model): batch_set_value([(o.numpy(), 0) for o in model.weights])
