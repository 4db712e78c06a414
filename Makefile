# serve, test, check and bench each set up what they need: a virtual environment of their own, with
# exact versions, made again only when those change. Nothing but make and Python 3.11+ is assumed.

PYTHON ?= python3
RUNTIME ?= cpu
TORCH ?= torch==2.13.0

SERVE := .venv-$(RUNTIME)
DEVELOP := .venv
TOOLS := .venv-tools
PIP := bin/python -m pip --disable-pip-version-check
# Large blocks go back to the system when they are freed: see docs/serving.md, "Memory".
MALLOC := MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576

.PHONY: serve develop test test-fast check audit sbom format bench soak requirements clean

serve: $(SERVE)/ready $(SERVE)/bin/figment  ## serve models/ on port 8000; RUNTIME=gpu for CUDA
	@$(MALLOC) $(SERVE)/bin/python -m service

develop: $(DEVELOP)/ready $(DEVELOP)/bin/figment  ## install what training, tests and checks need

test: $(DEVELOP)/ready  ## run the tests
	$(DEVELOP)/bin/python -m pytest -m ray  # alone: a cluster wants the whole machine
	$(DEVELOP)/bin/python -m pytest -n 3 --dist worksteal -m "not ray"

test-fast: $(DEVELOP)/ready  ## run the tests that start no server
	$(DEVELOP)/bin/python -m pytest -n 3 --dist worksteal -m "not (server or slow or ray or browser)"

check: $(DEVELOP)/ready audit sbom  ## lint, format, types, architecture, audit, and that sbom can be written
	$(DEVELOP)/bin/ruff check .
	$(DEVELOP)/bin/ruff format --check .
	$(DEVELOP)/bin/mypy
	$(DEVELOP)/bin/lint-imports

audit: $(TOOLS)/ready  ## look every exact version up among the known vulnerabilities
	$(TOOLS)/bin/python -m requirements.audit $(TORCH)

sbom: $(TOOLS)/ready  ## write what each image installs to build/, as CycloneDX
	$(TOOLS)/bin/python -m requirements.sbom build

format: $(DEVELOP)/ready  ## mend what check finds, where it can
	$(DEVELOP)/bin/ruff check --fix .
	$(DEVELOP)/bin/ruff format .

bench: $(DEVELOP)/ready  ## time serving and training against what they are built on
	$(DEVELOP)/bin/python -m benchmarks.serve
	$(DEVELOP)/bin/python -m benchmarks.sets
	$(DEVELOP)/bin/python -m benchmarks.train

soak: $(DEVELOP)/ready  ## overload it, end it a hundred times, and have it run for ten minutes
	$(DEVELOP)/bin/python -m benchmarks.overload
	$(DEVELOP)/bin/python -m benchmarks.shutdown
	$(DEVELOP)/bin/python -m benchmarks.soak

# `figment` in an environment works in every folder: -P leaves the current one out of the imports.
%/bin/figment: %/ready
	@echo '$(CURDIR)' > $$(echo $*/lib/python*/site-packages)/figment.pth
	@printf '#!/bin/sh\nexec "%s" -P -m figment "$$@"\n' '$(CURDIR)/$*/bin/python' > $@
	@chmod +x $@

$(SERVE)/ready: requirements/serve-$(RUNTIME).txt
	@echo "installing what serving needs into $(SERVE): this takes about a minute, once"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Figment needs Python 3.11+")'
	$(PYTHON) -m venv --clear $(SERVE)
	$(SERVE)/$(PIP) install --quiet --require-hashes --requirement $<
	@touch $@

# PyTorch first and without a hash: which of its builds fits depends on the machine.
$(DEVELOP)/ready: requirements/develop.txt
	@echo "installing PyTorch and all that training and tests need into $(DEVELOP): this takes minutes, once"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Figment needs Python 3.11+")'
	$(PYTHON) -m venv --clear $(DEVELOP)
	$(DEVELOP)/$(PIP) install --quiet $(TORCH)
	$(DEVELOP)/$(PIP) install --quiet --require-hashes --no-deps --requirement $<
	$(DEVELOP)/$(PIP) check
	@touch $@

$(TOOLS)/ready: requirements/tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/$(PIP) install --quiet --require-hashes --requirement $<
	@touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

requirements:  ## write the exact versions anew (needs uv)
	$(COMPILE) pyproject.toml --extra cpu --output-file requirements/serve-cpu.txt
	$(COMPILE) pyproject.toml --extra gpu --output-file requirements/serve-gpu.txt
	$(COMPILE) pyproject.toml --extra cpu --extra ray \
		--constraint requirements/serve-cpu.txt --output-file requirements/serve-ray.txt
	echo torch | $(COMPILE) pyproject.toml --extra cpu --extra train --extra dev --excludes - \
		--output-file requirements/develop.txt
	$(COMPILE) --group tools --output-file requirements/tools.txt

clean:
	rm -rf .venv .venv-* build *.egg-info
