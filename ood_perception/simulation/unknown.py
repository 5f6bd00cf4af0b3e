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

"""Things that no one taught the robot: furniture, animals, waste, boxes, rocks, toys, shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from ood_perception.simulation.known import BLACK, RUBBER, STEEL, grey
from ood_perception.simulation.shapes import Part
from ood_perception.simulation.textures import colour, pattern


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


def animal(rng: Generator) -> list[Part]:
    """Four-legged animal from cat to horse, or a bird; it faces +x."""
    tone = np.array(
        [
            [0.55, 0.4, 0.25],
            [0.15, 0.12, 0.1],
            [0.8, 0.75, 0.68],
            [0.45, 0.45, 0.45],
            [0.6, 0.3, 0.12],
        ][int(rng.integers(5))],
        np.float32,
    )
    other = np.array([[0.9, 0.88, 0.84], [0.06, 0.05, 0.05]][int(rng.integers(2))], np.float32)
    m = pattern(
        rng,
        str(rng.choice(['fur', 'fur', 'fur', 'blotches', 'stripes'])),
        tone,
        other if rng.random() < 0.5 else tone * 0.7,
    )
    k = float(rng.choice([0.3, 0.5, 0.8, 1.3])) * rng.uniform(0.8, 1.2)
    leg, body, fat = (
        k * rng.uniform(0.35, 0.75),
        k * rng.uniform(0.5, 0.8),
        k * rng.uniform(0.17, 0.32),
    )
    z = leg + fat * 0.8
    neck, lift = k * rng.uniform(0.2, 0.5), rng.uniform(0.2, 1.2)
    hx, hz = body + np.cos(lift) * neck, z + np.sin(lift) * neck + fat * 0.3
    parts = [
        Part('ellipsoid', (0, 0, z), (body, fat * 0.9, fat), m, repeat=1.5),
        Part(
            'ellipsoid',
            (body * 0.5, 0, z + fat * 0.1),
            (body * 0.5, fat, fat * 1.1),
            m,
            repeat=1.5,
        ),
        Part('ellipsoid', (-body * 0.6, 0, z), (body * 0.42, fat, fat * 1.05), m, repeat=1.5),
        Part(
            'cylinder',
            ((body * 0.8 + hx) / 2, 0, (z + hz) / 2),
            (fat * 0.55, fat * 0.5, neck * 0.8),
            m,
            turn=(0, np.pi / 2 - lift, 0),
            taper=0.7,
            repeat=1.5,
        ),
        Part('ellipsoid', (hx, 0, hz), (fat * 0.75, fat * 0.5, fat * 0.55), m, repeat=1.5),
        Part(
            'ellipsoid',
            (hx + fat * 0.7, 0, hz - fat * 0.2),
            (fat * 0.5, fat * 0.3, fat * 0.28),
            m * 0.8,
            repeat=1.5,
        ),
        Part(
            'cylinder',
            (-body * 1.1, 0, z),
            (fat * 0.12, fat * 0.12, k * 0.3),
            m,
            turn=(0, rng.uniform(-2.6, -0.6), 0),
        ),
    ]
    gait = rng.uniform(-0.35, 0.35)
    for i, x in enumerate((-0.75, -0.62, 0.6, 0.75)):
        a = gait * (1 if i % 2 else -1)
        parts.append(
            Part(
                'cylinder',
                (x * body - np.sin(a) * leg / 2, (0.5 if i % 2 else -0.5) * fat, leg * 0.55),
                (fat * 0.22, fat * 0.22, leg * 0.56),
                m * 0.92,
                turn=(0, a, 0),
                taper=1.5,
            )
        )
    for side in (-1, 1):
        parts.append(
            Part(
                'ellipsoid',
                (hx - fat * 0.2, side * fat * 0.3, hz + fat * 0.55),
                (fat * 0.12, fat * 0.08, fat * rng.uniform(0.2, 0.5)),
                m * 0.8,
            )
        )
    return parts


def tyre(rng: Generator) -> list[Part]:
    """A tyre lying or standing, or a heap of them."""
    parts = []
    tone = RUBBER if rng.random() < 0.75 else colour(rng)
    for k in range(int(rng.integers(1, 5))):
        r, thick = rng.uniform(0.25, 0.42), rng.uniform(0.08, 0.13)
        standing = rng.random() < 0.4
        x0, z0 = rng.uniform(-0.3, 0.3), 0.22 * k
        for i in range(16):
            a = i * np.pi / 8
            if standing:
                centre = (x0 + r * np.cos(a), 0.0, r + thick + r * np.sin(a))
                parts.append(
                    Part(
                        'ellipsoid',
                        centre,
                        (thick, thick, r * 0.3),
                        tone,
                        turn=(0, -a, 0),
                        gloss=0.15,
                    )
                )
            else:
                centre = (x0 + r * np.cos(a), r * np.sin(a), thick + z0)
                parts.append(
                    Part(
                        'ellipsoid',
                        centre,
                        (thick, r * 0.3, thick),
                        tone,
                        turn=(0, 0, a),
                        gloss=0.15,
                    )
                )
    return parts


def cones(rng: Generator) -> list[Part]:
    """Traffic cones and beacons thrown together."""
    tone = np.array([0.95, 0.35, 0.05], np.float32) if rng.random() < 0.7 else colour(rng)
    parts = []
    for i in range(int(rng.integers(1, 5))):
        h = rng.uniform(0.2, 0.45)
        lying = rng.random() < 0.3
        turn = (np.pi / 2 - 0.2, 0, rng.uniform(-2, 2)) if lying else (0, 0, 0)
        x, z = i * 0.45 + rng.uniform(-0.1, 0.1), 0.15 if lying else h
        parts.append(
            Part(
                'cylinder',
                (x, 0, z),
                (h * 0.38, h * 0.38, h),
                tone,
                turn=turn,
                taper=0.15,
                gloss=0.15,
            )
        )
        if not lying:
            parts.append(
                Part('cylinder', (x, 0, z), (h * 0.235, h * 0.235, h * 0.14), grey(0.9), taper=0.8)
            )
            parts.append(Part('box', (x, 0, 0.02), (h * 0.5, h * 0.5, 0.025), tone * 0.5))
    return parts


def ball(rng: Generator) -> list[Part]:
    """A ball or balloon of any size."""
    r = rng.uniform(0.1, 0.7)
    return [
        Part(
            'ellipsoid',
            (0, 0, r),
            (r, r, r * rng.uniform(0.8, 1.1)),
            material(rng),
            gloss=rng.uniform(0, 0.6),
            repeat=0.5 / r,
        )
    ]


def ladder(rng: Generator) -> list[Part]:
    """A ladder, rack or frame of bars, upright or fallen."""
    m, h, w = material(rng), rng.uniform(0.5, 1.3), rng.uniform(0.2, 0.45)
    turn = (rng.uniform(-1.2, 0.3), 0.0, rng.uniform(-0.7, 0.7))
    from ood_perception.simulation.shapes import rotation

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


def machine(rng: Generator) -> list[Part]:
    """Random assembly of solids: an unknown apparatus, toy or sculpture."""
    parts, k = [], rng.uniform(0.3, 1.1)
    palette = [material(rng) for _ in range(int(rng.integers(1, 4)))]
    for _ in range(int(rng.integers(3, 12))):
        s = rng.uniform(0.08, 0.5, 3) * k
        x, y, z = rng.uniform(-0.5, 0.5) * k, rng.uniform(-0.3, 0.3) * k, rng.uniform(0, 1.2) * k
        turn = tuple(rng.uniform(-1, 1, 3) * rng.choice([0.0, 1.0]))
        parts.append(
            Part(
                str(rng.choice(['box', 'ellipsoid', 'cylinder'])),
                (x, y, max(z, float(s.max()) * 0.9)),
                tuple(s),
                palette[int(rng.integers(len(palette)))],
                turn=turn,
                gloss=rng.uniform(0, 0.7),
                taper=rng.uniform(0.2, 1.3),
                repeat=1 / k,
            )
        )
    drop = min(p.centre[2] - max(p.size) for p in parts)
    for p in parts:
        p.centre = (p.centre[0], p.centre[1], p.centre[2] - max(drop, 0))
    return parts


def rock(rng: Generator) -> list[Part]:
    """Rocks or rubble."""
    m = pattern(
        rng,
        str(rng.choice(['grain', 'blotches', 'plain'])),
        grey(rng.uniform(0.2, 0.6)) * rng.uniform(0.85, 1.15, 3).astype(np.float32),
        grey(0.3),
    )
    parts = []
    for _ in range(int(rng.integers(1, 6))):
        a, b, c = rng.uniform(0.15, 0.55, 3)
        parts.append(
            Part(
                str(rng.choice(['ellipsoid', 'box'])),
                (rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3), c * 0.7),
                (a, b, c),
                m,
                turn=(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(-1, 1)),
            )
        )
    return parts


def bag(rng: Generator) -> list[Part]:
    """Rubbish bags, sacks, crumpled cloth."""
    tone = [BLACK * 2, grey(0.85), np.array([0.1, 0.2, 0.5], np.float32), colour(rng)][
        int(rng.integers(4))
    ]
    m = pattern(rng, str(rng.choice(['plain', 'grain', 'blotches'])), tone, tone * 1.5)
    parts = []
    for i in range(int(rng.integers(1, 5))):
        r = rng.uniform(0.2, 0.42)
        x = (i - 1) * 0.5 + rng.uniform(-0.15, 0.15)
        parts.append(
            Part(
                'ellipsoid',
                (x, rng.uniform(-0.2, 0.2), r * 0.8),
                (r, r, r * 0.85),
                m,
                gloss=0.35,
                repeat=2.0,
            )
        )
        parts.append(
            Part(
                'cylinder',
                (x, 0, r * 1.65),
                (r * 0.2, r * 0.2, r * 0.25),
                m,
                taper=1.8,
                gloss=0.35,
            )
        )
    return parts


UNKNOWN: dict[str, tuple[Callable[[Generator], list[Part]], float]] = {
    'crate': (crate, 0.0),
    'barrel': (barrel, 0.0),
    'sofa': (sofa, 0.0),
    'chair': (chair, 0.0),
    'animal': (animal, 0.02),
    'tyre': (tyre, 0.0),
    'cones': (cones, 0.0),
    'ball': (ball, 0.0),
    'ladder': (ladder, 0.0),
    'suitcase': (suitcase, 0.0),
    'cart': (cart, 0.0),
    'plant_pot': (plant_pot, 0.0),
    'machine': (machine, 0.0),
    'rock': (rock, 0.09),
    'bag': (bag, 0.07),
}
"""Kind -> (function that makes its parts, roughness in metres of its outline)."""
