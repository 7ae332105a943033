# Every target makes what it needs: .venv, and in it what pyproject.toml asks for. No compiler: all of it comes as wheels.

COVERAGE ?= 95
PYTEST_ARGS ?=

bin := .venv/bin
pip := -m pip --disable-pip-version-check install --quiet --only-binary :all: --constraint $(CURDIR)/constraints.txt

torch := $(shell sed -n 's/^torch==//p' constraints.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check bench links lint types imports wheel clean

help:     ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/dev.stamp    ## make .venv with everything that work on threadkeep needs

demo: .venv/local.stamp   ## watch a real model answer from a real database, the context explained beside it
	@$(bin)/threadkeep demo

test: .venv/dev.stamp     ## run the tests on all cores; lines and branches covered must reach COVERAGE percent (95)
	@$(bin)/pytest --numprocesses auto --dist worksteal --cov --cov-fail-under=$(COVERAGE) $(PYTEST_ARGS)

check: links lint types imports wheel   ## look the code over and try the wheel; changes nothing

bench: .venv/dev.stamp    ## measure; prints ratios, so that machines can be compared
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(bin)/python "$$script" || exit 1; done

links:    ## the three links of threadkeep/ are links
	@for name in memory stores strategies; do \
		if [ ! -L "threadkeep/$$name" ]; then \
			echo "threadkeep/$$name is no link to ../$$name: git wrote it as a plain file."; \
			echo "Allow links (on Windows: turn on Developer Mode), then have git write it anew:"; \
			echo "    git config core.symlinks true && rm -rf threadkeep/$$name && git checkout -- threadkeep/$$name"; \
			exit 1; \
		fi; \
	done; echo "links: memory, stores and strategies are links"

lint: .venv/dev.stamp     ## ruff: rules and format
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .

types: .venv/dev.stamp    ## mypy, strict
	@$(bin)/mypy

imports: .venv/dev.stamp  ## import-linter: who may import whom
	@$(bin)/lint-imports --no-cache

wheel: .venv/dev.stamp    ## build the wheel, look into it, and try it in an empty folder
	@rm -rf build dist
	@echo "wheel: building"
	@$(bin)/python -m build --outdir dist . > .venv/build.log 2>&1 || { cat .venv/build.log; exit 1; }
	@$(bin)/check-wheel-contents dist/*.whl
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && mkdir "$$folder/empty" && \
	echo "wheel: installing it, with nothing beside it, and trying it in an empty folder" && \
	$(bin)/python -m venv "$$folder/venv" && \
	"$$folder/venv/bin/python" $(pip) "$(CURDIR)"/dist/*.whl && \
	cd "$$folder/empty" && \
	"$$folder/venv/bin/python" -W error -c 'import threadkeep; from threadkeep import *; print("wheel: imports", len(threadkeep.__all__), "names")' && \
	"$$folder/venv/bin/threadkeep" --help > help.txt && \
	"$$folder/venv/bin/python" -m threadkeep --help > help-of-module.txt && \
	echo "wheel: threadkeep --help answers"

clean:    ## remove what make made, .venv included
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov

# ---- .venv: made once, filled anew only when pyproject.toml or constraints.txt changed ----

.venv/bin/python:
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
			echo "setup: .venv with $$($$python --version)"; \
			$$python -m venv .venv && exit 0; \
			rm -rf .venv; \
		fi; \
	done; \
	echo "threadkeep needs Python 3.11 or newer with its venv module (on Debian: apt install python3 python3-venv)."; \
	echo "Install it, or say where it is: make PYTHON=/path/to/python3.11 ..."; \
	exit 1

.venv/local.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setup: threadkeep and its engine (68 MB to fetch, where nothing is cached)"
	@$(bin)/python $(pip) --editable '.[local]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "setup: threadkeep, its engine and the tools that check it (102 MB to fetch, where nothing is cached)"
	@$(bin)/python $(pip) --editable '.[dev]'
	@if $(bin)/python $(pip) --no-deps --dry-run 'torch==$(torch)+cpu' > /dev/null 2>&1; then \
		echo "setup: the library of embedding models, with the CPU build of torch (1.2 GB on disk)" && \
		$(bin)/python $(pip) --editable '.[embeddings]'; \
	else \
		echo "setup: no CPU build of torch $(torch) is to be had here, and another may bring gigabytes of CUDA, so the embedder's tests will"; \
		echo "       be skipped. To run them: $(bin)/pip install --constraint constraints.txt --editable '.[embeddings]'"; \
	fi
	@touch .venv/local.stamp $@
