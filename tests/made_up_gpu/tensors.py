"""Tensors that say they are on `cuda:0`, hold their numbers on the CPU, and do what a GPU does.

They refuse to be computed with beside tensors of the CPU. Whatever would make the program wait for
a GPU is an error where `torch.cuda.set_sync_debug_mode('error')` says so.
"""
import warnings

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device('cuda', 0), torch.device('cpu')
aten = torch.ops.aten
GO_BETWEEN = {aten.copy_, aten._to_copy, aten.set_}
FUSED = {aten._fused_sgd_, aten._fused_adam_, aten._fused_adamw_}
BY_INDEX = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select, aten.is_nonzero,
           aten._unique2, aten.bincount}
debug = 'default'


def set_debug(mode):
    "In place of `torch.cuda.set_sync_debug_mode`"
    global debug
    debug = {0: 'default', 1: 'warn', 2: 'error'}.get(mode, mode)


def wait(what):
    "Something that a GPU would have to be waited for"
    told = f'called a synchronizing CUDA operation: {what}'
    if debug == 'error': raise RuntimeError(told)
    if debug == 'warn': warnings.warn(told, stacklevel=2)


def on_gpu(device): return device is not None and torch.device(device).type == 'cuda'


def is_tensor(o): return isinstance(o, torch.Tensor)


def is_held(o): return isinstance(o, Held)


def held(o): return Held(o) if is_tensor(o) and not is_held(o) else o


def bare(o):
    "What is held; and the CPU in place of the GPU"
    if is_held(o): return o.numbers
    return CPU if isinstance(o, torch.device) and on_gpu(o) else o


class Held(torch.Tensor):
    "A tensor on the GPU that is made up"
    @staticmethod
    def __new__(cls, numbers):
        self = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, layout=numbers.layout, device=GPU)
        self.numbers = numbers
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def __repr__(self): return f'{self.numbers!r} on {GPU}'

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def tolist(self):
        wait('tolist')
        return self.numbers.tolist()

    def numpy(self, *, force=False):
        if not force: raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.numbers.numpy(force=True)

    def __array__(self, *args, **kwargs): return self.numpy()

    def __reduce_ex__(self, protocol): return self.numbers.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        if id(self) in memo: return memo[id(self)]
        new = memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter): new._is_param = True
        if self.grad is not None: new.grad = self.grad.clone()
        return new

    def data_ptr(self): return self.numbers.data_ptr()

    def untyped_storage(self): return self.numbers.untyped_storage()

    def storage(self): return self.numbers.storage()


def strangers(packet, args, others):
    "The tensors of the CPU with which a GPU would not compute"
    if packet in GO_BETWEEN: return []
    if packet in FUSED: return others
    if packet in BY_INDEX:  # indices may lie on the CPU
        others = [o for o in (args[0], *args[2:]) if is_tensor(o) and not is_held(o)]
        return [o for o in others if o is args[0] or o.dim()]
    return [o for o in others if o.dim()]


def note_waiting(func, args, kwargs, crosses):
    "Does a GPU have to be waited for?"
    packet = func.overloadpacket
    if packet is aten.copy_:
        crosses = is_held(args[0]) != is_held(args[1])
        if crosses and not (args[2] if len(args) > 2 else kwargs.get('non_blocking')): wait(func)
    elif packet is aten._to_copy and crosses and not kwargs.get('non_blocking'): wait(func)
    elif packet in WAITING: wait(func)
    elif packet in BY_INDEX:
        for o in args[1]:
            masks = o is not None and o.dtype in (torch.bool, torch.uint8)
            if masks or o is not None and not is_held(o): wait(func)


def compute(func, args, kwargs):
    "Do on the CPU what a GPU would do, or refuse it"
    packet, device = func.overloadpacket, kwargs.get('device')
    tensors = [o for o in tree_leaves((args, kwargs)) if is_tensor(o)]
    ours = any(map(is_held, tensors))
    there = ours if device is None else on_gpu(device)
    if ours:
        others = [o for o in tensors if not is_held(o)]
        if bad := strangers(packet, args, others):
            raise RuntimeError('Expected all tensors to be on the same device, but found at least '
                               f'two devices, {GPU} and cpu! ({func}, {tuple(bad[0].shape)})')
    if ours or there: note_waiting(func, args, kwargs, there != ours)
    kwargs_bare = {k: v for k, v in tree_map(bare, kwargs).items() if k != 'pin_memory'}
    out = func(*tree_map(bare, args), **kwargs_bare)
    if packet is aten._to_copy and there != ours: return held(out.clone()) if there else out.clone()
    if not there: return out
    out = tree_map(held, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if ours else out


class MadeUp(TorchDispatchMode):
    "Everything that is made on the GPU, or computed there"
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if on_gpu(kwargs.get('device')) or any(map(is_held, tree_leaves((args, kwargs)))):
            return compute(func, args, kwargs)
        kwargs.pop('pin_memory', None)  # it needs a driver
        return func(*args, **kwargs)
