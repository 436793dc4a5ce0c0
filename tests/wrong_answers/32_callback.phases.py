# ruff: noqa
# %% 1: a warm-up from 0
def warm_up(length, lr):
    return TrainingPhase(length).schedule_hp('lr', (0., lr))

# %% 1: along a cosine
def warm_up(length, lr):
    return TrainingPhase(length).schedule_hp('lr', (lr/100, lr), anneal='cos')

# %% 1: the first value alone
def warm_up(length, lr):
    return TrainingPhase(length).schedule_hp('lr', lr/100)

# %% 1: the values the other way round
def warm_up(length, lr):
    phase = TrainingPhase(length)
    phase.schedule_hp('lr', (lr, lr/100))
    return phase

# %% 2: `(lr_max, lr_max/25e4), 'cos'` → `lr_max, 'cos'`

# %% 2: `(.85, .95), 'cos'` → `(.85, .95)`

# %% 2: the rate alone
def one_cycle(n, lr_max):
    up, down = int(.3*n), n - int(.3*n)
    return GeneralScheduler(phases=[
        TrainingPhase(up).schedule_hp('lr', (lr_max/25, lr_max), 'cos'),
        TrainingPhase(down).schedule_hp('lr', (lr_max, lr_max/25e4), 'cos')])

# %% 2: `up, down = int(.3*n), n - int(.3*n)` → `up, down = .3*n, .7*n`

# %% 3: the epoch that is cut short is not validated
def lasts(phases, epochs, iters):
    batches = min(round(sum(o.length for o in phases)), epochs*iters)
    return batches, batches//iters

# %% 3: all phases, however few epochs
def lasts(phases, epochs, iters):
    batches = round(sum(o.length for o in phases))
    return batches, math.ceil(batches/iters)

# %% 3: `round(sum(o.length for o in phases))` → `sum(math.ceil(o.length) for o in phases)`

# %% 3: one epoch too many
def lasts(phases, epochs, iters):
    batches = min(round(sum(o.length for o in phases)), epochs*iters)
    return batches, batches//iters + 1

# %% 3: `round(sum(o.length for o in phases))` → `math.ceil(sum(o.length for o in phases))`
