"A learner for images: cutting, heads, groups, what is frozen, answers for files, and mistakes"
import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fastloop.data.bunch import DataBunch
from fastloop.interpret import ClassificationInterpretation
from fastloop.learner import Learner
from fastloop.metric_functions import error_rate
from fastloop.metrics import accuracy
from fastloop.torch_core import set_seed
from fastloop.vision import learner as vision_learner_module
from fastloop.vision.data import ImageDataBunch, imagenet_stats
from fastloop.vision.learner import (
    AdaptiveConcatPool2d,
    VisionLearner,
    cnn_learner,
    create_body,
    create_cnn_model,
    create_head,
    split_model,
    vision_learner,
)
from fastloop.vision.models import BasicBlock, PoolFlatten, ResNet, resnet18, resnet50, simple_cnn
from fastloop.vision.transform import RandomFlip

CLASSES = ['dark', 'light', 'mixed']


def write_pictures(root, part, n, mode='L', size=(16, 16)):
    "Pictures that are dark, light, or half of each"
    rng = np.random.RandomState(len(part))
    for k, name in enumerate(CLASSES):
        (root/part/name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.randint(0, 60, (*size, 3)) + [0, 180, 0][k]
            if k == 2: pixels[size[0]//2:] += 180
            Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(
                root/part/name/f'{i:02}.png')
    return root


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    root = tmp_path_factory.mktemp('grey')
    return write_pictures(write_pictures(root, 'train', 16), 'valid', 5)


@pytest.fixture(scope='module')
def coloured(tmp_path_factory):
    root = tmp_path_factory.mktemp('coloured')
    return write_pictures(write_pictures(root, 'train', 4, 'RGB'), 'valid', 2, 'RGB')


def open_data(path, **how):
    channels = 1 if path.name.startswith('grey') else 3
    return ImageDataBunch.from_folder(path, **{**dict(device='cpu', seed=1, num_workers=0, bs=16,
                                                      channels=channels),
                                               **how})


def net(n_out=5, channels=3):
    "A small network of named parts"
    return nn.Sequential(*simple_cnn((channels, 6, 8))[:-1], nn.BatchNorm2d(8), PoolFlatten(),
                         nn.Linear(8, n_out))


def fake(pretrained=False, **how): return ResNet(BasicBlock, [1, 1, 1, 1], **how)


def tensors(n=12, channels=3, c=3, size=8):
    x, y = torch.randn(n, channels, size, size), torch.arange(n) % c
    return DataBunch.from_tensors(x, y, x, y, bs=4, seed=0, device='cpu')


# ---- bodies --------------------------------------------------------------------------------------
def test_the_body_computes_what_the_network_computes_before_its_pooling():
    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(2, 3, 40, 40)
    body = create_body(model).eval()
    with torch.no_grad():
        assert torch.allclose(model.fc(body(x).mean((2, 3))), model(x), atol=1e-5)
    assert [o for o in model.state_dict() if o[:2] != 'fc'] == list(body.state_dict())


def test_where_it_is_cut():
    assert [len(create_body(net(), cut=o)) for o in (None, 1, -1, -2, 5)] == [3, 1, 4, 3, 5]
    assert len(create_body(net(), cut=np.int64(-1))) == 4
    assert len(create_body(resnet50, False)) == 8
    body = create_body(net(), cut=lambda model: model[:2])
    assert body(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 2, 2)
    # a pooling layer in the middle is not the one, and neither is a part that learns
    vgg = nn.ModuleDict(dict(features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)),
                             avgpool=nn.AdaptiveAvgPool2d(2), classifier=nn.Linear(16, 5)))
    assert [name for name, _ in create_body(vgg).named_children()] == ['features']
    # DenseNet's way: everything in one part, the pooling in a function
    dense = nn.ModuleDict(dict(features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)),
                               classifier=nn.Linear(4, 5)))
    assert [name for name, _ in create_body(dense).named_children()] == ['features']
    # ShuffleNet's: a pooling layer at the beginning, the last pooling in a function
    early = nn.ModuleDict(dict(conv1=nn.Conv2d(3, 4, 3), maxpool=nn.MaxPool2d(2),
                               stage=nn.Conv2d(4, 8, 3), fc=nn.Linear(8, 5)))
    assert list(dict(create_body(early).named_children())) == ['conv1', 'maxpool', 'stage']
    # MobileNet's: a convolution after the pooling
    late = nn.ModuleDict(dict(stage=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(1),
                              conv_head=nn.Conv2d(4, 8, 1), classifier=nn.Linear(8, 5)))
    assert list(dict(create_body(late).named_children())) == ['stage']


