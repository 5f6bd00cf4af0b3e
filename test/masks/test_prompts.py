# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torchvision.ops import nms

from ood_perception.checkpoints.store import resolve
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.masks.boxes import clean_boxes, overlaps, suppress
from ood_perception.masks.components import _regions_device, find_regions, label_components
from ood_perception.masks.crops import cut, windows
from ood_perception.masks.detection_prompts import decode, largest_inside
from ood_perception.masks.mask_head import MaskHead
from ood_perception.masks.score_detector import detector_input
from ood_perception.models.unet import fuse_conv_bn


def scene():
    probability = torch.full((120, 160), 0.05)
    probability[20:60, 30:90] = 0.9
    probability[80:96, 120:140] = 0.7
    return probability


def grey(maps):
    """Pictures of maps (B, H, W) on which a thing is as bright as it is unknown: uint8."""
    shade = torch.nan_to_num(maps.clamp(0, 1)) * 120 + 60
    return shade.to(torch.uint8)[:, None].expand(-1, 3, -1, -1)


def boxes_of(prompts, maps):
    """Run a prompt model on maps, with pictures of the same."""
    return prompts(grey(maps), maps, maps)


def test_boxes_hold_the_objects_best_first():
    boxes = boxes_of(create_prompts('components', slots=8), scene()[None])
    assert boxes.boxes.shape == (1, 8, 4)
    assert boxes.valid[0].tolist() == [True] * 2 + [False] * 6
    assert boxes.confidences[0, 0] > boxes.confidences[0, 1] > 0
    for box, (x1, y1, x2, y2) in zip(
        boxes.boxes[0].tolist(), [(30, 20, 90, 60), (120, 80, 140, 96)], strict=False
    ):
        assert box == pytest.approx([x1, y1, x2, y2], abs=4)


@pytest.mark.parametrize('height', [120, 360, 720])
def test_shipped_score_detector_boxes_the_objects(height):
    scale = height / 120
    large = F.interpolate(scene()[None, None], scale_factor=scale, mode='nearest')[0]
    boxes = boxes_of(create_prompts('score_detector'), large)
    found = boxes.boxes[0][boxes.valid[0]]
    real = torch.tensor([[30.0, 20, 90, 60], [120, 80, 140, 96]]) * scale
    # At 120 lines the objects are as small as they are at 360 lines from three times as far.
    assert (overlaps(real, found)[0].amax(1) > 0.6).all()
    assert (boxes.confidences[0].diff() <= 0).all()
    assert resolve('package:light_prompts.safetensors').stat().st_size <= 2_000_000


def test_confidences_are_those_of_network_or_map():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 90, 130, generator=generator) * 0.9
    prompts = create_prompts('score_detector', weights='', threshold=0.0, seed=0.0, slots=6)
    boxes = boxes_of(prompts, maps)
    with torch.no_grad():
        raw, network = decode(prompts.network(detector_input(grey(maps), maps)), 24)
    inside, valid = clean_boxes(raw, 90, 130)
    kept = suppress(inside, network * valid, 6, 0.5, 0.8)
    assert boxes.valid.all()
    for image in range(2):
        expected = {}
        for box, alone in zip(kept.boxes[image], kept.confidences[image], strict=True):
            x1, y1, x2, y2 = (box / 4).tolist()
            rows = slice(4 * int(y1), 4 * math.ceil(y2))
            part = maps[image, rows, 4 * int(x1) : 4 * math.ceil(x2)]
            expected[tuple(box.tolist())] = 1 - (1 - float(alone)) * (1 - float(part.max()))
        for box, score in zip(boxes.boxes[image], boxes.confidences[image], strict=True):
            assert float(score) == pytest.approx(expected[tuple(box.tolist())], abs=1e-4)
        assert (boxes.confidences[image].diff() <= 0).all()
    nowhere = largest_inside(maps, torch.zeros(2, 3, 4))
    assert nowhere.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize('name', ['components', 'score_detector'])
@pytest.mark.parametrize('value', [0.0, 0.5, 1.0, float('nan')])
def test_flat_maps_and_nan_do_no_harm(name, value):
    options = {'weights': ''} if name == 'score_detector' else {}
    flat = torch.full((2, 37, 51), value)
    boxes = boxes_of(create_prompts(name, slots=4, **options), flat)
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


