# One command per job; each makes the environment it needs, once.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without compiled files, each process of the tests would compile the package and pytest's plugins anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup doctor bench onnx engine parity check matrix plugins results report test nightly test-device lint clean

PYTHON ?= python3
VENV   ?= .venv
MODEL  ?= rtdetr_r18_fine
# MODEL=table3 stands for all models of the paper's Table 3; several names work as well.
TABLE3 := $(addprefix rtdetr_r18,_fine_vanilla _fine_window _fine_area _fine_linear _fine) rtdetr_r18
MODELS  = $(if $(filter table3,$(MODEL)),$(TABLE3),$(MODEL))
OUT    ?= engines
ARGS   ?=
DEVICE_TESTS ?= tests
# The tests make and free thousands of graphs of many MiB. glibc hands such memory back to the kernel, which clears every
# page that is asked for again: a third of the time of a study of FP16. What the tests start inherits this.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=16777216
# Protobuf trims the heap besides, which takes a compiler to prevent. To the loader, blanks and colons end a name.
KEPT        := build/keep_memory.so
PRELOADED   := LD_PRELOAD="$$(realpath -qe $(KEPT) | grep -v "[ :]")"
# Of the bench: table1, table2, table3, table7, small or exporters.
SUITE  ?= table3
# A Jetson brings TensorRT with its system; everything else is a host that exports and tests.
JETSON := $(firstword $(wildcard /etc/nv_tegra_release) $(shell grep -las tegra /proc/device-tree/compatible))
EXTRAS ?= $(if $(JETSON),device,dev)
BACKEND ?= $(if $(JETSON),trt,ort)
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed-$(EXTRAS)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo "  variables: MODEL=$(MODEL) OUT=$(OUT) PYTHON=$(PYTHON) EXTRAS=$(EXTRAS) ARGS=..."

setup: $(READY) ## make the Python environment (.venv)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(if $(JETSON),--system-site-packages) $(VENV)
# pycuda is compiled on a Jetson, with the CUDA compiler that JetPack keeps out of the path.
	PATH="$$PATH:/usr/local/cuda/bin" $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
ifeq ($(EXTRAS),dev)
# Types of TensorRT for mypy, the release nearest to 10.7. Apart from site-packages, where a folder called tensorrt would
# look like TensorRT; mended, since parameters called "in" and a variable called "bool" are not Python to mypy.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/stubs tensorrt-stubs==10.8.0.43.1
	@sed -i -E 's/([(,] ?)in: list/\1in_: list/; s/channel_axis: int\) ->/channel_axis: int = ...) ->/; /^bool: DataType/d' $(VENV)/stubs/tensorrt_bindings/tensorrt.pyi
# The Polygraphy that a Jetson gets, for the tests of the path that a Jetson takes; newer ones alone know TensorRT-RTX.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/polygraphy-device polygraphy==0.49.14
endif
	@touch $@

doctor: $(READY) ## what this machine has, what works, what to do about the rest
	$(BIN)/python -m fine_edge doctor $(ARGS)

bench: $(READY) ## the paper's Table 3, or SUITE=table1 and others, measured on this machine
	$(BIN)/python -m fine_edge bench --suite $(SUITE) --backend $(BACKEND) --artifacts $(OUT) $(ARGS)

onnx: $(READY) ## export MODEL to ONNX, FP32 and FP16
	set -e; for model in $(MODELS); do $(BIN)/python -m fine_edge export $$model --precision fp16 --artifacts $(OUT) $(ARGS); done

engine: $(READY) ## build a TensorRT engine of MODEL, or do nothing if it is there
	set -e; for model in $(MODELS); do $(BIN)/python -m fine_edge engine build $$model --artifacts $(OUT) $(ARGS); done

plugins: ## compile the plugins, on a machine with CUDA and TensorRT
	$(MAKE) -C plugins

results: $(READY) ## write bench/RESULTS.md from the committed records
	$(BIN)/python -m fine_edge report bench/results/*.json --markdown bench/RESULTS.md

report: $(READY) ## the committed records as one page, engines/report.html
	$(BIN)/python -m fine_edge report bench/results/*.json --html $(OUT)/report.html $(ARGS)

parity: $(READY) ## compare MODEL's ONNX with PyTorch, FP32 and FP16
	set -e; for model in $(MODELS); do for precision in fp32 fp16; do \
	  $(BIN)/python -m fine_edge parity $$model --precision $$precision --artifacts $(OUT) $(ARGS); done; done

check: onnx ## graph rules and NVIDIA's compiler on MODEL's ONNX
	set -e; for model in $(MODELS); do $(BIN)/python -m fine_edge graph check $(OUT)/$$model.onnx; \
	  $(BIN)/python -m fine_edge graph check $(OUT)/$$model.fp16.onnx; \
	  $(BIN)/python -m fine_edge engine inspect $(OUT)/$$model.fp16.onnx; done

matrix: $(READY) ## every model exported, checked, compared and compiled: bench/MATRIX.md and matrix.json
	$(BIN)/python -m fine_edge matrix --artifacts $(OUT) --json bench/matrix.json --markdown bench/MATRIX.md $(ARGS)

$(KEPT): tests/keep_memory.c
	@mkdir -p $(@D)
	@cc -shared -fPIC -O2 -o $@ $< 2>/dev/null || rm -f $@

test: $(READY) $(KEPT) ## all tests, slow ones where what they speak of has changed
	$(KEEP_MEMORY) $(PRELOADED) $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

nightly: $(READY) $(KEPT) ## the slow tests, whatever has changed, and tests/nightly.json anew when they pass
	$(KEEP_MEMORY) $(PRELOADED) $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --nightly -m slow $(ARGS)

test-device: $(KEPT) ## the tests of what runs without torch, or DEVICE_TESTS of them; PYTHON=python3.10 for the Jetson's
	$(PYTHON) -m venv $(VENV)-device
	$(VENV)-device/bin/python -m pip install --quiet --disable-pip-version-check '.[video,track]' 'pytest<10' 'hypothesis<7' 'pytest-xdist<4' 'asyncssh<3'
	$(KEEP_MEMORY) $(PRELOADED) $(VENV)-device/bin/python -m pytest -n auto --dist loadfile -m "not host" $(ARGS) $(DEVICE_TESTS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove exported artifacts and caches, keep the environment
	rm -rf $(VENV)-device .pytest_cache .mypy_cache .ruff_cache .hypothesis predictions evaluations $(KEPT)
	git clean -fdXq $(OUT)
