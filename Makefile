# `make demo` and `make test` need nothing but Python 3.11 and a network that reaches PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make demo OUT=... ARGS="..."` passes further options of `wit harvest`.
OUT ?= demo
ARGS ?=

.PHONY: demo test test-long lint bench clean

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.harvest: pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable .
	$(BIN)/python -m pipeline.kernels
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.harvest
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[test,language,s3]'
	touch $@

demo: $(VENV)/.harvest
	$(BIN)/wit demo --out $(OUT) $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -q -m "not long"

test-long: $(VENV)/.test
	$(BIN)/python -m pytest -q

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
