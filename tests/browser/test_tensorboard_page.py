"What the callback writes, on the page of a real TensorBoard server in a headless Chromium."
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip('tensorboard')

from fastloop.callback.tensorboard import TensorBoardCallback
from fastloop.data.bunch import DataBunch
from fastloop.learner import Learner
from fastloop.metrics import accuracy


class Net(nn.Module):
    "Images and words in, two classes out"
    def __init__(self):
        super().__init__()
        self.conv, self.words, self.head = nn.Conv2d(1, 4, 3), nn.Embedding(5, 3), nn.Linear(67, 2)

    def forward(self, x, word):
        return self.head(torch.cat([self.conv(x).relu().flatten(1), self.words(word)], 1))


@pytest.fixture(scope='module')
def logs(tmp_path_factory):
    "A folder with the event files of a short run"
    torch.manual_seed(0)
    batches = [((torch.randn(8, 1, 6, 6), torch.randint(5, (8,))), torch.randint(2, (8,)))
               for _ in range(6)]
    path = tmp_path_factory.mktemp('board')
    learn = Learner(DataBunch(batches[:4], batches[4:], c=2, path=path), Net(), F.cross_entropy,
                    metrics=accuracy, silent=True)
    learn.fit(4, .01, cbs=TensorBoardCallback(
        histogram_freq=1, write_grads=True, write_images=True, embeddings_freq=1, log_preds=True,
        embeddings_metadata=['<b>coat</b>', 'shirt', 'bag', 'boot', 'dress']))
    return path/'logs'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def fetch(address):
    with urllib.request.urlopen(address, timeout=10) as answer: return answer.read()


@pytest.fixture(scope='module')
def server(logs):
    "The address of a TensorBoard that has read the files"
    port = free_port()
    address = f'http://127.0.0.1:{port}/'
    command = [sys.executable, '-m', 'tensorboard.main', '--logdir', str(logs), '--host',
               '127.0.0.1', '--port', str(port), '--reload_interval', '1']
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, 'TENSORBOARD_BINARY_LOG': ''})
    try:
        for _ in range(600):
            assert process.poll() is None, 'tensorboard has ended'
            try:
                if 'valid_loss' in fetch(address + 'data/plugin/scalars/tags').decode(): break
            except (urllib.error.URLError, ConnectionError): pass
            time.sleep(.2)
        yield address
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={'width': 1400, 'height': 1000})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    context.close()


def shoot(page, name):
    "Keep a picture of the page where SCREENSHOTS says, if it says so"
    if folder := os.environ.get('SCREENSHOTS'): page.screenshot(path=f'{folder}/{name}.png')


def test_the_server_knows_every_kind_of_data(server):
    tags = json.loads(fetch(server + 'data/plugin/scalars/tags'))
    assert set(tags['.']) == {'train_loss', 'valid_loss', 'accuracy'}
    assert set(tags['batches']) == {'batch/loss', 'batch/lr', 'batch/mom'}
    values = json.loads(fetch(server + 'data/plugin/scalars/scalars?run=batches&tag=batch/loss'))
    assert [o[1] for o in values] == list(range(16))
    found = json.loads(fetch(server + 'data/plugin/histograms/tags'))['.']
    assert {'weights/conv.weight', 'gradients/conv.weight', 'activations/conv'} <= set(found)
    assert 'images/conv.weight' in json.loads(fetch(server + 'data/plugin/images/tags'))['.']


def test_the_projector_reads_the_tables(server):
    assert json.loads(fetch(server + 'data/plugin/projector/runs')) == ['.']
    info = json.loads(fetch(server + 'data/plugin/projector/info?run=.'))
    names = [o['tensorName'] for o in info['embeddings']]
    assert names == [f'words:{i:05d}' for i in range(4)]
    query = f'run=.&name={names[-1]}'
    assert len(fetch(server + 'data/plugin/projector/tensor?' + query)) == 5*3*4  # bytes of float32
    labels = fetch(server + 'data/plugin/projector/metadata?' + query).decode().split('\n')
    assert labels[:2] == ['<b>coat</b>', 'shirt']


def test_curves(page, server):
    page.goto(server + '#timeseries')
    for tag in ('train_loss', 'valid_loss', 'accuracy'):
        page.get_by_text(tag, exact=True).first.wait_for()
    page.locator('scalar-card, tb-scalar-card').first.wait_for()
    assert page.get_by_text('batches', exact=True).count()
    page.locator('scalar-card line-chart').first.wait_for()
    page.wait_for_timeout(3000)  # lines are drawn by a worker, which tells nobody
    shoot(page, 'tensorboard-curves')


def test_histograms(page, server):
    page.goto(server + '#histograms')
    page.get_by_text('activations', exact=False).first.wait_for()
    shoot(page, 'tensorboard-histograms')


def test_the_graph(page, server):
    page.goto(server + '#graphs')
    page.locator('svg text').filter(has_text='Net').first.wait_for()
    shoot(page, 'tensorboard-graph')


def test_images(page, server):
    page.goto(server + '#images')
    page.get_by_text('images/conv.weight', exact=False).first.wait_for()
    shoot(page, 'tensorboard-images')
