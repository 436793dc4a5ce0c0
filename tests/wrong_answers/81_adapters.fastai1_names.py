# ruff: noqa
# %% 1: the last batch alone
class SilentUnits(HookCallback):
    def hook(self, m, i, o): return (o > 0).any(0)
    def on_train_end(self, **kwargs):
        self.counts = [int((~o).sum()) for o in self.hooks.stored]
        super().on_train_end(**kwargs)

# %% 1: the first fit counts again
class SilentUnits(HookCallback):
    def on_train_begin(self, **kwargs):
        super().on_train_begin(**kwargs)
        self.heard = getattr(self, 'heard', [])

    def hook(self, m, i, o): self.heard.append((o > 0).any(0))

    def on_train_end(self, **kwargs):
        super().on_train_end(**kwargs)
        self.counts = [int((~o).sum()) for o in self.heard]

# %% 1: `(~o).sum()` → `o.sum()`

# %% 1: hooks stay
class SilentUnits(HookCallback):
    def on_train_begin(self, **kwargs):
        super().on_train_begin(**kwargs)
        self.heard = {}

    def hook(self, m, i, o):
        now = (o > 0).flatten(0, -2).any(0)
        self.heard[m] = self.heard[m] | now if m in self.heard else now

    def on_train_end(self, **kwargs):
        self.counts = [int((~o).sum()) for o in self.heard.values()]

# %% 2: one list in another
class LowHigh(LearnerCallback):
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['low', 'high'])
    def on_epoch_begin(self, **kwargs): self.found = []
    def on_batch_end(self, last_loss, train, **kwargs):
        if train: self.found.append(last_loss.item())
    def on_epoch_end(self, last_metrics, **kwargs):
        return add_metrics([], [min(self.found), max(self.found)])

# %% 2: `        if train: self.found` → `        self.found`

# %% 2: `def on_epoch_begin(self, **kwargs): self.found = []` → `found = []`

# %% 2: `['low', 'high']` → `['high', 'low']`

# %% 3: the outputs, not their gradients
def gradient_sizes(layers, loss):
    with hook_outputs(layers) as hooks:
        loss()
        return [o.norm() for o in hooks.stored]

# %% 3: gradients stay at the weights
def gradient_sizes(layers, loss):
    with hook_outputs(layers, grad=True) as hooks:
        loss().backward()
        return [o[0].norm() for o in hooks.stored]

# %% 3: the gradients of the weights
def gradient_sizes(layers, loss):
    return [o.norm() for o in torch.autograd.grad(loss(), [layer.weight for layer in layers])]

# %% 3: hooks stay
def gradient_sizes(layers, loss):
    hooks = hook_outputs(layers, grad=True)
    torch.autograd.grad(loss(), [p for layer in layers for p in layer.parameters()])
    return [o[0].norm() for o in hooks.stored]
