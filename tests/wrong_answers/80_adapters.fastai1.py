# ruff: noqa
# %% 1: `last_loss/self.n` → `last_loss`

# %% 1: gradients are cleared after each batch
class Accumulate:
    def __init__(self, n): self.n = n
    def on_backward_begin(self, last_loss, **kwargs): return {'last_loss': last_loss/self.n}
    def on_backward_end(self, num_batch, **kwargs): return {'skip_step': (num_batch+1) % self.n > 0}

# %% 1: `{'skip_step': (num_batch+1)` → `{'skip_step': num_batch`

# %% 1: gradients are never cleared
class Accumulate:
    def __init__(self, n): self.n = n
    def on_backward_begin(self, last_loss, **kwargs): return {'last_loss': last_loss/self.n}
    def on_backward_end(self, num_batch, **kwargs): return {'skip_step': (num_batch+1) % self.n > 0}
    def on_step_end(self, **kwargs): return {'skip_zero': True}

# %% 2: `[*last_metrics, distance]` → `[distance]`

# %% 2: `        self.learn.recorder.add_metric_names(['distance'])` → `        pass`

# %% 2: nothing is returned
class Distance(LearnerCallback):
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['distance'])
    def on_epoch_end(self, last_metrics, **kwargs):
        last_metrics = [*last_metrics, abs(self.learn.model.weight.item() - 3)]

# %% 2: with its sign
class Distance(LearnerCallback):
    def on_train_begin(self, **kwargs): self.learn.recorder.add_metric_names(['distance'])
    def on_epoch_end(self, last_metrics, **kwargs):
        return {'last_metrics': [*last_metrics, self.learn.model.weight.item() - 3]}

# %% 3: `, train=False` → ``

# %% 3: `cb.on_epoch_end(0.)` → `cb.on_epoch_end(None)`

# %% 3: the mean of the batches
def measure(learn, metric):
    found = [metric(learn.model(xb), yb) for xb, yb in learn.data.valid_dl]
    return sum(found)/len(found)
