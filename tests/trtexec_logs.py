"""Logs as trtexec and TensorRT's builder print them, with the figures of boards that others measured."""

from __future__ import annotations

from pathlib import Path

STAMP = "[07/20/2025-18:12:23]"
ENGINE = "/home/user/export/rtdetrv1_pr18_ours/model_fp16.engine"
FP16 = f"--loadEngine={ENGINE} --fp16 --useCudaGraph --useSpinWait"
FP32 = "--loadEngine=/home/user/export/rtdetrv1_pr18_ours/model_fp32.engine --iterations=1000"


def statistic(median: float, *, low: float | None = None, high: float | None = None) -> str:
    low, high = (median if low is None else low), (median if high is None else high)
    middle = f"mean = {median:g} ms, median = {median:g} ms, percentile(90%) = {median:g} ms"
    return f"min = {low:g} ms, max = {high:g} ms, {middle}, percentile(99%) = {high:g} ms"


def device(compute_ghz: float = 1.02, memory_ghz: float = 0.918, name: str = "Orin", sms: int = 8, mib: int = 7619):
    return [
        "=== Device Information ===",
        f"Selected Device: {name}",
        "Compute Capability: 8.7",
        f"SMs: {sms}",
        f"Device Global Memory: {mib} MiB",
        f"Application Compute Clock Rate: {compute_ghz:g} GHz",
        f"Application Memory Clock Rate: {memory_ghz:g} GHz",
    ]


def summary(latency: float = 15.042, compute: float = 14.6934, qps: float = 67.8516, h2d: float = 0.337891, s=17.6857):
    """The lines from the context on; by default those of RT-DETR R18 with FINE, FP16, CUDA graph and spin wait."""
    return [
        "[TRT] Loaded engine size: 41 MiB",
        "[TRT] [MS] Number of aux streams is 7",
        "Created execution context with device memory size: 66.1519 MiB",
        "Input binding for images with dimensions 1x3x640x640 is created.",
        "Input binding for orig_target_sizes with dimensions 1x2 is created.",
        "Warmup completed 7 queries over 200 ms",
        f"Timing trace has 1200 queries over {s:g} s",
        f"Average on 50 runs - GPU latency: 14.7346 ms - Host latency: {latency:g} ms (enqueue 0.0095 ms)",
        f"Average on 50 runs - GPU latency: {compute:g} ms - Host latency: {latency:g} ms (enqueue 0.0064 ms)",
        "=== Performance summary ===",
        f"Throughput: {qps:g} qps",
        f"Latency: {statistic(latency)}",
        "Enqueue Time: " + statistic(0.0068),
        f"H2D Latency: {statistic(h2d)}",
        f"GPU Compute Time: {statistic(compute)}",
        "D2H Latency: " + statistic(0.0107),
        f"Total Host Walltime: {s:g} s",
    ]


def run(lines: list[str], flags: str = FP16, release: str = "v100700", passed: str = "PASSED") -> str:
    """A whole run, each line with time and level; ``[TRT]`` behind the level."""
    name = f"TensorRT.trtexec [TensorRT {release}] [b23] # trtexec {flags}"
    inner = [line if line.startswith(("[W]", "[E]")) else f"[I] {line}" for line in lines]
    end = [f"&&&& {passed} {name}"] if passed else []
    return "\n".join([f"&&&& RUNNING {name}", *(f"{STAMP} {line}" for line in inner), *end, ""])


FINE = run([*device(), *summary(), "[W] * GPU compute time is unstable, with coefficient of variance = 2.4294%."])
WAITING = run([*device(), *summary(54.4545, 30.7285, 32.3939, 23.7188, 30.87)], FP32)
UNCOPIED = run([*device(), *summary(14.6934, h2d=0)], f"{FP16} --noDataTransfers")
BUILDER = "\n".join(
    f"{STAMP} [TRT] [{line[0]}] {line[1:]}"
    for line in (
        "WDetected layernorm nodes in FP16.",
        "ITotal Device Persistent Memory: 0 bytes",
        "IMax Scratch Memory: 54824448 bytes",
        "I[BlockAssignment] Started assigning block shifts. This will take 178 steps to complete.",
        "ITotal Activation Memory: 69365248 bytes",
        "ITotal Weights Memory: 39441794 bytes",
        "IEngine generation completed in 388.401 seconds.",
        "ILoaded engine size: 41 MiB",
    )
)


def write(path: Path, text: str = FINE) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
