import csv
import io

import pytest
from rich.console import Console

from fine_edge.table import Column, Table


@pytest.fixture
def table():
    view = Table(
        "Models [640x640]", [Column("model | name", numeric=False), Column("Mem [MiB]"), Column("AP", source="paper")]
    )
    view.add("rtdetr_r18", 65.5, None)
    view.add("a|b", "[/bold] 1,5", 'say "hi"')
    view.notes = ["counted [by] fvcore"]
    return view


def printed(table, width):
    out = io.StringIO()
    table.print(Console(file=out, width=width))
    return out.getvalue()


def test_none_is_a_dash_and_rows_must_fit(table):
    assert table.rows[0] == ["rtdetr_r18", "65.5", "-"]
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        table.add(1, 2)


@pytest.mark.parametrize("width", [10, 40, 200])
def test_every_cell_is_printed_in_full_at_any_width(table, width):
    text = printed(table, width)
    for cell in (*(column.title for column in table.columns), *(cell for row in table.rows for cell in row)):
        assert cell in text
    assert "…" not in text
    assert "counted [by] fvcore" in text


def test_brackets_are_no_markup(table):
    assert "Models [640x640]" in printed(table, 100)


def test_markdown_escapes_what_would_break_a_row(table):
    table.add("two\nlines", "1", "2")
    lines = table.to_markdown().splitlines()
    assert lines[0] == "### Models [640x640]"
    assert lines[2] == "| model \\| name | Mem [MiB] | AP paper |"
    assert lines[3] == "|---|---:|---:|"
    assert lines[5].startswith("| a\\|b |")
    assert lines[6] == "| two lines | 1 | 2 |"
    assert lines[-1] == "- counted [by] fvcore"


def test_csv_comes_back_as_it_was(table):
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [[c.full_title for c in table.columns], *table.rows]


def test_html_escapes(table):
    table.add("<script>", "1 & 2", "x")
    text = table.to_html()
    assert "&lt;script&gt;" in text
    assert "1 &amp; 2" in text
    assert "<script>" not in text
