# Thin on purpose: every target is one command. `make install` runs once a lock file; everything else asks for it.
SHELL := /bin/bash
# `make test PYTHON=python3.12` has an environment of its own: the other stays.
PYTHON ?=
VENV := .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
export PYTHON
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools

.PHONY: help install demo up images test test-all compose-test pods chaos check format bench bench-check study lock dashboards clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP)  ## the environment in .venv, from the lock files

$(STAMP): requirements/torch.lock requirements/all.lock requirements/install.sh pyproject.toml
	@bash requirements/install.sh $(VENV)
	@touch $@

$(TOOLS): $(STAMP) requirements/tools.sh
	@bash requirements/tools.sh $(VENV)
	@touch $@

demo: install  ## two tenants, two jobs, one engine: the whole service in about a quarter of an hour
	@$(BIN)/onward demo $(ARGS)

up: install  ## the service in the foreground, with a key and a snippet to paste; Ctrl-C stops it
	@$(BIN)/onward up $(ARGS)

images: install  ## the API's and the worker's image by Docker or Podman, with sizes, SBOM and provenance (.onward/images)
	@$(BIN)/python -m helm.images $(ARGS)

test: $(TOOLS)  ## the tests a change must pass, on real PostgreSQL, Valkey, Celery and vLLM
	@$(BIN)/python -m tests.side_by_side -m "not slow and not gpu" $(ARGS)

test-all: $(TOOLS)  ## the slow ones too
	@$(BIN)/pytest -m "not gpu" $(ARGS)

compose-test: $(TOOLS)  ## docker-compose.yml run by a container engine: a job, restarts, upgrades, faults (wants `make images`)
	@$(BIN)/python -m tests.containers $(ARGS)

pods: $(TOOLS)  ## the chart's pods run from their rendered specs by Podman: probes, rights, grace (wants `make images`)
	@$(BIN)/python -m tests.containers.pods $(ARGS)

chaos: install  ## a fleet under a seeded storm of faults, load and malice, every known attack, and a report
	@$(BIN)/python -m tests.chaos $(ARGS)

check: install  ## lint, format, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## rewrite files as ruff wants them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: install  ## why not a training loop? The numbers of the README, as a table and JSON (about an hour and a half on 2 cores)
	@$(BIN)/python -m bench $(ARGS)

bench-check: install  ## a quick bench, and whether a ratio is a quarter worse than the committed one
	@$(BIN)/python -m bench --quick --out .onward/bench-check.json $(ARGS)
	@$(BIN)/python -m bench.report.guard .onward/bench-check.json

study: install  ## methods side by side, each at its best: runs what the committed JSON has not (ARGS=--quick: ten minutes)
	@$(BIN)/python -m bench.study $(ARGS)

COMPILE = $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  --generate-hashes --no-header --no-annotate --no-emit-find-links --no-emit-index-url $(LOCK_ARGS)
CPU = --overrides requirements/overrides.txt --no-emit-package torch

lock:  ## pin every dependency again (torch on a CPU has its own file: see requirements/install.sh)
	$(COMPILE) $(CPU) --extra worker --extra embedded --extra cli --extra demo --extra dev -o requirements/all.lock
	$(COMPILE) --overrides requirements/overrides.txt --extra cli -c requirements/all.lock -o requirements/api.lock
	$(COMPILE) $(CPU) --extra worker --extra cli -c requirements/all.lock -o requirements/worker.lock
	$(COMPILE) --extra cuda --extra cli -c requirements/api.lock -o requirements/cuda.lock

dashboards: install  ## write again what is generated: the dashboards' JSON, the table of the chart's values
	$(BIN)/python -m helm.monitoring
	$(BIN)/python helm/table.py

clean:  ## caches; .venv and .onward (data, base model) stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
