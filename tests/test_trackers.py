"What trackers of experiments are told, and what their failures cost; without their packages"
import copy
import inspect
import pickle
import re
import sys
import threading
import warnings
from types import ModuleType, SimpleNamespace
from uuid import uuid4

import pytest
import torch
from processes import Program
from torch import nn

from fastloop.callback.core import Callback
from fastloop.callback.experiment import Background, ExperimentCallback
from fastloop.callback.mlflow import MLflowCallback, allowed_name
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.wandb import WandbCallback, noted_place
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.fit_settings import fit_settings, told_error
from fastloop.learner import Learner
from fastloop.names import settings_of, without_secrets
from fastloop.train import lr_find


def make(tmp_path, valid=True, **kwargs):
    "A learner of a line: 5 batches of 4 rows"
    torch.manual_seed(0)
    x = torch.randn(20, 1)
    train = TensorLoader(x, 3*x, bs=4, shuffle=True)
    data = DataBunch(train, TensorLoader(x, 3*x, bs=10) if valid else None)
    return Learner(data, nn.Linear(1, 1), nn.functional.mse_loss, path=tmp_path, silent=True,
                   **kwargs)


class Memory(ExperimentCallback):
    "Keeps everything it is told; fails where it is asked to"
    opened = 0

    def __init__(self, fails=(), **kwargs):
        super().__init__(**kwargs)
        self.fails, self.calls, self.told, self.known_place = set(fails), [], [], None

    def _do(self, name, *args):
        self.calls.append(name)
        if name in self.fails: raise ConnectionError(f'{name} of http://ann:pw@host failed')
        self.told.append((name, *args))

    def find_run(self): self._do('find_run')

    def open_run(self):
        self._do('open_run')
        if self.run_id is None:
            Memory.opened += 1
            self.run_id = f'run{Memory.opened}'
        return self.place if self.known_place is None else self.known_place

    def write_settings(self, settings): self._do('write_settings', settings)
    def write_rows(self, rows, place): self._do('write_rows', rows, place)
    def write_file(self, path, value): self._do('write_file', torch.load(path), value)
    def end_run(self, status): self._do('end_run', status)
    def close_run(self): self._do('close_run')

    def of(self, name): return [o[1] for o in self.told if o[0] == name]
    def rows_of(self, kind): return [o for o in sum(self.of('write_rows'), []) if o[0] == kind]


class Raises(Callback):
    "Raises something at an event"
    def __init__(self, error, event='after_batch', n=7):
        self.error, self.n, self.count = error, n, 0
        setattr(self, event, self.act)

    def act(self):
        self.count += 1
        if self.count == self.n: raise self.error


def quiet(work):
    "Do something; the warnings it gives"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        work()
    return [str(o.message) for o in found]


# ---- what is told --------------------------------------------------------------------------------
def test_numbers_are_those_of_the_recorder(tmp_path):
    tracker, learn = Memory(), make(tmp_path)
    learn.fit(2, 1e-2, cbs=tracker)
    rows = tracker.rows_of('batch')
    assert [o[1] for o in rows] == list(range(10))
    assert [o[3]['batch/loss'] for o in rows] == learn.recorder.raw_losses
    assert [o[3]['batch/lr'] for o in rows] == learn.recorder.lrs
    assert [o[3]['batch/mom'] for o in rows] == learn.recorder.moms
    epochs = tracker.rows_of('epoch')
    assert [(o[1], o[3]) for o in epochs] == [
        (i, dict(zip(learn.recorder.names, row))) for i, row in enumerate(learn.recorder.values)]
    assert tracker.of('end_run') == ['FINISHED'] and tracker.place == (2, 10)


@pytest.mark.parametrize('every, steps', [(1, range(10)), (3, (0, 3, 6, 9)), (100, (0,)), (0, ())])
def test_every_says_which_batches(tmp_path, every, steps):
    tracker = Memory(every=every)
    make(tmp_path).fit(2, cbs=tracker)
    assert [o[1] for o in tracker.rows_of('batch')] == list(steps)
    assert len(tracker.rows_of('epoch')) == 2


