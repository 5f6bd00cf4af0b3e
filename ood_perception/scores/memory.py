# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Memory of the score: what earlier frames of a camera said joins what the present one says.

An unknown object is unknown in every frame, a false alarm often in one only. The earlier score is
moved to the present frame by optical flow and mixed in, less the older it is, where the flow leads
there and back. Only its coarse part is, at an eighth of the size: edges are the present frame's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.frames.flow import Grey, Way, flow_between, grid
from ood_perception.frames.resize import resize

SCALE = 8  # pixels of the score for one of what is mixed; 4 is no better, and slower
FORGOTTEN = 0.02  # weight below which an earlier score is not worth the optical flow
LEAST_SIDE = 16  # pixels that the optical flow needs
LIKENESS = 24  # grey levels by which a pixel and where it comes from may differ


class _Past(NamedTuple):
    stamp: int
    grey: Grey
    coarse: Tensor


class ScoreMemory:
    """
    Joins the score of each frame with those of its camera's earlier frames.

    After so many seconds an earlier score weighs 1 / e of its first weight.

    Attributes:
        ways: how each picture of the last batch moved since its camera's last one, None where
            nothing of that one was used.

    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ways: list[Way | None] = []
        self._past: dict[str, _Past] = {}

    def __call__(
        self, score: Tensor, images: Tensor, streams: Sequence[str], stamps: Sequence[int | None]
    ) -> Tensor:
        """
        Join the scores of a batch, float32 (B, H, W), with the past, and keep them.

        The frames are uint8 (B, 3, H, W), whose small grey pictures are copied to the host. What
        has no stamp in ns (None = it belongs to no sequence), the first frame of a camera, and one
        that is not later than the one before are returned as they are.
        """
        self.ways = [None] * len(score)
        if all(stamp is None for stamp in stamps):
            return score
        size = [max(side // SCALE, LEAST_SIDE) for side in score.shape[1:]]
        # Green is nearly all of the brightness; a third of the bytes are read.
        greys = F.interpolate(images[:, 1:2].float(), size, mode='area')
        pictures: Grey = greys[:, 0].round().to(torch.uint8).cpu().numpy()
        coarse = F.interpolate(score[:, None], size, mode='area')
        change = torch.zeros_like(coarse)
        for i, (stream, stamp) in enumerate(zip(streams, stamps, strict=True)):
            if stamp is None:
                self._past.pop(stream, None)
                continue
            past = self._past.get(stream)
            if past is not None and past.coarse.shape == coarse[i].shape:
                change[i], self.ways[i] = self._change(past, stamp, pictures[i], coarse[i])
            self._past[stream] = _Past(stamp, pictures[i], coarse[i] + change[i])
        if score.device.type != 'cpu':
            return score + resize(change, score.shape[1:])[:, 0]
        joined = score.clone()
        for one, part in zip(joined, change, strict=True):
            one += torch.from_numpy(cv2.resize(part[0].numpy(), score.shape[:0:-1]))
        return joined

    def _change(
        self, past: _Past, stamp: int, picture: Grey, coarse: Tensor
    ) -> tuple[Tensor, Way | None]:
        """Change (1, h, w) that the past makes to the coarse score (1, h, w), and the way."""
        age = (stamp - past.stamp) / 1e9
        weight = math.exp(-age / self.seconds) if age > 0 else 0.0
        if weight < FORGOTTEN:
            return torch.zeros_like(coarse), None
        way, _, followed = flow_between(picture, past.grey)
        height, width = picture.shape
        x, y = grid(height, width)
        places = x + way[..., 0], y + way[..., 1]
        before = cv2.remap(past.grey, *places, cv2.INTER_LINEAR)
        # In what has no pattern, and after a cut, the flow finds a way back from anywhere.
        alike = cv2.blur(cv2.absdiff(before, picture), (3, 3)) <= LIKENESS
        across = np.stack([(2 * places[0] + 1) / width - 1, (2 * places[1] + 1) / height - 1], -1)
        device = coarse.device
        where, trusted, flow = (
            torch.from_numpy(a).to(device) for a in (across, followed & alike, way)
        )
        moved = F.grid_sample(past.coarse[None], where[None], 'bilinear', 'border', False)[0]
        return weight * trusted * (moved - coarse), Way(flow.permute(2, 0, 1), age)

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past, or that of all."""
        if stream is None:
            self._past.clear()
        else:
            self._past.pop(stream, None)
