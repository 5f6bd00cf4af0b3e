# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Play a bag over DDS to a node of its own and write the evaluation.

    ros2 launch ood_perception replay.launch.py bag:=DRIVE profile:=compact output:=evaluation

Labels are taken from the bag where it has them, or from a folder of images that are named by their
stamps. The launch ends when the report is written.
"""

import os

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from launch import LaunchContext, LaunchDescription

# Fast DDS 3 reads the first and warns about the second, Fast DDS 2 reads the second only.
TRANSPORT_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
FAST_DDS_2 = ('humble', 'iron', 'jazzy')

ARGUMENTS = [
    DeclareLaunchArgument('bag', description='rosbag2 folder or file with images.'),
    DeclareLaunchArgument(
        'profile', default_value='compact', description='Profile name or path of a YAML file.'
    ),
    DeclareLaunchArgument(
        'image_topic',
        default_value='/camera/image_raw',
        description='Images in the bag; a /compressed ending selects JPEG or PNG.',
    ),
    DeclareLaunchArgument(
        'labels',
        default_value='',
        description='Folder of label images named by stamp in ns, or a CSV of stamp,file. Empty: '
        'the topics /labels/anomaly and /labels/instances of the bag, if it has them.',
    ),
    DeclareLaunchArgument('rate', default_value='1.0', description='Speed of the replay.'),
    DeclareLaunchArgument(
        'device', default_value='auto', description='auto, cpu, cuda or cuda:N.'
    ),
    DeclareLaunchArgument(
        'output',
        default_value='evaluation',
        description='Folder of report.html, report.json and report.csv.',
    ),
]


def transport(context: LaunchContext) -> list:
    """Set the transport profile for large images, unless the user has one."""
    if any(name in os.environ for name in (*TRANSPORT_VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')):
        return []
    path = os.path.join(FindPackageShare('ood_perception').perform(context), 'config/fastdds.xml')
    name = TRANSPORT_VARIABLES[os.environ.get('ROS_DISTRO') in FAST_DDS_2]
    return [SetEnvironmentVariable(name, path)]


def finish(event: ProcessExited, context: LaunchContext) -> list:
    """End the launch with the replay, and with an error where it failed."""
    if event.returncode:
        # What is raised here ends `ros2 launch` with 1, which a Shutdown cannot say.
        raise RuntimeError(f'the replay failed with exit code {event.returncode}')
    return [Shutdown(reason='the replay is evaluated')]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    evaluate = ExecuteProcess(
        cmd=[
            # Not the Python of `ros2 launch`, which need not be the one with PyTorch.
            ExecutableInPackage('ood', 'ood_perception'),
            'evaluate',
            'bag',
            LaunchConfiguration('bag'),
            '--live',
            '--profile',
            LaunchConfiguration('profile'),
            '--image',
            LaunchConfiguration('image_topic'),
            '--labels',
            LaunchConfiguration('labels'),
            '--rate',
            LaunchConfiguration('rate'),
            '--device',
            LaunchConfiguration('device'),
            '--output',
            LaunchConfiguration('output'),
        ],
        output='screen',
        on_exit=finish,
    )
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=transport), evaluate])
