"""TensorRT 10.x on this machine's GPU, without torch.

Timed as trtexec times it (NVIDIA/TensorRT, samples/common/sampleInference.cpp and sampleReporting.cpp): latency is
host-to-device copy + compute + device-to-host copy, by CUDA events, from and to pinned memory. Filling the pinned
memory is in none of the three, as there; it is part of the throughput here, and of an end-to-end time.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge import console
from fine_edge.contract import Contract, contract_path
from fine_edge.engine.cuda import Cuda, Stream
from fine_edge.engine.manifest import Manifest
from fine_edge.engine.plan_file import contract_of, verified_plan
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.runners.base import Array, Timing
from fine_edge.runners.slot import Slot
from fine_edge.runners.trt_engine import LoadedEngine, Port, failure

# As trtexec: while one query computes, the next one's input is on its way.
_SLOTS = 2
_PROFILE_WARMUP_RUNS = 3


@dataclass(frozen=True)
class Lanes:
    """The streams of the three stages: one and the same for latency, three for throughput."""

    upload: Stream
    compute: Stream
    download: Stream


@dataclass(frozen=True)
class LoadCost:
    """What loading an engine and running it once took, bytes.

    On a Jetson both come out of one memory and overlap: host memory that grew is device memory that shrank.

    Attributes:
        plan: size of the plan.
        device: free device memory before minus after (cuMemGetInfo).
        host: growth of this process's resident set.
    """

    plan: int
    device: int
    host: int


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


class TrtRunner:
    """Runs one engine. Nothing is allocated after it is made, and outputs are copies.

    Args:
        engine_path: an engine with its manifest beside it.
        cuda: the CUDA to use, which stays open; ``None``: one of its own.
        cuda_graph: replay the inference from a CUDA graph. Where TensorRT cannot be captured, a remark says so.
        spin: burn a core while waiting instead of sleeping (trtexec's ``--useSpinWait``).

    Raises:
        ArtifactError: when engine, manifest and contract do not belong together.
        BackendError: when this machine must not or cannot run it; the plan is then not deserialised.
    """

    name = "tensorrt"

    def __init__(
        self, engine_path: Path, *, cuda: Cuda | None = None, cuda_graph: bool = False, spin: bool = False
    ) -> None:
        platform = here()
        require_tensorrt(platform, engine_path.name.partition(".")[0])
        self.manifest, plan = verified_plan(engine_path, platform)
        self.contract = _contract(engine_path, self.manifest)
        self._path = engine_path
        with contextlib.ExitStack() as stack:
            self._cuda = cuda or stack.enter_context(contextlib.closing(Cuda()))
            with self._cuda.errors(f"{engine_path.name} cannot be loaded"):
                self._load(plan, stack, cuda_graph=cuda_graph, spin=spin)
            self._owned = stack.pop_all()

    def _load(self, plan: bytes, stack: contextlib.ExitStack, *, cuda_graph: bool, spin: bool) -> None:
        free_before, resident_before = self._cuda.memory()[0], _resident_bytes()
        self._engine = LoadedEngine(plan, self._path, self.manifest.options.plugins)
        stack.callback(self._engine.close)
        dtypes = _contract_dtypes(self._path, self._engine.ports, self.contract)
        upload, compute, download = (self._cuda.stream() for _ in range(3))
        self._alone = Lanes(compute, compute, compute)
        self._overlapped = Lanes(upload, compute, download)
        stack.callback(self._drop_streams)
        self._slots = []
        for _ in range(_SLOTS):
            slot = Slot(self._cuda, self._engine.ports, dtypes, spin=spin)
            stack.callback(slot.close)
            self._slots.append(slot)
        for stream in (upload, compute, download):
            stack.callback(self._settle, stream)
        self._bound: Slot | None = None
        self._finish_first_run()
        self.cuda_graph = cuda_graph and self._capture()
        self._engine.log.errors.clear()  # such as why there is no graph: not the reason for what may fail later
        self.load_cost = LoadCost(
            plan=len(plan),
            device=free_before - self._cuda.memory()[0],
            host=_resident_bytes() - resident_before,
        )

    @property
    def activation_bytes(self) -> int:
        """Device memory that the execution context holds for activations and scratch."""
        return self._engine.activation_bytes

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One inference.

        Raises:
            ArtifactError: when a name, shape or type is not what the engine takes.
            BackendError: when TensorRT or CUDA fails.
        """
        return self._one(inputs).outputs()

    def timed(self, inputs: dict[str, Array]) -> Timing:
        """One inference and its times on the device."""
        return self._one(inputs).timing()

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        """Two inferences in flight, copies on streams of their own, as trtexec's default. Outputs are copied out."""
        in_flight: deque[Slot] = deque()
        queries = 0
        with self._cuda.errors("inference failed"):
            try:
                for queries, feed in enumerate(feeds, 1):
                    slot = self._slots[queries % _SLOTS]
                    if slot in in_flight:
                        self._collect(in_flight)
                    slot.fill(feed)
                    self._submit(slot, self._overlapped)
                    in_flight.append(slot)
            finally:  # a slot in flight must not be filled by whoever comes next
                while in_flight:
                    self._collect(in_flight)
        return queries

    def profile(self, inputs: dict[str, Array], runs: int) -> dict[str, list[float]]:
        """Milliseconds by layer, in the order of execution, of each of ``runs`` inferences.

        In an execution context of its own, since TensorRT times layers by slowing the inference down.
        """
        import tensorrt as trt

        class _Times(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.by_layer: dict[str, list[float]] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.by_layer.setdefault(layer_name, []).append(ms)

        slot, stream, times = self._slots[0], self._alone.compute, _Times()
        slot.fill(inputs)
        context = self._engine.new_context()
        context.enqueue_emits_profile = False  # asked for after each inference instead, so that enqueueing stays async
        context.profiler = times
        self._engine.bind(context, slot.addresses)
        with self._cuda.errors("profiling failed"):
            slot.upload(stream)
            for run in range(_PROFILE_WARMUP_RUNS + runs):
                if run == _PROFILE_WARMUP_RUNS:
                    times.by_layer.clear()
                self._checked(context.execute_async_v3(stream.handle))
                stream.synchronize()
                self._checked(context.report_to_profiler())
        return times.by_layer

    def close(self) -> None:
        """Free graphs, buffers, context and engine. Closing twice is harmless."""
        self._owned.close()

    def _collect(self, in_flight: deque[Slot]) -> dict[str, Array]:
        """The outputs of the inference that was submitted first."""
        slot = in_flight.popleft()
        slot.done.synchronize()
        return slot.outputs()

    def _settle(self, stream: Stream) -> None:
        """Wait before anything is freed. A device that has failed is done as well."""
        with contextlib.suppress(BackendError), self._cuda.errors("waiting failed"):
            stream.synchronize()

    def _drop_streams(self) -> None:
        del self._alone, self._overlapped

    def _one(self, inputs: dict[str, Array]) -> Slot:
        """One inference, alone on the device; the slot that holds its results."""
        slot = self._slots[0]
        slot.fill(inputs)
        with self._cuda.errors("inference failed"):
            self._submit(slot, self._alone)
            slot.done.synchronize()
        return slot

    def _submit(self, slot: Slot, lanes: Lanes) -> None:
        """Queue the three stages of one inference and the marks between them."""
        slot.started.record(lanes.upload)
        slot.upload(lanes.upload)
        slot.uploaded.record(lanes.upload)
        if lanes.compute is not lanes.upload:
            lanes.compute.wait_for_event(slot.uploaded)
        if slot.graph is None:
            self._checked(self._enqueue(slot))
        else:
            slot.graph.launch(lanes.compute)
        slot.computed.record(lanes.compute)
        if lanes.download is not lanes.compute:
            lanes.download.wait_for_event(slot.computed)
        slot.download(lanes.download)
        slot.done.record(lanes.download)

    def _enqueue(self, slot: Slot) -> bool:
        """Queue the network itself; whether TensorRT took it."""
        if self._bound is not slot:
            self._engine.bind(self._engine.context, slot.addresses)
            self._bound = slot
        return bool(self._engine.context.execute_async_v3(self._alone.compute.handle))

    def _checked(self, ok: bool) -> None:
        if not ok:
            raise failure("TensorRT cannot run the engine", self._path, self._engine.log)

    def _finish_first_run(self) -> None:
        """What TensorRT and CUDA do only once, such as loading kernels, belongs to loading."""
        for slot in self._slots:
            self._submit(slot, self._alone)
            slot.done.synchronize()

    def _capture(self) -> bool:
        """A graph for each slot, since a graph holds addresses; whether that worked."""
        try:
            for slot in self._slots:
                slot.graph = self._cuda.capture(self._alone.compute, partial(self._enqueue, slot))
            self._finish_first_run()
        except BackendError as error:
            for slot in self._slots:
                slot.drop_graph()
            console.warn(f"{self._path.name} runs without a CUDA graph: {error.what}")
            return False
        return True


def _contract(engine_path: Path, manifest: Manifest) -> Contract | None:
    """The engine's contract; ``None`` for a plan that came without one, such as trtexec's."""
    if contract_path(engine_path.with_name(manifest.onnx_file)).is_file():
        return contract_of(engine_path)
    return None


def _contract_dtypes(path: Path, ports: tuple[Port, ...], contract: Contract | None) -> dict[str, np.dtype[Any]]:
    """Element types of the contract by tensor, after checking that the engine has its names and shapes."""
    if contract is None:
        return {}
    promised = {(spec.name, True, spec.shape) for spec in contract.inputs}
    promised |= {(spec.name, False, spec.shape) for spec in contract.outputs}
    if promised != {(port.name, port.is_input, port.shape) for port in ports}:
        found = ", ".join(f"{port.name} {port.shape}" for port in ports)
        raise ArtifactError(
            f"the engine's tensors are not its contract's: {found}",
            where=path,
            hint="make engine MODEL=... ARGS=--rebuild",
        )
    return {spec.name: np.dtype(spec.dtype) for spec in (*contract.inputs, *contract.outputs)}
