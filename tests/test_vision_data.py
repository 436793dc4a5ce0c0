"Folders and lists of images: what is found, refused and split, and what the batches are"
import multiprocessing
import os
import pickle
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from processes import Program
from torch.nn import functional as F

from fastloop.data.external import image_folder_tensors
from fastloop.data.load import TensorLoader, in_order
from fastloop.export import Predictor
from fastloop.torch_core import end_workers, set_seed
from fastloop.train import Learner
from fastloop.vision import data as vision_data
from fastloop.vision.data import ImageDataBunch, imagenet_stats
from fastloop.vision.image import (
    get_image_files,
    in_threads,
    read_pixels,
    read_size,
    split_items,
)
from fastloop.vision.models import simple_cnn
from fastloop.vision.transform import (
    BatchTransform,
    RandomErase,
    RandomFlip,
    RandomRotate,
    RandomShift,
    default_tfms,
)

CPU = dict(device='cpu', seed=1, num_workers=0, channels=1)
THREE = {**CPU, 'channels': None}


def picture(i, size=(6, 8), mode='L'):
    "A picture whose pixels depend on `i`"
    rng = np.random.RandomState(i)
    shape = size if mode == 'L' else (*size, 3)
    return Image.fromarray(rng.randint(0, 256, shape).astype(np.uint8))


def put(folder, n, start=0, **how):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n): picture(start+i, **how).save(folder/f'{i:02d}.png')


@pytest.fixture
def path(tmp_path):
    "Two classes, 7 + 5 to train on and 3 + 2 to validate with"
    for k, (part, name, n) in enumerate([('train', 'cat', 7), ('train', 'dog', 5),
                                         ('valid', 'cat', 3), ('valid', 'dog', 2)]):
        put(tmp_path/part/name, n, 100*k)
    return tmp_path


def read(file, mode='L'): return np.asarray(Image.open(file).convert(mode))


def batches(dl): return [(xb.clone(), yb.clone()) for xb, yb in dl]


def same(a, b):
    assert len(a) == len(b)
    return all(torch.equal(x, xx) and torch.equal(y, yy) for (x, y), (xx, yy) in zip(a, b))


# ---- folders -------------------------------------------------------------------------------------
def test_from_folder(path):
    data = ImageDataBunch.from_folder(path, bs=4, **CPU)
    assert (data.c, data.classes, data.bs, data.path) == (2, ['cat', 'dog'], 4, path)
    assert (len(data.train_ds), len(data.valid_ds)) == (12, 5)
    assert [len(yb) for _, yb in data.train_dl] == [4, 4, 4]
    assert [len(yb) for _, yb in data.valid_dl] == [5]  # twice as many at once
    for ds in (data.train_ds, data.valid_ds):
        for i, file in enumerate(ds.files):
            x, y = ds[i]
            assert x.dtype == torch.float32 and x.shape == (1, 6, 8)
            assert np.allclose(x[0], read(file)/255, atol=1e-7)
            assert ds.classes[y] == file.split('/')[-2]
    xb, yb = data.one_batch()
    assert xb.shape == (4, 1, 6, 8) and yb.dtype == torch.int64
    first = next(iter(data.train_dl))
    assert torch.equal(first[0], xb) and torch.equal(first[1], yb)
    assert data.class_counts() == {'cat': 7, 'dog': 5}
    assert data.class_counts(train=False) == {'cat': 3, 'dog': 2}


def test_every_image_once_an_epoch(path):
    data = ImageDataBunch.from_folder(path, bs=5, **CPU)
    orders = []
    for _ in range(2):
        xs = torch.cat([xb for xb, _ in data.train_dl]).flatten(1)
        orders.append(xs)
        wanted = data.train_ds.images.flatten(1)/255
        assert torch.equal(xs.sort(0).values, wanted.sort(0).values)
    assert not torch.equal(*orders)


@pytest.mark.parametrize('example', [1, 2])
def test_the_examples_of_fastai_v1(tmp_path, example):
    "Grey images, and a network for three colours"
    for part, n in (('train', 8), ('valid', 4)):
        for name in '37': put(tmp_path/part/name, n, ord(name), size=(28, 28))
    data = ImageDataBunch.from_folder(tmp_path, device='cpu')
    if example == 1: learn = Learner(data, simple_cnn((3, 16, 16, 2)), silent=True)
    else: learn = Learner(data, simple_cnn((3, 16, 16, 2)).eval(), silent=True, lr=1e-4)
    learn.fit(2)
    assert learn.get_preds()[0].shape == (8, 2)
    assert learn.predict(data.open_image(data.valid_ds.files[0]))[0] in ('3', '7')
    assert learn.predict(data.valid_ds[0][0])[0] in ('3', '7')


def test_hidden_and_strange_files(path):
    (path/'train'/'cat'/'.hidden.png').write_bytes(b'x')
    for name in ('.ipynb_checkpoints', '__pycache__', '@eaDir'): (path/'train'/name).mkdir()
    (path/'train'/'cat'/'Thumbs.db').write_bytes(b'x')
    (path/'train'/'readme.txt').write_text('beside the classes')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        data = ImageDataBunch.from_folder(path, **CPU)
    (path/'train'/'cat'/'00.jgp').write_bytes(b'x')
    with pytest.warns(UserWarning, match=r'left out.*00\.jgp'):
        assert len(ImageDataBunch.from_folder(path, **CPU).train_ds) == len(data.train_ds) == 12


def test_a_script_that_saves_its_weights_can_run_again(tmp_path):
    for k, name in enumerate(('cat', 'dog')): put(tmp_path/name, 6, 100*k)
    def run():
        data = ImageDataBunch.from_folder(tmp_path, valid_pct=.3, bs=4, **CPU)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, data.c))
        learn = Learner(data, model, silent=True)
        learn.fit(1)
        return data.classes, len(data.train_ds), learn.save('first')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        first = run()
        assert run() == first == (['cat', 'dog'], 9, tmp_path/'models'/'first.pth')
    with pytest.raises(ValueError, match='no image of the class models'):
        ImageDataBunch.from_folder(tmp_path, valid_pct=.3, classes=['cat', 'models'])
    put(tmp_path/'emu', 1)
    (tmp_path/'emu'/'00.png').rename(tmp_path/'emu'/'00.heic')  # its pictures are not read
    with pytest.warns(UserWarning, match=r'left out.*00\.heic'): assert run()[0] == first[0]


def test_nested_folders_and_links(path):
    put(path/'train'/'cat'/'more'/'deep', 2, 50)
    os.symlink(path/'train'/'cat'/'00.png', path/'train'/'cat'/'link.png')
    os.symlink(path/'train'/'cat', path/'train'/'cat'/'circle')
    data = ImageDataBunch.from_folder(path, **CPU)
    assert data.class_counts() == {'cat': 7+2+1, 'dog': 5}
    os.symlink(path/'train', path/'other')
    assert len(ImageDataBunch.from_folder(path, train='other', **CPU).train_ds) == 15


def test_folders_that_do_not_fit(path, tmp_path):
    make = ImageDataBunch.from_folder
    with pytest.raises(ValueError, match='is not a folder'): make(path/'nothing')
    with pytest.raises(ValueError, match="train='tain'.*there is: train, valid"):
        make(path, train='tain')
    with pytest.raises(ValueError, match="valid='test'.*valid_pct=0.2"): make(path, valid='test')
    put(path/'valid'/'bird', 1)
    with pytest.raises(ValueError, match='class bird, which is not in'): make(path)
    (path/'valid'/'bird'/'00.png').unlink()
    (path/'valid'/'bird').rmdir()
    (path/'train'/'emu').mkdir()
    with pytest.raises(ValueError, match='no image of the class emu'): make(path)
    (path/'train'/'emu').rmdir()
    for part in ('cat', 'dog'):
        for o in (path/'valid'/part).iterdir(): o.unlink()
    with pytest.raises(ValueError, match='has no images'): make(path)
    assert make(path, valid=None, **CPU).valid_dl is None
    (path/'empty').mkdir()
    with pytest.raises(ValueError, match='a folder for each class'): make(path, train='empty')


