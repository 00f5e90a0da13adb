"""What was found, kept image by image while it is made, so that a run that was killed goes on where it stopped.

The first line states all that the entries depend on but the pictures. Each line behind it holds one image: its id, the
sha256 of the picture's file, and a row of numbers for each detection, or for what else is counted, or why it could not
be read. It ends with a check over the first line and its own text, so that a line that was damaged, edited by hand or
taken from another journal is none. Of several lines of one image the last one counts. A line that a kill cut off is
made anew, a journal of something else is not touched.
"""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import Found, Mask, objects
from fine_edge.files import MOST_TEXT_BYTES, file_size, output_errors, parse_json

FORMAT = 2

# Of a detection: category id, x0, y0, width, height in pixels of the picture, and score.
Line = tuple[float, ...]

_MOST_ID = 2.0**62
_CHECK = b',"check":"'
_HINT = "remove it or choose another --out"


@dataclass(frozen=True)
class Outlines:
    """The masks of one image's detections: the runs of each, as COCO compresses them, and the picture's size."""

    size: tuple[int, int]
    counts: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """The detections of one image, with masks where the detector finds any, or the reason why there are none.

    Attributes:
        picture: sha256 of the file that was looked at; empty where it could not be read.
    """

    image_id: int
    picture: str = ""
    rows: tuple[Line, ...] = ()
    error: str | None = None
    outlines: Outlines | None = None

    def to_line(self, header: bytes) -> bytes:
        """Return the entry as a line of the file that begins with this header."""
        data: dict[str, Any] = {"image_id": self.image_id}
        data |= {"error": self.error} if self.error else {"picture": self.picture, "rows": self.rows}
        data |= vars(self.outlines) if self.outlines else {}
        text = json.dumps(data, separators=(",", ":"), allow_nan=False).encode().removesuffix(b"}")
        return text + _CHECK + _check(header, text) + b'"}\n'


@dataclass(frozen=True)
class Kept:
    """An entry that was read back; its rows are an array (N, columns)."""

    image_id: int
    picture: str
    rows: NDArray[np.float64]
    error: str | None = None
    outlines: Outlines | None = None

    @classmethod
    def from_line(cls, line: bytes, header: bytes) -> Kept | None:
        """Read it back; ``None`` where the line is no entry of the file whose first line this is."""
        text, _, check = line.rstrip(b"\r\n").rpartition(_CHECK)
        if check != _check(header, text) + b'"}':
            return None
        data = parse_json((text + b"}").decode())
        rows = np.array(data.get("rows", []), dtype=np.float64)
        outlines = Outlines(tuple(data["size"]), tuple(data["counts"])) if "counts" in data else None
        return cls(data["image_id"], data.get("picture", ""), rows, data.get("error"), outlines)


def _check(header: bytes, text: bytes) -> bytes:
    # Of the header too, so that a line of another journal counts for nothing.
    return hashlib.sha256(header + text).hexdigest()[:16].encode()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MOST_TEXT_BYTES):
        yield line


def _bare(line: bytes) -> bytes:
    """Return a first line without what an editor adds to its ends."""
    return line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")


