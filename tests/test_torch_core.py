"What the room `torch_core` promises about batches of any shape, random numbers and models"
import collections
import pickle
import random
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import Program
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from fastloop.torch_core import (
    ParameterModule,
    batch_norm_types,
    batch_size,
    call_model,
    check_optimizer_state,
    check_weights,
    children,
    count_batches,
    default_device,
    find_bs,
    first_tensor,
    flatten_model,
    load_tensors,
    map_tensors,
    model_device,
    no_random,
    one_param,
    own_names,
    requires_grad,
    rng_state,
    set_rng_state,
    set_seed,
    to_detach,
    to_device,
    to_float,
    to_half,
    to_np,
    trainable_params,
)

Pair = collections.namedtuple('Pair', 'x y')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')


@pytest.fixture(autouse=True)
def _chance_as_before():
    state = rng_state()
    yield
    set_rng_state(state)


def draw():
    return (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(),
            *torch.rand(2).tolist())


def test_import_is_light():
    program = ('import sys, fastloop.torch_core; '
               'print([o for o in ("torch._dynamo", "matplotlib", "IPython") if o in sys.modules])')
    assert Program(program).end().stdout.strip() == '[]'


# ---- nests of tensors

leaves = st.sampled_from([torch.zeros(2), torch.ones(3, dtype=torch.int64), None, 'a.png', 3, 0.5])
nests = st.recursive(leaves, lambda inner: (
    st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.builds(Pair, inner, inner) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    | st.dictionaries(st.integers(), inner, max_size=2).map(collections.OrderedDict)), max_leaves=8)


def flat(b):
    if isinstance(b, dict): return [(type(b), list(b)), *(o for v in b.values() for o in flat(v))]
    if isinstance(b, (list, tuple)): return [(type(b), len(b)), *(o for v in b for o in flat(v))]
    return [b]


@given(nests)
def test_map_tensors_changes_tensors_and_nothing_else(b):
    before, after = flat(b), flat(map_tensors(b, lambda t: t + 1))
    assert len(before) == len(after)
    for old, new in zip(before, after):
        if isinstance(old, torch.Tensor): assert torch.equal(new, old + 1)
        else: assert new is old or new == old


@given(nests)
def test_to_device_is_nothing_where_everything_is_in_place(b):
    for old, new in zip(flat(b), flat(to_device(b, 'cpu', non_blocking=True))):
        assert new is old or new == old


@given(nests)
def test_to_device_moves_everything(b):
    moved = [o for o in flat(to_device(b, torch.device('meta'))) if isinstance(o, torch.Tensor)]
    assert all(o.device.type == 'meta' for o in moved)
    first = first_tensor(b)
    assert (first is None) == (not moved)
    if moved: assert find_bs(b) == len(first) == len(moved[0])


def test_the_kind_of_a_dict_is_kept_and_the_original_left_alone():
    b = collections.defaultdict(list, x=torch.zeros(2))
    res = map_tensors(b, lambda t: t + 1)
    assert type(res) is collections.defaultdict and res['missing'] == []
    assert b['x'].sum() == 0 and 'missing' not in b
    user = collections.UserDict(x=torch.zeros(2))
    assert type(to_device(user, 'meta')) is collections.UserDict
    frozen = types.MappingProxyType({'x': torch.zeros(2)})
    assert to_device(frozen, 'meta')['x'].device.type == 'meta'


def test_modules_and_other_objects_pass_through():
    model, other = nn.Linear(2, 2), object()
    res = to_device((model, other, np.zeros(2)), 'meta')
    assert res[0] is model and res[1] is other and model.weight.device.type == 'cpu'


def test_packed_sequences_keep_their_sizes():
    packed = pack_sequence([torch.ones(3), torch.ones(1)], enforce_sorted=False)
    res = to_device([packed], 'meta')[0]
    assert res.data.device.type == 'meta' and res.batch_sizes.device.type == 'cpu'
    assert res.sorted_indices.device.type == 'meta' and torch.equal(
        map_tensors(packed, lambda t: t).data, packed.data)


