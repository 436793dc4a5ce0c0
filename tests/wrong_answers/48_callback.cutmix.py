# ruff: noqa
# %% 1: `math.sqrt(1-lam)` → `1-lam`

# %% 1: `round(o*(1-side)/2)` → `o//2`

# %% 1: `left+round(width*side)` → `left+round(height*side)`

# %% 1: `math.sqrt(1-lam)` → `math.sqrt(lam)`

# %% 2: `torch.randint(o+1, (1,)).item()` → `torch.randint(max(o, 1), (1,)).item()`

# %% 2: the middle is anywhere
class Inside(CutMix):
    def draw_box(self, height, width, lam):
        side = math.sqrt(1-lam)
        high, wide = round(height*side), round(width*side)
        top, left = (torch.randint(o, (1,)).item() for o in (height, width))
        return top, min(top+high, height), left, min(left+wide, width)

# %% 2: the same place in both directions
class Inside(CutMix):
    def draw_box(self, height, width, lam):
        side = math.sqrt(1-lam)
        high, wide = round(height*side), round(width*side)
        top = torch.randint(min(height-high, width-wide)+1, (1,)).item()
        return top, top+high, top, top+wide

# %% 3: the other classes alone share eps
def least_loss(eps, n):
    label = torch.full((n,), eps/(n-1), dtype=torch.double)
    label[0] = 1-eps
    return -torch.xlogy(label, label).sum().item()

# %% 3: only the right class counts
def least_loss(eps, n): return -math.log(1-eps+eps/n)

# %% 3: 0 times the logarithm of 0
def least_loss(eps, n):
    label = torch.full((n,), eps/n)
    label[0] += 1-eps
    return -(label*label.log()).sum().item()

# %% 4: ` + eps/n` → ``

# %% 4: `share*one + (1-share)*two` → `one`

# %% 4: `share*one + (1-share)*two` → `(1-share)*one + share*two`

# %% 4: the classes that are not in the image share eps
def soft_labels(targets, eps, n):
    one, two = (F.one_hot(o.long(), n).float() for o in targets[:, :2].unbind(1))
    share = targets[:, 2:]
    found = share*one + (1-share)*two
    return (1-eps)*found + eps*(found == 0)/(found == 0).sum(1, keepdim=True)
