# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training on the frames of one's own site: the UEM, the calibration, the cards of weights; and the
conversion of other people's weight files.

`ood train` and `ood weights` compute with it at a desk. It uses ood_perception, which needs it
nowhere but in these commands, and the metrics of ood_evaluation.
"""
