# ruff: noqa
# %% 1: buffers are counted
def share(model):
    counts = {name: sum(p.numel() for p in o.state_dict().values())
              for name, o in model.named_children()}
    return {name: n/sum(counts.values()) for name, n in counts.items()}

# %% 1: `p.numel()` → `1`

# %% 1: `model.named_children()` → `model.named_modules()`

# %% 2: `(scale/256)**0.5` → `scale/256`

# %% 2: `.relu()` → ``

# %% 2: a ratio of sizes, not of squares
def gain(scale, depth=30):
    first = x = torch.randn(100, 256)
    for _ in range(depth): x = (x @ torch.randn(256, 256)*(scale/256)**0.5).relu()
    return (x.std()/first.std()).item()

# %% 3: the whole group
def stage_changes(net, x):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    changes = []
    for group in (net.layer1, net.layer2, net.layer3, net.layer4):
        after = group(x)
        changes.append(after.shape != x.shape or not torch.equal(after, x))
        x = after
    return changes

# %% 3: the first block instead of the second
def stage_changes(net, x):
    groups = net.layer1, net.layer2, net.layer3, net.layer4
    return [bool(o[0].bn2.weight.any()) for o in groups]

# %% 4: `InputConv2d` → `nn.Conv2d`

# %% 4: `    net.maxpool = nn.Identity()` → `    pass`

# %% 4: `, padding=1` → ``

# %% 4: `net.conv1.in_channels` → `1`
