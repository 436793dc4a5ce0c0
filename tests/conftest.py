"How the tests run: as many processes as the machine bears, and Hypothesis without a clock."
import importlib.util
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
GIGABYTES = 1.5  # what one process needs at most, with what its tests start

if importlib.util.find_spec('hypothesis'):  # the environment of the peers has none
    from hypothesis import HealthCheck, settings

    # a busy machine is slow, which is no fault of what is tested
    settings.register_profile('no clock', deadline=None, print_blob=True,
                              suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile('no clock')


def free_gigabytes():
    "The memory that is free now, or None where nobody says"
    try: lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError: return None
    return next((int(o.split()[1])/2**20 for o in lines if o.startswith('MemAvailable:')), None)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config):
    "`-n auto`: one process for each core that we may use, fewer where memory is short"
    if told := os.environ.get('PYTEST_XDIST_AUTO_NUM_WORKERS', ''): return int(told)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    memory = free_gigabytes()
    return max(1, min(cores or 1, int(memory/GIGABYTES) if memory else 4))
