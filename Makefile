# These commands install everything they need in .venv:
#   make demo   run the whole pipeline on a drawn city and print a table of LR@N
#   make test   run the test suite
#   make bench  measure speed and memory, with ratios to floors and other programs (15 minutes on two idle cores)
# Others: make test-fast (cache, extract, train), make lint (ruff and mypy), make format, make clean.
# Choose the interpreter (3.11 or newer) with PYTHON=python3.12.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready
RUN    := $(VENV)/bin

.PHONY: demo test test-fast bench lint format clean help

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "placecache needs Python 3.11 or newer; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(READY)
	$(RUN)/pipeline demo

test: $(READY)
	$(RUN)/pytest --numprocesses 2 --dist loadfile

test-fast: $(READY)
	$(RUN)/pytest --numprocesses 2 --dist loadfile tests/cache tests/stages/extract tests/stages/train

# As in the program: threads that wait for one another sleep.
bench: export GOMP_SPINCOUNT = 2000
bench: $(VENV)/.ready-bench
	$(RUN)/python benchmarks/bench_index.py
	$(RUN)/python benchmarks/bench_scale.py --rows 100000
	$(RUN)/python benchmarks/bench_cache.py
	$(RUN)/python benchmarks/bench_extract.py
	$(RUN)/python benchmarks/bench_train.py --repeat 5
	$(RUN)/python benchmarks/bench_tail.py --backbone efficientnet_lite0 --cut 4 --repeat 5
	$(RUN)/python benchmarks/bench_eval.py --classes 60000 --rows 500000 --queries 32
	$(RUN)/python benchmarks/bench_serve.py --seconds 3 --clients 1 8 --hostile 100
	$(RUN)/python benchmarks/bench_peers.py

$(VENV)/.ready-bench: $(READY)
	$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

lint: $(READY)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

format: $(READY)
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

clean:
	rm -rf $(VENV) .venv-newest demo .mypy_cache .pytest_cache .ruff_cache
