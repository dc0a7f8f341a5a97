# make quickstart   demonstrations -> training -> closed-loop evaluation -> report
# make test         the whole test suite
# Both install into .venv first. Another interpreter: make test PYTHON=python3.12
# The tests also talk to the published openpi-client, which wants another NumPy and gets
# .venv-openpi.

PYTHON ?= python3
VENV ?= .venv
OPENPI ?= .venv-openpi
BIN := $(VENV)/bin
WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python compiles what is imported, when it is; most of these packages never is.
INSTALL := -m pip install -q --no-compile
# The two environments are installed side by side.
MAKEFLAGS += --jobs=2

.PHONY: quickstart test lint clean

quickstart: $(VENV)/.installed-sim
	$(BIN)/python launch/quickstart.py --workers=$(WORKERS)

test: $(VENV)/.installed-test $(OPENPI)/.installed lint
	$(BIN)/python -m vla_jax.simulation.gl
	OPENPI_PYTHON=$(abspath $(OPENPI))/bin/python \
	  $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check vla_jax launch configs notebooks tests
	$(BIN)/ruff format --check vla_jax launch configs notebooks tests

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 11) <= v < (3, 13) else \
	  "vla_jax needs Python 3.11 or 3.12, %s is %d.%d; try: make PYTHON=python3.12" \
	  % ("$(PYTHON)", *v))'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends $$package; \
	  else \
	    echo "Python lacks venv. Install it: sudo apt-get install -y $$package"; exit 1; \
	  fi; }
	$(PYTHON) -m venv $(VENV)

# The extra is part of the name, so that each is installed once and again when the
# requirements change.
$(VENV)/.installed-%: setup.cfg setup.py | $(BIN)/python
	$(BIN)/python $(INSTALL) -e '.[$*]'
	@touch $@

$(OPENPI)/.installed: tests/openpi/requirements.txt | $(BIN)/python
	$(BIN)/python -m venv $(OPENPI)
	$(OPENPI)/bin/python $(INSTALL) -r $<
	@touch $@

clean:
	rm -rf $(VENV) $(OPENPI) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
