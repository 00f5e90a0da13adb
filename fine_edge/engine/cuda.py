"""CUDA for runners: memory, streams, events and graphs. The only module that uses pycuda and libcuda.

CUDA graphs use the driver API through ctypes, because pycuda lacks them. Signatures: CUDA Driver API, "Stream
Management" (cuStreamBeginCapture_v2, cuStreamEndCapture) and "Graph Management" (cuGraphInstantiateWithFlags,
cuGraphLaunch, cuGraphExecDestroy, cuGraphDestroy), cuda.h of CUDA 12 and 13.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fine_edge.errors import BackendError, MissingExtraError

_DOCTOR = "run python -m fine_edge doctor: it lists what this machine lacks"
_MEMORY = "close other programs and the desktop (sudo systemctl isolate multi-user.target), or add swap"
# CU_STREAM_NON_BLOCKING and CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of cuda.h: trtexec uses them too.
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1


@dataclass(frozen=True)
class GpuInfo:
    """The first CUDA device: its name, compute capability (87: Orin), the driver's CUDA version, and its memory."""

    name: str
    sm: int
    driver: str
    total_bytes: int


class DeviceMemory(Protocol):
    """Memory on the device; ``int()`` gives its address."""

    def __int__(self) -> int:
        """Return the address."""
        ...

    def free(self) -> None:
        """Free the memory."""
        ...


class Stream(Protocol):
    """A queue of work on the device."""

    @property
    def handle(self) -> int:
        """The CUstream that TensorRT takes."""
        ...

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        ...

    def wait_for_event(self, event: Any) -> None:
        """Make later work in this stream wait for an event of another stream."""
        ...


class Event(Protocol):
    """A mark in a stream with the time when the device reached it."""

    def record(self, stream: Any) -> object:
        """Queue the mark behind the work in a stream."""
        ...

    def synchronize(self) -> object:
        """Wait until the device reaches the mark."""
        ...

    def time_till(self, end: Any) -> float:
        """Return the milliseconds from this mark to a later one; the device must have reached both."""
        ...


def _driver() -> Any:
    """Return pycuda's driver module, initialised.

    Raises:
        MissingExtraError: without pycuda.
        BackendError: without a CUDA driver or device.
    """
    try:
        import pycuda.driver
    except ModuleNotFoundError as error:
        raise MissingExtraError("pycuda", "device") from error
    except ImportError as error:  # pycuda is installed, libcuda.so.1 is missing
        raise BackendError(f"no CUDA driver on this machine ({error})", hint=_DOCTOR) from error
    try:
        pycuda.driver.init()
        devices = pycuda.driver.Device.count()
    except pycuda.driver.Error as error:
        raise BackendError(f"CUDA does not start ({error})", hint=_DOCTOR) from error
    if not devices:
        raise BackendError("no CUDA device on this machine", hint=_DOCTOR)
    return pycuda.driver


def _describe(driver: Any, device: Any) -> GpuInfo:
    major, minor = device.compute_capability()
    version = driver.get_driver_version()  # 12060 for 12.6
    return GpuInfo(
        name=str(device.name()),
        sm=10 * int(major) + int(minor),
        driver=f"{version // 1000}.{version % 1000 // 10}",
        total_bytes=int(device.total_memory()),
    )


def gpu_info() -> GpuInfo:
    """Return the first CUDA device of this machine without making a context.

    Raises:
        MissingExtraError: without pycuda.
        BackendError: without a CUDA driver or device.
    """
    driver = _driver()
    return _describe(driver, driver.Device(0))


