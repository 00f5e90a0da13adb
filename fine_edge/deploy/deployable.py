"""The artifact that is handed over: an ONNX file or an engine, with the contract that vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fine_edge.contract import Contract, Precision, bound_contract
from fine_edge.engine.manifest import Manifest, check_bytes, contract_of, read_manifest, read_plan
from fine_edge.errors import ConfigError
from fine_edge.graph.model_file import external_tensors, read_model
from fine_edge.text import printable

# Name of the input of a graph that holds its own preprocessing and takes pictures as a camera gives them.
FRAME = "frame"


@dataclass(frozen=True)
class Deployable:
    """An artifact whose hash is the one that its contract or manifest lists.

    Attributes:
        path: the ONNX file or the engine.
        contract: of the ONNX file, or of the one that the engine was built from.
        precision: it computes in.
        sha256: of the file and its weights.
        manifest: of an engine; ``None`` for an ONNX file.
    """

    path: Path
    contract: Contract
    precision: Precision
    sha256: str
    manifest: Manifest | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names, one line each whatever they hold."""
        return tuple(printable(" ".join(label.split())) for label in self.contract.labels)

    @property
    def takes_frames(self) -> bool:
        """Return whether the graph does the preprocessing itself."""
        return self.contract.inputs[0].name == FRAME


def read_deployable(path: Path) -> Deployable:
    """Return a file that may be handed over.

    Raises:
        ArtifactError: when the file, its contract or its manifest is missing or broken, or they do not belong together.
        ConfigError: when its outputs are raw, which no server decodes.
    """
    if path.suffix == ".engine":
        contract, manifest = contract_of(path), read_manifest(path)
        # A plan is deserialised where it goes, and one that was damaged or exchanged can end the server.
        check_bytes(path, manifest, read_plan(path))
        # Engines of the compile check for SM86 look the same, and run in TensorRT-RTX alone.
        if manifest.target != "tensorrt":
            hint = "build it on the machine that serves it: fine-edge engine build"
            raise ConfigError("is of TensorRT-RTX, and servers load engines of TensorRT", where=path, hint=hint)
        half: Precision = "fp32" if manifest.precision == "fp32" else "fp16"
        found = Deployable(path, contract, half, manifest.engine_sha256, manifest)
    else:
        contract, artifact = bound_contract(path)
        found = Deployable(path, contract, artifact.precision, artifact.sha256)
    if not contract.postprocessed:
        raise ConfigError(
            "gives raw outputs, which have to be decoded by the model's own rules",
            where=path,
            hint="export it without --raw, and hand over the exported file, not one that was made of it",
        )
    return found


def model_file(source: Deployable) -> bytes | Path:
    """Return the file to hand over: an engine or ONNX file as it is, or one that weights beside it are put into."""
    if source.manifest:
        return source.path
    # Weights that lie beside the file would be left behind: consumers take one file.
    if not external_tensors(read_model(source.path, weights=False)):
        return source.path
    model = read_model(source.path)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def require_boxes(source: Deployable, consumer: str) -> None:
    """Refuse what a consumer that builds its own engine and draws boxes cannot carry.

    Args:
        source: the artifact.
        consumer: what the messages call it.

    Raises:
        ConfigError: for an engine, INT8, a task other than detection, frames, or an artifact without class names.
    """
    path, task = source.path, source.contract.task
    if source.manifest:
        onnx = source.manifest.onnx_file
        what = f"{consumer} builds its own engine from an ONNX file with the outputs that it reads, which this lacks"
        raise ConfigError(what, where=path, hint=f"name the ONNX file: {onnx}")
    if source.precision == "int8":
        # Its builder would be told of no INT8, or quantise by a calibration of its own on top.
        hint = "hand over the FP16 file; deploy triton and cpp take this one, and an engine that was built from it"
        raise ConfigError(f"is quantised, and {consumer} has no switch for that", where=path, hint=hint)
    if task != "detection":
        lost = {"instance": "masks", "semantic": "a class for each pixel", "panoptic": "segments"}[task]
        hint = "deploy triton carries every output, or export a model that finds boxes"
        raise ConfigError(f"finds {lost}, and {consumer} takes boxes alone", where=path, hint=hint)
    if source.takes_frames:
        hint = "export it without --frame"
        raise ConfigError(f"takes whole frames, and {consumer} resizes and scales them itself", where=path, hint=hint)
    # Outputs are checked before a graph is rewritten, which would fail in the middle.
    rows_of(source)
    if not source.contract.labels:
        raise ConfigError("names no classes, so their number is unknown", where=path, hint="export it with its labels")


def rows_of(source: Deployable) -> int:
    """Return the number of rows N of an artifact that takes pictures as float32 and finds boxes.

    Raises:
        ConfigError: when its only input is of another type, or it does not give ``labels`` (B, N), ``boxes_xyxy``
            (B, N, 4) and ``scores`` (B, N).
    """
    contract = source.contract
    shapes = {spec.name: spec.shape for spec in contract.outputs}
    scores = shapes.get("scores", ())
    # By the shape of the scores: the other two must have the same rows, in the contract's batch.
    expected = {"labels": scores, "boxes_xyxy": (*scores, 4), "scores": (contract.batch, *scores[1:2])}
    given = [spec.dtype for spec in contract.inputs]
    if given != ["float32"] or any(shapes.get(name) != shape for name, shape in expected.items()):
        raise ConfigError(
            "does not take float32 and give labels (B, N), boxes_xyxy (B, N, 4) and scores (B, N)",
            where=source.path,
            hint="export it again: fine-edge export writes it so, without --frame",
        )
    return scores[1]


def require_one_picture(source: Deployable, consumer: str) -> None:
    """Refuse a batch of several pictures.

    Raises:
        ConfigError: saying how to export it.
    """
    if source.contract.batch != 1:
        batches = source.contract.batches
        taken = f"{batches[0]} to {batches[2]}" if batches else source.contract.batch
        build = "; of an open batch, an engine for one will do: engine build FILE --batch 1" if batches else ""
        what = f"takes {taken} pictures at a time, and {consumer} gives one"
        raise ConfigError(what, where=source.path, hint=f"export it with --batch 1{build}")
