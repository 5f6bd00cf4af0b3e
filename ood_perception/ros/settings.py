# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The node's parameters as data: one dataclass field each, with description, unit and range.

The same data declares them, checks a change, fills the reference page and ``config/ood.yaml``, so
that the four cannot drift apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ood_perception.ros.qos import PROFILES

LIVE = 'live'
UNCONFIGURED = 'unconfigured'
START = 'start'

COLORMAPS = ('turbo', 'inferno', 'viridis', 'hot', 'jet')
QOS_NAMES = tuple(PROFILES)
TRANSPORTS = ('raw', 'compressed')
DEPTHS = ('none', 'image', 'cloud')
ENGINE_NAMES = (
    'auto',
    'eager',
    'compiled',
    'tensorrt',
    'onnxruntime',
    'openvino',
    'openvino_bf16',
    'openvino_int8',
)
"""'auto' and the entries of `engines.ENGINES`, whose import would load torch."""


def _parameter(
    default: Any,
    text: str,
    *,
    change: str = LIVE,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    meta = {
        'text': text,
        'change': change,
        'unit': unit,
        'low': low,
        'high': high,
        'choices': tuple(choices),
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


@dataclass
class Settings:
    """Values of all parameters; the metadata of each field describes it."""

    profile: str = _parameter(
        'compact',
        'Pipeline to run: the name of a profile or the path of a profile YAML file.',
        change=UNCONFIGURED,
    )
    device: str = _parameter(
        'auto',
        'Where to compute: auto (a GPU where there is one), cpu, cuda or cuda:N.',
        change=UNCONFIGURED,
    )
    engine: str = _parameter(
        'auto',
        'How to run the network; auto: the fastest that agrees with eager.',
        change=UNCONFIGURED,
        choices=ENGINE_NAMES,
    )
    threads: int = _parameter(
        0,
        'CPU threads of the network; 0 = as torch chooses.',
        change=UNCONFIGURED,
        low=0,
        high=256,
    )
    autostart: bool = _parameter(
        True,
        'Configure and activate by itself; false waits for a lifecycle manager.',
        change=START,
    )
    release_on_deactivate: bool = _parameter(
        False, 'Give the networks and the device memory back while inactive.'
    )
    cameras: list[str] = _parameter(  # noqa: RUF009
        [''],
        'Names of the cameras, each read from <name>/image_raw; empty = one camera on the topic '
        'image.',
        change=UNCONFIGURED,
    )
    image_transport: str = _parameter(
        'raw',
        'Input as sensor_msgs/Image (raw) or its <topic>/compressed sibling (compressed).',
        change=UNCONFIGURED,
        choices=TRANSPORTS,
    )
    input_qos: str = _parameter(
        'latest',
        'QoS of the image subscriptions; latest (best effort, depth 1) matches every camera.',
        change=UNCONFIGURED,
        choices=QOS_NAMES,
    )
    output_qos: str = _parameter(
        'reliable',
        'QoS of the outputs; reliable matches every subscriber.',
        change=UNCONFIGURED,
        choices=QOS_NAMES,
    )
    max_rate: float = _parameter(
        0.0,
        'Frames per second and camera to process at most; 0 = all it can.',
        unit='Hz',
        low=0.0,
        high=1000.0,
    )
    detect_rate: float = _parameter(
        0.0,
        'Frames per second and camera to detect in; heatmap, instances, overlay and detections of '
        'the frames between are moved to them by optical flow. 0 = detect in every frame.',
        unit='Hz',
        low=0.0,
        high=1000.0,
    )
    max_batch: int = _parameter(
        4, 'Frames of different cameras to process together at most.', low=1, high=64
    )
    max_megapixels: float = _parameter(
        16.0, 'Larger images are refused.', unit='Mpx', low=0.01, high=1000.0
    )
    intensity_range: list[float] = _parameter(  # noqa: RUF009
        [0.0, 0.0],
        'Values of images of more than 8 bits (mono16, 16UC1, 32FC1, ...) that become black and '
        'white; [0, 0] = estimated from the images and held.',
    )
    warm_up_size: list[int] = _parameter(  # noqa: RUF009
        [0, 0],
        'Width and height of the images to get ready for while configuring; 0, 0: learnt from '
        "each camera's first image.",
        change=UNCONFIGURED,
        unit='px',
    )
    stale_after: float = _parameter(
        2.0,
        'Without an image, or without a result, for this long (and three of its usual intervals) '
        'a camera is reported.',
        unit='s',
        low=0.1,
        high=3600.0,
    )
    detection_threshold: float = _parameter(
        0.5, 'Objects of a lower score are not published.', low=0.0, high=1.0
    )
    alarms_per_hour: float = _parameter(
        0.0,
        'False alarms an hour that are accepted: takes the place of detection_threshold once '
        '~/calibrate or `ood calibrate-site` has measured normal operation. 0 = not used.',
        low=0.0,
        high=3600.0,
    )
    alarms_file: str = _parameter(
        '',
        'File of what ~/calibrate has measured: read while configuring, written when measuring '
        'stops; empty = keep it in memory only.',
        change=UNCONFIGURED,
    )
    min_area: int = _parameter(
        0, 'Objects of fewer pixels are not published.', unit='px', low=0, high=100_000_000
    )
    ignore_zones: list[str] = _parameter(  # noqa: RUF009
        [''],
        'Parts of every image that do not count, such as the own bonnet: polygons of corners x,y '
        'as shares 0..1 of width and height; nothing in them is unknown, and objects that lie '
        'mostly in them are left out.',
    )
    publish_score: bool = _parameter(
        False, 'Also publish the raw score as a 32FC1 image on ~/score.'
    )
    publish_compressed: bool = _parameter(
        True,
        'Offer heatmap and overlay (JPEG) and instances (PNG) on .../compressed too.',
        change=UNCONFIGURED,
    )
    jpeg_quality: int = _parameter(
        85, 'Quality of the compressed heatmap and overlay.', low=1, high=100
    )
    overlay_alpha: float = _parameter(
        0.6, 'Opacity of the heatmap in the overlay where the probability is 1.', low=0.0, high=1.0
    )
    overlay_colormap: str = _parameter(
        'turbo', 'Colours of the heatmap in the overlay.', choices=COLORMAPS
    )
    overlay_labels: bool = _parameter(
        True, 'Write the id and score of each object into the overlay.'
    )
    depth: str = _parameter(
        'none',
        'Source of 3D points: none, a registered depth image (image) or a registered point cloud '
        '(cloud) of the same size as the camera image.',
        change=UNCONFIGURED,
        choices=DEPTHS,
    )
    depth_slop: float = _parameter(
        0.1,
        'Largest difference of the stamps of image and depth, 0 = must be equal; points and '
        'detections wait this long for the depth, at least 0.1 s.',
        unit='s',
        low=0.0,
        high=10.0,
    )
    points_threshold: float = _parameter(
        0.5,
        'Points of a lower probability of being unknown are not published, nor are such pixels '
        'outside of objects unknown in ~/mask.',
        low=0.0,
        high=1.0,
    )
    mask_size: list[int] = _parameter(  # noqa: RUF009
        [0, 0],
        'Width and height of ~/mask and ~/confidence, those of the point cloud that a costmap '
        'layer reads beside them; 0, 0: as the image.',
        unit='px',
    )
    points_stride: int = _parameter(
        2,
        'Every how many pixels, in both directions, one point is made.',
        unit='px',
        low=1,
        high=64,
    )
    min_range: float = _parameter(
        0.1, 'Points nearer than this are left out.', unit='m', low=0.0, high=1000.0
    )
    max_range: float = _parameter(
        50.0, 'Points farther than this are left out.', unit='m', low=0.0, high=100000.0
    )
    gate_zone: str = _parameter(
        '0.3,0.7 0.7,0.7 0.9,1 0.1,1',
        'Polygon that ~/state watches, corners x,y as shares 0..1 of width and height; '
        'as it is, the lane ahead of a camera that looks straight on.',
    )
    gate_area: int = _parameter(
        400,
        'Smaller objects do not count for ~/state.',
        unit='px',
        low=0,
        high=100_000_000,
    )
    gate_on_road: bool = _parameter(
        True,
        'Only objects on the road count for ~/state; a profile without classes cannot tell, '
        'there all do.',
    )
    gate_looks: int = _parameter(
        2,
        'Detections in a row with something in the zone that it takes for ~/state to say so; 1 '
        'stops a detection earlier, and for every false alarm.',
        low=1,
        high=100,
    )
    gate_hold: float = _parameter(
        1.0,
        'After it was last seen, an object counts as still there for this long.',
        unit='s',
        low=0.0,
        high=60.0,
    )
    gate_timeout: float = _parameter(
        1.0,
        'Without a result of an image that came within this time, ~/state is blind.',
        unit='s',
        low=0.05,
        high=60.0,
    )
    memory_file: str = _parameter(
        '',
        'File of what ~/learn_normal has learnt: read while configuring, written when learning '
        'stops; empty = keep it in memory only.',
        change=UNCONFIGURED,
    )
    site_folder: str = _parameter(
        '',
        'Folder in which ~/accept and ~/report keep objects with their pictures; the memory takes '
        'the accepted ones in while configuring. See `ood site`.',
        change=UNCONFIGURED,
    )
    object_id: str = _parameter(
        '',
        'Object that ~/accept and ~/report are about: its id, or CAMERA/ID with several cameras.',
    )
    snapshot_folder: str = _parameter(
        '~/.ros/ood_snapshots', 'Folder in which ~/save_snapshot writes one folder a snapshot.'
    )

    def camera_names(self) -> list[str]:
        """Names in `cameras` without empty ones; [''] stands for the single unnamed camera."""
        return [name for name in self.cameras if name] or ['']


@dataclass
class CameraSettings:
    """Parameters ``<camera>.<field>`` of one named camera; the defaults mean 'as for all'."""

    image_transport: str = _parameter(
        '',
        'As image_transport, for this camera; empty = as for all.',
        change=UNCONFIGURED,
        choices=('', *TRANSPORTS),
    )
    input_qos: str = _parameter(
        '',
        'As input_qos, for this camera; empty = as for all.',
        change=UNCONFIGURED,
        choices=('', *QOS_NAMES),
    )
    max_rate: float = _parameter(
        -1.0,
        'As max_rate, for this camera; negative = as for all.',
        unit='Hz',
        low=-1.0,
        high=1000.0,
    )


def fields(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Fields of `Settings` or `CameraSettings` by name, in the order of declaration."""
    return {field.name: field for field in dataclasses.fields(kind)}


def default(field: dataclasses.Field[Any]) -> Any:
    """Default value of a field."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def constraint(field: dataclasses.Field[Any]) -> str:
    """What values are allowed, in words."""
    meta = field.metadata
    if meta['choices']:
        return 'One of: ' + ', '.join(choice or "''" for choice in meta['choices']) + '.'
    if meta['low'] is not None:
        return f'{meta["low"]:g} .. {meta["high"]:g}.'
    return ''
