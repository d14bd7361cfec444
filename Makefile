# Bare `make` prints this help. Every target sets up what it needs by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup browser pooler contract-tools demo shop test faults campaign soak mutations check lint types bench listings lock schemas screens clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36mmake %-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with the locked, hash-checked dependencies and the order-worker command

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ echo "error: this Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Any Chromium will do (`tests/support/browser.py` looks for the same names); on a Mac the tests find Google Chrome.
browser: ## Install the browser that the page is tested in (Debian, Ubuntu: needs root)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends chromium; }

pooler: ## Install the PgBouncer that connections are tested through (Debian, Ubuntu: needs root)
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends pgbouncer; }

contract-tools: ## Install what the contract is tested with: Node (Debian, Ubuntu: needs root), AsyncAPI's parser, ajv
	@command -v npm >/dev/null || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends nodejs npm; }
	@cd tests/contract_tools && { test node_modules/.package-lock.json -nt package-lock.json || \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; }

demo: setup ## Real orders through two workers, one killed half way, with a report; within a minute, no Docker needed
	@$(BIN)/order-worker demo

shop: setup ## Walk through the data layer, step by step, on a PostgreSQL of its own
	@$(BIN)/python examples/shop.py

# A test waits for servers and rebalances most of the time, so four processes, each with servers of its own, fit
# on two cores.
# Where CI is set, a missing browser, PgBouncer or contract tool is an error, so all are brought along.
test: setup $(if $(CI),browser pooler contract-tools) ## All tests, on real Kafka and PostgreSQL; thirteen minutes on two cores
	@$(BIN)/python -m pytest -n 4 --dist worksteal

check: lint types test faults ## What CI runs: lint, types, all tests, the short fault campaign

faults: setup ## Try to break every promise: the quick faults, three seeds each, in a quarter of an hour
	@$(BIN)/python -m tests.faults --faults short --seeds 3 --lanes 2

campaign: setup ## Every fault on ten seeds, for two hours; SEEDS, ORDERS, MINUTES, FAULTS change the plan
	@$(BIN)/python -m tests.faults --faults $(or $(FAULTS),all) --seeds $(or $(SEEDS),10) \
		--orders $(or $(ORDERS),20000) --minutes $(or $(MINUTES),120) --lanes 2 --report campaign.tsv

soak: setup ## An hour at half of the peak, with a blow every 20 seconds, and every order judged
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),60)

mutations: setup ## Remove each rule of the worker, and show which run notices
	@$(BIN)/python -m tests.faults.mutate

lint: setup ## ruff: rules and format; import-linter: which folder may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache

types: setup ## mypy, strict
	@$(BIN)/mypy
	@for example in examples/*.py; do $(BIN)/mypy $$example || exit 1; done

bench: setup ## How fast, against baselines, in one run on this machine; PARTS=all RESULTS=folder for everything
	@$(BIN)/python -m bench $(PARTS) $(if $(RESULTS),--results $(RESULTS))

listings: setup ## Time every listing of the data layer over 1,000,000 orders
	@$(BIN)/python -m bench.listings

screens: setup ## Take the pictures of the commands in docs/ anew, from a real run
	@$(BIN)/python -m docs.screens

schemas: setup ## Write contracts/schemas/ and docs/json/ anew from the models
	@$(BIN)/python -m contracts.schema
	@$(BIN)/python -m worker.cli.documents
	@$(BIN)/python -m contracts.asyncapi

lock: setup ## Pin all dependencies anew, with hashes
	@for set in "worker" "dev --extra local --group dev"; do set -- $$set; name=$$1; shift; \
		$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
			--custom-compile-command "make lock" pyproject.toml "$$@" -o requirements/$$name.txt; done

clean: ## Remove .venv and all caches of this folder
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
