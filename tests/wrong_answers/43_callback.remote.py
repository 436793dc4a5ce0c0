# ruff: noqa
# %% 1: `nan` goes out as it is
def as_json(row):
    return json.dumps({k: v.item() if isinstance(v, torch.Tensor) else v for k, v in row.items()})

# %% 1: `not math.isfinite(value)` → `math.isnan(value)`

# %% 1: zero is nothing
def as_json(row):
    return json.dumps({k: v if v and v == v and v not in (math.inf, -math.inf) else None
                       for k, v in row.items()})

# %% 1: a dictionary
def as_json(row): return json_value(row)

# %% 2: `rest.rsplit` → `rest.split`

# %% 2: the password alone
def without_secret(root): return re.sub(':[^:/]*@', '@', root)

# %% 2: there is always a name
def without_secret(root): return 'http://' + root.split('@')[1]

# %% 3: `put` waits
class Background:
    def __init__(self, send): self.send = send
    def put(self, row):
        with suppress(Exception): self.send(row)
    def finish(self): pass

# %% 3: `            if before: before.join()` → ``

# %% 3: `if self.last: self.last.join()` → `pass`

# %% 3: the first error ends the thread
class Background:
    def __init__(self, send):
        self.send, self.rows, self.more = send, [], threading.Semaphore(0)
        self.idle = threading.Event()
        threading.Thread(target=self.work, daemon=True).start()
    def work(self):
        with suppress(OSError):
            while True:
                self.more.acquire()
                self.send(self.rows[0])
                del self.rows[0]
                if not self.rows: self.idle.set()
    def put(self, row):
        self.rows.append(row)
        self.more.release()
    def finish(self): self.idle.wait()
