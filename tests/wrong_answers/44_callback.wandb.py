# ruff: noqa
# %% 1: `self.step})` → `self.n_iter})`

# %% 1: `    def begin_fit(self): self.wandb_run.define_metric('batch/*', step_metric='batch/step')` → ``

# %% 1: the step is given as well
class OwnAxis(NaiveWandb):
    step = 0
    def begin_fit(self): self.wandb_run.define_metric('batch/*', step_metric='batch/step')
    def after_loss(self):
        if not self.in_train: return
        row = {'batch/loss': self.loss.item(), 'batch/step': self.step}
        self.wandb_run.log(row, step=self.n_iter)
        self.step += 1

# %% 2: the callback opens another one
def in_my_run(learners):
    run = wandb.init()
    for learn in learners: learn.fit(1, cbs=WandbCallback())
    return run

# %% 2: it is closed
def in_my_run(learners):
    run = wandb.init()
    with patch.object(wandb, 'run', run):
        for learn in learners: learn.fit(1, cbs=WandbCallback())
    run.finish()
    return run

# %% 2: a run for each
def in_my_run(learners):
    for learn in learners:
        run = wandb.init()
        with patch.object(wandb, 'run', run): learn.fit(1, cbs=WandbCallback())
    return run

# %% 3: `new_run=True` → ``

# %% 3: `except BaseException` → `except Exception`

# %% 3: nothing is trained
def exit_codes(errors):
    codes = {None: 0, KeyboardInterrupt: 255}
    return [codes.get(o and type(o), 1) for o in errors]
