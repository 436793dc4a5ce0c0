"Event files, read back with TensorBoard's own reader: curves, histograms, graph, images, tables."
import copy
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import Breaks, check_faults, traits
from torch import nn
from torch.nn import functional as F

pytest.importorskip('tensorboard')

from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.tensorboard import SummaryWriter

from fastloop import event_files
from fastloop.callback.core import (
    Callback,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
)
from fastloop.callback.recorder import Recorder
from fastloop.callback.tensorboard import TensorBoardCallback
from fastloop.data.bunch import DataBunch
from fastloop.event_files import EventFiles, read_scalars
from fastloop.learner import Learner
from fastloop.metrics import accuracy
from fastloop.optimizer import SGD
from fastloop.runner import Runner
from fastloop.summaries import (
    add_model_graph,
    answer_table,
    bare_model,
    copy_to_trace,
    picture_grid,
    read_labels,
    tile_images,
    weight_image,
)

EVERYTHING = dict(histogram_freq=1, write_grads=True, write_images=True, embeddings_freq=1,
                  log_preds=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "File names count seconds, and waiting for the next one takes long: let each open take a second"
    clock = [int(time.time())]

    def new_second(folder):
        clock[0] += 1
    real = time.time
    monkeypatch.setattr(event_files, 'new_second', new_second)
    from tensorboard.summary.writer import event_file_writer
    fake = SimpleNamespace(**{k: getattr(time, k) for k in ('sleep', 'monotonic')},
                           time=lambda: max(real(), clock[0] + .5))
    monkeypatch.setattr(event_file_writer, 'time', fake)


class Net(nn.Module):
    "Images and words in, two classes out; batch norm and dropout leave traces when they are run"
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.words, self.drop = nn.Embedding(5, 3), nn.Dropout(.5)
        self.head = nn.Linear(4*4*4 + 3, 2)

    def forward(self, x, word):
        h = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.head(self.drop(torch.cat([h, self.words(word)], 1)))


def batches(n, seed, bs=8):
    g = torch.Generator().manual_seed(seed)
    return [((torch.randn(bs, 1, 6, 6, generator=g), torch.randint(5, (bs,), generator=g)),
             torch.randint(2, (bs,), generator=g)) for _ in range(n)]


def make(path, groups=False, n=5, n_valid=2, seed=0, **kwargs):
    "A learner with a small network"
    torch.manual_seed(seed)
    data = DataBunch(batches(n, 1), batches(n_valid, 2) if n_valid else None, c=2, path=path)
    model = Net()
    if groups: kwargs['splitter'] = lambda m: [[m.conv, m.norm, m.words], m.head]
    return Learner(data, model, F.cross_entropy, metrics=accuracy, silent=True, **kwargs)


def read(folder):
    "What TensorBoard reads in one folder, with everything kept"
    sizes = dict.fromkeys(('scalars', 'histograms', 'images', 'tensors', 'graph'), 0)
    return EventAccumulator(str(folder), sizes).Reload()


def scalars(folder, tag):
    return [(o.step, o.value) for o in read(folder).Scalars(tag)]


def close(pairs, steps, values):
    assert [o[0] for o in pairs] == list(steps)
    np.testing.assert_allclose([o[1] for o in pairs], values, rtol=1e-6)


others = set()  # threads that were there before a test


@pytest.fixture(autouse=True)
def know_others():
    others.clear()
    others.update(threading.enumerate())


def writer_threads():
    return [o for o in threading.enumerate()
            if 'AsyncWriter' in type(o).__name__ and o not in others]


# ---- curves --------------------------------------------------------------------------------------
def test_curves_are_the_recorders(tmp_path):
    learn = make(tmp_path)
    learn.fit(3, .1, cbs=TensorBoardCallback())
    rec, logs = learn.recorder, tmp_path/'logs'
    close(scalars(logs/'batches', 'batch/loss'), range(15), rec.raw_losses)
    close(scalars(logs/'batches', 'batch/lr'), range(15), rec.lrs)
    close(scalars(logs/'batches', 'batch/mom'), range(15), rec.moms)
    for i, tag in enumerate(rec.names):
        close(scalars(logs, tag), range(3), [o[i] for o in rec.values])
    assert set(read(logs).Tags()['scalars']) == {'train_loss', 'valid_loss', 'accuracy'}
    found = read_scalars(logs)
    assert set(found) == {*rec.names, 'batch/loss', 'batch/lr', 'batch/mom'}
    assert found['batch/loss'][0] == list(range(15))


def test_rates_of_every_layer_group_follow_a_schedule(tmp_path):
    class Ramp(Callback):
        def begin_batch(self):
            if self.in_train: self.opt.lr = [.1 + self.n_iter, .2 + self.n_iter]
    learn = make(tmp_path, groups=True)
    learn.fit(1, cbs=[Ramp(), TensorBoardCallback()])
    found = read_scalars(tmp_path/'logs')
    np.testing.assert_allclose(found['batch/lr_0'][1], [.1 + i for i in range(5)], rtol=1e-6)
    np.testing.assert_allclose(found['batch/lr_1'][1], [.2 + i for i in range(5)], rtol=1e-6)
    assert {'batch/mom_0', 'batch/mom_1'} <= set(found) and 'batch/lr' not in found


@pytest.mark.parametrize('every, steps', [(1, range(10)), (3, [0, 3, 6, 9]), (0, None)])
def test_every(tmp_path, every, steps):
    learn, board = make(tmp_path), TensorBoardCallback(every=every)
    learn.fit(2, .1, cbs=board)
    found = read_scalars(tmp_path/'logs')
    assert len(found['train_loss'][0]) == 2
    if steps is None: assert 'batch/loss' not in found and 'after_loss' not in vars(board)
    else:
        losses = [learn.recorder.raw_losses[i] for i in steps]
        np.testing.assert_allclose(found['batch/loss'][1], losses, rtol=1e-6)
        assert found['batch/loss'][0] == list(steps)


def test_the_loss_is_the_raw_one_even_if_somebody_scales_it(tmp_path):
    class Scales(Callback):
        def after_loss(self): self.run.loss = self.run.loss*1000
    learn = make(tmp_path)
    learn.fit(1, .001, cbs=[Scales(), TensorBoardCallback()])
    np.testing.assert_allclose(read_scalars(tmp_path/'logs')['batch/loss'][1],
                               learn.recorder.raw_losses, rtol=1e-6)
    assert max(learn.recorder.raw_losses) < 100


def test_cancelled_batches_leave_gaps_and_no_mix_up(tmp_path):
    class Skips(Callback):
        def begin_batch(self):
            if self.in_train and self.n_iter in (1, 2): return True
    learn = make(tmp_path)
    learn.fit(1, .1, cbs=[Skips(), TensorBoardCallback()])
    close(scalars(tmp_path/'logs'/'batches', 'batch/loss'), [0, 3, 4], learn.recorder.raw_losses)


@pytest.mark.parametrize('opt', [torch.optim.SGD, torch.optim.Adam])
def test_a_run_without_recorder_and_with_torchs_own_optimizer(tmp_path, opt):
    class Losses(Callback):
        def __init__(self): self.kept = []
        def after_loss(self):
            if self.in_train: self.kept.append(self.loss.item())
    learn = make(tmp_path)
    learn.opt, losses = opt(learn.model.parameters(), lr=.01), Losses()
    Runner([losses, TensorBoardCallback(log_dir=tmp_path/'x')]).fit(2, learn)
    found = read_scalars(tmp_path/'x')
    np.testing.assert_allclose(found['batch/loss'][1], losses.kept, rtol=1e-6)
    mom = 0. if opt is torch.optim.SGD else .9
    np.testing.assert_allclose(found['batch/mom'][1], mom, rtol=1e-6)
    assert 'train_loss' not in found


def test_long_epochs_are_written_in_bundles(tmp_path, monkeypatch):
    class Looks(Callback):
        order = 100
        def after_batch(self):
            if self.in_train: seen.append(len(scalars(tmp_path/'logs'/'batches', 'batch/loss'))
                                          if self.n_iter == 7 else None)
    seen = []
    monkeypatch.setattr(TensorBoardCallback, 'most', 3)
    make(tmp_path, n=7).fit(1, .1, cbs=[TensorBoardCallback(), Looks()])
    assert seen[-1] == 6 and len(scalars(tmp_path/'logs'/'batches', 'batch/loss')) == 7


def test_no_validation_no_columns(tmp_path):
    make(tmp_path, n_valid=0).fit(2, .1, cbs=TensorBoardCallback(**EVERYTHING))
    assert set(read(tmp_path/'logs').Tags()['scalars']) == {'train_loss'}
    assert not any(o.startswith('activations') for o in read(tmp_path/'logs').Tags()['histograms'])


def test_epoch_scalars_can_be_renamed_and_other_columns_come_along(tmp_path):
    class Norm(Callback):
        def begin_fit(self): self.learn.recorder.add_metric_names('norm')
        def after_epoch(self): self.learn.recorder.values[-1][-1] = torch.tensor(1.5)

    class Keras(TensorBoardCallback):
        def epoch_scalars(self):
            found = super().epoch_scalars()
            names = dict(train_loss='loss', valid_loss='val_loss', norm='n')
            return {new: found[old] for old, new in names.items()}
    make(tmp_path).fit(1, .1, cbs=[Keras(every=0), Norm()])
    assert set(read(tmp_path/'logs').Tags()['scalars']) == {'loss', 'val_loss', 'n'}
    assert scalars(tmp_path/'logs', 'n') == [(0, 1.5)]


def test_a_text_in_a_column_is_left_out(tmp_path):
    class Note(Callback):
        def begin_fit(self): self.learn.recorder.add_metric_names(['note', 'one'])
        def after_epoch(self):
            self.learn.recorder.values[-1][-2:] = ['warm-up', torch.ones(1)]
    make(tmp_path).fit(1, .1, cbs=[TensorBoardCallback(), Note()])
    assert {'valid_loss', 'one'} <= set(read(tmp_path/'logs').Tags()['scalars'])
    assert 'note' not in read(tmp_path/'logs').Tags()['scalars']


# ---- histograms ----------------------------------------------------------------------------------
def same_histogram(found, values):
    values = np.asarray(values, dtype=float).ravel()
    assert (found.num, sum(found.bucket)) == (values.size, values.size)
    np.testing.assert_allclose([found.min, found.max], [values.min(), values.max()], rtol=1e-6)
    np.testing.assert_allclose([found.sum, found.sum_squares], [values.sum(), (values**2).sum()],
                               rtol=1e-5, atol=1e-8)
    limits = np.asarray(found.bucket_limit)
    counts = [((values >= lo) & (values < hi)).sum() for lo, hi in zip(limits, limits[1:])]
    assert counts == list(found.bucket)[1:]


def test_histograms_of_weights(tmp_path):
    learn = make(tmp_path)
    learn.fit(1, .1, cbs=TensorBoardCallback(histogram_freq=1))
    reader = read(tmp_path/'logs')
    for name, p in learn.model.named_parameters():
        event, = reader.Histograms(f'weights/{name}')
        assert event.step == 0
        same_histogram(event.histogram_value, p.detach())


def test_histogram_freq_counts_epochs_from_0(tmp_path):
    make(tmp_path).fit(5, .1, cbs=TensorBoardCallback(histogram_freq=2, write_grads=True))
    reader = read(tmp_path/'logs')
    for tag in ('weights/head.weight', 'gradients/head.weight', 'activations/head'):
        assert [o.step for o in reader.Histograms(tag)] == [0, 2, 4]


def test_gradients_are_those_of_the_last_batch(tmp_path):
    "The weights before the last step and the last batch give the gradients anew"
    class Before(Callback):
        def begin_batch(self):
            if self.in_train and self.iter == self.iters-1: kept.append(copy.deepcopy(self.model))
    kept, learn = [], make(tmp_path)
    learn.model.drop.p = 0.
    learn.fit(2, .1, cbs=[Before(), TensorBoardCallback(histogram_freq=1, write_grads=True)])
    reader, ((x, word), yb) = read(tmp_path/'logs'), learn.data.train_dl[-1]
    for epoch, model in enumerate(kept):
        names, params = zip(*model.named_parameters())
        grads = torch.autograd.grad(F.cross_entropy(model(x, word), yb), params)
        for name, grad in zip(names, grads):
            event = reader.Histograms(f'gradients/{name}')[epoch]
            same_histogram(event.histogram_value, grad)


def test_gradients_of_a_loader_without_length(tmp_path):
    class Endless:
        def __iter__(self): return iter(batches(3, 1))
    learn = make(tmp_path)
    learn.data = SimpleNamespace(train_dl=Endless(), valid_dl=None)
    learn.fit(1, .1, cbs=TensorBoardCallback(histogram_freq=1, write_grads=True))
    assert len(read(tmp_path/'logs').Histograms('gradients/head.bias')) == 1


def test_a_cancelled_step_and_frozen_layers_have_no_gradients(tmp_path):
    class Last(Callback):
        def begin_step(self):
            if self.iter == self.iters-1: raise CancelStepException
    learn = make(tmp_path, groups=True)
    learn.freeze()
    learn.fit(1, .1, cbs=TensorBoardCallback(histogram_freq=1, write_grads=True))
    found = {o for o in read(tmp_path/'logs').Tags()['histograms'] if o.startswith('grad')}
    assert 'gradients/head.weight' in found and 'gradients/conv.weight' not in found
    other = make(tmp_path/'other')
    other.fit(1, .1, cbs=[Last(), TensorBoardCallback(histogram_freq=1, write_grads=True)])
    assert not [o for o in read(tmp_path/'other'/'logs').Tags()['histograms'] if o[0] == 'g']


def test_sparse_gradients_and_numbers_that_are_not_finite(tmp_path):
    learn = make(tmp_path)
    learn.model.words.sparse = True
    learn.model.extra = nn.Parameter(torch.tensor([1., float('nan'), float('inf'), -2.]))
    learn.model.lost = nn.Parameter(torch.full((3,), float('nan')))
    learn.opt_func, learn.wd = SGD, 0.
    learn.fit(1, .1, cbs=TensorBoardCallback(**EVERYTHING))
    reader = read(tmp_path/'logs')
    found, = reader.Histograms('weights/extra')
    same_histogram(found.histogram_value, [1, -2])
    assert 'weights/lost' not in reader.Tags()['histograms']
    assert 'gradients/words.weight' in reader.Tags()['histograms']


def test_activations_are_those_of_the_first_validation_batch(tmp_path):
    learn = make(tmp_path)
    learn.fit(1, .1, cbs=TensorBoardCallback(histogram_freq=1))
    model, ((x, word), _) = learn.model.eval(), learn.data.valid_dl[0]
    with torch.no_grad():
        conv = model.conv(x)
        expected = dict(conv=conv, norm=model.norm(conv), words=model.words(word),
                        head=model(x, word))
    reader = read(tmp_path/'logs')
    for name, values in expected.items():
        same_histogram(reader.Histograms(f'activations/{name}')[0].histogram_value, values)
    assert 'activations/drop' in reader.Tags()['histograms']


def test_a_layer_called_twice_and_a_model_that_is_one_layer(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x): return self.layer(self.layer(x))
    g = torch.Generator().manual_seed(0)
    dl = [(torch.randn(4, 3, generator=g), torch.randint(3, (4,), generator=g))]
    for model, tag, n in ((Twice(), 'layer', 24), (nn.Linear(3, 3), 'Linear', 12)):
        learn = Learner(DataBunch(dl, dl), model, F.cross_entropy, silent=True)
        learn.fit(1, cbs=TensorBoardCallback(log_dir=tmp_path/tag, histogram_freq=1))
        assert read(tmp_path/tag).Histograms(f'activations/{tag}')[0].histogram_value.num == n


# ---- the graph -----------------------------------------------------------------------------------
def test_the_graph_names_the_layers(tmp_path):
    learn = make(tmp_path)
    learn.fit(2, .1, cbs=TensorBoardCallback())
    names = ' '.join(o.name for o in read(tmp_path/'logs').Graph().node)
    for o in ('Conv2d[conv]', 'BatchNorm2d[norm]', 'Embedding[words]', 'Linear[head]'):
        assert f'Net/{o}' in names
    learn.fit(1, .1, cbs=TensorBoardCallback(log_dir=tmp_path/'none', write_graph=False))
    assert not read(tmp_path/'none').Tags()['graph']


def test_inputs_by_keyword(tmp_path):
    learn = make(tmp_path)
    for dl in (learn.data.train_dl, learn.data.valid_dl):
        dl[:] = [(dict(word=xb[1], x=xb[0]), yb) for xb, yb in dl]
    learn.fit(1, .1, cbs=TensorBoardCallback(**EVERYTHING))
    assert 'Conv2d[conv]' in ' '.join(o.name for o in read(tmp_path/'logs').Graph().node)


def test_a_model_that_cannot_be_traced_costs_one_warning(tmp_path, capsys):
    class Moody(Net):
        def forward(self, x, word):
            if torch.jit.is_tracing(): raise RuntimeError('not today')
            return super().forward(x, word)
    learn = make(tmp_path)
    learn.model = Moody()
    learn.split(None)
    with pytest.warns(UserWarning, match='no graph of Moody: tracing failed: not today') as found:
        learn.fit(2, .1, cbs=TensorBoardCallback())
    assert len([o for o in found if 'no graph' in str(o.message)]) == 1
    assert capsys.readouterr().out == '' and len(learn.recorder.values) == 2


def test_tracing_leaves_no_trace(tmp_path):
    class Counts(Net):
        calls = 0

        def forward(self, x, word):
            self.calls += 1
            torch.rand(1)
            return super().forward(x, word)
    model, called = Counts().train(), []

    class Owner:
        def hook(self, *args): called.append(1)
        def __deepcopy__(self, memo): raise AssertionError('copied what belongs to others')
    handle = model.conv.register_forward_hook(Owner().hook)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    (x, word), _ = batches(1, 0)[0]
    with SummaryWriter(tmp_path) as writer: assert add_model_graph(writer, model, (x, word))
    assert torch.equal(torch.get_rng_state(), rng) and model.calls == 0 and called == []
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(o.training for o in model.modules())
    copied = copy_to_trace(model)
    assert copied.conv.weight is model.conv.weight and not copied.conv._forward_hooks
    assert copied.norm.running_mean is not model.norm.running_mean and model.conv._forward_hooks
    handle.remove()


def test_parallel_and_compiled_models_are_unwrapped():
    model = Net()
    compiled = nn.Module()
    compiled._orig_mod = nn.DataParallel(model)
    assert bare_model(compiled) is model and bare_model(model) is model


# ---- images --------------------------------------------------------------------------------------
def test_images_are_pngs_of_the_weights(tmp_path):
    learn = make(tmp_path)
    learn.fit(2, .1, cbs=TensorBoardCallback(write_images=True))
    reader = read(tmp_path/'logs')
    event = reader.Images('images/head.weight')[-1]
    assert event.step == 1 and (event.width, event.height) == (67, 2)
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert('L'))/255
    weight = learn.model.head.weight.detach().numpy()
    expected = (weight-weight.min())/(weight.max()-weight.min())
    np.testing.assert_allclose(picture, expected, atol=1/255)
    kernels = reader.Images('images/conv.weight')[0]
    assert (kernels.width, kernels.height) == (4*4-1, 3)
    assert {o.step for o in reader.Images('images/conv.bias')} == {0, 1}


