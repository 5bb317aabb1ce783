# make compare schedules of mining hardness beside hard and semi-hard mining, 5 seeds, and a report
# make train   a triplet-trained embedding of handwritten digits, beside raw pixels
# make test    lint and tests
# make oracle  tests against PyTorch Metric Learning, timm and transformers (installs PyTorch, 5 GB)
# make slow    tests on a SLURM of this machine, in several processes, and by longer paths (those
#              against other libraries, too, where make oracle has installed them)
# make faults  faults done to real processes, and tests/faults/RESULTS.md (about two hours)
# make fuzz    configs, damaged files and images at random, for hours (installs atheris)
# make docs    the documentation as a site, build/docs/html (installs Sphinx)
# make lock    resolves requirements.lock anew from setup.cfg (needs uv)
#
# Each installs what it needs into .venv, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
# Large arrays in large pages, where the C library is glibc: a step of conv4 takes a quarter less.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
RUN := $(VENV)/bin/python
SHELL := bash
.SHELLFLAGS := -o pipefail -c
# uv takes a quarter of pip's time. Where it finds no package index, pip goes on with those that its
# own settings name. Of uv's lines, those on small files and the list of packages are left out.
UV := $(RUN) -m uv pip install --python $(RUN)
BRIEFLY := awk '!/^ (Downloaded|[-+~] )|^ +Buil|^Uninstalled|^Downloading .*\([0-9]?[0-9]\.[0-9]MiB/'
# Python compiles a module when it is first imported, and keeps it where it may write: else each
# process would compile what it imports anew. pip would compile all, and most never are.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(RUN) -m pip --disable-pip-version-check install --progress-bar off --no-compile
define install_packages
@$(RUN) -m uv --version > /dev/null 2>&1 || $(PIP) -q "uv<1"
@$(UV) $(1) 2>&1 | $(BRIEFLY) || { echo "   uv failed, so pip installs them"; $(PIP) -q $(1); }
endef

.PHONY: help install compare train test lint oracle slow faults fuzz docs lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -12

install: $(VENV)/installed

$(VENV)/installed: requirements.lock setup.cfg
	@echo "== Installing into $(VENV) with $(PYTHON) (half a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(call install_packages,-r requirements.lock)
	$(call install_packages,--no-deps -e .)
	@touch $@

$(VENV)/oracle: requirements-oracle.in $(VENV)/installed
	@echo "== Installing PyTorch and the others of requirements-oracle.in into $(VENV) (once)"
	$(call install_packages,-r requirements-oracle.in)
	@touch $@

$(VENV)/docs: requirements-docs.in $(VENV)/installed
	@echo "== Installing Sphinx into $(VENV) (once)"
	$(call install_packages,-r requirements-docs.in)
	@touch $@

$(VENV)/fuzz: requirements-fuzz.in $(VENV)/installed
	@echo "== Installing atheris into $(VENV) (once)"
	$(call install_packages,-r requirements-fuzz.in)
	@touch $@

compare: $(VENV)/installed
	@echo "== Comparing mining schedules on handwritten digits, in runs/schedules"
	@$(RUN) -m experiments.sweep --config=configs/sweeps/schedules.py --workdir=runs/schedules

train: $(VENV)/installed
	@echo "== Training an embedding of handwritten digits into runs/digits"
	@$(RUN) -m experiments.train --config=configs/digits.py:semi_hard --workdir=runs/digits

lint: $(VENV)/installed
	@echo "== Linting"
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

test: lint
	@echo "== Testing"
	@$(RUN) -m pytest -n 2 --dist worksteal

oracle: $(VENV)/oracle
	@echo "== Testing against PyTorch Metric Learning, timm and transformers"
	@$(RUN) -m pytest -n 2 --dist worksteal -m "oracle and not slow" \
		$$(grep -rl --include="test_*.py" mark.oracle tests)

slow: $(VENV)/installed
	@echo "== Testing several processes, a cluster, and longer paths"
	@$(RUN) -m pytest -n 2 --dist loadfile -m slow

faults: $(VENV)/installed
	@echo "== Doing faults to real processes; the table is tests/faults/RESULTS.md"
	@$(RUN) -m tests.faults --write

fuzz: $(VENV)/fuzz
	@echo "== Decoding images at random for ten minutes"
	@$(RUN) -m tests.support.fuzz_images -max_total_time=600
	@echo "== Configs and damaged files at random"
	@FUZZ=1000 $(RUN) -m pytest -n 2 --dist worksteal tests/experiments/config/test_fuzzed_configs.py \
		tests/experiments/run/test_damaged_files.py tests/experiments/run/test_fuzzed_galleries.py \
		tests/experiments/run/test_fuzzed_runs.py

docs: $(VENV)/docs
	@echo "== Building the documentation into build/docs"
	@$(RUN) -m sphinx -M html docs build/docs -q -W --keep-going -j 2
	@echo "build/docs/html/index.html"

lock:
	uv pip compile setup.cfg --universal --python-version 3.11 --extra dev --extra search --extra slurm \
		--extra tensorboard --constraint constraints.txt --output-file requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
