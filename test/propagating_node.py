# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The real node with a detector that finds what is red, slowly, so that a test knows the truth.

    python test/propagating_node.py CONTROL_FILE [--labels] --ros-args ...

The file holds the seconds that a detection takes, or ``fail``. With ``--labels``, where there is
no vision_msgs, label_info is sent as JSON in a std_msgs/String.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from ood_perception.result import Result


class Red:
    """A pipeline whose one object is everything red; the ground is class 0 above, 1 below."""

    device = torch.device('cpu')
    notes = ()

    def __init__(self, control: Path) -> None:
        self.control = control
        self.profile = SimpleNamespace(licence='', classes=['sky', 'road'], to_dict=dict)
        self.engine = SimpleNamespace(name='eager', why='', live=True)
        self.score = SimpleNamespace(learns=False)

    def __call__(self, images, streams=(), wants=(), stamps=()):
        """Find the red pixels of each image after the time that the file says."""
        word = self.control.read_text()
        if word == 'fail':
            raise RuntimeError('injected: no detection')
        time.sleep(float(word))
        return [self.look(image) for image in images]

    def look(self, image) -> Result:
        """What a frame uint8 (H, W, 3) RGB shows."""
        mask = (image[..., 0].astype(int) - image[..., 1] > 40).astype(np.uint8)
        semantic = np.zeros_like(mask)
        semantic[len(mask) // 2 :] = 1
        rows = int(mask.any())
        x, y, w, h = cv2.boundingRect(mask)
        return Result(
            score=mask.astype(np.float32),
            heatmap=mask * 240,
            instances=mask.astype(np.uint16) * 7,
            boxes=np.array([[x, y, x + w, y + h]], np.float32)[:rows],
            confidences=np.array([0.9], np.float32)[:rows],
            ids=np.array([7], np.int32)[:rows],
            areas=np.array([mask.sum()], np.int32)[:rows],
            mean_scores=np.array([1.0], np.float32)[:rows],
            surroundings=np.array([1], np.uint8)[:rows],
            semantic=semantic,
            timings={'total': 1.0},
        )

    def network_size(self, height, width):
        """Any size is as good as another."""
        return 0, 0

    def warm_up(self, sizes, batch, wait=True):
        """Nothing to prepare."""

    def faults(self):
        """Nothing is wrong."""
        return []

    def reset(self, stream=None):
        """Nothing to forget."""

    def close(self):
        """Nothing to give back."""


def written_labels():
    """What stands for vision_msgs.msg: the same fields, in a message type that is installed."""
    from std_msgs.msg import String

    class Written(String):
        """LabelInfo(header, class_map, threshold) as text."""

        def __init__(self, header, class_map, threshold):
            names = {c.class_id: c.class_name for c in class_map}
            super().__init__(data=json.dumps({'names': names, 'threshold': threshold}))

    # The conversion to C looks at these.
    Written.__module__, Written.__name__ = String.__module__, String.__name__
    return SimpleNamespace(LabelInfo=Written, VisionClass=SimpleNamespace, Detection2DArray=String)


def main() -> None:
    """Replace the pipeline and run the node."""
    control = Path(sys.argv.pop(1))
    labels = sys.argv[1] == '--labels' and bool(sys.argv.pop(1))
    from ood_perception.ros.process import prepare

    prepare()
    from ood_perception.ros import detections, loading
    from ood_perception.ros.main import run

    loading.build = lambda *args, **options: Red(control)
    if labels and detections.vision_msgs() is None:
        detections.vision_msgs = written_labels
    run()


if __name__ == '__main__':
    main()
