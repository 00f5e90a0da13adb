"""The network under study: its FP32 graph, the preprocessing of pictures and the reading of detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto

from fine_edge import console
from fine_edge.contract import Contract, artifact_stem, bound_contract, contract_path
from fine_edge.detections import Detections, from_outputs, from_predictions, from_raw
from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import vet
from fine_edge.graph.input_size import InputSize, described, fixed, is_open, network_inputs
from fine_edge.graph.model_file import read_model
from fine_edge.graph.open_batch import largest_batch
from fine_edge.graph.rules_model import valid_onnx
from fine_edge.graph.view import GraphView, value_dims
from fine_edge.graph.walk import graphs_in
from fine_edge.images import read_image
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.runners.base import Array
from fine_edge.runners.ort import folded

_STATIC = "export it with one image input and static shapes"
Form = Literal["postprocessed", "raw", "predictions", "classes", "unknown"]
# The class of each pixel of a picture (H, W).
ClassMap = NDArray[np.integer]
Found = Detections | ClassMap
_OUTPUTS: dict[Form, tuple[str, ...]] = {
    "postprocessed": ("labels", "boxes_xyxy", "scores"),
    "raw": ("logits", "boxes"),
}
# Names of ultralytics' output before suppression, in its export and in ours.
_PREDICTIONS = ("output0", "predictions")


@dataclass(frozen=True)
class Network:
    """An FP32 graph that can run on pictures.

    Attributes:
        path: the file of the graph.
        model: the graph; every node has a name.
        contract: the contract of the file; ``None`` for a foreign file.
        image_input: name of the image input.
        shape: (B, 3, H, W) of that input; of an open batch, with the smallest.
        preprocessing: the steps from a picture to the input.
        form: the form of the outputs; ``classes`` is a class for each pixel, ``unknown`` what cannot be read.
    """

    path: Path
    model: onnx.ModelProto
    contract: Contract | None
    image_input: str
    shape: tuple[int, int, int, int]
    preprocessing: Preprocessing
    form: Form

    @property
    def box_output(self) -> str:
        """Name of the output with boxes; an empty text when there is none."""
        return {"postprocessed": "boxes_xyxy", "raw": "boxes"}.get(self.form, "")

    def batches(self, images: Sequence[Path]) -> Iterator[tuple[int, Array]]:
        """Yield the number of pictures and the input of each batch; the last batch repeats its last picture."""
        batch, _, height, width = self.shape
        for start in range(0, len(images), batch):
            tensors = [
                preprocess(read_image(path).pixels, height, width, self.preprocessing)[0]
                for path in images[start : start + batch]
            ]
            yield len(tensors), np.concatenate(tensors + tensors[-1:] * (batch - len(tensors)))

    def found(self, outputs: dict[str, Array], image: int) -> Found:
        """Return what was found in one picture of a batch: detections, boxes in pixels of the input, or a class map."""
        if self.form == "classes":
            classes: ClassMap = outputs["classes"][image]
            return classes
        if self.form == "postprocessed":
            return from_outputs(outputs, image)
        with np.errstate(invalid="ignore", over="ignore"):  # a graph that overflowed returns NaN
            if self.form == "predictions":
                return from_predictions(next(iter(outputs.values())), image)
            return from_raw(outputs, self.shape[2], self.shape[3], image)


def _refuse_frames(contract: Contract, path: Path) -> None:
    if contract.preprocessing.in_graph:
        hint = "study the export without --frame: behind the preprocessing its nodes have the same names"
        raise ArtifactError("takes frames, and FP16 is studied on preprocessed pictures", where=path, hint=hint)


def read_network(path: Path, size: InputSize | None = None, *, fold: bool = False) -> Network:
    """Read an FP32 ONNX file, with its contract if it has one.

    Args:
        path: the file.
        size: for a graph whose picture input is dynamic.
        fold: whether what a foreign graph computes of constants, shapes above all, is folded: compilers and estimates
            then know them, and single nodes lose their names.

    Raises:
        ArtifactError: when the file is FP16 already, does not match its contract, or does not take one static batch
            of images.
    """
    contract = None
    if contract_path(path).exists() or not path.is_file():
        contract, artifact = bound_contract(path)
        if artifact.precision != "fp32":
            raise ArtifactError(
                f"this file is {artifact.precision.upper()} already",
                where=path,
                hint=f"give the FP32 file: {artifact_stem(path)}.onnx",
            )
        _refuse_frames(contract, path)
    else:
        console.remark(f"{path.name} has no contract: pictures are stretched to its input and scaled to [0, 1]")
    model = read_model(path)
    view = GraphView(model, path)
    vet(view, path)
    for finding in valid_onnx(view):
        raise ArtifactError(finding.message, where=path, hint=finding.hint)
    if size:
        model = fixed(model, size, path)
    if TensorProto.FLOAT16 in view.dtypes().values():
        raise ArtifactError("the graph holds FP16 tensors already", where=path, hint="give the FP32 export")
    name, shape = _image_input(model, path, contract)
    preprocessing = contract.preprocessing if contract else Preprocessing()
    if contract is None and fold:
        model = folded(model)
    form = _form(model, contract)
    if contract and form not in _forms(contract):
        hint = "copy ONNX file and contract from the same place, or export the model again"
        raise ArtifactError("the outputs are not those of its contract", where=path, hint=hint)
    return Network(path, _with_names(model), contract, name, shape, preprocessing, form)


def _forms(contract: Contract) -> tuple[Form, ...]:
    """Return the forms that the outputs of an artifact may have."""
    if contract.task == "semantic":
        return ("classes",)
    return ("postprocessed",) if contract.postprocessed else ("raw", "predictions")


def _form(model: onnx.ModelProto, contract: Contract | None) -> Form:
    outputs = {output.name for output in model.graph.output}
    if contract and contract.task == "semantic" and outputs == {"classes"}:  # of others, these are classes of boxes
        return "classes"
    if found := next((form for form, names in _OUTPUTS.items() if outputs >= set(names)), None):
        return found
    dims = GraphView(model).shape(min(outputs)) if len(outputs) == 1 and outputs <= set(_PREDICTIONS) else None
    # YOLOv10's (B, 300, 6) has another meaning.
    rows, anchors = (dims[1] or 0, dims[2] or 0) if dims and len(dims) == 3 else (0, 0)
    return "predictions" if 4 < rows < anchors else "unknown"


def _image_input(
    model: onnx.ModelProto, path: Path, contract: Contract | None
) -> tuple[str, tuple[int, int, int, int]]:
    """Return name and shape of the one input; an open batch is studied at its smallest."""
    inputs = network_inputs(model)
    dims = value_dims(inputs[0]) if inputs else ()
    is_float = bool(inputs) and inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
    batch, channels, height, width = dims if len(dims) == 4 else (None,) * 4
    if not batch and largest_batch(model):
        batch = contract.batches[0] if contract and contract.batches else 1
    if len(inputs) != 1 or not is_float or channels != 3 or not batch or not height or not width:
        given = ", ".join(map(described, inputs))
        raise ArtifactError(
            f"takes {given or 'no input'}, not one static float input (B, 3, H, W)",
            where=path,
            hint="give --input-size HEIGHTxWIDTH" if _is_dynamic_picture(inputs) else _STATIC,
        )
    return inputs[0].name, (batch, 3, height, width)


def _is_dynamic_picture(inputs: list[ValueInfoProto]) -> bool:
    return len(inputs) == 1 and len(value_dims(inputs[0])) == 4 and is_open(inputs[0])


def _with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name nodes without a name after their first output; only a named node can be kept in FP32."""
    taken = Counter(node.name for graph in graphs_in(model) for node in graph.node)
    for graph in graphs_in(model):
        for node in graph.node:
            if not node.name:
                name = f"{node.op_type}:{next(iter(node.output), '')}"
                node.name = f"{name}:{taken[name]}" if taken[name] else name
                taken[name] += 1
    return model
