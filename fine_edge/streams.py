"""Wrappers of standard output and standard error.

They escape every character that a terminal would act on, in text of libraries and arguments too. rich writes past them,
because its own escapes are wanted: :mod:`fine_edge.console` makes its text printable.
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
    """A stream that is given nothing more once it has failed; :meth:`finish` raises what it failed with.

    So a command whose reader has gone still writes the files that it was asked for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text as it is."""
        if self._failure is None:
            with self._failing():
                return self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one text after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._failure is None:
            with self._failing():
                self._stream.flush()

    def finish(self) -> None:
        """Write what is buffered.

        Raises:
            BrokenPipeError: when the reader has closed the pipe, now or before, which is no failure.
            OutputError: when something could not be written, now or before.
        """
        self.flush()
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            what = f"cannot be written ({self._failure.strerror or self._failure})"
            raise OutputError(what, where="standard output", hint="free some space") from self._failure

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return self._failure_kept()

    @contextlib.contextmanager
    def _failure_kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error


class _Error(_Output):
    """Standard error, which ignores failures: a message that cannot be printed is no reason to lose a result."""

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return _errors_ignored()


class _Escaping(_Output):
    """An output that escapes every character that a terminal would act on."""

    @property
    def rich_proxied_file(self) -> _Output:
        """The stream that rich writes to instead."""
        return cast(_Output, self._stream)

    def write(self, text: str) -> int:
        """Write text with special characters escaped."""
        self._stream.write(printable(text, keep="\n\r\t"))
        return len(text)

    def finish(self) -> None:
        """Finish the stream inside, which knows what failed."""
        self.rich_proxied_file.finish()


@contextlib.contextmanager
def _errors_ignored() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        return


def wrap() -> None:
    """Wrap both streams until the process ends, so that the traceback of a bug is escaped too."""
    sys.stdout = cast(TextIO, _Escaping(cast(TextIO, _Output(sys.stdout))))
    sys.stderr = cast(TextIO, _Escaping(cast(TextIO, _Error(sys.stderr))))


@contextlib.contextmanager
def wrapped() -> Iterator[None]:
    """Wrap both streams inside the block."""
    before = sys.stdout, sys.stderr
    wrap()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def finish() -> None:
    """Write what is buffered of standard output, and raise what it failed with; see :meth:`_Output.finish`."""
    cast(_Output, sys.stdout).finish()


def prepare() -> bool:
    """Make the process's streams writable, and return whether there is a standard output.

    A closed descriptor would be reused for the next file that is opened, and the output of a library would go into
    that file. Characters that the encoding of a stream lacks are escaped.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    has_output = sys.stdout is not None
    sys.stdout = sys.stdout or _null_stream()
    sys.stderr = sys.stderr or _null_stream()
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        sys.stdout = _buffered(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        cast(Any, stream).reconfigure(errors="backslashreplace")
    return has_output


def _buffered(stream: TextIO) -> TextIO:
    """Return a buffered stream for an unbuffered one, which loses text that a pipe or disk does not take at once."""
    return open(stream.fileno(), "w", 1, stream.encoding, closefd=False)


def _null_stream() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the process ends


def discard() -> None:
    """Discard buffered text whose reader has closed the pipe or whose disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # streams of tests have no descriptor
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
