# The doors of osteoflow. Everything starts from a bare checkout with python3 (3.11 or later), git and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.osteoflow-setup

.PHONY: help setup demo test check bench serve lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv from requirements.lock and install this checkout into it

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## the whole life on phantoms, in a workspace of its own
	@$(BIN)/osteoflow demo $(ARGS)

test: setup  ## every test (under 10 minutes on 2 cores)
	@$(BIN)/python -m pytest $(ARGS)

check: setup  ## lint, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup  ## speed against peers, written to bench/results/
	@$(BIN)/python -m bench $(ARGS)

serve: setup  ## receivers, Prefect, MLflow and the audit site on loopback
	@$(BIN)/osteoflow serve $(ARGS)

lock: setup  ## recompute requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-annotate \
	  --extra dev --extra dask pyproject.toml --output-file requirements.lock

clean:  ## remove caches (never data)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
