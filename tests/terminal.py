"""What a table must keep to on a terminal of any width."""

from __future__ import annotations

import io

from rich.cells import cell_len
from rich.console import Console

from fine_edge.table import Table

WIDTHS = (80, 100)
_WHOLE = 40
_WHOLE_IN_HEADER = 24


def shown(table: Table, width: int, *, explain: bool = False) -> str:
    """The text that a terminal gets."""
    out = io.StringIO()
    table.print(Console(file=out, width=width), explain=explain)
    return out.getvalue()


def assert_fits(table: Table, width: int) -> str:
    """No line is wider than the terminal, no figure and no name is lost, and few notes stand below."""
    text = shown(table, width)
    assert max(map(cell_len, text.splitlines())) <= width, text
    words = text.split()
    joined = " ".join(words)
    for place, column in enumerate(table.columns):
        for row in table.rows:
            if column.numeric:
                assert row[place] == "-" or " ".join(row[place].split()) in joined, (column, row)
            else:
                names = [word for word in row[place].split() if len(word) <= _WHOLE]
                shown_whole = row[place] == "-" or all(name in words for name in names)
                assert column.optional or shown_whole, (column, row)
        if any(row[place] != "-" for row in table.rows) and not column.optional:
            header = column.title.split()
            assert not header or header[0] in words or len(header[0]) > _WHOLE_IN_HEADER, column
    return text
