# ruff: noqa
# %% 1: `min(1., pos/share)` → `pos/share`

# %% 1: `pos/share` → `pos`

# %% 1: down again
def warm(share):
    return lambda pos: .1*pos/share if pos < share else .1*(1-pos)/(1-share)

# %% 1: the value instead of the function
def warm(share):
    return .1*min(1., share)

# %% 2: numbers only
def top_rate(sched, epochs, iters, opt=None):
    return max(sched.values(epochs, iters, opt)['lr'])

# %% 2: the last group only
def top_rate(sched, epochs, iters, opt=None):
    rates = sched.values(epochs, iters, opt)['lr']
    return max(o[-1] if isinstance(o, list) else o for o in rates if o is not None)

# %% 2: the attribute of one kind of schedule
def top_rate(sched, epochs, iters, opt=None):
    return sched.lr_max

# %% 2: ` if not math.isnan(o)` → ` if math.isnan(o)`

# %% 3: a momentum in both
def second_half(epochs, iters):
    half = epochs*iters/2
    return GeneralScheduler(phases=[
        TrainingPhase(half).schedule_hp('lr', .1).schedule_hp('mom', 0.),
        TrainingPhase(half).schedule_hp('lr', .1).schedule_hp('mom', .9)])

# %% 3: `epochs*iters/2` → `epochs/2`

# %% 3: the rate in the first phase alone
def second_half(epochs, iters):
    half = epochs*iters/2
    return GeneralScheduler(phases=[
        TrainingPhase(half).schedule_hp('lr', .1),
        TrainingPhase(half).schedule_hp('mom', (.9, .95))])

# %% 2: the first group alone
def top_rate(sched, epochs, iters, opt=None):
    rates = [o[0] if isinstance(o, list) else o for o in sched.values(epochs, iters, opt)['lr']]
    return max(o for o in rates if o is not None)
