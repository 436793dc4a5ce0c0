"The contenders of the benchmark do the same work, and what it measures ends up in its table."
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

root = Path(__file__).resolve().parent.parent


def part(name):
    "A module of the package `benchmarks`, which lies beside the tests"
    sys.path.insert(0, str(root))
    try: return importlib.import_module(f'benchmarks.{name}')
    finally: sys.path.remove(str(root))


by_hand = part('by_hand')


@pytest.fixture(scope='module')
def by_fastloop(): return part('by_fastloop')


@pytest.fixture(scope='module')
def data(): return by_hand.image_data(2000)


@pytest.fixture(scope='module')
def pictures():
    "The pictures that come with fastloop, as the benchmark for a GPU loads them when it runs dry"
    return part('gpu').load(torch.device('cpu'), small=True)


def test_the_loops_by_hand_agree(data):
    "The same order of the same rows gives the same numbers, however the batches are made"
    results = {}
    for loop in (by_hand.slices, by_hand.rows): results[loop.__name__] = loop(data, 2)
    assert results['slices'] == results['rows']
    loss, accuracy = by_hand.loader(data, 2)  # another order
    assert loss == pytest.approx(results['slices'][0], rel=0.05)
    assert accuracy == pytest.approx(results['slices'][1], abs=0.05)


def test_fastloop_does_the_same_work(by_fastloop, data, capsys):
    loss, accuracy = by_hand.rows(data, 2)
    ours = by_fastloop.fastloop(data, 2)
    assert ours[0] == pytest.approx(loss, rel=0.05)
    assert ours[1] == pytest.approx(accuracy, abs=0.05)
    line = by_hand.line_data(500)
    assert by_fastloop.fastloop_tiny(line, 2)[0] == pytest.approx(by_hand.tiny(line, 2)[0], rel=0.1)


def test_a_validation_and_its_answers_are_the_same(by_fastloop, data, capsys):
    for name in ('validated', 'predicted'):
        theirs = getattr(by_hand, name)(data, 1)
        assert getattr(by_fastloop, f'fastloop_{name}')(data, 1) == pytest.approx(theirs, abs=1e-6)
    assert by_hand.floor(data, 2)[1] > 0.5, 'the floor learns, too'


def test_each_feature_is_there_when_it_is_timed(data, capsys):
    features = part('features')
    rows = features.feature_costs(n=640, rounds=1)
    assert [o[0] for o in rows[-5:]] == ['recorder', 'one-cycle', 'bar', 'validation', 'accuracy']
    assert rows[0][2] is None and all(o[1] > 0 for o in rows)


def test_every_batch_gets_the_same_rates(by_fastloop, data, capsys):
    "Learning rate and momentum of each step are those of the loop by hand"
    learn = by_fastloop.image_learner(tuple(o[:640] for o in data))
    learn.fit(2, by_hand.LR)
    n = 2*10
    lrs, moms = zip(*[by_hand.one_cycle(i/n) for i in range(n)], strict=True)
    assert learn.recorder.lrs == pytest.approx(lrs)
    assert learn.recorder.moms == pytest.approx(moms)


def test_the_schedule_by_hand_is_torchs():
    "Up for 30 %, then down, momentum the other way round, as torch's `OneCycleLR` has it"
    opt = torch.optim.SGD([torch.zeros(1)], lr=1, momentum=0.9)
    n = 101  # torch reaches the top after 0.3 n - 1 steps and the end after n - 1
    torch_schedule = torch.optim.lr_scheduler.OneCycleLR(
        opt, by_hand.LR, total_steps=n, pct_start=31/n, div_factor=25, final_div_factor=1e4,
        base_momentum=by_hand.MOMS[1], max_momentum=by_hand.MOMS[0])
    for i in range(n-1):
        lr, mom = by_hand.one_cycle(i/(n-1))
        group = opt.param_groups[0]
        assert (group['lr'], group['momentum']) == (pytest.approx(lr), pytest.approx(mom))
        opt.step()
        torch_schedule.step()


def test_the_table_is_written_between_its_markers(tmp_path, monkeypatch):
    pytest.importorskip('pty')
    main = part('__main__')
    monkeypatch.setattr(main, 'here', tmp_path)
    readme = tmp_path/'README.md'
    readme.write_text('before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n')
    text = main.table([main.row('a step', 'by hand', '3 × ', '2 ×', False),
                       main.row('more', 'by hand', '1 ×', '', None)])
    for _ in range(2): main.write(text)
    found = readme.read_text()
    assert found.startswith('before') and found.endswith('after\n')
    assert 'old' not in found and found.count('a step') == 1 and '**no**' in found
    readme.write_text('no markers')
    with pytest.raises(SystemExit, match='markers'): main.write(text)


# ---- on a GPU, and pictures ----------------------------------------------------------------------
def test_the_benchmark_for_a_gpu_runs_dry_and_says_when_there_is_none(
        pictures, capsys, monkeypatch):
    gpu = part('gpu')
    monkeypatch.setattr(gpu, 'load', lambda device, small: small and pictures)
    gpu.main(['--dry'])
    lines = capsys.readouterr().out.splitlines()
    assert [o.split('|')[1].strip() for o in lines[4:6]] == ['by hand', 'fastloop']
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='no CUDA GPU'): gpu.main([])


def test_the_loops_for_a_gpu_do_the_same_work(pictures):
    gpu, data = part('gpu'), [o[:640] for o in pictures[0]]
    a, b = (work(data, 3, 32, 4, False)[-1][1] for work in (gpu.run_by_hand, gpu.run_fastloop))
    assert a == pytest.approx(b, abs=.2)


def test_the_pictures_of_the_benchmark_are_read_by_fastloop(tmp_path):
    images = part('images')
    images.write_files(tmp_path, small=6, large=2, different=1)
    for kind, count in (('small', 6), ('large', 2)):
        dl = images.by_fastloop(tmp_path/kind, images.SIZES[kind], 4, 0)
        assert sum(len(xb) for xb, _ in dl) == count


@pytest.mark.rare
def test_all_parts_run(tmp_path):
    "`--quick` measures all that the table holds, and writes nothing"
    before = (root/'benchmarks'/'README.md').read_bytes()
    command = [sys.executable, '-m', 'benchmarks', '--quick', '--rounds', '1']
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    found = done.stdout
    for words in ('training, µs', '`get_preds`', '`Linear(1, 1)`', 'one more callback', 'fastai v1',
                  'calls a step', '`import fastloop.all`', 'peak memory', 'live board'):
        assert words in found, words
    assert (root/'benchmarks'/'README.md').read_bytes() == before
