"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fine_edge import libraries
from fine_edge.contract import Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import read_vetted
from fine_edge.runners.base import Array, WallTimed

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession


from fine_edge.graph.emulate import emulated
from fine_edge.graph.model_file import read_model
from fine_edge.runners.base import ROUNDED

_ANOTHER = "copy ONNX file and contract from the same place, or export again"
_ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int64", "int32", "int8", "uint8", "bool")},
}
"""Element types as ONNX Runtime names them, and as contracts do."""


def create_session(
    onnx_path: Path, threads: int | None = None, *, model: onnx.ModelProto | None = None, optimise: bool = True
) -> InferenceSession:
    """An ONNX Runtime session on the CPU.

    Args:
        onnx_path: the model, or where ``model`` came from.
        threads: intra-op threads; ``None`` leaves it to ONNX Runtime (all physical cores).
        model: a graph in memory to run instead of the file.
        optimise: with all graph optimisations, or with none, so that every tensor of the graph exists.

    Raises:
        ArtifactError: when ONNX Runtime refuses the file.
    """
    onnxruntime = libraries.onnxruntime()
    options = onnxruntime.SessionOptions()
    # Nothing but what ends the process: its errors come as exceptions too, and its log brings names of nodes raw to the
    # terminal. FP16 graphs on a CPU warn about every inserted cast.
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # An arena would keep the largest tensors' memory for good.
        options.enable_cpu_mem_arena = False
    source = str(onnx_path) if model is None else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the pybind exceptions of ONNX Runtime share no public base class
        raise ArtifactError(f"ONNX Runtime refuses the model ({_reason(error)})", where=onnx_path) from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _require_same(side: str, node: Any, spec: TensorSpec, where: Path) -> None:
    """Compare a session's tensor with what the contract says; a dimension that the graph does not tell fits any."""
    dims = tuple(node.shape)
    fits = len(dims) == len(spec.shape) and all(
        dim == wanted or (side == "output" and not isinstance(dim, int))
        for dim, wanted in zip(dims, spec.shape, strict=False)
    )
    if not fits or _ELEMENT_TYPES.get(node.type) != spec.dtype:
        what = f"{side} {spec.name} is {node.type} {dims}, its contract says {spec.dtype} {spec.shape}"
        raise ArtifactError(what, where=where, hint=_ANOTHER)


class OrtRunner(WallTimed):
    """Runs an ONNX file, or a graph in memory, with ONNX Runtime on the CPU; arguments as :func:`create_session`.

    A file is looked at first: ONNX Runtime folds constants without bounds, and loops for as long as it is told to.
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
        """Refuse a contract that speaks of other inputs or outputs than the model has, before anything is made of it.

        Raises:
            ArtifactError: naming the first that differs.
        """
        sides = (
            ("input", self._session.get_inputs(), contract.inputs),
            ("output", self._session.get_outputs(), contract.outputs),
        )
        for side, nodes, specs in sides:
            found = {node.name: node for node in nodes}
            if set(found) != {spec.name for spec in specs}:
                what = f"has the {side}s {', '.join(found)}, its contract says {', '.join(spec.name for spec in specs)}"
                raise ArtifactError(what, where=self._path, hint=_ANOTHER)
            for spec in specs:
                _require_same(side, found[spec.name], spec, self._path)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            ArtifactError: when a name, shape or type is not what the model takes, or ONNX Runtime fails.
        """
        run = self._session.run
        try:
            outputs = cast("list[Array]", run(self._names, inputs))
        except Exception as error:  # see create_session
            raise ArtifactError(f"ONNX Runtime cannot run the model ({_reason(error)})", where=self._path) from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


class RoundingRunner(OrtRunner):
    """Runs an FP16 ONNX file and rounds to FP16 after every operator, sums being FP32. For parity, not for timing."""

    name = ROUNDED

    def __init__(self, onnx_path: Path, threads: int | None = None) -> None:
        read_vetted(onnx_path)
        super().__init__(onnx_path, threads, model=emulated(read_model(onnx_path)))
