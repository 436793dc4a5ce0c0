"Networks for images: names and shapes that published weights need, and weights from a server"
import hashlib
import io
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastloop.data import external
from fastloop.data.archive import ArchiveError
from fastloop.data.external import DownloadError
from fastloop.vision import models
from fastloop.vision.models import (
    BasicBlock,
    Bottleneck,
    InputConv2d,
    PoolFlatten,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    simple_cnn,
)

MAKERS = {'resnet18': resnet18, 'resnet34': resnet34, 'resnet50': resnet50}


# ---- the small network ---------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(1, 40), st.integers(1, 40),
       st.booleans())
def test_simple_cnn_takes_any_size(actns, h, w, bn):
    model = simple_cnn(actns, bn=bn)
    assert model(torch.randn(3, actns[0], h, w)).shape == (3, actns[-1])
    assert len(model) == len(actns)


def test_simple_cnn_computes_what_fastai_v1_does():
    torch.manual_seed(0)
    model = simple_cnn((3, 4, 5, 2), kernel_szs=[3, 5, 1], strides=[1, 2, 1])
    x = torch.randn(2, 3, 9, 7)
    by_hand = x
    for layer, stride, padding in zip(list(model)[:-1], (1, 2, 1), (1, 2, 0)):
        weight, bias = layer[0].weight, layer[0].bias
        by_hand = F.conv2d(by_hand, weight, bias, stride, padding).clamp(min=0)
    assert torch.allclose(model(x), by_hand.mean((2, 3)), atol=1e-6)


def test_simple_cnn_layers():
    kinds = [[type(o) for o in layer] for layer in simple_cnn((1, 8, 8, 2), bn=True)]
    norm = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert kinds == [[InputConv2d, *norm[1:]], norm, norm[:2], [nn.AdaptiveAvgPool2d, nn.Flatten]]
    model = simple_cnn((1, 8, 8, 2), bn=True)
    assert [layer[0].bias is None for layer in list(model)[:-1]] == [True, True, False]
    assert model[0][0].stride == (2, 2) and model[0][0].padding == (1, 1)
    assert list(model.state_dict())[:2] == ['0.0.weight', '0.2.weight']
    big = simple_cnn((64, 512, 2))[0][0].weight
    assert big.std().item() == pytest.approx((2/(64*9))**0.5, rel=0.02)  # He et al. 2015


@pytest.mark.parametrize('args, words', [
    ((), 'two numbers'), ((3,), 'two numbers'), (3, 'actns'), ((3, 0), r'actns\[1\]'),
    ((3, 1.5), r'actns\[1\]'), ((3, True), r'actns\[1\]')])
def test_simple_cnn_refuses(args, words):
    with pytest.raises(ValueError, match=words): simple_cnn(args)


@pytest.mark.parametrize('how, words', [
    (dict(kernel_szs=[3]), 'kernel_szs=.* has 1 numbers, but there are 2'),
    (dict(strides=[2, 2, 2]), 'strides=.* has 3'), (dict(strides=2), 'strides'),
    (dict(strides=[0, 2]), r'strides\[0\]')])
def test_simple_cnn_refuses_lists(how, words):
    with pytest.raises(ValueError, match=words): simple_cnn((3, 16, 2), **how)


def test_grey_images_in_a_network_for_three_colours():
    torch.manual_seed(0)
    grey = torch.randn(4, 1, 20, 20)
    for model in (simple_cnn((3, 8, 2)), resnet18(num_classes=3).eval()):
        with torch.no_grad():
            assert torch.allclose(model(grey), model(grey.repeat(1, 3, 1, 1)), atol=1e-5)
    for n, x in ((3, grey.expand(-1, 2, -1, -1)), (4, grey)):
        with pytest.raises(RuntimeError, match='channels'): simple_cnn((n, 8, 2))(x)
    model = simple_cnn((3, 8, 2))
    model(grey).sum().backward()
    assert model[0][0].weight.grad.shape == (8, 3, 3, 3)
    assert InputConv2d(3, 4, 3)(grey[0]).shape == (4, 18, 18)  # one image without a batch


def test_scripted_or_copied_networks_still_work():
    model = simple_cnn((3, 8, 2))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    other = simple_cnn((3, 8, 2))
    other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(x), other(x))
    assert torch.equal(PoolFlatten()(x), x.mean((2, 3)))


# ---- names and shapes ----------------------------------------------------------------------------
def bn(name, n):
    return {f'{name}.{o}': (n,) for o in ('weight', 'bias', 'running_mean', 'running_var')} | {
        f'{name}.num_batches_tracked': ()}


def conv_bn(conv, norm, n_in, n_out, size):
    return {f'{conv}.weight': (n_out, n_in, size, size), **bn(norm, n_out)}


def expected(counts, bottleneck, classes=1000):
    "Names and shapes by table 1 of the paper and the published naming, written out independently"
    res, n_in = conv_bn('conv1', 'bn1', 3, 64, 7), 64
    for i, count in enumerate(counts):
        inner = 64*2**i
        outer = inner*4 if bottleneck else inner
        for k in range(count):
            at = f'layer{i+1}.{k}'
            shapes = ([(n_in, inner, 1), (inner, inner, 3), (inner, outer, 1)] if bottleneck else
                      [(n_in, inner, 3), (inner, inner, 3)])
            for j, shape in enumerate(shapes, 1):
                res |= conv_bn(f'{at}.conv{j}', f'{at}.bn{j}', *shape)
            if k == 0 and (i or bottleneck):
                res |= conv_bn(f'{at}.downsample.0', f'{at}.downsample.1', n_in, outer, 1)
            n_in = outer
    return res | {'fc.weight': (classes, n_in), 'fc.bias': (classes,)}


@pytest.mark.parametrize('name, counts, bottleneck, params, digest', [
    ('resnet18', [2, 2, 2, 2], False, 11_689_512, '84fb10d9c6905a1c'),
    ('resnet34', [3, 4, 6, 3], False, 21_797_672, '28f9096d51307499'),
    ('resnet50', [3, 4, 6, 3], True, 25_557_032, 'd7e4f8bb0a536344')])
