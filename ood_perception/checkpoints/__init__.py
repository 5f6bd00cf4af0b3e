# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Official checkpoints in, strict reports out; weights are data."""

from ood_perception.checkpoints.loading import load_checkpoint
from ood_perception.checkpoints.reading import read_checkpoint
from ood_perception.checkpoints.report import CheckpointError, LoadReport, WeightsMissing
from ood_perception.checkpoints.store import resolve

__all__ = [
    'CheckpointError',
    'LoadReport',
    'WeightsMissing',
    'load_checkpoint',
    'read_checkpoint',
    'resolve',
]