def test_images_come_as_often_as_histograms(tmp_path):
    make(tmp_path).fit(3, .1, cbs=TensorBoardCallback(write_images=True, histogram_freq=2))
    assert [o.step for o in read(tmp_path/'logs').Images('images/conv.weight')] == [0, 2]


def test_weight_images():
    weight = torch.arange(24.).reshape(4, 6)
    assert torch.equal(weight_image(weight), (weight/23)[None])
    assert torch.equal(weight_image(weight.T), (weight/23)[None])
    kernels = torch.rand(3, 2, 4, 5)
    image = weight_image(kernels)
    low, span = kernels.min(), kernels.max()-kernels.min()
    assert image.shape == (1, 3*5-1, 2*6-1)
    torch.testing.assert_close(image[0, 5:9, 6:11], (kernels[1, 1]-low)/span)
    assert weight_image(torch.rand(100, 100, 3, 3)).shape == (1, 32*4-1, 32*4-1)
    assert weight_image(torch.rand(10, 3, 7, 7)).shape == (3, 2*8-1, 8*8-1)
    assert weight_image(torch.rand(3, 2, 4)).shape == (1, 3*2-1, 2*5-1)
    assert weight_image(torch.zeros(5)).shape == (1, 1, 5) and not weight_image(torch.ones(5)).any()
    assert weight_image(torch.rand(3000, 700)).shape == (1, 350, 500)
    for bad in (torch.zeros(2, dtype=torch.long), torch.full((2,), float('nan')), torch.tensor(1.)):
        assert weight_image(bad) is None
    assert weight_image(torch.tensor([1., float('inf'), 3.])).isfinite().all()


