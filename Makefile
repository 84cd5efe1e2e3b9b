# make demo | test | check | bench. Python 3.11 or newer, make, and the package registries are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format bench servers standard clean constraints

demo: $(READY)
	@$(BIN)/interposer demo

test: $(READY)
	$(BIN)/python -m pytest -n auto

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=adapters/langchain:examples/langchain_agent $(BIN)/mypy adapters/langchain/langchain_interposer adapters/langchain/tests examples/langchain_agent

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# langchain-tests' own suites on the adapter; they bring plugins that the other tests do not want, so apart from them.
standard: $(VENV)-standard/.ready
	$(VENV)-standard/bin/python -m pytest -c adapters/langchain/tests/standard/pytest.ini adapters/langchain/tests/standard

$(VENV)-standard/.ready: adapters/langchain/pyproject.toml
	$(PYTHON) -m venv $(VENV)-standard
	$(VENV)-standard/bin/python -m pip install --quiet --disable-pip-version-check 'langchain-tests>=1.1.9,<2' -e adapters/langchain
	touch $@

bench: $(READY)
	$(BIN)/python benchmarks/calls.py

# MCP servers that nobody here wrote, for the tests that need Node (version 20 or newer).
servers: .node/package.json

.node/package.json: tests/e2e/servers.json
	mkdir -p .node && cp tests/e2e/servers.json .node/package.json
	cd .node && npm install --no-audit --no-fund --no-package-lock || { rm -f package.json; exit 1; }

$(READY): pyproject.toml constraints.txt adapters/langchain/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interposer needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e adapters/langchain
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-standard .node .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Write constraints.txt anew from pyproject.toml: every version pinned by hash, no index named.
constraints:
	$(BIN)/python tools/constraints.py > constraints.txt
