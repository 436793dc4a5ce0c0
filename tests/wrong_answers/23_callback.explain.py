# ruff: noqa
# %% 1: in every event
class HalveLate(Halve):
    order = 30

# %% 1: `30` → `10`

# %% 2: one
twice = Runner(Halve)

# %% 2: two others
twice = Runner([Halve(), Late()])

# %% 3: everybody
def who(run, event):
    return [type(cb).__name__ for cb in run.cbs]

# %% 3: in the order of the alphabet
def who(run, event):
    return sorted(type(cb).__name__ for cb, _ in run.handlers[event])
