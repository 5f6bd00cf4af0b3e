# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
S2M's own prompt generator: Faster R-CNN R50-FPN on the raw score map.

torchvision leaves out boxes step by step, and the host waits at each step to know how many are
left. For a GPU :func:`detect_in_slots` computes the same boxes in a fixed number of slots: a box
that is out keeps its place and scores 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import resolve
from ood_perception.masks.boxes import (
    Boxes,
    best_of_rivals,
    clean_boxes,
    empty_boxes,
    overlaps,
    waits,
)
from ood_perception.models.faster_rcnn import PromptRCNN, level_of, pool


class RCNNPrompts(nn.Module):
    """
    Boxes of the paper's detector on the raw score at its own size; see `base.PromptModel`.

    Args:
        weights: path or catalogue name of the official checkpoint, '' = random weights.
        slots: K, most boxes of each frame; the paper keeps 100.
        threshold: boxes of less confidence are dropped; the paper's 0.05.
    """

    def __init__(self, weights: str = '', slots: int = 100, threshold: float = 0.05) -> None:
        super().__init__()
        if slots < 1:
            raise ValueError(f'slots: expected at least 1, got {slots}')
        self.slots = slots
        self.detector = PromptRCNN(score_threshold=threshold, max_boxes=slots)
        if weights:
            load_checkpoint(self.detector, resolve(weights))
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """
        Propose boxes; see `base.PromptModel`. Reads the raw score only.

        The official detector was trained on the energy of a segmentor. NaN and infinities count as
        the map's least and largest finite values.
        """
        batch, height, width = score.shape
        if waits(score.device):
            boxes, confidences = detect_in_slots(self.detector, _finite(score))
            valid = confidences > 0
            return Boxes(torch.where(valid[..., None], boxes, 0.0), confidences, valid)
        out = empty_boxes(batch, self.slots, score.device)
        for i, found in enumerate(self.detector(_finite(score))):
            boxes, valid = clean_boxes(found['boxes'][: self.slots], height, width)
            boxes, confidences = boxes[valid], found['scores'][: self.slots][valid]
            out.boxes[i, : len(boxes)] = boxes
            out.confidences[i, : len(boxes)] = confidences
            out.valid[i, : len(boxes)] = True
        return out


def _finite(score: Tensor) -> Tensor:
    good = torch.isfinite(score)
    least = torch.where(good, score, torch.inf).amin()
    most = torch.where(good, score, -torch.inf).amax()
    filled = torch.where(good, score, torch.where(score == torch.inf, most, least))
    return torch.nan_to_num(filled, nan=0.0, posinf=0.0, neginf=0.0)


def detect_in_slots(detector: PromptRCNN, scores: Tensor) -> tuple[Tensor, Tensor]:
    """
    Detect, as the detector in evaluation mode does, with shapes that do not depend on the picture.

    From float (B, H, W) to float (B, K, 4) XYXY pixels and confidences (B, K), best first, 0 = an
    empty slot; K is at most the detector's `max_boxes`.
    """
    size = int(scores.shape[1]), int(scores.shape[2])
    maps = detector.features(scores)
    proposals, found = _proposals(detector, maps, size)
    heads = detector.roi_heads
    pooled = _pooled(list(maps.values())[:4], proposals, heads.box_roi_pool.size)
    logits, deltas = heads.box_predictor(heads.box_head(pooled))
    batch, count = proposals.shape[:2]
    # one candidate for each proposal and class; class 0 is the background
    confidences = logits.softmax(-1)[:, 1:].view(batch, count, -1).transpose(1, 2)
    steps = deltas.view(batch, count, -1, 4)[:, :, 1:].transpose(1, 2)
    boxes = _moved(proposals[:, None], steps, heads.box_coder, size)
    able = (confidences > heads.score_thresh) & found[:, None] & _large(boxes, 1e-2)
    confidences, order = _best_first(confidences)
    boxes, able = _rows(boxes, order), able.gather(2, order)
    kept = best_of_rivals(overlaps(boxes, boxes)[0] > heads.nms_thresh, able)
    return _best(boxes, torch.where(kept, confidences, 0.0), heads.detections_per_img)


