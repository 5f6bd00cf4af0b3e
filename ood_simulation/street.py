# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Trees, lamp posts, traffic lights and signs."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ood_simulation.shapes import Part
from ood_simulation.textures import pattern
from ood_simulation.vocabulary import BLACK, POLE, SIGN, grey


def tree(rng: Generator) -> list[Part]:
    """Broad-leaved tree, conifer, palm-like tree or bush."""
    green = np.array([0.18, 0.32, 0.09], np.float32) * rng.uniform(0.5, 1.4, 3).astype(np.float32)
    if rng.random() < 0.15:
        green = np.array([0.5, 0.3, 0.08], np.float32) * rng.uniform(0.6, 1.2)
    leaves = pattern(rng, 'grain', green, green * rng.uniform(0.2, 0.5))
    bark = pattern(
        rng, 'fur', np.array([0.3, 0.24, 0.18], np.float32) * rng.uniform(0.5, 1.3), grey(0.15)
    )
    kind = rng.choice(['broad', 'conifer', 'bush', 'slim'], p=[0.5, 0.15, 0.2, 0.15])
    height = rng.uniform(4, 9) if kind != 'bush' else rng.uniform(0.7, 2.0)
    parts = []
    if kind == 'conifer':
        for i in range(5):
            z = height * (0.2 + 0.17 * i)
            r = height * 0.24 * (1 - i / 5.6)
            parts.append(
                Part('cylinder', (0, 0, z), (r, r, height * 0.12), leaves, taper=0.2, repeat=1.5)
            )
        parts.append(Part('cylinder', (0, 0, height * 0.1), (0.14, 0.14, height * 0.1), bark))
        return parts
    trunk = {'broad': 0.38, 'bush': 0.05, 'slim': 0.2}[str(kind)] * height
    spread = {'broad': 0.3, 'bush': 0.55, 'slim': 0.12}[str(kind)] * height
    crown = height - trunk
    if kind != 'bush':
        r = height * 0.025 + 0.03
        parts.append(
            Part(
                'cylinder',
                (0, 0, trunk * 0.65),
                (r, r, trunk * 0.65),
                bark,
                taper=0.75,
                repeat=2.0,
            )
        )
        for side in (-1, 1):
            parts.append(
                Part(
                    'cylinder',
                    (side * spread * 0.25, 0, trunk * 1.15),
                    (r * 0.5, r * 0.5, trunk * 0.3),
                    bark,
                    turn=(0, side * 0.6, 0),
                )
            )
    for _ in range(int(rng.integers(14, 30))):
        v = rng.normal(size=3)
        v = v / np.linalg.norm(v) * rng.uniform(0.3, 0.9)
        r = rng.uniform(0.18, 0.36)
        parts.append(
            Part(
                'ellipsoid',
                (v[0] * spread, v[1] * spread, trunk + crown * (0.5 + v[2] * 0.45)),
                (spread * r * 1.2, spread * r, crown * r * 0.55),
                leaves * rng.uniform(0.7, 1.15),
                repeat=1.2,
            )
        )
    return parts


def lamp_post(rng: Generator) -> list[Part]:
    """Street lamp, mast or traffic light."""
    metal: np.ndarray = grey(rng.uniform(0.08, 0.55)) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    if rng.random() < 0.3:
        metal = np.array([0.35, 0.27, 0.18], np.float32) * rng.uniform(0.6, 1.2)
    height, r = rng.uniform(4.5, 8.5), rng.uniform(0.06, 0.13)
    parts = [
        Part(
            'cylinder',
            (0, 0, height / 2),
            (r, r, height / 2),
            metal,
            taper=0.6,
            gloss=0.2,
            label=POLE,
        ),
        Part('cylinder', (0, 0, 0.4), (r * 1.6, r * 1.6, 0.4), metal, label=POLE),
    ]
    kind = rng.random()
    if kind < 0.55:
        arm = float(rng.choice([-1, 1])) * rng.uniform(0.6, 1.6)
        parts.append(
            Part('box', (arm / 2, 0, height), (abs(arm) / 2, 0.04, 0.04), metal, label=POLE)
        )
        parts.append(
            Part(
                'box', (arm, 0, height - 0.05), (0.3, 0.12, 0.07), grey(0.7), glow=0.3, label=POLE
            )
        )
    elif kind < 0.8:
        z = rng.uniform(2.6, 3.4)
        parts.append(Part('box', (0, -0.14, z), (0.16, 0.1, 0.42), BLACK, label=SIGN))
        lit = int(rng.integers(3))
        for i, tone in enumerate(([0.9, 0.1, 0.05], [0.95, 0.65, 0.05], [0.1, 0.85, 0.3])):
            parts.append(
                Part(
                    'ellipsoid',
                    (0, -0.24, z + 0.27 - 0.27 * i),
                    (0.11, 0.03, 0.11),
                    np.array(tone, np.float32) * (1.0 if i == lit else 0.2),
                    glow=float(i == lit),
                    label=SIGN,
                )
            )
    else:
        parts.append(Part('box', (0, 0, height * 0.93), (0.9, 0.05, 0.06), metal, label=POLE))
    return parts


def sign(rng: Generator) -> list[Part]:
    """Traffic or direction sign on a pole."""
    height = rng.uniform(1.9, 2.7)
    white, tone = (
        grey(0.92),
        np.array(
            [[0.78, 0.06, 0.07], [0.05, 0.2, 0.6], [0.95, 0.75, 0.05], [0.04, 0.4, 0.2]][
                int(rng.integers(4))
            ],
            np.float32,
        ),
    )
    pole = Part(
        'cylinder',
        (0, 0.03, height / 2),
        (0.04, 0.04, height / 2),
        grey(0.5),
        gloss=0.2,
        label=POLE,
    )
    r = rng.uniform(0.28, 0.42)
    kind = rng.random()
    flat = (np.pi / 2, 0, 0)
    if kind < 0.45:
        plates = [
            Part('cylinder', (0, -0.02, height), (r, r, 0.015), tone, turn=flat, gloss=0.15),
            Part('cylinder', (0, -0.04, height), (r * 0.74, r * 0.74, 0.015), white, turn=flat),
            Part(
                'box',
                (0, -0.06, height),
                (r * 0.4, 0.01, r * 0.1),
                BLACK if rng.random() < 0.6 else tone,
            ),
        ]
    elif kind < 0.65:
        plates = [
            Part(
                'box',
                (0, -0.02, height),
                (r * 0.8, 0.015, r * 0.8),
                tone,
                turn=(0, np.pi / 4, 0),
                gloss=0.15,
            ),
            Part(
                'box',
                (0, -0.04, height),
                (r * 0.55, 0.015, r * 0.55),
                white,
                turn=(0, np.pi / 4, 0),
            ),
        ]
    else:
        wide = r * rng.uniform(0.8, 3.0)
        plates = [
            Part('box', (0, -0.02, height), (wide, 0.015, r), white, gloss=0.15),
            Part(
                'box',
                (0, -0.04, height),
                (wide * 0.95, 0.015, r * 0.9),
                pattern(rng, 'print', tone, white),
                repeat=1.1,
            ),
        ]
    for plate in plates:
        plate.label = SIGN
    return [pole, *plates]
