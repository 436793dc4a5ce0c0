# ruff: noqa
# %% 1: ` (name, file.read_bytes())` → ` (file.read_bytes(),)`

# %% 1: names and contents run together
def fingerprint(folder):
    digest = hashlib.sha256()
    for file in sorted(o for o in folder.rglob('*') if o.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()

# %% 1: `file.relative_to(folder)` → `file`

# %% 1: `rglob` → `glob`

# %% 1: `(name, file.read_bytes())` → `(name, str(file.stat().st_size).encode())`

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