def test_tiles():
    images = torch.arange(5.).reshape(5, 1, 1, 1).expand(5, 2, 2, 3)
    grid = tile_images(images, 3)
    assert grid.shape == (2, 2*3-1, 3*4-1)
    assert [grid[1, r*3, c*4].item() for r in range(2) for c in range(3)] == [0, 1, 2, 3, 4, 0]


def test_what_the_model_says(tmp_path):
    learn = make(tmp_path)
    learn.fit(1, .1, cbs=TensorBoardCallback(log_dir=tmp_path/'x', log_preds=True, n_preds=4))
    reader, ((x, word), yb) = read(tmp_path/'x'), learn.data.valid_dl[0]
    event, = reader.Images('preds/inputs')
    assert (event.width, event.height) == (13, 13)
    text = reader.Tensors('preds/classes/text_summary')[0].tensor_proto.string_val[0].decode()
    with torch.no_grad(): said = learn.model.eval()(x, word).argmax(1)[:4].tolist()
    assert text.splitlines()[2:] == [f'| {a} | {b} |' for a, b in zip(yb[:4].tolist(), said)]


def test_tables_are_about_classes_only():
    pred, targets = torch.eye(3), torch.tensor([0, 2, 1])
    table = answer_table(pred, targets, ['a|b', 'c\nd', 'e'])
    assert table.splitlines()[2:] == [r'| a\|b | a\|b |', '| e | c d |', '| c d | e |']
    assert answer_table(pred[:, 0], targets, None) is None
    assert answer_table(pred, targets.float(), None) is None
    assert answer_table(None, targets, None) is None
    ignored = answer_table(pred, torch.tensor([-100, 0, 1]), ['a', 'b', 'c'])
    assert ignored.splitlines()[2] == '| -100 | a |'
    assert picture_grid(torch.rand(4, 7)) is None
    assert picture_grid(torch.rand(4, 2, 3, 3)) is None
    assert picture_grid(torch.randint(255, (4, 3, 5, 5))).shape == (3, 11, 11)


