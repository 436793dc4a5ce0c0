# Everything lives in .venv; `make clean` removes it. `make help` lists the targets.
VENV ?= .venv
PEERS ?= .venv-peers
B    := $(VENV)/bin
PY   ?= python3
# uv does not read pip's configuration: hand it the wheel folder that pip uses, if any
FIND := $(addprefix --find-links ,$(or $(PIP_FIND_LINKS),$(shell $(PY) -m pip config get global.find-links 2>/dev/null)))
PIP   = $(B)/uv pip install -q --python $(B)/python $(FIND) -c constraints.txt
UV_PEERS = $(B)/uv pip install -q --python $(PEERS)/bin/python $(FIND) -c peers-constraints.txt
# all cores, as far as memory goes (tests/conftest.py); with `loadgroup` a process that dies must not be
# replaced, or pytest-xdist 3.8 waits for ever; the browser and the peers have targets of their own
SUITE = $(B)/python -m pytest -q -n auto --dist loadgroup --max-worker-restart 0 \
	--ignore=tests/browser --ignore=tests/peers
export OMP_NUM_THREADS ?= 1
export PATH := $(abspath $(B)):$(PATH)
# let Python keep what it compiles, whatever the shell says: importing torch then takes half the time
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-all test-docs test-peers test-versions docs readme nbs course bench test-gpu bench-gpu lint types clean
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16
run: $(VENV)/.run ## From the embedded images to a fine-tuned network and its mistakes, with three seeds
	@$(B)/python -m fastloop demo --seed 1 2 3 $(ARGS)
test: $(VENV)/.dev ## Run every notebook and the tests that matter for a change, on all cores
	$(SUITE) -m 'not rare' $(ARGS)
test-all: ## Run all there is, as CI does: rare paths, the site in a browser, peers, generated files
	.ci/run
test-docs: $(VENV)/.ui docs ## Open the built site in headless Chromium
	$(B)/python -m pytest -q tests/browser $(ARGS)
test-peers: $(PEERS)/.done ## Run callbacks and more beside fastai 2, Keras, torchmetrics, torchvision, timm, MLflow, W&B
	KERAS_BACKEND=torch $(PEERS)/bin/python -m pytest -q tests/peers $(ARGS)
test-versions: $(VENV)/.dev ## Run the built wheel on Python 3.10 to 3.13, with the oldest and the newest torch
	$(B)/python tools/test_versions.py $(ARGS)
docs: $(VENV)/.dev ## Build the website into _docs
	$(B)/python tools/docs.py
	@echo "file://$(abspath _docs/index.html)"
readme: $(VENV)/.dev ## Write README.md from nbs/index.ipynb
	$(B)/python tools/readme.py $(ARGS)
nbs: $(VENV)/.dev ## Run all notebooks in place, clean them and export the package
	$(B)/python tools/nb.py build
course: $(VENV)/.ui ## Open the notebooks in JupyterLab
	$(B)/jupyter lab nbs $(ARGS)
bench: $(VENV)/.dev ## Measure fastloop against loops written by hand
	$(B)/python -m benchmarks $(ARGS)
test-gpu: $(VENV)/.dev ## Run what only a CUDA GPU can show; skipped with a reason where there is none
	$(B)/python -m pytest -q -m gpu -rs tests/test_gpu.py tests/test_gpu_compile.py $(ARGS)
bench-gpu: $(VENV)/.dev ## Measure training on a GPU against the loop written by hand, and both compiled
	$(B)/python -m benchmarks.gpu $(ARGS)
lint: $(VENV)/.dev ## Check the style of package, notebooks, tests and tools
	$(B)/python tools/lint.py $(ARGS)
types: $(VENV)/.types ## Check the types of the package
	$(B)/basedpyright $(ARGS)
clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) $(PEERS) .versions _proc _docs build dist *.egg-info .pytest_cache .ruff_cache

$(B)/uv:
	$(PY) -m venv $(VENV) && $(B)/pip install -q uv==0.13.8
$(VENV)/.run: settings.ini setup.py constraints.txt | $(B)/uv
	$(PIP) -e . && touch $@
$(VENV)/.dev: settings.ini setup.py constraints.txt | $(B)/uv
	$(PIP) -e '.[dev]' && touch $@ $(VENV)/.run
$(VENV)/.types: settings.ini setup.py constraints.txt | $(B)/uv
	$(PIP) -e '.[dev,types]' && touch $@ $(VENV)/.dev $(VENV)/.run
$(VENV)/.ui: settings.ini setup.py constraints.txt | $(B)/uv
	$(PIP) -e '.[dev,ui]' && touch $@ $(VENV)/.dev $(VENV)/.run
# fastai asks for spaCy, torchvision for a torch with CUDA, timm for a hub: none of it is used here
$(PEERS)/.done: settings.ini setup.py peers-constraints.txt | $(B)/uv
	test -x $(PEERS)/bin/python || $(PY) -m venv $(PEERS)
	$(UV_PEERS) -r peers-constraints.txt && $(UV_PEERS) --no-deps fastai==2.8.12 torchvision==0.28.0 timm==1.0.31 -e . && touch $@
