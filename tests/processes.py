"How many processes the tests run in, which tests stay together in one, and what they start."
import multiprocessing
import os
import sys
import tempfile
import threading
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

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
LONG = ('test_made_up_gpu', 'test_runs[9', 'test_runs[65_', 'test_runs[02_', 'test_runs[51_',
        'test_runs[7')


class Forks:
    """Starts processes that are forked from one which has imported some modules already

    `multiprocessing` has one such server in all, with the modules and the environment of whoever
    comes first; here each has its own.
    """
    lock = threading.Lock()

    def __init__(self, *modules, **env):
        self.context = multiprocessing.get_context('forkserver')
        self.server = forkserver.ForkServer()
        self.server.set_forkserver_preload(list(modules))
        tests = Path(__file__).resolve().parent
        env.setdefault('PYTHONPATH', os.pathsep.join(map(str, (tests.parent, tests))))
        with patch.dict(os.environ, env): self.server.ensure_running()

    def start(self, target, *args):
        "A process that calls `target`"
        process, connect = self.context.Process(target=target, args=args), 'connect_to_new_process'
        with self.lock, patch.object(forkserver, connect, getattr(self.server, connect)):
            process.start()
        return process

    def close(self):
        "End the server"
        self.server._stop()


def run_text(text, args, folder, env, out, err):
    "The body of a process: a program as `python -c` runs it, in a folder; it prints into files"
    for number, file in ((1, out), (2, err)): os.dup2(os.open(file, os.O_WRONLY), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = ['-c', *args]
    exec(compile(text, '<program>', 'exec'), {'__name__': '__main__'})


class Program:
    """A program like that of `python -c`, in a process of its own

    It is forked from one that has imported torch, which takes seconds, and nothing of ours.
    """
    forks = None  # begins with the first program, ends with the process of the tests

    def __init__(self, text, *args, **env):
        if Program.forks is None: Program.forks = Forks('torch', 'numpy', 'processes')
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name)/o for o in ('out', 'err')]
        for o in self.files: o.touch()
        self.process = Program.forks.start(run_text, text, list(map(str, args)), os.getcwd(),
                                           {**os.environ, **env}, *map(str, self.files))

    @property
    def stdout(self): return self.files[0].read_text()

    @property
    def stderr(self): return self.files[1].read_text()

    @property
    def returncode(self): return self.process.exitcode

    def end(self, timeout=300):
        "Wait until it has ended"
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(self.stderr)
        return self
