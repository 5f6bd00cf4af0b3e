#!/bin/sh
# Builds the package with colcon in a scratch folder and looks for what `ros2 run` and `ros2 launch` need.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src"
(cd "$root" && git ls-files -z 2>/dev/null | grep -zv '^benchmarks/' | tar -c --null -T - -f -) |
    (mkdir -p "$work/src/ood_perception" && tar -x -C "$work/src/ood_perception" -f -)
cd "$work"
python -m colcon --log-level error build >colcon.log 2>&1 || {
    cat colcon.log
    exit 1
}
for path in lib/ood_perception/ood_node lib/ood_perception/ood \
    share/ood_perception/package.xml share/ood_perception/launch/ood.launch.py \
    share/ood_perception/config/ood.yaml share/ood_perception/config/profiles/compact.yaml \
    share/ament_index/resource_index/packages/ood_perception; do
    test -e "install/ood_perception/$path" || {
        echo "colcon build left out $path" >&2
        exit 1
    }
done
head -n 1 install/ood_perception/lib/ood_perception/ood_node | grep -q 'env python3'
cd /
PYTHONPATH=$(echo "$work"/install/ood_perception/lib/python3*/site-packages) python -c '
import ood_perception, sys
from ood_perception.profile import Profile
assert "/install/ood_perception/" in ood_perception.__file__, ood_perception.__file__
assert Profile.load("compact").name == "compact"
assert "rclpy" not in sys.modules
'
echo 'colcon build: ok'
