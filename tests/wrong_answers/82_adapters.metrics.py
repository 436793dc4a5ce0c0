# ruff: noqa
# %% 1: the number is not put back
class Largest:
    def reset(self): self.most = 0.
    def update(self, pred, yb): self.most = max(self.most, float((pred - yb).abs().max()))
    def compute(self): return self.most
    def state_dict(self): return {'most': self.most}
    def load_state_dict(self, state): most = state['most']

# %% 1: the object itself
class Largest:
    def reset(self): self.most = 0.
    def update(self, pred, yb): self.most = max(self.most, float((pred - yb).abs().max()))
    def compute(self): return self.most
    def state_dict(self): return vars(self)
    def load_state_dict(self, state): vars(self).update(state)

# %% 1: `self.most = state['most']` → `self.most = max(self.most, 1.)`

# %% 2: `self, y_true, y_pred` → `self, y_pred, y_true`

# %% 2: `self.most = max(self.most, ` → `self.most = max(0., `

# %% 2: a distance, not a share
class LargestError:
    def reset_state(self): self.most = 0.
    def update_state(self, y_true, y_pred):
        self.most = max(self.most, float((y_pred - y_true).abs().max()))
    def result(self): return self.most

# %% 2: one memory for all
class LargestError:
    seen = [0.]
    def reset_state(self): self.seen[:] = [0.]
    def update_state(self, y_true, y_pred):
        self.seen.append(float(((y_pred - y_true)/y_true).abs().max()))
    def result(self): return max(self.seen)

# %% 3: the mean of the batches
class MeanDistance:
    def reset(self): self.found = []
    def accumulate(self, learn): self.found.append(float((learn.pred - learn.y).abs().mean()))
    @property
    def value(self): return sum(self.found)/len(self.found) if self.found else None

# %% 3: ` if self.rows else None` → ``

# %% 3: `def reset(self): self.total, self.rows = 0., 0` → `def reset(self): self.rows, self.total = 0, getattr(self, 'total', 0.)`
