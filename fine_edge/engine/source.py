"""The ONNX file that an engine is built from, with the checks that it must pass before a build."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from fine_edge.contract import (
    TENSORRT,
    Batches,
    Contract,
    Precision,
    artifact_stem,
    batches_in_name,
    bound_contract,
    contract_path,
    read_contract,
)
from fine_edge.engine.options import BuildOptions, EnginePrecision
from fine_edge.errors import ArtifactError
from fine_edge.files import output_errors
from fine_edge.graph.checks import check_view, vet
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import InputSize, fixed, require_open_batch, require_static
from fine_edge.graph.model_file import read_model, weight_files
from fine_edge.graph.open_batch import largest_batch, note_batch
from fine_edge.graph.rules_operators import PLUGIN_DOMAINS
from fine_edge.graph.view import GraphView
from fine_edge.graph.walk import graphs_in


@dataclass(frozen=True)
class Source:
    """An ONNX file that passed the checks.

    Attributes:
        path: the file.
        sha256: its :func:`fine_edge.graph.model_file.identity_of`.
        model: name in the zoo, or the stem of a file without a contract.
        holds_fp16: whether the graph has FP16 tensors.
        holds_int8: whether pairs of QuantizeLinear and DequantizeLinear say what is INT8.
        contract: the contract beside it; ``None`` for a foreign file.
        plugin_nodes: operators that a plugin library can provide; ordinary layers can compute them too.
        external_bytes: size of the files with its weights.
    """

    path: Path
    sha256: str
    model: str
    holds_fp16: bool
    contract: Contract | None
    plugin_nodes: tuple[str, ...] = ()
    external_bytes: int = 0
    holds_int8: bool = False

    @property
    def size_bytes(self) -> int:
        """Size of the file and of the files with its weights."""
        return self.path.stat().st_size + self.external_bytes

    @property
    def precision(self) -> EnginePrecision:
        """The precision of the graph itself."""
        if self.holds_int8:
            return "int8"
        return "fp16" if self.holds_fp16 else "fp32"


def graph_precision(precision: EnginePrecision) -> Precision:
    """Return the precision of the graph that an engine is built from; ``fp16-weak`` takes an FP32 one."""
    return "fp32" if precision == "fp16-weak" else precision


def onnx_name(model: str, precision: EnginePrecision) -> str:
    """Return the name of the artifact that an engine of a precision is built from."""
    graph = graph_precision(precision)
    return f"{model}.onnx" if graph == "fp32" else f"{model}.{graph}.onnx"


def model_of(path: Path) -> str:
    """Return the name in the zoo of an ONNX file's model, or the stem of a file without a contract."""
    contract = contract_path(path)
    return read_contract(contract).model if contract.exists() else artifact_stem(path)


def engine_name(source: Source, options: BuildOptions) -> str:
    """Return the name of an engine file, ``MODEL.fp16.engine`` or ``MODEL.fp16.rtx-sm86.engine``.

    What was chosen for the open dimensions of the graph is a part of it, unless the graph's own name says it:
    ``MODEL.batch1-8.fp16.engine``, ``MODEL.4x480x640.fp16.engine``. So no engine replaces one for other inputs.
    """
    stem, size = artifact_stem(source.path), options.input_size
    if options.batches is None:
        chosen = f".{size.batch}x{size.height}x{size.width}" if size else ""
    else:
        batches = batches_in_name(options.batches)
        chosen = ("" if stem.endswith(batches) else batches) + (f".{size.height}x{size.width}" if size else "")
    target = "" if options.target == "tensorrt" else f".{options.target}"
    return f"{stem}{chosen}.{options.precision}{target}.engine"


