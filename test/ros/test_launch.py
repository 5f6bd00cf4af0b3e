# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import Client, NodeProcess, image, picture
from node_helpers import write_profile as tiny

from ood_perception.ros.settings import Settings, fields

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch' / 'ood.launch.py'


def test_launch_file_neither_runs_programs_nor_code_nor_the_network():
    tree = ast.parse(LAUNCH.read_text(encoding='utf-8'))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names.isdisjoint({'eval', 'exec', '__import__', 'compile'})
    allowed = {'os', 'yaml', 'launch', 'launch_ros'}
    assert {m.partition('.')[0] for m in modules} <= allowed
    called = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert called.isdisjoint({'system', 'popen', 'Popen', 'ExecuteProcess'})


@pytest.mark.parametrize('path', sorted(LAUNCH.parent.glob('*.py')), ids=lambda p: p.name)
def test_programs_are_those_of_the_package(path):
    """The Python that runs `ros2 launch` need not be the one in which PyTorch is installed."""
    text = path.read_text(encoding='utf-8')
    assert 'sys.executable' not in text
    assert 'FindExecutable' not in text


def test_every_launch_argument_is_described_and_every_choice_allowed():
    """Read from the syntax tree, so that it runs without launch_ros."""
    tree = ast.parse(LAUNCH.read_text(encoding='utf-8'))
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'DeclareLaunchArgument'
    ]
    arguments = {ast.literal_eval(c.args[0]): {k.arg: k.value for k in c.keywords} for c in calls}
    wanted = {'profile', 'image_topic', 'cameras', 'params_file', 'namespace', 'device', 'engine'}
    wanted |= {'fastdds_profile', 'use_sim_time', 'rviz', 'log_level', 'respawn', 'autostart'}
    assert wanted <= set(arguments)
    known = fields(Settings)
    for name, keywords in arguments.items():
        assert ast.literal_eval(keywords['description']).endswith('.'), name
        choices = known[name].metadata['choices'] if name in known else ()
        if choices:
            assert ast.literal_eval(keywords['choices']) == ['', *choices], name


