# ruff: noqa
# %% 1: no power of two
def best_scale(grads): return 65504/grads.abs().max().item()

# %% 1: the sign is forgotten
def best_scale(grads):
    scale = 2.**-24
    while grads.max()*scale*2 < 65520: scale *= 2
    return scale

# %% 1: `scale*2)` → `scale)`

# %% 1: never below 1
def best_scale(grads):
    scale = 1.
    while (grads*scale*2).half().isfinite().all(): scale *= 2
    return scale

# %% 2: `scale/2, 0` → `scale/2, good`

# %% 2: `(scale*2, 0)` → `(scale*2, good+1)`

# %% 2: `good+1 == wait` → `good == wait`

# %% 2: twice as large after each good step
def next_scale(scale, good, finite, wait):
    return (scale*2 if finite else scale/2), 0

# %% 3: at every overflow
class StopLow(Callback):
    def begin_batch(self):
        if self.learn.mixed_precision.skipped: raise RuntimeError('the scale is below 1')

# %% 3: `scale < 1` → `scale <= 1`

# %% 3: ends without an error
class StopLow(Callback):
    def begin_batch(self): return self.learn.mixed_precision.scale < 1

# %% 3: only after the epoch
class StopLow(Callback):
    def after_train(self):
        scale = self.learn.mixed_precision.scale
        if scale < 1: raise RuntimeError(f'the scale has fallen to {scale}')