# ---- embeddings ----------------------------------------------------------------------------------
def config(folder):
    return text_format.Parse((folder/'projector_config.pbtxt').read_text(), ProjectorConfig())


def test_embeddings_are_tables(tmp_path):
    learn = make(tmp_path)
    learn.fit(3, .1, cbs=TensorBoardCallback(embeddings_freq=2, embeddings_metadata=list('abcde')))
    logs = tmp_path/'logs'
    entries = config(logs).embeddings
    assert [o.tensor_name for o in entries] == ['words:00000', 'words:00002']
    table = np.loadtxt(logs/entries[1].tensor_path, delimiter='\t', dtype=np.float32)
    assert np.array_equal(table, learn.model.words.weight.detach().numpy())
    assert (logs/entries[1].metadata_path).read_text() == 'a\nb\nc\nd\ne\n'


def test_metadata_files(tmp_path):
    logs = tmp_path/'logs'
    logs.mkdir()
    (logs/'two.tsv').write_text('word\tkind\n' + ''.join(f'{o}\tx\n' for o in 'abcde'))
    for given in (dict(words='two.tsv'), 'two.tsv', logs/'two.tsv', dict(words=logs/'two.tsv')):
        board = TensorBoardCallback(embeddings_freq=1, embeddings_metadata=given,
                                    embeddings_layer_names='words')
        make(tmp_path).fit(1, .1, cbs=board)
        path = logs/config(logs).embeddings[0].metadata_path
        assert path.read_text() == (logs/'two.tsv').read_text()


