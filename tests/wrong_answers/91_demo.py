# ruff: noqa
# %% 1: the fewest that are right
def hardest(table, names): return names[int(table.diag().argmin())]

# %% 1: the most mistakes
def hardest(table, names): return names[int((table.sum(1) - table.diag()).argmax())]

# %% 1: `table[i].sum()` → `table[:, i].sum()`

# %% 1: a class without pictures counts
def hardest(table, names): return names[int((table.diag()/table.sum(1)).argmin())]

# %% 1: `names[min(there, key=lambda i: table[i, i]/table[i].sum())]` → `min(there)`

# %% 2: `nn.Linear(4*width, 10)` → `nn.Linear(64, 10)`

# %% 2: `block(2*width, 4*width)` → `block(2*width, 64)`

# %% 2: `, bias=False` → ``

# %% 2: `.to(memory_format=torch.channels_last)` → ``

# %% 2: the same width in each block
def wider_model(width):
    def block(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                             nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(block(1, width), block(width, width), block(width, width),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))

# %% 3: `, stats=known.stats` → ``

# %% 3: `classes=names, ` → ``

# %% 3: the known data take what is measured now
def data_for(names, known):
    data = demo_data(device='cpu', classes=names)
    known.normalize(data.stats)
    return data

# %% 3: divided by what stands first
def data_for(names, known): return demo_data(device='cpu', classes=names, stats=known.stats[::-1])

# %% 4: a new learner alone
def loaded(file, data): return Learner(data, demo_model(), silent=True)

# %% 4: `, with_opt=False` → ``

# %% 4: `path=file.parent, model_dir='.', ` → ``

# %% 4: the file is more than the weights
def loaded(file, data):
    model = demo_model()
    model.load_state_dict(torch.load(file))
    return Learner(data, model, silent=True)
