# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The camera: lens blur, motion blur, vignetting, exposure, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np

from ood_simulation.scene import Pose
from ood_simulation.scene_style import SceneStyle


class Optics:
    """
    Turn a clean rendering into a camera's frame.

    Args:
        seed: of the drive.
        width: of the frame.
        height: of the frame.
        style: of the drive.

    """

    def __init__(self, seed: int, width: int, height: int, style: SceneStyle) -> None:
        self.seed, self.style = seed, style
        rng = np.random.default_rng([seed, 10])
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        fall = 1 - style.vignette * (x * x + y * y) / 2
        self.gain = np.clip(fall[..., None] * style.tint * 200, 0, 255).astype(np.uint8)
        grain = rng.normal(0, style.noise, (height + 64, width + 64, 3)).astype(np.float32)
        grain = grain + cv2.GaussianBlur(grain, (0, 0), 1.0) * rng.uniform(0, 2)
        self.grain = np.round(grain).astype(np.int16)
        level = np.arange(256) / 255.0
        curve = 0.5 + (level - 0.5) * style.contrast + rng.uniform(-0.04, 0.06)
        self.curve = np.clip(curve * 255, 0, 255).astype(np.uint8)
        rows = np.linspace(-1, 1, height)
        self.low = int(np.flatnonzero(rows > rng.uniform(0.2, 0.5))[0])

    def __call__(self, image: np.ndarray, index: int, pose: Pose) -> np.ndarray:
        """
        Photograph a rendering.

        Args:
            image: uint8 (H, W, 3) RGB, may be overwritten.
            index: frame number, decides the noise.
            pose: the camera's, for motion blur and exposure.

        """
        rng = np.random.default_rng([self.seed, 11, index])
        style = self.style
        if style.blur > 0.3:
            image = cv2.GaussianBlur(image, (5, 5) if style.blur > 0.6 else (3, 3), style.blur)
        smear = int(pose.speed * 0.012 * image.shape[0] / 30)
        if smear > 1:
            image[self.low :] = cv2.blur(image[self.low :], (1, min(smear, 7)))
        cv2.multiply(image, self.gain, dst=image, scale=pose.exposure / 200)
        image = cv2.LUT(image, self.curve)
        y, x = rng.integers(0, 64, 2)
        grain = self.grain[y : y + image.shape[0], x : x + image.shape[1]]
        image = cv2.add(image, grain, dtype=cv2.CV_8U)
        if style.jpeg:
            data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, style.jpeg])[1]
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return np.ascontiguousarray(image)
