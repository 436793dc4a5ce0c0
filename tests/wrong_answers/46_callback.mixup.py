# ruff: noqa
# %% 1: the share of the second
def two_label_loss(pred, targets):
    one, two, share = targets.unbind(1)
    losses = [F.cross_entropy(pred, o.long(), reduction='none') for o in (one, two)]
    return (share*losses[1] + (1-share)*losses[0]).mean()

# %% 1: the mean comes too early
def two_label_loss(pred, targets):
    one, two, share = targets.unbind(1)
    losses = [F.cross_entropy(pred, o.long()) for o in (one, two)]
    return (share*losses[0] + (1-share)*losses[1]).mean()

# %% 1: the larger label alone
def two_label_loss(pred, targets):
    one, two, share = targets.unbind(1)
    return F.cross_entropy(pred, torch.where(share >= .5, one, two).long())

# %% 2: `torch.maximum(share, 1-share)` → `share`

# %% 2: `.expand(n)` → ``

# %% 2: always the mean
class OneShare(MixUpCallback):
    def draw(self, n, device): return torch.full((n,), .5), torch.randperm(n)

# %% 3: `pct_train < 0.5` → `pct_train > 0.5`

# %% 3: the first half of an epoch
class FirstHalf(MixUpCallback):
    def draw(self, n, device):
        share, partner = super().draw(n, device)
        return share if self.run.iter < 5 else torch.ones_like(share), partner

# %% 3: a share of 0, which is the partner
class FirstHalf(MixUpCallback):
    def draw(self, n, device):
        share, partner = super().draw(n, device)
        return share if self.run.pct_train < 0.5 else torch.zeros_like(share), partner
