# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
From pixels to metres: points of unknown objects and where each object is.

Depth comes registered, that is pixel by pixel for the camera image: as an image (REP-118: 32FC1 in
metres, or 16UC1 in millimetres, 0 and NaN = no measurement) with the camera's geometry, or as an
organised point cloud of the same size. Points are in the optical frame of the camera image
(REP-103: x right, y down, z forward), in metres. Needs no ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.decode import BadImage, stored_values
from ood_perception.frames.geometry import Camera

POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('score', '<f4'), ('instance', '<u4')])
"""One point of ~/points: metres, probability 0..1 of being unknown, instance id (0 = none)."""

Floats = NDArray[np.float32]
Heatmap = NDArray[np.uint8] | None  # (H, W), 0..255 = probability of being unknown
Instances = NDArray[np.uint16] | None  # (H, W) ids, 0 = none


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pixels become points."""

    # probability 0..1 below which a pixel without an instance gives no point
    threshold: float = 0.5
    stride: int = 1  # pixels between two points, in both directions
    min_range: float = 0.0  # nearer points are left out, metres from the camera
    max_range: float = float('inf')  # farther points are left out


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is, in the optical frame of the camera image."""

    position: Sequence[float]  # median x, y, z of its points in metres: stray points do no harm
    size: Sequence[float]  # extent in x, y, z in metres, from the 5th to the 95th percentile
    distance: float  # from the camera to `position` in metres


def depth_metres(message: Any) -> Floats:
    """
    Read a sensor_msgs/Image of depth as float32 (H, W) in metres, NaN = no measurement.

    BadImage where it is not 32FC1, 16UC1 or mono16, or has fewer bytes than it says.
    """
    unit = {'32FC1': 1.0, '16UC1': 0.001, 'mono16': 0.001}.get(message.encoding)
    if unit is None:
        raise BadImage(f'depth must be 32FC1 (m) or 16UC1 (mm), got {message.encoding[:40]!r}')
    if not (message.height and message.width):
        raise BadImage(f'depth of {message.width}x{message.height}')
    depth = stored_values(message).astype(np.float32) * np.float32(unit)
    depth[~np.isfinite(depth) | (depth <= 0)] = np.nan
    return depth


def cloud_xyz(message: Any) -> Floats:
    """
    Read x, y, z of an organised sensor_msgs/PointCloud2 as float32 (H, W, 3) in metres.

    BadImage where it has no float32 fields x, y and z, or fewer bytes than it says.
    """
    offsets = {f.name: f.offset for f in message.fields if f.datatype == 7}
    if not {'x', 'y', 'z'} <= offsets.keys():
        raise BadImage(f'point cloud without float32 x, y, z; it has {sorted(offsets)}')
    height, width = message.height, message.width
    data = np.frombuffer(message.data, np.uint8)
    last = max(offsets[axis] for axis in 'xyz') + 4
    need = (height - 1) * message.row_step + (width - 1) * message.point_step + last
    if not (height and width) or last > message.point_step or data.size < need:
        raise BadImage(f'point cloud of {width}x{height} holds {data.size} bytes of {need}')
    strides = (message.row_step, message.point_step)
    order = '>' if message.is_bigendian else '<'
    shape, dtype = (height, width), order + 'f4'
    axes: list[Any] = [np.ndarray(shape, dtype, data, offsets[axis], strides) for axis in 'xyz']
    xyz = np.stack(axes, axis=-1).astype(np.float32)
    xyz[~np.isfinite(xyz).all(-1)] = np.nan
    return np.asarray(xyz)


def metres_ahead(message: Any) -> Floats:
    """Metres along the optical axis, of either kind of message: float32 (H, W), NaN. BadImage."""
    if hasattr(message, 'fields'):
        return np.ascontiguousarray(cloud_xyz(message)[..., 2])
    return depth_metres(message)


def from_depth(
    depth: Floats, camera: Camera, heatmap: Heatmap, instances: Instances, choice: Choice
) -> NDArray[Any]:
    """Points (N,) of dtype `POINT` of what is unknown, from float32 (H, W) metres ahead or NaN."""
    v, u = _chosen(heatmap, instances, choice)
    seen = np.isfinite(depth[v, u])
    v, u = v[seen], u[seen]
    z = depth[v, u].astype(np.float64)[:, None]
    xyz = np.concatenate([camera.rays(u, v) * z, z], -1)
    return _cloud(xyz, v, u, heatmap, instances, choice)


def from_cloud(
    xyz: Floats, heatmap: Heatmap, instances: Instances, choice: Choice
) -> NDArray[Any]:
    """As :func:`from_depth`, from x, y, z of every pixel: float32 (H, W, 3) metres or NaN."""
    v, u = _chosen(heatmap, instances, choice)
    return _cloud(xyz[v, u], v, u, heatmap, instances, choice)


def check_size(got: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Raise BadImage where depth of (H, W) is not that of an image of (H, W)."""
    if got != size:
        raise BadImage(
            f'depth of {got[1]}x{got[0]} is not registered to the image of {size[1]}x{size[0]}'
        )


def _chosen(
    heatmap: Heatmap, instances: Instances, choice: Choice
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels on the grid that are unknown or of an object."""
    step = choice.stride
    chosen = np.zeros((1, 1), bool)
    if heatmap is not None:
        chosen = heatmap[::step, ::step] >= np.ceil(choice.threshold * 255)
    if instances is not None:
        chosen = chosen | (instances[::step, ::step] > 0)
    v, u = np.nonzero(chosen)
    return v * step, u * step


def _cloud(
    xyz: NDArray[Any],
    v: NDArray[np.intp],
    u: NDArray[np.intp],
    heatmap: Heatmap,
    instances: Instances,
    choice: Choice,
) -> NDArray[Any]:
    distance = np.linalg.norm(xyz, axis=-1)
    # NaN compares false, so pixels without a measurement drop out here.
    keep = (distance >= choice.min_range) & (distance <= choice.max_range)
    xyz, v, u = xyz[keep], v[keep], u[keep]
    out = np.zeros(len(xyz), POINT)
    out['x'], out['y'], out['z'] = xyz.T
    if heatmap is not None:
        out['score'] = heatmap[v, u].astype(np.float32) / 255
    if instances is not None:
        out['instance'] = instances[v, u]
    return out


def places(cloud: NDArray[Any], ids: Any) -> dict[int, Place]:
    """Place of each object with at least three points in a cloud, (N,) of dtype `POINT`, by id."""
    found = {}
    for identifier in ids:
        mine = cloud[cloud['instance'] == identifier]
        if len(mine) < 3:
            continue
        xyz = np.stack([mine['x'], mine['y'], mine['z']], axis=-1).astype(np.float64)
        middle = np.median(xyz, axis=0)
        low, high = np.percentile(xyz, (5, 95), axis=0)
        distance = float(np.linalg.norm(middle))
        found[int(identifier)] = Place(middle.tolist(), (high - low).tolist(), distance)
    return found
