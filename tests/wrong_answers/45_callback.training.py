# ruff: noqa
# %% 1: the sum
def window_gradient(gradients, sizes):
    return sum(gradients)

# %% 1: the mean, as if all batches had one size
def window_gradient(gradients, sizes):
    return sum(gradients)/len(gradients)

# %% 1: `n*g` → `n/max(sizes)*g`

# %% 2: each tensor by itself
def shortened(gradients, clip):
    return [o*min(1, clip/o.norm()) for o in gradients]

# %% 2: each number by itself
def shortened(gradients, clip):
    return [o.clamp(-clip, clip) for o in gradients]

# %% 2: short ones are made longer
def shortened(gradients, clip):
    norm = sum((o**2).sum() for o in gradients).sqrt()
    return [o*clip/norm for o in gradients]

# %% 3: `order = 0` → `order = 20`

# %% 3: `order = 0` → `order = -17`

# %% 3: after each backward pass
class GradientNoise(Callback):
    def after_backward(self):
        for grad in gradients(self.learn.opt): grad += torch.randn_like(grad)

# %% 3: `grad += torch` → `grad = grad + torch`

# %% 4: all that are batch norm
def frozen_norms(model):
    return [name for name, o in model.named_modules() if isinstance(o, batch_norm_types)]

# %% 4: ` and trained and` → ` and`

# %% 4: all that is frozen
def frozen_norms(model):
    return [name for name, o in model.named_modules()
            if not any(p.requires_grad for p in o.parameters())]
