# The two commands are `make demo` and `make test`; `make` lists them all.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo demo-down test check bench servers

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed-demo  ## a bastion on 127.0.0.1:2222 (BASTION_PORT) in front of demo containers, until ctrl-C
	@$(BIN)/python -m demo up

demo-down:  ## stop the demo and remove all that it made, also after a crash
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m demo down; else echo "There is no demo here."; fi

test: servers  ## install what the tests need and run them all; as root, for an engine of their own
	$(BIN)/python -m tests

check: $(VENV)/installed  ## ruff, mypy --strict, the import contracts, the names of the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m tests.names

bench: servers  ## speed and memory beside OpenSSH's sshd with ForceCommand docker exec
	$(BIN)/python -m tests.bench

servers: $(VENV)/installed
	@tests/servers/install.sh

# What a developer's environment holds includes what the demo needs.
$(VENV)/installed-demo: pyproject.toml
	@[ $(VENV)/installed -nt $< ] || demo/venv.sh $(VENV) .
	@touch $@

$(VENV)/installed: pyproject.toml
	@demo/venv.sh $(VENV) '.[dev,test]'
	@touch $@
