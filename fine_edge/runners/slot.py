"""The buffers of one inference, in pinned host memory and on the device, and the events between its stages."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.engine.cuda import Cuda, Graph, Stream
from fine_edge.errors import ArtifactError
from fine_edge.runners.base import Array, Timing
from fine_edge.runners.trt_engine import Port


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
