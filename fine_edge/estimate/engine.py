"""From an ONNX file to the work of every kernel of its engine in a precision: one compilation on this machine's CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto

from fine_edge import files
from fine_edge.engine.inspect import Inspection, inspect
from fine_edge.engine.options import optimum_size
from fine_edge.engine.source import sized_file
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.calibration import Precision
from fine_edge.estimate.device import Device
from fine_edge.estimate.flops import PRODUCTS, graph_flops, node_works
from fine_edge.estimate.work import KernelWork, conversion, kernel_works, live_bytes
from fine_edge.graph.checks import read_vetted
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.half_range import beyond_half
from fine_edge.graph.input_size import InputSize, fixed, require_static
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView, is_static, label, output_name
from fine_edge.machine import MIB
from fine_edge.runners.ort import folded

# Inputs and outputs of the network are FP32 or wider integers; labels are few.
_IO_BYTES = 4
_PICTURE_RANK = 4

Compile = Callable[..., Inspection]


@dataclass(frozen=True)
class EngineWork:
    """The work of an engine as NVIDIA's compiler makes it, independent of any board.

    Attributes:
        name: of the model or file.
        works: by kernel, in the order of execution.
        graph_flops: of all matrix products in the graph.
        activation_mib: memory that the compiler plans for activations.
        weights_mib: memory for weights.
        io_bytes: inputs and outputs, which are copied to and from the device.
        onnx_sha256: of the file.
        compiler: its name and version.
        inputs: that it was compiled for, with their shapes.
        quantised: whether the graph itself says what is INT8.
        batch: pictures at a time.
        live_mib: activations that are needed at one moment.
    """

    name: str
    works: tuple[KernelWork, ...]
    graph_flops: int
    activation_mib: float
    weights_mib: float
    io_bytes: int
    onnx_sha256: str
    compiler: str
    inputs: str = ""
    quantised: bool = False
    batch: int = 1
    live_mib: float = 0.0

    @property
    def claimed_flops(self) -> float:
        """Return the share of the graph's FLOPs that kernels do: 1 where every node was found."""
        return sum(work.flops for work in self.works) / self.graph_flops if self.graph_flops else 1.0

    def without(self, module: str) -> EngineWork:
        """Return the engine without one module's kernels."""
        return replace(self, works=tuple(work for work in self.works if work.module != module))


def engine_work(
    onnx_path: Path, device: Device, name: str = "", run: Compile = inspect, size: InputSize | None = None
) -> EngineWork:
    """Compile a file, which shows its own progress, and count the work of its kernels.

    A graph whose batch alone is open is taken at its optimum, unless a size is given.

    Raises:
        FineEdgeError: as :func:`fine_edge.engine.inspect.inspect`.
    """
    # Shapes alone decide the work: the weights, hundreds of MiB, stay on the disk.
    model = read_model(onnx_path, weights=False)
    size = size or optimum_size(onnx_path)
    if size:
        model = fixed(model, size, onnx_path)
    require_static(model, onnx_path)
    view = GraphView(model, onnx_path)
    _require_sizes(view, onnx_path)
    nodes = node_works(view)
    found = run(onnx_path, size=size)
    return EngineWork(
        name=name or onnx_path.name,
        works=(conversion(_input_elements(view)), *kernel_works(found.compiled.kernels, nodes, device.l2_bytes)),
        graph_flops=graph_flops(nodes),
        activation_mib=found.compiled.activation_mib,
        weights_mib=found.compiled.weights_mib,
        io_bytes=_io_bytes(view),
        onnx_sha256=found.onnx_sha256,
        compiler=found.compiler,
        inputs=found.inputs,
        quantised=is_quantised(view),
        batch=_batch(view),
        live_mib=live_bytes(found.compiled.kernels) / MIB,
    )


def is_quantised(view: GraphView) -> bool:
    """Return whether nodes of the graph quantise."""
    return any(node.op_type == "QuantizeLinear" for node in view.nodes)


def _require_sizes(view: GraphView, path: Path) -> None:
    """Refuse a graph of whose work a part would be left out, since nothing says how much it is."""
    unknown = [node for node in view.nodes if node.op_type in PRODUCTS and not is_static(view.shape(output_name(node)))]
    if unknown:
        raise ArtifactError(
            f"the size of {len(unknown)} matrix products, such as {label(unknown[0])}, depends on data or is not told",
            where=path,
            hint="export it with static shapes inside as well: without NonZero, and suppression left out",
        )


def _io_bytes(view: GraphView) -> int:
    outputs = [value.name for value in view.model.graph.output]
    return sum(_IO_BYTES * _elements(view, name) for name in (*_inputs(view), *outputs))


def _input_elements(view: GraphView) -> int:
    return sum(_elements(view, name) for name in _inputs(view) if view.dtype(name) == TensorProto.FLOAT)


def _batch(view: GraphView) -> int:
    shapes = [view.shape(name) for name in _inputs(view)]
    return max((shape[0] or 1 for shape in shapes if shape and len(shape) == _PICTURE_RANK), default=1)


def _inputs(view: GraphView) -> list[str]:
    constants = {tensor.name for tensor in view.model.graph.initializer}
    return [value.name for value in view.model.graph.input if value.name not in constants]


def _elements(view: GraphView, name: str) -> int:
    shape = view.shape(name)
    return prod(dim or 0 for dim in shape) if shape and is_static(shape) else 0


# Bring a graph into the precision that an engine is estimated in, as a builder would.


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
