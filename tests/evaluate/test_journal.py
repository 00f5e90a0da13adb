"""The journal: whole lines survive a kill at any byte, and nothing foreign is gone on with or counted."""

import json
import os
import resource

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fine_edge.errors import DataError, OutputError
from fine_edge.evaluate.journal import Entry, Journal, found_of, read_journal, table_of

ORIGIN = {"model": "m", "data_sha256": "ab"}
ENTRIES = (
    Entry(1, "a1", ((3, 0.5, 1.0, 20.0, 30.0, 0.25), (4, 1.0, 1.0, 2.0, 2.0, 0.125))),
    Entry(2, "b2"),
    Entry(3, error="b.jpg: cannot be decoded"),
    Entry(4, "d4", ((3, 9.0, 9.0, 1.0, 1.0, 1.0),)),
)
READ = (1, 2, 4)
DAMAGED = [
    "[]",
    "{}",
    '{"image_id":1,"picture":"a1","rows":[]}',
    '{"image_id":1,"picture":"a1","rows":[[3,0.5,1.0,Infinity,30.0,NaN]]}',
    '{"image_id":1,"rows":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"image_id":1' + "0" * 10_000 + "}",
    '{"image_id":77,"picture":"a1","rows":[["3","0","0","1","1","1"]]}',
    '{"format": 2, "model": "m"}',
    "\0" * 100,
    "\xff",
    "",
]


def write(path, entries=ENTRIES, origin=ORIGIN):
    with Journal(path, origin) as journal:
        for entry in entries:
            if entry.image_id not in journal.pictures:
                journal.add(entry)
    return path.read_bytes()


def found(path, image_ids=READ):
    return found_of(read_journal(path, image_ids), path)


def test_what_is_kept(tmp_path):
    write(tmp_path / "deep" / "j.jsonl")
    with Journal(tmp_path / "deep" / "j.jsonl", ORIGIN) as journal:
        assert journal.pictures == {1: "a1", 2: "b2", 4: "d4"}
    kept = found(tmp_path / "deep" / "j.jsonl")
    assert kept.image_ids.tolist() == [1, 1, 4]
    assert kept.category_ids.tolist() == [3, 4, 3]
    assert kept.boxes_xywh.tolist() == [[0.5, 1, 20, 30], [1, 1, 2, 2], [9, 9, 1, 1]]
    assert kept.scores.tolist() == [0.25, 0.125, 1.0]


def test_nothing_found_at_all(tmp_path):
    write(tmp_path / "j.jsonl", [])
    with Journal(tmp_path / "j.jsonl", ORIGIN) as journal:
        assert not journal.pictures
    assert len(found(tmp_path / "j.jsonl", ())) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_kill_at_any_byte_loses_no_whole_line(tmp_path, data):
    path = tmp_path / "j.jsonl"
    path.unlink(missing_ok=True)
    whole = write(path)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = path.read_bytes().splitlines(keepends=True)[1:]
    with Journal(path, ORIGIN) as journal:
        kept = [entry.image_id for entry, line in zip(ENTRIES, lines, strict=False) if line.endswith(b"\n")]
        assert list(journal.pictures) == [number for number in kept if number != 3]
    write(path, [entry for entry in ENTRIES if not entry.error])
    assert len(found(path)) == 3


def test_the_last_of_several_lines_of_an_image_counts(tmp_path, capsys):
    path = tmp_path / "j.jsonl"
    first, *lines = write(path).splitlines(keepends=True)
    path.write_bytes(first + b"".join(lines * 3))
    assert found(path).image_ids.tolist() == [1, 1, 4], "a line that stands there twice counts once"
    with Journal(path, ORIGIN) as journal:
        journal.add(Entry(1, "other", ((4, 0.0, 0.0, 1.0, 1.0, 0.5),)))
        journal.add(Entry(4, error="d.jpg: is gone"))
        assert journal.pictures == {1: "other", 2: "b2"}
    assert found(path, (1, 2)).category_ids.tolist() == [4]
    assert not capsys.readouterr().err
    with pytest.raises(DataError, match="no entry of 1 of 3 images, such as the one with id 4 -> evaluate again"):
        found(path)


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_line_that_is_no_entry_counts_for_nothing_and_is_told(tmp_path, capsys, line):
    path = tmp_path / "j.jsonl"
    whole = write(path)
    path.write_bytes(whole + line.encode("latin-1") + b"\n" + ENTRIES[1].to_line(whole.split(b"\n")[0]))
    with Journal(path, ORIGIN) as journal:
        assert journal.pictures == {1: "a1", 2: "b2", 4: "d4"}
    assert "1 lines are no entries of this journal" in capsys.readouterr().err
    assert found(path).scores.tolist() == [0.25, 0.125, 1.0]


