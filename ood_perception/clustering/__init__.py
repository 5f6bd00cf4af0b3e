# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Streaming clustering of deep features."""

from ood_perception.clustering.streaming_kmeans import StreamingKMeans

__all__ = ['StreamingKMeans']
