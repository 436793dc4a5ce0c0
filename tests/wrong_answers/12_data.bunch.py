# ruff: noqa
# %% 1: one batch
def class_counts(data):
    return data.one_batch()[1].bincount(minlength=data.c)

# %% 1: a constant
def class_counts(data):
    return torch.full((10,), 500)

# %% 1: what is not there is not counted
def class_counts(data):
    return data.train_ds.tensors[1].unique(return_counts=True)[1]

# %% 2: the old bunch, changed
def small(data, n):
    data.train_dl.tensors = tuple(o[:n] for o in data.train_ds.tensors)
    return data

# %% 2: `o[:n]` → `o[-n:]`

# %% 2: `bs=data.bs` → `bs=n`

# %% 2: `shuffle=True` → `shuffle=False`

# %% 3: item by item
class Squares:
    def __init__(self, n):
        self.n, self.calls = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.calls += 1
        return torch.tensor([float(i)]), torch.tensor([float(i*i)])

# %% 3: `float(i*i)` → `2.*i`

# %% 4: the seed after the look
def order_after(look):
    dl = DataLoader(range(10), shuffle=True)
    look(dl)
    torch.manual_seed(42)
    return [int(o) for o in dl]

# %% 4: `shuffle=True` → `shuffle=False`

# %% 3: `[(torch.tensor([float(i)]), torch.tensor([float(i*i)])) for i in indices]` → `[(torch.tensor([i]), torch.tensor([i*i])) for i in indices]`
