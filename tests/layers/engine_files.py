"""Files of a tiny engine as TensorRT 10 and trtexec write them.

Written by hand from the documented formats (NVIDIA/TensorRT: samples/common/sampleReporting.cpp, and
tools/experimental/trt-engine-explorer/trex for the inspector's JSON); no device made them.
"""

from __future__ import annotations

import json
from pathlib import Path


def tensor(name: str, *dims: int, kind: str = "Half") -> dict[str, object]:
    return {"Name": name, "Dimensions": list(dims), "Format/Datatype": kind}


def layer(
    name: str, kind: str, nodes: list[str], outputs: list[dict[str, object]], **more: object
) -> dict[str, object]:
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
    base = {"Name": name, "LayerType": kind, "Inputs": [], "Outputs": outputs, "Metadata": metadata}
    return {**base, "StreamId": 0, **more}


CONV = layer(
    "/detector/backbone/stem.0/Conv + PWN(/detector/backbone/stem.0/Relu)",
    "CaskConvolution",
    ["/detector/backbone/stem.0/Conv", "/detector/backbone/stem.0/Relu"],
    [tensor("x", 1, 32, 320, 320, kind="Channel major FP16 format where channel % 8 == 0")],
    Weights={"Type": "Half", "Count": 864},
    Bias={"Type": "Float", "Count": 32},
)
NECK = layer("__myl_Conc_myl0_1", "kgen", ["/detector/encoder/Concat"], [tensor("y", 1, 256, 80, 80)])
HEAD = layer("/detector/classes/MatMul_myl0_2", "gemm", ["/detector/classes/MatMul"], [tensor("z", 1, 300, 80)])
ATTENTION = layer(
    "_gemm_mha_v2_myl0_3",
    "kgen",
    [f"/detector/encoder/fine.0/attention/{op}" for op in ("MatMul", "Softmax", "MatMul_1")],
    [tensor("a", 16, 400, 16)],
)
MODULATE = layer(
    "__myl_ReshMulConc_myl0_4",
    "kgen",
    ["/detector/encoder/fine.0/modulate/Mul", "/detector/encoder/fine.0/modulate/Reshape", "/detector/encoder/Concat"],
    [tensor("m", 1, 512, 80, 80)],
)
REFORMAT = layer(
    "Reformatting CopyNode for Input Tensor 0 to /detector/encoder/fine.0/query/MatMul",
    "Reformat",
    [],
    [tensor("r", 1, 256, 20, 20, kind="Row major linear FP32")],
)

BASELINE = [CONV, NECK, HEAD]
FINE = [CONV, REFORMAT, ATTENTION, MODULATE, HEAD]
BASELINE_MS = [4.0, 1.0, 2.0]
FINE_MS = [4.0, 0.1, 0.4, 1.2, 2.1]


def write_layers_json(path: Path, layers: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps({"Layers": layers, "Bindings": ["images", "logits"]}), encoding="utf-8")
    return path


def write_profile_json(path: Path, layers: list[dict[str, object]], times_ms: list[float], runs: int = 10) -> Path:
    """As ``exportJSONProfile`` does it: names are not escaped."""
    total = sum(times_ms)
    lines = [f'  {{ "count" : {runs} }}']
    for entry, ms in zip(layers, times_ms, strict=True):
        lines.append(
            f', {{ "name" : "{entry["Name"]}", "timeMs" : {ms * runs}, "averageMs" : {ms * 1.1}, "medianMs" : {ms},'
            f' "percentage" : {100 * ms / total} }}'
        )
    path.write_text("[\n" + "\n".join(lines) + "\n]\n", encoding="utf-8")
    return path


def write_times_json(path: Path, compute_ms: list[float]) -> Path:
    queries = [
        {
            "startEnqMs": 0.0, "endEnqMs": 0.1, "startH2dMs": 0.0, "endH2dMs": 0.2, "startComputeMs": 0.2,
            "endComputeMs": 0.2 + ms, "startD2hMs": 0.2 + ms, "endD2hMs": 0.3 + ms, "h2dMs": 0.2, "computeMs": ms,
            "d2hMs": 0.1, "latencyMs": ms + 0.3,
        }
        for ms in compute_ms
    ]  # fmt: skip
    path.write_text(json.dumps(queries), encoding="utf-8")
    return path
