# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Weights by rule: every value depends on the official key and the shape only.

So any implementation with the same keys has the same weights, and golden files need not hold
them. There is one rule for the mmsegmentation goldens and one for those of UEM.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / 'golden'


def golden(name):
    path = GOLDEN / name
    if not path.is_file():
        pytest.skip(f'no golden file {path}')
    return torch.load(path, weights_only=False)


def _normal(key, shape):
    generator = torch.Generator('cpu').manual_seed(zlib.crc32(key.encode()))
    return torch.randn(tuple(shape), generator=generator)


def mmseg_value(key, shape):
    last = key.rsplit('.', 1)[-1]
    if last == 'num_batches_tracked':
        return torch.ones(shape, dtype=torch.int64)
    r = _normal(key, shape)
    if last == 'running_var':
        return 0.5 + torch.sigmoid(r)
    if last == 'running_mean':
        return 0.1 * r
    if last in ('gamma1', 'gamma2'):
        return 0.3 + 0.1 * r
    if last == 'center_feature_scale_proj_weight':
        return r / math.sqrt(shape[1])
    if last == 'center_feature_scale_proj_bias':
        return 0.5 * r
    if last == 'bias':
        return (0.5 if key.endswith('offset.bias') else 0.1) * r
    if len(shape) == 1:
        return 1 + 0.1 * r
    gain = 1.4 if key.startswith(('decode_head', 'auxiliary_head')) else 1.0
    return r * gain / math.sqrt(math.prod(shape[1:]))


def uem_value(key, shape, dtype='float32'):
    last = key.rsplit('.', 1)[-1]
    if dtype.startswith('int'):
        return torch.full(shape, 0 if last == 'queue_ptr' else 1, dtype=torch.int64)
    if last == 'eye_matrix':
        return torch.ones(shape)
    if last in ('queue', 'iteration_counter'):
        return torch.zeros(shape)
    r = _normal(key, shape)
    if last in ('pos_embed', 'cls_token', 'register_tokens'):
        return 0.5 * r
    if last in ('diagonal', 'running_var'):
        return 0.5 + torch.sigmoid(r)
    if last == 'means':
        return r
    if last in ('running_mean', 'bias'):
        return 0.1 * r
    if last == 'gamma':
        return 0.3 + 0.1 * r
    if last == 'weight':
        return 1 + 0.1 * r if len(shape) == 1 else r / math.sqrt(math.prod(shape[1:]))
    return 0.02 * r


def weights_by_rule(shapes, rule):
    return {key: rule(key, shape) for key, shape in shapes.items()}


def assert_close(actual, expected, atol):
    assert actual.shape == expected.shape
    worst = (actual.float() - expected.float()).abs().max().item()
    assert worst <= atol, f'differs by {worst:.3g}'
