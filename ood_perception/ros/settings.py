# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The node's parameters as data: one dataclass field each, with description, unit and range.

The same data declares them, checks a change, fills the reference page and ``config/ood.yaml``, so
that the four cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import functools
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
    'auto', 'eager', 'compiled', 'tensorrt', 'onnxruntime', 'openvino', 'openvino_bf16',
    'openvino_int8',
)  # fmt: skip
"""'auto' and the entries of `engines.ENGINES`, whose import would load torch."""


def _live(
    default: Any,
    text: str,
    within: tuple[float, float] | None = None,
    unit: str = '',
    *,
    change: str = LIVE,
    choices: Sequence[str] = (),
) -> Any:
    meta = {'text': text, 'change': change, 'unit': unit, 'within': within, 'choices': choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


_fixed = functools.partial(_live, change=UNCONFIGURED)


@dataclass
class Settings:
    """Values of all parameters; the metadata of each field describes it."""

    profile: str = _fixed(
        'compact', 'Pipeline to run: the name of a profile or the path of a profile YAML file.'
    )
    device: str = _fixed(
        'auto', 'Where to compute: auto (a GPU where there is one), cpu, cuda or cuda:N.'
    )
    engine: str = _fixed(
        'auto',
        'How to run the network; auto: the fastest that agrees with eager.',
        choices=ENGINE_NAMES,
    )
    threads: int = _fixed(0, 'CPU threads of the network; 0 = as torch chooses.', (0, 256))
    frames_in_flight: int = _fixed(
        1,
        'Frames that a CPU works on at once, each on its share of the threads; 2: more frames a '
        'second, each of them later. A GPU works on one.',
        (1, 16),
    )
    autostart: bool = _live(
        True,
        'Configure and activate by itself; false waits for a lifecycle manager.',
        change=START,
    )
    release_on_deactivate: bool = _live(
        False, 'Give the networks and the device memory back while inactive.'
    )
    cameras: list[str] = _fixed(  # noqa: RUF009
        [''],
        'Names of the cameras, each read from <name>/image_raw; empty = one camera on the topic '
        'image.',
    )
    image_transport: str = _fixed(
        'raw',
        'Input as sensor_msgs/Image (raw) or its <topic>/compressed sibling (compressed).',
        choices=TRANSPORTS,
    )
    input_qos: str = _fixed(
        'latest',
        'QoS of the image subscriptions; latest (best effort, depth 1) matches every camera.',
        choices=QOS_NAMES,
    )
    output_qos: str = _fixed(
        'reliable', 'QoS of the outputs; reliable matches every subscriber.', choices=QOS_NAMES
    )
    max_rate: float = _live(
        0.0,
        'Frames per second and camera to process at most; 0 = all it can.',
        (0.0, 1000.0),
        'Hz',
    )
    detect_rate: float = _live(
        0.0,
        'Frames per second and camera to detect in; heatmap, instances, overlay and detections of '
        'the frames between are moved to them by optical flow. 0 = detect in every frame.',
        (0.0, 1000.0),
        'Hz',
    )
    max_batch: int = _live(4, 'Frames of different cameras to process together at most.', (1, 64))
    max_megapixels: float = _live(16.0, 'Larger images are refused.', (0.01, 1000.0), 'Mpx')
    intensity_range: list[float] = _live(  # noqa: RUF009
        [0.0, 0.0],
        'Values of images of more than 8 bits (mono16, 16UC1, 32FC1, ...) that become black and '
        'white; [0, 0] = estimated from the images and held.',
    )
    warm_up_size: list[int] = _fixed(  # noqa: RUF009
        [0, 0],
        'Width and height of the images to get ready for while configuring; 0, 0: learnt from '
        "each camera's first image.",
        unit='px',
    )
    stale_after: float = _live(
        2.0,
        'Without an image, or without a result, for this long (and three of its usual intervals) '
        'a camera is reported.',
        (0.1, 3600.0),
        's',
    )
    detection_threshold: float = _live(
        0.5, 'Objects of a lower score are not published.', (0.0, 1.0)
    )
    alarms_per_hour: float = _live(
        0.0,
        'False alarms an hour that are accepted: takes the place of detection_threshold once '
        '~/calibrate or `ood calibrate-site` has measured normal operation. 0 = not used.',
        (0.0, 3600.0),
    )
    alarms_file: str = _fixed(
        '',
        'File of what ~/calibrate has measured: read while configuring, written when measuring '
        'stops; empty = keep it in memory only.',
    )
    min_area: int = _live(0, 'Objects of fewer pixels are not published.', (0, 100_000_000), 'px')
    ignore_zones: list[str] = _live(  # noqa: RUF009
        [''],
        'Parts of every image that do not count, such as the own bonnet: polygons of corners x,y '
        'as shares 0..1 of width and height; nothing in them is unknown, and objects that lie '
        'mostly in them are left out.',
    )
    publish_score: bool = _live(False, 'Also publish the raw score as a 32FC1 image on ~/score.')
    publish_compressed: bool = _fixed(
        True, 'Offer heatmap and overlay (JPEG) and instances (PNG) on .../compressed too.'
    )
    jpeg_quality: int = _live(85, 'Quality of the compressed heatmap and overlay.', (1, 100))
    overlay_alpha: float = _live(
        0.6, 'Opacity of the heatmap in the overlay where the probability is 1.', (0.0, 1.0)
    )
    overlay_colormap: str = _live(
        'turbo', 'Colours of the heatmap in the overlay.', choices=COLORMAPS
    )
    overlay_labels: bool = _live(True, 'Write the id and score of each object into the overlay.')
    depth: str = _fixed(
        'none',
        'Source of 3D points: none, a registered depth image (image) or a registered point cloud '
        '(cloud) of the same size as the camera image.',
        choices=DEPTHS,
    )
    depth_slop: float = _live(
        0.1,
        'Largest difference of the stamps of image and depth, 0 = must be equal; points and '
        'detections wait this long for the depth, at least 0.1 s.',
        (0.0, 10.0),
        's',
    )
    points_threshold: float = _live(
        0.5,
        'Points of a lower probability of being unknown are not published, nor are such pixels '
        'outside of objects unknown in ~/mask.',
        (0.0, 1.0),
    )
    mask_size: list[int] = _live(  # noqa: RUF009
        [0, 0],
        'Width and height of ~/mask and ~/confidence, those of the point cloud that a costmap '
        'layer reads beside them; 0, 0: as the image.',
        unit='px',
    )
    points_stride: int = _live(
        2, 'Every how many pixels, in both directions, one point is made.', (1, 64), 'px'
    )
    min_range: float = _live(0.1, 'Points nearer than this are left out.', (0.0, 1000.0), 'm')
    max_range: float = _live(50.0, 'Points farther than this are left out.', (0.0, 100000.0), 'm')
    gate_zone: str = _live(
        '0.3,0.7 0.7,0.7 0.9,1 0.1,1',
        'Polygon that ~/state watches, corners x,y as shares 0..1 of width and height; '
        'as it is, the lane ahead of a camera that looks straight on.',
    )
    gate_area: int = _live(
        400, 'Smaller objects do not count for ~/state.', (0, 100_000_000), 'px'
    )
    gate_on_road: bool = _live(
        True,
        'Only objects on the road count for ~/state; a profile without classes cannot tell, '
        'there all do.',
    )
    gate_looks: int = _live(
        2,
        'Detections in a row with something in the zone that it takes for ~/state to say so; 1 '
        'stops a detection earlier, and for every false alarm.',
        (1, 100),
    )
    gate_hold: float = _live(
        1.0,
        'After it was last seen, an object counts as still there for this long.',
        (0.0, 60.0),
        's',
    )
    gate_timeout: float = _live(
        1.0,
        'Without a result of an image that came within this time, ~/state is blind.',
        (0.05, 60.0),
        's',
    )
    memory_file: str = _fixed(
        '',
        'File of what ~/learn_normal has learnt: read while configuring, written when learning '
        'stops; empty = keep it in memory only.',
    )
    site_folder: str = _fixed(
        '',
        'Folder in which ~/accept and ~/report keep objects with their pictures; the memory takes '
        'the accepted ones in while configuring. See `ood site`.',
    )
    object_id: str = _live(
        '',
        'Object that ~/accept and ~/report are about: its id, or CAMERA/ID with several cameras.',
    )
    snapshot_folder: str = _live(
        '~/.ros/ood_snapshots', 'Folder in which ~/save_snapshot writes one folder a snapshot.'
    )

    def camera_names(self) -> list[str]:
        """Names in `cameras` without empty ones; [''] stands for the single unnamed camera."""
        return [name for name in self.cameras if name] or ['']


@dataclass
class CameraSettings:
    """Parameters ``<camera>.<field>`` of one named camera; the defaults mean 'as for all'."""

    image_transport: str = _fixed(
        '', 'As image_transport, for this camera; empty = as for all.', choices=('', *TRANSPORTS)
    )
    input_qos: str = _fixed(
        '', 'As input_qos, for this camera; empty = as for all.', choices=('', *QOS_NAMES)
    )
    max_rate: float = _live(
        -1.0, 'As max_rate, for this camera; negative = as for all.', (-1.0, 1000.0), 'Hz'
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
    return '' if meta['within'] is None else '{:g} .. {:g}.'.format(*meta['within'])
