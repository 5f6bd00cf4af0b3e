# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from ood_perception.masks.fusion import BESIDE, IN_AIR, ON_ROAD, fuse, no_instances


def painted(masks, scores):
    """The paper's loop: descending score, later masks overwrite."""
    out = torch.zeros(masks.shape[1:])
    for i in scores.argsort(descending=True, stable=True).tolist():
        out[masks[i]] = scores[i]
    return out


def test_pixels_go_as_the_paper_paints_them_on_a_thousand_cases():
    generator = torch.Generator().manual_seed(0)
    for case in range(1000):
        count = case % 7
        masks = torch.rand(count, 9, 11, generator=generator) < 0.4
        # few distinct values, so that ties happen
        confidences = torch.randint(1, 6, (count,), generator=generator) / 5
        logits, valid = torch.where(masks, 1.0, -1.0), torch.ones(count, dtype=torch.bool)
        found = fuse(logits, confidences, valid, torch.zeros(9, 11), min_area=0, duplicate=1.1)
        union = torch.cat([torch.zeros(1), found.confidences])[found.labels]
        assert torch.equal(union, painted(masks, confidences))


def boxes_as_logits(*rectangles, size=(60, 80)):
    logits = torch.full((len(rectangles), *size), -5.0)
    for row, (x1, y1, x2, y2) in zip(logits, rectangles, strict=True):
        row[y1:y2, x1:x2] = 5
    return logits


def test_instances_do_not_overlap_and_are_measured():
    logits = boxes_as_logits((10, 10, 30, 30), (50, 20, 70, 50))
    score = torch.zeros(60, 80)
    score[10:30, 10:30] = 2.0
    score[20:50, 50:60] = 4.0
    found = fuse(logits, torch.tensor([0.5, 0.9]), torch.tensor([True, True]), score)
    assert found.ids.tolist() == [1, 2]
    assert found.confidences.tolist() == pytest.approx([0.9, 0.5])
    assert found.boxes.tolist() == [[50, 20, 70, 50], [10, 10, 30, 30]]
    assert found.areas.tolist() == [600, 400]
    assert found.mean_scores.tolist() == pytest.approx([2.0, 2.0])
    assert torch.equal(found.labels.unique(), torch.tensor([0, 1, 2], dtype=torch.int32))
    assert (found.labels == 1).sum() == 600


def test_a_part_of_a_better_object_is_no_object_of_its_own():
    logits = boxes_as_logits((10, 10, 50, 50), (15, 15, 30, 30), (48, 10, 70, 50))
    valid = torch.ones(3, dtype=torch.bool)
    found = fuse(logits, torch.tensor([0.9, 0.8, 0.7]), valid, torch.zeros(60, 80))
    assert len(found.ids) == 2
    # the common strip belongs to the lower score, as when painting
    assert found.labels[20, 49] == 2


def test_empty_slots_are_left_out():
    logits = boxes_as_logits((10, 10, 30, 30), (50, 20, 70, 50))
    valid = torch.tensor([False, True])
    found = fuse(logits, torch.tensor([0.9, 0.5]), valid, torch.zeros(60, 80))
    assert found.areas.tolist() == [600]
    assert found.labels[20, 20] == 0
    nothing = fuse(logits, torch.tensor([0.9, 0.5]), ~valid & False, torch.zeros(60, 80))
    assert len(nothing.ids) == 0
    assert nothing.labels.shape == (60, 80)


def test_surroundings():
    semantic = torch.zeros(60, 80, dtype=torch.uint8)
    semantic[30:, 20:60] = 3
    semantic[30:, 60:] = 7
    logits = boxes_as_logits((30, 30, 40, 45), (66, 30, 76, 45), (5, 2, 15, 12))
    scores, valid = torch.tensor([0.9, 0.8, 0.7]), torch.ones(3, dtype=torch.bool)
    found = fuse(logits, scores, valid, torch.zeros(60, 80), semantic, ground_classes=(3,))
    assert found.surroundings.tolist() == [ON_ROAD, BESIDE, IN_AIR]
    plain = fuse(logits, scores, valid, torch.zeros(60, 80))
    assert plain.surroundings.tolist() == [0, 0, 0]


