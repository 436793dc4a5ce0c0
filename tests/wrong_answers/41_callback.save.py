# ruff: noqa
# %% 1: epochs
save = SaveModelCallback(every=10, keep=2)

# %% 1: all files
save = SaveModelCallback(n_batches=10)

# %% 1: the best one
save = SaveModelCallback(keep=2, verbose=False)

# %% 2: the best value, which is that of the epochs before
class LossInName(SaveModelCallback):
    def file_name(self): return f'{self.fname}_{self.best:.4f}'

# %% 2: always the validation loss
class LossInName(SaveModelCallback):
    def file_name(self): return f'{self.fname}_{self.recorder.values[-1][1]:.4f}'

# %% 2: `{self.fname}` → `bestmodel`

# %% 3: the tensors of the model themselves
class InMemory(SaveModelCallback):
    def forget(self):
        super().forget()
        self.copies = {}

    def write_file(self, name): self.copies[name] = self.learn.model.state_dict()
    def read_file(self, name): self.learn.model.load_state_dict(self.copies[name])
    def remove_file(self, name): del self.copies[name]

# %% 3: nothing goes
class InMemory(SaveModelCallback):
    def forget(self):
        super().forget()
        self.copies = {}

    def write_file(self, name):
        self.copies[name] = {k: v.clone() for k, v in self.learn.model.state_dict().items()}

    def read_file(self, name): self.learn.model.load_state_dict(self.copies[name])
    def remove_file(self, name): pass

# %% 3: nothing comes back
class InMemory(SaveModelCallback):
    def forget(self):
        super().forget()
        self.copies = {}

    def write_file(self, name):
        self.copies[name] = {k: v.clone() for k, v in self.learn.model.state_dict().items()}

    def read_file(self, name): return self.copies[name]
    def remove_file(self, name): del self.copies[name]
