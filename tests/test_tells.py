"A learner tells about itself: what a fit gives back, its table, its repr, what completion finds."
import copy
import json

import pytest
import torch
from processes import Program
from torch import nn
from torch.nn import functional as F

from fastloop import keras
from fastloop.all import (
    AvgStatsCallback,
    BasicLearner,
    DataBunch,
    EarlyStoppingCallback,
    ExperimentCallback,
    GeneralScheduler,
    Learner,
    MixedPrecision,
    ParamScheduler,
    Recorder,
    RemoteMonitor,
    Runner,
    SaveModelCallback,
    TrainingPhase,
    accuracy,
    sched_lin,
)

g = torch.Generator().manual_seed(0)
x, y = torch.randn(40, 4, generator=g), torch.randint(0, 3, (40,), generator=g)


def learner(**kwargs):
    data = DataBunch.from_tensors(x, y, x, y, bs=8, device='cpu')
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    return Learner(data, model, metrics=accuracy, silent=True, **kwargs)


verbs = {'fit': lambda o: o.fit(2), 'fit_one_cycle': lambda o: o.fit_one_cycle(2),
         'fit_flat_cos': lambda o: o.fit_flat_cos(2), 'fit_sgdr': lambda o: o.fit_sgdr(1, 2),
         'fine_tune': lambda o: o.fine_tune(2)}


@pytest.mark.parametrize('verb', verbs.values(), ids=list(verbs))
def test_a_fit_gives_its_recorder_back(verb):
    learn = learner(splitter=lambda m: [m[0], m[2]])
    found = verb(learn)
    assert isinstance(found, Recorder) and found is learn.recorder
    assert len(found.values) == 2 and found.plot_losses().axes[0].lines


def test_no_recorder_no_answer():
    learn = learner()
    learn.remove_cbs(learn.recorder)
    assert learn.fit(1) is None


def test_a_frame_has_a_row_for_each_epoch():
    pandas = pytest.importorskip('pandas')
    found = learner().fit(3)
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert frame.epoch.tolist() == [0, 1, 2] and (frame.time > 0).all()
    assert frame.train_loss.tolist() == [row[0] for row in found.values]
    data = DataBunch.from_tensors(x, y, bs=8, device='cpu')
    assert Learner(data, nn.Linear(4, 3), silent=True).fit(1).to_frame().valid_loss.isna().all()
    assert len(Recorder().to_frame()) == 0


def test_the_table_is_what_was_printed(capsys):
    learn = learner()
    learn.silent = False
    from fastloop.callback.progress import ProgressCallback
    found = learn.fit(2, cbs=ProgressCallback(mode='plain'))
    assert found.table.text in capsys.readouterr().out
    assert found.table.html == found._repr_html_() and found._repr_html_().count('<tr>') == 3


SHOWN = '''
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shown = []
shell.display_pub.publish = lambda data, **kwargs: shown.append(data)
cells = ["import torch; from fastloop.all import *; x = torch.randn(16, 1); found = None",
         "found = Learner(DataBunch.from_tensors(x, x, x, x, bs=8), nn.Linear(1, 1), silent=True)"
         ".fit(2)\\nfound",
         "found"]
counts = []
for cell in cells:
    result = shell.run_cell(cell, store_history=True)
    assert result.success
    counts.append(len(shown))
print(json.dumps([counts, sorted(shown[-1]) if shown else []]))
'''


def test_a_notebook_shows_the_table_once():
    "Not in the cell of the fit, whose bar has shown it; in any other cell"
    done = Program(SHOWN).end()
    assert done.returncode == 0, done.stderr
    counts, kinds = json.loads(done.stdout[done.stdout.index('[['):])
    assert counts == [0, 0, 1] and kinds == ['text/html', 'text/plain']