@pytest.mark.parametrize('given, error, text', [
    (dict(embeddings_layer_names=['wrods']), ValueError,
     "'wrods'; did you mean 'words'.*it has: words"),
    (dict(embeddings_metadata={'wrods': 'x'}), ValueError, 'wrods'),
    (dict(embeddings_metadata=['a', 'b']), ValueError, '2 labels for 5 rows'),
    (dict(embeddings_metadata='nowhere.tsv'), FileNotFoundError, 'nowhere.tsv')])
def test_embeddings_that_do_not_fit_are_refused_at_once(tmp_path, given, error, text):
    learn = make(tmp_path)
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(error, match=text):
        learn.fit(1, .1, cbs=TensorBoardCallback(embeddings_freq=1, **given))
    assert not (tmp_path/'logs').exists()
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    learn.fit(1, .1, cbs=TensorBoardCallback(**given))  # nobody asked for embeddings


def test_labels_are_lines():
    assert read_labels(['a\tb', 'c\nd', 3], 3) == ['a b', 'c d', '3']
    with pytest.raises(ValueError, match='0 labels for 2 rows'): read_labels([], 2)


def test_a_model_without_embeddings_has_none_to_write(tmp_path):
    dl = [(torch.randn(4, 3), torch.randint(2, (4,)))]
    learn = Learner(DataBunch(dl, dl, path=tmp_path), nn.Linear(3, 2), F.cross_entropy, silent=True)
    learn.fit(1, cbs=TensorBoardCallback(embeddings_freq=1, embeddings_layer_names=[]))
    assert not (tmp_path/'logs'/'projector_config.pbtxt').exists()


