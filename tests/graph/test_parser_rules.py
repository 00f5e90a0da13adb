"""What TensorRT's parser refuses is an error of a rule, what it accepts is none."""

from __future__ import annotations

import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
from graph_builders import model, node, one, unary, value
from onnx import TensorProto as T
from onnx import helper
from published import published

from fine_edge.cli.graph import main
from fine_edge.graph.checks import check
from fine_edge.graph.parser_operators import OPERATORS, REFUSED

F, H, B, D = T.FLOAT, T.FLOAT16, T.BFLOAT16, T.DOUBLE
I32, I64, I8, U8, BOOL = T.INT32, T.INT64, T.INT8, T.UINT8, T.BOOL
MAP = (1, 4, 8, 8)
GRID = (1, 2, 2, 2)


def ints(*numbers):
    return np.asarray(numbers, np.int64)


def singles(*numbers):
    return np.asarray(numbers, np.float32)


def halves(*shape):
    return np.ones(shape, np.float16)


def ones(*shape):
    return np.ones(shape, np.float32)


AXIS = ints(1)
TWICE = singles(1, 1, 2, 2)
SCALE, ZERO = np.asarray(0.1, np.float32), np.asarray(0, np.int8)


def resize(mode="linear", opset=18, dtype=F, **attributes):
    return one("Resize", (dtype, MAP), "", TWICE, opset=opset, out=(1, 4, 16, 16), mode=mode, **attributes)


def sized(**attributes):
    return one("Resize", (F, MAP), "", "", ints(1, 4, 16, 16), out=(1, 4, 16, 16), mode="linear", **attributes)


def grid(opset, x=F, g=F, **attributes):
    return one("GridSample", (x, MAP), (g, GRID), opset=opset, out=(1, 4, 2, 2), **attributes)


def conv(*weights, dims=MAP, out=None, **attributes):
    return one("Conv", (F, dims), *weights, out=out or (dims[0], 2, *dims[2:]), **attributes)


def norm(op_type, size, dtype=F, outputs=1, **attributes):
    weights = [np.ones(size, {F: np.float32, H: np.float16}[dtype])] * 2
    return one(op_type, (dtype, MAP), *weights, outputs=outputs, **attributes)


def batch_norm(dtype=H, stored=np.float16, outputs=1, **attributes):
    return one("BatchNormalization", (dtype, MAP), *[np.ones(4, stored)] * 4, outputs=outputs, **attributes)


def gemm(dtype=H, **attributes):
    other = np.ones((4, 4), np.float32).astype({F: np.float32, H: np.float16, B: ml_dtypes.bfloat16}[dtype])
    return one("Gemm", (dtype, (4, 4)), other, other[0], **attributes)


def reduced(op_type, dtype, opset=18, **attributes):
    return one(op_type, (dtype, MAP), AXIS, opset=opset, out=(1, 1, 8, 8), **attributes)


def quantize(zero=ZERO, scale=SCALE, dims=MAP, opset=18, dtype=F, **attributes):
    return one("QuantizeLinear", (dtype, dims), scale, zero, dtype=I8, opset=opset, **attributes)


def dequantize(scale, zero, dims=MAP, dtype=I8, opset=21, **attributes):
    return one("DequantizeLinear", (dtype, dims), scale, zero, dtype=F, opset=opset, **attributes)


def cast(start, target):
    nodes = [node("Cast", ["x"], ["c"], to=target), node("Cast", ["c"], ["y"], to=F)]
    return model(nodes, [value("x", start, MAP)], [value("y", F, MAP)], opset=19)


def branches(then, other, *, named="e", kind=F):
    def branch(name, dims, dtype):
        result = helper.make_tensor_value_info(name, dtype, dims)
        zeros = helper.make_tensor("z", dtype, dims, np.zeros(dims).ravel())
        return helper.make_graph([node("Constant", [], [name], value=zeros)], "b", [], [result])

    graphs = {"then_branch": branch("t", then, F), "else_branch": branch(named, other, kind)}
    return one("If", (BOOL, ()), dtype=F, out=then, **graphs)


