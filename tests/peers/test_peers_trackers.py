"MLflow and Weights & Biases themselves, in folders of this machine, without a network"
import copy
import json
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from fastloop.callback.core import Callback
from fastloop.callback.mlflow import MLflowCallback
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.wandb import WandbCallback
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.learner import Learner
from fastloop.metric_functions import mae

wanted = 'installed by `make test-peers`'
mlflow = pytest.importorskip('mlflow', reason=wanted)
pytest.importorskip('sqlalchemy', reason=wanted)
wandb = pytest.importorskip('wandb', reason=wanted)
os.environ['WANDB_SILENT'] = 'true'


def make(path, **kwargs):
    "A learner of a line: 5 batches of 4 rows"
    torch.manual_seed(0)
    x = torch.randn(20, 1)
    data = DataBunch(TensorLoader(x, 3*x, bs=4, shuffle=True), TensorLoader(x, 3*x, bs=10))
    return Learner(data, nn.Linear(1, 1), nn.functional.mse_loss, metrics=[mae], path=path,
                   silent=True, **kwargs)


class Raises(Callback):
    "Raises something after some batches"
    def __init__(self, error, n=7): self.error, self.n = error, n
    def after_batch(self):
        if self.in_train and self.run.n_iter == self.n: raise self.error


class Loses(Callback):
    "Does something to the tracker after the first epoch"
    order = 99
    def __init__(self, work): self.work = work
    def after_epoch(self):
        if self.epoch == 0: self.work()


def quiet(work):
    "Do something; the warnings of ours that it gives"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        work()
    return [str(o.message) for o in found if 'Training goes on' in str(o.message)]


# ---- MLflow --------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def store(tmp_path_factory):
    "Where runs are kept; making it takes seconds"
    return f'sqlite:///{tmp_path_factory.mktemp("mlflow")}/runs.db'


@pytest.fixture
def client(store, tmp_path, monkeypatch):
    "MLflow's client, in a folder of its own"
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    found = mlflow.MlflowClient()
    experiment = tmp_path.name
    if found.get_experiment_by_name(experiment) is None:
        found.create_experiment(experiment, artifact_location=f'file:{tmp_path}/artifacts')
    found.name = experiment
    yield found
    while mlflow.active_run(): mlflow.end_run()


def steps(client, run_id, name='batch/loss'):
    return [o.step for o in client.get_metric_history(run_id, name)]


def test_mlflow_run(client, tmp_path):
    tracker = MLflowCallback(experiment=client.name, run_name='one', tags={'data': 'small'})
    learn = make(tmp_path)
    learn.fit(2, 1e-2, cbs=tracker)
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name) == ('FINISHED', 'one')
    assert run.data.tags['data'] == 'small'
    assert run.data.params.items() >= {'epochs': '2', 'lr': '0.01', 'model': 'Linear'}.items()
    for name, values in {'batch/loss': learn.recorder.raw_losses, 'batch/lr': learn.recorder.lrs,
                         'valid_loss': learn.recorder.val_losses}.items():
        assert [o.value for o in client.get_metric_history(run.info.run_id, name)] == values
    assert steps(client, tracker.run_id, 'mae') == [0, 1]
    file, = client.list_artifacts(tracker.run_id, 'weights')
    best = mlflow.artifacts.download_artifacts(run_id=tracker.run_id, artifact_path=file.path)
    assert Path(best).name == 'bestmodel.pth'
    learn.model.load_state_dict(torch.load(best)['model'])
    assert learn.validate()[0] == pytest.approx(min(learn.recorder.val_losses))
    learn.fit(1, 1e-3, cbs=tracker)
    assert steps(client, tracker.run_id) == list(range(15))
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.params['fit2/lr']) == ('FINISHED', '0.001')


@pytest.mark.parametrize('error, status', [(ValueError(), 'FAILED'),
                                           (KeyboardInterrupt(), 'KILLED')])
def test_mlflow_status(client, tmp_path, error, status):
    tracker, learn = MLflowCallback(experiment=client.name), make(tmp_path)
    with pytest.raises(type(error)): learn.fit(2, cbs=[tracker, Raises(error)])
    assert client.get_run(tracker.run_id).info.status == status
    assert steps(client, tracker.run_id) == list(range(7))
    learn.fit(1, cbs=tracker)
    assert client.get_run(tracker.run_id).info.status == 'FINISHED'
    assert steps(client, tracker.run_id) == list(range(12))


