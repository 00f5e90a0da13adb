"""Write records as one self-contained HTML page: no network, no scripts; samples and the board's state drawn inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from fine_edge import __version__
from fine_edge.bench import picture
from fine_edge.bench.imported import ImportedRecord
from fine_edge.bench.imported_table import ORIGIN, draw_imported, imported_table, imported_title
from fine_edge.bench.paper import attention_title, conditions
from fine_edge.bench.picture import draw_stages
from fine_edge.bench.record import Record
from fine_edge.bench.sources import Measurements
from fine_edge.bench.table import ENGINES, MODELS, PAPER, PAPER_ACCURACY, STAGE_P90, STAGE_TIMES, to_table
from fine_edge.figure import new_figure
from fine_edge.html import CSS, WIDTH_IN, to_svg
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict
from fine_edge.layers import tables as layers_picture
from fine_edge.layers.cost import FineCost
from fine_edge.layers.layer import LayerProfile
from fine_edge.layers.tables import cost_table, parts_table
from fine_edge.report.markdown import files_table, machine_facts
from fine_edge.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Draw the latency samples of a record, and the board's state while it was measured.

_FILL = "#2c8fae"
_BINS = 60
_HEIGHT = 0.8  # of a row's histogram, in rows


def draw_distribution(record: Record, width_in: float) -> Figure:
    """Draw one histogram a row around the row's own median, so that scatter can be compared; every sample is in it."""
    scattered = [100 * (np.asarray(row.samples_ms) / row.latency_ms - 1) for row in record.rows]
    low, high = min(values.min() for values in scattered), max(values.max() for values in scattered)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    figure = new_figure(width_in, 0.9 + 0.5 * len(scattered))
    axes = figure.add_subplot()
    for place, values in enumerate(scattered):
        counts, _ = np.histogram(values, edges)
        axes.stairs(place - _HEIGHT * counts / counts.max(), edges, baseline=place, fill=True, color=_FILL, alpha=0.8)
        axes.axhline(place, color="0.6", linewidth=0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(scattered)), _names(record))
    axes.set_ylim(len(scattered) - 0.85, -1)
    axes.set_xlabel("latency over the row's median, %")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _names(record: Record) -> list[str]:
    """Return the attention strategies where they differ by row, models otherwise; each with its median."""
    attentions = [row.attention for row in record.rows if not record.is_baseline(row)]
    names = [row.model for row in record.rows]
    if None not in attentions and len(set(attentions)) == len(attentions) > 1:
        names = [attention_title(row.attention) or "baseline" for row in record.rows]
    return [f"{name}\n{row.latency_ms:.2f} ms" for name, row in zip(names, record.rows, strict=True)]


_COLORS = ("#2c8fae", "#b5651d", "#6a8f3c", "#8a63a8", "#c0504d", "#8c8c8c")
_PANEL_IN = 1.5
_Series = dict[str, list[tuple[float, float]]]


def snapshots_of(record: Record) -> list[Snapshot]:
    """Return all states of the board in order of time, each once although rows share those between their rounds."""
    states = {snapshot.at_s: snapshot for row in record.rows if row.state for snapshot in row.state.snapshots}
    return [states[at_s] for at_s in sorted(states)]


def panels(snapshots: list[Snapshot]) -> dict[str, _Series]:
    """Return curves by axis title; panels and curves without a reading are left out."""
    start_s = snapshots[0].at_s if snapshots else 0.0
    found: dict[str, _Series] = {"MHz": {}, "degrees C": {}, "W": {}}

    def add(panel: str, curve: str, snapshot: Snapshot, value: float | None) -> None:
        if value is not None:
            found[panel].setdefault(curve, []).append((snapshot.at_s - start_s, value))

    for snapshot in snapshots:
        add("MHz", "GPU", snapshot, snapshot.gpu_mhz)
        add("MHz", "GPU limit", snapshot, snapshot.gpu_max_mhz)
        add("MHz", "memory", snapshot, snapshot.emc_mhz)
        for name, value in snapshot.temperatures_c.items():
            add("degrees C", name, snapshot, value)
        for name, value in snapshot.power_mw.items():
            add("W", name, snapshot, value / 1000)
    return {title: curves for title, curves in found.items() if curves}


def draw_state(snapshots: list[Snapshot], width_in: float) -> Figure:
    """Draw one panel below the other over the same seconds; moments in which the board held back are shaded."""
    shown = panels(snapshots)
    figure = new_figure(width_in, 0.5 + _PANEL_IN * len(shown))
    axes_list = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(axes_list, shown.items(), strict=True):
        _draw_panel(axes, title, curves)
        _shade(axes, snapshots)
    axes_list[-1].set_xlabel("seconds since the first reading")
    return figure


