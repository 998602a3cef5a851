# `make help` lists the targets. `make train` and `make test` set up what they need: a virtual environment with the
# tested versions (constraints.txt). To use others: make install CONSTRAINTS=/dev/null. To choose a Python: PYTHON=python3.13.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install train test test-fast test-lowest chaos audit lint format typecheck check docs wheel

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## create the virtual environment with everything that training needs

train: $(VENV)/installed ## set up, then python train.py $(ARGS), by default experiment=scenes
	$(BIN)/python train.py $(or $(ARGS),experiment=scenes)

test: $(VENV)/installed-dev ## set up, then run all tests, on two cores (ARGS='-m "not slow"': without whole runs)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-fast: $(VENV)/installed-dev ## set up, then run the unit tests: no training, no processes
	$(BIN)/python -m pytest --numprocesses 2 -m "not integration and not slow and not gpu" $(ARGS)

test-lowest: $(VENV)-lowest/installed ## the tests with the lowest versions that pyproject.toml allows, in an environment of their own
	$(VENV)-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

audit: $(VENV)/installed ## pip-audit: which installed packages have known vulnerabilities
	@test -x $(VENV)-audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit)
	@$(PYTHON) .ci/audit.py $(BIN)/python $(VENV)-audit/bin/pip-audit

chaos: $(VENV)/installed-dev ## hostile tries, many and long: configurations, damaged pictures, weights and texts, kills, signals, full disks
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

lint: $(VENV)/installed-dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-dev ## ruff: fix what it can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/installed-dev ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/installed-dev ## build the documentation with its Python reference into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

check: lint typecheck test ## lint, typecheck and test

wheel: ## pip install . into a fresh environment, then run each console command from another folder
	rm -rf build .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) .
	cd .venv-wheel && bin/ijepa train experiment=smoke run_dir=run && bin/ijepa evaluate checkpoint=run && \
	bin/ijepa inspect run && bin/ijepa convert run out.safetensors --to timm && bin/ijepa report run && \
	bin/ijepa statistics data=digits name=mine && bin/ijepa train --config-dir conf data=mine --help >/dev/null && \
	bin/ijepa train -m experiment=smoke run_dir=sweep seed=0,1
	rm -rf build .venv-wheel

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	@touch $@

$(VENV)-lowest/installed: pyproject.toml .ci/lowest.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "the lowest versions exist for Python 3.11 and 3.12; try make PYTHON=python3.11")'
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) .ci/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint $(VENV)-lowest/constraints.txt --editable ".[dev]"
	@touch $@
