# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a replay to a node yields: a bag of its outputs, and when each frame went and came."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LiveRun:
    """What a replay yielded."""

    bag: Path  # folder of the recorded bag
    frames_in: int  # images sent
    seconds: float  # from the first image sent to the last output received
    # stamp -> time in ns at which the frame's camera_info arrived at the recorder
    sent_ns: dict[int, int] = field(default_factory=dict)
    # stamp -> time in ns at which the frame's last output arrived
    received_ns: dict[int, int] = field(default_factory=dict)
    log: Path = Path()  # of the node
    engine: str = ''  # that ran, as the node's diagnostics say at the end; '' = they did not
    device: str = ''  # likewise
