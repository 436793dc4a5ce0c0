# ruff: noqa
# %% 1: nothing is undone after an exception
@contextmanager
def quiet(learn):
    snapshot = TrainingSnapshot(learn)
    yield
    snapshot.restore()

# %% 1: the exception is swallowed
@contextmanager
def quiet(learn):
    snapshot = TrainingSnapshot(learn)
    try: yield
    except Exception: pass
    snapshot.restore()

# %% 1: `TrainingSnapshot` → `NaiveSnapshot`

# %% 1: taken too late
@contextmanager
def quiet(learn):
    try: yield
    finally: TrainingSnapshot(learn).restore()

# %% 2: the random numbers are put back to where the trial ended
class Closer(NaiveSnapshot):
    def restore(self):
        super().restore()
        set_rng_state(rng_state())

# %% 2: the place without the random numbers
class Closer(NaiveSnapshot):
    def __init__(self, learn):
        super().__init__(learn)
        self.dl, self.place = learn.data.train_dl, learn.data.train_dl.state_dict()
    def restore(self):
        super().restore()
        self.dl.load_state_dict(self.place)

# %% 2: the loader of the validation
class Closer(NaiveSnapshot):
    def __init__(self, learn):
        super().__init__(learn)
        self.random, self.dl = rng_state(), learn.data.valid_dl
        self.place = deepcopy(self.dl.state_dict())
    def restore(self):
        super().restore()
        self.dl.load_state_dict(self.place)
        set_rng_state(self.random)

# %% 3: another list for the name
def undo_list(o):
    items = list(o)

    def undo(): o = list(items)
    return undo

# %% 3: the lists inside are forgotten
def undo_list(o):
    items = list(o)

    def undo(): o[:] = items
    return undo

# %% 3: a copy of all that is inside
def undo_list(o):
    items = deepcopy(o)

    def undo(): o[:] = items
    return undo

# %% 3: the names, not what is in them
def undo_list(o):
    items = o

    def undo(): o[:] = items
    return undo

# %% 4: counted when all is put back
def trial_batches(learn, counter):
    snapshot, before = TrainingSnapshot(learn), len(counter.sizes)
    learn.fit(1)
    snapshot.restore()
    return len(counter.sizes) - before

# %% 4: all that was ever counted
def trial_batches(learn, counter):
    snapshot = TrainingSnapshot(learn)
    learn.fit(1)
    found = len(counter.sizes)
    snapshot.restore()
    return found

# %% 4: `TrainingSnapshot(learn)` → `NaiveSnapshot(learn)`

# %% 4: `TrainingSnapshot(learn)` → `TrainingSnapshot(learn, [])`

# %% 4: the counter begins with another list
def trial_batches(learn, counter):
    sizes, counter.sizes = counter.sizes, []
    learn.fit(1)
    found, counter.sizes = len(counter.sizes), list(sizes)
    return found

# %% 4: all that is counted when the trial is undone
def trial_batches(learn, counter):
    snapshot = TrainingSnapshot(learn)
    learn.fit(1)
    snapshot.restore()
    return len(counter.sizes)

# %% 3: lists inside a list inside stay as they are
def undo_list(o):
    items, inside = list(o), [(item, list(item)) for item in o if isinstance(item, list)]

    def undo():
        o[:] = items
        for item, old in inside: item[:] = old
    return undo
