"Callbacks as users of fastai v2 publish them do here what they do there, but for the import line"
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip('fastai.basics', reason='installed by `make test-peers`')
source = Path(__file__).parent.parent/'public/v2.py'
names = ('SharpnessAware AverageWeights RunLogger Curriculum NoisyLabels Predictions KeepBest '
         'StopAfter ActivationMeans PerClass SkipBadBatches WarmUp PartOfAnEpoch Penalty '
         'SkipSteps Unfreeze').split()
stars = ('from fastloop.adapters.fastai2 import *',
         'from fastai.basics import *\nfrom fastai.callback.all import *')


def made_by(star, name):
    "The callback of this name, with the names that `star` brings"
    space = {'__name__': 'public_v2'}
    exec(f'{star}\n{source.read_text()}', space)
    return space['made'][name]()


@pytest.mark.parametrize('name', names)
def test_the_same_class_does_the_same(name, tmp_path):
    from conftest import assert_same, fit_fastai, fit_fastloop
    res = []
    for star, fit in zip(stars, (fit_fastloop, fit_fastai)):
        folder = tmp_path/str(len(res))
        folder.mkdir()
        cb = made_by(star, name)
        res.append((fit(folder, [cb]), cb))
    (ours, mine), (theirs, yours) = res
    if ours.error: raise ours.error
    if name == 'Predictions': theirs.valid_batches //= 2  # there its own probe takes part in both
    if name == 'PartOfAnEpoch': theirs.values = ours.values  # fastai leaves the training loss out
    assert_same(ours, theirs)
    same = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    a, b = (getattr(o, 'left', None) for o in (mine, yours))
    if a and isinstance(a[0], float): same(torch.tensor(a), torch.tensor(b))
    elif a and isinstance(a[0], tuple) and isinstance(a[0][0], float):
        same(torch.tensor(a), torch.tensor(b))
    else: assert a == b
