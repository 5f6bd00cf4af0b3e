# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Scores that compare features or logits with statistics of known data.

SML: Jung et al., "Standardized Max Logits", ICCV 2021. Mahalanobis: Lee et al., NeurIPS 2018,
class means with one shared covariance. k-NN: Sun et al., ICML 2022, on normalised features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.identity import check_model
from ood_perception.scores.likelihood_ratio import need, upsample
from ood_perception.scores.tokens import as_tokens, feature_grid

log = logging.getLogger(__name__)


class StandardizedMaxLogit(nn.Module):
    """
    Minus the maximum logit, standardised by the statistics of the class it belongs to.

    Args:
        means: mean of the maximum logit where it is class k, one number a class.
        stds: its standard deviation, one number a class.
        exact: True upsamples the logits first.

    Raises:
        ValueError: no statistics; fit them with :func:`fit_sml`.

    """

    needs_features = False
    means: Tensor
    stds: Tensor

    def __init__(
        self, means: Sequence[float] = (), stds: Sequence[float] = (), exact: bool = True
    ) -> None:
        super().__init__()
        if not means or len(means) != len(stds):
            raise ValueError(
                f'score sml: expected as many means as stds, one a class, got {len(means)} and '
                f'{len(stds)}; fit them with ood_perception.scores.features.fit_sml'
            )
        self.exact = exact
        self.register_buffer('means', torch.tensor(list(means), dtype=torch.float32))
        self.register_buffer('stds', torch.tensor(list(stds)).float().clamp_min(1e-6))

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch with `output.logits` (B, K, h, w): float32 (B, H, W), in deviations."""
        logits = need(output.logits, 'sml', 'class logits').float()
        if logits.shape[1] != len(self.means):
            raise ValueError(f'score sml: {len(self.means)} means for {logits.shape[1]} classes')
        best, classes = (upsample(logits, size) if self.exact else logits).max(1)
        score = (self.means[classes] - best) / self.stds[classes]
        return score if self.exact else upsample(score[:, None], size)[:, 0]

    def reset(self, stream: str | None = None) -> None:
        """Nothing lives through time."""


def fit_sml(outputs: Iterable[SegmentorOutput]) -> dict[str, list[float]]:
    """
    Fit the statistics of `StandardizedMaxLogit` in one pass over known data.

    Returns:
        'means' and 'stds' by class; a class that never wins gets those of all classes together.

    Raises:
        ValueError: nothing to fit on.

    """
    moments: Tensor | None = None
    for output in outputs:
        best, classes = need(output.logits, 'sml', 'class logits').double().max(1)
        number = output.logits.shape[1]  # type: ignore[union-attr]
        if moments is None:
            moments = torch.zeros(3, number, dtype=torch.float64, device=best.device)
        for row, value in enumerate((torch.ones_like(best), best, best.square())):
            moments[row].scatter_add_(0, classes.flatten(), value.flatten())
    if moments is None:
        raise ValueError('score sml: no output to fit the statistics on')
    moments = torch.where(moments[0] > 1, moments, moments.sum(1, keepdim=True))
    means = moments[1] / moments[0]
    stds = (moments[2] / moments[0] - means.square()).clamp_min(0).sqrt()
    return {'means': means.tolist(), 'stds': stds.tolist()}


class Mahalanobis(nn.Module):
    """
    Smallest squared Mahalanobis distance of a pixel's features to a class mean.

    Args:
        stages: feature maps, the first gives the grid.
        max_tokens: bound of the grid.
        weights: file with `means` (K, D) and `precision` (D, D), from :meth:`fit`.

    Attributes:
        model: identity of the model whose features come, '' = not known.
        made_with: identity of the model the statistics were fitted on, '' = not known.

    Memory: D * (D + K) float32.

    """

    needs_features = True

    def __init__(
        self, stages: Sequence[int] = (-2,), max_tokens: int = 4096, weights: str = ''
    ) -> None:
        super().__init__()
        self.stages, self.max_tokens = list(stages), max_tokens
        self.means: Tensor | None = None
        self.precision: Tensor | None = None
        self.model = self.made_with = ''
        self._warned = False
        if weights:
            self.made_with = read_origin(weights)
            state = read_statistics(weights, ('means', 'precision'), 'mahalanobis')
            self.means, self.precision = state['means'], state['precision']

    def identify(self, model: str) -> None:
        """Say which model's features come. Raises ValueError if the statistics are another's."""
        check_model('mahalanobis', self.made_with, model)
        self.model = model

    def fit(self, outputs: Iterable[SegmentorOutput], shrinkage: float = 1e-3) -> None:
        """
        Fit means (by predicted class) and the shared covariance in one pass.

        Args:
            outputs: of known data, with features and logits.
            shrinkage: share of the mean variance that is added to the diagonal.

        """
        total: Tensor | None = None
        for output in outputs:
            features = self._grid(output)
            tokens, (h, w) = as_tokens(features).double(), features.shape[2:]
            logits = need(output.logits, 'mahalanobis', 'class logits')
            grid = upsample(logits, (h, w)).argmax(1).flatten(1)
            number, width = logits.shape[1], tokens.shape[2]
            if total is None:
                total = tokens.new_zeros(number, width)
                count, outer = tokens.new_zeros(number), tokens.new_zeros(width, width)
            flat, classes = tokens.flatten(0, 1), grid.flatten()
            total.index_add_(0, classes, flat)
            count.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float64))
            outer += flat.T @ flat
        if total is None:
            raise ValueError('score mahalanobis: no output to fit the statistics on')
        seen = count > 0
        means = total[seen] / count[seen, None]
        covariance = (outer - (means * count[seen, None]).T @ means) / count.sum()
        covariance += (
            shrinkage
            * covariance.diagonal().mean()
            * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
        )
        self.means, self.precision = means.float(), torch.linalg.inv(covariance).float()
        self.made_with, self._warned = self.model, False

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """
        Score a batch: float32 (B, H, W), squared distance, higher = more unknown.

        0 everywhere, logged once, where the features have another width than the statistics.
        """
        if self.means is None or self.precision is None:
            raise ValueError('score mahalanobis: no statistics; call fit() or give weights')
        grid = self._grid(output)
        if grid.shape[1] != len(self.precision):
            if not self._warned:
                self._warned = True
                log.warning(
                    'score mahalanobis: statistics of %d features, the model gives %d; it was '
                    'fitted on another model, so the score is 0',
                    len(self.precision),
                    grid.shape[1],
                )
            return grid.new_zeros(len(grid), *size)
        tokens, precision = as_tokens(grid), self.precision.to(grid.device)
        means = self.means.to(grid.device)
        whitened = tokens @ precision
        distance = (whitened * tokens).sum(-1, keepdim=True) - 2 * whitened @ means.T
        distance = distance + ((means @ precision) * means).sum(-1)
        score = distance.amin(-1).clamp_min(0).view(len(grid), 1, *grid.shape[2:])
        return upsample(score, size)[:, 0]

    def save(self, path: str) -> None:
        """Write the statistics as safetensors."""
        from safetensors.torch import save_file

        if self.means is None or self.precision is None:
            raise ValueError('score mahalanobis: nothing to save; call fit() first')
        state = {'means': self.means, 'precision': self.precision}
        state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(state, path, metadata={'model': self.made_with})

    def reset(self, stream: str | None = None) -> None:
        """Nothing lives through time."""

    def _grid(self, output: SegmentorOutput) -> Tensor:
        return feature_grid(output, self.stages, self.max_tokens, 'mahalanobis')


def read_statistics(reference: str, keys: Sequence[str], score: str) -> dict[str, Tensor]:
    """Read tensors from a safetensors file. Raises ValueError naming what is missing."""
    from safetensors.torch import load_file

    from ood_perception.checkpoints.store import resolve

    path = resolve(reference)
    try:
        state = load_file(str(path))
    except Exception as error:
        raise ValueError(f'score {score}: {path} is no safetensors file: {error}') from error
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f'score {score}: {path} lacks {", ".join(missing)}')
    if not all(bool(torch.isfinite(state[key]).all()) for key in keys):
        raise ValueError(f'score {score}: {path} holds NaN or infinity')
    return state


def read_origin(reference: str) -> str:
    """Identity of the model that a readable file of statistics was made with, '' = not written."""
    from safetensors import safe_open

    from ood_perception.checkpoints.store import resolve

    try:
        with safe_open(str(resolve(reference)), 'pt') as file:
            return str((file.metadata() or {}).get('model', ''))
    except Exception:
        return ''  # `read_statistics` says what is wrong with the file
