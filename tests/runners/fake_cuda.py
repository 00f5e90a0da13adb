"""A CUDA device in memory: what is queued on a stream happens at once, in a time of its own that the tests know.

Stands where :class:`fine_edge.engine.cuda.Cuda` stands; ``test_fakes.py`` holds the two to the same signatures.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np

from fine_edge.engine.cuda import GpuInfo
from fine_edge.errors import BackendError

MIB = 2**20
COPY_MS = 0.25
COMPUTE_MS = 10.0
GRAPH_MS = 9.0
ORIN = GpuInfo("Orin", 87, "12.6", 7 * 1024 * MIB)


class FakeCudaError(Exception):
    """As pycuda's own errors: :meth:`FakeCuda.errors` turns it into one that people can read."""


class FakeDevice:
    """What all fakes share: memory by address, streams by handle, and a journal of everything that was done."""

    def __init__(self):
        self.journal = []
        self.memory = {}
        self.streams = {}
        self.free_bytes = 4096 * MIB
        self.refuses_capture = False
        self.fails_at = None
        self.capturing = None
        self.numbers = itertools.count(1)

    def note(self, *entry):
        if self.fails_at == entry[0]:
            raise FakeCudaError(f"{entry[0]} failed")
        self.journal.append(entry)

    def what(self):
        """The kinds of the journal's entries, in order."""
        return [entry[0] for entry in self.journal]


class FakeMemory:
    def __init__(self, device, size):
        device.note("alloc", size)
        self.device = device
        self.address = 0x1000 * next(device.numbers)
        self.size = size
        device.memory[self.address] = np.zeros(size, np.uint8)
        device.free_bytes -= size

    def __int__(self):
        return self.address

    def free(self):
        self.device.note("free", self.size)
        self.device.free_bytes += self.size
        del self.device.memory[self.address]


class FakeStream:
    def __init__(self, device):
        self.device = device
        self.handle = next(device.numbers)
        self.now_ms = 0.0
        device.streams[self.handle] = self
        device.note("stream", self.handle)

    def synchronize(self):
        self.device.note("stream sync", self.handle)

    def wait_for_event(self, event):
        self.device.note("wait", self.handle)
        self.now_ms = max(self.now_ms, event.at_ms)


class FakeEvent:
    def __init__(self, device, spin):
        self.device = device
        self.spin = spin
        self.at_ms = None
        device.note("event", spin)

    def record(self, stream):
        self.device.note("record", stream.handle)
        self.at_ms = stream.now_ms
        return self

    def synchronize(self):
        self.device.note("sync")
        return self

    def time_till(self, end):
        return end.at_ms - self.at_ms


class FakeGraph:
    def __init__(self, device, stream, enqueue):
        self.device = device
        device.note("capture", stream.handle)
        device.capturing = []
        try:
            captured = enqueue() and not device.refuses_capture
            self.work = device.capturing
        finally:
            device.capturing = None
        if not captured:
            raise BackendError("a part of it cannot be captured in a CUDA graph")

    def launch(self, stream):
        self.device.note("launch", stream.handle)
        for work in self.work:
            work()
        stream.now_ms += GRAPH_MS

    def close(self):
        self.device.note("graph close")


class FakeCuda:
    """The present :class:`FakeDevice` is set by the fixture ``device``."""

    device: FakeDevice

    def __init__(self):
        self.gpu = ORIN
        self.is_open = True
        self.device.note("open")

    @contextlib.contextmanager
    def errors(self, what):
        try:
            yield
        except FakeCudaError as error:
            raise BackendError(f"{what} ({error})", hint="look at it") from error

    def memory(self):
        return self.device.free_bytes, ORIN.total_bytes

    def allocate(self, size):
        return FakeMemory(self.device, size)

    def pinned(self, shape, dtype):
        self.device.note("pinned", shape)
        return np.full(shape, 7, dtype)

    def free_pinned(self, array):
        self.device.note("free pinned", array.shape)

    def stream(self):
        return FakeStream(self.device)

    def event(self, *, spin=False):
        return FakeEvent(self.device, spin)

    def to_device(self, device, host, stream):
        self.device.note("h2d", stream.handle, host.nbytes)
        self.device.memory[int(device)][: host.nbytes] = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
        stream.now_ms += COPY_MS

    def to_host(self, host, device, stream):
        self.device.note("d2h", stream.handle, host.nbytes)
        host.reshape(-1).view(np.uint8)[:] = self.device.memory[int(device)][: host.nbytes]
        stream.now_ms += COPY_MS

    def capture(self, stream, enqueue):
        return FakeGraph(self.device, stream, enqueue)

    def close(self):
        if self.is_open:
            self.device.note("close")
        self.is_open = False
