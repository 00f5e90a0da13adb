"""Small ONNX graphs for the tests of rules and conversion."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

value = helper.make_tensor_value_info
node = helper.make_node


def model(nodes, inputs, outputs, constants=None, *, opset=17, domains=(), ir_version=8):
    """A model from nodes, typed inputs and outputs, and constants by name."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def unary(op_type, dims=(1, 4, 8, 8), dtype=T.FLOAT, out=None, opset=17, domain="", domains=(), **attributes):
    """x -> y by one operator."""
    step = node(op_type, ["x"], ["y"], name="step", domain=domain, **attributes)
    return model([step], [value("x", dtype, dims)], [value("y", dtype, out or dims)], opset=opset, domains=domains)


def with_constants(op_type, constants, out, *, dims=(1, 4, 8, 8), dtype=T.FLOAT, opset=17, inputs=None, **attributes):
    """x and constants -> y by one operator; ``inputs`` overrides the operator's input names."""
    step = node(op_type, inputs or ["x", *constants], ["y"], name="step", **attributes)
    return model([step], [value("x", dtype, dims)], [value("y", dtype, out)], constants, opset=opset)


def attention(head_dim, *, dtype=T.FLOAT16, tokens=8, heads=2, opset=17, name="/fine/"):
    """softmax(scale * Q K^T + mask) V on (1, heads, tokens, head_dim), as an exporter writes it."""
    scalar = np.float16 if dtype == T.FLOAT16 else np.float32
    shape = (1, heads, tokens, head_dim)
    nodes = [
        node("Transpose", ["k"], ["kt"], name=f"{name}Transpose", perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"], name=f"{name}MatMul"),
        node("Mul", ["s", "scale"], ["ss"], name=f"{name}Mul"),
        node("Add", ["ss", "mask"], ["sm"], name=f"{name}Add"),
        node("Softmax", ["sm"], ["p"], name=f"{name}Softmax", axis=-1),
        node("MatMul", ["p", "v"], ["y"], name=f"{name}MatMul_1"),
    ]
    inputs = [value(letter, dtype, shape) for letter in "qkv"]
    constants = {"scale": np.asarray(head_dim**-0.5, scalar), "mask": np.zeros((tokens, tokens), scalar)}
    return model(nodes, inputs, [value("y", dtype, shape)], constants, opset=opset)


def small_net(seed=0):
    """Conv, Relu, split-free LayerNormalization, a mask constant and TopK: FP32, with names and metadata."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.2,
        "b": np.full(8, 0.1, np.float32),
        "gamma": np.ones(8, np.float32),
        "beta": np.zeros(8, np.float32),
        "mask": np.asarray([0, 0, 0, np.finfo(np.float32).min] * 4, np.float32),
        "flat": np.asarray([1, 8, 16]),
        "k": np.asarray([5]),
    }
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Reshape", ["r", "flat"], ["t"], name="reshape"),
        node("Transpose", ["t"], ["n"], name="tokens", perm=[0, 2, 1]),
        node("LayerNormalization", ["n", "gamma", "beta"], ["l"], name="norm", axis=-1),
        node("Transpose", ["l"], ["m"], name="maps", perm=[0, 2, 1]),
        node("Add", ["m", "mask"], ["a"], name="masked"),
        node("Softmax", ["a"], ["p"], name="softmax", axis=-1),
        node("TopK", ["p", "k"], ["y", "i"], name="topk"),
    ]
    entry = nodes[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'backbone', 'conv']"
    outputs = [value("y", T.FLOAT, (1, 8, 5)), value("i", T.INT64, (1, 8, 5))]
    return model(nodes, [value("x", T.FLOAT, (1, 3, 8, 8))], outputs, constants)


def save(graph, path):
    """Write a model without the checks of ``onnx.save``."""
    path.write_bytes(graph.SerializeToString())
    return path


def external(graph, location, length=None):
    """Pretend that the first initialiser is kept in another file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    tensor = copy.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(size if length is None else length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return copy


def one(op_type, *inputs, opset=18, out=None, outputs=1, dtype=None, domain="", **attributes):
    """One operator: an input is (type, dimensions) of the network, an array for weights, or "" for none.

    ``out`` are the dimensions of the outputs (default: the first input's), ``dtype`` their type.
    """
    names = ["" if isinstance(given, str) else f"i{index}" for index, given in enumerate(inputs)]
    fed = {name: given for name, given in zip(names, inputs, strict=True) if isinstance(given, tuple)}
    stored = {name: given for name, given in zip(names, inputs, strict=True) if isinstance(given, np.ndarray)}
    first_type, first_dims = next(iter(fed.values()))
    results = [f"o{index}" for index in range(outputs)]
    step = node(op_type, names, results, name="step", domain=domain, **attributes)
    kind, dims = first_type if dtype is None else dtype, first_dims if out is None else out
    return model(
        [step],
        [value(name, *given) for name, given in fed.items()],
        [value(name, kind, dims) for name in results],
        stored,
        opset=opset,
        domains=[domain] if domain else (),
    )
