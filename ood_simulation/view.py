# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Projection from the road to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ood_simulation.scene import Pose


@dataclass(frozen=True)
class View:
    """Projection from the road (s along, d across, height) to pixels."""

    pose: Pose
    focal: float
    camera_height: float
    centre: float
    horizon: float

    def bend(self, z: np.ndarray | float) -> np.ndarray:
        """Metres to the right that the road has bent away after z metres."""
        return 0.5 * self.pose.curvature * np.square(z) + self.pose.yaw * np.asarray(z)

    def row(self, z: np.ndarray | float, height: float = 0.0) -> np.ndarray:
        """Image row of a point `height` above the road, z metres ahead."""
        rise = 0.5 * self.pose.slope * np.square(z)
        return self.horizon + self.focal * (self.camera_height - rise - height) / np.asarray(z)

    def corner(self, z: float, d: float, height: float) -> tuple[float, float]:
        """Pixel (column, row) of a point."""
        return self._project(z, d, height)

    def place(self, s: float, d: float) -> tuple[float, float, float, float]:
        """Lateral and forward metres, column and row of a ground point."""
        z = max(s - self.pose.s, 0.5)
        x = d - self.pose.d + (0.5 * self.pose.curvature * (z * z) + self.pose.yaw * z)
        return x, z, *self._project(z, d, 0.0)

    def _project(self, z: float, d: float, height: float) -> tuple[float, float]:
        """As `bend` and `row`, without the cost of numpy for a single number."""
        pose = self.pose
        x = d - pose.d + (0.5 * pose.curvature * (z * z) + pose.yaw * z)
        rise = 0.5 * pose.slope * (z * z)
        return (
            self.centre + self.focal * x / z,
            self.horizon + self.focal * (self.camera_height - rise - height) / z,
        )
