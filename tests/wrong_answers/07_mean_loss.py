# ruff: noqa
# %% 1: `(t != ignored).sum().item()` → `len(t)`

# %% 1: the mean of the means
def epoch_loss(batches, ignored=-100):
    losses = [F.cross_entropy(p, t, ignore_index=ignored).item() for p, t in batches]
    return sum(losses)/len(losses)

# %% 1: `mean_of` → `naive_mean`

# %% 1: `(t != ignored)` → `(t != -100)`

# %% 2: how many labels there are
def weighs(labels, weight=None):
    return float(labels.numel())

# %% 2: all class weights
def weighs(labels, weight=None):
    return float((labels != -100).sum() if weight is None else weight.sum())

# %% 2: what is ignored weighs as the first class
def weighs(labels, weight=None):
    if weight is None: return float((labels != -100).sum())
    return float(weight[labels.clamp(0)].sum())

# %% 2: how many labels count
def weighs(labels, weight=None):
    return float((labels != -100).sum())

# %% 3: `    if loss_reduction(loss_func) == 'sum': return 'nothing'` → ``

# %% 3: by its class
def averages_over(loss_func):
    if loss_reduction(loss_func) == 'sum': return 'nothing'
    return 'labels' if isinstance(loss_func, (nn.CrossEntropyLoss, nn.NLLLoss)) else 'rows'

# %% 3: by its attribute
def averages_over(loss_func):
    if getattr(loss_func, 'reduction', '') == 'sum': return 'nothing'
    return 'rows' if label_rules(loss_func) is None else 'labels'

# %% 3: labels come first
def averages_over(loss_func):
    if label_rules(loss_func) is not None: return 'labels'
    return 'nothing' if loss_reduction(loss_func) == 'sum' else 'rows'