def test_default_device_is_what_tensors_report():
    assert torch.ones(1, device=default_device()).device == default_device()
    assert to_device(torch.ones(1)).device == default_device()


@pytest.mark.parametrize('cuda, mps, expected', [
    (True, True, 'cuda:1'), (True, False, 'cuda:1'), (False, True, 'mps:0'), (False, False, 'cpu')])
def test_default_device_prefers_cuda_then_mps(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 1)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
    assert str(default_device()) == expected


class SpyTensor(torch.Tensor):
    "Notes how it is asked to move"
    pinned, asked = False, None

    def is_pinned(self, *args): return self.pinned
    def to(self, device, non_blocking=False):
        self.asked = (device.type, non_blocking)
        return self


@pytest.mark.parametrize('pinned, device, wish, expected', [
    (True, 'cuda', True, True), (False, 'cuda', True, False), (True, 'cuda', False, False),
    (True, 'cpu', True, False), (True, 'mps', True, False)])
def test_copies_run_on_only_from_pinned_memory_to_cuda(pinned, device, wish, expected):
    t = torch.zeros(2).as_subclass(SpyTensor)
    t.pinned = pinned
    to_device([t], device, non_blocking=wish)
    assert t.asked == (device, expected)


def test_to_detach_cuts_the_graph():
    w = torch.ones(2, requires_grad=True)
    for cpu in (True, False):
        res = to_detach({'a': w*2, 'b': [w]}, cpu=cpu)
        assert not res['a'].requires_grad and not res['b'][0].requires_grad and w.requires_grad
    kept = to_detach(torch.zeros(2, device='meta'), cpu=False)
    assert kept.device.type == 'meta'


def test_only_floats_change_their_type():
    b = [torch.zeros(1, dtype=o) for o in
         (torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8)]
    unchanged = [torch.int64, torch.bool, torch.complex64, torch.uint8]
    assert [o.dtype for o in to_half(b)] == [torch.float16]*2 + unchanged
    assert [o.dtype for o in to_float(to_half(b))] == [torch.float32]*2 + unchanged


def test_to_np():
    w = torch.arange(3.).requires_grad_()
    res = to_np({'a': w, 'b': (w.to(torch.bfloat16), torch.tensor(2)), 'c': 'text'})
    assert isinstance(res['a'], np.ndarray) and res['c'] == 'text'
    np.testing.assert_array_equal(res['a'], [0, 1, 2])
    np.testing.assert_array_equal(res['b'][0], np.float32([0, 1, 2]))
    assert res['b'][1].shape == () and res['b'][1] == 2
    np.testing.assert_array_equal(to_np(torch.tensor([1 + 2j]).conj()), [1 - 2j])


@pytest.mark.parametrize(
    'b', [[], (), {}, None, 'a', ['a', (None,)], np.zeros(3), torch.tensor(1.)])
def test_find_bs_refuses_what_has_no_size(b):
    with pytest.raises(ValueError, match='batch size'): find_bs(b)


def test_find_bs_takes_the_first():
    assert find_bs(({'a': None, 'b': [torch.zeros(5, 2)]}, torch.zeros(7))) == 5
    assert find_bs(torch.zeros(0, 3)) == 0


# ---- random numbers

def test_set_seed_reaches_everybody():
    for seed in (0, 42, np.int64(7), 2**32 + 5, 2**63, -1):
        set_seed(seed)
        first = draw()
        set_seed(seed)
        assert draw() == first
    set_seed(42)
    torch.manual_seed(42)
    expected = torch.rand(3)
    set_seed(42)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(np.random.rand(2), np.random.RandomState(42).rand(2))
    assert random.random() == random.Random(42).random()


@pytest.mark.parametrize('seed', [1.5, '42', None])
def test_set_seed_refuses_what_is_no_number(seed):
    before = pickle.dumps(rng_state()['python'])
    with pytest.raises(TypeError, match='seed='): set_seed(seed)
    assert pickle.dumps(rng_state()['python']) == before


