# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
From pixels to metres: points of unknown objects and where each object is.

Depth comes registered, that is pixel by pixel for the camera image: as an image (REP-118: 32FC1 in
metres, or 16UC1 in millimetres, 0 and NaN = no measurement) with the camera's intrinsics, or as an
organised point cloud of the same size. Points are in the optical frame of the camera image
(REP-103: x right, y down, z forward), in metres.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.decode import BadImage

POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('score', '<f4'), ('instance', '<u4')])
"""One point of ~/points: metres, probability 0..1 of being unknown, instance id (0 = none)."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where an object is, in the optical frame of the camera image.

    Attributes:
        position: median x, y, z of its points in metres.
        size: extent in x, y, z in metres, between the 5th and the 95th percentile.
        distance: from the camera to `position` in metres.

    """

    position: tuple[float, float, float]
    size: tuple[float, float, float]
    distance: float


def depth_metres(message: Any) -> Floats:
    """
    Read a sensor_msgs/Image of depth as float32 (H, W) in metres, NaN = no measurement.

    Raises:
        BadImage: not 32FC1, 16UC1 or mono16, or fewer bytes than it says.

    """
    kinds = {'32FC1': ('f4', 1.0), '16UC1': ('u2', 0.001), 'mono16': ('u2', 0.001)}
    if message.encoding not in kinds:
        raise BadImage(f'depth must be 32FC1 (m) or 16UC1 (mm), got {message.encoding[:40]!r}')
    code, unit = kinds[message.encoding]
    dtype = np.dtype(('>' if message.is_bigendian else '<') + code)
    height, width, step = message.height, message.width, message.step
    row = width * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if not (height and width) or step < row or data.size < (height - 1) * step + row:
        raise BadImage(f'depth of {width}x{height}, step {step}, holds {data.size} bytes')
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    depth = np.ascontiguousarray(rows).view(dtype).astype(np.float32) * np.float32(unit)
    depth[~np.isfinite(depth) | (depth <= 0)] = np.nan
    return depth


def back_project(depth: Floats, k: Any, stride: int = 1) -> Floats:
    """
    Place every `stride`-th pixel in space: x = (u - cx) z / fx, y = (v - cy) z / fy.

    Args:
        depth: float32 (H, W) metres along the optical axis.
        k: 9 numbers of the 3x3 camera matrix, row by row.
        stride: pixels between two points.

    Returns:
        float32 (ceil(H / stride), ceil(W / stride), 3) x, y, z in metres, NaN without measurement.

    Raises:
        BadImage: a focal length of 0, that is an uncalibrated camera.

    """
    fx, cx, fy, cy = float(k[0]), float(k[2]), float(k[4]), float(k[5])
    if not (fx > 0 and fy > 0):
        raise BadImage(f'camera_info without calibration: fx {fx:g}, fy {fy:g}')
    z = depth[::stride, ::stride]
    v, u = np.indices(z.shape, dtype=np.float32) * stride
    return np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=-1).astype(np.float32)


def cloud_xyz(message: Any) -> Floats:
    """
    Read x, y, z of an organised sensor_msgs/PointCloud2 as float32 (H, W, 3) in metres.

    Raises:
        BadImage: no float32 fields x, y and z, or fewer bytes than it says.

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
    axes: list[Any] = [
        np.ndarray((height, width), order + 'f4', data, offsets[axis], strides) for axis in 'xyz'
    ]
    xyz = np.stack(axes, axis=-1).astype(np.float32)
    xyz[~np.isfinite(xyz).all(-1)] = np.nan
    return xyz


def points(
    xyz: Floats,
    heatmap: NDArray[np.uint8],
    instances: NDArray[np.uint16] | None,
    threshold: float,
    min_range: float,
    max_range: float,
) -> NDArray[Any]:
    """
    Points of what is unknown.

    Args:
        xyz: float32 (h, w, 3) metres, NaN = no measurement.
        heatmap: uint8 (h, w), 0..255 = probability of being unknown.
        instances: uint16 (h, w) ids, or None.
        threshold: probability 0..1 below which a pixel without an instance gives no point.
        min_range: nearer points are left out, metres from the camera.
        max_range: farther points are left out.

    Returns:
        (N,) array of dtype `POINT`.

    """
    distance = np.linalg.norm(xyz, axis=-1)
    # NaN compares false, so pixels without a measurement drop out here.
    keep = (distance >= min_range) & (distance <= max_range)
    chosen = heatmap >= np.ceil(threshold * 255)
    if instances is not None:
        chosen |= instances > 0
    keep &= chosen
    out = np.empty(int(np.count_nonzero(keep)), POINT)
    out['x'], out['y'], out['z'] = xyz[keep].T
    out['score'] = heatmap[keep].astype(np.float32) / 255
    out['instance'] = 0 if instances is None else instances[keep]
    return out


def places(cloud: NDArray[Any], ids: Any) -> dict[int, Place]:
    """
    Where the objects are whose points are in the cloud; medians, so stray points do no harm.

    Args:
        cloud: (N,) array of dtype `POINT`.
        ids: instance ids to look for.

    Returns:
        Place by id, for the ids that have at least three points.

    """
    found = {}
    for identifier in ids:
        mine = cloud[cloud['instance'] == identifier]
        if len(mine) < 3:
            continue
        xyz = np.stack([mine['x'], mine['y'], mine['z']], axis=-1).astype(np.float64)
        middle = np.median(xyz, axis=0)
        low, high = np.percentile(xyz, (5, 95), axis=0)
        found[int(identifier)] = Place(
            position=(float(middle[0]), float(middle[1]), float(middle[2])),
            size=tuple((high - low).tolist()),
            distance=float(np.linalg.norm(middle)),
        )
    return found


def point_cloud(header: Any, cloud: NDArray[Any]) -> Any:
    """
    Build a sensor_msgs/PointCloud2 with the fields of `POINT`.

    ``sensor_msgs_py`` writes it where that is installed; it is no PyPI package, so without a ROS 2
    installation the few lines below do the same.
    """
    from sensor_msgs.msg import PointCloud2, PointField

    kinds = {'<f4': PointField.FLOAT32, '<u4': PointField.UINT32}
    fields = [
        PointField(name=name, offset=offset, datatype=kinds[dtype.str], count=1)
        for name, (dtype, offset, *_) in (POINT.fields or {}).items()
    ]
    try:
        from sensor_msgs_py import point_cloud2
    except ImportError:
        point_cloud2 = None
    # create_cloud of sensor_msgs_py raises on an empty cloud, and empty is the good news here.
    if point_cloud2 is not None and len(cloud):
        return point_cloud2.create_cloud(header, fields, cloud)
    data = array.array('B')
    data.frombytes(cloud.tobytes())
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(cloud),
        data=data,
        is_dense=False,
    )
