"""Names out of files as they are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.text import is_plain_name, printable


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("grön 猫 👩‍🔬 a²", "grön 猫 👩‍🔬 a²"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("exe.\u202egnp", r"exe.\u202egnp"),
        ("\ud800", r"\ud800"),
        ("\x07\x7f", r"\x07\x7f"),
        ("\u2028", r"\u2028"),
    ],
)
def test_only_what_a_terminal_acts_on_is_written_out(given_text, shown):
    assert printable(given_text) == shown
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text(st.characters(codec=None)))
def test_every_text_becomes_one_line_that_can_be_encoded(text):
    shown = printable(text)
    assert "\x1b" not in shown
    assert len(shown.encode().decode().splitlines()) <= 1
    assert printable(shown) == shown


def test_plain_names_lead_nowhere():
    assert all(map(is_plain_name, ["rtdetr_r18", "a.fp16.onnx", "0-1", "x" * 200]))
    bad = ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "a\nb", "a\0", "é", "-v", "x" * 201, "a ", None, 3]
    assert not any(map(is_plain_name, bad))
