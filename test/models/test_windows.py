# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from ood_perception.models.uem import GPU_BATCH, mean_over_windows, window_starts


@pytest.mark.parametrize('window', [1, 5, 14])
@pytest.mark.parametrize('stride', [1, 3, 5])
@pytest.mark.parametrize('size', [14, 15, 19, 24, 29])
def test_windows_cover_every_pixel_and_end_at_the_border(size, window, stride):
    starts = window_starts(size, window, stride)
    if stride <= window:
        covered = {i for start in starts for i in range(start, start + window)}
        assert covered == set(range(size))
    assert starts[-1] + window == size
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize(('size', 'count'), [(1024, 5), (2048, 9), (720, 3), (1280, 3)])
def test_number_of_windows_is_the_published_one(size, count):
    window = 518 if size in (1024, 720) else 1036
    assert len(window_starts(size, window, 140)) == count


@pytest.mark.parametrize('size', [518, 658, 798, 938])
def test_last_window_is_there_where_the_official_code_drops_it(size):
    assert window_starts(size, 518, 140)[-1] == size - 518


def test_window_larger_than_the_image_is_named():
    with pytest.raises(ValueError, match='518'):
        window_starts(518, 532, 140)


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_mean_equals_a_loop_over_pixels(batch):
    images = torch.randn(2, 3, 9, 13)
    window, stride = (4, 6), (3, 2)
    function = lambda crops: crops.cumsum(2).cumsum(3)  # noqa: E731, differs in each window
    total, hits = torch.zeros(2, 3, 9, 13), torch.zeros(9, 13)
    for y in window_starts(9, 4, 3):
        for x in window_starts(13, 6, 2):
            total[..., y : y + 4, x : x + 6] += function(images[..., y : y + 4, x : x + 6])
            hits[y : y + 4, x : x + 6] += 1
    out = mean_over_windows(images, function, window, stride, batch)
    assert torch.allclose(out, total / hits, atol=1e-5)


def test_windows_are_batched_by_the_device():
    seen = []
    function = lambda crops: seen.append(len(crops)) or crops  # noqa: E731
    images = torch.randn(2, 3, 9, 13)
    assert torch.allclose(mean_over_windows(images, function, (4, 6), (3, 2)), images, atol=1e-6)
    assert set(seen) == {2}  # one window of each image on a CPU
    assert GPU_BATCH > 1


def test_half_precision_windows_are_summed_in_float32():
    images = torch.full((1, 1, 64, 8), 1001.0)
    out = mean_over_windows(images, lambda crops: crops.half(), (33, 8), (1, 8))
    assert out.dtype == torch.float32
    assert torch.equal(out, images)  # 32 * 1001 has no float16
