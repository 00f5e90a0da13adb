"""Cells and rows: what counts as failed, and what survives a file."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.matrix.row import CELLS, NOT_RUN, STAGES, UNREACHED, MatrixRow, fails

NEW = MatrixRow("m", (640, 480))
CELL = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6), st.text())


def test_cells_are_fields_of_a_row():
    assert set(CELLS) <= {field.name for field in fields(MatrixRow)}
    assert set(NEW.cells.values()) == {NOT_RUN}
    assert not NEW.complete
    assert not NEW.failed


@given(st.text())
def test_a_failing_cell_is_one_short_line(reason):
    cell = fails(reason)
    assert len(cell) <= 64
    assert cell.splitlines() == [cell]
    assert NEW.filled("rules", cell).failed


def test_a_stage_that_fails_leaves_its_other_cells_unreached():
    row = NEW.failing("rtx", "refused", "x.onnx: refused -> hint")
    assert [row.cells[name] for name in STAGES["rtx"]] == ["fails: refused", UNREACHED, UNREACHED]
    assert row.note == "rtx: x.onnx: refused -> hint"
    assert row.export == NOT_RUN
    done = row.given_up()
    assert done.complete
    assert done.export == UNREACHED


def test_notes_add_up():
    assert NEW.failing("rules", "a").failing("rtx", "b").note == "rules: a; rtx: b"


@given(st.fixed_dictionaries(dict.fromkeys(CELLS, CELL)), st.text())
def test_a_row_survives_json(cells, note):
    row = MatrixRow("m", (640, 480), **cells, note=note, artifacts={"fp32": "0"}, seconds={"export": 1.5})
    assert MatrixRow.from_json(row.to_json()) == row


@pytest.mark.parametrize(
    ("key", "value"), [("rules", None), ("input_size", [1]), ("artifacts", []), ("input_size", "640")]
)
def test_what_is_no_row_is_refused(key, value):
    with pytest.raises((ValueError, TypeError)):
        MatrixRow.from_json({**NEW.to_json(), key: value})
