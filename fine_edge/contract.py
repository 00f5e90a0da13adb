"""The contract beside an ONNX file: everything the device must know, and the hash that binds it to the file.

``MODEL.contract.json`` describes ``MODEL.onnx`` and, where they were made, ``MODEL.fp16.onnx`` and ``MODEL.int8.onnx``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from fine_edge.errors import NO_ONNX, ArtifactError
from fine_edge.fields import Count, FileName, Sha256, Text, from_data, to_data
from fine_edge.files import contents_checked, file_size, read_document
from fine_edge.graph.identity import identity_of
from fine_edge.preprocess import Preprocessing
from fine_edge.text import printable

FORMAT = 1
# The release of TensorRT that graphs are lowered and checked for, and that the paper measured with.
TENSORRT = "10.7"

# Of an ONNX file; ``int8`` has pairs of QuantizeLinear and DequantizeLinear, and is FP16 elsewhere.
Precision = Literal["fp32", "fp16", "int8"]
Task = Literal["detection", "instance", "semantic", "panoptic"]
# How a graph suppresses: by operators that every compiler has, or by ONNX's NonMaxSuppression.
NmsName = Literal["graph", "onnx"]
# How a graph reads a map at computed positions: rows of tokens, or by GridSample.
SamplingName = Literal["rows", "grid"]

# Element types of network inputs and outputs, as numpy names them.
ELEMENT_TYPES = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")
# The smallest batch, the one to be fastest at (the optimum), and the largest.
Batches = tuple[Count, Count, Count]
Shape = Annotated[tuple[Annotated[int, Meta(ge=1, le=2**30)], ...], Meta(max_length=8)]
# Of one input or output: 4 GiB in FP32, which can still be allocated.
MOST_ELEMENTS = 2**30

_AGAIN = "export the model again: python -m fine_edge export MODEL"


@dataclass(frozen=True)
class TensorSpec:
    """A network input or output: its name, its element type as numpy names it, its static shape and its meaning."""

    name: Text
    dtype: str
    shape: Shape
    meaning: Text


@dataclass(frozen=True)
class Quantization:
    """How an INT8 file was made.

    Attributes:
        method: how ranges were found.
        images: number of pictures that they were found on.
        images_sha256: hash over the hashes of these pictures' files.
        placement: name of the set of convolutions that compute in INT8.
        convolutions: number of them.
        opset: of the INT8 graph.
    """

    method: Text
    images: Annotated[int, Meta(ge=1, le=2**30)]
    images_sha256: Sha256
    placement: Text
    convolutions: Annotated[int, Meta(ge=1, le=2**30)]
    opset: Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True)
class Artifact:
    """An ONNX file that the contract describes; its hash is :func:`fine_edge.graph.model_file.identity_of`.

    ``golden`` is that of an INT8 file: ``file`` and ``sha256`` of pictures and of what the file itself finds in them.
    """

    file: FileName
    precision: Precision
    sha256: Sha256
    quantization: Quantization | None = None
    golden: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object in a contract; files that are not INT8 stand there as they did before there were any."""
        data: dict[str, Any] = to_data(self)
        return {key: value for key, value in data.items() if value is not None}