class Journal:
    """An open journal.

    Args:
        path: of the file; its folder is made.
        origin: what is run on what, JSON; a journal of another origin is refused.

    Attributes:
        pictures: sha256 of the picture's file by id of each image that was looked at.

    Raises:
        DataError: when the file is something else.
        OutputError: when it cannot be written.
    """

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        self.path = path
        self.pictures: dict[int, str] = {}
        self._header = json.dumps({"format": FORMAT, **origin}, sort_keys=True).encode()
        with output_errors(path):
            if path.exists():
                file_size(path, DataError, hint=_HINT)  # a pipe would be waited for
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, so that an entry is the system's to write once it has been added.
            self._file = path.open("ab+", buffering=0)
        try:
            self._open_for_appending()
        except BaseException:
            self._file.close()
            raise

    def _open_for_appending(self) -> None:
        """Lock the file, cut off what a kill left of a line, and write the first line if there is none."""
        with output_errors(self.path):
            try:
                # Each of two runs would cut off what the other has half-written.
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError("is being written already", where=self.path, hint="wait for the other run") from None
            whole = self._whole_bytes()
            self._file.truncate(whole)
            if not whole:
                self._write(self._header + b"\n")

    def _whole_bytes(self) -> int:
        """Return the length of the lines that are whole, and note which images they hold."""
        broken = 0
        with self.path.open("rb") as file:
            first = file.readline(MOST_TEXT_BYTES)
            if self._header.startswith(first):
                return 0  # cut off within the first line: nothing is lost
            if not first.endswith(b"\n") or _bare(first) != self._header:
                raise self._foreign(_bare(first))
            whole = len(first)
            for line in _lines(file):
                # A kill leaves half of a line at most, and only at the end.
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                entry = Kept.from_line(line, self._header)
                broken += entry is None
                if entry:
                    self._note(entry)
        if broken:
            console.warn(f"{self.path}: {broken} lines are no entries of this journal: they count for nothing")
        return whole

    def _foreign(self, header: bytes) -> DataError:
        try:
            data = parse_json(header.decode())
            other = [key for key, value in parse_json(self._header.decode()).items() if data.get(key) != value]
        except (ValueError, AttributeError):
            other = ["its first line"]
        what = f"is of another artifact, data set or backend ({', '.join(other) or 'it says more'})"
        return DataError(what, where=self.path, hint=_HINT)

    def add(self, entry: Entry) -> None:
        """Append one image. It is in the file when this returns; after an error nothing of it is."""
        with output_errors(self.path):
            self._write(entry.to_line(self._header))
        self._note(entry)

    def _write(self, line: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
        except BaseException:
            self._file.truncate(end)  # a full disk takes a part of the line
            raise

    def _note(self, entry: Entry | Kept) -> None:
        """Note an entry; an image that could not be read stays out, so that it is tried again."""
        self.pictures.pop(entry.image_id, None)
        if not entry.error:
            self.pictures[entry.image_id] = entry.picture

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_journal(path: Path, image_ids: Collection[int]) -> dict[int, Kept]:
    """Return what counts of a finished journal: the last entry of each of these images, in their order.

    Raises:
        DataError: when it cannot be read, is none, or has nothing of one of the images.
    """
    file_size(path, DataError, hint="evaluate again")
    last: dict[int, Kept] = {}
    try:
        with path.open("rb") as file:
            header = _bare(file.readline(MOST_TEXT_BYTES))
            if parse_json(header.decode())["format"] != FORMAT:
                raise ValueError("of another format")
            for line in _lines(file):
                if entry := Kept.from_line(line, header):
                    last[entry.image_id] = entry
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"is no journal of an evaluation ({type(error).__name__}: {error})"
        raise DataError(what, where=path, hint="evaluate again") from error
    missing = [number for number in image_ids if number not in last or last[number].error]
    if missing:
        what = f"has no entry of {len(missing)} of {len(image_ids)} images, such as the one with id {missing[0]}"
        raise DataError(what, where=path, hint="evaluate again")
    return {number: last[number] for number in image_ids}


def _in_range(table: NDArray[np.float64]) -> bool:
    """Return whether all numbers are finite, and the first of each row fits an id of 64 bits."""
    return bool(np.isfinite(table).all() and (np.abs(table[:, 0]) < _MOST_ID).all())


def table_of(kept: dict[int, Kept], columns: int, where: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the image ids (N,) and rows (N, columns) of entries.

    Raises:
        DataError: when rows are of another length, or a number is no number of its kind.
    """
    tables = [entry.rows for entry in kept.values() if entry.rows.size]
    if any(table.ndim != 2 or table.shape[1] != columns or not _in_range(table) for table in tables):
        raise DataError(f"has rows that are not of {columns} numbers", where=where, hint="evaluate again")
    counts = [len(entry.rows) for entry in kept.values()]
    images = np.repeat(np.array(list(kept), dtype=np.int64), counts)
    return images, np.concatenate([np.empty((0, columns)), *tables])


def found_of(kept: dict[int, Kept], where: Path) -> Found:
    """Return the detections of entries, image by image, with masks where all have one.

    Raises:
        DataError: likewise.
    """
    images, table = table_of(kept, 6, where)
    masks: list[Mask] = []
    for entry in kept.values():
        if entry.outlines:
            masks += [{"size": list(entry.outlines.size), "counts": runs} for runs in entry.outlines.counts]
    return Found(
        images,
        table[:, 0].astype(np.int64),
        table[:, 1:5],
        table[:, 5],
        masks=objects(masks) if masks and len(masks) == len(images) else None,
    )
