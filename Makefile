# One set of commands, the same on a desk and in CI. `make help` lists them.
#
# The environment is .venv, filled by plain pip from the locks in requirements/. Its stamp is a copy of the lock that it
# was filled from, written last: a lock that has changed, or an installation that broke off, is installed again, and a
# second run starts at once.

# Another Python beside it: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := $(VENV)-clients
RAY := $(VENV)-ray
NODE_CLIENTS := tests/clients/node
# The lock compiler; a pinned one is fetched into a throw-away environment unless UV=… names yours.
UV ?=
UV_VERSION := 0.13.9
# Of each thing that happens to replicas in `make chaos`.
REQUESTS ?= 100000
PIP_AUDIT_VERSION := 2.10.1
CYCLONEDX_VERSION := 7.5.0

# PORT=9000 make run, make run PORT=9000. Every IMAGECLASS_* variable reaches the service in the same two ways.
ifdef PORT
export IMAGECLASS_PORT := $(PORT)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# There is a process of tests for each core: with more threads they would only wait for each other.
ONE_THREAD := env TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help run setup setup-training setup-clients setup-ray setup-programs setup-cluster test test-long test-ray test-cluster chaos docs release format proto benchmark benchmark-short benchmark-soak benchmark-scaling manifests dashboards lock audit sbom clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## serve the models of model_store/ on 127.0.0.1:8000 (PORT=9000 or IMAGECLASS_…=… change it)
	@IMAGECLASS_PAGE_SAMPLES=$${IMAGECLASS_PAGE_SAMPLES:-true} exec $(BIN)/python -m app serve

setup: ## install what serving needs into .venv
	@$(call install,serving)

setup-training: ## add what training and the tests need (TensorFlow; 2.8 GB in all)
	@$(call install,development)

setup-clients: override VENV := $(CLIENTS)
setup-clients: override BIN := $(CLIENTS)/bin
setup-clients: ## install public clients of the protocols, for the tests alone, into .venv-clients and tests/clients/node
	@$(call install,clients)
	@$(install_node_clients)

setup-ray: override VENV := $(RAY)
setup-ray: override BIN := $(RAY)/bin
setup-ray: ## install the service with Ray Serve and Ray Data into .venv-ray (docs/how-to/ray.md; 1.5 GB)
	@$(call install,ray)

setup-programs: ## install the clients and proxies of tests/packages.txt that are missing, with apt-get (as root)
	@$(install_programs)

setup-cluster: ## build the programs of a Kubernetes cluster in build/cluster, for test-cluster (as root, on Debian; 15 minutes)
	@bash tools/cluster_programs.sh

test: setup-training setup-clients ## run every check that CI runs
	@$(call check,ruff check,$(BIN)/python -m ruff check .)
	@$(call check,ruff format,$(BIN)/python -m ruff format --check .)
	@$(call check,mypy,$(BIN)/python -m mypy)
	@$(call check,import-linter,$(BIN)/python $(BIN)/lint-imports)
	@$(call check,pytest,$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)

test-long: setup-training ## run the tests that take minutes (not part of make test; 15 minutes, 20 with a Docker engine)
	@$(BIN)/python -m pytest -m long --numprocesses auto --maxprocesses 4 --dist loadfile

test-ray: setup-ray ## run tests/ray on a small cluster on this machine (not part of make test; 5 minutes)
	@$(RAY)/bin/python -m pytest tests/ray

test-cluster: setup-training setup-cluster ## run the guides to Kubernetes on a cluster of one node (as root; a Docker engine; 5 minutes)
	@$(BIN)/python -m pytest -m cluster tests/cluster

chaos: setup-training ## kill, stop, replace and reload replicas behind a proxy under load (Docker, haproxy, nginx; ARGS="-k processes")
	@$(BIN)/python -m pytest -q -s -m "" --chaos-requests $(REQUESTS) $(addprefix tests/end_to_end/test_,replicas.py haproxy.py canary.py nginx.py) $(ARGS)

docs: ## build docs/ as a site in build/docs/site/; a dead link fails it (needs a package index)
	@$(call with_tool,--require-hashes --requirement requirements/docs.txt); "$$tools/bin/python" tools/docs_site.py

