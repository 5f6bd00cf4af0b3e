# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Find, score and outline objects that no one taught the robot.

`import ood_perception` needs neither ROS nor segment-anything; `ood_perception.ros` is the only
place that imports rclpy.
"""

import importlib
from typing import Any

__version__ = '0.1.0'
__all__ = ['Pipeline', 'Profile', 'Result', '__version__']


def __getattr__(name: str) -> Any:
    """Import torch only when a name that needs it is used (PEP 562)."""
    if name in ('Pipeline', 'Profile', 'Result'):
        return getattr(importlib.import_module(f'ood_perception.{name.lower()}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
