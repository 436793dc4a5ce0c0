"What is installed, and that the libraries do not disturb each other."
from importlib.metadata import version

import pytest
import torch

wanted = 'installed by `make test-peers`'
fastai = pytest.importorskip('fastai', reason=wanted)
torchmetrics = pytest.importorskip('torchmetrics', reason=wanted)
keras = pytest.importorskip('keras', reason=wanted)


def test_versions():
    assert version('fastai').startswith('2.')
    assert version('keras').startswith('3.')
    assert int(version('torchmetrics').split('.')[0]) >= 1
    assert version('torch').startswith('2.13.0')


def test_keras_runs_on_torch():
    assert keras.backend.backend() == 'torch'
    assert isinstance(keras.ops.ones(2), torch.Tensor)


def test_fastloop_and_fastai_do_not_know_each_other():
    "The tests would prove nothing if one were made of the other"
    import fastai.callback.all

    import fastloop.all
    names = vars(fastloop.all)
    foreign = [k for k, v in names.items()
               if str(getattr(v, '__module__', '')).startswith(('fastai', 'torchmetrics', 'keras'))]
    assert not foreign
    assert names['Callback'] is not fastai.callback.all.Callback
    assert not issubclass(fastai.callback.all.CancelFitException, names['CancelFitException'])


def test_the_problem_is_the_same_in_both(both):
    "Without callbacks, both libraries give the same numbers"
    mine, theirs = both(list)
    assert len(mine.losses) == 18 and len(theirs.values) == 3


@pytest.mark.parametrize('options', [{'model': 'bn'}, {'two_groups': True, 'lr': slice(.01, .1)},
                                     {'two_groups': True, 'lr': slice(.1)}, {'fits': 2}], ids=str)
def test_options_are_the_same_in_both(both, options):
    both(list, **options)
