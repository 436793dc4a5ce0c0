# ruff: noqa
# %% 1: every part, the head too
def features_at(network, x):
    return [create_body(network, cut=i+1, channels=x.shape[1])(x).shape[1]
            for i in range(len(list(network.children())))]

# %% 1: always three
def features_at(network, x):
    return [create_body(network, cut=o, channels=x.shape[1])(x).shape[1] for o in (1, 2, 3)]

# %% 1: `cut=i+1` → `cut=usual`

# %% 2: `, concat_pool=False` → ``

# %% 2: `lin_ftrs=[], ` → ``

# %% 2: `ps=0.2, ` → ``

# %% 3: as it was
def by_conv(model): return list(model)

# %% 3: each layer of the head is a group
def by_conv(model):
    body, head = model
    return [*body, *head]

# %% 3: the head comes first
def by_conv(model):
    body, head = model
    return [head, *body]

# %% 4: from the first group on
def thaw(learn, epochs, lr):
    for n in range(len(learn.layer_groups)):
        learn.freeze_to(n)
        learn.fit(epochs, lr)

# %% 4: everything after the head
def thaw(learn, epochs, lr):
    learn.freeze()
    learn.fit(epochs, lr)
    learn.unfreeze()
    learn.fit(epochs, lr)

# %% 4: never more than the head
def thaw(learn, epochs, lr):
    for _ in learn.layer_groups:
        learn.freeze()
        learn.fit(epochs, lr)
