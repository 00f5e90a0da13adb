"""What TensorRT's parser accepts is no error; published verdicts; many findings of one kind."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from graph_builders import model, node, one, unary, value
from parser_graphs import (
    BOOL,
    I8,
    I32,
    I64,
    MAP,
    SCALE,
    TWICE,
    U8,
    B,
    D,
    F,
    H,
    batch_norm,
    branches,
    called,
    cast,
    conv,
    dequantize,
    errors,
    gemm,
    grid,
    halves,
    ints,
    norm,
    ones,
    quantize,
    reduced,
    resize,
    sized,
)
from published import published

from fine_edge.cli.graph import main
from fine_edge.graph.checks import check
from fine_edge.graph.parser_operators import OPERATORS, REFUSED

ACCEPTED = {
    **{f"FLOAT16 {name}": unary(name, dtype=H, opset=18) for name in ("Erf", "HardSwish", "Mish", "Softmax", "Round")},
    **{f"{op} of INT64": one(op, (I64, (4,)), ints(1)) for op in ("Add", "Div", "Max", "Mod", "Equal")},
    **{f"{op} of BFLOAT16": unary(op, dtype=B, opset=22) for op in ("Relu", "Sigmoid", "Exp", "Softmax")},
    "INT64 Relu": unary("Relu", dtype=I64, opset=18),
    "INT8 Add": one("Add", (I8, (4,)), (I8, (4,))),
    "INT32 Neg": unary("Neg", dtype=I32, opset=18),
    "INT64 ReduceMax": reduced("ReduceMax", I64),
    "INT32 ReduceSumSquare": reduced("ReduceSumSquare", I32),
    "BOOL Where": one("Where", (BOOL, (4,)), (BOOL, (4,)), (BOOL, (4,))),
    "BOOL Equal": one("Equal", (BOOL, (4,)), (BOOL, (4,))),
    "BOOL Trilu": unary("Trilu", (4, 4), dtype=BOOL, opset=18),
    "BOOL Pad": one("Pad", (BOOL, (4,)), ints(1, 1), out=(6,)),
    "DOUBLE Add": one("Add", (D, (4,)), np.ones(4)),
    "DOUBLE Gemm alpha": one("Gemm", (D, (4, 4)), np.ones((4, 4)), alpha=0.5),
    "UINT8 image": one("Cast", (U8, MAP), dtype=F, to=F),
    "UINT8 result": one("Cast", (F, MAP), dtype=U8, to=U8),
    "UINT8 table": model(
        [node("Cast", ["t"], ["c"], to=F), node("Add", ["x", "c"], ["y"])],
        [value("x", F, (4,))],
        [value("y", F, (4,))],
        {"t": np.ones(4, np.uint8)},
    ),
    "cast to BOOL": cast(H, BOOL),
    "cast to INT8": cast(F, I8),
    "in a function": called("Relu"),
    "Gelu of another domain": unary("Gelu", domain="com.microsoft", domains=["com.microsoft"]),
    "FineModulate": unary("FineModulate", domain="trt.plugins", domains=["trt.plugins"]),
    "EfficientNMS_TRT": unary("EfficientNMS_TRT", domain="TRT", domains=["TRT"]),
    "Gelu tanh": unary("Gelu", opset=20, approximate="tanh"),
    "window": one("HannWindow", (I64, ()), dtype=F, out=(8,)),
    # convolution, pooling, normalization
    "Conv 1-D": conv(ones(2, 4, 1), dims=(1, 4, 8)),
    "Conv 3-D": conv(ones(2, 4, 1, 1, 1), dims=(1, 4, 2, 2, 2)),
    "Conv of a fed kernel": conv((F, (2, 4, 1, 1))),
    "dilated Conv": conv(ones(4, 1, 3, 3), out=MAP, group=4, dilations=[2, 2], pads=[2, 2, 2, 2]),
    "Conv SAME_UPPER": conv(ones(2, 4, 3, 3), out=(1, 2, 4, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    "ConvTranspose dilated": one("ConvTranspose", (F, MAP), ones(4, 2, 3, 3), out=(1, 2, 12, 12), dilations=[2, 2]),
    "output_shape": one(
        "ConvTranspose", (F, MAP), ones(4, 2, 3, 3), out=(1, 2, 16, 16), strides=[2, 2], output_shape=[16, 16]
    ),
    "MaxPool storage_order": unary(
        "MaxPool", out=(1, 4, 4, 4), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, storage_order=1, opset=18
    ),
    "AveragePool": unary(
        "AveragePool", dtype=H, out=(1, 4, 4, 4), kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1, opset=18
    ),
    "pooling 1-D": unary("MaxPool", (1, 4, 8), out=(1, 4, 7), kernel_shape=[2], opset=18),
    "BatchNorm": batch_norm(),
    "mixed BatchNorm": batch_norm(H, np.float32),
    "LayerNorm": norm("LayerNormalization", 8, H, axis=-1),
    "InstanceNorm": norm("InstanceNormalization", 4, H),
    "GroupNorm of opset 18": norm("GroupNormalization", 2, num_groups=2),
    "GroupNorm of opset 21": norm("GroupNormalization", 4, num_groups=2, opset=21),
    "Gemm": gemm(transB=1),
    "FLOAT Gemm alpha": gemm(F, alpha=0.5, beta=0.25),
    "MatMul of a vector": one("MatMul", (H, (2, 4)), halves(4), out=(2,)),
    "Dropout": one("Dropout", (F, MAP), np.asarray(0.5, np.float32), np.asarray(False)),
    # resampling
    "cubic Resize": resize("cubic"),
    "Resize sizes": sized(coordinate_transformation_mode="align_corners"),
    "Resize axes": one("Resize", (F, MAP), "", "", ints(16, 16), out=(1, 4, 16, 16), mode="linear", axes=[2, 3]),
    "exclude_outside": resize("cubic", exclude_outside=1),
    "nearest ceil": resize("nearest", coordinate_transformation_mode="asymmetric", nearest_mode="ceil"),
    "Upsample": one("Upsample", (F, MAP), TWICE, opset=9, out=(1, 4, 16, 16)),
    "GridSample default": grid(20),
    "GridSample-20 nearest": grid(20, mode="nearest"),
    "bicubic GridSample": grid(16, mode="bicubic", padding_mode="reflection"),
    "FLOAT16 GridSample": grid(16, H, H, mode="bilinear"),
    # tensors
    "ScatterND": one("ScatterND", (F, (4, 4)), ints([1]), ones(1, 4), opset=18),
    "ScatterElements": one("ScatterElements", (F, (4, 4)), ints([0] * 4), ones(1, 4), axis=0),
    "TopK of 3840": one("TopK", (I64, (1, 5000)), ints(3840), dtype=I64, out=(1, 3840), outputs=2),
    "Reduce of all": one("ReduceSum", (F, MAP), out=(1, 1, 1, 1)),
    "Pad wrap": one("Pad", (H, (4, 4)), ints(1, 1, 1, 1), out=(6, 6), mode="wrap", opset=19),
    "Pad axes": one("Pad", (H, (4, 4)), ints(1, 1), "", ints(1), out=(4, 6)),
    "fed pads": one("Pad", (H, (4, 4)), (I64, (4,)), out=(6, 6)),
    "Slice backwards": one("Slice", (H, (8,)), ints(-1), ints(-100), ints(0), ints(-1)),
    "uneven Split": one("Split", (F, (1, 4)), axis=1, num_outputs=2, outputs=2, out=(1, 2)),
    "diagonal Einsum": one("Einsum", (F, (2, 3, 3)), equation="bhh->bh", out=(2, 3)),
    "Einsum of 3": one("Einsum", (F, (2, 3)), ones(3, 4), ones(4, 5), equation="ab,bc,cd->ad", out=(2, 5)),
    "Einsum ellipsis": one("Einsum", (F, (1, 2, 4)), ones(1, 4, 4), equation="...ij,...jk->...ik"),
    "fmod": one("Mod", (H, (4,)), halves(4), fmod=1),
    "IsInf": unary("IsInf", dtype=H, opset=20),
    "OneHot": one("OneHot", (I64, (4,)), np.asarray(8), halves(2), dtype=H, out=(4, 8)),
    "Range": one("Range", (I64, ()), np.asarray(4), np.asarray(1), out=(4,)),
    "EyeLike": unary("EyeLike", (4, 4), opset=18, dtype=F),
    "random": one("RandomUniformLike", (F, MAP), dtype=F),
    "8 dimensions": unary("Transpose", (1,) * 8, perm=list(range(8)), opset=18),
    "alike branches": branches((2, 3), (2, 3)),
    "FLOAT16 Mean": one("Mean", (H, (4,)), halves(4)),
    # quantization
    "symmetric": quantize(),
    "scale a channel": quantize(np.zeros(4, np.int8), ones(4), axis=1),
    "without zero point": one("QuantizeLinear", (F, MAP), SCALE, dtype=I8),
    "FLOAT16 scale": quantize(scale=np.asarray(0.1, np.float16), dtype=H, opset=19),
    "blocks of 2": dequantize(ones(1, 2, 8, 8), np.zeros((1, 2, 8, 8), np.int8), axis=1, block_size=2),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_the_parser_accepts_is_no_error(case):
    assert errors(ACCEPTED[case]) == []


def test_the_list_of_operators_names_onnx_operators_once():
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    # Of older ONNX, or of TensorRT.
    others = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
    assert {name for name in OPERATORS if not name.startswith("TRT_")} - names == others
    assert set(OPERATORS).isdisjoint(REFUSED)


def test_many_nodes_with_one_fault_are_one_row(tmp_path, capsys):
    nodes = [node("Det", ["x"], [f"y{index}"], name=f"/layer{index}/Det") for index in range(40)]
    graph = model(nodes, [value("x", F, MAP)], [value("y39", F, (1, 4))])
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.SerializeToString())
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "/layer0/Det and 39 more" in " ".join(out.split())
    assert "40 errors" in out
    assert out.count("FE20") == 2  # the row and its hint
    assert main(["check", str(path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 40


# Accepted by the parser, and errors all the same: of the builder of 10.7, or of this package's contracts.
STRICTER = {
    "gridsample_5d": "TensorRT 10.6 refuses it (issue 4619); a newer compiler stood behind the table",
    "topk3841": "the builder refuses it",
    "topk4096": "the builder refuses it",
    "nonzero": "its output has no static shape (FE04)",
}
_REFUSED = ("refused", "refused by types", "plugin", "loop", "read as nearest")


def test_published_verdicts(tmp_path):
    folder = published("trt_parser")
    subprocess.run([sys.executable, str(folder / "probes.py"), str(tmp_path)], check=True)
    verdicts = json.loads((folder / "verdicts.json").read_text())
    disagreements, compared = [], 0
    for name, row in verdicts.items():
        verdict = row.get("source_10_6", row["verdict"])
        if verdict in ("not probed", "crash"):
            continue
        found = [f for f in check(onnx.load(tmp_path / f"{name}.onnx")) if f.severity == "error"]
        compared += 1
        if bool(found) != (verdict in _REFUSED):
            disagreements.append((name, verdict, [f"{f.rule} {f.message}" for f in found]))
    assert {name for name, *_ in disagreements} == set(STRICTER), disagreements
    assert compared > 200
