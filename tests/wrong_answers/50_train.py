# ruff: noqa
# %% 1: `pct_start=0.5, ` → ``

# %% 1: `, anneal='linear'` → ``

# %% 1: a rate that begins at its top
def fit_triangle(learn, epochs, max_lr):
    fit_one_cycle(learn, epochs, max_lr, pct_start=0, anneal='linear')

# %% 1: up and down in each epoch
def fit_triangle(learn, epochs, max_lr):
    def tent(pos): return max_lr*(1 - abs(2*(pos*epochs % 1) - 1))
    learn.fit(epochs, max_lr, cbs=ParamScheduler('lr', tent))

# %% 2: `, tot_epochs=epochs, start_epoch=done` → ``

# %% 2: `, start_epoch=done` → ``

# %% 2: `tot_epochs=epochs` → `tot_epochs=epochs-done`

# %% 3: `, *listify(cbs)` → ``

# %% 3: `pos < at` → `pos < 0.5`

# %% 3: the callbacks stay with the learner
def fit_step(learn, epochs, lr, at=0.5, cbs=None):
    learn.add_cbs([ParamScheduler('lr', lambda pos: lr if pos < at else lr/10), *listify(cbs)])
    learn.fit(epochs, lr)

# %% 3: two fits instead of one
def fit_step(learn, epochs, lr, at=0.5, cbs=None):
    learn.fit(int(epochs*at), lr, cbs=cbs)
    learn.fit(epochs - int(epochs*at), lr/10, cbs=cbs)

# %% 4: `freeze_to(-n)` → `freeze_to(n-1)`

# %% 4: nobody thaws after an error
def thaw(learn, lr):
    for n in range(1, len(learn.layer_groups) + 1):
        learn.freeze_to(-n)
        fit_one_cycle(learn, 1, lr)
    learn.unfreeze()

# %% 4: the last group, then all
def thaw(learn, lr):
    try:
        for n in (1, len(learn.layer_groups)):
            learn.freeze_to(-n)
            fit_one_cycle(learn, 1, lr)
    finally: learn.unfreeze()

# %% 4: from the first group on
def thaw(learn, lr):
    try:
        for n in range(len(learn.layer_groups)):
            learn.freeze_to(-n)
            fit_one_cycle(learn, 1, lr)
    finally: learn.unfreeze()
