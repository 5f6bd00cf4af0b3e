# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Drawing into the frame and its labels at once, far things first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ood_simulation.shapes import Sprite

SHIFT = 4
"""Fractional bits of polygon corners."""


class Canvas:
    """
    One frame being drawn.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        semantic: uint8 (H, W) class ids.
        depth: float32 (H, W), metres along the camera's axis, infinity where the sky is.
        instances: uint16 (H, W), ids of unknown things, 0 = none.
        rim: uint8 (H, W), 255 where an unknown thing's soft edge covers a pixel partly.
        marked: whether an unknown thing was drawn.
        boxes: id -> pixels (x0, y0, x1, y1) outside of which that unknown thing does not lie.

    """

    def __init__(self, width: int, height: int, haze: np.ndarray) -> None:
        self.width, self.height = width, height
        self.image = np.zeros((height, width, 3), np.uint8)
        self.semantic = np.full((height, width), 255, np.uint8)
        self.depth = np.full((height, width), np.inf, np.float32)
        self.instances = np.zeros((height, width), np.uint16)
        self.rim = np.zeros((height, width), np.uint8)
        self.haze = haze
        self.marked = False
        self.boxes: dict[int, tuple[int, int, int, int]] = {}

    def _clip(
        self, x0: float, y0: float, x1: float, y1: float
    ) -> tuple[int, int, int, int] | None:
        a, b = max(0, math.floor(x0)), max(0, math.floor(y0))
        c, d = min(self.width, math.ceil(x1) + 1), min(self.height, math.ceil(y1) + 1)
        return (a, b, c, d) if c > a and d > b else None

    def sprite(
        self, sprite: Sprite, u: float, v: float, z: float, scale: float, fog: float, instance: int
    ) -> None:
        """
        Draw a sprite whose ground point is at pixel (u, v).

        Args:
            sprite: what.
            u: column.
            v: row.
            z: metres ahead.
            scale: pixels per metre.
            fog: 0 clear .. 1 lost in the haze.
            instance: id of an unknown thing, 0 for a known one.

        """
        k = scale / sprite.scale
        if k * max(sprite.levels[0][1].shape) < 2.5:
            return
        level = min(max(math.floor(-math.log2(max(k, 1e-6))), 0), len(sprite.levels) - 1)
        colour, clear = sprite.levels[level]
        kl = k * 2**level
        ax, ay = ((p + 0.5) / 2**level - 0.5 for p in sprite.anchor)
        h, w = clear.shape
        box = self._clip(
            u - (ax + 1) * kl, v - (ay + 1) * kl, u + (w - ax) * kl, v + (h - ay) * kl
        )
        if box is None:
            return
        x0, y0, x1, y1 = box
        size = (x1 - x0, y1 - y0)
        matrix = np.array([[kl, 0, u - x0 - ax * kl], [0, kl, v - y0 - ay * kl]])
        patch = cv2.warpAffine(colour, matrix, size, flags=cv2.INTER_LINEAR)
        cover = cv2.warpAffine(
            clear,
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        cover3 = cv2.merge((cover, cover, cover))
        if fog > 0.02:
            veil = cv2.multiply(cv2.bitwise_not(cover3), (*(self.haze * fog).tolist(), 0))
            patch = cv2.addWeighted(patch, 1 - fog, veil, 1.0, 0)
        region = self.image[y0:y1, x0:x1]
        cv2.add(cv2.multiply(region, cover3, scale=1 / 255), patch, dst=region)
        solid = cover < 128
        np.copyto(self.depth[y0:y1, x0:x1], np.float32(z), where=solid)
        semantic = self.semantic[y0:y1, x0:x1]
        if sprite.labels is None:
            np.copyto(semantic, np.uint8(255 if instance else sprite.label), where=solid)
        else:
            fine = np.array(
                [[k, 0, u - x0 - sprite.anchor[0] * k], [0, k, v - y0 - sprite.anchor[1] * k]]
            )
            labels = cv2.warpAffine(sprite.labels, fine, size, flags=cv2.INTER_NEAREST)
            np.copyto(semantic, labels, where=solid)
        if instance or self.marked:
            np.copyto(self.instances[y0:y1, x0:x1], np.uint16(instance), where=solid)
            rim = self.rim[y0:y1, x0:x1]
            np.copyto(rim, np.uint8(0), where=solid)
            if instance:
                self.marked = True
                self.boxes[instance] = box
                np.copyto(rim, np.uint8(255), where=(cover >= 128) & (cover < 235))

    def shadow(
        self,
        sprite: Sprite,
        u: float,
        v: float,
        scale: float,
        cast: tuple[float, float],
        strength: float,
    ) -> None:
        """
        Darken the ground where a sprite's outline falls.

        Args:
            sprite: what stands there.
            u: column of its ground point.
            v: row of it.
            scale: pixels per metre.
            cast: (right, up) pixels of the shadow of a point at one pixel of height.
            strength: 0..1.

        """
        k = scale / sprite.scale
        level = min(max(math.floor(-math.log2(max(k, 1e-6))) + 1, 0), len(sprite.levels) - 1)
        clear = sprite.levels[level][1]
        kl = k * 2**level
        ax, ay = ((p + 0.5) / 2**level - 0.5 for p in sprite.anchor)
        h, w = clear.shape
        matrix = np.array(
            [
                [kl, -kl * cast[0], u - ax * kl + cast[0] * ay * kl],
                [0, kl * cast[1], v - ay * kl * cast[1]],
            ]
        )
        corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) @ matrix.T
        box = self._clip(*_bounds(corners))
        if box is None:
            return
        x0, y0, x1, y1 = box
        matrix[:, 2] -= (x0, y0)
        cover = cv2.warpAffine(
            clear, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_CONSTANT, borderValue=255
        )
        self._darken((x0, y0, x1, y1), cover, strength)

    def blot(
        self, disc: np.ndarray, u: float, v: float, width: float, height: float, strength: float
    ) -> None:
        """Darken an ellipse of the given pixels around (u, v); `disc` is uint8, 0 = dark."""
        box = self._clip(u - width / 2, v - height / 2, u + width / 2, v + height / 2)
        if box is None or width < 2 or height < 1:
            return
        x0, y0, x1, y1 = box
        n = disc.shape[0]
        matrix = np.array(
            [[width / n, 0, u - width / 2 - x0], [0, height / n, v - height / 2 - y0]]
        )
        cover = cv2.warpAffine(
            disc, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_CONSTANT, borderValue=255
        )
        self._darken((x0, y0, x1, y1), cover, strength)

    def _darken(self, box: tuple[int, int, int, int], cover: np.ndarray, strength: float) -> None:
        x0, y0, x1, y1 = box
        cover = cv2.convertScaleAbs(cover, alpha=strength, beta=255 * (1 - strength))
        region = self.image[y0:y1, x0:x1]
        cv2.multiply(region, cv2.merge((cover, cover, cover)), dst=region, scale=1 / 255)

    def quad(
        self,
        texture: np.ndarray,
        corners: np.ndarray,
        z: Sequence[float],
        label: int,
        clear: np.ndarray | None = None,
    ) -> None:
        """
        Draw a texture into a quadrilateral.

        Args:
            texture: uint8 (h, w, 3) RGB, premultiplied where `clear` is given.
            corners: (4, 2) pixels of the texture's top-left, top-right, bottom-right, bottom-left.
            z: metres ahead of each corner.
            label: class id.
            clear: uint8 (h, w) transparency, None = opaque.

        """
        box = self._clip(*_bounds(corners))
        if box is None:
            return
        x0, y0, x1, y1 = box
        h, w = texture.shape[:2]
        source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
        target = (corners - (x0, y0)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        size = (x1 - x0, y1 - y0)
        region = self.image[y0:y1, x0:x1]
        if clear is None:
            patch = cv2.warpPerspective(texture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
            mask = np.zeros((size[1], size[0]), np.uint8)
            cv2.fillConvexPoly(
                mask, np.round(target * 2**SHIFT).astype(np.int32), 255, cv2.LINE_AA, SHIFT
            )
            cv2.copyTo(patch, mask, region)
            self._mark(box, corners, z, label, mask > 127)
            return
        patch = cv2.warpPerspective(texture, matrix, size)
        cover = cv2.warpPerspective(
            clear, matrix, size, borderMode=cv2.BORDER_CONSTANT, borderValue=255
        )
        cv2.add(
            cv2.multiply(region, cv2.merge((cover, cover, cover)), scale=1 / 255),
            patch,
            dst=region,
        )
        self._mark(box, corners, z, label, cover < 128)

    def polygon(
        self, corners: np.ndarray, z: Sequence[float], colour: np.ndarray, label: int
    ) -> None:
        """Fill a convex polygon of (N, 2) pixels, z metres ahead, with a uint8-range colour."""
        box = self._clip(*_bounds(corners))
        if box is None:
            return
        points = np.round(np.clip(corners, -4000, 4000) * 2**SHIFT).astype(np.int32)
        cv2.fillConvexPoly(self.image, points, colour.tolist(), cv2.LINE_AA, SHIFT)
        x0, y0, x1, y1 = box
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, points - np.array([x0, y0]) * 2**SHIFT, 255, cv2.LINE_8, SHIFT)
        self._mark(box, corners, z, label, mask > 0)

    def _mark(
        self,
        box: tuple[int, int, int, int],
        corners: np.ndarray,
        z: Sequence[float],
        label: int,
        where: np.ndarray,
    ) -> None:
        """Note class and depth of a flat face; over it 1 / z is linear in the pixels."""
        x0, y0, x1, y1 = box
        np.copyto(self.semantic[y0:y1, x0:x1], np.uint8(label), where=where)
        far, near = max(z), min(z)
        points = np.column_stack([corners, np.ones(len(corners))])
        fit = np.linalg.lstsq(points, 1 / np.asarray(z), rcond=None)[0]
        a, b, c = fit.astype(np.float32)
        columns, rows = (np.arange(*ends, dtype=np.float32) for ends in ((x0, x1), (y0, y1)))
        inverse = np.clip(a * columns + (b * rows + c)[:, None], 1 / far, 1 / near)
        np.copyto(self.depth[y0:y1, x0:x1], 1 / inverse, where=where)


def _bounds(corners: np.ndarray) -> tuple[float, float, float, float]:
    """Smallest and largest column and row of (N, 2) pixels; for four, faster than numpy."""
    columns, rows = zip(*corners.tolist(), strict=True)
    return min(columns), min(rows), max(columns), max(rows)
