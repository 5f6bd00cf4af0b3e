# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""pyproject.toml, package.xml, the locks, the change log and the sources say the same."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import ood_perception

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip('tomli')

ROOT = Path(__file__).resolve().parents[2]
TOML = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
PROJECT = TOML['project']
XML = ElementTree.parse(ROOT / 'package.xml').getroot()
LOCKS = ('run', 'cpu', 'ros', 'test')
OWN = ('ood_evaluation', 'ood_perception', 'ood_simulation', 'ood_training')
"""The Python packages of the wheel."""
SHIPPED = sorted(p for name in (*OWN, 'launch') for p in (ROOT / name).rglob('*.py'))
# ROS packages whose names do not end as those of messages do.
ROS_IMPORTS = {'ament_index_python', 'cv_bridge', 'image_geometry', 'launch', 'launch_ros'}
ROS_IMPORTS |= {'message_filters', 'rclpy', 'rosbag2_py', 'sensor_msgs_py', 'tf2_ros'}
OPTIONAL_ROS: set[str] = {'foxglove_msgs'}
"""Packages that the node uses only where they are installed, and that nobody needs."""


def name_of(requirement: str) -> str:
    """`Foo_Bar[x]>=1 ; marker` -> `foo-bar`."""
    return re.sub(r'[_.]', '-', re.split(r'[^\w.-]', requirement.strip(), maxsplit=1)[0].lower())


