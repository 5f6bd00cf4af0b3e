# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Set up a process for large images: kept heap blocks and a big transport segment.

Call :func:`prepare` before ``rclpy.init``; afterwards the middleware has read its settings.
"""

from __future__ import annotations

import os
from pathlib import Path

from ood_perception.host_cpu import spin_briefly
from ood_perception.host_memory import keep_freed_memory
from ood_perception.transport import profile_variables, transport_profile

BUILTIN_VARIABLE = 'FASTDDS_BUILTIN_TRANSPORTS'
"""Environment variable with which a user chooses among Fast DDS's own transports."""

STOCK_VARIABLE = 'OOD_STOCK_TRANSPORT'
"""Set to 1, it keeps the stock transports in this process and those that it starts."""


def prepare() -> None:
    """
    Set up memory, threads and transport of this process; harmless when called twice.

    Call it before torch is imported and before ``rclpy.init``.
    """
    keep_freed_memory()
    spin_briefly()
    apply_transport_profile()


def apply_transport_profile() -> Path | None:
    """
    Make Fast DDS use the shipped profile, unless the environment names one already.

    ``OOD_STOCK_TRANSPORT=1`` keeps the stock transports; so does ``FASTDDS_BUILTIN_TRANSPORTS``,
    which our profile would overrule, unless a profile is named as well; so does an empty variable,
    which is then removed, since Fast DDS would look for a file of no name. A profile under the
    name that another distribution reads is used, too. Other middlewares ignore the variables.

    Returns:
        The profile that is now in force, None for the stock transports.
    """
    used, other = profile_variables()
    for name in (used, other):
        if name in os.environ:
            chosen = os.environ[name]
            break
    else:
        own = not os.environ.get(BUILTIN_VARIABLE)
        chosen = str(transport_profile() or '') if own else ''
    if os.environ.get(STOCK_VARIABLE) == '1' or not chosen:
        for name in (used, other):
            if os.environ.pop(name, None) == '':
                os.environ[STOCK_VARIABLE] = '1'
        return None
    os.environ[used] = chosen
    return Path(chosen)
