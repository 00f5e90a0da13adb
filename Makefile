# One command per job; each makes the environment it needs, once.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup bench onnx engine parity check test test-device lint clean

PYTHON ?= python3
VENV   ?= .venv
MODEL  ?= rtdetr_r18_fine
OUT    ?= engines
ARGS   ?=
# A Jetson brings TensorRT with its system; everything else is a host that exports and tests.
JETSON := $(wildcard /etc/nv_tegra_release)
EXTRAS ?= $(if $(JETSON),device,dev)
# Tests of the host side: they import torch, or need NVIDIA's compiler.
HOST_TESTS := fusion zoo export engine graph/test_exported_scopes.py parity/test_parity_command.py test_public_api.py
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed-$(EXTRAS)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo "  variables: MODEL=$(MODEL) OUT=$(OUT) PYTHON=$(PYTHON) EXTRAS=$(EXTRAS) ARGS=..."

setup: $(READY) ## make the Python environment (.venv)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(if $(JETSON),--system-site-packages) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

bench: $(READY) ## the paper's Table 3, measured on this machine
	$(BIN)/python -m fine_edge.bench --suite table3 --out $(OUT) $(ARGS)

onnx: $(READY) ## export MODEL to ONNX, FP32 and FP16
	$(BIN)/python -m fine_edge.export $(MODEL) --precision fp16 --out $(OUT) $(ARGS)

engine: $(READY) ## build a TensorRT engine of MODEL
	$(BIN)/python -m fine_edge.engine build $(MODEL) --out $(OUT) $(ARGS)

parity: $(READY) ## compare MODEL's ONNX with PyTorch, FP32 and FP16
	$(BIN)/python -m fine_edge.parity $(MODEL) --precision fp32 --out $(OUT) $(ARGS)
	$(BIN)/python -m fine_edge.parity $(MODEL) --precision fp16 --out $(OUT) $(ARGS)

check: onnx ## graph rules and NVIDIA's compiler on MODEL's ONNX
	$(BIN)/python -m fine_edge.graph check $(OUT)/$(MODEL).onnx
	$(BIN)/python -m fine_edge.graph check $(OUT)/$(MODEL).fp16.onnx
	$(BIN)/python -m fine_edge.engine inspect $(OUT)/$(MODEL).fp16.onnx

test: $(READY) ## all tests
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-device: ## the tests of what runs without torch; PYTHON=python3.10 for the Jetson's
	$(PYTHON) -m venv $(VENV)-device
	$(VENV)-device/bin/python -m pip install --quiet --disable-pip-version-check . 'pytest<10' 'hypothesis<7' 'pytest-xdist<4'
	$(VENV)-device/bin/python -m pytest -n auto --dist loadfile -m "not host" tests $(HOST_TESTS:%=--ignore=tests/%) $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove exported artifacts and caches, keep the environment
	rm -rf $(VENV)-device .pytest_cache .mypy_cache .ruff_cache .hypothesis predictions
	git clean -fdXq $(OUT)
