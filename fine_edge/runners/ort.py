"""The runner of ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fine_edge import libraries
from fine_edge.contract import Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import read_vetted
from fine_edge.graph.emulate import emulated
from fine_edge.graph.model_file import read_model
from fine_edge.runners.base import ROUNDED, Array, WallTimed

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession


_EXPORT_AGAIN = "copy ONNX file and contract from the same place, or export again"
# The names of element types in contracts, by their names in ONNX Runtime.
ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int64", "int32", "int8", "uint8", "bool")},
}


def create_session(
    onnx_path: Path, threads: int | None = None, *, model: onnx.ModelProto | None = None, optimise: bool = True
) -> InferenceSession:
    """Create an ONNX Runtime session on the CPU.

    Args:
        onnx_path: the model, or the file that ``model`` came from.
        threads: number of intra-op threads; ``None`` leaves it to ONNX Runtime (all physical cores).
        model: a graph in memory to run instead of the file.
        optimise: whether to optimise the graph; without it, every tensor of the graph exists.

    Raises:
        ArtifactError: when ONNX Runtime refuses the file.
    """
    onnxruntime = libraries.onnxruntime()
    options = onnxruntime.SessionOptions()
    # Log only fatal errors: other errors come as exceptions too, the log prints names of nodes unescaped to the
    # terminal, and FP16 graphs on a CPU warn about every inserted cast.
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # An arena would keep the memory of the largest tensors until the session ends.
        options.enable_cpu_mem_arena = False
    source = str(onnx_path) if model is None else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the pybind exceptions of ONNX Runtime share no public base class
        hint = f"run python -m fine_edge graph check {onnx_path.name}, or export it again"
        raise ArtifactError(f"ONNX Runtime refuses the model ({_reason(error)})", where=onnx_path, hint=hint) from error


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph of static shapes with what it computes of constants alone folded.

    Where ONNX Runtime refuses the graph, an operator of TensorRT's own being one reason, it stays as it is.
    """
    onnxruntime = libraries.onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # its errors have no type in common
            return model
        return read_model(target)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _require_same(side: str, node: Any, spec: TensorSpec, where: Path, *, open_batch: bool) -> None:
    """Refuse a tensor of a session that differs from the contract; an unknown dimension of an output fits any.

    Args:
        side: ``input`` or ``output``.
        node: of the session.
        spec: of the contract.
        where: the file.
        open_batch: whether the contract leaves the first dimension open.
    """
    dims = tuple(node.shape)
    fits = len(dims) == len(spec.shape) and all(
        dim == wanted or (not isinstance(dim, int) and (side == "output" or (open_batch and axis == 0)))
        for axis, (dim, wanted) in enumerate(zip(dims, spec.shape, strict=False))
    )
    if not fits or ELEMENT_TYPES.get(node.type) != spec.dtype:
        what = f"{side} {spec.name} is {node.type} {dims}, its contract says {spec.dtype} {spec.shape}"
        raise ArtifactError(what, where=where, hint=_EXPORT_AGAIN)


class OrtRunner(WallTimed):
    """An ONNX file, or a graph in memory, on ONNX Runtime and the CPU; for arguments see :func:`create_session`.

    A file is checked first: ONNX Runtime folds constants without a limit, and runs loops without end.
    """

    name = "onnxruntime-cpu"

    def __init__(
        self,
        onnx_path: Path,
        threads: int | None = None,
        *,
        model: onnx.ModelProto | None = None,
        optimise: bool = True,
    ) -> None:
        if model is None:
            read_vetted(onnx_path)
        self._path = onnx_path
        self._session: Any = create_session(onnx_path, threads, model=model, optimise=optimise)
        self._names: list[str] = [output.name for output in self._session.get_outputs()]

    def require(self, contract: Contract) -> None:
        """Refuse a contract with other inputs or outputs than the model.

        Raises:
            ArtifactError: names the first that differs.
        """
        sides = (
            ("input", self._session.get_inputs(), contract.inputs),
            ("output", self._session.get_outputs(), contract.outputs),
        )
        for side, nodes, specs in sides:
            found = {node.name: node for node in nodes}
            if set(found) != {spec.name for spec in specs}:
                what = f"has the {side}s {', '.join(found)}, its contract says {', '.join(spec.name for spec in specs)}"
                raise ArtifactError(what, where=self._path, hint=_EXPORT_AGAIN)
            for spec in specs:
                _require_same(side, found[spec.name], spec, self._path, open_batch=contract.batches is not None)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run one inference.

        Raises:
            ArtifactError: when the model does not take a name, shape or type, or ONNX Runtime fails.
        """
        run = self._session.run
        try:
            outputs = cast("list[Array]", run(self._names, inputs))
        except Exception as error:  # see create_session
            hint = f"run python -m fine_edge graph check {self._path.name}, or export it again"
            what = f"ONNX Runtime cannot run the model ({_reason(error)})"
            raise ArtifactError(what, where=self._path, hint=hint) from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


class RoundingRunner(OrtRunner):
    """An FP16 ONNX file, rounded to FP16 after every operator, with sums in FP32. For parity, not for timing."""

    name = ROUNDED

    def __init__(self, onnx_path: Path, threads: int | None = None) -> None:
        read_vetted(onnx_path)
        super().__init__(onnx_path, threads, model=emulated(read_model(onnx_path)))
