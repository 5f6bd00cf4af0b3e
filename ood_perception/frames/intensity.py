# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Images of more than 8 bits (infrared, thermal, raw sensors) to 8 bits, steadily over a stream.

The range in use is estimated from percentiles, so that a hot or dead pixel does not matter. A
picture that reaches down to black uses 8 to 16 bits of an integer type (or 0..1 of a float type):
that range is mapped. One far from black (thermal counts, kelvins) is stretched between them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Warn = Callable[[str], None] | None  # is told what was odd about an image that can still be used
DEPTHS = tuple(2.0**bits - 1 for bits in range(8, 17))  # largest values of 8 to 16 bits
SAMPLES = 50_000  # values of a frame from which percentiles are taken, at most
OUTLIERS = 1.0  # per cent of the values at each end that may be faulty pixels
NARROWEST = 8.0  # counts: noise of a uniform scene is not stretched to full contrast
HELD = 0.25  # part of the range in use by which a new frame may leave it, or fall short, unnoticed
STEP = 0.1  # part of the difference by which a range that no longer fits moves with each frame


class Intensity:
    """
    Mapping of one stream's values to 0..255; it remembers the range (low, high) that it uses.

    `fixed` are two finite numbers, low < high (otherwise ValueError), that are mapped to 0 and 255
    whatever comes; None estimates the range.
    """

    def __init__(self, fixed: tuple[float, float] | None = None) -> None:
        if fixed is not None:
            low, high = fixed = float(fixed[0]), float(fixed[1])
            if not -math.inf < low < high < math.inf:
                raise ValueError(f'intensity_range: expected low < high, got {low:g}, {high:g}')
        self.fixed = fixed
        self.range: tuple[float, float] | None = fixed
        self._kind: tuple[Any, ...] = ()  # of the images that the range was estimated from

    def __call__(
        self, values: NDArray[Any], name: str = 'image', warn: Warn = None
    ) -> NDArray[np.uint8]:
        """
        Map an image, (H, W) or (H, W, 3) of any type but uint8, to 8 bits of the same shape.

        The channels of a colour image share one range that begins at 0. A float image without one
        finite value is a ValueError. `warn` is told which range is used, and when it has to jump.
        """
        if values.dtype.kind == 'f':
            values = _finite(values, name, warn)
        if self.fixed is None:
            kind = name, values.dtype, values.ndim
            if kind != self._kind:  # a camera that now sends another type: 0..65535 of it is over
                self.range, self._kind = None, kind
            self._follow(values, name, warn)
        assert self.range is not None
        if values.dtype == np.uint16:
            return np.asarray(_table(*self.range)[values])
        return _scaled(values, *self.range)

    def _follow(self, values: NDArray[Any], name: str, warn: Warn) -> None:
        low, high, kind = estimate(values)
        if self.range is None or self._is_far(values, low, high):
            self.range = low, high
            if warn is not None and kind:
                warn(_text(name, values.dtype, low, high, kind))
            return
        old_low, old_high = self.range
        slack = HELD * (old_high - old_low)
        fits = (
            abs(low - old_low) <= slack
            and high <= old_high + slack
            and high - low >= (1 - 2 * HELD) * (old_high - old_low)
        )
        # Of a camera whose depth is known a dark or pale frame is dark or pale; the depth stays.
        meant = low < 0.1 * old_high or high - low > old_high / 16
        if not fits and not (old_low == 0 and high <= old_high and meant):
            self.range = old_low + STEP * (low - old_low), old_high + STEP * (high - old_high)

    def _is_far(self, values: NDArray[Any], low: float, high: float) -> bool:
        """Whether most pixels lie outside the range in use, or it is far too wide for them."""
        assert self.range is not None
        old_low, old_high = self.range
        sample = _sample(values)
        inside = float(np.mean((sample >= old_low) & (sample <= old_high)))
        return inside < 0.5 or (old_low != 0 and old_high - old_low > 8 * (high - low))


def estimate(values: NDArray[Any]) -> tuple[float, float, str]:
    """
    Range that an image of finite values, (H, W) or (H, W, 3), uses: low, high and how.

    That is '' = the whole type, 'depth' = the camera's bits, or 'stretched' = percentiles.
    """
    whole = 65535.0 if values.dtype == np.uint16 else 0.0
    sample = _sample(values)
    if values.dtype.kind == 'u':
        # 0 and the largest value often mean 'no value'.
        inner = sample[(sample > 0) & (sample < np.iinfo(values.dtype).max)]
        if inner.size == 0:
            top = float(sample.max(initial=0))
            return 0.0, next((d for d in DEPTHS if top <= d), top), ''
        sample = inner
    low, high = (float(v) for v in np.percentile(sample, (OUTLIERS, 100 - OUTLIERS)))
    is_float = values.dtype.kind == 'f'
    if is_float and low >= 0 and high <= 1:
        return 0.0, 1.0, ''
    colour = values.ndim == 3
    reaches_black = 0 <= low < 0.1 * high or (colour and low >= 0)
    if reaches_black and high >= 32:
        # A bright pixel above the percentile must not be cut where it hints at the depth.
        depth = next((d for d in DEPTHS if high <= d), None)
        if depth is not None:
            return 0.0, depth, '' if depth == whole or (is_float and depth == 255) else 'depth'
    if colour:
        return min(low, 0.0), max(high, NARROWEST), 'stretched'
    narrowest = 1e-6 * max(abs(low), abs(high), 1e-30) if is_float else NARROWEST
    if high - low < narrowest:
        middle = (low + high) / 2
        low, high = middle - narrowest / 2, middle + narrowest / 2
    return low, high, 'stretched'


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """Evenly chosen values of an image, (n,)."""
    step = max(1, math.isqrt(values.size // SAMPLES))
    return values[::step, ::step].ravel()


def _finite(values: NDArray[Any], name: str, warn: Warn) -> NDArray[Any]:
    finite = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(finite))
    if bad == values.size:
        raise ValueError(f'{name} image without one finite value')
    if not bad:
        return values
    if warn is not None:
        warn(f'{bad} of {values.size} values of a {name} image are NaN or infinite')
    return np.where(finite, values, values[finite].min())


@functools.lru_cache(maxsize=16)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    """Value of each of 65536 counts; whole depths keep their upper bits, as cameras do."""
    counts = np.arange(65536)
    if low == 0 and high in DEPTHS:
        return (np.minimum(counts, int(high)) * 256 // (int(high) + 1)).astype(np.uint8)
    return _scaled(counts, low, high)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    # In float64, since values and range may be as large as the type allows.
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low)) + 0.5
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _text(name: str, dtype: Any, low: float, high: float, kind: str) -> str:
    how = 'its bits in use' if kind == 'depth' else 'stretched'
    whole = f' of 0..{np.iinfo(dtype).max}' if dtype.kind == 'u' else ''
    return (
        f'{name}: {low:.6g}..{high:.6g}{whole} is shown as 0..255 ({how}); '
        'set intensity_range to fix the range'
    )
