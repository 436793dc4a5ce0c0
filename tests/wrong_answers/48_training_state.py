# ruff: noqa
# %% 1: `    def load_state_dict(self, state): self.n = state['n']` → ``

# %% 1: it is added
class Counted(Callback):
    n = 0
    def after_batch(self): self.n += 1
    def state_dict(self): return {'n': self.n}
    def load_state_dict(self, state): self.n += state['n']

# %% 1: it says nothing
class Counted(Callback):
    n = 0
    def after_batch(self): self.n += 1
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

# %% 2: the weights alone
def attempt(learn, change):
    before, kept = learn.validate()[0], {k: o.clone() for k, o in learn.model.state_dict().items()}
    change(learn)
    better = learn.validate()[0] < before
    if not better: learn.model.load_state_dict(kept)
    return better

# %% 2: `learn.validate()[0] < before` → `True`

# %% 2: `        if not better: ` → `        `

# %% 2: weights and optimizer
def attempt(learn, change):
    before, kept = learn.validate()[0], {k: o.clone() for k, o in learn.model.state_dict().items()}
    opt = learn.opt.state_dict()
    change(learn)
    better = learn.validate()[0] < before
    if not better:
        learn.model.load_state_dict(kept)
        learn.opt.load_state_dict(opt)
    return better

# %% 3: it is put back
def why_not(learn, file):
    try: restore_checkpoint(learn, file)
    except (OSError, ValueError) as e: return str(e)
    return ''

# %% 3: `(OSError, ValueError)` → `ValueError`

# %% 3: `check_learner_fits(read_checkpoint(file), learn)` → `read_checkpoint(file)`
