# ruff: noqa
# %% 1: `, short_valid=False` → ``

# %% 1: one short epoch
def short_fit(learn, epochs, pct):
    learn.fit(1, cbs=ShortEpoch(pct=pct, short_valid=False))

# %% 1: the fit ends
def short_fit(learn, epochs, pct):
    n = int(len(learn.data.train_dl)*pct) + 1
    learn.fit(epochs, cbs=StopAfterNBatches(n_batches=n))

# %% 2: `(count-1)/n` → `count/n`

# %% 2: `(count-1)/n` → `(count-1)/(n-1)`

# %% 2: rounded
def pct_for(count, n): return round(count/n, 1)

# %% 3: the time since it was made
class StopAfter(Callback):
    def __init__(self, seconds, clock):
        self.seconds, self.clock, self.start = seconds, clock, clock()
    def over(self): return self.clock() - self.start >= self.seconds
    def after_batch(self): return self.run.in_train and self.over()
    def begin_validate(self): return self.over()
    def after_epoch(self): return self.over()

# %% 3: `    def after_epoch(self): return self.over()` → ``

# %% 3: `    def begin_validate(self): return self.over()` → ``

# %% 3: `>= self.seconds` → `> self.seconds`

# %% 4: no metric is computed
def smoke_test(learn):
    kept = {k: o.clone() for k, o in learn.model.state_dict().items()}
    try: learn.fit(1, cbs=StopAfterNBatches(n_batches=1))
    except Exception as e: return e
    finally: learn.model.load_state_dict(kept)

# %% 4: `o.clone()` → `o`

# %% 4: `    finally: learn.model.load_state_dict(kept)` → ``

# %% 4: weights are put back only if all is well
def smoke_test(learn):
    kept = {k: o.clone() for k, o in learn.model.state_dict().items()}
    try: learn.fit(1, cbs=ShortEpoch(pct=0))
    except Exception as e: return e
    learn.model.load_state_dict(kept)
