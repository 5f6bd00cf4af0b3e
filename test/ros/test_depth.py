# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip('rclpy')
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from ood_perception.frames.decode import BadImage
from ood_perception.ros import depth
from ood_perception.ros.camera_stream import CameraStream

K = [100.0, 0.0, 31.5, 0.0, 90.0, 23.5, 0.0, 0.0, 1.0]


def depth_image(values: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Image:
    code = {'32FC1': 'f4', '16UC1': 'u2', 'mono16': 'u2'}[encoding]
    rows = values.astype(('>' if big else '<') + code)
    rows = rows.view(np.uint8).reshape(values.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xFF)
    return Image(
        height=values.shape[0],
        width=values.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=array.array('B', rows.tobytes()),
    )


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 10])
def test_depth_is_read_in_metres(padding, big):
    metres = np.linspace(0.5, 9, 12 * 7, dtype=np.float32).reshape(12, 7)
    metres[0, 0] = 0
    got = depth.depth_metres(depth_image(metres, '32FC1', padding, big))
    assert np.isnan(got[0, 0])
    assert np.array_equal(got[1:], metres[1:])
    got = depth.depth_metres(depth_image(np.rint(metres * 1000), '16UC1', padding, big))
    assert np.isnan(got[0, 0])
    assert np.abs(got[1:] - metres[1:]).max() < 0.0006


def test_what_is_no_measurement_becomes_nan():
    values = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0]], np.float32)
    got = depth.depth_metres(depth_image(values, '32FC1'))
    assert np.isnan(got[0, :5]).all()
    assert got[0, 5] == 2


@pytest.mark.parametrize(
    'change',
    [{'encoding': 'rgb8'}, {'step': 3}, {'data': array.array('B', b'12')}, {'height': 0}],
)
def test_bad_depth(change):
    message = depth_image(np.ones((4, 4), np.float32), '32FC1')
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(BadImage):
        depth.depth_metres(message)


@pytest.mark.parametrize('stride', [1, 2, 5])
def test_back_projection_inverts_the_camera(stride):
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 20, (48, 64)).astype(np.float32)
    xyz = depth.back_project(z, K, stride).reshape(-1, 3)
    projected = (np.array(K).reshape(3, 3) @ xyz.T).T
    v, u = np.mgrid[0:48:stride, 0:64:stride]
    pixels = projected[:, :2] / projected[:, 2:]
    assert np.allclose(pixels, np.stack([u, v], -1).reshape(-1, 2), atol=1e-3)
    assert np.array_equal(xyz[:, 2], z[::stride, ::stride].ravel())
    with pytest.raises(BadImage, match='calibration'):
        depth.back_project(z, [0.0] * 9)


def organised(xyz: np.ndarray, big: bool = False) -> PointCloud2:
    """Cloud with a colour between the coordinates and padding after each point and row."""
    height, width, _ = xyz.shape
    dtype = np.dtype(
        {
            'names': ['x', 'y', 'rgb', 'z'],
            'formats': [('>' if big else '<') + f for f in ('f4', 'f4', 'u4', 'f4')],
            'offsets': [0, 4, 8, 12],
            'itemsize': 32,
        }
    )
    points = np.zeros((height, width), dtype)
    for i, axis in enumerate('xyz'):
        points[axis] = xyz[..., i]
    rows = np.pad(points.view(np.uint8).reshape(height, -1), ((0, 0), (0, 16)))
    offsets = {'x': (0, 7), 'y': (4, 7), 'rgb': (8, 6), 'z': (12, 7)}
    fields = [PointField(name=n, offset=o, datatype=d, count=1) for n, (o, d) in offsets.items()]
    return PointCloud2(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=big,
        point_step=32,
        row_step=rows.shape[1],
        data=array.array('B', rows.tobytes()),
    )