def test_long_epochs_are_told_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(Memory, 'most', 2)
    tracker = Memory()
    make(tmp_path).fit(1, cbs=tracker)
    assert [len(o) for o in tracker.of('write_rows')] == [2, 2, 2]


def test_no_step_waits_for_the_tracker(tmp_path):
    gate, tracker = threading.Event(), Memory(timeout=.1)
    tracker.write_rows = lambda rows, place: gate.wait(20)
    learn = make(tmp_path)
    said = quiet(lambda: learn.fit(3, cbs=tracker))
    assert len(learn.recorder.values) == 3 and len(said) == 1 and 'not done after 0.1 s' in said[0]
    gate.set()
    assert tracker.close(20)


def test_settings(tmp_path):
    class Odd(Callback):
        def __init__(self, api_key='k', token='t', url='http://ann:pw@host/x', n=3, fn=print):
            self.api_key, self.token, self.url, self.n, self.fn = api_key, token, url, n, fn

    learn = make(tmp_path, cbs=[Odd(), SaveModelCallback(every='epoch')], wd=.1)
    tracker = Memory()
    fine_tune_rate = 2e-2
    learn.fit(1, fine_tune_rate, cbs=tracker)
    settings, = tracker.of('write_settings')
    assert settings.items() >= {
        'epochs': 1, 'batch_size': 4, 'lr': .02, 'wd': .01, 'optimizer': 'AdamW', 'model': 'Linear',
        'loss': 'mse_loss', 'parameters': 2, 'trainable': 2, 'Odd.url': 'http://host/x', 'Odd.n': 3,
        'SaveModelCallback.every': 'epoch'}.items() - {('wd', .01)}
    assert settings['wd'] == .1
    assert not [k for k in settings if re.search('key|token|fn$|Memory', k)]


def test_rates_are_those_asked_for_also_with_a_schedule(tmp_path):
    tracker, learn = Memory(), make(tmp_path)
    learn.fit_one_cycle(1, 1e-1, cbs=tracker)
    assert len({o[3]['batch/lr'] for o in tracker.rows_of('batch')}) == 5
    assert 'lr' in tracker.of('write_settings')[0]


def test_groups_have_their_rates(tmp_path):
    tracker, learn = Memory(), make(tmp_path)
    learn.model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    learn.split(lambda m: [m[0], m[1]])
    learn.fit(1, [1e-3, 1e-2], cbs=tracker)
    assert {'lr_0', 'lr_1'} <= tracker.of('write_settings')[0].keys()
    assert tracker.rows_of('batch')[0][3]['batch/lr_1'] == 1e-2


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_numbers_that_are_none_are_passed_on(tmp_path, value):
    class Breaks(Callback):
        def after_pred(self): self.run.pred = self.run.pred*value
    tracker = Memory()
    make(tmp_path, cbs=Breaks()).fit(1, cbs=tracker)
    assert not any(map(torch.isfinite, torch.tensor([
        o[3]['batch/loss'] for o in tracker.rows_of('batch')])))
    assert tracker.of('end_run') == ['FINISHED']


def test_nothing_is_told_by_who_only_looks(tmp_path):
    tracker = Memory()
    learn = make(tmp_path, cbs=tracker)
    learn.validate()
    learn.get_preds()
    learn.predict(torch.zeros(1))
    lr_find(learn, num_it=6, show_plot=False)
    learn.fit(0)
    learn.explain()
    assert tracker.calls == []


# ---- several fits --------------------------------------------------------------------------------
def test_another_fit_goes_on_in_the_same_run(tmp_path):
    tracker, learn = Memory(), make(tmp_path)
    learn.fit(2, 1e-2, cbs=tracker)
    first = tracker.run_id
    learn.fit(1, 1e-3, cbs=tracker)
    assert tracker.run_id == first
    assert [o[1] for o in tracker.rows_of('batch')] == list(range(15))
    assert [o[1] for o in tracker.rows_of('epoch')] == [0, 1, 2]
    assert tracker.of('write_settings')[1] == {'fit2/epochs': 1, 'fit2/lr': 1e-3}


