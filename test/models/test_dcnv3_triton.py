# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The Triton kernel against the PyTorch operator, in Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip('triton', minversion='3.4')

CASES = """
import torch
from ood_perception.models.dcnv3 import sample_point_by_point
from ood_perception.models.dcnv3_triton import sample_with_triton

cases = [
    # groups, scale, group width, height, width, spread
    (4, 1.0, 16, 9, 13, 1.0),
    (2, 2.0, 32, 7, 5, 1.0),
    (3, 1.0, 12, 11, 8, 3.0),
    (2, 1.0, 16, 10, 9, 40.0),
]
for groups, scale, width, h, w, spread in cases:
    g = torch.Generator().manual_seed(300 + w)
    value = torch.randn(2, h, w, groups * width, generator=g)
    offset = spread * torch.randn(2, h, w, 18 * groups, generator=g)
    mask = torch.rand(2, h, w, 9 * groups, generator=g)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float16, 2e-2)):
        inputs = [t.to(dtype) for t in (value, offset, mask)]
        got = sample_with_triton(*inputs, groups, scale)
        want = sample_point_by_point(*[t.float() for t in inputs], groups, scale)
        assert got.dtype == dtype and got.shape == want.shape
        gap = (got.float() - want).abs().max().item()
        assert gap <= tolerance, (groups, width, dtype, gap)
print('equal')
"""


@pytest.mark.slow
def test_kernel_equals_the_operator() -> None:
    # a process of its own: Triton reads the variable when it is imported
    environment = {**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', CASES], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'equal' in done.stdout


def resources(dtype: str, architecture: int, width: int) -> dict[str, int]:
    """Compile the kernel as a launch on an InternImage's tensors does; what a thread needs."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ood_perception.models.dcnv3_triton import _forward, pixels

    names, pointers = _forward.arg_names, ('value', 'offset', 'mask', 'output')
    block = pixels(width, int(dtype[-2:]) // 8)
    constants = {'WIDTH': width, 'PADDED': width, 'BLOCK': block}
    kinds = {
        **dict.fromkeys(names, 'i32'),
        **dict.fromkeys(pointers, f'*{dtype}'),
        **dict.fromkeys(constants, 'constexpr'),
        'scale': 'fp32',
    }
    aligned = [['tt.divisibility', 16]]
    known = {(names.index(name),): aligned for name in (*pointers, 'channels')}
    source = ASTSource(_forward, kinds, constants, known)
    kernel = triton.compile(source, target=GPUTarget('cuda', architecture, 32))
    assert f'.target sm_{architecture}' in kernel.asm['ptx']
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        said = subprocess.run([tool, '-res-usage', file.name], capture_output=True, text=True)
    return {name: int(count) for name, count in re.findall(r'(\w+):(\d+)', said.stdout)}


@pytest.mark.parametrize('architecture', [80, 86, 87, 89, 90])
@pytest.mark.parametrize(('dtype', 'width'), [('fp16', 16), ('fp32', 32)])
def test_kernel_compiles_for_gpus_that_are_not_here_and_spills_nothing(
    dtype: str, architecture: int, width: int
) -> None:
    need = resources(dtype, architecture, width)
    print(f'sm_{architecture}, {dtype}, groups of {width}: {need}')
    assert 0 < need['REG'] <= 64
    assert need['STACK'] == need['LOCAL'] == 0  # where spilled registers go
