# `make reproduce` and `make test` do all the set-up they need; a second run does no work twice.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13,$(shell command -v $(name))) python3)
BIN := .venv/bin
# Where it is set, every process of a run or a test would compile this clone anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: reproduce test test-runs test-gpu test-faults test-image test-cluster bench lint lock install

reproduce: .venv/.installed
	$(BIN)/repro run

test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test-runs: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadscope -m runs

test-gpu: .venv/.installed
	$(BIN)/python -m pytest -m gpu -s tests/gpu

test-faults: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m faults

test-image: .venv/.installed
	$(BIN)/python -m pytest -m image -s tests/container

test-cluster: .venv/.installed
	$(BIN)/python -m pytest -m cluster -s tests/cluster

bench: .venv/.installed
	$(BIN)/python -m benchmarks

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

install: .venv/.installed

.venv/.installed: requirements/lock.txt requirements/tools.txt pyproject.toml
	@$(PYTHON) requirements/install.py check
	$(PYTHON) -m venv --clear .venv
	@$(BIN)/python requirements/install.py pip --require-hashes -r requirements/lock.txt
	@$(BIN)/python requirements/install.py pip --require-hashes --no-deps -r requirements/tools.txt
	@$(BIN)/python requirements/install.py compile
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch .venv/.installed

# Needs uv (https://docs.astral.sh/uv/) and the package index; nothing else here does. The lock is for all machines of
# `tool.uv.environments` in pyproject.toml. What uv writes after a package of them all is taken away again.
COMPILE := uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11
EVERYWHERE := platform_machine == 'arm64' and sys_platform == 'darwin' or (platform_machine == 'aarch64' or platform_machine == 'x86_64') and sys_platform == 'linux'
SIZES := MACOSX_DEPLOYMENT_TARGET=14.0 uv pip compile --quiet --format pylock.toml --python-version 3.11 --no-deps

lock:
	$(COMPILE) --output-file requirements/lock.txt requirements/requirements.in
	sed -i "s/ ; $(EVERYWHERE) \\\\\$$/ \\\\/" requirements/lock.txt
	$(COMPILE) --constraint requirements/lock.txt --override requirements/tools-override.txt \
	  $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/lock.txt) \
	  --output-file requirements/tools.txt requirements/tools.in
	sed -i "s/ ; $(EVERYWHERE) \\\\\$$/ \\\\/" requirements/tools.txt
	folder=$$(mktemp -d) && for machine in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do \
	  for list in lock tools; do $(SIZES) --python-platform $$machine --output-file $$folder/pylock.$$machine-$$list.toml \
	    requirements/$$list.txt; done; done && \
	$(PYTHON) requirements/install.py measure $$folder/*.toml && rm -r $$folder
