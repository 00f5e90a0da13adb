"""What a log of trtexec or of TensorRT's builder says, which figures mean what they are called, and the power mode."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from fine_edge.fields import Amount, Count
from fine_edge.machine import MIB

# A log names the shapes of inputs and not their types. For a smaller type the limit on a copy is only more lenient.
_FLOAT_BYTES = 4

# A copy from the host that is slower is no copy: "H2D" then holds the wait for the query before.  In 17 published runs
# on Orin boards copies go at 8.0 to 28 GB/s (7.1 MB in 0.886 ms, 4.9 MB in 0.174 ms), but at 0.11 to 0.22 GB/s in the
# four of FP32 engines without CUDA graph and spin wait: 4.9 MB in 22.0 to 45.6 ms, 43 to 47 % of the latency. There
# throughput x latency is 1.76 to 1.86 queries, elsewhere 0.92 to 1.17.
SLOWEST_COPY_GB_S = 1.0
# Of a copy of any size; copies of a few bytes take 0.01 ms.
COPY_OVERHEAD_MS = 0.1
# Of H2D in the latency, where the size of the inputs is not in the log: 1.1 to 6.8 % in the good published logs.
MOST_COPY_SHARE = 0.2


@dataclass(frozen=True)
class LogStatistic:
    """One line of the performance summary, milliseconds.

    Attributes:
        min_ms: of all queries, as the others are.
        max_ms: likewise.
        mean_ms: likewise.
        median_ms: likewise.
        percentiles_ms: by per cent, such as ``"99"``.
    """

    min_ms: Amount
    max_ms: Amount
    mean_ms: Amount
    median_ms: Amount
    percentiles_ms: dict[str, Amount]


@dataclass(frozen=True)
class RunAverages:
    """Averages over so many queries each, in order; they are no samples, and no interval follows from them."""

    of_queries: Count
    compute_ms: tuple[Amount, ...]
    latency_ms: tuple[Amount, ...]


@dataclass(frozen=True, kw_only=True)
class TrtexecLog:
    """One run of trtexec, or one build by TensorRT's Python builder; ``None`` for what the log does not say.

    Attributes:
        command: as trtexec repeats it; empty in a log of the Python builder.
        tensorrt: release, such as ``10.7.0``.
        passed: whether trtexec said PASSED; ``None`` when it said nothing, as in a log that was cut.
        error: the first line that TensorRT marked as an error.
        gpu: name of the device.
        sm: compute capability times ten, 87 for Orin.
        sms: number of multiprocessors.
        memory_mib: global memory of the device.
        compute_clock_ghz: "Application Compute Clock Rate", on an Orin the module's highest GPU clock.
        memory_clock_ghz: "Application Memory Clock Rate", on an Orin the GPU's cap in the power mode that is set.
        latency: H2D + compute + D2H.
        compute: of the kernels.
        h2d: of copies of the inputs.
        d2h: of copies of the outputs.
        enqueue: of the host.
        throughput_qps: queries of all streams over the wall time.
        walltime_s: from the first timed query to the end of the last.
        queries: timed ones.
        warmup_ms: before them.
        averages: "Average on N runs".
        variance_percent: coefficient of variance of the compute time, where trtexec called it unstable.
        context_mib: memory of the execution context, activations and scratch.
        allocated_bytes: the same, of verbose logs.
        activation_bytes: the same by the builder.
        weights_bytes: of the engine, by the builder.
        scratch_bytes: the largest that one step takes.
        persistent_bytes: of the device, by the builder.
        steps: of the engine.
        loaded_mib: whole MiB of the plan that was loaded.
        created_mib: of the plan that was built.
        aux_streams: auxiliary streams.
        build_s: of the engine.
        built_precision: of the options that the engine was built with, such as ``FP32+FP16``.
        cuda_graph: whether inferences were replayed from a CUDA graph.
        spin_wait: whether the host spun while it waited.
        transfers: whether inputs and outputs were copied.
        streams: inferences at a time.
        inputs: shapes by name.
        warnings: of TensorRT and trtexec, one line each; that on scatter is ``variance_percent``.
    """

    command: str = ""
    tensorrt: str | None = None
    passed: bool | None = None
    error: str | None = None
    gpu: str | None = None
    sm: int | None = None
    sms: int | None = None
    memory_mib: int | None = None
    compute_clock_ghz: float | None = None
    memory_clock_ghz: float | None = None
    latency: LogStatistic | None = None
    compute: LogStatistic | None = None
    h2d: LogStatistic | None = None
    d2h: LogStatistic | None = None
    enqueue: LogStatistic | None = None
    throughput_qps: float | None = None
    walltime_s: float | None = None
    queries: int | None = None
    warmup_ms: float | None = None
    averages: RunAverages | None = None
    variance_percent: float | None = None
    context_mib: float | None = None
    allocated_bytes: int | None = None
    activation_bytes: int | None = None
    weights_bytes: int | None = None
    scratch_bytes: int | None = None
    persistent_bytes: int | None = None
    steps: int | None = None
    loaded_mib: float | None = None
    created_mib: float | None = None
    aux_streams: int | None = None
    build_s: float | None = None
    built_precision: str | None = None
    cuda_graph: bool | None = None
    spin_wait: bool | None = None
    transfers: bool | None = None
    streams: int | None = None
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def is_timed(self) -> bool:
        """Return whether the log has a complete performance summary."""
        return self.compute is not None and self.compute.median_ms > 0 and bool(self.throughput_qps)

    @property
    def is_build(self) -> bool:
        """Return whether it has the builder's figures."""
        return self.activation_bytes is not None or self.weights_bytes is not None or self.build_s is not None

    @property
    def why_untimed(self) -> str | None:
        """Return why there are no times, as the predicate of a sentence; ``None`` where there are."""
        if self.passed is False:
            return f"is of a run that failed{f' ({self.error})' if self.error else ''}"
        if self.is_timed:
            return None
        if self.command and self.passed is None:
            return "was cut before the end of the performance summary"
        return "holds the build of an engine and no inference" if self.is_build else "holds no performance summary"

    @property
    def precision(self) -> str | None:
        """Return ``fp16``, ``fp32``, ``fp16+int8`` and the like; ``None`` where the log does not tell.

        The precision of the build options is that of the engine only where this run built it.
        """
        flags = flags_of(self.command)
        # The graph holds the types then, and the log does not say which: "Precision: Strongly Typed".
        if "stronglyTyped" in flags:
            return "strongly typed"
        # 8.6 prints "Precision: FP32" for a loaded plan too, of a build that does not happen.
        if self.built_precision and "loadEngine" not in flags:
            # FP32 is always allowed, so "FP32+FP16" is fp16 and only a lone "FP32" is fp32.
            kinds = re.findall(r"[A-Z]+\d+", self.built_precision)
            return "+".join(kinds[1:] or kinds).lower() or self.built_precision.lower()
        if "best" in flags:
            return "fp16+int8"
        return "+".join(kind for kind in ("fp16", "bf16", "int8", "fp8", "int4") if kind in flags) or None

    @property
    def activation_mib(self) -> float | None:
        """Return the memory that one execution context needs for activations and scratch."""
        # 10.x prints it of every run; 8.6 has it in verbose logs alone, in bytes.
        if self.context_mib is not None:
            return self.context_mib
        return _mib(self.activation_bytes if self.allocated_bytes is None else self.allocated_bytes)

    @property
    def weights_mib(self) -> float | None:
        """Return the weights inside the engine."""
        return _mib(self.weights_bytes)

    @property
    def scratch_mib(self) -> float | None:
        """Return the largest scratch memory of a step."""
        return _mib(self.scratch_bytes)

    @property
    def persistent_mib(self) -> float | None:
        """Return the device memory that the engine keeps between inferences."""
        return _mib(self.persistent_bytes)

    @property
    def engine_mib(self) -> float | None:
        """Return the size of the plan."""
        # What was built is printed with digits ("53.4775 MiB"), what was loaded in whole MiB.
        return self.created_mib if self.created_mib is not None else self.loaded_mib

    @property
    def batch(self) -> int | None:
        """Return the first dimension of the largest input."""
        # RT-DETR has a second, tiny input: orig_target_sizes (1, 2) beside images (1, 3, 640, 640).
        largest = max(self.inputs.values(), key=math.prod, default=())
        return largest[0] if len(largest) > 1 else None

    @property
    def step_ms(self) -> float | None:
        """Return the smallest difference of two times at the end of the run.

        trtexec keeps milliseconds since its start as 32-bit floats of 24 binary digits: after 100 s they step by
        1/128 ms.
        """
        if not self.walltime_s:
            return None
        # 24 binary digits: the last one is worth 2^-23 of the first.
        return float(2.0 ** (math.floor(math.log2((self.warmup_ms or 0) + 1e3 * self.walltime_s)) - 23))

    @property
    def is_unstable(self) -> bool:
        """Return whether trtexec called the compute time unstable, and it scatters by more than the clock steps."""
        if self.variance_percent is None or self.compute is None:
            return False
        # trtexec warns from 1 % on, which of a short compute time is less than one step.
        return self.variance_percent / 100 * self.compute.mean_ms > (self.step_ms or 0)

    @property
    def holds_wait(self) -> bool:
        """Return whether "H2D" holds the wait for the query before, so that the latency is none."""
        # Without transfers "H2D" is 0, and why_no_latency has a reason of its own.
        if self.h2d is None or self.latency is None or self.transfers is False:
            return False
        if self.inputs:
            # 1e6 bytes a millisecond are 1 GB/s.
            copied_bytes = _FLOAT_BYTES * sum(map(math.prod, self.inputs.values()))
            return self.h2d.median_ms > COPY_OVERHEAD_MS + copied_bytes / (1e6 * SLOWEST_COPY_GB_S)
        # Waits were seen in "H2D" only without spin wait.
        return not self.spin_wait and is_implausible_share(self.h2d.median_ms, self.latency.median_ms)

    @property
    def why_no_latency(self) -> str | None:
        """Return why the figure that trtexec calls latency is none; ``None`` where it is one."""
        if self.transfers is False:
            return "no latency: nothing was copied; only compute is known (--noDataTransfers)"
        if self.holds_wait and self.h2d is not None:
            return (
                f"no latency: H2D holds the wait for the query before; {self.h2d.median_ms:.4g} ms are no copy, compute"
                " and throughput are good (measure with --useSpinWait --useCudaGraph)"
            )
        return None

    @property
    def latency_ms(self) -> float | None:
        """Return the median of H2D + compute + D2H; ``None`` where the log's figure is not that."""
        return None if self.latency is None or self.why_no_latency else self.latency.median_ms


