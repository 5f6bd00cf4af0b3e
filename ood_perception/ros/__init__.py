# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The ROS 2 shell around the pipeline; the only room that imports rclpy."""
