# Everything that people and CI run. Needs Python >= 3.11 with venv and pip, and make; `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= .venv-demo

BIN      := $(VENV)/bin
SOURCES  := pyproject.toml constraints.txt
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable

PEERS   := bench-digits bench-mnist bench-minilm bench-mobilenet
SPEED   := bench-speed-minilm bench-speed-resnet50
TRAINED := bench-trained-mnist bench-trained-bbc bench-trained-fashion
ALONE   := bench-alone-mnist bench-alone-fashion
OTHERS  := bench-startup bench-spam bench-searches bench-kill_and_resume bench-under_load bench-certificate \
           bench-idle_threads bench-load_overhead bench-distributed bench-memory bench-time_to_accuracy \
           bench-search_quality
BENCHES := bench-startup $(PEERS) bench-spam $(SPEED) $(TRAINED) $(ALONE) bench-kill_study \
           $(filter-out bench-startup bench-spam,$(OTHERS))

.DEFAULT_GOAL := help
.PHONY: help demo test check bench study docs format clean $(BENCHES)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO)/.installed  ## optimize the embedded digits model, without PyTorch; the report's path is printed last
	@$(DEMO)/bin/trimtab demo

test: $(VENV)/.installed  ## run the whole test suite; skipped tests are listed and counted at the end
	$(BIN)/python -m pytest -n 2 --dist loadscope -ra

check: $(VENV)/.installed  ## lint, format, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCHES)  ## run every benchmark in turn, resumable, on a quiet machine; a single one: make bench-digits

$(PEERS): bench-%: $(VENV)/.installed
	$(BIN)/python benchmarks/against_peers.py $*

$(SPEED): bench-speed-%: $(VENV)/.installed
	$(BIN)/python benchmarks/speed_only.py $*

study: $(VENV)/.installed  ## tell the case studies of docs/studies/ anew: an hour and a half on a quiet machine
	$(BIN)/python benchmarks/study.py fashion
	$(BIN)/python benchmarks/study.py bbc

$(TRAINED): bench-trained-%: $(VENV)/.installed
	$(BIN)/python benchmarks/trained.py $*

bench-kill_study: $(VENV)/.installed
	$(BIN)/python benchmarks/kill_and_resume.py --study

$(ALONE): bench-alone-%: $(VENV)/.installed
	$(BIN)/python benchmarks/alone.py $*

$(OTHERS): bench-%: $(VENV)/.installed
	$(BIN)/python benchmarks/$*.py

docs: $(VENV)/.installed  ## build the documentation into build/docs, reference pages from the code
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

clean:  ## remove the environments and what was built
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp holds until pyproject.toml or the pins change, so that a second run installs nothing.
$(VENV)/.installed: $(SOURCES)
	$(call environment,$(VENV),.[all$(comma)dev])

$(DEMO)/.installed: $(SOURCES)
	$(call environment,$(DEMO),.[openvino])

comma := ,
define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trimtab needs Python 3.11 or newer, $(PYTHON) is "+sys.version.split()[0]+"; try make PYTHON=python3.12")'
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@echo 'Installing trimtab$(patsubst .%,%,$(2)) into $(1) (once; takes a few minutes)'
@$(1)/bin/python $(PIP_INSTALL) '$(2)'
@touch $(1)/.installed
endef