def test_every_leaves_no_step_twice_in_another_fit(tmp_path):
    tracker, learn = Memory(every=3), make(tmp_path)
    for _ in range(3): learn.fit(1, cbs=tracker)
    assert [o[1] for o in tracker.rows_of('batch')] == [0, 3, 5, 8, 10, 13]


def test_new_run(tmp_path):
    tracker, learn, ids = Memory(new_run=True), make(tmp_path), []
    for _ in range(2):
        learn.fit(1, cbs=tracker)
        ids.append(tracker.run_id)
    assert len(set(ids)) == 2
    assert [o[1] for o in tracker.rows_of('batch')] == [*range(5), *range(5)]
    assert 'fit2/lr' not in tracker.of('write_settings')[1]


def test_a_copy_opens_a_run_of_its_own(tmp_path):
    tracker = Memory()
    learn = make(tmp_path, cbs=tracker)
    learn.fit(1)
    twin = copy.deepcopy(learn)
    twin.fit(1)
    assert twin.memory.run_id != tracker.run_id
    assert [o[1] for o in twin.memory.rows_of('batch')][-5:] == list(range(5))


# ---- how it ended --------------------------------------------------------------------------------
@pytest.mark.parametrize('error, status', [
    (ValueError('x'), 'FAILED'), (KeyboardInterrupt(), 'KILLED'), (SystemExit(1), 'FAILED')])
@pytest.mark.parametrize('event, n', [('after_batch', 7), ('after_loss', 3), ('begin_validate', 1)])
def test_how_it_ended(tmp_path, error, status, event, n):
    tracker, learn = Memory(), make(tmp_path)
    with pytest.raises(type(error)): learn.fit(2, cbs=[tracker, Raises(error, event, n)])
    assert tracker.of('end_run') == [status]
    steps = [o[1] for o in tracker.rows_of('batch')]
    assert steps == list(range(len(steps))) and len(steps) >= learn.run.n_iter
    learn.fit(1, cbs=tracker)
    steps = [o[1] for o in tracker.rows_of('batch')]
    assert steps == sorted(set(steps)) and tracker.of('end_run') == [status, 'FINISHED']


def test_an_error_before_the_first_epoch_opens_nothing(tmp_path):
    tracker = Memory()
    with pytest.raises(ValueError, match='x'):
        make(tmp_path).fit(1, cbs=[tracker, Raises(ValueError('x'), 'begin_fit', 1)])
    assert tracker.calls == []


# ---- faults --------------------------------------------------------------------------------------
@pytest.mark.parametrize('fails', [
    ['find_run'], ['open_run'], ['write_settings'], ['write_rows'], ['write_file'], ['end_run'],
    ['write_settings', 'write_rows', 'write_file', 'end_run']])
def test_a_tracker_that_fails_costs_one_warning(tmp_path, fails):
    tracker, learn, plain = Memory(fails), make(tmp_path), make(tmp_path)
    said = quiet(lambda: learn.fit(3, cbs=tracker))
    plain.fit(3)
    assert len(said) == 1 and fails[0] in said[0] and 'pw' not in said[0]
    assert learn.recorder.values == plain.recorder.values
    assert torch.equal(learn.model.weight, plain.model.weight)
    tracker.fails = set()
    assert quiet(lambda: learn.fit(1, cbs=tracker)) == []
    assert tracker.of('end_run')[-1] == 'FINISHED'


def test_rows_that_were_not_taken_are_tried_again(tmp_path):
    tracker, learn = Memory(['write_rows']), make(tmp_path)

    class Repairs(Callback):
        def begin_epoch(self):
            if self.epoch == 2:
                tracker.beside.wait(10)
                tracker.fails = set()
    assert len(quiet(lambda: learn.fit(3, cbs=[tracker, Repairs()]))) == 1
    assert [o[1] for o in tracker.rows_of('batch')] == list(range(15))
    assert [o[1] for o in tracker.rows_of('epoch')] == [0, 1, 2]


