"""Run the trainings of a study, each in a process of its own, a few at a time.

A process that is killed, or a library that crashes, ends one run and no other. One thread waits for each process. Its
words go to ``log.txt`` in the folder of the run, and the last line of them is the reason of a run that failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from fine_edge.fields import to_data
from fine_edge.files import output_errors
from fine_edge.study.one_run import RunJob
from fine_edge.text import printable

WORKER = (sys.executable, "-m", "fine_edge.study.one_run")
LOG = "log.txt"
_GRACE_S = 10.0
_LAST_LINE_CHARACTERS = 200
_TAIL_BYTES = 4096

_Process = subprocess.Popen[bytes]


class StudyPool:
    """Processes that run jobs.

    Args:
        size: number of them at a time.
        devices: GPUs, as CUDA_VISIBLE_DEVICES names them, dealt out to the processes in turns; empty to leave that as
            it is.
        worker: command that runs a job, which it gets as its last argument.
    """

    def __init__(self, size: int, devices: Sequence[str] = (), worker: tuple[str, ...] = WORKER) -> None:
        self._size, self._worker = size, worker
        self._slots: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for number in range(size):
            self._slots.put(devices[number % len(devices)] if devices else None)
        self._running: set[_Process] = set()
        self._closed = threading.Event()

    def run(self, jobs: Sequence[RunJob]) -> Generator[tuple[RunJob, str], None, None]:
        """Yield each job as it ends, and why it failed; the reason is empty where it did not.

        Close the iterator to stop the processes; they go on another time from the last epoch that was written.
        """
        threads = ThreadPoolExecutor(self._size)
        try:
            waiting = {threads.submit(self._run, job): job for job in jobs}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            self._closed.set()
            threads.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
            for process in list(self._running):
                _end(process)
            threads.shutdown()

    def _run(self, job: RunJob) -> str:
        slot = self._slots.get()
        try:
            return self._run_on(job, slot)
        finally:
            self._slots.put(slot)

    def _run_on(self, job: RunJob, device: str | None) -> str:
        log = job.folder / LOG
        with output_errors(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            handle = log.open("wb")
        with handle:
            process = self._start(job, device, handle.fileno())
            self._running.add(process)
            try:
                if self._closed.is_set():  # closed while the process was started
                    process.terminate()
                code = process.wait()
            finally:
                self._running.discard(process)
                if process.stdin:
                    process.stdin.close()
        if code == 0 and job.result.is_file():
            return ""
        return _last_line(log) or (f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")

    def _start(self, job: RunJob, device: str | None, log: int) -> _Process:
        # Processes beside each other share the cores; PyTorch would give each of them all.
        threads = {} if self._size == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._size))}
        visible = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        return subprocess.Popen(
            [*self._worker, json.dumps(to_data(job))],
            env={**os.environ, **threads, **visible},
            stdin=subprocess.PIPE,  # closed by the system when this process ends, which ends the other
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal reaches this process alone, which then ends the others.
            start_new_session=True,
        )


def visible_devices() -> tuple[str, ...]:
    """Return the GPUs that there are for trainings, as CUDA_VISIBLE_DEVICES names them."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return tuple(name.strip() for name in stated.split(",") if name.strip())
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))


def _end(process: _Process) -> None:
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it started


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = handle.read().decode(errors="replace").strip().splitlines()
        return printable(lines[-1].strip().removeprefix("error: "))[:_LAST_LINE_CHARACTERS] if lines else ""
    return ""
