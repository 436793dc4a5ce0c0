# ruff: noqa
# %% 1: `[1][-1]` → `[1][0]`

# %% 1: `[1][-1]` → `[0][-1]`

# %% 1: ` if tag in b` → ``

# %% 1: the smallest
def compare(one, two):
    a, b = read_scalars(one), read_scalars(two)
    return {tag: (max(a[tag][1]), max(b[tag][1])) for tag in a if tag in b}

# %% 2: `files.open((first, None))` → `files.open()`

# %% 2: `(first, None)` → `(first, first)`

# %% 2: `enumerate(losses, first)` → `enumerate(losses)`

# %% 2: `files.epochs` → `files.batches`

# %% 3: not after an error
@contextmanager
def log_of(folder):
    files = EventFiles(Path(folder))
    files.open()
    yield files
    files.close()

# %% 3: an error of the block is lost
@contextmanager
def log_of(folder):
    files = EventFiles(Path(folder))
    files.open()
    try: yield files
    except Exception: pass
    files.close()

# %% 3: `files.close()` → `files.flush()`