class Cuda:
    """The first CUDA device; its primary context is current until :meth:`close`.

    TensorRT uses the primary context, so both share memory. pycuda aborts the process when a context is still current
    at exit, so an exit hook closes a context that the caller forgot.
    """

    def __init__(self) -> None:
        self._driver = _driver()
        device = self._driver.Device(0)
        self.gpu = _describe(self._driver, device)
        with self.errors("CUDA cannot make a context"):
            self._context = device.retain_primary_context()
            self._context.push()
        atexit.register(self.close)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn pycuda's errors inside the block into a :class:`BackendError` whose text begins with ``what``."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise BackendError(f"{what} ({error})", hint=_MEMORY) from error
        except self._driver.Error as error:
            raise BackendError(f"{what} ({error})", hint=_DOCTOR) from error

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes of device memory (cuMemGetInfo); a Jetson shares them with the host."""
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> DeviceMemory:
        """Allocate ``size`` bytes on the device."""
        memory: DeviceMemory = self._driver.mem_alloc(size)
        return memory

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Allocate a page-locked host array, uninitialised; the device copies from and to it directly."""
        array: NDArray[Any] = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        """Free a page-locked array; the caller must not use it afterwards."""
        base: Any = array.base
        base.free()

    def stream(self) -> Stream:
        """Create a stream that never waits for the default stream."""
        stream: Stream = self._driver.Stream(_NON_BLOCKING)
        return stream

    def event(self, *, spin: bool = False) -> Event:
        """Create an event with a time; waiting for it sleeps, or with ``spin`` keeps a core busy."""
        flags = self._driver.event_flags
        event: Event = self._driver.Event(flags.DEFAULT if spin else flags.BLOCKING_SYNC)
        return event

    def to_device(self, device: DeviceMemory, host: NDArray[Any], stream: Stream) -> None:
        """Queue a copy of a whole pinned array to the device."""
        self._driver.memcpy_htod_async(device, host, stream)

    def to_host(self, host: NDArray[Any], device: DeviceMemory, stream: Stream) -> None:
        """Queue a copy from the device that fills a whole pinned array."""
        self._driver.memcpy_dtoh_async(host, device, stream)

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph:
        """Record a graph of the work that ``enqueue`` puts into ``stream``, without running it.

        Raises:
            BackendError: when a part of it cannot be captured; the stream stays usable.
        """
        return Graph(stream, enqueue)

    def close(self) -> None:
        """Release the context. Streams and events must be freed before. Closing twice is harmless."""
        context, self._context = self._context, None
        if context is not None:
            atexit.unregister(self.close)
            # Not pop(): pycuda would end the context with cuCtxDetach, which fails for a primary context.
            context.detach()


@functools.lru_cache(maxsize=1)
def _libcuda() -> Any:
    """Return the driver library with the signatures of the functions used here."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"no CUDA driver on this machine ({error})", hint=_DOCTOR) from error
    handle, out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    for name, arguments in {
        "cuStreamBeginCapture_v2": [handle, ctypes.c_int],
        "cuStreamEndCapture": [handle, out],
        "cuGraphInstantiateWithFlags": [out, handle, ctypes.c_ulonglong],
        "cuGraphLaunch": [handle, handle],
        "cuGraphExecDestroy": [handle],
        "cuGraphDestroy": [handle],
        "cuGetErrorName": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    }.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return library


def _check(library: Any, call: str, *arguments: Any) -> None:
    """Call a function of the driver API; raise :class:`BackendError` unless it returns CUDA_SUCCESS."""
    code = getattr(library, call)(*arguments)
    if code:
        name = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(name))
        raise BackendError(f"{call} failed ({(name.value or b'CUDA error').decode()}, {code})", hint=_DOCTOR)


class Graph:
    """A CUDA graph: an inference that was recorded from a stream and runs as one launch."""

    def __init__(self, stream: Stream, enqueue: Callable[[], bool]) -> None:
        self._library = _libcuda()
        self._executable: ctypes.c_void_p | None = None
        graph = self._record(stream, enqueue)
        executable = ctypes.c_void_p()
        try:
            _check(self._library, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:  # the executable graph does not need its template
            _check(self._library, "cuGraphDestroy", graph)
        self._executable = executable

    def _record(self, stream: Stream, enqueue: Callable[[], bool]) -> ctypes.c_void_p:
        handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
        _check(self._library, "cuStreamBeginCapture_v2", handle, _CAPTURE_THREAD_LOCAL)
        captured = False
        try:
            captured = enqueue()
        finally:  # a stream that stays in capture mode cannot be used
            code = self._library.cuStreamEndCapture(handle, ctypes.byref(graph))
            if graph.value and (code or not captured):
                _check(self._library, "cuGraphDestroy", graph)
        if code or not captured or not graph.value:
            raise BackendError(
                f"a part of the inference cannot be captured in a CUDA graph (cuStreamEndCapture returned {code})",
                hint="leave out the CUDA graph",
            )
        return graph

    def launch(self, stream: Stream) -> None:
        """Queue the graph."""
        _check(self._library, "cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Free the graph. Closing twice is harmless. Errors are ignored: a failed device has freed the graph."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._library.cuGraphExecDestroy(executable)
