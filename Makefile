# Two commands are enough: `make mount` and `make test` do all the set-up themselves.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
MOUNTPOINT ?= mountpoint
PYTEST_ARGS ?=
# Processes of `make test`; 0: all in one, which is easier to read and to debug.
JOBS ?= 2
MEASURE ?=
# Per cent of the lines of core, tree and subsystems; it only rises.
COVERAGE_FLOOR := 99

# Every mount is a Python of its own: without kept byte code each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help mount umount test test-fast test-mount test-tools check coverage bench demo abi docs clean

help:
	@echo "make mount    set up and mount the default machine at ./$(MOUNTPOINT)"
	@echo "make umount   unmount it"
	@echo "make test     set up and run all tests"
	@echo "make check    format, lint, spelling, types, structure, names in prose, reference page"
	@echo "make coverage run all tests, measure coverage, refuse less than the floor"
	@echo "make demo     a scenario in memory: no root, no FUSE"
	@echo "make bench    measure against real sysfs and a C FUSE server"
	@echo "make abi      write the reference page again"
	@echo "make docs     build the documentation as pages with search, in build/site"

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "fakesys needs Python 3.11 or newer: apt-get install python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv .venv; \
		else echo "python3 cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; fi; }

.venv/.runtime: pyproject.toml | .venv/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.dev: pyproject.toml | .venv/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv/.docs: pyproject.toml | .venv/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

# While something is mounted over mountpoint/, its kept file would look deleted to git.
mount: .venv/.runtime
	@git update-index --skip-worktree mountpoint/.gitkeep 2>/dev/null || true
	@$(BIN)/fakesys mount $(MOUNTPOINT)

umount: .venv/.runtime
	@$(BIN)/fakesys umount $(MOUNTPOINT)

# MEASURE=1 measures the coverage too, and refuses less than the floor.
test: .venv/.dev
	$(BIN)/python $(if $(MEASURE),-m slipcover --json --out .slipcover.json -m pytest -p slipcover,-m pytest) \
		-n $(JOBS) $(PYTEST_ARGS)
	$(if $(MEASURE),$(BIN)/python -m slipcover --merge .slipcover.json --out .slipcover.json \
		--skip-covered --fail-under $(COVERAGE_FLOOR))

coverage:
	@$(MAKE) --no-print-directory test MEASURE=1

test-fast: .venv/.dev
	$(BIN)/python -m pytest tests/core tests/tree tests/models tests/untrusted tests/files $(PYTEST_ARGS)

test-mount: .venv/.dev
	$(BIN)/python -m pytest tests/mount tests/transport tests/native $(PYTEST_ARGS)

test-tools: .venv/.dev
	$(BIN)/python -m pytest tests/tools $(PYTEST_ARGS)

check: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell fakesys tests README.md Makefile .ci pyproject.toml
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_circles.py \
		tests/test_structure.py tests/test_prose.py tests/test_abi.py

bench: .venv/.dev
	$(BIN)/python -m tests.bench

demo: .venv/.runtime
	@$(BIN)/fakesys run vfio-ap-three-guests

abi: .venv/.runtime
	@$(BIN)/fakesys abi --markdown > fakesys/docs/abi.md

# Refuses links that lead nowhere, blocks that are not of their language, and files from elsewhere.
docs: .venv/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f .mkdocs.yml
	@echo "build/site/index.html"

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
