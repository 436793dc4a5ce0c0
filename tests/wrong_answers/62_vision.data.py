# ruff: noqa
# %% 1: `.mean(0)/255` → `.mean(0)`

# %% 1: of the images to validate with
def mean_picture(data, name):
    chosen = data.valid_ds.labels == data.classes.index(name)
    return data.valid_ds.images[chosen].float().mean(0)/255

# %% 1: as the model sees them
def mean_picture(data, name):
    number = data.classes.index(name)
    return torch.stack([x for x, y in data.train_ds if y == number]).mean(0)

# %% 1: `data.classes.index(name)` → `sorted(data.classes).index(name)`

# %% 2: one channel, and both parts
def bytes_kept(data):
    return sum(len(o)*28*28 for o in (data.train_ds, data.valid_ds))

# %% 2: the training images alone
def bytes_kept(data): return data.train_ds.images.numel()

# %% 2: floats, four bytes each
def bytes_kept(data):
    return sum(4*o.images.numel() for o in (data.train_ds, data.valid_ds))

# %% 2: ` if o is not None]` → `]`

# %% 3: always the first ones
def balanced(data, seed):
    labels, least = data.train_ds.labels, min(data.class_counts().values())
    return torch.cat([torch.where(labels == o)[0][:least] for o in range(data.c)])

# %% 3: an image may come twice
def balanced(data, seed):
    labels, least = data.train_ds.labels, min(data.class_counts().values())
    g = torch.Generator().manual_seed(seed)
    return torch.cat([torch.multinomial((labels == o).float(), least, True, generator=g)
                      for o in range(data.c)])

# %% 3: `, generator=torch.Generator().manual_seed(seed)` → ``

# %% 3: `min(data.class_counts()` → `max(data.class_counts()`
