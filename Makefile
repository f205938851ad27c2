# Two commands for newcomers: `make demo` and `make test`. Both set up .venv from the lock file first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= icemap-demo

.PHONY: help demo test lint lock benchmark clean

help:
	@echo "make demo       simulate a region and map it (results in $(DEMO)/)"
	@echo "make test       lint, type-check and run all tests"
	@echo "make lint       ruff and mypy only"
	@echo "make benchmark  the short benchmarks; docs/benchmarks.md has the others"
	@echo "make lock       resolve the lock file and environment.yml anew"
	@echo "make clean      remove the environment and the demonstration's results"

# compiled at install: a TensorFlow import that has to compile takes three times as long, in every worker
$(VENV)/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q icemap_xr
	touch $@

demo: $(VENV)/.installed
	$(BIN)/icemap demo --output $(DEMO)

test: lint
# two at a time, each file whole and the long ones, which come first, at once
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(VENV)/.installed
	$(BIN)/python benchmarks/difficulty.py
	$(BIN)/python benchmarks/realism.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/overlap_io.py
	$(BIN)/python benchmarks/cube.py

lock:
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "uv>=0.9"; }
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml pipelines/creodias/image.in --extra monitoring -c requirements.lock \
		--python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --quiet -o pipelines/creodias/requirements.lock

clean:
	rm -rf $(VENV) $(DEMO)
