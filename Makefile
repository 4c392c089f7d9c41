# make demo, make test: from a clean clone, with only Python >= 3.11, make and git.
PYTHON ?= python3
VENV ?= .venv
DEMO_BUDGET ?= 3m
DEMO_OUT ?= demo
PIP_FLAGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.undrift-installed
DOCS_STAMP := $(VENV)/.undrift-docs-installed

.PHONY: help venv test verify mutate lint format docs demo wheel clean

help:
	@echo 'make demo    train, draw, score and report on the embedded data: at most 5 minutes (DEMO_BUDGET=20s: quick)'
	@echo 'make test    lint and all tests, in two processes (WORKERS=2)'
	@echo 'make lint    ruff and pyright'
	@echo 'make verify  docs/verification.md: what every method of the theory is held against, and what was measured'
	@echo 'make docs    build/docs/index.html: the reader'"'"'s guide, a page for each room of the theory'
	@echo 'make mutate  faults put into the formulas one by one: each must fail a test'
	@echo 'make format  let ruff rewrite the sources'
	@echo 'make wheel   dist/undrift-*.whl'
	@echo 'make clean   remove what make made, but not $(VENV)'
	@echo 'Each sets up $(VENV) when it is needed. PIP_FLAGS is handed to pip, such as an'
	@echo "index that has torch without CUDA: 2 GB less to download"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "undrift needs Python 3.11 to 3.13, got " + sys.version.split()[0] + "; type make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing undrift and what it needs into $(VENV): a few minutes"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt $(PIP_FLAGS) --editable '.[dev,bayes]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Workers of one thread each: a fork of a process whose linear algebra has several sums in another order than the process.
test: export OPENBLAS_NUM_THREADS = 1
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

verify: $(STAMP)
	$(BIN)/python -m pytest tests/exact tests/contracts/test_processes.py --verification docs/verification.md

mutate: $(STAMP)
	$(BIN)/python tests/mutate.py

$(DOCS_STAMP): $(STAMP)
	@echo "installing Sphinx into $(VENV)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt $(PIP_FLAGS) --editable '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -E -W --keep-going -n -q -b html docs build/docs
	@echo "build/docs/index.html"

demo: $(STAMP)
	$(BIN)/undrift demo --budget $(DEMO_BUDGET) --out $(DEMO_OUT) --overwrite

wheel: $(STAMP)
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist $(DEMO_OUT) src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