def test_mlflow_run_of_the_user(client, tmp_path):
    mlflow.set_experiment(client.name)
    with mlflow.start_run() as mine:
        mlflow.log_param('lr', 'mine')
        trackers = [MLflowCallback(), MLflowCallback()]
        for o in trackers: make(tmp_path).fit(1, cbs=o)
        assert {o.run_id for o in trackers} == {mine.info.run_id}
        assert client.get_run(mine.info.run_id).info.status == 'RUNNING'
    assert steps(client, mine.info.run_id) == list(range(10))
    assert client.get_run(mine.info.run_id).data.params['lr'] == 'mine'
    make(tmp_path).fit(1, cbs=trackers[0])
    assert trackers[0].run_id != mine.info.run_id and steps(client, trackers[0].run_id)[0] == 0
    assert client.get_run(trackers[0].run_id).info.experiment_id == mine.info.experiment_id


def test_mlflow_run_that_is_deleted(client, tmp_path):
    tracker, learn = MLflowCallback(experiment=client.name), make(tmp_path)

    def delete():
        tracker.beside.wait(60)
        client.delete_run(tracker.run_id)
    said = quiet(lambda: learn.fit(3, cbs=[tracker, Loses(delete)]))
    assert len(said) == 1 and 'deleted' in said[0] and len(learn.recorder.values) == 3
    before = tracker.run_id
    assert quiet(lambda: learn.fit(1, cbs=tracker)) == [] and tracker.run_id != before
    assert steps(client, tracker.run_id) == list(range(5))


@pytest.mark.parametrize('uri', ['http://ann:secret@127.0.0.1:9', 'sqlite:////proc/none/runs.db',
                                 'nowhere://x'])
