"A fit that is steered while it runs: from code, from threads, by files, and after it was killed."
import copy
import math
import os
import pickle
import signal
import threading
import time
from functools import partial

import pytest
import torch
from processes import Program
from test_checkpoint import Kill, Killed, check_same, data_kinds, fit, make, sgd
from torch.optim import lr_scheduler

from fastloop.all import (
    Callback,
    CheckpointCallback,
    Control,
    DataBunch,
    F,
    GradientAccumulation,
    Learner,
    OneCycleScheduler,
    ParamScheduler,
    ReduceLROnPlateauCallback,
    ShortEpoch,
    TensorLoader,
    TorchScheduler,
    nn,
    sched_cos,
)
from fastloop.callback.control import check_factor, multiply_rates, take_files
from fastloop.callback.core import events
from fastloop.callback.snapshot import same_state
from fastloop.state_files import numbered_files

rare = pytest.mark.rare  # run by `make test-all` alone
N, BATCHES, EPOCHS = 24, 6, 3


def data(valid=True):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(N, 3, generator=g), torch.randn(N, 1, generator=g)
    return DataBunch(TensorLoader(x, y, bs=4, shuffle=True, seed=1),
                     TensorLoader(x, y, bs=8) if valid else None, device='cpu')


def learner(*cbs, path='.', valid=True, opt_func=sgd, **kwargs):
    torch.manual_seed(0)
    return Learner(data(valid), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), F.mse_loss,
                   opt_func=opt_func, lr=.1, wd=0., silent=True, path=path, cbs=list(cbs), **kwargs)


class At(Callback):
    "Asks once for something, when so many batches are done; in training or validation"
    asked = False

    def __init__(self, n, what, *args, event='after_batch', train=True, order=0):
        self.n, self.what, self.args, self.train, self.order = n, what, args, train, order
        setattr(self, event, self.act)

    def act(self):
        if (self.asked, self.run.n_iter, self.run.in_train) == (False, self.n, self.train):
            self.asked = True
            what = getattr(self.run.control, self.what) if type(self.what) is str else self.what
            what(*self.args)


def quiet(**kwargs): return Control(verbose=False, **kwargs)


class Looks(Control):
    "Looks for files between all batches, also where a look takes as long as many of them"
    def look(self):
        self.due = 0.
        return super().look()


# ---- the rate ------------------------------------------------------------------------------------
def torch_cb(make, **kwargs): return lambda: TorchScheduler(make=make, **kwargs)


schedules = {
    'none': lambda: [],
    'one-cycle': lambda: OneCycleScheduler(lr_max=.3),
    'cosine': lambda: ParamScheduler('lr', sched_cos(.1, 0.01)),
    'groups': lambda: ParamScheduler('lr', [sched_cos(.1, .01), sched_cos(.2, .1)]),
    'torch epochs': torch_cb(partial(lr_scheduler.StepLR, step_size=1, gamma=.5)),
    'torch batches': torch_cb(partial(lr_scheduler.ExponentialLR, gamma=.9), every='batch')}


def lrs_of(schedule, *cbs, **kwargs):
    groups = dict(splitter=lambda m: [m[0], m[1]]) if schedule == 'groups' else {}
    learn = learner(quiet(), *([o] if (o := schedules[schedule]()) else []), *cbs, **groups)
    learn.fit(EPOCHS, **kwargs)
    return learn


@pytest.mark.parametrize('schedule', schedules)
def test_the_factor_multiplies_what_the_schedule_says(schedule):
    plain = lrs_of(schedule).recorder.lrs
    learn = lrs_of(schedule, At(4, 'rate', .5), At(9, 'rate', .1))
    factors = [1.]*4 + [.5]*5 + [.5*.1]*9
    assert learn.recorder.lrs == [a*b for a, b in zip(plain, factors)]
    assert learn.recorder.interventions == [('rate', 4, .5), ('rate', 9, .1)]
    assert learn.opt.lr == plain[-1], 'the factor is left in the optimizer'


def test_each_layer_group_has_its_factor():
    seen = []
    class Sees(Callback):
        def after_loss(self):
            if self.in_train: seen.append([g['lr'] for g in self.opt.param_groups])
    lrs_of('groups', At(1, 'rate', .5), Sees())
    fresh, seen = seen, []
    lrs_of('groups', Sees())
    assert fresh[1:] == [[lr*.5 for lr in o] for o in seen[1:]] and fresh[0] == seen[0]


