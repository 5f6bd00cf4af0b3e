# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Checks that every source file under version control begins with the two SPDX lines.

    python tools/check_licence.py [FILE...]

Prints each file that does not and ends with 1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LINES = (
    '# SPDX-FileCopyrightText: 2026 The ood_perception authors',
    '# SPDX-License-Identifier: Apache-2.0',
)
SUFFIXES = ('.py', '.sh')
ROOT = Path(__file__).resolve().parents[1]


def sources(root: Path) -> list[Path]:
    """Source files that git knows or would add, sorted."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split('\0')
    paths = (root / name for name in sorted(set(listed)) if name.endswith(SUFFIXES))
    return [path for path in paths if path.is_file()]


def has_licence(path: Path) -> bool:
    """Whether the file begins with the two lines, after a `#!` line if there is one."""
    lines = path.read_text(encoding='utf-8').splitlines()
    start = 1 if lines and lines[0].startswith('#!') else 0
    return not lines or tuple(lines[start : start + 2]) == LINES


def main() -> int:
    """Check the files named on the command line, or all."""
    paths = [Path(name) for name in sys.argv[1:]] or sources(ROOT)
    wrong = [path for path in paths if not has_licence(path)]
    for path in wrong:
        print(f'{path}: does not begin with\n{LINES[0]}\n{LINES[1]}', file=sys.stderr)
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
