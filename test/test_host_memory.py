# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a process holds: pages of frames that were freed, and no library that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from ood_perception.host_memory import keep_freed_memory
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def rounds():
    for i in range(20):
        if i == 10:
            before = faults()
        maps = [torch.ones(10, 1 << 20) for _ in range(3)]
        del maps
    return faults() - before
print(rounds())
print(rounds() if keep_freed_memory() else 'unchanged')
"""


def test_frames_reuse_the_pages_of_earlier_frames() -> None:
    run = [sys.executable, '-c', PROGRAM]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    returned, kept = done.stdout.split()
    if kept == 'unchanged':
        assert not sys.platform.startswith('linux') or 'musl' in sys.version.lower()
        return
    # ten rounds of 120 MB; maps above 32 MB always go back by default, smaller ones often
    assert int(kept) * 10 < int(returned)


START = """
import sys
import numpy as np
from ood_perception import Pipeline
for start in ('the first, which converts', 'a later one, which reads what was converted'):
    pipeline = Pipeline.from_profile('compact', 'cpu', 'openvino')
    pipeline(np.zeros((96, 128, 3), np.uint8))
    assert pipeline.engine.name == 'openvino', pipeline.engine.faults()
heavy = 'networkx', 'onnx', 'sympy', 'timm', 'torch._dynamo', 'torchvision', 'triton'
print(*(name for name in heavy if name in sys.modules))
"""


@pytest.mark.slow
def test_the_default_profile_starts_without_what_takes_seconds_and_200_mb(tmp_path):
    pytest.importorskip('openvino', reason='needs openvino')
    environment = {**os.environ, 'OOD_ENGINE_CACHE': str(tmp_path)}
    run = [sys.executable, '-c', START]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ''


CODE = """
import re
from pathlib import Path
import cv2
import numpy as np
import torch
from ood_perception.host_memory import return_freed_memory
held = lambda: int(re.search(r'RssFile:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])
def work():
    return [*torch.linspace(0, 1, 9).softmax(0).tolist(), *cv2.resize(np.eye(9), (3, 3)).flat]
expected, before = work(), held()
return_freed_memory()
after = held()
assert work() == expected
print(before, after, held())
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='asks the kernel of Linux')
def test_code_that_a_start_ran_is_given_back_and_comes_back_when_it_is_called():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=True)
    before, after, used = (int(kilobytes) for kilobytes in done.stdout.split())
    assert after < 0.8 * before
    assert after <= used < before
