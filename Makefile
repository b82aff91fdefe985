# `make demo` and `make test` set up what they need; everything else is `bitplan --help`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

TOOLS := torchao sdnq nvidia-modelopt omegaconf antlr4-python3-runtime nvidia-ml-py ninja

.PHONY: demo test docs interop lint clean

# What runs models.
$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[torch]'
	touch $@

# In the same environment, what develops BitPlan.
$(READY): $(RUNS)
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(RUNS)
	$(BIN)/python examples/demo.py --out demo

# A process a core: each test keeps to one thread.
test: $(READY) lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# The pages of docs/ as a site, docs/_build/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

# Exported plans, read by the tools that they are for; these are installed beside the environment, not into it.
interop: $(READY)
	$(PIP) --no-deps --upgrade --target $(VENV)/interop $(TOOLS)
	BITPLAN_INTEROP=$(VENV)/interop $(BIN)/python -m pytest tests/planner/interop/test_tools.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo docs/_build
