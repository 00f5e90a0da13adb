"""Hold the estimate of INT8 against boards: every network that others timed in FP16 and in INT8.

    python bench/int8_pairs.py bench/int8_pairs.json

Architectures alone decide about kernels, so weights are random. Needs the extras export, yolo and rtx.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

import onnx

from fine_edge import console, files, machine
from fine_edge.int8.boards import PairEstimate, estimate_pairs, measured_pairs, pairs_table
from fine_edge.runners.ort import folded

OPSET = 18


def yolo(name: str) -> tuple[object, int]:
    """Return a detector of ultralytics and the side of its input, pixels; ``NAME, 3 classes`` has three."""
    from fine_edge.zoo.yolo.library import DetectionModel

    model = DetectionModel(f"{name.partition(',')[0]}.yaml", nc=3 if "3 classes" in name else 80, verbose=False)
    model.eval().fuse(verbose=False)
    model.model[-1].export = True
    return model, 640


def mobilenet_v2(_name: str) -> tuple[object, int]:
    """Return torchvision's classifier and the side of its input, pixels."""
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None).eval(), 224


BUILD = {"mobilenet_v2": mobilenet_v2}


def exported(network: str, folder: Path) -> onnx.ModelProto:
    """Return the FP32 graph of a network, as its library exports it."""
    import torch

    model, side = BUILD.get(network, yolo)(network)
    path = folder / "network.onnx"
    picture = torch.zeros(1, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # libraries still use the older exporter
        torch.onnx.export(model, (picture,), str(path), opset_version=OPSET, input_names=["images"], dynamo=False)
    return folded(onnx.load(path))


def main(target: Path) -> None:
    """Build, compile and estimate every network; write the record and print its table."""
    rows: list[PairEstimate] = []
    pairs = measured_pairs()
    with tempfile.TemporaryDirectory() as folder:
        for network in dict.fromkeys(pair.network for pair in pairs):
            console.remark(network)
            graph = exported(network, Path(folder))
            rows += estimate_pairs(graph, [pair for pair in pairs if pair.network == network])
    data = {
        "estimate": True,
        "calibration": pairs[0].conditions().calibration.origin,
        "machine": machine.describe(),
        "rows": [row.to_json() for row in rows],
    }
    files.write_text(target, console.json_text(data))
    pairs_table(rows).print(console.out, explain=True)


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main(Path(sys.argv[1]))
