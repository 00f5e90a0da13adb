"""Inspection of a model: compile it with TensorRT-RTX on this machine's CPU and report the kernels.

No GPU is needed: the compiler works ahead of time for SM86. Its parser is newer than that of TensorRT 10.7, and Orin
is SM87, so the figures show how well a graph fuses, not how fast it runs on a Jetson.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fine_edge.engine import supervise
from fine_edge.engine.options import BuildOptions, optimum_size
from fine_edge.engine.plan import BuildJob
from fine_edge.engine.platform import here
from fine_edge.engine.rtx_log import Compiled, parse_log
from fine_edge.engine.source import sized_file
from fine_edge.errors import BackendError
from fine_edge.graph.checks import check_view, read_vetted
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import InputSize, require_static, shapes_text
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView

# The default time limit: ten minutes. RT-DETR R18 takes seconds.
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Inspection:
    """The result of a compilation.

    Attributes:
        compiled: kernels and memory from the compiler's log.
        compile_s: seconds in the compiler.
        compiler: name and version of the compiler.
        onnx_sha256: hash of the file.
        inputs: shapes of the inputs that it was compiled for.
    """

    compiled: Compiled
    compile_s: float
    compiler: str
    onnx_sha256: str
    inputs: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the object that ``--json`` prints."""
        return {
            "target": "rtx-sm86",
            "kernels": len(self.compiled.kernels),
            "fused_attention": self.compiled.fused_attention,
            "activation_mib": round(self.compiled.activation_mib, 3),
            "weights_mib": round(self.compiled.weights_mib, 3),
            "compile_s": round(self.compile_s, 3),
            "compiler": self.compiler,
            "onnx_sha256": self.onnx_sha256,
            "inputs": self.inputs,
        }


def inspect(onnx_path: Path, timeout_s: float = TIMEOUT_S, size: InputSize | None = None) -> Inspection:
    """Compile ``onnx_path`` for SM86 in a process of its own and read its log; the plan is discarded.

    The graph's own precision is used: compilation is strongly typed.

    Args:
        onnx_path: the model.
        timeout_s: stop the compiler after this time.
        size: input size for a graph with open dimensions; one whose batch alone is open is else taken at its optimum.

    Raises:
        MissingExtraError: without TensorRT-RTX or a Polygraphy that drives it.
        ArtifactError: when the file is no ONNX model, or its inputs are dynamic and ``size`` is missing.
        BackendError: when the compiler refuses the graph, crashes, or takes longer than ``timeout_s``.
    """
    view = read_vetted(onnx_path)
    size = size or optimum_size(onnx_path)
    if size is None:
        require_static(view.model, onnx_path)
    options = BuildOptions(target="rtx-sm86")
    supervise.require_builder(options.target)
    sha256 = identity_of(onnx_path)
    with sized_file(onnx_path, view.model, size) as path:
        try:
            outcome = supervise.build(BuildJob(path.absolute(), options), timeout_s)
        except BackendError as error:
            raise BackendError(error.what, where=onnx_path, hint=_advice(view, onnx_path) or error.hint) from error
        inputs = shapes_text(read_model(path, weights=False) if size else view.model)
    compiler = f"TensorRT-RTX {here().rtx}"
    return Inspection(parse_log(outcome.log), float(outcome.report["build_s"]), compiler, sha256, inputs)


def _advice(view: GraphView, path: Path) -> str:
    """Return the first error of the rules as a hint for a graph that did not compile; an empty text without one."""
    errors = [finding for finding in check_view(view) if finding.severity == "error"]
    if not errors:
        return ""
    first = errors[0]
    return f"{first.rule} at {first.node}: {first.message}; all: python -m fine_edge graph check {path.name}"
