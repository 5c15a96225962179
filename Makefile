# Everything here works from a clean clone: `setup` comes first by itself. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
PROTO_VENV := .venv-proto
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTO_READY := $(PROTO_VENV)/.ready
AUDIT_VENV := .venv-audit
AUDIT_READY := $(AUDIT_VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
FUZZ_VENV := .venv-fuzz
FUZZ_READY := $(FUZZ_VENV)/.ready
FUZZ_SECONDS ?= 60
MUTATION_ARGS ?=
LOCK ?= requirements/dev.lock
STATE_DIR := .grpc-bearer-dev
WORK := .ci/work
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-emit-index-url \
	--custom-compile-command 'make lock'
PYTEST_ARGS ?=
TOKEN_ARGS ?=
SOAK_ARGS ?=
AUDIT_ARGS ?=

.PHONY: help setup run token test coverage proto proto-check lint type check bench bench-envoy bench-scale bench-tail bench-start instructions hostile soak audit sbom fuzz mutation lock clean

help: ## list the targets
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "variables: PYTHON=python3  PYTEST_ARGS='-k name'  TOKEN_ARGS='--sub alice --ttl 60'  FUZZ_SECONDS=60"

setup: $(READY) ## make .venv with everything for development (the other targets do this by themselves)

run: $(READY) ## start the service with its embedded issuer; prints a grpcurl line to paste
	@exec $(BIN)/grpc-bearer serve --dev

token: $(READY) ## print a token of the embedded issuer and nothing else; options in TOKEN_ARGS
	@exec $(BIN)/grpc-bearer token $(TOKEN_ARGS)

test: $(READY) ## run the tests and report the coverage; options in PYTEST_ARGS
	@$(BIN)/coverage erase
	@$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

coverage: $(READY) ## after `make test`: fail when a branch of the security core is uncovered
	@$(BIN)/python tools/coverage_gate.py

proto: $(READY) $(PROTO_READY) ## regenerate the committed code from the protos
	@$(BIN)/python tools/protos.py

proto-check: $(READY) $(PROTO_READY) ## fail when the committed code differs from what the protos generate
	@$(BIN)/python tools/protos.py --check

lint: $(READY) ## ruff (rules and format) and buf lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code

# Not the examples: they import what their own protoc run generates. tests/e2e/ checks their types, against the wheel.
type: $(READY) ## mypy --strict on both source roots, the tests and the tools
	@$(BIN)/mypy $(wildcard interceptors server tests tools benchmarks campaign fuzz)

check: lint type proto-check test ## all of the above: what has to pass before a commit

bench: $(BENCH_READY) ## what authentication costs, in ratios to a bare server and to peers (under 6 minutes; benchmarks/README.md)
	@$(BENCH_VENV)/bin/python -m benchmarks

bench-envoy: $(BENCH_READY) ## the same against Envoy's jwt_authn in front of a bare server
	@$(BENCH_VENV)/bin/python -m benchmarks.envoy

bench-scale: $(BENCH_READY) ## how cost and memory grow with processes, streams, tokens, keys and issuers
	@$(BENCH_VENV)/bin/python -m benchmarks.scale

bench-tail: $(BENCH_READY) ## a good caller's latency while the issuer hangs, kids are forged and keys change
	@$(BENCH_VENV)/bin/python -m benchmarks.tail

bench-start: $(READY) ## how long an import takes beside grpc's, and how soon the service is ready
	@$(BIN)/python -m benchmarks.start

instructions: $(READY) ## machine instructions a call, counted by valgrind, against those that are recorded
	@$(BIN)/python -m benchmarks.instructions --check

hostile: $(READY) ## a good caller while hostile clients are at work: a table with figures (under 4 minutes; docs/hostile-client.md)
	@$(BIN)/python -m campaign.clients

soak: $(READY) ## everything at once for 10 minutes, memory and verdicts watched; options in SOAK_ARGS (docs/hostile-client.md)
	@$(BIN)/python -m campaign.soak $(SOAK_ARGS)

audit: $(READY) $(AUDIT_READY) ## known vulnerabilities of the locked versions; AUDIT_ARGS=--required fails where none could be looked up
	@$(BIN)/python tools/audit.py $(AUDIT_ARGS) requirements/dev.lock

sbom: $(READY) $(AUDIT_READY) ## the wheel and its software bill of materials (CycloneDX), in .ci/work/sbom
	@rm -rf $(WORK)/sbom
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir $(WORK)/sbom .
	@$(BIN)/python tools/sbom.py $(WORK)/sbom/*.whl $(WORK)/sbom/grpc-bearer.cdx.json

fuzz: $(FUZZ_READY) ## fuzz what reads tokens and JWK Sets, FUZZ_SECONDS for each of the two (fuzz/README.md)
	@$(FUZZ_VENV)/bin/python -m fuzz --seconds $(FUZZ_SECONDS)

mutation: $(FUZZ_READY) ## break verifier, policy and key cache in every way and count what the tests miss (20 minutes; docs/mutation.md)
	@$(FUZZ_VENV)/bin/python tools/mutation.py $(MUTATION_ARGS)

lock: $(READY) ## compile the lock files anew: newest and lowest versions that pyproject.toml allows
	@$(COMPILE) --upgrade --extra dev pyproject.toml -o requirements/dev.lock
	@$(COMPILE) --upgrade --extra dev --resolution lowest-direct pyproject.toml -o requirements/lowest.lock
	@$(COMPILE) --upgrade --constraint requirements/dev.lock pyproject.toml requirements/bench.in -o requirements/bench.lock
	@$(COMPILE) --upgrade --constraint requirements/dev.lock --extra dev pyproject.toml requirements/fuzz.in -o requirements/fuzz.lock
	@$(COMPILE) --upgrade requirements/proto.in -o requirements/proto.lock
	@$(COMPILE) --upgrade requirements/audit.in -o requirements/audit.lock

clean: ## remove the environments, the caches, build results and the embedded issuer's state
	@rm -rf .venv .venv-* .ci/work .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* coverage.json .fuzz .mutation \
		htmlcov build dist tests/e2e/node/node_modules benchmarks/node/node_modules $(STATE_DIR)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BENCH_READY): pyproject.toml requirements/bench.lock
	@tools/setup.sh $(PYTHON) $(BENCH_VENV) requirements/bench.lock

$(FUZZ_READY): pyproject.toml requirements/fuzz.lock
	@tools/setup.sh $(PYTHON) $(FUZZ_VENV) requirements/fuzz.lock

$(READY): pyproject.toml $(LOCK)
	@tools/setup.sh $(PYTHON) $(VENV) $(LOCK)

# The generator has an environment of its own: its protobuf is older than the one that the tests run on (CONTRIBUTING.md).
$(PROTO_READY): requirements/proto.lock
# So have the tools that look at the others.
$(AUDIT_READY): requirements/audit.lock
$(PROTO_READY) $(AUDIT_READY): | $(READY)
	@{ echo "setting up $(@D) from $<"; \
	$(BIN)/python -m venv --clear $(@D); \
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<; \
	touch $@; } >&2
