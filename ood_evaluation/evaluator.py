# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Evaluator: frames in, one evaluation out; never stopped by a bad frame, mergeable across machines.

    evaluator = Evaluator('compact')
    for frame in frames:
        evaluator.update(frame)
    evaluation = evaluator.compute()
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.breakdown import Breakdown
from ood_evaluation.calibration_metrics import CalibrationMetrics
from ood_evaluation.component_metrics import ComponentMetrics
from ood_evaluation.curves import Curve, curve_of
from ood_evaluation.frame import Frame, leave_out
from ood_evaluation.instance_metrics import InstanceMetrics
from ood_evaluation.pixel_metrics import InputError, PixelMetrics, valid_pixels
from ood_evaluation.time_metrics import Alarms, TimeMetrics
from ood_perception.frames.zones import named

PICTURES = 6
"""Frames of each end (best and worst) that the report shows."""

SMALLEST = 50
"""Pixels of the frame below which a true object is no miss, the rule of the obstacle benchmark."""


@dataclass
class Evaluation:
    """One evaluated run."""

    name: str  # of the run
    # figures by name; fractions 0..1, undefined ones None; can be written as JSON
    summary: dict[str, Any]
    curve: Curve | None = None  # precision-recall and ROC, or None without labels
    # mean probability, share of unknown pixels, pixels of each calibration bin
    reliability: tuple[Any, Any, Any] | None = None
    # rows of (condition, figures)
    breakdown: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    # (caption, RGB panel) of the best and the worst frames
    pictures: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)  # of all frames that have one
    # what was wrong with the input, and how often
    problems: dict[str, int] = field(default_factory=dict)


