# ruff: noqa
# %% 1: `evaluation_copy(model)` → `model`

# %% 1: `evaluation_copy(model)` → `model.eval()`

# %% 1: `trace_program(evaluation_copy(model), tree, tensors)` → `torch.export.export(FlatModel(evaluation_copy(model), tree), tuple(tensors))`

# %% 1: it needs the class
def as_function(model, x): return evaluation_copy(model)

# %% 2: `x.sum() > 0` → `x > 0`

# %% 2: `torch.where(x.sum() > 0, x, -x)` → `x if x.sum() > 0 else -x`

# %% 2: `torch.where(x.sum() > 0, x, -x)` → `x.abs()`

# %% 2: a sum of 0 makes everything 0
class Calm(nn.Module):
    def forward(self, x): return x*x.sum().sign()

# %% 3: `x.view(-1, 3)` → `x.view(4, -1)`

# %% 3: `cumsum(0)` → `cumsum(1)`

# %% 3: `x.view(-1, 3)` → `x`