release: ## check, build and try the release that HEAD is tagged as: wheel and sdist in dist/ (needs a package index)
	@$(call with_tool,--require-hashes --requirement requirements/build.txt); "$$tools/bin/python" tools/release.py

format: setup-training ## put the code into its standard form
	@$(BIN)/python -m ruff check --fix-only --quiet .
	@$(BIN)/python -m ruff format .

proto: setup-training ## write open_inference_pb2.py anew from open_inference.proto
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. app/api/protocols/open_inference/open_inference.proto

manifests: ## write deploy/kubernetes/generated/ anew (kubectl with kustomize 5, as kubectl has it from 1.27)
	@command -v kubectl >/dev/null || { echo "make: there is no kubectl; install one that brings kustomize 5 (1.27 or newer)." >&2; exit 1; }
	@for folder in deploy/kubernetes/base deploy/kubernetes/kserve deploy/kubernetes/overlays/*; do \
		manifests=$$(kubectl kustomize $$folder) || exit 1; \
		printf '%s\n' "$$manifests" >deploy/kubernetes/generated/$${folder##*/}.yaml; \
	done

dashboards: setup-training ## write the rules and dashboards of deploy/monitoring/ anew from the registry of the metrics
	@$(BIN)/python -m deploy.monitoring

benchmark: setup-training ## measure the service beside its peers (Linux, wrk; 45 minutes; ARGS="--only ours --rounds 5")
	@$(BIN)/python -m benchmarks run $(ARGS)

benchmark-short: setup-training ## the same in three minutes: ours, the tutorial's service and the ceilings
	@$(BIN)/python -m benchmarks run --short $(ARGS)

benchmark-soak: setup-training ## a million requests, and what the memory does meanwhile
	@$(BIN)/python -m benchmarks soak $(ARGS)

benchmark-scaling: setup-training ## tables and plots against connections, picture bytes, model, batch size, workers
	@$(BIN)/python -m benchmarks scaling $(ARGS)

lock: ## write requirements/ anew from pyproject.toml, changing no more than needed (UPGRADE=1: newest of all)
	@$(usable_python)
	@set -e; uv='$(UV)'; \
	if [ -z "$$uv" ]; then \
		tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
		$(PYTHON) -m venv "$$tools" && "$$tools/bin/python" -m pip install --quiet --quiet uv==$(UV_VERSION); uv="$$tools/bin/uv"; \
	fi; \
	compile() { \
		"$$uv" pip compile --no-config --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
			--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$$@"; \
	}; \
	compile --group clients $(if $(UPGRADE),--upgrade) --output-file requirements/clients.txt; \
	ours='pyproject.toml --extra grpc --extra object-storage --extra tracing'; \
	compile $$ours --extra training --extra parquet --group dev $(if $(UPGRADE),--upgrade) --output-file requirements/development.txt; \
	for tool in build docs; do \
		compile --group $$tool --constraint requirements/development.txt --output-file requirements/$$tool.txt; \
	done; \
	compile $$ours --extra ray --group ray-tests --constraint requirements/development.txt --output-file requirements/ray.txt; \
	for set in training serving; do \
		rm -f requirements/$$set.txt; \
		if [ $$set = training ]; then extra='--extra training'; else extra=; fi; \
		compile $$ours $$extra --constraint requirements/development.txt --output-file requirements/$$set.txt; \
	done
	@echo "requirements/ is up to date with pyproject.toml"

audit: ## ask for known vulnerabilities of all that serving and training install (needs pypi.org's advisories)
	@$(call with_tool,pip-audit==$(PIP_AUDIT_VERSION)); \
	for set in serving training; do \
		echo "── requirements/$$set.txt"; \
		"$$tools/bin/pip-audit" --strict --require-hashes --disable-pip --requirement requirements/$$set.txt; \
	done

sbom: ## list all that serving and training install, with hashes, as CycloneDX in build/sbom/
	@$(call with_tool,cyclonedx-bom==$(CYCLONEDX_VERSION)); \
	mkdir -p build/sbom; \
	for set in serving training; do \
		"$$tools/bin/python" -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
			--output-file build/sbom/$$set.cdx.json requirements/$$set.txt; \
		echo "build/sbom/$$set.cdx.json"; \
	done

clean: ## remove .venv, caches and build output; models and data stay
	@rm -rf $(VENV) $(CLIENTS) $(RAY) $(NODE_CLIENTS)/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find app training imageclass tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,SET): fill .venv from requirements/SET.txt unless it is filled from it already. development holds all of
