"""Show estimates as tables, each marked ESTIMATE, and how far they are off what others published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fine_edge import files
from fine_edge.estimate.calibration import PRECISIONS, Constants, Precision
from fine_edge.estimate.device import Device, find_device
from fine_edge.estimate.latency import RESERVED_GIB, Estimate, context_mib
from fine_edge.estimate.published import PublishedFit, PublishedRow
from fine_edge.figure import new_figure, to_png
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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Show how far estimates are off what others published: tables and one picture.

_DPI = 150
_NAMED = 3
_SMALL: Any = {"textcoords": "offset points", "fontsize": 7}
_COLORS = {"orin-nano": "#0b6e8f", "orin-nx": "#b5651d", "agx-orin": "#5b7f2b"}
_MARKERS: dict[Precision, str] = {"fp32": "s", "fp16": "o", "int8": "^"}


def errors_table(found: PublishedFit) -> Table:
    """Return absolute errors by precision and board: fitted, with the model left out, with the source left out."""
    titles = (
        "Rows",
        "Fitted (%)",
        "worst",
        "Model left out (%)",
        "worst",
        "Source left out (%)",
        "worst",
        "Inside (%)",
    )
    columns = [Column("Precision, board", numeric=False), *map(Column, titles)]
    table = Table("Calibration: absolute errors of published latencies, median and worst", columns)
    for precision, device, chosen in _groups(found.rows):
        errors = (found.errors[chosen], found.without_model[chosen], found.without_source[chosen])
        inside = np.mean([found.is_inside(found.rows[index], float(found.without_model[index])) for index in chosen])
        table.add(
            f"{precision.upper()}, {device.name}",
            len(chosen),
            *(f"{figure:.1f}" for of in errors for figure in _median_and_worst(of)),
            f"{100 * inside:.0f}",
        )
    table.brief = [
        f"Constants: {constants_text(found.constants)}",
        f"FINE adds {', '.join(_additions(found))}.",
        f"Not fitted and not counted: {'; '.join(_shown_only(found.rows))}.",
    ]
    table.notes = [
        *table.brief,
        "Model left out: every row of the model was left out of the fit; source left out: those of its publisher.",
        "Inside: rows within the interval that rows of other models give, for nine of ten.",
    ]
    return table


def _additions(found: PublishedFit) -> list[str]:
    """Return what FINE adds to each detector that was measured with it and without, by estimate and as measured."""
    measured = {row.name: row.compute_ms for row in found.rows}
    errors = dict(zip(measured, found.errors, strict=True))
    ms = {name: measured[name] * float(np.exp(error)) for name, error in errors.items()}
    return [
        f"{ms[row.name] - ms[row.over]:.2f} ms to {row.model} (measured {row.compute_ms - measured[row.over]:.2f})"
        for row in found.rows
        if row.over
    ]


def _shown_only(rows: Sequence[PublishedRow]) -> list[str]:
    """Return the models whose rows are only shown, by the reason why."""
    models: dict[str, dict[str, None]] = {}
    for row in rows:
        if not row.fitted:
            models.setdefault(row.note.rpartition("; ")[2], {})[row.model] = None
    return [f"{', '.join(names)} ({reason})" for reason, names in models.items()]


def rows_table(found: PublishedFit) -> Table:
    """Return the error of every published row."""
    columns = [Column("Row", numeric=False), *map(Column, ("ms", "Fitted (%)", "Model left out (%)"))]
    table = Table("Every published row: measured time, and errors of its estimate", columns)
    for index, row in enumerate(found.rows):
        errors = (found.errors[index], found.without_model[index])
        name = row.name if row.fitted else f"{row.name}, not counted"
        table.add(name, f"{row.compute_ms:.3f}", *(f"{100 * np.expm1(error):+.1f}" for error in errors))
    return table


def constants_text(constants: Constants) -> str:
    """Return the constants as one line."""
    return "; ".join(f"{name} {value:g}" for name, value in vars(constants).items()) + "."


def write_published(found: PublishedFit, path: Path) -> None:
    """Write measured against estimated times of all boards, models left out."""
    files.write_bytes(path, to_png(lambda: _draw(found), _DPI))


def _draw(found: PublishedFit) -> Figure:
    figure = new_figure(7.5, 5.6)
    axes = figure.add_subplot()
    measured = np.array([row.compute_ms for row in found.rows])
    estimated = measured * np.exp(found.without_model)
    ends = np.array([measured.min() / 1.3, measured.max() * 1.3])
    axes.fill_between(ends, 0.8 * ends, 1.25 * ends, color="0.93", label="0.8 to 1.25 of the measured time")
    axes.plot(ends, ends, color="0.6", linewidth=1)
    shown = [index for index, row in enumerate(found.rows) if not row.fitted]
    not_counted = "another graph or no TF32: not counted"
    axes.plot(measured[shown], estimated[shown], "x", color="0.6", markersize=4, label=not_counted)
    for precision, device, chosen in _groups(found.rows):
        axes.plot(
            measured[chosen],
            estimated[chosen],
            _MARKERS[precision],
            color=_COLORS[device.family],
            markersize=5,
            alpha=0.75,
            label=f"{device.title}, {precision.upper()}",
        )
    counted = [int(index) for index in np.argsort(-np.abs(found.without_model)) if index not in shown]
    for index in counted[:_NAMED]:
        at = (float(measured[index]), float(estimated[index]))
        above = found.without_model[index] > 0
        row = found.rows[index]
        named = row.name.partition(f", {row.device}")[0]
        axes.annotate(named, at, (-6, 6) if above else (8, -6), ha="right" if above else "left", **_SMALL)
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("estimated without any row of the model, ms")
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("ESTIMATE against latencies that others published", x=0.01, ha="left", fontsize=10)
    return figure


def _groups(rows: Sequence[PublishedRow]) -> Iterator[tuple[Precision, Device, list[int]]]:
    """Yield the counted rows by precision and board."""
    for precision in PRECISIONS:
        for name in dict.fromkeys(row.device for row in rows):
            of = (True, precision, name)
            chosen = [index for index, row in enumerate(rows) if (row.fitted, row.precision, row.device) == of]
            if chosen:
                yield precision, find_device(name), chosen


def _median_and_worst(errors: NDArray[np.float64]) -> tuple[float, float]:
    relative = 100 * np.abs(np.expm1(errors))
    return float(np.median(relative)), float(relative.max())
