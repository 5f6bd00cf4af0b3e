# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Camera geometry: which ray of light a pixel of the image saw.

A sensor_msgs/CameraInfo describes the calibrated, full-resolution sensor. What is published may be
a window of it (`roi`), binned (`binning_x`, `binning_y`) or resized on the way; REP 104 says how K
and P follow. Needs no ROS: any object with the fields of the message will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
"""Distortion models of sensor_msgs/distortion_models.hpp: possible numbers of coefficients."""

STRAIGHT = ('', 'none')  # names of 'no distortion', whose coefficients are absent or 0

REMEDY = 'publish the camera_info of this image, with roi and binning as in REP 104'

UNDISTORTED = 0.1  # pixels by which a pixel may miss itself when it is distorted again


class BadCameraInfo(ValueError):
    """A camera_info that cannot describe the image; `remedy` says what to do about it."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Camera:
    """How one image was taken, in its own pixels."""

    fx: float  # focal length in pixels along the rows
    fy: float  # focal length in pixels along the columns
    cx: float  # column of the optical axis in pixels; the centre of the first pixel is 0
    cy: float  # row of the optical axis
    model: str = ''  # key of `COEFFICIENTS`, '' where there is no distortion to undo
    d: tuple[float, ...] = ()  # its coefficients, in OpenCV's order

    @classmethod
    def from_info(cls, info: Any, height: int, width: int, rectified: bool = False) -> Camera:
        """
        Camera of an image that a camera_info belongs to; of a rectified one P counts, undistorted.

        BadCameraInfo: no calibration, a size or window that cannot be that of the image, an
        unknown distortion model, or the wrong number of coefficients for it.
        """
        (sx, sy), (left, top), _ = _scale(info, height, width)
        matrix = [float(value) for value in (info.p if rectified else info.k)]
        fx, fy = matrix[0], matrix[5 if rectified else 4]
        cx, cy = matrix[2], matrix[6 if rectified else 5]
        if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
            name = 'P' if rectified else 'K'
            raise BadCameraInfo(
                f'camera_info without calibration: {name} has fx {fx:g}, fy {fy:g}, cx {cx:g}, '
                f'cy {cy:g}',
                'calibrate the camera, or give its driver the calibration file',
            )
        model, d = ('', ()) if rectified else _distortion(info)
        return cls(fx * sx, fy * sy, (cx - left) * sx, (cy - top) * sy, model, d)

    def rays(self, u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float64]:
        """
        Rays of (N,) columns and rows: float64 (N, 2) x / z (right) and y / z (down), REP 103.

        NaN for a pixel beyond what the distortion model can explain.
        """
        pixels = np.stack([np.asarray(u, np.float64), np.asarray(v, np.float64)], -1)
        centre, focal = np.array([self.cx, self.cy]), np.array([self.fx, self.fy])
        seen = (pixels - centre) / focal
        if not self.model or not len(seen):
            return np.asarray(seen)
        rays, again = _undistorted(seen, np.array(self.d), self.model == 'equidistant')
        miss = np.abs((again - seen) * focal).max(-1)
        rays[~(miss <= UNDISTORTED)] = np.nan
        return rays


def size_note(info: Any, height: int, width: int) -> tuple[str, str]:
    """Say how a camera_info and an image differ in size, and what to do; '' and '' if they fit."""
    try:
        return _scale(info, height, width)[2]
    except BadCameraInfo as error:
        return str(error), error.remedy


def is_rectified(topic: str) -> bool:
    """Whether a topic's name says that its images are rectified, as ``image_rect_color`` does."""
    parts = topic.lower().removesuffix('/compressed').split('/')
    words = set(re.split('_', parts[-1])) | set(parts)
    return bool(words & {'rect', 'rectified'})


