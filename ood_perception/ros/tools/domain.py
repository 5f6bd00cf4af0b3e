# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A ROS domain of one's own: a run on this machine that neither hears robots nor is heard."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAFE_DOMAINS = (*range(1, 102), *range(215, 233))
"""
Domain ids whose ports lie outside of those that Linux gives to connections (32768 to 60999), but
0, which everybody has who sets none.
"""

FIRST_PORTS, PORTS_PER_DOMAIN = (7400, 7410), 250
"""Where RTPS discovers by multicast and where its first participant listens, in domain 0."""


class NoFreeDomain(RuntimeError):
    """Every domain id is taken by somebody on this machine."""


@contextlib.contextmanager
def private_domain() -> Iterator[int]:
    """
    Set a free ROS_DOMAIN_ID and confine discovery to this machine, as long as the block lasts.

    Contexts and processes that are started within it use them. A lock keeps two runs of this
    machine apart, and a port in use tells of other nodes.

    Raises:
        NoFreeDomain: none is left.
    """
    domains = list(SAFE_DOMAINS)
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        lock = _lock(domain)
        if lock is None:
            continue
        with lock:
            if not _in_use(domain):
                with _environment(
                    ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST'
                ):
                    yield domain
                return
    raise NoFreeDomain(f'all {len(domains)} ROS domain ids are in use on this machine')


@contextlib.contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    if os.environ.get('ROS_DISTRO') == 'humble':  # later distributions warn about it
        wanted['ROS_LOCALHOST_ONLY'] = '1'
    before = {name: os.environ.pop(name, None) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, old in before.items():
            del os.environ[name]
            if old is not None:
                os.environ[name] = old


def _lock(domain: int) -> Any:
    """Open file that is locked until it is closed, or None when another run has it."""
    name = f'ood_perception_{os.getuid()}_domain_{domain}.lock'
    path = Path(tempfile.gettempdir()) / name
    try:
        file = path.open('w', encoding='ascii')
    except OSError:  # a temporary folder that cannot be written: the port alone decides
        return contextlib.nullcontext()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _in_use(domain: int) -> bool:
    """Whether a participant of this machine listens on the domain's first ports."""
    for port in FIRST_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', port + PORTS_PER_DOMAIN * domain))
            except OSError:
                return True
    return False
