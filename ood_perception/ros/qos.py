# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Quality of service by name, as parameters and commands give it, and in words for people."""

from __future__ import annotations

import copy

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_system_default,
)


def make(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    """Make a profile that keeps the last `depth` messages."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


PROFILES: dict[str, QoSProfile] = {
    'latest': make(reliable=False, depth=1),  # for cameras
    'best_effort': make(reliable=False, depth=5),
    'reliable': make(reliable=True, depth=5),
    'sensor_data': make(reliable=False, depth=5),
    'system_default': qos_profile_system_default,
    'latched': make(reliable=True, depth=1, latched=True),
    'default': make(reliable=True, depth=10),
}


def profile(name: str, depth: int | None = None) -> QoSProfile:
    """
    QoS profile of a name.

    Args:
        depth: number of messages kept, None for the profile's own.

    Raises:
        ValueError: unknown name, or a depth below 1.
    """
    if name not in PROFILES:
        raise ValueError(f'qos: expected one of {", ".join(PROFILES)}, got {name!r}')
    if depth is not None and depth < 1:
        raise ValueError(f'qos depth: expected 1 or more, got {depth}')
    made = copy.copy(PROFILES[name])
    if depth is not None:
        made.depth = depth
    return made


def describe(qos: QoSProfile) -> str:
    """Say a profile in words, for example ``best effort, volatile, depth 1``."""
    words = [kind.name.lower().replace('_', ' ') for kind in (qos.reliability, qos.durability)]
    if qos.history == HistoryPolicy.KEEP_ALL:
        words.append('keep all')
    elif qos.depth:
        words.append(f'depth {qos.depth}')
    return ', '.join(words)
