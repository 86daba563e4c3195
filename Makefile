# The EMCAD course. `make figures` and `make test` need Python 3.11 or newer and make, nothing else.
VENV ?= .venv
PROFILE ?= quick
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Where `make offline` has packed this folder, it holds every package, for one Python and one kind of system.
PACKED_FOR := $(shell cat wheels/made-for.txt 2>/dev/null)
PACKAGES := $(if $(PACKED_FOR),--no-index --find-links wheels)
FITS := import platform, sys; v = sys.version_info[:2]; \
	here = "Python %d.%d, %s %s" % (*v, platform.system(), platform.machine()); \
	sys.exit(not ((3, 11) <= v <= (3, 13) and "$(PACKED_FOR)" in ("", here)))

.DEFAULT_GOAL := help
.PHONY: help setup figures test lab notebooks offline lint clean

help:  ## Show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

figures: setup  ## Make the phantom patients, run every notebook, write figures/ (PROFILE=ci|quick|paper DATA=folder)
	$(BIN)/python -m emcad_lib.figures --profile $(PROFILE) $(if $(DATA),--data "$(DATA)")

test: setup lint  ## Run the whole test suite
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

lab: setup  ## Open JupyterLab at the first notebook
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: setup  ## Execute the notebooks and store their outputs in place, as they are committed
	$(BIN)/python -m emcad_lib.figures --profile quick --store

offline: setup  ## Pack the course, its packages and its patients into offline/, for machines without a network
	$(BIN)/python data_scripts/pack_offline.py --out offline

lint: setup
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy

setup: $(READY)

# Stamped only when everything is installed, so an interrupted set-up starts again where pip left off.
$(READY): requirements.txt pyproject.toml
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
		if $$candidate -c '$(FITS)' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ] && [ -n "$(PACKED_FOR)" ]; then \
		echo "The packages in wheels/ are for $(PACKED_FOR), and that isn't found here. Install it, or name it: make PYTHON=/path/to/python; or pack again on a machine like this one: make offline"; exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 found. Install one (python.org, or your system's packages), or name it: make PYTHON=/path/to/python3.11"; exit 1; \
	fi; \
	echo "==> Set-up, once: about two minutes and 6 GB in $(VENV)/ (Python: $$($$found --version))"; \
	[ -x $(BIN)/python ] || $$found -m venv $(VENV)
	@echo "==> Installing the pinned requirements"
	@$(BIN)/python -m pip install --disable-pip-version-check $(PACKAGES) -r requirements.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $(READY)
	@echo "==> Set-up done"

clean:  ## Remove the environment and the tools' caches (never data/, runs/ or figures/)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
