# Python 3.11 and make are all that is needed: every target makes .venv first if it is not there.
.DEFAULT_GOAL := help
.PHONY: help env book lab docs check test lint check-book clean distclean

# The first of these that runs and is new enough; a name on the PATH alone may be a stub for a version that is not installed.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(shell for p in python3.11 python3 python; do \
	$$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$p; break; }; done),python3)

# cpu, a name that uv knows (auto, cu130, rocm7.1, ...), or pip for whatever build pip takes by itself.
# The stamp bears the name, so that another backend makes another environment, and the one in place is the default.
TORCH_BACKEND ?= $(or $(patsubst .venv/installed-%,%,$(wildcard .venv/installed-*)),cpu)
STAMP := .venv/installed-$(TORCH_BACKEND)
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-compile  # what is imported gets compiled
PYTEST := .venv/bin/python -m pytest
# Of one thread each; one more than two cores, as tests wait for browsers, kernels and other programs. The files that take longest are first.
SHARED := -n 3 --dist loadfile --no-loadscope-reorder

# What the caller's shell may carry that would reach into the environment or take the figures out of the notebooks.
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH MPLBACKEND
# Nothing is compiled while it is installed, and must be kept where it is when it is first imported: else every process does it anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

env: $(STAMP) ## make .venv as constraints.txt describes it (TORCH_BACKEND=auto: torch for this machine's GPU)

# From scratch each time and the stamp last: what an interrupted or older installation left is never built upon.
# torch first, and the CPU build: left to itself, pip brings gigabytes of CUDA on Linux. pip unpacks one package after the other, so two of
# it share the pinned ones; what that leaves out, on systems that need others, the last pip brings, which has the final say on all.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing the environment into .venv: once, a few minutes, 2 GB ..."
	@$(PYTHON) -m venv --clear .venv
	@case "$(TORCH_BACKEND)-$$(uname -s)" in \
		pip-* | cpu-Darwin) $(PIP) '$(TORCH)' ;; \
		cpu-*) $(PIP) '$(TORCH)+cpu' 2>/dev/null || $(MAKE) --no-print-directory torch-by-uv ;; \
		*) $(MAKE) --no-print-directory torch-by-uv ;; \
	esac
	@sed '/^#/d; /^torch==/d' constraints.txt | xargs -P 2 -n 45 $(PIP) --no-deps >/dev/null 2>&1 || true
	@$(PIP) -c constraints.txt -e '.[book,test,sweep]'
	@.venv/bin/python -c 'import matplotlib.pyplot'  # builds the font cache here, not in the first page with a figure
	@touch $@

# uv knows where PyTorch keeps the builds that the configured package index does not have.
.PHONY: torch-by-uv
torch-by-uv:
	@$(PIP) uv
	@.venv/bin/uv --quiet pip install --python .venv/bin/python --torch-backend=$(TORCH_BACKEND) '$(TORCH)' || \
		{ echo "No $(TORCH_BACKEND) build of $(TORCH) was found; TORCH_BACKEND=pip takes the one that pip finds" >&2; exit 1; }

# Pages are written anew each time, from cached results: an incremental build would not repeat the warnings of the last one.
# A chapter in which a cell fails is rendered as far as it came, and named at the end.
book: $(STAMP) ## run the chapters and render the book (the second time from cached results)
	@rm -rf _build/html _build/.doctrees
	@.venv/bin/python notebooks/run_all.py || true
	@.venv/bin/jupyter-book build . --config book/_config.yml --toc book/_toc.yml --path-output . -n -W --keep-going; pages=$$?; \
	echo "The book is at $(CURDIR)/_build/html/index.html"; \
	if [ -s _build/failures.txt ]; then echo "These cells failed:" >&2; cat _build/failures.txt >&2; exit 1; fi; \
	exit $$pages

# Without its announcements JupyterLab neither asks whether it may fetch news nor fetches any.
lab: $(STAMP) ## open the chapters in JupyterLab, to rerun and change them
	@mkdir -p .venv/etc/jupyter/labconfig
	@echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' > .venv/etc/jupyter/labconfig/page_config.json
	.venv/bin/jupyter lab --notebook-dir=notebooks

docs: $(STAMP) ## render the book from the outputs committed with the chapters, running nothing: for prose and the API reference
	@mkdir -p _build && rm -rf _build/docs/_build/html  # a changed style sheet alone would not be copied
	@sed 's/execute_notebooks: cache/execute_notebooks: "off"/' book/_config.yml > _build/docs.yml
	@.venv/bin/jupyter-book build . --config _build/docs.yml --toc book/_toc.yml --path-output _build/docs -n -W --keep-going
	@echo "The pages are at $(CURDIR)/_build/docs/_build/html/index.html"

check: lint ## what one runs while one works: style, and the unit tests and doctests that are quick
	$(PYTEST) $(SHARED) -m 'not slow' prom tests

# Style and tests are both run, whatever the other says.
test: $(STAMP) ## check the style, the package, the chapters' committed outputs and, where there is one, the rendered book
	@$(MAKE) --no-print-directory lint; style=$$?; \
	$(PYTEST) $(SHARED) prom tests; tests=$$?; \
	$(PYTEST) $(SHARED) notebooks; chapters=$$?; \
	[ $$style = 0 ] || echo "make test: ruff found faults of style, see the top" >&2; \
	exit $$((style || tests || chapters))

lint: $(STAMP) ## check the style only
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

check-book: $(STAMP) ## open every page of the rendered book in Chromium and look for faults
	$(PYTEST) tests/book/test_book.py

clean: ## remove the rendered book, caches and results
	rm -rf _build results build dist .jupyter_cache .pytest_cache .ruff_cache .hypothesis
	find prom tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf .venv *.egg-info
