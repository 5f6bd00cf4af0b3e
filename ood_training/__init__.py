# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training on the frames of one's own site: the UEM, the calibration, and the cards of weights.

`ood train` computes with it at a desk. It uses ood_perception, which needs it nowhere but in that
command, and the metrics of ood_evaluation.
"""
