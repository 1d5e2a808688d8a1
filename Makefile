# `make demo` and `make test` set up everything by themselves; so do `make lint` and `make docs`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
# One thread a process: jobs run side by side, and results do not depend on the number of cores.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: demo test slow plugins lint docs clean

$(VENV)/.user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[litemedsam]"
	touch $@

$(VENV)/.docs: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --editable ".[docs,litemedsam]"
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(BIN)/python -m pip install --quiet --editable ".[dev,dicom,docs,endpoint,litemedsam,plugin,qwen,smolvlm,torchio,trl]"
# sam2 is built against the torch that is there by now; its CUDA kernel is not needed.
	$(BIN)/python -m pip install --quiet editables hatchling setuptools wheel
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[sam2]"
	touch $@

demo: export OMP_NUM_THREADS = 2
demo: export MKL_NUM_THREADS = 2
demo: $(VENV)/.user  ## answer three questions about a synthetic scan; then the method in small: SFT, GRPO, test, report
	$(BIN)/medvol demo $(RUN)/first --overwrite
	$(BIN)/medvol fit --config examples/demo_sft.yaml --overwrite
	$(BIN)/medvol fit --config examples/demo_grpo.yaml --overwrite
	$(BIN)/medvol test --config examples/demo_sft.yaml --model.policy.model $(RUN)/sft/model
	$(BIN)/medvol test --config examples/demo_grpo.yaml --model.policy.model $(RUN)/grpo/model
	$(BIN)/medvol report $(RUN)/sft $(RUN)/grpo

test: $(VENV)/.dev  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadgroup

slow: $(VENV)/.dev  ## the slow tests: every example, every command of the pages, published model folders
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadgroup

# napari and Slicer's scene, beside the packages of the main environment, which is not touched.
$(VENV)/plugins/.ready: $(VENV)/.dev plugins/napari-medvol/pyproject.toml
	$(BIN)/python -m venv $(VENV)/plugins
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$($(VENV)/plugins/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/medvol.pth
	$(VENV)/plugins/bin/python -m pip install --quiet --editable "plugins/napari-medvol[test]" "slicer-core>=5.13,<6"
	touch $@

plugins: export QT_QPA_PLATFORM = offscreen
plugins: $(VENV)/plugins/.ready  ## the tests of the plug-ins of napari and Slicer, without a screen
	cd plugins/napari-medvol && ../../$(VENV)/plugins/bin/python -m pytest tests -W ignore
	cd plugins/slicer-medvol && ../../$(VENV)/plugins/bin/python -m pytest tests -W ignore

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs  ## the site, in build/site; a broken link stops it
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build runs .mypy_cache .pytest_cache .ruff_cache
