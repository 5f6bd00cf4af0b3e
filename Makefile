# Two commands on a fresh machine do everything: `make demo` and `make test`.
#
#   make demo                 render a drive, play it over ROS 2 to the node, write demo_output/report.html
#   make demo INPUT=PATH      the same on your own folder of images, video or rosbag2
#   make test                 unit tests, tests over real DDS, colcon build, ruff, mypy
#
# VENV=DIR chooses the virtual environment, PYTHON=python3.12 the interpreter.

VENV ?= .venv
INPUT ?=
SECONDS_OF_DRIVE ?= 12
BIN = $(VENV)/bin

# Without cached bytecode every process of the demo and of the tests compiles torch's modules anew: 8 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint unit colcon clean
.NOTPARALLEL:

demo: $(VENV)/.run
	$(BIN)/ood demo --output demo_output --seconds $(SECONDS_OF_DRIVE) $(if $(INPUT),--input "$(INPUT)")

test: lint unit colcon

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests over DDS watch the clock: they run alone.
unit: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore=test/ros test
	$(BIN)/python -m pytest -q test/ros

colcon: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/colcon_smoke.sh

$(VENV)/.run: requirements/run.txt requirements/ros.txt setup.py setup.cfg tools/setup_venv.sh
	sh tools/setup_venv.sh $(VENV) run
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	sh tools/setup_venv.sh $(VENV) test
	@touch $@

clean:
	rm -rf build install log demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache
