"""Compile a model with TensorRT-RTX on this machine's CPU and say what became of it.

No GPU takes part: the compiler works ahead of time for SM86. Its parser is newer than that of TensorRT
10.7, and Orin is SM87, so the figures tell how well a graph fuses, not how fast it runs on a Jetson.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fine_edge.contract import sha256_of
from fine_edge.engine.rtx_log import Compiled, first_error, parse_log
from fine_edge.errors import BackendError, MissingExtraError
from fine_edge.graph.model_file import read_model

TARGET = "rtx-sm86"
TIMEOUT_S = 600.0
"""Ten minutes; RT-DETR R18 takes seconds."""

_CHECK = "python -m fine_edge.graph check FILE.onnx"


@dataclass(frozen=True)
class Inspection:
    """A compiled model: what the log said, how long it took, by which compiler, of which file."""

    compiled: Compiled
    compile_s: float
    compiler: str
    onnx_sha256: str

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        return {
            "target": TARGET,
            "kernels": len(self.compiled.kernels),
            "fused_attention": self.compiled.fused_attention,
            "activation_mib": round(self.compiled.activation_mib, 3),
            "weights_mib": round(self.compiled.weights_mib, 3),
            "compile_s": round(self.compile_s, 3),
            "compiler": self.compiler,
            "onnx_sha256": self.onnx_sha256,
        }


def inspect(onnx_path: Path, timeout_s: float = TIMEOUT_S) -> Inspection:
    """Compile ``onnx_path`` for SM86 in a child process and read its log.

    Raises:
        MissingExtraError: without TensorRT-RTX or a Polygraphy that drives it.
        ArtifactError: when the file is no ONNX model.
        BackendError: when the compiler refuses the graph, crashes, or takes longer than ``timeout_s``.
    """
    _require_compiler()
    read_model(onnx_path, weights=False)
    sha256 = sha256_of(onnx_path)
    result = _run_child(onnx_path, timeout_s)
    log = result.stderr
    if result.returncode == 0:
        report = json.loads(result.stdout)
        return Inspection(parse_log(log), report["compile_s"], f"TensorRT-RTX {report['version']}", sha256)
    reason = first_error(log)
    if result.returncode == 1 and reason:
        raise BackendError(f"TensorRT-RTX refuses the graph: {reason}", where=onnx_path, mend=_CHECK)
    raise BackendError(f"the compiler crashed ({_how(result)})", where=onnx_path, mend=_CHECK)


def _require_compiler() -> None:
    for package in ("tensorrt_rtx", "polygraphy"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "rtx")
    # Older releases of Polygraphy, such as the one paired with TensorRT 10.7, do not know TensorRT-RTX.
    if find_spec("polygraphy.backend.tensorrt_rtx") is None:
        raise MissingExtraError("polygraphy 0.53 or newer", "rtx")


def _run_child(onnx_path: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fine_edge.engine.compile_rtx", str(onnx_path.absolute())]
    environment = os.environ | {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"the compiler was stopped after {timeout_s:g} s", where=onnx_path, mend="allow more with --timeout-s"
        ) from error


def _how(result: subprocess.CompletedProcess[str]) -> str:
    """How a child that did not report ended: its signal or exit code, and its last words."""
    code = result.returncode
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    words = result.stderr.strip().splitlines()
    return f"{ending}: {words[-1].strip()[:200]}" if words else ending