def test_deterministic_in_a_process_of_its_own():
    program = """
import os, torch
from fastloop.torch_core import set_seed
torch.backends.cudnn.benchmark = True
set_seed(1)
assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
set_seed(1, deterministic=True)
assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
print(os.environ['CUBLAS_WORKSPACE_CONFIG'])
"""
    assert ':' in (done := Program(program).end()).stdout, done.stderr


@given(st.integers(0, 2**32), st.integers(0, 5))
def test_chance_goes_on_where_it_stood(seed, steps):
    set_seed(seed)
    for _ in range(steps): draw()
    state = rng_state()
    expected = [draw() for _ in range(2)]
    set_seed(seed + 1)
    set_rng_state(state)
    assert [draw() for _ in range(2)] == expected


def test_half_used_gaussians_are_part_of_the_state():
    set_seed(3)
    random.gauss(0, 1), np.random.randn()  # both make two numbers and keep one
    state = rng_state()
    expected = random.gauss(0, 1), np.random.randn()
    set_seed(4)
    set_rng_state(state)
    assert (random.gauss(0, 1), np.random.randn()) == expected


def test_a_new_process_goes_on(tmp_path):
    set_seed(5)
    draw()
    torch.save(rng_state(), tmp_path/'state.pth')
    expected = [draw() for _ in range(2)]
    program = """
import random, sys, torch, numpy as np
from fastloop.torch_core import set_rng_state
set_rng_state(torch.load(sys.argv[1], weights_only=True))
print([(random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()),
        *torch.rand(2).tolist()) for _ in range(2)])
"""
    done = Program(program, tmp_path/'state.pth').end()
    assert done.stdout.strip() == str([tuple(map(float, o)) for o in expected]), done.stderr


def test_the_state_is_a_copy():
    state = rng_state()
    before = state['torch'].clone(), state['numpy'][1].clone()
    draw()
    assert torch.equal(state['torch'], before[0]) and torch.equal(state['numpy'][1], before[1])


def damaged():
    good = rng_state()
    yield None
    yield {}
    for key in ('python', 'numpy', 'torch', 'cuda'):
        yield {k: v for k, v in good.items() if k != key}
        yield {**good, key: 3}
    version, numbers, gauss = good['python']
    yield {**good, 'python': (version, numbers[:9], gauss)}
    yield {**good, 'python': (version, (-1,)*625, gauss)}
    yield {**good, 'numpy': ('MT19937', torch.zeros(3), 0, 0, 0.)}
    yield {**good, 'torch': torch.zeros(3, dtype=torch.uint8)}
    yield {**good, 'torch': torch.zeros(5)}


def test_a_damaged_state_is_refused_and_changes_nothing():
    for state in damaged():
        before = rng_state()
        expected = draw()
        set_rng_state(before)
        with pytest.raises(ValueError, match='state must come from rng_state'):
            set_rng_state(state)
        assert draw() == expected


def test_a_state_from_a_machine_with_more_gpus_is_read():
    state = rng_state()
    state['cuda'] = state['cuda'] + [torch.zeros(16, dtype=torch.uint8)]*2
    expected = draw()
    set_rng_state(state)
    assert draw() == expected


@pytest.mark.parametrize('error', [None, ValueError, KeyboardInterrupt, SystemExit])
def test_no_random_puts_chance_back_on_every_exit(error):
    set_seed(1)
    expected = draw()
    set_seed(1)
    try:
        with no_random(42):
            inside = draw()
            if error: raise error
    except BaseException as e: assert error and type(e) is error
    assert draw() == expected
    set_seed(42)
    assert draw() == inside


def test_no_random_puts_chance_back_after_a_bad_seed():
    set_seed(1)
    expected = draw()
    set_seed(1)
    with pytest.raises(TypeError), no_random('x'): pass
    assert draw() == expected


# ---- models

def test_where_a_model_is():
    assert model_device(nn.Linear(2, 2, device='meta')).type == 'meta'
    only_buffers = nn.BatchNorm1d(2, affine=False, device='meta')
    assert model_device(only_buffers).type == 'meta' and model_device(nn.ReLU()).type == 'cpu'
    layer = nn.Linear(2, 2)
    assert one_param(layer) is layer.weight
    with pytest.raises(ValueError, match='ReLU'): one_param(nn.ReLU())


