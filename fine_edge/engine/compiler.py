"""The builder's process: ``python -m fine_edge.engine.compiler build JOB`` or ``describe PLAN``.

Every build has a process of its own. TensorRT uses only the first logger of a process. A crash, an endless build or
the kernel's out-of-memory killer does not end the command, and the process returns all its memory. The log goes to
standard error. Standard output carries one JSON object a line: phases and steps while building, then the result.

Standard input is a pipe that the parent holds open. The pipe closes when the build is interrupted or the parent is
killed. The build is then cancelled at its next step, and the process ends after :data:`GRACE_S` at the latest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from fine_edge.engine import plan as planning
from fine_edge.engine.plan import BuildJob

GRACE_S = 5.0
# The shortest time between two reported steps: a build has thousands, and each takes the interpreter's lock.
STEP_PERIOD_S = 0.1

# Exit codes: the model or plan was refused; the build was cancelled. Code 1 is an unexpected exception.
REFUSED, CANCELLED = 3, 4


class Events:
    """A writer of JSON lines to the parent; any thread may use it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_step_s = 0.0

    def emit(self, event: dict[str, Any]) -> None:
        """Write one line; a step too soon after the last one is dropped."""
        with self._lock:
            if event["event"] == "step":
                now_s = time.monotonic()
                if now_s - self._last_step_s < STEP_PERIOD_S:
                    return
                self._last_step_s = now_s
            try:
                self._stream.write(json.dumps(event) + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                return  # the parent has ended; the watcher ends this process


class Watcher(threading.Thread):
    """A thread that waits for standard input to close, cancels the build and ends the process if that does not help."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._closed = threading.Event()
        self.building = False
        """Whether the builder runs: only then can it stop by itself."""

    def run(self) -> None:
        """Wait until the pipe closes, then end the process; a running build gets :data:`GRACE_S` to stop."""
        while os.read(0, 1024):  # nothing is written to the pipe, so this returns when it closes
            pass
        self._closed.set()
        if self.building:
            time.sleep(GRACE_S)
        os._exit(CANCELLED)

    def cancelled(self) -> bool:
        """Return whether the parent has cancelled the build."""
        return self._closed.is_set()


def _build(job: BuildJob, events: Events, watcher: Watcher) -> int:
    import polygraphy
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    # TensorRT-RTX lists its kernels only in the log, and only at the highest verbosity.
    is_rtx = job.options.target != "tensorrt"
    G_LOGGER.module_severity = G_LOGGER.SUPER_VERBOSE if is_rtx else G_LOGGER.VERBOSE
    start_s = time.perf_counter()
    watcher.building = True
    try:
        plan = planning.build_plan(job, planning.monitor(job.options, events.emit, watcher.cancelled))
    except PolygraphyException:
        return CANCELLED if watcher.cancelled() else REFUSED
    result: dict[str, Any] = {"event": "result", "build_s": time.perf_counter() - start_s}
    result |= {"plan_bytes": len(plan), "polygraphy": polygraphy.__version__}
    if job.plan is not None:
        job.plan.write_bytes(plan)
    if not is_rtx:
        found = planning.describe_plan(plan)
        if job.layers is not None:
            job.layers.write_text(found["layers"], encoding="utf-8")
        result |= {"activation_bytes": found["activation_bytes"]}
    events.emit(result)
    return 0


def _describe(path: Path, events: Events) -> int:
    try:
        found = planning.describe_plan(path.read_bytes())
    except ValueError as error:
        sys.stderr.write(f"[E] {error}\n")
        return REFUSED
    events.emit({"event": "result", **found})
    return 0


def main(argv: list[str]) -> int:
    """Run one job and return the exit code of the process."""
    # The parent decides when to stop: a Ctrl-C in its terminal reaches this process through the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watcher = Watcher()
    watcher.start()
    # Polygraphy prints its log, and the compiler's C++ writes to descriptor 1: both go to the log instead.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        events = Events(stream)
        if argv[0] == "describe":
            return _describe(Path(argv[1]), events)
        return _build(BuildJob.from_json(json.loads(argv[1])), events, watcher)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's clean-up is skipped: TensorRT's threads and static objects may outlive it and crash.
    os._exit(code)
