# Everything runs in the project's own environments (.venv, .venv-base, .venv-edge, .venv-audit); see scripts/environment.
PYTHON ?= python3
export PYTHON
SOAK_MINUTES ?= 20
# Warnings are errors in the tests; a user's own setting must not change that.
unexport PYTHONWARNINGS PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help install install-test bed demo demo-split demo-cluster test test-faults soak audit fuzz lint test-base test-edge test-rooms format manifests test-cluster docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

install: ## Make .venv with every room (torch: minutes, once)
	@scripts/environment

install-test: install
	@scripts/environment base
	@scripts/environment edge

demo: install ## Make a portfolio, serve it with Triton, switch under load; ends with a table and a report
	@.venv/bin/python -m demo

demo-split: install ## Two nodes answer as one under load; one is killed and comes back, the link is cut (Linux; wire: root)
	@.venv/bin/python -m demo.split

demo-cluster: install bed ## The same on a Kubernetes with three edge nodes: install, make, serve, contention, recovery
	@.venv/bin/python -m demo.cluster

test: install-test bed ## Everything within minutes, a real Triton and a real Kubernetes included
	@# Triton's tests wait a good deal, so the rest runs beside them; the cluster's need the processors for themselves.
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=line lint test-base test-edge test-rooms
	@$(MAKE) --no-print-directory test-cluster

soak: bed ## Random faults on a cluster under load for SOAK_MINUTES (20), and whether everything converges; root
	.venv/bin/python -m benchmarks.soak --minutes $(SOAK_MINUTES) --output soak.json

lint: install ## Style, types and the layers between the rooms
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

test-base: install-test ## The contract and the core, in an environment without any extra
	.venv-base/bin/python -m pytest tests/unit tests/decision

test-edge: install-test ## The agent with a real Triton, in an environment without torch
	.venv-edge/bin/python -m pytest --numprocesses 2 --dist loadfile tests/triton

test-rooms: install ## Making, exactness, repository and everything across rooms
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile --ignore=tests/unit --ignore=tests/decision --ignore=tests/triton \
	  --ignore=tests/cluster --ignore=tests/packaging

format: install ## Format the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

manifests: install ## Write the manifests that are generated: definitions, the chart's copies of them and of the rights
	.venv/bin/python scripts/generate_manifests.py

bed: install ## Build the Kubernetes of the tests, as far as this machine can; cold about 10 minutes; EDGEFOLIO_BED=off: not
	@scripts/bed

test-cluster: bed ## The operator on a real Kubernetes; what this machine cannot run is skipped, and says why
	.venv/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder tests/cluster tests/packaging \
	  -m "not long and not nodes"
	.venv/bin/python -m pytest tests/cluster -m "nodes and not long"

test-faults: bed ## The long ones: cut links, killed operators, lost nodes, attacks on the bucket, upgrades
	.venv/bin/python -m pytest tests/cluster -m long

audit: install ## List what the images hold (CycloneDX, build/audit), and ask for known vulnerabilities of it
	@scripts/environment audit
	.venv/bin/python scripts/audit.py

FUZZ_MINUTES ?= 60
fuzz: install ## Fuzz whatever reads untrusted bytes for FUZZ_MINUTES (60); atheris is installed for it alone
	@[ -d build/atheris/atheris ] || .venv/bin/python -m pip install --quiet --no-deps --target build/atheris atheris==3.0.0
	PYTHONPATH=build/atheris .venv/bin/python scripts/fuzz.py --minutes $(FUZZ_MINUTES)

docs: install ## Write the references and the picture of the layers that are generated from code
	.venv/bin/python scripts/generate_reference.py
	.venv/bin/python scripts/draw_layers.py

clean: ## Remove what the demo wrote and the tools' caches (not the environments)
	rm -rf demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