def test_freezing():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert requires_grad(model) is True and len(trainable_params(model)) == 4
    assert requires_grad(model[0], False) is False and requires_grad(model) is False
    assert [id(p) for p in trainable_params(model)] == [id(p) for p in model[2].parameters()]
    assert requires_grad(model, True) is True and requires_grad(model[1]) is None


def test_batch_norm_types():
    norms = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)]
    assert all(isinstance(o, batch_norm_types) for o in norms)
    assert not isinstance(nn.LayerNorm(2), batch_norm_types)
    lazy = nn.LazyBatchNorm1d()
    lazy(torch.zeros(3, 2))
    assert isinstance(lazy, batch_norm_types)


class Odd(nn.Module):
    "A module with layers, a parameter of its own, one tied to a layer's, and a shared layer"
    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(2, 2), nn.ReLU()
        self.body = nn.Sequential(self.act, nn.Sequential(nn.BatchNorm1d(2)), nn.Sequential())
        self.token = nn.Parameter(torch.zeros(2))
        self.tied = self.first.weight


def test_flatten_model():
    model = Odd()
    leaves = flatten_model(model)
    assert [type(o) for o in leaves] == [
        nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Sequential, ParameterModule]
    assert leaves[-1].val is model.token and leaves[0] is model.first
    assert flatten_model(model.first) == [model.first] == children(nn.Sequential(model.first))
    x = torch.ones(1)
    assert leaves[-1](x) is x


@pytest.mark.parametrize('model', [
    Odd(), nn.MultiheadAttention(4, 2), nn.TransformerEncoderLayer(4, 2, 8), nn.LSTM(2, 2)])
def test_flatten_model_gives_every_parameter_once(model):
    found = [id(p) for o in flatten_model(model) for p in o.parameters()]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


# ---- on a GPU

@needs_gpu
def test_chance_on_the_gpu_goes_on():
    set_seed(3)
    torch.rand(3, device='cuda')
    state = rng_state()
    expected = torch.rand(3, device='cuda')
    set_seed(4)
    set_rng_state(to_device(state, 'cuda'))  # as a file loaded with map_location would be
    assert torch.equal(torch.rand(3, device='cuda'), expected)


@needs_gpu
def test_there_and_back_on_the_gpu():
    b = {'x': torch.arange(4.).pin_memory(), 'y': [torch.arange(4)]}
    res = to_device(b, default_device(), non_blocking=True)
    assert res['x'].device == default_device() == res['y'][0].device
    assert to_device(res, default_device())['x'] is res['x']
    assert torch.equal(to_detach(res)['x'], torch.arange(4.))
    np.testing.assert_array_equal(to_np(res)['x'], np.arange(4))


# ---- how many ------------------------------------------------------------------------------------
def rows(*sizes): return [torch.zeros(n, 4) for n in sizes]


packed = pack_sequence([torch.zeros(3), torch.zeros(2)])
boxes = [dict(boxes=torch.zeros(n, 4), labels=torch.zeros(n)) for n in (5, 5)]


@pytest.mark.parametrize('xb, yb, size', [
    (torch.zeros(4, 3), torch.zeros(4), 4),
    (torch.zeros(4, 3), torch.zeros(12), 12),  # every step of a sequence is a target
    (torch.zeros(4, 3), rows(12, 12), 12),
    (torch.zeros(2, 3, 8, 8), boxes, 2),
    (torch.zeros(2, 3, 8, 8), boxes[:1] + [dict(boxes=torch.zeros(0, 4))], 2),
    ((torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)), tuple(boxes), 2),
    (torch.zeros(4, 3), rows(5, 1, 0, 2), 4),  # one of another length for each row
    (torch.zeros(4, 3), rows(7, 7, 7, 7), 4),
    (torch.zeros(4, 3), None, 4),
    (torch.zeros(4, 3), ['a', 'b', 'c', 'd'], 4),
    (torch.zeros(4, 3), object(), 4),
    (torch.zeros(4, 3), torch.tensor(1.), 4),
    (torch.zeros(4, 3), (torch.zeros(4), torch.tensor(.5)), 4),
    (torch.zeros(4, 3), dict(a=torch.zeros(4), b=torch.zeros(4, 2)), 4),
    (torch.zeros(4, 3), dict(a=torch.zeros(9), b=torch.zeros(3)), 4),
    (torch.zeros(0, 3), torch.zeros(0), 0),
    (np.zeros((4, 3)), np.zeros(4), 4),
    (dict(ids=torch.zeros(4, 9)), None, 4),
    ((), None, 1), ('text', 'text', 1), (None, [], 1),
    (packed, None, 2), (packed, torch.zeros(2), 2), (packed, packed, 2)])
