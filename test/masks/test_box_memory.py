# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of boxes: what jumps holds still, what moves is followed, what cannot count is out."""

from __future__ import annotations

import math

import pytest
import torch

from ood_perception.frames.flow import Way
from ood_perception.masks.box_memory import SECONDS, BoxMemory
from ood_perception.masks.boxes import Boxes

SIZE = 240, 320
AGE = 0.05


def found(*rows, slots=4):
    """Boxes of one frame from (x1, y1, x2, y2, confidence)."""
    table = torch.zeros(1, slots, 5)
    table[0, : len(rows)] = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return Boxes(table[..., :4], table[..., 4], table[..., 4] > 0)


def way(dx=0.0, dy=0.0, age=AGE):
    """The picture was (dx, dy) pixels of `SIZE` away in the frame before."""
    return Way(torch.tensor([dx / 8, dy / 8])[:, None, None].expand(2, 30, 40).contiguous(), age)


def look(memory, boxes, move=None, stream='a'):
    """Boxes and confidences of one frame that are left."""
    joined = memory(boxes, SIZE, [move], [stream])
    count = int(joined.valid.sum())
    assert joined.valid[0, :count].all()
    assert not joined.boxes[0, count:].any()
    assert not joined.confidences[0, count:].any()
    return joined.boxes[0, :count], joined.confidences[0, :count]


def test_a_box_that_jumps_holds_still_as_the_mean_of_what_was_seen():
    memory, weight = BoxMemory(0.0), math.exp(-AGE / SECONDS)
    look(memory, found((100, 100, 140, 140, 0.9)))
    boxes, _ = look(memory, found((104, 100, 144, 140, 0.9)), way())
    share = weight / (1 + weight)
    torch.testing.assert_close(boxes[0, 0], torch.tensor(104 - 4 * share))
    # The third frame weighs one, the two before e^-t and e^-2t, as a mean with forgetting does.
    third, _ = look(memory, found((100, 100, 140, 140, 0.9)), way())
    weights = torch.tensor([weight**2, weight, 1.0])
    mean = (weights * torch.tensor([100.0, 104.0, 100.0])).sum() / weights.sum()
    torch.testing.assert_close(third[0, 0], mean)


@pytest.mark.parametrize(('dx', 'dy'), [(12.0, 0.0), (-8.0, 5.0), (0.0, -20.0)])
def test_what_moves_is_followed_without_delay(dx, dy):
    memory, box = BoxMemory(0.0), torch.tensor([100.0, 80, 140, 120])
    look(memory, found((*box.tolist(), 0.9)))
    for step in range(1, 4):
        # The flow leads back to where it was.
        box = box + torch.tensor([dx, dy, dx, dy])
        boxes, _ = look(memory, found((*box.tolist(), 0.9)), way(-dx, -dy))
        torch.testing.assert_close(boxes[0], box, msg=f'step {step}')


def test_another_box_is_not_drawn_to_one_that_was_elsewhere():
    memory = BoxMemory(0.0)
    look(memory, found((10, 10, 50, 50, 0.9)))
    boxes, _ = look(memory, found((40, 40, 80, 80, 0.9), (200, 10, 240, 50, 0.8)), way())
    assert boxes.tolist() == [[40, 40, 80, 80], [200, 10, 240, 50]]


def test_what_nobody_was_ever_sure_of_gets_no_outline_and_is_remembered():
    memory = BoxMemory(0.9)
    sure, unsure = (10, 10, 50, 50, 0.95), (100, 100, 140, 140, 0.7)
    assert len(look(memory, found(sure, unsure))[0]) == 2  # follows nothing: the tracker judges
    assert len(look(memory, found(sure, unsure), way())[0]) == 1
    boxes, confidences = look(memory, found((100, 100, 140, 140, 0.92), (*sure[:4], 0.65)), way())
    assert confidences.tolist() == pytest.approx([0.92, 0.65])
    # Both were sure once; one that was not comes last, and goes.
    rows = (100, 100, 140, 140, 0.7), (200, 200, 220, 220, 0.69), (*sure[:4], 0.65)
    boxes, confidences = look(memory, found(*rows), way())
    assert confidences.tolist() == pytest.approx([0.7, 0.65])
    assert boxes[:, 0].tolist() == pytest.approx([100, 10])


def test_what_one_frame_missed_is_known_and_what_two_missed_is_not():
    for misses, left in ((1, 1), (2, 0)):
        memory = BoxMemory(0.9)
        look(memory, found((100, 100, 140, 140, 0.95), (10, 10, 50, 50, 0.95)))
        for step in range(misses):
            x = 10 + 6 * (step + 1)
            look(memory, found((x, 10, x + 40, 50, 0.95)), way(-6.0))
        x = 100 + 6 * (misses + 1)
        boxes, _ = look(memory, found((x, 100, x + 40, 140, 0.7)), way(-6.0))
        assert len(boxes) == left
        assert boxes[:, 0].tolist() == pytest.approx([x] * left)


def test_a_box_that_jumps_far_is_known_but_not_averaged():
    memory = BoxMemory(0.9)
    look(memory, found((100, 100, 140, 140, 0.95)))
    boxes, _ = look(memory, found((120, 110, 160, 150, 0.7)), way())
    assert boxes.tolist() == [[120, 110, 160, 150]]


def test_frames_that_follow_nothing_and_other_cameras_are_left_as_they_are():
    memory = BoxMemory(0.0)
    look(memory, found((100, 100, 140, 140, 0.9)))
    moved = found((104, 100, 144, 140, 0.9))
    for move, stream in ((None, 'a'), (way(), 'b')):
        assert look(memory, moved, move, stream)[0].tolist() == [[104, 100, 144, 140]]
    memory.reset('a')
    assert look(memory, found((100, 100, 140, 140, 0.9)), way())[0][0, 0] == 100
    memory.reset()
    assert look(memory, moved, way(), 'b')[0][0, 0] == 104


def test_frames_without_boxes_and_batches_of_cameras():
    memory = BoxMemory(0.0)
    assert len(look(memory, found(slots=0), way())[0]) == 0
    assert len(look(memory, found((1, 1, 9, 9, 0.9)), way())[0]) == 1
    assert len(look(memory, found(slots=0), way())[0]) == 0
    a, b = found((100, 100, 140, 140, 0.9)), found((10, 10, 50, 50, 0.9))
    both = Boxes(*(torch.cat(parts) for parts in zip(a, b, strict=True)))
    memory(both, SIZE, [None, None], ['a', 'b'])
    joined = memory(both, SIZE, [way(4.0), way(0.0)], ['a', 'b'])
    assert joined.boxes[0, 0, 0] < 100  # it was 4 pixels to the right, where nothing was seen
    assert joined.boxes[1, 0].tolist() == [10, 10, 50, 50]