def test_files_that_take_long_are_read_by_threads():
    names, seen = [f'{i}.png' for i in range(200)], set()

    def slow(name):
        seen.add(threading.get_ident())
        time.sleep(.002)
        return name.upper()
    assert in_threads(slow, names, 4) == [o.upper() for o in names]
    assert len(seen) > 2 and threading.get_ident() in seen
    assert in_threads(str.upper, names, 4) == [o.upper() for o in names]
    assert in_threads(str.upper, [], 4) == []

    def breaks(name):
        time.sleep(.002)
        if name == '150.png': raise ValueError(name)
    with pytest.raises(ValueError, match='150.png'): in_threads(breaks, names, 4)


def test_some_classes(path):
    make = ImageDataBunch.from_folder
    put(path/'train'/'emu', 3, 40)
    data = make(path, classes=['emu', 'cat'], **CPU)
    assert data.classes == ['emu', 'cat'] and data.c == 2
    assert data.class_counts() == {'emu': 3, 'cat': 7}
    assert data.class_counts(train=False)['emu'] == 0
    for file, label in zip(data.train_ds.files, data.train_ds.labels.tolist()):
        assert Path(file).parent.name == data.classes[label]
    assert {Path(o).parent.name for o in data.valid_ds.files} == {'cat'}
    heap = make(path, classes=['dog', 'cat'], valid_pct=.3, **CPU)
    assert heap.classes == ['dog', 'cat']
    assert {Path(o).parent.name for o in heap.train_ds.files + heap.valid_ds.files} == \
        {'dog', 'cat'}
    assert make(path, classes='cat', **CPU).classes == ['cat']
    (path/'train'/'broken').mkdir()
    (path/'train'/'broken'/'00.png').write_bytes(b'no image')
    assert make(path, classes=['cat', 'dog'], **CPU).c == 2  # what is not asked for is not opened


@pytest.mark.parametrize('more', [{}, dict(valid_pct=.3)])
@pytest.mark.parametrize('classes, words', [
    (['cat', 'cta'], r"no folder for cta, there is: cat, dog"), ([], r'classes=\[\]'),
    (['cat', 'dog', 'cat'], 'cat is named more than once'), ('ca', 'no folder for ca,')])
def test_some_classes_that_are_not_there(path, classes, words, more):
    with pytest.raises(ValueError, match=words):
        ImageDataBunch.from_folder(path, classes=classes, **more)


@pytest.mark.parametrize('how, words', [
    (dict(bs=0), 'bs'), (dict(valid_bs=0), 'valid_bs'), (dict(num_workers=-1), 'num_workers'),
    (dict(size=0), 'size=0'), (dict(size=(3,)), 'size'), (dict(size='28'), 'size'),
    (dict(size=2.5), 'size'), (dict(channels=2), 'channels=2'),
    (dict(channels=True), 'channels=True'), (dict(convert_mode='rgb'), "did you mean 'RGB'|RGB"),
    (dict(channels=1, convert_mode='RGB'), 'contradict'),
    (dict(resize_method='crp'), "did you mean 'crop'"), (dict(seed=1.5), 'seed'),
    (dict(valid_pct=1.), 'valid_pct=1.0'), (dict(valid_pct=-0.1), 'valid_pct'),
    (dict(valid_pct='all'), 'valid_pct')])
def test_bad_settings(path, how, words):
    with pytest.raises(ValueError, match=words): ImageDataBunch.from_folder(path, **how)


def test_bad_names_of_settings(path):
    with pytest.raises(TypeError, match='sise'): ImageDataBunch.from_lists(path, ['a'], [1], sise=3)
    with pytest.raises(TypeError, match='tfms'): ImageDataBunch.from_folder(path, tfms=['flip'])


# ---- splits --------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.sets(st.text('abc/', min_size=1, max_size=6), min_size=1, max_size=40),
       st.floats(0, 0.99), st.integers(-5, 2**64), st.randoms())
def test_splits(names, pct, seed, random):
    items = [(name, i % 3) for i, name in enumerate(sorted(names))]
    train, valid = split_items(items, pct, seed)
    assert not set(train) & set(valid) and sorted(train+valid) == sorted(items) and train
    assert len(valid) == min(max(int(pct*len(items)), pct > 0), len(items)-1)
    mixed = items[:]
    random.shuffle(mixed)
    assert split_items(mixed, pct, seed) == (train, valid)


@pytest.mark.parametrize('folders, asked, classes, sizes', [
    (['train/cat', 'train/dog', 'valid/cat'], dict(valid_pct=.25), ['cat', 'dog'], (9, 3)),
    (['train/cat', 'train/dog', 'valid/cat'], dict(train='train', valid='train', valid_pct=.25),
     ['cat', 'dog'], (6, 2)),
    (['cat', 'dog', 'valid/cat'], dict(valid_pct=.25), ['cat', 'dog'], (9, 3)),
    (['cat', 'dog', 'valid/cat'], {}, ['cat', 'dog'], (8, 4)),
    (['valid', 'invalid'], dict(valid_pct=.25), ['invalid', 'valid'], (6, 2)),
    (['train', 'bus'], dict(valid_pct=.25), ['bus', 'train'], (6, 2))])
def test_the_training_folder_may_hold_the_other(tmp_path, folders, asked, classes, sizes):
    "fastai v1's `train='.'`: no picture is seen twice, and a folder of classes is no class"
    for i, o in enumerate(folders): put(tmp_path/o, 4, 100*i)
    data = ImageDataBunch.from_folder(tmp_path, **{'train': '.', 'bs': 2, **CPU, **asked})
    files = data.train_ds.files + data.valid_ds.files
    assert data.classes == classes and len(set(files)) == len(files)
    assert (len(data.train_ds), len(data.valid_ds)) == sizes
    names = [data.classes[o] for o in [*data.train_ds.labels, *data.valid_ds.labels]]
    assert names == [Path(o).parent.name for o in files]


def test_valid_pct(path, tmp_path_factory):
    "Both folders are put together; the split depends on names and seed, not on the place"
    a = ImageDataBunch.from_folder(path, valid_pct=0.3, **CPU)
    assert (len(a.train_ds), len(a.valid_ds)) == (12, 5)
    other = tmp_path_factory.mktemp('elsewhere')/'copy'
    for file in reversed(get_image_files(path, recurse=True)):
        new = other/file.relative_to(path)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(file.read_bytes())
    b = ImageDataBunch.from_folder(other, valid_pct=0.3, **CPU)
    assert same(batches(a.train_dl), batches(b.train_dl))
    assert same(batches(a.valid_dl), batches(b.valid_dl))
    c = ImageDataBunch.from_folder(path, valid_pct=0.3, device='cpu', seed=2)
    assert set(c.valid_ds.files) != set(a.valid_ds.files)
    d = ImageDataBunch.from_folder(path/'train', valid_pct=0.25, **CPU)  # classes in the path
    assert d.classes == ['cat', 'dog'] and len(d.valid_ds) == 3
    set_seed(3)
    e = ImageDataBunch.from_folder(path, valid_pct=0.3, device='cpu')
    set_seed(3)
    assert ImageDataBunch.from_folder(path, valid_pct=0.3, device='cpu').valid_ds.files == \
        e.valid_ds.files


def test_a_class_that_the_split_takes_away(tmp_path):
    put(tmp_path/'a', 6)
    put(tmp_path/'b', 1, 50)
    seeds = {}
    for seed in range(12):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.3, device='cpu', seed=seed)
        seeds[seed] = bool(seen)
        assert data.c == 2 and bool(seen) == (data.class_counts()['b'] == 0)
    assert len(set(seeds.values())) == 2


# ---- lists and tables ----------------------------------------------------------------------------
@pytest.fixture
def heap(tmp_path):
    "Ten files `images/cat_0.png` …, and the labels"
    put(tmp_path/'images', 10)
    names = []
    for i, file in enumerate(sorted((tmp_path/'images').iterdir())):
        names.append(f'{("cat", "dog")[i % 2]}_{i}.png')
        file.rename(file.with_name(names[-1]))
    return SimpleNamespace(path=tmp_path, names=names, labels=[o[:3] for o in names])


def labels_by_file(data):
    return {o.split('/')[-1]: ds.classes[y] for ds in (data.train_ds, data.valid_ds)
            for o, y in zip(ds.files, ds.labels)}


