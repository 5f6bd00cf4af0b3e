# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Things that a segmentor is taught: cars, people, cyclists, trees, signs, poles, bins of none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from ood_perception.simulation.shapes import Part
from ood_perception.simulation.textures import colour, pattern

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PERSON, BICYCLIST = range(11)
NONE = 255

BLACK = np.array([0.03, 0.03, 0.035], np.float32)
RUBBER = np.array([0.05, 0.05, 0.05], np.float32)
GLASS = np.array([0.08, 0.1, 0.12], np.float32)
STEEL = np.array([0.45, 0.46, 0.48], np.float32)


def grey(value: float) -> np.ndarray:
    """Neutral colour of a 0..1 value."""
    return np.full(3, value, np.float32)


def paint(rng: Generator) -> np.ndarray:
    """Car paint: mostly greys, at times strong colours."""
    if rng.random() < 0.5:
        return grey(float(rng.choice([0.03, 0.12, 0.3, 0.55, 0.8, 0.9]))) * rng.uniform(
            0.95, 1.05, 3
        ).astype(np.float32)
    return colour(rng, 1.0, (0.15, 0.85))


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


KNOWN: dict[str, tuple[Callable[..., list[Part]], int]] = {
    'car': (car, CAR),
    'person': (person, PERSON),
    'cyclist': (cyclist, BICYCLIST),
    'tree': (tree, TREE),
    'lamp_post': (lamp_post, POLE),
    'sign': (sign, SIGN),
}
"""Kind -> (function that makes its parts, class id)."""