def test_a_callback_that_lowers_the_rate_sees_its_own(monkeypatch):
    lowers = ReduceLROnPlateauCallback(factor=.5, patience=1, mode='max', verbose=False)
    learn = learner(quiet(), lowers, At(2, 'rate', .1))
    learn.fit(4)
    lrs = learn.recorder.lrs
    rises = [row[1] > max(o[1] for o in learn.recorder.values[:i])
             for i, row in enumerate(learn.recorder.values) if i]
    expected, lr = [], .1
    for epoch in range(4):
        if epoch > 1 and not rises[epoch-2]: lr *= .5
        expected += [lr]*BATCHES
    assert lrs == [o*(.1 if i >= 2 else 1.) for i, o in enumerate(expected)]


def by_hand(factors):
    "The weights after a plain loop with these factors"
    torch.manual_seed(0)
    bunch, model = data(), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    opt, k = torch.optim.SGD(model.parameters(), .1, momentum=.9), 0
    for epoch in range(EPOCHS):
        bunch.train_dl.set_epoch(epoch) if hasattr(bunch.train_dl, 'set_epoch') else None
        for xb, yb in bunch.train_dl:
            opt.param_groups[0]['lr'] = .1*factors(k)
            F.mse_loss(model(xb), yb).backward()
            opt.step()
            opt.zero_grad()
            k += 1
    return model.state_dict()


def test_equals_a_plain_loop():
    learn = lrs_of('none', At(4, 'rate', .5))
    assert all(torch.allclose(v, learn.model.state_dict()[k], atol=1e-6)
               for k, v in by_hand(lambda k: .5 if k >= 4 else 1.).items())


def test_undone():
    plain = lrs_of('one-cycle').recorder.lrs
    learn = lrs_of('one-cycle', At(3, 'rate', .5), At(6, 'rate', 2.))
    assert learn.recorder.lrs[6:] == plain[6:] and learn.recorder.lrs[3] == plain[3]*.5
    assert 'begin_batch' not in vars(learn.control)


def test_the_step_at_the_end_of_an_epoch_is_multiplied():
    "A window that is open when the epoch ends is stepped outside of any batch"
    seen = []
    class Sees(Callback):
        order = 50
        def begin_step(self): seen.append(self.opt.lr)
    learn = learner(quiet(), GradientAccumulation(n_batches=4), Sees(), At(1, 'rate', .5))
    learn.fit(1)
    learn.control.verbose = False
    assert seen == [.1*.5]*2 and learn.opt.lr == .1


@pytest.mark.parametrize('event', ['begin_batch', 'after_pred', 'after_loss', 'after_backward',
                                   'begin_step', 'after_step', 'after_batch', 'begin_validate'])
@pytest.mark.parametrize('phase', ['batch', 'train', 'epoch', 'fit', 'error'])
def test_the_rate_is_put_back_wherever_the_fit_breaks_off(event, phase):
    from fastloop.callback.core import CancelException
    kinds = {c.phase: c for c in CancelException.__subclasses__()} | {'error': Killed}
    over = dict(batch=('after_batch', 'begin_validate'), train=('begin_validate',))
    if event in over.get(phase, ()):
        pytest.skip('no such phase is running there')
    def raises(): raise kinds[phase]
    seen = []
    class Sees(Callback):
        def begin_epoch(self): seen.append(self.opt.lr)
    learn = learner(quiet(), At(2, 'rate', .5), Sees())
    try: learn.fit(2, cbs=At(6 if event == 'begin_validate' else 4, raises, event=event,
                             train=event != 'begin_validate', order=500))
    except Killed: assert phase == 'error'
    assert set(seen) == {.1} and learn.opt.lr == .1 and learn.control.undo is None
    learn.fit(1)
    assert learn.recorder.lrs == [.1]*BATCHES, 'the next fit has a factor'


