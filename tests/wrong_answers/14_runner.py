# ruff: noqa
# %% 1: `self.in_train and ` → ``

# %% 1: only the steps are skipped
class SkipOdd(Callback):
    def begin_step(self): return self.iter % 2 == 1

# %% 1: the first odd batch ends the epoch
class SkipOdd(Callback):
    def begin_batch(self):
        if self.in_train and self.iter % 2: raise CancelTrainException

# %% 1: `self.iter % 2 == 1` → `self.iter % 2 == 0`

# %% 1: `self.iter` → `self.n_iter`

# %% 1: the first 20 only
class SkipOdd(Callback):
    def begin_batch(self): return self.in_train and self.n_iter >= 20

# %% 2: `True` → `False`

# %% 2: it ends the fit
class NoValidation(Callback):
    def begin_validate(self): raise CancelFitException

# %% 2: one batch is fetched
class NoValidation(Callback):
    def after_batch(self): return not self.in_train

# %% 2: the learner loses its loader
class NoValidation(Callback):
    def begin_fit(self): self.data.valid_dl = None

# %% 3: its phase is running
class Misplaced(Callback):
    def begin_batch(self): raise CancelBatchException

# %% 3: an error of its own
class Misplaced(Callback):
    def begin_epoch(self): raise RuntimeError('no phase')

# %% 4: the gradients stay large
class Scaled(Callback):
    def after_loss(self):
        if self.in_train: self.run.loss = self.loss*1000

# %% 4: divided when the step is done
class Scaled(Callback):
    def after_loss(self):
        if self.in_train: self.run.loss = self.loss*1000

    def after_step(self):
        for p in self.model.parameters(): p.grad /= 1000

# %% 4: nothing is scaled, and the weights agree
class Scaled(Callback):
    def after_loss(self): self.loss*1000

# %% 4: `if self.in_train: ` → ``

# %% 4: the rate is divided, not the gradients
class Scaled(Callback):
    def begin_fit(self): self.opt.param_groups[0]['lr'] /= 1000

    def after_loss(self):
        if self.in_train: self.run.loss = self.loss*1000

# %% 5: `self.in_train and ` → ``

# %% 5: `begin_batch` → `after_batch`

# %% 5: never anew
class Shares(Callback):
    shares = []
    def begin_batch(self):
        if self.in_train and self.iter == 0: self.shares.append(self.pct_train)
