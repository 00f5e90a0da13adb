"""The process of one model: ``python -m fine_edge.matrix.worker JOB``, one JSON line after each stage.

A process of its own, so that a crash or the kernel's out-of-memory killer makes one failing cell, and all memory is
given back before the next model. It ends when its standard input, a pipe that the parent holds open, closes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

import fine_edge
from fine_edge import command
from fine_edge.errors import FineEdgeError
from fine_edge.matrix.job import Job
from fine_edge.matrix.origin import source_sha256
from fine_edge.matrix.row import STAGES, Row
from fine_edge.matrix.stages import RUN

GRACE_S = 10.0
"""Time for removing what is half-written once the parent has gone."""


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # an exception in the main thread, so that its files are removed
    time.sleep(GRACE_S)
    os._exit(143)


def _events() -> TextIO:
    """Standard output for events alone: whatever libraries print goes to the log."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _emit(events: TextIO, stage: str | None, row: Row) -> None:
    events.write(json.dumps({"stage": stage, "row": row.to_json()}) + "\n")
    events.flush()


def _place(error: BaseException) -> str:
    """Our line that an exception went through last."""
    root = Path(fine_edge.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if root in Path(f.filename).parents]
    return f"{Path(frames[-1].filename).relative_to(root.parent)}:{frames[-1].lineno}"


def _run_stage(stage: str, job: Job, row: Row) -> Row:
    start_s = time.perf_counter()
    try:
        row = RUN[stage](job, row)
    except FineEdgeError as error:
        row = row.failing(stage, error.what, str(error))
    except Exception as error:  # whatever a library raises is this model's failing cell, not the end of the matrix
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        row = row.failing(stage, what, f"{_place(error)}: {what}")
    return replace(row, seconds={**row.seconds, stage: round(time.perf_counter() - start_s, 1)})


def run_job(job: Job, events: TextIO) -> None:
    """All stages of a model; without an artifact nothing behind the export can be run."""
    row = Row(job.model, job.input_hw, source_sha256=source_sha256())
    for stage in STAGES:
        _emit(events, stage, row)
        row = _run_stage(stage, job, row)
        if stage == "export" and row.failed:
            row = row.given_up()
            break
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _emit(events, None, replace(row, finished_at=now))


def main(argv: list[str]) -> int:
    """Entry point."""
    events = _events()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_job(Job.from_json(json.loads(argv[0])), events)
    return 0


if __name__ == "__main__":
    command.run(main)
