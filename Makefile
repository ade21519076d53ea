# Two commands for a newcomer: `make demo` and `make test`; `make demo-dense` shows maps, `make demo-detect` boxes. Each makes the
# virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= .demo
SCENES ?= .scenes
DETECTION ?= .detection
FRESH ?= .fresh
TOOLS ?= .tools
BIN := $(VENV)/bin
# what `make check` runs: tests that need no trained network and no export
FAST := tests/test_house.py tests/runtime tests/calibration/accuracy tests/calibration/data tests/calibration/graph \
	tests/calibration/observe tests/bench/blocks tests/bench/figures tests/bench/machine tests/bench/results tests/bench/statistics \
	tests/bench/terminal tests/export/options tests/export/targets tests/export/activation
# pip keeps quiet but for errors; the steps below say what happens
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: triton help demo demo-dense demo-detect fresh check test test-slow attack attack-quick lint types pytest format clean \
	picture site wheel test-wheel test-install test-resolve test-lowest test-arm

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(VENV)/demo.stamp: pyproject.toml
	@echo "==> Installing into $(VENV) (about 2 minutes, 6 GB: torch brings its CUDA libraries)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	@echo "==> Installing the checkers into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/docs.stamp: pyproject.toml
	@echo "==> Installing what builds the site into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(TOOLS)/stamp: pyproject.toml
	@echo "==> Installing what builds and resolves into $(TOOLS)"
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=23.2' --editable . packaging pytest
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
	@echo "==> Benchmarking one shared INT8 pass against three separate models, and both against FP32 (25 seconds)"
	@$(BIN)/mtl-bench $(DEMO)/model.mtl --quick --precision int8-cpu --add shared@fp32,separate@fp32 --duration 20 --json $(DEMO)/result.json --report $(DEMO)/report.html --force
	@echo "==> Done: the bundle is $(DEMO)/model.mtl, the report $(DEMO)/report.html, the predictions $(DEMO)/predictions.png"

demo-dense: $(VENV)/demo.stamp  ## train segmentation, depth and normals on rendered rooms, export, draw, quantize, benchmark (about 6 minutes)
	@echo "==> Rendering rooms, training a teacher and a student (4 minutes on 2 cores)"
	@$(BIN)/python examples/scenes/train.py --out $(SCENES)
	@echo "==> Exporting $(SCENES)/model.pt (30 seconds)"
	@$(BIN)/mtl-export $(SCENES)/model.pt --model mtl_deploy.export.networks.refinenet:small --tasks $(SCENES)/tasks.toml --image-size 96x128 --images $(SCENES)/test/images --output $(SCENES)/model.mtl --force
	@echo "==> Quantizing to INT8 on held-out images, half of them to measure every task on (30 seconds)"
	@$(BIN)/mtl-calibrate $(SCENES)/model.mtl --calibration-data $(SCENES)/test/images --labels $(SCENES)/test/labels
	@echo "==> Drawing what it says of a held-out image"
	@$(BIN)/mtl-infer $(SCENES)/model.mtl $(SCENES)/test/images/0000.png --show $(SCENES)/overlay.png --force
	@echo "==> Benchmarking one shared pass against three separate models (20 seconds)"
	@$(BIN)/mtl-bench $(SCENES)/model.mtl --quick
	@echo "==> Done: the bundle is $(SCENES)/model.mtl, the picture $(SCENES)/overlay.png"

demo-detect: $(VENV)/demo.stamp  ## train boxes, a mask and conditions on rendered rooms, export, quantize, measure, draw, benchmark (about 5 minutes)
	@echo "==> Rendering rooms, training one network for all three (3 minutes on 2 cores)"
	@$(BIN)/python examples/detection/train.py --out $(DETECTION)
	@echo "==> Exporting $(DETECTION)/model.pt (30 seconds)"
	@$(BIN)/mtl-export $(DETECTION)/model.pt --model examples.detection.network:make --tasks $(DETECTION)/tasks.toml --image-size 128x160 --images $(DETECTION)/test/images --output $(DETECTION)/model.mtl --force
	@echo "==> Quantizing to INT8 on images of the training (30 seconds)"
	@$(BIN)/mtl-calibrate $(DETECTION)/model.mtl --calibration-data $(DETECTION)/train/images --labels $(DETECTION)/train/labels
	@echo "==> Predicting on held-out images, and measuring all precisions on them beside answers that do not look"
	@$(BIN)/python examples/detection/demo.py $(DETECTION)
	@echo "==> Drawing what it says of a held-out image"
	@$(BIN)/mtl-infer $(DETECTION)/model.mtl $(DETECTION)/test/images/0002.png --show $(DETECTION)/overlay.png --force
	@echo "==> Benchmarking one shared pass against three separate models (20 seconds)"
	@$(BIN)/mtl-bench $(DETECTION)/model.mtl --quick
	@echo "==> Done: the bundle is $(DETECTION)/model.mtl, the picture $(DETECTION)/overlay.png"

