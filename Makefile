# `make demo` and `make test` set up everything by themselves; so do `make lint` and `make docs`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
# One thread a process: jobs run side by side, and results do not depend on the number of cores.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: demo test lint docs clean

$(VENV)/.user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[litemedsam]"
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --editable ".[dev,dicom,docs,endpoint,litemedsam,qwen,torchio,trl]"
# sam2 is built against the torch that is there by now; its CUDA kernel is not needed.
	$(BIN)/python -m pip install --quiet editables hatchling setuptools wheel
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[sam2]"
	touch $@

demo: export OMP_NUM_THREADS = 2
demo: export MKL_NUM_THREADS = 2
demo: $(VENV)/.user  ## train the tiny policy on drawn scans, test it, ask it three questions
	$(BIN)/medvol fit --config examples/quickstart.yaml --overwrite
	$(BIN)/medvol test --config examples/quickstart.yaml --model.policy.model $(RUN)/model
	$(BIN)/python examples/write_phantom.py $(RUN)/phantom.nii.gz
	$(BIN)/medvol segment --jobs examples/quickstart_jobs.json --policy $(RUN)/model --out $(RUN)/answers --overwrite
	@echo "Look at the pictures:" && ls $(RUN)/answers/*.png

test: $(VENV)/.dev  ## the whole suite, every example included
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.dev  ## the site, in build/site; a broken link stops it
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build runs .mypy_cache .pytest_cache .ruff_cache
