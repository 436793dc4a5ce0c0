# ruff: noqa
# %% 1: `if not self.in_train: return` → `pass`

# %% 1: 79 batches are not ten times seven
class Dots(Callback):
    def after_batch(self):
        if self.in_train and self.iter % (self.iters//10) == 0: print('.', end='')

    def after_train(self): print()

# %% 1: all at once
class Dots(Callback):
    def after_epoch(self): print('.'*10)

# %% 2: behind the table
class LearningRate(Callback):
    order = 20
    def begin_fit(self): self.run.recorder.add_metric_names('lr')
    def after_epoch(self): self.run.recorder.values[-1][-1] = self.opt.lr

# %% 2: no number
class LearningRate(Callback):
    def begin_fit(self): self.run.recorder.add_metric_names('lr')

# %% 3: `self.epoch + 1` → `self.epoch`

# %% 3: `self.epoch + 1` → `self.epoch + 2`

# %% 3: each batch
class TitleProgress(ProgressCallback):
    def begin_batch(self): print(f'\x1b]0;epoch {self.epoch + 1}\x07', end='')

# %% 3: `super().redraw()` → `pass`

# %% 1: ten dots, the last long before the end
class Dots(Callback):
    def after_batch(self):
        if not self.in_train: return
        tenth, rest = divmod(self.iter, self.iters//10)
        if rest == 0 and tenth < 10: print('.', end='')

    def after_train(self): print()
