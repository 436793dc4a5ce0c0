# ruff: noqa
# %% 1: a layer of the same shape is not the same layer
def forgotten(model, groups):
    held = {p.shape for group in groups for p in group.parameters()}
    return [name for name, p in model.named_parameters() if p.shape not in held]

# %% 1: nothing
def forgotten(model, groups):
    return []

# %% 2: a layer that nobody uses
def give_head(learn, n):
    learn.head = nn.Linear(50, n)

# %% 2: the old one, wider in name
def give_head(learn, n):
    learn.model[-1].out_features = n

# %% 2: one layer more
def give_head(learn, n):
    learn.model.append(nn.Linear(10, n))
    learn.model[1].weight.data.zero_()

# %% 3: it is lost
def change_optimizer(learn, opt_func):
    opt_func(learn.model.parameters(), lr=.1)

# %% 3: the name of a field that nobody reads
def change_optimizer(learn, opt_func):
    vars(learn)['optimizer'] = opt_func

# %% 2: behind the old layer
def give_head(learn, n):
    learn.model.append(nn.Linear(learn.model[-1].out_features, n))
