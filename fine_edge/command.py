"""The end of every command: exit codes, signals, the one line of an error, and what reaches the terminal before.

0     done
1     a check failed
2     bad input, or a result that cannot be written: one line
130   interrupted
141   the reader of the output has closed it: no message
143   terminated; 129 when the terminal was closed
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from fine_edge import libraries
from fine_edge.errors import BackendError, DataError, FineEdgeError, OutputError
from fine_edge.text import printable

# Wrappers of standard output and standard error.
#
# They escape every character that a terminal would act on, in text of libraries and arguments too. rich writes past
# them, because its own escapes are wanted: :mod:`fine_edge.console` makes its text printable.


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


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's words on a CPU, and on a GPU; its exceptions are RuntimeErrors, and torch is not imported here.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")
_MOMENT_S = 0.01
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal as an exception, so that ``finally`` blocks remove partial files before the process ends."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(number)


# What ends this process; empty again where a library has swallowed it, as ``except: pass`` does.
_RAISED: weakref.WeakSet[Terminated] = weakref.WeakSet()


def _is_put_off(number: int, frame: FrameType | None) -> bool:
    """Send a signal again in a moment where an exception would get lost, and return whether that is done.

    That is in Python's own code for imports: each ends with a callback of a weak reference, which may raise nothing,
    and libraries that begin in C there pass over what is raised, or abort the process.
    """
    if frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"):
        return False
    again = threading.Timer(_MOMENT_S, os.kill, (os.getpid(), number))
    again.daemon = True  # where the process ends in this moment, it need not hear of it
    again.start()
    return True


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _is_put_off(number, frame):
        raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    if _is_put_off(number, frame):
        return
    if _RAISED:  # a second signal must not interrupt the clean-up
        return
    end = Terminated(number)
    _RAISED.add(end)
    try:
        raise end
    finally:
        del end  # its traceback holds this frame, and it would live for ever


def exit_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run ``main(argv)`` and return its exit code.

    A :class:`FineEdgeError` becomes one line on standard error and exit code 2.
    Any other exception is a bug and keeps its traceback.
    """
    with wrapped():
        return _run_to_code(main, argv)


def _run_to_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        code = _outcome(main, argv)
        finish()
    except FineEdgeError as error:
        code = _print_error(error)
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it, so no message would be read.
        code = 141
    if code == 141 or not _is_flushed():
        discard()
    return code


def _outcome(main: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as end:  # argparse raises it after printing help or usage
        return int(end.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no partial file was left\n")
        return 130
    except Terminated as end:
        return end.code
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        hint = "close other programs, add swap, or use a smaller --batch or --input-size"
        raise BackendError("this machine has too little memory for the command", hint=hint) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # of whatever was asked about it first, most of all whether it is there
            raise DataError("the name is too long", where=error.filename, hint="give a shorter one") from error
        if error.errno not in _FULL:
            raise
        what = f"cannot be written ({error.strerror})"
        raise OutputError(what, where=error.filename, hint="free some space") from error


def _print_error(error: FineEdgeError) -> int:
    try:
        sys.stderr.write(f"error: {error}\n")
    except BrokenPipeError:
        return 141
    return 2


def _is_flushed() -> bool:
    try:
        finish()
    except (OutputError, OSError):
        return False
    return True


def raise_on_signals() -> None:
    """Turn the signals that end this process into exceptions in its main thread."""
    for ending in _ENDINGS:
        if signal.getsignal(ending) != signal.SIG_IGN:  # nohup ignores signals on purpose
            signal.signal(ending, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run ``main`` on the process's arguments and end the process with its exit code; see :func:`exit_code`."""
    if not prepare():
        main = _refuse_without_output
    wrap()
    raise SystemExit(_run_to_code(lambda argv: _prepared(main, argv), sys.argv[1:]))


def _prepared(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run ``main`` in a process that is prepared for it, where what a signal raises is met already."""
    raise_on_signals()
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise DataError("is gone", where="the working folder", hint="change to another one") from error
    libraries.isolate()
    return main(argv)


def _refuse_without_output(_argv: list[str]) -> NoReturn:
    raise OutputError("is closed", where="standard output", hint="redirect it to a file or to /dev/null")