def test_all_ways_agree(heap):
    "Five ways to say the same, one split and one order"
    p, full = heap.path, [f'images/{o}' for o in heap.names]
    (p/'labels.csv').write_text('name,label\n'+''.join(f'{a},{b}\n' for a, b in
                                                       zip(heap.names, heap.labels)))
    df = pd.DataFrame(dict(name=[o[:-4] for o in heap.names], kind=heap.labels))
    files = get_image_files(p/'images')
    made = [
        ImageDataBunch.from_lists(p, full, heap.labels, 0.3, **CPU),
        ImageDataBunch.from_df(p, df, 'images', valid_pct=0.3, suffix='.png', **CPU),
        ImageDataBunch.from_df(p, df[['kind', 'name']][::-1], folder='images', valid_pct=0.3,
                               suffix='.png', fn_col='name', label_col='kind', **CPU),
        ImageDataBunch.from_csv(p, 'images', valid_pct=0.3, **CPU),
        ImageDataBunch.from_name_re(p, files, r'/(\w+)_\d+\.png$', 0.3, **CPU),
        ImageDataBunch.from_name_re(p, [str(o) for o in files], r'([a-z]+)_\d', 0.3, **CPU),
        ImageDataBunch.from_name_func(p, files, lambda o: o.name[:3], 0.3, **CPU)]
    first = batches(made[0].train_dl)
    for data in made:
        data.train_dl.set_epoch(0)
        assert labels_by_file(data) == dict(zip(heap.names, heap.labels))
        assert len(data.valid_ds) == 3 and data.classes == ['cat', 'dog']
        assert same(batches(data.train_dl), first)


def test_a_pattern_sees_the_file_as_it_was_given(heap):
    "As in fastai v1, whose patterns begin with the last slash, also where the folder is the path"
    place = heap.path/'images'
    data = ImageDataBunch.from_name_re(place, get_image_files(place), r'/([^/]+)_\d+.png$', **CPU)
    assert labels_by_file(data) == dict(zip(heap.names, heap.labels))


def test_labels_that_are_numbers(heap):
    p, full = heap.path, [f'images/{o}' for o in heap.names]
    for labels in ([2, 10]*5, np.array([2, 10]*5), np.array([2., 10.]*5), torch.tensor([2, 10]*5)):
        data = ImageDataBunch.from_lists(p, full, labels, **CPU)
        assert data.classes == [2, 10] and labels_by_file(data)['cat_0.png'] == 2
    (p/'l.csv').write_text('\ufeff'+''.join(f'{a};{b}\n' for a, b in zip(full, [2, 10]*5)),
                           encoding='utf-8')
    data = ImageDataBunch.from_csv(p, csv_labels='l.csv', delimiter=';', header=None, **CPU)
    assert data.classes == [2, 10]
    for bad in (0.5, float('nan'), None, ''):
        with pytest.raises(ValueError, match=r'label of images/cat_0\.png'):
            ImageDataBunch.from_lists(p, full, [bad, *heap.labels[1:]])


def test_lists_that_do_not_fit(heap):
    p, full = heap.path, [f'images/{o}' for o in heap.names]
    df = pd.DataFrame(dict(name=full, kind=heap.labels))
    for make, words in [
            (lambda: ImageDataBunch.from_lists(p, full, ['a']), '10 fnames but 1 labels'),
            (lambda: ImageDataBunch.from_lists(p, [], []), 'no images'),
            (lambda: ImageDataBunch.from_lists(p, ['x.png'], ['a'], 0), "no file 'x.png'"),
            (lambda: ImageDataBunch.from_df(p, df, fn_col='file'), "fn_col='file'.*name, kind"),
            (lambda: ImageDataBunch.from_df(p, df, label_col=2), 'label_col=2'),
            (lambda: ImageDataBunch.from_csv(p), 'csv_labels'),
            (lambda: ImageDataBunch.from_name_re(p, full, r'(\d+)_'), r'does not match .*cat_0'),
            (lambda: ImageDataBunch.from_name_re(p, full, r'\d+'), 'no group'),
            (lambda: ImageDataBunch.from_name_re(p, full, r'(\d+'), 'no regular expression'),
            (lambda: get_image_files(p/'none'), 'not a folder')]:
        with pytest.raises(ValueError, match=words): make()
    (p/'labels.csv').write_text('name,label\na.png\n')
    with pytest.raises(ValueError, match='row 1'): ImageDataBunch.from_csv(p)
    (p/'labels.csv').write_text('')
    with pytest.raises(ValueError, match='empty'): ImageDataBunch.from_csv(p)


def test_a_table_that_is_not_in_utf8(heap):
    rows = [f'images/{file},{"Käse" if label else "Brot"}\n' for file, label
            in zip(heap.names, [0, 1]*5)]
    table = heap.path/'labels.csv'
    table.write_text('name,label\n' + ''.join(rows), encoding='cp1252')
    with pytest.raises(ValueError, match=r'labels.csv is not written in UTF-8.*encoding="cp1252"'):
        ImageDataBunch.from_csv(heap.path)
    data = ImageDataBunch.from_df(heap.path, pd.read_csv(table, encoding='cp1252'),
                                  fn_col=np.int64(0), label_col=np.int64(-1), **CPU)
    assert data.classes == ['Brot', 'Käse']


def test_numbers_of_numpy_as_settings(path):
    want = ImageDataBunch.from_folder(path, size=4, valid_pct=.5, **CPU)
    for size in (np.int64(4), (np.int32(4), 4)):
        data = ImageDataBunch.from_folder(path, size=size, valid_pct=np.float32(.5), **CPU)
        assert data.item_settings() == want.item_settings() and data.valid_ds.files == \
            want.valid_ds.files and type(data.item_settings()['size'][0]) is int


def test_no_pandas_needed(heap):
    code = ('import sys, fastloop.vision.data as d; sys.modules["pandas"] = None; '
            'sys.modules["torchvision"] = None; '
            f'b = d.ImageDataBunch.from_name_re({str(heap.path)!r}, '
            f'd.get_image_files({str(heap.path/"images")!r}), r"(cat|dog)", device="cpu"); '
            'print(b.c, "matplotlib" in sys.modules)')
    done = Program(code).end()
    assert done.stdout == '2 False\n', done.stderr


# ---- files of all kinds --------------------------------------------------------------------------
def only(folder, channels=1, **how):
    "The pixels of the one image in `folder`"
    data = ImageDataBunch.from_lists(folder, [next(folder.iterdir()).name], ['a'], 0,
                                     **{**CPU, 'channels': channels}, **how)
    return data.train_ds.images[0].numpy()


GREY, RED = np.arange(12, dtype=np.uint8).reshape(3, 4)*20, np.zeros((3, 4, 3), np.uint8)
RED[..., 0], RED[1] = 200, (10, 20, 30)


def palette(): return Image.fromarray(RED).convert('P', palette=Image.ADAPTIVE)


@pytest.mark.parametrize('image, name, expected', [
    (Image.fromarray(GREY), 'a.png', GREY[None]),
    (Image.fromarray(GREY.astype(np.uint16)*257), 'a.png', GREY[None]),
    (Image.fromarray(GREY.astype(np.int32)*257), 'a.tif', GREY[None]),
    (Image.fromarray(GREY.astype(np.float32)/255), 'a.tif', GREY[None]),
    (Image.fromarray(GREY > 100), 'a.png', (GREY > 100)[None]*255),
    (Image.merge('LA', [Image.fromarray(GREY), Image.new('L', (4, 3), 255)]), 'a.png', GREY[None]),
    (Image.new('LA', (4, 3), (7, 0)), 'a.png', np.full((1, 3, 4), 255)),
    (Image.fromarray(RED), 'a.PNG', RED.transpose(2, 0, 1)),
    (Image.fromarray(RED).convert('RGBA'), 'a.png', RED.transpose(2, 0, 1)),
    (Image.new('RGBA', (4, 3), (200, 0, 0, 0)), 'a.png', np.full((3, 3, 4), 255)),
    (palette(), 'a.png', RED.transpose(2, 0, 1)),
    (Image.fromarray(GREY).convert('P'), 'a.png', GREY[None]),
    (Image.fromarray(RED).convert('CMYK'), 'a.tif', RED.transpose(2, 0, 1)),
    (Image.fromarray(GREY), 'a.bmp', GREY[None])])
