"""CUDA as a runner needs it: memory, streams, events and graphs. The only module that touches pycuda and libcuda.

CUDA graphs go through the driver API by ctypes, since pycuda has none. Signatures: CUDA Driver API, "Stream
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

_DOCTOR = "python -m fine_edge doctor says what this machine lacks"
_MEMORY = "close other programs and the desktop (sudo systemctl isolate multi-user.target), or add swap"
# CU_STREAM_NON_BLOCKING and CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of cuda.h: as trtexec makes and captures streams.
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
        """The address."""
        ...

    def free(self) -> None:
        """Give it back."""
        ...


class Stream(Protocol):
    """A queue of work on the device."""

    @property
    def handle(self) -> int:
        """The CUstream, as TensorRT wants it."""
        ...

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        ...

    def wait_for_event(self, event: Any) -> None:
        """Let what is queued next wait for an event of another stream."""
        ...


class Event(Protocol):
    """A mark in a stream that knows when it was reached."""

    def record(self, stream: Any) -> object:
        """Put the mark behind what is queued now."""
        ...

    def synchronize(self) -> object:
        """Wait until the mark is reached."""
        ...

    def time_till(self, end: Any) -> float:
        """Milliseconds from this mark to a later one, both reached."""
        ...


def _driver() -> Any:
    """The driver module of pycuda, initialised.

    Raises:
        MissingExtraError: without pycuda.
        BackendError: without a CUDA driver or device.
    """
    try:
        import pycuda.driver
    except ModuleNotFoundError as error:
        raise MissingExtraError("pycuda", "device") from error
    except ImportError as error:  # pycuda is here, libcuda.so.1 is not
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
    """The first CUDA device of this machine; makes no context.

    Raises:
        MissingExtraError: without pycuda.
        BackendError: without a CUDA driver or device.
    """
    driver = _driver()
    return _describe(driver, driver.Device(0))


class Cuda:
    """The first CUDA device with its primary context current, until :meth:`close`.

    The primary context is the one that TensorRT uses, so both see the same memory. pycuda ends the whole
    process when a context is still current at exit, hence the hook that closes what was forgotten.
    """

    def __init__(self) -> None:
        self._driver = _driver()
        device = self._driver.Device(0)
        self.gpu = _describe(self._driver, device)
        with self.errors("CUDA gives no context"):
            self._context = device.retain_primary_context()
            self._context.push()
        atexit.register(self.close)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn pycuda's errors inside the block into a :class:`BackendError` that begins with ``what``."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise BackendError(f"{what} ({error})", hint=_MEMORY) from error
        except self._driver.Error as error:
            raise BackendError(f"{what} ({error})", hint=_DOCTOR) from error

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory (cuMemGetInfo). On a Jetson the host shares both."""
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> DeviceMemory:
        """``size`` bytes on the device."""
        memory: DeviceMemory = self._driver.mem_alloc(size)
        return memory

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A page-locked host array, which the device copies from and to without a detour. Not initialised."""
        array: NDArray[Any] = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        """Give a page-locked array back; nothing may look at it any more."""
        base: Any = array.base
        base.free()

    def stream(self) -> Stream:
        """A stream of its own, which never waits for the default stream."""
        stream: Stream = self._driver.Stream(_NON_BLOCKING)
        return stream

    def event(self, *, spin: bool = False) -> Event:
        """An event with a time. Waiting for it lets the processor sleep, or burns a core with ``spin``."""
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
        """A graph of what ``enqueue`` puts into ``stream``; nothing of it runs yet.

        Raises:
            BackendError: when something in it cannot be captured; the stream can be used as before.
        """
        return Graph(stream, enqueue)

    def close(self) -> None:
        """Let go of the context; streams and events must be gone by then. Closing twice is harmless."""
        context, self._context = self._context, None
        if context is not None:
            atexit.unregister(self.close)
            # Not pop(): pycuda would then end the context by cuCtxDetach, which a primary context does not take.
            context.detach()


@functools.lru_cache(maxsize=1)
def _libcuda() -> Any:
    """The driver library with the signatures of what is called."""
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
    """Call a function of the driver API; anything but CUDA_SUCCESS becomes a :class:`BackendError`."""
    code = getattr(library, call)(*arguments)
    if code:
        name = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(name))
        raise BackendError(f"{call} failed ({(name.value or b'CUDA error').decode()}, {code})", hint=_DOCTOR)


class Graph:
    """An inference as one launch, recorded from a stream."""

    def __init__(self, stream: Stream, enqueue: Callable[[], bool]) -> None:
        self._library = _libcuda()
        self._executable: ctypes.c_void_p | None = None
        graph = self._record(stream, enqueue)
        executable = ctypes.c_void_p()
        try:
            _check(self._library, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:  # the executable graph needs its template no longer
            _check(self._library, "cuGraphDestroy", graph)
        self._executable = executable

    def _record(self, stream: Stream, enqueue: Callable[[], bool]) -> ctypes.c_void_p:
        handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
        _check(self._library, "cuStreamBeginCapture_v2", handle, _CAPTURE_THREAD_LOCAL)
        captured = False
        try:
            captured = enqueue()
        finally:  # a stream that stays in capture mode is of no further use
            code = self._library.cuStreamEndCapture(handle, ctypes.byref(graph))
            if graph.value and (code or not captured):
                _check(self._library, "cuGraphDestroy", graph)
        if code or not captured or not graph.value:
            raise BackendError(f"a part of it cannot be captured in a CUDA graph (cuStreamEndCapture gave {code})")
        return graph

    def launch(self, stream: Stream) -> None:
        """Queue the whole graph."""
        _check(self._library, "cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Free it. Closing twice is harmless, and so is a device that has failed: it took the graph with it."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._library.cuGraphExecDestroy(executable)
