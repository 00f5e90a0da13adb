"""Bring a graph into the precision that an engine is estimated in, as a builder would."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from fine_edge import files
from fine_edge.engine.source import sized_file
from fine_edge.errors import ConfigError
from fine_edge.estimate.calibration import Precision
from fine_edge.estimate.engine import is_quantised
from fine_edge.graph.checks import read_vetted
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.half_range import beyond_half
from fine_edge.graph.input_size import InputSize
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView
from fine_edge.runners.ort import folded


def precision_of(path: Path, asked: Precision | None) -> tuple[Precision, bool]:
    """Return the precision to estimate a file in, and whether it must be converted to FP16 first.

    A builder with the FP16 flag runs an FP32 graph in FP16; INT8 by rates starts from the same kernels.

    Raises:
        ArtifactError: when the file is no ONNX model.
        ConfigError: when the graph is not in the precision that was asked for and cannot be brought into it.
    """
    view = GraphView(read_model(path, weights=False), path)
    halves = TensorProto.FLOAT16 in view.dtypes().values()
    if is_quantised(view):
        if asked not in (None, "int8"):
            raise ConfigError(f"{path.name} is quantised", where="--precision", hint="give the graph without Q/DQ")
        return "int8", False
    if asked == "fp32":
        if halves:
            raise ConfigError(f"{path.name} is FP16 already", where="--precision", hint="give the FP32 export")
        return "fp32", False
    return asked or "fp16", not halves


def in_fp16(path: Path, folder: Path | None = None, size: InputSize | None = None) -> Path:
    """Convert an FP32 graph to FP16 and return the new file, beside it or in ``folder``.

    Shapes that libraries compute at run time are folded first. What cannot be FP16 stays FP32, as in our exports.

    Raises:
        ArtifactError: when the file is no ONNX model, or one that may not be given to a runtime, which folds it.
    """
    half = (folder or path.parent) / path.with_suffix(".fp16.onnx").name
    with (
        sized_file(path, read_vetted(path).model, size) as fixed,
        files.written_together(half.parent, half.name) as partial,
    ):
        model = folded(read_model(fixed))
        names = {node.name for node in model.graph.node}
        kept = {entry.node for entry in beyond_half(GraphView(model), ()) if not entry.sentinel}
        onnx.save(to_fp16(model, keep_fp32=names & {*kept_by_exporter(model), *kept}), partial / half.name)
    return half