def _proposals(
    detector: PromptRCNN, maps: dict[str, Tensor], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes (B, P, 4) that may hold an object, and bool (B, P), whether the slot is in use."""
    rpn, levels = detector.rpn, list(maps.values())
    boxes, chances = [], []
    anchors = rpn.anchor_generator.of_levels(levels)
    for objectness, deltas, places in zip(*rpn.head(levels), anchors, strict=True):
        batch = len(objectness)
        chance = objectness.permute(0, 2, 3, 1).flatten(1)
        steps = deltas.view(batch, -1, 4, *deltas.shape[2:]).permute(0, 3, 4, 1, 2).flatten(1, 3)
        chance, order = chance.topk(min(rpn.pre_nms_top_n(), chance.shape[1]), dim=1)
        starts = _rows(places.expand(batch, -1, -1), order)
        moved = _moved(starts, _rows(steps, order), rpn.box_coder, size)
        rivals = overlaps(moved, moved)[0] > rpn.nms_thresh
        kept = best_of_rivals(rivals, _large(moved, rpn.min_size))
        boxes.append(moved)
        chances.append(torch.where(kept, chance.sigmoid(), -1.0))
    found, chance = _best(torch.cat(boxes, 1), torch.cat(chances, 1), rpn.post_nms_top_n())
    return found, chance >= 0


def _pooled(maps: list[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Pool boxes (B, P, 4) as `faster_rcnn.AlignedPooler` into (B * P, C, size, size)."""
    batch, count = boxes.shape[:2]
    flat = boxes.flatten(0, 1)
    frame = torch.arange(batch, device=flat.device)[:, None].expand(-1, count).reshape(-1, 1)
    rois = torch.cat([frame.to(flat.dtype), flat], 1)
    levels = level_of(flat)[:, None]
    parts = [
        # A box of another level becomes a point in a corner, which costs nothing and gives 0.
        pool(feature, torch.where(levels == level, rois, 0.0), size, level)
        for level, feature in enumerate(maps)
    ]
    return torch.stack(parts).sum(0)


def _moved(boxes: Tensor, steps: Tensor, coder: BoxCoder, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) moved by the network's steps (..., 4) and clipped to the frame."""
    sides = []
    for axis in (0, 1):
        low, high = boxes[..., axis], boxes[..., axis + 2]
        length = high - low
        centre = steps[..., axis] / coder.weights[axis] * length + (low + 0.5 * length)
        growth = (steps[..., axis + 2] / coder.weights[axis + 2]).clamp(max=coder.bbox_xform_clip)
        half = 0.5 * (growth.exp() * length)
        sides.append([side.clamp(0, size[1 - axis]) for side in (centre - half, centre + half)])
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], -1)


def _large(boxes: Tensor, least: float) -> Tensor:
    """Whether both sides of each box have so many pixels."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(-1) >= least


def _best_first(confidences: Tensor) -> tuple[Tensor, Tensor]:
    """Sort (..., N), equal ones in their order."""
    if torch.compiler.is_exporting():  # ONNX has no sort; its top-k keeps the order of equal ones
        return confidences.topk(confidences.shape[-1])
    return confidences.sort(descending=True, stable=True)


def _rows(boxes: Tensor, order: Tensor) -> Tensor:
    """Boxes (..., N, 4) in an order (..., M)."""
    return boxes.gather(-2, order[..., None].expand(*order.shape, 4))


def _best(boxes: Tensor, confidences: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of boxes (B, ..., 4), best first, and their confidences."""
    flat = confidences.flatten(1)
    best, order = flat.topk(min(count, flat.shape[1]), dim=1)
    return _rows(boxes.flatten(1, -2), order), best
