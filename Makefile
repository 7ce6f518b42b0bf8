# Every target sets up what it needs in .venv. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
APP ?= examples/heady-manager
# A demo env file beside the application is used when there is one, so that `make up` never waits for input.
ENV_FILE ?= $(wildcard $(APP)/.env.demo)
PYTEST := $(BIN)/python -m pytest -q
# What fails is tried again, alone; the log tells both.
TESTS := bash tools/tests.sh $(BIN)/python
# The tests make homes of their own; nothing of the caller's may leak in.
CLEAN_ENV := env -u HOMEPORT_HOME -u HOMEPORT_EDGE_PORT -u HOMEPORT_API_PORT -u HOMEPORT_DATABASE_URL -u HOMEPORT_FAULT

.PHONY: help install up engines test test-docs test-slow test-user check bench conformance faults docs format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/uv: bootstrap.txt
	@test -n "$(PYTHON)" || { echo "Homeport needs Python 3.11 or newer with the venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python cannot make a virtual environment (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r bootstrap.txt
	@touch $@

.venv/.runtime: $(BIN)/uv uv.lock pyproject.toml
	@$(BIN)/uv sync -q --frozen --no-dev --inexact --compile-bytecode
	@$(BIN)/python -m compileall -q src/homeport
	@touch $@

.venv/.development: $(BIN)/uv uv.lock pyproject.toml
	@$(BIN)/uv sync -q --frozen --compile-bytecode
	@$(BIN)/python -m compileall -q src/homeport
	@touch $@ .venv/.runtime

install: .venv/.runtime ## Install Homeport into .venv

up: .venv/.runtime ## Put APP live (default: the example) and print its addresses
	@$(BIN)/homeport up "$(APP)" $(if $(ENV_FILE),--env-file "$(ENV_FILE)")

test: .venv/.development ## Run the tests (under 10 minutes on 2 cores)
	$(CLEAN_ENV) $(TESTS) -m "not slow" -n 2 --dist loadgroup tests --ignore tests/docs/test_docs_blocks_run.py

engines: ## Install the system's engines that tests run against (MariaDB), where this account may
	@bash tools/engines.sh

test-docs: .venv/.development ## Run every command of the documentation
	$(CLEAN_ENV) $(TESTS) -n 2 tests/docs/test_docs_blocks_run.py

test-slow: .venv/.development ## The tests that take longer: many kills, many moments, large loads
	$(CLEAN_ENV) $(TESTS) -m slow -n 2 --dist loadgroup tests --ignore tests/faults

test-user: .venv/.development ## As root: run the core tests once more as an ordinary user
	$(CLEAN_ENV) bash tools/as-user.sh

check: .venv/.development ## Style, types, floors and docs
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(CLEAN_ENV) $(PYTEST) tests/docs/test_docs_are_complete.py

conformance: .venv/.development ## Read ../shared's real files and suites; print and write the table
	$(BIN)/python -m benchmarks.conformance

faults: .venv/.development ## The whole fault suite; prints each fault with its outcome
	$(CLEAN_ENV) $(TESTS) tests/faults
	@cp build/faults.md docs/reference/faults.md

bench: .venv/.development ## Every benchmark, as one JSON document
	$(CLEAN_ENV) $(BIN)/python -m benchmarks

docs: .venv/.development ## Write the generated reference pages, and the schema of an empty store
	$(BIN)/python -m tools.schema
	$(BIN)/python -m tools.reference

format: .venv/.development ## Format the code
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

clean: ## Remove what the targets made; a home is left alone
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
