# ruff: noqa
# %% 1: the loss itself
class Halve(Callback):
    run_valid = False
    def after_loss(self): self.learn.loss = self.learn.loss/2

# %% 1: the rate
class Halve(Callback):
    run_valid = False
    def before_fit(self): self.opt.set_hyper('lr', self.opt.hypers[0]['lr']/2)

# %% 1: a number that nobody asks for
class Halve(Callback):
    run_valid = False
    def after_loss(self): loss_grad = self.loss_grad/2

# %% 2: the number of inputs
class WithBatchSize(LearnView):
    @property
    def bs(self):
        "number of items in this batch"
        return len(self.xb)

# %% 2: `self.xb[0]` → `self.x`

# %% 2: `self.xb[0]` → `self.y`

# %% 2: `        "number of items in this batch"` → ``

# %% 3: `self.train_iter+1` → `self.train_iter`

# %% 3: `self.train_iter+1` → `self.iter+1`

# %% 3: `self.train_iter+1` → `self.n_iter+1`

# %% 3: a share of a share
class WarmUp(Callback):
    run_valid = False
    def __init__(self, n): self.n = n
    def before_batch(self):
        share = min(1, (self.train_iter+1)/self.n)
        self.opt.set_hyper('lr', self.opt.hypers[0]['lr']*share)
