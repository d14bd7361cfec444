# Bare `make` prints this help. Every target sets up what it needs by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What .venv holds, a stamp for each set: what the demo needs, and all of it.
DEMO   := $(VENV)/.demo
READY  := $(VENV)/.ready
DOCS   := .venv-docs
# Where CI is set, the tests take a missing browser, PgBouncer, Prometheus or contract tool for an error.
TOOLS  := $(if $(CI),browser pooler prometheus contract-tools)
# The small set is enough where nothing but the demo is asked for and all of it is not there.
DEMO_ENVIRONMENT := $(if $(wildcard $(READY))$(filter-out demo,$(MAKECMDGOALS)),$(READY),$(DEMO))
# A lock names all that is installed, so pip need not look for what depends on what.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

.DEFAULT_GOAL := help
.PHONY: help setup venv browser pooler prometheus contract-tools demo servers shop test faults campaign soak mutations check lint types docs bench listings lock schemas screens release coverage clean

help: ## Show this help
	@test -t 1 && test -z "$$NO_COLOR" && on='\033[36m' off='\033[0m'; \
		awk -F ':.*## ' "/^[a-z-]+:.*## / {printf \"  $${on}make %-16s$${off}%s\\n\", \$$1, \$$2}" $(MAKEFILE_LIST)

demo: $(DEMO_ENVIRONMENT) ## Real orders through two workers, one killed half way, with a report; KEEP=1 leaves all running
	@$(BIN)/order-worker demo $(if $(filter 1,$(KEEP)),--keep)

setup: $(READY) ## Create .venv with the locked, hash-checked dependencies and the order-worker command

# The demo's set is completed where it is up to date; anything else is begun again.
$(READY): requirements/dev.txt pyproject.toml
	@$(MAKE) --no-print-directory --question $(DEMO) || $(MAKE) --no-print-directory venv
	@echo "Installing the locked dependencies into $(VENV) …"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-build-isolation --editable .
	@rm -f $(DEMO)
	@touch $@

# Without --no-compile, pip would spend seconds on modules that the demo never imports.
$(DEMO): requirements/demo.txt pyproject.toml
	@$(MAKE) --no-print-directory venv
	@echo "Installing what the demo needs into $(VENV) …"
	@$(INSTALL) --no-compile --require-hashes -r requirements/demo.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one, as in: make PYTHON=python3.12 demo"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ echo "error: this Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

servers: setup ## Kafka and PostgreSQL of your own until Ctrl-C, and the two settings that name them
	@$(BIN)/python examples/servers.py

shop: setup ## Walk through the data layer, step by step, on a PostgreSQL of its own
	@$(BIN)/python -m examples.shop

# Any Chromium will do (`tests/support/browser.py` looks for the same names); on a Mac the tests find Google Chrome.
browser: ## Install the browser that the page is tested in (Debian, Ubuntu: needs root)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends chromium; }

pooler: ## Install the PgBouncer that connections are tested through (Debian, Ubuntu: needs root)
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends pgbouncer; }

# Its package would start it as a service, now and at each boot: it must not run by itself.
prometheus: ## Install the Prometheus that metrics, alerts and dashboard are tested with (Debian, Ubuntu: needs root)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
		as_root="$(if $(filter 0,$(shell id -u)),,sudo)"; policy=/usr/sbin/policy-rc.d; \
		$$as_root apt-get update -qq && \
		{ test -e $$policy || { printf '#!/bin/sh\nexit 101\n' | $$as_root tee $$policy >/dev/null; \
			$$as_root chmod +x $$policy; mine=yes; }; } && \
		{ $$as_root apt-get install -y -qq --no-install-recommends prometheus; code=$$?; \
		test -z "$$mine" || $$as_root rm $$policy; \
		! command -v systemctl >/dev/null || $$as_root systemctl disable --now --quiet prometheus 2>/dev/null || true; \
		exit $$code; }; }

