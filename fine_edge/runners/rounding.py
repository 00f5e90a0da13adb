"""ONNX Runtime on the CPU with FP16 that is really rounded.

By itself it computes an FP16 graph in FP32 on x86 and would not notice an overflow, see :mod:`fine_edge.graph.emulate`.
"""

from __future__ import annotations

from pathlib import Path

from fine_edge.graph.emulate import emulated
from fine_edge.graph.model_file import read_model
from fine_edge.graph.vetted import read_vetted
from fine_edge.runners.base import ROUNDED
from fine_edge.runners.ort import OrtRunner


class RoundingRunner(OrtRunner):
    """Runs an FP16 ONNX file and rounds to FP16 after every operator, sums being FP32. For parity, not for timing."""

    name = ROUNDED

    def __init__(self, onnx_path: Path, threads: int | None = None) -> None:
        read_vetted(onnx_path)
        super().__init__(onnx_path, threads, model=emulated(read_model(onnx_path)))
