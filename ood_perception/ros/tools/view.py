# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A compressed image topic as a moving picture in the browser, on this machine only.

A page with one motion-JPEG image, which every browser draws without scripts, WebGL or a network.
Rerun's viewer needs NumPy 2, which ROS 2 up to Kilted is not built against, and Foxglove's SDK
brings no viewer of its own. Each browser has a thread that waits for the newest picture, so one
that is slow skips pictures and one that leaves ends its thread; the node notices neither.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sensor_msgs.msg import CompressedImage

from ood_perception.ros import qos
from ood_perception.ros.tools.session import tool_node

TIMEOUT = 5.0
"""Seconds after which a browser that takes nothing is given up."""

PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>ood_perception</title>
<style>body{margin:0;background:#111}img{display:block;width:100vw;height:100vh;object-fit:contain}</style>
<img src="stream" alt="waiting for the first picture"></html>"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__(('127.0.0.1', port), _Handler)
        self._changed = threading.Condition()
        self._number, self._data = 0, b''

    def put(self, data: bytes) -> None:
        with self._changed:
            self._number, self._data = self._number + 1, data
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> tuple[int, bytes]:
        """Wait for a picture of a higher number; the newest one when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, timeout)
            return self._number, self._data

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that left."""


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Serve the page, or pictures until the browser leaves."""
        if self.path == '/stream':
            self._stream()
            return
        found = self.path == '/'
        self.send_response(200 if found else 404)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(PAGE if found else b'not here')

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=picture')
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        number = 0
        while True:
            number, data = self.server.after(number, 1.0)  # type: ignore[attr-defined]
            if data:  # also an old one, by which a browser that left is found out
                head = f'--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}'
                self.wfile.write(head.encode() + b'\r\n\r\n' + data + b'\r\n')

    def log_message(self, *args: Any) -> None:
        """Keep the terminal for the node's lines."""


@contextlib.contextmanager
def serve(topic: str = '/ood/overlay/compressed', port: int = 8080) -> Iterator[str]:
    """
    Show a sensor_msgs/CompressedImage topic (JPEG) while the `with` block lasts.

    Args:
        port: of 127.0.0.1, 0 = any that is free.

    Yields:
        The address to open.

    Raises:
        ValueError: the port cannot be used.
    """
    try:
        server = _Server(port)
    except (OSError, OverflowError) as error:
        raise ValueError(f'port {port} cannot be used ({error}); choose another one') from None
    with server, tool_node('ood_view') as node:
        node.create_subscription(
            CompressedImage, topic, lambda m: server.put(bytes(m.data)), qos.profile('latest')
        )
        thread = threading.Thread(target=server.serve_forever, name='ood view', daemon=True)
        thread.start()
        try:
            yield f'http://127.0.0.1:{server.server_port}/'
        finally:
            server.shutdown()
