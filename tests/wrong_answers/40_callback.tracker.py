# ruff: noqa
# %% 1: not in a row
def epochs_trained(values, patience, min_delta):
    best, wait = None, 0
    for epoch, value in enumerate(values, 1):
        if improves(value, best, 'min', min_delta): best = value
        else: wait += 1
        if wait >= patience: return epoch
    return len(values)

# %% 1: better than the epoch before
def epochs_trained(values, patience, min_delta):
    before, wait = None, 0
    for epoch, value in enumerate(values, 1):
        wait = 0 if improves(value, before, 'min', min_delta) else wait+1
        before = value
        if wait >= patience: return epoch
    return len(values)

# %% 1: `wait >= patience` → `wait > patience`

# %% 1: `'min', min_delta` → `'min'`

# %% 2: the validation loss
class Gap(TrackerCallback):
    def __init__(self): super().__init__(mode='min')
    def get_monitor_value(self): return find_recorder(self.run).values[-1][1]

# %% 2: `valid-train` → `train-valid`

# %% 2: `mode='min'` → `mode='max'`

# %% 2: without its sign
class Gap(TrackerCallback):
    def __init__(self): super().__init__(mode='min')
    def get_monitor_value(self):
        train, valid, *_ = self.recorder.values[-1]
        return abs(valid-train)

# %% 3: `0 if self.new_best else self.wait+1` → `self.wait+1`

# %% 3: `self.wait < 3` → `self.wait < 2`

# %% 3: `        self.learns(self.wait < 3)` → `        if self.wait == 3: self.learns(False)`

# %% 3: never put back
class Freeze(TrackerCallback):
    wait = 0
    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        self.path = path

    def look(self, value):
        super().look(value)
        self.wait = 0 if self.new_best else self.wait+1
        self.model.get_parameter(self.path).requires_grad_(self.wait < 3)
