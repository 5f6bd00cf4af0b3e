# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What an evaluation must reach: ``ap=0.9`` at least, ``alarms_per_minute=1`` at most."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

AT_LEAST = (
    'frames', 'labelled', 'fps', 'ap', 'auroc', 'best_f1', 'siou', 'ppv', 'f1_star',
    'instance_f1', 'instance_precision', 'instance_recall', 'instance_mean_iou',
    'instance_recall_small', 'instance_recall_large', 'instance_ap50', 'instance_ap',
)  # fmt: skip
"""Figures of which more is better,"""

AT_MOST = (
    'dropped', 'fpr95', 'ece', 'mce', 'brier', 'false_alarms', 'alarms_per_minute', 'flicker',
    'track_switches', 'switches_per_object', 'delay_frames', 'delay_s', 'delay_s_max',
    'never_found', 'latency_ms_p50', 'latency_ms_p95', 'latency_ms_p99',
)  # fmt: skip
"""and of which less is."""


def parse_requirements(texts: Sequence[str]) -> dict[str, float]:
    """
    Read ``NAME=NUMBER`` texts.

    Raises:
        ValueError: not of that form, or no such figure; names the nearest one.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition('=')
        name = name.strip()
        if name not in AT_LEAST + AT_MOST:
            near = difflib.get_close_matches(name, AT_LEAST + AT_MOST, 1, 0.3)
            hint = (
                f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(AT_LEAST + AT_MOST)
            )
            raise ValueError(f'no figure is named {name!r}; {hint}')
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f'expected NAME=NUMBER such as ap=0.9, got {text!r}') from None
    return found


def missed(summary: Mapping[str, Any], required: Mapping[str, float]) -> list[str]:
    """Say of each requirement that a summary does not meet what it is and what was measured."""
    lines = []
    for name, limit in required.items():
        value, least = summary.get(name), name in AT_LEAST
        if value is None:
            lines.append(f'{name}: not measured (are there labels for it?)')
        elif not (value >= limit if least else value <= limit):
            lines.append(f'{name}: {value:.4g}, required {">=" if least else "<="} {limit:g}')
    return lines
