# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, ERROR = 'ok', 'warn', 'error'


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        name: what was looked at.
        level: 'ok', 'warn' or 'error'.
        text: what was found.
        remedy: what to do about it, a command where there is one; '' where nothing is wrong.

    """

    name: str
    level: str
    text: str
    remedy: str = ''
