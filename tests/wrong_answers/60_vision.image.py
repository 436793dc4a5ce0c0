# ruff: noqa
# %% 1: pictures are split, not cats
def split_by(names, key, valid_pct, seed):
    train, valid = split_items([(o, key(o)) for o in names], valid_pct, seed)
    return [o for o, _ in train], [o for o, _ in valid]

# %% 1: the last cats, whatever the seed
def split_by(names, key, valid_pct, seed):
    cats = sorted({key(o) for o in names})
    held = cats[-int(valid_pct*len(cats)):]
    return [o for o in names if key(o) not in held], [o for o in names if key(o) in held]

# %% 1: one picture of each cat
def split_by(names, key, valid_pct, seed):
    held = set(split_items([(o, None) for o in {key(o) for o in names}], valid_pct, seed)[1])
    firsts = {key(o): o for o in names}
    return [o for o in names if (key(o), None) not in held], [firsts[o] for o, _ in held]

# %% 2: PIL's order, width first
def count_sizes(files):
    sizes = [Image.open(o).size for o in files]
    return {o: sizes.count(o) for o in sizes}

# %% 2: every picture is decoded
def count_sizes(files):
    sizes = [read_pixels(o, 1).shape[1:] for o in files]
    return {o: sizes.count(o) for o in sizes}

# %% 2: as they lie in the file
def count_sizes(files):
    sizes = [Image.open(o).size[::-1] for o in files]
    return {o: sizes.count(o) for o in sizes}

# %% 3: the bytes of the files
def same_pictures(files):
    groups = {}
    for file in files: groups.setdefault(Path(file).read_bytes(), []).append(file)
    return [o for o in groups.values() if len(o) > 1]

# %% 3: `(pixels.shape, pixels.tobytes())` → `pixels.tobytes()`

# %% 3: `read_pixels(file, 3)` → `read_pixels(file, 1)`

# %% 3: ` if len(o) > 1` → ``
