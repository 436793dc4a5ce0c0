"""Run the built wheel on other Pythons and other versions of torch: `test_versions.py --help`.

Each pair gets an environment of its own in `.versions`, with the wheel and what it requires, and in
it a short run: import everything, train, save, load, resume, predict. What cannot be had here, a
Python or a torch, is named and left out; what was had must work.
"""
import argparse
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
places = root/'.versions'
pythons = ['3.10', '3.11', '3.12', '3.13']
SHORT_RUN = '''
import tempfile, warnings
import torch
from fastloop.all import *
from fastloop.adapters import fastai1, fastai2, miniai
from fastloop import keras
warnings.simplefilter('error', DeprecationWarning)
folder = tempfile.mkdtemp()
x = torch.randn(65, 4)
y = ['yes' if o > 0 else 'no' for o in x.sum(1).tolist()]
data = DataBunch.from_tensors(x, y, x[:32], y[:32], bs=16, seed=0, device='cpu', path=folder)
def learner(**how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, data.c))
    return Learner(data, model, metrics=accuracy, silent=True, **how)
for opt_func in (AdamW, SGD, Adam, RMSprop):
    learn = learner(opt_func=opt_func, cbs=[CSVLogger(), SaveModelCallback()])
    learn.lr_find(show_plot=False)
    learn.fit_one_cycle(3, 1e-2)
learner(true_wd=False).lr_find(show_plot=False)
learner().mixup().fit(1)
assert torch.equal(learn.get_preds()[0], learner().load('bestmodel', with_opt=False).get_preds()[0])
assert learn.predict(x[0])[0] in data.classes and len(learn.validate()) == 2
wide = torch.arange(10).to(torch.uint16)
assert len(list(TensorLoader(wide, bs=3, shuffle=True))) == 4
pictures = ImageDataBunch.from_folder(untar_data(URLs.FASHION_SAMPLE), size=8, num_workers=0)
assert pictures.one_batch()[0].shape[1:] == (3, 8, 8)
net = keras.models.Sequential([nn.Linear(4, 1)])
net.compile('sgd', 'mse')
net.fit(x.numpy(), x.sum(1, keepdim=True).numpy(), epochs=2, verbose=0)
print('well:', torch.__version__)
'''


def run(*args, **how):
    "Run a command; whether it went well, and its last lines"
    try: done = subprocess.run([str(o) for o in args], capture_output=True, text=True, **how)
    except OSError as e: return False, str(e)
    return done.returncode == 0, '\n'.join((done.stdout + done.stderr).strip().splitlines()[-12:])


def build_wheel():
    "The wheel of this working tree"
    folder = places/'dist'
    shutil.rmtree(folder, ignore_errors=True)
    good, said = run(sys.executable, '-m', 'build', '--wheel', '--no-isolation', '-o', folder,
                     cwd=root)
    if not good:
        good, said = run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', folder,
                         root)
    if not good: sys.exit(f'no wheel can be built:\n{said}')
    return next(folder.glob('*.whl'))


def oldest_torch():
    "The oldest torch that settings.ini allows"
    config = configparser.ConfigParser(delimiters=['='], interpolation=None)
    config.read(root/'settings.ini', encoding='utf-8')
    return re.search(r'torch>=([0-9.]+)', config['DEFAULT']['requirements'])[1]


def try_pair(wheel, python, torch):
    "Run on one Python with one torch: `well`, `not to be had …`, or what went wrong"
    place = places/f'python{python}-torch{torch or "newest"}'
    if not run(place/'bin'/'python', '-c', 'import torch, fastcore')[0]:
        good, said = run(shutil.which(f'python{python}'), '-m', 'venv', place)
        wanted = f'torch=={torch}.*' if torch and torch.count('.') < 2 else f'torch=={torch}'
        how = [place/'bin'/'python', '-m', 'pip', 'install', '-q']
        if good: good, said = run(*how, wanted if torch else 'torch', 'pillow')
        if not good: return f'not to be had: {said.splitlines()[-1] if said else "no such Python"}'
        good, said = run(*how, wheel)
        if not good: return f'FAILED to install:\n{said}'
    good, said = run(place/'bin'/'python', '-m', 'pip', 'install', '-q', '--no-deps',
                     '--force-reinstall', wheel)
    if good: good, said = run(place/'bin'/'python', '-c', SHORT_RUN, cwd=place)
    done = [o for o in said.splitlines() if o.startswith('well: ')]
    return done[0] if good and done else f'FAILED:\n{said}'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--python', nargs='*', default=pythons)
    parser.add_argument('--torch', nargs='*', default=[oldest_torch(), ''],
                        help='versions; an empty one is the newest')
    args = parser.parse_args()
    places.mkdir(exist_ok=True)
    wheel, failed = build_wheel(), 0
    for python in args.python:
        program = shutil.which(f'python{python}')
        if program is None or not run(program, '--version')[0]:
            print(f'Python {python}: not to be had')
            continue
        for torch in args.torch:
            result = try_pair(wheel, python, torch)
            failed += result.startswith('FAILED')
            print(f'Python {python}, torch {torch or "newest"}: {result}', flush=True)
    sys.exit(bool(failed))


if __name__ == '__main__': main()
