"""Prepare a suite's rows for timing: export missing files, bind them to their contracts, and make their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from fine_edge.bench.suites import SuiteRow
from fine_edge.contract import Contract, Precision, TensorSpec, bound_contract
from fine_edge.engine.manifest import contract_of, read_manifest
from fine_edge.engine.options import EnginePrecision
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export.artifacts import can_export, exported, exported_plainly
from fine_edge.export.request import ExportRequest
from fine_edge.feed import Feed, as_frame
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import described, network_inputs
from fine_edge.graph.model_file import read_model
from fine_edge.images import NamedImage, Pictures, sample_photographs
from fine_edge.preprocess import Preprocessing
from fine_edge.runners.base import Array

# A 640x640 input takes 5 MB, and so many pictures are enough to vary the rounds.
MOST_IMAGES = 32


@dataclass(frozen=True)
class Prepared:
    """One row's artifact. A plain export has no contract; the catalogue says how to preprocess its pictures."""

    row: SuiteRow
    path: Path
    sha256: str
    contract: Contract | None
    image: TensorSpec
    weights_mib: float

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the steps from a picture to the input."""
        return self.contract.preprocessing if self.contract else self.row.preprocessing

    @property
    def random_weights(self) -> bool:
        """Return whether the weights are known to be random: those of a plain export are."""
        return self.contract.random_weights if self.contract else self.row.exporter == "plain"

    @property
    def input_hw(self) -> tuple[int, int]:
        """Return height and width of the input, or of the frames that the graph takes, pixels."""
        height, width = self.image.shape[1:3] if self.preprocessing.in_graph else self.image.shape[2:4]
        return height, width


@dataclass(frozen=True)
class Vouched:
    """A file with its contract: what a row says of it. An engine's hash is that of the ONNX file it was built from."""

    contract: Contract
    precision: EnginePrecision
    sha256: str
    weights_mib: float


def vouched(path: Path) -> Vouched:
    """Read the contract of an ONNX file or of an engine.

    Raises:
        ArtifactError: when it is missing, or is of another file.
    """
    if path.suffix == ".engine":
        contract, manifest = contract_of(path), read_manifest(path)
        return Vouched(contract, manifest.options.precision, manifest.onnx_sha256, manifest.weights_mib or 0.0)
    contract, artifact = bound_contract(path)
    return Vouched(contract, artifact.precision, artifact.sha256, weights_mib(path))


# Height and width of the frames that graphs take and preprocess themselves, pixels; ``None``: pictures, as usual.
Frame = tuple[int, int] | None


def export_request(
    row: SuiteRow, input_hw: tuple[int, int], precision: Precision = "fp32", frame: Frame = None
) -> ExportRequest:
    """Return the export that the row needs; an ``input_hw`` of zeros means the detector's own size.

    Raises:
        ConfigError: when there is no such export.
    """
    if row.exporter == "plain" and precision != "fp32":
        what = f"{row.label} has no {precision.upper()} form"
        raise ConfigError(what, where="--precision", hint="use --precision fp32")
    if row.exporter == "plain" and frame:
        raise ConfigError(f"{row.label} takes no frames", where="--frame", hint="choose a suite of our exports")
    height, width = input_hw
    return ExportRequest(
        row.model,
        precision=precision,
        height=height,
        width=width,
        raw=row.raw,
        sampling=row.sampling,
        frame=frame,
    )


def artifacts_folder(row: SuiteRow, folder: Path) -> Path:
    """Return the folder of a row's files; raw files have one of their own, because their names are the same."""
    return folder / "raw" if row.raw else folder


def export_row(
    row: SuiteRow,
    folder: Path,
    input_hw: tuple[int, int] = (0, 0),
    precision: Precision = "fp32",
    frame: Frame = None,
) -> Path:
    """Return the row's ONNX file below ``folder``, exported if it is missing or stale."""
    request, place = export_request(row, input_hw, precision, frame), artifacts_folder(row, folder)
    if row.exporter == "plain":
        return exported_plainly(request, place)
    return _irreplaceable(request, place) or exported(request, place)


def _irreplaceable(request: ExportRequest, folder: Path) -> Path | None:
    """Return a file that cannot be exported again here; ``None`` where an export can replace it.

    These are files with trained weights and, on a machine without torch, all files.
    """
    path = folder / request.onnx_name()
    if not path.is_file():
        return None
    try:
        contract, artifact = bound_contract(path)
    except ArtifactError:
        if can_export():  # a broken file is exported again
            return None
        raise
    asked = (request.model, request.precision, request.options())
    if (contract.model, artifact.precision, contract.made_by.get("options")) != asked:
        return None
    return None if can_export() and contract.random_weights else path


