"""The examples of two published introductions to callbacks, line by line, with only imports changed

The archive and the weights come from a server on the loopback address, under their published names.
"""
import hashlib
import io
import re
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import fastloop.train  # noqa: F401 (it gives the learner its verbs)
from fastloop.callback.core import Callback
from fastloop.callback.logger import CSVLogger
from fastloop.callback.save import SaveModelCallback
from fastloop.data.external import URLs, untar_data
from fastloop.learner import Learner
from fastloop.metric_functions import error_rate
from fastloop.metrics import accuracy
from fastloop.torch_core import set_seed
from fastloop.vision import models
from fastloop.vision.data import ImageDataBunch
from fastloop.vision.learner import cnn_learner
from fastloop.vision.models import resnet34, simple_cnn


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "A folder, and the address at which its files are served"
    folder = tmp_path_factory.mktemp('site')
    http = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{http.server_port}'
    http.shutdown()
    http.server_close()


@pytest.fixture(scope='module')
def archive(site, tmp_path_factory):
    "The address of an archive like that of the two digits: 3 and 7 are real pictures of clothes"
    root, real = tmp_path_factory.mktemp('made')/'mnist_sample', untar_data(URLs.FASHION_SAMPLE)
    for part, n in (('train', 160), ('valid', 40)):
        for digit, cloth in (('3', 'trouser'), ('7', 'ankle_boot')):
            (root/part/digit).mkdir(parents=True)
            for file in sorted((real/part/cloth).glob('*.png'))[:n]:
                shutil.copy(file, root/part/digit)
    (root/'labels.csv').write_text('name,label\n')
    with tarfile.open(site[0]/'mnist_sample.tgz', 'w:gz') as tar: tar.add(root, 'mnist_sample')
    return f'{site[1]}/mnist_sample.tgz'


@pytest.fixture
def data(archive, tmp_path, monkeypatch):
    monkeypatch.setenv('FASTLOOP_HOME', str(tmp_path))
    monkeypatch.setattr(URLs, 'MNIST_SAMPLE', archive)
    set_seed(0)
    path = untar_data(URLs.MNIST_SAMPLE)
    data = ImageDataBunch.from_folder(path)
    assert path == tmp_path/'data'/'mnist_sample' and data.classes == ['3', '7']
    assert data.one_batch()[0].shape == (64, 3, 28, 28)
    return data


def test_a_search_then_one_cycle(data):
    def simple_learner(): return Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy])
    learn = simple_learner()
    learn.lr_find()
    assert learn.recorder.plot().axes[0].lines
    lr = 2e-2
    learn.fit_one_cycle(3, lr)
    fig = learn.recorder.plot_lr(show_moms=True)
    rates, moms = [list(ax.lines[0].get_ydata()) for ax in fig.axes]
    assert len(rates) == 15 and max(rates) == pytest.approx(lr, rel=.05)
    assert moms.index(min(moms)) == pytest.approx(rates.index(max(rates)), abs=1)
    assert learn.recorder.values[-1][-1] > .95


def test_mixup(data):
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy]).mixup()
    learn.fit(2, 1e-2)
    assert learn.recorder.values[-1][-1] > .9


def test_the_log_in_a_file(data):
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy, error_rate],
                    callback_fns=[CSVLogger])
    learn.fit(3)
    table = learn.csv_logger.read_logged_file()
    assert list(table.columns[:5]) == ['epoch', 'train_loss', 'valid_loss', 'accuracy',
                                       'error_rate']
    assert list(table['epoch']) == [0, 1, 2]
    assert (table['accuracy'] + table['error_rate']).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_model_for_every_epoch(data):
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=accuracy)
    learn.fit_one_cycle(3, 1e-4, callbacks=[SaveModelCallback(learn, every='epoch',
                                                              monitor='accuracy')])
    saved = sorted(o.name for o in (data.path/'models').iterdir())
    assert saved == ['bestmodel_1.pth', 'bestmodel_2.pth', 'bestmodel_3.pth']


def test_grey_pictures_in_three_channels(data):
    coloured = ImageDataBunch.from_folder(data.path, seed=1)
    xb, _ = coloured.one_batch()
    assert xb.shape == (64, 3, 28, 28) and torch.equal(xb[:, 0], xb[:, 2])
    model = simple_cnn((3, 16, 16, 2)).to(xb.device)
    assert torch.allclose(model(xb), model(xb[:, :1]), atol=1e-6)


@pytest.fixture
def weights(site, tmp_path, monkeypatch):
    "The published name of weights for a network of 34 layers, with other numbers behind it"
    torch.manual_seed(7)
    buffer = io.BytesIO()
    torch.save(resnet34().state_dict(), buffer)
    (site[0]/'resnet34-b627a593.pth').write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setitem(models.published_weights, 'resnet34', ('resnet34-b627a593.pth', digest))
    monkeypatch.setenv('FASTLOOP_WEIGHTS', site[1])
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_metrics_printed_by_a_callback(data, weights, tmp_path, capsys):
    class PrintMetricsCallback(Callback):
        def after_epoch(self):
            print(f"Loss: {self.learn.loss:.4f}, "
                  f"Accuracy: {self.learn.recorder.metrics[0]:.4f}")

    dls = ImageDataBunch.from_folder(data.path, bs=160, seed=1)
    learn = cnn_learner(dls, resnet34, cbs=PrintMetricsCallback())
    assert (tmp_path/'weights'/'resnet34-b627a593.pth').exists()
    body = learn.model[0].state_dict()
    for name in ('conv1.weight', 'layer4.2.conv2.weight'):
        assert torch.equal(body[name].cpu(), weights[name])
    learn.fit(1)
    found = re.findall(r'^Loss: (\d\.\d{4}), Accuracy: ([01]\.\d{4})$', capsys.readouterr().out,
                       flags=re.M)
    assert len(found) == 1 and float(found[0][1]) == pytest.approx(learn.recorder.values[0][2],
                                                                   abs=1e-4)
    for name in ('conv1.weight', 'layer4.2.conv2.weight'):  # frozen
        assert torch.equal(learn.model[0].state_dict()[name].cpu(), weights[name])
