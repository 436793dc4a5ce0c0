# ruff: noqa
# %% 1: `0 if says_place(dl) else min(skip*dl.batch_size, len(dl.dataset))` → `0 if says_place(dl) else skip*dl.batch_size`

# %% 1: the whole data set
def wasted(dl, skip): return 0 if says_place(dl) else len(dl.dataset)

# %% 1: every loader reads again
def wasted(dl, skip):
    return min(skip*(getattr(dl, 'batch_size', None) or dl.bs), getattr(dl, 'n', 0) or len(dl.dataset))

# %% 2: the numbers of the process
class Jitter:
    def __init__(self, seed): random.seed(seed)
    def __call__(self, x): return x + random.random()

# %% 2: a generator that only the class knows
class Jitter:
    def __init__(self, seed):
        class Draws: rng = random.Random(seed)
        self.draws = Draws
    def __call__(self, x): return x + self.draws.rng.random()

# %% 2: an iterator in place of a generator
class Jitter:
    def __init__(self, seed):
        rng = random.Random(seed)
        self.numbers = (rng.random() for _ in iter(int, 1))
    def __call__(self, x): return x + next(self.numbers)

# %% 2: the same number each time
class Jitter:
    def __init__(self, seed): self.seed = seed
    def __call__(self, x): return x + random.Random(self.seed).random()

# %% 3: `    put(start)` → ``

# %% 3: `        set_rng_state(moment[1])` → ``

# %% 3: leave out what is done
def go_on(dl, start, place, skip):
    load_loader_state(dl, start[0])
    set_rng_state(start[1])
    return list(dl)[:skip]

# %% 3: begin with the place
def go_on(dl, start, place, skip):
    load_loader_state(dl, place[0])
    set_rng_state(place[1])
    return list(dl)[skip:]
