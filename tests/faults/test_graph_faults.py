"""ONNX files, contracts, golden files and manifests that are not what they seem."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import onnx
from faults import Fault, check, each
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from PIL import Image
from tiny_detector import KNOWN, SIZE, write_detector

from fine_edge.contract import contract_path, read_contract
from fine_edge.files import sha256_of
from fine_edge.graph.identity import identity_of

IMAGES = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)


def conv(shape=(1, 3, 32, 32), weights=None, others=()):
    """x -> y by a convolution; dimensions may be names."""
    tensor = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32) if weights is None else weights, "w")
    inputs = [helper.make_tensor_value_info("x", T.FLOAT, shape), *others]
    output = helper.make_tensor_value_info("y", T.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], name="c")], "g", inputs, [output], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(model, *before):
    """Write a model and give its command line."""

    def write(folder):
        path = folder / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return [*before, str(path)]

    return write


def recursive():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    body = [helper.make_node("F", ["a"], ["b"], domain="f")]
    x, y = (helper.make_tensor_value_info(name, T.FLOAT, (1, 3, 32, 32)) for name in "xy")
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="f")], "g", [x], [y])
    function = helper.make_function("f", "F", ["a"], ["b"], body, opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])


def endless():
    """x -> y by a Loop of 2^62 iterations."""
    info = helper.make_tensor_value_info
    x, y, a, b = (info(name, T.FLOAT, (1, 3, 32, 32)) for name in "xyab")
    step, go, on = info("step", T.INT64, ()), info("go", T.BOOL, ()), info("on", T.BOOL, ())
    nodes = [helper.make_node("Identity", [name], [same]) for name, same in (("go", "on"), ("a", "b"))]
    body = helper.make_graph(nodes, "body", [step, go, a], [on, b])
    trips = [helper.make_tensor("n", T.INT64, (), [2**62]), helper.make_tensor("true", T.BOOL, (), [True])]
    loop = helper.make_node("Loop", ["n", "true", "x"], ["y"], name="step", body=body)
    graph = helper.make_graph([loop], "g", [x], [y], trips)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pipe(*before):
    def write(folder):
        os.mkfifo(folder / "m.onnx")
        return [*before, str(folder / "m.onnx")]

    return write


def changed(change, *before, after=()):
    """The tiny detector with its graph changed, vouched for again, and a picture where a command takes one."""

    def write(folder):
        path = write_detector(folder)
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        return command_line(folder, path, before, after)

    return write


def command_line(folder, path, before, after=()):
    contract = read_contract(contract_path(path))
    artifact = replace(contract.artifacts[0], sha256=identity_of(path))
    contract_path(path).write_text(replace(contract, artifacts=(artifact,)).to_text(), encoding="utf-8")
    if "predict" in before:
        Image.new("RGB", (64, 64)).save(folder / "p.png")
        return [str(folder / "p.png"), "--onnx", str(path), "--out", str(folder / "out"), *after]
    return [*before, str(path), *after]


def contract_says(*before, after=(), **said):
    """The tiny detector with other words in its contract."""

    def write(folder):
        path = write_detector(folder)
        arguments = command_line(folder, path, before, after)
        data = json.loads(contract_path(path).read_text())
        contract_path(path).write_text(json.dumps(data | said), encoding="utf-8")
        return arguments

    return write


def golden(change=None, *, content=None):
    """``parity --golden`` with a golden file of the tiny detector's answers, changed, or of other bytes."""

    def write(folder):
        path = write_detector(folder)
        members = {f"noise/{name}.npy": packed(array) for name, array in ({"images": IMAGES} | KNOWN).items()}
        file = folder / "tiny.golden.npz"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in (change(members) if change else members).items():
                archive.writestr(name, data)
        if content is not None:
            file.write_bytes(content(file.read_bytes()))
        contract = read_contract(contract_path(path))
        bound = replace(contract, golden={"file": file.name, "sha256": sha256_of(file)})
        contract_path(path).write_text(bound.to_text(), encoding="utf-8")
        return [str(path), "--golden"]

    return write


def packed(array, **how):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **how)
    return buffer.getvalue()


