# ruff: noqa
# %% 1: `0 <= o < pred.shape[1]` → `0 <= o <= pred.shape[1]`

# %% 1: `0 <= o < pred.shape[1]` → `o < pred.shape[1]`

# %% 1: ` - {ignored}` → ``

# %% 1: `labels.flatten()` → `labels`

# %% 1: `sorted(o for o in found if not 0 <= o < pred.shape[1])` → `[o for o in labels.flatten().tolist() if o != ignored and not 0 <= o < pred.shape[1]]`

# %% 2: always
def fitting(pred, yb):
    return yb[:, None]

# %% 2: in the shape of the output
def fitting(pred, yb):
    return yb.reshape(pred.shape)

# %% 2: whenever there is a dimension more
def fitting(pred, yb):
    return yb[:, None] if pred.ndim > yb.ndim else yb

# %% 3: whatever is a list
def loss_of(loss_func, pred, yb):
    return loss_func(pred, *yb) if isinstance(yb, (list, tuple)) else loss_func(pred, yb)

# %% 3: a tuple only
def loss_of(loss_func, pred, yb):
    return loss_func(pred, *yb) if isinstance(yb, tuple) else loss_func(pred, yb)

# %% 3: always one by one
def loss_of(loss_func, pred, yb):
    return loss_func(pred, *yb)

# %% 3: always in one piece
def loss_of(loss_func, pred, yb):
    return loss_func(pred, yb)

# %% 4: nothing is put back
def peek_loss(learn):
    xb, yb = next(iter(learn.data.train_dl))
    return first_loss(learn.loss_func, learn.model(xb), yb).item()

# %% 4: in another mode
def peek_loss(learn):
    xb, yb = next(iter(learn.data.train_dl))
    learn.model.eval()
    loss = first_loss(learn.loss_func, learn.model(xb), yb).item()
    learn.model.train()
    return loss

# %% 4: remembered too late
def peek_loss(learn):
    xb, yb = next(iter(learn.data.train_dl))
    loss = first_loss(learn.loss_func, learn.model(xb), yb).item()
    put_back(FirstBatch(learn).undos)
    return loss

# %% 4: the random numbers alone
def peek_loss(learn):
    state = rng_state()
    xb, yb = next(iter(learn.data.train_dl))
    loss = first_loss(learn.loss_func, learn.model(xb), yb).item()
    set_rng_state(state)
    return loss
