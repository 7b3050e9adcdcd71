# One target per task; run `make setup` first.
PYTHON ?= python3
EXTRA ?= dev
BIN := .venv/bin

.PHONY: setup lint type test slow bench train site wheel clean

setup:  ## virtual environment with the tested set
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[$(EXTRA)]'

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type:
	$(BIN)/mypy

test:
	$(BIN)/pytest -n 2 --dist loadfile

slow:  ## tests that take minutes
	$(BIN)/pytest -m slow

bench:  ## how long the harness itself takes
	$(BIN)/pytest tests/benchmarks --benchmark-enable --benchmark-only

train:  ## train every embedded weight file from scratch, into train/
	$(BIN)/avbench train sparsesync-pt --out train
	$(BIN)/avbench train sparsesync --out train
	$(BIN)/avbench train synchformer --out train
	$(BIN)/avbench train streamsync-trf --out train
	$(BIN)/avbench train streamsync-lstm --out train

site:  ## all pages as one site, in site/ (extra: docs)
	$(BIN)/mkdocs build --strict

wheel: clean
	$(BIN)/pip wheel -q --no-deps -w dist .

clean:  ## build/lib would otherwise put deleted files into the wheel
	rm -rf build/lib build/bdist.* dist
