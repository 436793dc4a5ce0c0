# ruff: noqa
# %% 1: nothing is compared
def sealed(data): return data + hashlib.sha256(data).digest()
def opened(data): return data[:-32]

# %% 1: a sum of numbers
def sealed(data): return data + bytes([sum(data) % 256])
def opened(data):
    data, end = data[:-1], data[-1:]
    if bytes([sum(data) % 256]) != end: raise ValueError('the data are damaged')
    return data

# %% 1: an error of another kind
def sealed(data): return data + hashlib.sha256(data).digest()
def opened(data):
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    return data[:-32]

# %% 1: the sum of the end alone
def sealed(data): return data + hashlib.sha256(data[-4:]).digest()
def opened(data):
    data, end = data[:-32], data[-32:]
    if hashlib.sha256(data[-4:]).digest() != end: raise ValueError('the data are damaged')
    return data

# %% 2: by way of a float
def fraction_out(o): return [float(o)]
def fraction_in(o): return Fraction(o)

# %% 2: one list
def fraction_out(o): return [o.numerator, o.denominator]
def fraction_in(parts): return Fraction(*parts)

# %% 2: the numbers, divided
def fraction_out(o): return [o.numerator, o.denominator]
def fraction_in(numerator, denominator): return numerator/denominator

# %% 3: the newest, whole or not
def newest_state(folder):
    files = numbered_files(folder)
    return read_state(files[0][1]) if files else None

# %% 3: torch does not notice
def newest_state(folder):
    for _, path in numbered_files(folder):
        try: return torch.load(path, weights_only=True)
        except Exception: pass
    return None

# %% 3: `numbered_files(folder)` → `numbered_files(folder)[::-1]`

# %% 3: given up after the first that is damaged
def newest_state(folder):
    for _, path in numbered_files(folder):
        try: return read_state(path)
        except ValueError: return None

# %% 4: the best one counts
def keep_with_best(folder, keep, best):
    for _, path in numbered_files(folder)[keep:]:
        if path != best: path.unlink()

# %% 4: `others[keep:]` → `others[:-keep]`

# %% 4: the best one goes
def keep_with_best(folder, keep, best):
    keep_newest(folder, keep)

# %% 4: every file of the folder
def keep_with_best(folder, keep, best):
    newest = [path for _, path in numbered_files(folder) if path != best][:keep]
    for path in folder.iterdir():
        if path not in (*newest, best): path.unlink()
