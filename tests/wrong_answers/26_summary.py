# ruff: noqa
# %% 1: it fits
misfit = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))

# %% 1: the first layer does not fit the pictures
misfit = nn.Sequential(nn.Flatten(), nn.Linear(28, 50), nn.ReLU(), nn.Linear(50, 10))

# %% 1: another layer does not fit
misfit = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.BatchNorm1d(40), nn.Linear(50, 10))

# %% 1: no second linear layer
misfit = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.BatchNorm1d(40))

# %% 2: ` + 1` → ``

# %% 2: `size*size` → `size`

# %% 2: a constant
def conv_parameters(n_in, n_out, size):
    return 416

# %% 3: parameters are counted again in the layers around them
def shares(model):
    sizes = [sum(p.numel() for p in m.parameters()) for m in model.modules()]
    return [size/sum(sizes) for size in sizes if size]

# %% 3: parameters, not layers
def shares(model):
    sizes = [p.numel() for p in model.parameters()]
    return [size/sum(sizes) for size in sizes]

# %% 3: only the layers that the model itself holds
def shares(model):
    sizes = [sum(p.numel() for p in m.parameters()) for m in model.children()]
    return [size/sum(sizes) for size in sizes if size]

# %% 1: no layer gets as far as the second linear one
misfit = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(40, 10))
