# ruff: noqa
# %% 1: validation too
class CountCallback(Callback):
    def begin_fit(self): self.count = 0
    def begin_batch(self): self.count += 1

# %% 1: for ever
class CountCallback(Callback):
    count = 0
    def begin_step(self): self.count += 1

# %% 1: each epoch anew
class CountCallback(Callback):
    def begin_epoch(self): self.count = 0
    def begin_step(self): self.count += 1

# %% 2: nothing is wrong
def suggestions(cls):
    return {}

# %% 2: one method known by heart
def suggestions(cls):
    return {'after_losses': 'after_loss'}

# %% 2: ` and meant_event(o)` → ``

# %% 3: not refused
your_name = 'after_lunch'

# %% 3: an event
your_name = 'after_batch'

# %% 4: never
def may_cancel(exception, event, in_train):
    return False

# %% 4: always
def may_cancel(exception, event, in_train):
    return True

# %% 4: validation is training
def may_cancel(exception, event, in_train):
    return exception.phase in running_phases(event)

# %% 4: nothing is cancelled in validation
def may_cancel(exception, event, in_train):
    return in_train and exception.phase in running_phases(event, True)
