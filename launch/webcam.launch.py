# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A webcam, the node and a picture of what it finds at http://127.0.0.1:8080/.

    ros2 launch ood_perception webcam.launch.py
    ros2 launch ood_perception webcam.launch.py source:=drive.mp4 port:=8081

`source` may also be a folder of pictures or proving-ground. Further arguments (profile:=,
device:=, engine:=) are those of ood.launch.py. Without ROS's launch: ood camera 0 --view.
"""

import os

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchDescription

# Not the Python of `ros2 launch`, which need not be the one with PyTorch.
OOD = ExecutableInPackage('ood', 'ood_perception')


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'ood.launch.py')
    source, port = LaunchConfiguration('source'), LaunchConfiguration('port')
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'source',
                default_value='0',
                description='Number of the webcam, a video, a folder or proving-ground.',
            ),
            DeclareLaunchArgument(
                'port', default_value='8080', description='Port of the page on this machine.'
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(node),
                launch_arguments={'image_topic': '/camera/image_raw'}.items(),
            ),
            ExecuteProcess(cmd=[OOD, 'view', '--port', port], output='screen'),
            # Without a terminal of its own: the log of a launch is no place for a moving bar.
            ExecuteProcess(cmd=[OOD, 'camera', source, '--wait', '120'], output='screen'),
        ]
    )
