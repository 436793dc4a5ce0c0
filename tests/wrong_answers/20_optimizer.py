# ruff: noqa
# %% 1: the sum of the step before
class NaiveNesterov(NaiveMomentum):
    def direction(self, p, grad):
        before = self.sums.get(p, 0.)
        super().direction(p, grad)
        return grad + self.mom*before

# %% 1: the sum is counted twice
class NaiveNesterov(NaiveMomentum):
    def direction(self, p, grad):
        total = super().direction(p, grad)
        return total + self.mom*total

# %% 2: never
def moved(opt_func, true_wd, lr):
    return False

# %% 2: compared with itself
def moved(opt_func, true_wd, lr):
    model = small_model()
    before = list(model.parameters())
    train(OptimWrapper.create(opt_func, lr, [model], 0.1, true_wd), model, steps=3)
    return any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))

# %% 2: `0.1, true_wd` → `0., true_wd`

# %% 2: what the check asks
def moved(opt_func, true_wd, lr):
    return lr > 0

# %% 3: a new attribute, which a torch optimizer does not read
def halve(opt):
    opt.lr = opt.param_groups[0]['lr']/2

# %% 3: one group
def halve(opt):
    opt.param_groups[0]['lr'] /= 2

# %% 3: all the same
def halve(opt):
    for group in opt.param_groups: group['lr'] = opt.param_groups[-1]['lr']/2
