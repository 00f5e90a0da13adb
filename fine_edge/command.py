"""How every command of the package ends: 0 done, 1 a check failed, 2 bad input with one line, 130 interrupted."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from fine_edge.errors import FineEdgeError


class _Terminated(BaseException):
    """SIGTERM as an exception, so that ``finally`` blocks remove half-written files."""


def _terminate(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def exit_code(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run ``main(argv)`` and return its exit code.

    A :class:`FineEdgeError` becomes one line on standard error and exit code 2;
    any other exception is a bug and keeps its traceback.
    """
    try:
        code = main(argv)
        sys.stdout.flush()
    except FineEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing half-written was left behind\n")
        return 130
    except _Terminated:
        return 143
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run ``main`` on the process's arguments and leave the process with its exit code; see :func:`exit_code`."""
    signal.signal(signal.SIGTERM, _terminate)
    raise SystemExit(exit_code(main, sys.argv[1:]))
