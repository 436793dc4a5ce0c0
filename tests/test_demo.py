"The demo: what it reaches, what it leaves behind, what it refuses"
import contextlib
import csv
import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from fastloop.__main__ import main
from fastloop.demo import (
    compare_seeds,
    demo,
    demo_data,
    demo_model,
    known_classes,
    save_figure,
)
from fastloop.vision.learner import cnn_learner

rare = pytest.mark.rare  # run by `make test-all` alone

PICTURES = ['confusion', 'losses', 'lr_find', 'mistakes', 'predictions', 'schedule']


@pytest.fixture(scope='module')
def piped(tmp_path_factory):
    "The command in a process of its own, into a folder that is not there yet; what it printed"
    out = tmp_path_factory.mktemp('demo')/'a'/'b'
    env = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}  # the same sums
    done = subprocess.run([sys.executable, '-m', 'fastloop', 'demo', '--epochs', '1', '--out', out],
                          capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(out=out, text=done.stdout, errors=done.stderr,
                           files=sorted(o.name for o in out.iterdir()),
                           rows=list(csv.DictReader((out/'history.csv').open(newline=''))),
                           pictures={o: (out/f'{o}.png').read_bytes() for o in PICTURES},
                           weights=torch.load(out/'weights.pth', weights_only=True)['model'])


@pytest.fixture(scope='module')
def again(piped):
    "The same in this process, with the same seed, into the same folder"
    with contextlib.redirect_stdout(io.StringIO()) as printed: learn = demo(1, piped.out)
    return SimpleNamespace(learn=learn, text=printed.getvalue())


@rare
def test_three_seeds_reach_what_is_promised(tmp_path, capsys):
    "A mean accuracy of 0.88, with rates that were found by a search"
    found = compare_seeds([1, 2, 3], out=tmp_path)
    assert len(found) == 3 and sum(found)/3 >= .88, found
    text = capsys.readouterr().out
    assert len(re.findall('found by a search', text)) == 1  # the others are silent
    for seed, accuracy in zip((1, 2, 3), found): assert f'seed {seed:<5} accuracy {accuracy:.3f}' \
        in text
    assert text.splitlines()[-1] == (f'mean {sum(found)/3:.3f}, spread '
                                     f'{max(found)-min(found):.3f}')


@rare
def test_what_is_printed_is_what_the_network_says(again):
    learn, text = again.learn, again.text
    rate = float(re.search(r'learning rate (\S+), found by a search', text)[1])
    rates = learn.recorder.lrs
    assert max(rates) == pytest.approx(rate/2, rel=.01)  # fine_tune halves it when all is trained
    assert rates[0] == pytest.approx(max(rates)/5, rel=.01) and rates[-1] < max(rates)/1e3
    files = {f"{o.split('/')[-2]}/{o.split('/')[-1]}": i
             for i, o in enumerate(learn.data.valid_ds.files)}
    preds, targets = learn.get_preds()
    shown = re.findall(r'^(\S+/\S+\.png) is taken for (\w+), probability (\S+)$', text, re.M)
    assert len(shown) == 3 and len({o[0].split('/')[0] for o in shown}) == 3
    for file, name, probability in shown:
        probs = preds[files[file]].softmax(0)
        assert name == learn.data.classes[int(probs.argmax())]
        assert float(probability) == pytest.approx(float(probs.max()), abs=.006)
    counts = re.findall(r'^(\d+) images of (\w+) are taken for (\w+)$', text, re.M)
    number = {o: i for i, o in enumerate(learn.data.classes)}
    assert len(counts) == 3
    for count, actual, said in counts:
        assert int(count) == int(((targets == number[actual])
                                  & (preds.argmax(1) == number[said])).sum())


@rare
def test_files(piped, again):
    assert piped.files == sorted([*(f'{o}.png' for o in PICTURES), 'history.csv', 'weights.pth'])
    for o in piped.pictures.values(): assert o.startswith(b'\x89PNG')
    learn, rows = again.learn, piped.rows
    assert len(rows) == 2 and float(rows[1]['accuracy']) == learn.recorder.values[0][2]
    data = demo_data(device='cpu')
    model = cnn_learner(data, demo_model, pretrained=False, lin_ftrs=[128], silent=True).model
    model.load_state_dict(piped.weights)
    x, y = map(torch.stack, zip(*(data.valid_ds[i] for i in range(1000))))
    model.eval()
    with torch.no_grad(): right = (model(x).argmax(1) == y).float().mean().item()
    assert right == pytest.approx(learn.recorder.values[0][2])
    # the same seed, and a table that begins anew
    assert len(list(csv.DictReader((piped.out/'history.csv').open(newline='')))) == 2
    weights = learn.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in piped.weights.items())
    assert weights.keys() == piped.weights.keys()


