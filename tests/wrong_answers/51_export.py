# ruff: noqa
# %% 1: a torn file stops everything
def share_called(name, files):
    probs, _ = predictor.get_preds(list(files), probabilities=True)
    return (probs.argmax(1) == predictor.classes.index(name)).float().mean().item()

# %% 1: a torn file is counted
def share_called(name, files):
    answers = [a for _, a in label_files(predictor, files)]
    return sum(isinstance(a, tuple) and a[0] == name for a in answers)/len(answers)

# %% 1: `/len(answers)` → ``

# %% 1: the probabilities are added
def share_called(name, files):
    probs = [a[2] for _, a in label_files(predictor, files) if isinstance(a, tuple)]
    return torch.stack(probs)[:, predictor.classes.index(name)].mean().item()

# %% 2: `, probabilities=True` → ``

# %% 2: `table.classes[p.argmax()]` → `int(p.argmax())`

# %% 2: `p.max() >= least` → `p[0] >= least`

# %% 3: `sealed(write_parts({**parts, settings_name: json.dumps(settings).encode()}))` → `write_parts({**parts, settings_name: json.dumps(settings).encode()})`

# %% 3: other names of the same length, in the bytes
def renamed(data, classes):
    for old, new in zip(predictor.classes, classes):
        data = data.replace(old.encode(), new.ljust(len(old))[:len(old)].encode())
    return data

# %% 3: `    settings['classes'] = classes` → `    settings['names'] = classes`

# %% 4: the seal is trusted
def load_known(file, digest):
    if not seal_holds(Path(file).read_bytes()): raise ValueError(f'{file} is not sealed')
    return Predictor.load(file, device='cpu')

# %% 4: `.hexdigest()` → `.digest()`

# %% 4: only the program is compared
def load_known(file, digest):
    old = read_parts((folder/'model.pt2').read_bytes())
    new = read_parts(Path(file).read_bytes())
    if old['models/model.json'] != new['models/model.json']: raise ValueError('another program')
    return Predictor.load(file, device='cpu')
