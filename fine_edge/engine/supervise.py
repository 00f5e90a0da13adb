"""Supervision of the builder's process: progress, time limit, Ctrl-C, and the reason when it gives no result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from rich.progress import Progress, TaskID

from fine_edge import console
from fine_edge.engine.compiler import GRACE_S, REFUSED
from fine_edge.engine.options import BuildTarget
from fine_edge.engine.plan import BuildJob
from fine_edge.engine.platform import is_installed
from fine_edge.engine.rtx_log import first_error
from fine_edge.errors import BackendError, MissingExtraError, OutputError

_TITLES: dict[BuildTarget, str] = {"tensorrt": "TensorRT", "rtx-sm86": "TensorRT-RTX"}
_REWRITE = (
    "replace that node by ordinary operators of opset 17 to 19, or compute it on the host; another version of the"
    " exporter may write other operators"
)
_CRASHED = (
    "split the graph in two and build both parts to find the node that crashes it; if both build, the compiler itself"
    " is broken"
)
_NO_MEMORY = re.compile(
    r"out ?of ?memory|bad_alloc|cudaErrorMemoryAllocation|insufficient memory|could not allocate|failed to allocate"
    r"|resource temporarily unavailable",  # a thread could not be started
    re.IGNORECASE,
)
_MORE_MEMORY = (
    "close the desktop (sudo systemctl isolate multi-user.target), add swap, or give the builder less:"
    " --workspace-mib 256 --optimization-level 2"
)
_NO_SPACE = re.compile(r"\[Errno (?:28|27|122)\]|No space left on device|File too large")


@dataclass(frozen=True)
class Outcome:
    """The result of a successful build: the report of the process, and its log."""

    report: dict[str, Any]
    log: str


def require_builder(target: BuildTarget) -> None:
    """Refuse to start when the packages for a target are missing.

    Raises:
        MissingExtraError: without Polygraphy, or without TensorRT-RTX for that target.
    """
    if target == "tensorrt":
        if not is_installed("polygraphy"):
            raise MissingExtraError("polygraphy", "device")
        return
    for package in ("tensorrt_rtx", "polygraphy"):
        if not is_installed(package):
            raise MissingExtraError(package, "rtx")
    # Older releases of Polygraphy, such as the one for TensorRT 10.7, do not support TensorRT-RTX.
    if find_spec("polygraphy.backend.tensorrt_rtx") is None:
        raise MissingExtraError("polygraphy 0.53 or newer", "rtx")


def build(job: BuildJob, timeout_s: float | None = None) -> Outcome:
    """Build a plan in a process of its own.

    Raises:
        BackendError: when the compiler refuses the model, memory runs out, or the builder crashes or takes too long.
        OutputError: when the plan cannot be written.
    """
    require_builder(job.options.target)
    return _run(["build", json.dumps(job.to_json())], job.options.target, job.onnx, timeout_s)


def describe(plan: Path, timeout_s: float | None = None) -> dict[str, Any]:
    """Return what :func:`fine_edge.engine.plan.describe_plan` reports, from a process of its own.

    Raises:
        BackendError: when TensorRT refuses the plan or crashes.
    """
    require_builder("tensorrt")
    return _run(["describe", str(plan.absolute())], "tensorrt", plan, timeout_s).report


def _run(arguments: list[str], target: BuildTarget, where: Path, timeout_s: float | None) -> Outcome:
    environment = {name: value for name, value in os.environ.items() if name != "POLYGRAPHY_USE_TENSORRT_RTX"}
    if target != "tensorrt":
        environment["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    with tempfile.TemporaryFile() as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fine_edge.engine.compiler", *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            # The terminal's signals do not reach it: this process decides, and closes the pipe to cancel.
            start_new_session=True,
        )
        try:
            report = _follow(process, where, timeout_s)
            code = process.wait()
        finally:
            _stop(process)
        log_file.seek(0)
        log = log_file.read().decode("utf-8", errors="replace")
    if code == 0 and report is not None:
        return Outcome(report, log)
    raise _failure(log, code, target, where)


def _follow(process: subprocess.Popen[bytes], where: Path, timeout_s: float | None) -> dict[str, Any] | None:
    """Show the progress until the process ends its output; return its result, or ``None`` without one."""
    report: dict[str, Any] | None = None
    with console.progress() as bar:
        tasks = {"": bar.add_task(f"{where.name}: starting the builder", total=None)}
        for event in _events(process, where, timeout_s):
            if event["event"] == "result":
                report = event
            else:
                _show(bar, tasks, event)
    return report


def _show(bar: Progress, tasks: dict[str, TaskID], event: dict[str, Any]) -> None:
    """Show one bar for each running phase; nested phases of one name share a bar."""
    phase = str(event["phase"])
    if event["event"] == "start" and phase not in tasks:
        if "" in tasks:
            bar.remove_task(tasks.pop(""))
        tasks[phase] = bar.add_task(phase, total=event["steps"])
    elif event["event"] == "step" and phase in tasks:
        bar.update(tasks[phase], completed=event["step"] + 1)
    elif event["event"] == "finish" and phase in tasks:
        bar.remove_task(tasks.pop(phase))


def _events(process: subprocess.Popen[bytes], where: Path, timeout_s: float | None) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None  # it was opened as a pipe
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not selector.select(left_s):
                raise BackendError(
                    f"the compiler was stopped after {timeout_s:g} s", where=where, hint="allow more with --timeout-s"
                )
            block = os.read(process.stdout.fileno(), 65536)
            if not block:
                return
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                # A builder that is killed may leave half of a line, which is ignored.
                with contextlib.suppress(ValueError):
                    yield json.loads(line)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which cancels a running build; kill the process if it does not end."""
    for stream in (process.stdin, process.stdout):
        _close(stream)
    if process.poll() is None:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _close(stream: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.close()


def _failure(log: str, code: int, target: BuildTarget, where: Path) -> Exception:
    """Return the error that says why there is no result."""
    if code == -signal.SIGKILL:
        return BackendError(
            "the builder was killed, most likely because memory ran out", where=where, hint=_MORE_MEMORY
        )
    reason = first_error(log)
    tail = "\n".join(log.strip().splitlines()[-40:])
    if no_space := _NO_SPACE.search(tail):
        hint = "free some space, or choose another folder with --out"
        return OutputError(f"the plan cannot be written ({no_space.group()})", where=where, hint=hint)
    if _NO_MEMORY.search(reason) or _NO_MEMORY.search(tail):
        return BackendError(
            f"the builder ran out of memory ({reason or 'see its log'})", where=where, hint=_MORE_MEMORY
        )
    if code == REFUSED and reason:
        return BackendError(f"{_TITLES[target]} refuses the graph: {reason}", where=where, hint=_REWRITE)
    return BackendError(f"the compiler crashed ({_ending(code, log)})", where=where, hint=_CRASHED)


def _ending(code: int, log: str) -> str:
    """Return the signal or exit code of a process and the last line of its log."""
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    lines = log.strip().splitlines()
    return f"{ending}: {lines[-1].strip()[:200]}" if lines else ending
