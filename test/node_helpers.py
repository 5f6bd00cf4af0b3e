# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Real node processes and a real client for the tests of the node."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

# Stretches every wait, for machines that are busy with other things.
PATIENCE = float(os.environ.get('OOD_TEST_PATIENCE', '1'))
ROOT = Path(__file__).resolve().parents[1]
TYPES = {
    'heatmap': Image,
    'score': Image,
    'instances': Image,
    'overlay': Image,
    'detections_json': String,
    'heatmap/compressed': CompressedImage,
    'instances/compressed': CompressedImage,
    'overlay/compressed': CompressedImage,
}

PROFILE = {
    'name': 'tiny',
    'description': 'compact with random weights at a small size, to test the node',
    'image': {'short_side': 64},
    'segmentor': {'name': 'compact'},
    'score': {'name': 'llr'},
    'calibration': {'kind': 'platt', 'slope': 1.0, 'offset': 0.0},
    'prompts': {'name': 'components'},
    'mask_model': {'name': 'compact'},
}


def write_profile(folder: Path, **changes: Any) -> Path:
    """Profile of a real pipeline with random weights that runs in a few milliseconds."""
    path = folder / 'tiny.yaml'
    path.write_text(yaml.safe_dump({**PROFILE, **changes}), encoding='utf-8')
    return path


class NodeProcess:
    """`ood_node` as a process of its own, started with the arguments that launch_ros passes."""

    def __init__(self, folder: Path, name: str, remaps: dict[str, str] | None = None, **params):
        self.prepare(folder, name, remaps, **params)
        self.start()

    def prepare(
        self, folder: Path, name: str, remaps: dict[str, str] | None = None, **params
    ) -> None:
        self.name = name
        self.log = folder / f'{name}.log'
        file = folder / f'{name}.yaml'
        file.write_text(
            yaml.safe_dump(
                {'/**': {'ros__parameters': {'threads': 1, 'engine': 'eager', **params}}}
            ),
            encoding='utf-8',
        )
        self.command = [sys.executable, '-m', 'ood_perception.ros.main', '--ros-args']
        self.command += ['-r', f'__node:={name}', '--params-file', str(file)]
        for source, target in (remaps or {}).items():
            self.command += ['-r', f'{source}:={target}']
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=ROOT, env=os.environ.copy()
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text(encoding='utf-8', errors='replace')

    def stop(self, how: int = signal.SIGINT, timeout: float = 40.0) -> int:
        if self.alive:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout)
            raise AssertionError(f'the node did not end:\n{self.text()[-4000:]}') from None


@contextlib.contextmanager
def client_of(process: NodeProcess, name: str, active: bool = True) -> Iterator[Client]:
    """A client of a node, from its becoming active on; it has to end well, without a traceback."""
    client = Client(rclpy.create_node(f'client_{os.getpid()}'), name)
    client.process = process  # type: ignore[attr-defined]
    if active:
        client.wait_active(process)
    yield client
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


