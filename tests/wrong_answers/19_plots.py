# ruff: noqa
# %% 1: all epochs have one length
def ends(nb_batches):
    return [nb_batches[0]*(i + 1) for i in range(len(nb_batches))]

# %% 1: where they begin
def ends(nb_batches):
    return [sum(nb_batches[:i]) for i in range(len(nb_batches))]

# %% 2: `row[1] - row[0]` → `row[0] - row[1]`

# %% 2: `row[1] - row[0]` → `abs(row[1] - row[0])`

# %% 2: `row[1] - row[0]` → `row[-1] - row[0]`

# %% 3: logarithms on a plain axis
def draw_logs():
    ax = plt.figure(figsize=(5, 2.5)).gca()
    ax.plot([math.log(o) for o in losses])
    return ax

# %% 3: `, ax=ax` → ``

# %% 3: the figure
def draw_logs():
    fig = draw_losses(losses, rows, nb_batches)
    fig.axes[0].set_yscale('log')
    return fig

# %% 3: an axis without the batches of the epochs
def draw_logs():
    ax = plt.figure(figsize=(5, 2.5)).gca()
    ax.plot(losses)
    ax.plot([row[1] for row in rows], 'o-')
    ax.set_yscale('log')
    return ax
