# ruff: noqa
# %% 1: before it is first above
def suggest_edge(lrs, losses):
    found = None
    for lr, loss in zip(lrs[1:], losses[1:]):
        if not loss < losses[0]: break
        found = lr
    return found

# %% 1: the smallest rate
def suggest_edge(lrs, losses):
    if (curve := _curve(lrs, losses, 2)) is None: return None
    lrs, losses = curve
    below = np.flatnonzero(losses < losses[0])
    return float(lrs[below[0]]) if len(below) else None

# %% 1: what comes after the explosion counts
def suggest_edge(lrs, losses):
    below = [lr for lr, loss in zip(lrs, losses) if loss < losses[0]]
    return below[-1] if below else None

# %% 1: the first value itself counts
def suggest_edge(lrs, losses):
    if (curve := _curve(lrs, losses, 2)) is None: return None
    lrs, losses = curve
    below = np.flatnonzero(losses <= losses[0])
    return float(lrs[below[-1]]) if len(below) else None

# %% 2: `(i/n)` → `(i/(n-1))`

# %% 2: along a straight line
def rates_of(start, end, n):
    return [start + (end-start)*i/n for i in range(n)]

# %% 2: `range(n)` → `range(1, n+1)`

# %% 2: ends with `end`
def rates_of(start, end, n):
    return np.geomspace(start, end, n).tolist()

# %% 3: Ctrl-C is no Exception
def careful_search(learn):
    try: return find_lr(learn, num_it=30, show_plot=False).valley
    except Exception: return None

# %% 3: by hand
def careful_search(learn):
    finder = LRFinder(num_it=30)
    try: learn.fit(1, cbs=finder)
    except KeyboardInterrupt: return None
    return finder.suggestions.valley

# %% 3: `.valley` → ``

# %% 3: as many batches as usual
def careful_search(learn):
    try: return find_lr(learn, show_plot=False).valley
    except KeyboardInterrupt: return None

# %% 4: above the first
def stops_at(losses, factor):
    for i, loss in enumerate(losses):
        if not loss <= factor*losses[0]: return i

# %% 4: a multiple of the best
def stops_at(losses, factor):
    best = math.inf
    for i, loss in enumerate(losses):
        best = min(best, loss)
        if not loss <= factor*best or math.isinf(loss): return i

# %% 4: `not loss <= best + (factor-1)*abs(best)` → `loss > best + (factor-1)*abs(best)`

# %% 4: `(factor-1)` → `3`
