# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""ROS 2, its middleware and its domain, and what large images need of the transport."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from ood_perception.diagnosis.software import ERROR, OK, WARN, Finding, version
from ood_perception.transport import profile_variables, transport_profile

FAST, CYCLONE, ZENOH = 'rmw_fastrtps_cpp', 'rmw_cyclonedds_cpp', 'rmw_zenoh_cpp'

ROUTER = ('localhost', 7447)
"""Where the Zenoh router listens."""

LARGEST_DOMAIN = 232
EPHEMERAL = range(102, 215)
"""Domain ids whose ports Linux may give to any connection."""

RECEIVE_BUFFER = 4 * 2**20

MESSAGES = {
    'vision_msgs': '~/detections, ~/detections_3d, ~/label_info and ~/vision_info '
    '(~/detections_json says the same)',
    'foxglove_msgs': '~/annotations',
}
"""Message packages that the node can do without, and the topics that go with them."""


def rmw() -> str:
    """Name of the middleware that rclpy will load."""
    return os.environ.get('RMW_IMPLEMENTATION') or FAST


def check_ros() -> Iterator[Finding]:
    """ROS 2, its middleware and its message packages, without importing rclpy."""
    if importlib.util.find_spec('rclpy') is None:
        remedy = 'source /opt/ros/$ROS_DISTRO/setup.bash (ls /opt/ros shows the names)'
        yield Finding('ros', ERROR, 'rclpy cannot be imported', remedy)
        return
    distro = os.environ.get('ROS_DISTRO', '')
    yield Finding('ros', OK, distro or f'rclpy {version("rclpy") or ""} from wheels')
    name = rmw()
    if _installed(name):
        yield Finding('rmw', OK, name)
    else:
        package = f'ros-{distro or "<distro>"}-{name.replace("_", "-")}'
        remedy = f'sudo apt install {package}, or unset RMW_IMPLEMENTATION'
        yield Finding('rmw', ERROR, f'RMW_IMPLEMENTATION={name} is not installed', remedy)
    absent = [name for name in MESSAGES if importlib.util.find_spec(name) is None]
    if absent:
        text = '; '.join(f'no {MESSAGES[name]}: {name} is absent' for name in absent)
        debs = ' '.join(f'ros-{distro or "<distro>"}-{name.replace("_", "-")}' for name in absent)
        level = WARN if 'vision_msgs' in absent else OK
        yield Finding('messages', level, text, f'sudo apt install {debs}, if you need them')


def check_domain() -> Iterator[Finding]:
    """ROS_DOMAIN_ID and what confines discovery."""
    text = os.environ.get('ROS_DOMAIN_ID', '')
    try:
        number = int(text or 0)
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_DOMAIN:
        text = f'ROS_DOMAIN_ID={text} is not a number from 0 to {LARGEST_DOMAIN}'
        yield Finding('domain', ERROR, text, 'export ROS_DOMAIN_ID=1, the same for all nodes')
    elif number in EPHEMERAL and rmw() != ZENOH:
        text = f'ROS_DOMAIN_ID={number} uses ports that Linux gives to other connections'
        remedy = 'export ROS_DOMAIN_ID=1 (1 to 101, or 215 to 232), the same for all nodes'
        yield Finding('domain', WARN, text, remedy)
    else:
        yield Finding('domain', OK, f'ROS_DOMAIN_ID is {number}')
    if os.environ.get('ROS_LOCALHOST_ONLY') == '1' and os.environ.get('ROS_DISTRO') != 'humble':
        yield Finding(
            'discovery',
            WARN,
            'ROS_LOCALHOST_ONLY=1 hides other machines, under a name that is deprecated',
            'unset ROS_LOCALHOST_ONLY; export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST',
        )


def check_transport(image_bytes: int) -> Iterator[Finding]:
    """What the middleware in use needs for images of this size."""
    name = rmw()
    if name == CYCLONE:
        yield from _cyclone(image_bytes)
    elif name == ZENOH:
        yield from _zenoh()
    elif 'fastrtps' in name:
        yield from _fast(image_bytes)
    else:
        text = f'{name}: no advice for this middleware'
        yield Finding('transport', WARN, text, 'see its documentation on large messages')
    yield from _buffers(name)