def test_a_disk_that_is_full_costs_one_warning(tmp_path, monkeypatch):
    import fastloop.callback.experiment as experiment

    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(experiment, 'atomic_write', full)
    tracker, learn = Memory(), make(tmp_path)
    said = quiet(lambda: learn.fit(2, cbs=tracker))
    assert len(said) == 1 and 'No space left' in said[0]
    assert len(tracker.rows_of('epoch')) == 2 and tracker.of('end_run') == ['FINISHED']


def test_keys_of_the_environment_are_not_told(monkeypatch):
    monkeypatch.setenv('SOME_API_KEY', '0123456789abcdef')
    assert told_error(ValueError('key 0123456789abcdef is bad')) == 'ValueError: key … is bad'
    assert without_secrets('a https://u:p@h/x b ftp://t@k') == 'a https://h/x b ftp://k'


def test_background_work_keeps_its_order_and_goes_on_after_errors():
    beside, done = Background(), []
    for i in range(50): beside.put(done.append, i)
    beside.put(lambda: 1/0)
    for i in range(50, 60): beside.put(done.append, i)
    assert beside.wait(10) and done == list(range(60)) and 'ZeroDivision' in beside.problem


# ---- the best weights ----------------------------------------------------------------------------
def test_the_best_weights_are_kept(tmp_path):
    class Notes(Callback):
        order, best = 99, (float('inf'), None)
        def after_epoch(self):
            value = self.learn.recorder.values[-1][1]
            if value < self.best[0]: self.best = value, copy.deepcopy(self.learn.model.state_dict())
    tracker, notes = Memory(), Notes()
    make(tmp_path).fit(4, 5., cbs=[tracker, notes])
    (_, state, value), = [o for o in tracker.told if o[0] == 'write_file']
    assert value == notes.best[0] and torch.equal(state['model']['weight'], notes.best[1]['weight'])


def test_who_is_attached_in_mid_fit_tells_of_the_epochs_from_there_on(tmp_path):
    class Late(Callback):
        def after_batch(self):
            if self.run.n_iter == 3: self.run.add_cbs(tracker)
    tracker, learn = Memory(), make(tmp_path)
    assert quiet(lambda: learn.fit(3, 1e-2, cbs=Late())) == []
    assert [o[1] for o in tracker.rows_of('epoch')] == [1, 2]
    assert [o[1] for o in tracker.rows_of('batch')] == list(range(5, 15))
    assert len(tracker.of('write_file')) == 1 and tracker.of('end_run') == ['FINISHED']


@pytest.mark.parametrize('options, files', [
    ({}, 1), (dict(best_weights=False), 0), (dict(monitor='train_loss', mode='max'), 1)])
def test_whether_there_is_a_file(tmp_path, options, files):
    tracker = Memory(**options)
    make(tmp_path).fit(2, cbs=tracker)
    assert len(tracker.of('write_file')) == files


def test_without_validation_the_training_loss_is_watched(tmp_path):
    tracker = Memory()
    learn = make(tmp_path, valid=False)
    learn.fit(2, cbs=tracker)
    assert tracker.best.kept == min(o[0] for o in learn.recorder.values)


def test_a_name_that_will_not_be_there_is_refused_when_the_fit_begins(tmp_path):
    tracker = Memory(monitor='acuracy')
    with pytest.raises(ValueError, match='acuracy'): make(tmp_path).fit(1, cbs=tracker)
    assert tracker.calls == []


def test_the_file_of_save_model_is_taken(tmp_path):
    tracker, learn = Memory(), make(tmp_path)
    learn.fit(2, cbs=[tracker, SaveModelCallback(name='mine', verbose=False)])
    state, = tracker.of('write_file')
    saved = torch.load(learn.model_file('mine'))
    assert torch.equal(state['model']['weight'], saved['model']['weight']) and 'opt' in state
    assert tracker.best.temp is None


class Feeds(Callback):
    "Fills a column with known numbers, and keeps the weights of each epoch"
    order = 0

    def __init__(self, numbers): self.numbers = numbers

    def begin_fit(self):
        self.learn.recorder.add_metric_names(['m'])
        self.weights = []

    def after_epoch(self):
        self.learn.recorder.values[-1][-1] = self.numbers[self.run.epoch]
        self.weights.append(self.model.weight.detach().clone())


