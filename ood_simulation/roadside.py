# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What lines the road: buildings and fences, drawn as textured quadrilaterals."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ood_simulation import backdrop
from ood_simulation.painter import Canvas
from ood_simulation.scene import FAR, House, Scene
from ood_simulation.view import View
from ood_simulation.vocabulary import BUILDING

NEAR = 2.5
"""Metres in front of the camera at which buildings and fences are cut off."""


class Roadside:
    """
    Buildings and fences of a drive.

    Args:
        scene: where they stand.
        haze: (3,) colour of far things, 0..255.
        barrier: texture, transparency, class id and height of the drive's fences.

    """

    def __init__(
        self,
        scene: Scene,
        haze: np.ndarray,
        barrier: tuple[np.ndarray, np.ndarray, int, float],
    ) -> None:
        self.scene, self.haze, self.barrier = scene, haze, barrier
        self.seed, self.style = scene.seed, scene.style
        self._faces: dict[tuple, tuple[np.ndarray, float]] = {}
        self._tones: dict[tuple, np.ndarray] = {}
        self._fenced = lru_cache(maxsize=256)(self._has_fence)

    def face(self, variant: int, face: str, level: int, fog: int) -> tuple[np.ndarray, float]:
        """Texture and height in metres of a building's face, at half size `level` times."""
        key = (variant, face, level, fog)
        if key in self._faces:
            return self._faces[key]
        if level or fog:
            image, height = self.face(variant, face, 0, 0)
            for _ in range(level):
                image = cv2.resize(
                    image,
                    (max(2, image.shape[1] // 2), max(2, image.shape[0] // 2)),
                    interpolation=cv2.INTER_AREA,
                )
            if fog:
                haze = np.broadcast_to(self.haze.astype(np.uint8), image.shape)
                image = cv2.addWeighted(image, 1 - fog / 10, haze, fog / 10, 0)
        else:
            rng = np.random.default_rng([self.seed, 8, variant])
            sun = self.style.light.direction
            facing = max(0.0, float(-sun[1] if face == 'front' else abs(sun[0]) * 0.6))
            storeys = {
                'urban': (2, 7),
                'suburban': (1, 4),
                'rural': (1, 3),
                'highway': (2, 9),
                'industrial': (1, 4),
            }[self.style.place]
            count = int(rng.integers(*storeys))
            tile = backdrop.facade(rng, self.style, facing)
            upper, ground = tile[:192], tile[192:]
            stack = np.vstack([upper] * (1 + (count - 1) // 3) + [ground])[-64 * count :]
            image, height = np.hstack([stack, stack]), 3.1 * count
        self._faces[key] = image, height
        return self._faces[key]

    def _tone(self, variant: int, level: int, fog: int) -> np.ndarray:
        """Mean colour of a side."""
        key = (variant, level, fog)
        if key not in self._tones:
            texture = self.face(variant, 'side', level, fog)[0]
            self._tones[key] = np.asarray(cv2.mean(texture)[:3])
        return self._tones[key]

    def draw_house(self, canvas: Canvas, view: View, house: House) -> None:
        """Draw a building's front, roof and side."""
        pose = view.pose
        far, start = house.start + house.length - pose.s, house.start - pose.s
        near = max(start, NEAR)
        if far < NEAR + 1 or near > FAR:
            return
        fog = int(np.rint((1 - np.exp(-(near + far) / 2 / self.style.visibility)) * 10))
        height = self.face(house.variant, 'side', 0, 0)[1]
        ends = [
            view.corner(z, house.face, h)
            for z, h in ((near, height), (far, height), (far, 0.0), (near, 0.0))
        ]
        corners = np.array(ends)
        side_px = abs(corners[1, 0] - corners[0, 0])
        level = int(np.clip(np.log2(max(512 / max(side_px * 1.6, 8), 1)), 0, 4))
        texture = self.face(house.variant, 'side', level, fog)[0]
        cut = int((near - start) / house.length * texture.shape[1])
        back = house.face + house.side * 11.0
        tone = self._tone(house.variant, level, fog)
        pitched = self.style.place in ('suburban', 'rural') or house.variant % 3 == 0
        if start > NEAR:
            front = np.array(
                [
                    view.corner(start, d, h)
                    for d, h in (
                        (house.face, height),
                        (back, height),
                        (back, 0.0),
                        (house.face, 0.0),
                    )
                ]
            )
            if pitched:
                top = view.corner(start, (house.face + back) / 2, height * 1.0 + 3.0)
                gable = np.array([front[0], front[1], top])
                canvas.polygon(gable, (start,) * 3, tone * 0.9, BUILDING)
            texture_front = self.face(house.variant, 'front', level, fog)[0]
            canvas.quad(texture_front, front, (start,) * 4, BUILDING)
        if pitched:
            ridge = [view.corner(z, (house.face + back) / 2, height + 3.0) for z in (near, far)]
            roof = np.array([corners[0], corners[1], ridge[1], ridge[0]])
            canvas.polygon(roof, (near, far, far, near), tone * 0.55, BUILDING)
        wall = np.ascontiguousarray(texture[:, cut:])
        canvas.quad(wall, corners, (near, far, far, near), BUILDING)

    def fences(self, view: View) -> list[tuple[float, object]]:
        """Fences in view: where each ends along the road, and where (s, d) it begins."""
        found: list[tuple[float, object]] = []
        for side, d in self.scene.fences():
            first = int(view.pose.s // 12)
            for number in range(first, first + 8):
                if self._fenced(side, number):
                    found.append((number * 12.0 + 12, np.array([number * 12.0, d])))
        return found

    def _has_fence(self, side: int, number: int) -> bool:
        key = [self.seed, 9, side + 1, abs(number), number < 0]
        return bool(np.random.default_rng(key).random() < 0.75)

    def draw_fence(self, canvas: Canvas, view: View, fence: np.ndarray) -> None:
        """Draw 12 m of fence."""
        image, clear, label, height = self.barrier
        start, d = float(fence[0]) - view.pose.s, float(fence[1])
        for part in range(3):
            near, far = max(start + part * 4, NEAR), start + part * 4 + 4
            if far > NEAR + 0.5:
                cut = int((near - (far - 4)) / 4 * 255)
                corners = [
                    view.corner(z, d, h)
                    for z, h in ((near, height), (far, height), (far, 0.0), (near, 0.0))
                ]
                canvas.quad(
                    np.ascontiguousarray(image[:, cut:]),
                    np.array(corners),
                    (near, far, far, near),
                    label,
                    np.ascontiguousarray(clear[:, cut:]),
                )
