# ruff: noqa
# %% 1: line breaks
def count_rows(data):
    return max(data.count(b'\n')-1, 0)

# %% 1: what a reader of CSV sees
def count_rows(data):
    return max(sum(1 for o in csv.reader(data.decode().splitlines()) if o)-1, 0)

# %% 1: `max(len(row_ends(data))-1, 0)` → `len(row_ends(data))`

# %% 1: `max(len(row_ends(data))-1, 0)` → `len(row_ends(data))-1`

# %% 2: `[:len(row_ends(path.read_bytes()))]` → ``

# %% 2: `parse_cell(rows[-1][header.index(name)])` → `rows[-1][header.index(name)]`

# %% 2: `parse_cell(rows[-1][header.index(name)])` → `float(rows[-1][header.index(name)])`

# %% 2: ` if rows else None` → ``

# %% 2: by hand
def last_value(path, name):
    header, *rows = [o.split(',') for o in path.read_text().splitlines()]
    return parse_cell(rows[-1][header.index(name)]) if rows else None

# %% 3: when all is over
def keep(path, rows):
    rows = list(rows)
    file = RowFile(path)
    file.begin(list(rows[0]))
    for row in rows: file.write(list(row), list(row.values()))

# %% 3: a file that stays open
def keep(path, rows):
    with open(path, 'w') as file:
        for i, row in enumerate(rows):
            if not i: file.write(csv_line(list(row)))
            file.write(csv_line(list(row.values())))

# %% 3: the names of the first row
def keep(path, rows):
    file = header = None
    for row in rows:
        if file is None:
            file, header = RowFile(path), list(row)
            file.begin(header)
        file.write(header, list(row.values())[:len(header)])

# %% 3: `file.begin(list(row))` → `file.begin(list(row), append=True)`
