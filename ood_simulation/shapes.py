# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Small solids ray-cast to sprites.

Every thing that stands in the proving ground, known or unknown, is a list of `Part`s rendered
here, so how a thing is drawn tells nothing about whether a robot was taught it.

Axes of a thing: x right, y away from the viewer, z up, metres; the ground is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ood_simulation import textures

ELEVATION = 0.07
"""Radians by which sprites are looked down upon."""

OVERSAMPLING = 2


@dataclass(frozen=True)
class Light:
    """
    Lighting of a drive.

    Attributes:
        direction: unit vector towards the sun (x right, y forward, z up).
        sun: (3,) RGB strength of direct light.
        ambient: (3,) RGB strength of the sky's light.
        haze: (3,) RGB 0..1 of far things.

    """

    direction: np.ndarray
    sun: np.ndarray
    ambient: np.ndarray
    haze: np.ndarray


@dataclass
class Part:
    """
    One solid.

    Attributes:
        kind: 'ellipsoid', 'box' or 'cylinder' (axis z; `taper` scales the radius at its top).
        centre: (3,) metres.
        size: (3,) half extents in metres.
        material: (3,) RGB 0..1, or a float32 (S, S, 3) pattern.
        turn: (3,) rotations in radians about x, then y, then z.
        gloss: 0 matt .. 1 mirror-like.
        label: class id.
        taper: radius of a cylinder's top over its bottom's; 0 = cone.
        repeat: pattern repetitions per metre.
        glow: 0..1, light of its own.

    """

    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    material: np.ndarray
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gloss: float = 0.1
    label: int = 255
    taper: float = 1.0
    repeat: float = 1.0
    glow: float = 0.0


@dataclass
class Sprite:
    """
    A rendered thing.

    Attributes:
        levels: pyramid of (premultiplied RGB uint8 (h, w, 3), transparency uint8 (h, w)).
        labels: uint8 class ids at the finest level, or None when all are `label`.
        label: class id of the thing.
        scale: pixels per metre at the finest level.
        anchor: (x, y) pixel of the ground point at the finest level.

    """

    levels: list[tuple[np.ndarray, np.ndarray]]
    labels: np.ndarray | None
    label: int
    scale: float
    anchor: tuple[float, float]
    width: float = 0.0
    height: float = 0.0
    extras: dict[str, float] = field(default_factory=dict)


def rotation(turn: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix of angles about x, then y, then z."""
    cx, cy, cz = np.cos(turn)
    sx, sy, sz = np.sin(turn)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _hit(part: Part, o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ray parameter (inf = miss) and local normal of rays o + t d with a unit solid; o (N, 3)."""
    inf = np.float32(np.inf)
    if part.kind == 'box':
        safe = np.where(np.abs(d) < 1e-6, 1e-6, d)
        t1, t2 = (-1 - o) / safe, (1 - o) / safe
        near, far = np.minimum(t1, t2), np.maximum(t1, t2)
        axis = near.argmax(1)
        t = np.take_along_axis(near, axis[:, None], 1)[:, 0]
        t = np.where(t <= far.min(1), t, inf)
        normal = np.zeros_like(o)
        normal[np.arange(len(o)), axis] = -np.sign(safe)[axis]
        return t, normal
    if part.kind == 'ellipsoid':
        a, b, c = float(d @ d), o @ d, np.einsum('ij,ij->i', o, o) - 1
        root = b * b - a * c
        t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, inf)
        return t, o + np.where(np.isfinite(t), t, 0)[:, None] * d
    slope = (part.taper - 1) / 2  # radius r(z) = 1 + slope (z + 1)
    r0 = 1 + slope * (o[:, 2] + 1)
    rd = slope * d[2]
    a = d[0] ** 2 + d[1] ** 2 - rd**2
    b = o[:, 0] * d[0] + o[:, 1] * d[1] - r0 * rd
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - r0**2
    a = a if abs(a) > 1e-6 else 1e-6
    root = b * b - a * c
    t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, inf)
    z = o[:, 2] + np.where(np.isfinite(t), t, 0) * d[2]
    t = np.where(np.abs(z) <= 1, t, inf)
    point = o + np.where(np.isfinite(t), t, 0)[:, None] * d
    normal = np.stack([point[:, 0], point[:, 1], np.full(len(o), -slope)], 1)
    if abs(d[2]) > 1e-6:
        side = -np.sign(d[2])
        t_cap = (side - o[:, 2]) / d[2]
        p = o + t_cap[:, None] * d
        radius = part.taper if side > 0 else 1.0
        better = (p[:, 0] ** 2 + p[:, 1] ** 2 <= radius**2) & (t_cap < t)
        t = np.where(better, t_cap, t)
        normal[better] = (0, 0, side)
    return t, normal


