# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A batch that the device has no room for, in halves."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

from ood_perception.engines.base import is_out_of_memory, release_memory
from ood_perception.models.output import SegmentorOutput, concatenate

log = logging.getLogger(__name__)


def whole_or_halves(
    engine: Callable[[Tensor], SegmentorOutput], images: Tensor, note: Callable[[str], None]
) -> SegmentorOutput:
    """
    Run a network on a batch (B, 3, h, w); where the device has no room for it, on its halves.

    `note` is told one line then. Any other error, and one for a single image, is raised.
    """
    try:
        return engine(images)
    except Exception as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
        release_memory()
    line = f'device out of memory at a batch of {len(images)}; running halves'
    log.warning(line)
    note(line)
    half = len(images) // 2
    # copied, since the next call may overwrite it
    first = concatenate([whole_or_halves(engine, images[:half], note)])
    return concatenate([first, whole_or_halves(engine, images[half:], note)])
