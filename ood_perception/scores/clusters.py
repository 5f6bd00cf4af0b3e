# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Cluster OoD: clusters of deep features, judged by how confident the segmentor is inside them.

After "Training-Free Out-of-Distribution Segmentation With Foundation Models" (Nayal et al., 2025):
K-means on backbone features, the raw maximum logit as confidence, clusters of low confidence are
unknown. The paper's number of clusters, stage and threshold are not public; here they are options
and the score is continuous. `streaming` keeps the clusters through time (ours); without it every
image is clustered anew (the paper).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ood_perception.clustering import StreamingKMeans
from ood_perception.frames.resize import resize, upsample
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, Size
from ood_perception.scores.logits import need
from ood_perception.scores.tokens import as_tokens, feature_grid


class ClusterScore(ScoreModule):
    """
    Minus a mix of the cluster's mean confidence and the pixel's own.

    Args:
        n_clusters: K.
        stages: feature maps that are clustered, the first gives the grid.
        weight: of the cluster's confidence, 0..1; the pixel's own gets the rest.
        streaming: clusters live through the stream; False fits every image anew.
        classes: number of leading logits that are real classes, 0 = all.
        max_tokens: bound of the clustered grid.
        memory: share of a cluster's past confidence in its present one, while streaming: what
            lies in a cluster changes slowly, sensor noise does not; 0 = only this frame counts.
        cut_ratio: of `StreamingKMeans`, near 1: an object that comes up is in none of the clusters
            of the past, and a few percent of mean distance are all that tells.
        options: keyword arguments of `StreamingKMeans`.

    Memory: that of `StreamingKMeans` and K float32 a stream.
    """

    needs_features = True

    def __init__(
        self,
        n_clusters: int = 24,
        stages: Sequence[int] = (-2,),
        weight: float = 0.8,
        streaming: bool = True,
        classes: int = 0,
        max_tokens: int = 4096,
        memory: float = 0.8,
        cut_ratio: float = 1.03,
        **options: object,
    ) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f'weight: expected 0..1, got {weight}')
        if not 0 <= memory < 1:
            raise ValueError(f'memory: expected 0 <= memory < 1, got {memory}')
        self.kmeans = StreamingKMeans(n_clusters, cut_ratio=cut_ratio, **options)  # type: ignore[arg-type]
        self.stages, self.weight, self.streaming = list(stages), weight, streaming
        self.classes, self.max_tokens, self.memory = classes, max_tokens, memory
        self._past: dict[str, Tensor] = {}

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch with `features` and `logits`: float32 (B, H, W), in logits."""
        logits = need(output.logits, 'clusters', 'class logits').float()
        logits = logits[:, : self.classes] if self.classes else logits
        confidence = torch.nan_to_num(logits.amax(1, keepdim=True))
        grid = feature_grid(output, self.stages, self.max_tokens, 'clusters')
        if not self.streaming:
            self.kmeans.reset()
        names = list(streams) or [str(i) for i in range(len(logits))]
        ids = self.kmeans.step(as_tokens(grid), names)
        coarse = resize(confidence, grid.shape[2:])
        means, counts = cluster_means(coarse.flatten(1), ids, self.kmeans.n_clusters)
        if self.streaming and self.memory:
            means = self._remember(means, counts, names)
        inside = means.gather(1, ids).view(coarse.shape)
        mixed = self.weight * upsample(inside, size)
        if self.weight < 1:
            mixed = mixed + (1 - self.weight) * upsample(confidence, size)
        return -mixed[:, 0]

    def _remember(self, means: Tensor, counts: Tensor, names: Sequence[str]) -> Tensor:
        """Mix confidences (B, K) with those of the streams' past, where the ids mean the same."""
        rows = []
        for mean, count, name in zip(means, counts, names, strict=True):
            past = self._past.get(name)
            if past is not None and past.device == mean.device and self.kmeans.age(name) > 1:
                mean = torch.where(count > 0, torch.lerp(mean, past, self.memory), past)
            rows.append(mean)
        known = {name: past for name, past in self._past.items() if self.kmeans.age(name)}
        self._past = {**known, **dict(zip(names, rows, strict=True))}
        return torch.stack(rows)

    def reset(self, stream: str | None = None) -> None:
        """Forget the clusters of one camera, or of all."""
        self.kmeans.reset(stream)
        if stream is None:
            self._past.clear()
        else:
            self._past.pop(stream, None)


def cluster_means(values: Tensor, ids: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Mean of float32 (B, N) values by cluster id, 0 without a token, and tokens: (B, K) each."""
    total = values.new_zeros(len(values), clusters).scatter_add_(1, ids, values)
    count = torch.zeros_like(total).scatter_add_(1, ids, torch.ones_like(values))
    return total / count.clamp_min(1), count
