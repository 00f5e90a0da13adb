"""A detector of three nodes whose answers are known: made by hand with onnx.helper, with its contract beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path, read_contract
from fine_edge.files import sha256_of
from fine_edge.graph.open_batch import BATCH, note_batch
from fine_edge.preprocess import Preprocessing

SIZE = 64
LABELS = ("cat", "dog", "[owl]")
# In the 64 x 64 input: the first fills the left half, the second the lower right quarter, the third scores low.
KNOWN = {
    "labels": np.array([[2, 0, 1]], np.int64),
    "boxes_xyxy": np.array([[[0, 0, 32, 64], [32, 32, 64, 64], [5, 5, 9, 9]]], np.float32),
    "scores": np.array([[0.9, 0.6, 0.2]], np.float32),
}


def write_detector(
    folder: Path, resize: str = "stretch", *, raw: bool = False, batch: int = 1, name: str = "tiny"
) -> Path:
    """``name.onnx`` and its contract. Scores and logits get a zero that depends on the input, so that it is used."""
    answers = dict(KNOWN)
    if raw:  # one certain class for each query, and the same boxes as centre and size of the input
        logits = np.full((1, 3, 3), -9.0, np.float32)
        for query, (label, score) in enumerate(zip(KNOWN["labels"][0], KNOWN["scores"][0], strict=True)):
            logits[0, query, label] = np.log(score / (1 - score))
        x0, y0, x1, y1 = KNOWN["boxes_xyxy"][0].T / SIZE
        answers = {"logits": logits, "boxes": np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1)[None]}
    answers = {key: np.repeat(value, batch, axis=0) for key, value in answers.items()}
    moving = "logits" if raw else "scores"
    constants = {f"known_{key}" if key == moving else key: value for key, value in answers.items()}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", [f"known_{moving}", "nothing"], [moving]),
        *(
            helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value))
            for key, value in answers.items()
            if key != moving
        ),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for key, value in answers.items()
        ],
        [
            numpy_helper.from_array(constants[f"known_{moving}"], f"known_{moving}"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    path = folder / f"{name}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    contract = Contract(
        model=name,
        artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
        inputs=(TensorSpec("images", "float32", (batch, 3, SIZE, SIZE), "pictures"),),
        outputs=tuple(TensorSpec(key, str(value.dtype), value.shape, key) for key, value in answers.items()),
        preprocessing=Preprocessing(resize=resize),
        postprocessed=not raw,
        labels=LABELS,
        opset=17,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
    )
    contract_path(path).write_text(contract.to_text(), encoding="utf-8")
    return path


def open_batch(path: Path, batches: tuple[int, int, int]) -> Path:
    """Make a detector for one picture take any batch of a range: its answers, as often as there are pictures."""
    model = onnx.load(path)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for node in graph.node:
        node.output[:] = [f"one_{name}" if name in KNOWN else name for name in node.output]
    graph.node.append(helper.make_node("Shape", ["images"], ["size"], start=0, end=1))
    for name, value in KNOWN.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value.shape[1:], np.int64), f"rest_{name}"))
        graph.node.append(helper.make_node("Concat", ["size", f"rest_{name}"], [f"shape_{name}"], axis=0))
        graph.node.append(helper.make_node("Expand", [f"one_{name}", f"shape_{name}"], [name]))
    note_batch(model, batches[2])
    onnx.save(model, path)
    contract = read_contract(contract_path(path)).of_batches(batches)
    bound = replace(contract, artifacts=(Artifact(path.name, "fp32", sha256_of(path)),))
    contract_path(path).write_text(bound.to_text(), encoding="utf-8")
    return path
