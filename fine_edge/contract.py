"""The contract beside an ONNX file: everything the device must know, and the hash that binds it to the file.

``MODEL.contract.json`` describes ``MODEL.onnx`` and, where it was exported, ``MODEL.fp16.onnx``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fine_edge.errors import ArtifactError
from fine_edge.files import sha256_of
from fine_edge.preprocess import Preprocessing

FORMAT = 1
TENSORRT = "10.7"
"""The release of TensorRT that graphs are lowered and checked for, and that the paper measured with."""

Precision = Literal["fp32", "fp16"]


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
    """One ONNX file that the contract vouches for."""

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


def _specs(items: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(str(i["name"]), str(i["dtype"]), tuple(int(d) for d in i["shape"]), str(i["meaning"])) for i in items
    )


def read_contract(path: Path) -> Contract:
    """Read a contract file.

    Raises:
        ArtifactError: when it is missing, not JSON, incomplete or of another format.
    """
    again = "export the model again: python -m fine_edge.export MODEL"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArtifactError(
            "the contract is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})",
            where=path,
            mend=f"copy it from where the ONNX was made, or {again}",
        ) from error
    except UnicodeDecodeError as error:
        raise ArtifactError("the contract is not text", where=path, mend=again) from error
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ArtifactError(
                f"contract format {data['format']}, this version reads {FORMAT}", where=path, mend=again
            )
        contract = Contract(
            model=str(data["model"]),
            artifacts=tuple(
                Artifact(str(a["file"]), "fp16" if a["precision"] == "fp16" else "fp32", str(a["sha256"]))
                for a in data["artifacts"]
            ),
            inputs=_specs(data["inputs"]),
            outputs=_specs(data["outputs"]),
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
            postprocessed=bool(data["postprocessed"]),
            labels=tuple(str(label) for label in data["labels"]),
            opset=int(data["opset"]),
            cost=dict(data["cost"]),
            golden=dict(data["golden"]),
            made_by=dict(data["made_by"]),
            task=str(data.get("task", "detection")),  # contracts from before there were other tasks lack it
        )
        _ = contract.random_weights, contract.artifacts[0]
        shape = contract.inputs[0].shape
        if len(shape) != 4 or shape[1] != 3 or min(shape) < 1:
            raise ArtifactError(f"the contract's image input has shape {shape}, not (B, 3, H, W)", where=path)
    except ArtifactError as error:
        raise ArtifactError(error.what, where=path, mend=error.mend or again) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(
            f"the contract is broken ({type(error).__name__}: {error})", where=path, mend=again
        ) from error
    return contract


def bound_contract(onnx_path: Path) -> tuple[Contract, Artifact]:
    """The contract of an ONNX file, after checking that it speaks of exactly these bytes.

    Raises:
        ArtifactError: when the file or contract is missing, or their hashes differ.
    """
    if not onnx_path.is_file():
        raise ArtifactError("no such ONNX file", where=onnx_path, mend="python -m fine_edge.export MODEL")
    path = contract_path(onnx_path)
    contract = read_contract(path)
    actual = sha256_of(onnx_path)
    for artifact in contract.artifacts:
        if artifact.sha256 == actual:
            return contract, artifact
    listed = ", ".join(f"{a.file} {a.sha256[:12]}" for a in contract.artifacts)
    raise ArtifactError(
        f"sha256 {actual[:12]} is not what {path.name} lists ({listed})",
        where=onnx_path,
        mend="the file was changed or cut: export it again, or copy both files from the same place",
    )