def test_a_rate_that_is_a_tensor_stays_the_same_tensor():
    lr = torch.tensor(.1)
    opt = torch.optim.Adam([{'params': [torch.zeros(1)]}, {'params': [torch.ones(1)], 'lr': .3}],
                           lr=lr)
    opt.param_groups.append(dict(opt.param_groups[0], params=[torch.zeros(2)]))  # shares the tensor
    there = [g['lr'] for g in opt.param_groups]
    back = multiply_rates(opt, .5)
    assert opt.param_groups[0]['lr'] is there[0] and float(there[0]) == pytest.approx(.05)
    assert opt.param_groups[1]['lr'] == .15
    back()
    assert float(there[0]) == pytest.approx(.1) and opt.param_groups[1]['lr'] == .3


@pytest.mark.parametrize('factor', [0, -1, math.nan, math.inf, 'half', '', None, True, [1]])
def test_no_factor(factor):
    with pytest.raises(ValueError, match='factor='): Control().rate(factor)
    with pytest.raises(ValueError, match='factor='): check_factor(factor)


def test_bad_words():
    with pytest.raises(ValueError, match='after'): Control().stop('now')
    with pytest.raises(TypeError, match='folder'): Control('run')
    with pytest.raises(TypeError, match='folder=3'): Control(folder=3)


# ---- stopping and saving -------------------------------------------------------------------------
@pytest.mark.parametrize('when, train', [(1, True), (4, True), (6, True), (8, True), (6, False)])
@pytest.mark.parametrize('after', ['batch', 'epoch'])
def test_stops(when, train, after):
    learn = learner(quiet())
    learn.fit(5, cbs=At(when, 'stop', after, train=train))
    epochs = (when-1)//BATCHES + 1
    assert learn.run.n_iter == (when if after == 'batch' else epochs*BATCHES)
    assert len(learn.recorder.values) == epochs
    assert all(row[1] is not None for row in learn.recorder.values), 'not validated'
    what = 'stop' if after == 'batch' else 'stop_epoch'
    assert learn.recorder.interventions == [(what, when, None)]
    learn.fit(2)
    assert learn.run.n_iter == 2*BATCHES and learn.recorder.interventions == []


def test_stops_without_validation():
    learn = learner(quiet(), valid=False)
    learn.fit(5, cbs=At(8, 'stop'))
    assert learn.run.n_iter == 8 and len(learn.recorder.values) == 2


@pytest.mark.parametrize('after, n', [('batch', 8), ('epoch', 2*BATCHES)])
def test_a_stop_while_the_head_is_trained_ends_fine_tune(after, n, tmp_path):
    def tune(n_head=3, *cbs, **kwargs):
        learn = learner(path=tmp_path, splitter=lambda m: [m[0], m[1]])
        before = copy.deepcopy(learn.model[0].state_dict())
        recorder = learn.fine_tune(1, freeze_epochs=n_head, cbs=[*cbs, quiet(), CheckpointCallback(
            verbose=False)], **kwargs)
        assert recorder is learn.recorder and all(o.requires_grad for o in learn.model.parameters())
        return learn, same_state(before, learn.model[0].state_dict())

    learn, untouched = tune(3, At(8, 'stop', after))
    assert untouched and len(learn.recorder.lrs) == n and len(learn.recorder.values) == 2
    learn, untouched = tune(3, resume=True)  # the head is over: what follows is the second fit
    assert not untouched and len(learn.recorder.lrs) == BATCHES
    learn, untouched = tune(1, At(3, 'rate', 2.))  # what does not stop it does not end it
    assert not untouched and len(learn.recorder.lrs) == BATCHES


def test_saves_weights_without_checkpoints(tmp_path):
    learn = learner(quiet(), path=tmp_path)
    weights = []
    learn.fit(2, cbs=[At(3, 'save'), At(4, lambda: weights.append(copy.deepcopy(
        learn.model.state_dict())), event='after_batch'), At(12, 'save', train=False)])
    assert sorted(os.listdir(tmp_path/'models')) == ['saved-batch12.pth', 'saved-batch3.pth']
    end = learn.model.state_dict()
    fresh = learner(path=tmp_path).load('saved-batch12')
    assert same_state(fresh.model.state_dict(), end)
    fresh.load('saved-batch3')
    assert not same_state(fresh.model.state_dict(), end)


