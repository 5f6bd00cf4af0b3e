# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ood_perception.assembly import assemble, to_host
from ood_perception.frames.transfer import Uploader, as_frame, normalise
from ood_perception.masks.fusion import Instances, no_instances
from ood_perception.models.output import InputSpec


@pytest.mark.parametrize('size', [(1, 1), (43, 77), (48, 64), (97, 131), (480, 640), (1080, 1920)])
@pytest.mark.parametrize('as_tensors', [True, False])
def test_labels_are_those_of_the_nearest_pixel(size: tuple[int, int], as_tensors: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    instances = no_instances(48, 64, torch.device('cpu'))
    labels = torch.randint(0, 60000, (48, 64), generator=generator, dtype=torch.int32)
    semantic = torch.randint(0, 256, (48, 64), generator=generator, dtype=torch.uint8)
    instances = instances._replace(labels=labels)
    score = torch.randn(48, 64, generator=generator)
    wants = frozenset({'score', 'heatmap', 'instances', 'semantic'})
    result = assemble(score, score.sigmoid(), instances, semantic, size, wants, as_tensors)
    if not as_tensors:
        to_host([result])
        assert result.instances.dtype == np.uint16
    else:
        assert result.instances.dtype == torch.int32
    for got, small in ((result.instances, labels), (result.semantic, semantic)):
        want = F.interpolate(small[None, None].float(), size, mode='nearest')[0, 0]
        np.testing.assert_array_equal(np.asarray(got).astype(np.int64), want.long().numpy())


@pytest.mark.parametrize('channels_last', [True, False])
def test_normalised_pixels_do_not_depend_on_how_they_lie(channels_last: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    before = image.copy()
    batch = Uploader(torch.device('cpu'))([as_frame(image)], (16, 24))
    spec = InputSpec()
    got = normalise(batch, spec, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert got.is_contiguous(memory_format=layout)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))
    want = (image.transpose(2, 0, 1) / np.float32(255) - mean) / std
    np.testing.assert_allclose(got[0].numpy(), want, atol=1e-5)
    np.testing.assert_array_equal(image, before)  # a frame of the right size is not copied


@pytest.mark.parametrize('full', [(48, 64), (480, 640), (101, 77), (720, 1280), (31, 29)])
def test_the_area_is_that_of_the_published_pixels(full):
    h, w = 48, 64
    labels = torch.zeros(h, w, dtype=torch.int32)
    labels[3:14, 5:23], labels[20:41, 30:61], labels[44:45, 1:2] = 7, 300, 65535
    ids = torch.tensor([7, 300, 65535])
    instances = Instances(
        labels=labels,
        boxes=torch.tensor([[5.0, 3, 23, 14], [30, 20, 61, 41], [1, 44, 2, 45]]),
        confidences=torch.ones(3),
        ids=ids,
        areas=torch.tensor([(labels == i).sum() for i in ids]),
        mean_scores=torch.ones(3),
        surroundings=torch.zeros(3, dtype=torch.uint8),
    )
    score = torch.zeros(h, w)
    result = assemble(score, score, instances, None, full, frozenset({'instances'}))
    to_host([result])
    expected = [np.count_nonzero(result.instances == i) for i in (7, 300, 65535)]
    assert result.areas.tolist() == expected
    assert result.areas.dtype == np.int32
