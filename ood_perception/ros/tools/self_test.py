# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Transport self-test: another process sends images like the camera's; arrivals are counted."""

from __future__ import annotations

import subprocess
import sys
import time

from ood_perception.diagnosis import ERROR, OK, WARN, Finding
from ood_perception.diagnosis.middleware import check_transport

NAMESPACE = '/ood_self_test'
DISCOVERY = 10.0  # seconds for the two processes to find each other


def transport_finding(width: int, height: int, rate: float, seconds: float) -> Finding:
    """
    Send rgb8 images between two processes of this machine and count what arrives.

    Returns:
        'ok' when all arrived, 'warn' up to 5 % lost, 'error' beyond.
    """
    from sensor_msgs.msg import Image

    from ood_perception.ros import qos
    from ood_perception.ros.tools.session import tool_node

    count = max(1, round(rate * seconds))
    arrived: list[int] = []
    command = [sys.executable, '-m', 'ood_perception.ros.tools.self_test', str(width), str(height)]
    command += [str(rate), str(count)]
    with tool_node('ood_self_test') as node:
        node.create_subscription(
            Image,
            f'{NAMESPACE}/image_raw',
            lambda message: arrived.append(message.height),
            qos.profile('best_effort'),
        )
        sender = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = sender.communicate(timeout=DISCOVERY + 3 * seconds + 20)
        except subprocess.TimeoutExpired:
            sender.kill()
            text = 'the sending process hangs'
            return Finding('transport', ERROR, text, 'unset RMW_IMPLEMENTATION, and try again')
        time.sleep(0.3)
    if sender.returncode:
        last = (errors or '').strip().splitlines()[-1:] or ['no further text']
        return Finding('transport', ERROR, f'the sender failed: {last[0]}', 'see above')
    what = f'{len(arrived)} of {count} images of {width}x{height} at {rate:g} Hz arrived'
    lost = count - len(arrived)
    if not lost:
        return Finding('transport', OK, what)
    # What the middleware in use needs for large messages.
    found = '; '.join(f.remedy for f in check_transport(0) if f.level != OK and f.remedy)
    remedy = found or 'send smaller images, or fewer a second'
    return Finding(
        'transport',
        WARN if lost <= 0.05 * count else ERROR,
        what if arrived else f'{what}: discovery between two processes fails',
        f'{remedy}; or image_transport:=compressed; docs/troubleshooting.md says more',
    )


def send(width: int, height: int, rate: float, count: int) -> None:
    """Publish random images once a subscriber is there."""
    import numpy as np

    from ood_perception.bags.sources import Item, Source
    from ood_perception.ros.tools.camera import run_camera

    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    items = [Item(str(number), str(number), pixels) for number in range(count)]
    source = Source('self-test', rate, count, 0.0, False, lambda: iter(items))
    run_camera(source, namespace=NAMESPACE, wait=DISCOVERY)


if __name__ == '__main__':
    send(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
