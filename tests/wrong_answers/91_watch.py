# ruff: noqa
# %% 1: `(table, saved)` → `(table,)`

# %% 1: `max(times)` → `min(times)`

# %% 1: a checkpoint goes before the table
def quiet_for(folder, now):
    table = newest_file([folder], r'.*\.csv')
    saved = newest_file([folder/'models'/'checkpoints'], r'.*\.pt')
    return now - (saved or table).stat().st_mtime if saved or table else None

# %% 1: the folder's own time
def quiet_for(folder, now):
    return now - folder.stat().st_mtime if folder.exists() else None

# %% 1: whatever file is newest
def quiet_for(folder, now):
    times = [o.stat().st_mtime for o in folder.rglob('*') if o.is_file()]
    return now - max(times) if times else None

# %% 1: `if times else None` → `if times else 0`

# %% 2: pages behind each other
def page_of_all(folders): return ''.join(page_of(look(o)) for o in folders)

# %% 2: one picture of all
def page_of_all(folders):
    seen = [look(o) for o in folders]
    return page_of(dict(panels=[p for o in seen for p in o['panels']],
                        lines=[p for o in seen for p in o['lines']]))

# %% 2: only those that have begun
def page_of_all(folders):
    pages = [page_of(look(o)) for o in folders]
    head = pages[0].partition('<body>')[0]
    bodies = [o.partition('<body>')[2].removesuffix('</body></html>') for o in pages if '<svg' in o]
    return f'{head}<body>{"".join(bodies)}</body></html>'

# %% 2: names as they are, and the pictures at the end
def page_of_all(folders):
    seen = [look(o) for o in folders]
    lines = ''.join(f'<p>{line}</p>' for o in seen for line in o['lines'])
    drawn = ''.join(svg_text(o['panels'], 'a run') for o in seen if o['panels'])
    head = page_of(seen[0]).partition('<body>')[0]
    return f'{head}<body>{lines}{drawn}</body></html>'

# %% 2: the pictures at the end
def page_of_all(folders):
    seen = [look(o) for o in folders]
    lines = ''.join(f'<p>{escape(line)}</p>' for o in seen for line in o['lines'])
    drawn = ''.join(svg_text(o['panels'], 'a run') for o in seen if o['panels'])
    head = page_of(seen[0]).partition('<body>')[0]
    return f'{head}<body>{lines}{drawn}</body></html>'

# %% 3: half a row is a row
def new_rows(path, at):
    if not path.exists(): return [], 0
    data = path.read_bytes()
    return [o.split(',') for o in data[at:].decode().splitlines()], len(data)

# %% 3: the next look begins at the end of the file
def new_rows(path, at):
    try: data = path.read_bytes()
    except OSError: return [], 0
    if at > len(data): at = 0
    end = data.rfind(b'\n') + 1
    return [o.split(',') for o in data[at:end].decode().splitlines()], len(data)

# %% 3: `    if at > len(data): at = 0` → ``

# %% 3: letters instead of bytes
def new_rows(path, at):
    try: text = path.read_text(encoding='utf-8', errors='replace')
    except OSError: return [], 0
    if at > len(text): at = 0
    end = text.rfind('\n') + 1
    return [o.split(',') for o in text[at:end].splitlines()], end

# %% 3: the file is there
def new_rows(path, at):
    data = path.read_bytes()
    if at > len(data): at = 0
    end = data.rfind(b'\n') + 1
    return [o.split(',') for o in data[at:end].decode().splitlines()], end
