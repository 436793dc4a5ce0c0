# ruff: noqa
# %% 1: the name is not cut
def titled(x, name): return f'{name}: {in_short(x)}'

# %% 1: the input alone
def titled(x, name): return in_short(x)

# %% 2: the largest point instead of the mean
def brightest(images, k): return np.argsort(-images.reshape(len(images), -1).max(1))[:k].tolist()

# %% 2: the darkest first
def brightest(images, k): return np.argsort(images.reshape(len(images), -1).mean(1))[-k:].tolist()

# %% 3: rounded down
def columns_for(n): return int(n**.5)

# %% 3: always one more
def columns_for(n): return int(n**.5) + 1