def test_a_learner_says_what_it_holds():
    learn = learner(wd=0.1, lr=3e-3, cbs=EarlyStoppingCallback(patience=2))
    said = repr(learn)
    for part in ('DataBunch(train: 5 batches of 8', 'Sequential, 43 parameters', 'cross_entropy',
                 'AdamW, lr=0.003, wd=0.1', 'accuracy', 'EarlyStoppingCallback(', 'patience=2)'):
        assert part in said, said
    learn.freeze() if len(learn.layer_groups) > 1 else learn.model[0].requires_grad_(False)
    assert '18 of them trained' in repr(learn)
    learn.fit(1)
    assert repr(copy.deepcopy(learn)) == repr(learn)
    basic = BasicLearner(nn.Linear(1, 1), None, F.mse_loss, learn.data)
    assert 'BasicLearner' in repr(basic) and 'mse_loss' in repr(basic)
    lazy = Learner(learn.data, nn.LazyLinear(3), silent=True)
    assert 'LazyLinear' in repr(lazy)
    assert 'patience=2)' in repr(Runner(learn.cbs))
    assert repr(learn.recorder) == 'Recorder(1 epochs: train_loss, valid_loss, accuracy)'


def test_completion_finds_callbacks_and_state():
    learn = learner(cbs=EarlyStoppingCallback(patience=2))
    assert {'recorder', 'early_stopping', 'epoch', 'loss', 'fit_one_cycle'} <= set(dir(learn))
    learn.fit(1)
    assert {'recorder', 'train_eval', 'n_iter'} <= set(dir(learn))
    assert len(dir(learn)) == len(set(dir(learn)))


def test_verbs_show_their_arguments():
    import inspect
    for verb in verbs:
        shown = inspect.signature(getattr(Learner, verb)).parameters
        assert 'epochs' in shown or verb == 'fit_sgdr'
        assert {'resume', 'cbs', 'wd'} <= set(shown) and 'kwargs' not in shown


@pytest.mark.parametrize('make, said', [
    (lambda: AvgStatsCallback([accuracy]), 'AvgStatsCallback(accuracy)'),
    (lambda: ParamScheduler('lr', sched_lin(.1, .2)),
     'ParamScheduler(lr: annealing_linear from 0.1 to 0.2)'),
    (lambda: ParamScheduler({'lr': abs, 'mom': [abs, max]}),
     'ParamScheduler(lr: abs; mom: abs, max)'),
    (lambda: GeneralScheduler(phases=[TrainingPhase(4.).schedule_hp('lr', .1)]),
     'GeneralScheduler(phases=[TrainingPhase(4, lr)])'),
    (lambda: MixedPrecision(dtype='bf16', init_scale=8., growth_interval=9),
     'MixedPrecision(dtype=torch.bfloat16, init_scale=8.0, growth_interval=9)'),
    (lambda: SaveModelCallback(mode='max', baseline=.5),
     "SaveModelCallback(mode='max', baseline=0.5, fname='bestmodel')"),
    (lambda: ExperimentCallback(monitor='accuracy', mode='max'),
     "ExperimentCallback(monitor='accuracy', mode='max')"),
    (lambda: RemoteMonitor(root='http://ann:pw@here:9/a', path='/secret', headers={'a': 'secret'}),
     "RemoteMonitor(root='http://here:9')")])
def test_a_callback_says_what_it_holds(make, said):
    cb = make()
    assert repr(cb) == repr(copy.deepcopy(cb)) == said


@pytest.mark.parametrize('kind', [RemoteMonitor, keras.callbacks.RemoteMonitor])
def test_a_monitor_keeps_what_it_was_given(kind):
    asked = dict(root='http://h:9', path='/p', field='f', headers={'A': 'b'}, send_as_json=True)
    cb = kind(**asked)
    assert {k: getattr(cb, k) for k in asked} == asked
    json_too = {'Accept': 'application/json', 'Content-Type': 'application/json'}
    assert kind().headers == (None if kind is RemoteMonitor else json_too)
