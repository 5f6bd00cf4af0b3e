# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A bag with everything that a pipeline said to every frame of another bag."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ood_perception.bags import writing
from ood_perception.detections import detection_json
from ood_perception.evaluation.evaluator import Frame


def written(path: str | Path, frames: Iterator[Frame], node: str = '/ood') -> Iterator[Frame]:
    """
    Pass frames on and write their outputs under the topics that the node would use.

    Raises:
        BagError: the path exists already.
    """
    with writing.open_writer(path) as writer:
        out = writing.MessageWriter(writer)
        for frame in frames:
            stamp = frame.stamp_ns
            header = out.header(stamp)
            for name, pixels, encoding, dtype in (
                ('heatmap', frame.heatmap, 'mono8', np.uint8),
                ('score', frame.score, '32FC1', np.float32),
                ('instances', frame.instances, 'mono16', np.uint16),
            ):
                if pixels is not None:
                    image = np.ascontiguousarray(pixels, dtype)
                    out.put(f'{node}/{name}', out.image(header, image, encoding), stamp)
            rows = [detection_json(*pair) for pair in (frame.confidences or {}).items()]
            whole = {'sec': stamp // 10**9, 'nanosec': stamp % 10**9}
            text = json.dumps({'header': {'stamp': whole}, 'detections': rows})
            out.put(f'{node}/detections_json', out.kinds['std_msgs/msg/String'](text), stamp)
            yield frame
