# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Tracking: the same object keeps its id from frame to frame.

There is one `Tracker` for each camera. An object is matched by the overlap of its mask with the
track's last mask, moved by the track's own speed; small and fast ones that are left are matched by
boxes with a margin. Across a scene cut, between pictures without anything in common, nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.boxes import overlaps, pixels_of
from ood_perception.masks.fusion import Instances
from ood_perception.masks.outline_memory import OutlineMemory
from ood_perception.result import ROWS, Result

Array = npt.NDArray[Any]

LAST_ID = 65535
CELL = 4  # masks are compared on every fourth pixel in both directions
PAUSE = 1_000_000_000  # ns after which a frame follows none: what is in it counts at once
THUMBNAIL = (12, 16)  # rows and columns of the small pictures that tell a scene cut


@dataclass
class _Track:
    id: int
    box: Array  # float32 (4,) XYXY pixels
    speed: Array  # float32 (2,), pixels a frame
    mask: Array  # bool (h, w)
    best: float
    hits: int = 1
    missed: int = 0


class Glance(NamedTuple):
    """What a tracker sees of a frame: little enough to be copied to the host with the results."""

    boxes: Tensor  # float32 (N, 4) XYXY pixels
    ids: Tensor  # int32 (N,), in this frame alone; 0 = an empty row, which is passed over
    confidences: Tensor  # float32 (N,), 0..1
    labels: Tensor  # int32 (h, w), ids of every `CELL`-th pixel
    picture: Tensor  # float32 `THUMBNAIL`, mean brightness; empty = scene cuts are not noticed
    green: Tensor  # uint8 (H, W), nearly all of the picture's brightness; empty as well


def glance(instances: Instances, image: Tensor | None = None) -> Glance:
    """What a tracker needs of a frame and its uint8 (3, H, W) picture."""
    small = instances.labels[::CELL, ::CELL]
    picture, green = (small.new_zeros(0, dtype=kind) for kind in (torch.float32, torch.uint8))
    if image is not None:
        picture = F.adaptive_avg_pool2d(image[:, ::CELL, ::CELL].float(), THUMBNAIL).mean(0)
        green = image[1]
    return Glance(instances.boxes, instances.ids, instances.confidences, small, picture, green)


