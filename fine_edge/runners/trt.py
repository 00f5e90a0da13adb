"""The runner of TensorRT 10.x on this machine's GPU, without torch.

It times like trtexec (NVIDIA/TensorRT, samples/common/sampleInference.cpp and sampleReporting.cpp): latency is
host-to-device copy + compute + device-to-host copy, by CUDA events, from and to pinned memory. Latency excludes the
filling of the pinned memory, as in trtexec. The throughput here and an end-to-end time include it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fine_edge import console
from fine_edge.contract import Contract, contract_path
from fine_edge.engine.cuda import Cuda, Stream
from fine_edge.engine.manifest import Manifest, contract_of, verified_plan
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.errors import BackendError
from fine_edge.runners.base import Array, Timing
from fine_edge.runners.trt_engine import LoadedEngine, Slot, failure

# As in trtexec: while one query computes, the input of the next one is copied.
_SLOTS = 2
_PROFILE_WARMUP_RUNS = 3


@dataclass(frozen=True)
class Lanes:
    """The streams of the three stages: the same stream for latency, three streams for throughput."""

    upload: Stream
    compute: Stream
    download: Stream


@dataclass(frozen=True)
class LoadCost:
    """The memory that loading an engine and running it once takes, in bytes.

    Host and device share one memory on a Jetson, so both figures count some of it twice.

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
    """One engine on the GPU. All memory is allocated at the start, and outputs are copies.

    An engine for several batches takes any of them, inference by inference.

    Args:
        engine_path: an engine with its manifest beside it.
        cuda: the CUDA to use, which stays open; ``None`` opens its own.
        cuda_graph: whether to replay the inference from a CUDA graph; a warning is printed where that is impossible.
        spin: whether waiting keeps a core busy instead of sleeping (trtexec's ``--useSpinWait``).

    Raises:
        ArtifactError: when engine, manifest and contract do not belong together.
        BackendError: when this machine must not or cannot run the engine; the plan is then not deserialised.
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
        dtypes = self._engine.dtypes_of(self.contract)
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
        self._batch = self._slots[0].count
        self.cuda_graph = False
        self._finish_first_run()
        self.cuda_graph = cuda_graph and self._capture(self._slots, run=True)
        # An error of the capture, for example, is not the reason for a later failure.
        self._engine.log.errors.clear()
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
        """Run one inference.

        Raises:
            ArtifactError: when the engine does not take a name, shape or type.
            BackendError: when TensorRT or CUDA fails.
        """
        return self._infer(inputs).outputs()

    def timed(self, inputs: dict[str, Array]) -> Timing:
        """Run one inference and return its times on the device."""
        return self._infer(inputs).timing()

    def run_timed(self, inputs: dict[str, Array]) -> tuple[dict[str, Array], Timing]:
        """Run one inference and return copies of its outputs, and its times on the device."""
        slot = self._infer(inputs)
        return slot.outputs(), slot.timing()

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        """Run with two inferences in flight and copies on their own streams, trtexec's default; copy outputs out."""
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
            finally:  # the next caller must not fill a slot in flight
                while in_flight:
                    self._collect(in_flight)
        return queries

    def profile(self, inputs: dict[str, Array], runs: int) -> dict[str, list[float]]:
        """Return the milliseconds of each layer, in the order of execution, for each of ``runs`` inferences.

        The profile uses its own execution context, because timing layers slows the inference down.
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
        context.enqueue_emits_profile = False  # reported after each inference instead, so that enqueueing stays async
        context.profiler = times
        self._engine.bind(context, slot.addresses)
        if slot.count is not None:
            self._engine.use_batch(context, slot.count)
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
        """Return the outputs of the inference that was submitted first."""
        slot = in_flight.popleft()
        slot.done.synchronize()
        return slot.outputs()

    def _settle(self, stream: Stream) -> None:
        """Wait for a stream before memory is freed; ignore the error of a failed device, which runs nothing."""
        with contextlib.suppress(BackendError), self._cuda.errors("waiting failed"):
            stream.synchronize()

    def _drop_streams(self) -> None:
        del self._alone, self._overlapped

    def _infer(self, inputs: dict[str, Array]) -> Slot:
        """Run one inference alone on the device; return the slot with its results."""
        slot = self._slots[0]
        slot.fill(inputs)
        with self._cuda.errors("inference failed"):
            self._submit(slot, self._alone)
            slot.done.synchronize()
        return slot

    def _submit(self, slot: Slot, lanes: Lanes) -> None:
        """Queue the three stages of one inference and the events between them."""
        if slot.count != self._batch:
            self._change_batch(slot.count)
        elif self.cuda_graph and slot.graph is None:
            self.cuda_graph = self._capture([slot])
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

    def _change_batch(self, count: int | None) -> None:
        """Give the context another batch, before an inference that is enqueued without a graph.

        A CUDA graph holds the shapes of its capture and must not run once its context has others; and TensorRT does
        what follows from new shapes in the first enqueueing, which must not be captured. So the graphs go, and the
        second inference of this batch captures its own. Nothing is in flight meanwhile.
        """
        self._alone.compute.synchronize()
        for slot in self._slots:
            slot.drop_graph()
        if count is not None:
            self._engine.use_batch(self._engine.context, count)
        self._batch = count

    def _enqueue(self, slot: Slot) -> bool:
        """Queue the network itself; return whether TensorRT accepted it."""
        if self._bound is not slot:
            self._engine.bind(self._engine.context, slot.addresses)
            self._bound = slot
        return bool(self._engine.context.execute_async_v3(self._alone.compute.handle))

    def _checked(self, ok: bool) -> None:
        if not ok:
            raise failure("TensorRT cannot run the engine", self._path, self._engine.log)

    def _finish_first_run(self) -> None:
        """Run every slot once: one-time work such as loading kernels belongs to loading, not to the first inference."""
        for slot in self._slots:
            self._submit(slot, self._alone)
            slot.done.synchronize()

    def _capture(self, slots: Sequence[Slot], *, run: bool = False) -> bool:
        """Capture a CUDA graph for each slot, because a graph holds addresses; return whether that worked.

        Args:
            slots: those without one.
            run: whether to run each graph once.
        """
        try:
            for slot in slots:
                slot.graph = self._cuda.capture(self._alone.compute, partial(self._enqueue, slot))
            if run:
                self._finish_first_run()
        except BackendError as error:
            for slot in self._slots:
                slot.drop_graph()
            console.warn(f"{self._path.name} runs without a CUDA graph: {error.what}")
            return False
        return True


def _contract(engine_path: Path, manifest: Manifest) -> Contract | None:
    """Return the engine's contract; ``None`` for a plan without one, such as trtexec's."""
    if contract_path(engine_path.with_name(manifest.onnx_file)).is_file():
        return contract_of(engine_path)
    return None
