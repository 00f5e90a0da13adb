"""``python -m fine_edge zoo``: every model with its #Params and FLOPs beside the paper's, table by table."""

from __future__ import annotations

from itertools import groupby

from fine_edge.cli.arguments import Parser, add_json, deliver
from fine_edge.table import Column, Table
from fine_edge.zoo.tables import CountedRow, count_rows

TITLES = {
    "1": "Table 1: detectors with and without FINE",
    "2": "Table 2: FINE and its rivals",
    "3": "Table 3: FINE's attention strategies",
    "6": "Table 6: FINE's Down operator",
    "7": "Table 7: instance, semantic and panoptic segmentation",
    "8": "Table 8: detectors for VisDrone, which prints no #Params",
    "": "Models without figures in the paper",
}
_COLUMNS = (
    Column("model", numeric=False),
    Column("fusion", numeric=False),
    Column("attention", numeric=False),
    Column("input", numeric=False),
    Column("#Params (M)"),
    Column("FLOPs (G)"),
    Column("#Params (M)", source="paper"),
    Column("FLOPs (G)", source="paper"),
    Column("Δ (M)"),
    Column("Δ (G)"),
)


def table(number: str, rows: list[CountedRow]) -> Table:
    """One table as people read it: counted, the paper's, and the difference."""
    # Table 6 is about thousandths of the others' figures.
    digits = 5 if number == "6" else 2
    view = Table(f"{TITLES[number]}, batch 1", list(_COLUMNS))
    for row in rows:
        paper = row.paper
        view.add(
            row.model,
            row.fusion,
            row.attention,
            "x".join(map(str, row.input_hw)),
            _cell(row.params_m, digits),
            _cell(row.flops_g, digits),
            # As many digits as the paper has.
            paper.params_m if paper else None,
            paper.flops_g if paper else None,
            _cell(row.difference_m, digits, "+"),
            _cell(row.difference_g, digits, "+"),
        )
    view.notes = [*_conventions(rows), *(f"{row.model}: {row.note}" for row in rows if row.note)]
    return view


def _cell(figure: float | None, digits: int, sign: str = "") -> str | None:
    return None if figure is None else f"{figure:{sign}.{digits}f}"


def _conventions(rows: list[CountedRow]) -> list[str]:
    """Each once, with the models that were counted so."""
    models: dict[str, list[str]] = {}
    for row in rows:
        if row.convention:
            models.setdefault(row.convention, []).append(row.model)
    return [f"FLOPs of {', '.join(names)}: {convention}." for convention, names in models.items()]


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog="fine-edge zoo", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these models (default: all)")
    add_json(parser)
    args = parser.parse_args(argv)
    rows = count_rows(args.models)
    tables = [table(number, list(of_table)) for number, of_table in groupby(rows, key=lambda row: row.table)]
    deliver(args, [row.to_json() for row in rows], tables)
    return 0