@pytest.mark.parametrize('numbers, best, taken, options', [
    ([.9, .5, .6], 0, False, dict(monitor='valid_loss')),
    ([.9, .5, .6], 0, False, dict(mode='min')), ([.9, .5, .6], 0, False, dict(at_end=True)),
    ([.5, .6, .4], 1, False, dict(min_delta=.2)),
    ([.5, .6, .4], 1, False, dict(baseline=.7)), ([.5, .6, .4], 1, False, dict(every='epoch')),
    ([.5, .6, .4], 1, True, dict(keep=2)), ([.5, .6, .4], 1, True, {})])
def test_the_file_of_save_model_is_taken_only_if_it_has_the_best_weights(tmp_path, numbers, best,
                                                                         taken, options):
    tracker, feeds = Memory(monitor='m', mode='max'), Feeds(numbers)
    save = SaveModelCallback(**dict(monitor='m', mode='max', verbose=False) | options)
    make(tmp_path).fit(3, cbs=[feeds, tracker, save])
    (_, state, value), = [o for o in tracker.told if o[0] == 'write_file']
    assert value == numbers[best] and torch.equal(state['model']['weight'], feeds.weights[best])
    assert (tracker.best.temp is None) == taken


def test_a_file_from_an_earlier_fit_is_not_the_best_of_this_one(tmp_path):
    learn, save = make(tmp_path), SaveModelCallback(
        monitor='m', mode='max', verbose=False, reset_on_fit=False)
    learn.fit(1, cbs=[Feeds([.9]), save])
    tracker, feeds = Memory(monitor='m', mode='max'), Feeds([.5, .4])
    learn.fit(2, cbs=[feeds, tracker, save])
    state, = tracker.of('write_file')
    assert torch.equal(state['model']['weight'], feeds.weights[0])


# ---- going on from a checkpoint ------------------------------------------------------------------
class TakesState(Callback):
    "Takes the state of a tracker after some batches"
    order = 99
    def __init__(self, tracker, n): self.tracker, self.n = tracker, n
    def begin_batch(self):
        if self.in_train and self.run.n_iter == self.n:
            self.state = pickle.loads(pickle.dumps(self.tracker.state_dict()))


class GoesOn(Callback):
    "Puts a run where a checkpoint was taken, as a callback that keeps checkpoints does"
    orders = {'begin_fit': float('inf')}
    def __init__(self, tracker, state, epoch, n): self.it = tracker, state, epoch, n
    def begin_fit(self):
        tracker, state, self.run.first_epoch, self.run.n_iter = self.it
        tracker.load_state_dict(state)
    def begin_train(self): self.it[0].load_state_dict(self.it[1])


@pytest.mark.parametrize('known', [None, (1, 8)])
def test_a_resumed_fit_goes_on_in_the_run_without_doubled_steps(tmp_path, known):
    tracker = Memory()
    takes = TakesState(tracker, 5)
    with pytest.raises(ValueError):
        make(tmp_path).fit(3, cbs=[tracker, takes, Raises(ValueError(), 'after_batch', 9)])
    again = Memory()
    again.known_place = known
    make(tmp_path).fit(3, cbs=[again, GoesOn(again, takes.state, 1, 5)])
    assert again.run_id == tracker.run_id and again.of('write_settings') == []
    first = 5 if known is None else 8
    assert [o[1] for o in again.rows_of('batch')] == list(range(first, 15))
    assert [o[1] for o in again.rows_of('epoch')] == [1, 2] and again.place == (3, 15)


def test_what_a_checkpoint_counts_on_is_handed_over_before(tmp_path):
    tracker, seen = Memory(), []

    class Looks(TakesState):
        def begin_batch(self):
            super().begin_batch()
            if self.in_train and self.run.n_iter == self.n:
                tracker.beside.wait(10)
                seen.extend(o[1] for o in tracker.rows_of('batch'))
                seen.append(len(tracker.of('write_file')))
    make(tmp_path).fit(2, cbs=[tracker, Looks(tracker, 8)])
    assert seen == [*range(8), 1]


