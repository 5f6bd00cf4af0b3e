# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Rendered drives with exact labels."""

from __future__ import annotations

from ood_perception.simulation.proving_ground import CLASSES, ProvingGround, SimulatedFrame

__all__ = ['CLASSES', 'ProvingGround', 'SimulatedFrame']
