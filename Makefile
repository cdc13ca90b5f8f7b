# Targets of shoal. PYTHON may name any Python 3.11 to 3.14.
# A command of that name is not enough: a version manager's stand-in may not run.
RUNS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
PYTHON ?= $(or $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c '$(RUNS)' >/dev/null 2>&1 && { echo $$p; break; }; done),python3)
BIN := .venv/bin

.PHONY: help up test rehearse check docs pyz engine lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

up: ## bring up the two-node endpoint here, installing first what is missing (ARGS="...")
	@$(PYTHON) tools/bootstrap.py up
	@exec $(BIN)/shoal up --local $(ARGS)

test: ## run the tests (ARGS="..." goes to tools/run_tests.py)
	@$(PYTHON) tools/bootstrap.py test
	@exec $(BIN)/python tools/run_tests.py $(ARGS)

rehearse: ## every fault against every role on a lab cluster: half an hour
	@$(PYTHON) tools/bootstrap.py test
	@exec $(BIN)/python tools/run_tests.py tests/lab -m rehearsal

check: ## formatting, lint, types and layering
	@$(PYTHON) tools/bootstrap.py test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: ## write the generated pages in docs/reference anew
	@$(PYTHON) tools/bootstrap.py test
	@$(BIN)/python tools/gen_docs.py

pyz: ## write shoal.pyz into the folders of deploy/
	@$(PYTHON) tools/make_pyz.py deploy/worker deploy/head

engine: ## install only, start nothing
	@$(PYTHON) tools/bootstrap.py up

# --no-build: a lock entry without a wheel would be compiled on every machine.
COMPILE = lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-build --custom-compile-command "make lock" $(ARGS)

lock: ## compute requirements/up.txt and dev.txt anew (ARGS=--upgrade for newer versions)
	@cd requirements && $(PYTHON) -m venv lock && trap 'rm -rf lock' EXIT && \
	lock/bin/python -m pip install --quiet uv && \
	$(COMPILE) --override overrides.txt up.in --output-file up.txt && $(COMPILE) dev.in --output-file dev.txt

clean: ## stop what runs here, and remove what was installed, cached or built
	@if [ -x $(BIN)/shoal ]; then $(BIN)/shoal down || true; fi
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} + ; find . -maxdepth 2 -name '*.egg-info' -exec rm -rf {} +
