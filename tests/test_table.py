import csv
import io

import pytest
from rich.console import Console

from fine_edge.table import EXPLAIN_HINT, Column, Table


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
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(table, width):
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    together = "".join(text.split())
    if width > 10:  # narrower than one figure
        assert all(cell in text for row in table.rows for cell in row)
    assert "…" not in text
    assert "counted[by]fvcore" in together


def lines(columns, rows, width, **options):
    view = Table("T", columns, [list(row) for row in rows], **options)
    return printed(view, width).splitlines()[1:]


def test_groups_of_columns_become_tables_of_their_own_with_the_papers_last():
    columns = [
        Column("Model", numeric=False),
        Column("Kind", numeric=False, group="models"),
        Column("Why", numeric=False, group="models", optional=True),
        Column("FPS"),
        Column("FPS", source="paper"),
        Column("Nothing"),
    ]
    rows = [("a_long_name", "short", "a long reason", "1.5", "80", "-")]
    assert len(lines(columns, rows, 100)) == 3
    assert lines(columns, rows, 24) == [
        "Model        FPS  Kind",
        "───────────────────────",
        "a_long_name  1.5  short",
        "",
        "paper:",
        "Model        FPS",
        "────────────────",
        "a_long_name   80",
    ]
    assert lines(columns, rows, 20)[4:7] == ["Model        Kind", "──────────────────", "a_long_name  short"]


def test_text_wraps_at_words_and_a_long_message_stands_below_its_row():
    columns = [Column("Node", numeric=False), Column("Message", numeric=False, below=True), Column("Max")]
    rows = [("/a/b/Conv_1", "is not as it should be", "1.25"), ("/c", "ok", "3")]
    assert lines(columns, rows, 80)[2].split() == ["/a/b/Conv_1", *rows[0][1].split(), "1.25"]
    assert lines(columns, rows, 20) == [
        "Node          Max",
        "  Message",
        "─────────────────",
        "/a/b/Conv_1  1.25",
        "  is not as it",
        "  should be",
        "/c              3",
        "  ok",
    ]
    wrapped = lines([Column("Name", numeric=False), Column("Text", numeric=False)], [("x", "one two three")], 13)
    assert wrapped[2:] == ["x     one two", "      three"]


def test_definitions_are_printed_when_they_are_asked_for():
    view = Table("T", [Column("A")], [["1"]], notes=["A: what it is.", "Doubtful."], brief=["Doubtful."])
    assert printed(view, 80).splitlines()[-2:] == ["Doubtful.", EXPLAIN_HINT]
    out = io.StringIO()
    view.print(Console(file=out, width=80), explain=True)
    assert out.getvalue().splitlines()[-2:] == ["A: what it is.", "Doubtful."]
    assert "- A: what it is." in view.to_markdown()


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