@pytest.mark.parametrize('cut', [0, 6, -5, True])
def test_cuts_out_of_range(cut):
    with pytest.raises(ValueError, match=r'cut=.*5 parts \(0, 1, 2, 3, 4\)'):
        create_body(net(), cut=cut)


class Plain(nn.Module):
    "What is done between the layers stands in `forward` alone, or is a layer too"
    def __init__(self, between=None):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        if between is not None: self.two = nn.Sequential(between, self.two)
        self.head, self.between = nn.Linear(5, 2), between or F.relu

    def forward(self, x):
        x = self.two(self.one(x) if self.between is not F.relu else self.between(self.one(x)))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize('channels', [1, 3])
def test_what_forward_does_between_the_parts_is_not_lost_in_silence(channels):
    chance = torch.get_rng_state()
    model = Plain()
    with pytest.warns(UserWarning, match='Plain does more than call its parts in a row.*give cut='):
        create_body(lambda: model, False, channels=channels)
    assert model.training and not model.two._forward_hooks
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        create_body(model, cut=lambda o: nn.Sequential(o.one, nn.ReLU(), o.two),
                    channels=channels)
        create_body(Plain(nn.ReLU()), cut=2, channels=channels)
        torch.set_rng_state(chance)
        create_body(model, cut=1)
        assert torch.equal(torch.get_rng_state(), chance)  # nothing is drawn


def test_cuts_that_are_none():
    with pytest.raises(TypeError, match='cut='): create_body(net(), cut='layer4')
    with pytest.raises(TypeError, match='made a int'): create_body(net(), cut=lambda model: 3)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match='no pooling layer.*its parts are 0, 1: give cut='):
        create_body(dense)
    # everything in one part, the pooling in a function, and no word that says what is last
    with pytest.raises(ValueError, match='its parts are features, last'):
        create_body(nn.ModuleDict(dict(features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)),
                                       last=nn.Linear(4, 5))))
    with pytest.raises(ValueError, match='its parts are none'): create_body(nn.Linear(3, 3))


def test_words_for_weights():
    asked = []
    def note(word):
        asked.append(word)
        return net()
    def ours(pretrained=False): return note(pretrained)
    def torchvisions(*, weights=None, progress=True, **kwargs): return note(weights)
    def loose(**kwargs): return note(kwargs)
    for arch in (ours, torchvisions, loose):
        for pretrained in (True, False): create_body(arch, pretrained)
    create_body(ours, 'https://site/x-12345678.pth')
    create_body(torchvisions, 'IMAGENET1K_V1')
    assert asked == [True, False, 'DEFAULT', None, {'pretrained': True}, {},
                     'https://site/x-12345678.pth', 'IMAGENET1K_V1']


def test_networks_that_cannot_be_asked():
    with pytest.raises(ValueError, match='pretrained=True: .* has no argument.*pretrained=False'):
        create_body(lambda: net())
    assert len(create_body(lambda: net(), pretrained=False)) == 3
    with pytest.raises(TypeError, match="arch='resnet34' must be"): create_body('resnet34')
    with pytest.raises(TypeError, match='made a str'): create_body(lambda: 'net', False)


