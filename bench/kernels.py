"""List the slowest kernels of our exports beside those of their libraries' own: an estimate, nothing is measured.

    python bench/kernels.py FOLDER [MODEL]...

FOLDER holds the exports, with seeded random weights. Needs the extras export, yolo and rtx.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fine_edge import console
from fine_edge.bench.suites import SuiteRow
from fine_edge.errors import FineEdgeError
from fine_edge.estimate.calibration import find_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.latency import Conditions, Estimate, estimate
from fine_edge.estimate.validate import compile_rows
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import find

MODELS = ("rtdetr_r18", "rtdetr_r50", "yolov8s", "fasterrcnn_r50")
SLOWEST = 5


def forms(model: str) -> Iterator[tuple[str, SuiteRow]]:
    """Return a detector's graphs: the library's own, ours in its forms, and ours with FINE."""
    detector = find(model).detector
    raw = detector.library.exporter is not None or detector.samples
    yield "library", SuiteRow(model, raw, "plain")
    yield "ours, as far", SuiteRow(model, raw)
    for name in (model, f"{model}_fine"):
        yield ("ours" if name == model else "with FINE"), SuiteRow(name)
        if detector.samples:
            yield f"{'ours' if name == model else 'with FINE'}, grid", SuiteRow(name, sampling="grid")


def main(folder: Path, models: tuple[str, ...]) -> None:
    """Export, compile and estimate every graph, one after the other, and print a table for each detector."""
    device = find_device("orin-nano-8gb")
    conditions = Conditions(device, device.mode("25W"), find_calibration(device))
    for model in models:
        columns = [Column("Graph", numeric=False), Column("Time (ms)"), Column("Kernels"), Column("Context (MiB)")]
        table = Table(
            f"{model}, FP16, ESTIMATE for {device.title} in 25W", [*columns, Column("Slowest", numeric=False)]
        )
        for title, row in forms(model):
            try:
                (engine,) = compile_rows([row], device, folder)
            except FineEdgeError as error:
                console.remark(f"{model}, {title}: {error}")
                continue
            _add(table, title, estimate(engine, conditions))
        table.print(console.out, explain=True)


def _add(table: Table, title: str, found: Estimate) -> None:
    slowest = ", ".join(f"{kernel.work.module} {kernel.ms:.2f}" for kernel in found.slowest(SLOWEST))
    context = found.to_json()["context_mib"]
    table.add(title, f"{found.kernels_ms:.2f}", len(found.kernels), f"{context:.0f}", slowest)
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in found.module_ms().items())
    console.remark(f"{title}: {parts}")


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or MODELS)
