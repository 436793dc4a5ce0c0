# ruff: noqa
# %% 1: whatever it is
def word_inputs(rows):
    return usual_tensor('rows', rows)

# %% 1: floats are rounded
def word_inputs(rows):
    rows = torch.stack(rows) if isinstance(rows[0], torch.Tensor) else rows
    return torch.as_tensor(rows).long()

# %% 1: `dtype=torch.int64` → `dtype=torch.float32`

# %% 1: `torch.zeros(1, 1, dtype=torch.int64)` → `torch.zeros(1, dtype=torch.int64)`

# %% 2: as a model would have it
def is_shared(array):
    return np.shares_memory(usual_tensor('array', array).numpy(), array)

# %% 2: whether the numbers are equal
def is_shared(array):
    return bool((as_tensor('array', array).numpy() == array).all())

# %% 2: by trying it
def is_shared(array):
    t = as_tensor('array', array)
    array[0] += 1
    return t[0] == array[0]

# %% 2: `np.shares_memory(as_tensor('array', array).numpy(), array)` → `as_tensor('array', array) is array`

# %% 3: `if find_bs(batch) == bs: yield batch` → `yield batch`

# %% 3: the last one, full or not
def full_batches(inputs, bs):
    return list(cut(inputs, bs))[:-1]

# %% 3: the number of inputs
def full_batches(inputs, bs):
    for batch in cut(inputs, bs):
        if len(batch) == bs: yield batch
