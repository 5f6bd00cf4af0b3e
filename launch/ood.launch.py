# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Start the node, with the transport profile it needs, and RViz on request.

    ros2 launch ood_perception ood.launch.py image_topic:=/camera/image_raw rviz:=true
    ros2 launch ood_perception ood.launch.py cameras:="[front, left]" namespace:=robot

An argument left empty keeps what the parameter file says.
"""

import os

import yaml
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    UnsetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PACKAGE = 'ood_perception'
BOOLEANS = ['true', 'false']
# Fast DDS 3 reads the first and warns about the second, Fast DDS 2 reads the second only.
TRANSPORT_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
FAST_DDS_2 = ('humble', 'iron', 'jazzy')


def share(*parts: str) -> str:
    """Path of an installed file of this package."""
    return os.path.join(FindPackageShare(PACKAGE).find(PACKAGE), *parts)


ARGUMENTS = [
    DeclareLaunchArgument(
        'params_file',
        default_value=share('config', 'ood.yaml'),
        description='YAML file of node parameters.',
    ),
    DeclareLaunchArgument(
        'profile',
        default_value='',
        description='Pipeline to run: a profile name (compact, ...) or the path of a YAML file. '
        'Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'image_topic',
        default_value='/camera/image_raw',
        description='Topic of the only camera (its base name, also for compressed images). Unused '
        'with cameras.',
    ),
    DeclareLaunchArgument(
        'cameras',
        default_value='',
        description='Names of several cameras, as "[front, left]": each is read from '
        '<namespace>/<name>/image_raw. Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'image_transport',
        default_value='',
        choices=['', 'raw', 'compressed'],
        description='Read raw images or their compressed siblings. Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'depth',
        default_value='',
        choices=['', 'none', 'image', 'cloud'],
        description='Source of 3D points. Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'depth_topic',
        default_value='/camera/depth/image_raw',
        description='Registered depth image or organised cloud of the only camera.',
    ),
    DeclareLaunchArgument('namespace', default_value='', description='Namespace of the node.'),
    DeclareLaunchArgument('name', default_value='ood', description='Name of the node.'),
    DeclareLaunchArgument(
        'device',
        default_value='',
        description='auto, cpu, cuda or cuda:N. Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'engine',
        default_value='',
        choices=[
            '',
            'auto',
            'eager',
            'compiled',
            'tensorrt',
            'onnxruntime',
            'openvino',
            'openvino_bf16',
            'openvino_int8',
        ],
        description='How to run the network. Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='',
        choices=['', *BOOLEANS],
        description='true: configure and activate by itself; false: wait for a lifecycle manager. '
        'Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'fastdds_profile',
        default_value='auto',
        description='Fast DDS profile for large images: auto (the one of this package, unless '
        'the environment names one), none (stock settings), or the path of an XML file. Camera '
        'drivers and bag players need it too.',
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        choices=['', *BOOLEANS],
        description='Take the time from /clock (bags, simulation). Empty: as in params_file.',
    ),
    DeclareLaunchArgument(
        'rviz',
        default_value='false',
        choices=BOOLEANS,
        description='Start RViz too, where it is installed.',
    ),
    DeclareLaunchArgument(
        'log_level',
        default_value='info',
        choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='Least severity of log lines that are shown.',
    ),
    DeclareLaunchArgument(
        'respawn',
        default_value='false',
        choices=BOOLEANS,
        description='Start the node again two seconds after it ended unexpectedly.',
    ),
]


def transport_variable() -> str:
    """Environment variable that the middleware of this distribution reads."""
    return TRANSPORT_VARIABLES[os.environ.get('ROS_DISTRO') in FAST_DDS_2]


def transport(context: LaunchContext) -> list:
    """Set the transport profile for every process of this launch, unless the user has one."""
    choice = LaunchConfiguration('fastdds_profile').perform(context)
    name = transport_variable()
    if choice == 'none':
        # Without the second the node, which finds no profile, would apply the one it comes with.
        unset = [UnsetEnvironmentVariable(other) for other in TRANSPORT_VARIABLES]
        return [*unset, SetEnvironmentVariable('OOD_STOCK_TRANSPORT', '1')]
    if choice == 'auto':
        if name in os.environ or os.environ.get('FASTDDS_BUILTIN_TRANSPORTS'):
            return []
        # The user may have exported the name that another distribution reads.
        meant = [os.environ[other] for other in TRANSPORT_VARIABLES if os.environ.get(other)]
        choice = meant[0] if meant else share('config', 'fastdds.xml')
    if not os.path.isfile(choice):
        raise RuntimeError(f'fastdds_profile: expected auto, none or an XML file, got {choice!r}')
    return [SetEnvironmentVariable(name, choice), LogInfo(msg=f'transport profile {choice}')]


def node(context: LaunchContext) -> list:
    """Start the node with the arguments that were given laid over the parameter file."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    params_file = os.path.expanduser(value('params_file'))
    if not os.path.isfile(params_file):
        raise RuntimeError(f'params_file: there is no file {value("params_file")!r}')
    chosen: dict = {}
    for name in ('profile', 'image_transport', 'depth', 'device', 'engine'):
        if value(name):
            chosen[name] = value(name)
    for name in ('autostart', 'use_sim_time'):
        if value(name):
            chosen[name] = value(name) == 'true'
    remappings = []
    if value('cameras'):
        names = yaml.safe_load(value('cameras'))
        names = names.split(',') if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise RuntimeError(f'cameras: expected "[front, left]", got {value("cameras")!r}')
        chosen['cameras'] = [n.strip() for n in names]
    else:
        remappings = [
            ('image', value('image_topic').rstrip('/')),
            ('depth', value('depth_topic').rstrip('/')),
            ('cloud', value('depth_topic').rstrip('/')),
        ]
    return [
        Node(
            package=PACKAGE,
            executable='ood_node',
            name=value('name'),
            namespace=value('namespace'),
            parameters=[params_file, *([chosen] if chosen else [])],
            remappings=remappings,
            arguments=['--ros-args', '--log-level', value('log_level')],
            output='screen',
            emulate_tty=True,
            respawn=value('respawn') == 'true',
            respawn_delay=2.0,
            # Loading a large network cannot be interrupted at once.
            sigterm_timeout='15',
        )
    ]


def displayed_topics(config: str) -> list:
    """Topics of a node /ood that an RViz configuration shows."""
    with open(config, encoding='utf-8') as file:
        displays = yaml.safe_load(file)['Visualization Manager']['Displays']
    topics = [display['Topic']['Value'] for display in displays if 'Topic' in display]
    return [topic for topic in topics if topic.startswith('/ood/')]


def rviz(context: LaunchContext) -> list:
    """Start RViz, with the topics of this node, or go on without it where it is not installed."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    try:
        FindPackageShare('rviz2').find('rviz2')
    except Exception:
        text = 'rviz:=true, but rviz2 is not installed: going on without it '
        return [LogInfo(msg=f'{text}(sudo apt install ros-$ROS_DISTRO-rviz2)')]
    config = share('config', 'ood.rviz')
    namespace = value('namespace').strip('/')
    own = '/'.join(['', *([namespace] if namespace else []), value('name')])
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            name='rviz',
            namespace=value('namespace'),
            arguments=['-d', config],
            remappings=[(t, own + t.removeprefix('/ood')) for t in displayed_topics(config)],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    wanted = IfCondition(LaunchConfiguration('rviz'))
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=transport),
            OpaqueFunction(function=node),
            OpaqueFunction(function=rviz, condition=wanted),
        ]
    )