class Evaluator:
    """
    Collects mergeable statistics of frames.

    Args:
        mode: of the `PixelMetrics`; 'streaming' needs the least memory.
        track: 'anomaly' or 'obstacle' for component metrics, '' for none.
        pictures: frames to show of each end; 0 = none.
        zones: parts of the images that do not count, as in `frames.zones`.
        smallest: pixels of the frame below which a true object is no miss.

    Attributes:
        problems: what was wrong with the input, and how often.
    """

    def __init__(
        self,
        name: str,
        mode: str = 'streaming',
        track: str = '',
        pictures: int = PICTURES,
        zones: Sequence[str] = (),
        smallest: int = SMALLEST,
    ) -> None:
        self.name, self.mode, self.pictures = name, mode, pictures
        self.smallest = smallest
        self.zones = named(zones)
        self.pixels = PixelMetrics(mode)
        self.components = ComponentMetrics(track) if track else None
        self.instances = InstanceMetrics(smallest)
        self.time = TimeMetrics()
        self.alarms = Alarms()
        self.calibration = CalibrationMetrics()
        self.parts = Breakdown(mode, smallest)
        self.problems: Counter[str] = Counter()
        self.frames = self.labelled = self.compared = self.alarmed = 0
        self.latencies_ms: list[float] = []
        # (value, stream, stamp) -> what the value is, and the picture
        self._shown: dict[tuple[float, str, int], tuple[str, NDArray[np.uint8]]] = {}

    def update(self, frame: Frame) -> None:
        """Add a frame; what is wrong with it is counted in `problems` and left out."""
        self.frames += 1
        if self.zones:
            leave_out(frame, self.zones)
        if math.isfinite(frame.latency_ms):
            self.latencies_ms.append(frame.latency_ms)
        score = frame.heatmap if frame.score is None else frame.score
        value, meaning = None, ''
        if score is None:
            self.problems['frames without score and heatmap'] += 1
        elif frame.anomaly is not None:
            value = self._attempt(lambda: self._pixels(score, frame))
            meaning = 'AP'
        else:
            # The share of pixels that are taken for unknown; without a heatmap, the mean score.
            share = np.nanmean(score) if frame.heatmap is None else np.mean(frame.heatmap >= 128)
            value, meaning = float(share), 'unknown'
        if frame.anomaly is not None and frame.instances is not None:
            self._attempt(lambda: self._alarms(frame))
        truths: list[int] = []
        matched: list[tuple[int, int]] = []
        if frame.truth is not None:
            ids, sizes = np.unique(frame.truth[frame.truth > 0], return_counts=True)
            truths = ids[sizes >= self.smallest].tolist()
            if frame.instances is not None:
                matched = self._attempt(lambda: self._instances(frame)) or []
        self.time.update(frame.stamp_ns, frame.heatmap, truths, matched, frame.stream)
        if value is not None and self.pictures and frame.image is not None:
            self._show(value, meaning, frame)

    def _attempt(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except InputError as error:
            self.problems[str(error)] += 1
            return None

    def _pixels(self, score: Any, frame: Frame) -> float | None:
        label = frame.anomaly
        self.pixels.update(score, label)
        self.labelled += 1
        if self.components is not None:
            self.components.update(score, label)
        if frame.heatmap is not None:
            self._attempt(lambda: self.calibration.update(frame.heatmap, label))
        self.parts.add_pixels(score, label, frame)
        if not self.pictures:
            return None
        # Every fourth pixel is enough to choose pictures by.
        thin, unknown, _ = valid_pixels(np.asarray(score)[::2, ::2], np.asarray(label)[::2, ::2])
        return curve_of(thin, unknown, ~unknown).figures()['ap'] if unknown.any() else None

    def _alarms(self, frame: Any) -> None:
        self.alarms.update(frame.stamp_ns, frame.instances, frame.anomaly, frame.stream)
        self.alarmed += 1

    def _instances(self, frame: Any) -> list[tuple[int, int]]:
        pairs = self.instances.update(
            frame.instances, frame.truth, frame.anomaly, frame.confidences
        )
        self.compared += 1
        self.parts.add_objects(frame, {truth for _, truth in pairs})
        return pairs

    def _show(self, value: float, meaning: str, frame: Frame) -> None:
        """Keep the picture if it is among the best or the worst so far."""
        from ood_evaluation.pictures import panel

        key = (value, frame.stream, frame.stamp_ns)
        ends = self._ends([*self._shown, key])
        if key not in ends:
            return
        try:
            self._shown[key] = meaning, panel(frame)
        except ValueError as error:
            self.problems[f'picture: {error}'] += 1
            return
        self._shown = {end: self._shown[end] for end in ends}

    def _ends(self, keys: Iterable[tuple[float, str, int]]) -> list[tuple[float, str, int]]:
        """Keys of the worst and the best frames, ascending; without labels the most unknown."""
        ordered, most = sorted(keys), self.pictures
        if len(ordered) <= 2 * most:
            return ordered
        return ordered[:most] + ordered[-most:] if self.labelled else ordered[-2 * most :]

    def merge(self, other: Evaluator) -> Evaluator:
        """Add what another has collected from other streams; returns self."""
        for name in ('pixels', 'instances', 'time', 'alarms', 'calibration', 'parts'):
            getattr(self, name).merge(getattr(other, name))
        if self.components is not None and other.components is not None:
            self.components.merge(other.components)
        for name in ('frames', 'labelled', 'compared', 'alarmed'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems.update(other.problems)
        self.latencies_ms += other.latencies_ms
        both = self._shown | other._shown
        self._shown = {key: both[key] for key in self._ends(both)}
        return self

    def compute(self, **more: Any) -> Evaluation:
        """Evaluation so far; `more` goes first into the summary."""
        summary: dict[str, Any] = {**more, 'frames': self.frames, 'labelled': self.labelled}
        if self.labelled:
            figures: dict[str, Any] = self.pixels.compute()
            del figures['frames']
            if not figures['positives']:  # nothing unknown in any label: nothing to be found
                undefined = ('ap', 'fpr95', 'auroc', 'f1_star', 'best_f1')
                figures |= {name: None for name in undefined if name in figures}
            summary |= figures | self.calibration.compute()
            summary['mode'] = self.mode
        if self.labelled and self.components is not None:
            figures = self.components.compute()
            summary |= {name: figures[name] for name in ('siou', 'ppv', 'f1_star')}
        if self.compared:
            figures = self.instances.compute()
            summary |= {f'instance_{name}': value for name, value in figures.items()}
            summary['smallest_truth'] = self.smallest
        if self.alarmed:
            summary |= self.alarms.compute()
        timing = self.time.compute()
        names = list(timing) if self.compared else ['flicker']
        summary |= {name: timing[name] for name in names}
        if self.latencies_ms:
            p50, p95, p99 = np.percentile(self.latencies_ms, [50, 95, 99])
            summary |= {'latency_ms_p50': p50, 'latency_ms_p95': p95, 'latency_ms_p99': p99}
        return Evaluation(
            self.name,
            {name: plain(value) for name, value in summary.items()},
            self.pixels.curves() if self.labelled else None,
            self.calibration.reliability() if self.calibration.counts.any() else None,
            [
                (name, {key: plain(value) for key, value in figures.items()})
                for name, figures in self.parts.rows()
            ],
            self._pictures(),
            sorted(self.latencies_ms),
            dict(sorted(self.problems.items())),
        )

    def _pictures(self) -> list[tuple[str, NDArray[np.uint8]]]:
        best = min(self.pictures, (len(self._shown) + 1) // 2)
        shown = []
        for number, (key, (meaning, picture)) in enumerate(reversed(self._shown.items())):
            value, stream, stamp = key
            kind = 'most unknown'
            if meaning == 'AP':
                kind = 'best' if number < best else 'worst'
            where = f'{stream} ' if stream else ''
            text = f'{kind}: {where}{stamp / 1e9:.3f} s, {meaning} {value:.3f}'
            shown.append((text, picture))
        return shown


def plain(value: Any) -> Any:
    """Value as JSON has it: numpy numbers as Python's, what is not finite as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
