# Everything that a developer runs; `make help` lists it. Needs Python 3.11+ and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
RUN_DIR ?= .run
WORKERS ?= 1
ROLE ?= customer
T ?= tests

export RUN_DIR
# Without bytecode every process that starts, and a test run starts hundreds, compiles the service anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Using it

.PHONY: run
run: $(VENV)/run.stamp ## Bring up the whole system on this machine; Ctrl-C stops it (TLS=1 or mutual, WORKERS=1, GATEWAY_PORT=8080, GRPC_PORT=50051, KAFKA_PORT=9092, METRICS_PORT=9464, RUN_DIR=.run)
	@exec $(BIN)/python -m devstack run --workers $(WORKERS)

.PHONY: token
token: $(VENV)/run.stamp ## Print a token for the running stack (ROLE=support_agent [SUB=uuid])
	@exec $(BIN)/python -m devstack token --role $(ROLE) $(if $(SUB),--sub $(SUB))

.PHONY: mails
mails: $(VENV)/run.stamp ## Print the mails that the running stack has sent, the newest last
	@exec $(BIN)/python -m devstack mails

.PHONY: keys
keys: $(VENV)/run.stamp ## Make the development signing key and key set in RUN_DIR, which docker compose mounts; with TLS=1 certificates too
	@exec $(BIN)/python -m devstack keys

##@ Working on it

.PHONY: test
test: $(VENV)/dev.stamp ## Run the tests against the real PostgreSQL, Kafka and Envoy (T=tests/unit runs a part)
	@exec $(BIN)/pytest $(if $(filter-out tests,$(T)),,-n 2) $(T)

.PHONY: bench
bench: $(VENV)/dev.stamp ## Measure, within 15 minutes: start, calls beside a floor server, workers, memory, overload, relay (S="calls soak" for some; bench/README.md)
	@exec $(BIN)/python -m bench $(S)

.PHONY: bench-scale
bench-scale: $(VENV)/dev.stamp ## Measure whether ten million tickets are as fast to work with as ten thousand: 40 minutes, 45 GB (SIZES=10000,1000000 for less)
	@exec $(BIN)/python -m bench.scale $(if $(SIZES),--sizes $(SIZES))

.PHONY: lint
lint: $(VENV)/dev.stamp ## Check style, types, imports, protos and calls, and that generated/ is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/lint.py
	$(BIN)/python protos/calls.py
	$(BIN)/python protos/generate.py --check

.PHONY: format
format: $(VENV)/dev.stamp ## Put the code into the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: generate
generate: $(VENV)/dev.stamp ## Write generated/: stubs, descriptor set and OpenAPI from protos/, statements from their compositions
	$(BIN)/python protos/generate.py

.PHONY: lock
lock: $(VENV)/dev.stamp ## Pin the newest versions that pyproject.toml allows, with hashes
	$(LOCK) --group dev -o requirements-dev.lock
	$(LOCK) --group devstack -c requirements-dev.lock -o requirements-run.lock
	$(LOCK) -c requirements-dev.lock -o requirements.lock
	$(COMPILE) --group build -c requirements-dev.lock -o requirements-build.lock

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
LOCK := $(COMPILE) pyproject.toml

.PHONY: clean
clean: ## Remove what the tools left behind; the data in RUN_DIR and the environment stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment, made once and again when a lock file changes. Output goes to standard error, so that `make token`
# prints a token and nothing else.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making the environment in $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) >&2

$(VENV)/run.stamp: requirements-run.lock | $(BIN)/python
	@echo "installing what the stack needs (about 400 MB the first time)" >&2
	@$(PIP) install --require-hashes -r requirements-run.lock >&2
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable . >&2
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock devstack/kafka.lock devstack/swagger-ui.lock $(VENV)/run.stamp
	@echo "installing what development needs" >&2
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock >&2
	@$(BIN)/python -m devstack fetch-jars >&2
	@touch $@
