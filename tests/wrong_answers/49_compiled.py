# ruff: noqa
# %% 1: only the model is compiled
def graphs_of_fit(n, bs):
    graphs, learn = Graphs(), learner(n, bs)
    learn.model.compile(backend=graphs)
    learn.fit(1, lr=0.05)
    return graphs.count

# %% 1: one more for a short batch, by heart
def graphs_of_fit(n, bs): return 1 + (n % bs > 0)

# %% 1: `learner(n, bs)` → `learner()`

# %% 2: `graphs.count - before` → `graphs.count`

# %% 2: `, **options).model` → `).model`

# %% 2: a fresh learner for each size
def asked_with(sizes, **options):
    found = []
    for n in sizes:
        graphs = Graphs()
        compile_learner(learner(), backend=graphs, **options).model(torch.randn(n, 1, 28, 28))
        found.append(graphs.count)
    return found

# %% 3: `        self.seen = x.shape` → `        print(x.shape)`

# %% 3: a print when all is done
class Talks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
    def forward(self, x):
        hidden = self.first(x)
        out = self.second(hidden)
        print(hidden.shape)
        return out

class Quiet(Talks): pass

# %% 3: `self.seen = x.shape` → `self.shape = x.shape`

# %% 3: `class Quiet(Talks):` → `class Quiet(nn.Sequential):`
