"""The paper's tables of #Params and FLOPs, with every row counted anew beside the printed figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from fine_edge import console
from fine_edge.errors import MissingExtraError
from fine_edge.zoo.catalog import CATALOG, ModelEntry, find
from fine_edge.zoo.paper import (
    DOWN_ROWS,
    LIMIT_G,
    LIMIT_M,
    LIMIT_OF_BASELINE,
    LOGGED,
    NOTES,
    ROWS,
    PaperFigures,
)

# Torch is imported when something is counted, so that an unknown name is refused without it.
if TYPE_CHECKING:
    from fine_edge.fine_options import DownName
    from fine_edge.zoo.count import Cost

_Size = tuple[int, int]


@dataclass(frozen=True)
class CountedRow:
    """One row of a table.

    Attributes:
        table: number of the table; empty for a model without figures in the paper.
        model: name in the zoo or, in Table 6, of the Down operator.
        fusion: the paper's name of the feature fusion.
        attention: FINE's attention strategy; ``None`` without FINE.
        input_hw: height and width of the input in pixels.
        params_m: #Params in millions; ``None`` where it could not be counted, as for the next two.
        flops_g: FLOPs in units of 10^9.
        convention: how ``flops_g`` was counted.
        paper: the paper's row; ``None`` without one.
        missing: the package that has to be installed before the row can be counted.
        own: the count by the convention of the family's other rows, where ``convention`` is that of the authors' log.
    """

    table: str
    model: str
    fusion: str
    attention: str | None
    input_hw: _Size
    params_m: float | None = None
    flops_g: float | None = None
    convention: str | None = None
    paper: PaperFigures | None = None
    missing: str = ""
    own: Cost | None = None

    @property
    def difference_m(self) -> float | None:
        """Return the counted parameters minus the paper's, in millions."""
        return _minus(self.params_m, self.paper.params_m if self.paper else None)

    @property
    def difference_g(self) -> float | None:
        """Return the counted FLOPs minus the paper's, in units of 10^9."""
        return _minus(self.flops_g, self.paper.flops_g if self.paper else None)

    @property
    def is_baseline(self) -> bool:
        """Return whether the model has no method in its fusions."""
        # Such as "FPN" beside "FPN + FINE".
        return "+" not in self.fusion

    @property
    def reproduced(self) -> bool | None:
        """Return whether both figures are the paper's except for rounding; ``None`` without figures to compare."""
        if self.paper is None or self.flops_g is None:
            return None
        limit_g = max(LIMIT_G, LIMIT_OF_BASELINE * self.paper.flops_g) if self.is_baseline else LIMIT_G
        return abs(self.difference_m or 0) <= LIMIT_M and abs(self.difference_g or 0) <= limit_g

    @property
    def note(self) -> str:
        """Return the note on the row; empty for none."""
        if self.missing:
            return f"not counted: {self.missing}"
        note = NOTES.get((self.table, self.model), "")
        if self.reproduced is False and not note:
            return "differs from the paper by more than a rounding; the reason is not known."
        return note

    def to_json(self) -> dict[str, Any]:
        """Return plain values; figures have three decimals, those below 0.01 six."""
        return {
            "table": self.table or None,
            "model": self.model,
            "fusion": self.fusion,
            "attention": self.attention,
            "input_hw": list(self.input_hw),
            "params_m": _rounded(self.params_m),
            "flops_g": _rounded(self.flops_g),
            "paper": self.paper and self.paper.to_json(),
            "difference": self.paper
            and {"params_m": _rounded(self.difference_m), "flops_g": _rounded(self.difference_g)},
            "own": self.own
            and {
                "params_m": _rounded(self.own.params_m),
                "flops_g": _rounded(self.own.flops_g),
                "convention": self.own.convention,
            },
            "reproduced": self.reproduced,
            "note": self.note,
            "convention": self.convention,
        }


def _minus(counted: float | None, printed: float | None) -> float | None:
    return None if counted is None or printed is None else counted - printed


def _rounded(figure: float | None) -> float | None:
    # Table 6 counts one operator: 0.00614 M and 0.00246 G.
    return None if figure is None else round(figure, 6 if abs(figure) < 0.01 else 3)


def count_rows(names: Sequence[str] = ()) -> list[CountedRow]:
    """Count the rows of Tables 1, 2, 3, 6, 7 and 8, or those of the models called ``names``.

    Each model is built once, one at a time, with its library's own initial weights.

    Raises:
        UnknownModelError: for a name that is not in the zoo, before anything is counted.
        MissingExtraError: without torch, or without the library of a model in ``names``. In the whole table, such a
            model's rows name the missing library.
    """
    wanted = dict.fromkeys(names or CATALOG)
    entries = [find(name) for name in wanted]
    rows = {entry.name: _rows_of(entry) for entry in entries}
    _require_torch()
    counted = [] if names else _down_rows()
    with console.progress() as bar:
        task = bar.add_task("counting", total=len(entries))
        for entry in entries:
            try:
                counted += _count(entry, rows[entry.name])
            except MissingExtraError as error:
                if names:
                    raise
                counted += [replace(row, missing=str(error)) for row in rows[entry.name]]
            bar.advance(task)
    return sorted(counted, key=_place)


def _rows_of(entry: ModelEntry) -> list[CountedRow]:
    """Return the model's rows before counting: each of the paper's rows, or one without figures of the paper."""
    printed = [row for row in ROWS if row.model == entry.name]
    if not printed:
        return [CountedRow("", entry.name, entry.fusion, entry.attention, entry.detector.input_hw)]
    return [
        CountedRow(row.table, entry.name, entry.fusion, entry.attention, row.input_hw, paper=row) for row in printed
    ]


def _require_torch() -> None:
    try:
        import fine_edge.zoo.count  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export") from error


def _count(entry: ModelEntry, rows: list[CountedRow]) -> list[CountedRow]:
    """Count the rows of a model, which is built once and freed afterwards."""
    from fine_edge.zoo.family import family_of

    family = family_of(entry.family)
    model = family.build(entry, len(family.labels(entry)))
    costs = {size: family.count(model, *size) for size in sorted({row.input_hw for row in rows})}
    return [
        _filled(row, family.count_as_logged(model, *row.input_hw), own=costs[row.input_hw])
        if (row.table, row.model) in LOGGED
        else _filled(row, costs[row.input_hw])
        for row in rows
    ]


def _filled(row: CountedRow, cost: Cost, own: Cost | None = None) -> CountedRow:
    return replace(row, params_m=cost.params_m, flops_g=cost.flops_g, convention=cost.convention, own=own)


def _down_rows() -> list[CountedRow]:
    """Return the rows of Table 6, which counts a part of FINE."""
    from fine_edge.zoo.count import count_down

    return [
        _filled(
            CountedRow(row.table, row.model, "FPN + FINE", "aats", row.input_hw, paper=row),
            count_down(cast("DownName", row.model)),
        )
        for row in DOWN_ROWS
    ]


def _place(row: CountedRow) -> tuple[str, int]:
    """Return the sorting key: tables by number, rows in the paper's order, rows of no table last."""
    printed = (*ROWS, *DOWN_ROWS)
    # "~" sorts behind all digits.
    return row.table or "~", printed.index(row.paper) if row.paper else 0
