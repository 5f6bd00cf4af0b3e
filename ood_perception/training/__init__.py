# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training recipes of the segmentor, the UEM, the prompts and the calibration."""
