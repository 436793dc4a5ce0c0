# ruff: noqa
# %% 1: `torch.eye(*shape)` → `torch.eye(shape[0])`

# %% 1: `torch.eye(*shape)` → `torch.ones(*shape)`

# %% 1: `torch.eye(*shape)` → `torch.eye(*shape[::-1])`

# %% 2: not turned round
def as_dense(linear):
    dense = Dense(linear.out_features, input_dim=linear.in_features)
    dense.set_weights([o.detach().numpy() for o in linear.parameters()])
    return dense

# %% 2: there is always a bias
def as_dense(linear):
    dense = Dense(linear.out_features, input_dim=linear.in_features)
    bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias
    dense.set_weights([linear.weight.T.detach().numpy(), bias.detach().numpy()])
    return dense

# %% 2: the same memory
def as_dense(linear):
    dense = Dense(linear.out_features, use_bias=linear.bias is not None,
                  input_dim=linear.in_features)
    dense.kernel = nn.Parameter(linear.weight.detach().T)
    if linear.bias is not None: dense.bias = nn.Parameter(linear.bias.detach())
    return dense

# %% 3: `nn.Parameter(torch.ones(n))` → `torch.ones(n)`

# %% 3: `torch.ones(n)` → `torch.ones(1)`

# %% 3: `torch.ones(n)` → `torch.randn(n)`

# %% 3: `nn.Parameter(torch.ones(n))` → `nn.Parameter(torch.ones(n), requires_grad=False)`
