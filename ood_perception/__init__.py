# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Find, score and outline objects that no one taught the robot.

`import ood_perception` needs neither ROS nor segment-anything; `ood_perception.ros` is the only
place that imports rclpy.
"""

from typing import Any

__version__ = '0.1.0'
__all__ = ['Pipeline', 'Profile', 'Result', '__version__']


def __getattr__(name: str) -> Any:
    """Import torch only when a name that needs it is used (PEP 562)."""
    if name == 'Pipeline':
        from ood_perception.pipeline import Pipeline

        return Pipeline
    if name == 'Profile':
        from ood_perception.profile import Profile

        return Profile
    if name == 'Result':
        from ood_perception.result import Result

        return Result
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
