"The demo: what it reaches, what it leaves behind, what it refuses"
import csv
import subprocess
import sys

import pytest
import torch

from fastloop.__main__ import main
from fastloop.demo import demo, demo_data, demo_model


def test_three_seeds_reach_what_is_promised(tmp_path):
    "A mean accuracy of 0.86 after five epochs, with a rate that was found by a search"
    found = []
    for seed in (1, 2, 3):
        learn = demo(5, tmp_path/str(seed), seed, silent=True)
        rates = learn.recorder.lrs
        assert len(learn.recorder.values) == 5 and 1e-4 < max(rates) < 1
        assert rates[0] == pytest.approx(max(rates)/25) and rates[-1] < max(rates)/1e3
        found.append(learn.recorder.values[-1][2])
    assert sum(found)/3 >= .86, found


def test_files(tmp_path):
    learn = demo(1, tmp_path/'a'/'b', silent=True)
    out = tmp_path/'a'/'b'
    pictures = ['losses.png', 'lr_find.png', 'schedule.png']
    assert sorted(o.name for o in out.iterdir()) == sorted([*pictures, 'history.csv',
                                                            'weights.pth'])
    for o in pictures: assert (out/o).read_bytes().startswith(b'\x89PNG')
    rows = list(csv.DictReader((out/'history.csv').open(newline='')))
    assert float(rows[0]['accuracy']) == learn.recorder.values[0][2]
    model = demo_model()
    model.load_state_dict(torch.load(out/'weights.pth', weights_only=True)['model'])
    x, y = demo_data(device='cpu').valid_ds.tensors
    model.eval()
    with torch.no_grad(): right = (model(x).argmax(1) == y).float().mean().item()
    assert right == pytest.approx(learn.recorder.values[0][2])


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b = (demo(1, tmp_path/o, seed=7, silent=True).model.state_dict() for o in 'ab')
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('words', [['demo', '--epochs', '0'], ['demo', '--epochs', 'x'], [],
                                   ['train'], ['demo', '--seed', '1.5']])
def test_wrong_words_are_refused_at_once(words, capsys):
    with pytest.raises(SystemExit) as e: main(words)
    assert e.value.code == 2 and 'usage: fastloop' in capsys.readouterr().err


def test_the_command_into_a_pipe(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'fastloop', 'demo', '--epochs', '1', '--out',
                           tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('learning rate ') and lines[0].endswith(', found by a search')
    assert lines[1].split() == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert [line.split()[0] for line in lines[2:]] == ['0', 'search', 'schedule', 'losses',
                                                       'history', 'weights']
    assert not any(c in done.stdout + done.stderr for c in '\r\x1b\x08')