def test_channels():
    x = torch.randn(2, 1, 40, 40)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), PoolFlatten(), nn.Linear(4, 2))
    for model in (plain, resnet18().eval()):
        body = create_body(model, channels=1).eval()
        with torch.no_grad(): assert torch.allclose(body(x), body(x.repeat(1, 3, 1, 1)), atol=1e-5)
    names = [list(create_body(plain, channels=o).state_dict()) for o in (1, 3)]
    assert names[0] == names[1]  # weights go from one to the other
    with pytest.raises(ValueError, match='takes 1 channels, the images have 3: give .*channels=1'):
        create_body(net(channels=1))
    with pytest.raises(ValueError, match='takes 3 channels, the images have 4$'):
        create_body(plain, channels=4)
    assert create_body(resnet18, False, channels=4).conv1.in_channels == 4


# ---- heads ---------------------------------------------------------------------------------------
def test_concat_pool_is_maximum_then_mean():
    x = torch.randn(3, 4, 5, 6)
    out = AdaptiveConcatPool2d()(x)
    assert torch.allclose(out.flatten(1), torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1), atol=1e-6)
    assert AdaptiveConcatPool2d(2)(x).shape == (3, 8, 2, 2)


def kinds(head): return [type(o).__name__ for o in head]


def test_the_head_is_fastais():
    head = create_head(7, 3)
    block = ['BatchNorm1d', 'Dropout', 'Linear']
    assert kinds(head) == ['AdaptiveConcatPool2d', 'Flatten', *block, 'ReLU', *block]
    linear = [(o.in_features, o.out_features) for o in head if isinstance(o, nn.Linear)]
    assert linear == [(14, 512), (512, 3)]
    assert [o.p for o in head if isinstance(o, nn.Dropout)] == [.25, .5]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.lists(st.integers(1, 9), max_size=3),
       st.booleans(), st.booleans())
def test_heads_of_all_kinds(nf, n_out, lin_ftrs, concat_pool, bn_final):
    head = create_head(nf, n_out, lin_ftrs, .2, concat_pool, bn_final)
    assert head(torch.randn(4, nf, 3, 2)).shape == (4, n_out)
    drops = [o.p for o in head if isinstance(o, nn.Dropout)]
    assert drops == [.1]*len(lin_ftrs) + [.2]
    assert (kinds(head)[-1] == 'BatchNorm1d') == bn_final


@pytest.mark.parametrize('ps, words', [(1., 'ps=1.0'), (-.1, 'ps='), ([.1]*3, '3 numbers for 2'),
                                       ([], '0 numbers')])
def test_dropout_that_cannot_be(ps, words):
    with pytest.raises(ValueError, match=words): create_head(4, 2, ps=ps)


def test_the_first_weights_of_the_head():
    torch.manual_seed(0)
    head = create_cnn_model(net(), 5, shape=(3, 16, 16))[1]
    first, last = [o for o in head if isinstance(o, nn.Linear)]
    assert first.weight.std().item() == pytest.approx((2/16)**.5, rel=.05)  # He et al. 2015
    assert not first.bias.any() and not last.bias.any()
    assert all(bool((o.weight == 1).all()) for o in head if isinstance(o, nn.BatchNorm1d))
    own = nn.Sequential(PoolFlatten(), nn.Linear(8, 5))
    before = own[1].weight.clone()
    assert create_cnn_model(net(), 5, custom_head=own, shape=(3, 16, 16))[1] is own
    assert torch.equal(own[1].weight, before)
    zeros = create_cnn_model(net(), 5, init=nn.init.zeros_, shape=(3, 16, 16))[1]
    assert not zeros[-1].weight.any()


def test_parts_that_do_not_fit():
    def make(**how): return create_cnn_model(net(), 5, **{'shape': (3, 16, 16), **how})
    for head in (nn.Linear(3, 5), nn.Sequential(PoolFlatten(), nn.Linear(9, 5))):
        with pytest.raises(ValueError, match='custom_head cannot take a batch of shape'):
            make(custom_head=head)
    with pytest.raises(ValueError, match=r'custom_head gives \(1, 4\), not \(n, 5\)'):
        make(custom_head=nn.Sequential(PoolFlatten(), nn.Linear(8, 4)))
    with pytest.raises(ValueError, match=r'cut=-1: the body gives \(1, 8\), not'): make(cut=-1)
    small = nn.Sequential(nn.Conv2d(3, 4, 9), PoolFlatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match='the body cannot take a batch of shape'):
        create_cnn_model(small, 2, shape=(3, 4, 4))


