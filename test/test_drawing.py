# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One drawing for node, `ood run` and report: colours, their order, outlines, labels."""

from __future__ import annotations

import cv2
import numpy as np

from ood_evaluation.evaluator import Frame
from ood_evaluation.pictures import TRUTH, WIDTH, panel
from ood_perception.drawing import OUTLINE, SHADOW, draw, outline

GREY = np.full((60, 80, 3), 90, np.uint8)


def test_high_probability_is_the_colour_maps_red_and_low_leaves_the_picture():
    heat = np.zeros((60, 80), np.uint8)
    heat[20:30] = 255
    heat[40:50] = 16
    image = GREY.copy()
    out = draw(image, heat, None, alpha=1.0)
    red = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_TURBO)[0, 0, ::-1]
    assert np.abs(out[25, 5].astype(int) - red).max() <= 1
    assert out[25, 5, 0] > out[25, 5, 2]  # RGB, not BGR
    np.testing.assert_array_equal(out[45], GREY[45])
    np.testing.assert_array_equal(image, GREY)
    half = draw(image, heat, None, alpha=0.5)[25, 5].astype(int)
    assert np.abs(half - (red.astype(int) + 90) / 2).max() <= 2


def test_outlines_are_drawn_on_the_object_with_a_shadow_around():
    ids = np.zeros((60, 80), np.uint16)
    ids[10:30, 10:30], ids[10:30, 30:50] = 3, 700
    out = draw(GREY, None, ids)
    assert tuple(out[10, 15]) == OUTLINE
    assert tuple(out[9, 15]) == SHADOW
    assert tuple(out[20, 29]) == tuple(out[20, 30]) == OUTLINE
    assert tuple(out[20, 15]) == (90, 90, 90)
    assert outline(ids)[0].sum() == 0
    assert tuple(draw(GREY, None, ids, colour=TRUTH)[10, 15]) == TRUTH


def test_labels_and_the_given_array():
    out = np.empty_like(GREY)
    boxes = np.array([[10, 30, 40, 50]], np.float32)
    assert draw(GREY, None, None, boxes, ['7 0.9'], out=out) is out
    assert (out[20:30] != 90).any()
    assert (out[40:] == 90).all()


def test_the_panel_of_the_report():
    truth = np.zeros((60, 80), np.uint16)
    truth[20:40, 20:40] = 1
    frame = Frame(0, image=lambda: GREY, heatmap=(truth * 255).astype(np.uint8), truth=truth)
    frame.instances = truth[::2, ::2]
    found = panel(frame)
    assert found.shape == (360, 2 * WIDTH, 3)
    assert (found[:, :WIDTH] == TRUTH).all(-1).any()
    assert not (found[:, :WIDTH] == OUTLINE).all(-1).any()
    assert (found[:, WIDTH:] == OUTLINE).all(-1).any()
