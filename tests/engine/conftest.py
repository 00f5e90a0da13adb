"""A Jetson to build engines on: TensorRT-RTX under TensorRT's name, and a device that only answers who it is."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fine_edge.engine import cuda

HERE = Path(__file__).parent
SHIM = HERE / "tensorrt_shim"
LAYERS = {
    "Layers": [
        {
            "Name": "_gemm_mha_v2_myl0_1",
            "LayerType": "kgen",
            "Metadata": "[ONNX Layer: /fine/MatMul]\x1e[ONNX Layer: /fine/Softmax]",
        },
        {"Name": "entry^bb^wait^1_myl0_1", "LayerType": "wait", "Metadata": ""},  # no kernel, and not counted as one
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "Metadata": ""},
    ],
    "Bindings": ["q", "k", "v", "y"],
}
# What the shim's runtime says of every plan that it takes: the tensors of small_graphs.attention at head dim 16.
TOLD = {
    "tensors": [
        {"name": "q", "mode": "input", "shape": [1, 4, 64, 16]},
        {"name": "k", "mode": "input", "shape": [1, 4, 16, 64]},
        {"name": "v", "mode": "input", "shape": [1, 4, 64, 16]},
        {"name": "y", "mode": "output", "shape": [1, 4, 64, 16]},
    ],
    "activation_bytes": 3 * 2**20,
    "layers": json.dumps(LAYERS),
}


@pytest.fixture
def jetson(monkeypatch):
    """Pretend to be an Orin with TensorRT 10.7; the builder's process then really builds, with NVIDIA's compiler."""
    monkeypatch.syspath_prepend(str(SHIM))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SHIM), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SHIM_ENGINE", json.dumps(TOLD))
    monkeypatch.setattr(cuda, "gpu_info", lambda: cuda.GpuInfo("Orin", 87, "12.6", 8 * 2**30))
    yield monkeypatch
    sys.modules.pop("tensorrt", None)
