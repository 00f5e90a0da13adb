"""Run each model in a process of its own, a few at a time, and pass on what the processes report.

One thread waits for each process. ``concurrent.futures.ProcessPoolExecutor`` cannot take their place: a worker that the
kernel kills breaks the whole pool, and a worker that hangs cannot be stopped alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event as Flag
from threading import Timer
from typing import IO, Any

from fine_edge.fields import to_data
from fine_edge.matrix.row import MatrixJob, MatrixRow
from fine_edge.matrix.stages import GRACE_S

WORKER = (sys.executable, "-m", "fine_edge.matrix.stages")
_LAST_LINE_CHARACTERS = 200

_Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class StageEvent:
    """The row of a model so far, and the stage that begins; the row is final where ``stage`` is ``None``."""

    row: MatrixRow
    stage: str | None


class Pool:
    """Runs jobs in processes of their own.

    Args:
        size: number of processes at a time.
        timeout_s: for one model.
        worker: command that runs a job, which it gets as its last argument.
    """

    def __init__(self, size: int, timeout_s: float, worker: tuple[str, ...] = WORKER) -> None:
        self._size = size
        self._timeout_s = timeout_s
        self._worker = worker
        self._running: set[_Process] = set()
        self._closed = Flag()
        self._reports: SimpleQueue[StageEvent | BaseException] = SimpleQueue()

    def run(self, jobs: list[MatrixJob]) -> Generator[StageEvent, None, None]:
        """Yield the events of all jobs as they come; the last event of each job has no stage.

        Close the iterator to stop the processes; they leave no half-written file.
        """
        threads = ThreadPoolExecutor(self._size)
        try:
            for job in jobs:
                threads.submit(self._run_job, job).add_done_callback(self._report_error)
            left = len(jobs)
            while left:
                report = self._reports.get()
                if isinstance(report, BaseException):
                    raise report
                left -= report.stage is None
                yield report
        finally:
            self._closed.set()
            threads.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):  # all at once, because each may take GRACE_S to remove its files
                _hang_up(process)
            for process in list(self._running):
                _stop(process)
            threads.shutdown()

    def _report_error(self, done: Future[None]) -> None:
        """Hand an error of a thread, which nobody else would see, to the one who iterates."""
        if not done.cancelled() and (error := done.exception()):
            self._reports.put(error)

    def _run_job(self, job: MatrixJob) -> None:
        row, stage = MatrixRow(job.model, job.input_hw), "export"
        with tempfile.TemporaryFile() as log, self._start(job, log) as process:
            self._running.add(process)
            if self._closed.is_set():  # closed while the process was started
                _hang_up(process)
            timed_out = Flag()
            timer = Timer(self._timeout_s, _time_out, (process, timed_out))
            timer.start()
            try:
                for line in process.stdout or ():
                    if not line.endswith(b"\n"):  # the process was killed in the middle of a line
                        break
                    event: dict[str, Any] = json.loads(line)
                    row = MatrixRow.from_json(event["row"])
                    self._reports.put(StageEvent(row, event["stage"]))
                    if event["stage"] is None:
                        return
                    stage = event["stage"]
                process.wait()
            finally:
                timer.cancel()
                _stop(process)
                self._running.discard(process)
            reason = f"stopped after {self._timeout_s:g} s" if timed_out.is_set() else _how_it_ended(process.returncode)
            words = f", last words: {last}" if (last := _last_line(log)) else ""
            self._reports.put(StageEvent(row.failing(stage, reason, reason + words).given_up(), None))

    def _start(self, job: MatrixJob, log: IO[bytes]) -> _Process:
        # Processes beside each other share the cores; PyTorch would give each of them all.
        threads = {} if job.threads is None else {"OMP_NUM_THREADS": str(job.threads)}
        return subprocess.Popen(
            [*self._worker, json.dumps(to_data(job))],
            env={**os.environ, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C in the terminal reaches this process alone, which then closes the pipes of the others.
            start_new_session=True,
        )


def _hang_up(process: _Process) -> None:
    """Ask a process to end by closing its standard input."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()


def _stop(process: _Process) -> None:
    """Hang up, and kill a process that does not end by itself, with all processes that it started."""
    _hang_up(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S + 1)
    # A child of an ended process keeps the pipe open, and with it the thread that reads.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _time_out(process: _Process, timed_out: Flag) -> None:
    timed_out.set()
    _stop(process)


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, most likely because memory ran out"
    return f"crashed (signal {-code})" if code < 0 else f"ended with exit code {code}"


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:_LAST_LINE_CHARACTERS] if lines else ""
