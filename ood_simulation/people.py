# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Pedestrians and cyclists."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ood_simulation.shapes import Part
from ood_simulation.textures import colour, pattern
from ood_simulation.vocabulary import BLACK, RUBBER, STEEL, paint


def person(rng: Generator, stride: float = 0.0) -> list[Part]:
    """Pedestrian facing +y; `stride` -1..1 is the phase of the step."""
    tall = rng.uniform(1.5, 1.92) if rng.random() < 0.85 else rng.uniform(0.95, 1.4)
    k = tall / 1.75
    skin = np.array([0.85, 0.64, 0.52], np.float32) * rng.uniform(0.3, 1.1)
    top = pattern(rng, '') if rng.random() < 0.6 else colour(rng, 0.9)
    legs = (
        pattern(rng, str(rng.choice(['plain', 'blotches', 'checks', 'stripes'])))
        if rng.random() < 0.4
        else colour(rng, 0.5, (0.05, 0.5))
    )
    hair = np.array([0.25, 0.16, 0.08], np.float32) * rng.uniform(0.15, 2.6)
    wide = rng.uniform(0.85, 1.35)
    parts = [
        Part('ellipsoid', (0, 0.02, 1.62 * k), (0.1 * k, 0.115 * k, 0.135 * k), skin),
        Part('ellipsoid', (0, -0.025, 1.66 * k), (0.108 * k, 0.11 * k, 0.125 * k), hair),
        Part(
            'ellipsoid',
            (0, 0, 1.24 * k),
            (0.22 * k * wide, 0.15 * k * wide, 0.3 * k),
            top,
            repeat=2.0,
        ),
        Part(
            'cylinder',
            (0, 0, 1.12 * k),
            (0.18 * k * wide, 0.13 * k * wide, 0.24 * k),
            top,
            repeat=2.0,
            taper=1.05,
        ),
        Part('cylinder', (0, 0, 1.5 * k), (0.06 * k, 0.06 * k, 0.08 * k), skin),
        Part(
            'ellipsoid',
            (0, 0, 0.93 * k),
            (0.185 * k * wide, 0.15 * k * wide, 0.14 * k),
            legs,
            repeat=2.0,
        ),
        Part(
            'ellipsoid', (0, 0, 1.42 * k), (0.235 * k * wide, 0.11 * k, 0.1 * k), top, repeat=2.0
        ),
    ]
    skirt = rng.random() < 0.18
    for side in (-1, 1):
        swing = stride * side * 0.4
        parts.append(
            Part(
                'cylinder',
                (side * 0.1 * k, np.sin(swing) * 0.42 * k, 0.46 * k),
                (0.085 * k * wide, 0.09 * k * wide, 0.46 * k),
                skin if skirt else legs,
                turn=(swing, 0, 0),
                taper=1.3,
                repeat=2.0,
            )
        )
        parts.append(
            Part(
                'ellipsoid',
                (side * 0.1 * k, np.sin(swing) * 0.84 * k + 0.05, 0.05),
                (0.06, 0.13, 0.06),
                colour(rng, 0.6, (0.03, 0.7)),
            )
        )
        parts.append(
            Part(
                'cylinder',
                (side * 0.27 * k * wide, -np.sin(swing) * 0.2 * k, 1.12 * k),
                (0.06 * k, 0.06 * k, 0.28 * k),
                top if rng.random() < 0.8 else skin,
                turn=(-swing * 0.8, side * -0.12, 0),
                repeat=2.0,
            )
        )
        parts.append(
            Part(
                'ellipsoid',
                (side * 0.3 * k * wide, -np.sin(swing) * 0.42 * k, 0.82 * k),
                (0.05, 0.06, 0.07),
                skin,
            )
        )
    if skirt:
        parts.append(
            Part(
                'cylinder',
                (0, 0, 0.72 * k),
                (0.3 * k, 0.24 * k, 0.3 * k),
                pattern(rng),
                taper=0.55,
                repeat=2.0,
            )
        )
    extra = rng.random()
    if extra < 0.2:
        parts.append(
            Part('ellipsoid', (0, -0.2, 1.25 * k), (0.17, 0.12, 0.25), pattern(rng), repeat=2.0)
        )
    elif extra < 0.35:
        parts.append(
            Part('box', (0.36 * k, 0, 0.6 * k), (0.06, 0.16, 0.16), pattern(rng), repeat=2.0)
        )
    elif extra < 0.5:
        parts.append(
            Part(
                'cylinder',
                (0, 0, 1.74 * k),
                (0.13 * k, 0.14 * k, 0.05 * k),
                colour(rng),
                taper=0.8,
            )
        )
    return parts


def cyclist(rng: Generator, stride: float = 0.0) -> list[Part]:
    """Person on a bicycle, riding towards +y."""
    frame = paint(rng)
    parts = list(person(rng, 0.9 if stride > 0 else -0.9))
    for p in parts:
        p.centre = (p.centre[0], p.centre[1] - 0.1, p.centre[2] * 0.95 + 0.22)
    for y in (-0.52, 0.52):
        for i in range(14):
            a = i * 2 * np.pi / 14
            parts.append(
                Part(
                    'ellipsoid',
                    (0, y + 0.33 * np.cos(a), 0.34 + 0.33 * np.sin(a)),
                    (0.025, 0.08, 0.025),
                    RUBBER,
                    turn=(a + np.pi / 2, 0, 0),
                )
            )
        parts.append(Part('ellipsoid', (0, y, 0.34), (0.05, 0.04, 0.04), STEEL))
    for y, z, length, lean in (
        (0.0, 0.62, 0.5, 1.5),
        (-0.28, 0.5, 0.36, 0.5),
        (0.4, 0.62, 0.36, -0.3),
        (0.05, 0.42, 0.4, 0.95),
    ):
        parts.append(
            Part(
                'cylinder',
                (0, y, z),
                (0.025, 0.025, length / 1.2),
                frame,
                turn=(lean, 0, 0),
                gloss=0.4,
            )
        )
    parts.append(
        Part('cylinder', (0, 0.38, 1.02), (0.02, 0.02, 0.28), BLACK, turn=(0, np.pi / 2, 0))
    )
    return parts
