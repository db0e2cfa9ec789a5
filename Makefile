# Openline: one word for each thing that is done with the repository. `make` alone lists them.
# Needs a Python (3.11 or newer) and make. Everything else goes into .venv.

SHELL := /bin/sh
BIN := .venv/bin
PY := $(BIN)/python
ARGS ?=
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients test-plugins check fix cover mutants bench prove clean setup setup-dev

help: ## this list
	@echo "make <target>, the targets are:"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
		printf '  %-12s %s\n' $$name "$$text"; done

setup: # .venv with what the demo needs
	@python=$$(sh tools/find_python.sh) && "$$python" tools/setup_env.py run

setup-dev: # the same, and the tools of the tests
	@python=$$(sh tools/find_python.sh) && "$$python" tools/setup_env.py dev

demo: setup ## a whole call, live: barge-in, a cut line, a killed gateway (ONCE=1: exits at the end)
	@$(BIN)/openline demo $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

test: setup-dev ## everything a change must pass: format, lint, types, all tests
	@sh tools/ensure_chromium.sh
	@$(PY) tools/run_tests.py $(ARGS)

test-clients: setup-dev ## stock clients, unmodified, against this tree: a table client x scenario
	@$(PY) tools/test_clients.py $(ARGS)

test-plugins: setup-dev ## LiveKit's plugins in the pipeline: our adapters over them, with them
	@$(PY) tools/test_plugins.py $(ARGS)

check: setup-dev ## the quick part: format, lint, types, architecture, style
	@$(PY) tools/run_tests.py --quick

fix: setup-dev ## put formatting and simple findings right
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format --quiet .

cover: setup-dev ## branch coverage: 100 % for core and wire
	@rm -f .coverage .coverage.*
	@$(PY) -m coverage run -m pytest -q -p no:cacheprovider $(wildcard tests/unit tests/scenarios tests/properties) $(ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report --skip-empty --include='*/openline/core/*,*/openline/wire/*' --fail-under=100

mutants: setup-dev ## break the core on purpose, everywhere; tests must notice (ARGS="--sample 200")
	@$(PY) tools/mutants.py $(ARGS)

bench: setup-dev ## measure every number we publish; results in bench/results
	@if [ -f bench/load/Makefile ] && command -v cc >/dev/null 2>&1; then $(MAKE) -s -C bench/load; fi
	@$(PY) -m bench $(ARGS)

prove: setup-dev ## the full figures: 200 kills, 200 cuts, 2,000 seeds, 400 power cuts, mutants (resumable)
	@$(PY) tools/prove.py $(ARGS)

clean: ## remove what was made here (.venv too)
	@rm -rf .venv .clients .mutants .prove .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist htmlcov .coverage .coverage.*
	@find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
