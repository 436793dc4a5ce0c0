# ruff: noqa
# %% 1: `first = first or e` → `first = e`

# %% 1: the errors are lost
def careful_put_back(undos):
    for undo in undos:
        try: undo()
        except Exception: pass

# %% 1: up to the first
def careful_put_back(undos):
    first = None
    for undo in undos:
        try: undo()
        except Exception as e:
            first = e
            break
    if first is not None: raise first

# %% 1: the last error comes out of the chain
def careful_put_back(undos):
    if not undos: return
    try: undos[0]()
    finally: careful_put_back(undos[1:])

# %% 2: `min(presses + 1, 2)` → `presses + 1`

# %% 2: `min(presses + 1, 2)` → `1`

# %% 2: `presses < 2` → `True`

# %% 2: `presses < 2` → `not presses`

# %% 3: `(len(self.dl) + 1)//2` → `len(self.dl)//2`

# %% 3: `i % 2 == 0` → `i % 2`

# %% 3: the length is that of the other
class EverySecond(InPlaceOf):
    def __iter__(self): return iter(list(begin_batches(self.dl))[::2])

# %% 3: a list of its own
class EverySecond(list):
    def __init__(self, dl): super().__init__(list(dl)[::2])