def test_kinds_of_files(tmp_path, image, name, expected):
    (tmp_path/'set'/'a'/'below').mkdir(parents=True)
    file = tmp_path/'set'/'a'/'below'/name  # a second reader must find it too, and read the same
    image.save(file)
    assert np.array_equal(only(file.parent, len(expected)), expected)
    pixels = image_folder_tensors(tmp_path/'set', n_channels=len(expected))[0]
    assert np.array_equal(pixels.reshape(expected.shape), expected)


def test_turned_camera(tmp_path):
    for orientation, k in ((1, 0), (3, 2), (6, 3), (8, 1)):  # EXIF: 6 is a quarter clockwise
        exif = Image.Exif()
        exif[0x0112] = orientation
        folder = tmp_path/str(orientation)
        folder.mkdir()
        Image.fromarray(GREY).save(folder/'a.png', exif=exif)
        assert np.array_equal(only(folder)[0], np.rot90(GREY, k))


# what each orientation of EXIF makes of rows and columns, by its definition
upright = {1: lambda o: o, 2: lambda o: o[:, ::-1], 3: lambda o: o[::-1, ::-1],
           4: lambda o: o[::-1], 5: lambda o: o.T, 6: lambda o: o[::-1].T,
           7: lambda o: o[::-1, ::-1].T, 8: lambda o: o[:, ::-1].T}


def put_turned(folder, name, orientation):
    "A picture of a camera that was turned; `late.png` says so behind the pixels"
    exif, file = Image.Exif(), folder/name
    exif[0x0112] = orientation
    folder.mkdir(parents=True, exist_ok=True)
    how = dict(compression='tiff_lzw') if name == 'packed.tif' else {}
    Image.fromarray(GREY).save(file, exif=exif, lossless=True, **how)
    if name != 'late.png': return
    data = file.read_bytes()
    at = data.index(b'eXIf')-4
    end = at + 12 + int.from_bytes(data[at:at+4], 'big')
    note, data = data[at:end], data[:at] + data[end:]
    file.write_bytes(data[:-12] + note + data[-12:])  # the last chunk is empty
    assert data.index(b'IDAT') < len(data)-12


@pytest.mark.parametrize('name', ['a.png', 'late.png', 'a.tif', 'packed.tif', 'a.webp'])
@pytest.mark.parametrize('orientation', upright)
def test_a_turned_camera_in_every_kind_of_file(tmp_path, name, orientation):
    "Nothing is cut off, whether or not a size is asked for, in memory or later"
    wanted = upright[orientation](GREY)
    for part in ('train', 'valid'): put_turned(tmp_path/part/'a', name, orientation)
    assert read_size(tmp_path/'train'/'a'/name) == wanted.shape
    for how in (dict(), dict(size=wanted.shape), dict(memory=0)):
        data = ImageDataBunch.from_folder(tmp_path, **CPU | how)
        found = data.one_batch()[0]
        assert found.shape[2:] == wanted.shape
        assert np.array_equal((found[0, 0]*255).round(), wanted)


def test_the_size_is_known_without_the_pixels(tmp_path, monkeypatch):
    for name in ('a.png', 'late.png', 'a.tif', 'a.webp'): put_turned(tmp_path, name, 6)
    picture(0).save(tmp_path/'plain.png')
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: pytest.fail('it was decoded'))
    found = {o.name: read_size(o) for o in tmp_path.iterdir() if o.suffix != '.webp'}
    assert found == {'a.png': (4, 3), 'late.png': (4, 3), 'a.tif': (4, 3), 'plain.png': (6, 8)}


@pytest.mark.parametrize('memory', [0, 2**30])
def test_pixels_of_another_size_than_the_header_said(path, memory, monkeypatch):
    "Where no size was asked for, nothing is cut off in silence"
    bad = path/'train'/'dog'/'02.png'
    monkeypatch.setattr('fastloop.vision.data.read_size', lambda file: (6, 8))
    picture(7, (8, 6)).save(bad)
    with pytest.raises(ValueError, match=r'02\.png is 6 x 8 pixels, not 8 x 6.*size='):
        for _ in ImageDataBunch.from_folder(path, memory=memory, **CPU).train_dl: pass
    data = ImageDataBunch.from_folder(path, memory=memory, size=(6, 8), **CPU)
    assert sum(len(xb) for xb, _ in data.train_dl) == 12
    picture(102).save(bad)  # and a new picture may have any size
    data = ImageDataBunch.from_folder(path, memory=memory, **CPU)
    assert data.open_image(np.asarray(picture(1, (9, 9)))).shape == (1, 6, 8)


def test_bytes_in_wider_numbers(tmp_path):
    "32 bits hold bytes, if none is larger; 16 bits stay what they are"
    def made(array, name):
        folder = tmp_path/name
        folder.mkdir()
        Image.fromarray(array).save(folder/name)
        return only(folder)[0]
    assert np.array_equal(made(GREY.astype(np.int32), 'bytes.tif'), GREY)
    assert np.array_equal(made(GREY.astype(np.int32) + 256, 'wide.tif'), np.ones_like(GREY))
    for name in ('dark.png', 'dark.pgm', 'dark.tif'):
        assert not made(GREY.astype(np.uint16), name).any()
    assert np.array_equal(read_pixels(Image.fromarray(GREY.astype(np.int32)), 1)[0], GREY)


def test_real_numbers_beyond_one(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path/'a.tif')
    with pytest.raises(ValueError, match=r'a\.tif.*not from 0 to 1'): only(tmp_path)


def test_channels(path):
    picture(500, mode='RGB').save(path/'valid'/'dog'/'01.png')  # one coloured file
    for how, n in ((dict(), 3), (dict(channels=1), 1), (dict(convert_mode='L'), 1)):
        assert ImageDataBunch.from_folder(path, **THREE | how).one_batch()[0].shape[1] == n
    picture(500).save(path/'valid'/'dog'/'01.png')
    for how in (dict(), dict(channels=3), dict(convert_mode='RGB')):
        data = ImageDataBunch.from_folder(path, **THREE | how)
        xb = data.one_batch()[0]
        assert xb.shape[1] == 3 and torch.equal(xb[:, 0], xb[:, 2])


# ---- sizes ---------------------------------------------------------------------------------------
def test_sizes_that_differ(path):
    picture(7, (9, 8)).save(path/'train'/'dog'/'03.png')
    with pytest.raises(ValueError) as e: ImageDataBunch.from_folder(path, **CPU)
    assert '00.png is 8 x 6 pixels' in str(e.value) and '03.png is 8 x 9' in str(e.value)
    assert 'size=' in str(e.value)
    with pytest.raises(ValueError, match='8 x 9'): ImageDataBunch.from_folder(path, memory=0, **CPU)
    for size, shape in ((4, (4, 4)), ((5, 3), (5, 3)), ([20, 30], (20, 30))):
        data = ImageDataBunch.from_folder(path, size=size, **CPU)
        assert data.one_batch()[0].shape[-2:] == shape


def test_crop_and_squish(tmp_path):
    "A wide picture: black, white, black; the crop keeps the white middle"
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path/'a.png')
    assert (only(tmp_path, size=10) == 255).all()
    assert (only(tmp_path, size=(10, 20))[0] == wide[:, 5:25]).all()
    squished = only(tmp_path, size=10, resize_method='squish')[0]
    by_pillow = Image.fromarray(wide).resize((10, 10), Image.BILINEAR)
    assert np.array_equal(squished, by_pillow) and squished[0, 0] == 0 and squished[0, 5] == 255
    small = only(tmp_path, size=5)[0]
    by_pillow = Image.fromarray(wide).resize((5, 5), Image.BILINEAR, box=(10, 0, 20, 10))
    assert np.array_equal(small, by_pillow)


