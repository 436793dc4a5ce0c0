# ruff: noqa
# %% 1: under other names
class Notify(Callback):
    def __init__(self, channel, api_key, retries=3):
        self._channel, self._api_key, self._retries = channel, api_key, retries
    def header(self): return f'Bearer {self._api_key}'

# %% 1: nobody knows the key
class Notify(Callback):
    def __init__(self, channel, api_key, retries=3):
        self.channel, self.api_key, self.retries = channel, '…', retries
    def header(self): return f'Bearer {self.api_key}'

# %% 1: the key has a name that says nothing
class Notify(Callback):
    def __init__(self, channel, text, retries=3):
        self.channel, self.text, self.retries = channel, text, retries
    def header(self): return f'Bearer {self.text}'

# %% 2: `for k in one | two` → `for k in one`

# %% 2: ` if one.get(k) != two.get(k)` → ``

# %% 2: the sets of pairs
def difference(one, two): return dict(set(one.items()) ^ set(two.items()))

# %% 3: sorted by name
def rates_of(settings):
    return [settings[o] for o in sorted(settings) if o == 'lr' or o[:3] == 'lr_' and o[3:].isdigit()]

# %% 3: all that begin so
def rates_of(settings): return [o for k, o in settings.items() if k.startswith('lr')]

# %% 3: `    if 'lr' in settings: return [settings['lr']]` → ``
