# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Which objects are published, and they as messages: JSON, boxes, outlines, points."""

from __future__ import annotations

import array
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.detections import CLASS_ID, Detection
from ood_perception.drawing import OUTLINE
from ood_perception.frames import zones
from ood_perception.frames.depth import POINT
from ood_perception.result import Result


def select(result: Result, threshold: float, min_area: int, ignored: Sequence[str] = ()) -> Result:
    """
    Leave out objects of lower confidence or fewer pixels, from rows and instances alike.

    `ignored` are zones whose pixels and objects are left out, too, see `outside`.
    """
    if result.boxes is not None and len(result.boxes):
        keep = np.asarray(result.confidences) >= threshold
        if result.areas is not None:
            keep &= np.asarray(result.areas) >= min_area
        result = chosen(result, keep)
    return outside(result, ignored)


def outside(result: Result, ignored: Sequence[str]) -> Result:
    """
    Leave out what zones of the image show: their pixels, and objects that lie mostly in them.

    Args:
        result: of a frame, on the host; left as it is.
        ignored: polygons as in `frames.zones`; empty texts are none.
    """
    names = zones.named(ignored)
    maps = (result.heatmap, result.score, result.instances)
    shape = next((m.shape for m in maps if m is not None), None)
    if not names or shape is None:
        return result
    zone = zones.inside(names, *shape)
    changes: dict[str, Any] = {}
    if result.heatmap is not None:
        changes['heatmap'] = np.where(zone, np.uint8(0), result.heatmap)
    if result.score is not None:
        changes['score'] = np.where(zone, result.score.min(), result.score)
    result = replace(result, **changes)
    if result.instances is None or result.ids is None or not len(result.ids):
        return result
    return chosen(result, ~np.isin(result.ids, zones.mostly_inside(result.instances, zone)))


def chosen(result: Result, keep: Any) -> Result:
    """Leave out the objects for which bool (N,) `keep` is False, from rows and instances."""
    if keep.all():
        return result
    names = ('boxes', 'confidences', 'ids', 'areas', 'mean_scores', 'surroundings')
    rows = {n: value[keep] for n in names if (value := getattr(result, n)) is not None}
    if result.instances is not None:
        table = np.zeros(1 << 16, np.uint16)
        kept = np.asarray(rows['ids']).astype(np.int64)
        table[kept] = kept
        rows['instances'] = table[result.instances]
    return replace(result, **rows)


def to_json(header: Any, camera: str, size: tuple[int, ...], found: list[Detection]) -> str:
    """
    One frame's objects as JSON text.

    Args:
        size: (height, width) of the camera image in pixels.
    """
    tree: dict[str, Any] = {
        'header': {
            'stamp': {'sec': header.stamp.sec, 'nanosec': header.stamp.nanosec},
            'frame_id': header.frame_id,
        },
        'camera': camera,
        'width': size[1],
        'height': size[0],
        'detections': [],
    }
    for item in found:
        row = item.json()
        # The old names, for one release.
        row |= {'score': row['confidence'], 'box': row['box_xyxy'], 'area': row['area_px']}
        tree['detections'].append(row)
    return json.dumps(tree)


def vision_msgs() -> Any:
    """Module vision_msgs.msg, or None where it is not installed."""
    try:
        import vision_msgs.msg
    except ImportError:
        return None
    return vision_msgs.msg


def to_vision(messages: Any, header: Any, found: list[Detection]) -> Any:
    """
    One frame's objects as a vision_msgs/Detection2DArray.

    `id` is the object's value in the instances image. Where depth is known,
    ``results[0].pose.pose.position`` is the object's place in metres in the frame of the header.
    """
    message = messages.Detection2DArray(header=header)
    for item in found:
        detection = messages.Detection2D(header=header, id=str(item.id))
        x1, y1, x2, y2 = item.box
        detection.bbox.center.position.x = (x1 + x2) / 2
        detection.bbox.center.position.y = (y1 + y2) / 2
        detection.bbox.size_x = x2 - x1
        detection.bbox.size_y = y2 - y1
        detection.results = [_hypothesis(messages, item)]
        message.detections.append(detection)
    return message


def to_vision_3d(messages: Any, header: Any, found: Sequence[Detection]) -> Any:
    """Objects that have a place as a vision_msgs/Detection3DArray, in the frame of the header."""
    message = messages.Detection3DArray(header=header)
    for item in found:
        if item.place is None:
            continue
        detection = messages.Detection3D(header=header, id=str(item.id))
        point, size = detection.bbox.center.position, detection.bbox.size
        point.x, point.y, point.z = item.place.position
        size.x, size.y, size.z = item.place.size
        detection.results = [_hypothesis(messages, item)]
        message.detections.append(detection)
    return message


def _hypothesis(messages: Any, item: Detection) -> Any:
    found = messages.ObjectHypothesisWithPose()
    found.hypothesis.class_id, found.hypothesis.score = CLASS_ID, item.confidence
    if item.place is not None:
        point = found.pose.pose.position
        point.x, point.y, point.z = item.place.position
    return found


def to_annotations(messages: Any, header: Any, result: Result, found: Sequence[Detection]) -> Any:
    """Outline, id and score of each object as a foxglove_msgs/ImageAnnotations."""
    colour = {name: value / 255 for name, value in zip('rgb', OUTLINE, strict=True)}
    drawn = messages.ImageAnnotations()
    for item in found:
        for outline in _outlines(result.instances, item.id):
            points = messages.PointsAnnotation(
                timestamp=header.stamp, type=messages.PointsAnnotation.LINE_LOOP, thickness=2.0
            )
            # Their origin is the corner of the first pixel, ours its centre.
            points.points = [messages.Point2(x=x + 0.5, y=y + 0.5) for x, y in outline.tolist()]
            points.outline_color = messages.Color(**colour, a=1.0)
            drawn.points.append(points)
        text = messages.TextAnnotation(timestamp=header.stamp, text=item.label)
        text.position = messages.Point2(x=item.box[0], y=item.box[1])
        text.font_size = 12.0
        text.text_color = messages.Color(**colour, a=1.0)
        drawn.texts.append(text)
    return drawn


def _outlines(instances: Any, number: int) -> list[np.ndarray]:
    """Outer corners of an object's parts, each int (N, 2) of x, y in pixels."""
    if instances is None:
        return []
    mask = (instances == number).astype(np.uint8)
    parts, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [cv2.approxPolyDP(part, 1.0, True)[:, 0] for part in parts]


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