def test_a_state_is_plain_data(tmp_path):
    tracker = Memory()
    make(tmp_path).fit(1, cbs=tracker)
    torch.save(tracker.state_dict(), tmp_path/'state.pt')
    assert torch.load(tmp_path/'state.pt', weights_only=True) == tracker.state_dict()


# ---- the packages --------------------------------------------------------------------------------
@pytest.mark.parametrize('kind, name', [(MLflowCallback, 'mlflow'), (WandbCallback, 'wandb')])
def test_a_missing_package_names_the_extra(monkeypatch, kind, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'pip install "fastloop\[{name}\]"'): kind()


def test_importing_everything_imports_neither():
    code = ("import sys, fastloop.all\n"
            "sys.exit(bool({o.split('.')[0] for o in sys.modules} & {'mlflow', 'wandb'}))")
    assert (done := Program(code).end()).returncode == 0, done.stderr


@pytest.fixture
def mlflow(monkeypatch):
    "The part of MLflow that is called, recording"
    it = ModuleType('mlflow')
    it.calls, it.runs = [], {}

    class Client:
        def __init__(self, tracking_uri=None): it.uri = tracking_uri
        def __getattr__(self, name): return lambda *args, **kw: it.calls.append((name, args, kw))
        def get_experiment_by_name(self, name): return None
        def create_experiment(self, name): return f'made {name}'
        def get_run(self, run_id): return it.runs[run_id]
        def create_run(self, experiment_id, run_name=None, tags=None):
            info = SimpleNamespace(run_id=f'r{len(it.runs)}', lifecycle_stage='active',
                                   experiment_id=experiment_id)
            it.runs[info.run_id] = SimpleNamespace(
                info=info, data=SimpleNamespace(params={}, tags=tags))
            return it.runs[info.run_id]
    it.MlflowClient, it.active_run, it.get_tracking_uri = Client, lambda: None, lambda: 'here'
    it.entities = ModuleType('mlflow.entities')
    def record(*names): return lambda *o: SimpleNamespace(**dict(zip(names, o)))
    it.entities.Metric = record('key', 'value', 'timestamp', 'step')
    it.entities.Param = it.entities.RunTag = record('key', 'value')
    monkeypatch.setitem(sys.modules, 'mlflow', it)
    monkeypatch.setitem(sys.modules, 'mlflow.entities', it.entities)
    return it


def test_mlflow_gets_names_and_values_that_it_takes(tmp_path, mlflow):
    class Long(Callback):
        def __init__(self, text='x'*900): self.text = text
    tracker = MLflowCallback(experiment='e', tags={'a': 1}, tracking_uri='there')
    make(tmp_path, cbs=Long()).fit(1, cbs=tracker)
    params = [o for name, _, kw in mlflow.calls for o in kw.get('params', ())]
    assert {len(o.value) for o in params if o.key == 'Long.text'} == {500}
    assert mlflow.uri == 'there' and mlflow.runs['r0'].info.experiment_id == 'made e'
    assert mlflow.runs['r0'].data.tags == {'a': '1'}
    assert mlflow.calls[-1] == ('set_terminated', ('r0', 'FINISHED'), {})


@pytest.mark.parametrize('name, allowed', [
    ('valid_loss', 'valid_loss'), ('F1, macro', 'F1_ macro'), ('a/b', 'a/b'), ('../x', 'x'),
    ('a//b', 'a__b'), ('x'*300, 'x'*250), ('f(β=2)', 'f_β_2_')])
def test_names_for_mlflow(name, allowed): assert allowed_name(name) == allowed


@pytest.mark.parametrize('kwargs, error', [
    (dict(experiment=3), TypeError), (dict(run_name=3), TypeError), (dict(tags=['a']), TypeError),
    (dict(every=-1), ValueError), (dict(timeout='x'), ValueError), (dict(mode='best'), ValueError),
    (dict(evry=1), TypeError), (dict(learn='experiment'), TypeError)])
