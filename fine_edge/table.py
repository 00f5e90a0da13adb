"""One renderer of tables: terminal, Markdown, CSV and HTML show the same cells."""

from __future__ import annotations

import csv
import html
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fine_edge.text import printable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Column:
    """A column: header, and whose figures it holds where they are not ours (shown apart, never mixed with ours)."""

    title: str
    numeric: bool = True
    source: str = ""

    @property
    def full_title(self) -> str:
        """Title and source on one line."""
        return f"{self.title} {self.source}".strip()


def _markdown(text: str) -> str:
    """Return text on one line that brings no markup of its own: no row, no column, no element."""
    line = printable(" ".join(text.split()))
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _shown(cell: object) -> str:
    return printable(str(cell), keep="\n")


@dataclass
class Table:
    """A titled table of text cells with notes below it."""

    title: str
    columns: list[Column]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; ``None`` becomes a dash."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(["-" if cell is None else _shown(cell) for cell in cells])

    def print(self, console: Console) -> None:
        """Aligned and coloured, every column in full even where the terminal is narrow."""
        from rich.table import Table as RichTable
        from rich.text import Text

        # Cells are Text: as plain strings, a "[name]" in them would be taken for a style.
        rich = RichTable(header_style="bold")
        for column in self.columns:
            rich.add_column(
                Text(f"{column.title}\n{column.source}".strip()),
                justify="right" if column.numeric else "left",
                style="dim" if column.source else "",
                no_wrap=True,
            )
        for row in self.rows:
            rich.add_row(*map(Text, row))
        needed = console.measure(rich, options=console.options.update(width=10_000)).maximum
        # rich never prints wider than its console, and would cut columns off where the terminal is narrow.
        wide = type(console)(file=console.file, width=needed, force_terminal=console.is_terminal)
        console.print(Text(self.title, style="bold"), soft_wrap=True)
        wide.print(rich)
        for note in self.notes:
            console.print(note, style="dim", highlight=False, markup=False, soft_wrap=True)

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
