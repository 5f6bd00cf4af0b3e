# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded frames: rosbag2 files, folders of pictures, videos."""
