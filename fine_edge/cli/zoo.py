"""``fine-edge zoo``: count #Params and FLOPs of every model and set them beside the paper's, table by table."""

from __future__ import annotations

from itertools import groupby

from fine_edge.cli.arguments import Parser, add_explain, add_fine, add_json, deliver
from fine_edge.errors import ConfigError
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import with_fine
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
_FIGURES = (
    Column("#Params (M)"),
    Column("FLOPs (G)"),
    Column("#Params (M)", source="paper"),
    Column("FLOPs (G)", source="paper"),
    Column("Δ (M)"),
    Column("Δ (G)"),
)


def table(number: str, rows: list[CountedRow]) -> Table:
    """Return one table as people read it: counted, the paper's, and the difference."""
    # Table 6 is about thousandths of the others' figures.
    digits = 5 if number == "6" else 2
    marks: dict[str, int] = {}
    by_attention = len({row.attention for row in rows} - {None}) > 1
    # What is the same in all rows stands in the title, in place of a column.
    sizes = {_size(row) for row in rows}
    of_one_way = len({row.convention for row in rows if row.convention}) == 1
    words = ["model", "fusion", *(["attention"] if by_attention else []), *(["input"] if len(sizes) > 1 else [])]
    view = Table(
        f"{TITLES[number]}, batch 1" + (f", {sizes.pop()}" if len(sizes) == 1 else ""),
        [*(Column(word, numeric=False) for word in words), *_FIGURES, Column("notes", numeric=False)],
    )
    for row in rows:
        paper = row.paper
        notes = [row.note] if row.note else []
        notes += [f"FLOPs: {row.convention}."] if row.convention and not of_one_way else []
        view.add(
            row.model,
            row.fusion,
            *([row.attention] if by_attention else []),
            *([_size(row)] if "input" in words else []),
            _cell(row.params_m, digits),
            _cell(row.flops_g, digits),
            # As many digits as the paper has.
            paper.params_m if paper else None,
            paper.flops_g if paper else None,
            _cell(row.difference_m, digits, "+"),
            _cell(row.difference_g, digits, "+"),
            " ".join(f"[{marks.setdefault(note, len(marks) + 1)}]" for note in notes),
        )
    view.notes = [f"FLOPs: {row.convention}." for row in rows if row.convention and of_one_way][:1]
    view.notes += [f"[{mark}] {note}" for note, mark in marks.items()]
    view.notes += [
        f"{row.model} by the convention of the other rows: {row.own.params_m:.2f} M and {row.own.flops_g:.2f} G."
        for row in rows
        if row.own
    ]
    view.brief = [f"[{mark}] {_in_short(note)}" for note, mark in marks.items()]
    return view


def _in_short(note: str) -> str:
    """Return the first part of a note, which says how far off a row is; the rest says why."""
    return note.removeprefix("not reproduced: ").split(";")[0]


def _size(row: CountedRow) -> str:
    return "x".join(map(str, row.input_hw))


def _cell(figure: float | None, digits: int, sign: str = "") -> str | None:
    return None if figure is None else f"{figure:{sign}.{digits}f}"


def main(argv: list[str]) -> int:
    """Print one table after the other, or JSON; return the exit code."""
    parser = Parser(
        prog="fine-edge zoo", description="Count #Params and FLOPs of every model and set them beside the paper's."
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these models (default: all)")
    add_fine(parser, "of each MODEL")
    add_json(parser)
    add_explain(parser)
    args = parser.parse_args(argv)
    if args.fine is not None and not args.models:
        raise ConfigError("no MODEL is named", where="--fine", hint="name one, such as rtdetr_r18_fine")
    rows = count_rows([with_fine(name, args.fine).name for name in args.models])
    tables = [table(number, list(of_table)) for number, of_table in groupby(rows, key=lambda row: row.table)]
    deliver(args, [row.to_json() for row in rows], tables)
    return 0
