# make demo    the whole path on synthetic data, on CPU
# make test    every test, doctests included
# make lint    ruff and mypy
# Each makes its own environment in $(VENV) first. PYTHON chooses the interpreter (3.10 to 3.13).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# More threads than cores make small CPU trainings slower, and a figure must not need a screen.
export MPLBACKEND ?= Agg
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
# nnU-Net sets its own number of threads on CPU; waiting ones must not keep a core busy.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint venv
.DELETE_ON_ERROR:

demo: venv
	$(BIN)/python demo/demo.py

test: venv
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard registration/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@
