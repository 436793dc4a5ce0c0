"A trained learner as one file: what it answers, what it refuses, and what it leaves alone"
import copy
import io
import json
import math
import pickle
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastloop.__main__ import main, ranked
from fastloop.callback.core import Callback
from fastloop.data.bunch import DataBunch
from fastloop.data.load import TensorLoader
from fastloop.export import Predictor, files_in, label_files
from fastloop.model_file import (
    is_arithmetic,
    is_plain_nest,
    parts_digest,
    read_parts,
    sealed,
    settings_name,
    strange_part,
    write_parts,
)
from fastloop.program import evaluation_copy
from fastloop.torch_core import call_model, map_tensors
from fastloop.train import Learner
from fastloop.vision.data import ImageDataBunch

Pair = namedtuple('Pair', 'a b')


class Batches:
    "Data of any structure: one batch, again and again"
    device, classes = torch.device('cpu'), None
    def __init__(self, xb, yb, classes=None):
        self.batch, self.train_dl, self.valid_dl = (xb, yb), [(xb, yb)], [(xb, yb)]
        self.classes = classes
    def one_batch(self, train=True): return self.batch


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)
    def forward(self, a, b): return self.a(a) + self.b(b).relu()


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.one, self.two = nn.Linear(3, 8), nn.Linear(8, 4), nn.Linear(8, 1)
    def forward(self, x):
        x = self.body(x).relu()
        return {'kind': self.one(x), 'more': [self.two(x), (x, None)]}


class Named(Heads):
    def forward(self, x): return Pair(*super().forward(x)['more'][:1]*2)


class Words(nn.Module):
    "Integer tokens, of any number"
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)
    def forward(self, x): return self.head(self.layers(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)
    def forward(self, x): return self.head(self.rnn(x)[0][:, -1])


def cnn():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Dropout2d(.3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(6, 3))


def mlp(n_out=3): return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(),
                                       nn.Dropout(.5), nn.Linear(8, n_out))


def numbers(*shape): return torch.randn(8, *shape)


KINDS = {  # a model, a batch, the loss, names of classes
    'mlp': (mlp, lambda: numbers(3), F.cross_entropy, ['a', 'b', 'c']),
    'cnn': (cnn, lambda: numbers(3, 8, 8), nn.CrossEntropyLoss(), ['a', 'b', 'c']),
    'channels last': (lambda: cnn().to(memory_format=torch.channels_last),
                      lambda: numbers(3, 8, 8), F.cross_entropy, None),
    'two inputs': (TwoInputs, lambda: (numbers(3), numbers(2)), F.cross_entropy, list('abcd')),
    'dict in': (TwoInputs, lambda: {'b': numbers(2), 'a': numbers(3)}, F.cross_entropy, None),
    'heads': (Heads, lambda: numbers(3), lambda pred, yb: pred['kind'].sum(), None),
    'named tuple': (Named, lambda: numbers(3), lambda pred, yb: pred[0].sum(), None),
    'words': (Words, lambda: torch.randint(0, 30, (8, 6)), F.cross_entropy, ['x', 'y', 'z']),
    'recurrent': (Recurrent, lambda: numbers(5, 3), F.cross_entropy, ['x', 'y']),
    'regression': (partial(mlp, 1), lambda: numbers(3), F.mse_loss, None),
    'several labels': (mlp, lambda: numbers(3), nn.BCEWithLogitsLoss(), ['a', 'b', 'c']),
    'one label': (partial(mlp, 1), lambda: numbers(3), nn.BCEWithLogitsLoss(), ['no', 'yes']),
    'log softmax': (lambda: nn.Sequential(mlp(), nn.LogSoftmax(1)), lambda: numbers(3),
                    nn.NLLLoss(), ['a', 'b', 'c']),
    'weight norm': (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
                    lambda: numbers(3), F.cross_entropy, None),
    'half': (lambda: mlp().bfloat16(), lambda: numbers(3).bfloat16(), F.cross_entropy, None),
}


def make(kind):
    torch.manual_seed(0)
    model, xb, loss, classes = KINDS[kind]
    xb, model = xb(), model()
    model.train()
    for _ in range(3): call_model(model, xb)  # batch norm has seen something
    data = Batches(xb, torch.zeros(8, dtype=torch.int64), classes)
    return Learner(data, model, loss, silent=True)


def rows(xb, at): return map_tensors(xb, lambda t: t[at])


