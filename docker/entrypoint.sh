#!/bin/bash
# Sources ROS 2 and the workspace, then becomes the command, so that signals reach it.
set -e
. "$ROS_SETUP"
. /opt/ws/install/setup.bash
exec "$@"