def _scale(
    info: Any, height: int, width: int
) -> tuple[tuple[float, float], tuple[float, float], tuple[str, str]]:
    """Factors (x, y) from the sensor's pixels to the image's, the window's offset, and a note."""
    roi, full = info.roi, (int(info.width), int(info.height))
    binning = (max(int(info.binning_x), 1), max(int(info.binning_y), 1))
    windowed = roi.width > 0 and roi.height > 0
    window = (int(roi.width), int(roi.height)) if windowed else full
    offset = (float(roi.x_offset), float(roi.y_offset)) if windowed else (0.0, 0.0)
    image = (width, height)
    said = f'camera_info says {full[0]}x{full[1]}'
    if windowed:
        said += f', roi {window[0]}x{window[1]} at ({offset[0]:g}, {offset[1]:g})'
    if binning != (1, 1):
        said += f', binning {binning[0]}x{binning[1]}'
    said += f'; the image has {width}x{height}'
    plain = (1 / binning[0], 1 / binning[1])
    if not (window[0] > 0 and window[1] > 0):
        text = f'{said}: taken as it is, for want of a size to compare'
        return plain, offset, (text, 'let the driver fill in width and height')
    if windowed and full[0] and full[1]:
        ends = (offset[0] + window[0], offset[1] + window[1])
        if ends[0] > full[0] or ends[1] > full[1]:
            raise BadCameraInfo(f'{said}: that roi lies outside of the sensor', REMEDY)
    expected = (window[0] * plain[0], window[1] * plain[1])
    if all(abs(a - b) < 1 for a, b in zip(image, expected, strict=True)):
        return plain, offset, ('', '')
    # A window or a binning that the image does not show may be the mistake itself.
    larger = width > expected[0] and (windowed or binning != (1, 1))
    common = (width + height) / (expected[0] + expected[1])
    even = all(abs(e * common - i) <= 1 for e, i in zip(expected, image, strict=True))
    if larger or not even:
        raise BadCameraInfo(f'{said}: that is not the same picture', REMEDY)
    text = f'{said}: taken for the whole picture, resized by {width / expected[0]:.3g}'
    return (width / window[0], height / window[1]), offset, (text, REMEDY)


def _distortion(info: Any) -> tuple[str, tuple[float, ...]]:
    """Model and coefficients; ('', ()) for a straight lens."""
    model = str(info.distortion_model).strip()
    d = tuple(float(value) for value in info.d)
    if not np.isfinite(d).all():
        raise BadCameraInfo(f'distortion coefficients that are no numbers: {d}', 'calibrate again')
    if model.lower() in STRAIGHT and not any(d):
        return '', ()
    if model not in COEFFICIENTS:
        raise BadCameraInfo(
            f'distortion model {model[:40]!r} cannot be undone, only {", ".join(COEFFICIENTS)}',
            'feed the rectified image (image_rect) instead',
        )
    # An equidistant lens bends straight lines even where all its coefficients are 0.
    if model != 'equidistant' and not any(d):
        return '', ()
    if len(d) not in COEFFICIENTS[model]:
        counts = ' or '.join(map(str, COEFFICIENTS[model]))
        text = f'{model} needs {counts} distortion coefficients, got {len(d)}'
        raise BadCameraInfo(text, 'calibrate again, or name the model that these are of')
    return model, d


def _undistorted(
    seen: NDArray[np.float64], d: NDArray[np.float64], fisheye: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rays (N, 2) of distorted ones, and those distorted again, to see whether that worked."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
    eye, origin, points = np.eye(3), np.zeros(3), seen.reshape(-1, 1, 2)
    if fisheye:
        rays = cv2.fisheye.undistortPoints(points, eye, d, criteria=criteria)
        again = cv2.fisheye.distortPoints(rays, eye, d)
    else:
        rays = cv2.undistortPointsIter(points, eye, d, eye, eye, criteria)
        ahead = np.concatenate([rays.reshape(-1, 2), np.ones((len(rays), 1))], -1)
        again, _ = cv2.projectPoints(ahead, origin, origin, eye, d)
    return np.asarray(rays).reshape(-1, 2), np.asarray(again).reshape(-1, 2)
