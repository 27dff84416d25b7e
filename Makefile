# Two commands: `make notebooks` and `make test`. Both set up .venv first, once.
PYTHON ?=
BIN := .venv/bin
# Files tested at once, each with one thread: two notebooks side by side are done sooner than one
# after the other with two threads each.
JOBS ?= 2
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=1200 \
	--nbval-sanitize-with=tests/nbval_sanitize.cfg

# Threads that wait asleep: on cores that others use too, threads that spin make training several
# times slower, and on free cores it makes no difference.
export OMP_WAIT_POLICY ?= PASSIVE

# A backend set by the user would leave the notebooks without figures.
unexport MPLBACKEND

.PHONY: help notebooks test lint in-place lock .venv

help:
	@echo "make notebooks  run all notebooks (quick profile, CPU); results under outputs/"
	@echo "make test       style, unit tests, and every notebook against its committed outputs"
	@echo "make .venv      only set up the environment"
	@echo "make in-place   for authors: run the notebooks and keep their outputs for a commit"
	@echo "make lock       for maintainers: renew requirements.lock from pyproject.toml (needs uv)"

# Done when requirements.lock has not changed since: see the script.
.venv:
	@PYTHON="$(PYTHON)" .ci/setup

notebooks: .venv
	$(BIN)/python -m lib.run --output outputs

# The contract of the notebooks is among the unit tests; the last line counts all tests.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(NBVAL) tests notebooks

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

in-place: .venv
	$(BIN)/python -m lib.run --in-place

# One lock for Python 3.11 to 3.13 on Linux, macOS and Windows.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-annotate --no-header --output-file requirements.lock
