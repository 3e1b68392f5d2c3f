# `make demo` and `make test` each work from a bare checkout: they create .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

STAGES = data model training prediction sensitivity propensity baselines evaluation cli docs

.PHONY: demo test lint types docs unit clean test-architecture $(STAGES:%=test-%)

demo: $(VENV)/runtime.stamp
	$(BIN)/mnar-recsys demo --out demo

# The documentation is built by one of the tests of `unit`.
test: lint types unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# Two worker processes with one thread each use two cores better than one process with two threads.
unit: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-architecture: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/test_architecture.py

# The tests of one stage, without those that take minutes.
$(STAGES:%=test-%): test-%: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow" tests/$*

docs: $(VENV)/dev.stamp
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "docs/_build/index.html"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/runtime.stamp

clean:
	rm -rf $(VENV) demo docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache
