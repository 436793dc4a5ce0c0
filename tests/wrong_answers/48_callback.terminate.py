# ruff: noqa
# %% 1: at once
def losses_until(bad, n_batches, iters): return bad+1

# %% 1: so many later
def losses_until(bad, n_batches, iters): return min(bad+n_batches, iters)

# %% 1: as if the epoch had no end
def losses_until(bad, n_batches, iters): return (bad//n_batches+1)*n_batches

# %% 1: `bad//n_batches+1` → `bad//n_batches`

# %% 2: only `nan`
class WatchGradients(Callback):
    def begin_fit(self): self.bad = None
    def begin_step(self):
        for name, p in self.learn.model.named_parameters():
            if p.grad is not None and p.grad.isnan().any():
                self.bad = name
                raise CancelFitException

# %% 2: `def begin_step` → `def after_step`

# %% 2: the last one, and the fit goes on
class WatchGradients(Callback):
    def begin_fit(self): self.bad = None
    def begin_step(self):
        for name, p in self.learn.model.named_parameters():
            if not p.grad.isfinite().all(): self.bad = name

# %% 2: the weights
class WatchGradients(Callback):
    def begin_fit(self): self.bad = None
    def begin_step(self):
        for name, p in self.learn.model.named_parameters():
            if not p.isfinite().all():
                self.bad = name
                raise CancelFitException

# %% 3: `raise CancelBatchException` → `raise CancelFitException`

# %% 3: `raise CancelBatchException` → ``

# %% 3: a rate that nobody reads
class HalveOnNaN(TerminateOnNaNCallback):
    def stop(self, loss, epoch, batch, lr):
        lr = lr/2
        raise CancelBatchException

# %% 3: `/= 2` → `= 0.05`
