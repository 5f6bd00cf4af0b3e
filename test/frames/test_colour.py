# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ood_perception.frames.colour import ENCODINGS, RawFrame, check_raw, to_rgb

H, W = 24, 32


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def yuv422(rgb: np.ndarray, order: str) -> np.ndarray:
    """Packed 4:2:2 by definition: chroma of the left pixel of each pair."""
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV)  # any bytes do: only the decoders are compared
    y, u, v = yuv[..., 0], yuv[:, ::2, 1], yuv[:, ::2, 2]
    planes = {'y0': y[:, ::2], 'y1': y[:, 1::2], 'u': u, 'v': v}
    return np.stack([planes[name] for name in order.split()], -1).reshape(H, 2 * W)


def encoded(encoding: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows, RGB that OpenCV makes of them, border where bilinear filters may differ)."""
    rgb = picture()
    plain = {
        'rgb8': rgb,
        'bgr8': rgb[..., ::-1],
        'rgba8': np.dstack([rgb, rgb[..., 0]]),
        'bgra8': np.dstack([rgb[..., ::-1], rgb[..., 0]]),
    }
    if encoding in plain:
        return plain[encoding].reshape(H, -1), rgb, 0
    if encoding == 'mono8':
        return rgb[..., 0], np.dstack([rgb[..., 0]] * 3), 0
    if encoding.startswith('nv'):
        rows = np.random.default_rng(1).integers(0, 256, (H * 3 // 2, W), dtype=np.uint8)
        code = getattr(cv2, f'COLOR_YUV2RGB_{encoding.upper()}')
        return rows, cv2.cvtColor(rows, code), 0
    if encoding in ('yuyv', 'yuv422_yuy2'):
        rows = yuv422(rgb, 'y0 u y1 v')
        return rows, cv2.cvtColor(rows.reshape(H, W, 2), cv2.COLOR_YUV2RGB_YUY2), 0
    if encoding in ('uyvy', 'yuv422'):
        rows = yuv422(rgb, 'u y0 v y1')
        return rows, cv2.cvtColor(rows.reshape(H, W, 2), cv2.COLOR_YUV2RGB_UYVY), 0
    codes = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}
    rows = rgb[..., 1]
    code = getattr(cv2, f'COLOR_Bayer{codes[encoding[6:10]]}2RGB')
    return rows, cv2.cvtColor(rows, code), 1


@pytest.mark.parametrize('padding', [0, 7])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_conversion_equals_opencv(encoding: str, padding: int) -> None:
    rows, want, border = encoded(encoding)
    step = rows.shape[1] + padding
    data = np.full((len(rows), step), 99, np.uint8)
    data[:, : rows.shape[1]] = rows
    flat = data.reshape(-1)[: (len(rows) - 1) * step + rows.shape[1]]  # last padding left out
    raw = RawFrame(flat, H, W, step, encoding)
    check_raw(raw)
    got = to_rgb(torch.from_numpy(flat), raw).permute(1, 2, 0).numpy()
    inner = slice(border, -border or None)
    gap = np.abs(got.astype(int) - want)[inner, inner]
    assert gap.max() <= 2, encoding


@pytest.mark.parametrize(
    ('raw', 'message'),
    [
        (RawFrame(np.zeros(9, np.uint8), 1, 3, 9, 'rgb9'), "expected one of rgb8.*got 'rgb9'"),
        (RawFrame(np.zeros(9, np.uint8), 0, 3, 9, 'rgb8'), 'at least 1x1'),
        (RawFrame(np.zeros(9, np.uint8), 1, 3, 8, 'rgb8'), 'at least 9 bytes, got 8'),
        (RawFrame(np.zeros(8, np.uint8), 1, 3, 9, 'rgb8'), 'at least 9 bytes, got 8'),
        (RawFrame(np.zeros(99, np.uint8), 4, 3, 6, 'yuyv'), 'even sides'),
        (RawFrame(np.zeros(99, np.uint8), 3, 4, 4, 'nv12'), 'even sides'),
    ],
)
def test_a_raw_frame_that_cannot_be_is_refused(raw: RawFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_raw(raw)
