# SPDX-License-Identifier: GPL-2.0-or-later
# make run: build and show it working.   make test: everything that must hold.   make: this help.
#
# All paths are relative, so a clone may live under any name. PYTHON picks the interpreter, CC the compiler.

PYTHON ?= python3
EXTRAS ?= test,dev,plot,docs
PAYLOADS ?= hello
PYTEST_ARGS ?=
JOBS ?= $(shell expr 2 \* $$(nproc 2>/dev/null || echo 1))
COVERAGE ?= --cov --cov-report=term
BENCH_ARGS ?=
HOSTS ?= svm-newest svm-6.1 vmx-6.1
HOSTS_OUT ?= build/hosts
HOSTS_CPUS ?= 2
HOSTS_CPU ?=
HOSTS_FLAVOUR ?= cloud-amd64
HOSTS_RELEASE ?=
HOSTS_STEPS ?=
HOSTS_ONLY ?=
HOSTS_TESTS ?=
HOSTS_GUESTS ?=
HOSTS_KUT ?=
HOSTS_KUT_TESTS ?=
HOSTS_KUT_TIMEOUT ?= 60
HOSTS_AT_ONCE ?= 2
HOSTS_PATIENCE ?= 1
HOSTS_ARGS ?=
SELFTESTS ?=

VENV := .venv
PY := $(VENV)/bin/python
PYVMM := $(VENV)/bin/pyvmm
PIP := $(PY) -m pip -qq --disable-pip-version-check --no-input

