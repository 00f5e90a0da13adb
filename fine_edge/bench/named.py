"""Measure artifacts that were named one by one, in the same rounds: ONNX files, those of others too, and engines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from fine_edge import console
from fine_edge.bench.backends import BACKENDS, BenchOptions
from fine_edge.bench.prepare import NOISE, Prepared, load_images, vouched, weights_mib
from fine_edge.bench.record import Record
from fine_edge.bench.session import ReadyGroup, measure_groups
from fine_edge.bench.suites import Group, Suite, SuiteRow
from fine_edge.contract import TensorSpec, artifact_stem, contract_path
from fine_edge.engine.options import EnginePrecision
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import InputSize, described, fixed, is_open, network_inputs
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView, value_dims
from fine_edge.preprocess import Preprocessing

SUITE = "named"
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class NamedRow(SuiteRow):
    """An artifact that was named; ``name`` is what tables call it."""

    name: str = ""

    @property
    def label(self) -> str:
        """Return the name."""
        return self.name

    @property
    def preprocessing(self) -> Preprocessing:
        """Return what is done with pictures where no contract says it: they are stretched and scaled to [0, 1]."""
        return Preprocessing()


def labels(paths: Sequence[Path]) -> list[str]:
    """Return what tables call each file: its name, with as many of its folders as tell it from the others.

    Raises:
        ConfigError: when one file is named twice.
    """
    full = [path.resolve() for path in paths]
    if twice := next((path for path, times in Counter(full).items() if times > 1), None):
        raise ConfigError("is named twice", where=twice.name, hint="name each file once")
    found = []
    for path in full:
        others = [other.parts for other in full if other != path]
        parts = next(n for n in range(1, len(path.parts) + 1) if all(o[-n:] != path.parts[-n:] for o in others))
        found.append("/".join(path.parts[-parts:]))
    return found


def prepare_named(path: Path, label: str, size: InputSize | None = None) -> Prepared:
    """Return what timing needs of a file.

    Args:
        path: ONNX file or engine.
        label: what tables call it.
        size: numbers for the open dimensions of a file without a contract.

    Raises:
        ArtifactError: when file and contract do not belong together, or it does not take one picture at a time.
        ConfigError: for a size beside a contract, which has its own.
    """
    if path.suffix != ".engine" and path.is_file() and not contract_path(path).exists():
        return _foreign(path, label, size)
    known = vouched(path)
    contract = known.contract
    if size is not None:
        raise ConfigError(f"{path.name} has its size", where="--input-size", hint="leave it out")
    if contract.batches or contract.batch != 1:
        what = f"takes {'several batches' if contract.batches else f'{contract.batch} pictures at a time'}"
        hint = "add --batches N,N,..." if contract.batches else f"python -m fine_edge export {contract.model}"
        raise ArtifactError(f"{what}, and one picture at a time is measured", where=path, hint=hint)
    row = NamedRow(contract.model, raw=not contract.postprocessed, precision=known.precision, name=label)
    return Prepared(row, path, known.sha256, contract, contract.inputs[0], known.weights_mib)


def _foreign(path: Path, label: str, size: InputSize | None) -> Prepared:
    """Return what timing needs of a graph without a contract."""
    model = read_model(path, weights=False)
    if size:
        model = fixed(model, size, path)
    inputs = network_inputs(model)
    dynamic = next((value for value in inputs if is_open(value)), None)
    if dynamic is not None and len(value_dims(dynamic)) == 4:
        raise ArtifactError(f"input {described(dynamic)} is dynamic", where=path, hint="--input-size HEIGHTxWIDTH")
    dims = [dim or 0 for dim in value_dims(inputs[0])] if len(inputs) == 1 else []
    if len(dims) != 4 or dims[0] != 1 or dims[1] not in _CHANNELS:
        takes = ", ".join(map(described, inputs)) or "no input"
        raise ArtifactError(f"takes {takes}, not one picture (1, C, H, W)", where=path, hint="export it with one")
    kind = inputs[0].type.tensor_type.elem_type
    is_photograph = dims[1] == 3 and kind in (TensorProto.FLOAT, TensorProto.FLOAT16)
    image = TensorSpec(
        inputs[0].name, str(tensor_dtype_to_np_dtype(kind)), tuple(dims), "image" if is_photograph else NOISE
    )
    fed = "pictures are stretched to its input and scaled to [0, 1]" if is_photograph else "it is fed with noise"
    console.remark(f"{path.name} has no contract: {fed}")
    precision = _precision(GraphView(model))
    row = NamedRow(artifact_stem(path), raw=True, exporter="foreign", precision=precision, name=label)
    return Prepared(row, path, identity_of(path), None, image, weights_mib(path))


def _precision(view: GraphView) -> EnginePrecision:
    if any(node.op_type == "DequantizeLinear" for node in view.nodes):
        return "int8"
    return "fp16" if TensorProto.FLOAT16 in view.dtypes().values() else "fp32"


def run_named(paths: Sequence[Path], names: Sequence[str], options: BenchOptions) -> Record:
    """Measure files on this machine; the first is the baseline.

    Args:
        paths: ONNX files or engines.
        names: what tables call them, unlike each other.
        options: how long and how; its suite is not used, its size is that of graphs without a contract.

    Raises:
        FineEdgeError: when a file, an image or the backend fails.
    """
    load = os.getloadavg()[0]  # before our own work raises it
    backend = BACKENDS[options.backend]
    size = InputSize(*options.input_hw) if any(options.input_hw) else None
    prepared = [prepare_named(path, name, size) for path, name in zip(paths, names, strict=True)]
    backend.require(prepared[0].row.model)
    if options.end_to_end and not any(row.row.decodes for row in prepared):
        raise ConfigError("no file here says how its outputs are decoded", where="--end-to-end", hint="leave it out")
    frames = {row.input_hw for row in prepared if row.preprocessing.in_graph}
    if len(frames) > 1:
        raise ConfigError("the files take frames of unlike sizes", where=prepared[0].path, hint="measure one at a time")
    options = replace(options, precision=prepared[0].row.precision)
    length = backend.length(options)
    images = load_images(options.images, length.rounds, next(iter(frames), None))
    group = ReadyGroup(names[0], prepared, [None] * len(prepared), backend.setup(prepared, length, options))
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    suite = Suite(SUITE, title, (Group(tuple(row.row for row in prepared)),))
    return measure_groups(suite, [group], images, options, load)
