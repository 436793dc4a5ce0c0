# ruff: noqa
# %% 1: `t.element_size()` → `4`

# %% 1: numbers, not bytes
def count_bytes(b):
    sizes = []
    map_tensors(b, lambda t: sizes.append(t.numel()))
    return sum(sizes)

# %% 1: a pair
def count_bytes(b):
    return sum(o.nbytes for o in b)

# %% 1: the first tensor
def count_bytes(b):
    if isinstance(b, torch.Tensor): return b.nbytes
    if not isinstance(b, (tuple, list, dict)): return 0
    return count_bytes(next(iter(b.values() if isinstance(b, dict) else b)))

# %% 2: left to Python
def same(a, b):
    return a == b

# %% 2: `len(a) == len(b) and all(map(same, a, b))` → `all(map(same, a, b))`

# %% 2: `    if type(a) is not type(b): return False` → ``

# %% 2: `a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)` → `same([*a.values()], [*b.values()])`

# %% 2: all tensors, whatever holds them
def same(a, b):
    found = [], []
    for o, list_ in zip((a, b), found): map_tensors(o, list_.append)
    return len(found[0]) == len(found[1]) and all(map(torch.equal, *found))

# %% 2: as they are printed
def same(a, b):
    return str(a) == str(b)

# %% 3: torch alone
def undisturbing(func):
    def call(*args, **kwargs):
        with torch.random.fork_rng(): return func(*args, **kwargs)
    return call

# %% 3: a seed of its own, for all
def undisturbing(func):
    def call(*args, **kwargs):
        set_seed(42)
        return func(*args, **kwargs)
    return call

# %% 3: not after an error
def undisturbing(func):
    def call(*args, **kwargs):
        state = rng_state()
        found = func(*args, **kwargs)
        set_rng_state(state)
        return found
    return call

# %% 3: when the function is made
def undisturbing(func):
    with no_random(): return func

# %% 4: `remove_duplicate=False` → ``

# %% 4: a layer of the same kind counts as the same
def shared_layers(model):
    used = [str(o) for _, o in model.named_modules(remove_duplicate=False) if not children(o)]
    return [o for o in flatten_model(model) if used.count(str(o)) > 1]

# %% 4: once for each place
def shared_layers(model):
    used = [o for _, o in model.named_modules(remove_duplicate=False) if not children(o)]
    return [o for o in used if sum(o is other for other in used) > 1]

# %% 4: layers of the same kind
def shared_layers(model):
    kinds = [type(o) for o in flatten_model(model)]
    return [o for o in flatten_model(model) if kinds.count(type(o)) > 1]