@pytest.mark.parametrize(
    ('distro', 'set_', 'wanted'),
    [
        ('kilted', {}, {'FASTDDS_DEFAULT_PROFILES_FILE': 'shipped'}),
        ('jazzy', {}, {'FASTRTPS_DEFAULT_PROFILES_FILE': 'shipped'}),
        ('kilted', {'FASTDDS_DEFAULT_PROFILES_FILE': 'mine'}, {}),
        (
            'jazzy',
            {'FASTDDS_DEFAULT_PROFILES_FILE': 'mine'},
            {'FASTRTPS_DEFAULT_PROFILES_FILE': 'mine'},
        ),
        ('kilted', None, {'OOD_STOCK_TRANSPORT': '1'}),
    ],
    ids=['kilted', 'jazzy', 'own', 'own of another name', 'none'],
)  # fmt: skip
def test_launch_sets_only_the_variable_that_the_distribution_reads(
    distro, set_, wanted, monkeypatch, tmp_path
):
    """With the real launch: the environment that its processes get."""
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation')
    from importlib.util import module_from_spec, spec_from_file_location

    from launch_ros.substitutions import FindPackageShare

    from launch import LaunchContext

    monkeypatch.setattr(FindPackageShare, 'find', lambda self, name: str(ROOT))
    spec = spec_from_file_location('ood_launch', LAUNCH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    own = tmp_path / 'mine.xml'
    own.write_text('<dds/>')
    files = {'mine': str(own), 'shipped': str(ROOT / 'config' / 'fastdds.xml')}
    monkeypatch.setenv('ROS_DISTRO', distro)
    for name in module.TRANSPORT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    given = {'FASTDDS_DEFAULT_PROFILES_FILE': 'mine'} if set_ is None else set_
    for name, value in given.items():
        monkeypatch.setenv(name, files[value])
    context = LaunchContext()
    context.launch_configurations['fastdds_profile'] = 'none' if set_ is None else 'auto'
    before = dict(context.environment)
    for action in module.transport(context):
        action.visit(context)
    after = dict(context.environment)
    changed = {name: after[name] for name in after if after[name] != before.get(name)}
    assert changed == {name: files.get(value, value) for name, value in wanted.items()}
    if set_ is None:
        assert not set(module.TRANSPORT_VARIABLES) & set(after)


@pytest.fixture
def launch_file(monkeypatch):
    """Load a launch file with the real `launch`, with the checkout as the installed package."""
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation')
    from importlib.util import module_from_spec, spec_from_file_location

    from launch_ros.substitutions import FindPackageShare

    def find(self, name):
        if name != 'ood_perception':
            raise LookupError(name)
        return str(ROOT)

    monkeypatch.setattr(FindPackageShare, 'find', find)

    def load(path):
        spec = spec_from_file_location('a_launch_file', path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def launch_context(module, **given):
    """Context of a launch with these arguments and the defaults of the others."""
    from launch.utilities import perform_substitutions

    from launch import LaunchContext

    context = LaunchContext()
    for argument in module.ARGUMENTS:
        default = argument.default_value
        value = given.get(argument.name, default and perform_substitutions(context, default))
        context.launch_configurations[argument.name] = value
    return context


def test_a_missing_params_file_ends_the_launch(launch_file):
    module = launch_file(LAUNCH)
    with pytest.raises(RuntimeError, match=r"params_file: there is no file '/none.yaml'"):
        module.node(launch_context(module, params_file='/none.yaml'))


def test_the_params_file_keeps_its_use_sim_time(launch_file):
    module = launch_file(LAUNCH)
    written = {}
    for given in ('', 'true', 'false'):
        (action,) = module.node(launch_context(module, use_sim_time=given))
        written[given] = len(action.__dict__['_Node__parameters'])
    assert written == {'': 1, 'true': 2, 'false': 2}  # the file, and what overrides it


def test_rviz_that_is_not_installed_is_a_line(launch_file):
    from launch.actions import LogInfo

    module = launch_file(LAUNCH)
    (action,) = module.rviz(launch_context(module))
    assert isinstance(action, LogInfo)
    assert module.displayed_topics(str(ROOT / 'config' / 'ood.rviz')) == [
        '/ood/overlay',
        '/ood/heatmap',
        '/ood/instances',
        '/ood/points',
    ]


def test_a_failed_replay_fails_the_launch(launch_file):
    from types import SimpleNamespace

    from launch import LaunchContext

    module = launch_file(ROOT / 'launch' / 'replay.launch.py')
    assert module.finish(SimpleNamespace(returncode=0), LaunchContext())
    with pytest.raises(RuntimeError, match='exit code 3'):
        module.finish(SimpleNamespace(returncode=3), LaunchContext())


def test_viewer_configurations_show_the_published_topics():
    from ood_perception.ros.outputs import TOPICS

    rviz = yaml.safe_load((ROOT / 'config' / 'ood.rviz').read_text(encoding='utf-8'))
    topics = {
        d['Topic']['Value'] for d in rviz['Visualization Manager']['Displays'] if 'Topic' in d
    }
    foxglove = (ROOT / 'config' / 'foxglove.json').read_text(encoding='utf-8')
    topics |= {part.split('"')[0] for part in foxglove.split('"imageTopic": "')[1:]}
    own = {t.removeprefix('/ood/') for t in topics if t.startswith('/ood/')}
    assert {'overlay', 'heatmap', 'points'} <= own
    assert own <= set(TOPICS)
    assert yaml.safe_load(foxglove)


def test_all_parameters_of_the_config_file_start_the_node(ros, tmp_path, monkeypatch):
    """The argument list that launch_ros makes of ood.launch.py, in a real process."""
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'ros_log'))
    name = f'launched_{os.getpid()}'
    process = NodeProcess.__new__(NodeProcess)
    process.name, process.log, process.process = name, tmp_path / 'log', None
    override = tmp_path / 'launch_params.yaml'
    values = {'use_sim_time': True, 'profile': str(tiny(tmp_path)), 'engine': 'eager'}
    override.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    process.command = [
        sys.executable,
        '-m',
        'ood_perception.ros.main',
        *('--ros-args', '--log-level', 'info', '--ros-args'),
        *('-r', f'__node:={name}', '-r', '__ns:=/robot'),
        *('--params-file', str(ROOT / 'config' / 'ood.yaml'), '--params-file', str(override)),
        *('-r', 'image:=/camera/image_raw', '-r', 'depth:=/d', '-r', 'cloud:=/d'),
    ]
    process.start()
    client = Client(rclpy.create_node(f'launcher_{os.getpid()}'), f'robot/{name}')
    try:
        client.listen('heatmap')
        client.wait_active(process)
        frame = image(picture())
        # With use_sim_time and no /clock, time stands still; frames and diagnostics go on.
        assert client.feed('/camera/image_raw', frame, lambda: bool(client.got['heatmap']))
        started = time.monotonic()
        code = process.stop(signal.SIGINT)
        assert code == 0, process.text()
        assert time.monotonic() - started < 30
        assert 'Traceback' not in process.text()
        written = [path.read_text() for path in (tmp_path / 'ros_log').glob('*.log')]
        assert 'active; reading' in ''.join(written)  # what was not yet in the file at Ctrl-C
    finally:
        if process.alive:
            process.process.kill()
        client.ros.destroy_node()


