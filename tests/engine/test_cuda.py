"""CUDA's boundary: pycuda and libcuda are fakes here, called by the names and in the order of the real ones."""

from __future__ import annotations

import builtins
import ctypes
import sys
import types

import numpy as np
import pytest

from fine_edge.engine import cuda
from fine_edge.engine.cuda import Cuda, GpuInfo
from fine_edge.errors import BackendError, MissingExtraError


class Error(Exception):
    pass


class CudaMemoryError(Error):
    pass


class Context:
    def __init__(self, journal):
        self.journal = journal

    def push(self):
        self.journal.append("push")

    def detach(self):
        self.journal.append("detach")


class Device:
    journal: list
    found = 1

    def __init__(self, number):
        assert number == 0

    @staticmethod
    def count():
        return Device.found

    def name(self):
        return "Orin"

    def compute_capability(self):
        return (8, 7)

    def total_memory(self):
        return 7_992_000_512

    def retain_primary_context(self):
        return Context(self.journal)


@pytest.fixture
def pycuda(monkeypatch):
    """A pycuda whose driver module is filled in by the test."""
    driver = types.ModuleType("pycuda.driver")
    driver.journal = Device.journal = []
    driver.Error, driver.MemoryError, driver.Device = Error, CudaMemoryError, Device
    driver.init = lambda: None
    driver.get_driver_version = lambda: 12060
    package = types.ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(Device, "found", 1)
    return driver


def blocked(monkeypatch, error):
    original = builtins.__import__

    def importing(name, *args, **kwargs):
        if name.startswith("pycuda"):
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_the_device_is_described_without_a_context(pycuda):
    assert cuda.gpu_info() == GpuInfo("Orin", 87, "12.6", 7_992_000_512)
    assert pycuda.journal == []


def test_without_pycuda_it_says_what_to_install(monkeypatch):
    blocked(monkeypatch, ModuleNotFoundError("No module named 'pycuda'"))
    with pytest.raises(MissingExtraError, match="pycuda") as caught:
        cuda.gpu_info()
    assert "fine-edge[device]" in str(caught.value)


@pytest.mark.usefixtures("pycuda")
def test_without_a_driver_it_is_one_line(monkeypatch):
    blocked(monkeypatch, ImportError("libcuda.so.1: cannot open shared object file"))
    with pytest.raises(BackendError, match="no CUDA driver on this machine"):
        Cuda()


def test_without_a_device_it_is_one_line(pycuda, monkeypatch):
    monkeypatch.setattr(Device, "found", 0)
    with pytest.raises(BackendError, match="no CUDA device"):
        Cuda()

    def fails():
        raise Error("cuInit failed: no CUDA-capable device is detected")

    pycuda.init = fails
    with pytest.raises(BackendError, match="CUDA does not start"):
        cuda.gpu_info()


def test_the_context_is_taken_and_let_go_once(pycuda):
    opened = Cuda()
    assert opened.gpu.sm == 87
    opened.close()
    opened.close()
    assert pycuda.journal == ["push", "detach"]


@pytest.mark.usefixtures("pycuda")
@pytest.mark.parametrize(("kind", "hint"), [(CudaMemoryError, "add swap"), (Error, "doctor")])
def test_errors_of_pycuda_become_one_line_with_a_hint(kind, hint):
    opened = Cuda()
    with pytest.raises(BackendError, match="inference failed") as caught, opened.errors("inference failed"):
        raise kind("cuMemAlloc failed: out of memory")
    assert hint in str(caught.value)
    with pytest.raises(ZeroDivisionError), opened.errors("inference failed"):
        raise ZeroDivisionError
    opened.close()


