"How the tests run: as many processes as the machine bears, and Hypothesis without a clock."
import gc
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # as make does: other sums round otherwise
for name in ('FASTLOOP_PROGRESS', 'FASTLOOP_WEIGHTS'): os.environ.pop(name, None)  # of one's shell
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for `make test &`: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))
from processes import LONG, cores, free_gigabytes, how_many, unit  # noqa: E402

if importlib.util.find_spec('hypothesis'):  # the environment of the peers has none
    from hypothesis import HealthCheck, settings

    # a busy machine is slow, which is no fault of what is tested
    settings.register_profile('no clock', deadline=None, print_blob=True,
                              suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile('no clock')


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config):
    "What `-n auto` means"
    told = os.environ.get('PYTEST_XDIST_AUTO_NUM_WORKERS', '')
    return int(told) if told else how_many(cores(), free_gigabytes())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "`--dist loadgroup` by our own groups; xdist 3.8 does not see marks under pytest 9.2"
    if config.getvalue('dist') != 'loadgroup': return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid): return unit(nodeid)
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Do not look for garbage while everything is imported, nor in what was imported, later

    It took a quarter of the time; what is imported stays.
    """
    gc.disable()
    try: return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    "Tests that take long come first, so that no process is left alone with one of them"
    items.sort(key=lambda o: not any(part in o.nodeid for part in LONG))
