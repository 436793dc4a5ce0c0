"""The work to be timed, and the loops that a careful user of PyTorch would write for it.

Each loop has the features that fastloop's run has switched on: a running mean of the loss, the
accuracy on the validation set after each epoch, one-cycle values of learning rate and momentum for
every batch. Nothing here imports fastloop.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BS, VALID_BS, LR, MOMS = 64, 128, 0.02, (0.95, 0.85)


# ---- the work ------------------------------------------------------------------------------------
def made_up_images(n, seed=0):
    "`n` float32 rows of 784 numbers in ten overlapping classes, and their labels"
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 784, generator=torch.Generator().manual_seed(42))
    y = torch.randint(0, 10, (n,), generator=g)
    x = torch.empty(n, 784)
    for rows, labels in zip(x.split(1000), y.split(1000)):  # no second copy: memory is measured
        rows.copy_(torch.randn(rows.shape, generator=g)).add_(centres[labels], alpha=0.1)
    return x, y


def image_data(n=50_000):
    "Training and validation tensors, five to one"
    return (*made_up_images(n), *made_up_images(n//5, seed=1))


def mlp():
    "The network of the comparison, always with the same weights"
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


def line_data(n=2000):
    "A line with noise, one number to a row"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, generator=g)
    return x, 3*x + 0.1*torch.randn(n, 1, generator=g)


def one_weight():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


# ---- the loops -----------------------------------------------------------------------------------
def cosine(start, end, pos): return start + (1 + math.cos(math.pi*(1-pos)))*(end-start)/2


def one_cycle(pct):
    "Learning rate and momentum after the part `pct` of the training: up for 30 %, then down"
    if pct < 0.3: return cosine(LR/25, LR, pct/0.3), cosine(*MOMS, pct/0.3)
    pos = (pct-0.3)/0.7
    return cosine(LR, LR/25e4, pos), cosine(*MOMS[::-1], pos)


def validate(model, x, y):
    "The part of rows whose label the model gets right"
    model.eval()
    right = 0
    with torch.no_grad():
        for i in range(0, len(x), VALID_BS):
            right += (model(x[i:i+VALID_BS]).argmax(1) == y[i:i+VALID_BS]).sum().item()
    return right/len(x)


def slices(data, epochs):
    "Shuffle the tensors once an epoch, then cut slices"
    x, y, x_valid, y_valid = data
    model, n = mlp(), len(x)
    opt = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMS[0])
    group, step, steps = opt.param_groups[0], 0, epochs*math.ceil(n/BS)
    for _ in range(epochs):
        model.train()
        total, order = 0., torch.randperm(n)
        xs, ys = x[order], y[order]
        for i in range(0, n, BS):
            xb, yb = xs[i:i+BS], ys[i:i+BS]
            group['lr'], group['momentum'] = one_cycle(step/steps)
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total += loss.item()*len(yb)
            step += 1
        result = total/n, validate(model, x_valid, y_valid)
    return result


def rows(data, epochs):
    "Shuffle the numbers of the rows, and gather the rows of each batch"
    x, y, x_valid, y_valid = data
    model, n = mlp(), len(x)
    opt = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMS[0])
    group, step, steps = opt.param_groups[0], 0, epochs*math.ceil(n/BS)
    for _ in range(epochs):
        model.train()
        total, order = 0., torch.randperm(n)
        for i in range(0, n, BS):
            idx = order[i:i+BS]
            xb, yb = x[idx], y[idx]
            group['lr'], group['momentum'] = one_cycle(step/steps)
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total += loss.item()*len(yb)
            step += 1
        result = total/n, validate(model, x_valid, y_valid)
    return result


def loader(data, epochs):
    "Let torch's `DataLoader` fetch item by item and collate, as most tutorials do"
    x, y, x_valid, y_valid = data
    model, dl = mlp(), DataLoader(TensorDataset(x, y), batch_size=BS, shuffle=True)
    valid_dl = DataLoader(TensorDataset(x_valid, y_valid), batch_size=VALID_BS)
    opt = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMS[0])
    group, step, steps = opt.param_groups[0], 0, epochs*len(dl)
    for _ in range(epochs):
        model.train()
        total = 0.
        for xb, yb in dl:
            group['lr'], group['momentum'] = one_cycle(step/steps)
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total += loss.item()*len(yb)
            step += 1
        model.eval()
        right = 0
        with torch.no_grad():
            for xb, yb in valid_dl: right += (model(xb).argmax(1) == yb).sum().item()
        result = total/len(x), right/len(x_valid)
    return result


def gathered(x, y, at_once=40):
    "Shuffled batches, the rows of some of them gathered at once"
    for idx in torch.randperm(len(x)).split(at_once*BS):
        yield from zip(x.index_select(0, idx).split(BS), y.index_select(0, idx).split(BS))


def train_bare(model, batches):
    "What eager torch needs for an epoch: no mean, no schedule, and nobody is asked anything"
    params = list(model.parameters())
    momenta = [torch.zeros_like(p) for p in params]
    for xb, yb in batches:
        F.cross_entropy(model(xb), yb).backward()
        with torch.no_grad():
            torch._fused_sgd_(params, [p.grad for p in params], momenta, lr=LR, momentum=MOMS[1],
                              weight_decay=0., dampening=0., nesterov=False, maximize=False,
                              is_first_step=False)
        for p in params: p.grad = None


def floor(data, epochs):
    "The least that the work takes without a compiler: no feature but the accuracy of each epoch"
    x, y, x_valid, y_valid = data
    model = mlp()
    for _ in range(epochs):
        model.train()
        train_bare(model, gathered(x, y))
        result = 0., validate(model, x_valid, y_valid)
    return result


def validated(data, epochs):
    "The mean loss and the accuracy of validation rows, as often as there are epochs"
    *_, x, y = data
    model = mlp()
    for _ in range(epochs):
        model.eval()
        total = right = 0.
        with torch.no_grad():
            for i in range(0, len(x), VALID_BS):
                xb, yb = x[i:i+VALID_BS], y[i:i+VALID_BS]
                pred = model(xb)
                total += F.cross_entropy(pred, yb).item()*len(yb)
                right += (pred.argmax(1) == yb).sum().item()
    return total/len(x), right/len(x)


def predicted(data, epochs):
    "The answers to all validation rows, and their labels, as often as there are epochs"
    *_, x, y = data
    model = mlp()
    for _ in range(epochs):
        model.eval()
        preds, labels = [], []
        with torch.no_grad():
            for i in range(0, len(x), VALID_BS):
                preds.append(model(x[i:i+VALID_BS]))
                labels.append(y[i:i+VALID_BS])
        preds, labels = torch.cat(preds), torch.cat(labels)
    return 0., (preds.argmax(1) == labels).float().mean().item()


def tiny(data, epochs):
    "One weight, batches of one row: hardly anything but the loop itself"
    x, y = data
    model, n = one_weight(), len(x)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        model.train()
        total, order = 0., torch.randperm(n)
        xs, ys = x[order], y[order]
        for i in range(n):
            xb, yb = xs[i:i+1], ys[i:i+1]
            loss = F.mse_loss(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total += loss.item()
    return total/n, 0.
