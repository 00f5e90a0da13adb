"""Running the processes of the models, a few at a time: events, time limits, crashes, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import IO, Any

from fine_edge.fields import to_data
from fine_edge.matrix.row import Job, Row
from fine_edge.matrix.stages import GRACE_S

WORKER = (sys.executable, "-m", "fine_edge.matrix.stages")
_LAST_WORDS = 200


@dataclass(frozen=True)
class Event:
    """What a model's process said: the row so far, and the stage that begins; without one the row is final."""

    row: Row
    stage: str | None


@dataclass
class _Child:
    """A running process, its log, and the last that was heard of it."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    deadline_s: float
    row: Row
    stage: str = "export"
    finished: bool = False
    last_words: str = ""
    buffer: bytes = field(default=b"", repr=False)

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None  # it was opened as a pipe
        return self.process.stdout

    def heard(self, block: bytes) -> Generator[Event, None, None]:
        """The events in what was read; a process killed in the middle of a line leaves half of one."""
        *lines, self.buffer = (self.buffer + block).split(b"\n")
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            self.row = Row.from_json(event["row"])
            self.stage, self.finished = event["stage"] or self.stage, event["stage"] is None
            yield Event(self.row, event["stage"])

    def hang_up(self) -> None:
        """Close the pipes, which asks it to end."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def stop(self) -> None:
        """Hang up, kill what does not listen, and take the last words from its log."""
        self.hang_up()
        try:
            self.process.wait(GRACE_S + 1)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.seek(0)
        words = self.log.read().decode("utf-8", errors="replace").strip().splitlines()
        self.last_words = words[-1].strip()[:_LAST_WORDS] if words else ""
        self.log.close()

    def broken(self, reason: str) -> Row:
        """The row of a process that was stopped and gave none."""
        words = f", last words: {self.last_words}" if self.last_words else ""
        return self.row.failing(self.stage, reason, reason + words).given_up()


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, most likely for want of memory"
    return f"crashed (signal {-code})" if code < 0 else f"ended with exit code {code}"


class Pool:
    """Runs jobs in processes of their own.

    Args:
        size: how many at a time.
        timeout_s: for one model.
        worker: command that runs a job, given as its last argument.
    """

    def __init__(self, size: int, timeout_s: float, worker: tuple[str, ...] = WORKER) -> None:
        self._size = size
        self._timeout_s = timeout_s
        self._worker = worker
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()

    def run(self, jobs: list[Job]) -> Generator[Event, None, None]:
        """News of all jobs as it comes; of each, one with a complete row and no stage, at the end.

        Close the iterator to stop what runs: it leaves nothing half-written.
        """
        waiting = list(reversed(jobs))
        try:
            while waiting or self._children:
                while waiting and len(self._children) < self._size:
                    self._start(waiting.pop())
                yield from self._step()
        finally:
            for child in self._children:  # all first: each may take its time
                self._selector.unregister(child.output)
                child.hang_up()
            for child in self._children:
                child.stop()
            self._selector.close()

    def _start(self, job: Job) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop()
        process = subprocess.Popen(
            [*self._worker, json.dumps(to_data(job))],
            env=_environment(job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Out of reach of the terminal's signals: this process decides, and closes the pipe.
            start_new_session=True,
        )
        child = _Child(job, process, log, time.monotonic() + self._timeout_s, Row(job.model, job.input_hw))
        self._children.append(child)
        self._selector.register(child.output, selectors.EVENT_READ, child)

    def _step(self) -> Generator[Event, None, None]:
        """Wait for the next thing to happen."""
        left_s = min(child.deadline_s for child in self._children) - time.monotonic()
        for key, _ in self._selector.select(max(0.0, left_s)):
            child: _Child = key.data
            block = os.read(child.output.fileno(), 65536)
            yield from child.heard(block)
            if not block:
                self._remove(child)
                if not child.finished:
                    yield Event(child.broken(_how(child.process.returncode)), None)
        for child in [c for c in self._children if time.monotonic() >= c.deadline_s]:
            self._remove(child)
            yield Event(child.broken(f"stopped after {self._timeout_s:g} s"), None)

    def _remove(self, child: _Child) -> None:
        self._children.remove(child)
        self._selector.unregister(child.output)
        child.stop()


def _environment(job: Job) -> dict[str, str]:
    """Processes beside each other share the cores; PyTorch would give each of them all."""
    threads = {} if job.threads is None else {"OMP_NUM_THREADS": str(job.threads)}
    return {**os.environ, **threads}