# ---- arguments -----------------------------------------------------------------------------------
@pytest.mark.parametrize('given, error, text', [
    (dict(write_grads=True), ValueError, 'write_grads=True needs histogram_freq above 0'),
    (dict(histogram_freq=-1), ValueError, 'histogram_freq=-1 must be .* of 0 or more'),
    (dict(embeddings_freq=-2), ValueError, 'embeddings_freq=-2 must be .* of 0 or more'),
    (dict(every=-1), ValueError, 'every=-1 must be .* of 0 or more'),
    (dict(every=.5), ValueError, 'every=0.5 must be a whole number'),
    (dict(n_preds=True), ValueError, 'n_preds'),
    (dict(learn='./logs'), TypeError, "log_dir='./logs'")])
def test_bad_arguments(given, error, text):
    with pytest.raises(error, match=text): TensorBoardCallback(**given)


def test_without_tensorboard_the_extra_is_named(monkeypatch, tmp_path):
    for name in [o for o in sys.modules if o.split('.')[0] == 'tensorboard'
                 or o.startswith('torch.utils.tensorboard')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'tensorboard', None)
    for use in (TensorBoardCallback, lambda: read_scalars(tmp_path)):
        with pytest.raises(ImportError, match=r'pip install "fastloop\[tensorboard\]"'): use()


def test_nothing_is_read_where_nothing_is(tmp_path):
    with pytest.raises(FileNotFoundError, match='no event files'): read_scalars(tmp_path)


# ---- the run is not changed ----------------------------------------------------------------------
@pytest.mark.parametrize('fits', [1, 2])
def test_weights_and_random_numbers_are_those_of_a_fit_without(tmp_path, fits):
    results = []
    for cbs in (None, TensorBoardCallback(log_dir=tmp_path/'x', **EVERYTHING)):
        learn = make(tmp_path)
        for _ in range(fits): learn.fit(2, .1, cbs=cbs)
        rec = learn.recorder
        results.append([*learn.model.state_dict().values(), torch.get_rng_state(),
                        torch.tensor(rec.raw_losses), torch.tensor(rec.values)])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_measuring_and_searching_write_nothing(tmp_path):
    learn = make(tmp_path, cbs=TensorBoardCallback(**EVERYTHING))
    learn.validate()
    learn.get_preds()
    learn.fit(0)
    Runner(learn.cbs).evaluate(learn.data.valid_dl, learn)
    assert TensorBoardCallback.in_lr_find is False
    assert not (tmp_path/'logs').exists() and writer_threads() == []


def test_no_handler_for_batches_where_there_is_nothing_to_do(tmp_path):
    learn, board = make(tmp_path), TensorBoardCallback(every=0)
    learn.fit(1, .1, cbs=board)
    busy = {event for event, found in learn.run.handlers.items() if board in [o[0] for o in found]}
    assert busy == {'begin_fit', 'begin_epoch', 'begin_validate', 'after_validate', 'after_epoch',
                    'after_fit'}


def test_no_number_crosses_in_a_batch(tmp_path, monkeypatch):
    "Between the first and the last event of a batch no tensor is read"
    class Guard(Callback):
        order = -1000
        def begin_batch(self): guarded.append(True)
        def after_train(self): guarded.clear()
    guarded, real = [], torch.Tensor.item
    def guard(name, real):
        def read(self, *args, **kwargs):
            assert not guarded, f'{name} in a batch'
            return real(self, *args, **kwargs)
        return read
    for name in ('item', 'tolist', '__float__', 'cpu', 'numpy'):
        monkeypatch.setattr(torch.Tensor, name, guard(name, getattr(torch.Tensor, name)))
    learn = make(tmp_path, n_valid=0)
    learn.fit(1, .1, cbs=[TensorBoardCallback(write_graph=False), Guard()])
    monkeypatch.undo()
    assert real is torch.Tensor.item and len(learn.recorder.raw_losses) == 5


# ---- more than one fit ---------------------------------------------------------------------------
def test_steps_go_on(tmp_path):
    learn = make(tmp_path, cbs=TensorBoardCallback(embeddings_freq=1, every=2))
    learn.fit(2, .1)
    learn.fit(1, .1)
    logs = tmp_path/'logs'
    assert [o[0] for o in scalars(logs, 'valid_loss')] == [0, 1, 2]
    assert [o[0] for o in scalars(logs/'batches', 'batch/loss')] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len(config(logs).embeddings) == 3


def test_steps_go_on_after_a_fit_that_broke(tmp_path):
    learn, board = make(tmp_path), TensorBoardCallback()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, .1, cbs=[board, Breaks('after_backward', KeyboardInterrupt, 0, nth=8)])
    losses = learn.recorder.raw_losses
    assert len(losses) == 8
    close(scalars(tmp_path/'logs'/'batches', 'batch/loss'), range(8), losses)
    learn.fit(1, .1, cbs=board)
    steps = [o[0] for o in scalars(tmp_path/'logs'/'batches', 'batch/loss')]
    assert steps == list(range(13))
    assert [o[0] for o in scalars(tmp_path/'logs', 'train_loss')] == [0, 1]