def photograph(shape, seed=0):
    "Smooth colours, edges and some noise, as large as `shape`"
    r = np.random.default_rng(seed)
    y, x = np.mgrid[:shape[0], :shape[1]]/100
    pixels = 127 + 90*np.stack([np.sin(3*x+y), np.cos(2*y), (x*y % 1 > .5)-.5], 2)
    return Image.fromarray((pixels + r.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize('size, method, orientation, smaller', [
    ((64, 64), 'crop', 1, (320, 240)), ((64, 64), 'squish', 1, (320, 240)),
    ((64, 32), 'crop', 6, (160, 120)), ((32, 64), 'crop', 6, (320, 240)),
    ((30, 40), 'crop', 3, (80, 60)),
    ((200, 300), 'crop', 1, None), ((480, 640), 'crop', 1, None), ((700, 900), 'squish', 8, None)])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_photograph_decoded_smaller_is_nearly_the_same(size, method, orientation, smaller,
                                                         channels, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph((480, 640)).save(tmp_path/'a.jpg', quality=92, exif=exif)
    whole = ImageOps.exif_transpose(Image.open(tmp_path/'a.jpg')).convert('L' if channels == 1
                                                                           else 'RGB')
    whole = (ImageOps.fit(whole, size[::-1], Image.BILINEAR) if method == 'crop' else
             whole.resize(size[::-1], Image.BILINEAR))
    decoded, draft = [], JpegImageFile.draft
    def noted(image, *args):
        res = draft(image, *args)
        decoded.append(image.size)
        return res
    monkeypatch.setattr(JpegImageFile, 'draft', noted)
    found = read_pixels(tmp_path/'a.jpg', channels, size, method)
    expected = np.atleast_3d(np.asarray(whole)).transpose(2, 0, 1)
    apart = np.abs(found.astype(int) - expected)
    assert decoded == ([smaller] if smaller else []) and found.shape == (channels, *size)
    if smaller: assert apart.mean() < 1 and apart.max() <= 6
    else: assert not apart.any()


def test_a_photograph_of_odd_sides_is_decoded_whole(tmp_path):
    photograph((485, 643)).save(tmp_path/'a.jpg')
    whole = ImageOps.fit(Image.open(tmp_path/'a.jpg'), (30, 30), Image.BILINEAR)
    assert np.array_equal(read_pixels(tmp_path/'a.jpg', 3, (30, 30)).transpose(1, 2, 0), whole)


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'webp', 'tif'])
def test_other_files_are_decoded_whole(suffix, tmp_path):
    photograph((300, 400)).save(tmp_path/f'a.{suffix}')
    file = tmp_path/f'a.{suffix}'
    whole = ImageOps.fit(Image.open(file).convert('RGB'), (20, 20), Image.BILINEAR)
    assert np.array_equal(read_pixels(file, 3, (20, 20)).transpose(1, 2, 0), whole)


# ---- files that cannot be read -------------------------------------------------------------------
def broken_png(file):
    data = file.read_bytes()
    file.write_bytes(data[:len(data)//2])


def test_broken_files_at_once(path):
    bad = path/'train'/'dog'/'02.png'
    broken_png(bad)
    with pytest.raises(ValueError, match=r'dog/02\.png cannot be read as an image'):
        ImageDataBunch.from_folder(path, **CPU)
    for content in (b'', b'text', b'\x89PNG\r\n\x1a\n'):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r'dog/02\.png cannot be read'):
            ImageDataBunch.from_folder(path, **CPU)
        with pytest.raises(ValueError, match=r'dog/02\.png cannot be read'):
            ImageDataBunch.from_folder(path, memory=0, **CPU)  # the header tells


@pytest.mark.parametrize('num_workers', [0, 2])
def test_broken_files_later(path, num_workers):
    data = ImageDataBunch.from_folder(path, memory=0, bs=4, seed=1, device='cpu',
                                      num_workers=num_workers)
    bad = path/'train'/'dog'/'02.png'
    good = bad.read_bytes()
    broken_png(bad)
    with pytest.raises(ValueError, match=r'dog/02\.png cannot be read as an image'):
        list(data.train_dl)
    bad.write_bytes(good)
    data.train_dl.set_epoch(0)
    assert sum(len(yb) for _, yb in data.train_dl) == 12  # and it can be used again


def test_huge_pictures(path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)
    with pytest.raises(ValueError, match=r'00\.png cannot be read.*DecompressionBombError'):
        ImageDataBunch.from_folder(path, **CPU)


# ---- in memory and from files --------------------------------------------------------------------
def test_processes_that_read_files_end_with_the_training(path):
    data = ImageDataBunch.from_folder(path, memory=0, bs=4, seed=1, device='cpu', num_workers=1)
    learn = Learner(data, simple_cnn((3, 4, 2)), silent=True)
    learn.fit(1)
    assert not multiprocessing.active_children()
    learn.validate()
    list(data.train_dl)
    assert multiprocessing.active_children()
    end_workers(data.train_dl)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize('num_workers', [0, 2])
def test_files_give_the_same_batches(path, num_workers):
    how = dict(bs=5, seed=4, device='cpu', size=5, tfms=default_tfms(), num_workers=num_workers)
    set_seed(9)
    kept = ImageDataBunch.from_folder(path, **how).normalize()
    expected = [batches(dl) for _ in range(2) for dl in (kept.train_dl, kept.valid_dl)]
    set_seed(9)
    lazy = ImageDataBunch.from_folder(path, memory=0, **how).normalize()
    assert lazy.train_ds.images is None and kept.train_ds.images.dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(lazy.stats, kept.stats))
    for a, dl in zip(expected, [lazy.train_dl, lazy.valid_dl]*2): assert same(a, batches(dl))
    assert torch.equal(kept.train_ds[3][0], lazy.train_ds[3][0])
    assert torch.equal(kept.open_image(kept.train_ds.files[3]), kept.train_ds[3][0])


def test_the_budget(path):
    need = 17*6*8
    make = ImageDataBunch.from_folder
    assert make(path, memory=need, **CPU).train_ds.images is not None
    assert make(path, memory=need-1, **CPU).train_ds.images is None
    assert make(path, memory=need, **THREE).train_ds.images is None


@pytest.mark.parametrize('memory', [0, 2**30])
def test_resuming(path, memory):
    "State and random numbers in mid-epoch give the rest of the batches, variations included"
    make = lambda seed: ImageDataBunch.from_folder(  # noqa: E731
        path, bs=3, memory=memory, device='cpu', num_workers=0, seed=seed, tfms=default_tfms())
    data, seen = make(1), []
    set_seed(5)
    passes = iter(data.train_dl)
    for _ in range(2): next(passes)
    state, numbers = data.train_dl.state_dict(), torch.get_rng_state()
    assert state['position'] == 2 and state['n'] == 12
    seen = batches(passes) + batches(data.train_dl)
    other = make(99)
    other.train_dl.load_state_dict(state)
    torch.set_rng_state(numbers)
    assert same(seen, batches(other.train_dl) + batches(other.train_dl))
    with pytest.raises(ValueError, match='bs'):
        ImageDataBunch.from_folder(path, bs=4, memory=memory, **CPU).train_dl.load_state_dict(state)


@pytest.mark.parametrize('memory, num_workers', [(0, 0), (0, 2), (2**30, 0)])
def test_looks_leave_no_trace(path, memory, num_workers):
    def run(look):
        set_seed(5)
        data, res = ImageDataBunch.from_folder(path, bs=3, memory=memory, device='cpu', seed=3,
                                               num_workers=num_workers, tfms=default_tfms()), []
        if look: data.show_batch(rows=2)
        for i, (xb, _) in enumerate(data.train_dl):
            res.append(xb)
            if look and i == 1: first = data.one_batch(), data.train_dl.peek()
        if look: assert torch.equal(first[0][1], first[1][1])  # the start of the next epoch
        return res + [xb for xb, _ in data.train_dl]
    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


def test_a_pass_that_is_given_up(path):
    "Workers that are kept from one pass to the next do not mix up two of them"
    data = ImageDataBunch.from_folder(path, bs=2, memory=0, device='cpu', seed=3, num_workers=2)
    kept = ImageDataBunch.from_folder(path, bs=2, device='cpu', seed=3)
    for dl in (data.train_dl, kept.train_dl):
        for _ in zip(range(2), dl): pass
        dl.end_epoch()
    assert data.train_dl.epoch == kept.train_dl.epoch == 1
    assert same(batches(data.train_dl), batches(kept.train_dl))


def test_workers_get_nothing_but_files(path):
    "The part that goes to a worker process survives the journey, also where processes are spawned"
    data = ImageDataBunch.from_folder(path, memory=0, tfms=lambda x: x, **CPU)
    pixels = pickle.loads(pickle.dumps(data.train_ds.pixels))
    assert torch.equal(pixels[0][0], data.train_ds.pixels[0][0])


# ---- normalising ---------------------------------------------------------------------------------
@pytest.mark.parametrize('channels', [1, 3])
def test_normalize(path, channels):
    if channels == 3:
        for i, file in enumerate(get_image_files(path, recurse=True)):
            picture(i, mode='RGB').save(file)
    how = {**CPU, 'channels': channels}
    raw = ImageDataBunch.from_folder(path, **how)
    assert raw.stats is None
    data = ImageDataBunch.from_folder(path, **how).normalize()
    pixels = np.stack([read(o, ('L', None, 'RGB')[channels-1]) for o in data.train_ds.files])/255
    pixels = pixels.reshape(-1, channels)
    mean, std = data.stats
    assert np.allclose(mean, pixels.mean(0), atol=1e-6)
    assert np.allclose(std, pixels.std(0), atol=1e-6)
    for dl, plain in ((data.train_dl, raw.train_dl), (data.valid_dl, raw.valid_dl)):
        for (x, y), (px, py) in zip(dl, plain, strict=True):
            shape = (channels, 1, 1)
            assert torch.allclose(x, (px-mean.reshape(shape))/std.reshape(shape), atol=1e-5)
            assert torch.allclose(data.denormalize(x), px, atol=1e-6) and torch.equal(y, py)
    assert data.normalize(([0.]*channels, [1.]*channels)) is data
    assert torch.equal(data.one_batch()[0], raw.one_batch()[0])  # the latest word holds


def test_normalize_with_given_numbers(path):
    grey = ImageDataBunch.from_folder(path, **CPU)
    with pytest.raises(ValueError, match='3 numbers.*1 channels.*channels=3'):
        grey.normalize(imagenet_stats)
    data = ImageDataBunch.from_folder(path, **THREE).normalize(imagenet_stats)
    x, plain = data.train_ds[0][0], grey.train_ds[0][0]
    expected = torch.stack([(plain[0]-m)/s for m, s in zip(*imagenet_stats)])
    assert torch.allclose(x, expected, atol=1e-5)
    assert torch.equal(data.open_image(data.train_ds.files[0]), x)
    assert torch.allclose(grey.normalize((0.5, 0.25)).train_ds[0][0], (plain-0.5)/0.25)
    for bad in ((0.5, 0.), (float('nan'), 1.), (0.5,), 3, ([0.1, 0.2], 1.), (0.5, -1.)):
        with pytest.raises(ValueError, match='stats'): grey.normalize(bad)


def test_one_grey_everywhere(tmp_path):
    Image.new('L', (4, 4), 100).save(tmp_path/'a.png')
    data = ImageDataBunch.from_lists(tmp_path, ['a.png'], ['x'], 0, **CPU).normalize()
    assert torch.allclose(data.one_batch()[0], torch.zeros(1), atol=1e-6)


# ---- variations ----------------------------------------------------------------------------------
@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(5, 3, 7, 9)


def test_flip(x):
    chosen = torch.tensor([True, False, True, False, False])
    for tfm, axis in ((RandomFlip(), 3), (RandomFlip(vertical=True), 2)):
        expected = x.numpy().copy()
        expected[[0, 2]] = np.flip(expected[[0, 2]], axis)
        assert np.array_equal(tfm.apply(x, chosen), expected)
    assert torch.equal(RandomFlip(1.)(x), x.flip(-1)) and torch.equal(RandomFlip(0.)(x), x)
    assert 400 < RandomFlip().draw(1000)[0].sum() < 600


@pytest.mark.parametrize('padding, mode', [('zeros', 'constant'), ('border', 'edge'),
                                           ('reflection', 'reflect')])
def test_shift(x, padding, mode):
    down, right = torch.tensor([0, 2, -3, 0, 1]), torch.tensor([0, -1, 0, 4, -4])
    moved = RandomShift(4, padding).apply(x, down, right)
    for i in range(5):
        padded = np.pad(x[i], [(0, 0), (4, 4), (4, 4)], mode=mode)
        top, left = 4-down[i], 4-right[i]
        assert np.array_equal(moved[i], padded[:, top:top+7, left:left+9])


def test_shift_draws():
    down, right = RandomShift(3).draw(2000)
    assert sorted(down.unique().tolist()) == sorted(right.unique().tolist()) == list(range(-3, 4))
    far = RandomShift(50).apply(torch.rand(1, 1, 4, 4), torch.tensor([50]), torch.tensor([-50]))
    assert far.shape == (1, 1, 4, 4)
    assert torch.equal(RandomShift(50, 'zeros').apply(torch.ones(1, 1, 1, 1), *torch.tensor(
        [[1], [0]])), torch.zeros(1, 1, 1, 1))


def test_rotate(x):
    square = x[..., :7]
    for k in range(5):
        turned = RandomRotate().apply(square, torch.full((5,), 90.*k))
        assert torch.allclose(turned, torch.rot90(square, k, (-2, -1)), atol=1e-4)
    half = RandomRotate().apply(x, torch.full((5,), 180.))  # sides of different lengths
    assert torch.allclose(half, x.flip(-1, -2), atol=1e-4)
    mixed = RandomRotate(0.).apply(square, torch.tensor([0., 90., 180., 270., 0.]))
    for k in range(4):
        assert torch.allclose(mixed[k], torch.rot90(square[k], k, (-2, -1)), atol=1e-4)
    angles = RandomRotate(20.).draw(1000)[0]
    assert angles.abs().max() <= 20 and angles.min() < -15 and angles.max() > 15


def test_rotate_like_pillow():
    "A slanted bar in a wide picture: circles must stay circles"
    image = np.zeros((40, 60), np.float32)
    image[18:22, 20:40] = 1
    xb = torch.tensor(image)[None, None]
    turned = RandomRotate(padding='zeros').apply(xb, torch.tensor([30.]))
    other = np.asarray(Image.fromarray(image).rotate(30, Image.BILINEAR))
    assert np.abs(turned[0, 0].numpy()-other).mean() < 0.002
    assert abs(turned.sum().item() - image.sum()) < 2


def test_erase(x):
    box = [torch.tensor(o) for o in ([3/7, 0, 1, 0, 0], [2/9]*5, [2/7, 0, 0, 0, 0], [4/9]*5)]
    expected = x.clone()
    expected[0, :, 2:5, 4:6] = 0.5
    expected[2, :, :, 4:6] = 0.5
    assert torch.equal(RandomErase(value=0.5).apply(x, *box), expected)
    assert torch.equal(RandomErase(0.)(x), x)
    torch.manual_seed(0)
    erased = RandomErase(1., area=(0.1, 0.3))(torch.ones(400, 1, 50, 50))
    share = (erased == 0).float().mean((1, 2, 3))
    assert 0.07 < share.min() and share.max() < 0.33 and 0.18 < share.mean() < 0.22


@pytest.mark.parametrize('make', [
    lambda: RandomFlip(1.5), lambda: RandomFlip('half'), lambda: RandomShift(-1),
    lambda: RandomShift(1.5), lambda: RandomShift(2, 'black'), lambda: RandomRotate(-1),
    lambda: RandomErase(area=(0.5, 0.1)), lambda: RandomErase(ratio=0.5),
    lambda: RandomErase(value=2), lambda: RandomErase(float('nan'))])
def test_transforms_refuse(make):
    with pytest.raises(ValueError): make()


def test_choices_follow_the_seed(x):
    for tfm in (*default_tfms(p_erase=1.), RandomFlip(vertical=True)):
        assert isinstance(tfm, BatchTransform)
        set_seed(3)
        a, b = tfm(x), tfm(x)
        set_seed(3)
        assert torch.equal(tfm(x), a) and torch.equal(tfm(x), b) and a.shape == x.shape


def test_only_training_images_vary(path):
    seen = []

    def whole(xb):
        seen.append(tuple(xb.shape))
        return 1-xb
    whole.batched = True
    one = lambda x: x.flip(-1)  # noqa: E731
    plain = ImageDataBunch.from_folder(path, bs=12, **CPU)
    data = ImageDataBunch.from_folder(path, bs=12, tfms=[whole, one], **CPU)
    x, expected = data.one_batch()[0], 1-plain.one_batch()[0].flip(-1)
    assert torch.equal(x, expected) and seen == [(12, 1, 6, 8)]
    assert same(batches(data.valid_dl), batches(plain.valid_dl))
    assert torch.equal(data.train_ds[0][0], plain.train_ds[0][0])
    data.normalize((0.5, 0.5))  # after the transforms
    assert torch.allclose(data.one_batch()[0], (expected-0.5)/0.5)
    single = ImageDataBunch.from_folder(path, bs=12, tfms=one, **CPU)
    assert torch.equal(single.one_batch()[0], plain.one_batch()[0].flip(-1))


def test_a_transform_that_fails(path):
    def crop(x): return x[:, :int(torch.randint(2, 5, ()))]
    data = ImageDataBunch.from_folder(path, bs=12, tfms=[crop], **CPU)
    with pytest.raises(RuntimeError) as e: list(data.train_dl)
    assert any('in tfms' in o and 'crop' in o for o in e.value.__notes__)


def test_variations_in_training(path):
    data = ImageDataBunch.from_folder(path, bs=4, tfms=default_tfms(p_erase=0.5), **CPU).normalize()
    learn = Learner(data, simple_cnn((3, 4, 2)), silent=True)
    learn.fit(2, lr=0.01)
    loss = F.cross_entropy(*learn.get_preds())
    assert learn.recorder.values[-1][1] == pytest.approx(loss.item(), rel=1e-4)


# ---- pictures ------------------------------------------------------------------------------------
def test_show_batch(path):
    (path/'train'/'dog').rename(path/'train'/'$\\frac{')
    (path/'valid'/'dog').rename(path/'valid'/'$\\frac{')
    data = ImageDataBunch.from_folder(path, bs=6, **CPU).normalize()
    fig = data.show_batch(rows=3)
    axes = fig.axes
    assert len(axes) == 9 and sum(bool(o.images) for o in axes) == 6
    xb, yb = data.one_batch()
    shown = data.denormalize(xb)
    for ax, image, label in zip(axes, shown, yb):
        assert np.allclose(ax.images[0].get_array(), image[0].numpy())
        assert ax.get_title() == data.classes[label].replace('$', r'\$')
    fig.canvas.draw()  # nothing in a name is taken for mathematics
    data.plot_class_counts().canvas.draw()
    assert len(data.show_batch(rows=1, train=False).axes) == 1
    with pytest.raises(ValueError, match='rows'): data.show_batch(rows=0)
    import matplotlib.pyplot as plt
    assert not plt.get_fignums()


def test_show_batch_in_colour(tmp_path):
    put(tmp_path/'a', 4, mode='RGB')
    data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.25, **THREE)
    assert data.show_batch(rows=1).axes[0].images[0].get_array().shape == (6, 8, 3)


