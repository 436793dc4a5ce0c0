# ruff: noqa
# %% 1: the loss
def accuracy_after(opt_func, lr):
    learn = Learner(*fashion(n=640), opt_func=opt_func, lr=lr, metrics=accuracy, silent=True)
    learn.fit(2)
    return learn.recorder.values[-1][1]

# %% 1: always the same optimizer
def accuracy_after(opt_func, lr):
    learn = Learner(*fashion(n=640), lr=lr, metrics=accuracy, silent=True)
    learn.fit(2)
    return float(learn.recorder.metrics[0])

# %% 1: a constant
def accuracy_after(opt_func, lr):
    return .8

# %% 2: two halves
def by_linear(model):
    return [model[:3], model[3:]]

# %% 2: all in one
def by_linear(model):
    return [model]

# %% 2: only at the top
def by_linear(model):
    return [m for m in model if isinstance(m, nn.Linear)]

# %% 3: the optimizer too
def share(learn, name):
    learn.save(name)

# %% 3: weights of another network
def share(learn, name):
    Learner(*fashion(n=640), path=learn.path).save(name, with_opt=False)
