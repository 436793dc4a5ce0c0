# ruff: noqa
# %% 1: rows that are left over make a batch
def count_steps(n, bs, processes): return -(-n//(bs*processes))

# %% 1: whole batches alone
def count_steps(n, bs, processes): return n//processes//bs

# %% 1: one process
def count_steps(n, bs, processes): return -(-n//bs)

# %% 2: in turns, as in training
def owner(row, n, processes): return row % processes

# %% 2: `row*processes//n`
def owner(row, n, processes): return row*processes//n

# %% 2: parts of one size
def owner(row, n, processes): return row//-(-n//processes)

# %% 3: each draws its own
def deal(sampler, rank, processes, seed):
    return list(DealtSampler(sampler, Share(0, 1), seed+rank))[:len(sampler)//processes]

# %% 3: `DealtSampler(sampler,` → `DealtSampler(RandomSampler(range(len(sampler))),`

# %% 3: `, seed))` → `))`

# %% 3: `Share(rank, processes)` → `Share(rank, processes, even=False)`
