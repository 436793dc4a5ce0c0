# ruff: noqa
# %% 1: torch's own numbers
def plain_rmsprop(plan, params): return torch.optim.RMSprop(params, lr=plan.learning_rate)

# %% 1: `alpha=plan.rho` → `alpha=1-plan.rho`

# %% 1: `, centered=plan.config['centered']` → ``

# %% 1: `eps=plan.epsilon,` → ``

# %% 2: the numbers that it was made with
def halve(plan): plan.config['learning_rate'] /= 2

# %% 2: a name of its own
def halve(plan):
    rate = plan.learning_rate
    rate /= 2

# %% 2: a new plan
def halve(plan): return SGD(plan.learning_rate/2)

# %% 3: `except NotInOptimizer` → `except ValueError`

# %% 3: up to the first that is missing
def set_known(plan, numbers):
    try:
        for word, value in numbers.items(): setattr(plan, word, value)
    except NotInOptimizer: return [word]
    return []

# %% 3: only asked for
def set_known(plan, numbers): return [o for o in numbers if not hasattr(plan, o)]

# %% 3: those that it has
def set_known(plan, numbers):
    known = [o for o in numbers if hasattr(plan, o)]
    for word in known: setattr(plan, word, numbers[word])
    return known