def test_state_is_plain_and_carries_steps(tmp_path):
    learn, board = make(tmp_path), TensorBoardCallback()
    learn.fit(2, .1, cbs=board)
    torch.save(board.state_dict(), tmp_path/'state.pth')
    other = TensorBoardCallback()
    other.load_state_dict(torch.load(tmp_path/'state.pth', weights_only=True))
    make(tmp_path).fit(1, .1, cbs=other)
    assert [o[0] for o in scalars(tmp_path/'logs', 'train_loss')] == [0, 1, 2]
    assert len(read_scalars(tmp_path/'logs')['batch/loss'][0]) == 15


class Loader:
    "Five batches; goes on after the first `skip` ones, once"
    skip = 0

    def __len__(self): return 5

    def __iter__(self):
        skip, self.skip = self.skip, 0
        return iter(batches(5, 1)[skip:])


class Saves(Callback):
    "Stands in for the checkpoints: keeps everything after batch `at`, or puts it back"
    def __init__(self, at=None, kept=None): self.at, self.kept = at, kept or {}

    def begin_fit(self):
        if self.at is not None: return
        self.run.first_epoch, self.run.n_iter = self.kept['epoch'], self.kept['n_iter']
        self.run.first_iter = self.learn.data.train_dl.skip = self.kept['iter']
        self.learn.model.load_state_dict(self.kept['model'])
        for cb in self.run.cbs:
            if hasattr(cb, 'load_state_dict'): cb.load_state_dict(self.kept[type(cb).__name__])

    def after_batch(self):
        if self.at is None or not self.in_train or self.n_iter != self.at: return
        self.kept.update(epoch=self.epoch, n_iter=self.n_iter, iter=self.iter+1,
                         model=copy.deepcopy(self.model.state_dict()))
        for cb in self.run.cbs:
            if hasattr(cb, 'state_dict'):
                self.kept[type(cb).__name__] = copy.deepcopy(cb.state_dict())


@pytest.mark.parametrize('order', [0, 100])
@pytest.mark.parametrize('at', [3, 7, 9])
def test_a_restart_goes_on_and_what_was_written_twice_is_gone(tmp_path, at, order):
    "Broken off in epoch 2, taken up from a checkpoint in an earlier epoch, in the same folder"
    learn, saves = make(tmp_path), Saves(at=at)
    learn.data.train_dl, saves.order = Loader(), order
    broken = Breaks('after_backward', KeyboardInterrupt, 0, nth=13)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(4, .1, cbs=[TensorBoardCallback(histogram_freq=1), saves, broken])
    logs, first = tmp_path/'logs', dict(read_scalars(tmp_path/'logs'))
    assert first['batch/loss'][0] == list(range(13)) and first['train_loss'][0] == [0, 1]
    again, back = make(tmp_path, seed=5), Saves(kept=saves.kept)
    again.data.train_dl, back.order = Loader(), order
    again.fit(4, .1, cbs=[TensorBoardCallback(histogram_freq=1), back])
    for folder, tag, steps in ((logs, 'train_loss', range(4)), (logs, 'valid_loss', range(4)),
                               (logs/'batches', 'batch/loss', range(20))):
        assert [o[0] for o in scalars(folder, tag)] == list(steps)
    raw = again.recorder.raw_losses
    loss = dict(scalars(logs/'batches', 'batch/loss'))
    np.testing.assert_allclose([loss[i] for i in range(at)], first['batch/loss'][1][:at])
    np.testing.assert_allclose([loss[i] for i in range(20)], raw, rtol=1e-6)
    assert [o.step for o in read(logs).Histograms('weights/head.bias')] == [0, 1, 2, 3]
    assert sum(1 for f in logs.glob('events.*') if b'Conv2d[conv]' in f.read_bytes()) == 1


# ---- everything is put back ----------------------------------------------------------------------
def test_faults(tmp_path):
    count = [0]

    def fresh():
        count[0] += 1
        return make(tmp_path/str(count[0]), n=2, n_valid=1)

    def check(learn, cb):
        assert writer_threads() == [] and cb.files is None
        assert cb.watch.hooks == [] and cb.numbers.waiting == []
    check_faults(fresh, lambda learn: TensorBoardCallback(write_graph=False, **EVERYTHING),
                 check=check, nth=(1,))


@pytest.mark.parametrize('event', ['begin_batch', 'after_pred', 'begin_validate', 'after_validate'])
def test_faults_with_a_graph(tmp_path, event):
    for error in (RuntimeError, KeyboardInterrupt):
        learn = make(tmp_path/error.__name__)
        board, before = TensorBoardCallback(**EVERYTHING), traits(learn)
        with pytest.raises(error): learn.fit(2, .1, cbs=[board, Breaks(event, error, -500)])
        after = traits(learn)
        assert (before['hooks'], before['modes']) == (after['hooks'], after['modes'])
        assert writer_threads() == []
        learn.fit(1, .1, cbs=board)


@pytest.mark.parametrize('event, error', [
    ('begin_epoch', CancelEpochException), ('begin_train', CancelTrainException),
    ('begin_batch', CancelFitException), ('begin_validate', CancelEpochException),
    ('after_epoch', CancelFitException), ('after_pred', CancelTrainException)])
