# ruff: noqa
# %% 1: the last batch is always there
def batch_sizes(n, bs, drop_last):
    return [bs]*(n//bs) + [n % bs]

# %% 1: all batches are full
def batch_sizes(n, bs, drop_last):
    return [bs]*(n//bs if drop_last else -(-n//bs))

# %% 2: the first epoch's order for ever
def seen(dl):
    return epoch_order(dl.n, dl.seed, 0)[:dl.position*dl.bs]

# %% 2: a position counts batches
def seen(dl):
    return epoch_order(dl.n, dl.seed, dl.epoch)[:dl.position]

# %% 2: a loop that begins anew
def seen(dl):
    return next(iter(dl))[0]

# %% 2: `[:dl.position*dl.bs]` → `[:6]`

# %% 3: `            place.position += 1` → ``

# %% 3: `[place.position:]` → ``

# %% 3: `        place.next_epoch()` → ``

# %% 3: `self.items[1:]` → `self.items`

# %% 1: the last batch is dropped, full or not
def batch_sizes(n, bs, drop_last):
    sizes = [min(bs, n - start) for start in range(0, n, bs)]
    return sizes[:-1] if drop_last else sizes
