"""RT-DETR with and without FINE, FP16 and FP32, through NVIDIA's compiler as its engine would be built for a device.

Three that differ most, in a minute; ``make matrix`` compiles the whole zoo, and bench/matrix.json keeps what it found.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fine_edge.engine.build import obtain_engine
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.source import onnx_name
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.zoo.catalog import CATALOG

pytestmark = pytest.mark.host

# One attention of the encoder and three of the decoder; FINE adds two where it has a softmax over tokens.
FUSED_IN_FINE = {None: 0, "aats": 2, "vanilla": 2, "window": 2, "area": 2, "linear": 0}
DECODER_LAYERS = {"r18": 3, "r50": 6}
MODELS = ["rtdetr_r18_fine", "rtdetr_r18_fine_linear", "rtdetr_r50_fine"]


@pytest.mark.parametrize("model", MODELS)
def test_both_precisions_compile(model):
    entry = CATALOG[model]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ensure_exported(ExportRequest(model, precision="fp16"), folder)
        for precision in ("fp16", "fp32"):
            manifest = obtain_engine(
                folder / onnx_name(model, precision), BuildOptions(precision, "rtx-sm86"), folder
            ).manifest
            assert manifest.model == model
            fused = 1 + DECODER_LAYERS[entry.variant] + FUSED_IN_FINE[entry.attention]
            assert manifest.fused_attention == (fused if precision == "fp16" else 0)
            # 146 to 178 in FP16 for R18, 242 to 266 for R50; a graph that falls apart has hundreds more.
            assert 100 < manifest.kernels < 300