@pytest.mark.parametrize('order', [-500, 500])
def test_phases_that_are_broken_off(tmp_path, event, error, order):
    class Cancels(Callback):
        pass

    def cancel(self):
        if event != 'after_pred' or self.in_train: raise error
    setattr(Cancels, event, cancel)
    Cancels.order = max(order, -9) if event == 'begin_epoch' else order
    learn, board = make(tmp_path), TensorBoardCallback(**EVERYTHING)
    before = traits(learn)['hooks']
    learn.fit(2, .1, cbs=[board, Cancels()])
    assert traits(learn)['hooks'] == before and writer_threads() == []
    learn.fit(1, .1, cbs=board)
    assert read_scalars(tmp_path/'logs')['train_loss'][0]


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path/'logs').write_text('a file')
    learn = make(tmp_path)
    before = copy.deepcopy(learn.model.state_dict())
    with pytest.raises(OSError): learn.fit(1, .1, cbs=TensorBoardCallback())
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert writer_threads() == []


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_full_disk_costs_a_warning_and_no_training(tmp_path, monkeypatch):
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
    real = LocalFileSystem.append

    def append(self, *args, **kwargs):
        if full: raise OSError(28, 'No space left on device')
        return real(self, *args, **kwargs)

    class Fills(Callback):
        def begin_epoch(self):
            if self.epoch == 1: full.append(True)
    full, learn, board = [], make(tmp_path), TensorBoardCallback(**EVERYTHING)
    monkeypatch.setattr(LocalFileSystem, 'append', append)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        learn.fit(4, .1, cbs=[board, Fills()])
    texts = [str(o.message) for o in found if 'TensorBoardCallback' in str(o.message)]
    assert any('stops writing' in o and 'No space left' in o for o in texts) and len(texts) <= 2
    assert len(learn.recorder.values) == 4 and writer_threads() == []
    assert read_scalars(tmp_path/'logs')['train_loss'][0] == [0]
    full.clear()
    learn.fit(1, .1, cbs=board)
    assert len(read_scalars(tmp_path/'logs')['train_loss'][0]) == 2


def test_what_was_written_by_the_end_of_an_epoch_survives_a_kill(tmp_path):
    class Dies(Callback):
        def begin_batch(self):
            if self.in_train and self.n_iter == 12: os.kill(os.getpid(), signal.SIGKILL)

    def train(): make(tmp_path).fit(4, .1, cbs=[TensorBoardCallback(**EVERYTHING), Dies()])
    process = multiprocessing.get_context('fork').Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    learn = make(tmp_path/'same')
    learn.fit(2, .1)
    close(scalars(tmp_path/'logs', 'valid_loss'), range(2), [o[1] for o in learn.recorder.values])
    losses = scalars(tmp_path/'logs'/'batches', 'batch/loss')
    assert [o[0] for o in losses][:10] == list(range(10))
    assert len(read(tmp_path/'logs').Histograms('gradients/conv.weight')) == 2


def test_a_board_that_is_attached_while_a_fit_runs(tmp_path):
    class Attach(Callback):
        def after_train(self):
            if self.run.epoch == 0: self.learn.add_cbs(board)
    learn, board = make(tmp_path), TensorBoardCallback(histogram_freq=1, write_grads=True)
    for _ in range(2):
        learn.fit(3, .1, cbs=Attach())
        learn.remove_cbs(board)
    found = read_scalars(tmp_path/'logs')
    assert writer_threads() == [] and found['batch/loss'][0][-1] > 10


def test_both_files_are_open_or_none(tmp_path, monkeypatch):
    (tmp_path/'logs').mkdir()
    (tmp_path/'logs'/'batches').write_text('a file')
    files = EventFiles(tmp_path/'logs')
    with pytest.raises(OSError): files.open()
    assert not files.is_open and not files.writers and writer_threads() == []
    files.close()
    files.end()


def test_files_of_one_second_do_not_share_it(tmp_path, monkeypatch):
    monkeypatch.undo()
    learn, board = make(tmp_path), TensorBoardCallback()
    for _ in range(2): learn.fit(1, .1, cbs=board)
    seconds = [o.name.split('.')[3] for o in (tmp_path/'logs').glob('events.*')]
    assert len(seconds) == len(set(seconds)) == 2


def test_two_boards_in_two_folders(tmp_path):
    learn = make(tmp_path)
    learn.fit(1, .1, cbs=[TensorBoardCallback(log_dir=tmp_path/o, **EVERYTHING) for o in 'ab'])
    a, b = (read_scalars(tmp_path/o) for o in 'ab')
    assert a == b and isinstance(learn.recorder, Recorder)


class Late(Callback):
    "Fails in the first batch, or later"
    def __init__(self, n): self.n = n

    def after_pred(self):
        if self.run.n_iter == self.n: raise KeyError('late')


@pytest.mark.parametrize('before', [False, True])
@pytest.mark.parametrize('failing', ['loss', 'callback', 'later'])
def test_a_fit_without_a_batch_leaves_no_files(failing, before, tmp_path):
    learn = make(tmp_path)
    if before: learn.fit(1, .1, cbs=TensorBoardCallback())
    there = sorted(tmp_path.rglob('*'))
    if failing == 'loss': learn.loss_func = nn.L1Loss()
    cbs = [TensorBoardCallback(**EVERYTHING), *([] if failing == 'loss' else [
        Late(0 if failing == 'callback' else 1)])]
    with pytest.raises((ValueError, KeyError)): learn.fit(1, .1, cbs=cbs)
    if failing == 'later': assert len(sorted(tmp_path.rglob('events.*'))) == 2 + 2*before
    else: assert sorted(tmp_path.rglob('*')) == there
