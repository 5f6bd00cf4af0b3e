# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_perception.frames.assembly import assemble, to_host
from ood_perception.masks.fusion import Instances


@pytest.mark.parametrize('full', [(48, 64), (480, 640), (101, 77), (720, 1280), (31, 29)])
def test_the_area_is_that_of_the_published_pixels(full):
    h, w = 48, 64
    labels = torch.zeros(h, w, dtype=torch.int32)
    labels[3:14, 5:23], labels[20:41, 30:61], labels[44:45, 1:2] = 7, 300, 65535
    ids = torch.tensor([7, 300, 65535])
    instances = Instances(
        labels=labels,
        boxes=torch.tensor([[5.0, 3, 23, 14], [30, 20, 61, 41], [1, 44, 2, 45]]),
        scores=torch.ones(3),
        ids=ids,
        areas=torch.tensor([(labels == i).sum() for i in ids]),
        mean_scores=torch.ones(3),
        surroundings=torch.zeros(3, dtype=torch.uint8),
        union=torch.zeros(h, w),
    )
    score = torch.zeros(h, w)
    (result,) = to_host([assemble(score, score, instances, None, full, frozenset({'instances'}))])
    expected = [np.count_nonzero(result.instances == i) for i in (7, 300, 65535)]
    assert result.areas.tolist() == expected
    assert result.areas.dtype == np.int32