@pytest.mark.parametrize('every', ['epoch', 4])
def test_saves_a_checkpoint(tmp_path, every):
    learn = learner(quiet(), CheckpointCallback(every=every, keep=None), path=tmp_path)
    with pytest.raises(Killed): learn.fit(2, cbs=[At(2, 'save'), Kill('after_step', 4)])
    names = [o.name for _, o in numbered_files(tmp_path/'models/checkpoints')]
    assert names == ['000001-epoch0-batch2.pt']
    assert not (tmp_path/'models/saved-batch2.pth').exists()


def test_saves_in_a_pause(tmp_path):
    learn = learner(quiet(), CheckpointCallback(keep=None), path=tmp_path)
    folder, found = tmp_path/'models/checkpoints', []

    def somebody():
        control = learn.control
        while not control.paused: time.sleep(.01)
        control.save()
        while not numbered_files(folder): time.sleep(.01)
        found.append(learn.run.n_iter)
        control.go_on()
    thread = threading.Thread(target=somebody)
    learn.fit(1, cbs=[At(2, 'pause'), At(2, thread.start)])
    thread.join(60)
    assert found == [2]
    assert [o[0] for o in learn.recorder.interventions] == ['pause', 'save', 'go_on']


# ---- pausing -------------------------------------------------------------------------------------
def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(.01)


@pytest.mark.parametrize('train', [True, False])
def test_a_pause_from_another_thread(train):
    control, heard = quiet(), []
    learn = learner(control)
    class Hears(Callback):
        def __call__(self, event): heard.append(event)
    thread = threading.Thread(target=learn.fit, args=(3,), kwargs=dict(
        cbs=[Hears(), At(6, 'pause', train=train)]))
    thread.start()
    wait_for(lambda: control.paused)
    before = len(heard), learn.run.n_iter
    time.sleep(.5)
    assert (len(heard), learn.run.n_iter) == before, 'something happened in the pause'
    control.pause()  # twice is once
    control.go_on()
    thread.join(60)
    assert not thread.is_alive() and learn.run.n_iter == 3*BATCHES
    assert learn.recorder.interventions == [('pause', 6, None), ('go_on', 6, None)]


def test_stop_ends_a_pause():
    control = quiet()
    learn = learner(control)
    thread = threading.Thread(target=learn.fit, args=(3,), kwargs=dict(cbs=At(2, 'pause')))
    thread.start()
    wait_for(lambda: control.paused)
    control.stop()
    thread.join(60)
    assert learn.run.n_iter == 2 and learn.recorder.values[0][1] is not None


SCRIPT = '''
import sys
from test_control import learner, quiet, At
learn = learner(quiet())
try: learn.fit(2, cbs=[At(2, 'pause'), At(2, lambda: print('pausing', flush=True))])
except KeyboardInterrupt: print('interrupted', learn.run.n_iter, learn.opt.lr, learn.running)
learn.fit(1)
print(learn.run.n_iter)
'''


def test_an_interrupt_ends_a_pause():
    program = Program(SCRIPT)
    wait_for(lambda: program.stdout == 'pausing\n' or program.returncode, 300)
    time.sleep(.3)
    os.kill(program.process.pid, signal.SIGINT)
    assert program.end().stdout.split('\n')[1:3] == ['interrupted 2 0.1 False', '6'], program.stderr


# ---- files ---------------------------------------------------------------------------------------
def touch(path, text=''): path.write_text(text)


@pytest.mark.parametrize('files, done', [
    ({'stop': ''}, [('stop', None)]), ({'stop_epoch': ''}, [('stop_epoch', None)]),
    ({'rate': '0.5\n'}, [('rate', .5)]), ({'rate': ' 1e-1'}, [('rate', .1)]),
    ({'rate': 'half'}, []), ({'rate': '0'}, []), ({'rate': '\xff'}, []),
    ({'save': 'x', 'notes': ''}, [('save', None)]), ({'pause': '', 'go_on': ''},
                                                     [('pause', None), ('go_on', None)])])
def test_files(tmp_path, files, done):
    folder = tmp_path/'run'
    learn = learner(Looks(folder=folder), path=tmp_path)

    def write():
        for i, (name, text) in enumerate(files.items()):
            (folder/name).write_bytes(text.encode('latin1'))
            os.utime(folder/name, (1e9+i, 1e9+i))
    learn.fit(20, cbs=At(8, write))
    assert [(what, value) for what, _, value in learn.recorder.interventions] == done
    assert all(n >= 8 for _, n, _ in learn.recorder.interventions)
    assert os.listdir(folder) == (['notes'] if 'notes' in files else [])


