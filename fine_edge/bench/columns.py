"""Columns that tables of every backend have: the model's, its accuracy, its ratio, and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fine_edge.bench.paper import SOURCE, fps_ratio, paper_fps_ratio, paper_latency_ratio, paper_source
from fine_edge.bench.record import Record, Row
from fine_edge.bench.wording import attention_title, fixed, size_text
from fine_edge.table import Column, Table

Cell = Callable[[Row], "str | None"]

ACCURACY = {
    "ap": "AP",
    "ap50": "AP50",
    "ap_s": "AP S",
    "ap_m": "AP M",
    "ap_l": "AP L",
    "mask_ap": "Mask AP",
    "miou": "mIoU",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
}
"""Metrics, as :mod:`fine_edge.zoo.paper` names them, in the order of their columns."""


@dataclass(frozen=True)
class RowColumn:
    """A column and how its cells come from rows; ``kept`` stays where no row has a figure for it."""

    column: Column
    cell: Cell
    kept: bool = False


def text(name: str, cell: Cell) -> RowColumn:
    """A column of words."""
    return RowColumn(Column(name, numeric=False), cell)


def number(
    name: str, digits: int, value: Callable[[Row], float | None], source: str = "", *, kept: bool = False
) -> RowColumn:
    """A column of figures with so many digits behind the point."""
    return RowColumn(Column(name, source=source), lambda row: fixed(value(row), digits), kept)


def to_rows(title: str, columns: Sequence[RowColumn], record: Record, notes: list[str]) -> Table:
    """The table; columns that no row has a figure for are left out."""
    shown = [c for c in columns if c.kept or any(c.cell(row) is not None for row in record.rows)]
    table = Table(title, [c.column for c in shown], notes=notes)
    for row in record.rows:
        table.add(*(c.cell(row) for c in shown))
    return table


def model_columns(record: Record) -> list[RowColumn]:
    """Name, what its attention is where that tells rows apart, and its size."""
    strategies = {row.attention for row in record.rows} - {None}
    # Records from before there were groups keep the columns that they have always been shown with.
    by_attention = len(strategies) > 1 or not record.groups
    attention = [
        text("Attention", lambda row: attention_title(row.attention)),
        text("Complexity", lambda r: r.complexity),
    ]
    sizes = {record.input_hw_of(row) for row in record.rows}
    return [
        text("Model", lambda row: row.model),
        *(attention if by_attention else ()),
        *([text("Input (px)", lambda row: size_text(record.input_hw_of(row)))] if len(sizes) > 1 else ()),
        number("#Params (M)", 1, lambda row: row.params_m),
        number("FLOPs (G)", 2, lambda row: row.flops_g),
    ]


def ratio_columns(record: Record) -> list[RowColumn]:
    """Latency over the baseline's with its interval; FPS likewise where the paper has no other ratio."""

    def interval(row: Row) -> str | None:
        ratio = record.ratio(row)
        return None if record.is_baseline(row) else f"{ratio.low:.3f} .. {ratio.high:.3f}"

    return [
        number("Ratio", 3, lambda row: record.ratio(row).value),
        RowColumn(Column("Ratio 95 % CI"), interval),
        number("FPS ratio", 3, lambda row: fps_ratio(record, row)),
    ]


def accuracy_columns(record: Record) -> list[RowColumn]:
    """Metrics that were evaluated or that the paper has, AP where there is neither."""
    return [number(ACCURACY[metric], 1, _accuracy(metric), kept=True) for metric in metrics(record)]


def metrics(record: Record) -> list[str]:
    """Those of :func:`accuracy_columns`."""
    known = {key for row in record.rows for key in (*row.accuracy, *(row.paper or ()))}
    return [metric for metric in ACCURACY if metric in known] or ["ap"]


def _accuracy(metric: str) -> Callable[[Row], float | None]:
    return lambda row: row.accuracy.get(metric)


def of_paper(key: str) -> Callable[[Row], float | None]:
    """A figure of the paper's row."""
    return lambda row: (row.paper or {}).get(key)


def paper_ratio_columns(record: Record) -> list[RowColumn]:
    """The paper's latency ratio, or its FPS ratio where it has no latencies."""

    def throughput(row: Row) -> float | None:
        ratio = paper_fps_ratio(record, row)
        return ratio.value if ratio else None

    return [
        number("Ratio", 3, lambda row: paper_latency_ratio(record, row), SOURCE),
        number("FPS ratio", 3, throughput, SOURCE),
    ]


def paper_accuracy_columns(record: Record) -> list[RowColumn]:
    """The paper's accuracy; Table 2 also says what its detector had without the method."""
    source = paper_source(record)
    before = number("AP without it", 1, of_paper("ap_baseline"), source)
    return [before, *(number(title, 1, of_paper(metric), source) for metric, title in ACCURACY.items())]
