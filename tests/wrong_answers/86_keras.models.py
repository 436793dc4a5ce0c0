# ruff: noqa
# %% 1: `error > 0` → `error < 0`

# %% 1: `.mean(-1)` → `.mean()`

# %% 1: the arguments of torch's losses
def over_twice(y_pred, y_true):
    error = y_pred-y_true
    return (error.square()*torch.where(error > 0, 2., 1.)).mean(-1)

# %% 1: doubled before it is squared
def over_twice(y_true, y_pred):
    error = y_pred-y_true
    return (error*torch.where(error > 0, 2., 1.)).square().mean(-1)

# %% 2: `epochs=last, initial_epoch` → `epochs=last-first, initial_epoch`

# %% 2: `, initial_epoch=first` → ``

# %% 2: compiled again, so that the optimizer forgets
def in_two_parts(model, x, y, first, last):
    how = dict(verbose=0, shuffle=False)
    epochs = list(model.fit(x, y, epochs=first, **how).epoch)
    model.compile('rmsprop', 'mse')
    return epochs + list(model.fit(x, y, epochs=last, initial_epoch=first, **how).epoch)

# %% 3: a list, if there are metrics
class TestLosses(callbacks.Callback):
    def __init__(self, x, y): self.x, self.y = x, y
    def on_train_begin(self, logs=None): self.losses = []
    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(self.model.evaluate(self.x, self.y))

# %% 3: the first of a list, which is none without metrics
class TestLosses(callbacks.Callback):
    def __init__(self, x, y): self.x, self.y = x, y
    def on_train_begin(self, logs=None): self.losses = []
    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(self.model.evaluate(self.x, self.y)[0])

# %% 3: the loss of the training data
class TestLosses(callbacks.Callback):
    def __init__(self, x, y): self.x, self.y = x, y
    def on_train_begin(self, logs=None): self.losses = []
    def on_epoch_end(self, epoch, logs=None): self.losses.append(logs['loss'])

# %% 3: `return_dict=True)['loss']` → `return_dict=True)['mae']`
