# ruff: noqa
# %% 1: `(self.by_batch if kind == 'batch' else self.by_epoch)` → `self.by_batch`

# %% 1: how it ended is not told
class Memory(ExperimentCallback):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.by_batch, self.by_epoch, self.ends = [], [], []
    def write_rows(self, rows, place):
        for kind, step, _, numbers in rows:
            (self.by_batch if kind == 'batch' else self.by_epoch).append((step, numbers))

# %% 1: `(step, numbers)` → `(place[kind == 'batch'], numbers)`

# %% 1: lists that begin anew with each fit
class Memory(ExperimentCallback):
    def begin_fit(self):
        super().begin_fit()
        self.by_batch, self.by_epoch, self.ends = [], [], []
    def write_rows(self, rows, place):
        for kind, step, _, numbers in rows:
            (self.by_batch if kind == 'batch' else self.by_epoch).append((step, numbers))
    def end_run(self, status): self.ends.append(status)

# %% 2: `            self.taken.add((kind, step))` → ``

# %% 2: batches and epochs are counted together
class Once(ExperimentCallback):
    def __init__(self, server):
        super().__init__(best_weights=False)
        self.server, self.taken = server, set()
    def write_rows(self, rows, place):
        for kind, step, _, numbers in rows:
            if step in self.taken: continue
            self.server.take({'kind': kind, 'step': step, **numbers})
            self.taken.add(step)

# %% 2: noted before it is taken
class Once(ExperimentCallback):
    def __init__(self, server):
        super().__init__(best_weights=False)
        self.server, self.taken = server, set()
    def write_rows(self, rows, place):
        for kind, step, _, numbers in rows:
            if (kind, step) in self.taken: continue
            self.taken.add((kind, step))
            self.server.take({'kind': kind, 'step': step, **numbers})

# %% 2: errors are swallowed
class Once(ExperimentCallback):
    def __init__(self, server):
        super().__init__(best_weights=False)
        self.server = server
    def write_rows(self, rows, place):
        for kind, step, _, numbers in rows:
            try: self.server.take({'kind': kind, 'step': step, **numbers})
            except ConnectionError: pass

# %% 3: `if status == 'FINISHED': ` → ``

# %% 3: the best weights
class KeepsLast(ExperimentCallback):
    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
    def write_file(self, path, value): shutil.copy(path, self.path)

# %% 3: when the first fit begins
class KeepsLast(ExperimentCallback):
    def __init__(self, path):
        super().__init__(best_weights=False)
        self.path = Path(path)
    def open_run(self):
        torch.save(self.learn.model.state_dict(), self.path)
        return self.place

# %% 3: after each epoch
class KeepsLast(ExperimentCallback):
    def __init__(self, path):
        super().__init__(best_weights=False)
        self.path = Path(path)
    def after_epoch(self):
        super().after_epoch()
        torch.save(self.learn.model.state_dict(), self.path)

# %% 3: Ctrl-C is no error
class KeepsLast(ExperimentCallback):
    def __init__(self, path):
        super().__init__(best_weights=False)
        self.path = Path(path)
    def end_run(self, status):
        if status != 'FAILED': torch.save(self.learn.model.state_dict(), self.path)
