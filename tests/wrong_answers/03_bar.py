# ruff: noqa
# %% 1: not closed after a break
def bar_over(items, label):
    bar, total = PhaseBar(), len(items) if hasattr(items, '__len__') else None
    for n, item in enumerate(items):
        bar.draw(label, n, total)
        yield item
    bar.close()

# %% 1: `len(items) if hasattr(items, '__len__') else None` → `len(items)`

# %% 1: `enumerate(items)` → `enumerate(items, 1)`

# %% 1: the items are used up for the length
def bar_over(items, label):
    bar, items = PhaseBar(), list(items)
    try:
        for n, item in enumerate(items):
            bar.draw(label, n, len(items))
            yield item
    finally: bar.close()

# %% 2: `last = None` → `last = 0.`

# %% 2: `now < last + seconds` → `now <= last + seconds`

# %% 2: the last call, passed on or not
def draw_seldom(bar, seconds, clock=time.monotonic):
    last = None
    def draw(*args, **kwargs):
        nonlocal last
        before, last = last, clock()
        if before is None or last >= before + seconds: bar.draw(*args, **kwargs)
    return draw

# %% 2: `bar.draw(*args, **kwargs)` → `bar.draw(*args)`

# %% 2: a beat that goes on through a pause
def draw_seldom(bar, seconds, clock=time.monotonic):
    due = clock()
    def draw(*args, **kwargs):
        nonlocal due
        if clock() < due: return
        due += seconds
        bar.draw(*args, **kwargs)
    return draw

# %% 3: all lines are counted
def say(lines):
    n = 0
    for n, line in enumerate(lines, 1): print_line(line)
    return n

# %% 3: given up at the first error
def say(lines):
    n = 0
    with output_may_break():
        for line in lines:
            print(line, flush=True)
            n += 1
    return n

# %% 3: counted before it is printed
def say(lines):
    n = 0
    for line in lines:
        with output_may_break():
            n += 1
            print(line, flush=True)
    return n

# %% 2: the first of each second
def draw_seldom(bar, seconds, clock=time.monotonic):
    begin, seen = clock(), set()

    def draw(*args, **kwargs):
        second = (clock() - begin)//seconds
        if second not in seen: bar.draw(*args, **kwargs)
        seen.add(second)
    return draw
