# ruff: noqa
# %% 1: patience counted from the best, always
def stops_at(losses, patience):
    best = min(range(len(losses)), key=losses.__getitem__)
    return best+patience if best+patience < len(losses) else None

# %% 1: `        if view.stop_training: return epoch` → `    return epoch`

# %% 1: one epoch later
def stops_at(losses, patience):
    view = ModelView()
    cbs = CallbackList([EarlyStopping(patience=patience+1)], model=view)
    cbs.on_train_begin()
    for epoch, loss in enumerate(losses):
        cbs.on_epoch_end(epoch, {'val_loss': loss})
        if view.stop_training: return epoch

# %% 1: `{'val_loss': loss}` → `{'loss': loss}`

# %% 2: `on_test_batch_end=lambda batch, logs` → `on_test_begin=lambda logs`

# %% 2: `on_test_end=lambda logs` → `on_train_end=lambda logs`

# %% 2: `on_test_end=lambda logs` → `on_epoch_end=lambda logs`

# %% 3: `[Gap(), History()]` → `[History(), Gap()]`

# %% 3: `logs['gap'] = logs['val_loss'] - logs['loss']` → `logs['gap'] = logs['loss'] - logs['val_loss']`

# %% 3: another dictionary
class Gap(Callback):
    def on_epoch_end(self, epoch, logs=None): return {**logs, 'gap': logs['val_loss']-logs['loss']}

def callbacks(): return [Gap(), History()]

# %% 4: the training loss
class KeepBest(Callback):
    def on_train_begin(self, logs=None): self.lowest = float('inf')
    def on_epoch_end(self, epoch, logs=None):
        if logs['loss'] < self.lowest:
            self.lowest, self.weights = logs['loss'], self.model.get_weights()
    def on_train_end(self, logs=None): self.model.set_weights(self.weights)

# %% 4: the lowest of all fits
class KeepBest(Callback):
    lowest = float('inf')
    def on_epoch_end(self, epoch, logs=None):
        if logs['val_loss'] < self.lowest:
            self.lowest, self.weights = logs['val_loss'], self.model.get_weights()
    def on_train_end(self, logs=None): self.model.set_weights(self.weights)

# %% 4: `            self.lowest, self.weights = logs['val_loss'], self.model.get_weights()` → `            self.lowest, self.weights = logs['val_loss'], list(self.model.module.parameters())`

# %% 4: `        if logs['val_loss'] < self.lowest:` → `        if True:`