def test_bad_numbers_give_empty_or_clean_results():
    logits = boxes_as_logits((10, 10, 30, 30), (50, 20, 70, 50))
    logits[0] = float('nan')
    score = torch.full((60, 80), float('nan'))
    valid = torch.ones(2, dtype=torch.bool)
    found = fuse(logits, torch.tensor([0.9, float('nan')]), valid, score)
    assert found.areas.tolist() == [600]
    assert torch.isfinite(found.mean_scores).all()
    specks = boxes_as_logits((10, 10, 12, 12))
    assert len(fuse(specks, torch.tensor([0.9]), valid[:1], score).ids) == 0


def test_a_thousand_masks():
    generator = torch.Generator().manual_seed(1)
    logits = torch.full((1000, 40, 60), -1.0)
    for row in logits:
        x, y = (int(v) for v in torch.randint(0, 30, (2,), generator=generator))
        row[y : y + 8, x : x + 8] = 1
    scores = torch.rand(1000, generator=generator)
    valid = torch.ones(1000, dtype=torch.bool)
    found = fuse(logits, scores, valid, torch.zeros(40, 60))
    assert 0 < len(found.ids) <= 1000
    covered = torch.zeros(40, 60, dtype=torch.bool)
    for i in found.ids:
        mask = found.labels == i
        assert not (covered & mask).any()
        covered |= mask


@pytest.mark.parametrize('always', [False, True])
def test_measures_equal_scipy_and_a_plain_count_of_surroundings(always, monkeypatch):
    """Also as a GPU computes them, where empty rows follow."""
    from scipy import ndimage

    monkeypatch.setattr('ood_perception.masks.boxes.ALWAYS_WAITS', always)
    generator = torch.Generator().manual_seed(2)
    for case in range(30):
        logits = torch.full((6, 50, 70), -1.0)
        for row in logits:
            x, y, w, h = (int(v) for v in torch.randint(1, 45, (4,), generator=generator))
            row[y : y + h // 2, x : x + w // 2] = 1
        scores = torch.rand(6, generator=generator)
        score_map = torch.randn(50, 70, generator=generator)
        semantic = torch.randint(0, 2, (50, 70), generator=generator).to(torch.uint8)
        semantic[: case % 40] = 0
        valid = torch.ones(6, dtype=torch.bool)
        found = fuse(logits, scores, valid, score_map, semantic, ground_classes=(1,))
        labels, rows = found.labels.numpy(), found.ids > 0
        found = found._replace(
            **{name: part[rows] for name, part in found._asdict().items() if name != 'labels'}
        )
        assert found.ids.tolist() == list(range(1, len(found.ids) + 1))
        index = found.ids.numpy()
        assert found.areas.tolist() == ndimage.sum_labels(labels > 0, labels, index).tolist()
        assert found.areas.min() >= 16
        means = ndimage.mean(score_map.numpy(), labels, index)
        torch.testing.assert_close(found.mean_scores.double(), torch.from_numpy(means))
        places = [
            [s[1].start, s[0].start, s[1].stop, s[0].stop] for s in ndimage.find_objects(labels)
        ]
        assert found.boxes.tolist() == places
        assert (found.confidences[:-1] >= found.confidences[1:]).all()
        road = semantic.numpy() == 1
        horizon = road.any(1).argmax()
        for box, code in zip(places, found.surroundings.tolist(), strict=True):
            x1, y1, x2, y2 = box
            reach = max(3, int(0.15 * (x2 - x1)), int(0.1 * (y2 - y1)))
            strip = (
                slice(int(y2 - 0.2 * (y2 - y1)), min(50, y2 + reach)),
                slice(max(0, x1 - reach), min(70, x2 + reach)),
            )
            free = labels[strip] == 0
            share = (road[strip] & free).sum() / max(free.sum(), 1)
            expected = ON_ROAD if share >= 0.5 else IN_AIR if y2 < horizon else BESIDE
            assert code == expected


def test_no_instances_has_the_frame_size():
    nothing = no_instances(7, 9)
    assert nothing.labels.shape == (7, 9)
    assert nothing.boxes.shape == (0, 4)
