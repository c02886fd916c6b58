# `make reproduce` and `make test` do all the set-up they need; a second run does no work twice.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: reproduce test test-image bench lint lock install

reproduce: .venv/.installed
	$(BIN)/repro run

test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test-image: .venv/.installed
	$(BIN)/python -m pytest -m image -s tests/container

bench: .venv/.installed
	$(BIN)/python -m benchmarks

lint: .venv/.installed
	$(BIN)/ruff check .

install: .venv/.installed

.venv/.installed: requirements/lock.txt requirements/tools.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/lock.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps -r requirements/tools.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch .venv/.installed

# Needs uv (https://docs.astral.sh/uv/) and the package index; nothing else here does.
lock:
	uv pip compile --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --output-file requirements/lock.txt requirements/requirements.in
	uv pip compile --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --constraint requirements/lock.txt \
	  --override requirements/tools-override.txt \
	  $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/lock.txt) \
	  --output-file requirements/tools.txt requirements/tools.in
