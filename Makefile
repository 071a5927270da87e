# `make help` lists the targets. Needs python3 (3.11 or newer), git and make; everything else goes into .venv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Processes of pytest; each uses one core, lest they slow each other down.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
# $(call install,EXTRAS): install the project with these extras, show what is downloaded, and touch the target.
install = $(PIP) -c constraints.txt -e '.[$(1)]' 2>&1 \
  | tee $(VENV)/install.log \
  | { grep --line-buffered -oE '(Downloading|Using cached) .*[0-9]{2}(\.[0-9])? [MG]B\)|^Installing collected packages|^ERROR.*' || true; } \
  || { tail -n 20 $(VENV)/install.log; echo "The installation failed; all of its output: $(VENV)/install.log"; exit 1; }; \
  touch $@
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --no-compile --progress-bar off
# Writes the generated tables of the documents: their pages call functions of docs/tables.py.
COG := $(BIN)/cog -P -I . -p "from docs import tables" --verbosity=1
GENERATED := README.md docs/results.md docs/results/*.md docs/hidden-settings.md docs/beyond-the-paper.md docs/reliability.md \
    docs/command-line.md docs/architecture.md
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Snakemake and its jobs find the programs of the environment first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Images of containers often set it: then every process compiles torch's Python anew, which takes as long as its import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-tests quickstart test test-slow lint format tables notebooks docs reference clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(VENV)/workflow ## Make .venv with everything that the workflow needs

$(VENV)/workflow: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, not {sys.version}")'
	@echo "Making $(VENV) (the download is about 3 GB, most of it torch for GPUs)"
	@$(PYTHON) -m venv $(VENV)
	@$(call install,workflow)

setup-tests: $(VENV)/tests ## Add what tests, linters and the site need

$(VENV)/tests: $(VENV)/workflow
	@echo "Adding what the tests need"
	@$(call install,workflow$(COMMA)dev$(COMMA)slurm$(COMMA)docs)

quickstart: setup ## Run the whole workflow as params.yaml says: data, training, tables, figures, report
	@start=$$(date +%s); \
	echo "snakemake --cores $(CORES) --resources gpu=8 all"; \
	snakemake --cores $(CORES) --resources gpu=8 all; \
	seconds=$$(( $$(date +%s) - start )); \
	echo "Done in $$(( seconds / 60 )) min $$(( seconds % 60 )) s. The report: results/report.html"

test: setup-tests ## Run the tests, without those that take long or need a GPU
	$(PYTEST)

test-slow: setup-tests ## Run the tests that take long
	$(PYTEST) -m "slow and not gpu"

lint: setup-tests ## Check style, types and the workflow's form
	ruff check
	ruff format --check
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	$(COG) --check --check-fail-msg="A page differs from what its tables come to: make tables" $(GENERATED)

format: setup-tests ## Put the source into the form that lint asks for
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow

docs: setup-tests ## Build the site of the documents into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site: site/index.html"

reference: setup-tests ## Write the page of the settings (docs/settings.md) anew
	$(BIN)/python -m docs.settings_reference > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md

tables: setup-tests ## Write the tables and pictures of the documents anew from measured/
	$(COG) -r $(GENERATED)
	$(BIN)/python -m docs.pictures

notebooks: setup-tests ## Execute the notebooks of the documents and store their outputs
	$(BIN)/python -m tests.docs.notebooks

clean: ## Remove .venv and what the tools left; data and results stay
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
