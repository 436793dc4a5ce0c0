# ruff: noqa
# %% 1: `p.detach().abs().max()` → `p.detach().max()`

# %% 1: `.item(), step)` → `.item())`

# %% 1: `f'largest/{name}'` → `f'largest/{type(model).__name__}'`

# %% 2: no lines between them
def filter_at(image, out, inp, size):
    top, left = out*size, inp*size
    return image[0, top:top+size, left:left+size]

# %% 2: `out*(size+1), inp*(size+1)` → `inp*(size+1), out*(size+1)`

# %% 2: `image[0, top` → `image[:, top`

# %% 3: `o.clone() for k` → `o for k`

# %% 3: `model.state_dict().items()}` → `model.named_parameters()}`

# %% 3: `not torch.equal(random, torch.get_rng_state())` → `random is not torch.get_rng_state()`

# %% 3: looking draws a number
def changed_by(model, action):
    random, mode = torch.rand(1), model.training
    state = {k: o.clone() for k, o in model.state_dict().items()}
    action()
    now = model.state_dict()
    found = {'random numbers': not torch.equal(random, torch.rand(1)),
             'mode': mode != model.training,
             'state': any(not torch.equal(o, now[k]) for k, o in state.items())}
    return [k for k, o in found.items() if o]

# %% 4: `[('word', 'kind'), *zip(words, kinds)]` → `list(zip(words, kinds))`

# %% 4: `o.replace('\t', ' ')` → `o`

# %% 4: `'\t'.join(` → `' '.join(`
