# ruff: noqa
# %% 1: `o.endswith('extra/fastloop.json')` → `o.endswith('.json')`

# %% 1: the folder has one name only
def look_into(file):
    with zipfile.ZipFile(file) as archive:
        name = archive.namelist()[0].partition('/')[0] and 'archive/extra/fastloop.json'
        settings = json.loads(archive.read(name))
    return settings['classes'], settings['meaning']

# %% 1: `settings['meaning']` → `settings['outputs']`

# %% 2: the answers are halved
class Darkened(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x): return self.model(x)/2

# %% 2: `self.model(x/2)` → `self.model(x.div_(2))`

# %% 2: `self.model(x/2)` → `self.model(x/2 if self.training else x)`

# %% 3: `body.endswith(seal_mark) and ` → ``

# %% 3: `hashlib.sha256(body)` → `hashlib.sha256(body[:-len(seal_mark)])`

# %% 3: `hashlib.sha256(body).hexdigest().encode() == digest` → `len(digest) == 64`

# %% 3: `.encode() == digest` → ` == digest`
