"""Standard output and standard error as a command writes to them.

Whatever a library or an argument brings, only text that a terminal does not act on gets through. rich, whose own
escapes are wanted, writes past that: its text is made printable in :mod:`fine_edge.console`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from fine_edge.errors import OutputError
from fine_edge.text import printable


class _Output:
    """A stream whose failure is said in one line; the rest is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text as it is."""
        with self._failing():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one text after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what is buffered."""
        with self._failing():
            self._stream.flush()

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return _said("standard output")


class _Error(_Output):
    """Standard error: what cannot be said there cannot be said at all, and is no reason to lose a result."""

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return _unsaid()


class _Shown(_Output):
    """An output that lets through only what a terminal does not act on."""

    @property
    def rich_proxied_file(self) -> _Output:
        """What rich writes to in place of this."""
        return cast(_Output, self._stream)

    def write(self, text: str) -> int:
        """Write text with all that a terminal would act on written out."""
        self._stream.write(printable(text, keep="\n\r\t"))
        return len(text)


@contextlib.contextmanager
def _said(where: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has enough: no failure
        raise
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", where=where) from error


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        return


def show() -> None:
    """Put both streams of the process behind ours for good: tracebacks come last of all."""
    sys.stdout = cast(TextIO, _Shown(cast(TextIO, _Output(sys.stdout))))
    sys.stderr = cast(TextIO, _Shown(cast(TextIO, _Error(sys.stderr))))


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Put both streams of the process behind ours for a while."""
    before = sys.stdout, sys.stderr
    show()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def prepare() -> bool:
    """Make the process's streams fit to be written to, and return whether there is a standard output.

    A descriptor that was closed would be given to the next file that is opened, and what a library prints would go
    into that file. What the encoding of a stream lacks is written out.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    has_output = sys.stdout is not None
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        sys.stdout = _buffered(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        cast(Any, stream).reconfigure(errors="backslashreplace")
    return has_output


def _buffered(stream: TextIO) -> TextIO:
    """Return a stream in the place of one without a buffer, which drops what a pipe or a disk does not take at once."""
    return open(stream.fileno(), "w", 1, stream.encoding, closefd=False)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the process ends


def discard() -> None:
    """Send what is still buffered for a reader that has gone, or a disk that is full, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream of a test has no descriptor
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