def test_batch_size_is_rows_of_the_targets_else_of_the_inputs(xb, yb, size):
    assert batch_size(xb, yb) == size


def test_packed_sequences_have_rows_and_a_first_tensor():
    assert find_bs(packed) == 2 and first_tensor(packed) is packed.data


def test_mappings_are_spread_and_packed_sequences_are_one_input():
    def model(a, b=2): return a, b
    assert call_model(model, collections.UserDict(a=1, b=3)) == (1, 3)
    assert call_model(model, types.MappingProxyType(dict(a=1))) == (1, 2)
    assert call_model(model, [1, 4]) == (1, 4)
    assert call_model(model, packed)[0] is packed
    out, _ = call_model(nn.RNN(1, 2), pack_sequence([torch.zeros(3, 1), torch.zeros(2, 1)]))
    assert find_bs(out) == 2


# ---- files of weights ----------------------------------------------------------------------------
def net(): return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_no_changed_byte_gets_through(tmp_path):
    weights, file = net().state_dict(), tmp_path/'a.pth'
    torch.save({'model': weights}, file)
    data, refused = file.read_bytes(), 0
    for i in range(0, len(data), 7):
        file.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i+1:])
        try: found = load_tensors(file)['model']
        except ValueError as e:
            refused += 1
            assert 'a.pth is' in str(e) and len(str(e)) < 400
        else: assert all(torch.equal(found[k], v) for k, v in weights.items())
    assert refused > 100
    at = data.index(weights['0.weight'].numpy().tobytes())
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at+1:])
    with pytest.raises(ValueError, match='a.pth is damaged'): load_tensors(file)


def test_files_without_checksums_and_of_old_torch_are_read(tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path/'old.pth', _use_new_zipfile_serialization=False)
    assert load_tensors(tmp_path/'old.pth')['a'].tolist() == [1, 1]
    if not hasattr(torch.serialization, 'set_crc32_options'): return
    torch.serialization.set_crc32_options(False)
    try: torch.save({'a': torch.ones(2)}, tmp_path/'bare.pth')
    finally: torch.serialization.set_crc32_options(True)
    assert load_tensors(tmp_path/'bare.pth')['a'].tolist() == [1, 1]


@pytest.mark.parametrize('thing, name', [
    (print, 'print'), (types.SimpleNamespace(a=1), 'types.Simple'), (net(), 'torch.nn.modules')])
def test_code_is_refused_in_words_of_our_own(tmp_path, thing, name):
    torch.save(thing, tmp_path/'a.pth')
    with pytest.raises(ValueError, match=f'refused: it holds {name}.*could run code$') as e:
        load_tensors(tmp_path/'a.pth')
    assert '\x1b' not in str(e.value) and 'weights_only' not in str(e.value)


@pytest.mark.parametrize('wrap', [
    nn.DataParallel, lambda m: torch.compile(m, backend='eager'),
    lambda m: nn.DataParallel(torch.compile(m, backend='eager')),
    lambda m: torch.compile(nn.DataParallel(m), backend='eager')])
def test_prefixes_of_wrappers_make_no_difference(wrap):
    for source, target in ((net(), wrap(net())), (wrap(net()), net()), (wrap(net()), wrap(net()))):
        found = own_names(source.state_dict(), target)
        check_weights(target, found)
        target.load_state_dict(found)
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters()))
    strange = {'x.weight': torch.ones(1)}
    assert own_names(strange, net()) is strange
    holder = nn.ModuleDict({'module': net()})  # a name of one's own
    assert list(own_names(holder.state_dict(), holder)) == list(holder.state_dict())