def test_compact_mask_model_clips_bad_boxes():
    model = create_mask_model('compact', weights='')
    image = torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8)
    assert model(image, scene()[None], torch.zeros(1, 0, 4)).shape == (1, 0, 120, 160)
    nan = float('nan')
    bad = [[500.0, 5, 600, 50], [10, 10, 10, 40], [nan, 0, 5, 5], [30, 30, 10, 10]]
    boxes = torch.tensor([[*bad, [-50.0, -50, 900, 900]]])
    (masks,) = model(image, scene()[None], boxes)
    assert masks.shape == (5, 120, 160)
    assert (masks[:4] < 0).all()
    assert torch.isfinite(masks).all()


TILES = 'ood_perception.masks.crop_masks.has_bfloat16_tiles'


@pytest.mark.parametrize('tiles', [True, False])
def test_shipped_mask_head_finds_an_object_on_plain_ground(monkeypatch, tiles):
    monkeypatch.setattr(TILES, lambda: tiles)
    image = torch.full((3, 120, 160), 90, dtype=torch.uint8)
    image[:, 20:60, 30:90] = torch.tensor([220, 40, 30], dtype=torch.uint8)[:, None, None]
    box = torch.tensor([[28.0, 19.0, 93.0, 62.0]])
    mask = create_mask_model('compact')(image[None], scene()[None], box[None])[0, 0] > 0
    truth = torch.zeros(120, 160, dtype=torch.bool)
    truth[20:60, 30:90] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_bfloat16_draws_nearly_the_same(monkeypatch):
    image = torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8)
    boxes = torch.tensor([[[28.0, 19.0, 93.0, 62.0], [5.0, 70.0, 40.0, 110.0]]])
    drawn = []
    for tiles in (False, True):
        monkeypatch.setattr(TILES, lambda tiles=tiles: tiles)
        drawn.append(create_mask_model('compact')(image, scene()[None], boxes))
    assert drawn[1].dtype == torch.float32
    assert not torch.equal(*drawn)
    assert ((drawn[0] > 0) == (drawn[1] > 0)).float().mean() > 0.99