def test_names_shapes_and_counts(name, counts, bottleneck, params, digest):
    model = MAKERS[name]()
    assert sum(p.numel() for p in model.parameters()) == params
    mine = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert mine == expected(counts, bottleneck)
    # of the lines `name shape` of torchvision 0.28's state_dict, in its order
    text = '\n'.join(f'{k} {v}' for k, v in mine.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def functional(w, x, counts, bottleneck):
    "The network in evaluation mode, from its table of weights alone"
    def norm(x, at): return F.batch_norm(x, w[f'{at}.running_mean'], w[f'{at}.running_var'],
                                         w[f'{at}.weight'], w[f'{at}.bias'])
    x = F.relu(norm(F.conv2d(x, w['conv1.weight'], stride=2, padding=3), 'bn1'))
    x = F.max_pool2d(x, 3, 2, 1)
    for i, count in enumerate(counts):
        for k in range(count):
            at, y = f'layer{i+1}.{k}', x
            stride = 2 if i and not k else 1
            steps = [(1, stride, 1), (2, 1, 1)]
            if bottleneck: steps = [(1, 1, 0), (2, stride, 1), (3, 1, 0)]
            for j, s, p in steps:
                y = norm(F.conv2d(y, w[f'{at}.conv{j}.weight'], stride=s, padding=p), f'{at}.bn{j}')
                if j < len(steps): y = F.relu(y)
            if f'{at}.downsample.0.weight' in w:
                x = F.conv2d(x, w[f'{at}.downsample.0.weight'], stride=stride)
                x = norm(x, f'{at}.downsample.1')
            x = F.relu(x+y)
    return F.linear(x.mean((2, 3)), w['fc.weight'], w['fc.bias'])


@pytest.mark.parametrize('block, counts', [(BasicBlock, [1, 2, 1, 1]), (Bottleneck, [1, 1, 2, 1])])
def test_forward_is_that_of_the_table_of_weights(block, counts):
    torch.manual_seed(0)
    model, x = ResNet(block, counts, num_classes=5), torch.randn(2, 3, 70, 50)
    with torch.no_grad():
        for _ in range(2): model(torch.randn(4, 3, 40, 40))  # means and variances of their own
        for p in model.parameters():
            if p.ndim == 1: p.add_(0.1*torch.randn_like(p))
        model.eval()
        by_hand = functional(model.state_dict(), x, counts, block is Bottleneck)
        assert torch.allclose(model(x), by_hand, atol=1e-5)


def test_first_weights():
    torch.manual_seed(0)
    model = resnet18()
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            fan_out = m.out_channels*m.kernel_size[0]**2
            assert m.weight.std().item() == pytest.approx((2/fan_out)**0.5, rel=0.06), name
        if isinstance(m, nn.BatchNorm2d): assert (m.weight == 1).all() and (m.bias == 0).all()


@pytest.mark.parametrize('block, last', [(BasicBlock, 'bn2'), (Bottleneck, 'bn3')])
def test_zero_init_residual(block, last):
    model = ResNet(block, [2, 1, 1, 1], num_classes=4, zero_init_residual=True)
    zeros = [name for name, m in model.named_modules()
             if isinstance(m, nn.BatchNorm2d) and not m.weight.any()]
    assert zeros == [f'layer{i}.{k}.{last}' for i, k in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))]


@pytest.mark.parametrize('how, words', [
    (dict(num_classes=0), 'num_classes'), (dict(in_channels=0), 'in_channels'),
    (dict(in_channels=1.), 'in_channels')])
def test_bad_numbers(how, words):
    with pytest.raises(ValueError, match=words): resnet18(**how)
    with pytest.raises(ValueError, match='four numbers'): ResNet(BasicBlock, [2, 2])
    with pytest.raises(ValueError, match='layers'): ResNet(BasicBlock, 18)


def test_in_channels():
    model = resnet18(num_classes=2, in_channels=1).eval()
    assert model.conv1.weight.shape == (64, 1, 7, 7)
    assert model(torch.zeros(1, 1, 33, 33)).shape == (1, 2)
    with pytest.raises(RuntimeError): model(torch.zeros(1, 3, 33, 33))


# ---- weights from a server -----------------------------------------------------------------------
@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A cache of its own for each test"
    monkeypatch.setenv('FASTLOOP_HOME', str(tmp_path/'home'))
    monkeypatch.delenv('FASTLOOP_WEIGHTS', raising=False)
    monkeypatch.setattr(external.time, 'sleep', lambda seconds: None)
    return tmp_path/'home'


class Server:
    "Files by path on the loopback address; `asked` counts requests, `cut` breaks connections"
    def __init__(self):
        self.files, self.asked, self.cut = {}, [], {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                data = outer.files.get(self.path)
                if isinstance(data, str):
                    self.send_response(302)
                    self.send_header('Location', data)
                    return self.end_headers()
                self.send_response(404 if data is None else 200)
                self.send_header('Content-Length', str(len(data or b'')))
                self.end_headers()
                self.wfile.write((data or b'')[:outer.cut.get(self.path)])

            def log_message(self, *args): pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}'

    def put(self, data, name='resnet18', digest=None):
        "Serve `data` under a name with its checksum; gives the whole address"
        digest = digest or hashlib.sha256(data).hexdigest()[:8]
        self.files[f'/{name}-{digest}.pth'] = data
        return f'{self.url}/{name}-{digest}.pth'


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def saved(state, **how):
    buffer = io.BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def donor():
    "A network whose numbers differ from those of any new one"
    torch.manual_seed(7)
    model = resnet18(num_classes=1000)
    with torch.no_grad():
        for t in model.state_dict().values():
            if t.is_floating_point(): t.add_(0.01*torch.rand_like(t))
    return model.eval()