# ---- groups, freezing, rates ---------------------------------------------------------------------
def test_layer_groups():
    model = create_cnn_model(resnet18, 3, pretrained=False, shape=(3, 32, 32))
    first, second, head = split_model(model)
    names = {id(o): name for name, o in model[0].named_children()}
    assert [[names[id(o)] for o in group] for group in (first, second)] == [
        ['conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2'], ['layer3', 'layer4']]
    assert head is model[1]
    assert split_model(nn.Sequential(net()[:3], create_head(8, 3)))[0] is not None
    assert len(split_model(create_cnn_model(net(), 3))) == 2
    grouped = [p for group in (*first, *second, head) for p in group.parameters()]
    assert Counter(map(id, grouped)) == Counter(map(id, model.parameters()))  # each once


def flags(learn, group):
    "Which parameters of a group are trained, those of batch norm apart"
    modules = [m for o in (group if isinstance(group, list) else [group]) for m in o.modules()]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d)
    return [{p.requires_grad for m in modules if isinstance(m, norm) == is_norm
             for p in m.parameters(recurse=False)} for is_norm in (False, True)]


def test_what_is_frozen(coloured):
    data = open_data(coloured)
    free = cnn_learner(data, fake, pretrained=False, silent=True)
    assert all(p.requires_grad for p in free.model.parameters())
    learn = cnn_learner(data, fake, silent=True)
    assert [flags(learn, o) for o in learn.layer_groups] == [[{False}, {True}]]*2 + [[{True}]*2]
    learn.freeze_to(1)
    assert [flags(learn, o)[0] for o in learn.layer_groups] == [{False}, {True}, {True}]
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())
    still = cnn_learner(data, fake, silent=True, train_bn=False)
    assert flags(still, still.layer_groups[0]) == [{False}, {False}]


def test_one_group_cannot_be_frozen(coloured):
    with pytest.raises(ValueError, match='one layer group'):
        cnn_learner(open_data(coloured), net(), splitter=lambda model: [model], silent=True)
    learn = cnn_learner(open_data(coloured), net, pretrained=False, silent=True,
                        splitter=lambda model: [model])
    with pytest.raises(ValueError, match='one layer group'): learn.fine_tune(1)


def test_training_moves_only_the_head_then_everything(grey):
    set_seed(0)
    learn = cnn_learner(open_data(grey).normalize(), net(), lin_ftrs=[16], silent=True)
    before = [p.detach().clone() for p in learn.model[0][0].parameters()]
    head = learn.model[1][4].weight.detach().clone()
    learn.fit(1, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model[0][0].parameters()))
    assert not torch.equal(head, learn.model[1][4].weight)
    learn.fine_tune(1)
    assert not any(torch.equal(a, b) for a, b in zip(before, learn.model[0][0].parameters()))


def test_rates_by_slice(coloured):
    learn = cnn_learner(open_data(coloured), fake, pretrained=False, silent=True)
    learn.fit(1, slice(1e-5, 1e-3))
    rates = sorted({group['lr'] for group in learn.opt.param_groups})
    assert rates == pytest.approx([1e-5, 1e-4, 1e-3])
    learn.fit(0, slice(1e-3))
    assert sorted({group['lr'] for group in learn.opt.param_groups}) == pytest.approx([1e-4, 1e-3])
    by_rate = {group['lr']: len(group['params']) for group in learn.opt.param_groups}
    with pytest.raises(ValueError, match='2 rates for 3 layer groups'): learn.fit(1, [1e-3, 1e-2])
    assert len(by_rate) == 2


# ---- the call ------------------------------------------------------------------------------------
def test_it_learns(grey):
    set_seed(0)
    learn = cnn_learner(open_data(grey).normalize(), net, pretrained=False, lin_ftrs=[16],
                        metrics=error_rate, silent=True)
    learn.fit_one_cycle(8, 2e-2)
    assert learn.validate()[1] < .1 and isinstance(learn, VisionLearner)