# serving in the same versions, so an environment that has development keeps to it. The stamp is emptied first, not
# removed: it still tells the next run what the environment was meant to hold. On a terminal pip shows how far it is, for
# that takes minutes; in a log it says only what fails.
define install
set=$(1); \
if [ -e $(VENV)/development.lock ]; then set=development; fi; \
lock=requirements/$$set.txt; stamp=$(VENV)/$$set.lock; \
if [ -x $(BIN)/python ] && cmp -s $$lock $$stamp; then exit 0; fi; \
if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	$(usable_python); \
	echo "creating $(VENV) with $$($(PYTHON) --version)"; \
	if ! reason=$$($(PYTHON) -m venv --clear $(VENV) 2>&1); then \
		rm -rf $(VENV); \
		echo "make: '$(PYTHON) -m venv' failed; on Debian or Ubuntu 'apt install python3-venv' mends it." >&2; \
		printf '%s\n' "$$reason" | tail -n 1 >&2; exit 1; \
	fi; \
fi; \
echo "installing $$lock (once)"; \
: > $$stamp; \
if [ -t 1 ]; then say=--progress-bar=on; else say='--quiet --quiet'; fi; \
$(BIN)/python -m pip install $$say --require-hashes -r $$lock || \
	{ echo "make: $$lock could not be installed; the lines above say why. The next run tries again." >&2; exit 1; }; \
cp $$lock $$stamp
endef

# Fill tests/clients/node/node_modules from its lock, in the same way. Without npm there are no clients of node to install.
define install_node_clients
cd $(NODE_CLIENTS); lock=package-lock.json; stamp=node_modules/filled.lock; \
if cmp -s $$lock $$stamp || ! command -v npm >/dev/null; then exit 0; fi; \
echo "installing $(NODE_CLIENTS)/$$lock (once)"; \
npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null || \
	{ echo "make: $(NODE_CLIENTS)/$$lock could not be installed; the lines above say why. The next run tries again." >&2; exit 1; }; \
cp $$lock $$stamp
endef

# Install what is missing of tests/packages.txt. A policy-rc.d that denies keeps Debian from starting the proxies as services.
define install_programs
missing=$$(sed '/^#/d' tests/packages.txt | while read -r package program; do \
	PATH=$$PATH:/usr/sbin command -v $$program >/dev/null || echo $$package; done); \
if [ -z "$$missing" ]; then exit 0; fi; missing=$$(echo $$missing); \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	echo "make: $$missing cannot be installed: that needs root and apt-get." >&2; exit 1; \
fi; \
echo "installing $$missing (once)"; \
policy=/usr/sbin/policy-rc.d; \
if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; fi; \
export DEBIAN_FRONTEND=noninteractive; \
{ apt-get update && apt-get install --yes --no-install-recommends $$missing; } >/dev/null || \
	{ echo "make: $$missing could not be installed; the lines above say why." >&2; exit 1; }
endef

# $(call with_tool,REQUIREMENT): make a throw-away environment with a tool in $tools, gone when the recipe ends.
define with_tool
set -e; $(usable_python); tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
$(PYTHON) -m venv "$$tools"; "$$tools/bin/python" -m pip install --quiet --quiet $(1)
endef

define usable_python
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	{ echo "make: Python 3.11, 3.12 or 3.13 is needed, but '$(PYTHON)' is $$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo not there). Try: make PYTHON=python3.12 …" >&2; exit 1; }
endef

# $(call check,NAME,COMMAND): run one check, and name the one that fails.
define check
echo "── $(1)"; $(2) || { echo "make test: $(1) failed" >&2; exit 1; }
endef
