"""The builder's process: ``python -m fine_edge.engine.compiler build JOB`` or ``describe PLAN``.

A process of its own for every build: only the first logger of a process is honoured, a crash, an endless build or
the kernel's out-of-memory killer takes no command with it, and all memory is given back. The log goes to standard
error; standard output carries one JSON object a line: phases and steps while building, then the result.

Its standard input is a pipe that its parent holds open. When that closes, because the build was interrupted or the
parent was killed, the build is cancelled at its next step, and the process ends after :data:`GRACE_S` at the latest.
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
from fine_edge.engine.plan import Job

GRACE_S = 5.0
STEP_PERIOD_S = 0.1
"""Steps are reported no oftener: a build has thousands, and each takes the interpreter's lock."""

REFUSED, CANCELLED = 3, 4
"""Exit codes: the model or plan was refused, the build was cancelled. 1 is an exception that nobody expected."""


class Events:
    """JSON lines to the parent, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last_step_s = 0.0

    def emit(self, event: dict[str, Any]) -> None:
        """One line; steps that follow each other too fast are dropped."""
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
                return  # the parent has gone; the watcher ends this process


class Watcher(threading.Thread):
    """Waits for standard input to close, then cancels and, should the builder not listen, ends the process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._closed = threading.Event()
        self.building = False
        """Whether the builder runs: only then can it be asked to stop by itself."""

    def run(self) -> None:
        """Nothing is ever written to the pipe: reading returns when it closes."""
        while os.read(0, 1024):
            pass
        self._closed.set()
        if self.building:
            time.sleep(GRACE_S)
        os._exit(CANCELLED)

    def cancelled(self) -> bool:
        """Whether the parent wants no result any more."""
        return self._closed.is_set()


def _build(job: Job, events: Events, watcher: Watcher) -> int:
    import polygraphy
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    # TensorRT-RTX tells of its kernels in the log alone, at the highest verbosity.
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
    """Entry point of the process."""
    # The parent decides when to stop; a Ctrl-C in its terminal reaches it, and through the pipe this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watcher = Watcher()
    watcher.start()
    # Polygraphy prints its log, and the compiler's C++ writes to descriptor 1: both belong to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        events = Events(stream)
        if argv[0] == "describe":
            return _describe(Path(argv[1]), events)
        return _build(Job.from_json(json.loads(argv[1])), events, watcher)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's own clean-up: TensorRT's threads and static objects may outlive it and crash.
    os._exit(code)
