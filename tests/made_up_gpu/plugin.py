"""For `pytest -p made_up_gpu.plugin`: torch believes in a GPU that is not there.

`MADE_UP_GPU` names the library built from device.cpp, which has to be there before torch.
"""
import contextlib
import importlib.machinery
import importlib.util
import os
import sys

loader = importlib.machinery.ExtensionFileLoader('device', os.environ['MADE_UP_GPU'])
assert 'torch' not in sys.modules, 'too late: torch has been imported'
device = importlib.util.module_from_spec(importlib.util.spec_from_loader('device', loader))

import torch  # noqa: E402
from made_up_gpu.tensors import GPU, MadeUp, held, on_gpu, set_debug  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402


class Event:
    "Has happened"
    def __init__(self, *args, **kwargs): pass
    def record(self, stream=None): pass
    def wait(self, stream=None): pass
    def synchronize(self): pass
    def query(self): return True


class Stream:
    "Has done everything"
    cuda_stream, device = 0, GPU
    def __init__(self, *args, **kwargs): pass
    def wait_stream(self, stream): pass
    def wait_event(self, event): pass
    def record_event(self, event=None): return Event()
    def synchronize(self): pass
    def query(self): return True


class RandomState:
    "That of the GPU, which nothing draws from"
    state = torch.zeros(16, dtype=torch.uint8)
    def get(self, device=None): return self.state.clone()
    def put(self, state, device=None): self.state = state.clone()


def load(file, map_location=None, **kwargs):
    "torch.load, where storages cannot be moved to the GPU"
    there = isinstance(map_location, (str, torch.device)) and on_gpu(map_location)
    found = torch_load(file, map_location='cpu' if there else map_location, **kwargs)
    return tree_map(held, found) if there else found


def pretend():
    "Let torch.cuda speak of one GPU"
    stream, random, torch.load = Stream(), RandomState(), load
    for name, value in dict(
            is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 1,
            current_device=lambda: 0, _lazy_init=lambda: None, synchronize=lambda device=None: None,
            get_device_name=lambda device=None: 'made up', is_bf16_supported=lambda *args: True,
            get_device_capability=lambda device=None: (9, 0), set_sync_debug_mode=set_debug,
            current_stream=lambda device=None: stream, default_stream=lambda device=None: stream,
            stream=lambda stream: contextlib.nullcontext(), Stream=Stream, Event=Event,
            get_rng_state=random.get, set_rng_state=random.put,
            get_rng_state_all=lambda: [random.get()],
            set_rng_state_all=lambda states: random.put(states[0]),
            manual_seed=lambda seed: None, manual_seed_all=lambda seed: None).items():
        setattr(torch.cuda, name, value)
    torch.Tensor.pin_memory = lambda self, *args: self.clone()
    torch.Tensor.record_stream = lambda self, *args: None
    torch.Tensor.cuda = lambda self, *args, **kwargs: self.to(GPU)
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter stays that object
    torch._C._set_only_lift_cpu_tensors(True)
    MadeUp().__enter__()


torch_load = torch.load
pretend()
