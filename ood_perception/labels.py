# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The two kinds of label maps, and the way from one to the other.

Training labels hold class ids, 254 where an object belongs to no class, 255 where no loss looks.
The truth of an evaluation holds 0 where a pixel is known, 1 where it is unknown, 255 where it does
not count.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

Map = TypeVar('Map')  # numpy array or torch tensor of integers


class Label(IntEnum):
    """Values of a training label that are no class ids."""

    UNKNOWN = 254
    VOID = 255


class Truth(IntEnum):
    """Values of an evaluation's truth."""

    KNOWN = 0
    UNKNOWN = 1
    IGNORE = 255


def truth_of(label: Map) -> Map:
    """
    Turn a training label, (..., H, W) class ids, 254 unknown, 255 void, into a truth.

    That is an array or tensor of the same type and shape: 0 known, 1 unknown, 255 ignored.
    """
    values: Any = label
    truth = values * 0
    truth[values == Label.UNKNOWN] = Truth.UNKNOWN
    truth[values == Label.VOID] = Truth.IGNORE
    return truth
