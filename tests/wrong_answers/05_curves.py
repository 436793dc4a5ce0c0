# ruff: noqa
# %% 1: the last stretch is left out
def keep_peaks(values, places):
    return [max(range(a, b), key=values.__getitem__) for a, b in zip(places, places[1:])]

# %% 1: the values, not their places
def keep_peaks(values, places):
    return [max(values[a:b]) for a, b in zip(places, [*places[1:], len(values)])]

# %% 1: a stretch goes on to the next place
def keep_peaks(values, places):
    ends = [*places[1:], len(values) - 1]
    return [max(range(a, b+1), key=values.__getitem__) for a, b in zip(places, ends)]

# %% 1: places in the stretch
def keep_peaks(values, places):
    ends = [*places[1:], len(values)]
    return [values[a:b].index(max(values[a:b])) for a, b in zip(places, ends)]

# %% 2: `math.log10` → `math.log`

# %% 2: `0 < y < math.inf` → `0 < y`

# %% 2: points are left out
def log_curve(curve):
    return curve._replace(ys=[math.log10(y) for y in curve.ys
                              if y is not None and 0 < y < math.inf])

# %% 2: a new curve, without color and side
def log_curve(curve):
    return Curve(curve.label, curve.xs, [math.log10(y) if y is not None and 0 < y < math.inf
                                         else None for y in curve.ys], 'blue')

# %% 3: `if first <= x <= last` → `if first <= x < last`

# %% 3: `marks=[o for o in panel.marks if first <= o[0] <= last]` → `marks=panel.marks`

# %% 3: places, not batches
def part_of(panel, first, last):
    curves = [o._replace(xs=o.xs[first:last+1], ys=o.ys[first:last+1]) for o in panel.curves]
    return panel._replace(curves=curves, marks=[o for o in panel.marks if first <= o[0] <= last])

# %% 3: out of the panel that was given
def part_of(panel, first, last):
    for o in panel.curves:
        kept = [i for i, x in enumerate(o.xs) if first <= x <= last]
        o.xs[:], o.ys[:] = [o.xs[i] for i in kept], [o.ys[i] for i in kept]
    return panel._replace(marks=[o for o in panel.marks if first <= o[0] <= last])