def header(descr, shape, data=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def with_member(name, data):
    return lambda members: members | {name: data}


def without(name):
    return lambda members: {key: data for key, data in members.items() if key != name}


SCORES = "noise/scores.npy"
GOLDEN = {
    "not-a-zip": golden(content=lambda _: b"no zip"),
    "empty": golden(content=lambda _: b""),
    "cut": golden(content=lambda data: data[: len(data) // 2]),
    "damaged": golden(content=lambda data: data[:200] + bytes(64) + data[264:]),
    "lacks-an-output": golden(without(SCORES)),
    "lacks-its-inputs": golden(without("noise/images.npy")),
    "other-type": golden(with_member(SCORES, packed(KNOWN["scores"].astype(np.float64)))),
    "objects": golden(with_member(SCORES, packed(np.array([[1, 2, 3]], object), allow_pickle=True))),
    "other-shape": golden(with_member(SCORES, packed(np.zeros((1, 4), np.float32)))),
    "huge-header": golden(with_member(SCORES, header("<f4", (2**31, 2**31)))),
    "header-alone": golden(with_member(SCORES, header("<f4", (1, 3)))),
    "not-an-array": golden(with_member(SCORES, b"x" * 100)),
    "big-endian": golden(with_member(SCORES, packed(KNOWN["scores"].astype(">f4")))),
    "nan": golden(with_member(SCORES, packed(KNOWN["scores"] * np.nan))),
    "margin": golden(with_member("noise/selection_margin.npy", packed(np.nan))),
    "bomb": golden(with_member(SCORES, bytes(2**24))),
}


def zero_scores(model):
    """Nothing is ever found."""
    for tensor in model.graph.initializer:
        if tensor.name == "known_scores":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 3), np.float32), tensor.name))


def nan_scores(model):
    for tensor in model.graph.initializer:
        if tensor.name == "known_scores":
            tensor.CopyFrom(numpy_helper.from_array(np.full((1, 3), np.nan, np.float32), tensor.name))


def computed_nan(model):
    """NaN that no constant holds: 0 times the logarithm of 0."""
    model.graph.node[1].op_type = "Log"
    del model.graph.node[1].input[:]
    model.graph.node[1].input.append("zero")
    model.graph.node.insert(2, helper.make_node("Mul", ["nothing", "zero"], ["none"]))
    model.graph.node[3].input[1] = "none"


def large_constant(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**15]), "s"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["s"], ["big"], name="bomb"))


