SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

SUBMISSION ?= lion
WORKLOAD ?= resnet
ARGS ?=

# Stamps: the install is repeated only when what it reads has changed.
INSTALLED := $(VENV)/.timetrial-installed
INSTALLED_DEV := $(VENV)/.timetrial-installed-dev

.PHONY: help run test slow perf lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## time one submission (SUBMISSION=lion WORKLOAD=resnet ARGS=...)
	$(BIN)/bench run --submission $(SUBMISSION) --workload $(WORKLOAD) $(ARGS)

test: $(INSTALLED_DEV) ## the quick tests (ARGS=... goes to pytest)
	$(BIN)/python -m pytest $(ARGS)

slow: $(INSTALLED_DEV) ## the tests that train to the end
	$(BIN)/python -m pytest -m slow $(ARGS)

perf: $(INSTALLED_DEV) ## the timed tests, recorded in .benchmarks/
	$(BIN)/python -m pytest -m perf --benchmark-autosave $(ARGS)

lint: $(INSTALLED_DEV) ## style, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy harness
	$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build outputs; results and the virtual environment stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find harness workloads submissions tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and alone, so that nothing that depends on it chooses another build.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(PIP_INSTALL) -e .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@
