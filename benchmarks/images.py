"""Pictures read, cut to size and batched per second: fastloop beside torchvision's `ImageFolder`.

`python -m benchmarks.images` makes 6,000 small PNG files and 1,000 photographs (JPEG, 2048 x 1536;
20 different ones under 50 names each, so that memory holds them and no disk is measured) in a
folder of its own. It reads each set with both loaders, with the same workers, at the same size.
Each contender is a process of its own and they take turns; the ratio is the median of the rounds'
ratios. torchvision is looked for in `--peers`, the environment of `make test-peers`; without it
only fastloop is measured.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
SIZES = {'small': 28, 'large': 224}


# ---- the files -----------------------------------------------------------------------------------
def picture(number, width, height):
    "Noise on gradients and a few edges, another one for each number"
    import numpy as np
    from PIL import Image
    r = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width].astype(np.float32)/max(width, height)
    waves = [np.sin(r.uniform(3, 40)*(x*np.cos(a)+y*np.sin(a))) for a in r.uniform(0, 3.14, 3)]
    pixels = 127 + 80*np.stack(waves, 2) + 60*((x*r.uniform(1, 5)) % 1 > .5)[..., None]
    coarse = r.normal(0, 12, (height//4+1, width//4+1, 3)).repeat(4, 0).repeat(4, 1)
    pixels += coarse[:height, :width] + r.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_files(folder, small, large, different=20):
    "Both sets, each with two folders of classes"
    for kind, count, shape, suffix in [('small', small, (28, 28), 'png'),
                                       ('large', large, (2048, 1536), 'jpg')]:
        known = {}
        for i in range(count):
            here = folder/kind/'train'/f'class_{i % 2}'
            here.mkdir(parents=True, exist_ok=True)
            file, number = here/f'{i:05}.{suffix}', i if kind == 'small' else i % different
            if number not in known:
                picture(number, *shape).save(file, quality=90)
                known[number] = file
            else: os.link(known[number], file)


# ---- the contenders ------------------------------------------------------------------------------
def by_fastloop(folder, size, bs, workers):
    "The loader of `ImageDataBunch`, reading files in every epoch"
    from fastloop.vision.data import ImageDataBunch
    data = ImageDataBunch.from_folder(folder, valid=None, size=size, bs=bs, num_workers=workers,
                                      memory=0, device='cpu', seed=0, drop_last=False)
    return data.train_dl


def by_torchvision(folder, size, bs, workers):
    "`ImageFolder` and torch's `DataLoader`, as its documentation has them"
    import torch
    if torch.version.cuda is None:  # its compiled part wants a torch with CUDA, but not for this
        operators = torch.library.Library('torchvision', 'DEF')
        for name in ('nms', 'qnms'):
            operators.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    from torchvision import datasets, transforms
    tfms = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size),
                               transforms.ToTensor()])
    ds = datasets.ImageFolder(Path(folder)/'train', tfms)
    return torch.utils.data.DataLoader(ds, bs, shuffle=True, num_workers=workers)


def serve(name, folder, size, bs, workers):
    "Answer each line of the input with the seconds of one pass"
    import torch
    torch.set_num_threads(1)
    dl = globals()[name](folder, size, bs, workers)
    for _ in sys.stdin:
        start, count, total = time.perf_counter(), 0, 0.
        for xb, _yb in dl:
            assert xb.shape[1:] == (3, size, size) and xb.dtype == torch.float32
            count, total = count+len(xb), total+float(xb.mean())*len(xb)
        print(json.dumps([time.perf_counter()-start, count, total/count]), flush=True)


# ---- the comparison ------------------------------------------------------------------------------
class Contender:
    def __init__(self, python, *args):
        command = [python, '-m', 'benchmarks.images', '--serve', *map(str, args)]
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
        self.process = subprocess.Popen(command, cwd=root, env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self):
        print(file=self.process.stdin, flush=True)
        if line := self.process.stdout.readline(): return json.loads(line)
        raise SystemExit(f'{self.process.args} failed')

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(python, names, folder, size, bs, workers, rounds):
    "Seconds of each round, files, and the mean of the pixels, which all must agree on"
    contenders = {o: Contender(python, o, folder, size, bs, workers) for o in names}
    found = {o: [] for o in names}
    try:
        for round_ in range(rounds + 1):  # the first one warms up
            for name in names[::-1 if round_ % 2 else 1]:
                answer = contenders[name].ask()
                if round_: found[name].append(answer)
    finally:
        for o in contenders.values(): o.close()
    means = [o[0][2] for o in found.values()]
    assert max(means) - min(means) < 0.005, f'not the same pictures: {means}'
    return found


def has_torchvision(python):
    look = 'import importlib.util as u; u.find_spec("torchvision").name'
    return subprocess.run([python, '-c', look], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.images', description=__doc__)
    parser.add_argument('--serve', nargs=5, help=argparse.SUPPRESS)
    for name, default in [('small', 6000), ('large', 1000), ('bs', 64), ('rounds', 3)]:
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--workers', type=int, nargs='*', default=[0, 2])
    parser.add_argument('--peers', default=str(root/'.venv-peers'/'bin'/'python'),
                        help='a Python that has torchvision')
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve[0], args.serve[1], *map(int, args.serve[2:]))
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), args.small, args.large)
        found = Path(args.peers).exists() and has_torchvision(args.peers)
        python, names = (args.peers, ['by_fastloop', 'by_torchvision']) if found else (
            sys.executable, ['by_fastloop'])
        if not found: print(f'no torchvision in {args.peers}: `make test-peers` installs it')
        print('| files | workers | fastloop, files a second | torchvision | ratio of seconds |\n'
              '| --- | --- | --- | --- | --- |', flush=True)
        for kind in SIZES:
            for workers in args.workers:
                took = compare(python, names, Path(folder)/kind, SIZES[kind], args.bs, workers,
                               args.rounds)
                speeds = [f'{statistics.median(n/s for s, n, _ in o):,.0f}' for o in took.values()]
                pairs = zip(*took.values()) if found else ()
                ratio = f'{statistics.median(a[0]/b[0] for a, b in pairs):.2f} ×' if found else ''
                print(f'| {getattr(args, kind):,} {kind} | {workers} | {" | ".join(speeds)} | '
                      f'{ratio} |', flush=True)


if __name__ == '__main__': main()