def read_source(path: Path, size: InputSize | None = None, batches: Batches | None = None) -> Source:
    """Read an ONNX file and check it.

    Args:
        path: the file.
        size: input size for a graph with open dimensions.
        batches: range of batches for a graph whose batch stays open.

    Raises:
        ArtifactError: when the file is missing or broken, does not match its contract, or breaks a rule: TensorRT
            would refuse such a graph or compute it wrongly.
    """
    model = read_model(path, weights=False)
    external_bytes = sum(file.stat().st_size for file in weight_files(model, path).values())
    view = GraphView(sized(model, path, size, batches), path)
    vet(view, path)
    contract = bound_contract(path)[0] if contract_path(path).exists() else None
    errors = [finding for finding in check_view(view) if finding.severity == "error"]
    if errors:
        first, more = errors[0], f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ArtifactError(
            f"breaks rule {first.rule} for TensorRT {TENSORRT} at {first.node}: {first.message}{more}",
            where=path,
            hint=f"{first.hint}; all: python -m fine_edge graph check {path.name}",
        )
    holds_fp16 = TensorProto.FLOAT16 in view.dtypes().values()
    plugins = sorted({node.op_type for node in view.nodes if node.domain in PLUGIN_DOMAINS})
    holds_int8 = any(node.op_type == "DequantizeLinear" for node in view.nodes)
    return Source(
        path, identity_of(path), model_of(path), holds_fp16, contract, tuple(plugins), external_bytes, holds_int8
    )


def require_precision(source: Source, options: BuildOptions) -> None:
    """Refuse a graph of another precision than requested: a strongly typed engine has the precision of its graph.

    Raises:
        ArtifactError: the hint says how to get a graph of the precision.
    """
    name = source.path.name
    if (options.precision == "int8") != source.holds_int8:
        has, needs = ("has", "is not INT8") if source.holds_int8 else ("has no", "needs them")
        raise ArtifactError(
            f"the graph {has} QuantizeLinear and DequantizeLinear, and {options.precision} {needs}",
            where=source.path,
            hint="--precision int8"
            if source.holds_int8
            else f"python -m fine_edge quantize {name} --images FOLDER --out FOLDER makes an INT8 graph",
        )
    if options.precision == "fp16" and not source.holds_fp16:
        raise ArtifactError(
            "the graph is FP32, and a strongly typed engine of it would be FP32",
            where=source.path,
            hint=f"python -m fine_edge graph fp16 {name} makes an FP16 graph; or --precision fp16-weak, or fp32",
        )
    if options.precision in ("fp16-weak", "fp32") and source.holds_fp16:
        raise ArtifactError(
            f"the graph is FP16 already, but {options.precision} needs an FP32 graph",
            where=source.path,
            hint=f"use {onnx_name(source.model, options.precision)}, or --precision fp16",
        )
    if options.keep_fp32:
        names = {node.name for graph in graphs_in(read_model(source.path, weights=False)) for node in graph.node}
        unknown = [layer for layer in options.keep_fp32 if layer not in names]
        if unknown:
            raise ArtifactError(
                f"no node is called {unknown[0]!r}, so it cannot be kept in FP32",
                where=source.path,
                hint="check keep_fp32 of the recipe, or the file of --keep-fp32: one node name of this graph a line",
            )


def sized(
    model: onnx.ModelProto, path: Path, size: InputSize | None, batches: Batches | None = None
) -> onnx.ModelProto:
    """Return the graph as it is compiled: of one size, or with its batch left open.

    Args:
        model: the graph in the file.
        path: the file.
        size: numbers for open dimensions; without the batch where that stays open.
        batches: the range of batches; ``None``: the graph is compiled for one.

    Raises:
        ArtifactError: when another input is open and no size is given, or the graph cannot have that size.
    """
    if size:
        model = fixed(model, size, path, keep_batch=batches is not None)
    if batches is None:
        require_static(model, path)
        return model
    require_open_batch(model, path)
    if largest_batch(model) is None:
        noted = onnx.ModelProto()
        noted.CopyFrom(model)
        note_batch(noted, batches[2])
        return noted
    return model


@contextlib.contextmanager
def sized_file(
    path: Path, model: onnx.ModelProto, size: InputSize | None, batches: Batches | None = None
) -> Iterator[Path]:
    """Yield the file itself when no size is given, or else a copy of that size, which is removed afterwards.

    Args:
        path: the file.
        model: the graph in it, with or without weights of other files.
        size: input size for a graph with open dimensions.
        batches: range of batches for a graph whose batch stays open.

    Raises:
        ArtifactError: as :func:`sized`.
    """
    if size is None:
        sized(model, path, None, batches)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with output_errors(copy):
            onnx.save(sized(read_model(path), path, size, batches), copy)
        yield copy
