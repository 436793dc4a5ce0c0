# ruff: noqa
# %% 1: a straight line
@annealer
def sched_step(start, end, pos):
    return start + (end - start)*pos

# %% 1: four parts, so three jumps inside
@annealer
def sched_step(start, end, pos):
    return start + (end - start)*int(pos*4)/4

# %% 1: the start is left out
@annealer
def sched_step(start, end, pos):
    return end*min(4, int(pos*5))/4

# %% 1: `min(4, int(pos*5))` → `round(pos*4)`

# %% 2: the cosine begins at the beginning of training
def flat_cos(pct, lr):
    return lambda pos: lr if pos <= pct else sched_cos(lr, 0)(pos)

# %% 2: a straight line
def flat_cos(pct, lr):
    return lambda pos: lr if pos <= pct else sched_lin(lr, 0)((pos - pct)/(1 - pct))

# %% 2: a share of 1 divides by zero
def flat_cos(pct, lr):
    return lambda pos: sched_cos(lr, 0)(max(0, (pos - pct)/(1 - pct)))

# %% 3: one cosine only
def warm_restarts(n, start, end):
    return sched_cos(start, end)

# %% 3: there and back
def warm_restarts(n, start, end):
    return combine_scheds([1/n]*n, [sched_cos(start, end), sched_cos(end, start)]*(n//2))

# %% 3: shares that add up to n
def warm_restarts(n, start, end):
    return combine_scheds([1]*n, [sched_cos(start, end)]*n)

# %% 3: `sched_cos` → `sched_lin`

# %% 4: the bounds are the wrong way round, so the shape is not the same backwards
class Backwards:
    def __init__(self, sched):
        self.sched = type(sched)(sched.func, sched.end, sched.start)

    def __call__(self, pos):
        return self.sched(pos)

# %% 4: the value is turned instead of the position
class Backwards:
    def __init__(self, sched):
        self.sched = sched

    def __call__(self, pos):
        return 1 - self.sched(pos)

# %% 4: forwards
class Backwards:
    def __init__(self, sched):
        self.sched = sched

    def __call__(self, pos):
        return self.sched(pos)

# %% 4: it holds a closure
class Backwards:
    def __init__(self, sched):
        self.sched = lambda pos: sched(1 - pos)

    def __call__(self, pos):
        return self.sched(pos)
