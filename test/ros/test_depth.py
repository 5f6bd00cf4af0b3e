# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip('rclpy')
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from ood_perception.frames import depth
from ood_perception.frames.decode import BadImage
from ood_perception.frames.geometry import Camera
from ood_perception.ros.detections import point_cloud

CAMERA = Camera(100.0, 90.0, 31.5, 23.5)


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
    return z, heat, ids


def points(scene, threshold=0.5, low=0.1, high=50.0, **changes):
    z, heat, ids = scene
    given = {'heatmap': heat, 'instances': ids, **changes}
    choice = depth.Choice(threshold, 1, low, high)
    return depth.from_depth(z, CAMERA, given['heatmap'], given['instances'], choice)


def test_points_are_those_of_the_unknown(scene):
    cloud = points(scene)
    assert len(cloud) == 160
    assert (cloud['z'] == 4).all()
    assert np.allclose(cloud['score'], 230 / 255)
    assert (cloud['instance'] == 7).all()
    assert len(points(scene, low=5)) == 0
    everything = points(scene, 0.0, instances=None)
    assert len(everything) == 43 * 64
    assert np.isfinite(everything['x']).all()
    assert not everything['instance'].any()


def test_objects_have_points_though_nobody_wants_the_heatmap(scene):
    cloud = points(scene, 0.0, heatmap=None)
    assert len(cloud) == 160
    assert (cloud['instance'] == 7).all()
    assert not cloud['score'].any()
    assert len(points(scene, heatmap=None, instances=None)) == 0


@pytest.mark.parametrize('stride', [1, 2, 5])
def test_a_depth_image_and_its_cloud_give_the_same_points(scene, stride):
    z, heat, ids = scene
    v, u = np.mgrid[0:48, 0:64]
    rays = CAMERA.rays(u.ravel(), v.ravel()).reshape(48, 64, 2)
    xyz = np.concatenate([rays * z[..., None], z[..., None]], -1).astype(np.float32)
    choice = depth.Choice(0.0, stride, 0.1, 50.0)
    a = depth.from_depth(z, CAMERA, heat, ids, choice)
    b = depth.from_cloud(xyz, heat, ids, choice)
    assert len(a) == np.isfinite(z[::stride, ::stride]).sum()
    for name in depth.POINT.names:
        assert np.allclose(a[name], b[name])


def test_place_of_an_object(scene):
    cloud = points(scene)
    places = depth.places(cloud, [7, 8])
    assert list(places) == [7]
    place = places[7]
    assert np.allclose(place.position, (0.0, (24.5 - 23.5) / 90 * 4, 4), atol=1e-5)
    assert np.allclose(place.size[0], 15 * 0.9 / 100 * 4, atol=0.06)
    assert place.distance == pytest.approx(np.linalg.norm(place.position))


def test_point_cloud_message_round_trip(scene):
    cloud = points(scene)
    header = Header(frame_id='camera_optical_frame')
    message = point_cloud(header, cloud)
    assert (message.height, message.width) == (1, len(cloud))
    assert [f.name for f in message.fields] == ['x', 'y', 'z', 'score', 'instance']
    assert np.array_equal(np.frombuffer(message.data, depth.POINT), cloud)
    assert message.header.frame_id == 'camera_optical_frame'
    empty = point_cloud(header, cloud[:0])
    assert (empty.width, len(empty.data)) == (0, 0)
    assert np.isnan(depth.cloud_xyz(organised(np.full((2, 2, 3), np.inf, np.float32)))).all()


def test_point_cloud_is_read_by_sensor_msgs_py(scene):
    point_cloud2 = pytest.importorskip(
        'sensor_msgs_py.point_cloud2', reason='sensor_msgs_py comes with a ROS 2 installation'
    )
    cloud = points(scene)
    read = point_cloud2.read_points(point_cloud(Header(), cloud))
    assert np.array_equal(read, cloud)
