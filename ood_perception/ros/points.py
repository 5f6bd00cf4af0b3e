# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Points of unknown objects as a sensor_msgs/PointCloud2."""

from __future__ import annotations

import array
from typing import Any

from numpy.typing import NDArray

from ood_perception.frames.depth import POINT


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
