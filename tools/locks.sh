#!/bin/sh
# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
# Pins what pyproject.toml asks for in requirements/, for Python 3.10 to 3.14. Versions that still fit are kept;
# `tools/locks.sh --upgrade` takes newer ones.
set -eu
cd "$(dirname "$0")/.."
lock() {
    python -m uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$@"
}
run='--extra cpu --extra report --extra sam'
lock pyproject.toml $run -o requirements/run.txt "$@"
lock --group pyproject.toml:ros -c requirements/run.txt -o requirements/ros.txt "$@"
lock pyproject.toml $run --extra onnx --extra train --extra dev -c requirements/run.txt \
    -o requirements/test.txt "$@"
# PyTorch's build for CPUs comes from its own index and needs none of these.
grep -vE '^(nvidia-|cuda-|triton)' requirements/run.txt >requirements/cpu.txt
