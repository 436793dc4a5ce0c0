# ruff: noqa
# %% 1: ` if callable(o)` → ``

# %% 1: ` if near is not None` → ``

# %% 1: whatever is no event
def suspects(cls, events):
    return {name: near_event(name, events) for name, o in vars(cls).items()
            if callable(o) and name not in events and name[0] != '_'}

# %% 1: spelling alone
def suspects(cls, events):
    return {name: near for name, o in vars(cls).items() if callable(o)
            and name not in events and (near := nearest_name(name, events, .86))}

# %% 2: of the object alone
def looks_at(cls, name):
    return (name,) in names_read(cls)

# %% 2: a part of a name
def looks_at(cls, name):
    return any(name in '.'.join(path) for path in names_read(cls))

# %% 2: the end of a path
def looks_at(cls, name):
    return any(path[-1] == name for path in names_read(cls) if len(path) > 1)

# %% 2: all names in the code
def looks_at(cls, name):
    return any(name in f.__code__.co_names for f in own_functions(cls))

# %% 3: under another variable
class Hidden:
    def value(self):
        other = self
        return other.dls

# %% 3: in a function inside
class Hidden:
    def value(self): return (lambda: self.dls)()

# %% 3: another value
class Hidden:
    def value(self): return 'a'

# %% 3: an attribute of the class
class Hidden:
    dls = None
    def value(self): return self.dls

# %% 4: under other names
class Sender:
    def __init__(self, address, every=1, token=''):
        self.url, self.n, self.token = address, every, token

# %% 4: the secret under a name that does not tell
class Sender:
    def __init__(self, address, every=1, token=''):
        self.address, self.every = f'{address}?{token}' if token else address, every
        self.token = token

# %% 4: `, self.token = address, every, token` → ` = address, every`