def test_a_file_that_is_there_before(tmp_path):
    touch(tmp_path/'stop')
    learn = learner(quiet(folder=tmp_path))
    learn.fit(3)
    assert learn.run.n_iter == 1 and not os.listdir(tmp_path)
    learn.fit(1)
    assert learn.run.n_iter == BATCHES


def test_files_that_cannot_be_taken(tmp_path):
    (tmp_path/'stop').mkdir()
    os.mkfifo(tmp_path/'rate')
    (tmp_path/'save').symlink_to(tmp_path/'nowhere')
    assert take_files(tmp_path) == [] and take_files(tmp_path/'nowhere') == []
    learn = learner(quiet(folder=tmp_path))
    learn.fit(1)
    assert learn.run.n_iter == BATCHES


def test_a_factor_that_is_still_being_written(tmp_path):
    touch(tmp_path/'rate')
    os.utime(tmp_path/'rate', (time.time()+60,)*2)  # as new as can be, however slow we are
    assert take_files(tmp_path) == []
    touch(tmp_path/'rate', '2')
    assert take_files(tmp_path) == [('rate', '2')]
    touch(tmp_path/'rate')
    os.utime(tmp_path/'rate', (1e9, 1e9))
    assert take_files(tmp_path) == [('rate', '')]


@pytest.mark.parametrize('asked, wrong', [(('stopp',), "what='stopp'.*did you mean 'stop'"),
                                          (('rate', 0.), 'factor'), (('rate', 'x'), 'factor')])
def test_what_nobody_could_do_is_refused(asked, wrong):
    control = quiet()
    with pytest.raises(ValueError, match=wrong): control.ask(*asked)
    assert not control.requests and not control.asked


def test_the_folder_cannot_be_made(tmp_path):
    touch(tmp_path/'run')
    learn = learner(Control(folder=tmp_path/'run'))
    with pytest.raises(OSError): learn.fit(1)
    assert not learn.recorder.lrs


# ---- several controls, other runs ----------------------------------------------------------------
def test_two_controls_are_one(tmp_path):
    one, two = quiet(), Looks(folder=tmp_path, verbose=False)
    learn = learner(one, two)
    learn.fit(20, cbs=[At(3, one.rate, .5), At(3, two.rate, .5), At(5, touch, tmp_path/'stop')])
    assert learn.recorder.lrs[:5] == [.1]*3 + [.1*.25]*2
    assert [o[0] for o in learn.recorder.interventions][:3] == ['rate', 'rate', 'stop']
    assert one.interventions is two.interventions


def test_asked_before_the_fit():
    control = quiet()
    control.rate(.5)
    learn = learner(control)
    learn.fit(1)
    assert learn.recorder.lrs == [.1] + [.05]*5
    learn.fit(1)
    assert learn.recorder.lrs == [.1]*6


def test_without_a_recorder():
    from fastloop.all import Runner
    learn, control = learner(), quiet()
    learn.create_opt()
    Runner([control, At(3, control.stop)]).fit(2, learn)
    assert control.interventions == [('stop', 3, None)] and learn.run.n_iter == 3


def test_runs_inside_a_run_are_left_alone():
    inner = []
    class Asks(Callback):
        def after_batch(self):
            if self.run.n_iter == 4 and self.run.in_train:
                inner.append(self.learn.validate())
                self.learn.lr_find(num_it=6, show_plot=False)
    plain = learner(quiet(), At(2, 'rate', .5))
    plain.fit(2)
    learn = learner(quiet(), At(2, 'rate', .5), Asks())
    learn.fit(2)
    assert inner and learn.run.n_iter == 12
    assert [o[0] for o in learn.control.interventions] == ['rate']
    assert same_state(learn.model.state_dict(), plain.model.state_dict())


class KerasStyle:
    "A callback with Keras' words, which is bound anew when there is a factor"
    def __init__(self): self.batches, self.logs = [], []
    def set_model(self, model): pass
    def set_params(self, params): pass
    def on_train_batch_end(self, batch, logs=None): self.batches.append(batch)
    def on_epoch_end(self, epoch, logs=None): self.logs.append(sorted(logs))


