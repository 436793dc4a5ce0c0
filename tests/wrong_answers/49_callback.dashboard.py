# ruff: noqa
# %% 1: `        row.children = [*row.children, button]` → ``

# %% 1: `        button.on_click(lambda _: control.rate(2.))` → `        control.rate(2.)`

# %% 1: `control.rate(2.)` → `control.rate(self.factor.value)`

# %% 1: the factor is set, and nothing is pressed
class DoubleBoard(Board):
    def __init__(self, control):
        super().__init__(control)
        self.factor.value = 2.

# %% 2: `recorder.values[-2:]` → `recorder.values`

# %% 2: `    if len(last) < 2 or None in last or last[0] == last[1]: return ''` → ``

# %% 2: `    column = recorder.names.index('valid_loss')` → `    column = 1`

# %% 2: `    if 'valid_loss' not in recorder.names: return ''` → ``

# %% 2: ` or last[0] == last[1]` → ``

# %% 3: `, 40*took` → ``

# %% 3: `, 0.5` → ``

# %% 3: `max(every, 0.5, 40*took)` → `every + 40*took`
