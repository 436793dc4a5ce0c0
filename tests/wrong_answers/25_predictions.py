# ruff: noqa
# %% 1: `descending=True` → ``

# %% 1: the losses, not their places
def most_wrong(losses, n):
    return losses.sort(descending=True).values[:n]

# %% 1: `[:n]` → `[:3]`

# %% 2: as it is
def ask_twice(model, xb):
    return model(xb), model(xb)

# %% 2: the model stays in the mode of validation
def ask_twice(model, xb):
    model.eval()
    return model(xb), model(xb)

# %% 2: the same dropout twice
def ask_twice(model, xb):
    pred = model(xb)
    return pred, pred

# %% 3: the answer
def how_sure(score):
    return float(as_answer(torch.tensor([[score]]), nn.BCEWithLogitsLoss())[0])

# %% 3: the softmax of one number is 1
def how_sure(score):
    return float(torch.tensor([score]).softmax(0))
