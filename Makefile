# Every target starts from a bare python3: it makes what it needs, shows what it does, and is fast the second time.
PYTHON ?= python3
VENV := $(or $(BOOTSTRAP_VENV),.venv)
RUN := $(VENV)/bin

.PHONY: demo test torture lint bench docs pins clean

demo:  ## the main job: two services, mutual TLS, attacks, proofs
	@$(PYTHON) scripts/bootstrap.py core
	@$(RUN)/python -m examples.payments.demo $(ARGS)

test:  ## every check; what continuous integration runs
	@$(PYTHON) scripts/bootstrap.py test
	@$(RUN)/python scripts/check.py

torture:  ## kills, old copies, full and slow disks, three programs on one log; minutes, goes on where it was
	@$(PYTHON) scripts/bootstrap.py test
	@$(RUN)/python -m tests.chaos.torture $(ARGS)

lint:  ## the checks that run no code
	@$(PYTHON) scripts/bootstrap.py test
	@$(RUN)/python scripts/check.py lint

bench:  ## all benches beside their peers; writes docs/benchmarks.md
	@$(PYTHON) scripts/bootstrap.py bench
	@$(RUN)/python -m bench --all --write docs/benchmarks.md

docs:  ## the manual, in docs/_build/html
	@$(PYTHON) scripts/bootstrap.py docs
	@$(RUN)/python scripts/reference.py
	@$(RUN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "the manual: docs/_build/html/index.html"

pins:  ## compile requirements/*.txt again
	@$(PYTHON) scripts/bootstrap.py test
	@sh scripts/pins.sh $(RUN)/uv

clean:  ## remove what the other targets made
	rm -rf "$(VENV)" docs/_build dist .torture
