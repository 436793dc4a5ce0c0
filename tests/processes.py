"How many processes the tests run in: as many as the machine bears."
import os
from pathlib import Path

GIGABYTES = 1.5  # what one process needs at most, with what its tests start


def free_gigabytes(meminfo='/proc/meminfo'):
    "The memory that is free now, or None where nobody says"
    try: lines = Path(meminfo).read_text().splitlines()
    except OSError: return None
    return next((int(o.split()[1])/2**20 for o in lines if o.startswith('MemAvailable:')), None)


def cores():
    "The cores that this process may use"
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def how_many(cores, gigabytes):
    "One process for each core, fewer where memory is short, at most 4 where nobody knows"
    return max(1, min(cores, 4 if gigabytes is None else int(gigabytes/GIGABYTES)))
