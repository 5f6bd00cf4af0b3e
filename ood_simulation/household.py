# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Unknown things that people own: boxes, furniture, luggage, vessels, carts."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ood_simulation.shapes import Part
from ood_simulation.textures import colour, pattern
from ood_simulation.vocabulary import BLACK, RUBBER, STEEL, grey


def material(rng: Generator) -> np.ndarray:
    """Plain colour or any pattern."""
    return colour(rng, 1.0, (0.03, 0.97)) if rng.random() < 0.35 else pattern(rng)


def crate(rng: Generator) -> list[Part]:
    """One to five boxes, stacked or scattered."""
    parts, m = [], material(rng)
    kind = str(rng.choice(['wood', 'print', 'plain', '']))
    x = z = 0.0
    for _ in range(int(rng.integers(1, 6))):
        if rng.random() < 0.5:
            m = pattern(
                rng, kind, np.array([0.62, 0.45, 0.28], np.float32) * rng.uniform(0.6, 1.3)
            )
        a, b, c = rng.uniform(0.12, 0.55, 3)
        parts.append(
            Part(
                'box',
                (x, rng.uniform(-0.1, 0.1), z + c),
                (a, b, c),
                m,
                turn=(0, 0, rng.uniform(-0.7, 0.7)),
                repeat=1.0,
            )
        )
        if rng.random() < 0.55 and z < 1.2:
            z += 2 * c
        else:
            x, z = x + float(rng.choice([-1, 1])) * (a + 0.3), 0.0
    return parts


def barrel(rng: Generator) -> list[Part]:
    """Barrels or drums, standing or lying."""
    parts = []
    for i in range(int(rng.integers(1, 4))):
        r, h = rng.uniform(0.22, 0.4), rng.uniform(0.3, 0.55)
        m = material(rng)
        x = i * 0.75
        if rng.random() < 0.6:
            parts.append(Part('cylinder', (x, 0, h), (r, r, h), m, gloss=0.3, repeat=1.0))
            for f in (0.35, 1.0, 1.65):
                parts.append(
                    Part(
                        'cylinder',
                        (x, 0, h * f),
                        (r * 1.05, r * 1.05, 0.025),
                        grey(0.2),
                        gloss=0.3,
                    )
                )
        else:
            parts.append(
                Part(
                    'cylinder',
                    (x, 0, r),
                    (r, r, h),
                    m,
                    turn=(0, np.pi / 2, rng.uniform(-1, 1)),
                    gloss=0.3,
                )
            )
    return parts


def sofa(rng: Generator) -> list[Part]:
    """Sofa, armchair or mattress."""
    m, w = material(rng), rng.uniform(0.5, 1.1)
    if rng.random() < 0.25:
        return [
            Part(
                'box',
                (0, 0, w * 0.7),
                (w, 0.12, w * 0.7),
                m,
                turn=(rng.uniform(-0.3, 0.1), 0, rng.uniform(-0.6, 0.6)),
                repeat=1.5,
            )
        ]
    parts = [
        Part('box', (0, 0, 0.24), (w, 0.42, 0.2), m, repeat=1.5),
        Part('box', (0, 0.35, 0.55), (w, 0.12, 0.4), m, repeat=1.5),
    ]
    for side in (-1, 1):
        parts.append(Part('box', (side * w, 0, 0.36), (0.12, 0.45, 0.3), m, repeat=1.5))
        parts.append(
            Part(
                'ellipsoid',
                (side * w * 0.45, -0.05, 0.48),
                (w * 0.44, 0.4, 0.11),
                m if rng.random() < 0.6 else material(rng),
                repeat=1.5,
            )
        )
    return parts


def chair(rng: Generator) -> list[Part]:
    """Chair, table or stool."""
    m, w, h = material(rng), rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.75)
    parts = [Part('box', (0, 0, h), (w, w * 0.8, 0.035), m)]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(Part('box', (sx * w * 0.9, sy * w * 0.7, h / 2), (0.03, 0.03, h / 2), m))
    if rng.random() < 0.6:
        parts.append(Part('box', (0, w * 0.8, h * 1.6), (w, 0.03, h * 0.6), m))
    return parts


