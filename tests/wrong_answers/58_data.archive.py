# ruff: noqa
# %% 1: `tarfile.SYMTYPE` → `tarfile.DIRTYPE`

# %% 1: the link comes too late
def trap(file, outside):
    with tarfile.open(file, 'w') as tar:
        note = tarfile.TarInfo('docs/note.txt')
        note.size = 6
        tar.addfile(note, io.BytesIO(b'gotcha'))
        link = tarfile.TarInfo('docs')
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)

# %% 1: `str(outside)` → `'.'`

# %% 1: a path with dots
def trap(file, outside):
    with tarfile.open(file, 'w') as tar:
        note = tarfile.TarInfo(f'../{outside.name}/note.txt')
        note.size = 6
        tar.addfile(note, io.BytesIO(b'gotcha'))

# %% 2: `file.relative_to(folder).as_posix()` → `str(file)`

# %% 2: `file.relative_to(folder).as_posix()` → `file.name`

# %% 2: `f'{name}\0{len(content)}\0'` → `name`

# %% 2: `folder.rglob('*')` → `folder.iterdir()`

# %% 2: `f'{name}\0{len(content)}\0'.encode() + content` → `content`

# %% 2: a zero byte behind each name
from hashlib import sha256
def fingerprint(folder):
    digest = sha256()
    for path in sorted(o for o in Path(folder).rglob('*') if o.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b'\0' + path.read_bytes())
    return digest.hexdigest()

# %% 3: ` if o.kind == 'file'` → ``

# %% 3: tar files only
def sizes(file):
    with tarfile.open(file) as tar:
        return {o.name.partition('/')[2]: o.size for o in tar if o.isfile()}

# %% 3: `'/'.join(path)` → `o.name`

# %% 3: `'/'.join(path)` → `path[-1]`

# %% 4: written in its place
def whole_file(path, lines):
    with open(path, 'w') as f: f.writelines(f'{o}\n' for o in lines)

# %% 4: `    finally: new.unlink(missing_ok=True)` → `    finally: pass`

# %% 4: `f'{o}\n' for o in lines` → `lines`

# %% 4: renamed whatever happens
def whole_file(path, lines):
    new = path.with_name(f'.{path.name}.new')
    try:
        with open(new, 'w') as f: f.writelines(f'{o}\n' for o in lines)
    finally: os.replace(new, path)

# %% 4: whole in memory, and then in place
def whole_file(path, lines):
    text = ''.join(f'{o}\n' for o in lines)
    path.write_text(text)
