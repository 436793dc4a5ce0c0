# ruff: noqa
# %% 1: the second fit begins the file anew
def two_fits(learn):
    learn.fit(2, cbs=CSVLogger(filename='both'))
    learn.fit(1, cbs=CSVLogger(filename='both'))

# %% 1: both go on with the file
def two_fits(learn):
    learn.fit(2, cbs=CSVLogger(filename='both', append=True))
    learn.fit(1, cbs=CSVLogger(filename='both', append=True))

# %% 1: another file
def two_fits(learn):
    learn.fit(2, cbs=CSVLogger())
    learn.fit(1, cbs=CSVLogger(append=True))

# %% 2: a file that stays open
class NoteEpochs(Callback):
    def begin_fit(self): self.file = open(self.learn.path/'epochs.txt', 'w')
    def after_epoch(self): self.file.write(f'{self.run.epoch}\n')
    def after_fit(self): self.file.close()

# %% 2: a list, written in the end
class NoteEpochs(Callback):
    def begin_fit(self): self.rows = []
    def after_epoch(self): self.rows.append(str(self.run.epoch))
    def after_fit(self): (self.learn.path/'epochs.txt').write_text('\n'.join(self.rows))

# %% 2: every fit goes on
class NoteEpochs(Callback):
    def after_epoch(self):
        with open(self.learn.path/'epochs.txt', 'a') as f: f.write(f'{self.run.epoch}\n')

# %% 2: `'a'` → `'w'`

# %% 3: `order = 0` → `order = 80`

# %% 3: not announced
class RateColumn(Callback):
    def after_epoch(self): self.recorder.values[-1][-1] = self.recorder.lrs[-1]

# %% 3: `self.recorder.lrs[-1]` → `self.recorder.lrs`

# %% 4: `learn.run.in_train and ` → ``

# %% 4: `% 10 == 0` → `% 10 == 1`

# %% 4: every batch
def every_tenth(losses):
    return LambdaCallback(after_batch=lambda learn: losses.append(learn.loss.item()))

# %% 4: counted anew in each epoch
def every_tenth(losses):
    def note(learn):
        if learn.run.in_train and (learn.run.iter+1) % 10 == 0: losses.append(learn.run.loss.item())
    return LambdaCallback(after_batch=note)
