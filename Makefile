# Two commands for a newcomer: `make demo` and `make test`. Each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= .demo
BIN := $(VENV)/bin
# pip keeps quiet but for errors; the steps below say what happens
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint types pytest format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(VENV)/demo.stamp: pyproject.toml
	@echo "==> Installing into $(VENV) (about 2 minutes, 6 GB: torch brings its CUDA libraries)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	@echo "==> Installing the checkers into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@

demo: $(VENV)/demo.stamp  ## train a three-task network on real digits, export it, predict, quantize, benchmark (about 4 minutes)
	@echo "==> Training a ResNet-18 with three heads on scikit-learn's digits (1 to 2 minutes on 2 cores)"
	@$(BIN)/python examples/digits/train.py --out $(DEMO)
	@echo "==> Exporting $(DEMO)/model.pt (20 seconds)"
	@$(BIN)/mtl-export $(DEMO)/model.pt --tasks $(DEMO)/tasks.toml --image-size 64x64 --images $(DEMO)/images/test --output $(DEMO)/model.mtl --force
	@echo "==> Predicting on held-out images"
	@$(BIN)/python examples/digits/demo.py $(DEMO)
	@echo "==> Quantizing to INT8 on held-out images, half of them to measure every task on (10 seconds)"
	@$(BIN)/mtl-calibrate $(DEMO)/model.mtl --calibration-data $(DEMO)/images/test --labels $(DEMO)/images/test/labels.csv
	@echo "==> Benchmarking one shared pass against three separate models (15 seconds)"
	@$(BIN)/mtl-bench $(DEMO)/model.mtl --duration 12
	@echo "==> Done: the bundle is $(DEMO)/model.mtl"

test: $(VENV)/dev.stamp lint types pytest  ## lint, types and tests (about 8 minutes on 2 cores)

lint: $(VENV)/dev.stamp  ## ruff's rules and format, and which room may import which
	@echo "==> Lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/dev.stamp  ## mypy, strict
	@echo "==> Types"
	@$(BIN)/mypy -p mtl_deploy

pytest: $(VENV)/dev.stamp  ## the tests
	@echo "==> Tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile

format: $(VENV)/dev.stamp  ## put the code into ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the virtual environment, the demo and all caches
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