@pytest.fixture(scope='module')
def data(donor): return saved(donor.state_dict())


def files(home): return sorted(o.name for o in (home/'weights').glob('*') if o.suffix != '.lock')


def test_weights_arrive_and_stay(server, donor, data, home):
    url = server.put(data)
    model, x = resnet18(pretrained=url).eval(), torch.randn(1, 3, 40, 40)
    with torch.no_grad(): assert torch.equal(model(x), donor(x))
    assert files(home) == [url.rpartition('/')[2]]
    again = resnet18(url)  # the first argument, as in fastai
    assert torch.equal(again.fc.weight, donor.fc.weight) and len(server.asked) == 1


def test_old_format_and_no_batch_counts(server, donor):
    state = {k: v for k, v in donor.state_dict().items() if 'num_batches' not in k}
    url = server.put(saved(state, _use_new_zipfile_serialization=False))
    assert torch.equal(resnet18(url).layer4[1].bn2.running_var, donor.layer4[1].bn2.running_var)


def test_a_damaged_copy_in_the_cache_is_fetched_again(server, donor, data, home):
    url = server.put(data)
    resnet18(url)
    file = home/'weights'/url.rpartition('/')[2]
    file.write_bytes(data[:1000])
    assert torch.equal(resnet18(url).fc.bias, donor.fc.bias) and len(server.asked) == 2
    assert file.read_bytes() == data


def test_published_names_from_another_site(server, donor, data, home, monkeypatch):
    "`pretrained=True` asks the site that the environment names for the published file"
    digest = hashlib.sha256(data).hexdigest()
    server.files['/mirror/resnet18-f37072fd.pth'] = data
    monkeypatch.setenv('FASTLOOP_WEIGHTS', server.url+'/mirror/')
    with pytest.raises(ArchiveError, match='should begin with f37072fd47e89c5e'): resnet18(True)
    assert server.asked == ['/mirror/resnet18-f37072fd.pth'] and files(home) == []
    monkeypatch.setitem(models.published_weights, 'resnet18', ('resnet18-f37072fd.pth', digest))
    assert torch.equal(resnet18(pretrained=True).fc.bias, donor.fc.bias)
    monkeypatch.setenv('FASTLOOP_WEIGHTS', 'http://example.com')
    with pytest.raises(ValueError, match='refused'): resnet18(pretrained=True)
    with pytest.raises(ValueError, match='refused'): resnet34(pretrained=True)


def test_published_table():
    for arch, (name, digest) in models.published_weights.items():
        assert name == f'{arch}-{digest[:8]}.pth' and len(digest) in (8, 64)
    assert models.weights_site.startswith('https://')


def test_other_classes_and_grey_images(server, donor, data):
    url = server.put(data)
    torch.manual_seed(3)
    fresh = resnet18(num_classes=10).fc.weight
    torch.manual_seed(3)
    ten = resnet18(url, num_classes=10)
    assert torch.equal(ten.fc.weight, fresh) and torch.equal(ten.conv1.weight, donor.conv1.weight)
    one, x = resnet18(url, in_channels=1).eval(), torch.randn(2, 1, 40, 40)
    with torch.no_grad():
        assert torch.allclose(one(x), donor(x.repeat(1, 3, 1, 1)), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match='in_channels=4'): resnet18(url, in_channels=4)


def test_wrong_checksum(server, data, home):
    url = server.put(data, digest='0'*8)
    with pytest.raises(ArchiveError, match='wrong checksum'): resnet18(url)
    assert files(home) == []
    with pytest.raises(ArchiveError): resnet18(url)  # and it was asked for again
    assert len(server.asked) == 2


