"""A deserialised TensorRT plan: runtime, engine, context, its tensors, and the buffers of one inference.

Only names that TensorRT 10.7 has and that 10.x has not deprecated are used; ``tests/tensorrt_api`` checks that.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.contract import Batches, Contract
from fine_edge.engine.cuda import Cuda, Graph, Stream
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.machine import MIB
from fine_edge.runners.base import Array, Timing

if TYPE_CHECKING:
    import tensorrt as trt

_Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
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
    """One input or output of an engine.

    Attributes:
        name: of the tensor.
        is_input: whether a caller gives it.
        shape: static; where the batch is open, with the largest one.
        dtype: element type in device memory.
        least: the smallest batch, where it is open.
    """

    name: str
    is_input: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    least: int | None = None

    @property
    def nbytes(self) -> int:
        """The size in device memory, of the largest batch."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def shape_text(self) -> str:
        """Return the shapes that it takes as text, ``(1, 3, 8, 8)`` or ``(1 to 8, 3, 8, 8)``."""
        if self.least is None:
            return str(self.shape)
        return f"({self.least} to {self.shape[0]}, {', '.join(map(str, self.shape[1:]))})"

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of this shape can be given."""
        if self.least is None or not shape:
            return shape == self.shape
        return self.least <= shape[0] <= self.shape[0] and shape[1:] == self.shape[1:]


class LoadedEngine:
    """One engine with one execution context.

    Args:
        plan: bytes that :func:`fine_edge.engine.manifest.verified_plan` returned.
        where: the file of the plan, for messages.
        plugins: plugin libraries that the plan needs.

    Raises:
        BackendError: when TensorRT refuses the plan, a plugin library does not load, or memory runs out.
        ArtifactError: when more than the batch of the engine's shapes is open.
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
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self._ranges = {name: found for name in names if (found := _range(self.engine, name, where))}
        self.batches = _batches(self._ranges, where)
        self.context = self.new_context()
        if self.batches:
            self.use_batch(self.context, self.batches[2])
        self.ports = tuple(_port(self.engine, self.context, name, self.batches, where) for name in names)
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

    def use_batch(self, context: trt.IExecutionContext, count: int) -> None:
        """Give a context's open inputs the shape of a batch; later inferences have it."""
        for name, (_, _, most) in self._ranges.items():
            if not context.set_input_shape(name, (count, *most[1:])):
                raise failure(f"TensorRT refuses a batch of {count} in {name}", self.where, self.log)

    def dtypes_of(self, contract: Contract | None) -> dict[str, np.dtype[Any]]:
        """Return the contract's element types by tensor.

        Raises:
            ArtifactError: when the engine has other names, shapes or batches.
        """
        if contract is None:
            return {}
        expected = {(spec.name, True, spec.shape) for spec in contract.inputs}
        expected |= {(spec.name, False, spec.shape) for spec in contract.outputs}
        same = expected == {(port.name, port.is_input, port.shape) for port in self.ports}
        if not same or self.batches != contract.batches:
            found = ", ".join(f"{port.name} {port.shape_text}" for port in self.ports)
            raise ArtifactError(
                f"the engine's tensors are not its contract's: {found}",
                where=self.where,
                hint="build it again: make engine MODEL=... ARGS=--rebuild",
            )
        return {spec.name: np.dtype(spec.dtype) for spec in (*contract.inputs, *contract.outputs)}

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


def _numbers(dims: trt.Dims) -> tuple[int, ...]:
    return tuple(int(dims[axis]) for axis in range(len(dims)))  # Dims is no sequence of Python's


def _range(engine: trt.ICudaEngine, name: str, where: Path) -> _Range | None:
    """Return the smallest, the optimal and the largest shape of an open input; ``None`` for any other tensor."""
    import tensorrt as trt

    if engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT or -1 not in _numbers(engine.get_tensor_shape(name)):
        return None
    least, best, most = (_numbers(dims) for dims in engine.get_tensor_profile_shape(name, 0))
    if not least[1:] == best[1:] == most[1:]:
        what = f"{name} takes {least} to {most}, only the batch may be open"
        raise ArtifactError(what, where=where, hint=_REBUILD)
    return least, best, most


def _batches(ranges: dict[str, _Range], where: Path) -> Batches | None:
    found = {(least[0], best[0], most[0]) for least, best, most in ranges.values()}
    if len(found) > 1:
        raise ArtifactError("its inputs take unlike batches", where=where, hint=_REBUILD)
    return found.pop() if found else None


def _port(
    engine: trt.ICudaEngine, context: trt.IExecutionContext, name: str, batches: Batches | None, where: Path
) -> Port:
    """Return a tensor with the shape that it has in a context, where open inputs have the largest batch."""
    import tensorrt as trt

    is_open = -1 in _numbers(engine.get_tensor_shape(name))
    shape = _numbers(context.get_tensor_shape(name) if is_open else engine.get_tensor_shape(name))
    if min(shape, default=1) < 1 or (is_open and (batches is None or shape[0] != batches[2])):
        what = f"{name} has shape {shape}, of which only the batch may be open"
        raise ArtifactError(what, where=where, hint=_REBUILD)
    kind = engine.get_tensor_dtype(name)
    to_numpy: Any = trt.nptype  # a Python function without annotations
    try:
        dtype = np.dtype(to_numpy(kind))
    except TypeError as error:  # bfloat16, fp8 and int4, which numpy lacks
        raise ArtifactError(f"{name} is {kind}, which numpy has no type for", where=where, hint=_REBUILD) from error
    least = batches[0] if is_open and batches else None
    return Port(name, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT, shape, dtype, least)


