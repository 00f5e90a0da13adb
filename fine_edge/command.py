"""The end of every command: exit codes, signals and the one line of an error.

0     done
1     a check failed
2     bad input, or a result that cannot be written: one line
130   interrupted
141   the reader of the output has closed it: no message
143   terminated; 129 when the terminal was closed
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from fine_edge import libraries, streams
from fine_edge.errors import BackendError, FineEdgeError, OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch has no error of its own for a CPU without memory.
_TORCH_IS_FULL = ("can't allocate memory", "not enough memory")
_TOO_LITTLE = "this machine has too little memory for the command"
_MEMORY_HINT = "close other programs, add swap, or use a smaller --batch or --input-size"
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal as an exception, so that ``finally`` blocks remove partial files before the process ends."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(number)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    for ending in _ENDINGS:  # a second signal must not interrupt the clean-up
        signal.signal(ending, signal.SIG_IGN)
    raise Terminated(number)


def exit_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run ``main(argv)`` and return its exit code.

    A :class:`FineEdgeError` becomes one line on standard error and exit code 2.
    Any other exception is a bug and keeps its traceback.
    """
    with streams.wrapped():
        return _run_to_code(main, argv)


def _run_to_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        code = _outcome(main, argv)
        sys.stdout.flush()
    except FineEdgeError as error:
        code = _print_error(error)
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it, so no message would be read.
        code = 141
    if code == 141 or not _is_flushed():
        streams.discard()
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
    except MemoryError as error:
        raise BackendError(_TOO_LITTLE, hint=_MEMORY_HINT) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _TORCH_IS_FULL):
            raise
        raise BackendError(_TOO_LITTLE, hint=_MEMORY_HINT) from error
    except OSError as error:
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
        sys.stdout.flush()
    except (OutputError, OSError):
        return False
    return True


def raise_on_signals() -> None:
    """Turn the signals that end this process into exceptions in its main thread."""
    for ending in _ENDINGS:
        if signal.getsignal(ending) != signal.SIG_IGN:  # nohup ignores signals on purpose
            signal.signal(ending, _terminate)


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run ``main`` on the process's arguments and end the process with its exit code; see :func:`exit_code`."""
    raise_on_signals()
    libraries.isolate()
    if not streams.prepare():
        main = _refuse_without_output
    streams.wrap()
    raise SystemExit(_run_to_code(main, sys.argv[1:]))


def _refuse_without_output(_argv: list[str]) -> NoReturn:
    raise OutputError("is closed", where="standard output", hint="redirect it to a file or to /dev/null")