def test_a_connection_that_breaks(server, donor, data, home):
    url = server.put(data)
    path = '/'+url.rpartition('/')[2]
    server.cut[path] = len(data)//2
    with pytest.raises(DownloadError, match='cannot download'): resnet18(url)
    assert not (home/'weights'/path[1:]).exists()
    server.cut.clear()
    assert torch.equal(resnet18(url).fc.bias, donor.fc.bias)
    assert files(home) == [path[1:]]


def test_a_whole_file_that_is_half_the_weights(server, data, home):
    url = server.put(data[:len(data)//2])  # its checksum is right
    with pytest.raises(ValueError, match='damaged'): resnet18(url)


class Bomb:
    "Opening a pickle of it makes a folder"
    def __init__(self, folder): self.folder = folder

    def __reduce__(self): return os.mkdir, (self.folder,)


def test_a_file_with_code_in_it(server, tmp_path):
    folder = tmp_path/'made'
    for how in (dict(), dict(_use_new_zipfile_serialization=False)):
        with pytest.raises(ValueError, match='could run code'):
            resnet18(server.put(saved({'fc.bias': Bomb(str(folder))}, **how)))
    with pytest.raises(ValueError, match='could run code'):
        resnet18(server.put(saved(nn.Linear(2, 2))))  # a whole model
    assert not folder.exists()


@pytest.mark.parametrize('state', [{}, [torch.zeros(2)], {'model': {}}, {'fc.bias': 3}])
def test_no_table_of_tensors(server, state):
    with pytest.raises(ValueError, match='tensors by name'): resnet18(server.put(saved(state)))


def test_another_architecture(server, data):
    url = server.put(data, name='resnet34')
    with pytest.raises(ValueError, match=r'another architecture.*missing in the file: layer1\.2'):
        resnet34(url)
    with pytest.raises(ValueError, match='in the file,.* in the model'): resnet50(url)
    other = server.put(saved(nn.Linear(2, 3).state_dict()))
    with pytest.raises(ValueError, match='missing in the file: conv1.weight'): resnet18(other)


@pytest.mark.parametrize('url, words', [
    ('http://example.com/resnet18-f37072fd.pth', 'refused'),
    ('ftp://127.0.0.1/resnet18-f37072fd.pth', 'refused'),
    ('https://me:secret@example.com/resnet18-f37072fd.pth', 'refused'),
    ('https://example.com/resnet18.pth', 'checksum'),
    ('https://example.com/a/..%2Fresnet18-f37072f.pth', 'checksum'),
    ('resnet18-f37072fd.pth', 'refused')])
def test_addresses_that_are_refused(url, words, home):
    with pytest.raises(ValueError, match=words): resnet18(url)
    assert not list(home.rglob('*.pth'))


def test_no_secret_in_the_message():
    with pytest.raises(ValueError) as e: resnet18('https://me:secret@example.com/a-f37072fd.pth')
    assert 'secret' not in str(e.value)


def test_missing_files_and_odd_values(server):
    with pytest.raises(DownloadError, match='404'): resnet18(server.url+'/resnet18-f37072fd.pth')
    with pytest.raises(TypeError, match='pretrained=10'): resnet18(10)
    with pytest.raises(TypeError, match='pretrained'): resnet18(None)


def test_redirects_stay_safe(server, data):
    url = server.put(data)
    server.files[f'/{"resnet18-" + url[-12:-4]}.pth'] = 'http://example.com/elsewhere.pth'
    with pytest.raises(DownloadError, match='not https'): resnet18(url)


def test_a_file_of_ones_own(tmp_path, donor, data):
    file = tmp_path/f'resnet18-{hashlib.sha256(data).hexdigest()[:12]}.pth'
    file.write_bytes(data)
    assert torch.equal(resnet18(file.as_uri()).fc.bias, donor.fc.bias)
