#!/bin/bash
# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
# Sources ROS 2 and the workspace, then becomes the command, so that signals reach it.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. /opt/ws/install/setup.bash
exec "$@"
