# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""rosbag2 files without ROS: reading (:mod:`.reading`) and writing (:mod:`.writing`)."""

from __future__ import annotations

from ood_perception.bags.reading import (
    STORAGES,
    Bag,
    BagError,
    Topic,
    deserialized,
    image_topic,
    is_bag,
    opened,
    read_topic,
    to_array,
    topics,
    typestore,
)
from ood_perception.bags.writing import (
    CAMERA_FRAME,
    DRIVE_START_NS,
    MessageWriter,
    open_writer,
    write_drive,
)

__all__ = [
    'CAMERA_FRAME',
    'DRIVE_START_NS',
    'STORAGES',
    'Bag',
    'BagError',
    'MessageWriter',
    'Topic',
    'deserialized',
    'image_topic',
    'is_bag',
    'open_writer',
    'opened',
    'read_topic',
    'to_array',
    'topics',
    'typestore',
    'write_drive',
]
