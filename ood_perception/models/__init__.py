# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Segmentors: the networks, and the registry that builds them by name."""

from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.models.registry import MODELS, SEGMENTORS, create_model

__all__ = ['MODELS', 'SEGMENTORS', 'InputSpec', 'SegmentorOutput', 'create_model']
