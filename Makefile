# Two commands do everything: `make demo` and `make test`. Both need Python 3.11 (or 3.12), make and the package registries.

PYTHON ?= $(firstword $(shell command -v python3.11) $(shell command -v python3.12) python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
ADDRESS ?= 127.0.0.1
PORT   ?= 8800

.DEFAULT_GOAL := help

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps:  ## system packages that the voices, the microphone and the browser tests use
	@sh .ci/deps

demo: $(STAMPS)/base | deps  ## set up, serve on loopback, print the address to open
	@exec $(BIN)/liveface serve --port $(PORT)

test: $(STAMPS)/dev $(STAMPS)/node | deps  ## set up, run every test that CI runs
	@sh .ci/deps tests
ifdef TESTS
	$(BIN)/python -m pytest -m "not slow" $(TESTS)
else  # models compute, on both cores; the engine keeps time, alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadgroup tests/models
	$(BIN)/python -m pytest -m "not slow" --ignore tests/models
endif

style: $(STAMPS)/dev  ## ruff, its format, and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(STAMPS)/dev $(STAMPS)/node | deps  ## everything slow: newcomer's path, full fuzz, browser matrix
	@sh .ci/deps tests
	$(BIN)/python -m pytest -m slow --timeout 1800 $(TESTS)

soak: $(STAMPS)/dev | deps  ## a thousand sessions come and go, and the protocol is fuzzed with atheris where it is
	$(BIN)/python -m tests.soak.churn $(SOAK)
	$(BIN)/python -m tests.soak.fuzz $(FUZZ)

bench: $(STAMPS)/dev | deps  ## measured latency, as JSON, tables and plots under out/
	mkdir -p out
	$(BIN)/python -m tests.bench.chunker
	$(BIN)/python -m tests.bench.mel
	$(BIN)/liveface bench latency --control --json --plot out/latency.png > out/latency.json
	$(BIN)/liveface bench runtime --json --plot out/runtime.png > out/runtime.json
	$(BIN)/python -m tests.bench.browser

avatars: $(STAMPS)/dev  ## make the shipped avatars again, from nothing but this repository
	$(BIN)/python -m models.studio.demo

docs: $(STAMPS)/dev | deps  ## the demo's pictures in README.md, taken again
	$(BIN)/python -m tests.clients.pictures docs

clean:  ## remove what these verbs made
	rm -rf $(VENV) build dist out *.egg-info tests/clients/node/node_modules

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)

$(STAMPS)/base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: $(STAMPS)/base
	$(PIP) --editable '.[dev]'
	@touch $@

NODE_LOCKS := $(shell git ls-files 'tests/*package-lock.json' 2>/dev/null)

$(STAMPS)/node: $(NODE_LOCKS) | $(BIN)/python
	@for lock in $(NODE_LOCKS); do \
		command -v npm >/dev/null || { echo "npm is missing: the clients' tests in JavaScript will be skipped"; break; }; \
		(cd $$(dirname $$lock) && npm ci --silent --no-audit --no-fund) || exit 1; \
	done
	@touch $@

.PHONY: help deps demo test style check soak bench avatars docs clean