class V1Style:
    "The same for fastai v1"
    def __init__(self): self.seen = []
    def on_batch_end(self, iteration, train, **kwargs):
        if train: self.seen.append(iteration)


def test_callbacks_of_other_libraries_hear_on():
    keras, v1 = KerasStyle(), V1Style()
    learner(quiet(), keras, v1, At(2, 'rate', .5), At(8, 'rate', 2.)).fit(2)
    assert keras.batches == [*range(6), *range(6)] and len(keras.logs) == 2
    plain = V1Style()
    learner(plain).fit(2)
    assert v1.seen == plain.seen


def test_copies_and_pickles():
    learn = learner(quiet(), At(2, 'rate', .5))
    learn.fit(1)
    other = copy.deepcopy(learn)
    assert other.recorder.interventions == [('rate', 2, .5)]
    other.fit(1)
    kept = pickle.loads(pickle.dumps(quiet(folder='run')))
    assert kept.folder == 'run' and kept.interventions == []


def test_one_handler_for_a_batch_until_something_is_asked_for():
    learn = learner(quiet())
    found = []
    class Sees(Callback):
        def after_epoch(self):
            found.append({e for e, o in self.run.handlers.items()
                          if any(cb is self.run.control for cb, _ in o)})
    learn.fit(1, cbs=Sees())
    assert found == [{'begin_fit', 'begin_epoch', 'after_batch', 'after_epoch', 'after_fit'}]


# ---- killed and taken up again -------------------------------------------------------------------
class Steers(Callback):
    "Somebody who steers a training in its first life: what is done, by the number of batches"
    order, plan = 95, {}
    def after_batch(self):
        if self.run.in_train and (o := self.plan.pop(self.run.n_iter, None)):
            getattr(self.run.control, o[0])(*o[1:])


plans = {'twice': {4: ('rate', .5), 9: ('rate', 3.)}, 'stop': {3: ('rate', .5), 8: ('stop',)},
         'epoch': {7: ('stop', 'epoch')}}


def steered(seed, path, plan=None, **kwargs):
    learn = make(seed, path, cbs=[quiet, *kwargs.pop('cbs', ())], **{'every': 1, **kwargs})
    if plan:
        steers = Steers()
        steers.plan = dict(plan)
        learn.add_cbs(steers)
    return learn


def check_steered(one, two):
    check_same(one, two)
    assert one.recorder.interventions == two.recorder.interventions


@pytest.mark.parametrize('plan', plans)
@pytest.mark.parametrize('every', [1, 4, 'epoch'])
@pytest.mark.parametrize('step', [4, pytest.param(1, marks=rare)])
def test_goes_on_as_steered(plan, every, step, tmp_path):
    whole = fit(steered(0, tmp_path/'whole', plans[plan], every=every))
    n, first = whole.run.n_iter, min(plans[plan])
    assert len(whole.recorder.interventions) == len(plans[plan])
    for k in range(first + 2, n + 1, step):
        path = tmp_path/f'{k}'
        left = {at: o for at, o in plans[plan].items()}
        learn = steered(0, path, left, every=every)
        with pytest.raises(Killed): fit(learn, cbs=Kill('after_step', k))
        rest = {at: o for at, o in plans[plan].items() if at >= k}  # the person goes on steering
        again = steered(9, path, rest, every=every)
        check_steered(whole, fit(again, resume=True))


@rare
@pytest.mark.parametrize('event', [o for o in events if not o.startswith('after_cancel')])
@pytest.mark.parametrize('order', [-1000, 1000])
def test_killed_anywhere_after_it_was_steered(event, order, tmp_path):
    plan = {2: ('rate', .5), 8: ('stop',)}
    whole = fit(steered(0, tmp_path/'whole', plan))
    for nth in (2, 9):
        path = tmp_path/f'{nth}'
        learn = steered(0, path, plan)
        try: fit(learn, cbs=Kill(event, nth, order))
        except Killed: pass
        if not numbered_files(path/'models/checkpoints'): continue
        done = {o[1] for o in learn.recorder.interventions}  # what was not done is asked for again
        left = {n: o for n, o in plan.items() if n not in done}
        check_steered(whole, fit(steered(9, path, left), resume=True))


