# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A snapshot for a bug report: one frame, all outputs, all parameters, in a folder."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ood_perception.detections import rows
from ood_perception.drawing import draw
from ood_perception.frames.picture import encode
from ood_perception.result import Result
from ood_perception.ros import detections


def save(
    folder: str | Path,
    camera: str,
    header: Any,
    image: NDArray[np.uint8],
    result: Result,
    about: dict[str, Any],
) -> Path:
    """
    Write a frame and what was found in it into a new folder below `folder`.

    Args:
        image: uint8 (H, W, 3) RGB.
        result: on the host, as complete as can be.
        about: what else to write into snapshot.json (parameters, profile, statistics).

    Returns:
        The new folder, with image.png, overlay.png, heatmap.png, instances.png (16 bit),
        semantic.png, score.npy (float32) and snapshot.json.

    Raises:
        OSError: the folder cannot be made or written.
    """
    stamp = f'{header.stamp.sec}.{header.stamp.nanosec:09d}'
    name = time.strftime('%Y%m%d-%H%M%S') + f'_{camera or "camera"}_{stamp}'
    target = Path(folder).expanduser() / name
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f'{name}_{number}')
    target.mkdir(parents=True)
    found = rows(result)
    labels = [item.label for item in found]
    overlay = draw(image, result.heatmap, result.instances, result.boxes, labels)
    maps = {name: getattr(result, name) for name in ('heatmap', 'instances', 'semantic')}
    for name, pixels in {'image': image, 'overlay': overlay, **maps}.items():
        if pixels is not None:
            (target / f'{name}.png').write_bytes(encode(pixels, '.png'))
    if result.score is not None:
        np.save(target / 'score.npy', result.score, allow_pickle=False)
    tree = {
        'frame': json.loads(detections.to_json(header, camera, image.shape[:2], found)),
        'timings_ms': result.timings,
        'versions': {
            'python': platform.python_version(),
            'machine': platform.machine(),
            'torch': torch.__version__,
            'opencv': cv2.__version__,
            'numpy': np.__version__,
        },
        **about,
    }
    text = json.dumps(tree, indent=2, default=str)
    (target / 'snapshot.json').write_text(text, encoding='utf-8')
    return target
