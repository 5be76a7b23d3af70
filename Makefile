# Everything runs in a virtual environment of the checkout; nothing is installed globally.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
BENCH := .venv-bench
TORCH := .venv-torch
# Processes that run tests; most of them wait for processes of their own now and then.
WORKERS ?= 2

.PHONY: demo test check format lint types imports test-all test-peers test-torch bench \
	bench-gigapixel bench-terapixel clean

# The main job on real tissue that comes with a dependency.
demo: $(STAMP)
	$(BIN)/scportrait-like demo demo_project

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not peers"

# What CI runs: format, lint, types, import laws, tests.
check: format lint types imports test

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

# mypy does not know setuptools' package-dir, so steps/ is checked by its path.
types: $(STAMP)
	$(BIN)/mypy scportrait_like steps project_templates/__init__.py

imports: $(STAMP)
	$(BIN)/python -m pytest tests/test_imports.py

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "not peers"

# scPortrait in an environment of its own: it brings torch and pins an older numpy.
test-peers: $(STAMP) $(PEERS)/.installed
	$(BIN)/python -m pytest -m peers tests/peers

# Models of torch, timm and transformers, and the data set: 6 GB in an environment of its own.
test-torch: $(TORCH)/.installed
	$(TORCH)/bin/python -m pytest tests/models_torch tests/training

# Extraction, cell index, aggregation, featurization, pixel clustering, training: an hour, 8 GB of
# disk.
bench: $(STAMP) $(PEERS)/.installed $(BENCH)/.installed $(TORCH)/.installed
	$(BIN)/python -m benchmarks.run

# 206,000 cells in (100, 20000, 20000): their means, embeddings, windows; pixel clustering up to
# (20, 32768, 32768). Half an hour, 5 GB of disk.
bench-gigapixel: $(STAMP) $(BENCH)/.installed
	$(BIN)/python -m benchmarks.gigapixel
	$(BIN)/python -m benchmarks.gigapixel_instances
	$(BIN)/python -m benchmarks.gigapixel_pixels

# The mean of 280,000 cells in (100, 100000, 100000), killed once: an hour, 400 MB of disk. With
# `python -m benchmarks.terapixel --skip-zarrs` half of it, with `--fraction 0.05` a part to try.
bench-terapixel: $(STAMP) $(BENCH)/.installed
	$(BIN)/python -m benchmarks.terapixel

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

$(PEERS)/.installed: tests/peers/requirements.txt tests/peers/setup_peer.sh
	bash tests/peers/setup_peer.sh $(PEERS)
	touch $@

# Other packages that aggregate, and zarrs, in an environment of their own.
$(BENCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[bench,fast]"
	touch $@

$(TORCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev,torch,vision]"
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(BENCH) $(TORCH) build dist *.egg-info demo_project benchmarks/data
