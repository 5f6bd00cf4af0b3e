# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, ERROR = 'ok', 'warn', 'error'


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str  # what was looked at
    level: str  # 'ok', 'warn' or 'error'
    text: str  # what was found
    # what to do about it, a command where there is one; '' where nothing is wrong
    remedy: str = ''
