"""Files of others are read within bounds; our own are written whole or not at all, whatever happens to the writer."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fine_edge.errors import DataError, OutputError
from fine_edge.files import (
    read_json,
    read_text,
    refuse_unwritable,
    sha256_of_files,
    write_bytes,
    write_text,
    written_folder,
    written_together,
)


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
        read_text(tmp_path / "missing", DataError, hint="make it")
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


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "größer")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "größer"
    write_bytes(tmp_path / "new" / "a.txt", b"second")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"second"
    assert names(tmp_path / "new") == ["a.txt"]


def test_nothing_is_visible_before_the_end(tmp_path):
    with written_together(tmp_path, "model", last="z.json") as partial:
        (partial / "a.onnx").write_bytes(b"1")
        assert not (tmp_path / "a.onnx").exists()
        assert [n for n in names(tmp_path) if not n.startswith(".")] == []
    assert names(tmp_path) == ["a.onnx"]


def test_the_file_that_vouches_for_the_others_comes_last(tmp_path, monkeypatch):
    order = []
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, target: (order.append(self.name), replace(self, target))
    )
    with written_together(tmp_path, "m", last="b.contract.json") as partial:
        for name in ("c.npz", "b.contract.json", "a.onnx"):
            (partial / name).write_bytes(b"1")
    assert order == ["a.onnx", "c.npz", "b.contract.json"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_new_files_whoever_writes_them(tmp_path, umask):
    """Libraries make temporary files that only their owner reads; what can be run stays so."""

    def fill(folder):
        (folder / "plain").write_bytes(b"1")
        for name, mode in (("closed", 0o600), ("script", 0o700)):
            (folder / name).touch()
            (folder / name).chmod(mode)

    before = os.umask(umask)
    try:
        with written_together(tmp_path / "files", "model") as partial:
            fill(partial)
        with written_folder(tmp_path / "folder") as partial:
            fill(partial)
    finally:
        os.umask(before)
    for folder in (tmp_path / "files", tmp_path / "folder"):
        found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        assert found == {"plain": 0o666 & ~umask, "closed": 0o666 & ~umask, "script": 0o777 & ~umask}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, MemoryError])
def test_nothing_is_left_after_an_exception_and_the_old_file_stays(tmp_path, failure):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with written_together(tmp_path, "a.txt") as partial:
            (partial / "a.txt").write_text("new")
            raise failure

    with pytest.raises(failure):
        fail()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"


KILLED = """
import os, signal
from pathlib import Path
from fine_edge.files import written_together
with written_together(Path({folder!r}), "model") as partial:
    with (partial / "model.onnx").open("wb") as file:
        file.write(b"half"); file.flush(); os.fsync(file.fileno())
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_mid_write_leaves_no_file_and_the_next_write_sweeps(tmp_path):
    done = child(KILLED.format(folder=str(tmp_path)))
    assert done.returncode == -signal.SIGKILL
    left = names(tmp_path)
    assert len(left) == 1
    assert left[0].startswith(".model.partial-")
    write_text(tmp_path / "other.txt", "done")
    assert names(tmp_path) == ["other.txt"]


def test_what_others_are_writing_is_not_swept(tmp_path):
    writing = subprocess.Popen(
        [sys.executable, "-c", WRITING.format(folder=str(tmp_path))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writing.stdout.readline() == b"open\n"
    left = tmp_path / ".model.partial-0123abcd"  # of a killed writer
    for folder in (left, tmp_path / ".hidden.partial-x"):
        folder.mkdir()
    with written_together(tmp_path, "outer") as outer:
        (outer / "outer.txt").write_text("1")
        write_text(tmp_path / "inner.txt", "2")
        assert outer.exists()
    assert [n for n in names(tmp_path) if ".partial-" not in n] == ["inner.txt", "outer.txt"]
    assert len(names(tmp_path)) == 4
    assert not left.exists()
    writing.communicate(b"\n", timeout=60)
    assert names(tmp_path) == [".hidden.partial-x", "inner.txt", "model.onnx", "outer.txt"]


WRITING = """
from pathlib import Path
from fine_edge.files import written_together
with written_together(Path({folder!r}), "model") as partial:
    (partial / "model.onnx").write_bytes(b"whole")
    print("open", flush=True)
    input()
"""


FULL = """
import resource
from pathlib import Path
from fine_edge.files import write_bytes
from fine_edge.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path({path!r}), bytes(1 << 20))
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_with_its_hint(tmp_path):
    done = child(FULL.format(path=str(tmp_path / "big.bin")))
    assert (done.returncode, done.stderr) == (0, "")
    assert "big.bin: cannot be written (File too large) -> free some space" in done.stdout
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("I am a file")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deeper" / "a.txt"):
        with pytest.raises(OutputError, match=r"cannot be written .* -> choose a folder you can write to"):
            write_text(path, "x")
    assert names(tmp_path) == ["file"]


def test_a_link_to_nowhere_in_the_place_of_a_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"out/deeper/a\.txt: cannot be written"):
        refuse_unwritable([tmp_path / "out" / "deeper" / "a.txt"])
    assert names(tmp_path) == ["out"]


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_text(tmp_path / "a.txt", "x")
    assert names(tmp_path) == ["a.txt"]


def test_a_name_too_long(tmp_path):
    with pytest.raises(OutputError, match="name too long"):
        write_text(tmp_path / ("a" * 300), "x")
    assert names(tmp_path) == []