def test_names_and_order_of_arguments():
    "fastai v1's, where there are any"
    import inspect
    names = list(inspect.signature(ImageDataBunch.from_folder).parameters)
    assert names[:10] == ['path', 'train', 'valid', 'valid_pct', 'size', 'bs', 'tfms',
                          'num_workers', 'seed', 'device']
    assert isinstance(vision_data.image_suffixes, tuple)


# ---- links, a last image of its own, the order of the files --------------------------------------
@pytest.mark.parametrize('made', [
    lambda path, out: (path/'train'/'cat'/'zz.png').symlink_to(out/'dog'/'00.png'),
    lambda path, out: (path/'train'/'cat'/'more').symlink_to(out/'dog'),
    lambda path, out: (path/'train'/'zebra').symlink_to(out/'dog')])
def test_links_that_lead_out_are_left_out(path, tmp_path_factory, made):
    before = ImageDataBunch.from_folder(path, **CPU).train_ds.files
    out = tmp_path_factory.mktemp('elsewhere')
    put(out/'dog', 2)
    made(path, out)
    for read in (lambda: ImageDataBunch.from_folder(path, **CPU).train_ds.files,
                 lambda: [str(o) for o in get_image_files(path/'train', recurse=True)]):
        with pytest.warns(UserWarning, match='links that lead out of'): assert read() == before
    with pytest.warns(UserWarning, match='links that lead out of'):
        assert len(image_folder_tensors(path/'train')[0]) == len(before)