def test_memory_streams_and_events_are_pycudas(pycuda):
    pycuda.mem_get_info = lambda: (5, 9)
    pycuda.mem_alloc = lambda size: ("memory", size)
    pycuda.Stream = lambda flags: ("stream", flags)
    pycuda.Event = lambda flags: ("event", flags)
    pycuda.event_flags = types.SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1)
    pycuda.memcpy_htod_async = lambda dest, src, stream: pycuda.journal.append(("htod", dest, src, stream))
    pycuda.memcpy_dtoh_async = lambda dest, src, stream: pycuda.journal.append(("dtoh", dest, src, stream))
    freed = []

    class Pinned(np.ndarray):
        base = types.SimpleNamespace(free=lambda: freed.append(1))

    pycuda.pagelocked_empty = lambda shape, dtype: np.zeros(shape, dtype).view(Pinned)
    opened = Cuda()
    assert opened.memory() == (5, 9)
    assert opened.allocate(12) == ("memory", 12)
    assert opened.stream() == ("stream", 1)  # CU_STREAM_NON_BLOCKING
    assert (opened.event(), opened.event(spin=True)) == (("event", 1), ("event", 0))
    array = opened.pinned((2, 3), "float16")
    assert (array.shape, array.dtype) == ((2, 3), np.float16)
    opened.to_device("d", "h", "s")
    opened.to_host("h", "d", "s")
    assert pycuda.journal[-2:] == [("htod", "d", "h", "s"), ("dtoh", "h", "d", "s")]
    opened.free_pinned(array)
    assert freed == [1]
    opened.close()


class Library:
    """libcuda's functions, each with a return code, as ctypes would call them."""

    def __init__(self, **codes):
        self.codes = codes
        self.journal = []
        for name in (
            "cuStreamBeginCapture_v2",
            "cuStreamEndCapture",
            "cuGraphInstantiateWithFlags",
            "cuGraphLaunch",
            "cuGraphExecDestroy",
            "cuGraphDestroy",
            "cuGetErrorName",
        ):
            setattr(self, name, self._function(name))

    def _function(self, name):
        def call(*arguments):
            # Real ctypes would refuse what does not fit the declared types.
            for kind, argument in zip(call.argtypes, arguments, strict=True):
                kind.from_param(argument)
            self.journal.append(name)
            code = self.codes.get(name, 0)
            if name == "cuStreamEndCapture" and not code:
                ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_void_p))[0] = 0x9000
            if name == "cuGraphInstantiateWithFlags" and not code:
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_void_p))[0] = 0x9100
            if name == "cuGetErrorName":
                ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_char_p))[0] = b"CUDA_ERROR_INVALID_VALUE"
            return code

        return call


@pytest.fixture
def libcuda(monkeypatch):
    def installed(**codes):
        library = Library(**codes)
        monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": library}.__getitem__)
        cuda._libcuda.cache_clear()
        return library

    yield installed
    cuda._libcuda.cache_clear()


STREAM = types.SimpleNamespace(handle=0x1008)


def test_a_graph_is_recorded_launched_and_freed(libcuda):
    library = libcuda()
    graph = cuda.Graph(STREAM, lambda: library.journal.append("work") or True)
    graph.launch(STREAM)
    graph.close()
    graph.close()
    assert library.journal == [
        "cuStreamBeginCapture_v2",
        "work",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]


@pytest.mark.parametrize(("worked", "codes"), [(False, {}), (True, {"cuStreamEndCapture": 901})])
def test_a_recording_that_fails_ends_the_capture_and_frees_what_there_is(libcuda, worked, codes):
    library = libcuda(**codes)
    with pytest.raises(BackendError, match="cannot be captured"):
        cuda.Graph(STREAM, lambda: worked)
    assert library.journal[1] == "cuStreamEndCapture"
    assert ("cuGraphDestroy" in library.journal) == (not codes)


def test_an_exception_while_recording_ends_the_capture(libcuda):
    library = libcuda()
    with pytest.raises(ZeroDivisionError):
        cuda.Graph(STREAM, lambda: 1 // 0)
    assert library.journal == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuGraphLaunch"])
def test_codes_of_the_driver_are_named(libcuda, call):
    libcuda(**{call: 1})
    with pytest.raises(BackendError, match=rf"{call} failed \(CUDA_ERROR_INVALID_VALUE, 1\)"):
        cuda.Graph(STREAM, lambda: True).launch(STREAM)


def test_without_the_driver_library_it_is_one_line(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    cuda._libcuda.cache_clear()
    with pytest.raises(BackendError, match=r"libcuda\.so\.1"):
        cuda.Graph(STREAM, lambda: True)
