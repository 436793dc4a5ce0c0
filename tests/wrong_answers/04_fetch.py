# ruff: noqa
# %% 1: one seed for both
def same_batches(one, other, seed):
    torch.manual_seed(seed)
    found = [[[t.tolist() for t in batch] for batch in dl] for dl in (one, other)]
    return found[0] == found[1]

# %% 1: only the labels
def same_batches(one, other, seed):
    found = []
    for dl in (one, other):
        torch.manual_seed(seed)
        found.append([batch[-1].tolist() for batch in dl])
    return found[0] == found[1]

# %% 1: as far as the shorter one goes
def same_batches(one, other, seed):
    found = []
    for dl in (one, other):
        torch.manual_seed(seed)
        found.append(list(dl))
    return all(torch.equal(a, b) for pair in zip(*found) for a, b in zip(*pair))

# %% 1: the first batch
def same_batches(one, other, seed):
    found = []
    for dl in (one, other):
        torch.manual_seed(seed)
        found.append([t.tolist() for t in next(iter(dl))])
    return found[0] == found[1]

# %% 2: `self.numbers[rows]` → `self.numbers[:len(rows)]`

# %% 2: `return [numbers, numbers**2]` → `return list(zip(numbers, numbers**2))`

# %% 2: the squares of the rows
class Squares(torch.utils.data.Dataset):
    def __init__(self, numbers): self.numbers = numbers
    def __len__(self): return len(self.numbers)
    def __getitem__(self, i): return self.numbers[i], self.numbers[i]**2
    def __getitems__(self, rows): return [self.numbers[rows], torch.tensor(rows)**2]

# %% 2: item by item, under another name
class Squares(torch.utils.data.Dataset):
    def __init__(self, numbers): self.numbers = numbers
    def __len__(self): return len(self.numbers)
    def __getitem__(self, i): return self.numbers[i], self.numbers[i]**2
    def __getitems__(self, rows):
        return [torch.stack(o) for o in zip(*(self[i] for i in rows))]

# %% 3: all of them at once
def one_ahead(batches):
    yield from list(batches)

# %% 3: the error comes early
def one_ahead(batches):
    batches = iter(batches)
    end = object()
    batch = next(batches, end)
    while batch is not end:
        following = next(batches, end)
        yield batch
        batch = following

# %% 3: the last batch is lost
def one_ahead(batches):
    batches = iter(batches)
    batch = next(batches, None)
    for following in batches:
        yield batch
        batch = following

# %% 3: `if error is not None: raise error` → `if error is not None: return`
