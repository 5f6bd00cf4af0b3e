# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a score is: the base class of all, and what they share."""

from __future__ import annotations

from torch import nn

from ood_perception.frames.resize import upsample as upsample  # what most scores end with

Size = tuple[int, int]  # (H, W) in pixels


class ScoreModule(nn.Module):
    """
    Base class of scores: reads no features, learns nothing, remembers nothing.

    A subclass overrides what is different about it, and writes ``forward(output, size, streams)``,
    which scores a batch of B frames: float32 (B, H, W), higher = more unknown, at `size` = (H, W)
    in pixels. `streams` names each frame's camera, for scores that live through time. ValueError:
    the segmentor's `output` lacks what the score reads.
    """

    needs_features = False  # whether it reads `SegmentorOutput.features`, which cost time
    learns = False  # whether it learns what is normal on site, as `novelty.NoveltyScore` does

    def identify(self, model: str) -> None:
        """Tell which model feeds it, see `building.model_identity`; ValueError: not its own."""

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past, or that of all."""
