"How many processes the tests run in, and which tests stay together in one."
import os
from pathlib import Path

GIGABYTES = 1.5  # what one process needs at most, with what its tests start
# each of their tests takes long and shares nothing; those of other modules share what they import,
# one site, one run of the demo, two processes that have been started
APART = ('test_notebooks.py', 'test_exercises.py')


def free_gigabytes(meminfo='/proc/meminfo'):
    "The memory that is free now, or None where nobody says"
    try: lines = Path(meminfo).read_text().splitlines()
    except OSError: return None
    return next((int(o.split()[1])/2**20 for o in lines if o.startswith('MemAvailable:')), None)


def cores():
    "The cores that this process may use"
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def how_many(cores, gigabytes):
    """One process more than there are cores, since there is always one that waits for something

    Fewer where memory is short, at most 4 where nobody knows.
    """
    return max(1, min(cores + (cores > 1), 4 if gigabytes is None else int(gigabytes/GIGABYTES)))


def unit(nodeid):
    "What a process gets at a time: all tests of a module, or a single test"
    module = nodeid.partition('::')[0]
    return nodeid if module.endswith(APART) else module


# these take ten seconds and more: they come first
LONG = 'test_runs[9', 'test_runs[65_', 'test_runs[02_', 'test_runs[51_', 'test_runs[7'
