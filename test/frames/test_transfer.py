# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ood_perception.frames.transfer import Uploader, as_frame, network_size, normalise
from ood_perception.models.output import InputSpec

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('frame', 'message'),
    [
        (np.zeros((4, 4), np.uint8), r'\(4, 4\)'),
        (np.zeros((4, 4, 4), np.uint8), r'\(4, 4, 4\)'),
        (np.zeros((4, 4, 3), np.float32), 'float32'),
        (np.zeros((0, 4, 3), np.uint8), '1x1'),
        ([[1, 2, 3]], 'list'),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r'\(3, 4, 4\)'),
    ],
)
def test_a_frame_that_is_none_is_refused(frame: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_frame(frame)


def test_frames_of_any_memory_layout_are_the_same() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    read_only = image.copy()
    read_only.flags.writeable = False
    for view in (image[:, ::-1][:, ::-1], np.asfortranarray(image), read_only):
        np.testing.assert_array_equal(as_frame(view).numpy(), image)
    np.testing.assert_array_equal(as_frame(image[:, ::-1]).numpy(), image[:, ::-1])


@pytest.mark.parametrize(
    ('frame', 'short', 'long', 'multiple', 'want'),
    [
        ((360, 480), 360, 640, 8, (360, 480)),
        ((720, 1280), 360, 640, 8, (360, 640)),
        ((1024, 2048), 360, 640, 8, (320, 640)),
        ((2048, 1024), 360, 640, 8, (640, 320)),
        ((1, 1), 360, 640, 8, (360, 360)),
        ((1, 8000), 360, 640, 8, (8, 640)),
        ((75, 107), 0, 0, 1, (75, 107)),
        ((75, 107), 0, 0, 14, (70, 112)),
    ],
)
def test_network_size(
    frame: tuple[int, int], short: int, long: int, multiple: int, want: tuple[int, int]
) -> None:
    assert network_size(*frame, short, long, multiple) == want


def test_upload_resizes_like_an_area_filter() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)
    batch = Uploader(CPU)([as_frame(image), as_frame(image)], (32, 48))
    assert batch.shape == (2, 3, 32, 48)
    assert batch.dtype == torch.uint8
    want = cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA)
    got = batch[1].permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - want).max() <= 2
    same = Uploader(CPU)([as_frame(image)], (64, 96))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(same, image)


def test_normalise_follows_the_spec() -> None:
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    spec = InputSpec(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    got = normalise(images, spec).flatten()
    torch.testing.assert_close(got, torch.tensor([-127 / 128, 0, 1.0]), atol=1e-6, rtol=0)