@dataclass(frozen=True)
class Contract:
    """What an exported detector takes and gives, and how it was made.

    Attributes:
        model: name in the zoo.
        artifacts: the ONNX files, each with its sha256.
        inputs: network inputs; the first is the image batch (B, 3, H, W), or frames (B, H, W, 3) in uint8 where the
            preprocessing stands in the graph.
        outputs: network outputs.
        preprocessing: from a picture to the input.
        postprocessed: whether the outputs are what the task asks for, or dense ones.
        labels: class names by index.
        opset: of the default ONNX domain.
        cost: ``params``, ``flops`` and the convention of counting them.
        golden: ``file`` and ``sha256`` of inputs and outputs to check with on another machine.
        made_by: versions, weights, seed and options: all that went into the files.
        task: what is found: ``detection`` (labels, boxes_xyxy, scores; rows that find nothing have score 0),
            ``instance`` (masks (N, 28, 28) inside the boxes as well), ``semantic`` (classes by pixel), ``panoptic``
            (both, the latter as ``stuff``).
        batches: the smallest batch, the optimum and the largest, where the graph takes several; the shapes above have
            the largest. ``None`` where it takes one.
    """

    model: FileName
    artifacts: Annotated[tuple[Artifact, ...], Meta(min_length=1)]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    postprocessed: bool
    labels: Annotated[tuple[Text, ...], Meta(max_length=2**16)]
    opset: Annotated[int, Meta(ge=1, le=1000)]
    cost: dict[str, Any]
    golden: dict[str, str]
    made_by: dict[str, Any]
    task: Task = "detection"
    batches: Batches | None = None

    @property
    def batch(self) -> int:
        """Return the batch size of the image input, the largest where there are several."""
        return self.inputs[0].shape[0]

    def filled(self, count: int) -> int:
        """Return the batch that is fed for ``count`` pictures: a graph for one batch is filled up to it."""
        return max(count, self.batches[0]) if self.batches else self.batch

    def of_batch(self, batch: int) -> Contract:
        """Return the contract of what was made of the graph for one batch alone."""
        inputs, outputs = (
            tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        return replace(self, inputs=inputs, outputs=outputs, batches=None)

    def of_batches(self, batches: Batches) -> Contract:
        """Return the contract of what was made of the graph for a range of its batches."""
        return replace(self.of_batch(batches[2]), batches=batches)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Return the height and width of the image input, or of the frames, in pixels."""
        height, width = self.inputs[0].shape[1:3] if self.preprocessing.in_graph else self.inputs[0].shape[2:4]
        return height, width

    @property
    def random_weights(self) -> bool:
        """Return whether the weights are random; every output must then say so."""
        return bool(self.made_by["weights"]["source"] == "random")

    def golden_of(self, artifact: Artifact) -> dict[str, str]:
        """Return the golden file of one of the ONNX files: its own, or that of the export; empty without one."""
        return artifact.golden or self.golden

    @property
    def tensorrt(self) -> str:
        """Return the release of TensorRT that the graph was checked for."""
        return str(self.made_by.get("tensorrt", TENSORRT))

    def to_text(self) -> str:
        """Return the JSON text of the contract; equal contracts give equal texts."""
        data = {
            "format": FORMAT,
            "sha256": self.artifacts[0].sha256,
            **to_data(self),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "preprocessing": self.preprocessing.to_json(),
        }
        if self.batches is None:  # left out, so that files from before there was a choice stay the same
            del data["batches"]
        return json.dumps(data, indent=1, sort_keys=True) + "\n"


def batches_text(batches: Sequence[int]) -> str:
    """Return batches as text, ``1:4:8``: the smallest, the optimum and the largest."""
    return ":".join(map(str, batches))


def batches_in_name(batches: Batches) -> str:
    """Return batches as a part of a file name: ``.batch1-8``, or ``.batch1-4-8`` with an optimum of 4."""
    least, optimum, most = batches
    return f".batch{least}-{most}" if optimum == most else f".batch{least}-{optimum}-{most}"


def artifact_stem(onnx_path: Path) -> str:
    """Return ``MODEL`` of ``MODEL.onnx``, ``MODEL.fp16.onnx`` or ``MODEL.int8.onnx``: all its files begin with it."""
    return onnx_path.name.removesuffix(".onnx").removesuffix(".fp16").removesuffix(".int8")


def contract_path(onnx_path: Path) -> Path:
    """Return ``DIR/MODEL.contract.json`` of its ONNX files, whatever their precision."""
    return onnx_path.with_name(f"{artifact_stem(onnx_path)}.contract.json")


def read_contract(path: Path) -> Contract:
    """Read a contract file, every field of which is checked.

    Callers may use its names in file names, its sizes in allocations and its texts in messages without more checks.

    Raises:
        ArtifactError: when it is missing, not JSON, incomplete or of another format.
    """
    if not path.exists():
        hint = f"copy it from where the ONNX was made, or {_AGAIN}"
        raise ArtifactError("the contract is missing", where=path, hint=hint)
    data = read_document(path, ArtifactError, title="contract", format_=FORMAT, hint=_AGAIN)
    with contents_checked(path, ArtifactError, title="contract", hint=_AGAIN):
        data["preprocessing"] = Preprocessing.from_json(data.get("preprocessing"))
        contract = from_data(Contract, data)
        _check(contract)
    return contract


def _check(contract: Contract) -> None:
    """Refuse what the types of the fields cannot.

    Raises:
        ValueError: saying which field.
    """
    for title, specs in (("inputs", contract.inputs), ("outputs", contract.outputs)):
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"two of the {title} have one name")
        for spec in specs:
            if not spec.name or printable(spec.name) != spec.name:
                raise ValueError(f"one of the {title} is called {spec.name[:80]!r}, which is no name")
            if spec.dtype not in ELEMENT_TYPES:
                raise ValueError(
                    f"the type of {spec.name} is {spec.dtype[:80]!r}, not one of {', '.join(ELEMENT_TYPES)}"
                )
            if math.prod(spec.shape) > MOST_ELEMENTS:
                raise ValueError(f"{spec.name} has more than {MOST_ELEMENTS} elements")
    dims = contract.inputs[0].shape if contract.inputs else ()
    if contract.preprocessing.in_graph:
        if len(dims) != 4 or dims[3] != 3 or contract.inputs[0].dtype != "uint8":
            raise ValueError(f"the frames are {contract.inputs[0].dtype} {dims}, not uint8 (B, H, W, 3)")
        if contract.task in ("semantic", "panoptic") or not contract.postprocessed:
            raise ValueError("a graph that takes frames gives boxes in their pixels, and nothing else of them")
    elif len(dims) != 4 or dims[1] != 3:
        raise ValueError(f"the image input has shape {dims}, not (B, 3, H, W)")
    if contract.batches and not contract.batches[0] <= contract.batches[1] <= contract.batches[2] == dims[0]:
        raise ValueError(f"the batches are {contract.batches}, the largest is to be {dims[0]}")
    if contract.cost:
        from_data(_Cost, contract.cost)
    for golden in (contract.golden, *(artifact.golden for artifact in contract.artifacts)):
        if golden:
            from_data(_Golden, golden)
    from_data(_MadeBy, contract.made_by)


# Of these three objects the contract keeps every key; only what is read again is checked.
_Flops = Annotated[int, Meta(ge=0, le=2**62)]


@dataclass(frozen=True)
class _Cost:
    params: _Flops
    flops: _Flops


@dataclass(frozen=True)
class _Golden:
    file: FileName
    sha256: Sha256


@dataclass(frozen=True)
class _Weights:
    source: Text


@dataclass(frozen=True)
class _MadeBy:
    weights: _Weights
    options: dict[str, Any] = field(default_factory=dict)
    tensorrt: Text = TENSORRT


def bound_contract(onnx_path: Path) -> tuple[Contract, Artifact]:
    """Return the contract of an ONNX file, after comparing the hash of the file and its weights with the contract's.

    Raises:
        ArtifactError: when the file or contract is missing, or their hashes differ.
    """
    if not onnx_path.exists():
        raise ArtifactError("no such ONNX file", where=onnx_path, hint=NO_ONNX)
    file_size(onnx_path, ArtifactError)
    path = contract_path(onnx_path)
    contract = read_contract(path)
    actual = identity_of(onnx_path)
    for artifact in contract.artifacts:
        if artifact.sha256 == actual:
            return contract, artifact
    listed = ", ".join(f"{a.file} {a.sha256[:12]}" for a in contract.artifacts)
    raise ArtifactError(
        f"sha256 {actual[:12]} is not what {path.name} lists ({listed})",
        where=onnx_path,
        hint="the file, or one with its weights, was changed or cut: export it again, or copy all from one place",
    )