def _albedo(part: Part, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Colour at local points (N, 3) by the face they lie on, float32 (N, 3)."""
    if part.material.ndim == 1:
        return np.broadcast_to(part.material, point.shape)
    metres = point * np.asarray(part.size)
    face = np.abs(normal).argmax(1)
    across = np.where(face == 0, metres[:, 1], metres[:, 0])
    down = np.where(face == 2, metres[:, 1], -metres[:, 2])
    if part.kind != 'box':
        across = np.where(
            face == 2, across, np.arctan2(point[:, 1], point[:, 0]) * max(part.size[0], 0.05)
        )
    n = part.material.shape[0]
    # Half a tile of shift centres a print on the face.
    u = ((across * part.repeat + 0.5) * n).astype(np.int64) % n
    v = ((down * part.repeat + 0.5) * n).astype(np.int64) % n
    return part.material[v, u]


def render(
    parts: list[Part],
    light: Light,
    yaw: float = 0.0,
    pixels: int = 128,
    label: int = 255,
    roughness: float = 0.0,
    rng: np.random.Generator | None = None,
    leafy: bool = False,
) -> Sprite:
    """
    Ray-cast parts into a sprite.

    Args:
        parts: the solids, drawn with hidden surfaces removed.
        light: lighting of the drive.
        yaw: radians by which the thing is turned about z, counter-clockwise seen from above.
        pixels: longer side of the finest level.
        label: class id of the whole; parts with another `label` make a label map.
        roughness: metres by which the outline and surface are disturbed (rocks, leaves, bags).
        rng: needed with roughness.
        leafy: whether the disturbance is fine and ragged as foliage is.

    Raises:
        ValueError: no parts.

    """
    if not parts:
        raise ValueError('a sprite needs at least one part, got none')
    turn = rotation((0, 0, yaw))
    right = np.array([1.0, 0, 0])
    up = np.array([0, np.sin(ELEVATION), np.cos(ELEVATION)])
    ray = np.array([0, np.cos(ELEVATION), -np.sin(ELEVATION)])
    placed = []
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for part in parts:
        axes = turn @ rotation(part.turn)
        centre = turn @ np.asarray(part.centre)
        half = axes * np.asarray(part.size)
        order = 2 if part.kind == 'ellipsoid' else 1
        extent = np.array([np.linalg.norm(v @ half, order) for v in (right, up)]) + roughness
        middle = np.array([right @ centre, up @ centre])
        low, high = np.minimum(low, middle - extent), np.maximum(high, middle + extent)
        placed.append((part, axes, centre, middle - extent, middle + extent))
    low = np.minimum(low, [0, 0])
    scale = pixels * OVERSAMPLING / max(float((high - low).max()), 1e-3)
    w, h = (int(np.ceil(v * scale)) + 4 * OVERSAMPLING for v in high - low)
    w, h = w + (-w) % OVERSAMPLING, h + (-h) % OVERSAMPLING
    left, top = low[0] - 2 * OVERSAMPLING / scale, high[1] + 2 * OVERSAMPLING / scale
    xs = (left + (np.arange(w) + 0.5) / scale).astype(np.float32)
    ys = (top - (np.arange(h) + 0.5) / scale).astype(np.float32)
    grid = np.stack(np.broadcast_arrays(xs[None], ys[:, None]), -1).astype(np.float32)
    plain = grid
    if roughness and rng is not None:
        grid = grid.copy()
        for axis in range(2):
            cells = max(3, int(max(w, h) / scale / max(roughness * 5, 0.02)))
            field_ = textures.noise(rng, h, w, 12 if leafy else min(cells, 24), 2)
            if leafy:  # single leaves
                fine = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 2.2)
                field_ = 0.5 * field_ + 0.25 + fine * 1.6
            grid[..., axis] += (field_ - 0.5) * 2 * roughness

    depth = np.full((h, w), np.inf, np.float32)
    normals = np.zeros((h, w, 3), np.float32)
    albedo = np.zeros((h, w, 3), np.float32)
    gloss, glow = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    labels = np.full((h, w), label, np.uint8)
    for part, axes, centre, a, b in placed:
        x0, x1 = int(max(0, (a[0] - left) * scale - 1)), int((b[0] - left) * scale + 2)
        y0, y1 = int(max(0, (top - b[1]) * scale - 1)), int((top - a[1]) * scale + 2)
        # Trunks and branches stay whole among ragged leaves.
        firm = leafy and part.kind == 'cylinder' and part.taper > 0.5
        uv = (plain if firm else grid)[y0:y1, x0:x1]
        shape = uv.shape[:2]
        inverse = (axes / np.asarray(part.size)).T.astype(np.float32)
        d = inverse @ ray.astype(np.float32)
        start = uv.reshape(-1, 2) @ np.stack([right, up]).astype(np.float32)
        o = (start - centre.astype(np.float32)) @ inverse.T
        t, normal = _hit(part, o, d)
        closer = t < depth[y0:y1, x0:x1].ravel()
        if not closer.any():
            continue
        index = np.flatnonzero(closer)
        yy, xx = index // shape[1] + y0, index % shape[1] + x0
        local, face = o[index] + t[index, None] * d, normal[index]
        depth[yy, xx] = t[index]
        world = face @ inverse
        normals[yy, xx] = world / np.maximum(np.linalg.norm(world, axis=1), 1e-6)[:, None]
        albedo[yy, xx] = _albedo(part, local, face)
        gloss[yy, xx], glow[yy, xx] = part.gloss, part.glow
        labels[yy, xx] = label if part.label == 255 else part.label
    rgb = shade(depth, normals, albedo, gloss, glow, light, ys, roughness, scale)
    return _sprite(rgb, np.isfinite(depth), labels, label, scale, left, top)


def shade(
    depth: np.ndarray,
    normals: np.ndarray,
    albedo: np.ndarray,
    gloss: np.ndarray,
    glow: np.ndarray,
    light: Light,
    height: np.ndarray,
    roughness: float,
    scale: float,
) -> np.ndarray:
    """Lambert and Blinn shading, sky light, darkened creases: uint8 (h, w, 3), 0 beside it."""
    solid = np.isfinite(depth)
    filled = np.where(solid, depth, 0).astype(np.float32)
    weight = cv2.blur(solid.astype(np.float32), (9, 9)) + 1e-6
    around = cv2.blur(filled, (9, 9)) / weight
    crease = np.clip(1 - (filled - around) * scale * 0.05, 0.55, 1.1)
    if roughness:
        normals = normals.copy()
        gx, gy = cv2.Sobel(albedo[..., 1], -1, 1, 0), cv2.Sobel(albedo[..., 1], -1, 0, 1)
        normals[..., 0] -= gx * 0.6
        normals[..., 2] += gy * 0.6
    # Only pixels of the thing are shaded, as (N, 3) rows.
    n, base, crease = normals[solid], albedo[solid], crease[solid][:, None]
    shine_of, glow_of = gloss[solid][:, None], glow[solid][:, None]
    sun = np.clip(n @ light.direction.astype(np.float32), 0, None)[:, None]
    sky = (0.55 + 0.45 * n[:, 2])[:, None]
    # The ground shades what stands on it: darker towards z = 0.
    ground = 0.62 + 0.38 * np.clip(height / max(float(height.max()) * 0.4, 1e-3), 0, 1)
    ground = np.broadcast_to(ground[:, None], solid.shape)[solid][:, None]
    ambient = sky * crease * ground * light.ambient.astype(np.float32)
    direct = sun * (0.4 + 0.6 * crease) * light.sun.astype(np.float32)
    rows = base * (ambient + direct)
    half = light.direction + np.array([0, -1.0, 0.07])
    half = (half / np.linalg.norm(half)).astype(np.float32)
    fourth = np.clip(n @ half, 0, 1)[:, None] ** 2
    fourth *= fourth
    eighth = fourth * fourth
    shine = (eighth * eighth) ** 2 * eighth * shine_of  # to the power of 40
    mirror = shine_of * 0.45 * np.clip(1 + n[:, 1:2], 0.12, 1) * np.clip(sky, 0, 1)
    rows = rows * (1 - mirror) + mirror * light.haze.astype(np.float32)
    rows += shine * light.sun.astype(np.float32)
    rows += glow_of * base
    out = np.zeros_like(albedo, np.uint8)
    out[solid] = np.clip(rows, 0, 1) ** np.float32(0.8) * 255
    return out


def _sprite(
    rgb: np.ndarray,
    solid: np.ndarray,
    labels: np.ndarray,
    label: int,
    scale: float,
    left: float,
    top: float,
) -> Sprite:
    k = OVERSAMPLING
    h, w = solid.shape[0] // k, solid.shape[1] // k
    clear = np.where(solid, 0, 255).astype(np.uint8)
    colour = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    clear = cv2.resize(clear, (w, h), interpolation=cv2.INTER_AREA)
    levels = [(colour, clear)]
    while min(levels[-1][1].shape) >= 6 and max(levels[-1][1].shape) > 12:
        # Exact halves, so that every level shares one geometry.
        a, b = (
            np.pad(v, [(0, n % 2) for n in v.shape[:2]] + [(0, 0)] * (v.ndim - 2), mode='edge')
            for v in levels[-1]
        )
        size = (a.shape[1] // 2, a.shape[0] // 2)
        levels.append(
            (
                cv2.resize(a, size, interpolation=cv2.INTER_AREA),
                cv2.resize(b, size, interpolation=cv2.INTER_AREA),
            )
        )
    small = np.ascontiguousarray(labels[::k, ::k][:h, :w])
    mixed = bool((small[clear < 128] != label).any())
    rows, columns = np.nonzero(clear < 128)
    fine = scale / k
    return Sprite(
        levels=levels,
        labels=small if mixed else None,
        label=label,
        scale=fine,
        anchor=(-left * fine, top * fine),
        width=float(np.ptp(columns) + 1) / fine if len(columns) else 0.0,
        height=float(np.ptp(rows) + 1) / fine if len(rows) else 0.0,
    )