def lock(name: str) -> list[str]:
    return (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()


def imports(path: Path) -> set[str]:
    """First parts of everything that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split('.')[0])
    return found


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    told = {
        'pyproject.toml': PROJECT['version'],
        'package.xml': XML.findtext('version'),
        'CITATION.cff': citation['version'],
        '__init__.py': ood_perception.__version__,
    }
    assert len(set(told.values())) == 1, told


def test_package_xml_says_what_pyproject_says() -> None:
    assert XML.findtext('name') == PROJECT['name']
    assert XML.findtext('license') == 'Apache-2.0'
    maintainer = PROJECT['maintainers'][0]
    assert XML.find('maintainer').text == maintainer['name']
    assert XML.find('maintainer').get('email') == maintainer['email']
    urls = {url.get('type'): url.text for url in XML.findall('url')}
    names = {key.lower(): value for key, value in PROJECT['urls'].items()}
    assert urls == {'website': names['homepage'], **{k: names[k] for k in urls if k != 'website'}}


def test_ros_packages_that_are_imported_are_declared() -> None:
    declared = {element.text for element in XML.findall('exec_depend')}
    used = set().union(*(imports(path) for path in SHIPPED))
    ros = {n for n in used if n in ROS_IMPORTS or re.search(r'_(msgs|interfaces|srvs)$', n)}
    assert ros - OPTIONAL_ROS <= declared, sorted(ros - OPTIONAL_ROS - declared)


def test_python_packages_that_are_imported_are_declared() -> None:
    """Of what is installed here: a name that only a test needs must not be in the package."""
    wanted = {name_of(r) for r in PROJECT['dependencies']}
    for extra, names in PROJECT['optional-dependencies'].items():
        wanted |= {name_of(r) for r in names} if extra not in ('dev', 'test') else set()
    called = {'cv2': 'opencv-python-headless', 'PIL': 'pillow', 'yaml': 'pyyaml'}
    called |= {'backports': 'backports-zstd', 'compression': 'backports-zstd'}
    # Named in messages with how to get them, on no index or with terms of their own.
    guests = {'mobile_sam', 'sam2', 'xformers', 'triton', 'resource', 'research'}
    used = set().union(*(imports(path) for path in SHIPPED)) - guests - set(OWN)
    outside = set()
    for name in used - set(sys.stdlib_module_names):
        if name in ROS_IMPORTS or re.search(r'_(msgs|interfaces|srvs)$', name):
            continue
        if called.get(name, name.replace('_', '-').lower()) not in wanted:
            outside.add(name)
    assert not outside


def test_locks_hold_every_dependency() -> None:
    pinned = {name_of(line) for line in lock('run')}
    assert {name_of(r) for r in PROJECT['dependencies']} <= pinned
    for extra in ('report', 'sam'):
        assert {name_of(r) for r in PROJECT['optional-dependencies'][extra]} <= pinned
    tested = {name_of(line) for line in lock('test')} | {PROJECT['name'].replace('_', '-')}
    for extra in ('dev', 'test', 'train', 'onnx'):
        assert {name_of(r) for r in PROJECT['optional-dependencies'][extra]} <= tested
    assert {name_of(r) for r in TOML['dependency-groups']['ros']} <= {
        name_of(line) for line in lock('ros')
    }


def pins(name: str) -> set[str]:
    return {line.split(' ;')[0] for line in lock(name)}


def test_locks_agree() -> None:
    assert lock('cpu') == [x for x in lock('run') if not re.match('nvidia-|cuda-|triton', x)]
    assert pins('run') <= pins('test')
    names = {name_of(line) for line in lock('run')}
    assert {pin for pin in pins('ros') if name_of(pin) in names} <= pins('run')


@pytest.mark.parametrize('name', LOCKS)
def test_no_lock_hides_the_ros_that_is_sourced(name: str) -> None:
    """A ROS package's wheel before the distribution's own breaks every node of the shell."""
    names = {name_of(line) for line in lock(name)}
    assert 'cv-bridge' not in names
    if name != 'ros':
        assert not {n for n in names if n.startswith('ros-')}


def test_extras_named_in_messages_and_pages_exist() -> None:
    pages = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
    for path in (*SHIPPED, *pages):
        text = path.read_text(encoding='utf-8')
        for group in re.findall(r'(?:ood_perception|install.*\.)\[([a-z, ]+)\]', text):
            unknown = {x.strip() for x in group.split(',')} - set(PROJECT['optional-dependencies'])
            assert not unknown, f'{path}: no extra {sorted(unknown)}'


def test_no_shipped_default_names_a_folder_of_the_authors() -> None:
    folders = re.compile(r'[\'"](?:\.\./shared|/work/|/tmp/|/root/|/home/\w)|\w:\.\./shared')
    shipped = [*SHIPPED, *sorted((ROOT / 'config').rglob('*.yaml'))]
    wrong = [str(p) for p in shipped if folders.search(p.read_text(encoding='utf-8'))]
    assert not wrong


def test_change_log_is_what_ros_tools_read() -> None:
    changelog = pytest.importorskip('catkin_pkg.changelog', reason='needs catkin_pkg')
    pytest.importorskip('docutils')
    path = ROOT / 'CHANGELOG.rst'
    log = changelog.get_changelog_from_path(str(path), PROJECT['name'])
    versions = [version for version, _, _ in log.foreach_version()]
    assert PROJECT['version'] in versions
    assert all(log.get_content_of_version(version) for version in versions)


def test_every_source_file_names_its_licence() -> None:
    spec = importlib.util.spec_from_file_location('licence', ROOT / 'tools' / 'check_licence.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        files = module.sources(ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('not a git checkout')
    assert len(files) > 50
    assert not [str(path) for path in files if not module.has_licence(path)]


@pytest.mark.parametrize(
    ('text', 'right'),
    [
        ('', True),
        ('{0}\n{1}\n', True),
        ('#!/bin/sh\n{0}\n{1}\necho\n', True),
        ('{1}\n{0}\n', False),
        ('\n{0}\n{1}\n', False),
        ('{0}\n', False),
        ('#!/bin/sh\necho\n', False),
    ],
)
def test_licence_lines_stand_first(tmp_path: Path, text: str, right: bool) -> None:
    spec = importlib.util.spec_from_file_location('licence', ROOT / 'tools' / 'check_licence.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / 'file.py'
    path.write_text(text.format(*module.LINES), encoding='utf-8')
    assert module.has_licence(path) is right