def prepare(
    row: SuiteRow,
    folder: Path,
    input_hw: tuple[int, int] = (0, 0),
    precision: Precision = "fp32",
    frame: Frame = None,
) -> Prepared:
    """Export a row if necessary, and read what timing needs.

    Raises:
        ConfigError: when the model cannot be exported at this input size.
        ArtifactError: when the file and its contract do not belong together, or the graph is not static.
    """
    path = export_row(row, folder, input_hw, precision, frame)
    if row.exporter == "plain":
        return Prepared(row, path, identity_of(path), None, image_spec(path), weights_mib(path))
    contract, artifact = bound_contract(path)
    return Prepared(row, path, artifact.sha256, contract, image_spec(path), weights_mib(path))


def image_spec(onnx_path: Path) -> TensorSpec:
    """Return the one input of an ONNX file, which must be a static (1, 3, H, W), or frames: (1, H, W, 3) in uint8."""
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype

    inputs = network_inputs(read_model(onnx_path, weights=False))
    if len(inputs) != 1:
        raise ArtifactError(f"has {len(inputs)} inputs, the bench feeds one image", where=onnx_path)
    kind = inputs[0].type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    channels = shape[3:] if kind.elem_type == TensorProto.UINT8 else shape[1:2]
    if len(shape) != 4 or (shape[0], *channels) != (1, 3) or min(shape) < 1:
        raise ArtifactError(
            f"input {described(inputs[0])} is no static (1, 3, H, W)",
            where=onnx_path,
            hint="export it again",
        )
    return TensorSpec(inputs[0].name, str(tensor_dtype_to_np_dtype(kind.elem_type)), shape, "image")


def weights_mib(onnx_path: Path) -> float:
    """Return the MiB of all initialisers, inside the file or beside it."""
    from onnx.helper import tensor_dtype_to_np_dtype

    sizes = []
    for tensor in read_model(onnx_path, weights=False).graph.initializer:
        try:
            sizes.append(prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        except KeyError as error:
            what = f"the weight {tensor.name!r} is of type {tensor.data_type}, which is none"
            raise ArtifactError(what, where=onnx_path, hint="export it again") from error
    return float(sum(sizes)) / 2**20


def load_images(folder: Path | None, rounds: int, frame: Frame = None) -> list[NamedImage]:
    """Return the photographs to measure on: the first of ``folder``, or those that come with scikit-image.

    Graphs that take frames are measured on photographs stretched to their size.
    """
    found = sample_photographs() if folder is None else list(Pictures([folder], most=min(rounds, MOST_IMAGES)))
    return [replace(image, pixels=as_frame(image.pixels, frame)) for image in found] if frame else found


def make_feeds(prepared: Sequence[Prepared], images: Sequence[NamedImage]) -> list[tuple[dict[str, Array], ...]]:
    """Return the inputs by row and image; rows with equal inputs share their arrays.

    The inputs of a batch are the pictures one after the other, from the first again where there are too few of them.
    """
    made: dict[tuple[TensorSpec, Preprocessing], tuple[dict[str, Array], ...]] = {}
    for row in prepared:
        key = (row.image, row.preprocessing)
        if key not in made:
            made[key] = tuple(_together(part, *key) for part in _batches(images, row.image.shape[0]))
    return [made[row.image, row.preprocessing] for row in prepared]


def _batches(images: Sequence[NamedImage], size: int) -> Iterator[list[NamedImage]]:
    for first in range(0, len(images), size):
        yield [images[place % len(images)] for place in range(first, first + size)]


def _together(images: Sequence[NamedImage], spec: TensorSpec, how: Preprocessing) -> dict[str, Array]:
    parts = [_feed(image, spec, how)[spec.name] for image in images]
    return {spec.name: np.concatenate(parts) if len(parts) > 1 else parts[0]}


# Meaning of an input that no photograph fits: it is fed with random numbers from 0 to 1, of the type's levels.
NOISE = "noise"


def _feed(image: NamedImage, spec: TensorSpec, how: Preprocessing) -> dict[str, Array]:
    if spec.meaning == NOISE:
        levels = 1 if spec.dtype.startswith("float") else 100
        return {spec.name: (levels * np.random.default_rng(0).random(spec.shape)).astype(spec.dtype)}
    size = spec.shape[1:3] if how.in_graph else spec.shape[2:4]
    tensor, _ = Feed((size[0], size[1]), how, exact=True)(image.pixels, image.name)
    return {spec.name: np.ascontiguousarray(tensor, dtype=spec.dtype)}
