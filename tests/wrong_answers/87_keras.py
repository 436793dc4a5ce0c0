# ruff: noqa
# %% 1: `f'from {name} import {", ".join(modules)}\n'` → `''`

# %% 1: one file
def make_package(folder, name, modules):
    (folder/f'{name}.py').write_text('\n'.join(modules.values()))

# %% 1: what the modules hold, at the top
def make_package(folder, name, modules):
    (folder/name).mkdir()
    for module, source in modules.items(): (folder/name/f'{module}.py').write_text(source)
    (folder/name/'__init__.py').write_text('\n'.join(modules.values()))

# %% 2: made of the name
def home(name): return f'fastloop.keras.{name.split(".")[0]}'

# %% 2: the last part alone
def home(name): return getattr(keras, name.split('.')[-1]).__module__

# %% 2: `found.__module__` → `found.__name__`

# %% 3: `'softmax'` → `'linear'`

# %% 3: `, ['accuracy']` → ``

# %% 3: `'relu', ` → ``

# %% 3: `'sparse_categorical_crossentropy'` → `'categorical_crossentropy'`
