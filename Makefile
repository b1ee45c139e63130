# Everything a newcomer needs is a target here; `make` lists them. Only Python 3.11 and pip are assumed.

PYTHON ?= python3.11
# Of an environment that is there its own Python counts.
CHECK_PYTHON = { test ! -x $(BIN)/python || $(BIN)/python -c '$(IS_3_11)'; } && $(PYTHON) -c '$(IS_3_11)' || \
  { echo "The locks are for Python 3.11. Install it, or name it: make $@ PYTHON=/path/to/python3.11;"; \
    echo "remove $(VENV) where another Python made it"; exit 1; }
IS_3_11 = import sys; sys.exit(sys.version_info[:2] != (3, 11))
VENV ?= .venv
# Where pip finds CPU builds of torch, if not on its usual way: the address of PyTorch's CPU wheel index.
TORCH_INDEX ?=

# Where make ravdess starts from.
BASE_MODEL ?= runs/quickstart/sft/model

BIN := $(VENV)/bin
# Which lock $(VENV) is made from: make env-gpu leaves the mark, and all other targets go on with it.
KIND = $(if $(wildcard $(VENV)/.gpu),gpu,cpu)
LOCK := requirements/$(KIND).lock
DEPENDENCIES := $(VENV)/.dependencies-installed
PROJECT := $(VENV)/.project-installed

# Engines share the cores as processes: a thread pool in each would only fight the others.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help env env-gpu quickstart ravdess small nodes test test-unit test-slow test-integration test-nodes test-families test-long test-page chaos bench gpu-check check docs pages format doctor \
  release wheel lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(PROJECT) ## Create .venv from requirements/cpu.lock (skipped when up to date)

