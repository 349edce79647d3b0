# `make demo` and `make test` need nothing but Python 3.11 and a network that reaches PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make demo OUT=... ARGS="..."` passes further options of `wit harvest`.
OUT ?= demo
ARGS ?=
# Processes that share the tests.
TESTERS ?= 3
# img2dataset in an environment of its own, for `wit harvest --engine img2dataset`.
ENGINE := .img2dataset

.PHONY: demo test test-long lint bench engine clean

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.harvest: pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable .
	$(BIN)/python -m pipeline.kernels
	$(BIN)/python -m query_list.kernels
	touch $@

# The trainer's PyTorch, and what it is compared with, are gigabytes of it.
$(VENV)/.test: pyproject.toml $(VENV)/.harvest
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[test,language,s3,train,peers]'
	$(BIN)/python -m trainer.kernels
	touch $@

$(ENGINE)/.made: Makefile | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(ENGINE)
	$(BIN)/uv pip install --quiet --python $(ENGINE)/bin/python img2dataset==1.47.0
	touch $@

engine: $(ENGINE)/.made

demo: $(VENV)/.harvest
	$(BIN)/wit demo --out $(OUT) $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: $(VENV)/.test $(ENGINE)/.made lint
	$(BIN)/python -m pytest -q -m "not long" -n $(TESTERS) --dist loadfile

test-long: $(VENV)/.test $(ENGINE)/.made
	$(BIN)/python -m pytest -q --hypothesis-profile searching

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(ENGINE) build *.egg-info
