# `make demo` and `make test` each work from a bare checkout: they create .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# RecBole needs older numpy and pandas than the rest is developed with, and Python 3.11: an environment of its own.
RECBOLE_VENV ?= .venv-recbole
RECBOLE_BIN = $(RECBOLE_VENV)/bin

STAGES = data model training prediction sensitivity propensity tables tuning baselines evaluation paper cli docs

.PHONY: demo test lint types docs unit clean test-architecture test-recbole $(STAGES:%=test-%)

demo: $(VENV)/runtime.stamp
	$(BIN)/mnar-recsys demo --out demo

# The documentation is built by one of the tests of `unit`.
test: lint types unit
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then $(MAKE) test-recbole; \
	else echo 'test-recbole left out: RecBole installs on Python 3.11 only'; fi

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# Two worker processes with one thread each use two cores better than one process with two threads.
unit: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Where RecBole cannot run its tests are skipped; so first that it can.
test-recbole: $(RECBOLE_VENV)/stamp
	$(RECBOLE_BIN)/python -c 'import sys; from baselines.recbole_models import recbole_fault; sys.exit(recbole_fault())'
	OMP_NUM_THREADS=1 $(RECBOLE_BIN)/pytest -m recbole tests/baselines/test_recbole_models.py tests/cli/test_benchmark.py \
		tests/integrations

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

$(RECBOLE_VENV)/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RECBOLE_VENV)
	$(RECBOLE_BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RECBOLE_BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[recbole]' pytest
	touch $@

clean:
	rm -rf $(VENV) $(RECBOLE_VENV) demo docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache
