# ruff: noqa
# %% 1: the training batches alone
def steep_line(slope):
    learn = line()
    learn.data.train_dl = [(xb, slope*xb) for xb, _ in learn.data.train_dl]
    return learn

# %% 1: `slope*xb) for xb, _` → `slope*_) for xb, _`

# %% 1: `learn = line()` → `learn = line(seed=1)`

# %% 2: of the first batch
def count_classes(data):
    labels = data.one_batch()[1].tolist()
    return {name: labels.count(i) for i, name in enumerate(data.classes)}

# %% 2: those that are there
def count_classes(data):
    labels = data.train_ds.tensors[1].tolist()
    return {data.classes[i]: labels.count(i) for i in sorted(set(labels))}

# %% 2: `train_ds` → `valid_ds`

# %% 3: one question, which the middle one answers as well
def check_mean(mean): should_be(mean([1, 2, 3]), 2., 'the mean of 1, 2 and 3')

# %% 3: `[1, 2, 6]), 3., 'the mean of 1, 2 and 6'` → `[1, 2, 3]), 2., 'the mean of 1, 2 and 3'`

# %% 3: a mean that is a whole number
def check_mean(mean): should_be(mean([1, 2, 6]), 3, 'the mean of 1, 2 and 6')
