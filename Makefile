# Everything runs in .venv, which the first target that needs it makes: only Python 3.11+ is asked for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An exact torch, installed first: where a CPU wheel of it is at hand pip takes that one, elsewhere the default build.
TORCH := torch==2.13.0

.PHONY: demo test lint docs bench bench-search gpu-check clean

demo: $(VENV)/installed
	$(BIN)/s3search demo --output demo

test: $(VENV)/installed-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -W --keep-going -E -q -j auto -c docs/site . build/site
	@echo "build/site/index.html"

bench: $(VENV)/installed-dev
	$(BIN)/python -m tests.benchmarks

bench-search: $(VENV)/installed
	$(BIN)/s3search tools bench --output bench

gpu-check: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.gpu_check

$(VENV)/python-ready:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/installed: $(VENV)/python-ready pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dashboard]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo bench build dist