def flags_of(command: str) -> dict[str, str]:
    """Return the options of a command line by name without dashes; the value of a switch is empty."""
    # trtexec takes "--name" and "--name=value", never "--name value".
    words = (word[2:] for word in command.split() if word.startswith("--"))
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def is_implausible_share(h2d_ms: float, latency_ms: float) -> bool:
    """Return whether H2D is too much of a latency to be a copy of inputs of unknown size."""
    return h2d_ms > max(COPY_OVERHEAD_MS, MOST_COPY_SHARE * latency_ms)


def _mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


# The power mode of an Orin Nano 8 GB, as far as a log of trtexec tells it.
#
# "Application Memory Clock Rate" on an Orin is not the memory's: it is the GPU's cap in the power mode that is set.
# Measured on one board in three modes, 0.612, 0.918 and 1.02 GHz, and seen with the documented mode on two others;
# without Super, where the module's own clock is 0.624 GHz, 0.624 in 15W. No other board or GPU has been seen to tell.

_ORIN_SM = 87
_NANO_8GB_SMS = 8
# An Orin NX has as many multiprocessors; that of 16 GB has more memory, both have other clocks.
_MOST_MIB = 8192
# By the two clock rates of the log, GHz.
_MODES = {(1.02, 0.612): "15W", (1.02, 0.918): "25W", (1.02, 1.02): "MAXN_SUPER", (0.624, 0.624): "15W"}


def power_mode(log: TrtexecLog) -> str | None:
    """Return the mode's name; ``None`` for other devices, and for clocks that were not seen with a known mode."""
    is_nano = log.gpu is not None and "Orin" in log.gpu and log.sm == _ORIN_SM and log.sms == _NANO_8GB_SMS
    if not is_nano or log.memory_mib is None or log.memory_mib > _MOST_MIB:
        return None
    if log.compute_clock_ghz is None or log.memory_clock_ghz is None:
        return None
    # The clocks are printed with up to three digits and parsed from these, so they are equal to the literals.
    return _MODES.get((log.compute_clock_ghz, log.memory_clock_ghz))


def power_mode_source(log: TrtexecLog) -> str | None:
    """Return how the mode is known; ``None`` where it is not."""
    if power_mode(log) is None:
        return None
    return f"the GPU's cap in the log, {log.memory_clock_ghz:g} GHz (printed as Application Memory Clock Rate)"