def test_fused_head_in_channels_last_draws_the_same():
    torch.manual_seed(0)
    head = MaskHead()
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    head.eval()
    quick = fuse_conv_bn(head)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in head.modules())
    pictures = torch.randn(3, 5, 96, 96)
    with torch.no_grad():
        expected = head(pictures)
        got = quick(pictures.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_crops_are_the_picture_the_odds_and_the_box():
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    probability = torch.rand(60, 80)
    probability[30, 40] = float('nan')
    part = cut(image, probability, (20, 10, 68, 58), (24.0, 14.0, 44.0, 34.0), size=48)
    torch.testing.assert_close(part[:3], image[:, 10:58, 20:68].float() / 64 - 2)
    p = np.clip(
        np.nan_to_num(probability[10:58, 20:68].numpy().astype(np.float64)), 3.4e-4, 1 - 3.4e-4
    )
    torch.testing.assert_close(
        part[3], torch.from_numpy(np.log(p / (1 - p)) / 4).float(), rtol=1e-4, atol=1e-4
    )
    inside = torch.zeros(48, 48)
    inside[4:24, 4:24] = 1
    assert torch.equal(part[4], inside)
    assert windows([(10.0, 10.0, 30.0, 20.0), (0.0, 0.0, 80.0, 60.0)], 60, 80, 0.25) == [
        (5, 7, 36, 24),
        (0, 0, 80, 60),
    ]


def test_suppression_equals_torchvision():
    generator = torch.Generator().manual_seed(3)
    for count in (0, 1, 5, 40):
        corners = torch.rand(count, 2, generator=generator) * 60
        sides = torch.rand(count, 2, generator=generator) * 40 + 1
        boxes = torch.cat([corners, corners + sides], 1)
        scores = torch.rand(count, generator=generator) * 0.9 + 0.1
        kept = suppress(boxes[None], scores[None], 50, iou=0.3)
        expected = nms(boxes, scores, 0.3)
        assert torch.equal(kept.boxes[0][kept.valid[0]], boxes[expected])
        assert torch.equal(kept.confidences[0][kept.valid[0]], scores[expected])
        assert kept.boxes.shape == (1, 50, 4)


def test_merit_decides_which_box_stays_and_scores_are_reported():
    boxes = torch.tensor([[[0.0, 0, 20, 20], [1, 1, 19, 19], [40, 40, 50, 50]]])
    scores, merit = torch.tensor([[0.9, 0.8, 0.95]]), torch.tensor([[0.5, 0.7, 0.1]])
    kept = suppress(boxes, scores, 4, iou=0.5, merit=merit)
    assert kept.boxes[0, :2].tolist() == [[40, 40, 50, 50], [1, 1, 19, 19]]
    assert kept.confidences[0].tolist() == pytest.approx([0.95, 0.8, 0, 0])


def test_nothing_is_labelled_where_nothing_reaches_the_seed(monkeypatch):
    prompts = create_prompts('components')
    monkeypatch.setattr('ood_perception.masks.components.find_regions', None)
    quiet = torch.full((1, 90, 120), 0.39)
    assert not boxes_of(prompts, quiet).valid.any()


@pytest.mark.parametrize('name', ['components', 'score_detector'])
@pytest.mark.parametrize('size', [(1, 1), (3, 5), (37, 200), (721, 1283)])
def test_any_size_of_map(size, name):
    probability = torch.zeros(1, *size)
    probability[:, size[0] // 3 : size[0] // 2 + 1, size[1] // 3 : size[1] // 2 + 1] = 0.9
    boxes = boxes_of(create_prompts(name), probability)
    limit = torch.tensor([size[1], size[0], size[1], size[0]])
    assert (boxes.boxes >= 0).all()
    assert (boxes.boxes <= limit).all()


def test_a_spiral_is_one_component():
    mask = torch.zeros(41, 41, dtype=torch.bool)
    x, y, step, length = 0, 0, (1, 0), 40
    mask[0, 0] = True
    while length > 0:
        for _ in range(2):
            for _ in range(length):
                x, y = x + step[0], y + step[1]
                mask[y, x] = True
            step = (-step[1], step[0])
        length -= 2
    _, count = ndimage.label(mask.numpy(), structure=[[1] * 3] * 3)
    assert len(label_components(mask[None])[mask[None]].unique()) == count


def test_wrong_names_and_options_are_errors():
    with pytest.raises(ValueError, match='components'):
        create_prompts('nonsense')
    with pytest.raises(ValueError, match='compact'):
        create_mask_model('nonsense')
    with pytest.raises(ValueError, match='slots'):
        create_prompts('components', slots=0)
    with pytest.raises(ValueError, match='threshold'):
        create_prompts('score_detector', weights='', threshold=1.5)
    with pytest.raises(TypeError):
        create_prompts('components', nonsense=1)


def bumps(*peaks: float) -> torch.Tensor:
    """Frames (B, 96, 128) of probability 0.01 with one smooth bump of each peak."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing='ij')
    bump = torch.exp(-((y - 50) ** 2 + (x - 60) ** 2) / 200)
    return torch.stack([0.01 + (peak - 0.01) * bump for peak in peaks])


@pytest.mark.parametrize('peak', [0.05, 0.25, 0.299999, 0.30001, 0.5, 0.9])
def test_host_and_device_paths_of_the_score_detector_agree(peak, monkeypatch):
    """Without early return and loops, which only the host takes, the boxes are the same."""
    prompts = create_prompts('score_detector', threshold=0.1)
    maps = bumps(peak)
    host = boxes_of(prompts, maps)
    monkeypatch.setattr('ood_perception.masks.boxes.ALWAYS_WAITS', True)
    device = boxes_of(prompts, maps)
    assert all(torch.equal(a, b) for a, b in zip(host, device, strict=True))
    assert bool(host.valid.any()) == (peak >= prompts.seed)


@pytest.mark.parametrize('name', ['score_detector', 'components'])
def test_boxes_of_a_frame_do_not_hang_on_the_rest_of_its_batch(name):
    prompts = create_prompts(name)
    maps = bumps(0.9, 0.25, 0.02, 0.6)
    together = boxes_of(prompts, maps)
    for i in range(len(maps)):
        alone = boxes_of(prompts, maps[i : i + 1])
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i], part[0], rtol=1e-5, atol=1e-5)


def test_old_name_of_the_score_detector_is_read_with_a_warning(caplog):
    assert type(create_prompts('light')) is type(create_prompts('score_detector'))
    assert "'light' is called 'score_detector' now" in caplog.text
