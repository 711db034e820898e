# Everything runs in a virtual environment of its own; a stamp file says that it is complete.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Of the demo (seconds, and where the report goes).
DURATION ?= 180
REPORT   ?= demo-report
DEMO_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test lint protos clean

help: ## Show what make can do.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "meshctl needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Run the demo mesh: DURATION=180 REPORT=demo-report DEMO_ARGS='--speedup 60'
	$(BIN)/meshctl demo --duration $(DURATION) --report $(REPORT) $(DEMO_ARGS)

lint: $(STAMP) ## Check style, types and the house's import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## Lint, then run every test.
	$(BIN)/pytest $(PYTEST_ARGS)

protos: $(STAMP) ## Compile protos/ into xds/.
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=xds --pyi_out=xds protos/_wire.proto protos/_status.proto

clean: ## Remove the virtual environment, caches and reports.
	rm -rf $(VENV) demo-report .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