def studied(folder):
    """``graph fp16`` of a graph whose size is open, on a picture."""
    Image.new("RGB", (32, 32)).save(folder / "p.png")
    model = conv(("batch", 3, "height", "width"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", T.FLOAT, ("batch", 3, "h", "w")))
    return [*written(model, "fp16")(folder), "--images", str(folder / "p.png")]


def found_nothing(folder):
    arguments = changed(zero_scores, after=["--golden"])(folder)
    path = folder / "tiny.onnx"
    arrays = {"images": IMAGES} | KNOWN | {"scores": np.zeros((1, 3), np.float32)}
    np.savez(folder / "tiny.golden.npz", **{f"noise/{name}": array for name, array in arrays.items()})
    bound = {"file": "tiny.golden.npz", "sha256": sha256_of(folder / "tiny.golden.npz")}
    contract = replace(read_contract(contract_path(path)), golden=bound)
    contract_path(path).write_text(contract.to_text(), encoding="utf-8")
    return arguments


NAN = np.full((3, 3, 3, 3), np.nan, np.float32)
DYNAMIC = conv(("batch", 3, "height", "width"))
SHAPED = {"name": "images", "dtype": "float32", "meaning": ""}
FAULTS = [
    Fault("recursive-function", "graph", written(recursive(), "check"), ("m.onnx", "call themselves")),
    Fault("recursive-function-estimated", "estimate", written(recursive()), ("call themselves",)),
    Fault("pipe-checked", "graph", pipe("check"), ("not a regular file",)),
    Fault("pipe-inspected", "engine", pipe("inspect"), ("not a regular file",)),
    Fault("pipe-built", "engine", pipe("build"), ("not a regular file",)),
    Fault("pipe-layers", "layers", pipe(), ("not a regular file",)),
    Fault("endless-device", "graph", lambda _: ["check", "/dev/zero"], ("not a regular file",)),
    Fault("dynamic-estimated", "estimate", written(DYNAMIC), ("'x' (batch, 3, height, width)", "--input-size")),
    Fault(
        "dynamic-inspected", "engine", written(DYNAMIC, "inspect"), ("'x' (batch, 3, height, width)", "--input-size")
    ),
    Fault("dynamic-layers", "layers", written(DYNAMIC), ("'x' (batch, 3, height, width)", "--input-size")),
    Fault("dynamic-built", "engine", written(DYNAMIC, "build"), ("'x' (batch, 3, height, width)", "--input-size")),
    Fault("dynamic-studied", "graph", studied, ("give --input-size HEIGHTxWIDTH",)),
    Fault(
        "dynamic-studied-at-a-size",
        "graph",
        lambda f: [*studied(f), "--input-size", "32"],
        (),
        code=0,
        output=("no open FP16 hazard",),
    ),
    Fault(
        "dynamic-batch",
        "estimate",
        written(conv(("n", 3, 32, 32))),
        ("'x' (n, 3, 32, 32)", "give it a batch: --batch 1"),
    ),
    Fault("dynamic-channels", "estimate", written(conv((1, "c", 32, 32))), ("'x' (1, c, 32, 32)", "channels")),
    Fault("dimension-of-0", "estimate", written(conv((0, 3, 32, 32))), ("'x' (?, 3, 32, 32)",)),
    Fault("dimension-of-minus-1", "estimate", written(conv((-1, 3, 32, 32))), ("'x' (?, 3, 32, 32)",)),
    Fault("no-rank", "estimate", written(conv(None)), ("of unknown rank",)),
    Fault(
        "second-input-dynamic",
        "estimate",
        written(conv(others=[helper.make_tensor_value_info("ids", T.INT64, ("n", "m"))])),
        ("'ids' (n, m)", "static shapes"),
    ),
    Fault("endless-estimated", "estimate", written(endless()), ("m.onnx: nothing bounds the iterations of step",)),
    Fault("endless-benched", "bench", written(endless(), "--quick"), ("m.onnx: nothing bounds the iterations",)),
    Fault("another-size", "estimate", lambda f: [*written(conv())(f), "--input-size", "64"], ("has a fixed size",)),
    Fault(
        "size-of-nothing",
        "engine",
        lambda f: [*written(DYNAMIC, "inspect")(f), "--input-size", "0"],
        ("is not possible",),
    ),
    Fault("nan-built", "engine", written(conv(weights=NAN), "build", "--target", "rtx-sm86"), ("'w' holds NaN",)),
    Fault("nan-inspected", "engine", written(conv(weights=NAN), "inspect"), ("'w' holds NaN", "FE18")),
    Fault("nan-checked", "graph", written(conv(weights=NAN), "check"), (), code=1, output=("FE18",)),
    Fault("nan-predicted", "predict", changed(nan_scores, "predict"), ("holds NaN",)),
    Fault("nan-computed", "predict", changed(computed_nan, "predict"), ("gives NaN or infinities in scores",)),
    Fault("bomb-predicted", "predict", changed(large_constant, "predict"), ("elements",)),
    Fault("nothing-compared", "parity", found_nothing, ("nothing was found that could be compared",), code=1),
    Fault("model-leads-out", "predict", contract_says("predict", model="../../../x"), ("plain name",)),
    Fault("model-is-hidden", "predict", contract_says("predict", model=".x"), ("plain name",)),
    Fault("label-is-a-number", "predict", contract_says("predict", labels=[1]), ("labels[0]: expected str, got int",)),
    Fault("task-unknown", "predict", contract_says("predict", task="art"), ("task: ", "'art'")),
    Fault(
        "contract-of-another-size",
        "predict",
        contract_says("predict", inputs=[SHAPED | {"shape": [1, 3, 16384, 16384]}]),
        ("its contract says float32 (1, 3, 16384, 16384)",),
    ),
    Fault(
        "huge-shape",
        "predict",
        contract_says("predict", inputs=[SHAPED | {"shape": [1, 3, 2**31, 2**63]}]),
        ("inputs[0].shape[2]",),
    ),
    Fault(
        "golden-is-a-number",
        "parity",
        contract_says(after=["--golden"], golden={"file": 5, "sha256": "0" * 64}),
        ("golden",),
    ),
    Fault(
        "golden-without-file",
        "parity",
        contract_says(after=["--golden"], golden={"sha256": "0" * 64}),
        ("required field file",),
    ),
    Fault("golden-is-a-list", "parity", contract_says(after=["--golden"], golden=[]), ("golden: ",)),
    Fault(
        "golden-leads-out",
        "parity",
        contract_says(after=["--golden"], golden={"file": "../g.npz", "sha256": "0" * 64}),
        ("file: expected a plain name",),
    ),
    *(Fault(f"golden-{name}", "parity", write, ("tiny.golden.npz", "golden file")) for name, write in GOLDEN.items()),
]


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)


def test_golden_files_in_other_ways_of_writing_are_read(tmp_path, capsys):
    boxes = np.asfortranarray(np.repeat(KNOWN["boxes_xyxy"], 1, axis=0))
    margin = {"noise/selection_margin.npy": packed(np.float32(np.inf))}
    extra = {"noise/boxes_xyxy.npy": packed(boxes), "more/secret.npy": b"x", "noise/other.npy": b"x", **margin}
    fault = Fault("", "parity", golden(lambda members: members | extra), (), code=0, output=("3 matched",))
    check(fault, tmp_path, capsys)