def test_words_pass_to_the_learner(coloured, tmp_path):
    learn = cnn_learner(open_data(coloured), net(), lr=.5, path=tmp_path, wd=0, silent=True,
                        loss_func=nn.CrossEntropyLoss(label_smoothing=.1), metrics=[])
    assert (learn.lr, learn.path, learn.wd, learn.metrics) == (.5, tmp_path, 0, [])
    assert cnn_learner(open_data(coloured), net(), silent=True).metrics == [accuracy]
    assert vision_learner is cnn_learner


def test_a_wrong_word_is_seen_before_weights_are_fetched(coloured):
    def arch(pretrained): raise AssertionError('was asked')
    with pytest.raises(TypeError, match='metric'):
        cnn_learner(open_data(coloured), arch, metric=accuracy)


def test_normalisation(coloured, grey):
    def stats(path, arch, **how):
        data = open_data(path)
        cnn_learner(data, arch, silent=True, **how)
        return data.stats
    mean, std = stats(coloured, fake)
    assert torch.allclose(mean, torch.tensor(imagenet_stats[0]))
    assert torch.allclose(std, torch.tensor(imagenet_stats[1]))
    mean, std = stats(grey, fake)
    assert float(mean) == pytest.approx(.449, abs=1e-3) and float(std) == pytest.approx(.226)
    for how in (dict(pretrained=False), dict(normalize=False)):
        assert stats(coloured, fake, **how) is None
    assert stats(coloured, net()) is None
    data = open_data(coloured).normalize(([.1]*3, [.2]*3))
    cnn_learner(data, fake, silent=True)
    assert data.stats[0].tolist() == pytest.approx([.1]*3)
    cnn_learner(tensors(size=32), fake, silent=True)  # tensors are left as they are


def test_nothing_is_normalised_if_it_fails(coloured):
    data = open_data(coloured)
    with pytest.raises(ValueError, match='one layer group'):
        cnn_learner(data, fake, splitter=lambda model: [model], silent=True)
    assert data.stats is None


@pytest.mark.parametrize('x, words', [(torch.randn(8, 5), r'shape \(4, 5\)'),
                                      (torch.zeros(8, 3, 4, 4, dtype=torch.uint8), 'uint8')])
def test_data_that_are_no_images(x, words):
    y = torch.arange(8) % 2
    with pytest.raises(ValueError, match=words):
        cnn_learner(DataBunch.from_tensors(x, y, x, y, bs=4, device='cpu'), net())


def test_data_without_classes():
    batches = [(torch.randn(4, 3, 8, 8), torch.zeros(4).long())]
    data = DataBunch(batches, batches, device='cpu')
    with pytest.raises(ValueError, match='no classes .*give n_out='): cnn_learner(data, net())
    assert cnn_learner(data, net(), n_out=np.int64(2), silent=True).model[1][-1].out_features == 2
    with pytest.raises(ValueError, match='n_out=0'): cnn_learner(data, net(), n_out=0)


def test_numbers_as_targets():
    x = torch.randn(12, 3, 8, 8)
    y = x.mean((1, 2, 3))[:, None]
    data = DataBunch.from_tensors(x, y, x, y, bs=4, device='cpu', seed=0)
    learn = cnn_learner(data, net(), silent=True)
    learn.fit(1)
    assert learn.metrics == [] and learn.loss_func is F.mse_loss
    for call in (learn.interpret, learn.show_results):
        with pytest.raises(ValueError, match='class numbers'): call()


# ---- answers -------------------------------------------------------------------------------------
@pytest.fixture
def trained(grey):
    set_seed(0)
    data = open_data(grey, tfms=[RandomFlip(1.)], size=12, memory=10**9).normalize()
    learn = cnn_learner(data, net, pretrained=False, lin_ftrs=[16], silent=True)
    learn.fit_one_cycle(2, 1e-2)
    return learn


