"""Training on a GPU: fastloop, the loop written by hand, and both compiled.

`make bench-gpu` trains a small convolutional network on the pictures of Fashion-MNIST, which lie on
the GPU, with 1cycle, mean loss and the accuracy on the validation set after each epoch. It prints
the seconds of an epoch and the seconds until the accuracy is reached, compiling not counted. The
contenders take turns. Without the full data set, the 5,000 pictures that come with fastloop are
repeated. `--dry` tries it out on any machine, with next to no data.
"""
import argparse
import contextlib
import gzip
import io
import statistics
import struct
import time

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.by_hand import one_cycle
from fastloop.all import SGD, Callback, DataBunch, Learner, accuracy, set_seed
from fastloop.callback.schedule import OneCycleScheduler
from fastloop.data.external import URLs, image_folder_tensors, untar_data

LR, MOMS = 0.02, (0.95, 0.85)


# ---- the work ------------------------------------------------------------------------------------
def read_idx(file):
    "The numbers in a file of MNIST's format"
    with gzip.open(file) as f:
        dims = struct.unpack('>HBB', f.read(4))[2]
        shape = struct.unpack(f'>{dims}I', f.read(4*dims))
        return torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).reshape(shape)


def full_set():
    "All pictures of Fashion-MNIST, from the network or the cache"
    path = untar_data(URLs.FASHION_MNIST)
    return [read_idx(path/f'{part}-{what}-ubyte.gz') for part in ('train', 't10k')
            for what in ('images-idx3', 'labels-idx1')]


def sample(times):
    "The pictures that come with fastloop, those to train on several times"
    path = untar_data(URLs.FASHION_SAMPLE)
    x, y, _ = image_folder_tensors(path/'train')
    x_valid, y_valid, _ = image_folder_tensors(path/'valid')
    return [x.repeat(times, 1, 1), y.repeat(times), x_valid, y_valid]


def load(device, small=False):
    "Pictures and labels on the device, in words where they are from, and the accuracy to reach"
    try:
        if small: raise OSError('not asked for')
        found, words, target = full_set(), 'Fashion-MNIST, 60,000 pictures', 0.9
    except Exception as e:
        found, target = sample(1 if small else 12), 0.8 if small else 0.88
        words = f'the embedded sample{"" if small else ", 12 times"} (the full set: {e})'
    x, y, x_valid, y_valid = found
    def ready(x): return ((x[:, None].float()/255 - 0.2860)/0.3530).to(device)
    return [ready(x), y.long().to(device), ready(x_valid), y_valid.long().to(device)], words, target


def network(device, width=32):
    "Three convolutions with batch norm"
    set_seed(0)
    layers, before = [], 1
    for out in (width, 2*width, 4*width):
        layers += [nn.Conv2d(before, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out),
                   nn.ReLU()]
        before = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(before, 10)).to(device)


def wait(device):
    if device.type == 'cuda': torch.cuda.synchronize(device)


