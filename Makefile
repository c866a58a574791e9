# Everything a newcomer needs: make help
PYTHON ?= python3
VENV   ?= .venv
NAME   ?= udp-loss
ENGINE ?= auto
SEED   ?=
JOBS   ?= 4
WORKERS ?= 0
DOCKER ?= 28
ARGS   ?=

READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev

.DEFAULT_GOAL := help
.PHONY: help scenario scenarios test test-docker test-kernel soak bench lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

scenario: $(READY) ## run one: make scenario NAME=udp-loss [ENGINE=docker|namespaces|auto] [SEED=7] [ARGS=...]
	@$(VENV)/bin/testbed run $(NAME) --engine $(ENGINE) $(if $(SEED),--seed $(SEED)) $(ARGS)

scenarios: $(READY) ## run them all, some at once: make scenarios [ENGINE=...] [JOBS=4] [ARGS=...]
	@$(VENV)/bin/testbed run scenarios --engine $(ENGINE) --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) $(ARGS)

test: $(DEV) ## all tests; TESTBED_REQUIRE=docker,... turns skips into failures; WORKERS=4 for a quicker look
	@$(VENV)/bin/pytest --numprocesses $(WORKERS) --dist loadgroup $(ARGS)

test-docker: $(DEV) ## what Docker runs, on a private daemon of another version, as root: make test-docker DOCKER=28
	@TESTBED_DOCKER=$(DOCKER) $(VENV)/bin/pytest -m docker tests/contract tests/system $(ARGS)

test-kernel: $(DEV) ## scenarios that need SCTP, under Debian's user-mode-linux (and kmod), as root or anybody
	@TESTBED_REQUIRE=uml $(VENV)/bin/pytest -v tests/kernel $(ARGS)

soak: $(DEV) ## what is rare: 10,000 made-up files, 250 ended runs, 1,100 whole ones; ARGS='-k fuzz' for a part
	@TESTBED_SOAK=long $(VENV)/bin/pytest -v tests/soak $(ARGS)

bench: $(DEV) ## how fast, beside floors and peers measured in the same run: ARGS='--only wire --quick'
	@$(VENV)/bin/python -m benchmarks $(ARGS)

lint: $(DEV) ## style, types and import rules
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

clean: $(READY) ## remove what dead runs left on this machine
	@$(VENV)/bin/testbed clean

$(READY): pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV): $(READY)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@
