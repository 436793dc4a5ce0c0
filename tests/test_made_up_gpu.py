"""What a GPU shows, on one that is made up: where there is none, test_gpu.py runs all the same.

made_up_gpu/ makes torch believe in a device `cuda:0`. Its tensors hold their numbers on the CPU,
refuse tensors of the CPU, and can forbid whatever would wait for a GPU. What it cannot show is how
a GPU rounds, how fast it is, and what it compiles.
"""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

HERE, CXX = Path(__file__).parent, shutil.which(os.environ.get('CXX') or 'c++')
ELSEWHERE = 'not nccl and not two_gpus and not compiled'
pytestmark = [pytest.mark.rare,
              pytest.mark.skipif(torch.cuda.is_available(), reason='there is a real one'),
              pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None,
                                 reason='this torch is built for a GPU and has a place for one'),
              pytest.mark.skipif(CXX is None, reason='needs a C++ compiler')]


@pytest.fixture(scope='module')
def device(tmp_path_factory):
    "The library that torch has to find before it is imported"
    out, folder = tmp_path_factory.mktemp('device')/'device.so', Path(torch.__file__).parent
    words = [CXX, '-O1', '-shared', '-fPIC', '-std=c++20', HERE/'made_up_gpu/device.cpp',
             '-o', out, f'-I{folder}/include', f'-I{folder}/include/torch/csrc/api/include',
             f'-I{sysconfig.get_paths()["include"]}', f'-L{folder}/lib', '-lc10', '-ltorch_cpu',
             f'-Wl,-rpath,{folder}/lib']
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if done.returncode: pytest.skip(f'this torch cannot be built against: {done.stderr[-300:]}')
    return out


def run(device, *words):
    "Run tests with the device; how many passed, failed and were skipped"
    env = os.environ | dict(MADE_UP_GPU=str(device), PYTHONPATH=f'{HERE}:{HERE.parent}')
    done = subprocess.run([sys.executable, '-m', 'pytest', '-p', 'made_up_gpu.plugin', '-q', '-p',
                           'no:cacheprovider', *words], env=env, capture_output=True, text=True,
                          cwd=HERE.parent, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return {word: int(n) for n, word in re.findall(r'(\d+) (\w+)', done.stdout.splitlines()[-1])}


def test_it_refuses_what_a_gpu_refuses(device):
    assert run(device, 'tests/made_up_gpu/check_made_up.py')['passed'] > 18


def test_what_only_a_gpu_can_show(device):
    found = run(device, 'tests/test_gpu.py', '-k', ELSEWHERE)
    assert found['passed'] > 40 and not found.get('skipped')
