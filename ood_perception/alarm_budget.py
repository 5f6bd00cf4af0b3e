# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Alarm budget: the detection threshold at which normal operation keeps to so many alarms an hour.

An alarm is an object that is new and reaches the threshold in `LOOKS` looks in a row. Time is cut
into blocks of `BLOCK` seconds; what begins in one block is one alarm, as it interrupts once. From
normal operation a block leaves one number, its *peak*: the highest confidence that was held for
`LOOKS` looks, so that the block has an alarm at every threshold up to it.

The threshold is then a quantile of the peaks (conformal risk control, Angelopoulos et al., ICLR
2024, with the loss 'this block has an alarm'): if the blocks to come are exchangeable with the n
blocks seen, and k of those have an alarm, the next one has with a probability of at most
(k + 1) / (n + 1). A budget of one alarm in T hours can so be promised after T hours and not
earlier. Before, the tail of the peaks is extended, which is an estimate and said to be one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 5.0  # seconds of a block
LOOKS = 3  # looks in a row that make an alarm
GAP = 1.0  # seconds without a look that count as watched at most
KEPT = 20_000  # blocks kept, the newest: 28 hours
TAIL = 5  # least number of peaks from which a tail can be told


class Peaks:
    """Peaks of the blocks of an operation."""

    def __init__(self) -> None:
        # of each block, 0..1, the last one not over yet; 0 = nothing was held
        self.values: list[float] = []
        self.watched = 0.0  # seconds in which there were looks
        self._dropped = 0
        self._last = math.nan
        self._runs: dict[str, dict[int, tuple[int, tuple[float, ...]]]] = {}

    def look(
        self, stream: str, seconds: float, ids: Iterable[Any], confidences: Iterable[Any]
    ) -> None:
        """
        Note the objects of a frame of a camera, those below the present threshold too.

        The seconds are of any clock that all cameras share; ids last from frame to frame;
        confidences are 0..1.
        """
        step = seconds - self._last
        self._last = seconds
        self.watched += min(step, GAP) if step > 0 else 0.0  # nan at the first look
        block = int(self.watched / BLOCK)
        self.values += [0.0] * (block + 1 - self._dropped - len(self.values))
        if (extra := len(self.values) - KEPT) > 0:
            del self.values[:extra]
            self._dropped += extra
        before, now = self._runs.get(stream, {}), {}
        for number, confidence in zip(ids, confidences, strict=True):
            began, held = before.get(int(number), (block, ()))
            held = (*held, float(confidence))[-LOOKS:]
            now[int(number)] = (began, held)
            place = began - self._dropped
            if len(held) == LOOKS and place >= 0:
                self.values[place] = max(self.values[place], min(held))
        self._runs[stream] = now

    def finished(self) -> list[float]:
        """Peaks of the blocks that were watched to their end."""
        return self.values[:-1]

    def save(self, path: Path, model: str) -> None:
        """Write the peaks as JSON; `model` names what they were measured with."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + '.part')
        values = [round(value, 6) for value in self.finished()]
        part.write_text(json.dumps({'block': BLOCK, 'model': model, 'peaks': values}))
        part.replace(path)


def load(path: Path, model: str) -> list[float]:
    """Read the peaks that :meth:`Peaks.save` wrote; ValueError: damaged, or of another model."""
    try:
        tree = json.loads(path.read_text())
        peaks = [float(value) for value in tree['peaks']]
        made_with, block = str(tree['model']), float(tree['block'])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: no peaks of alarms: {error!r}') from None
    if made_with != model or block != BLOCK or not all(0 <= value <= 1 for value in peaks):
        raise ValueError(
            f'{path}: measured with {made_with!r} in blocks of {block:g} s, this is {model!r} '
            f'with {BLOCK:g} s; measure anew'
        )
    return peaks


@dataclass(frozen=True)
class Verdict:
    """What a budget leads to."""

    threshold: float  # confidence from which an object is published, 0..1; above 1 nothing is
    promised: bool  # whether the budget is promised, see the module; otherwise estimated
    text: str  # what was found, and how much more normal operation would be needed


def threshold_for(peaks: Sequence[float], per_hour: float, least: float = 0.5) -> Verdict:
    """
    Find the lowest threshold that keeps to a budget of alarms an hour, above 0 (ValueError).

    The peaks are of finished blocks of normal operation, 0..1; a threshold that is only estimated
    is not below `least`.
    """
    if not per_hour > 0:
        raise ValueError(f'alarms per hour: expected more than 0, got {per_hour}')
    n = len(peaks)
    share = per_hour * BLOCK / 3600
    ordered = np.sort(np.asarray(peaks, np.float64))[::-1]
    seen = f'{n * BLOCK / 60:.3g} minutes of normal operation'
    allowed = math.floor(share * (n + 1) + 1e-9) - 1
    if allowed >= 0:
        # So that the block of this peak, which is one too many, has no alarm.
        threshold = _above(ordered[allowed]) if allowed < n else 0.0
        text = f'{per_hour:g} alarms an hour are promised after {seen}'
        return Verdict(threshold, True, text + _silent(threshold))
    needed = math.ceil(1 / share - 1e-9) - 1
    threshold = max(least, _above(ordered[0]) if n else 0.0, _tail(ordered, share))
    tightest = 3600 / (BLOCK * (n + 1))
    text = (
        f'{per_hour:g} alarms an hour are estimated, not promised: {seen} can promise '
        f'{tightest:.3g}; it takes {needed * BLOCK / 60:.3g} minutes'
    )
    return Verdict(threshold, False, text + _silent(threshold))


def exceeds(alarms: int, hours: float, per_hour: float) -> bool:
    """Whether so many alarms break a budget: by chance (Poisson) they come in 1 of 100 cases."""
    expected = hours * per_hour
    if not alarms or not expected:
        return False
    log = math.log(expected)
    fewer = sum(math.exp(k * log - expected - math.lgamma(k + 1)) for k in range(alarms))
    return 1 - fewer < 0.01


def _above(value: float) -> float:
    """Least confidence, float32 as confidences are, above one that was kept to six digits."""
    return float(np.nextafter(np.float32(value + 5e-7), np.float32(2)))


def _tail(ordered: np.ndarray, share: float) -> float:
    """
    Threshold that a share of the blocks reaches, told from the upper half of fewer than that.

    Above their median the log-odds of the peaks are taken as exponential, the tail of most
    distributions; as its scale is known from k peaks only, what comes is Lomax distributed:
    P(excess > x) = (1 + x / (k scale)) ^ -k.
    """
    positive = ordered[ordered > 0]
    if len(positive) <= TAIL:
        return 0.0
    odds = np.clip(positive, 1e-6, 1 - 1e-6)
    odds = np.log(odds / (1 - odds))
    start = max(float(np.median(odds)), float(odds[-1]))
    excess = odds[odds > start] - start
    k = len(excess)
    if k < TAIL:
        return 0.0
    reach = k * excess.mean() * ((k / len(ordered) / share) ** (1 / k) - 1)
    return float(1 / (1 + math.exp(-(start + max(reach, 0.0)))))


def _silent(threshold: float) -> str:
    return '; at that nothing is published any more' if threshold > 1 else ''
