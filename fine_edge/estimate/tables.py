"""Estimates as tables, each marked as what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fine_edge.estimate.latency import RESERVED_GIB, Estimate
from fine_edge.table import Column, Table
from fine_edge.zoo.paper import PaperFigures

MARK = "ESTIMATE"
SOURCE = "paper (Orin Nano)"
_BESIDE_THE_PAPER = (
    "The paper measured; Table 3 is what the estimate was calibrated on. Its YOLOv8 and v12 were timed without the"
    " suppression of overlaps, which is in these graphs."
)
# Longer names would push the figures out of sight.
_NAME_CHARACTERS = 60


def estimate_table(found: Estimate) -> Table:
    """Time by module, and everything else that one wants to know, in the notes."""
    columns = [Column("Part", numeric=False), Column("Time (ms)"), Column("Share (%)"), Column("Kernels")]
    table = Table(f"{MARK}: {found.engine.name} on {place(found)}", columns)
    counts = [kernel.work.module for kernel in found.kernels]
    for module, ms in found.module_ms().items():
        table.add(_title(module), f"{ms:.3f}", f"{100 * ms / found.compute_ms:.1f}", counts.count(module))
    table.add("all kernels", f"{found.compute_ms:.3f}", "100.0", len(found.kernels))
    table.notes = [
        f"Latency {found.latency_ms:.2f} ms ({found.latency_ms_low:.2f} to {found.latency_ms_high:.2f}), copies of"
        f" input and outputs included; {found.fps:.1f} FPS.",
        *notes(found),
    ]
    return table


def notes(found: Estimate) -> list[str]:
    """What an estimate must never be without."""
    calibration, engine = found.calibration, found.engine
    shares = ", ".join(f"{bound} {100 * ms / found.compute_ms:.0f} %" for bound, ms in found.bound_ms.items())
    fits = "fits" if found.fits else "does NOT fit"
    said = [
        f"{MARK}, nothing was measured: kernels of {engine.compiler} for SM86, timed by a model of the board.",
        f"Calibrated on {calibration.origin}. The interval is what rows that were not fitted were off by at most.",
        f"Kernels bound by: {shares}.",
        f"Activations {engine.activation_mib:.1f} MiB, weights {engine.weights_mib:.1f} MiB: {fits} in"
        f" {found.device.memory_gib:g} GiB with {RESERVED_GIB:g} GiB kept for the system.",
    ]
    if engine.inputs:
        said.append(f"Compiled for {engine.inputs}.")
    if found.mode.name != calibration.mode:
        said.append(f"Fitted in {calibration.mode}, scaled to {found.mode.name} by GPU and memory clocks.")
    if abs(engine.claimed_flops - 1) > 0.01:
        said.append(f"Only {100 * engine.claimed_flops:.1f} % of the graph's FLOPs were found in kernels.")
    return said


def kernels_table(found: Estimate, count: int = 10) -> Table:
    """The dearest kernels."""
    titles = ["Time (ms)", "Bound by", "GFLOP", "MB"]
    columns = [Column("Kernel", numeric=False), Column("Part", numeric=False), *map(Column, titles)]
    table = Table(f"{MARK}: the {count} dearest of {len(found.kernels)} kernels", columns)
    for kernel in found.dearest(count):
        work = kernel.work
        name = work.name if len(work.name) <= _NAME_CHARACTERS else f"{work.name[: _NAME_CHARACTERS - 3]}..."
        figures = (f"{kernel.ms:.3f}", kernel.bound, f"{work.flops / 1e9:.2f}", f"{work.tensor_bytes / 1e6:.2f}")
        table.add(name, _title(work.module), *figures)
    return table


def suite_table(title: str, found: Sequence[Estimate], published: Mapping[str, PaperFigures]) -> Table:
    """One row a model; the paper's figures, by model, in columns of their own where there are any."""
    titles = ["Latency (ms)", "from", "to", "FPS", "GFLOP", "Activation (MiB)", "Weights (MiB)"]
    columns = [Column("Model", numeric=False), *map(Column, titles)]
    if published:
        columns += [Column("Latency (ms)", source=SOURCE), Column("FPS", source=SOURCE)]
    table = Table(f"{MARK}: {title}, on {place(found[0])}", columns, notes=notes(found[0])[:2])
    if published:
        table.notes.append(_BESIDE_THE_PAPER)
    for row in found:
        times = (row.latency_ms, row.latency_ms_low, row.latency_ms_high)
        memory = (f"{row.engine.activation_mib:.1f}", f"{row.engine.weights_mib:.1f}")
        gflop = f"{row.engine.graph_flops / 1e9:.1f}"
        cells = [*(f"{ms:.2f}" for ms in times), f"{row.fps:.1f}", gflop, *memory]
        if published:
            theirs = published.get(row.engine.name)
            measured = (theirs.latency_ms, theirs.fps) if theirs else (None, None)
            cells += ["-" if value is None else f"{value:g}" for value in measured]
        table.add(row.engine.name, *cells)
    return table


def place(found: Estimate) -> str:
    """Board and mode."""
    return f"{found.device.title}, {found.mode.name}"


def _title(module: str) -> str:
    return module.replace("fine", "FINE", 1) if module.startswith("fine") else module