def test_mlflow_that_is_not_there(client, tmp_path, monkeypatch, uri):
    monkeypatch.setenv('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '0')
    learn = make(tmp_path)
    said = quiet(lambda: learn.fit(2, cbs=MLflowCallback(tracking_uri=uri, experiment='e')))
    assert len(said) == 1 and 'secret' not in said[0] and len(learn.recorder.values) == 2


def test_mlflow_that_cannot_keep_files(client, tmp_path):
    client.create_experiment(f'{client.name} full', artifact_location='file:/dev/null/x')
    tracker, learn = MLflowCallback(experiment=f'{client.name} full'), make(tmp_path)
    assert len(quiet(lambda: learn.fit(2, cbs=tracker))) == 1
    assert client.get_run(tracker.run_id).info.status == 'FINISHED'
    assert steps(client, tracker.run_id) == list(range(10))


def test_mlflow_odd_names_many_numbers_and_nan(client, tmp_path):
    class Many(Callback):
        order = 50
        def __init__(self, text='x'*7000): self.text = text
        def begin_fit(self): self.learn.recorder.add_metric_names(
            ['F1, macro', '../x', *(f'm{i}' for i in range(1500))])
        def after_epoch(self):
            row = self.learn.recorder.values[-1]
            row[3:] = [float('nan'), float('inf'), *range(1500)]
    tracker, learn = MLflowCallback(experiment=client.name), make(tmp_path, cbs=Many())
    assert quiet(lambda: learn.fit(1, cbs=tracker)) == []
    metrics = client.get_run(tracker.run_id).data.metrics
    assert metrics['m1499'] == 1499 and 'F1_ macro' in metrics and 'x' in metrics
    assert metrics['F1_ macro'] != metrics['F1_ macro']


def test_mlflow_several_learners_at_once(client, tmp_path):
    trackers = [MLflowCallback(experiment=client.name) for _ in range(3)]
    learners = [make(tmp_path/str(i)) for i in range(3)]
    threads = [threading.Thread(target=learn.fit, args=(2,), kwargs=dict(cbs=o))
               for learn, o in zip(learners, trackers)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert len({o.run_id for o in trackers}) == 3
    for learn, o in zip(learners, trackers):
        history = client.get_metric_history(o.run_id, 'batch/loss')
        assert [m.value for m in history] == learn.recorder.raw_losses


def test_mlflow_copy_has_its_own_run(client, tmp_path):
    tracker = MLflowCallback(experiment=client.name)
    learn = make(tmp_path, cbs=tracker)
    learn.fit(1)
    twin = copy.deepcopy(learn)
    twin.fit(1)
    assert steps(client, tracker.run_id) == steps(client, twin.mlflow.run_id) == list(range(5))


# ---- Weights & Biases ----------------------------------------------------------------------------
def records(path):
    "What is in a file of an offline run: records in a log of blocks of 32 kB"
    from wandb.proto import wandb_internal_pb2 as messages
    data, at, parts = Path(path).read_bytes(), 7, b''
    while at+7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, n, kind = struct.unpack('<IHB', data[at:at+7])
        parts, at = parts+data[at+7:at+7+n], at+7+n
        if kind in (1, 4):  # whole, or the last part
            record = messages.Record()
            record.ParseFromString(parts)
            yield record
            parts = b''


def told(folder, run_id, ends=1):
    "What a run was told, when so many ends of it are in its files: W&B writes beside the program"
    for _ in range(600):
        found = told_so_far(folder, run_id)
        if len(found[3]) >= ends: return found
        time.sleep(.05)
    return found


def told_so_far(folder, run_id):
    "Rows, settings, files of artifacts and exit codes of a run"
    rows, config, files, codes = [], {}, [], []
    for path in sorted(Path(folder).glob(f'wandb/offline-run-*-{run_id}/*.wandb')):
        for o in records(path):
            kind = o.WhichOneof('record_type')
            if kind == 'history':
                rows.append({i.key or '/'.join(i.nested_key): json.loads(i.value_json)
                             for i in o.history.item})
            if kind == 'config':
                config |= {i.key or '/'.join(i.nested_key): json.loads(i.value_json)
                           for i in o.config.update}
            if kind == 'run': config |= {i.key: json.loads(i.value_json)
                                         for i in o.run.config.update if i.key}
            if kind == 'artifact': files += [(e.path, sorted(o.artifact.aliases))
                                             for e in o.artifact.manifest.contents]
            if kind == 'exit': codes.append(o.exit.exit_code)
    return rows, config, files, codes


def counts(rows, name='batch/step'): return [o[name] for o in rows if name in o]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "Where W&B keeps its runs"
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if wandb.run is not None: wandb.finish()


def offline(folder, **kwargs):
    return WandbCallback(project='p', mode='offline', dir=folder, **kwargs)


def test_wandb_run(folder):
    tracker, learn = offline(folder, tags=['small']), make(folder)
    learn.fit(2, 1e-2, cbs=tracker)
    losses, valid = learn.recorder.raw_losses, learn.recorder.val_losses
    learn.fit(1, 1e-3, cbs=tracker)
    assert wandb.run is None and tracker.close()
    rows, config, files, codes = told(folder, tracker.run_id)
    assert counts(rows) == list(range(15)) and counts(rows, 'epoch') == [0, 1, 2]
    losses, valid = losses + learn.recorder.raw_losses, valid + learn.recorder.val_losses
    assert counts(rows, 'batch/loss') == pytest.approx(losses, rel=1e-12)
    assert counts(rows, 'valid_loss') == pytest.approx(valid, rel=1e-12)
    assert config.items() >= {'epochs': 2, 'lr': .01, 'fit2/lr': .001, 'model': 'Linear'}.items()
    assert files[0] == ('bestmodel.pth', ['best', 'latest']) and codes == [0]


@pytest.mark.parametrize('error, code', [(ValueError(), 1), (KeyboardInterrupt(), 255)])
def test_wandb_exit_code(folder, error, code):
    tracker, learn = offline(folder), make(folder)
    with pytest.raises(type(error)): learn.fit(2, cbs=[tracker, Raises(error)])
    rows, *_, codes = told(folder, tracker.run_id)
    assert codes == [code] and counts(rows) == list(range(7))
    learn.fit(1, cbs=tracker)
    tracker.close()
    assert counts(told(folder, tracker.run_id, 2)[0]) == list(range(12))


def test_wandb_run_of_the_user(folder):
    mine = wandb.init(project='p', mode='offline', dir=folder, config={'lr': 'mine'})
    trackers = [WandbCallback(), WandbCallback()]
    for o in trackers: make(folder).fit(1, cbs=o)
    assert {o.run_id for o in trackers} == {mine.id} and wandb.run is mine
    mine.log({'mine': 1})
    wandb.finish()
    rows, config, _, codes = told(folder, mine.id)
    assert counts(rows) == list(range(10)) and counts(rows, 'mine') == [1] and codes == [0]
    assert config['lr'] == 'mine'


def test_wandb_new_run_and_several_learners(folder):
    trackers = [offline(folder, new_run=True, group='g') for _ in range(2)]
    learners, ids = [make(folder/str(i)) for i in range(2)], set()
    for _ in range(2):
        threads = [threading.Thread(target=learn.fit, args=(1,), kwargs=dict(cbs=o))
                   for learn, o in zip(learners, trackers)]
        for o in threads: o.start()
        for o in threads: o.join()
        ids |= {o.run_id for o in trackers}
    assert len(ids) == 4
    for o in ids:
        rows, *_, codes = told(folder, o)
        assert counts(rows) == list(range(5)) and codes == [0]


def test_wandb_saved_file_disabled_and_bad_settings(folder):
    tracker = offline(folder)
    make(folder).fit(1, cbs=[tracker, SaveModelCallback(name='mine', verbose=False)])
    tracker.close()
    assert [o[0] for o in told(folder, tracker.run_id)[2]] == ['mine.pth']
    assert quiet(lambda: make(folder).fit(1, cbs=WandbCallback(mode='disabled'))) == []
    assert len(quiet(lambda: make(folder).fit(1, cbs=offline(folder, config=3)))) == 1


def test_wandb_run_that_is_finished_by_the_user(folder):
    tracker, learn = offline(folder), make(folder)

    def finish():
        tracker.beside.wait(60)
        tracker.wandb_run.finish()
    assert len(quiet(lambda: learn.fit(2, cbs=[tracker, Loses(finish)]))) == 1
    assert len(learn.recorder.values) == 2


PROGRAM = '''
import os, sys, torch
sys.path.insert(0, {here!r})
from pathlib import Path
from test_peers_trackers import *
from fastloop.callback.checkpoint import CheckpointCallback
kind, folder, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
class Killed(Callback):
    can_resume = True
    def after_batch(self):
        if self.in_train and self.run.n_iter == stop:
            tracker.beside.wait(60)
            if kind == 'wandb': raise RuntimeError('stop')
            os._exit(1)
if kind == 'mlflow': tracker = MLflowCallback(tracking_uri=f'sqlite:///{{folder}}/runs.db')
else: tracker = offline(folder)
tracker.most = 2
learn = make(folder)
learn.fit(3, cbs=[tracker, CheckpointCallback(every=3, verbose=False), Killed()], resume=True)
assert len(learn.recorder.values) == 3
'''


@pytest.mark.parametrize('kind', ['mlflow', 'wandb'])
def test_a_run_that_was_broken_off_goes_on_without_doubled_steps(kind, folder):
    pytest.importorskip('fastloop.callback.checkpoint')
    program = [sys.executable, '-c', PROGRAM.format(here=str(Path(__file__).parent)), kind]
    own = {k: v for k, v in os.environ.items() if 'MLFLOW' not in k}  # it hands things down there
    for stop in (5, 11, 0):
        done = subprocess.run([*program, str(folder), str(stop)], capture_output=True, text=True,
                              env=own)
        assert done.returncode == (1 if stop else 0), done.stderr
    if kind == 'mlflow':
        client = mlflow.MlflowClient(tracking_uri=f'sqlite:///{folder}/runs.db')
        run, = client.search_runs(['0'])
        assert steps(client, run.info.run_id) == list(range(15))
        assert steps(client, run.info.run_id, 'valid_loss') == [0, 1, 2]
        assert run.info.status == 'FINISHED'
        assert 'fit2/lr' not in run.data.params
    else:
        run_id, = {o.name.split('-')[-1] for o in folder.glob('wandb/offline-run-*')}
        rows, *_ = told(folder, run_id, 3)
        assert sorted(counts(rows)) == list(range(15))
        assert sorted(counts(rows, 'epoch')) == [0, 1, 2]
