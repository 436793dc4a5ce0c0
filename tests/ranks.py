"""Processes that train one model, for the tests: started together, each does all its cases.

They are forked from a server that has imported everything, so that a start costs little.
"""
import io
import multiprocessing
import os
import queue
import socket
import time
import traceback
from contextlib import redirect_stdout

import torch
import torch.distributed as dist
from processes import Forks

START = multiprocessing.get_start_method()  # of a program that nobody has forked


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def server(*modules):
    "A server of processes that has imported `modules`"
    return Forks('torch', 'numpy', 'fastloop.all', 'fastloop.distributed', 'torch.distributed.fsdp',
                 'torch._dynamo', 'ranks', *modules)


def plain(o):
    "What can go through a queue: tensors as lists"
    if isinstance(o, torch.Tensor): return o.detach().double().tolist()
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items()}
    if isinstance(o, (list, tuple)): return [plain(v) for v in o]
    return o


def body(rank, count, port, folder, cases, answers):
    "One process: all cases, one after the other"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    # a loader's workers start as in a program of a user, not each with an import of torch
    multiprocessing.set_start_method(START, force=True)
    torch.set_num_threads(1)
    os.chdir(folder)
    for name, work in cases:
        out = io.StringIO()
        try:
            with redirect_stdout(out): found = plain(work(rank))
        except BaseException as e:
            found = {'error': ''.join(traceback.format_exception(e)), 'kind': type(e).__name__}
        answers.put((name, rank, found, out.getvalue()))
        if isinstance(found, dict) and 'error' in found: break  # the others cannot go on without
    from fastloop.ranks import _joined
    for o in _joined: o.close()
    if dist.is_initialized(): dist.destroy_process_group()


def run(forks, folder, cases, count=2, limit=120, kill=None):
    "Do `cases` in `count` processes; by name, what each process answered and what it printed"
    port, answers = free_port(), forks.context.Queue()
    processes = [forks.start(body, i, count, port, folder, cases, answers) for i in range(count)]
    found, end = {}, time.monotonic()+limit
    while time.monotonic() < end:
        try: name, rank, answer, printed = answers.get(timeout=.2)
        except queue.Empty:
            if not any(o.is_alive() for o in processes) and answers.empty(): break
            continue
        found.setdefault(name, {})[rank] = answer, printed
    for o in processes:
        o.join(max(.1, end-time.monotonic()))
        if o.is_alive(): o.kill()
    return found, [o.exitcode for o in processes]
