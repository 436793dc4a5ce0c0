"""What only a CUDA GPU can show: `make test-gpu`.

Nothing in a step waits for the GPU, batches come from the host beside its work, training in 16
bits, going on exactly where a fit was broken off, one process of NCCL, and two where there are two
GPUs. What can be told without a GPU is in test_waits.py and test_fetch.py.
"""
import contextlib
import importlib.util
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastloop.callback.core import Callback
from fastloop.callback.logger import CSVLogger
from fastloop.callback.progress import ProgressCallback
from fastloop.callback.save import SaveModelCallback
from fastloop.callback.terminate import TerminateOnNaNCallback
from fastloop.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateauCallback
from fastloop.callback.training import GradientAccumulation, GradientClipping
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.fetch import SideStream
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD, AdamW
from fastloop.torch_core import rng_state, set_rng_state, set_seed
from fastloop.train import lr_find  # noqa: F401  its room hangs the verbs on the learner

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')]
N, BS = 512, 32


@pytest.fixture
def gpu(): return torch.device('cuda', torch.cuda.current_device())


@contextlib.contextmanager
def exact():
    "One result for one computation"
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try: yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.deterministic = before[1]


def tensors():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 5, (N,), generator=g)
    x = torch.randn(N, 3, 8, 8, generator=g) + y[:, None, None, None]/4
    return x, y, x[:200], y[:200]


def data(kind, gpu, **kwargs):
    "The same batches, from the GPU or from the host"
    x, y, xv, yv = tensors()
    if kind == 'device': return DataBunch.from_tensors(x, y, xv, yv, bs=BS, device=gpu, seed=3)
    if kind == 'host':
        return DataBunch(TensorLoader(x, y, bs=BS, shuffle=True, seed=3),
                         TensorLoader(xv, yv, bs=2*BS), device=gpu)
    how = dict(generator=torch.Generator().manual_seed(3), **kwargs)
    return DataBunch(DataLoader(TensorDataset(x, y), BS, shuffle=True, **how),
                     DataLoader(TensorDataset(xv, yv), 2*BS, **kwargs), device=gpu)


def network(gpu, drop=.1):
    set_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(drop), nn.Linear(8*36, 5)).to(gpu)


def learner(gpu, tmp_path, kind='device', **kwargs):
    kwargs = dict(metrics=[accuracy], path=tmp_path, silent=True) | kwargs
    return Learner(data(kind, gpu), network(gpu), nn.CrossEntropyLoss(), **kwargs)


def weights(learn): return {k: v.cpu().clone() for k, v in learn.model.state_dict().items()}


def assert_equal(a, b, **close):
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], **(close or dict(atol=0, rtol=0)))


# ---- nothing waits -------------------------------------------------------------------------------
class NoWaiting(Callback):
    "From the second batch of each pass to its last, waiting for the GPU is an error"
    order = 1e9

    def __init__(self):
        super().__init__()
        self.watched = 0

    def after_pred(self): pass  # so that it takes part where a validation stands alone

    def after_batch(self):
        last = self.run.iter == self.run.iters - 1
        torch.cuda.set_sync_debug_mode('default' if last else 'error')
        self.watched += not last

    def leave(self): torch.cuda.set_sync_debug_mode('default')

    after_cancel_batch = after_cancel_train = after_cancel_validate = after_fit = leave


class Bar(ProgressCallback):
    "Drawn at every batch"
    interval = 0.


KINDS = ['device', 'host', 'loader']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('opt_func', [SGD, AdamW])
def test_a_fit_waits_for_nothing_in_a_step(kind, opt_func, gpu, tmp_path, capfd):
    "Recorder, one-cycle, bar, CSV, saving of the best"
    watch = NoWaiting()
    learn = learner(gpu, tmp_path, kind, opt_func=opt_func)
    learn.fit_one_cycle(2, .01, cbs=[Bar(mode='terminal'), CSVLogger(), SaveModelCallback(),
                                     watch])
    assert watch.watched == 2*(15 + 3)
    assert len(learn.recorder.losses) == 32 and learn.recorder.values[-1][0] < 1.7


