# One-command entry points. Each sets up everything it needs in .venv; all that must be there is Python 3.11+ and make.
#
#   make demo       make a few clips with the bundled weights; open demo/index.html
#   make test       the tests that take seconds each
#   make test-long  the slow ones
#   make check      ruff, mypy, import rules
#
# PYTHON=/path/to/python3 picks the interpreter; WORKERS=4 runs the tests in so many processes (2 unless said). PIP_ARGS
# are passed to pip: on a Linux machine without a GPU, PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# saves gigabytes of CUDA libraries.

VENV := .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
PIP_ARGS ?=
export HF_HUB_OFFLINE := 1
# Threads that wait do not spin: beside other work on the machine, spinning makes small steps ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-long check clean

help:
	@sed -n 's/^#   //p' Makefile

# The bundled model's layers are too small for threads: with two of them the demo takes a fifth longer than with one.
demo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/selfflow-mm demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not long" -q --durations=15 -n $(WORKERS) --dist loadfile

test-long: $(STAMP)
	$(BIN)/python -m pytest -m long -q --durations=0

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info

# A candidate must be 3.11 or newer and able to make a virtual environment with pip (Debian splits that off).
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

$(STAMP): pyproject.toml setup.py constraints.txt
	@set -e; \
	if [ -x $(BIN)/python ] && $(BIN)/python -c '$(FITS)' 2>/dev/null; then :; else \
	  found=; \
	  for candidate in "$(PYTHON)" python3.12 python3.11 python3.13 python3.14 python3 python; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c '$(FITS)' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No Python 3.11 or newer with the venv and ensurepip modules was found."; \
	    echo "Install one (python.org, uv, pyenv, or your system's python3 and python3-venv) and run:"; \
	    echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found ($$("$$found" --version))"; \
	  "$$found" -m venv --clear $(VENV); \
	fi; \
	echo "Installing the pinned packages into $(VENV) (a few minutes the first time)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
