# ruff: noqa
# %% 1: `        logs['lr'] = rate` → ``

# %% 1: `        logs['lr'] = rate` → `        logs = {**logs, 'lr': rate}`

# %% 1: the rate of the next epoch in the logs
class HalveRate:
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate)/2
        logs['lr'] = float(self.model.optimizer.learning_rate)

# %% 1: `learning_rate = rate/2` → `lr_of_mine = rate/2`

# %% 2: a mean of means
class MeanLosses:
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_train_begin(self, logs=None): self.means = []
    def on_epoch_begin(self, epoch, logs=None): self.found = []
    def on_batch_end(self, batch, logs=None): self.found.append(logs['loss'])
    def on_epoch_end(self, epoch, logs=None): self.means.append(sum(self.found)/len(self.found))

# %% 2: `self.total = self.count = 0` → `self.__dict__.setdefault('total', 0); self.__dict__.setdefault('count', 0)`

# %% 2: the size of a full batch
class MeanLosses:
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_train_begin(self, logs=None): self.means = []
    def on_epoch_begin(self, epoch, logs=None): self.total = 0
    def on_batch_end(self, batch, logs=None): self.total += logs['loss']*self.params['batch_size']
    def on_epoch_end(self, epoch, logs=None): self.means.append(self.total/self.params['samples'])

# %% 3: within one epoch
class StopAfter:
    def __init__(self, n): self.n = n
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_batch_end(self, batch, logs=None):
        if batch+1 >= self.n: self.model.stop_training = True

# %% 3: `self.count >= self.n` → `self.count > self.n`

# %% 3: never set back
class StopAfter:
    def __init__(self, n): self.n, self.count = n, 0
    def set_params(self, params): self.params = params
    def set_model(self, model): self.model = model
    def on_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count >= self.n: self.model.stop_training = True
