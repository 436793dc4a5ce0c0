# ruff: noqa
# %% 1: along a straight line
def spread_lrs(lo, hi, n):
    return [hi] if n == 1 else [lo + (hi-lo)*i/(n-1) for i in range(n)]

# %% 1: `i/(n-1)` → `i/n`

# %% 1: `if n == 1: return [hi]` → `if n == 1: return [lo]`

# %% 1: the head has the smallest
def spread_lrs(lo, hi, n):
    return [hi] if n == 1 else [hi*(lo/hi)**(i/(n-1)) for i in range(n)]

# %% 2: `[1::2]` → `[::2]`

# %% 2: `p.numel()` → `1`

# %% 2: biases alone
def n_exempt(model):
    return sum(p.numel() for name, p in model.named_parameters() if 'bias' in name)

# %% 2: whatever has one dimension
def n_exempt(model):
    return sum(p.numel() for p in model.parameters() if p.ndim < 2 and p.requires_grad)

# %% 3: SGD alone
def halve_momentum(opt):
    for group in opt.param_groups:
        if 'momentum' in group: group['momentum'] /= 2

# %% 3: all groups get the first one's
def halve_momentum(opt):
    if (place := find_places(opt.param_groups[0]).get('mom')) is None: return
    values = read_values(opt.param_groups, place)
    write_values(opt.param_groups, place, [values[0]/2]*len(values))

# %% 3: both betas
def halve_momentum(opt):
    for group in opt.param_groups:
        if 'momentum' in group: group['momentum'] /= 2
        if 'betas' in group: group['betas'] = tuple(o/2 for o in group['betas'])

# %% 3: `.get('mom')) is None: return` → `['mom']) is None: return`

# %% 4: `    write_values(opt.param_groups, place, [0.]*n, width=2)` → ``

# %% 4: `values, width=2, bn_groups=False` → `values, width=2`

# %% 4: one value for each parameter group
def set_decay(opt, wd):
    for group, o in zip(opt.param_groups, spread_numbers('wd', wd, len(opt.param_groups))):
        group['weight_decay'] = o

# %% 4: `spread_numbers('wd', wd, n)` → `[wd]*n`
