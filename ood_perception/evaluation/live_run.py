# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a replay over DDS yielded, for :func:`ood_perception.evaluation.replay.evaluate_live`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LiveRun:
    """
    What a replay yielded.

    Attributes:
        bag: folder of the recorded bag.
        frames_in: images sent.
        seconds: from the first image sent to the last output received.
        sent_ns: stamp -> time in ns at which the frame's camera_info arrived at the recorder.
        received_ns: stamp -> time in ns at which the frame's last output arrived.
        log: of the node.
        engine: that ran, as the node's diagnostics say at the end; '' = they did not.
        device: likewise.

    """

    bag: Path
    frames_in: int
    seconds: float
    sent_ns: dict[int, int] = field(default_factory=dict)
    received_ns: dict[int, int] = field(default_factory=dict)
    log: Path = Path()
    engine: str = ''
    device: str = ''