contract-tools: ## Install what the contract is tested with: Node (Debian, Ubuntu: needs root), AsyncAPI's parser, ajv
	@command -v npm >/dev/null || { \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
		$(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq --no-install-recommends nodejs npm; }
	@cd tests/contract_tools && { test node_modules/.package-lock.json -nt package-lock.json || \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; }

# A test waits for servers and rebalances half of the time, so five processes, each with servers of its own, keep
# two cores busy. They import the same files, also those that the tests start: each is compiled once.
test: setup $(TOOLS) ## All tests, on real Kafka and PostgreSQL; nine minutes on two cores
	@sed -n 's/^$@:.*## //p' $(firstword $(MAKEFILE_LIST))
	@echo "Servers start by themselves. Quicker, without servers: $(BIN)/python -m pytest tests/unit"
	@echo "One guarantee: $(BIN)/python -m pytest -m guarantee_2; which tests for which change: CONTRIBUTING.md"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 5 --dist worksteal

check: lint types docs test faults ## What CI runs: lint, types, the pages, all tests, the short fault campaign

faults: setup $(if $(CI),pooler) ## Try to break every promise: the quick faults, three seeds each, in a quarter of an hour
	@$(BIN)/python -m tests.faults --faults short --seeds 3 --lanes 2

campaign: setup ## Every fault on ten seeds, for two hours; SEEDS, ORDERS, MINUTES, FAULTS change the plan
	@$(BIN)/python -m tests.faults --faults $(or $(FAULTS),all) --seeds $(or $(SEEDS),10) \
		--orders $(or $(ORDERS),20000) --minutes $(or $(MINUTES),120) --lanes 2 --report campaign.tsv

soak: setup ## An hour at half of the peak, with a fault every 20 seconds, and every order judged
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

# A venv of its own: `make setup` stays small, and what builds pages is never beside the worker.
$(DOCS)/.ready: requirements/docs.txt
	@$(PYTHON) -m venv --clear $(DOCS)
	@echo "Installing what builds the pages into $(DOCS) …"
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

docs: $(DOCS)/.ready ## The pages as a site in site/, without a network; a broken link ends the build
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict --clean
	@echo "The pages are in site/: open site/index.html, or serve them: $(PYTHON) -m http.server --directory site"

bench: setup ## How fast, against baselines, in one run on this machine; PARTS=all RESULTS=folder for everything
	@$(BIN)/python -m bench $(PARTS) $(if $(RESULTS),--results $(RESULTS))

listings: setup ## Time every listing of the data layer over 1,000,000 orders
	@$(BIN)/python -m bench.listings

screens: setup ## Take the pictures of the commands in docs/ again, from a real run
	@$(BIN)/python -m docs.screens
	@$(BIN)/python -m docs.prometheus_screen

schemas: setup ## Write the schemas, and what the pages say of settings and commands, from the code
	@$(BIN)/python -m contracts.schema
	@$(BIN)/python -m worker.cli.documents
	@$(BIN)/python -m contracts.asyncapi
	@$(BIN)/python -m docs.reference

lock: setup ## Pin all dependencies again, with hashes
	@for set in "worker" "demo --extra local --group build" "dev --extra local --extra tracing --group dev"; do set -- $$set; name=$$1; shift; \
		$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
			--custom-compile-command "make lock" pyproject.toml "$$@" -o requirements/$$name.txt; done
	@$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" --group docs -o requirements/docs.txt

release: setup ## Check a version, and with EXECUTE=1 build its wheel and tag it; VERSION=0.2.0
	@$(BIN)/python -m release "$(VERSION)" $(if $(filter 1,$(EXECUTE)),--execute)

coverage: setup $(TOOLS) ## Which lines the tests reach, by package, their processes included; TESTS=tests/unit for a part
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n 5 --dist worksteal $(TESTS); ended=$$?; $(BIN)/coverage combine --quiet; \
		$(BIN)/coverage json --quiet -o - | $(BIN)/python -m tests.coverage; exit $$ended

clean: ## Remove the virtual environments, the site and all caches of this folder
	@rm -rf $(VENV) $(DOCS) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