def ladder(rng: Generator) -> list[Part]:
    """A ladder, rack or frame of bars, upright or fallen."""
    m, h, w = material(rng), rng.uniform(0.5, 1.3), rng.uniform(0.2, 0.45)
    turn = (rng.uniform(-1.2, 0.3), 0.0, rng.uniform(-0.7, 0.7))
    from ood_simulation.shapes import rotation

    frame = rotation(turn)
    low = abs(frame[2, 2]) * h + abs(frame[2, 0]) * w
    rods = [((s * w, 0, 0), (0.035, 0.035, h)) for s in (-1, 1)]
    rods += [
        ((0, 0, z * h), (w, 0.025, 0.03))
        for z in np.linspace(-0.85, 0.85, int(rng.integers(4, 8)))
    ]
    return [
        Part('box', tuple(frame @ np.array(c) + [0, 0, low]), s, m, turn=turn, gloss=0.3)
        for c, s in rods
    ]


def suitcase(rng: Generator) -> list[Part]:
    """Suitcase, backpack or television."""
    w, h, d = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.45), rng.uniform(0.08, 0.2)
    m = material(rng)
    parts = [
        Part('box', (0, 0, h + 0.03), (w, d, h), m, gloss=0.25, repeat=1.3),
        Part('box', (0, 0, 2 * h + 0.1), (0.08, 0.02, 0.06), BLACK),
    ]
    if rng.random() < 0.4:
        parts.append(
            Part('box', (0, -d, h + 0.03), (w * 0.85, 0.02, h * 0.8), material(rng), gloss=0.7)
        )
    for side in (-1, 1):
        parts.append(Part('ellipsoid', (side * w * 0.8, 0, 0.04), (0.04, 0.04, 0.04), BLACK))
    return parts


def cart(rng: Generator) -> list[Part]:
    """Shopping cart, pram or wheelbarrow-like thing."""
    m, w, h = material(rng), rng.uniform(0.25, 0.4), rng.uniform(0.25, 0.4)
    parts = [Part('box', (0, 0, 0.35 + h), (w, 0.5, 0.02), m)]
    if rng.random() < 0.5:
        parts.append(Part('box', (0, 0, 0.35 + h), (w, 0.45, h * 0.7), m, repeat=2.0))
    for side in (-1, 1):
        for i in range(5):
            parts.append(
                Part(
                    'box',
                    (side * w, -0.45 + i * 0.22, 0.35 + h),
                    (0.015, 0.015, h),
                    STEEL,
                    gloss=0.5,
                )
            )
            parts.append(
                Part(
                    'box',
                    (-w + i * w / 2, side * 0.47, 0.35 + h),
                    (0.015, 0.015, h),
                    STEEL,
                    gloss=0.5,
                )
            )
        for y in (-0.4, 0.4):
            parts.append(
                Part(
                    'cylinder',
                    (side * w, y, 0.12),
                    (0.12, 0.12, 0.03),
                    RUBBER,
                    turn=(0, np.pi / 2, 0),
                )
            )
            parts.append(Part('box', (side * w, y, 0.3), (0.02, 0.02, 0.2), STEEL))
    parts.append(
        Part(
            'cylinder',
            (0, -0.6, 0.5 + 2 * h),
            (0.03, 0.03, w),
            colour(rng),
            turn=(0, np.pi / 2, 0),
        )
    )
    return parts


def plant_pot(rng: Generator) -> list[Part]:
    """Vase, pot, bucket or bell-shaped thing with or without content."""
    r, h = rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.4)
    parts = [
        Part(
            'cylinder',
            (0, 0, h),
            (r, r, h),
            material(rng),
            taper=rng.uniform(0.5, 1.5),
            gloss=rng.uniform(0, 0.6),
            repeat=1.5,
        )
    ]
    if rng.random() < 0.5:
        parts.append(
            Part(
                'ellipsoid',
                (0, 0, 2 * h + r * 0.5),
                (r * 1.1, r * 1.1, r * rng.uniform(0.5, 1.5)),
                material(rng),
                repeat=2.0,
            )
        )
    return parts
