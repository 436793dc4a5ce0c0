# ruff: noqa
# %% 1: metrics keep their names
class KerasNames(TensorBoardCallback):
    def epoch_scalars(self):
        names = {'train_loss': 'loss', 'valid_loss': 'val_loss'}
        return {names.get(k, k): o for k, o in super().epoch_scalars().items()}

# %% 1: `names.get(k, f'val_{k}')` → `f'val_{k}'`

# %% 1: `{'train_loss': 'loss', 'valid_loss': 'val_loss'}` → `{'train_loss': 'loss'}`

# %% 2: the first fit counts, the second does not
class GoesOn(NaiveTensorBoard):
    start = 0
    def after_batch(self):
        if not self.in_train: return
        step = self.start + self.n_iter - 1
        self.writer.add_scalar('loss', self.loss.item(), step)
        self.writer.add_scalar('lr', self.opt.lr, step)
    def after_fit(self):
        super().after_fit()
        self.start = self.n_iter

# %% 2: `self.start += self.n_iter` → `self.start += self.n_epochs`

# %% 2: a folder for each fit
class GoesOn(NaiveTensorBoard):
    fits = 0
    def begin_fit(self):
        self.fits += 1
        self.writer = SummaryWriter(f'{self.log_dir}/{self.fits}')

# %% 3: one by one at the end
class Later(NaiveTensorBoard):
    def begin_train(self): self.kept = []
    def after_batch(self):
        if self.in_train: self.kept.append((self.n_iter, self.loss.detach(), self.opt.lr))
    def after_train(self):
        for step, loss, lr in self.kept:
            self.writer.add_scalar('loss', loss.item(), step)
            self.writer.add_scalar('lr', lr, step)

# %% 3: `    def begin_train(self): self.kept = []` → `    kept = []`

# %% 3: one loss for an epoch
class Later(NaiveTensorBoard):
    def after_batch(self): pass
    def after_train(self):
        self.writer.add_scalar('loss', self.loss.item(), self.n_iter)
        self.writer.add_scalar('lr', self.opt.lr, self.n_iter)

# %% 4: `steps[values.index(min(values))]` → `values.index(min(values))`

# %% 4: `'valid_loss'` → `'train_loss'`

# %% 4: `min(values)` → `max(values)`