class Tracker:
    """
    Give instances ids that last.

    Args:
        min_iou: overlap (of masks, or of widened boxes) from which two are the same object.
        max_missed: frames for which an object may be hidden and still get its id back.
        max_tracks: most tracks kept; the one unseen for longest is dropped first.
        cut: correlation of two successive pictures below which the scene was cut; -1 = never.
        min_hits: frames in which an object must have been seen before it counts, where its frame
            follows another within `PAUSE` (SORT, Bewley et al., ICIP 2016). What is seen in the
            first frame, after a cut or in a picture by itself counts at once.
        start: confidence 0..1 that an object of a stream must have had in one frame before it
            counts; from then on it counts with less, too (as in ByteTrack, Zhang et al., ECCV
            2022). In a picture without a stamp everything counts.
    """

    def __init__(
        self,
        min_iou: float = 0.1,
        max_missed: int = 15,
        max_tracks: int = 256,
        cut: float = 0.3,
        min_hits: int = 1,
        start: float = 0.0,
    ) -> None:
        if not 0 <= min_iou < 1:
            raise ValueError(f'min_iou: expected 0 <= min_iou < 1, got {min_iou}')
        if max_tracks < 1:
            raise ValueError(f'max_tracks: expected at least 1, got {max_tracks}')
        if not -1 <= cut < 1:
            raise ValueError(f'cut: expected -1 <= cut < 1, got {cut}')
        if max_missed < 0:
            raise ValueError(f'max_missed: expected 0 or more, got {max_missed}')
        if min_hits < 1:
            raise ValueError(f'min_hits: expected 1 or more, got {min_hits}')
        if not 0 <= start <= 1:
            raise ValueError(f'start: expected 0 <= start <= 1, got {start}')
        self.min_iou, self.max_missed, self.cut = min_iou, max_missed, cut
        self.min_hits, self.start = min_hits, start
        self.max_tracks = min(max_tracks, LAST_ID)
        self.outlines = OutlineMemory()
        self._tracks: list[_Track] = []
        self._size: tuple[int, ...] = ()
        self._last_id = 0
        self._picture = np.zeros(0, np.float32)
        self._frames, self._stamp = 0, 0  # that follow each other, and when the last one was

    def __len__(self) -> int:
        """Count the tracks that are alive, those of hidden objects included."""
        return len(self._tracks)

    def reset(self) -> None:
        """Forget all tracks. Ids go on where they were, so that none means two things."""
        self._tracks.clear()
        self.outlines.reset()
        self._picture = np.zeros(0, np.float32)
        self._size = ()
        self._frames = 0

    def update(
        self, instances: Instances, image: Tensor | None = None, stamp: int | None = None
    ) -> Instances:
        """
        Give one frame's instances, on the host, ids 1..65535 that last; 0 = it does not count yet.

        A frame of another size than the last resets the tracker. `image` is the frame, uint8
        (3, H, W) RGB, to notice scene cuts, `stamp` its time in ns, None = it is of no sequence.
        """
        seen = glance(instances, image)
        lasting = self.match(seen, stamp)
        labels = relabelled(instances.labels, seen.boxes, seen.ids.tolist(), lasting)
        return instances._replace(labels=labels, ids=torch.tensor(lasting, dtype=torch.int32))

    def settle(self, result: Result, seen: Glance, stamp: int | None) -> None:
        """Give a result ids that last, and on the host outlines that hold still; see `update`."""
        settle(result, seen, self.match(seen, stamp))
        if stamp is not None and isinstance(result.instances, np.ndarray):
            self.outlines(result, seen.green.numpy(), stamp)

    def match(self, seen: Glance, stamp: int | None = None) -> list[int]:
        """Match a frame, on the host, with the tracks; see `update`. Empty rows have no id."""
        size = tuple(seen.labels.shape)
        if size != self._size:
            self.reset()
            self._size = size
        follows = stamp is not None and 0 < stamp - self._stamp <= PAUSE
        self._frames, self._stamp = self._frames + 1 if follows else 1, stamp or 0
        # On so few numbers numpy is several times as fast as torch.
        ids = seen.ids.numpy()
        used = ids > 0
        boxes, picture = seen.boxes.numpy()[used], seen.picture.numpy().ravel()
        confidences = seen.confidences.numpy()[used].tolist()
        if not len(boxes) and not self._tracks:
            return []
        masks = seen.labels.numpy()[None] == ids[used][:, None, None]
        if _correlation(self._picture, picture) < self.cut:
            self._tracks.clear()
            self._frames = 1
        self._picture = picture
        owners: list[_Track | None] = [None] * len(boxes)
        for t, n in self._match(boxes, masks):
            track = owners[n] = self._tracks[t]
            step = (boxes[n] - track.box).reshape(2, 2).mean(0) / (track.missed + 1)
            track.speed = step if track.hits == 1 else 0.5 * (track.speed + step)
            track.box, track.mask = boxes[n], masks[n]
            track.hits, track.missed = track.hits + 1, -1
            track.best = max(track.best, confidences[n])
        for track in self._tracks:
            track.missed += 1
        self._tracks = [track for track in self._tracks if track.missed <= self.max_missed]
        for n, owner in enumerate(owners):
            if owner is None:
                start = np.zeros(2, np.float32), masks[n], confidences[n]
                track = _Track(self._next_id(), boxes[n], *start)
                self._tracks.append(track)
                owners[n] = track
        if len(self._tracks) > self.max_tracks:
            self._tracks = sorted(self._tracks, key=lambda track: track.missed)[: self.max_tracks]
        if not self._tracks:
            self._picture = np.zeros(0, np.float32)
        needed = min(self.min_hits, self._frames)
        tracks = [track for track in owners if track is not None]
        least = 0.0 if stamp is None else self.start
        return [t.id if t.hits >= needed and t.best >= least else 0 for t in tracks]

    def _match(self, boxes: Array, masks: Array) -> list[tuple[int, int]]:
        """Pairs (track, instance): by mask overlap first, the rest by widened boxes."""
        if not self._tracks or not len(boxes):
            return []
        before = np.stack([track.box for track in self._tracks])
        # Only the place is predicted: what one edge does in a frame says little about the next.
        ways = np.stack([track.speed * (track.missed + 1) for track in self._tracks])
        predicted = before + np.tile(ways, 2)
        steps = np.rint((predicted - before).reshape(-1, 2, 2).mean(1) / CELL).astype(int)
        a = np.zeros((len(self._tracks), *masks.shape[1:]), np.float32)
        for moved, track, step in zip(a, self._tracks, steps.tolist(), strict=True):
            _move(track.mask, step[0], step[1], moved)
        a, b = a.reshape(len(a), -1), masks.reshape(len(masks), -1).astype(np.float32)
        common = a @ b.T
        union = (a.sum(1)[:, None] + b.sum(1)[None] - common).clip(min=1)
        pairs = _greedy(common / union, self.min_iou)
        wide = [torch.from_numpy(_widened(each)) for each in (predicted, boxes)]
        near = overlaps(*wide)[0].numpy()
        for t, n in pairs:
            near[t], near[:, n] = 0, 0
        return pairs + _greedy(near, max(self.min_iou, 1e-6))

    def _next_id(self) -> int:
        taken = {track.id for track in self._tracks}
        self._last_id = self._last_id % LAST_ID + 1
        while self._last_id in taken:
            self._last_id = self._last_id % LAST_ID + 1
        return self._last_id


