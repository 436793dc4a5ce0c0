# ruff: noqa
# %% 1: each has a run of its own
def in_one_run(learners, run):
    for learn in learners: learn.fit(1, cbs=MLflowCallback(experiment='mine'))

# %% 1: the run stays active
def in_one_run(learners, run):
    mlflow.active_run = lambda: run
    for learn in learners: learn.fit(1, cbs=MLflowCallback())

# %% 1: the run is closed
def in_one_run(learners, run):
    with patch.object(mlflow, 'active_run', lambda: run):
        for learn in learners: learn.fit(1, cbs=MLflowCallback())
    client.set_terminated(run.info.run_id, 'FINISHED')

# %% 2: ` if len(o) > 1` → ``

# %% 2: `allowed_name(name)` → `name`

# %% 2: pairs
def clashes(names):
    return [[a, b] for i, a in enumerate(names) for b in names[i+1:]
            if allowed_name(a) == allowed_name(b)]

# %% 3: `        super().end_run(status)` → ``

# %% 3: `'last.pth'` → `'bestmodel.pth'`

# %% 3: the best weights under another name
class WithLast(MLflowCallback):
    def write_file(self, path, value):
        super().write_file(path, value)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place)/'last.pth'
            file.write_bytes(Path(path).read_bytes())
            super().write_file(file, value)
