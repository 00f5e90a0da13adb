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


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run ``main(argv)`` and leave the process with its exit code.

    A :class:`FineEdgeError` becomes one line on standard error and exit code 2;
    any other exception is a bug and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except FineEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing half-written was left behind\n")
        code = 130
    except _Terminated:
        code = 143
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    raise SystemExit(code)
