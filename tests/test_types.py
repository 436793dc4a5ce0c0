"""What a checker of types makes of scripts that use the package.

`make types` checks the package itself. Here it is seen from outside: what users write passes, and a
wrong argument is found. The checker is an extra of its own, without which these tests are skipped.
"""
import json
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
checker = Path(sys.executable).parent/'basedpyright'
pytestmark = [pytest.mark.rare, pytest.mark.skipif(
    not checker.exists(), reason='no checker of types: make types installs one')]

HEAD = '''
import torch
from torch import nn
from fastloop.all import *

data = DataBunch.from_tensors(torch.randn(64, 4), torch.randint(0, 2, (64,)), valid_pct=.2)
learn = Learner(data, nn.Linear(4, 2), metrics=accuracy)
'''
RIGHT = HEAD + '''
class Count(Callback):
    def begin_fit(self): self.n = 0
    def after_batch(self):
        if self.in_train: self.n += len(self.xb)
        if self.run.epoch > 3: raise CancelFitException()

learn.fit(2, 1e-2, cbs=[Count, SaveModelCallback()]).plot_losses()
learn.fit(1, [1e-3], cbs=Count())
learn.fit_one_cycle(1, max_lr=slice(1e-3, 1e-2))
name, number, shares = learn.predict(torch.randn(4))
preds, targets = learn.get_preds(data.valid_dl)
learn.add_cbs(EarlyStoppingCallback(patience=3)).fit(1)
to_device(torch.ones(3), 'cpu').mean().item()
to_device((torch.ones(3), {'a': torch.ones(2)}))
OptimWrapper.create(torch.optim.SGD, [.1], [nn.Linear(2, 2)]).set_val('lr', .1)
simple = BasicLearner(nn.Linear(2, 2), torch.optim.SGD(learn.model.parameters(), lr=.1),
                      nn.functional.cross_entropy, data)
Runner([Count()], cb_funcs=[Count]).fit(1, simple)
Runner(Count).fit(1, learn)
'''
WRONG = ['learn.fit("two")', 'learn.fit(1, cbs=[], reset_opt="no")', 'Learner(data, 3)',
         'Learner(data, nn.Linear(4, 2), path=3)', 'combined_cos("a", 1, 2, 3)',
         'Runner().fit(1, 3)', 'to_device(torch.ones(3)).no_such_method()',
         'learn.predict([1.]).no_such_table()', 'DataBunch(3)', 'atomic_write(3)']


def complaints(folder, text):
    "The lines of a script that the checker complains about"
    (folder/'user.py').write_text(text)
    (folder/'pyrightconfig.json').write_text(json.dumps({
        'extraPaths': [str(root)], 'include': ['user.py'], 'typeCheckingMode': 'basic'}))
    done = subprocess.run([checker, '--outputjson', '--pythonpath', sys.executable, '-p', folder],
                          text=True, capture_output=True)
    found = json.loads(done.stdout)['generalDiagnostics']
    lines = text.splitlines()
    return {lines[o['range']['start']['line']]: o['message'] for o in found}


def test_what_users_write_passes(tmp_path):
    assert complaints(tmp_path, RIGHT) == {}


def test_a_wrong_argument_is_found(tmp_path):
    assert complaints(tmp_path, HEAD + '\n'.join(WRONG)).keys() == set(WRONG)
