# ruff: noqa
# %% 1: from the wrong end
def thaw(groups, step):
    freeze_before(groups, min(step, len(groups) - 1))

# %% 1: one group at a time
def thaw(groups, step):
    for i, group in enumerate(groups): set_trainable(group, i == max(0, len(groups) - 1 - step))

# %% 2: `1e-5, 1e-2` → `1e-2`

# %% 2: `1e-5, 1e-2` → `1e-6, 1e-2`

# %% 2: `1e-5, 1e-2` → `1e-2, 1e-5`

# %% 3: first the biases
def by_kind(model):
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim < 2], [p for p in parameters if p.ndim > 1]

# %% 3: layers
def by_kind(model):
    return [list(model[0].parameters()), list(model[3].parameters())]

# %% 3: every second one
def by_kind(model):
    parameters = list(model.parameters())
    return parameters[::2], parameters[1::2]

# %% 3: by their names
def by_kind(model):
    named = list(model.named_parameters())
    return [p for name, p in named if 'weight' in name], [p for name, p in named if 'bias' in name]
