# ruff: noqa
# %% 1: nothing is written
def halve(view): return view.optimizer.learning_rate/2

# %% 1: every group gets the rate of the last
def halve(view):
    rate = float(view.optimizer.learning_rate)
    for group in view.opt.param_groups: group['lr'] = rate/2

# %% 1: a name of its own
def halve(view):
    rate = view.optimizer.learning_rate
    rate = rate/2

# %% 1: the last group alone
def halve(view): view.opt.param_groups[-1]['lr'] /= 2

# %% 2: `plain_number(v)` → `v`

# %% 2: `today.get(k, k)` → `other_spelling.get(k, k)`

# %% 2: only numbers
def as_json(logs):
    today = {'acc': 'accuracy', 'val_acc': 'val_accuracy', 'lr': 'learning_rate'}
    return json.dumps({today.get(k, k): float(v) for k, v in logs.items()})

# %% 2: `'val_acc': 'val_accuracy', ` → ``

# %% 3: `except OSError` → `except ValueError`

# %% 3: `except OSError` → `except Exception`

# %% 3: `except OSError` → `except FileNotFoundError`

# %% 3: is it there?
def load_if_whole(view, path):
    if not path.exists(): return False
    view.load_weights(path)
    return True
