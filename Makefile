# Every target makes what it needs first; `make repro` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Environment of the tools that the benchmarks compare with; only `make bench` needs it.
PEERS ?= $(VENV)-peers
# dvc.yaml starts stages by `python`: it must be the one of requirements.lock.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help venv repro test soak bench bench-full peers lint format lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

venv:  ## make or refresh .venv from requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fieldguide needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@cmp -s requirements.lock $(VENV)/installed.lock || { \
	  echo "Installing the versions of requirements.lock into $(VENV) (several GB, once) ..."; \
	  $(PYTHON) -m venv --clear $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock && \
	  cp requirements.lock $(VENV)/installed.lock; }
	@# Editable, so that notebooks and the REPL import this tree; the lock has installed the dependencies.
	@$(BIN)/python -c 'import importlib.metadata as m, json, pathlib, sys; \
	  url = json.loads(m.distribution("fieldguide").read_text("direct_url.json"))["url"]; \
	  sys.exit(url != pathlib.Path.cwd().as_uri())' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

repro: venv  ## rebuild everything that changed, then say where to look
	@dvc repro
	@dvc metrics show metrics/test.json
	@echo
	@echo "Figures   plots/figures/predictions.png and its neighbours"
	@echo "Plots     dvc plots show, then open dvc_plots/index.html"
	@echo "Model     models/classifier/     Metrics  metrics/"

test: venv  ## run the tests, one worker and thread per core
	@OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

soak: venv  ## run the tests that `make test` leaves out; each takes minutes
	@OMP_NUM_THREADS=1 python -m pytest -m soak --numprocesses auto --maxprocesses 8 --dist worksteal

bench: venv peers  ## measure side by side with other tools, half an hour: docs/benchmarks.md
	@PEERS=$(PEERS) python benchmarks/bench.py

bench-full: venv peers  ## the same with more repeats
	@PEERS=$(PEERS) python benchmarks/bench.py --full

peers:
	@cat benchmarks/peers.txt benchmarks/peers-ffcv.txt | cmp -s - $(PEERS)/installed.txt || { \
	  echo "Installing the peers of benchmarks/peers.txt into $(PEERS) (several GB, once; minutes) ..."; \
	  $(PYTHON) -m venv --clear $(PEERS) && \
	  $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check setuptools wheel --requirement benchmarks/peers.txt && \
	  { $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --requirement benchmarks/peers-ffcv.txt \
	      >$(PEERS)/ffcv.log 2>&1 || echo "FFCV does not build here (see $(PEERS)/ffcv.log); its row will say so."; } && \
	  cat benchmarks/peers.txt benchmarks/peers-ffcv.txt > $(PEERS)/installed.txt; }

lint: venv  ## check style, formatting, types and the CI files
	@ruff check .
	@ruff format --check .
	@mypy
	@check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	@zizmor --offline --quiet .github

format: venv  ## let ruff fix what it can
	@ruff check --fix .
	@ruff format .

lock:  ## resolve pyproject.toml into requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra cluster --extra dev --extra onnx --extra serve --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --quiet pyproject.toml --output-file requirements.lock

clean:  ## remove caches and the state of interrupted trainings, never results
	rm -rf .fieldguide .mypy_cache .pytest_cache .ruff_cache dvc_plots
	find src stages tests -name __pycache__ -type d -prune -exec rm -rf {} +
