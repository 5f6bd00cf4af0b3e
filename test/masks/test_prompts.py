# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import pytest
import torch
from scipy import ndimage

from ood_perception.masks import create_prompts, create_segmenter
from ood_perception.masks.components import _regions_device, find_regions, label_components


def scene():
    probability = torch.full((120, 160), 0.05)
    probability[20:60, 30:90] = 0.9
    probability[80:96, 120:140] = 0.7
    return probability


def test_boxes_hold_the_objects_best_first():
    boxes = create_prompts('components', slots=8)(scene()[None], scene()[None])
    assert boxes.boxes.shape == (1, 8, 4)
    assert boxes.valid[0].tolist() == [True] * 2 + [False] * 6
    assert boxes.scores[0, 0] > boxes.scores[0, 1] > 0
    for box, (x1, y1, x2, y2) in zip(
        boxes.boxes[0].tolist(), [(30, 20, 90, 60), (120, 80, 140, 96)], strict=False
    ):
        assert box == pytest.approx([x1, y1, x2, y2], abs=4)


@pytest.mark.parametrize('name', ['components', 'light'])
@pytest.mark.parametrize('value', [0.0, 0.5, 1.0, float('nan')])
def test_flat_maps_and_nan_do_no_harm(name, value):
    options = {'weights': ''} if name == 'light' else {}
    flat = torch.full((2, 37, 51), value)
    boxes = create_prompts(name, slots=4, **options)(flat, flat)
    assert boxes.boxes.shape == (2, 4, 4)
    assert torch.isfinite(boxes.boxes).all()
    assert (boxes.boxes >= 0).all()
    assert (boxes.boxes[..., 2] <= 51).all()


def test_labels_and_regions_agree_with_scipy_and_opencv():
    generator = torch.Generator().manual_seed(0)
    probability = torch.nn.functional.avg_pool2d(
        torch.rand(1, 1, 40, 56, generator=generator), 5, 1, 2
    )[0, 0]
    mask = probability >= 0.5
    _, count = ndimage.label(mask.numpy(), structure=[[1] * 3] * 3)
    assert len(label_components(mask[None])[mask[None]].unique()) == count
    levels = (0.45, 0.5, 0.55)
    for a, b in zip(
        find_regions(probability, levels, 30),
        _regions_device(probability, levels, 30),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['compact', 'guided', 'grabcut'])
def test_segmenters_clip_bad_boxes(name):
    options = {'weights': ''} if name == 'compact' else {}
    segmenter = create_segmenter(name, **options)
    image = torch.randint(0, 256, (120, 160, 3), dtype=torch.uint8)
    segmenter.set_frame(image, scene(), scene())
    assert segmenter.masks(torch.zeros(0, 4)).shape == (0, 120, 160)
    nan = float('nan')
    bad = [[500.0, 5, 600, 50], [10, 10, 10, 40], [nan, 0, 5, 5], [30, 30, 10, 10]]
    masks = segmenter.masks(torch.tensor([*bad, [-50.0, -50, 900, 900]]))
    assert masks.shape == (5, 120, 160)
    assert (masks[:4] < 0).all()
    assert torch.isfinite(masks).all()


def test_shipped_mask_head_finds_an_object_on_plain_ground():
    image = torch.full((120, 160, 3), 90, dtype=torch.uint8)
    image[20:60, 30:90] = torch.tensor([220, 40, 30], dtype=torch.uint8)
    segmenter = create_segmenter('compact')
    segmenter.set_frame(image, scene(), scene())
    mask = segmenter.masks(torch.tensor([[28.0, 19.0, 93.0, 62.0]]))[0] > 0
    truth = torch.zeros(120, 160, dtype=torch.bool)
    truth[20:60, 30:90] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_wrong_names_and_options_are_errors():
    with pytest.raises(ValueError, match='components'):
        create_prompts('nonsense')
    with pytest.raises(ValueError, match='compact'):
        create_segmenter('nonsense')
    with pytest.raises(ValueError, match='slots'):
        create_prompts('components', slots=0)
    with pytest.raises(TypeError):
        create_prompts('components', nonsense=1)
