"""What it costs to serve batches: `TensorLoader` against slices of tensors shuffled once an epoch.

Run `OMP_NUM_THREADS=1 python benchmarks/loaders.py`. The contenders take turns in one process; the
numbers are medians, in microseconds a batch and as a multiple of the slices.
"""
import argparse
import statistics
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

from fastloop.data.load import TensorLoader


def slices(x, y, bs):
    "Shuffle the whole data set, then cut slices"
    order = torch.randperm(len(x))
    xs, ys = x[order], y[order]
    for i in range(0, len(x), bs): yield xs[i:i + bs], ys[i:i + bs]


def rows(x, y, bs):
    "Gather each batch by itself"
    for idx in torch.randperm(len(x)).split(bs):
        yield x.index_select(0, idx), y.index_select(0, idx)


def seconds(make):
    loader, start = make(), time.perf_counter()
    for _ in loader: pass
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in [('items', 50000), ('width', 784), ('bs', 64), ('rounds', 9)]:
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y = torch.randn(args.items, args.width), torch.randint(0, 10, (args.items,))
    tensor_dl = TensorLoader(x, y, bs=args.bs, shuffle=True)
    torch_dl = DataLoader(TensorDataset(x, y), args.bs, shuffle=True)
    contenders = {'slices': lambda: slices(x, y, args.bs), 'rows': lambda: rows(x, y, args.bs),
                  'TensorLoader': lambda: tensor_dl, 'DataLoader': lambda: torch_dl}
    took = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, make in contenders.items(): took[name].append(seconds(make))
    batches, base = len(tensor_dl), statistics.median(took['slices'])
    for name, times in took.items():
        t = statistics.median(times)
        print(f'{name:14}{t/batches*1e6:8.1f} µs a batch {t/base:6.2f} x')


if __name__ == '__main__': main()
