"""Measure the memory of one model, in MiB; each figure with its definition.

    peak        highest resident set of a fresh process while it loads the model with ONNX Runtime and runs it
                a few times, minus its resident set just before loading (Python, numpy and ONNX Runtime are in)
    weights     bytes of all initialisers in the ONNX file
    process     highest resident set of the bench's own process while one group is loaded and measured, everything in it
    activation  TensorRT-RTX's "Total Activation Memory" of the FP16 graph compiled for SM86 (``--rtx`` only)

``python -m fine_edge.bench.memory FILE.onnx`` is that fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge import command, console
from fine_edge.errors import BackendError, FineEdgeError
from fine_edge.fields import Amount
from fine_edge.graph.checks import read_vetted

INFERENCES = 3
# Tables warn above this: a Jetson has 8 GB, which its GPU shares.
MOST_PROCESS_MIB = 6 * 1024
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class RtxMemory:
    """Memory that TensorRT-RTX plans for a compiled graph, MiB."""

    activation_mib: Amount
    weights_mib: Amount


def _status_mib(field: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BackendError("memory is measured through /proc, which this system lacks", where=_STATUS) from error
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def forget_peak() -> None:
    """Reset the peak of this process to its present resident set, so that earlier memory does not count."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return  # where the kernel forbids it, the peak is that of the whole process: too high, never too low


def process_peak_mib() -> float:
    """Return the highest resident set of this process since :func:`forget_peak`."""
    return _status_mib("VmHWM")


def peak_mib(onnx_path: Path, threads: int | None = None, shape: Sequence[int] = ()) -> float:
    """Return the peak of loading and running ``onnx_path`` in this process; call it once, in a fresh process.

    Args:
        onnx_path: the model.
        threads: of ONNX Runtime.
        shape: of the image input, where the model leaves dimensions open.
    """
    import numpy as np
    import onnxruntime  # noqa: F401 - its own memory must not count as the model's

    from fine_edge.runners.ort import ELEMENT_TYPES, create_session

    before = _status_mib("VmRSS")
    forget_peak()
    session = create_session(onnx_path, threads)
    # Shapes alone decide on allocations, not the values of pixels.
    feed = {i.name: np.full(shape or i.shape, 0.5, dtype=ELEMENT_TYPES[i.type]) for i in session.get_inputs()}
    for _ in range(INFERENCES):
        session.run(None, feed)
    return process_peak_mib() - before


def measure_peak_mib(onnx_path: Path, threads: int | None = None, shape: Sequence[int] = ()) -> float:
    """Run :func:`peak_mib` in a fresh process.

    Raises:
        ArtifactError: when the file may not be given to a runtime.
        BackendError: when that process fails.
    """
    read_vetted(onnx_path)
    options = [*(["--threads", str(threads)] if threads else []), *(["--shape", *map(str, shape)] if shape else [])]
    arguments = ["fine_edge.bench.memory", str(onnx_path), *options]
    return float(_child_json(arguments, onnx_path)["peak_mib"])


def measure_rtx(onnx_path: Path) -> RtxMemory | None:
    """Return TensorRT-RTX's figures of an FP16 graph; ``None``, with a remark, where it cannot be compiled here."""
    try:
        found = _child_json(["fine_edge", "engine", "inspect", str(onnx_path), "--json"], onnx_path)
        return RtxMemory(float(found["activation_mib"]), float(found["weights_mib"]))
    except (FineEdgeError, KeyError, TypeError, ValueError) as error:
        console.remark(f"no TensorRT-RTX memory for {onnx_path.name}: {error}")
        return None


def _child_json(arguments: list[str], where: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BackendError(f"{arguments[0]} failed ({last.removeprefix('error: ')})", where=where)
    try:
        return dict(json.loads(done.stdout))
    except (ValueError, TypeError) as error:
        raise BackendError(f"{arguments[0]} gave no JSON ({error})", where=where) from error


def main(argv: list[str]) -> int:
    """Print the peak of one ONNX file as JSON."""
    parser = argparse.ArgumentParser(prog="python -m fine_edge.bench.memory", description="peak memory of an ONNX file")
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--shape", type=int, nargs="+", default=[])
    options = parser.parse_args(argv)
    console.print_json({"peak_mib": peak_mib(options.onnx, options.threads, options.shape), "inferences": INFERENCES})
    return 0


if __name__ == "__main__":
    command.run(main)
