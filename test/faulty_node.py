# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The real node with a network that fails, hangs or cannot be built when a file says so.

    python test/faulty_node.py CONTROL_FILE --ros-args ...

Words in the file: ``fail`` (each call of the engines built so far), ``dead`` (each call of those
built before the file was written), ``hang`` (a call does not return while it stands),
``broken`` (no engine can be built).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    """Replace the eager engine, shorten the node's pauses and run it."""
    control = Path(sys.argv.pop(1))
    from ood_perception.ros.process import prepare

    prepare()
    import ood_perception.engines as engines
    from ood_perception.engines.eager import EagerEngine
    from ood_perception.ros import health

    health.MOMENT, health.LOG_PERIOD = 2.0, 1.0  # before others import them

    from ood_perception.ros import fallback, watchdog
    from ood_perception.ros.main import run

    class FaultyEngine(EagerEngine):
        """Eager, with faults on demand."""

        def __init__(self, *args, **options):
            if 'broken' in control.read_text():
                raise RuntimeError('injected: no such device')
            super().__init__(*args, **options)
            self.built = time.time()

        def __call__(self, images):
            """Fail, hang or run."""
            words = control.read_text().split()
            if 'fail' in words:
                raise RuntimeError('injected: device lost')
            if 'dead' in words and self.built < control.stat().st_mtime:
                raise RuntimeError('injected: this one is dead')
            while 'hang' in control.read_text() and self.built < control.stat().st_mtime:
                time.sleep(0.05)
            return super().__call__(images)

    engines.ENGINES['eager'] = FaultyEngine
    fallback.RETRY, fallback.CLIMB = (0.5, 2.0), (3.0, 6.0)
    watchdog.ABANDONED = 8.0
    run()


if __name__ == '__main__':
    main()
