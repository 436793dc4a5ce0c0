# ruff: noqa
# %% 1: `o.replace('|', r'\|') for o in row` → `o for o in row`

# %% 1: without a line below the head
def table_markdown(table):
    rows = [table.header, *table.rows]
    return '\n'.join('| ' + ' | '.join(o.replace('|', r'\|') for o in row) + ' |' for row in rows)

# %% 1: the lines of the aligned text
def table_markdown(table):
    return '\n'.join('| ' + ' | '.join(o.split()) + ' |' for o in table.text.splitlines())

# %% 2: the row, not the epoch
def best(frame, column):
    return frame[column].idxmin()

# %% 2: the number, not the epoch
def best(frame, column):
    return frame[column].min()

# %% 2: `idxmin` → `idxmax`

# %% 2: nan comes first
def best(frame, column):
    values = frame[column].tolist()
    return frame.epoch[values.index(min(values))]

# %% 3: ` or value != value` → ``

# %% 3: as long as it has ten characters
def is_exact(value):
    return len(str(value)) <= 10

# %% 3: nearly
def is_exact(value):
    return abs(float(cell_text(value)) - value) < 1e-6

# %% 3: without an exponent
def is_exact(value):
    return 'e' not in cell_text(value)
