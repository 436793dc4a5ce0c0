# ruff: noqa
# %% 1: the mean of the means
def mean_of_all(mine, ranks):
    return ranks.total([float(mine.mean())])[0]/ranks.count

# %% 1: its own count
def mean_of_all(mine, ranks):
    return ranks.total([float(mine.sum())])[0]/len(mine)

# %% 1: its own rows
def mean_of_all(mine, ranks): return float(mine.mean())

# %% 1: a process without rows stays away
def mean_of_all(mine, ranks):
    if not len(mine): return 32.
    total, count = ranks.total([float(mine.sum()), len(mine)])
    return total/count

# %% 2: `ranks.meet(-number)` → `-number`

# %% 2: `+ ranks.meet(-number)` → `- ranks.meet(-number)`

# %% 2: its own distance
def spread(number, ranks): return ranks.meet(number) - number

# %% 3: each works
def once(work, ranks): return ranks.share(work())

# %% 3: process 0 alone has it
def once(work, ranks):
    if ranks.rank == 0: return work()

# %% 3: each its own
def once(work, ranks): return work()

# %% 4: `reduction='sum')/ranks.total([len(xs)])[0]` → `reduction='mean')/ranks.count`

# %% 4: `    dist.all_reduce(grad)` → ``

# %% 4: `/ranks.total([len(xs)])[0]` → `/len(xs)`
