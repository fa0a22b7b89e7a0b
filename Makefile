# Every target sets up what it needs in ./.venv from requirements/*.txt, pinned by version and hash.
# Needed on the machine: Python 3.11+ with venv, make; for JVM models a JDK 17+ (README.md).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
UV := $(BIN)/uv
# Stamps: what ./.venv holds. The development set contains the tour's.
DEV := .venv/.dev
TOUR := $(if $(wildcard $(DEV)),$(DEV),.venv/.tour)

ifdef SSL_CERT_FILE
export PIP_CERT ?= $(SSL_CERT_FILE)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv must not look for other interpreters or other projects' settings.
export UV_PYTHON_DOWNLOADS := never
export UV_NO_CONFIG := 1
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
# Without bytecode on the disk each process compiles all that it imports: a gateway's start takes 5 s CPU, not 0.6 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: run
run: $(TOUR) ## train, serve and drive the flight-delay models; stays up until Ctrl-C (ARGS=--once ends by itself)
	@exec $(BIN)/python -m models.flight_delay.tour $(ARGS)

.PHONY: test
test: $(DEV) ## run the whole test suite (ARGS is passed to pytest)
	@$(BIN)/python tests/needs.py
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: $(DEV) ## check style, types, imports and declared dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

.PHONY: bench
bench: $(DEV) ## measure speed on one core against bare handlers, 20 minutes (ARGS=--quick for 3)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-peers
bench-peers: $(DEV) ## measure speed on one core against other servers, each in an environment of its own
	@$(BIN)/python -m bench.campaign.peers $(ARGS)

.PHONY: campaign
campaign: $(DEV) ## run every long check
	@$(BIN)/python -m bench.campaign $(ARGS)

.PHONY: sabotage
sabotage: $(DEV) ## plant faults one by one and see the suite turn red
	@$(BIN)/python -m bench.campaign.sabotage $(ARGS)

.PHONY: clean
clean: ## remove everything that the other targets made
	rm -rf .venv .turnout build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--no-emit-index-url --no-emit-find-links --no-header
PINNED := $(LOCK) --constraints requirements/dev.txt

.PHONY: lock
lock: $(DEV) ## pin the newest allowed versions anew
	$(LOCK) --upgrade pyproject.toml --extra all --group tour --group dev -o requirements/dev.txt
	$(PINNED) pyproject.toml --extra all --group tour -o requirements/tour.txt
	$(PINNED) pyproject.toml --extra sklearn -o requirements/serve.txt
	$(PINNED) --group spark -o requirements/spark.txt
	$(PINNED) --group build -o requirements/build.txt
	$(PINNED) --group bootstrap -o requirements/uv.txt
	for peer in bench/peers/*/; do $(LOCK) $${peer}requirements.in -o $${peer}requirements.txt; done

# A changed requirement file makes the environment anew: what is no longer asked for is then gone.
.venv/.python: requirements/build.txt requirements/dev.txt requirements/tour.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version)'
	@rm -rf .venv
	@echo "setting up ./.venv"
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv does not work here; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	@touch $@

.venv/.tour: requirements/tour.txt pyproject.toml .venv/.python
	$(call install,tour,1 GB)

.venv/.dev: requirements/dev.txt pyproject.toml .venv/.python
	$(call install,dev,1.2 GB)

define install
@echo "installing requirements/$(1).txt: about $(2) in ./.venv, 1 to 3 minutes"
@$(UV) pip install --python $(BIN)/python --quiet --require-hashes --build-constraints requirements/build.txt --requirement requirements/$(1).txt
@$(UV) pip install --python $(BIN)/python --quiet --no-deps --build-constraints requirements/build.txt --editable .
@touch .venv/.$(1)
endef
