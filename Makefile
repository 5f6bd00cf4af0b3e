# Two commands on a fresh machine do everything: `make demo` and `make test`.
#
#   make demo                 render a drive, play it over ROS 2 to the node, write demo_output/report.html
#   make demo INPUT=PATH      the same on your own folder of images, video or rosbag2
#   make test                 ruff, mypy, lint-imports, unit tests, tests over real DDS, colcon build
#   make test-all             the same, the tests of research/, and those that take minutes: the built wheel, ...
#   make lint                 ruff, mypy, lint-imports and the licence lines alone
#   make tensorrt             what TensorRT makes of every network, without a GPU, in an environment of its own
#   make locks                pin requirements/ anew from pyproject.toml (UPGRADE=1: newer versions)
#
# VENV=DIR chooses the virtual environment (TENSORRT_VENV=DIR that of `make tensorrt`), PYTHON=python3.12 the interpreter,
# TORCH_INDEX=URL where PyTorch comes from (https://download.pytorch.org/whl/cpu: the small build without CUDA).

VENV ?= .venv
TENSORRT_VENV ?= .venv-tensorrt
INPUT ?=
SECONDS_OF_DRIVE ?= 12
UPGRADE ?=
BIN = $(VENV)/bin

# Without cached bytecode every process of the demo and of the tests compiles torch's modules anew: 8 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint style types types-and-colcon unit slow colcon tensorrt locks clean
.NOTPARALLEL:

demo: $(VENV)/.run
	$(BIN)/ood demo --output demo_output --seconds $(SECONDS_OF_DRIVE) $(if $(INPUT),--input "$(INPUT)")

test: style types-and-colcon unit

test-all: test slow

lint: style types

style: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_licence.py

types: $(VENV)/.test
	$(BIN)/mypy --num-workers 2

# Each keeps hardly more than one core busy.
types-and-colcon: $(VENV)/.test
	@log=$$(mktemp); $(MAKE) --no-print-directory types >$$log 2>&1 & types=$$!; \
	$(MAKE) --no-print-directory colcon; failed=$$?; \
	wait $$types || failed=1; cat $$log; rm -f $$log; exit $$failed

# What hangs outside of Python, holding the interpreter, no timeout of a test ends, but this does, and names it.
HANGS = -o faulthandler_timeout=360 -o faulthandler_exit_on_timeout=true

# Each of two workers has a core: a second thread would take it from the other one, and wait.
# The tests over DDS mostly wait, each worker in a ROS domain of its own; nothing else runs beside them.
unit: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(HANGS) --durations=10 --ignore=test/ros --ignore=test/research test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(HANGS) --durations=10 test/ros

slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile test/research
	$(BIN)/python -m pytest -q -m slow test

colcon: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/colcon_smoke.sh

tensorrt: $(TENSORRT_VENV)/.tensorrt
	$(TENSORRT_VENV)/bin/python -m pytest -q test/engines/test_tensorrt.py
	$(TENSORRT_VENV)/bin/python benchmarks/tensorrt_build.py --output benchmarks/results/tensorrt_build.csv

locks: $(VENV)/.run
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/locks.sh $(if $(UPGRADE),--upgrade)

$(VENV)/.run: requirements/run.txt requirements/ros.txt pyproject.toml setup.py setup.cfg tools/setup_venv.sh
	sh tools/setup_venv.sh $(VENV) run
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	sh tools/setup_venv.sh $(VENV) test
	@touch $@

# Without what they require: torch-tensorrt-rtx names a package that exists for no Python here, only its parts do.
$(TENSORRT_VENV)/.tensorrt: requirements/test.txt requirements/tensorrt.txt tools/setup_venv.sh
	sh tools/setup_venv.sh $(TENSORRT_VENV) test
	$(TENSORRT_VENV)/bin/python -m uv pip install --python $(TENSORRT_VENV)/bin/python --no-deps -r requirements/tensorrt.txt
	@touch $@

clean:
	rm -rf build install log demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache
