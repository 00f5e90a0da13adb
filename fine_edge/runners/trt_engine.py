"""A deserialised TensorRT plan: runtime, engine, execution context, and a description of the engine's tensors.

Only names that TensorRT 10.7 has and that 10.x has not deprecated are used; ``tests/tensorrt_api`` checks that.
"""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fine_edge import console
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.machine import MIB

if TYPE_CHECKING:
    import tensorrt as trt

_REBUILD = "build the engine again on this machine: python -m fine_edge engine build MODEL --rebuild"


class EngineLog(Protocol):
    """TensorRT's logger, with the errors that it has received, oldest first."""

    errors: deque[str]


@functools.lru_cache(maxsize=1)
def engine_log() -> Any:
    """Return the logger of this process, an :class:`EngineLog`; TensorRT uses only the first logger it gets."""
    import tensorrt as trt

    class _Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            elif severity == trt.ILogger.WARNING:
                console.remark(f"TensorRT: {msg}")

    return _Log()


def failure(what: str, where: Path, log: EngineLog, hint: str = _REBUILD) -> BackendError:
    """Return an error with the first error of TensorRT's log as the reason; the later ones are consequences."""
    reason = f" ({log.errors[0]})" if log.errors else ""
    return BackendError(f"{what}{reason}", where=where, hint=hint)


@dataclass(frozen=True)
class Port:
    """One input or output of an engine: name, direction, static shape and element type in device memory."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """The size in device memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class LoadedEngine:
    """One engine with one execution context.

    Args:
        plan: bytes that :func:`fine_edge.engine.plan_file.verified_plan` returned.
        where: the file of the plan, for messages.
        plugins: plugin libraries that the plan needs.

    Raises:
        BackendError: when TensorRT refuses the plan, a plugin library does not load, or memory runs out.
        ArtifactError: when the engine's shapes are not static.
    """

    def __init__(self, plan: bytes, where: Path, plugins: Sequence[str] = ()) -> None:
        import tensorrt as trt

        self.where = where
        self.log = engine_log()
        self.log.errors.clear()
        _load_plugins(plugins, self.log)
        self._runtime = trt.Runtime(self.log)
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise failure("TensorRT refuses the engine", where, self.log)
        self.engine = engine
        self.ports = tuple(_port(self.engine, index, where) for index in range(self.engine.num_io_tensors))
        self.context = self.new_context()
        # Engines hold detailed layer information; without this, every inference would write NVTX ranges for it.
        self.context.nvtx_verbosity = trt.ProfilingVerbosity.NONE

    def new_context(self) -> trt.IExecutionContext:
        """Create an execution context with its own activation memory."""
        context: trt.IExecutionContext | None = self.engine.create_execution_context()
        if context is None:
            mib = self.activation_bytes / MIB
            hint = f"it needs {mib:.0f} MiB of device memory: close other programs, or add swap"
            raise failure("TensorRT cannot make an execution context", self.where, self.log, hint)
        return context

    @property
    def activation_bytes(self) -> int:
        """Device memory that one execution context needs for activations and scratch."""
        return int(self.engine.device_memory_size_v2)

    def bind(self, context: trt.IExecutionContext, addresses: dict[str, int]) -> None:
        """Set the device addresses of a context's tensors."""
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise failure(f"TensorRT refuses the address of {name}", self.where, self.log)

    def close(self) -> None:
        """Free context, engine and runtime, in this order."""
        del self.context
        del self.engine
        del self._runtime


def _load_plugins(plugins: Sequence[str], log: Any) -> None:
    """Load plugin libraries, whose plugins register themselves, and TensorRT's own plugins."""
    import tensorrt as trt

    for library in plugins:
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise BackendError(
                f"the plugin library does not load ({error})", where=library, hint="make plugins"
            ) from error
    if plugins:
        trt.init_libnvinfer_plugins(log, "")


def _port(engine: trt.ICudaEngine, index: int, where: Path) -> Port:
    import tensorrt as trt

    name = engine.get_tensor_name(index)
    dims = engine.get_tensor_shape(name)
    shape = tuple(int(dims[axis]) for axis in range(len(dims)))
    if min(shape, default=1) < 1:
        raise ArtifactError(f"{name} has shape {shape}, only static shapes can be run", where=where, hint=_REBUILD)
    kind = engine.get_tensor_dtype(name)
    to_numpy: Any = trt.nptype  # a Python function without annotations
    try:
        dtype = np.dtype(to_numpy(kind))
    except TypeError as error:  # bfloat16, fp8 and int4, which numpy lacks
        raise ArtifactError(f"{name} is {kind}, which numpy has no type for", where=where, hint=_REBUILD) from error
    return Port(name, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT, shape, dtype)
