# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Cars, vans, lorries and buses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from ood_simulation.shapes import Part
from ood_simulation.textures import pattern
from ood_simulation.vocabulary import BLACK, GLASS, RUBBER, STEEL, grey, paint


def car(rng: Generator) -> list[Part]:
    """Passenger car, van, lorry or bus; its front looks towards +y."""
    kind = rng.choice(
        ['hatch', 'saloon', 'suv', 'van', 'lorry', 'bus'], p=[0.28, 0.25, 0.22, 0.13, 0.07, 0.05]
    )
    length, width, height = {
        'hatch': (4.0, 1.75, 1.45),
        'saloon': (4.6, 1.8, 1.42),
        'suv': (4.6, 1.9, 1.72),
        'van': (5.2, 1.95, 2.2),
        'lorry': (7.5, 2.4, 3.2),
        'bus': (10.0, 2.5, 3.0),
    }[str(kind)]
    length, width, height = (v * rng.uniform(0.94, 1.06) for v in (length, width, height))
    body = paint(rng)
    skin = (
        body
        if rng.random() < 0.65
        else pattern(
            rng,
            str(rng.choice(['plain', 'print', 'rust', 'gradient', 'stripes', 'blotches'])),
            body,
            body * 0.6,
        )
    )
    shine = float(rng.uniform(0.25, 0.7))
    half_w, half_l, clear = width / 2, length / 2, 0.2
    parts: list[Part] = []

    def box(
        x: float, y: float, z: float, sx: float, sy: float, sz: float, m: np.ndarray, **more: Any
    ) -> None:
        parts.append(Part('box', (x, y, z), (sx, sy, sz), m, **more))

    big = str(kind) in ('van', 'lorry', 'bus')
    wheel = 0.32 if not big else 0.42
    if big:
        box(
            0,
            0,
            clear + (height - clear) / 2 + 0.1,
            half_w,
            half_l,
            (height - clear) / 2 - 0.1,
            skin,
            gloss=shine,
            repeat=0.6,
        )
        for side in (-1, 1):
            if kind != 'lorry':
                box(
                    side * (half_w - 0.01),
                    0.1 * length,
                    height * 0.68,
                    0.03,
                    half_l * 0.75,
                    height * 0.13,
                    GLASS,
                    gloss=0.8,
                )
            y = side * half_l
            glass = kind != 'lorry' or side > 0
            if glass:
                box(0, y, height * 0.68, half_w * 0.85, 0.03, height * 0.15, GLASS, gloss=0.8)
            elif rng.random() < 0.7:
                box(
                    0,
                    y,
                    height * 0.55,
                    half_w * 0.9,
                    0.03,
                    height * 0.36,
                    pattern(rng, 'print', body, grey(0.9)),
                    gloss=0.2,
                    repeat=0.5,
                )
    else:
        belt = height * 0.58
        box(
            0,
            0,
            (clear + belt) / 2 + 0.06,
            half_w,
            half_l,
            (belt - clear) / 2,
            skin,
            gloss=shine,
            repeat=0.7,
        )
        # A rounded waist and bonnet take the box out of the silhouette.
        parts.append(
            Part(
                'ellipsoid',
                (0, 0, belt * 0.72),
                (half_w * 1.04, half_l * 1.03, belt * 0.42),
                skin,
                gloss=shine,
                repeat=0.7,
            )
        )
        back = {'hatch': 0.2, 'saloon': 0.05, 'suv': 0.25}[str(kind)]
        cabin_l = length * (0.52 if kind == 'saloon' else 0.62) / 2
        cabin_y = -back * length * 0.5
        cabin_h = height - belt
        parts.append(
            Part(
                'cylinder',
                (0, cabin_y, belt + cabin_h / 2),
                (half_w * 1.28, cabin_l * 1.35, cabin_h / 2),
                GLASS,
                gloss=0.85,
                taper=0.74,
            )
        )
        box(0, cabin_y, height - 0.03, half_w * 0.76, cabin_l * 0.82, 0.05, skin, gloss=shine)
        for sx in (-1, 1):
            for f in (-0.95, 0.0, 0.9):
                box(
                    sx * half_w * 0.86,
                    cabin_y + f * cabin_l * 0.8,
                    belt + cabin_h / 2,
                    0.05,
                    0.06,
                    cabin_h / 2,
                    skin,
                    turn=(0, -sx * 0.3, 0),
                    gloss=shine,
                )
            box(
                sx * (half_w + 0.08),
                cabin_y + cabin_l * 0.9,
                belt + 0.06,
                0.09,
                0.05,
                0.07,
                body,
                gloss=shine,
            )
        for sy in (-1, 1):
            y = cabin_y + sy * cabin_l * 0.93
            box(
                0,
                y,
                belt + cabin_h * 0.5,
                half_w * 0.72,
                0.05,
                cabin_h * 0.42,
                GLASS,
                turn=(sy * 0.45, 0, 0),
                gloss=0.9,
            )
    for sy in (-1, 1):
        lamp = np.array([0.75, 0.05, 0.04] if sy < 0 else [0.95, 0.95, 0.85], np.float32)
        z = height * (0.44 if not big else 0.3)
        for sx in (-1, 1):
            parts.append(
                Part(
                    'ellipsoid',
                    (sx * half_w * 0.78, sy * half_l * 1.0, z),
                    (0.17, 0.1, 0.09 if not big else 0.16),
                    lamp,
                    gloss=0.6,
                    glow=0.35 * (rng.random() < 0.6),
                )
            )
            parts.append(
                Part(
                    'cylinder',
                    (sx * (half_w - 0.1), sy * half_l * 0.62, wheel),
                    (wheel, wheel, 0.13),
                    RUBBER,
                    turn=(0, np.pi / 2, 0),
                )
            )
            parts.append(
                Part(
                    'cylinder',
                    (sx * (half_w - 0.08), sy * half_l * 0.62, wheel),
                    (wheel * 0.6, wheel * 0.6, 0.13),
                    STEEL * rng.uniform(0.5, 1.2),
                    turn=(0, np.pi / 2, 0),
                    gloss=0.5,
                )
            )
        box(
            0,
            sy * (half_l + 0.03),
            height * 0.36 if not big else 0.75,
            0.26,
            0.02,
            0.06,
            np.array([0.9, 0.85, 0.4] if sy < 0 else [0.9, 0.9, 0.9], np.float32),
        )
        box(
            0,
            sy * half_l,
            clear + 0.14,
            half_w * 0.97,
            0.06,
            0.11,
            BLACK if rng.random() < 0.5 else body * 0.8,
        )
    return parts
