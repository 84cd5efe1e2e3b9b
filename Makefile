# make demo | test | check | bench. Python 3.11 or newer, make, and the package registries are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format bench servers standard lint-deploy clean constraints

demo: $(READY)
	@$(BIN)/interposer demo

test: $(READY)
	$(BIN)/python -m pytest -n auto $(PYTEST_FLAGS)

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

# The linters of examples/deploy that are no tests: apart, since they bring their own libraries. DL3059 asks to join RUN
# lines by a shell.
lint-deploy: $(VENV)-deploy/.ready
	$(VENV)-deploy/bin/hadolint --failure-threshold info --ignore DL3059 examples/deploy/container/Dockerfile
	$(VENV)-deploy/bin/python tools/compose.py examples/deploy/container/compose.yaml
	$(VENV)-deploy/bin/compose-lint --fail-on low --config examples/deploy/container/.compose-lint.yml examples/deploy/container/compose.yaml

$(VENV)-deploy/.ready: tools/requirements-deploy.txt
	$(PYTHON) -m venv $(VENV)-deploy
	$(VENV)-deploy/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/requirements-deploy.txt
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
	rm -rf $(VENV) $(VENV)-standard $(VENV)-deploy .node .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Write what is pinned anew from pyproject.toml: every version by hash, no index named.
constraints:
	$(BIN)/python tools/constraints.py > constraints.txt
	$(BIN)/python tools/constraints.py runtime > examples/deploy/requirements.txt
	$(BIN)/python tools/constraints.py deploy > tools/requirements-deploy.txt
