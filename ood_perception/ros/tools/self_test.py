# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Transport self-test: another process sends images like the camera's; arrivals are counted."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from ood_perception.diagnosis import ERROR, OK, WARN, Finding
from ood_perception.diagnosis.middleware import check_transport

TOPIC = '/ood_self_test/image'
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
    arrived: set[int] = set()
    command = [sys.executable, '-m', 'ood_perception.ros.tools.self_test', str(width), str(height)]
    command += [str(rate), str(count)]
    with tool_node('ood_self_test') as node:
        # the stamp's nanoseconds hold the number of the image
        node.create_subscription(
            Image, TOPIC, lambda m: arrived.add(m.header.stamp.nanosec), qos.profile('best_effort')
        )
        sender = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = sender.communicate(timeout=DISCOVERY + 3 * seconds + 20)
        except subprocess.TimeoutExpired:
            sender.kill()
            text = 'the sending process hangs'
            return Finding('transport', ERROR, text, 'unset RMW_IMPLEMENTATION, and try again')
        time.sleep(0.3)
    what = f'{len(arrived)} of {count} images of {width}x{height} at {rate:g} Hz arrived'
    if sender.returncode:
        last = (errors or '').strip().splitlines()[-1:] or ['no further text']
        return Finding('transport', ERROR, f'the sender failed: {last[0]}', 'see above')
    lost = count - len(arrived)
    if not lost:
        return Finding('transport', OK, what)
    return Finding(
        'transport',
        WARN if lost <= 0.05 * count else ERROR,
        what,
        f'{_remedy()}; or image_transport:=compressed; docs/troubleshooting.md says more',
    )


def _remedy() -> str:
    """What the middleware in use needs for large messages."""
    found = [f for f in check_transport(0) if f.level != OK and f.remedy]
    return '; '.join(f.remedy for f in found) or 'send smaller images, or fewer a second'


def send(width: int, height: int, rate: float, count: int) -> int:
    """Publish numbered images once a subscriber is there; 0, or 2 when nobody subscribes."""
    import numpy as np
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from ood_perception.ros import qos
    from ood_perception.ros.image_topic import ImageMessage
    from ood_perception.ros.tools.session import tool_node, wait_until

    with tool_node('ood_self_test_sender') as node:
        publisher = node.create_publisher(Image, TOPIC, qos.profile('default', 5))
        if not wait_until(lambda: publisher.get_subscription_count() > 0, DISCOVERY, None):
            print('nobody subscribes: discovery between two processes fails', file=sys.stderr)
            return 2
        time.sleep(0.5)
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        message = ImageMessage(height, width, 'rgb8')
        begin = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            header = Header()
            header.stamp.nanosec = number
            publisher.publish(message.write(pixels, header))
        time.sleep(0.5)
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Send images for the transport self-test.')
    for name, kind in (('width', int), ('height', int), ('rate', float), ('count', int)):
        parser.add_argument(name, type=kind)
    given = parser.parse_args()
    sys.exit(send(given.width, given.height, given.rate, given.count))
