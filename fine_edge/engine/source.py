"""The ONNX that an engine is built from: whole, vouched for, of the right precision, and without known traps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from fine_edge.contract import TENSORRT, Contract, artifact_stem, bound_contract, contract_path, read_contract
from fine_edge.engine.options import BuildOptions, EnginePrecision
from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import check_view
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import InputSize, fixed, require_static
from fine_edge.graph.model_file import read_model
from fine_edge.graph.rules_operators import PLUGIN_DOMAINS
from fine_edge.graph.vetted import vet
from fine_edge.graph.view import GraphView
from fine_edge.graph.weight_files import weight_files


@dataclass(frozen=True)
class Source:
    """An ONNX file that may be built.

    Attributes:
        path: of the file.
        sha256: its :func:`fine_edge.graph.identity.identity_of`.
        model: name in the zoo, or the stem of a file that came without a contract.
        holds_fp16: whether the graph has FP16 tensors.
        contract: what is beside it; ``None`` for a foreign file.
        plugin_nodes: operators that a plugin library may bring; they have a native body as well.
        external_bytes: of the files with its weights.
    """

    path: Path
    sha256: str
    model: str
    holds_fp16: bool
    contract: Contract | None
    plugin_nodes: tuple[str, ...] = ()
    external_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the file and of those with its weights."""
        return self.path.stat().st_size + self.external_bytes

    @property
    def precision(self) -> EnginePrecision:
        """What the graph says by itself."""
        return "fp16" if self.holds_fp16 else "fp32"


def onnx_name(model: str, precision: EnginePrecision) -> str:
    """The artifact that an engine of this precision is built from: the weak kind takes the FP32 graph."""
    return f"{model}.fp16.onnx" if precision == "fp16" else f"{model}.onnx"


def model_of(path: Path) -> str:
    """Name in the zoo of what an ONNX file holds, or the stem of a file that came without a contract."""
    beside = contract_path(path)
    return read_contract(beside).model if beside.exists() else artifact_stem(path)


def engine_name(source: Source, options: BuildOptions) -> str:
    """``MODEL.fp16.engine``, ``MODEL.fp16.rtx-sm86.engine``."""
    target = "" if options.target == "tensorrt" else f".{options.target}"
    return f"{artifact_stem(source.path)}.{options.precision}{target}.engine"


def read_source(path: Path, size: InputSize | None = None) -> Source:
    """Read and judge an ONNX file.

    Args:
        path: the file.
        size: of its pictures, for a graph that leaves it open.

    Raises:
        ArtifactError: when it is missing, broken, not what its contract vouches for, or breaks a rule of
            the graph that TensorRT would refuse or, worse, compute wrongly.
    """
    model = read_model(path, weights=False)
    external_bytes = sum(file.stat().st_size for file in weight_files(model, path).values())
    if size:
        model = fixed(model, size, path)
    require_static(model, path)
    view = GraphView(model, path)
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
    return Source(path, identity_of(path), model_of(path), holds_fp16, contract, tuple(plugins), external_bytes)


def require_precision(source: Source, options: BuildOptions) -> None:
    """Refuse a graph that is not of the precision asked for: built strongly typed it would be another engine.

    Raises:
        ArtifactError: with the way to a graph of that precision.
    """
    name = source.path.name
    if options.precision == "fp16" and not source.holds_fp16:
        raise ArtifactError(
            "the graph is FP32, and a strongly typed engine of it would be FP32 too",
            where=source.path,
            hint=f"python -m fine_edge graph fp16 {name} makes an FP16 graph; or --precision fp16-weak, or fp32",
        )
    if options.precision != "fp16" and source.holds_fp16:
        raise ArtifactError(
            f"the graph is FP16 already, {options.precision} starts from FP32",
            where=source.path,
            hint=f"use {onnx_name(source.model, options.precision)}, or --precision fp16",
        )
    if options.keep_fp32:
        known = {node.name for node in GraphView(read_model(source.path, weights=False)).nodes}
        unknown = [layer for layer in options.keep_fp32 if layer not in known]
        if unknown:
            raise ArtifactError(
                f"no node is called {unknown[0]!r}, so it cannot be kept in FP32",
                where=source.path,
                hint="check the list",
            )