class Client:
    """Everything a test needs to talk to a node: topics, services, parameters, lifecycle."""

    def __init__(self, ros_node: Any, node: str):
        self.ros = ros_node
        self.node = node
        self.got: dict[str, list[Any]] = {}
        self._publishers: dict[tuple[str, Any], Any] = {}
        self._clients: dict[str, Any] = {}
        ros_node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        self.statuses: dict[str, dict[str, Any]] = {}

    def spin(self, condition=lambda: False, timeout: float = 30.0) -> bool:
        end = time.monotonic() + timeout * (PATIENCE if timeout >= 5 else 1)
        while not condition():
            if time.monotonic() > end:
                return False
            rclpy.spin_once(self.ros, timeout_sec=0.02)
        return True

    def listen(self, *topics: str, camera: str = '', qos: Any = 10) -> None:
        """Subscribe to outputs; messages pile up in `got[topic]`."""
        for topic in topics:
            name = f'{camera}/{topic}' if camera else topic
            self.got[name] = []
            self.ros.create_subscription(
                TYPES[topic], f'/{self.node}/{name}', self.got[name].append, qos
            )

    def publish(self, topic: str, message: Any) -> None:
        key = (topic, type(message))
        if key not in self._publishers:
            self._publishers[key] = self.ros.create_publisher(type(message), topic, 10)
        self._publishers[key].publish(message)

    def forget(self, topic: str, kind: Any) -> None:
        """Withdraw a publisher, as a camera that dies does."""
        self.ros.destroy_publisher(self._publishers.pop((topic, kind)))

    def feed(self, topic: str, message: Any, until, timeout: float = 60.0, step: int = 1) -> bool:
        """Publish with rising stamps, ten times a second, until a condition holds."""
        end = time.monotonic() + timeout * (PATIENCE if timeout >= 5 else 1)
        while not until():
            if time.monotonic() > end:
                return False
            message.header.stamp.sec += step
            self.publish(topic, message)
            self.spin(until, 0.1)
        return True

    def call(self, kind: Any, name: str, request: Any, timeout: float = 60.0) -> Any:
        """
        Call a service of the node, by the name below it.

        A service is ready for a client before it knows where to answer it (Fast DDS then waits for
        100 ms and drops the answer): an answer that stays out is asked for again, but of a
        transition, which must not happen twice.
        """
        first = name not in self._clients
        if first:
            self._clients[name] = self.ros.create_client(kind, f'/{self.node}/{name}')
        client = self._clients[name]
        assert client.wait_for_service(timeout * PATIENCE), f'no service {name}'
        if first:
            self.spin(timeout=0.2)
        tries = 1 if kind is ChangeState else 3
        for _ in range(tries):
            future = client.call_async(request)
            if self.spin(future.done, timeout / tries):
                return future.result()
        raise AssertionError(f'no answer from {name}')

    def set_bool(self, name: str, value: bool) -> Any:
        return self.call(SetBool, name, SetBool.Request(data=value))

    def trigger(self, name: str) -> Any:
        return self.call(Trigger, name, Trigger.Request())

    def set(self, **values: Any) -> list[Any]:
        changes = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        request = SetParameters.Request(parameters=changes)
        return self.call(SetParameters, 'set_parameters', request).results

    def parameter(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        value = self.call(GetParameters, 'get_parameters', request).values[0]
        return rclpy.parameter.parameter_value_to_python(value)

    def state(self) -> int:
        return self.call(GetState, 'get_state', GetState.Request()).current_state.id

    def change(self, transition: str) -> bool:
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, 'change_state', request, 120.0).success

    def wait_active(self, process: NodeProcess, timeout: float = 120.0) -> None:
        end = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < end:
            assert process.alive, process.text()[-4000:]
            with contextlib.suppress(AssertionError):
                if self.state() == State.PRIMARY_STATE_ACTIVE:
                    return
            self.spin(timeout=0.1)
        process.process.kill()
        raise AssertionError(f'not active:\n{process.text()[-4000:]}')

    def values(self, part: str = 'camera') -> dict[str, str]:
        """Key values of the newest diagnostics of a camera (or 'pipeline')."""
        return self.statuses.get(part, {}).get('values', {})

    def count(self, key: str, part: str = 'camera') -> int:
        return int(self.values(part).get(key, 0))

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, part = status.name.partition(': ')
            if node == f'/{self.node}':
                self.statuses[part] = {
                    'level': status.level,
                    'message': status.message,
                    'hardware_id': status.hardware_id,
                    'values': {v.key: v.value for v in status.values},
                }


def process(worker: Any, waiting: list[Any]) -> None:
    """Decode, compute and publish a batch, as a worker does in its thread."""
    batch = worker.decode(waiting)
    if batch.frames:
        worker.publish(batch, worker.compute(batch))


def image(pixels: np.ndarray, encoding: str = 'rgb8', frame: str = 'camera') -> Image:
    """sensor_msgs/Image of an array (H, W) or (H, W, C)."""
    message = Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels[0].nbytes,
        data=array.array('B', pixels.tobytes()),
    )
    message.header.frame_id = frame
    return message


def compressed(pixels: np.ndarray, suffix: str = '.jpg') -> CompressedImage:
    """sensor_msgs/CompressedImage of an RGB array."""
    import cv2

    _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
    form = 'jpeg' if suffix == '.jpg' else 'png'
    message = CompressedImage(format=form, data=array.array('B', data.tobytes()))
    message.header.frame_id = 'camera'
    return message


def picture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Smooth uint8 (H, W, 3) picture with a bright block."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[0:height, 0:width]
    pixels = np.stack([u * 255 // width, v * 255 // height, (u + v) % 256], -1).astype(np.uint8)
    y, x = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    pixels[y : y + height // 4, x : x + width // 4] = (250, 20, 240)
    return pixels


def pixels(message: Image) -> np.ndarray:
    """Array of a heatmap, score, instances or overlay message."""
    dtype = {'mono8': 'u1', 'rgb8': 'u1', 'mono16': '<u2', '32FC1': '<f4'}[message.encoding]
    data = np.frombuffer(message.data, dtype)
    shape = (message.height, message.width) + ((3,) if message.encoding == 'rgb8' else ())
    return data.reshape(shape)


def rows(message: String) -> list[dict[str, Any]]:
    return json.loads(message.data)['detections']
