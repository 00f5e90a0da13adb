"""A wide table in parts that fit a page, each with the model's name in front."""

from __future__ import annotations

from collections.abc import Sequence

from fine_edge.table import Table

# What belongs to the model and its engine rather than to the measurement.
_ENGINE = (
    "Complexity",
    "#Params (M)",
    "FLOPs (G)",
    "Plan (MiB)",
    "Weights (MiB)",
    "Activation (MiB)",
    "Device delta (MiB)",
    "Host delta (MiB)",
    "Kernels",
    "Fused attentions",
)


def in_parts(table: Table) -> list[tuple[str, Table]]:
    """Heading and table: the measurement, models and engines, and the paper's beside ours; notes with the first.

    A table without an engine's or the paper's columns stays whole.
    """
    titles = [column.title for column in table.columns]
    paper = [place for place, column in enumerate(table.columns) if column.source or "difference" in column.title]
    engine = [place for place, title in enumerate(titles) if title in _ENGINE] if "Plan (MiB)" in titles else []
    first = [place for place in range(len(titles)) if place not in paper and place not in engine]
    parts = [("", _picked(table, first, table.notes))]
    if engine:
        parts.append(("Models and engines", _picked(table, [0, *engine])))
    if paper:
        parts.append(("Beside the paper", _picked(table, [0, *_beside(table, paper)])))
    return parts


def _beside(table: Table, paper: Sequence[int]) -> list[int]:
    """Each column of the paper's behind ours of the same title."""
    places: list[int] = []
    for place in paper:
        column = table.columns[place]
        ours = [i for i, other in enumerate(table.columns) if other.title == column.title and not other.source]
        places += [i for i in ours if column.source] + [place]
    return places


def _picked(table: Table, places: Sequence[int], notes: Sequence[str] = ()) -> Table:
    rows = [[row[place] for place in places] for row in table.rows]
    return Table(table.title, [table.columns[place] for place in places], rows, list(notes))