def test_bad_arguments_for_mlflow(mlflow, kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))): MLflowCallback(**kwargs)


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    "The part of W&B that is called, recording"
    it = ModuleType('wandb')
    it.runs, it.run = [], None

    class Run:
        def __init__(self, **kwargs):
            self.kwargs, self.id, self.code = kwargs, kwargs.get('id') or uuid4().hex, None
            self.rows, self.config, self.summary, self.files = [], {}, {}, []
            self.dir = tmp_path/'wandb'/f'run-{len(it.runs)}-{self.id}'/'files'
            self.dir.mkdir(parents=True)
            it.runs.append(self)
        def define_metric(self, name, step_metric=None): pass
        def log(self, row): self.rows.append(row)
        def log_artifact(self, artifact, aliases): self.files.append((artifact, aliases))
        def finish(self, exit_code=0): self.code = exit_code
    def init(project=None, name=None, tags=None, mode=None, id=None, resume=None, reinit=None):
        return Run(**{k: v for k, v in locals().items() if v is not None})
    it.init, it.Artifact, it.Run = init, lambda *a, **kw: SimpleNamespace(
        name=a, add_file=lambda *a, **kw: None), Run
    monkeypatch.setitem(sys.modules, 'wandb', it)
    return it


def test_wandb_run_stays_open_until_it_is_closed(tmp_path, wandb):
    tracker, learn = WandbCallback(project='p', mode='offline'), make(tmp_path)
    for _ in range(2): learn.fit(1, cbs=tracker)
    run, = wandb.runs
    assert run.kwargs.items() >= {'project': 'p', 'mode': 'offline'}.items() and run.code is None
    assert [o['batch/step'] for o in run.rows if 'batch/step' in o] == list(range(10))
    assert tracker.close() and run.code == 0
    learn.fit(1, cbs=tracker)
    assert wandb.runs[1].kwargs.items() >= {'id': run.id, 'resume': 'allow'}.items()
    steps = [o['batch/step'] for o in wandb.runs[1].rows if 'batch/step' in o]
    assert steps == list(range(10, 15))


@pytest.mark.parametrize('error, code', [(ValueError(), 1), (KeyboardInterrupt(), 255)])
def test_wandb_run_ends_with_an_exit_code(tmp_path, wandb, error, code):
    with pytest.raises(type(error)):
        make(tmp_path).fit(1, cbs=[WandbCallback(), Raises(error, 'after_batch', 2)])
    assert wandb.runs[0].code == code


def test_wandb_run_of_the_user_is_used_and_left_open(tmp_path, wandb):
    wandb.run = wandb.Run()
    wandb.run.config['lr'] = 'mine'
    tracker, learn = WandbCallback(), make(tmp_path)
    with pytest.raises(ValueError):
        learn.fit(1, cbs=[tracker, Raises(ValueError(), 'begin_validate', 1)])
    assert len(wandb.runs) == 1 and wandb.run.code is None and wandb.run.config['lr'] == 'mine'
    assert tracker.close() and wandb.run.code is None
    theirs, wandb.run = wandb.run, None
    learn.fit(1, cbs=tracker)
    assert len(wandb.runs) == 2 and tracker.run_id != theirs.id
    assert [o['epoch'] for o in wandb.runs[1].rows if 'epoch' in o] == [0]


def test_wandb_knows_how_far_a_run_was_that_is_over(tmp_path, wandb):
    tracker = WandbCallback()
    make(tmp_path).fit(2, cbs=tracker)
    assert noted_place(wandb.Run(id=tracker.run_id)) == (0, 0)
    tracker.close()
    assert noted_place(wandb.Run(id=tracker.run_id)) == (2, 10)
    assert noted_place(wandb.Run(id='other')) == (0, 0)


@pytest.mark.parametrize('kwargs, error', [
    (dict(projekt='p'), TypeError), (dict(tags='a'), TypeError), (dict(project=3), TypeError),
    (dict(mode='best'), ValueError)])
def test_bad_arguments_for_wandb(wandb, kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))): WandbCallback(**kwargs)


@pytest.mark.parametrize('kind', [ExperimentCallback, MLflowCallback, WandbCallback])
def test_the_learner_comes_first(kind):
    assert [*inspect.signature(kind).parameters][0] == 'learn'
    assert settings_of(SimpleNamespace()) == {} and callable(fit_settings)
