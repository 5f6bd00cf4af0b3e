#!/bin/sh
# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
# Builds and tests the package with colcon in a scratch folder and looks for what a robot needs: the files that
# `ros2 run` and `ros2 launch` read, `ood` on PATH, and tests that ran. Once as it is, once with --symlink-install.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
package=ood_perception

fail() {
    echo "$*" >&2
    exit 1
}

copy_sources() {
    mkdir -p "$1"
    cd "$root"
    git ls-files -z --cached --others --exclude-standard | grep -zv '^benchmarks/' |
        xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
        tar -c --null -T - -f - | tar -x -C "$1" -f -
}

build() {
    python -m colcon --log-level error build "$@" >colcon.log 2>&1 || {
        cat colcon.log
        fail "colcon build $* failed"
    }
}

check_files() {
    for path in lib/$package/ood_node lib/$package/ood share/$package/package.xml \
        share/$package/environment/path.sh share/ament_index/resource_index/packages/$package; do
        test -e "install/$package/$path" || fail "colcon build left out $path"
    done
    for folder in config launch; do
        (cd "src/$package" && find "$folder" -type f) | while read -r file; do
            test -e "install/$package/share/$package/$file" || fail "colcon build left out $file"
        done
    done
}

# What a shell sees that sourced the workspace, and nothing else of this checkout.
check_shell() {
    for setup in install/setup.sh "install/$package/share/$package/package.sh"; do
        env -u PYTHONPATH -u AMENT_PREFIX_PATH sh -c '
            set -e
            . "$PWD/$1"
            cd /
            test "$(command -v ood)" = "$2/install/ood_perception/lib/ood_perception/ood"
            ood --version | grep -q "^ood_perception [0-9]"
            python3 - "$2" <<PYTHON
import ast, sys
from pathlib import Path
import ood_evaluation, ood_perception, ood_simulation
from ood_perception.profile import Profile
from ood_training.label_maps import load_label_map
place = Path(ood_perception.__file__).parent
assert str(place).startswith(sys.argv[1]), place
assert Profile.load("compact").name == "compact"
assert ood_simulation.ProvingGround(7).frame(0).image.any()
assert load_label_map("benchmark").classes == ["known"]
assert list(place.glob("weights/*.safetensors"))
desk = Path(ood_evaluation.__file__).parent
assert list(desk.glob("templates/*.j2")) and list(desk.glob("photographs/*.jpg"))
assert "rclpy" not in sys.modules
share = Path(sys.argv[1]) / "install/ood_perception/share/ood_perception"
for name in ("ood", "replay"):
    ast.parse((share / "launch" / f"{name}.launch.py").read_text())
PYTHON
        ' sh "$setup" "$work" || fail "a shell that sourced $setup cannot use the package"
    done
}

# `--symlink-install` names the interpreter of the virtual environment instead, which is as good.
check_interpreter() {
    head -n 1 "install/$package/lib/$package/ood_node" | grep -q "$1" ||
        fail "ood_node does not start with $1"
}

check_launch() {
    python3 -c 'import launch_ros' 2>/dev/null && command -v ros2 >/dev/null || return 0
    (. "$PWD/install/setup.sh" && ros2 launch $package ood.launch.py --show-args) >/dev/null ||
        fail 'ros2 launch ood_perception ood.launch.py --show-args failed'
}

check_tests() {
    python -m colcon --log-level error test --return-code-on-test-failure >test.log 2>&1 || {
        cat test.log "build/$package/pytest.xml"
        fail 'colcon test failed'
    }
    python3 - "build/$package/pytest.xml" <<'PYTHON'
import sys
import xml.etree.ElementTree as ElementTree
suite = next(ElementTree.parse(sys.argv[1]).iter('testsuite'))
count = {name: int(suite.get(name)) for name in ('tests', 'failures', 'errors', 'skipped')}
if count['failures'] or count['errors'] or count['tests'] - count['skipped'] < 10:
    sys.exit(f'colcon test: {count}')
print(f'colcon test: {count["tests"]} tests, {count["skipped"]} skipped')
PYTHON
}

check_workspace() {
    how=$1
    work=$scratch/workspace$how
    copy_sources "$work/src/$package"
    cd "$work"
    build $how
    check_files
    check_shell
    check_launch
    if [ -z "$how" ]; then
        check_interpreter '/usr/bin/env python3$'
        check_tests
    else
        check_interpreter "$(dirname "$(command -v python3)")/python"
    fi
    echo "colcon build $how: ok"
}

# Both at the same time, each in a folder of its own: a build keeps one core busy. No `||` behind them, under
# which `set -e` would do nothing.
(check_workspace --symlink-install) >"$scratch/log" 2>&1 &
beside=$!
set +e
(
    set -e
    check_workspace ''
)
failed=$?
wait "$beside" || failed=1
cat "$scratch/log"
exit "$failed"