def _fast(image_bytes: int) -> Iterator[Finding]:
    used, other = profile_variables()
    profile, shipped = os.environ.get(used, ''), transport_profile() or 'PATH/config/fastdds.xml'
    level, text, remedy = OK, profile, ''
    if not profile and os.environ.get(other):
        level, text = WARN, f'{other} is set, but this Fast DDS reads {used}'
        remedy = f'export {used}="${other}"'
    elif not profile:
        level, remedy = WARN, f'export {used}={shipped}, also where the camera driver starts'
        text = (
            'none set: our node takes its own, but other processes have the stock segment of '
            '512 KB, which most large images do not fit in'
        )
    elif not Path(profile).is_file():
        level, text = ERROR, f'{used}: {profile} does not exist'
        remedy = f'export {used}={shipped}'
    yield Finding('fast dds profile', level, text, remedy)
    memory = Path('/dev/shm')
    if not memory.is_dir():
        return
    free = shutil.disk_usage(memory).free
    level, text, remedy = OK, f'{free / 2**20:.0f} MB free in /dev/shm', ''
    if free < 64 * 2**20 + 8 * image_bytes:
        level = ERROR
        remedy = 'docker run --shm-size=1g (or --ipc=host); sudo mount -o remount,size=1g /dev/shm'
    elif left := left_behind(memory):
        level, text = WARN, f'{text}; {left / 2**20:.0f} MB are of processes that were killed'
        remedy = 'fastdds shm clean (or, while no node runs, rm /dev/shm/fastdds_*)'
    yield Finding('shared memory', level, text, remedy)


def left_behind(folder: Path) -> int:
    """Bytes of Fast DDS's segments in a folder whose process is gone: nobody holds their lock."""
    import fcntl

    size = 0
    for lock in folder.glob('fastdds_*_el'):
        segment = lock.with_name(lock.name.removesuffix('_el'))
        try:
            with lock.open('rb') as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            size += segment.stat().st_blocks * 512
        except OSError:  # in use, or of another user
            continue
    return size


def _cyclone(image_bytes: int) -> Iterator[Finding]:
    uri = os.environ.get('CYCLONEDDS_URI', '')
    files = [part for part in uri.split(',') if part.startswith('file://')]
    if missing := [f for f in files if not Path(f.removeprefix('file://')).is_file()]:
        text = f'CYCLONEDDS_URI: {missing[0]} does not exist'
        yield Finding('cyclone dds', ERROR, text, 'correct the path, or unset CYCLONEDDS_URI')
    elif not uri:
        yield Finding(
            'cyclone dds',
            WARN,
            f'no CYCLONEDDS_URI: its socket buffer of 1 MB does not hold an image of '
            f'{image_bytes / 2**20:.1f} MB',
            "export CYCLONEDDS_URI='<CycloneDDS><Domain><Internal>"
            '<SocketReceiveBufferSize min="10MB"/></Internal></Domain></CycloneDDS>\'',
        )
    else:
        yield Finding('cyclone dds', OK, uri[:120])


def _zenoh() -> Iterator[Finding]:
    own = [n for n in ('ZENOH_SESSION_CONFIG_URI', 'ZENOH_CONFIG_OVERRIDE') if os.environ.get(n)]
    try:
        with socket.create_connection(ROUTER, timeout=1):
            yield Finding('zenoh router', OK, f'one listens on {ROUTER[0]}:{ROUTER[1]}')
    except OSError:
        text = f'none on {ROUTER[0]}:{ROUTER[1]}'
        if own:
            yield Finding('zenoh router', OK, f'{text}; {", ".join(own)} may name another')
        else:
            text += ': without one nodes do not find each other'
            yield Finding('zenoh router', ERROR, text, 'ros2 run rmw_zenoh_cpp rmw_zenohd')
    if 'shared_memory' not in os.environ.get('ZENOH_CONFIG_OVERRIDE', '') and len(own) < 2:
        yield Finding(
            'zenoh shared memory',
            WARN,
            'not asked for: every image is copied through the loopback device',
            "export ZENOH_CONFIG_OVERRIDE='transport/shared_memory/enabled=true', also for the "
            'router and the camera driver',
        )


def _buffers(name: str) -> Iterator[Finding]:
    limit = Path('/proc/sys/net/core/rmem_max')
    if not limit.is_file() or name == ZENOH:  # which uses TCP
        return
    size = int(limit.read_text())
    wanted = 10 * 2**20 if name == CYCLONE else RECEIVE_BUFFER
    text = f'net.core.rmem_max is {size} bytes'
    if size >= wanted:
        yield Finding('socket buffers', OK, text)
        return
    # Without shared memory between its processes, Cyclone needs them on one machine, too.
    where = '' if name == CYCLONE else ' (between machines)'
    remedy = f'sudo sysctl -w net.core.rmem_max={8 * wanted} net.ipv4.ipfrag_time=3'
    yield Finding('socket buffers', WARN, f'{text}{where}', remedy)


def _installed(name: str) -> bool:
    """Whether the middleware's library is there; True where nobody can tell."""
    places = os.environ.get('LD_LIBRARY_PATH', '').split(os.pathsep)
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    places += [str(Path(prefix) / 'lib') for prefix in prefixes if prefix]
    found = [Path(place) for place in places if place and any(Path(place).glob('librmw_*'))]
    return not found or any((place / f'lib{name}.so').exists() for place in found)
