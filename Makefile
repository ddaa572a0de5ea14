# make demo     two videos from the bundled model, into outputs/demo
# make test     everything the tests need, then the tests
# make check    format, lint, types, import contract, tests
# make bench    speed and memory beside diffusers and OpenVINO
# make bench-scaling   cost as tokens and frames grow
# make install  the development environment in .venv (the others do this themselves)
# make clean    remove .venv and everything that was built

PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --jaxtyping-packages=openltx,beartype.beartype
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# a software OpenGL, with which the tests render, a browser, with which they use the studio, and the database that
# several servers share
SYSTEM_PACKAGES := libegl1 libgl1-mesa-dri chromium postgresql
HAS_POSTGRES := ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null
RENDERS := MUJOCO_GL=egl $(BIN)/python -c "import mujoco; mujoco.GLContext(16, 16)" >/dev/null 2>&1
BROWSES := command -v chromium >/dev/null

.PHONY: help install demo test check lint system assets bench bench-scaling clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make /make /p' Makefile

install: .venv/.full

demo: .venv/.core
	@$(BIN)/openltx demo

test: .venv/.full system assets
	$(PYTEST)

check: lint test

lint: .venv/.full
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

system: .venv/.full
	@if $(RENDERS) && $(BROWSES) && { $(HAS_POSTGRES); }; then exit 0; fi; \
	install="apt-get install -y --no-install-recommends $(SYSTEM_PACKAGES)"; \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && $$install; \
	elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo $$install; \
	else printf '%s\n' "The tests need a software OpenGL, Chromium and PostgreSQL. Type this, then run make again:" \
		"    sudo apt-get install -y $(SYSTEM_PACKAGES)"; exit 1; fi; \
	$(RENDERS) || { echo "MuJoCo cannot render although $(SYSTEM_PACKAGES) are installed. The reason:"; \
		MUJOCO_GL=egl $(BIN)/python -c "import mujoco; mujoco.GLContext(16, 16)"; }

assets: .venv/.full
	@$(BIN)/openltx assets pull lpips >/dev/null
	@$(BIN)/openltx assets pull t5-tokenizer >/dev/null

bench: .venv/.bench
	$(BIN)/python -m benchmarks.run

bench-scaling: .venv/.bench
	$(BIN)/python -m benchmarks.scaling

.venv/.bench: .venv/.full
	@$(PIP) -e '.[dev,bench]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("openltx needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 install")'
	@$(PYTHON) -m venv .venv

.venv/.core: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing openltx into .venv ..."
	@$(PIP) -e .
	@touch $@

.venv/.full: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing openltx and its development tools into .venv ..."
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps ltx-video
	@touch .venv/.core $@

clean:
	rm -rf .venv dist build outputs .pytest_cache .ruff_cache .import_linter_cache