def _draw_panel(axes: Axes, title: str, curves: _Series) -> None:
    for index, (name, points) in enumerate(curves.items()):
        times, values = zip(*points, strict=True)
        style = "--" if name.endswith("limit") else "-"
        axes.plot(times, values, style, color=_COLORS[index % len(_COLORS)], linewidth=1.3, label=name)
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.5", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    columns = min(len(curves), 4)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.96), ncols=columns, fontsize=8, frameon=False)


def _shade(axes: Axes, snapshots: list[Snapshot]) -> None:
    for before, after in zip(snapshots, [*snapshots[1:], snapshots[-1]], strict=True):
        if before.throttle:
            start_s = snapshots[0].at_s
            axes.axvspan(before.at_s - start_s, after.at_s - start_s, color="#c0504d", alpha=0.18, linewidth=0)


def in_parts(table: Table) -> list[tuple[str, Table]]:
    """Return headings and tables: the measurement with all notes, stages, models and engines, the paper beside ours.

    A table without columns of stages, of an engine or of the paper stays whole.
    """
    groups = [column.group for column in table.columns]
    paper = [place for place, group in enumerate(groups) if group in (PAPER, PAPER_ACCURACY)]
    engine = [place for place, group in enumerate(groups) if group in (MODELS, ENGINES)] if ENGINES in groups else []
    stages = [place for place, group in enumerate(groups) if group in (STAGE_TIMES, STAGE_P90)]
    first = [place for place in range(len(groups)) if place not in {*paper, *engine, *stages}]
    parts = [("", _picked(table, first, table.notes))]
    if stages:
        parts.append(("From a JPEG in memory to detections", _picked(table, [0, *stages])))
    if engine:
        parts.append(("Models and engines", _picked(table, [0, *engine])))
    if paper:
        parts.append(("Beside the paper", _picked(table, [0, *_beside(table, paper)])))
    return parts


def _beside(table: Table, paper: Sequence[int]) -> list[int]:
    """Return each column of the paper behind ours of the same title."""
    places: list[int] = []
    for place in paper:
        column = table.columns[place]
        ours = [i for i, other in enumerate(table.columns) if other.title == column.title and not other.source]
        places += [i for i in ours if column.source] + [place]
    return places


def _picked(table: Table, places: Sequence[int], notes: Sequence[str] = ()) -> Table:
    rows = [[row[place] for place in places] for row in table.rows]
    return Table(table.title, [table.columns[place] for place in places], rows, list(notes))


Layers = tuple[LayerProfile, "LayerProfile | None"]

_STAMP_CLASS = {"VALID": "good", "UNKNOWN": "note", "UNSTABLE": "note"}