env-gpu: ## The same from requirements/gpu.lock: NVIDIA GPUs, driver 580 or newer (README, Clusters and GPUs)
	@test ! -e $(DEPENDENCIES) || test -e $(VENV)/.gpu || { echo "$(VENV) holds CPU builds. Remove it, or keep both:"; \
	  echo "  make env-gpu VENV=.venv-gpu     # and VENV=.venv-gpu with every other target"; exit 1; }
	@$(CHECK_PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $(VENV)/.gpu
	@$(MAKE) --no-print-directory env

$(DEPENDENCIES): $(LOCK)
	@$(CHECK_PYTHON)
	@echo "Creating $(VENV): about $(if $(filter gpu,$(KIND)),10,4) GB, some minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(LOCK)
	@test $(KIND) = gpu || $(BIN)/python -c 'import torch' || \
	  { echo "torch does not load: it is probably a CUDA build. Take the CPU build:"; \
	    echo "  rm -r $(VENV) && make env TORCH_INDEX=<address of the CPU wheel index named on pytorch.org>"; exit 1; }
	@test $(KIND) = cpu || $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || \
	  { echo "torch is a CPU build: pip's settings name an index of them. Without those settings:"; \
	    echo "  rm -r $(VENV) && PIP_CONFIG_FILE=/dev/null make env-gpu"; exit 1; }
	@touch $@

$(PROJECT): $(DEPENDENCIES) setup.cfg pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from rlcore.engines.torchvision_shim import write_pth; write_pth()'
	@touch $@

quickstart: env ## Train the small speech model end to end (CPU, minutes); results in runs/quickstart
	$(BIN)/emotion quickstart --config emotion_task/configs/quickstart.yaml

ravdess: env ## The same line on recorded speech: RAVDESS_ROOT=/folder/with/Actor_01.. make ravdess
	@test -d "$(RAVDESS_ROOT)" || { echo "RAVDESS_ROOT='$(RAVDESS_ROOT)' is no folder."; \
	  echo "Set it to the folder that holds Actor_01 .. Actor_24: RAVDESS_ROOT=/data/ravdess make ravdess"; exit 2; }
	@test -d "$(BASE_MODEL)" || { echo "$(BASE_MODEL) is missing: run make quickstart first, whose SFT model this"; \
	  echo "starts from, or name another model: make ravdess BASE_MODEL=runs/other/sft/model"; exit 2; }
	$(BIN)/emotion quickstart --config emotion_task/configs/quickstart.yaml \
	  --config emotion_task/configs/ravdess.yaml base_model=$(BASE_MODEL)

small: env ## The line with real pre-trained weights on RAVDESS (CPU, an hour or two): RAVDESS_ROOT=... make small
	@test -d "$(RAVDESS_ROOT)" || { echo "RAVDESS_ROOT='$(RAVDESS_ROOT)' is no folder."; \
	  echo "Set it to the folder that holds Actor_01 .. Actor_24: RAVDESS_ROOT=/data/ravdess make small"; exit 2; }
	$(BIN)/emotion small-model --out runs/small-model
	$(BIN)/emotion quickstart --config emotion_task/configs/small.yaml

nodes: env ## The line, small, on three Ray nodes of this machine (docs/guides/cluster.md); results in runs/nodes
	$(BIN)/python cluster/local_nodes.py -- $(BIN)/emotion quickstart \
	  --config emotion_task/configs/quickstart.yaml --config emotion_task/configs/three_nodes.yaml

test: test-unit test-slow test-integration ## All tests but the long ones and those that kill nodes

test-unit: env ## Unit and property tests, on all cores (two minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests/unit tests/property

test-slow: env ## Unit tests that wait, render sound, build models or start processes (three minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow tests/unit

test-integration: env ## Tests with Ray, vLLM and DeepSpeed for real, two files at a time (a quarter of an hour)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/integration -m "not nodes and not families and not long"

test-families: env ## The further model families, each in vLLM and in a run (some minutes)
	$(BIN)/python -m pytest tests/integration -m families

test-page: env ## The pages of runs in Chromium (needs chromium and the extra `page`; a minute)
	$(BIN)/python -m pytest tests/page

chaos: env ## Kills and stops everything a run is made of, in every state (hours; goes on where it was ended)
	$(BIN)/python -m benchmarks.chaos --json $(RESULTS)/chaos.json --page docs/reference/faults.md --gate
	$(BIN)/python -m benchmarks.chaos --kills 100 --json $(RESULTS)/chaos_kills.json --gate

test-long: env ## Models that are really trained, whole benchmarks: a second look (some minutes)
	$(BIN)/python -m pytest tests/integration -m long

test-nodes: env ## Three Ray nodes on this machine, of which two die (two minutes)
	$(BIN)/python -m pytest tests/integration/test_nodes.py

# In the order in which they are worth having; docs/reference/benchmarks.md says what each measures.
BENCHMARKS := learner_step long_answers plan_memory preprocessing weight_sync rollout_throughput turns staleness rewards annotate prosody claims progressive_gate \
  simulation simulation_check scale
RESULTS := benchmarks/results
# A Python of another environment that has TRL (pip install trl): then the comparison with it runs too.
TRL_PYTHON ?=

bench: env ## All benchmarks (35 minutes on two idle cores, more on slow ones); tables here, JSON in benchmarks/results
	$(BIN)/rlcore bench --json $(RESULTS)/bench.json
	@for name in $(BENCHMARKS); do \
	  $(BIN)/python -m benchmarks.$$name --json $(RESULTS)/$$name.json || exit 1; done
	@if [ -n "$(TRL_PYTHON)" ]; then \
	  $(BIN)/python -m benchmarks.peers.trl --python $(TRL_PYTHON) --json $(RESULTS)/peers_trl.json; \
	else echo "TRL_PYTHON is not set: the comparison with TRL is left out"; fi

# Without `env`: any Python that has torch, transformers and rlcore's small packages will do (PYTHON_OF_GPU=python3).
PYTHON_OF_GPU ?= $(BIN)/python
gpu-check: ## On a machine with a GPU: what works, and how fast (at most ten minutes; docs/guides/gpus.md)
	$(PYTHON_OF_GPU) -m benchmarks.gpu_check --json $(RESULTS)/gpu_check.json

check: env docs ## Format, lint, types, and the docs' links, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: env ## The documentation as a site: build/site/index.html, which needs no server
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: env ## Format, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

doctor: env ## What is wrong with this machine, and what to do
	$(BIN)/rlcore doctor

release: check test ## Name, date, commit and tag the changes of CHANGELOG.md: make release VERSION=0.2.0
	@echo "$(VERSION)" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+' || { echo "VERSION='$(VERSION)': must be x.y.z"; exit 2; }
	@test -z "$$(git status --porcelain)" || { echo "There are changes that are not committed."; exit 2; }
	sed -i 's/^## Unreleased$$/## Unreleased\n\n## $(VERSION) ($(shell date +%F))/' CHANGELOG.md
	sed -i 's/^__version__ = .*/__version__ = "$(VERSION)"/' rlcore/__init__.py
	git commit -qam "Release $(VERSION)"
	git tag -a "v$(VERSION)" -m "rlcore $(VERSION)"
	@echo "Tagged v$(VERSION). The wheel and sdist: make wheel"

wheel: env ## A wheel and an sdist in dist/
	$(BIN)/python -c 'from setuptools import build_meta as b; b.build_sdist("dist"); b.build_wheel("dist")'

lock: ## Resolve the newest versions into requirements/cpu.lock and gpu.lock
	$(PYTHON) requirements/lock.py

pages: env ## Write the pages of docs/reference that follow from sources: keys, commands, families, versions
	cd docs && $(abspath $(BIN)/python) -m generate

clean: ## Remove .venv, caches and build leavings (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
