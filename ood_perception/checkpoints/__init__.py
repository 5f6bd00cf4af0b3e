# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Official checkpoints in, strict reports out; weights are data."""

from ood_perception.checkpoints.loading import LoadReport, load_checkpoint
from ood_perception.checkpoints.reading import read_checkpoint
from ood_perception.checkpoints.store import CheckpointError, WeightsMissing, resolve

__all__ = [
    'CheckpointError',
    'LoadReport',
    'WeightsMissing',
    'load_checkpoint',
    'read_checkpoint',
    'resolve',
]
