"""Reading files that may be anything."""

import os
from pathlib import Path

import pytest

from fine_edge.errors import DataError
from fine_edge.files import read_json, read_text, sha256_of_files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "no UTF-8 text"),
        (b"", "no JSON"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "Infinity is no number"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[" + b" " * 100, "has 101 bytes, at most 100"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, content, words):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_json(file, DataError, limit=100 if b" " in content else 10**6)


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "x.json", DataError) == {"a": 1}


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            read_text(path, DataError)
    with pytest.raises(DataError, match="no such file -> make it"):
        read_text(tmp_path / "missing", DataError, mend="make it")
    with pytest.raises(DataError, match="not a file name"):
        read_text(tmp_path / "a\0b", DataError)


def test_several_files_are_known_by_names_and_contents(tmp_path):
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    files = {name: tmp_path / name for name in "ab"}
    assert sha256_of_files(files) == sha256_of_files(dict(reversed(files.items())))
    assert sha256_of_files(files) != sha256_of_files({"a": tmp_path / "b", "b": tmp_path / "a"})
    before = sha256_of_files(files)
    (tmp_path / "a").write_text("3")
    assert sha256_of_files(files) != before
