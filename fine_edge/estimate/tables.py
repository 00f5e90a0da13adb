"""Show estimates as tables, each marked ESTIMATE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fine_edge.estimate.context import context_mib
from fine_edge.estimate.latency import RESERVED_GIB, Estimate
from fine_edge.table import Column, Table
from fine_edge.zoo.paper import PaperFigures

MARK = "ESTIMATE"
SOURCE = "paper (Orin Nano)"
_BESIDE_THE_PAPER = (
    "The paper measured, in a power mode that it does not name. Its YOLOv8 and v12 were timed without the suppression"
    " of overlaps, which is in these graphs."
)


def estimate_table(found: Estimate) -> Table:
    """Return time by module, with latency, memory and doubts in the notes."""
    columns = [Column("Part", numeric=False), Column("Time (ms)"), Column("Share (%)"), Column("Kernels")]
    table = Table(f"{MARK}: {found.engine.name} on {place(found)}", columns)
    counts = [kernel.work.module for kernel in found.kernels]
    for module, ms in found.module_ms().items():
        table.add(_title(module), f"{ms:.3f}", f"{100 * ms / found.kernels_ms:.1f}", counts.count(module))
    table.add("all kernels", f"{found.kernels_ms:.3f}", "100.0", len(found.kernels))
    of = f"of {found.engine.batch} pictures at a time " if found.engine.batch > 1 else ""
    latency = (
        f"Latency {of}{found.latency_ms:.2f} ms ({found.latency_ms_low:.2f} to {found.latency_ms_high:.2f}), copies of"
        f" input and outputs included; {found.fps:.1f} FPS."
    )
    if not found.conditions.cuda_graph:
        latency += f" A call from Python takes {found.call_ms:.2f} ms, copies left out."
    table.notes = [latency, *notes(found)]
    table.brief = [latency, _nature(found), _memory(found), *found.warnings]
    return table


def notes(found: Estimate) -> list[str]:
    """Return the notes that every estimate carries."""
    shares = ", ".join(f"{bound} {100 * ms / found.kernels_ms:.0f} %" for bound, ms in found.bound_ms.items())
    return [
        _nature(found),
        f"Calibrated on {found.conditions.calibration.origin}. The interval holds nine of ten rows whose model was left"
        " out of the fit.",
        f"Kernels bound by: {shares}.",
        _memory(found),
        *([f"Compiled for {found.engine.inputs}."] if found.engine.inputs else []),
        *found.warnings,
    ]


def _nature(found: Estimate) -> str:
    compiler = found.engine.compiler
    return f"{MARK}, nothing was measured: kernels of {compiler} for SM86, timed by a model of the board."


def _memory(found: Estimate) -> str:
    fits = "fits" if found.fits else "does NOT fit"
    context = context_mib(found.engine)
    return (
        f"TensorRT 10.7's context {context.likely:.0f} MiB ({context.low:.0f} to {context.high:.0f}), weights"
        f" {found.engine.weights_mib:.0f} MiB: {fits} in {found.conditions.device.memory_gib:g} GiB with"
        f" {RESERVED_GIB:g} GiB kept for the system."
    )


def kernels_table(found: Estimate, count: int = 10) -> Table:
    """Return the slowest kernels."""
    titles = ["Time (ms)", "Bound by", "GFLOP", "MB"]
    columns = [Column("Kernel", numeric=False), Column("Part", numeric=False), *map(Column, titles)]
    table = Table(f"{MARK}: the {count} slowest of {len(found.kernels)} kernels", columns)
    for kernel in found.slowest(count):
        work = kernel.work
        figures = (f"{kernel.ms:.3f}", kernel.bound, f"{work.flops / 1e9:.2f}", f"{work.tensor_bytes / 1e6:.2f}")
        table.add(work.name, _title(work.module), *figures)
    return table


def suite_table(title: str, found: Sequence[Estimate], published: Mapping[str, PaperFigures]) -> Table:
    """Return one row a model; the paper's figures, by model, in columns of their own where there are any."""
    titles = ["Latency (ms)", "from", "to", "FPS", "GFLOP", "Context (MiB)", "Weights (MiB)"]
    columns = [Column("Model", numeric=False), *map(Column, titles)]
    if published:
        columns += [Column("Latency (ms)", source=SOURCE), Column("FPS", source=SOURCE)]
    table = Table(f"{MARK}: {title}, on {place(found[0])}", columns, notes=notes(found[0])[:2])
    if published:
        table.notes.append(_BESIDE_THE_PAPER)
    for row in found:
        times = (row.latency_ms, row.latency_ms_low, row.latency_ms_high)
        memory = (f"{context_mib(row.engine).likely:.0f}", f"{row.engine.weights_mib:.1f}")
        gflop = f"{row.engine.graph_flops / 1e9:.1f}"
        cells = [*(f"{ms:.2f}" for ms in times), f"{row.fps:.1f}", gflop, *memory]
        if published:
            theirs = published.get(row.engine.name)
            measured = (theirs.latency_ms, theirs.fps) if theirs else (None, None)
            cells += ["-" if value is None else f"{value:g}" for value in measured]
        table.add(row.engine.name, *cells)
    return table


def place(found: Estimate) -> str:
    """Return board, mode, precision, and that no CUDA graph is thought of where that is so."""
    at = found.conditions
    graph = "" if at.cuda_graph else ", without CUDA graph"
    return f"{at.device.title}, {at.mode.name}, {at.precision.upper()}{graph}"


def _title(module: str) -> str:
    return module.replace("fine", "FINE", 1) if module.startswith("fine") else module