def to_html(records: Sequence[Measurements], layers: Sequence[Layers] = ()) -> str:
    """Return the page: measured records, layers, then imported ones and estimates, which are marked."""
    imported = [
        (f"IMPORTED: {record.title}", _imported_section(record, f"r{i}"))
        for i, record in enumerate(records)
        if isinstance(record, ImportedRecord)
    ]
    ours = [(i, record) for i, record in enumerate(records) if isinstance(record, Record)]
    measured = [(record.title, _record_section(record, f"r{i}")) for i, record in ours if not record.estimate]
    shares = [("FINE's share", _layers_section(*pair, f"l{i}")) for i, pair in enumerate(layers)]
    estimates = [(f"ESTIMATE: {r.title}", _record_section(r, f"r{i}")) for i, r in ours if r.estimate]
    sections = [*measured, *shares, *imported, *estimates]
    links = "".join(f'<li><a href="#s{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(sections))
    opening = (
        f'<h1>Measurements</h1><p class="soft">By fine_edge {__version__}. Every figure follows from the samples in the'
        f" records{', imported ones from what trtexec printed' if imported else ''}.</p>"
        f'<nav><ul class="notes">{links}</ul></nav>'
    )
    body = "\n".join(
        [opening, *(html.replace("<section", f'<section id="s{i}"', 1) for i, (_, html) in enumerate(sections))]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Measurements by fine_edge</title><style>{CSS}</style></head>\n<body>{body}</body></html>\n"
    )


def _imported_section(record: ImportedRecord, key: str) -> str:
    label = "What a query takes, medians: compute, and copies to and from the device"
    drawn = to_svg(lambda: draw_imported(record, WIDTH_IN, titled=False), label, f"{key}i") if record.timed else ""
    return (
        f'<section><p><span class="mark note">IMPORTED</span> {escape(ORIGIN)}</p>'
        f"<h2>{escape(imported_title(record))}</h2>"
        f"{_table(imported_table(record), f'{key}t')}"
        f'<div class="figures">{_figure(drawn, f"{label}.") if drawn else ""}</div></section>'
    )


def _record_section(record: Record, key: str) -> str:
    parts = []
    if record.estimate:
        parts.append('<p><span class="mark note">ESTIMATE</span> by a model of the device; nothing was measured.</p>')
    parts.append(f"<h2>{escape(record.title)}</h2>")
    parts.append(f'<p class="soft">{escape(conditions(record))}, {record.rounds} rounds</p>')
    if record.quick:
        parts.append('<p><span class="mark note">QUICK LOOK</span> too few samples to quote.</p>')
    parts.append(_stamps(record))
    for place, (heading, table) in enumerate(in_parts(to_table(record))):
        parts += [f"<h3>{escape(heading)}</h3>"] if heading else []
        parts.append(_table(table, f"{key}t{place}"))
    parts += [_figures(record, key), _provenance(record, key)]
    return f"<section{' class=estimate' if record.estimate else ''}>{''.join(parts)}</section>"


def _stamps(record: Record) -> str:
    items = "".join(_stamp(row.model, row.state.verdict) for row in record.rows if row.state)
    return f'<ul class="stamps">{items}</ul>' if items else ""


def _stamp(model: str, verdict: Verdict) -> str:
    mark = f'<span class="mark {_STAMP_CLASS.get(verdict.stamp, "bad")}">{escape(verdict.stamp)}</span>'
    said = "; ".join((*verdict.reasons, *verdict.notes))
    return f"<li>{mark} {escape(model)} <span class=soft>{escape(said)}</span></li>"


def _table(table: Table, key: str) -> str:
    """Return the table in a frame that scrolls sideways, with alignment and notes, which its element lacks."""
    rules = []
    for place, column in enumerate(table.columns, 1):
        cells = f"#{key} :is(th, td):nth-child({place})"
        rules += [f"{cells} {{ text-align: right }}"] if column.numeric else []
        rules += [f"{cells} {{ color: var(--paper); font-style: italic }}"] if column.source else []
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f'<style>{" ".join(rules)}</style><div class="table" id="{key}" tabindex="0">{table.to_html()}</div>' + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _figures(record: Record, key: str) -> str:
    return f'<div class="figures">{"".join(_drawn(record, key))}</div>'


def _drawn(record: Record, key: str) -> Iterator[str]:
    mark = "ESTIMATE. " if record.estimate else ""
    if len(record.rows) > len(record.baselines):
        label = mark + picture.caption(record)
        yield _figure(to_svg(lambda: picture.draw(record, WIDTH_IN, titled=False), label, f"{key}o"), f"{label}.")
    if any(row.end_to_end for row in record.rows):
        label = "From a JPEG in memory to detections: the median of each stage, one after the other"
        yield _figure(to_svg(lambda: draw_stages(record, WIDTH_IN, titled=False), label, f"{key}e"), f"{label}.")
    if not record.estimate:
        label = f"All {record.rounds} latencies of each row around its median, nothing trimmed"
        yield _figure(to_svg(lambda: draw_distribution(record, WIDTH_IN), label, f"{key}d"), f"{label}.")
    snapshots = snapshots_of(record)
    if panels(snapshots):
        label = "The board while this was measured; shaded: the board held its clocks back"
        yield _figure(to_svg(lambda: draw_state(snapshots, WIDTH_IN), label, f"{key}s"), f"{label}.")


def _provenance(record: Record, key: str) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in machine_facts(record))
    return f"<h3>Where this comes from</h3><dl>{facts}</dl>{_table(files_table(record), f'{key}f')}"


def _layers_section(profile: LayerProfile, baseline: LayerProfile | None, key: str) -> str:
    label = "Time by part of the detector" if profile.is_timed else "Kernels by part of the detector, not timed"
    figure = _figure(
        to_svg(lambda: layers_picture.draw(profile, WIDTH_IN, titled=False), label, f"{key}p"), f"{label}."
    )
    parts = [
        f'<h2>FINE\'s share</h2><p class="soft">{escape(profile.source)}</p>',
        f'<div class="figures">{figure}</div>',
    ]
    parts.append(_table(parts_table(profile), f"{key}t"))
    if baseline:
        parts += ["<h3>What FINE costs</h3>", f'<p class="soft">Against {escape(baseline.source)}</p>']
        parts.append(_table(cost_table(FineCost(profile, baseline)), f"{key}c"))
    return f"<section>{''.join(parts)}</section>"