@pytest.mark.parametrize('memory', [10**9, 0])
def test_a_file_is_answered_like_the_same_picture_in_validation(grey, memory):
    set_seed(0)
    data = open_data(grey, size=12, memory=memory).normalize()
    learn = cnn_learner(data, net, pretrained=False, lin_ftrs=[16], silent=True)
    learn.fit_one_cycle(2, 1e-2)
    probs = learn.get_preds()[0].softmax(1)
    for i in (0, 7, 14):
        name, number, found = learn.predict(data.valid_ds.files[i])
        assert torch.allclose(found, probs[i], atol=1e-6)
        assert number == probs[i].argmax() and name == CLASSES[number]


def test_a_file_in_other_shapes(trained, tmp_path):
    data = trained.data
    file = data.valid_ds.files[3]
    want = trained.predict(file)[2]
    with open(file, 'rb') as f: opened = trained.predict(f)[2]
    others = [opened, trained.predict(Path(file))[2], trained.predict(Image.open(file))[2],
              trained.predict(io.BytesIO(Path(file).read_bytes()))[2],
              trained.predict(data.valid_ds[3][0])[2]]
    for found in others: assert torch.allclose(found, want, atol=1e-6)
    Image.new('CMYK', (40, 30), (0, 90, 0, 0)).save(tmp_path/'big.jpg')
    big = trained.predict(tmp_path/'big.jpg')[2]
    assert big.shape == (3,) and float(big.sum()) == pytest.approx(1)
    for mode in ('RGB', 'RGBA', 'P', '1', 'I;16', 'LA'):
        image = Image.new(mode, (20, 20))
        assert trained.predict(image)[2].shape == (3,), mode


def test_files_that_are_none(trained, tmp_path):
    with pytest.raises(ValueError, match='gone.png'): trained.predict(tmp_path/'gone.png')
    (tmp_path/'bad.png').write_text('no picture')
    with pytest.raises(ValueError, match='bad.png cannot be read'):
        trained.predict(str(tmp_path/'bad.png'))
    learn = cnn_learner(tensors(), net(), silent=True)
    assert learn.predict(torch.randn(3, 8, 8))[2].shape == (3,)
    with pytest.raises(TypeError, match="predict\\('x.png'\\).*give a tensor"):
        learn.predict('x.png')


def test_answers_leave_the_mode_and_the_numbers_alone(trained):
    trained.model.train()
    trained.model[0].eval()
    modes, state = [m.training for m in trained.model.modules()], torch.get_rng_state()
    weights = {k: v.clone() for k, v in trained.model.state_dict().items()}
    trained.predict(trained.data.valid_ds.files[0])
    trained.show_results(2)
    trained.show_results(2, trained.data.train_dl)
    trained.interpret()
    assert [m.training for m in trained.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in trained.model.state_dict().items())


# ---- pictures ------------------------------------------------------------------------------------
def titles(fig):
    "The first two lines of each title, and its colour"
    return [('\n'.join(ax.get_title().split('\n')[:2]), ax.title.get_color()) for ax in fig.axes]


def says(truth, probs):
    "What the first two lines have to say"
    chosen = int(probs.argmax())
    return f'truth: {CLASSES[truth]}\nanswer: {CLASSES[chosen]}, p {float(probs[chosen]):.2f}'


