"""The contract beside an ONNX file: everything the device must know, and the hash that binds it to the file.

``MODEL.contract.json`` describes ``MODEL.onnx`` and, where it was exported, ``MODEL.fp16.onnx``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fine_edge import contract_fields as fields
from fine_edge.errors import ArtifactError
from fine_edge.files import file_size, read_json
from fine_edge.graph.identity import identity_of
from fine_edge.preprocess import Preprocessing

FORMAT = 1
TENSORRT = "10.7"
"""The release of TensorRT that graphs are lowered and checked for, and that the paper measured with."""

Precision = Literal["fp32", "fp16"]
Task = Literal["detection", "instance", "semantic", "panoptic"]
NmsName = Literal["graph", "onnx"]
"""How a graph suppresses: by operators that every compiler has, or by ONNX's NonMaxSuppression."""

_AGAIN = "export the model again: python -m fine_edge export MODEL"


@dataclass(frozen=True)
class TensorSpec:
    """A network input or output: name, element type as numpy names it, static shape, and what it means."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in a contract."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "meaning": self.meaning}


@dataclass(frozen=True)
class Artifact:
    """One ONNX file that the contract vouches for; its hash is :func:`fine_edge.graph.identity.identity_of`."""

    file: str
    precision: Precision
    sha256: str


@dataclass(frozen=True)
class Contract:
    """What an exported detector takes and gives, and how it was made.

    Attributes:
        model: name in the zoo.
        artifacts: the ONNX files, each with its sha256.
        inputs: network inputs; the first is the image batch (B, 3, H, W).
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
    """

    model: str
    artifacts: tuple[Artifact, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    postprocessed: bool
    labels: tuple[str, ...]
    opset: int
    cost: dict[str, Any]
    golden: dict[str, str]
    made_by: dict[str, Any]
    task: str = "detection"

    @property
    def batch(self) -> int:
        """B of the image input."""
        return self.inputs[0].shape[0]

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the image input, pixels."""
        return self.inputs[0].shape[2], self.inputs[0].shape[3]

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random, which every output must then say."""
        return bool(self.made_by["weights"]["source"] == "random")

    @property
    def tensorrt(self) -> str:
        """The release of TensorRT that the graph was checked for."""
        return str(self.made_by.get("tensorrt", TENSORRT))

    def to_text(self) -> str:
        """The JSON text of the contract, stable for equal contents."""
        data = {
            "format": FORMAT,
            "model": self.model,
            "sha256": self.artifacts[0].sha256,
            "artifacts": [vars(artifact) for artifact in self.artifacts],
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "preprocessing": self.preprocessing.to_json(),
            "postprocessed": self.postprocessed,
            "labels": list(self.labels),
            "opset": self.opset,
            "cost": self.cost,
            "golden": self.golden,
            "made_by": self.made_by,
            "task": self.task,
        }
        return json.dumps(data, indent=1, sort_keys=True) + "\n"


def artifact_stem(onnx_path: Path) -> str:
    """``MODEL`` of ``DIR/MODEL.onnx`` or ``DIR/MODEL.fp16.onnx``: what the names of all its files begin with."""
    return onnx_path.name.removesuffix(".onnx").removesuffix(".fp16")


def contract_path(onnx_path: Path) -> Path:
    """``DIR/MODEL.contract.json`` of ``DIR/MODEL.onnx`` or ``DIR/MODEL.fp16.onnx``."""
    return onnx_path.with_name(f"{artifact_stem(onnx_path)}.contract.json")


def read_contract(path: Path) -> Contract:
    """Read a contract file, every field of which is checked: see :mod:`fine_edge.contract_fields`.

    Raises:
        ArtifactError: when it is missing, not JSON, incomplete or of another format.
    """
    if not path.exists():
        hint = f"copy it from where the ONNX was made, or {_AGAIN}"
        raise ArtifactError("the contract is missing", where=path, hint=hint)
    data = read_json(path, ArtifactError, hint=_AGAIN)
    try:
        if (found := fields.whole(data["format"], "the format")) != FORMAT:
            raise ArtifactError(f"contract format {found}, this version reads {FORMAT}")
        return _from_json(data)
    except ArtifactError as error:
        raise ArtifactError(error.what, where=path, hint=error.hint or _AGAIN) from error
    except KeyError as error:
        raise ArtifactError(f"the contract is broken (it has no {error})", where=path, hint=_AGAIN) from error
    except TypeError as error:  # a list or a number where fields are looked up
        raise ArtifactError(f"the contract is broken ({error})", where=path, hint=_AGAIN) from error


def _from_json(data: dict[str, Any]) -> Contract:
    made_by = _made_by(data["made_by"])
    contract = Contract(
        model=fields.file_name(data["model"], "model"),
        artifacts=tuple(_artifact(item) for item in fields.listed(data["artifacts"], "artifacts")),
        inputs=_specs(data["inputs"], "inputs"),
        outputs=_specs(data["outputs"], "outputs"),
        preprocessing=Preprocessing.from_json(fields.mapping(data["preprocessing"], "preprocessing")),
        postprocessed=fields.flag(data["postprocessed"], "postprocessed"),
        labels=tuple(fields.text(label, "a label") for label in fields.listed(data["labels"], "labels")),
        opset=fields.whole(data["opset"], "opset", 1, 1000),
        cost=_cost(data["cost"]),
        golden=_golden(data["golden"]),
        made_by=made_by,
        # Contracts from before there were other tasks lack it.
        task=fields.one_of(data.get("task", "detection"), get_args(Task), "task"),
    )
    if not contract.artifacts:
        raise ArtifactError("the contract vouches for no file")
    dims = contract.inputs[0].shape if contract.inputs else ()
    if len(dims) != 4 or dims[1] != 3:
        raise ArtifactError(f"the contract's image input has shape {dims}, not (B, 3, H, W)")
    return contract


def _artifact(item: object) -> Artifact:
    data = fields.mapping(item, "an artifact")
    precision: Precision = (
        "fp16" if fields.one_of(data["precision"], get_args(Precision), "precision") == "fp16" else "fp32"
    )
    return Artifact(
        fields.file_name(data["file"], "an artifact's file"),
        precision,
        fields.sha256(data["sha256"], "an artifact's hash"),
    )


def _specs(items: object, what: str) -> tuple[TensorSpec, ...]:
    specs = []
    for item in fields.listed(items, what):
        data = fields.mapping(item, f"one of the {what}")
        name = fields.name(data["name"], f"the name of one of the {what}")
        dtype = fields.one_of(data["dtype"], fields.ELEMENT_TYPES, f"the type of {name}")
        meaning = fields.text(data["meaning"], f"the meaning of {name}")
        specs.append(TensorSpec(name, dtype, fields.shape(data["shape"], name), meaning))
    if len({spec.name for spec in specs}) < len(specs):
        raise ArtifactError(f"two of the {what} have one name")
    return tuple(specs)


def _golden(item: object) -> dict[str, str]:
    """Nothing, or the name and hash of the golden file."""
    data = fields.mapping(item, "golden")
    if not data:
        return {}
    return {
        "file": fields.file_name(data["file"], "the golden file's name"),
        "sha256": fields.sha256(data["sha256"], "the golden file's hash"),
    }


def _cost(item: object) -> dict[str, Any]:
    """Nothing, or parameters, FLOPs and how they were counted."""
    data = fields.mapping(item, "cost")
    for key in ("params", "flops") if data else ():
        fields.whole(data[key], f"cost's {key}")
    return data


def _made_by(item: object) -> dict[str, Any]:
    """What is read of it again; the rest is compared, never used."""
    data = fields.mapping(item, "made_by")
    fields.text(fields.mapping(data["weights"], "made_by's weights")["source"], "the weights' source")
    fields.mapping(data.get("options", {}), "made_by's options")
    fields.text(data.get("tensorrt", TENSORRT), "made_by's tensorrt")
    return data


def bound_contract(onnx_path: Path) -> tuple[Contract, Artifact]:
    """The contract of an ONNX file, after checking that it speaks of exactly these bytes and those of its weights.

    Raises:
        ArtifactError: when the file or contract is missing, or their hashes differ.
    """
    if not onnx_path.exists():
        raise ArtifactError("no such ONNX file", where=onnx_path, hint="python -m fine_edge export MODEL")
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