def called(op_type, domain="local"):
    """A function of the model around one operator of it."""
    body = node(op_type, ["a"], ["b"])
    function = helper.make_function(domain, "F", ["a"], ["b"], [body], [helper.make_opsetid("", 18)])
    graph = unary("F", MAP, domain=domain, domains=[domain], opset=18)
    graph.functions.append(function)
    return graph


def computed_axes(op_type, opset):
    """An operator whose axes a Cast makes of a constant: ONNX Runtime folds it, the parser does not."""
    nodes = [node("Cast", ["a"], ["c"], to=I64), node(op_type, ["x", "c"], ["y"], name="step")]
    return model(nodes, [value("x", F, MAP)], [value("y", F, MAP)], {"a": np.asarray([1], np.int32)}, opset=opset)


def unread_sparse():
    graph = unary("Relu", MAP)
    values = helper.make_tensor("s", F, [1], [1.0])
    graph.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, helper.make_tensor("si", I64, [1], [0]), [4])
    )
    return graph


# Name: the rule that finds it, the graph.
REFUSALS = {
    # operators
    **{name: ("FE20", unary(name, opset=18)) for name in ("BitwiseNot", "Det", "DFT", "MaxUnpool", "Bernoulli")},
    "Attention": ("FE20", unary("Attention", opset=23)),
    "RMSNormalization": ("FE20", one("RMSNormalization", (H, MAP), halves(8), opset=23)),
    "custom": ("FE15", unary("Mine", domain="mine", domains=["mine"])),
    "in a function": ("FE20", called("Det")),
    "plugin in a function": ("FE14", called("DeformConv")),
    "CumSum": ("FE14", one("CumSum", (F, MAP), np.asarray(1))),
    "LSTM": ("FE14", one("LSTM", (F, (3, 1, 4)), ones(1, 32, 4), ones(1, 32, 8), out=(3, 1, 1, 8), hidden_size=8)),
    "RoiAlign": ("FE14", one("RoiAlign", (F, MAP), ones(2, 4), ints(0, 0), out=(2, 4, 1, 1))),
    "Unique": ("FE14", unary("Unique")),
    # types
    "INT32 MatMul": ("FE21", one("MatMul", (I32, (4, 4)), (I32, (4, 4)))),
    "INT64 Gemm": ("FE21", one("Gemm", (I64, (4, 4)), (I64, (4, 4)))),
    "INT64 Einsum": ("FE21", one("Einsum", (I64, (4, 4)), (I64, (4, 4)), equation="ab,bc->ac")),
    "BOOL ReduceMax": ("FE21", reduced("ReduceMax", BOOL, 20)),
    "INT32 ReduceL2": ("FE21", reduced("ReduceL2", I32)),
    "INT64 ReduceLogSum": ("FE21", reduced("ReduceLogSum", I64)),
    "INT64 exponent": ("FE21", one("Pow", (F, MAP), ints(2))),
    "INT32 Pow": ("FE21", one("Pow", (I32, MAP), np.asarray(2, np.int32))),
    "FLOAT exponent of FLOAT16": ("FE21", one("Pow", (H, MAP), singles(2))),
    "FLOAT16 + FLOAT": ("FE21", one("Add", (H, MAP), ones(1))),
    "FLOAT16 MeanVariance": ("FE21", unary("MeanVarianceNormalization", dtype=H, opset=18)),
    "FLOAT16 Celu": ("FE21", unary("Celu", dtype=H, opset=18)),
    "BFLOAT16 Mish": ("FE21", unary("Mish", dtype=B, opset=22)),
    "BFLOAT16 LpNormalization": ("FE21", unary("LpNormalization", dtype=B, opset=22)),
    "BFLOAT16 HardSwish": ("FE21", unary("HardSwish", dtype=B, opset=22)),
    "INT32 Relu": ("FE21", unary("Relu", dtype=I32, opset=18)),
    "INT32 Resize": ("FE21", resize("nearest", dtype=I32)),
    "mixed GridSample": ("FE21", grid(16, H, F)),
    "INT32 GridSample": ("FE21", grid(16, I32, F)),
    "BOOL Add": ("FE21", one("Add", (BOOL, MAP), (BOOL, MAP))),
    "BOOL TopK": ("FE21", one("TopK", (BOOL, (1, 8)), ints(2), out=(1, 2), outputs=2)),
    "BOOL DepthToSpace": ("FE21", unary("DepthToSpace", dtype=BOOL, out=(1, 1, 16, 16), opset=18, blocksize=2)),
    "INT8 NonZero": ("FE21", unary("NonZero", dtype=I8, opset=18)),
    "UINT8 Transpose": ("FE21", unary("Transpose", dtype=U8, perm=[0, 1, 2, 3], opset=18)),
    "UINT8 Concat": ("FE21", one("Concat", (U8, MAP), (U8, MAP), axis=0, out=(2, 4, 8, 8))),
    "UINT8 Where": ("FE21", one("Where", (BOOL, MAP), (U8, MAP), (U8, MAP), dtype=U8)),
    "UINT8 between": ("FE05", cast(F, U8)),
    "INT16 between": ("FE05", cast(F, T.INT16)),
    "UINT32 input": ("FE05", cast(T.UINT32, F)),
    "FP8 of another layout": ("FE05", cast(F, T.FLOAT8E5M2)),
    "cast to FP8": ("FE22", cast(F, T.FLOAT8E4M3FN)),
    "INT16 weights": ("FE05", one("Gather", (I64, (2,)), np.ones((4, 2), np.int16), dtype=T.INT16, out=(2, 2))),
    "UINT8 weights at an output": ("FE05", one("Gather", (I64, (2,)), np.ones((4, 2), np.uint8), dtype=U8, out=(2, 2))),
    # convolution, pooling, normalization
    "dilated MaxPool": ("FE22", unary("MaxPool", out=(1, 4, 6, 6), kernel_shape=[2, 2], dilations=[2, 2], opset=18)),
    "dilated AveragePool": (
        "FE22",
        unary("AveragePool", out=(1, 4, 6, 6), kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    ),
    "indices of MaxPool": ("FE22", one("MaxPool", (F, MAP), outputs=2, out=(1, 4, 7, 7), kernel_shape=[2, 2])),
    "4-D window": ("FE22", unary("MaxPool", (1, 1, 4, 4, 4, 4), kernel_shape=[1, 1, 1, 1], opset=18)),
    "pads and auto_pad": (
        "FE22",
        unary("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], auto_pad="SAME_UPPER", opset=18),
    ),
    "LpPool of p 3": ("FE22", unary("LpPool", out=(1, 4, 7, 7), kernel_shape=[2, 2], p=3, opset=18)),
    "4-D Conv": ("FE22", conv(ones(2, 4, 1, 1, 1, 1), dims=(1, 4, 2, 2, 2, 2))),
    "Conv of other groups": ("FE22", conv(ones(2, 4, 1, 1), group=2)),
    "Conv kernel_shape": ("FE22", conv(ones(2, 4, 1, 1), kernel_shape=[3, 3])),
    "negative pads of Conv": ("FE22", conv(ones(2, 4, 1, 1), pads=[-1, 0, 0, 0], out=(1, 2, 7, 8))),
    "FLOAT16 weights of a FLOAT map": ("FE21", conv(halves(2, 4, 1, 1))),
    "output_shape": (
        "FE22",
        one("ConvTranspose", (F, MAP), ones(4, 2, 1, 1), out=(1, 2, 12, 12), output_shape=[12, 12]),
    ),
    "training BatchNorm": ("FE22", batch_norm(training_mode=1)),
    "outputs of BatchNorm": ("FE22", batch_norm(outputs=3)),
    "mean of LayerNorm": ("FE22", norm("LayerNormalization", 8, outputs=2, axis=-1)),
    "InstanceNorm of 2 dimensions": ("FE22", one("InstanceNormalization", (F, (2, 4)), ones(4), ones(4))),
    "mixed InstanceNorm": ("FE21", one("InstanceNormalization", (H, MAP), ones(4), ones(4))),
    "3 groups of 4 channels": ("FE22", norm("GroupNormalization", 3, num_groups=3)),
    "LRN 4": ("FE22", unary("LRN", size=4, opset=18)),
    "LpNormalization 3": ("FE22", unary("LpNormalization", p=3, opset=18)),
    "Gemm alpha": ("FE22", gemm(alpha=0.5)),
    "Gemm beta": ("FE22", gemm(beta=0.5)),
    "Gemm alpha BFLOAT16": ("FE22", gemm(B, alpha=2.0)),
    "vector x batch": ("FE22", one("MatMul", (F, (4,)), ones(2, 4, 3), out=(2, 3))),
    "training Dropout": ("FE22", one("Dropout", (F, MAP), singles(0.5)[0].reshape(()), np.asarray(True))),
    "fed Dropout": ("FE22", one("Dropout", (F, MAP), np.asarray(0.5, np.float32), (BOOL, ()))),
    # resampling
    "antialias": ("FE13", resize(antialias=1)),
    "half_pixel_symmetric": ("FE13", resize(opset=19, coordinate_transformation_mode="half_pixel_symmetric")),
    "tf_crop_and_resize": ("FE13", resize(coordinate_transformation_mode="tf_crop_and_resize")),
    "aspect ratio": ("FE13", sized(keep_aspect_ratio_policy="not_larger")),
    "tf_half_pixel_for_nn": (
        "FE13",
        resize("nearest", 11, coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"),
    ),
    "same axis twice": ("FE13", one("Resize", (F, MAP), "", "", ints(16, 16), mode="linear", axes=[2, -2])),
    "linear over 4": ("FE13", one("Resize", (F, MAP), "", singles(2, 2, 2, 2), out=(2, 8, 16, 16), mode="linear")),
    "cubic over 3": ("FE13", one("Resize", (F, MAP), "", singles(1, 2, 2, 2), out=(1, 8, 16, 16), mode="cubic")),
    "fed scales": ("FE13", one("Resize", (F, MAP), "", (F, (4,)), out=(1, 4, 16, 16))),
    "cubic Upsample": ("FE13", one("Upsample", (F, MAP), TWICE, opset=9, out=(1, 4, 16, 16), mode="cubic")),
    "linear GridSample": ("FE08", grid(20, mode="linear")),
    "cubic GridSample": ("FE08", grid(22, mode="cubic")),
    "linear GridSample of opset 16": ("FE08", grid(16, mode="linear")),
    "5-D GridSample": (
        "FE09",
        one("GridSample", (F, (1, 2, 4, 4, 4)), (F, (1, 2, 2, 2, 3)), opset=20, out=(1, 2, 2, 2, 2)),
    ),
    # tensors
    "ScatterND none": ("FE10", one("ScatterND", (F, (4, 4)), ints([1]), ones(1, 4), reduction="none")),
    "ScatterND max": ("FE10", one("ScatterND", (F, (4, 4)), ints([1]), ones(1, 4), reduction="max")),
    "ScatterElements add": (
        "FE22",
        one("ScatterElements", (F, (4, 4)), ints([0] * 4), ones(1, 4), reduction="add"),
    ),
    "TopK of 3841": ("FE11", one("TopK", (F, (1, 5000)), ints(3841), out=(1, 3841), outputs=2)),
    "unnamed output of TopK": (
        "FE22",
        model(
            [node("TopK", ["x", "k"], ["y", ""], name="step")],
            [value("x", F, (1, 8))],
            [value("y", F, (1, 2))],
            {"k": ints(2)},
        ),
    ),
    "computed Reduce axes": ("FE12", computed_axes("ReduceMean", 18)),
    "computed Unsqueeze axes": ("FE12", computed_axes("Unsqueeze", 13)),
    "computed Squeeze axes": ("FE12", computed_axes("Squeeze", 13)),
    "negative Pad": ("FE22", one("Pad", (H, (4, 4)), ints(0, -1, 0, 0), out=(4, 3))),
    "unknown Pad": ("FE22", one("Pad", (H, (4, 4)), ints(1, 1, 1, 1), out=(6, 6), mode="symmetric")),
    "axes left out": ("FE22", one("Slice", (F, (8,)), ints(0), ints(8), "", ints(2), out=(4,))),
    "upper-case Einsum": ("FE22", one("Einsum", (F, (2, 3)), ones(3, 2), equation="AB,BC->AC", out=(2, 2))),
    "repeated result of Einsum": ("FE22", one("Einsum", (F, (2, 3)), equation="ab->abb", out=(2, 3, 3))),
    "unlike ellipses": (
        "FE22",
        one("Einsum", (F, (5, 2, 3)), ones(3, 2), equation="...ab,...bc->...ac", out=(5, 2, 2)),
    ),
    "float Mod": ("FE22", one("Mod", (F, (4,)), ones(4))),
    "one sign of IsInf": ("FE22", unary("IsInf", dtype=H, opset=20, detect_negative=0)),
    "EyeLike of a map": ("FE22", unary("EyeLike", opset=18)),
    "Trilu of a vector": ("FE22", unary("Trilu", (4,), opset=18)),
    "INT32 random": ("FE22", one("RandomNormalLike", (I32, MAP))),
    "text": ("FE22", model([node("Constant", [], ["y"], value_string="a")], [], [value("y", T.STRING, ())])),
    "sparse": ("FE22", unread_sparse()),
    "9 dimensions": ("FE23", unary("Identity", (1,) * 9)),
    "unlike branches": ("FE22", branches((2, 3), (3,))),
    "branches of two types": ("FE22", branches((2, 3), (2, 3), kind=H)),
    "branches of one name": ("FE22", branches((2, 3), (2, 3), named="t")),
    "broadcast of opset 6": ("FE22", one("Add", (F, MAP), ones(1), opset=6)),
    # quantization
    "UINT8 zero point": ("FE24", quantize(np.asarray(0, np.uint8))),
    "zero point of 3": ("FE24", quantize(np.asarray(3, np.int8))),
    "INT16 zero point": ("FE24", quantize(np.asarray(0, np.int16), opset=21)),
    "scale of 0": ("FE24", quantize(scale=np.asarray(0, np.float32))),
    "scales without axis": ("FE24", quantize(np.zeros(4, np.int8), ones(4))),
    "scales of another axis": ("FE24", quantize(np.zeros(4, np.int8), ones(4), axis=2)),
    "FLOAT scale of FLOAT16": ("FE24", quantize(dtype=H, opset=19)),
    "INT32 DequantizeLinear": ("FE24", dequantize(SCALE, np.asarray(0, np.int32), dtype=I32)),
    "blocks over two dimensions": (
        "FE24",
        dequantize(ones(1, 2, 4, 8), np.zeros((1, 2, 4, 8), np.int8), axis=1, block_size=2),
    ),
    "UINT8 output_dtype": ("FE24", one("QuantizeLinear", (F, MAP), SCALE, opset=21, output_dtype=U8, dtype=U8)),
}

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


def errors(graph):
    """The errors of the parser's rules; FE04 is about this package's contracts."""
    return [finding for finding in check(graph) if finding.severity == "error" and finding.rule != "FE04"]


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_parser_refuses_is_an_error(case):
    rule, graph = REFUSALS[case]
    found = [finding for finding in errors(graph) if finding.rule == rule]
    assert found, f"{rule} found nothing, others {errors(graph)}"
    assert "\n" not in found[0].message
    assert found[0].hint


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