def close(a, b):
    "Two answers, whatever they are made of"
    if isinstance(b, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(
            a.double(), b.double(), atol=1e-5)
    if isinstance(b, dict): return list(a) == list(b) and all(close(a[k], b[k]) for k in b)
    if isinstance(b, (tuple, list)): return len(a) == len(b) and all(map(close, a, b))
    return a == b


@pytest.fixture(scope='module')
def export_of(tmp_path_factory):
    "A function of a kind: its learner, and the file of it, which is written once"
    known = {}

    def find(kind):
        if kind not in known:
            learn = make(kind)
            known[kind] = learn, learn.export(tmp_path_factory.mktemp('export')/'model.pt2')
        return known[kind]
    return find


@pytest.fixture(scope='module', params=KINDS)
def exported(request, export_of):
    learn, file = export_of(request.param)
    return learn, Predictor.load(file, device='cpu')


def test_answers_are_those_of_the_learner(exported):
    learn, predictor = exported
    xb = learn.data.batch[0]
    for at in (slice(0, 8), slice(0, 1), slice(3, 6)):
        part = rows(xb, at)
        want, _ = learn.get_preds([(part, torch.zeros(len(range(8)[at]), dtype=torch.int64))])
        got, targets = predictor.get_preds(part)
        assert close(got, want) and targets is None
    one = rows(xb, 2)
    assert close(predictor.predict(one), learn.predict(one))


def test_a_long_batch_is_cut_and_put_together(exported):
    learn, predictor = exported
    xb = rows(learn.data.batch[0], [i % 8 for i in range(19)])
    want, _ = predictor.get_preds(xb, bs=19)
    assert close(predictor.get_preds(xb, bs=4)[0], want)
    items = [rows(xb, i) for i in range(5)]
    assert close(predictor.get_preds(items)[0], rows(want, slice(0, 5)))


class WithMean(nn.Linear):
    def forward(self, x):
        h = super().forward(x)
        return h, h.mean(), {'largest': h.argmax(1)}


def test_one_number_for_a_batch_becomes_a_number_for_each_batch(tmp_path):
    model, x = WithMean(3, 3), torch.randn(19, 3)
    learn = Learner(Batches(x[:8], torch.zeros(8).long()), model, lambda pred, yb: pred[1],
                    silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    with torch.no_grad(): parts = [model(o) for o in x.split(8)]
    for items in (x, list(x), iter(x.split(8))):
        h, mean, more = predictor.get_preds(items, bs=8)[0]
        assert torch.allclose(h, torch.cat([o[0] for o in parts]), atol=1e-6)
        assert mean.shape == (3,) and torch.allclose(mean, torch.stack([o[1] for o in parts]))
        assert torch.equal(more['largest'], h.argmax(1))


def test_loaders_with_targets_and_without(export_of):
    learn, file = export_of('two inputs')
    predictor = Predictor.load(file, 'cpu')
    xb, yb = learn.data.batch
    want, targets = learn.get_preds([(xb, yb), (rows(xb, slice(0, 3)), yb[:3])])
    got, found = predictor.get_preds(iter([(xb, yb), (rows(xb, slice(0, 3)), yb[:3])]))
    assert close(got, want) and torch.equal(found, targets)
    got, found = predictor.get_preds(x for x in [xb, rows(xb, slice(0, 3))])
    assert close(got, want) and found is None


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    "A learner of a table, trained; its predictor; its file"
    g = np.random.default_rng(0)
    x = g.normal(size=(64, 3))
    data = DataBunch.from_tensors(x, ['low' if o else 'high' for o in x[:, 0] > 0], device='cpu',
                                  bs=16, valid_pct=.2, seed=0)
    torch.manual_seed(0)
    learn = Learner(data, mlp(2), silent=True)
    learn.fit(2)
    file = learn.export(tmp_path_factory.mktemp('table')/'table.pt2')
    return learn, Predictor.load(file, 'cpu'), file, x


@pytest.mark.parametrize('form', [
    lambda x: x, lambda x: x.astype('float32'), torch.from_numpy, lambda x: x.tolist(),
    lambda x: list(x), lambda x: list(torch.from_numpy(x).float()), lambda x: x.astype('float16'),
    lambda x: x.astype('>f8').astype('f8'), lambda x: np.asfortranarray(x)])
def test_rows_of_numbers_in_all_forms(table, form):
    learn, predictor, _, x = table
    few = np.round(x[:5], 1)
    want, _ = learn.get_preds([(torch.tensor(few, dtype=torch.float32), torch.zeros(5).long())])
    assert torch.allclose(predictor.get_preds(form(few))[0], want, atol=1e-2)
    assert predictor.predict(form(few)[0])[0] == learn.predict(few[0])[0]
    probs, _ = predictor.get_preds(form(few), probabilities=True)
    assert torch.allclose(probs.sum(1), torch.ones(5))


@pytest.mark.parametrize('item', [[1, 2, 3], np.array([1, 2, 3], dtype=np.uint8),
                                  torch.tensor([1, 2, 3]), np.array([1., 2, 3], dtype='>f4')])
def test_whole_numbers_are_taken_as_the_learner_takes_them(table, item):
    learn, predictor, _, _ = table
    assert close(predictor.predict(item), learn.predict(item))


def test_data_frames(table):
    pd = pytest.importorskip('pandas')
    _, predictor, _, x = table
    frame = pd.DataFrame(x, columns=list('abc'))
    assert close(predictor.get_preds(frame)[0], predictor.get_preds(x)[0])


@pytest.mark.parametrize('item, said', [
    ([1., 2], '3'), (np.zeros((1, 3)), 'get_preds'),
    ('photo.jpg', 'not trained on files'), (b'bytes', 'not trained on files'),
    ({'a': 1}, 'x'), (['a', 'b', 'c'], '.'), (None, '.')])
def test_items_that_do_not_fit_are_refused(table, item, said):
    _, predictor, _, _ = table
    with pytest.raises((TypeError, ValueError), match=said): predictor.predict(item)


@pytest.mark.parametrize('x', [torch.zeros(3, dtype=torch.complex64), np.ones(3)*1j, [1j, 2, 3]])
def test_complex_numbers_are_refused(table, x):
    for ask in (table[1].predict, lambda x: table[1].get_preds([x])):
        with pytest.raises(TypeError, match='float32.*complex'): ask(x)


@pytest.mark.parametrize('items', [[], np.zeros((0, 3)), iter([])])
def test_nothing_to_predict_is_an_error(table, items):
    with pytest.raises(ValueError, match='no items'): table[1].get_preds(items)


@pytest.mark.parametrize('x, said', [
    ((numbers(3),), '2 inputs'), (numbers(3), '2 inputs'), ((numbers(3), numbers(2)[:3]), 'rows'),
    ((numbers(2), numbers(3)), 'shape')])
def test_structures_that_do_not_fit_are_refused(export_of, x, said):
    _, file = export_of('two inputs')
    with pytest.raises((TypeError, ValueError), match=said): Predictor.load(file).get_preds(x)


def test_probabilities_need_classes(export_of):
    predictor = Predictor.load(export_of('regression')[1])
    with pytest.raises(ValueError, match='not about classes'):
        predictor.get_preds(numbers(3), probabilities=True)


def test_words_of_another_length(export_of):
    learn, file = export_of('words')
    predictor = Predictor.load(file, 'cpu')
    for n in (2, 6, 11):
        x = torch.randint(0, 30, (4, n))
        want, _ = learn.get_preds([(x, torch.zeros(4).long())])
        assert close(predictor.get_preds(x)[0], want)
    assert close(predictor.predict([1, 2, 3]), learn.predict(torch.tensor([1, 2, 3])))
    with pytest.raises(TypeError, match='int64'): predictor.predict([1., 2.])


class Steps(nn.Module):
    "A loop over the steps, which a program unrolls"
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 3)
    def forward(self, x):
        total = 0
        for i in range(x.shape[1]): total = total/2 + self.embed(x[:, i])
        return total


@pytest.mark.parametrize('suffix', ['pt2', 'onnx'])
def test_a_length_that_the_program_fixes_is_told_and_kept(suffix, tmp_path):
    "ONNX answered longer rows with those steps alone that it knows"
    if suffix == 'onnx': pytest.importorskip('onnxscript') and pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    learn = Learner(Batches(torch.randint(0, 30, (8, 6)), torch.zeros(8).long()), Steps(),
                    F.cross_entropy, silent=True, path=tmp_path)
    predictor = Predictor.load(learn.export(tmp_path/f'm.{suffix}'), 'cpu')
    x = torch.randint(0, 30, (4, 6))
    assert close(predictor.get_preds(x)[0], learn.get_preds([(x, torch.zeros(4).long())])[0])
    for n in (3, 9):
        with pytest.raises(ValueError, match=r'shape any x 6, this one \(4, '):
            predictor.get_preds(torch.randint(0, 30, (4, n)))


# ---- pictures ------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Red and blue squares; a learner, its predictor, the folder"
    from PIL import Image
    folder, g = tmp_path_factory.mktemp('squares'), np.random.default_rng(0)
    for part, n in (('train', 12), ('valid', 4)):
        for channel, name in ((0, 'red'), (2, 'blue')):
            (folder/part/name).mkdir(parents=True)
            for i in range(n):
                pixels = g.integers(0, 60, (14, 10+i, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder/part/name/f'{i}.png')
    data = ImageDataBunch.from_folder(folder, size=(12, 9), bs=8, seed=0, device='cpu').normalize()
    torch.manual_seed(0)
    from fastloop.vision.learner import VisionLearner
    learn = VisionLearner(data, nn.Sequential(cnn()[:-1], nn.Linear(6, 2)), silent=True)
    learn.fit(3, 1e-2)
    file = learn.export(folder/'model.pt2')
    return learn, Predictor.load(file, 'cpu'), folder, file


def test_pictures_in_all_forms(pictures):
    from PIL import Image
    learn, predictor, folder, _ = pictures
    file = folder/'valid'/'red'/'3.png'
    want = learn.predict(file)
    with open(file, 'rb') as opened:
        for item in (file, str(file), file.read_bytes(), opened, Image.open(file),
                     learn.data.open_image(file), learn.data.open_image(file).numpy()):
            assert close(predictor.predict(item), want)
    pixels = np.array(Image.open(file))
    for item in (pixels, torch.from_numpy(pixels)):  # bytes, which must be scaled as a file's are
        assert close(predictor.predict(item), want) and close(learn.predict(item), want)
    small = np.array(Image.open(file).resize((9, 12)))  # these could be taken for numbers
    assert close(predictor.predict(small), learn.predict(small))
    stack = np.stack([small, small[:, ::-1]])
    for items in (stack, torch.from_numpy(stack), [*stack], small):
        assert close(predictor.get_preds(items)[0], learn.get_preds(items)[0])
    wide = Image.open(file).resize((300, 200))  # another size, another mode
    for item in (wide, wide.convert('L'), wide.convert('RGBA')):
        assert close(predictor.predict(item), learn.predict(item))


def test_folders_and_lists_of_files(pictures):
    learn, predictor, folder, _ = pictures
    want, _ = learn.get_preds()
    files = learn.data.valid_ds.files
    for items in (folder/'valid', str(folder/'valid'), [*files], [Path(o) for o in files]):
        got, _ = predictor.get_preds(items, bs=3)
        order = range(len(want)) if isinstance(items, list) else [
            files.index(str(o)) for o in files_in(items)]
        assert close(got, want[list(order)])
    for ask in (learn.predict, predictor.predict):
        with pytest.raises(ValueError, match='get_preds a folder'): ask(folder/'valid')
    with pytest.raises(FileNotFoundError, match='nowhere'): predictor.get_preds('nowhere')
    with pytest.raises(ValueError, match='cannot be read'):
        predictor.get_preds([files[0], b'broken'])


def test_names_of_files_in_a_column(pictures):
    pd, fastcore = pytest.importorskip('pandas'), pytest.importorskip('fastcore.foundation')
    learn, predictor, _, _ = pictures
    files, want = learn.data.valid_ds.files, learn.get_preds()[0]
    for items in (pd.Series(files, index=range(5, 5+len(files))), np.array(files),
                  np.array([Path(o) for o in files], dtype=object), fastcore.L(files)):
        torch.testing.assert_close(learn.get_preds(items)[0], want)
        torch.testing.assert_close(predictor.get_preds(items)[0], want)


def test_one_file_and_what_is_no_list_of_files(pictures):
    "`get_preds` takes a single picture as the learner does, and both refuse the same in words"
    from PIL import Image
    pd = pytest.importorskip('pandas')
    learn, predictor, _, _ = pictures
    files = learn.data.valid_ds.files
    with open(files[0], 'rb') as opened:
        for item in (Image.open(files[0]), Path(files[0]).read_bytes(), opened):
            torch.testing.assert_close(predictor.get_preds(item)[0], learn.get_preds(files[:1])[0])
    for items, said in ((iter(files), 'give .*files as a list'),
                        (pd.DataFrame({'name': files}), 'one column of the table')):
        with pytest.raises(TypeError, match=said): learn.get_preds(items)
        with pytest.raises(TypeError, match=said): predictor.get_preds(items)
    with pytest.raises(TypeError, match='get_preds takes many'): predictor.predict(files[:2])


@pytest.mark.parametrize('bs', [0, -1, '4', 2.5])
def test_batches_have_a_size(pictures, bs):
    learn, predictor, _, _ = pictures
    files = learn.data.valid_ds.files
    for ask in (predictor.get_preds, partial(label_files, predictor), learn.data.test_dl):
        with pytest.raises(ValueError, match=f'bs={bs!r} must be'): ask(files, bs=bs)


def test_broken_files_cost_the_others_nothing(pictures, tmp_path):
    learn, predictor, folder, _ = pictures
    (tmp_path/'broken.png').write_bytes(b'no')
    good = Path(learn.data.valid_ds.files[0])
    found = list(label_files(predictor, [tmp_path/'broken.png', good, tmp_path/'broken.png'], bs=2))
    assert [isinstance(o, ValueError) for _, o in found] == [True, False, True]
    assert close(found[1][1], predictor.predict(good))


def test_alone_in_an_empty_folder(pictures, table, tmp_path):
    "A process that imports torch and fastloop.export; a table does not even import images"
    learn, predictor, folder, file = pictures
    photo = folder/'valid'/'red'/'0.png'
    code = ('import sys, torch\nfrom fastloop.export import Predictor\n'
            f'print(*Predictor.load({str(table[2])!r}).predict([1, 2, 3])[:2])\n'
            'print("fastloop.vision.image" in sys.modules, "fastloop.learner" in sys.modules)\n'
            f'print(*Predictor.load({str(file)!r}).predict({str(photo)!r})[:2])')
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    first, loaded, second = done.stdout.splitlines()
    assert first == ' '.join(map(str, table[1].predict([1, 2, 3])[:2]))
    assert loaded == 'False False' and not done.stderr
    assert second == ' '.join(map(str, learn.predict(photo)[:2]))


def test_threads_may_ask_at_once(table):
    _, predictor, _, x = table
    want, got = predictor.get_preds(x)[0], []
    def ask(): got.append(predictor.get_preds(x, bs=7)[0])
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert len(got) == 4 and all(torch.allclose(o, want, atol=1e-6) for o in got)


# ---- the file ------------------------------------------------------------------------------------
def test_the_file_is_an_archive_with_plain_settings(table):
    learn, _, file, x = table
    with zipfile.ZipFile(file) as archive:
        name = next(o for o in archive.namelist() if o.endswith('extra/fastloop.json'))
        found = json.loads(archive.read(name))
        for part in archive.namelist():
            with pytest.raises(Exception): pickle.loads(archive.read(part))  # noqa: B017 no pickle
    assert found['classes'] == ['high', 'low'] and found['meaning'] == 'softmax'
    assert found['torch'] == torch.__version__ and found['inputs']['shape'] == [None, 3]
    assert b'test_export' not in file.read_bytes()  # no traces of where it was made
    program, extra = torch.export.load(file, extra_files=(extra := {'fastloop.json': ''})), extra
    xb = torch.tensor(x[:4], dtype=torch.float32)
    with torch.no_grad(): answer, wanted = program.module()(xb), learn.model.eval()(xb)
    assert torch.allclose(answer, wanted, atol=1e-5) and json.loads(extra['fastloop.json']) == found


def test_every_region_of_the_file_is_watched(table, tmp_path):
    data, bad = table[2].read_bytes(), tmp_path/'bad.pt2'
    regions = [*range(0, len(data), len(data)//60), *range(len(data)-200, len(data), 7), 0, 1, 4]
    for at in regions:
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at+1:])
        with pytest.raises(ValueError, match='bad.pt2 is refused'): Predictor.load(bad)
    for cut in (1, 50, 81, len(data)//2, len(data)-1, len(data)):
        bad.write_bytes(data[:len(data)-cut])
        with pytest.raises(ValueError, match='is refused'): Predictor.load(bad)
    for more in (data+b'x', b'x'+data, data+data[-80:]):
        bad.write_bytes(more)
        with pytest.raises(ValueError, match='is refused'): Predictor.load(bad)


ran = []
class Evil:
    def __reduce__(self): return exec, ('import tests_have_been_run_by_a_file',)


def saved(o):
    torch.save(o, f := io.BytesIO())
    return f.getvalue()


@pytest.mark.parametrize('content, said', [
    (b'', 'empty'), (b'hello', 'no archive'), (pickle.dumps(Evil()), 'exec'),
    (pickle.dumps({'a': 1}), 'pickle'), (saved(Evil()), 'exec'),
    (saved({'a': torch.ones(3)}), 'weights'),
    (b'PK\3\4 and so on', 'damaged')])
@pytest.mark.parametrize('suffix', ['pt2', 'onnx'])
def test_other_files_are_called_what_they_are(content, said, suffix, tmp_path):
    file = tmp_path/f'other.{suffix}'
    file.write_bytes(content)
    with pytest.raises(ValueError, match='other') as e: Predictor.load(file)
    assert suffix == 'onnx' or said in str(e.value)
    assert 'tests_have' not in str(e.value)  # it has not run


def forged(file, **changes):
    "The file with other parts and a seal that holds"
    parts = read_parts(file.read_bytes())
    parts = {**parts, **{k.replace('__', '/'): v for k, v in changes.items()}}
    settings = json.loads(parts[settings_name])
    settings['checksum'] = parts_digest(parts)
    return sealed(write_parts({**parts, settings_name: json.dumps(settings).encode()}))


def in_program(old, new):
    return lambda parts: {'models/model.json': parts['models/model.json'].replace(old, new)}


weights = 'data/weights/model_weights_config.json'
relu = b'torch.ops.aten.relu.default'
FORGERIES = {
    'pickled inputs': (lambda p: {'data/sample_inputs/model.pt': saved(Evil())}, 'sample_inputs'),
    'pickled weights': (lambda p: {
        'data/weights/weight_0': saved(Evil()),
        weights: p[weights].replace(b'"use_pickle": false', b'"use_pickle": true')}, 'use_pickle'),
    'an object': (lambda p: {'data/constants/custom_obj_0': saved(Evil())}, 'custom_obj_0'),
    'old weights': (lambda p: {'data/weights/model.pt': saved(Evil())}, 'model.pt'),
    'a library': (lambda p: {'data/aotinductor/model/a.so': b'\x7fELF'}, 'a.so'),
    'a second program': (lambda p: {'models/other.json': p['models/model.json']}, 'other.json'),
    'a function': (in_program(relu, b'torch.os.system'), 'os.system'),
    'an attribute': (in_program(relu, b'_operator.methodcaller'), 'methodcaller'),
    'a file on disk': (in_program(relu, b'torch.ops.aten.from_file.default'), 'from_file'),
    'a size': (in_program(b'"expr_str": "', b'"expr_str": "__import__(\'os\').system(\'ls\') or '),
               'expr_str'),
    'a guard': (in_program(b'"guards_code": []', b'"guards_code": ["__import__(\'os\')"]'),
                'guards_code'),
    'a name': (in_program(b'"linear"', b'"linear = exec(1) #"'), 'exec'),
    'a structure': (in_program(b'context\\": \\"null', b'context\\": \\"evil'), 'spec'),
}


@pytest.mark.parametrize('kind', FORGERIES)
def test_forged_files_are_refused_whatever_their_seal_says(table, kind, tmp_path):
    change, said = FORGERIES[kind]
    parts = read_parts(table[2].read_bytes())
    changes = change(parts)
    assert any(parts.get(k) != v for k, v in changes.items()), 'nothing was changed'
    (tmp_path/'forged.pt2').write_bytes(forged(table[2], **changes))
    with pytest.raises(ValueError, match='refused') as e: Predictor.load(tmp_path/'forged.pt2')
    assert said in str(e.value)


def test_a_good_forgery_is_read(table, tmp_path):
    "So what is refused above is refused for its contents"
    (tmp_path/'same.pt2').write_bytes(forged(table[2]))
    got = Predictor.load(tmp_path/'same.pt2').predict([1, 2, 3])
    assert close(got, table[1].predict([1, 2, 3]))


@pytest.mark.parametrize('text, good', [
    ('s17', True), ("Symbol('s17', positive=True, integer=True)", True), ('2*s0 + 1', True),
    ('Max(1, s0)', True), ('FloorDiv(s0, 2)', True), ('exec(1)', False), ('s0.__class__', False),
    ('[s0 for s0 in (1,)]', False), ("Symbol('a b')", False), ('f"{s0}"', False), ('(', False),
    ('getattr', False), ('Max(1)(2)', False), ('s0 if 1 else 2', False), ('s0'*600, False),
    ("FloatPow(ToFloat(Symbol('s0')), Float('0.5', precision=53))", True),
    ("TruncToInt(Mul(Float('-1.5e-05', precision=53), ToFloat(s0)))", True),
    ("GreaterThan(Symbol('u0', integer=True), Integer(0))", True), ('Greater(u0, 0)', False),
    ("Float('1.5 ')", False), ("Float('1.5.real')", False), ("Float('1.5()')", False),
    ("Float('-s0')", False), ('ToFloat.mro()', False),
    ('ToFloats(s0)', False), ("ToFloat(__import__('os'))", False), ('__import__', False),
    ("FloatPow('1.5-1', 2)", False)])
def test_sizes_are_arithmetic(text, good): assert is_arithmetic(text) == good


@pytest.mark.parametrize('key, value, good', [
    ('as_float', '-Infinity', True), ('as_float', 'Infinity', True), ('as_float', 'NaN', True),
    ('as_floats', ['-Infinity', 'NaN', 1.5], True), ('as_float', '-Infinityx', False),
    ('as_float', '-Infinity()', False), ('as_float', '--Infinity', False),
    ('as_float', '-Infinity\n', False), ('as_float', '-NaN', False), ('as_float', '-x', False),
    ('as_float', "__import__('os')", False), ('name', '-Infinity', False),
    ('target', '-Infinity', False), ('expr_str', '__import__', False)])
def test_numbers_without_end(key, value, good):
    assert (strange_part({'nodes': [{key: value}]}) is None) == good


@pytest.mark.parametrize('text', ['', '1', '[1]', '[1, {}]', 'null', '[1, {"type": "x", "context": '
                                  '"null", "children_spec": []}]'])
def test_strange_structures(text): assert not is_plain_nest(text)


@pytest.mark.parametrize('device, said', [('cuda:77', 'is not there'), ('toaster', 'is none')])
@pytest.mark.parametrize('suffix', ['pt2', 'onnx'])
def test_a_device_that_is_not_there_is_named_and_not_the_file(device, said, suffix, tmp_path):
    (tmp_path/f'm.{suffix}').write_bytes(b'not read')
    with pytest.raises(ValueError, match=f"device='{device}' {said}"):
        Predictor.load(tmp_path/f'm.{suffix}', device)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing'): Predictor.load(tmp_path/'nothing.pt2')


# ---- constants and sizes that programs hold ------------------------------------------------------
class Formula(nn.Module):
    "A linear layer, and what a function makes with it"
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 3), function
    def forward(self, x): return self.function(self.layer, x)


def causal(layer, x):
    mask = torch.full((3, 3), -torch.inf).triu(1)
    return layer(((x[:, :, None]*x[:, None] + mask).softmax(-1) @ x[:, :, None])[..., 0])


FORMULAS = {
    'masked': lambda layer, x: layer(x).masked_fill(x < 0, -torch.inf),
    'masked, other end': lambda layer, x: layer(x).masked_fill(x < 0, torch.inf),
    'no numbers': lambda layer, x: layer(x).masked_fill(x < 0, torch.nan),
    'causal': causal,
    'clamped': lambda layer, x: layer(x.clamp(min=-torch.inf, max=1)),
    'padded': lambda layer, x: F.pad(layer(x), (1, 1), value=-torch.inf),
    'smallest': lambda layer, x: layer(x)*torch.norm(x, p=-torch.inf, dim=1, keepdim=True),
    'root of rows': lambda layer, x: layer(x)/x.shape[0]**.5,
    'rows as a number': lambda layer, x: layer(x)*min(x.shape[0], 2.5),
    'power of rows': lambda layer, x: layer(x)*1.5**x.shape[0],
    'a root in a tensor': lambda layer, x: layer(x) + torch.full((1, 3), x.shape[0]**.5),
    'some of them': lambda layer, x: layer(x) + x[x > 0].sum(),
    'made longer': lambda layer, x: F.interpolate(layer(x).T[None], scale_factor=1.5)[0].T,
}


@pytest.mark.parametrize('kind', FORMULAS)
def test_constants_and_sizes_come_back(kind, tmp_path):
    "The answers are compared with those of the module itself"
    torch.manual_seed(0)
    model = Formula(FORMULAS[kind])
    learn = Learner(Batches(numbers(3), torch.zeros(8).long()), model, F.cross_entropy, silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    for n in (1, 2, 5, 9):
        x = torch.randn(n, 3)
        with torch.no_grad(): want = model(x)
        torch.testing.assert_close(predictor.get_preds(x)[0], want, equal_nan=True)


class Masked(Words):
    def forward(self, x):
        n = x.shape[1]
        mask = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
        h = self.layers(self.embed(x), mask=mask, is_causal=True,
                        src_key_padding_mask=x == 0)
        return self.head(h[:, 0])


def test_transformers_with_masks(tmp_path):
    torch.manual_seed(0)
    model, x = Masked(), torch.randint(1, 30, (8, 6))
    learn = Learner(Batches(x, torch.zeros(8).long()), model, F.cross_entropy, silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    model.eval()
    for n in (2, 6, 11):
        x = torch.randint(1, 30, (4, n))
        x[:, n-1] = 0
        with torch.no_grad(): want = model(x)
        torch.testing.assert_close(predictor.get_preds(x)[0], want)


class Padded(Words):
    def forward(self, x):
        return self.head(self.layers(self.embed(x), src_key_padding_mask=x == 0).mean(1))


@pytest.mark.filterwarnings('ignore:The PyTorch API of nested tensors')
def test_a_short_cut_of_torch_is_named_with_its_remedy(tmp_path):
    torch.manual_seed(0)
    model, x = Padded(), torch.randint(1, 30, (8, 6))
    x[::2, 4:] = 0
    learn = Learner(Batches(x, torch.zeros(8).long()), model, F.cross_entropy, silent=True)
    with pytest.raises(ValueError, match='zeros where the padding is.*enable_nested_tensor=False'):
        learn.export(tmp_path/'m.pt2')
    assert torch.backends.mha.get_fastpath_enabled() and not list(tmp_path.iterdir())
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    torch.testing.assert_close(predictor.get_preds(x)[0], learn.get_preds([(x, None)])[0])


class NamedLayers(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.parts, self.name = nn.ModuleDict({name: mlp()}), name
        self.parts[name].register_buffer('b-1', torch.ones(3))
        self.parts[name].shift = torch.ones(3)  # neither a parameter nor a buffer
    def forward(self, x):
        part = self.parts[self.name]
        return part(x)*getattr(part, 'b-1') + part.shift


@pytest.mark.parametrize('name', ['my-head', 'a b', 'a/b', '1:2', 'c++'])
def test_layers_of_any_name(name, tmp_path):
    x = numbers(3)
    learn = Learner(Batches(x, torch.zeros(8).long()), NamedLayers(name), F.cross_entropy,
                    silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    torch.testing.assert_close(predictor.get_preds(x)[0], learn.get_preds([(x, None)])[0])
    weights = read_parts((tmp_path/'m.pt2').read_bytes())['data/weights/model_weights_config.json']
    assert f'"model.parts.{name}.0.weight"'.encode() in weights


@pytest.mark.parametrize('key, value, good', [
    ('parameter_name', 'a.my-head.weight', True), ('parameter_name', 'a") or exec("1', False),
    ('buffer_name', 'a\\', False), ('fqn', 'a\nb', False), ('fqn', 'exec(1)', False),
    ('config', {'my-head': 1}, True), ('config', {'my"head': 1}, False),
    ('name', 'my-head', False), ('tensor_values', {'my-head': 1}, False), ('target', 'a-b', False)])
def test_only_names_of_layers_have_hyphens(key, value, good):
    assert (strange_part({'nodes': [{key: value}]}) is None) == good


class Chooses(nn.Module):
    "As `why_not` recommends"
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.one(x).relu(), lambda x: self.two(x), (x,))


def test_a_program_that_chooses(tmp_path):
    model, x = Chooses(), numbers(3)
    learn = Learner(Batches(x, torch.zeros(8).long()), model, F.cross_entropy, silent=True)
    file = learn.export(tmp_path/'m.pt2')
    predictor = Predictor.load(file, 'cpu')
    for items in (x.abs(), -x.abs()):
        with torch.no_grad():
            want = model.one(items).relu() if items.sum() > 0 else model.two(items)
        torch.testing.assert_close(predictor.get_preds(items)[0], want)
    evil = in_program(relu, b'torch.os.system')(read_parts(file.read_bytes()))
    (tmp_path/'forged.pt2').write_bytes(forged(file, **evil))
    with pytest.raises(ValueError, match='os.system'): Predictor.load(tmp_path/'forged.pt2')


@pytest.mark.parametrize('function, said', [
    (lambda layer, x: layer(x)*(x.shape[0] & 3), 'BitwiseFn'),
    (lambda layer, x: layer(x)*round(x.shape[0]*.3), 'round'),
    (lambda layer, x: layer(x)*math.ceil(x.shape[0]/3), 'ceil')])
def test_what_cannot_be_read_is_not_written(function, said, tmp_path, capfd):
    learn = Learner(Batches(numbers(3), torch.zeros(8).long()), Formula(function), F.cross_entropy,
                    silent=True)
    with pytest.raises(ValueError, match=f'(?s)cannot be exported.*{said}') as e:
        learn.export(tmp_path/'m.pt2')
    assert not list(tmp_path.iterdir()) and 'Traceback' not in str(e.value)
    assert len(str(e.value)) < 500 and capfd.readouterr() == ('', '')


# ---- what export refuses, and what it leaves alone -----------------------------------------------
class Picky(nn.Linear):
    def forward(self, x):
        x = super().forward(x)
        if x.sum() > 0:  # the line in question
            return x
        return -x


class Fixed(nn.Linear):
    def forward(self, x):
        if x.shape[0] == 5: return super().forward(x)
        return super().forward(x)*2


class Outside(nn.Linear):
    def forward(self, x): return torch.from_numpy(super().forward(x).detach().numpy())


class Counted(nn.Linear):
    def forward(self, x):
        k = int(x.sum().item())
        return super().forward(x)[:, :k]


class Large(nn.Linear):
    def forward(self, x):
        h = super().forward(x)
        if x.shape[0] > 4:  # rows decide
            return h
        return -h


class Odd(nn.Linear):
    def forward(self, x): return super().forward(x) if x.shape[0] % 2 else -super().forward(x)


class Far(nn.Linear):
    def forward(self, x):
        far = torch.cdist(x, x)[:, :1]
        return super().forward(x) + far


class Half(nn.Linear):
    def forward(self, x):
        n = int(x.shape[0]*.5)
        return super().forward(x)*n


class TwoOdd(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.layer = nn.Linear(*sizes)
    def forward(self, a, b):
        h = self.layer(a + b)  # two sizes become one here
        return h if b.size(0) % 3 else -h


@pytest.mark.parametrize('kind, line', [
    (Large, 'if x.shape[0] > 4:  # rows decide'), (Odd, 'if x.shape[0] % 2'),
    (Far, 'torch.cdist(x, x)'), (Half, 'int(x.shape[0]*.5)'), (TwoOdd, 'if b.size(0) % 3')])
def test_lines_that_depend_on_the_number_of_rows(kind, line, tmp_path, capfd):
    x = (numbers(3), numbers(3)) if kind is TwoOdd else numbers(3)
    learn = Learner(Batches(x, torch.zeros(8).long()), kind(3, 3), F.cross_entropy, silent=True)
    with pytest.raises(ValueError, match='cannot be exported') as e: learn.export(tmp_path/'m.pt2')
    assert line in str(e.value) and 'number of rows' in str(e.value)
    number = int(str(e.value).split('test_export.py, line ')[1].split(':')[0])
    assert line in Path(__file__).read_text().splitlines()[number-1]
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ('', '')


def test_without_a_line_there_are_words(monkeypatch, tmp_path):
    monkeypatch.setattr('fastloop.program.fixing_line', lambda *args: '')
    learn = Learner(Batches(numbers(3), torch.zeros(8).long()), Odd(3, 3), F.cross_entropy,
                    silent=True)
    with pytest.raises(ValueError, match=r'number of rows.*shape\[0\]'):
        learn.export(tmp_path/'m.pt2')


@pytest.mark.parametrize('kind, line', [
    (Picky, 'if x.sum() > 0:'), (Fixed, 'if x.shape[0] == 5'), (Outside, 'numpy()'),
    (Counted, 'int(x.sum().item())')])
def test_the_line_in_the_way_is_named_and_nothing_is_left(kind, line, tmp_path, capfd):
    learn = Learner(Batches(numbers(3), torch.zeros(8).long()), kind(3, 3), F.cross_entropy,
                    silent=True)
    (tmp_path/'old.pt2').write_text('old')
    for name in ('new.pt2', 'old.pt2'):
        with pytest.raises(ValueError, match='cannot be exported') as e: learn.export(tmp_path/name)
        assert line in str(e.value) and 'test_export.py, line ' in str(e.value)
    number = int(str(e.value).split('test_export.py, line ')[1].split(':')[0])
    assert line in Path(__file__).read_text().splitlines()[number-1]
    assert [o.name for o in tmp_path.iterdir()] == ['old.pt2']
    assert (tmp_path/'old.pt2').read_text() == 'old'
    assert capfd.readouterr() == ('', '')


class Darker(Callback):
    def begin_batch(self): self.run.xb = self.xb/2


class Louder(Callback):
    def after_pred(self): self.run.pred = self.pred*2


@pytest.mark.parametrize('kind', [Darker, Louder])
def test_callbacks_that_change_answers_are_named(table, kind, tmp_path):
    learn = copy.deepcopy(table[0])
    learn.add_cbs(kind())
    with pytest.raises(ValueError, match=kind.__name__): learn.export(tmp_path/'m.pt2')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name, error', [
    ('model.pth', ValueError), ('model', ValueError), ('sub/model.pkl', ValueError),
    ('folder.pt2', IsADirectoryError)])
def test_names_without_a_format(table, name, error, tmp_path):
    (tmp_path/'folder.pt2').mkdir()
    with pytest.raises(error, match='pt2'): table[0].export(tmp_path/name)


def test_models_that_are_no_modules_of_python(table, tmp_path):
    learn = Learner(table[0].data, torch.jit.script(nn.Linear(3, 2)), silent=True)
    with pytest.raises(ValueError, match='TorchScript'): learn.export(tmp_path/'m.pt2')
    learn = Learner(table[0].data, nn.LazyLinear(2), silent=True)
    with pytest.raises(ValueError, match='no shape yet'): learn.export(tmp_path/'m.pt2')


def test_folders_are_made(table, tmp_path):
    file = table[0].export(tmp_path/'a'/'b'/'m.pt2')
    assert file == tmp_path/'a'/'b'/'m.pt2' and [o.name for o in file.parent.iterdir()] == ['m.pt2']


def test_the_learner_is_left_as_it_was(table, tmp_path):
    learn = copy.deepcopy(table[0])
    heard = []
    hook = learn.model[0].register_forward_hook(lambda *args: heard.append(args[2]))
    learn.model.train()
    learn.model[1].eval()
    learn.fit(1)
    heard.clear()
    learn.model.train()
    learn.model[1].eval()
    state = copy.deepcopy(learn.model.state_dict())
    before = {k: v for k, v in vars(learn).items()}
    run, modes = vars(learn.run).copy(), [o.training for o in learn.model.modules()]
    place, numbers_stood = learn.data.train_dl.state_dict(), torch.get_rng_state()
    grads = [(p.requires_grad, p.grad) for p in learn.model.parameters()]
    learn.export(tmp_path/'m.pt2')
    assert vars(learn).keys() == before.keys()
    assert all(vars(learn)[k] is v for k, v in before.items() if k != 'run')
    assert vars(learn.run).keys() == run.keys()
    assert [o.training for o in learn.model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in learn.model.state_dict().items())
    assert learn.data.train_dl.state_dict() == place
    assert torch.equal(torch.get_rng_state(), numbers_stood)
    assert all(p.requires_grad == a and p.grad is b for p, (a, b) in
               zip(learn.model.parameters(), grads))
    assert all(type(o) is torch.Tensor for o in heard)  # no tensor of the tracer is kept by anybody
    assert hook.id in learn.model[0]._forward_hooks
    learn.fit(1)


def test_hooks_stay_behind_but_torchs_own():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)))
    model.register_forward_hook(lambda *args: 1/0)
    copied = evaluation_copy(model)
    x = torch.ones(2, 3)
    assert torch.equal(copied(x), model[0](x)) and len(copied[0]._forward_pre_hooks) == 1


def test_wrapped_models(table, tmp_path):
    learn = copy.deepcopy(table[0])
    want = table[1].predict([1, 2, 3])
    learn.model = nn.DataParallel(learn.model)
    assert close(Predictor.load(learn.export(tmp_path/'a.pt2')).predict([1, 2, 3]), want)
    learn.model = torch.compile(learn.model.module, backend='eager')
    assert close(Predictor.load(learn.export(tmp_path/'a.pt2')).predict([1, 2, 3]), want)


def test_compiled_learners(table, tmp_path):
    learn = copy.deepcopy(table[0]).compile(backend='eager')
    call, loss = learn.model._compiled_call_impl, learn.loss_func
    predictor = Predictor.load(learn.export(tmp_path/'a.pt2'), 'cpu')
    assert close(predictor.predict([1, 2, 3]), table[1].predict([1, 2, 3]))
    assert predictor.settings['meaning'] == 'softmax'
    assert learn.model._compiled_call_impl is call and learn.loss_func is loss


def test_mixed_precision_stays_behind(table, tmp_path):
    learn = copy.deepcopy(table[0]).to_bf16()
    got = Predictor.load(learn.export(tmp_path/'m.pt2')).predict([1, 2, 3])
    assert close(got, table[1].predict([1, 2, 3]))


class Each(Callback):
    "Writes a file after each epoch"
    def __init__(self, file): self.file, self.files = file, []
    def after_epoch(self): self.files.append(self.learn.export(self.file).read_bytes())


def test_export_inside_a_fit(table, tmp_path):
    learn, plain = copy.deepcopy(table[0]), copy.deepcopy(table[0])
    torch.manual_seed(0)
    learn.fit(2, cbs=(each := Each(tmp_path/'m.pt2')))
    torch.manual_seed(0)
    plain.fit(2)
    assert len(each.files) == 2 and each.files[0] != each.files[1]
    for a, b in zip(learn.model.state_dict().values(), plain.model.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize('classes, want', [
    ([1, 2], [1, 2]), (np.array([1, 2]), [1, 2]), ([np.int64(3), 'x'], [3, 'x']),
    ([Path('a'), None], ['a', 'None'])])
def test_names_of_classes_of_all_kinds(classes, want, tmp_path):
    data = Batches(numbers(3), torch.zeros(8).long(), classes)
    file = Learner(data, nn.Linear(3, 2), F.cross_entropy, silent=True).export(tmp_path/'m.pt2')
    assert Predictor.load(file).classes == want


def test_a_loader_with_batches_of_one(tmp_path):
    data = DataBunch.from_tensors(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), bs=1, device='cpu')
    predictor = Predictor.load(Learner(data, nn.Linear(3, 2), silent=True).export(tmp_path/'m.pt2'))
    assert predictor.get_preds(torch.randn(7, 3))[0].shape == (7, 2)


# ---- ONNX ----------------------------------------------------------------------------------------
rare = partial(pytest.param, marks=pytest.mark.rare)  # run by `make test-all` alone


@pytest.mark.parametrize('kind', ['mlp', rare('cnn'), rare('two inputs'), rare('dict in'),
                                  rare('heads'), rare('words'), rare('several labels')])
def test_onnx_answers_alike(kind, tmp_path, capfd):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    learn = make(kind)
    file = learn.export(tmp_path/'model.onnx')
    assert [o.name for o in tmp_path.iterdir()] == ['model.onnx']
    predictor, xb = Predictor.load(file, 'cpu'), learn.data.batch[0]
    for at in (slice(0, 8), slice(0, 1)):
        want, _ = learn.get_preds([(rows(xb, at), torch.zeros(len(range(8)[at])).long())])
        got, _ = predictor.get_preds(rows(xb, at))
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert predictor.predict(rows(xb, 0))[0] is not None
    session = runtime.InferenceSession(file.read_bytes())
    found = json.loads(session.get_modelmeta().custom_metadata_map['fastloop'])
    assert found['classes'] == learn.data.classes
    assert capfd.readouterr() == ('', '')
    data = file.read_bytes()
    renamed = Predictor.load(file.rename(tmp_path/'MODEL.ONNX'), 'cpu')
    torch.testing.assert_close(renamed.get_preds(xb)[0], predictor.get_preds(xb)[0])
    for at in [*range(0, len(data), len(data)//25), len(data)-1]:
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at+1:])
        with pytest.raises(ValueError, match='refused'): Predictor.load(file)


def test_what_onnxruntime_cannot_compute(tmp_path, monkeypatch, capfd):
    "It is neither written nor, where nobody could look at it, read"
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    learn = make('half')
    with pytest.raises(ValueError, match='onnxruntime cannot compute this model.*float32'):
        learn.export(tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr('fastloop.model_file.onnx_back', lambda data, inputs, program:
                        program.module())  # as if onnxruntime were not there
    learn.export(tmp_path/'m.onnx')
    with pytest.raises(ValueError, match='m.onnx is refused: onnxruntime cannot'):
        Predictor.load(tmp_path/'m.onnx')
    (tmp_path/'a.png').write_bytes(b'')
    assert main(['predict', *map(str, (tmp_path/'m.onnx', tmp_path))]) == 1
    assert 'Traceback' not in (err := capfd.readouterr().err) and 'm.onnx is refused' in err


class Lengths(nn.Module):
    "Asks for something that ONNX has no word for"
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x):
        return self.layer(torch.linalg.eigvalsh(x[:, None]*x[..., None]))


def test_what_onnx_has_no_word_for_is_named_with_its_line(tmp_path):
    pytest.importorskip('onnxscript')
    x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    learn = Learner(Batches(x, y), Lengths(), nn.functional.cross_entropy, silent=True)
    with pytest.raises(ValueError, match=r'ONNX .* no word for aten\.\w*eig') as e:
        learn.export(tmp_path/'m.onnx')
    line = Lengths.forward.__code__.co_firstlineno + 1
    assert f'{__file__}, line {line}: return self.layer(torch.linalg.eigvalsh(' in str(e.value)
    assert not list(tmp_path.iterdir())
    learn.export(tmp_path/'m.pt2')


def test_the_file_of_onnx_is_asked_and_not_the_program(table, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    monkeypatch.setattr('fastloop.program.run_onnx', lambda session, names, *tensors: [
        torch.zeros(len(tensors[0]), 2)])
    with pytest.raises(ValueError, match='does not answer as the learner does'):
        table[0].export(tmp_path/'m.onnx')


def test_onnx_without_its_packages(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r'fastloop\[onnx\]'): table[0].export(tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('version, name', [('2.4.1+cu121', 'm.pt2'), ('2.8.0', 'm.pt2'),
                                           ('2.7.1', 'm.onnx')])
def test_a_torch_that_is_too_old_is_told(table, tmp_path, monkeypatch, version, name):
    monkeypatch.setattr(torch, '__version__', TorchVersion(version))
    with pytest.raises(RuntimeError, match=rf'needs torch 2\.\d or newer, this is {version[:5]}'):
        table[0].export(tmp_path/name)
    assert not list(tmp_path.iterdir())


def test_a_torch_that_is_new_enough_is_taken(table, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.10.0'))
    assert Predictor.load(table[0].export(tmp_path/'m.pt2'))


# ---- the command ---------------------------------------------------------------------------------
def command(*words):
    return subprocess.run([sys.executable, '-m', 'fastloop', 'predict', *map(str, words)],
                          capture_output=True, text=True)


@pytest.mark.rare
def test_the_command_prints_csv_and_names_broken_files(pictures, tmp_path):
    import csv
    learn, _, folder, file = pictures
    (tmp_path/'broken, "one".png').write_bytes(b'no')
    photo = folder/'valid'/'red'/'0.png'
    (tmp_path/'a "b", c.png').write_bytes(photo.read_bytes())
    done = command(file, tmp_path, folder/'valid', '--csv', '--top', 2, '--bs', 3)
    assert done.returncode == 0 and done.stderr.count('\n') == 1
    assert 'broken, "one".png cannot be read' in done.stderr
    header, *found = csv.reader(io.StringIO(done.stdout))
    assert header == ['file', 'class', 'probability'] and len(found) == 2*9
    name, number, probs = learn.predict(photo)
    assert found[0] == [str(tmp_path/'a "b", c.png'), name, f'{probs[number]:.4f}']
    assert {o[1] for o in found[:2]} == {'red', 'blue'}


@pytest.mark.parametrize('csv', [[], ['--csv']])
def test_the_command_writes_what_the_terminal_can_show(pictures, tmp_path, csv, monkeypatch):
    "As `fastloop watch` does, it prints a question mark for any other letter"
    _, _, folder, file = pictures
    photo = (folder/'valid'/'red'/'0.png').read_bytes()
    for name in ('a', 'b\u00fc', 'c'): (tmp_path/f'{name}.png').write_bytes(photo)
    outs = [io.TextIOWrapper(io.BytesIO(), encoding=o, newline='') for o in ('ascii', 'utf-8')]
    errors = [io.TextIOWrapper(io.BytesIO(), o, 'backslashreplace') for o in ('ascii', 'utf-8')]
    (tmp_path/'d\u00fc.png').write_bytes(b'no')
    for out, err in zip(outs, errors):
        monkeypatch.setattr(sys, 'stdout', out)
        monkeypatch.setattr(sys, 'stderr', err)
        assert main(['predict', str(file), str(tmp_path), *csv]) == 0
        err.flush()
    plain, whole = [o.buffer.getvalue().decode() for o in outs]
    assert plain == whole.replace('\u00fc', '?') and 'b\u00fc.png' in whole
    assert plain.count('.png') == 3 and b'cannot be read' in errors[0].buffer.getvalue()


def test_the_command_prints_a_table(pictures, capsys):
    learn, _, folder, file = pictures
    assert main(['predict', str(file), str(folder/'valid'/'red'/'0.png')]) == 0
    out, err = capsys.readouterr()
    header, line = out.splitlines()
    assert not err and line.split()[-1] == learn.predict(folder/'valid'/'red'/'0.png')[0]


class TwoAnswers(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind, self.size = nn.Linear(3, 2), nn.Linear(3, 1)
    def forward(self, x):
        x = x.mean((2, 3))
        return {'kind': self.kind(x), 'more': (self.size(x), x.mean())}


def test_the_command_prints_answers_of_any_structure(pictures, tmp_path, capsys):
    learn, _, folder, _ = pictures
    other = Learner(learn.data, TwoAnswers(), lambda pred, yb: F.cross_entropy(pred['kind'], yb),
                    silent=True)
    file = other.export(tmp_path/'m.pt2')
    assert main(['predict', str(file), str(folder/'valid'/'red'), '--csv', '--bs', '1']) == 0
    out, err = capsys.readouterr()
    answer = other.predict(folder/'valid'/'red'/'0.png')[0]
    one, two, three, four = [f'{o:.6g}' for o in (*answer['kind'].tolist(), *[
        float(o) for o in answer['more']])]
    assert not err and len(out.splitlines()) == 5
    assert out.splitlines()[1].endswith(f'0.png,kind: {one} {two}; more: {three}; {four},""')


@pytest.mark.parametrize('words, status, said', [
    (['{file}', '{photo}', '--device', 'cuda:77'], 1, "device='cuda:77' is not there"),
    (['{file}', 'nowhere'], 1, 'nowhere'), (['nothing.pt2', '.'], 1, 'nothing.pt2'),
    (['{file}', '{empty}'], 1, 'no pictures'), (['{table}', '{photo}'], 1, 'not trained on files'),
    (['{file}'], 2, 'path'), (['{file}', '{photo}', '--top', '0'], 2, 'below 1'),
    (['{file}', '{file}'], 1, 'cannot be read'), (['{photo}', '{photo}'], 1, 'refused'),
    (['{file}', '{photo}', '--device', 'toaster'], 1, 'toaster')])
def test_the_command_says_what_is_wrong(pictures, table, words, status, said, tmp_path, capsys):
    _, _, folder, file = pictures
    places = dict(file=file, table=table[2], photo=folder/'valid'/'red'/'0.png', empty=tmp_path)
    try: found = main(['predict', *[o.format(**places) for o in words]])
    except SystemExit as e: found = e.code  # what argparse does
    assert found == status and said in capsys.readouterr().err


def test_the_commands_rows_for_answers_of_all_kinds():
    probs = torch.tensor([.6, .1, .7])
    several = (['a', 'c'], probs > .5, probs)
    assert ranked(several, ['a', 'b', 'c']) == [('c', '0.7000'), ('a', '0.6000')]
    assert ranked(([], probs > .9, probs), list('abc')) == [('', '')]
    assert ranked(several, list('abc'), top=1) == [('c', '0.7000')]
    value = torch.tensor([1.25, 2])
    assert ranked((value, value, value), None) == [('1.25 2', '')]
    one = torch.tensor([.25])
    assert ranked(('no', torch.tensor([0]), one), ['no', 'yes']) == [('no', '0.7500')]


@pytest.mark.parametrize('kind', ['mlp', 'words', 'recurrent'])
def test_a_program_moves_to_another_device_as_a_whole(kind, export_of):
    "Tensors that the model makes itself move too; `meta` is a device that every machine has"
    learn, file = export_of(kind)
    xb = learn.data.batch[0]
    program = Predictor.load(file, 'meta').program
    with torch.no_grad(): found = program(xb.to('meta'))
    want, _ = learn.get_preds([learn.data.batch])
    assert found.device.type == 'meta' and found.shape == want.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_from_a_gpu_and_to_one(table, tmp_path):
    learn = make('recurrent')
    xb, want = learn.data.batch[0], learn.get_preds([learn.data.batch])[0]
    learn.model.cuda()
    file = learn.export(tmp_path/'m.pt2')
    for device in ('cpu', 'cuda'):
        got = Predictor.load(file, device).get_preds(xb)[0]
        assert got.device.type == 'cpu' and torch.allclose(got, want, atol=1e-4)


def test_get_preds_takes_the_loaders_that_a_learner_takes(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randint(3, (32,))
    learn = Learner(DataBunch.from_tensors(x, y, x, y, bs=8, device='cpu'), nn.Linear(4, 3),
                    silent=True, path=tmp_path)
    learn.export(tmp_path/'one.pt2')
    predictor = Predictor.load(tmp_path/'one.pt2', 'cpu')
    for dl in (TensorLoader(x, bs=8), DataLoader(TensorDataset(x), 8), learn.data.test_dl(x),
               TensorDataset(x, y), [(x[:8], y[:8]), (x[8:], y[8:])], DataLoader(x, 8)):
        (mine, targets), (theirs, wanted) = predictor.get_preds(dl), learn.get_preds(dl)
        torch.testing.assert_close(mine, theirs)
        assert (targets is None) == (wanted is None) and (
            targets is None or torch.equal(targets, wanted))


def test_get_preds_of_a_stream_for_several_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, a, b): return self.layer(a + b)

    class Stream(IterableDataset):
        def __iter__(self): return iter([((x[i], x[i]), y[i]) for i in range(32)])
    x, y = torch.randn(32, 4), torch.randint(3, (32,))
    dl = DataLoader(Stream(), 8)
    learn = Learner(DataBunch(dl, dl, device='cpu'), Two(), F.cross_entropy, silent=True,
                    path=tmp_path)
    learn.export(tmp_path/'two.pt2')
    found, targets = Predictor.load(tmp_path/'two.pt2', 'cpu').get_preds(dl)
    torch.testing.assert_close(found, learn.get_preds()[0])
    assert torch.equal(targets, y)


class Doubled(nn.Linear):
    "Writes to its inputs"
    def forward(self, x): return super().forward(x.mul_(2))


@pytest.mark.parametrize('suffix', ['pt2', 'onnx'])
def test_a_model_that_writes_to_its_inputs(suffix, tmp_path, capfd):
    if suffix == 'onnx': pytest.importorskip('onnxruntime')
    x, y = torch.randn(12, 3), torch.randint(2, (12,))
    kept = x.clone()
    learn = Learner(DataBunch.from_tensors(x, y, x, y, bs=4), Doubled(3, 2), silent=True)
    predictor = Predictor.load(learn.export(tmp_path/f'a.{suffix}'))
    with torch.no_grad(): want = F.linear(2*kept, *learn.model.parameters())
    for _ in range(2):
        torch.testing.assert_close(predictor.get_preds(x, bs=5)[0], want)
        torch.testing.assert_close(predictor.predict(x[3])[2], want[3].softmax(0))
    assert torch.equal(x, kept)