@pytest.mark.parametrize('big', [False, True])
def test_organised_clouds(big):
    xyz = np.random.default_rng(1).normal(size=(6, 9, 3)).astype(np.float32)
    xyz[2, 3, 1] = np.nan
    got = depth.cloud_xyz(organised(xyz, big))
    assert np.isnan(got[2, 3]).all()
    xyz[2, 3] = got[2, 3]
    assert np.array_equal(got, xyz, equal_nan=True)
    short = organised(xyz)
    short.data = short.data[:200]
    with pytest.raises(BadImage, match='holds 200 bytes'):
        depth.cloud_xyz(short)
    short.fields = short.fields[:2]
    with pytest.raises(BadImage, match='without float32 x, y, z'):
        depth.cloud_xyz(short)


@pytest.fixture
def scene():
    """A ball-sized object (id 7) 4 m away in front of a wall at 10 m, and a hole without depth."""
    z = np.full((48, 64), 10, np.float32)
    z[20:30, 24:40] = 4
    z[:5] = np.nan
    heat = np.zeros((48, 64), np.uint8)
    heat[20:30, 24:40] = 230
    ids = np.where(heat > 0, 7, 0).astype(np.uint16)
    return depth.back_project(z, K), heat, ids


def test_points_are_those_of_the_unknown(scene):
    xyz, heat, ids = scene
    cloud = depth.points(xyz, heat, ids, 0.5, 0.1, 50)
    assert len(cloud) == 160
    assert (cloud['z'] == 4).all()
    assert np.allclose(cloud['score'], 230 / 255)
    assert (cloud['instance'] == 7).all()
    assert len(depth.points(xyz, heat, ids, 0.5, 5, 50)) == 0
    everything = depth.points(xyz, heat, None, 0.0, 0.1, 50)
    assert len(everything) == 43 * 64
    assert np.isfinite(everything['x']).all()
    assert not everything['instance'].any()


def test_place_of_an_object(scene):
    cloud = depth.points(*scene, 0.5, 0.1, 50)
    places = depth.places(cloud, [7, 8])
    assert list(places) == [7]
    place = places[7]
    assert np.allclose(place.position, (0.0, (24.5 - 23.5) / 90 * 4, 4), atol=1e-5)
    assert np.allclose(place.size[0], 15 * 0.9 / 100 * 4, atol=0.06)
    assert place.distance == pytest.approx(np.linalg.norm(place.position))


def test_point_cloud_message_round_trip(scene):
    cloud = depth.points(*scene, 0.5, 0.1, 50)
    header = Header(frame_id='camera_optical_frame')
    message = depth.point_cloud(header, cloud)
    assert (message.height, message.width) == (1, len(cloud))
    assert [f.name for f in message.fields] == ['x', 'y', 'z', 'score', 'instance']
    assert np.array_equal(np.frombuffer(message.data, depth.POINT), cloud)
    assert message.header.frame_id == 'camera_optical_frame'
    empty = depth.point_cloud(header, cloud[:0])
    assert (empty.width, len(empty.data)) == (0, 0)
    assert np.isnan(depth.cloud_xyz(organised(np.full((2, 2, 3), np.inf, np.float32)))).all()


def test_point_cloud_is_read_by_sensor_msgs_py(scene):
    point_cloud2 = pytest.importorskip(
        'sensor_msgs_py.point_cloud2', reason='sensor_msgs_py comes with a ROS 2 installation'
    )
    cloud = depth.points(*scene, 0.5, 0.1, 50)
    read = point_cloud2.read_points(depth.point_cloud(Header(), cloud))
    assert np.array_equal(read, cloud)


def test_depth_of_the_nearest_stamp_is_taken():
    stream = CameraStream('front')
    assert stream.depth_near(0, 10**9) is None
    for nanoseconds in (0, 40_000_000, 80_000_000):
        message = Image()
        message.header.stamp.nanosec = nanoseconds
        stream.depths.append(message)
    exact = stream.depth_near(40_000_000, 0)
    assert exact.header.stamp.nanosec == 40_000_000
    assert stream.depth_near(41_000_000, 0) is None
    assert stream.depth_near(75_000_000, 20_000_000).header.stamp.nanosec == 80_000_000
