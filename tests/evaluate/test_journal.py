"""The journal: whole lines survive a kill at any byte, and nothing foreign is gone on with."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.errors import DataError, OutputError
from fine_edge.evaluate.journal import Entry, Journal, read_found, read_rows

ORIGIN = {"model": "m", "data_sha256": "ab"}
ENTRIES = (
    Entry(1, ((3, 0.5, 1.0, 20.0, 30.0, 0.25), (4, 1.0, 1.0, 2.0, 2.0, 0.125))),
    Entry(2),
    Entry(3, error="b.jpg: cannot be decoded"),
    Entry(4, ((3, 9.0, 9.0, 1.0, 1.0, 1.0),)),
)


def write(path, entries=ENTRIES):
    with Journal(path, ORIGIN) as journal:
        for entry in entries:
            if entry.image_id not in journal.done:
                journal.add(entry)
    return path.read_bytes()


def test_what_is_kept(tmp_path):
    write(tmp_path / "deep" / "j.jsonl")
    with Journal(tmp_path / "deep" / "j.jsonl", ORIGIN) as journal:
        assert (journal.done, journal.errors) == ({1, 2, 4}, {3: "b.jpg: cannot be decoded"})
    found = read_found(tmp_path / "deep" / "j.jsonl")
    assert found.image_ids.tolist() == [1, 1, 4]
    assert found.category_ids.tolist() == [3, 4, 3]
    assert found.boxes_xywh.tolist() == [[0.5, 1, 20, 30], [1, 1, 2, 2], [9, 9, 1, 1]]
    assert found.scores.tolist() == [0.25, 0.125, 1.0]


def test_nothing_found_at_all(tmp_path):
    write(tmp_path / "j.jsonl", [])
    with Journal(tmp_path / "j.jsonl", ORIGIN) as journal:
        assert journal.done == set()
    assert len(read_found(tmp_path / "j.jsonl")) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path, data):
    path = tmp_path / "j.jsonl"
    path.unlink(missing_ok=True)
    whole = write(path)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n") - 1  # without the first
    with Journal(path, ORIGIN) as journal:
        assert len(journal.done) + len(journal.errors) == max(0, lines)
    write(path, [entry for entry in ENTRIES if not entry.error])
    with Journal(path, ORIGIN) as journal:
        assert journal.done == {1, 2, 4}
    assert len(read_found(path)) == 3


def test_an_image_that_came_back_is_no_error_any_more(tmp_path):
    write(tmp_path / "j.jsonl")
    write(tmp_path / "j.jsonl", [Entry(3, ((3, 0.0, 0.0, 1.0, 1.0, 0.5),))])
    with Journal(tmp_path / "j.jsonl", ORIGIN) as journal:
        assert (journal.done, journal.errors) == ({1, 2, 3, 4}, {})
    assert 3 in read_found(tmp_path / "j.jsonl").image_ids


@pytest.mark.parametrize("there", ["", '{"format": 1}\n', "something else", '{"format": 1, "model": "other"}\n'])
def test_something_else_is_left_as_it_is(tmp_path, there):
    path = tmp_path / "j.jsonl"
    path.write_text(there)
    if not there:
        write(path)
        return
    with pytest.raises(DataError, match="is of another artifact, data set or backend -> remove it"):
        Journal(path, ORIGIN)
    assert path.read_text() == there


@pytest.mark.parametrize("line", ["[]", "{}", '{"image_id": 1, "rows": [1]}', "\xff", '{"image_id": "x"}'])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "j.jsonl"
    whole = write(path).decode()
    path.write_text(whole + line + "\n" + ENTRIES[1].to_line(), encoding="latin-1")
    with pytest.raises(DataError, match=r"line 6 is no entry"):
        Journal(path, ORIGIN)


def test_rows_of_another_length_are_refused(tmp_path):
    write(tmp_path / "j.jsonl", [Entry(1, ((1.0, 2.0, 3.0),))])
    assert read_rows(tmp_path / "j.jsonl", 3)[1].tolist() == [[1, 2, 3]]
    with pytest.raises(DataError, match="has rows that are not of 6 numbers"):
        read_found(tmp_path / "j.jsonl")


@pytest.mark.parametrize("text", ["", "{}\nx\n"])
def test_what_is_no_journal_is_refused(tmp_path, text):
    (tmp_path / "j.jsonl").write_text(text)
    with pytest.raises(DataError, match="is no journal of an evaluation"):
        read_found(tmp_path / "j.jsonl")


def test_two_runs_do_not_write_at_once(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, ORIGIN), pytest.raises(DataError, match="is being written already"):
        Journal(path, ORIGIN)
    write(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "file" / "j.jsonl", ORIGIN)