@rare
def test_a_silent_demo_says_nothing_and_does_the_same(again, tmp_path, capsys):
    learn = demo(1, tmp_path, silent=True)
    assert capsys.readouterr().out == ''
    assert learn.recorder.values == again.learn.recorder.values


def test_data():
    data = demo_data(1, 'cpu')
    some = demo_data(1, 'cpu', list(known_classes), data.stats)
    assert len(data.train_ds) == 2*len(some.train_ds) == 5000
    assert tuple(some.classes) == known_classes
    assert all(torch.equal(a, b) for a, b in zip(some.stats, data.stats))


def test_nothing_to_compare(tmp_path):
    with pytest.raises(ValueError, match='seeds'): compare_seeds([], out=tmp_path/'a')
    with pytest.raises(ValueError, match='epochs'): compare_seeds([1], 0, out=tmp_path/'a')
    assert not (tmp_path/'a').exists()


@pytest.mark.parametrize('words', [['demo', '--epochs', '0'], ['demo', '--epochs', 'x'], [],
                                   ['train'], ['demo', '--seed', '1.5'], ['demo', '--seed']])
def test_wrong_words_are_refused_at_once(words, capsys):
    with pytest.raises(SystemExit) as e: main(words)
    assert e.value.code == 2 and 'usage: fastloop' in capsys.readouterr().err


@rare
def test_the_command_into_a_pipe(piped):
    lines = piped.text.splitlines()
    assert lines[0].endswith('5,000 images to train with, 1,000 to validate, 10 classes')
    assert lines[2].startswith('learning rate ') and lines[2].endswith(', found by a search')
    head = ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert lines[3].split() == lines[5].split() == head  # the head alone, then all
    assert [line.split()[0] for line in lines[-8:]] == [
        'lr_find', 'schedule', 'losses', 'predictions', 'confusion', 'mistakes', 'history',
        'weights']
    assert not any(c in piped.text + piped.errors for c in '\r\x1b\x08')


@rare
def test_a_demo_that_was_interrupted_goes_on(piped, tmp_path):
    env = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    command = [sys.executable, '-m', 'fastloop', 'demo', '--epochs', '1', '--out', tmp_path]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=env)
    until = time.monotonic() + 300
    while not list(tmp_path.glob('checkpoints/000006*')) and time.monotonic() < until:
        time.sleep(.01)  # the head is trained, and a part of the epoch after it
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130 and '--resume goes on' in first.stderr.read()
    then = subprocess.run([*command, '--resume'], capture_output=True, text=True, env=env)
    assert then.returncode == 0 and 'going on from 00000' in then.stdout, then.stderr
    weights = torch.load(tmp_path/'weights.pth', weights_only=True)['model']
    assert all(torch.equal(piped.weights[k], v) for k, v in weights.items())
    rows = list(csv.DictReader((tmp_path/'history.csv').open(newline='')))
    for o in (*rows, *piped.rows): o['time'] = ''
    assert rows == piped.rows and not (tmp_path/'checkpoints').exists()


@rare
def test_a_demo_whose_pictures_cannot_be_written_has_not_trained_in_vain(again, tmp_path, capsys,
                                                                         monkeypatch):
    def on_a_full_disk(fig, file):
        if file.name == 'mistakes.png': raise OSError(errno.ENOSPC, 'No space left on device')
        return save_figure(fig, file)
    with monkeypatch.context() as m:
        m.setattr('fastloop.demo.save_figure', on_a_full_disk)
        with pytest.raises(OSError, match='space'): demo(1, tmp_path)
    with pytest.raises(ValueError, match='seed 42, not 1'): demo(1, tmp_path, 1, resume=True)
    capsys.readouterr()
    learn = demo(1, tmp_path, resume=True)
    assert 'epoch1-batch0.pt: 1 of 1 epochs are done' in capsys.readouterr().out
    weights = again.learn.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in learn.model.state_dict().items())
    assert [float(o) for o in learn.recorder.losses] == [float(o) for o in
                                                         again.learn.recorder.losses]
    assert len(list(csv.DictReader((tmp_path/'history.csv').open(newline='')))) == 2
    assert (tmp_path/'weights.pth').exists() and not (tmp_path/'checkpoints').exists()
