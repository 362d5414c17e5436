# netsim: `make demo` shows what it does, `make test` proves it. Both set themselves up in .venv.
.DEFAULT_GOAL := help
VENV := .venv
NETSIM := $(VENV)/bin/netsim
PYTEST := $(VENV)/bin/python -m pytest

AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E)

.PHONY: help demo test test-lab test-nojit lint setup fuzz-lab fuzz-policies fuzz-datapath checked bench clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.user: pyproject.toml scripts/setup
	@scripts/setup $(VENV) .
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/setup
	@scripts/setup $(VENV) '.[dev]'
	@touch $@ $(VENV)/.user

setup: $(VENV)/.dev            ## the development environment in .venv

demo: $(VENV)/.user            ## trace packets through the bundled example cluster
	@scripts/demo $(NETSIM)

test: $(VENV)/.dev            ## the whole suite (kernel comparisons where this machine allows them; says what it skipped)
	@$(PYTEST) -q -rs -n auto --dist worksteal

test-lab: $(VENV)/.dev         ## the same with nothing skipped: installs the Debian packages it needs, runs as root
	@scripts/lab-packages
	@$(AS_ROOT) env NETSIM_SKIP_NOTHING=1 $(PYTEST) -q -rs -n auto --dist worksteal

lint: $(VENV)/.dev            ## formatting, lint, strict types, import directions
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test-nojit: $(VENV)/.dev       ## the compiled datapath's tests, reduced, without the JIT and with bounds checked
	@NETSIM_SWITCHES=1 $(PYTEST) -q -s tests/differential/test_datapath_switches.py

fuzz-lab: $(VENV)/.dev         ## ten minutes of random rulesets and packets against this machine's kernel
	@$(VENV)/bin/python -m tests.differential.fuzz_run --seconds 600

checked: $(VENV)/.dev          ## lab verify on every network and kernel there is; writes docs/checked.md
	@scripts/checked $(NETSIM)

fuzz-policies: $(VENV)/.dev    ## ten million questions about random policies, put to three evaluators (a few minutes)
	@NETSIM_FUZZ_QUESTIONS=10000000 $(PYTEST) -q -s --timeout 3600 tests/property/test_policies_questions.py

fuzz-datapath: $(VENV)/.dev    ## a million random (ruleset or cluster, packet) pairs: compiled datapath against interpreter
	@NETSIM_FUZZ_PACKETS=$${NETSIM_FUZZ_PACKETS:-1000000} $(PYTEST) -q -s tests/differential/test_datapath_twins.py -k as_long_as_told

bench: $(VENV)/.dev            ## the performance suite: figures with this machine's core count
	$(VENV)/bin/python benchmarks/foundation.py
	$(VENV)/bin/python benchmarks/datapath.py
	$(VENV)/bin/python benchmarks/datapath.py --udp --skip-start

clean:            ## remove everything that was built here
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