def test_a_link_in_place_of_a_part_is_refused(path, tmp_path_factory):
    out = tmp_path_factory.mktemp('elsewhere')
    put(out/'dog', 2)
    (path/'more').symlink_to(out)
    with pytest.raises(ValueError, match="train='more'.*leads out of"):
        ImageDataBunch.from_folder(path, train='more', **CPU)


def test_links_inside_and_a_linked_folder_are_followed(path, tmp_path_factory):
    n = len(ImageDataBunch.from_folder(path, **CPU).train_ds)
    (path/'train'/'cat'/'zz.png').symlink_to(path/'train'/'dog'/'00.png')
    link = tmp_path_factory.mktemp('elsewhere')/'link'
    link.symlink_to(path)
    assert len(ImageDataBunch.from_folder(link, **CPU).train_ds) == n+1


@pytest.mark.parametrize('memory', [0, 2**30])
def test_the_last_batch_of_one_image(path, memory):
    n = len(ImageDataBunch.from_folder(path, **CPU).train_ds)
    def sizes(bs, drop_last):
        dl = ImageDataBunch.from_folder(path, bs=bs, drop_last=drop_last, memory=memory,
                                        **CPU).train_dl
        found = [len(yb) for _, yb in dl]
        assert len(dl) == len(found)
        return found
    assert sizes(n-1, None) == [n-1] and sizes(n-1, False) == [n-1, 1]
    assert sizes(n-2, None) == [n-2, 2] and sizes(n-2, True) == [n-2]


@pytest.mark.parametrize('memory', [0, 2**30])
def test_in_order_every_image_comes_once_and_as_it_is(path, memory):
    data = ImageDataBunch.from_folder(path, bs=4, memory=memory, tfms=RandomFlip(p=1.),
                                      drop_last=True, **CPU).normalize()
    before = data.train_dl.state_dict(), torch.get_rng_state()
    xb, yb = (torch.cat(o) for o in zip(*in_order(data.train_dl)))
    assert torch.equal(yb, data.train_ds.labels)
    assert torch.equal(xb, torch.stack([x for x, _ in data.train_ds]))
    assert data.train_dl.state_dict() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    for a, b in zip(in_order(data.valid_dl), data.valid_dl):
        assert all(map(torch.equal, a, b))


# ---- pictures to ask about -----------------------------------------------------------------------
@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    "A learner of coloured pictures, some of them in folders below those of the classes"
    root = tmp_path_factory.mktemp('asked')
    for part, n in (('train', 8), ('valid', 5)):
        for k, name in enumerate(('bee', 'cat')):
            for i in range(n):
                folder = root/part/name/('far/down' if i % 3 == 0 else '')
                folder.mkdir(parents=True, exist_ok=True)
                rgb = np.random.RandomState(i).randint(0, 90, (18, 22, 3)) + 120*k
                Image.fromarray(rgb.astype(np.uint8)).save(folder/f'{i}.png')
    data = ImageDataBunch.from_folder(root, size=10, bs=4, seed=0, device='cpu',
                                      tfms=[RandomFlip(1.)]).normalize()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(300, 2))
    return Learner(data, model, silent=True)


def as_pixels(files): return [np.asarray(Image.open(o)) for o in files]


@pytest.mark.parametrize('kind, make', [
    ('texts', list), ('paths', lambda files: tuple(map(Path, files))), ('array', np.array),
    ('column', lambda files: pd.Series(files, index=range(5, 5+len(files)))),
    ('opened', lambda files: [open(o, 'rb') for o in files]),
    ('bytes', lambda files: [Path(o).read_bytes() for o in files]),
    ('PIL', lambda files: [Image.open(o) for o in files]),
    ('pixels', as_pixels), ('one array', lambda files: np.stack(as_pixels(files))),
    ('one tensor', lambda files: torch.tensor(np.stack(as_pixels(files))).permute(0, 3, 1, 2)),
    ('folder', lambda files: next(
        o for o in Path(files[0]).parents if o.name == 'valid')),
    ('folder name', lambda files: 'valid')])
