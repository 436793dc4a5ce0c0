"Run a notebook in a process of its own, forked from one that has imported torch already."
import ipaddress
import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

from processes import Forks

# what nearly every notebook imports and reads; loading it once saves seconds for each
PRELOAD = ['torch', 'numpy', 'matplotlib.pyplot', 'matplotlib_inline.backend_inline', 'IPython',
           'torch._dynamo',  # which the first optimizer imports
           'execnb.nbio', 'execnb.shell', 'nbdev.process', 'fastcore.all', 'ipykernel.zmqshell',
           'notebook_runner',
           'notebook_preload']


def is_loopback(host):
    "Is `host` this machine?"
    try: return ipaddress.ip_address(host.partition('%')[0]).is_loopback
    except ValueError: return host == 'localhost'


def stay_home():
    "From now on this process reaches no network but its own machine"
    connect = socket.socket.connect

    def local(self, address):
        inside = self.family == socket.AF_UNIX or is_loopback(str(address[0]))
        if not inside: raise PermissionError(f'a notebook wants to reach {address}')
        return connect(self, address)
    socket.socket.connect = local


def allow_input(shell):
    """Let a shell look like that of a kernel whose front end could answer `input()`, as JupyterLab

    Then somebody is watching: bars are drawn, and tables are HTML.
    """
    import ipykernel.zmqshell  # noqa: F401  tqdm looks whether it is loaded
    for name in ('tqdm.auto', 'tqdm.autonotebook'): sys.modules.pop(name, None)
    shell.kernel = SimpleNamespace(shell=shell)
    shell.get_parent = lambda: {'content': {'allow_stdin': True}, 'header': {'msg_id': 'cell'}}


def execute(path, skip, root):
    """Run a notebook's code cells from top to bottom, without those that carry a flag in `skip`

    Input is allowed. Returns the outputs of each code cell, `None` for one that was skipped.
    """
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor
    sys.path.insert(0, str(root))
    os.chdir(Path(path).parent)  # as Jupyter does
    found = []
    shell = CaptureShell(Path(path))
    allow_input(shell)
    cells = [o for o in NBProcessor(path, process=True).nb.cells if o.cell_type == 'code']
    for cell in cells:
        directives = getattr(cell, 'directives_', None) or {}
        off = directives.get('eval:', [''])[0].lower() == 'false' or directives.keys() & set(skip)
        if off:
            found.append(None)
            continue
        found.append(shell.run(cell.source))
        if shell.exc:
            error = ''.join(traceback.format_exception(shell.exc)[-12:])
            raise RuntimeError(f'cell {cell.idx_}:\n{cell.source}\n\n{error}')
    return found


def child(path, skip, root, answer):
    "The body of the process: leave the result, or what went wrong, in the file `answer`"
    stay_home()
    try:
        shown = [o if o is None else bool(o) for o in execute(path, skip, root)]
        result = {'ok': True, 'shown': shown}
    except BaseException as error:
        result = {'ok': False, 'error': str(error) or repr(error)}
    part = Path(f'{answer}.part')
    part.write_text(json.dumps(result))
    part.rename(answer)
    sys.stdout.flush()
    os._exit(0)  # a thread that a notebook left running must not keep the process


def server(env):
    "Where notebooks are forked from, in this environment"
    return Forks(*PRELOAD, **env)


def run(forks, path, skip, root, answer, timeout=300):
    "Run one notebook; a dict with `ok`, `error` or `shown`, and `seconds`"
    start = time.perf_counter()
    process = forks.start(child, str(path), list(skip), str(root), str(answer))
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        result = {'ok': False, 'error': f'still running after {timeout} s'}
    elif not Path(answer).exists():
        result = {'ok': False, 'error': f'the process ended with code {process.exitcode}'}
    else: result = json.loads(Path(answer).read_text())
    return {**result, 'seconds': time.perf_counter() - start}