# ---- the contenders: seconds from the start and accuracy, after each epoch -----------------------
def by_hand(data, epochs, bs, width, compiled):
    "What a careful user of PyTorch writes: nothing waits for the GPU but the end of an epoch"
    x, y, x_valid, y_valid = data
    device, n = x.device, len(x) - len(x) % bs
    model = network(device, width)
    opt = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMS[0], fused=device.type == 'cuda')
    group, step, steps = opt.param_groups[0], 0, epochs*(n//bs)
    call = torch.compile(model) if compiled else model

    def epoch():
        nonlocal step
        model.train()
        total, order = torch.zeros((), device=device), torch.randperm(len(x), device=device)
        for idx in order[:n].split(bs):
            xb, yb = x[idx], y[idx]
            group['lr'], group['momentum'] = one_cycle(step/steps)
            loss = F.cross_entropy(call(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total += loss.detach()*len(yb)
            step += 1
        model.eval()
        right = torch.zeros((), device=device)
        with torch.no_grad():
            for xb, yb in zip(x_valid.split(2*bs), y_valid.split(2*bs)):
                right += (call(xb).argmax(1) == yb).sum()
        return total.item()/n, right.item()/len(x_valid)

    return epoch, epochs


class Clock(Callback):
    "Notes the time and the accuracy after each epoch"
    order = 1000

    def __init__(self, device):
        super().__init__()
        self.device, self.found = device, []

    def after_epoch(self):
        wait(self.device)
        self.found.append((time.perf_counter(), float(self.run.recorder.values[-1][2])))


def run_by_hand(data, epochs, bs, width, compiled):
    epoch, epochs = by_hand(data, epochs, bs, width, compiled)
    device, found = data[0].device, []
    wait(device)
    start = time.perf_counter()
    for _ in range(epochs):
        score = epoch()[1]
        found.append((time.perf_counter()-start, score))
    return found


def run_fastloop(data, epochs, bs, width, compiled):
    device = data[0].device
    bunch = DataBunch.from_tensors(*data, bs=bs, valid_bs=2*bs, drop_last=True, device=device)
    clock = Clock(device)
    learn = Learner(bunch, network(device, width), F.cross_entropy, opt_func=SGD, wd=0.,
                    metrics=[accuracy], cbs=[OneCycleScheduler(lr_max=LR, moms=MOMS), clock])
    if compiled: learn.compile()
    wait(device)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()): learn.fit(epochs, LR)
    return [(seconds-start, score) for seconds, score in clock.found]


CONTENDERS = {'by hand': (run_by_hand, False), 'fastloop': (run_fastloop, False),
              'by hand, compiled': (run_by_hand, True), 'fastloop, compiled': (run_fastloop, True)}


# ---- the comparison ------------------------------------------------------------------------------
def an_epoch(found):
    "Seconds of an epoch; the first one may prepare and compile"
    times = [t for t, _ in found]
    return statistics.median(b-a for a, b in zip(times, times[1:])) if len(times) > 1 else times[0]


def until(found, target):
    "Seconds of training until the accuracy is reached; `None` if it is not"
    reached = next((i for i, (_, score) in enumerate(found) if score >= target), None)
    return None if reached is None else (reached+1)*an_epoch(found)


def compare(data, target, epochs, rounds, bs, width, names):
    "A line of the table for each contender"
    found = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names[::-1 if round_ % 2 else 1]:
            work, compiled = CONTENDERS[name]
            found[name].append(work(data, epochs, bs, width, compiled))
    first = [an_epoch(o) for o in found[names[0]]]
    for name, runs in found.items():
        times, reached = [an_epoch(o) for o in runs], [until(o, target) for o in runs]
        ratio = statistics.median(a/b for a, b in zip(times, first))
        so_far = [o for o in reached if o is not None]
        words = f'{statistics.median(so_far):.2f}' if len(so_far) == len(runs) else 'not reached'
        best = max(score for o in runs for _, score in o)
        yield f'| {name} | {statistics.median(times):.3f} | {ratio:.2f} × | {words} | {best:.1%} |'


def main(argv=None):
    parser = argparse.ArgumentParser(prog='python -m benchmarks.gpu', description=__doc__)
    parser.add_argument('--dry', action='store_true', help='on any machine, with next to no data')
    for name, default in [('epochs', 6), ('rounds', 3), ('bs', 256), ('width', 32)]:
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args(argv)
    if not (args.dry or torch.cuda.is_available()):
        raise SystemExit('there is no CUDA GPU here, so there is nothing to measure (--dry tries '
                         'the program out)')
    device = torch.device('cuda', 0) if torch.cuda.is_available() else torch.device('cpu')
    data, words, target = load(device, args.dry)
    if args.dry:
        args.epochs, args.rounds, args.bs, args.width = 2, 1, 64, 4
        data = [o[::8] for o in data]
    names = [o for o, (work, compiled) in CONTENDERS.items() if not (compiled and args.dry)
             and not (compiled and work is run_fastloop and not hasattr(Learner, 'compile'))]
    card = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'no GPU, a dry run'
    print(f'{card}; torch {torch.__version__}; {words}; batches of {args.bs}, {args.epochs} '
          f'epochs, {args.rounds} rounds\n\n| contender | s an epoch | against the loop by hand | '
          f's to {target:.0%} | best accuracy |\n| --- | --- | --- | --- | --- |', flush=True)
    for line in compare(data, target, args.epochs, args.rounds, args.bs, args.width, names):
        print(line, flush=True)


if __name__ == '__main__': main()