@pytest.mark.parametrize(("old", "new"), [(b"0.125", b"0.925"), (b'"a1"', b'"a2"'), (b'_id":1', b'_id":9')])
def test_a_line_that_was_edited_is_made_anew(tmp_path, old, new):
    path = tmp_path / "j.jsonl"
    path.write_bytes(write(path).replace(old, new))
    with Journal(path, ORIGIN) as journal:
        assert journal.pictures == {2: "b2", 4: "d4"}


def test_lines_of_another_journal_are_none_of_this(tmp_path):
    other = write(tmp_path / "other.jsonl", origin={"model": "other"})
    path = tmp_path / "j.jsonl"
    path.write_bytes(write(path, ENTRIES[:1]) + other)
    with Journal(path, ORIGIN) as journal:
        assert journal.pictures == {1: "a1"}


@pytest.mark.parametrize(("mark", "end"), [(b"", b"\r\n"), (b"\xef\xbb\xbf", b"\n")])
def test_what_an_editor_adds_is_no_damage(tmp_path, mark, end):
    path = tmp_path / "j.jsonl"
    path.write_bytes(mark + write(path).replace(b"\n", end))
    write(path, [Entry(5, "e5")])
    assert found(path, (*READ, 5)).image_ids.tolist() == [1, 1, 4]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ('{"format": 1}\n', "(data_sha256, format, model)"),
        ("something else", "(its first line)"),
        ("\n", "(its first line)"),
        ("\0" * 50 + "\n", "(its first line)"),
        ('{"format": 2, "model": "other", "data_sha256": "ab"}\n', "(model)"),
        ('{"data_sha256": "ab", "format": 2, "model": "m", "more": 1}\n', "(it says more)"),
    ],
)
def test_something_else_is_left_as_it_is(tmp_path, there, says):
    path = tmp_path / "j.jsonl"
    path.write_text(there)
    with pytest.raises(DataError) as error:
        Journal(path, ORIGIN)
    assert f"is of another artifact, data set or backend {says} -> remove it" in str(error.value)
    assert path.read_text() == there


def test_rows_of_another_length_are_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path, [Entry(1, "a", ((1.0, 2.0, 3.0),))])
    assert table_of(read_journal(path, (1,)), 3, path)[1].tolist() == [[1, 2, 3]]
    with pytest.raises(DataError, match="has rows that are not of 6 numbers"):
        found(path, (1,))


@pytest.mark.parametrize("text", ["", "{}\nx\n", "[1]\n", "[" * 100_000 + "\n", '{"format": 1}\n'])
def test_what_is_no_journal_is_refused(tmp_path, text):
    (tmp_path / "j.jsonl").write_text(text)
    with pytest.raises(DataError, match="is no journal of an evaluation"):
        found(tmp_path / "j.jsonl")


def test_pipes_and_folders_are_no_journals(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="not a regular file -> remove it"):
            Journal(path, ORIGIN)
        with pytest.raises(DataError, match="not a regular file"):
            found(path)


def test_two_runs_do_not_write_at_once(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, ORIGIN), pytest.raises(DataError, match="is being written already"):
        Journal(path, ORIGIN)
    write(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "j.jsonl", tmp_path / ("a" * 300)):
        with pytest.raises(OutputError, match="cannot be written"):
            Journal(path, ORIGIN)


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path):
    path = tmp_path / "j.jsonl"
    before = write(path, ENTRIES[:1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, ORIGIN) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"cannot be written .* -> free some space"):
                journal.add(ENTRIES[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        assert list(journal.pictures) == [1]
    write(path)
    assert len(found(path)) == 3


def test_lines_are_json(tmp_path):
    lines = write(tmp_path / "j.jsonl").decode().splitlines()
    assert [json.loads(line).get("image_id") for line in lines] == [None, 1, 2, 3, 4]
