# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a process holds: pages of frames that were freed, and no library that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from ood_perception.host_memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == 'keep' and not keep_freed_memory():
    print('unchanged'); sys.exit()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(20):
    if i == 10:
        before = faults()
    maps = [torch.ones(10, 1 << 20) for _ in range(3)]
    del maps
print(faults() - before)
"""


def page_faults(how: str) -> str:
    run = [sys.executable, '-c', PROGRAM, how]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def test_frames_reuse_the_pages_of_earlier_frames() -> None:
    kept, returned = page_faults('keep'), page_faults('return')
    if kept == 'unchanged':
        assert not sys.platform.startswith('linux') or 'musl' in sys.version.lower()
        return
    # ten rounds of 120 MB; maps above 32 MB always go back by default, smaller ones often
    assert int(kept) * 10 < int(returned)


START = """
import sys
import numpy as np
from ood_perception import Pipeline
pipeline = Pipeline.from_profile('compact', 'cpu', 'openvino')
pipeline(np.zeros((96, 128, 3), np.uint8))
assert pipeline.engine.name == 'openvino', pipeline.engine.faults()
heavy = 'networkx', 'onnx', 'sympy', 'timm', 'torch._dynamo', 'torchvision', 'triton'
print(*(name for name in heavy if name in sys.modules))
"""


def test_the_default_profile_starts_without_what_takes_seconds_and_200_mb(tmp_path):
    """Its first start, with conversions, and a later one."""
    pytest.importorskip('openvino', reason='needs openvino')
    environment = {**os.environ, 'OOD_ENGINE_CACHE': str(tmp_path)}
    for _ in range(2):
        run = [sys.executable, '-c', START]
        done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == ''
