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

# %% 3: `0 if self.new_best else self.wait+1` → `self.wait+1`

# %% 3: `self.wait == 3` → `self.wait == 2`

# %% 3: never put back
class SwitchLoss(TrackerCallback):
    wait = 0
    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def look(self, value):
        super().look(value)
        self.wait = 0 if self.new_best else self.wait+1
        if self.wait == 3: self.learn.loss_func = self.other

# %% 3: put back at the next improvement, and not at the end
class SwitchLoss(TrackerCallback):
    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other, self.wait, self.old = other, 0, None

    def look(self, value):
        super().look(value)
        self.old = self.old or self.learn.loss_func
        self.wait = 0 if self.new_best else self.wait+1
        self.learn.loss_func = self.other if self.wait >= 3 else self.old
