# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""From the tensors of a batch to each frame's Result, at the frame's own size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.engines.faults import Note, attempt
from ood_perception.frames.resize import resize, resize_map
from ood_perception.frames.transfer import download
from ood_perception.masks.boxes import pixels_of
from ood_perception.masks.fusion import Instances, no_instances
from ood_perception.masks.tracking import Glance, glance
from ood_perception.models.output import SegmentorOutput
from ood_perception.result import NO_CLASS, Result


def semantic_map(output: SegmentorOutput, size: tuple[int, int], exact: bool) -> Tensor | None:
    """
    Class ids of the segmentor.

    Args:
        output: of the segmentor.
        size: (h, w) wanted.
        exact: True upsamples the logits bilinearly before the argmax; False takes the argmax at
            head resolution, which is enough to tell what an object stands on.

    Returns:
        uint8 (B, h, w), or None from a segmentor without classes.

    """
    if output.logits is None:
        return None
    logits = output.logits.float()
    classes = first_of_largest(logits, size if exact else tuple(logits.shape[2:]))
    return _resize_labels(classes, size)


def first_of_largest(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """
    Argmax over classes of logits that are resized, bilinearly, to (H, W) before.

    Float32 (B, K, h, w) -> uint8 (B, H, W), the first where some are equal. On a CPU by OpenCV:
    torch's own resize and argmax take six times as long.
    """
    if logits.device.type != 'cpu':
        return resize(logits, size).argmax(1).to(torch.uint8)
    classes = np.zeros((len(logits), *size), np.uint8)
    for found, planes in zip(classes, logits.numpy(), strict=True):
        largest = cv2.resize(planes[0], size[::-1])
        for k in range(1, len(planes)):
            plane = cv2.resize(planes[k], size[::-1])
            larger = cv2.compare(plane, largest, cv2.CMP_GT)  # 255 where it is
            cv2.max(found, np.bitwise_and(larger, k, out=larger), found)
            cv2.max(largest, plane, largest)
    return torch.from_numpy(classes)


class Maps(NamedTuple):
    """What was computed of a batch, at the network's size, on its device."""

    images: Tensor  # uint8 (B, 3, h, w) RGB
    score: Tensor  # float32 (B, h, w)
    probability: Tensor  # float32 (B, h, w), 0..1
    semantic: Tensor | None  # uint8 (B, h, w), None without classes


def finish(
    maps: Maps,
    found: Sequence[Instances | Exception | None],
    sizes: Sequence[tuple[int, int]],
    wants: frozenset[str],
    as_tensors: bool,
    note: Note,
    settle: Callable[[int, Result, Glance], None],
    cuts: bool = True,
) -> list[Result | Exception]:
    """
    Bring a batch's maps and instances to each frame's `Result`.

    Args:
        maps: of the batch.
        found: instances of each frame, why there are none, or None where no one looked for any.
        sizes: (H, W) of each frame.
        wants: fields to fill.
        as_tensors: whether the results stay on the device.
        note: told one line when something failed.
        settle: settle(i, result, what a tracker sees) gives the objects of frame i ids that last.
        cuts: whether the tracker looks for scene cuts, for which it needs the pictures.

    Returns:
        The result of each frame, or the error in its place.

    """
    outcomes = [
        instances
        if isinstance(instances, Exception)
        else _assembled(maps, i, instances, size, wants, as_tensors, note)
        for i, (instances, size) in enumerate(zip(found, sizes, strict=True))
    ]
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    seen = {
        i: glance(instances, maps.images[i] if cuts else None)
        for i, instances in enumerate(found)
        if isinstance(instances, Instances) and isinstance(outcomes[i], Result)
    }
    small = [tensor for part in seen.values() for tensor in part]
    arrived = iter(to_host([] if as_tensors else results, small))
    for i in seen:
        now, outcome = Glance(*(next(arrived) for _ in Glance._fields)), outcomes[i]
        assert isinstance(outcome, Result)
        try:
            settle(i, outcome, now)
        except Exception as error:
            outcomes[i] = error
    return outcomes


def _assembled(
    maps: Maps,
    i: int,
    instances: Instances | None,
    size: tuple[int, int],
    wants: frozenset[str],
    as_tensors: bool,
    note: Note,
) -> Result | Exception:
    classes = None if maps.semantic is None else maps.semantic[i]
    parts = maps.score[i], maps.probability[i], instances, classes, size, wants, as_tensors
    return attempt('assembly', note, lambda: assemble(*parts))


def assemble(
    score: Tensor,
    probability: Tensor,
    instances: Instances | None,
    semantic: Tensor | None,
    full: tuple[int, int],
    wants: frozenset[str],
    as_tensors: bool = False,
) -> Result:
    """
    One frame's tensors at the frame's own size.

    Args:
        score: float32 (h, w).
        probability: float32 (h, w), 0..1.
        instances: of the frame, or None where no one looked for any.
        semantic: uint8 (h, w), or None without classes.
        full: (H, W) of the frame.
        wants: fields to fill.
        as_tensors: False makes the ids of `instances` as narrow as they will be on the host.

    """
    h, w = score.shape
    result = Result()
    if 'score' in wants:
        result.score = resize_map(score, full)
    if 'heatmap' in wants:
        result.heatmap = _bytes(resize_map(probability, full))
    if 'semantic' in wants:
        result.semantic = (
            score.new_full(full, NO_CLASS, dtype=torch.uint8)
            if semantic is None
            else _resize_labels(semantic, full)
        )
    if 'instances' in wants:
        if instances is None:
            instances = no_instances(h, w, score.device)
        across, down = full[1] / w, full[0] / h
        labels = instances.labels
        if not as_tensors:
            labels = labels.to(torch.uint16 if labels.device.type == 'cpu' else torch.int16)
        result.instances = _resize_labels(labels, full)
        # Numbers of Python, not a tensor made from them: that copy would wait for the device.
        columns = [instances.boxes[:, i] * (down if i % 2 else across) for i in range(4)]
        result.boxes = torch.stack(columns, 1)
        result.confidences = instances.confidences
        result.ids = instances.ids
        result.areas = (instances.areas * (across * down)).round().to(torch.int32)
        result.mean_scores = instances.mean_scores
        result.surroundings = instances.surroundings
    return result


def _bytes(heat: Tensor) -> Tensor:
    """Bring probabilities 0..1 to uint8 0..255."""
    if heat.device.type == 'cpu':
        return torch.from_numpy(cv2.convertScaleAbs(heat.numpy(), alpha=255))
    return (heat * 255).round_().clamp_(0, 255).to(torch.uint8)


def _resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize integer maps (..., h, w) to the nearest pixel, as torch's interpolate does."""
    if labels.shape[-2:] == size:
        return labels
    rows, columns = (
        _nearest(a, b, labels.device) for a, b in zip(labels.shape[-2:], size, strict=True)
    )
    if labels.device.type == 'cpu':
        # torch gathers narrow integers several times slower
        taken = labels.numpy().take(columns.numpy(), -1).take(rows.numpy(), -2)
        return torch.from_numpy(taken)
    return labels.index_select(-1, columns).index_select(-2, rows)


@functools.lru_cache(maxsize=32)
def _nearest(length: int, wanted: int, device: torch.device) -> Tensor:
    """Which of `length` pixels each of `wanted` pixels is, as torch's interpolate says."""
    index = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(index[None, None], wanted, mode='nearest')[0, 0].long()


def to_host(results: list[Result], others: Sequence[Tensor] = ()) -> list[Tensor]:
    """Copy the tensors of all results, in place, and others, returned, to the host together."""
    places = [
        (result, name)
        for result in results
        for name in result.__slots__
        if isinstance(getattr(result, name), Tensor)
    ]
    arrays = download([*(getattr(result, name) for result, name in places), *others])
    for (result, name), array in zip(places, arrays, strict=False):
        setattr(result, name, array.astype('uint16', copy=False) if name == 'instances' else array)
    for result in results:
        if result.instances is not None and result.ids is not None and len(result.ids):
            # Counted where it is published: scaled from the network's size it is some pixels off.
            assert result.boxes is not None
            rows = zip(result.ids.tolist(), map(pixels_of, result.boxes.tolist()), strict=True)
            counts = [(result.instances[part] == i).sum() if i else 0 for i, part in rows]
            result.areas = np.array(counts, np.int32)
    return [torch.from_numpy(array) for array in arrays[len(places) :]]
