# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What ament and colcon ask of a Python package; everything else stands in pyproject.toml."""

from pathlib import Path

import setuptools

NAME = 'ood_perception'
ROOT = Path(__file__).parent

if tuple(int(part) for part in setuptools.__version__.split('.')[:2]) < (62, 3):
    raise SystemExit(
        f'setuptools {setuptools.__version__} cannot read pyproject.toml; '
        'in a virtual environment: '
        "python -m pip install 'setuptools>=62.3,<80' && python -m colcon build"
    )


def share(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below `folder`, to be installed under share/<package>/ with its sub-folders."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob('*')):
        if path.is_file() and '__pycache__' not in path.parts:
            relative = path.relative_to(ROOT)
            files.setdefault(f'share/{NAME}/{relative.parent}', []).append(str(relative))
    return list(files.items())


class Distribution(setuptools.Distribution):
    """Gives colcon, which evaluates the fields as literals, `requires-python` as a string."""

    def parse_config_files(self, *args, **kwargs):
        super().parse_config_files(*args, **kwargs)
        self.python_requires = self.metadata.python_requires = str(self.python_requires)


setuptools.setup(
    distclass=Distribution,
    license='Apache-2.0',
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        # `colcon build --symlink-install` runs setup.py in a folder that has the data files only.
        (f'share/{NAME}', ['package.xml', 'pyproject.toml', 'README.md']),
        *share('config'),
        *share('environment'),
        *share('launch'),
    ],
)
