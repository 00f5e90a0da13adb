"""Render tables for a terminal, Markdown, CSV and HTML.

Documents (Markdown, CSV, HTML) hold every column. A terminal has a width: there a table that is too wide is shown as
several, one group of columns below the other, each with the first column in front. No figure is ever cut.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from fine_edge.text import printable

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
_INDENT = 2
# Names of models and of most nodes are shorter, so they stay in one piece; longer words are folded where they must be.
_WHOLE_WORD = 40
_WHOLE_WORD_OF_HEADER = 24
_NOTHING = "-"
EXPLAIN_HINT = "Definitions and details: --explain."
# With the hint these are the six lines that a reader takes in.
_MOST_BRIEF = 5


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the header.
        numeric: whether cells are figures, which are set to the right and never wrapped.
        source: who published the figures where they are not ours; a terminal never mixes them with ours.
        group: columns of one group stay together where the table does not fit the terminal.
        optional: a narrow terminal leaves the column out.
        below: a narrow terminal shows the cells on lines of their own, below the rest of the row.
    """

    title: str
    numeric: bool = True
    source: str = ""
    group: str = ""
    optional: bool = False
    below: bool = False

    @property
    def full_title(self) -> str:
        """Title and source on one line."""
        return f"{self.title} {self.source}".strip()


def brief(lines: list[str]) -> list[str]:
    """Return as many of the lines as stand under a table, the last one saying how many do not."""
    left = len(lines) - _MOST_BRIEF
    return lines if left <= 0 else [*lines[: _MOST_BRIEF - 1], f"{left + 1} more notes: --explain."]


def _markdown(text: str) -> str:
    """Return text on one line that brings no markup of its own: no row, no column, no element."""
    line = printable(" ".join(text.split()))
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _shown(cell: object) -> str:
    return printable(str(cell), keep="\n")


