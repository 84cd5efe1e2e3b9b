# make demo | test | check | bench. Python 3.11 or newer, make, and the package registries are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format bench servers standard lint-deploy clean constraints clients clients-constraints browser kills

demo: $(READY)
	@$(BIN)/interposer demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_FLAGS)

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

# Agent frameworks that nobody here wrote, for the tests under tests/e2e/clients: each has an environment of its own, since
# their versions of `mcp` do not go together. uv: it takes seconds where pip takes a minute.
clients: servers .clients/native/.ready .clients/adapters/.ready

.clients/uv/.ready: tests/e2e/clients/uv.txt
	$(PYTHON) -m venv .clients/uv
	.clients/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

.clients/%/.ready: tests/e2e/clients/%.txt .clients/uv/.ready
	rm -rf .clients/$* && $(PYTHON) -m venv --without-pip .clients/$*
	.clients/uv/bin/uv pip install --system-certs --quiet --compile-bytecode --python .clients/$*/bin/python --no-deps --require-hashes -r $< \
	  || .clients/uv/bin/python -m pip --python .clients/$*/bin/python install --quiet --no-deps --require-hashes -r $<
	rm -f .clients/$*/.lock  # uv leaves it writable by everybody, and brokers refuse to start near such files
	touch $@

# A real browser for the console's tests (Debian; needs root).
browser:
	command -v chromium >/dev/null && command -v chromedriver >/dev/null || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver fonts-dejavu-core; } >/dev/null

# The proof of approvals under `kill -9`, 200 times instead of the suite's few, with a table of what came of it.
kills: $(READY)
	INTERPOSER_KILLS=$${INTERPOSER_KILLS:-200} $(BIN)/python -m pytest -n 2 -rP tests/promises/test_approval_kills.py

$(READY): pyproject.toml constraints.txt adapters/langchain/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interposer needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e adapters/langchain
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-standard $(VENV)-deploy .node .clients .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Write what is pinned anew from pyproject.toml: every version by hash, no index named.
constraints:
	$(BIN)/python tools/constraints.py > constraints.txt
	$(BIN)/python tools/constraints.py runtime > examples/deploy/requirements.txt
	$(BIN)/python tools/constraints.py deploy > tools/requirements-deploy.txt

# The same for the environments of `make clients`.
clients-constraints: .clients/uv/.ready
	for each in native adapters uv; do .clients/uv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --override tests/e2e/clients/override.txt -o tests/e2e/clients/$$each.txt tests/e2e/clients/$$each.in; done
