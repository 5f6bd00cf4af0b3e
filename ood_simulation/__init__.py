# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The proving ground: rendered drives with unknown objects and exact labels.

It draws what `ood demo`, `ood drive`, `ood camera proving-ground` and the tests show to the node,
and what the shipped weights are trained on. It needs numpy and OpenCV and knows nothing of
ood_perception; every frame is a function of its seed and its number.
"""

from __future__ import annotations

from ood_simulation.proving_ground import CLASSES, ProvingGround, SimulatedFrame

__all__ = ['CLASSES', 'ProvingGround', 'SimulatedFrame']