@dataclass
class Table:
    """A titled table of text cells.

    Attributes:
        title: the heading.
        columns: in the order of documents.
        rows: cells, one a column.
        notes: definitions, conditions and doubts; documents hold all of them.
        brief: what a terminal shows instead of ``notes`` until it is asked to explain; ``None`` for all notes.
    """

    title: str
    columns: list[Column]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    brief: list[str] | None = None

    def add(self, *cells: object) -> None:
        """Append a row; ``None`` becomes a dash."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([_NOTHING if cell is None else _shown(cell) for cell in cells])

    def print(self, console: Console, *, explain: bool = False) -> None:
        """Print aligned and coloured text, no line wider than the console; ``explain`` adds the definitions."""
        _print_wrapped(console, self.title, "bold")
        for place, lines in enumerate(_Layout(self, console).blocks()):
            console.print(Text("\n" if place else "").append_text(Text("\n").join(lines)), soft_wrap=True)
        notes = self.notes
        if self.brief is not None and not explain:
            notes = [*self.brief, *([EXPLAIN_HINT] if set(self.notes) - set(self.brief) else [])]
        for note in notes:
            _print_wrapped(console, note, "dim")

    def to_markdown(self) -> str:
        """GitHub-flavoured Markdown."""
        lines = [f"### {_markdown(self.title)}", ""]
        lines.append("| " + " | ".join(_markdown(column.full_title) for column in self.columns) + " |")
        lines.append("|" + "|".join("---:" if column.numeric else "---" for column in self.columns) + "|")
        lines += ["| " + " | ".join(map(_markdown, row)) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {_markdown(note)}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Comma-separated values with a header row, notes left out."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([_shown(column.full_title) for column in self.columns])
        writer.writerows(self.rows)
        return out.getvalue()

    def to_html(self) -> str:
        """An HTML table element with a caption."""
        head = "".join(f"<th>{html.escape(_shown(column.full_title))}</th>" for column in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        return f"<table><caption>{html.escape(_shown(self.title))}</caption><tr>{head}</tr>{body}</table>"


def _wrapped(console: Console, text: Text, width: int) -> list[Text]:
    """Return lines of at most this width, broken between words; only longer words are broken themselves."""
    lines = list(text.wrap(console, width, overflow="fold"))
    for line in lines:
        line.rstrip()
    return lines


def _print_wrapped(console: Console, text: str, style: str) -> None:
    for line in _wrapped(console, Text(text, style=style), console.width):
        console.print(line, soft_wrap=True)


class _Layout:
    """A table on a console of a given width: which columns stand side by side, how wide each is, and the lines."""

    def __init__(self, table: Table, console: Console) -> None:
        self._columns = table.columns
        self._rows = table.rows
        self._console = console
        self._rule = "-" if console.options.ascii_only else "─"
        of_group = {column.group: column.source for column in table.columns if column.group and column.source}
        self._sources = [column.source or of_group.get(column.group, "") for column in table.columns]
        self._least = [self._least_width(place) for place in range(len(table.columns))]
        self._natural = [
            max(least, *self._cell_widths(place, "\n"), *map(cell_len, self._columns[place].full_title.split()), 0)
            for place, least in enumerate(self._least)
        ]
        # A name that wraps is harder to read than another table below; what is optional is not worth it either.
        self._roomy = [
            natural if place == 0 or self._columns[place].optional else least
            for place, (natural, least) in enumerate(zip(self._natural, self._least, strict=True))
        ]

    def _cell_widths(self, place: int, separator: str | None) -> list[int]:
        """Return the widths of the lines of a column's cells, or of their words where the separator is ``None``."""
        return [cell_len(part) for row in self._rows for part in row[place].split(separator)]

    def _least_width(self, place: int) -> int:
        """Return the width below which a column must not fall: figures and ordinary words stay whole."""
        column = self._columns[place]
        header = min(_WHOLE_WORD_OF_HEADER, max(map(cell_len, column.full_title.split()), default=1))
        if column.numeric:
            return max(header, *self._cell_widths(place, "\n"), 0)
        return max(header, *(min(width, _WHOLE_WORD) for width in self._cell_widths(place, None)), 0)

    def blocks(self) -> list[list[Text]]:
        """Return the lines of each table that the columns make."""
        every = list(range(len(self._columns)))
        beside = [place for place in every if not self._columns[place].below]
        if self._fits(every, self._natural):
            return [self._lines(every)]
        if len(beside) < len(every) and self._fits(beside, self._least):
            return [self._lines(beside, [place for place in every if place not in beside])]
        is_one = not any(column.group or column.source for column in self._columns)
        if self._fits(every, self._roomy) or (is_one and self._fits(every, self._least)):
            return [self._lines(every)]
        return [self._lines(places) for places in self._split()]

    def _fits(self, places: Sequence[int], widths: Sequence[int]) -> bool:
        return sum(widths[place] for place in places) + _GAP * (len(places) - 1) <= self._console.width

    def _groups(self) -> list[list[int]]:
        """Return the columns that stay together: those without a group first, published figures last."""
        groups: dict[str, list[int]] = {}
        for place, column in enumerate(self._columns[1:], 1):
            has_figures = not self._rows or any(row[place] != _NOTHING for row in self._rows)
            if has_figures and not column.optional:
                groups.setdefault(column.group or column.source, []).append(place)
        # Sorting is stable: otherwise groups keep the order in which they appear.
        return [group for _, group in sorted(groups.items(), key=lambda item: (self._source(item[1]), item[0] != ""))]

    def _source(self, places: Sequence[int]) -> str:
        """Return who published figures of these columns; empty where all are ours."""
        return next((self._sources[place] for place in places if self._sources[place]), "")

    def _split(self) -> list[list[int]]:
        """Return the columns of each table where one table would be too wide."""
        blocks: list[list[int]] = []
        for group in self._groups():
            alike = bool(blocks) and self._source(blocks[-1]) == self._source(group)
            if alike and self._fits([*blocks[-1], *group], self._roomy):
                blocks[-1] += group
                continue
            blocks.append([0])
            widths = self._roomy if self._fits([0, *group], self._roomy) else self._least
            for place in group:
                if len(blocks[-1]) > 1 and not self._fits([*blocks[-1], place], widths):
                    blocks.append([0])
                blocks[-1].append(place)
        for place, column in enumerate(self._columns):
            if column.optional:
                self._add_where_it_fits(place, blocks)
        return blocks or [[0]]

    def _add_where_it_fits(self, place: int, blocks: list[list[int]]) -> None:
        """Put an optional column beside its own group, unless there is no room for it."""
        for block in blocks:
            is_own = any(self._columns[other].group == self._columns[place].group for other in block[1:])
            if is_own and self._fits([*block, place], self._roomy):
                block[1:] = sorted([*block[1:], place])
                return

    def _widths(self, places: Sequence[int], titles: Sequence[str]) -> list[int]:
        """Return the width of each column: what it needs, and for text as much more as there is room for."""
        unwrapped = [
            max(cell_len(title), *self._cell_widths(place, "\n"), 1)
            for place, title in zip(places, titles, strict=True)
        ]
        if sum(unwrapped) + _GAP * (len(places) - 1) <= self._console.width:
            return unwrapped
        widths = [self._least[place] for place in places]
        spare = self._console.width - _GAP * (len(places) - 1) - sum(widths)
        while spare < 0 and max(widths) > 1:  # a terminal narrower than any: even long figures are folded
            widths[widths.index(max(widths))] -= 1
            spare += 1
        wanting = [i for i, place in enumerate(places) if widths[i] < self._natural[place]]
        while spare > 0 and wanting:
            narrowest = min(wanting, key=lambda i: widths[i])
            widths[narrowest] += 1
            spare -= 1
            wanting = [i for i in wanting if widths[i] < self._natural[places[i]]]
        return widths

    def _lines(self, places: Sequence[int], below: Sequence[int] = ()) -> list[Text]:
        """Return header, rule and rows; cells of the columns ``below`` follow their row on lines of their own."""
        titles = [self._columns[place].full_title for place in places]
        source = self._source(places)
        is_of_source = bool(source) and all(self._sources[place] for place in places[1:])
        if is_of_source:  # then one line names it, instead of every title
            titles = [self._columns[place].title for place in places]
        widths = self._widths(places, titles)
        header = self._side_by_side(titles, places, widths, header=True)
        if is_of_source:
            header.insert(0, Text(f"{source}:", style="dim"))
        indent = Text(" " * _INDENT)
        header += [indent + Text(self._columns[place].full_title, style="bold") for place in below]
        lines = [*header, Text(self._rule * (sum(widths) + _GAP * (len(widths) - 1)), style="dim")]
        for row in self._rows:
            lines += self._side_by_side([row[place] for place in places], places, widths)
            for place in below:
                lines += [indent + line for line in self._wrapped(row[place], self._console.width - _INDENT)]
        return lines

    def _wrapped(self, cell: str, width: int) -> list[Text]:
        return _wrapped(self._console, Text(cell), max(1, width))

    def _side_by_side(
        self, cells: Sequence[str], places: Sequence[int], widths: Sequence[int], *, header: bool = False
    ) -> list[Text]:
        """Return one row of cells as lines; a header stands on its rule, everything else starts at the top."""
        wrapped = [self._wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
        height = max(map(len, wrapped))
        lines = [Text() for _ in range(height)]
        for place, width, cell_lines in zip(places, widths, wrapped, strict=True):
            column = self._columns[place]
            style = " ".join([*(["bold"] if header else []), *(["dim"] if column.source else [])])
            empty = [Text()] * (height - len(cell_lines))
            filled = [*empty, *cell_lines] if header else [*cell_lines, *empty]
            for line, part in zip(lines, filled, strict=True):
                pad = " " * (width - part.cell_len)
                gap = " " * _GAP if place != places[0] else ""
                line.append(gap + (pad + part.plain if column.numeric else part.plain + pad), style=style)
        for line in lines:
            line.rstrip()
        return lines
