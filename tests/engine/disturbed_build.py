"""A build that is killed, or runs into a limit: ``disturbed_build.py KIND N build ...``, the rest being the command's.

event N      SIGKILL to itself at the N-th event of the builder's process
replace N    SIGKILL to itself in front of the N-th file that is moved to its final name
fsize N      no file may grow beyond N bytes
address N    the builder may not have more than N bytes of address space
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from fine_edge import command
from fine_edge.cli.engine import main
from fine_edge.engine import supervise


def counting(number: int, then):
    """``then``, called as often as one likes; the process dies in front of the given call."""
    seen = 0

    def counted(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return then(*args, **kwargs)

    return counted


kind, number = sys.argv[1], int(sys.argv[2])
if kind == "event":
    supervise._show = counting(number, supervise._show)
elif kind == "replace":
    Path.replace = counting(number, Path.replace)
else:
    limit = resource.RLIMIT_FSIZE if kind == "fsize" else resource.RLIMIT_AS
    resource.setrlimit(limit, (number, resource.RLIM_INFINITY))
sys.argv = sys.argv[2:]
command.run(main)