class Trackers(dict[str, Tracker]):
    """Tracker of each camera by its name; without options there is none, and ids do not last."""

    def __init__(self, options: Mapping[str, Any] | None) -> None:
        super().__init__()
        self._options = options

    def settle(self, result: Result, seen: Glance, stream: str, stamp: int | None) -> None:
        """Give a frame's objects ids, those that last where there is a tracker."""
        if self._options is None:
            settle(result, seen, seen.ids[seen.ids > 0].tolist())
            return
        if stream not in self:
            self[stream] = Tracker(**self._options)
        self[stream].settle(result, seen, stamp)

    def reset(self, stream: str | None) -> None:
        """Forget what one camera has seen, None: all. Ids go on, so that none means two things."""
        for name, tracker in self.items():
            if stream in (None, name):
                tracker.reset()


def settle(result: Result, seen: Glance, lasting: list[int]) -> None:
    """Leave out the rows of a result without an id that lasts, and give the others theirs."""
    rows = (seen.ids > 0).nonzero()[:, 0].tolist()
    own = seen.ids[rows].tolist()
    if lasting != own:
        assert result.boxes is not None
        result.instances = relabelled(result.instances, result.boxes[rows], own, lasting)
    kept = [row for row, number in zip(rows, lasting, strict=True) if number]
    if len(kept) < len(seen.ids):
        for name in ROWS:
            setattr(result, name, getattr(result, name)[kept])
    if lasting != own and kept:
        result.ids[:] = torch.tensor([number for number in lasting if number])


def relabelled(labels: Any, boxes: Any, ids: list[int], lasting: list[int]) -> Any:
    """
    Write the N ids `lasting` in place of `ids` into labels, integer (H, W), array or tensor.

    The boxes, float (N, 4) XYXY pixels, hold the pixels of each id.
    """
    after = labels * 0
    for box, own, new in zip(boxes.tolist(), ids, lasting, strict=True):
        part = pixels_of(box)
        after[part][labels[part] == own] = new
    return after


def _correlation(a: Array, b: Array) -> float:
    """Correlation -1..1 of two thumbnails, 1 where one is missing or plain."""
    if not len(a) or not len(b):
        return 1.0
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    # Below a grey level of contrast there is nothing to compare.
    return float(a @ b) / size if size > len(a) else 1.0


def _move(mask: Array, dx: int, dy: int, out: Array) -> None:
    """Write a (h, w) map, moved by whole pixels, into `out`; what enters the frame stays."""
    height, width = mask.shape
    if abs(dx) < width and abs(dy) < height:
        part = mask[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        out[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = part


def _widened(boxes: Array) -> Array:
    """Boxes (N, 4) with a margin of a quarter of their sides, at least 8 pixels."""
    margin = ((boxes[:, 2:] - boxes[:, :2]) / 4).clip(min=8)
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], 1)


def _greedy(affinity: Array, least: float) -> list[tuple[int, int]]:
    """Pairs of rows and columns, largest affinity first, each used once."""
    rows, columns = (affinity >= least).nonzero()
    order = (-affinity[rows, columns]).argsort(kind='stable')
    pairs: dict[int, int] = {}
    for t, n in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if t not in pairs and n not in pairs.values() and affinity[t, n] > 0:
            pairs[t] = n
    return list(pairs.items())