def test_real_launch(ros, tmp_path):
    """`ros2 launch` itself, where launch_ros and an installed package are there."""
    pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS 2 installation')
    name = f'real_{os.getpid()}'
    log = tmp_path / 'log'
    code = (
        'import sys\n'
        'from launch import LaunchDescription, LaunchService\n'
        'from launch.actions import IncludeLaunchDescription\n'
        'from launch.launch_description_sources import PythonLaunchDescriptionSource\n'
        'arguments = [tuple(a.split(":=")) for a in sys.argv[2:]]\n'
        'source = PythonLaunchDescriptionSource(sys.argv[1])\n'
        'service = LaunchService()\n'
        'service.include_launch_description(LaunchDescription([IncludeLaunchDescription('
        'source, launch_arguments=arguments)]))\n'
        'sys.exit(service.run())\n'
    )
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix('ood_perception')
    except PackageNotFoundError:
        pytest.skip('the package is not installed in this ROS 2 (colcon build)')
    with open(log, 'wb') as out:
        process = subprocess.Popen(
            [
                sys.executable,
                '-c',
                code,
                str(LAUNCH),
                f'profile:={tiny(tmp_path)}',
                f'name:={name}',
                'device:=cpu',
            ],
            stdout=out,
            stderr=out,
            cwd=tmp_path,
        )
    client = Client(rclpy.create_node(f'{name}_client'), name)
    try:
        client.listen('heatmap')
        frame = image(picture())
        assert client.feed('/camera/image_raw', frame, lambda: bool(client.got['heatmap']), 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        text = log.read_text(encoding='utf-8', errors='replace')
        assert 'process has finished cleanly' in text
    finally:
        process.kill()
        client.ros.destroy_node()


def test_security_policy_allows_exactly_our_topics_and_services():
    import xml.etree.ElementTree as ElementTree

    from ood_perception.ros.outputs import TOPICS
    from ood_perception.ros.services import SERVICES

    tree = ElementTree.parse(ROOT / 'config' / 'sros2' / 'policy.xml')

    def names(path: str) -> set[str]:
        return {(item.text or '').strip() for item in tree.iterfind(f'.//{path}')}

    published = names("topics[@publish='ALLOW']/topic")
    common = {'/diagnostics', '/parameter_events', '/rosout', '/ood/transition_event'}
    assert published == {f'/ood/{name}' for name in TOPICS} | common
    services = names("services[@reply='ALLOW']/service")
    assert {f'/ood/{name}' for name in SERVICES} <= services
    assert all(name.startswith('/ood/') for name in services)


def test_the_table_of_faults_names_tests_that_exist():
    page = (ROOT / 'docs' / 'reliability.md').read_text(encoding='utf-8')
    named = re.findall(r'`(\S+\.py)::(\w+)`', page)
    assert len(named) > 20
    for file, test in named:
        path = ROOT / file if file.startswith('test/') else ROOT / 'test' / 'ros' / file
        assert f'def {test}(' in path.read_text(encoding='utf-8'), (file, test)
