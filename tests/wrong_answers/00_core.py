# ruff: noqa
# %% 1: `listify(o)` → `o`

# %% 1: a set has no order
def unique(o):
    return sorted(set(listify(o)))

# %% 1: lists cannot be keys
def unique(o):
    return list(dict.fromkeys(listify(o)))

# %% 1: out of the list that was given
def unique(o):
    o = listify(o)
    for item in list(o):
        while o.count(item) > 1: o.remove(item)
    return o

# %% 2: abbreviations fall to pieces
def callback_name(cls):
    name = cls.__name__.removesuffix('Callback')
    return re.sub('([A-Z])', r'_\1', name).lower().lstrip('_')

# %% 2: `.removesuffix('Callback')` → ``

# %% 2: letters, not a word
def callback_name(cls):
    return camel2snake(cls.__name__.rstrip('Callback'))

# %% 2: wherever it stands
def callback_name(cls):
    return camel2snake(cls.__name__.replace('Callback', ''))

# %% 3: written into the file that matters
def atomic_append(path, row):
    with open(path, 'a') as file: file.write(row + '\n')

# %% 3: `old + row` → `row`

# %% 3: ` if path.exists() else ''` → ``

# %% 3: a neighbour that stays
def atomic_append(path, row):
    old = path.read_text() if path.exists() else ''
    new = path.with_suffix('.new')
    new.write_text(old + row + '\n')
    path.unlink(missing_ok=True)
    path.write_text(new.read_text())

# %% 4: backed up before the block
@contextmanager
def keep_backup(path):
    if Path(path).exists():
        with atomic_write(f'{path}.bak') as other: other.write(Path(path).read_bytes())
    with atomic_write(path) as file: yield file

# %% 4: backed up when it is too late
@contextmanager
def keep_backup(path):
    with atomic_write(path) as file: yield file
    with atomic_write(f'{path}.bak') as other: other.write(Path(path).read_bytes())

# %% 4: renamed before the block
@contextmanager
def keep_backup(path):
    if Path(path).exists(): os.replace(path, f'{path}.bak')
    with atomic_write(path) as file: yield file

# %% 4: `        if Path(path).exists():` → `        if True:`

# %% 4: `f'{path}.bak'` → `Path(path).with_suffix('.bak')`