def test_results_show_what_is_wrong_in_red(trained):
    preds, targets = trained.get_preds()
    fig = trained.show_results(3)
    n = len(targets)
    chosen = [i*n//9 for i in range(9)]  # from the first class to the last
    assert set(targets[chosen].tolist()) == {0, 1, 2} and n > 9
    expected = [(says(a, p), 'black' if a == p.argmax() else 'red')
                for a, p in zip(targets[chosen].tolist(), preds[chosen].softmax(1))]
    assert titles(fig) == expected
    shown = fig.axes[4].images[0].get_array()
    pixels = trained.data.valid_ds.images[chosen[4], 0].numpy()/255
    assert np.allclose(shown, pixels, atol=1e-5)  # not normalised, not mirrored
    first = trained.show_results(3, trained.data.valid_dl)  # a loader that is given: its first ones
    assert [t for t, _ in titles(first)] == [says(a, p) for a, p in zip(
        targets[:9].tolist(), preds[:9].softmax(1))]
    axes = trained.show_results(9).axes  # no more than there are
    assert sum(bool(ax.images) for ax in axes) == n
    with pytest.raises(ValueError, match='rows=0'): trained.show_results(0)


def test_results_of_other_data():
    learn = cnn_learner(tensors(channels=4), lambda: net(channels=4), pretrained=False, silent=True)
    fig = learn.show_results(2)
    assert len(fig.axes) == 4 and {t.split('\n')[0] for t, _ in titles(fig)} <= {
        'truth: 0', 'truth: 1', 'truth: 2'}
    learn.data.valid_dl = None
    for call in (learn.show_results, learn.interpret):
        with pytest.raises(ValueError, match='no validation loader'): call()


def test_names_mean_nothing_to_the_drawing(tmp_path):
    for name in ('a$b$c', 'x'*40):
        for part in ('train', 'valid'):
            (tmp_path/part/name).mkdir(parents=True)
            for i in range(2): Image.new('L', (8, 8), i*9).save(tmp_path/part/name/f'{i}.png')
    learn = cnn_learner(open_data(tmp_path), net(), lin_ftrs=[], silent=True)
    judge = learn.interpret()
    for fig in (learn.show_results(2), judge.plot_confusion_matrix(), judge.plot_top_losses(4)):
        fig.savefig(io.BytesIO(), format='png')


# ---- mistakes ------------------------------------------------------------------------------------
def judge_of(preds, targets, losses=None, names=None):
    learn = Learner(tensors(c=preds.shape[1]), nn.Sequential(PoolFlatten(), nn.Linear(3, 3)),
                    silent=True)
    learn.data.train_ds.classes = names
    losses = -preds[range(len(preds)), targets].log() if losses is None else losses
    return ClassificationInterpretation(learn, preds, targets, losses)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 10**6))
def test_the_matrix_and_the_report_by_hand(c, n, seed):
    g = torch.Generator().manual_seed(seed)
    preds = torch.rand(n, c, generator=g).softmax(1)
    targets = torch.randint(c, (n,), generator=g)
    judge = judge_of(preds, targets)
    by_hand = [[0]*c for _ in range(c)]
    for p, t in zip(preds.argmax(1).tolist(), targets.tolist()): by_hand[t][p] += 1
    assert judge.confusion_matrix().tolist() == by_hand
    lines = judge.classification_report().splitlines()[1:]
    for k, line in enumerate(lines[:-1]):
        hit, called = by_hand[k][k], sum(row[k] for row in by_hand)
        there = sum(by_hand[k])
        precision, recall = hit/max(called, 1), hit/max(there, 1)
        f1 = 2*precision*recall/(precision+recall) if hit else 0
        found = [float(o) for o in line.split()[1:]]
        assert found == pytest.approx([precision, recall, f1, there], abs=.00501)
    right = sum(by_hand[k][k] for k in range(c))/n
    assert [float(o) for o in lines[-1].split()[1:]] == pytest.approx([right, n], abs=.00501)


def test_most_confused():
    targets = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    preds = torch.eye(3)[[1, 1, 0, 2, 1, 0, 2]]*.8 + .1
    judge = judge_of(preds, targets, names=['cat', 'dog', 'eel'])
    assert judge.most_confused() == [('cat', 'dog', 2), ('dog', 'eel', 1), ('eel', 'cat', 1)]
    assert judge.most_confused(2) == [('cat', 'dog', 2)] and judge.most_confused(3) == []


def test_the_matrix_as_a_picture():
    targets, preds = torch.tensor([0, 0, 1]), torch.eye(3)[[0, 1, 1]]*.8 + .1
    judge = judge_of(preds, targets, names=['cat', 'dog', 'eel'])
    ax = judge.plot_confusion_matrix().axes[0]
    assert [o.get_text() for o in ax.texts] == list('110010000')
    assert [o.get_text() for o in ax.get_xticklabels()] == ['cat', 'dog', 'eel']
    assert (ax.get_xlabel(), ax.get_ylabel()) == ('predicted', 'actual')
    shares = judge.plot_confusion_matrix(normalize=True, ax=ax)
    texts = [o.get_text() for o in ax.texts][9:]
    assert shares is ax.figure and texts[:3] == ['0.50', '0.50', '0.00']
    assert texts[6:] == ['0.00']*3  # a class without pictures


