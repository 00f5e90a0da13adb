"""What was found, kept image by image while it is made, so that a run that was killed goes on where it stopped.

The first line says what is run on what; each line behind it holds one image: its id and a row of numbers for each
detection, or for what else is counted, or why it could not be read. A line that a kill cut off is made anew, a journal
of something else is not touched.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from fine_edge.atomic import output_errors
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import Found, Mask, objects

FORMAT = 1

Row = tuple[float, ...]
"""Of a detection: category id, x0, y0, width, height in pixels of the picture, and score."""


@dataclass(frozen=True)
class Outlines:
    """Masks of one image's detections: the runs of each, as COCO compresses them, in a picture of this size."""

    size: tuple[int, int]
    counts: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One image: its rows, with masks from detectors that find any, or the reason why there are none."""

    image_id: int
    rows: tuple[Row, ...] = ()
    error: str | None = None
    outlines: Outlines | None = None

    def to_line(self) -> str:
        """As it stands in the file."""
        data: dict[str, Any] = {"image_id": self.image_id}
        data |= {"error": self.error} if self.error else {"rows": self.rows}
        data |= vars(self.outlines) if self.outlines else {}
        return json.dumps(data, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """Read it back; raises ``ValueError`` on a line that is none."""
        data = json.loads(line)
        try:
            rows = tuple(tuple(float(number) for number in row) for row in data.get("rows", ()))
            error = data.get("error")
            outlines = _outlines(data, len(rows)) if "counts" in data else None
            return cls(int(data["image_id"]), rows, None if error is None else str(error), outlines)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


def _outlines(data: dict[str, Any], number: int) -> Outlines:
    height, width = data["size"]
    counts = tuple(str(runs) for runs in data["counts"])
    if len(counts) != number:
        raise ValueError(f"{len(counts)} masks for {number} detections")
    return Outlines((int(height), int(width)), counts)


class Journal:
    """An open journal.

    Args:
        path: of the file; its folder is made.
        origin: what is run on what, JSON; a journal of another origin is refused.

    Attributes:
        done: ids of the images that need not be looked at again.
        errors: why images could not be read, by id.

    Raises:
        DataError: when the file is something else.
        OutputError: when it cannot be written.
    """

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        self.path = path
        self.done: set[int] = set()
        self.errors: dict[int, str] = {}
        self._header = json.dumps({"format": FORMAT, **origin}, sort_keys=True) + "\n"
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = path.open("a+", encoding="utf-8", newline="\n")
        try:
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    def _take_up(self) -> None:
        """Lock the file, cut off what a kill left of a line, and write the first line if there is none."""
        with output_errors(self.path):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError("is being written already", where=self.path, mend="wait for the other run") from None
            whole = self._whole_bytes()
            self._file.truncate(whole)
            if not whole:
                self._file.write(self._header)
                self._file.flush()

    def _whole_bytes(self) -> int:
        """Length of the lines that are whole; notes which images they hold."""
        with self.path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                if self._header.encode().startswith(header):
                    return 0  # cut off within the first line: nothing is lost
                raise self._foreign()
            if header != self._header.encode():
                raise self._foreign()
            whole = len(header)
            for number, line in enumerate(file, start=2):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(Entry.from_line(line.decode()))
                except ValueError as error:
                    raise DataError(f"line {number} is no entry ({error})", where=self.path, mend="remove it") from None
                whole += len(line)
        return whole

    def _foreign(self) -> DataError:
        return DataError(
            "is of another artifact, data set or backend", where=self.path, mend="remove it or choose another --out"
        )

    def add(self, entry: Entry) -> None:
        """Append one image; it is in the file when this returns."""
        with output_errors(self.path):
            self._file.write(entry.to_line())
            self._file.flush()
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        """An image that could not be read is tried again, and may be there the next time."""
        if entry.error:
            self.errors[entry.image_id] = entry.error
        else:
            self.errors.pop(entry.image_id, None)
            self.done.add(entry.image_id)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Entry]:
    """All entries of a finished journal; an image that could be read later on has its error before its rows.

    Raises:
        DataError: when it cannot be read, or is none.
    """
    try:
        with path.open(encoding="utf-8") as file:
            next(file)
            yield from map(Entry.from_line, file)
    except (OSError, ValueError, StopIteration) as error:
        what = f"is no journal of an evaluation ({type(error).__name__}: {error})"
        raise DataError(what, where=path, mend="evaluate again") from error


def read_rows(path: Path, columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Image ids (N,) and rows (N, columns) of a finished journal.

    Raises:
        DataError: likewise, or when rows are of another length.
    """
    images: list[int] = []
    tables = [np.empty((0, columns))]
    for entry in read_journal(path):
        if any(len(row) != columns for row in entry.rows):
            raise DataError(f"has rows that are not of {columns} numbers", where=path, mend="evaluate again")
        images += [entry.image_id] * len(entry.rows)
        tables.append(np.array(entry.rows, dtype=np.float64).reshape(-1, columns))
    return np.array(images, dtype=np.int64), np.concatenate(tables)


def read_found(path: Path) -> Found:
    """Detections of a finished journal, image by image, with masks where all have one.

    Raises:
        DataError: likewise.
    """
    images, table = read_rows(path, 6)
    masks: list[Mask] = []
    for entry in read_journal(path):
        if entry.outlines:
            masks += [{"size": list(entry.outlines.size), "counts": runs} for runs in entry.outlines.counts]
    return Found(
        images,
        table[:, 0].astype(np.int64),
        table[:, 1:5],
        table[:, 5],
        masks=objects(masks) if masks and len(masks) == len(images) else None,
    )
