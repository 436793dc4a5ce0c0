"Networks and transforms of torchvision and timm in place of our own."
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from fastloop.torch_core import set_seed
from fastloop.vision import models as ours
from fastloop.vision.data import ImageDataBunch
from fastloop.vision.learner import cnn_learner, create_body

wanted = 'installed by `make test-peers`'
theirs = pytest.importorskip('torchvision.models', reason=wanted)
v2 = pytest.importorskip('torchvision.transforms.v2', reason=wanted)
timm = pytest.importorskip('timm', reason=wanted)

RESNETS = ['resnet18', 'resnet34', 'resnet50']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Two classes of colour images: dark red and light blue, 32 × 32"
    path, g = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for part, count in (('train', 16), ('valid', 8)):
        for name, colour in (('red', (120, 20, 20)), ('blue', (150, 150, 250))):
            (path/part/name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(g.normal(colour, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path/part/name/f'{i}.png')
    return path


def open_data(folder, **how):
    return ImageDataBunch.from_folder(folder, bs=8, seed=0, device='cpu', **how).normalize()


@pytest.mark.parametrize('name', RESNETS)
def test_resnets_have_the_names_and_the_numbers_of_torchvision(name):
    "Weights of the one fit into the other, and then both say the same"
    set_seed(0)
    a, b = getattr(ours, name)(), getattr(theirs, name)()
    state = b.state_dict()
    assert list(a.state_dict()) == list(state)
    assert [v.shape for v in a.state_dict().values()] == [v.shape for v in state.values()]
    for o in b.modules():  # as after a training, not as at the start
        if isinstance(o, torch.nn.BatchNorm2d):
            o.running_mean.normal_()
            o.running_var.uniform_(.5, 2)
    a.load_state_dict(b.state_dict())
    x = torch.randn(2, 3, 64, 64)
    a.eval(), b.eval()
    with torch.no_grad(): torch.testing.assert_close(a(x), b(x))


ARCHS = {
    **{f'torchvision {o}': getattr(theirs, o) for o in (
        'resnet18', 'mobilenet_v2', 'mobilenet_v3_small', 'squeezenet1_1', 'shufflenet_v2_x0_5',
        'efficientnet_b0', 'densenet121', 'regnet_y_400mf', 'convnext_tiny', 'vgg11_bn')},
    **{f'timm {o}': partial(timm.create_model, o) for o in (
        'resnet18', 'resnet26d', 'efficientnet_lite0', 'mobilenetv3_small_050', 'regnetx_002',
        'convnext_atto')}}


@pytest.mark.parametrize('arch', ARCHS.values(), ids=ARCHS)
def test_networks_of_others_are_cut(arch):
    "The body gives features for each place, and nothing of the old head is left in it"
    body = create_body(arch, pretrained=False)
    body.eval()
    with torch.no_grad(): x = body(torch.zeros(1, 3, 64, 64))
    assert x.ndim == 4 and x.shape[1] >= 32 and 1 <= x.shape[2] == x.shape[3] <= 4
    assert not any(isinstance(o, torch.nn.Linear) and o.out_features == 1000
                   for o in body.modules())


@pytest.mark.parametrize('name', ['torchvision resnet18', 'torchvision mobilenet_v2',
                                  'timm resnet18', 'timm mobilenetv3_small_050'])
def test_networks_of_others_are_fine_tuned(folder, name):
    set_seed(0)
    learn = cnn_learner(open_data(folder), ARCHS[name](), lin_ftrs=[16], silent=True)
    first = next(p for p in learn.model[0].parameters())
    assert not first.requires_grad
    before = first.detach().clone()
    learn.fine_tune(2, 1e-2)
    assert first.requires_grad and not torch.equal(before, first)
    if 'resnet' in name: assert learn.validate()[1] > .8
    assert learn.predict(folder/'valid'/'blue'/'0.png')[0] in ('blue', 'red')


@pytest.mark.parametrize('arch, word', [(theirs.resnet18, 'weights'),
                                        (partial(timm.create_model, 'resnet18'), 'pretrained')])
def test_trained_weights_are_asked_for_in_their_words(arch, word):
    asked = {}

    def spy(*, weights=None, **kwargs):
        asked.update(weights=weights)
        return arch(**kwargs)

    def timm_spy(pretrained=False, **kwargs):
        asked.update(pretrained=pretrained)
        return arch(**kwargs)
    create_body({'weights': spy, 'pretrained': timm_spy}[word], pretrained=True)
    assert asked == {word: {'weights': 'DEFAULT', 'pretrained': True}[word]}


def test_grey_pictures_in_a_network_for_colours(folder):
    data = open_data(folder, channels=1)
    for arch in (theirs.resnet18, partial(timm.create_model, 'resnet18')):
        learn = cnn_learner(data, arch, pretrained=False, lin_ftrs=[16], silent=True)
        learn.fit(1, 1e-2)
        assert learn.model(data.one_batch()[0]).shape == (8, 2)


def test_transforms_vary_each_training_picture(folder):
    tfms = [v2.RandomHorizontalFlip(), v2.RandomResizedCrop(24, scale=(.5, 1), antialias=True),
            v2.ColorJitter(brightness=.2)]
    data = open_data(folder, tfms=tfms)
    xb, yb = next(iter(data.train_dl))
    assert xb.shape == (8, 3, 24, 24) and yb.shape == (8,)
    assert next(iter(data.valid_dl))[0].shape[1:] == (3, 32, 32)


def test_a_transform_does_to_a_picture_what_it_does_at_home(folder):
    data = open_data(folder, tfms=[v2.RandomHorizontalFlip(p=1)])
    plain = open_data(folder)
    assert torch.equal(next(iter(data.train_dl))[0].flip(-1), next(iter(plain.train_dl))[0])


def test_each_picture_gets_a_variation_of_its_own(folder):
    data, plain = open_data(folder, tfms=[v2.RandomHorizontalFlip()]), open_data(folder)
    torch.manual_seed(0)
    mirrored = []
    for (a, _), (b, _) in zip(data.train_dl, plain.train_dl):
        for x, y in zip(a, b):
            assert torch.equal(x, y) or torch.equal(x, y.flip(-1))
            mirrored.append(not torch.equal(x, y))
    assert 4 < sum(mirrored) < len(mirrored)-4