def test_top_losses(trained):
    judge = trained.interpret()
    preds, targets, losses = trained.get_preds(with_loss=True)
    assert torch.allclose(judge.losses, F.cross_entropy(preds, targets, reduction='none'))
    assert torch.allclose(judge.preds, preds.softmax(1)) and torch.equal(judge.targets, targets)
    values, at = judge.top_losses()
    assert len(at) == 15 and torch.equal(values, losses.sort(descending=True)[0])
    assert torch.equal(judge.top_losses(3, largest=False)[0], losses.sort()[0][:3])
    fig = judge.plot_top_losses(4)
    for ax, i in zip(fig.axes, at.tolist()):
        said, third = ax.get_title().rsplit('\n', 1)
        assert said == says(targets[i], preds[i].softmax(0)) and third == f'loss {losses[i]:.2f}'
        pixels = trained.data.valid_ds.images[i, 0].numpy()/255
        assert np.allclose(ax.images[0].get_array(), pixels, atol=1e-5)
    assert len(judge.plot_top_losses(99).axes) >= 15
    with pytest.raises(ValueError, match='k=0'): judge.plot_top_losses(0)


def test_a_loader_that_shuffles_is_gone_through_in_order(trained):
    ds = trained.data.train_ds
    place = trained.data.train_dl.state_dict()
    torch_dl = torch.utils.data.DataLoader(ds, 8, shuffle=True)
    in_order = torch.utils.data.DataLoader(ds, 8)
    for dl in (trained.data.train_dl, torch_dl, in_order):
        judge = trained.interpret(dl)
        assert torch.equal(judge.targets, ds.labels) and judge.ds is ds
        i = int(judge.top_losses(1)[1])
        assert torch.allclose(judge.preds[i], trained.predict(ds.files[i])[2], atol=1e-6)
    assert trained.data.train_dl.state_dict() == place


def open_data_pixels(learn, i):
    "What a picture of the validation set shows, from its file"
    file = sorted((learn.data.path/'valid').rglob('*.png'))[i]
    return np.asarray(Image.open(file).convert('L').resize((12, 12), Image.BILINEAR))/255


def test_batches_without_a_data_set(trained):
    batches = list(trained.data.valid_dl)
    judge = trained.interpret(batches)
    assert len(judge.losses) == 15
    trained.data.valid_dl = batches
    judge = trained.interpret()
    at = judge.top_losses(4)[1].tolist()
    shown = judge.plot_top_losses(4).axes[3].images[0].get_array()
    pixels = open_data_pixels(trained, at[3])
    assert np.allclose(shown, pixels, atol=1e-5)
    alone = ClassificationInterpretation(trained, judge.preds, judge.targets, judge.losses)
    with pytest.raises(ValueError, match='no data set'): alone.plot_top_losses(4)


def test_judging_refuses():
    preds, targets = torch.full((4, 3), 1/3), torch.arange(4) % 3
    with pytest.raises(ValueError, match='4 preds, 4 targets and 3 losses'):
        judge_of(preds, targets, torch.zeros(3))
    for bad in (preds[:, :1], preds[0]):
        with pytest.raises(ValueError, match='class numbers'):
            ClassificationInterpretation(judge_of(preds, targets).learn, bad, targets, targets)
    learn = judge_of(preds, targets).learn
    with pytest.raises(ValueError, match='class numbers'):
        ClassificationInterpretation(learn, preds, targets.float(), targets)


def test_reports_print(trained, capsys):
    judge = trained.interpret()
    judge.print_classification_report()
    assert capsys.readouterr().out.strip() == str(judge.classification_report()).strip()


def test_names_are_exported():
    names = set(vision_learner_module.__all__)
    assert {'cnn_learner', 'vision_learner', 'VisionLearner', 'create_body', 'create_head'} <= names
    assert vision_learner_module.ClassificationInterpretation is ClassificationInterpretation
