# ruff: noqa
# %% 1: names alone
def seen_before(train, valid):
    def names(folder): return {o.relative_to(folder).as_posix() for o in folder.rglob('*')
                               if o.is_file()}
    return sorted(names(train) & names(valid))

# %% 1: `hashlib.sha256(o.read_bytes()).digest()` → `o.stat().st_size`

# %% 1: `o.relative_to(folder).as_posix()` → `o.name`

# %% 1: `rglob` → `glob`

# %% 1: `sorted(name for name, digest in digests(valid).items() if digest in known)` → `[name for name, digest in sorted(digests(valid).items()) if (name, digest) in digests(train).items()]`

# %% 1: what is twice in the validation
def seen_before(train, valid):
    files = {o.relative_to(valid).as_posix(): o.read_bytes() for o in valid.rglob('*') if o.is_file()}
    others = [o.read_bytes() for o in (*train.rglob('*'), *valid.rglob('*')) if o.is_file()]
    return sorted(k for k, v in files.items() if others.count(v) > 1)

# %% 2: any error is a reason to go on
def from_mirrors(urls, dest):
    for url in urls:
        try: return untar_data(url, dest=dest)
        except Exception as e: problem = e
    raise problem

# %% 2: the first alone
def from_mirrors(urls, dest): return untar_data(urls[0], dest=dest)

# %% 2: all of them, the last counts
def from_mirrors(urls, dest):
    for url in urls:
        try: found = untar_data(url, dest=dest, force=True)
        except DownloadError: pass
    return found

# %% 3: a share of all, not of each class
def split(images, labels, frac, seed):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held, kept = order[:round(frac*len(order))], order[round(frac*len(order)):]
    return images[kept], labels[kept], images[held], labels[held]

# %% 3: the first ones of each class
def split(images, labels, frac, seed):
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        mine = torch.where(labels == label)[0]
        held[mine[:round(frac*len(mine))]] = True
    return images[~held], labels[~held], images[held], labels[held]

# %% 3: `held[mine[:round(frac*len(mine))]]` → `held[order[:round(frac*len(mine))]]`
