# ruff: noqa
# %% 1: a count that is not kept
class Rising(Callback):
    def begin_fit(self): self.count, self.before = 0, None
    def after_loss(self):
        if not self.run.in_train: return
        loss = self.run.loss.item()
        if self.before is not None: self.count += loss > self.before
        self.before = loss

# %% 1: the loss before is not kept
class Rising(Callback):
    def begin_fit(self): self.count, self.before = 0, None
    def after_loss(self):
        if not self.run.in_train: return
        loss = self.run.loss.item()
        if self.before is not None: self.count += loss > self.before
        self.before = loss
    def state_dict(self): return {'count': self.count}
    def load_state_dict(self, state): self.count = state['count']

# %% 1: validation is counted, too
class Rising(Callback):
    def begin_fit(self): self.count, self.before = 0, None
    def after_loss(self):
        loss = self.run.loss.item()
        if self.before is not None: self.count += loss > self.before
        self.before = loss
    def state_dict(self): return {'count': self.count, 'before': self.before}
    def load_state_dict(self, state): self.count, self.before = state['count'], state['before']

# %% 2: `2*cost` → `cost`

# %% 2: as much as a checkpoint costs
def best_interval(cost, mean): return cost

# %% 2: half of the time between two kills
def best_interval(cost, mean): return mean/2

# %% 3: `, resume=True` → ``

# %% 3: the second fit is not counted
def repeated(every, kill):
    name, one = f'once-{every}-{kill}', []
    class Steps(Callback):
        def after_step(self): one.append(1)
    try: make(0, name).fit(2, cbs=[CheckpointCallback(every=every), Kill(kill), Steps()])
    except Killed: pass
    return 20 - len(one)

# %% 3: by heart, as if every were an epoch
def repeated(every, kill): return kill % 10
