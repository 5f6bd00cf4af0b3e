# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What this machine's CPU multiplies fast, and how its cores are shared."""

from __future__ import annotations

import os
from pathlib import Path

SPIN = '20000'  # rounds: as long as from operation to operation, not from frame to frame
UNTUNED = 'OOD_UNTUNED'  # 1 leaves the C library's memory and OpenMP's waiting as they are

INSTRUCTION_SETS = {
    'avx2': (('avx2',), 'AVX2', 'avx2', 'AVX2'),
    'avx512': (('avx512f', 'avx512bw', 'avx512vl', 'avx512dq'), 'AVX512_CORE', 'avx512', 'AVX512'),
    'vnni': (('avx512_vnni',), 'AVX512_CORE_VNNI', 'avx512', 'AVX512'),
    'amx': (('amx_int8', 'amx_bf16'), 'AVX512_CORE_AMX', 'avx512', 'AVX512'),
}
"""Name -> (flags of the CPU, names in oneDNN, ATen and MKL); each contains the one before."""


def spin_briefly() -> None:
    """
    Let the helper threads of OpenMP wait awake for a moment only; call it before torch is there.

    They wait awake for milliseconds otherwise, on the core where OpenVINO's threads want to run.
    Asleep at once is no better: waking them takes as long as a small operation. What the
    environment says already stays as it is, and `OOD_UNTUNED=1` keeps everything as it is.
    """
    if os.environ.get(UNTUNED) != '1' and 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', SPIN)


def has_bfloat16_tiles() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in tiles (AMX); False where it is not known."""
    return 'amx' in instruction_sets()


def instruction_sets() -> list[str]:
    """
    Names out of `INSTRUCTION_SETS` that this CPU has and the environment allows, least first.

    Empty where it is not known (no Linux) or the CPU is no x86.
    """
    flags = cpuinfo('flags').split()
    found = [n for n, (needs, *_) in INSTRUCTION_SETS.items() if all(f in flags for f in needs)]
    limits = [onednn for _, onednn, *_ in INSTRUCTION_SETS.values()]
    held_to = os.environ.get('ONEDNN_MAX_CPU_ISA', '').upper()
    allowed = limits.index(held_to) + 1 if held_to in limits else None
    return [name for name in list(INSTRUCTION_SETS)[:allowed] if name in found]


def is_held() -> bool:
    """Whether this process is held to fewer instructions than the CPU has, see `held_to`."""
    return bool(os.environ.get('ONEDNN_MAX_CPU_ISA'))


def held_to(name: str) -> dict[str, str]:
    """
    Environment of a new process that uses no more than an instruction set.

    oneDNN (in torch and in OpenVINO), ATen and MKL have switches for it. OpenVINO's own small
    kernels follow `OV_CPU_MAX_ISA` from the version on that reads it; ONNX Runtime has none.
    A name that is unknown, or that this CPU has not, is a ValueError.
    """
    if name not in INSTRUCTION_SETS:
        known = ', '.join(INSTRUCTION_SETS)
        raise ValueError(f'instruction set: expected one of {known}, got {name!r}')
    if name not in instruction_sets():
        raise ValueError(f'this CPU has no {name}, only {", ".join(instruction_sets()) or "none"}')
    _, onednn, aten, mkl = INSTRUCTION_SETS[name]
    return {
        'ONEDNN_MAX_CPU_ISA': onednn,
        'OV_CPU_MAX_ISA': onednn,
        'ATEN_CPU_CAPABILITY': aten,
        'MKL_ENABLE_INSTRUCTIONS': mkl,
    }


def cpuinfo(key: str) -> str:
    """What Linux says of the first processor under a key, '' where it says nothing."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return ''
    return next((line.partition(':')[2].strip() for line in lines if line.startswith(key)), '')