@pytest.mark.parametrize('weights, words', [
    ({'0.weight': 3, '0.bias': torch.ones(4)}, 'holds 3 in place of the tensor 0.weight'),
    ({'0.weight': [1., 2.]}, 'in place of the tensor'),
    ({'x': torch.ones(1)}, 'another architecture.*missing in the file: 0.weight'),
    ({}, 'another architecture')])
@pytest.mark.parametrize('strict', [True, False])
def test_what_cannot_be_weights_is_refused(weights, words, strict):
    with pytest.raises(ValueError, match=words): check_weights(net(), weights, strict)


def test_names_of_both_sides_are_told_where_many_differ():
    "The weights of a training state of somebody else's lie deeper in its file"
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(9)))
    with pytest.raises(ValueError, match='missing in the file: 0.weight.*not in the model: '
                                         'state_dict; not in the model: epoch.*and 12 more'):
        check_weights(model, {'state_dict': model.state_dict(), 'epoch': 3})


@pytest.mark.parametrize('make, words', [
    (lambda t: t.to('meta'), 'meta tensor.*no numbers'),
    (lambda t: t.to_sparse(), 'layout sparse_coo.*has strided'),
    (lambda t: t.to(torch.complex64), 'complex numbers.*has float32'),
    (lambda t: torch.quantize_per_tensor(t, .1, 0, torch.qint8), 'quantized.*has float32')])
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('strict', [True, False])
def test_tensors_of_another_kind_are_refused_by_name(make, words, strict):
    weights = {k: v + 1 for k, v in net().state_dict().items()}
    weights['0.bias'] = make(weights['0.bias'])
    with pytest.raises(ValueError, match=words) as e:
        check_weights(net(), weights, strict)
    assert '0.bias' in str(e.value)


@pytest.mark.filterwarnings('ignore')
def test_weights_of_other_types_are_taken():
    for kind in (torch.float64, torch.bfloat16, torch.int64):
        check_weights(net(), {k: v.to(kind) for k, v in net().state_dict().items()})
    check_weights(net().to(torch.complex64), net().state_dict())
    check_weights(net().to('meta'), net().to('meta').state_dict())


def test_a_part_of_the_weights_may_be_loaded():
    check_weights(net(), {'0.bias': torch.ones(4), 'more': torch.ones(1)}, strict=False)
    with pytest.raises(ValueError, match=r'0.bias: \(5,\) in the file'):
        check_weights(net(), {'0.bias': torch.ones(5)}, strict=False)


@pytest.mark.parametrize('spoil', [
    lambda s: [s], lambda s: 3, lambda s: {}, lambda s: s | {'param_groups': 3},
    lambda s: s | {'param_groups': []}, lambda s: s | {'param_groups': [[1]]},
    lambda s: s | {'param_groups': [{'lr': .1}]}, lambda s: s | {'state': [1]},
    lambda s: s | {'state': {0: 3}}, lambda s: s | {'state': {0: {'exp_avg': 3.}}},
    lambda s: s | {'param_groups': [s['param_groups'][0] | {'lr': 'fast'}]}])
def test_what_is_no_state_of_an_optimizer_is_refused(spoil):
    opt = torch.optim.Adam(net().parameters())
    check_optimizer_state(opt.state_dict())
    with pytest.raises(ValueError, match='state_dict: '):
        check_optimizer_state(spoil(opt.state_dict()))


@pytest.mark.parametrize('error', [TypeError, NotImplementedError])
def test_a_loader_that_knows_no_length(error):
    class Stream:
        def __iter__(self): return iter([1, 2])
        def __len__(self): raise error
    assert count_batches(Stream()) is None and count_batches([1, 2]) == 2


def test_a_length_that_is_wrong_is_told():
    class Broken:
        def __len__(self): return -1
    with pytest.raises(ValueError): count_batches(Broken())
