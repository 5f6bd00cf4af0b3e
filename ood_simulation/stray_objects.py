# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Unknown things that stray onto a road: animals, tyres, cones, balls, rubble, bags, machines."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ood_simulation.household import material
from ood_simulation.shapes import Part
from ood_simulation.textures import colour, pattern
from ood_simulation.vocabulary import BLACK, RUBBER, grey


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