def test_a_model_is_asked_about_pictures_of_any_kind(asked, kind, make):
    want, _ = asked.get_preds()
    files = asked.data.valid_ds.files
    preds, targets = asked.get_preds(make(files))
    assert targets is None and torch.allclose(preds, want, atol=1e-6)
    in_threes = asked.data.test_dl(make(files), bs=3)
    assert len(in_threes) == 4 and [len(xb) for xb in in_threes] == [3, 3, 3, 1]
    if 'folder' in kind: return
    assert torch.allclose(asked.get_preds(make(files[::-1]))[0], want.flip(0), atol=1e-6)
    name, number, probs = asked.predict(list(make(files))[3])
    assert torch.allclose(probs, want[3].softmax(0), atol=1e-6) and name == ['bee', 'cat'][number]
    assert torch.allclose(asked.get_preds(make(files[:1]))[0], want[:1], atol=1e-6)


def test_what_the_model_sees_may_be_given_too(asked):
    want, _ = asked.get_preds()
    seen = [asked.data.valid_ds[i][0] for i in range(10)]
    for items in (seen, torch.stack(seen), torch.stack(seen).numpy(), TensorLoader(*[
            torch.stack(seen)], bs=3)):
        assert torch.allclose(asked.get_preds(items)[0], want, atol=1e-6)
    assert torch.allclose(asked.predict(seen[2])[2], want[2].softmax(0), atol=1e-6)


def test_one_picture_alone(asked):
    file = asked.data.valid_ds.files[0]
    want = asked.get_preds()[0][:1]
    grey = np.zeros((5, 18, 22), np.uint8)
    for one in (file, Path(file), Image.open(file), Path(file).read_bytes(), open(file, 'rb'),
                np.asarray(Image.open(file))):
        assert torch.allclose(asked.get_preds(one)[0], want, atol=1e-6)
    assert len(asked.get_preds(grey)[0]) == 5 and len(asked.get_preds(grey[0])[0]) == 1


@pytest.mark.parametrize('items, error, words', [
    ('gone.png', ValueError, "no file 'gone.png'"), (['gone.png'], ValueError, 'no file'),
    (['valid/bee/1.png', 'broken.png'], ValueError, 'broken.png cannot be read'),
    ('empty', ValueError, 'no pictures'), ((o for o in ['a.png']), TypeError, 'as a list'),
    (np.zeros((2, 3, 8), int), ValueError, 'astype'), (np.zeros((2, 18, 22, 3)), ValueError,
                                                       r'are \(3, h, w\)'),
    ([Path('valid/bee/1.png'), torch.rand(3, 10, 10)], ValueError, 'one kind'),
    ([1, 2], ValueError, 'give a file'), (np.zeros((2, 2, 2, 2), np.uint8), ValueError,
                                          r'shape \(h, w\)')])
def test_what_cannot_be_asked_about(asked, items, error, words):
    (asked.data.path/'empty').mkdir(exist_ok=True)
    (asked.data.path/'broken.png').write_text('none')
    with pytest.raises(error, match=words): asked.get_preds(items)


@pytest.mark.parametrize('channels', [1, 3])
def test_a_stack_of_grey_pictures(tmp_path, channels):
    "Of whatever number: each is answered as its own array of rows and columns is"
    for name in 'ab': put(tmp_path/name, 4, size=(8, 8))
    data = ImageDataBunch.from_folder(tmp_path, valid_pct=.3, **{**CPU, 'channels': channels})
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64*channels, 2))
    learn = Learner(data, model, silent=True)
    predictor = Predictor.load(learn.export(tmp_path/'m.pt2'), 'cpu')
    x = np.random.RandomState(0).randint(0, 256, (5, 8, 8)).astype(np.uint8)
    want = torch.stack([model(data.open_image(o)[None])[0] for o in x]).detach()
    for n, kind in ((1, np.asarray), (2, np.asarray), (3, np.asarray), (4, torch.tensor),
                    (5, torch.tensor)):
        for ask in (learn.get_preds, predictor.get_preds):
            torch.testing.assert_close(ask(list(kind(x[:n])))[0], want[:n])
            if channels == 3 and n in (3, 4):
                with pytest.raises(ValueError, match=r'give x\[None\] for one, or list\(x\)'):
                    ask(kind(x[:n]))
            else: torch.testing.assert_close(ask(kind(x[:n]))[0], want[:n])
            for one in (np.stack([x[0]]*3, 2), np.stack([x[0]]*3)[None]):  # the same in colours
                torch.testing.assert_close(ask(kind(one))[0], want[:1])


def test_a_table_of_files_is_refused(asked):
    with pytest.raises(TypeError, match='one column'): asked.get_preds(pd.DataFrame({'a': [1]}))


# ---- broken pictures -----------------------------------------------------------------------------
def cut_short(file, of): file.write_bytes(of.read_bytes()[:len(of.read_bytes())//2])


@pytest.fixture
def torn(path):
    "A folder in which three pictures are broken, one of them beyond its header"
    good = next((path/'train').rglob('*.png'))
    first = sorted(o.name for o in (path/'train').iterdir() if o.is_dir())[0]
    (path/'train'/first/'text.png').write_text('none')
    (path/'train'/first/'empty.jpg').write_bytes(b'')
    cut_short(path/'valid'/first/'torn.png', good)
    return path


@pytest.mark.parametrize('how', [{}, dict(size=5), dict(size=5, memory=0), dict(channels=1)])
def test_broken_pictures_are_left_out(torn, how):
    with pytest.raises(ValueError, match='cannot be read as an image'):
        data = ImageDataBunch.from_folder(torn, num_workers=0, device='cpu', **how)
        for dl in (data.train_dl, data.valid_dl): list(dl)
    words = r'left out, 3 of \d+ pictures cannot be read: .*(text|empty).*torn.png'
    with pytest.warns(UserWarning, match=words):
        data = ImageDataBunch.from_folder(torn, num_workers=0, device='cpu', skip_broken=True,
                                          seed=0, **how)
    left = {Path(o).name for o in data.train_ds.files + data.valid_ds.files}
    assert not left & {'text.png', 'empty.jpg', 'torn.png'}
    for o in ('train/*/text.png', 'train/*/empty.jpg', 'valid/*/torn.png'):
        next(torn.glob(o)).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # nothing is said where nothing is broken
        same_as = ImageDataBunch.from_folder(torn, num_workers=0, device='cpu', skip_broken=True,
                                             seed=0, **how)
    assert data.train_ds.files == same_as.train_ds.files
    for (a, _), (b, _) in zip(data.train_dl, same_as.train_dl): assert torch.equal(a, b)


def test_all_ways_can_leave_out_what_is_broken(torn):
    files = get_image_files(torn/'train', recurse=True)
    names = [o.relative_to(torn).as_posix() for o in files]
    labels = [o.split('/')[1] for o in names]
    (torn/'labels.csv').write_text('\n'.join(['f,l', *map(','.join, zip(names, labels))]))
    more = dict(seed=0, skip_broken=True, channels=1, device='cpu', size=5)
    for make in (lambda: ImageDataBunch.from_lists(torn, names, labels, **more),
                 lambda: ImageDataBunch.from_csv(torn, **more),
                 lambda: ImageDataBunch.from_name_re(torn, files, r'train/(\w+)/', **more),
                 lambda: ImageDataBunch.from_df(torn, pd.DataFrame(
                     {'f': names, 'l': labels}), **more)):
        with pytest.warns(UserWarning, match=f'2 of {len(files)} pictures cannot be read'):
            data = make()
        assert len(data.train_ds) + len(data.valid_ds) == len(files)-2
        assert data.one_batch()[0].shape[1] == 1


def test_a_class_of_which_nothing_is_left(torn):
    broken = torn/'train'/'zebra'
    broken.mkdir()
    (broken/'a.png').write_text('none')
    with pytest.raises(ValueError, match='skip_broken.*none is left of the class zebra'):
        ImageDataBunch.from_folder(torn, skip_broken=True)
