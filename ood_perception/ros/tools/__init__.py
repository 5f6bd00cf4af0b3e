# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ROS tools beside the node: camera, player, recorder, live replay, self test."""