@pytest.mark.parametrize('every', [2, 'epoch'])
@pytest.mark.parametrize('after', ['epoch', 'batch'])
def test_more_epochs_go_on_after_a_stop(after, every, tmp_path, capsys):
    plan = {2: ('rate', .5), 8: ('stop', after)}
    stopped = steered(0, tmp_path, plan, every=every)
    stopped.fit(4)
    assert len(stopped.recorder.values) == 2
    same = steered(1, tmp_path, every=every)
    same.checkpoints.verbose = True
    same.fit(4, resume=True)
    check_steered(stopped, same)
    said = capsys.readouterr().out
    assert 'has ended this fit after 2 of 4 epochs: nothing is left to do; a larger number' in said
    more = steered(2, tmp_path, every=every)
    more.fit(5, resume=True)
    assert len(more.recorder.values) == 5 and more.recorder.interventions[:2] == (
        stopped.recorder.interventions)
    whole = steered(0, tmp_path/'whole', {2: ('rate', .5)}, every=every)
    whole.fit(5)
    if after == 'epoch': check_same(whole, more)  # no batch was left out


schedule_cbs = {'one-cycle': partial(OneCycleScheduler, lr_max=.3),
                'torch': partial(TorchScheduler, make=partial(lr_scheduler.StepLR, step_size=1)),
                'plateau': partial(ReduceLROnPlateauCallback, factor=.5, mode='max', verbose=False),
                'measured': partial(TorchScheduler, make=partial(
                    lr_scheduler.ReduceLROnPlateau, mode='max', patience=0), monitor='valid_loss'),
                'window': partial(GradientAccumulation, n_batches=4),
                'short': partial(ShortEpoch, pct=.5)}


@pytest.mark.parametrize('schedule', schedule_cbs)
@pytest.mark.parametrize('every', [2, 'epoch'])
@pytest.mark.parametrize('k', [8, pytest.param(4, marks=rare)])
def test_goes_on_with_a_schedule(schedule, every, k, tmp_path):
    kwargs = dict(cbs=[schedule_cbs[schedule]], every=every)
    whole = fit(steered(0, tmp_path/'whole', {2: ('rate', .5)}, **kwargs))
    with pytest.raises(Killed):
        fit(steered(0, tmp_path, {2: ('rate', .5)}, **kwargs), cbs=Kill('after_step', k))
    check_steered(whole, fit(steered(9, tmp_path, **kwargs), resume=True))


# the others, and what holds for each kind, are in test_checkpoint
OFTEN = 'tensors', 'loader', 'weights', 'jumping', 'stateful'


@pytest.mark.parametrize('kind', [pytest.param(o, marks=() if o in OFTEN else rare)
                                  for o in data_kinds])
def test_goes_on_in_the_middle_of_any_loader(kind, tmp_path):
    kwargs = dict(data=data_kinds[kind], every='epoch')
    whole = fit(steered(0, tmp_path/'whole', {3: ('rate', .5)}, **kwargs))
    with pytest.raises(Killed): fit(steered(0, tmp_path, {3: ('rate', .5)}, **kwargs),
                                    cbs=Kill('after_step', 5))
    check_steered(whole, fit(steered(9, tmp_path, **kwargs), resume=True))


def test_nobody_to_go_on_with_it(tmp_path):
    with pytest.raises(Killed): fit(steered(0, tmp_path, {2: ('rate', .5)}),
                                    cbs=Kill('after_step', 5))
    learn = make(9, tmp_path, every=1)
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(ValueError, match='Control'): fit(learn, resume=True)
    assert same_state(before, learn.model.state_dict())


def test_a_control_may_come_and_go_where_nothing_was_steered(tmp_path):
    whole = fit(make(0, tmp_path/'whole'))
    for i, (one, two) in enumerate([(steered, make), (make, steered)]):
        path = tmp_path/f'{i}'
        with pytest.raises(Killed): fit(one(0, path), cbs=Kill('after_step', 5))
        check_same(whole, fit(two(9, path), resume=True))


def test_checkpoints_from_before(tmp_path):
    "A recorder's state without interventions can be read"
    learn = learner()
    learn.fit(1)
    state = learn.recorder.state_dict()
    assert state.pop('interventions') == []
    learn.recorder.load_state_dict(state)
    assert learn.recorder.interventions == []
