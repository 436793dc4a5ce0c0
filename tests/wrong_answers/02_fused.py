# ruff: noqa
# %% 1: `        step()` → ``

# %% 1: `(2, 3)` → `(2, 4)`

# %% 1: the calls of a whole step
def growth(step_of):
    model = small_model()
    step = step_of(torch.optim.AdamW(model.parameters(), lr=0.01))
    step()
    return count_calls(step).total()

# %% 1: a parameter, not a layer
def growth(step_of):
    counts = []
    for n in (2, 3):
        params = [torch.zeros(4, requires_grad=True) for _ in range(n)]
        for p in params: p.grad = torch.ones_like(p)
        step = step_of(torch.optim.AdamW(params, lr=0.01))
        step()
        counts.append(count_calls(step).total())
    return counts[1] - counts[0]

# %% 2: the answer of FusedStep itself
def steps_aside(**options):
    return FusedStep(torch.optim.AdamW(small_model().parameters(), **options))()

# %% 2: any option
def steps_aside(**options):
    return bool(options)

# %% 2: one option
def steps_aside(**options):
    return options.get('foreach') is True

# %% 2: whether there is a kernel at all
def steps_aside(**options):
    opt = torch.optim.AdamW(small_model().parameters(), **options)
    return FusedStep(opt).kernel is None

# %% 3: `return torch.allclose(before - p.detach(), torch.full((2,), 0.9*5 + 1))` → `return not torch.equal(before, p.detach())`

# %% 3: `before, opt.state[p]['momentum_buffer'] = p.detach().clone(), torch.full((2,), 5.)` → `before, _ = p.detach().clone(), opt.state[p]['momentum_buffer'].fill_(5.)`

# %% 3: `0.9*5 + 1` → `5.`

# %% 3: the state before the first step
def uses_new_state(step_of):
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    opt = torch.optim.SGD([p], lr=1., momentum=0.9)
    opt.state[p]['momentum_buffer'] = torch.full((2,), 5.)
    step_of(opt)()
    return torch.allclose(-p.detach(), torch.full((2,), 0.9*5 + 1))

# %% 4: by rows, whatever the weight is
class CarefulSGD(NaiveFusedSGD):
    def step(self):
        for p in self.params: p.grad = p.grad.contiguous()
        super().step()

# %% 4: left out
class CarefulSGD(NaiveFusedSGD):
    def step(self):
        self.params = [p for p in self.params if _alike(p, p.grad)]
        if self.params: super().step()

# %% 4: `torch.empty_like(p).copy_(p.grad)` → `p.grad.clone()`
