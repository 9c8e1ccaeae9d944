# `make demo` and `make test` make their own virtual environment; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo demo-full test test-quick lint types unit soak readme-picture gallery-picture clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m jobs.demo --quick --samples samples --out demo-out

# The README's table: x2 and x4, each with and without a latent.
demo-full: $(VENV)/demo.stamp
	$(BIN)/python -m jobs.demo --samples samples --out demo-out/full

# Types are checked beside the first tests: alone they would leave a core idle.
test: lint
	@$(MAKE) --no-print-directory --jobs 2 types unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# Half of the time is waiting for processes that start and end, so three run side by side on two cores, each with servers of
# its own; files are in the order of tests/conftest.py, the longest first.
WORKERS ?= 3
# Bytecode is kept whatever the environment says: each of these processes would compile 400 files again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --dist loadfile --no-loadscope-reorder --numprocesses

unit: $(VENV)/dev.stamp
	$(PYTEST) $(WORKERS)

# Without Ray, S3 server, browser and commands: for every save.
test-quick: $(VENV)/dev.stamp
	$(PYTEST) 2 -m quick

# A job of 5,000 images under 20 faults drawn from SEED, and its account: some 15 minutes.
SEED ?= 1
soak: $(VENV)/dev.stamp
	$(BIN)/python -m tests.support.soak --seed $(SEED)

# Anew whenever the shipped weights change.
readme-picture: $(VENV)/demo.stamp
	rm -rf build/readme
	$(BIN)/python -m jobs.demo --only budgie,skyline --scales 4 --out build/readme --picture docs/images/before-after.webp

# Anew when the gallery looks different; needs Chromium.
gallery-picture: $(VENV)/dev.stamp
	$(BIN)/python -m tests.support.gallery_picture docs/images/gallery.webp

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iarn needs Python 3.11 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml
	@echo "Installing into $(VENV); PyTorch and Ray take some minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/python.stamp pyproject.toml
	@echo "Installing into $(VENV); PyTorch and Ray take some minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo-out build dist
