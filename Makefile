# Caploom's commands. Each sets up what it needs in .venv first.
SHELL := /bin/bash
PYTHON ?= python3.11
CONFIG ?= configs/demo.yaml
BIN := .venv/bin
# One worker more than there are processors, since tests wait for servers and browsers. Each holds torch and
# transformers: more than eight ask for much memory and gain little.
WORKERS = $(shell $(PYTHON) -c "import os; print(min(8, os.cpu_count() + 1))")
PARALLEL ?= --numprocesses $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help

define new_venv
	@command -v $(PYTHON) >/dev/null || { echo "Caploom needs Python 3.11: install it, or name yours with PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
endef

.PHONY: help
help: ## List these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Made again when the dependencies change; the markers are touched last, so a broken set-up is not taken for done.
.venv/.installed: pyproject.toml
	$(call new_venv)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/.developer: pyproject.toml
	$(call new_venv)
	$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	touch .venv/.installed $@

.PHONY: venv
venv: .venv/.developer ## Set up the virtual environment alone, with the tools that developers need

.PHONY: demo
demo: .venv/.installed ## Run the whole graph on the embedded picture-book scenes
	$(BIN)/python -m dagster_project.run --config configs/demo.yaml

.PHONY: demo-seeds
demo-seeds: .venv/.installed ## The demo over three seeds: mean and spread
	$(BIN)/python -m dagster_project.run --config configs/demo.yaml --seeds 0,1,2

.PHONY: demo-emoji
demo-emoji: .venv/.installed ## The whole graph on emoji drawings that people named (fetched with npm)
	$(BIN)/python -m caploom.demo.emoji --out data/emoji
	$(BIN)/python -m dagster_project.run --config configs/emoji.yaml

.PHONY: run
run: .venv/.installed ## Run the whole graph on your own data: make run CONFIG=my.yaml
	$(BIN)/python -m dagster_project.run --config $(CONFIG)

.PHONY: ui
ui: .venv/.installed ## Open the Dagster UI on what a run made: make ui [CONFIG=my.yaml]
	$(BIN)/python -m dagster_project.ui --config $(CONFIG)

.PHONY: test
test: venv ## Run the tests, side by side on all processors (PARALLEL= one after another)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

.PHONY: test-all
test-all: venv ## Run the long fault tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m slow

.PHONY: lint
lint: venv ## Check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: pictures
pictures: venv ## Take the documentation's screenshots again, of the finished demo
	$(BIN)/python docs/take_screenshots.py --config configs/demo.yaml
