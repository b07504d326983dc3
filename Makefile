# Needs python3 with venv and the package registries; `make PYTHON=python3.13 …` picks another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAULTS_SHORT = $(BIN)/python -m pytest -m faults --numprocesses 2 --dist loadgroup tests/faults
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TYPESCRIPT := typescript@5.9.3
TSC := node_modules/.bin/tsc
SOCKET_IO := socket.io@4.8.4
SOCKET_IO_STAMP := node_modules/socket.io/package.json
NPM_INSTALL := npm install --prefix . --loglevel=error --no-save --no-package-lock --no-audit --no-fund

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run run-cluster docs test faults faults-short load fuzz lint bench clean debian

help:
	@echo "make run    serve the example on http://127.0.0.1:$${PORT:-5000} (PORT=… for another port)"
	@echo "make run-cluster    the same from two gunicorn workers, which share a Redis of their own"
	@echo "make docs   build the documentation: build/docs/index.html"
	@echo "make test   install what the tests need, then run linters and all tests, as CI does"
	@echo "make faults kill, freeze, cut and empty real servers and stores for 20 minutes, and check what holds"
	@echo "make faults-short    some of that in four minutes, and without defences: each must be missed; part of test"
	@echo "make load   5,000 clients on one server for five minutes"
	@echo "make fuzz   send 100,000 mutated frames to a server of each kind, about ten minutes each"
	@echo "make lint   only ruff, mypy and the import contracts"
	@echo "make bench  measure the speed against the limit and the peers: benchmarks/RESULTS.md"
	@echo "make clean  remove what was built or installed in this folder"

run: $(VENV)/example.stamp
	$(BIN)/python -m example_app

run-cluster: $(VENV)/cluster.stamp
	$(BIN)/python -m example_app.cluster

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs build/docs
	@echo "Open build/docs/index.html"

# All tests come last: CI reads their closing line. Faults come before them, for they need a machine
# that is not busy with others.
test: debian lint $(TSC)
	node --test tests/js/*.test.*js
	$(TSC) -p tests/js/types
	$(FAULTS_SHORT)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup

faults-short: debian $(VENV)/test.stamp
	$(FAULTS_SHORT)

faults: debian $(VENV)/test.stamp
	cd tests && ../$(BIN)/python -m faults

load: debian $(VENV)/test.stamp
	cd tests && ../$(BIN)/python -m faults --fault "long day"

fuzz: $(VENV)/test.stamp
	$(BIN)/python tests/attacks/fuzz.py --async-mode threading
	$(BIN)/python tests/attacks/fuzz.py --async-mode gevent

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: debian $(VENV)/bench.stamp $(SOCKET_IO_STAMP)
	$(BIN)/python -m benchmarks.speed

clean:
	rm -rf $(VENV) node_modules build dist *.egg-info flask_presence/static/vendor
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find flask_presence example_app tests -name __pycache__ -prune -exec rm -rf {} +

debian:
	@.ci/debian

# A new environment whenever what it is made from changes: what setup.py no longer names must not linger.
$(VENV)/pyvenv.cfg: setup.py flask_presence/socketio_client.py
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/%.stamp: $(VENV)/pyvenv.cfg
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

# Touched, because npm keeps the dates of what it unpacks: older than this Makefile.
$(TSC): Makefile
	$(NPM_INSTALL) $(TYPESCRIPT)
	@touch $@

# Both: npm removes what it is not told of.
$(SOCKET_IO_STAMP): Makefile
	$(NPM_INSTALL) $(TYPESCRIPT) $(SOCKET_IO)
	@touch $@ $(TSC)
