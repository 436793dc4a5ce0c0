# ruff: noqa
# %% 1: `torch.rand(n)` → `torch.rand(1).expand(n)`

# %% 1: `(2*torch.rand(n)-1)` → `torch.rand(n)`

# %% 1: `.clamp(0, 1)` → ``

# %% 1: not a tuple
class RandomBrightness(BatchTransform):
    def __init__(self, most): self.most = most
    def draw(self, n): return 1 + (2*torch.rand(n)-1)*self.most
    def apply(self, x, factor): return (x*factor[:, None, None, None]).clamp(0, 1)

# %% 2: called for each picture
def negative(x): return 1-x

# %% 2: below zero
def negative(x): return -x
negative.batched = True

# %% 3: the random numbers are lost
def repeatable(tfm, seed):
    def always_the_same(x):
        torch.manual_seed(seed)
        return tfm(x)
    always_the_same.batched = True
    return always_the_same

# %% 3: seeded once
def repeatable(tfm, seed):
    torch.manual_seed(seed)
    def always_the_same(x): return tfm(x)
    always_the_same.batched = True
    return always_the_same

# %% 3: the first answer for ever
def repeatable(tfm, seed):
    answers = []
    def always_the_same(x):
        if not answers:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                answers.append(tfm(x))
        return answers[0]
    always_the_same.batched = True
    return always_the_same
