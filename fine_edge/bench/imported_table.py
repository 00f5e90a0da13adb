"""Show an imported record: as a table, and as bars of what a query takes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import files
from fine_edge.bench.imported import ImportedRecord, ImportedRow
from fine_edge.bench.paper import fixed
from fine_edge.figure import new_figure, to_png
from fine_edge.table import Column, Table, brief
from fine_edge.trtexec.log import LogStatistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGIN = "Imported from trtexec's logs: measured by others, not by this bench; medians, no samples."
_MODE = "Mode: read off {}; whether the clocks were locked is not in a log."

_TIMES = "times"
_BOARD = "board"
_ENGINES = "engines"
_SWITCH = {True: "yes", False: "no", None: None}
_Cell = Callable[[ImportedRow], "object | None"]
_Value = Callable[[ImportedRow], "float | None"]

# What a heading or a note says where all rows are alike, and a column where they are not.
_PLACES: dict[str, _Cell] = {
    "Device": lambda row: row.platform.gpu,
    "Mode": lambda row: row.power_mode,
    "TensorRT": lambda row: row.tensorrt,
}
_PRECISION: dict[str, _Cell] = {"Precision": lambda row: row.precision}
_CONDITIONS: dict[str, _Cell] = {
    "CUDA graph": lambda row: _SWITCH[row.cuda_graph],
    "Spin wait": lambda row: _SWITCH[row.spin_wait],
    "Transfers": lambda row: _SWITCH[row.transfers],
    "Streams": lambda row: row.streams,
    "Batch": lambda row: row.batch,
}


def _number(title: str, digits: int, value: _Value, group: str = "") -> tuple[Column, _Cell]:
    return Column(title, group=group), lambda row: fixed(value(row), digits)


def _p99(whole: LogStatistic | None) -> float | None:
    return whole.percentiles_ms.get("99") if whole else None


def _shared(rows: Sequence[ImportedRow], cell: _Cell) -> object | None:
    """Return what all rows have in common; ``None`` where they differ or one says nothing."""
    values = {cell(row) for row in rows}
    return values.pop() if len(values) == 1 else None


def _unlike(rows: Sequence[ImportedRow], cells: dict[str, _Cell], group: str) -> list[tuple[Column, _Cell]]:
    unlike = {title: cell for title, cell in cells.items() if _shared(rows, cell) is None}
    return [(Column(title, numeric=False, group=group), cell) for title, cell in unlike.items()]


def _columns(record: ImportedRecord) -> list[tuple[Column, _Cell]]:
    return [
        (Column("Model", numeric=False), lambda row: row.model),
        *_unlike(record.rows, _PRECISION, ""),
        _number("FPS", 1, lambda row: row.fps),
        _number("Latency (ms)", 2, lambda row: row.latency_ms),
        _number("Compute (ms)", 2, lambda row: row.compute_ms),
        _number("Activation (MiB)", 2, lambda row: row.activation_mib),
        _number("Latency p99 (ms)", 2, lambda row: _p99(row.latency), _TIMES),
        _number("H2D (ms)", 3, lambda row: row.h2d.median_ms if row.h2d else None, _TIMES),
        _number("D2H (ms)", 3, lambda row: row.d2h.median_ms if row.d2h else None, _TIMES),
        *_unlike(record.rows, _PLACES, _BOARD),
        *_unlike(record.timed, _CONDITIONS, _BOARD),
        _number("Plan (MiB)", 1, lambda row: row.engine_mib, _ENGINES),
        _number("Weights (MiB)", 1, lambda row: row.weights_mib, _ENGINES),
        _number("Scratch (MiB)", 1, lambda row: row.scratch_mib, _ENGINES),
        _number("Steps", 0, lambda row: row.steps, _ENGINES),
        _number("Build (s)", 0, lambda row: row.build_s, _ENGINES),
    ]


def imported_table(record: ImportedRecord) -> Table:
    """Return the rows with every column that one of them has a figure for."""
    columns = [(column, cell) for column, cell in _columns(record) if any(cell(row) is not None for row in record.rows)]
    table = Table(imported_title(record), [column for column, _ in columns], notes=_notes(record), brief=_brief(record))
    for row in record.rows:
        table.add(*(cell(row) for _, cell in columns))
    return table


def imported_title(record: ImportedRecord) -> str:
    """Return the title with what all rows have in common."""
    words = {"Mode": "mode {}", "TensorRT": "TensorRT {}"}
    shared = {name: _shared(record.rows, cell) for name, cell in (_PLACES | _PRECISION).items()}
    told = [words.get(name, "{}").format(value) for name, value in shared.items() if value is not None]
    return f"{record.title} ({', '.join(['trtexec', *told])})"


def _brief(record: ImportedRecord) -> list[str]:
    number = len(record.rows)
    lines = [ORIGIN]
    # Reasons first, then figures: what stands before the semicolon is the same in all rows of a kind.
    without = Counter(row.warnings[0].partition(";")[0] for row in record.timed if not row.latency_ms and row.warnings)
    lines += [f"{count} of {number} rows: {reason}." for reason, count in without.items()]
    unstable = sum(row.is_unstable for row in record.rows)
    if unstable:
        lines.append(f"{unstable} of {number} rows: compute scatters by more than 1 % (coefficient of variance).")
    builds = number - len(record.timed)
    if builds:
        lines.append(f"{builds} of {number} rows: a build, nothing was timed.")
    sources = [row.power_mode_source for row in record.rows if row.power_mode_source]
    lines += [_MODE.format(sources[0].partition(",")[0])] if sources else []
    return brief(lines)


def _notes(record: ImportedRecord) -> list[str]:
    notes = [
        ORIGIN,
        "Latency: H2D + compute + D2H, median over queries. Compute: the kernels alone. FPS: queries of all streams"
        " over the wall time, never the inverse of a latency.",
        "Activation: memory of the execution context. Weights, scratch, steps and build: of the builder. Plan: the"
        " file. MiB = 2^20 bytes.",
    ]
    shared = {name: _shared(record.timed, cell) for name, cell in _CONDITIONS.items()}
    told = [f"{name} {value}" for name, value in shared.items() if value is not None]
    notes += [f"All timed rows: {', '.join(told)}."] if told else []
    sources = dict.fromkeys(row.power_mode_source for row in record.rows if row.power_mode_source)
    notes += [_MODE.format(source) for source in sources]
    notes += [f"{row.model}: {text.rstrip('.')}." for row in record.rows for text in row.warnings]
    steps = [row.step_ms for row in record.rows if row.step_ms]
    if steps:
        notes.append(f"Times step by up to {max(steps):g} ms: trtexec keeps them as 32-bit floats.")
    notes += [f"{row.model}: run {row.run} of {row.log}, sha256 {row.artifact_sha256[:16]}." for row in record.rows]
    return notes


_COPY = "#b5651d"
_COMPUTE = "#0b6e8f"
_ROW_IN = 0.5
_NAME_CHARACTERS = 34


def write_imported_picture(record: ImportedRecord, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    files.write_bytes(path, to_png(lambda: draw_imported(record), 160))


def draw_imported(record: ImportedRecord, width_in: float = 9.0, *, titled: bool = True) -> Figure:
    """Draw what a query takes, copies and compute, one bar a timed row; compute alone where there is no latency."""
    rows = record.timed
    figure = new_figure(width_in, 1.4 + _ROW_IN * max(len(rows), 1))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    names = [textwrap.fill(row.model, _NAME_CHARACTERS) for row in rows]
    one_mode = _shared(rows, _PLACES["Mode"])
    modes = ["" if one_mode else f"\n{row.power_mode or 'mode unknown'}" for row in rows]
    axes.set_yticks(range(len(rows)), [f"{name}{mode}" for name, mode in zip(names, modes, strict=True)])
    axes.set_xlim(0, 1.6 * max([row.latency_ms or row.compute_ms or 0.0 for row in rows], default=1.0))
    axes.invert_yaxis()
    axes.set_xlabel("ms a query, medians; blue: compute, brown: copies to and from the device")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if titled:
        figure.suptitle(textwrap.fill(imported_title(record), 90), x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def _draw_row(axes: Axes, place: int, row: ImportedRow) -> None:
    h2d_ms = row.h2d.median_ms if row.h2d and row.latency_ms else 0.0
    compute_ms = row.compute_ms or 0.0
    end_ms = row.latency_ms or compute_ms
    axes.barh(place, h2d_ms, 0.6, color=_COPY)
    axes.barh(place, compute_ms, 0.6, left=h2d_ms, color=_COMPUTE)
    axes.barh(place, max(end_ms - h2d_ms - compute_ms, 0.0), 0.6, left=h2d_ms + compute_ms, color=_COPY)
    label = f"{end_ms:.2f} ms" if row.latency_ms else f"compute {end_ms:.2f} ms, no latency"
    text = axes.annotate(label, (end_ms, place), (6, 0), textcoords="offset points", va="center")
    text.set_in_layout(False)  # there is room for it in the limits of the axis