# The buffers of one inference, in pinned host memory and on the device, and the events between its stages.


class Slot:
    """Buffers and events for one inference in flight, allocated once, for the largest batch where that is open.

    Args:
        cuda: the CUDA that allocates them.
        ports: the engine's tensors.
        dtypes: the callers' element types by tensor, where they differ from the engine's.
        spin: whether waiting keeps a core busy.
    """

    def __init__(self, cuda: Cuda, ports: Sequence[Port], dtypes: dict[str, np.dtype[Any]], *, spin: bool) -> None:
        self._cuda = cuda
        self._inputs = [port for port in ports if port.is_input]
        self._outputs = [port for port in ports if not port.is_input]
        self._dtypes = {port.name: dtypes.get(port.name, port.dtype) for port in ports}
        self.graph: Graph | None = None
        self.count: int | None = next((port.shape[0] for port in ports if port.least is not None), None)
        """The pictures of the inference, where the batch is open; the largest batch before the first one."""
        self._owned = contextlib.ExitStack()
        try:
            self._host = {port.name: self._pinned(port) for port in ports}
            self._device = {port.name: self._allocated(port) for port in ports}
            self.started, self.uploaded, self.computed, self.done = (cuda.event(spin=spin) for _ in range(4))
            self._owned.callback(self._drop_events)
        except BaseException:
            self._owned.close()
            raise

    def _pinned(self, port: Port) -> NDArray[Any]:
        array = self._cuda.pinned(port.shape, port.dtype)
        self._owned.callback(self._cuda.free_pinned, array)
        array.fill(0)
        return array

    def _allocated(self, port: Port) -> Any:
        memory = self._cuda.allocate(port.nbytes)
        self._owned.callback(memory.free)
        return memory

    @property
    def addresses(self) -> dict[str, int]:
        """The device address of each tensor."""
        return {name: int(memory) for name, memory in self._device.items()}

    def fill(self, inputs: dict[str, Array]) -> None:
        """Copy inputs into pinned memory.

        Raises:
            ArtifactError: when the engine does not take a name, shape or type.
        """
        hint = "give the inputs of the contract beside the engine, or build the engine of this model"
        expected = [port.name for port in self._inputs]
        if sorted(inputs) != sorted(expected):
            what = f"the engine takes {', '.join(expected)}, not {', '.join(inputs) or 'nothing'}"
            raise ArtifactError(what, hint=hint)
        for port in self._inputs:
            array, dtype = inputs[port.name], self._dtypes[port.name]
            if not port.takes(array.shape) or array.dtype != dtype:
                what = f"{port.name} is {array.dtype} {array.shape}, the engine takes {dtype} {port.shape_text}"
                raise ArtifactError(what, hint=hint)
        counts = {len(inputs[port.name]) for port in self._inputs if port.least is not None}
        if len(counts) > 1:
            raise ArtifactError(f"the inputs have batches of {', '.join(map(str, sorted(counts)))}", hint=hint)
        self.count = counts.pop() if counts else None
        for port in self._inputs:
            np.copyto(self._used(port), inputs[port.name], casting="same_kind")

    def _used(self, port: Port) -> NDArray[Any]:
        """Return the part of a tensor's pinned memory that the batch takes."""
        host = self._host[port.name]
        return host if port.least is None else host[: self.count]

    def upload(self, stream: Stream) -> None:
        """Queue the copies of all inputs to the device."""
        for port in self._inputs:
            self._cuda.to_device(self._device[port.name], self._used(port), stream)

    def download(self, stream: Stream) -> None:
        """Queue the copies of all outputs to the host."""
        for port in self._outputs:
            self._cuda.to_host(self._used(port), self._device[port.name], stream)

    def outputs(self) -> dict[str, Array]:
        """Return copies of the outputs, which stay valid during later inferences."""
        return {port.name: self._used(port).astype(self._dtypes[port.name]) for port in self._outputs}

    def timing(self) -> Timing:
        """Return the times of the inference that has just ended in this slot."""
        return Timing(
            latency_ms=self.started.time_till(self.done),
            compute_ms=self.uploaded.time_till(self.computed),
            h2d_ms=self.started.time_till(self.uploaded),
            d2h_ms=self.computed.time_till(self.done),
        )

    def _drop_events(self) -> None:
        del self.started, self.uploaded, self.computed, self.done

    def drop_graph(self) -> None:
        """Free the CUDA graph, if there is one."""
        graph, self.graph = self.graph, None
        if graph is not None:
            graph.close()

    def close(self) -> None:
        """Free graph, device memory and pinned memory. Closing twice is harmless."""
        self.drop_graph()
        self._owned.close()