# What the extension is made of: the binding, and the facts that cffi_build.py turns into C declarations.
EXTENSION_SOURCES := cffi_build.py $(wildcard vmm/kvm/*.c vmm/kvm/*.h vmm/base/*.py vmm/abi/*.py)

# What the site is made of: docs/, and the rows, parsers, payloads, docstrings and hosts that its pages are generated from.
SITE_SOURCES := $(shell find docs tools/site vmm guest_payloads tests/listings CHANGELOG.md CONTRIBUTING.md -type f \
    ! -name '*.pyc' ! -name '*.so' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test check build listings docs bench hosts plain-wheel wheel release-check clean

help: ## this list
	@echo 'pyvmm: guests on /dev/kvm, in Python'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  variables: PYTHON=$(PYTHON)  PAYLOADS="$(PAYLOADS)"  PYTEST_ARGS="$(PYTEST_ARGS)"  JOBS=$(JOBS)  BENCH_ARGS="$(BENCH_ARGS)"'
	@echo '             HOSTS="$(HOSTS)"  HOSTS_OUT=$(HOSTS_OUT)  and more: docs/hostlab.md'

run: build ## build, what this host is, one guest, every paravirtual feature proven, what to do next
	@$(PYVMM) doctor
	@for payload in $(PAYLOADS); do \
	    echo; echo "== pyvmm run $$payload"; \
	    $(PYVMM) run "$$payload" || { code=$$?; [ $$code -eq 77 ] || exit $$code; }; \
	done
	@echo; echo '== pyvmm probe'
	@$(PYVMM) probe
	@echo
	@echo 'next:  $(PYVMM) run ring3          another guest of `$(PYVMM) list`; --trace shows its exits'
	@echo '       $(PYVMM) run mine.asm       your own, of a few lines: README.md'
	@echo '       $(PYVMM) explain STEAL_TIME what a row of the table is, and how it is proven'
	@echo '       $(PYVMM) doctor --all       all that this KVM offers;  make test: everything that must hold'

# A file stays on one worker, so that what a file has made for itself is made once. More than four workers gain nothing:
# tests that start guests wait for each other's CPUs then. Two a CPU: half of a test's time is waiting.
test: check ## build, check, then every test with branch coverage, JOBS at a time
	@$(PY) -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile $(COVERAGE) $(PYTEST_ARGS)

check: build ## ruff (lint and format) and mypy --strict
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo 'make check: run `ruff format .`' >&2; exit 1; }
	@$(PY) -m mypy

build: $(VENV)/built.stamp ## .venv with pyvmm in it, editable; done again only when its sources change

# What is missing is said before pip fails halfway through. A changed pyproject.toml starts the venv anew; a changed
# source of the extension only compiles that. pip is renewed because the start scripts of an old one import `re`, a tenth
# of the time of a short `pyvmm run`; where no newer one is to be had, the old one does. Bytecode is written here, since
# containers often have PYTHONDONTWRITEBYTECODE set, and each `pyvmm` of the tests would compile all of it anew.
$(VENV)/built.stamp: pyproject.toml setup.py $(EXTENSION_SOURCES)
	@sh tools/check-build-tools '$(PYTHON)'
ifneq (,$(wildcard $(VENV)/built.stamp))
	@echo 'make: building again: $(notdir $?)'
endif
	@if [ -n '$(filter pyproject.toml setup.py,$?)' ]; then \
	    echo 'make: installing pyvmm and its tools into $(VENV) (about a minute)'; \
	    tools/with-progress 'make: a new $(VENV)' '$(PYTHON)' -m venv --clear $(VENV) && \
	    { $(PIP) install --upgrade pip 2>/dev/null || :; } && \
	    tools/with-progress 'make: installing' $(PY) -m pip --disable-pip-version-check --no-input \
	        install --editable '.[$(EXTRAS)]'; \
	else \
	    $(PY) cffi_build.py >/dev/null; \
	fi
	@$(PY) -m compileall -q vmm guest_payloads tools
	@touch $@

listings: build ## write tests/listings/ anew: the bytes of every payload, for review
	@$(PY) tools/listings.py

docs: build/site/pages.json ## build/site/: the documentation for a browser, every link checked

build/site/pages.json: $(VENV)/built.stamp $(SITE_SOURCES)
	@$(PY) -m tools.site

bench: build bench/floor ## what pyvmm costs beside a C program and QEMU, and the goals
	@$(PYVMM) bench $(BENCH_ARGS)

bench/floor: bench/floor.c
	@$(CC) -O2 -Wall -Wextra -o $@ $< -lpthread

hosts: plain-wheel ## run pyvmm on emulated SVM and VMX hosts, and compare its verdicts with the expected ones
	@$(PY) -m tools.hostlab $(HOSTS) --out '$(HOSTS_OUT)' --cpus '$(HOSTS_CPUS)' --model '$(HOSTS_CPU)' \
	    --flavour '$(HOSTS_FLAVOUR)' --release '$(HOSTS_RELEASE)' --steps $(HOSTS_STEPS) --only $(HOSTS_ONLY) \
	    --tests '$(HOSTS_TESTS)' --guests $(HOSTS_GUESTS) \
	    $(if $(HOSTS_KUT),--kut '$(HOSTS_KUT)' --kut-tests $(HOSTS_KUT_TESTS) --kut-timeout '$(HOSTS_KUT_TIMEOUT)') \
	    --at-once '$(HOSTS_AT_ONCE)' --patience '$(HOSTS_PATIENCE)' \
	    $(if $(HOSTS_HTML),--html '$(HOSTS_HTML)') $(if $(filter-out 0,$(SELFTESTS)),--selftests) $(HOSTS_ARGS)

# For the hosts, which have the build machine's C library or a newer one, and no use for the site.
plain-wheel: build
	@rm -rf dist build/lib build/lib.* build/temp.* build/bdist.*
	@$(PIP) wheel --no-deps --wheel-dir dist .

# auditwheel reads which C library the extension needs, and names the wheel for the oldest that will do.
wheel: build docs ## dist/: one wheel for every Python from 3.11 on, and the sources
	@rm -rf dist build/plain build/share build/lib build/lib.* build/temp.* build/bdist.* *.egg-info
	@$(PY) -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")' >/dev/null
	@PYVMM_SITE='$(abspath build/site)' $(PIP) wheel --no-deps --wheel-dir build/plain dist/pyvmm-*.tar.gz
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir dist build/plain/pyvmm-*.whl 2>build/plain/auditwheel.log || { cat build/plain/auditwheel.log >&2; exit 1; }
	@ls dist

release-check: wheel ## what docs/release.md asks of dist/: tags, metadata, every Python that is here, pipx, uvx
	@$(PY) -m tools.release_check

clean: ## remove what make made
	@rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@rm -f vmm/kvm/_kvm*.so bench/floor
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