check: $(VENV)/dev.stamp lint types  ## lint, types and the fast tests (under 3 minutes on 2 cores)
	@echo "==> Fast tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q -m 'not slow and not extended' $(FAST)

test: $(VENV)/dev.stamp lint types pytest  ## lint, types and tests (about 20 minutes on 2 cores)

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
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not extended'

fresh: $(VENV)/demo.stamp  ## export eight torchvision networks with fresh weights, three seeds each (about 40 minutes)
	@$(BIN)/python examples/fresh_networks.py --out $(FRESH)

test-slow: $(VENV)/dev.stamp  ## the rest of the tests: those that take minutes or fetch a tool (about 20 more)
	@echo "==> Extended tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m extended

triton: $(VENV)/dev.stamp  ## make .triton: a Triton server with the Python backend, for a processor, and an environment for it (2 minutes)
	@$(BIN)/python -m tests.runtime.serving.triton_place

picture: demo  ## the demo's predictions and the page of its benchmark as pictures, in docs/pictures/ (the page needs Chromium)
	@cp $(DEMO)/predictions.png docs/pictures/predictions.png
	@$(BIN)/python examples/page_picture.py $(DEMO)/report.html docs/pictures/report.png

site: $(VENV)/docs.stamp  ## the documentation as a site, in .site/ (20 seconds)
	@echo "==> Building the site"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "==> Done: .site/index.html"

wheel: $(TOOLS)/stamp  ## the wheel, and the line that installs it on a device
	@echo "==> Building the wheel"
	@rm -rf build dist/*.whl
	@$(TOOLS)/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --wheel-dir dist .
	@$(TOOLS)/bin/python -m tests.wheel_lines dist

test-wheel: $(VENV)/dev.stamp  ## the wheel in an environment that has nothing else: predict and measure
	@echo "==> The wheel in a clean environment"
	@$(BIN)/python -m pytest -q tests/test_packaging.py

test-install: wheel  ## what pip would install for each install line of the pages (needs an index)
	@echo "==> Resolving the install lines"
	@$(TOOLS)/bin/python -m tests.dependencies install

test-resolve: $(TOOLS)/stamp  ## whether each extra has wheels for Python 3.10 to 3.14 (needs an index; about 10 minutes)
	@echo "==> Resolving every extra"
	@$(TOOLS)/bin/python -m tests.dependencies resolve

test-lowest: $(TOOLS)/stamp  ## the runtime's and the calibration's tests with the lowest and with the newest versions (about 20 minutes)
	@echo "==> Tests with the lowest and the newest versions"
	@$(TOOLS)/bin/python -m tests.dependencies versions

test-arm: $(VENV)/dev.stamp  ## the runtime on emulated ARM processors, compared with this one (Debian; needs an index; allow half an hour)
	@$(BIN)/python -m tests.arm

attack: $(VENV)/dev.stamp  ## kills, races, power failures, hostile and damaged files, long runs: all figures (hours; goes on where it stopped)
	@$(BIN)/python -m tests.attacks --scale 1

attack-quick: $(VENV)/dev.stamp  ## a tenth of that (ten minutes)
	@$(BIN)/python -m tests.attacks --scale 0.1

format: $(VENV)/dev.stamp  ## put the code into ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the virtual environment, the demo and all caches
	rm -rf $(VENV) $(DEMO) $(SCENES) $(DETECTION) $(FRESH) $(TOOLS) .lowest .site .conformance .triton .arm .ray .kserve .attacks build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