@pytest.mark.parametrize('make', [
    lambda: EarlyStoppingCallback(patience=5), lambda: ReduceLROnPlateauCallback(patience=0),
    lambda: TerminateOnNaNCallback(), lambda: GradientClipping(clip=.1),
    lambda: GradientAccumulation(n_batches=2)])
def test_other_callbacks_wait_for_nothing_in_a_step(make, gpu, tmp_path):
    watch = NoWaiting()
    learner(gpu, tmp_path).fit(2, .01, cbs=[make(), watch])
    assert watch.watched


def test_a_validation_waits_for_nothing_in_between(gpu, tmp_path):
    learn, watch = learner(gpu, tmp_path), NoWaiting()
    learn.cbs.append(watch)
    found = learn.validate()
    assert watch.watched == 3 and all(o == o for o in map(float, found[:2]))


def test_a_label_without_output_is_found_in_the_first_batch(gpu, tmp_path):
    learn = learner(gpu, tmp_path)
    learn.data.train_dl.tensors[1].fill_(7)
    with pytest.raises(ValueError, match='label 7 has no output'): learn.fit(1)
    torch.cuda.synchronize()  # and the GPU is still usable
    learn.data.train_dl.tensors[1].fill_(2)
    learn.fit(1)


def test_a_loss_that_is_no_number_ends_the_fit(gpu, tmp_path):
    class Spoil(Callback):
        def after_loss(self):
            if self.run.in_train and self.run.n_iter == 5: self.run.loss = self.run.loss/0*0
    learn = learner(gpu, tmp_path)
    learn.fit(3, .01, cbs=[Spoil(), TerminateOnNaNCallback(n_batches=4)])
    assert learn.n_iter < 16


# ---- batches from the host -----------------------------------------------------------------------
def test_where_the_data_lies_changes_no_number(gpu, tmp_path):
    "On the GPU and on the host with batches on their way"
    found = []
    with exact():
        for kind in ('device', 'host'):
            learn = learner(gpu, tmp_path, kind)
            set_seed(4)
            learn.fit(2, .01)
            found.append((weights(learn), learn.recorder.raw_losses, learn.get_preds()[0]))
    assert_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] and torch.equal(found[0][2], found[1][2])


@pytest.mark.parametrize('how', [dict(), dict(num_workers=2), dict(pin_memory=True)])
def test_batches_of_torchs_loader_arrive_whole(how, gpu, tmp_path):
    "Those that the loop over the same loader gives, on the GPU, while it is kept busy"
    seen, busy = [], torch.randn(2000, 2000, device=gpu)
    class See(Callback):
        def begin_batch(self):
            if not self.run.in_train: return
            assert self.run.xb.device == gpu and self.run.yb.device == gpu
            for _ in range(5): busy.mm(busy)
            seen.append((self.run.xb.clone(), self.run.yb.clone()))
    bunch = data('loader', gpu, **how)
    Learner(bunch, network(gpu), nn.CrossEntropyLoss(), silent=True, path=tmp_path).fit(
        2, cbs=[See()])
    plain, expected = data('loader', gpu, **how).train_dl, []
    for _ in range(2): expected += [(x, y) for x, y in plain]
    assert len(seen) == len(expected) == 32
    for (xa, ya), (xb, yb) in zip(seen, expected, strict=True):
        assert torch.equal(xa.cpu(), xb) and torch.equal(ya.cpu(), yb)


def test_memory_of_a_batch_is_not_given_away_too_early(gpu):
    side, total = SideStream(gpu), torch.zeros((), device=gpu)
    busy = torch.randn(3000, 3000, device=gpu)
    for i in range(50):
        batch = side.finish(side.start((torch.full((1000, 100), float(i)), torch.tensor([i]))))
        busy.mm(busy)
        total += batch[0].mean() + batch[1][0]
        del batch
    assert total.item() == 2*sum(range(50))


# ---- in 16 bits ----------------------------------------------------------------------------------
@pytest.mark.parametrize('verb', ['to_fp16', 'to_bf16'])
def test_training_in_16_bits(verb, gpu, tmp_path):
    if verb == 'to_bf16' and not torch.cuda.is_bf16_supported(): pytest.skip('no bfloat16 here')
    full, half = learner(gpu, tmp_path), learner(gpu, tmp_path)
    full.fit(3, .005)
    getattr(half, verb)().fit(3, .005)
    a, b = (o.recorder.values[-1] for o in (full, half))
    assert abs(a[0] - b[0]) < .1 and {o.dtype for o in half.model.parameters()} == {torch.float32}
    assert half.get_preds()[0].dtype == torch.float32


def test_bfloat16_waits_for_nothing_in_a_step(gpu, tmp_path):
    if not torch.cuda.is_bf16_supported(): pytest.skip('no bfloat16 here')
    watch = NoWaiting()
    learner(gpu, tmp_path).to_bf16().fit(2, .01, cbs=[watch])
    assert watch.watched


# ---- answers -------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', KINDS)
def test_answers_are_on_the_cpu_and_those_of_the_plain_loop(kind, gpu, tmp_path):
    learn = learner(gpu, tmp_path, kind)
    preds, targets = learn.get_preds()
    assert preds.device.type == targets.device.type == 'cpu'
    x, y = tensors()[2:]
    learn.model.eval()
    with torch.no_grad(): expected = learn.model(x.to(gpu)).cpu()
    torch.testing.assert_close(preds, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(targets, y)
    loss, score = map(float, learn.validate()[:2])
    assert loss == pytest.approx(nn.functional.cross_entropy(expected, y).item(), abs=1e-3)
    assert score == pytest.approx((expected.argmax(1) == y).float().mean().item(), abs=.02)


def test_the_finder_leaves_chance_and_weights(gpu, tmp_path):
    learn = learner(gpu, tmp_path, 'host')
    before, numbers = weights(learn), torch.cuda.get_rng_state()
    learn.lr_find(num_it=10, show_plot=False)
    assert_equal(weights(learn), before)
    assert torch.equal(torch.cuda.get_rng_state(), numbers)


# ---- exactly on ----------------------------------------------------------------------------------
class Stop(Callback):
    order = 1e6

    def __init__(self, at):
        super().__init__()
        self.at = at

    def after_batch(self):
        if self.run.in_train and self.run.n_iter == self.at: raise KeyboardInterrupt


def test_random_numbers_of_every_gpu_go_on(gpu):
    devices = range(torch.cuda.device_count())
    set_seed(5)
    state = rng_state()
    first = [torch.rand(3, device=f'cuda:{i}').tolist() for i in devices]
    set_rng_state(state)
    assert [torch.rand(3, device=f'cuda:{i}').tolist() for i in devices] == first


@pytest.mark.skipif(importlib.util.find_spec('fastloop.callback.checkpoint') is None,
                    reason='there are no checkpoints yet')
@pytest.mark.parametrize('kind', KINDS)
def test_a_fit_goes_on_bit_for_bit(kind, gpu, tmp_path):
    "Dropout on the GPU, batches fetched ahead, broken off in the middle of an epoch"
    from fastloop.callback.checkpoint import CheckpointCallback
    def make(folder): return learner(gpu, tmp_path/folder, kind)
    with exact():
        whole = make('a')
        set_seed(6)
        whole.fit(3, .01)
        broken = make('b')
        set_seed(6)
        with pytest.raises(KeyboardInterrupt):
            broken.fit(3, .01, cbs=[CheckpointCallback(every=7), Stop(24)])
        again = make('b')
        set_seed(99)
        again.fit(3, .01, cbs=[CheckpointCallback(every=7)], resume=True)
    assert_equal(weights(again), weights(whole))
    assert again.recorder.raw_losses == whole.recorder.raw_losses


# ---- what is trained and what it is measured with lie where the data are ------------------------
def weighed(): return torch.tensor([1., 2., 3., 1., .5])


def on_both(gpu, tmp_path, change=lambda learn: None, cbs=lambda: [], opt_func=SGD, **kwargs):
    "The same fit on the GPU and on the CPU"
    for device in (gpu, torch.device('cpu')):
        x, y, xv, yv = tensors()
        bunch = DataBunch.from_tensors(x, y, xv, yv, bs=BS, device=device, seed=3)
        how = dict(metrics=[accuracy], path=tmp_path/device.type, silent=True,
                   loss_func=nn.CrossEntropyLoss()) | kwargs
        learn = Learner(bunch, network('cpu', drop=0.), opt_func=opt_func, **how)
        change(learn)
        learn.fit(2, .01, cbs=cbs())
        yield learn


def assert_alike(one, other, tol=2e-3):
    assert {o.device.type for o in one.model.state_dict().values()} == {'cuda'}
    assert one.recorder.raw_losses == pytest.approx(other.recorder.raw_losses, abs=tol)
    for a, b in zip(one.recorder.values, other.recorder.values, strict=True):
        assert list(map(float, a)) == pytest.approx(list(map(float, b)), abs=.02)


def new_head(learn): learn.model[5] = nn.Linear(8*36, 5)


def new_model(learn): learn.model = network('cpu', drop=0.)


def new_loss(learn): learn.loss_func = nn.CrossEntropyLoss(weighed(), label_smoothing=.1)


@pytest.mark.parametrize('change', [new_head, new_model, new_loss])
def test_what_is_exchanged_before_a_fit_comes_along(change, gpu, tmp_path):
    def exchange(learn):
        torch.manual_seed(4)
        learn.fit(1, .01)
        change(learn)
    one, other = on_both(gpu, tmp_path, exchange)
    assert_alike(one, other)
    assert one.validate()[0] == pytest.approx(other.validate()[0], abs=2e-3)


def test_the_loss_of_a_validation_alone_comes_along(gpu, tmp_path):
    learn = learner(gpu, tmp_path)
    learn.loss_func = nn.CrossEntropyLoss(weighed())
    preds, targets, losses = learn.get_preds(with_loss=True)
    single = nn.functional.cross_entropy(preds, targets, weighed(), reduction='none')
    torch.testing.assert_close(losses, single, atol=1e-4, rtol=1e-3)
    assert learn.loss_func.weight.device == gpu


@pytest.mark.parametrize('loss_func', [
    partial(nn.functional.cross_entropy, weight=weighed()),
    lambda pred, yb: nn.functional.cross_entropy(pred, yb, weighed())])
def test_a_loss_with_a_tensor_elsewhere_is_told_the_remedy(loss_func, gpu, tmp_path):
    learn = learner(gpu, tmp_path)
    learn.loss_func = loss_func
    before = weights(learn)
    with pytest.raises((ValueError, RuntimeError)) as e: learn.fit(1)
    told = ' '.join([str(e.value), *getattr(e.value, '__notes__', [])])
    assert f"write .to('{gpu}')" in told and 'shapes' not in told
    assert_equal(weights(learn), before)


def of_fastai1():
    from fastloop.adapters.fastai1_names import Callback as V1
    class Penalty(V1):
        def on_backward_begin(self, last_loss, last_output, **kwargs):
            return dict(last_loss=last_loss + last_output.pow(2).mean()*.01)
    return [Penalty()]


def of_fastai2():
    class Penalty(Callback):
        def after_loss(self): self.learn.loss_grad = self.loss_grad + self.pred.pow(2).mean()*.01
        def before_batch(self): self.learn.xb = tuple(o + .1 for o in self.xb)
    return [Penalty()]


def of_keras():
    from fastloop.keras import callbacks
    return [callbacks.EarlyStopping(patience=3), callbacks.ReduceLROnPlateau(patience=0),
            callbacks.ModelCheckpoint('best.weights.h5')]


def of_this_library():
    from fastloop.callback.averages import EMACallback
    from fastloop.callback.tensorboard import TensorBoardCallback
    return [EMACallback(decay=.9), TensorBoardCallback(histogram_freq=1, write_graph=False),
            SaveModelCallback(), GradientClipping(clip=.1)]


@pytest.mark.parametrize('cbs', [of_fastai1, of_fastai2, of_keras, of_this_library])
@pytest.mark.parametrize('opt_func', [SGD, AdamW])
def test_callbacks_do_the_same_as_on_the_cpu(cbs, opt_func, gpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = on_both(gpu, tmp_path, cbs=cbs, opt_func=opt_func)
    assert_alike(one, other, 5e-3)


@pytest.mark.parametrize('name', ['MixUpCallback', 'CutMix'])
def test_mixing_draws_on_the_gpu(name, gpu, tmp_path):
    import fastloop.all
    learn = learner(gpu, tmp_path)
    learn.fit(2, .01, cbs=[getattr(fastloop.all, name)()])
    assert all(map(torch.isfinite, map(torch.tensor, learn.recorder.raw_losses)))


# ---- there and back ------------------------------------------------------------------------------
@pytest.mark.parametrize('with_opt', [True, False])
def test_weights_go_from_one_device_to_the_other(with_opt, gpu, tmp_path):
    one, other = on_both(gpu, tmp_path, opt_func=AdamW)
    other.path = one.path
    for a, b in ((one, other), (other, one)):
        a.fit(1, .01)
        a.save('there', with_opt=with_opt)
        b.load('there', with_opt=with_opt)
        assert_equal(weights(b), weights(a))
        b.fit(1, .01)  # the state of the optimizer has come along, too
    assert {o.device.type for o in one.model.state_dict().values()} == {'cuda'}


def test_a_checkpoint_of_the_gpu_goes_on_without_one(gpu, tmp_path):
    from fastloop.callback.checkpoint import CheckpointCallback
    one, other = on_both(gpu, tmp_path, cbs=lambda: [CheckpointCallback()], opt_func=AdamW)
    other.path = one.path
    other.fit(3, .01, resume=True)
    assert other.recorder.values[:2] == one.recorder.values and len(other.recorder.values) == 3
    assert {o.device.type for o in other.model.state_dict().values()} == {'cpu'}


def test_an_item_and_a_report(gpu, tmp_path):
    from fastloop.interpret import ClassificationInterpretation
    learn = learner(gpu, tmp_path)
    learn.fit(1, .01)
    x, y = tensors()[2:]
    cls, number, probs = learn.predict(x[0])
    assert probs.device.type == 'cpu' and probs.argmax() == number
    matrix = ClassificationInterpretation.from_learner(learn).confusion_matrix()
    assert matrix.sum() == len(y)


# ---- one process of NCCL -------------------------------------------------------------------------
def test_a_model_of_one_nccl_process_trains_as_without(gpu, tmp_path):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    if not dist.is_nccl_available(): pytest.skip('this torch has no NCCL')
    dist.init_process_group('nccl', init_method=f'file://{tmp_path}/meeting', rank=0, world_size=1)
    try:
        found = []
        with exact():
            for wrapped in (False, True):
                learn = learner(gpu, tmp_path)
                if wrapped: learn.model = DistributedDataParallel(learn.model, [gpu.index])
                set_seed(7)
                learn.fit(2, .01)
                found.append([v.detach().cpu() for v in learn.model.state_dict().values()])
        for a, b in zip(*found, strict=True): torch.testing.assert_close(a, b)
    finally: dist.destroy_process_group()


# ---- two processes of NCCL, a GPU each -----------------------------------------------------------
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two CUDA GPUs')
def test_two_gpus_are_one_loop_over_the_batches_of_both(tmp_path):
    import ranks
    import test_distributed as both
    names = 'sgd', 'adamw', 'sync_bn', 'accumulation', 'clipping', 'fsdp', 'fsdp, clipping'
    cases = [(f'agree {o}', partial(both.trained, device='cuda', **both.AGREE[o][0]))
             for o in names]
    found, _ = ranks.run(ranks.server('test_distributed'), str(tmp_path), cases)
    for name in names: both.check_agrees(found, name, 1e-4)


@pytest.mark.skipif(not hasattr(Learner, 'compile'), reason='there is no compiling yet')
@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
def test_compiled_steps_agree(mode, gpu, tmp_path):
    found = []
    for compiled in (False, True):
        learn = learner(gpu, tmp_path, opt_func=SGD)
        learn.model[4].p = 0.
        if compiled: learn.compile(mode=mode)
        learn.fit_one_cycle(2, .01)
        found.append(learn.recorder.raw_losses)
    assert found[0] == pytest.approx(found[1], abs=1e-3)
