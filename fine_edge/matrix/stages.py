"""The stages of the matrix: each takes a job and its row so far, and returns the row with its own cells filled.

All stages after the export need nothing but the artifact, so a stage that fails does not stop the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

import fine_edge
from fine_edge import command
from fine_edge.contract import Precision, bound_contract
from fine_edge.errors import ArtifactError, FineEdgeError, MissingExtraError
from fine_edge.export.artifacts import ensure_exported
from fine_edge.fields import from_data
from fine_edge.matrix.document import source_sha256
from fine_edge.matrix.row import ABSENT, OK, STAGES, UNREACHED, MatrixJob, MatrixRow
from fine_edge.parity.report import ParityReport
from fine_edge.runners.base import Runner

Stage = Callable[[MatrixJob, MatrixRow], MatrixRow]
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def export(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Export both ONNX files, unless the requested ones are there."""
    fp16 = ensure_exported(job.request("fp16"), job.folder)
    try:
        bound_contract(job.folder / job.request("fp32").onnx_name())
    except ArtifactError:  # it is written together with the other, but may have been removed since
        ensure_exported(job.request("fp32"), job.folder)
    contract, _ = bound_contract(fp16)
    artifacts = {str(artifact.precision): artifact.sha256 for artifact in contract.artifacts}
    return replace(row, artifacts=artifacts).filled("export", OK)


def rules(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Check both files with all graph rules: errors fail, warnings are counted."""
    from fine_edge.graph.checks import check
    from fine_edge.graph.model_file import read_model

    counts: Counter[str] = Counter()
    notes = []
    for precision in _PRECISIONS:
        path = job.folder / job.request(precision).onnx_name()
        findings = check(read_model(path, weights=False), path)
        loud = [finding for finding in findings if finding.severity != "info"]
        counts.update(finding.severity for finding in loud)
        notes += [f"{f.rule} {f.severity} in {precision} at {f.node}: {f.message}" for f in loud[:1]]
    found = ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 else ''}"
        for severity in ("error", "warning")
        if counts[severity]
    )
    if counts["error"]:
        return row.failing("rules", found, "; ".join(notes))
    return row.filled("rules", f"{OK}: {found}" if found else OK, note="; ".join(f"rules: {note}" for note in notes))


def _runner(job: MatrixJob, precision: Precision) -> Runner:
    path = job.folder / job.request(precision).onnx_name()
    if precision == "fp16":
        from fine_edge.runners.ort import RoundingRunner

        return RoundingRunner(path, job.threads)
    from fine_edge.runners.ort import OrtRunner

    return OrtRunner(path, job.threads)


def _parity(job: MatrixJob, row: MatrixRow, precision: Precision) -> MatrixRow:
    from fine_edge.images import sample_photographs
    from fine_edge.parity.references import against_pytorch

    path = job.folder / job.request(precision).onnx_name()
    with contextlib.closing(_runner(job, precision)) as runner:
        report = against_pytorch(path, runner, sample_photographs()[: job.photographs])
    return judged(report, row, f"parity_{precision}")


def judged(report: ParityReport, row: MatrixRow, stage: str) -> MatrixRow:
    """Return the row with the result of a comparison: the output nearest to, or furthest beyond, its tolerance."""
    detections, worst = report.detections, report.worst
    if worst is None or report.non_finite or (detections and not detections.matched + detections.flipped):
        return row.failing(stage, report.failure if report.non_finite else "nothing was found that could be compared")
    figure = f"{worst.output} {worst.at_quantile:.2g} of {worst.tolerance:g}"
    matched = f", {detections.matched} matched" if detections else ""
    if report.ok:
        return row.filled(stage, f"{OK}: {figure}{matched}")
    flipped = f"{report.flipped_share:.1%} of the detections flipped, at most {report.tolerance.flipped:.1%} may"
    details = f"{figure}, largest {worst.max_abs:.3g} at {worst.where}; {flipped}{matched}"
    return row.failing(stage, figure if not worst.ok else flipped, details)


def parity_fp32(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Compare the FP32 file in ONNX Runtime with PyTorch."""
    return _parity(job, row, "fp32")


def parity_fp16(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Compare the FP16 file, rounded after every operator, with PyTorch in FP32."""
    return _parity(job, row, "fp16")


def rtx(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Compile the FP16 file with TensorRT-RTX for SM86; the cell says where the compiler is not installed."""
    from fine_edge.engine import supervise
    from fine_edge.engine.inspect import inspect

    try:
        supervise.require_builder("rtx-sm86")
    except MissingExtraError as error:
        return row.filled("rtx", ABSENT, note=f"rtx: {error}")
    compiled = inspect(job.folder / job.request("fp16").onnx_name()).compiled
    return row.filled("rtx", len(compiled.kernels), compiled.fused_attention, round(compiled.activation_mib, 2))


def int8(job: MatrixJob, row: MatrixRow) -> MatrixRow:
    """Compare the INT8 file that lies there with FP32 on its golden pictures, and count its kernels."""
    from fine_edge.engine.inspect import inspect
    from fine_edge.engine.platform import here
    from fine_edge.parity.compare import Case, compare
    from fine_edge.parity.references import read_golden
    from fine_edge.runners.ort import OrtRunner

    path = job.folder / job.request("int8").onnx_name()
    if not path.is_file():
        return row.filled("int8", UNREACHED)
    contract, artifact = bound_contract(path)
    with contextlib.closing(OrtRunner(job.folder / job.request("fp32").onnx_name(), job.threads)) as runner:
        golden = read_golden(contract, artifact, path)
        cases = [Case(one.name, runner.run({contract.inputs[0].name: one.images}), one.outputs) for one in golden]
    found = judged(compare(contract, artifact, cases, reference="fp32", candidate="int8"), row, "int8")
    if str(found.int8).startswith(OK) and here().rtx:
        return replace(found, int8=f"{found.int8}, {len(inspect(path).compiled.kernels)} kernels")
    return found


RUN: dict[str, Stage] = {
    "export": export,
    "rules": rules,
    "parity_fp32": parity_fp32,
    "parity_fp16": parity_fp16,
    "rtx": rtx,
    "int8": int8,
}


# Time for removing half-written files once the parent has ended.
GRACE_S = 10.0


def end_with_parent() -> None:
    """Wait until standard input is closed, as it is when the parent ends however it does; then end this process."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # raises in the main thread, which then removes its half-written files
    time.sleep(GRACE_S)
    os._exit(143)


def _events() -> TextIO:
    """Return standard output for events only; what libraries print goes to the log instead."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _emit(events: TextIO, stage: str | None, row: MatrixRow) -> None:
    events.write(json.dumps({"stage": stage, "row": row.to_json()}) + "\n")
    events.flush()


def _place(error: BaseException) -> str:
    """Return the last line of ours that an exception passed through."""
    root = Path(fine_edge.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if root in Path(f.filename).parents]
    return f"{Path(frames[-1].filename).relative_to(root.parent)}:{frames[-1].lineno}"


def _run_stage(stage: str, job: MatrixJob, row: MatrixRow) -> MatrixRow:
    start_s = time.perf_counter()
    try:
        row = RUN[stage](job, row)
    except FineEdgeError as error:
        row = row.failing(stage, error.what, str(error))
    except Exception as error:  # any error of a library fails this cell alone, not the matrix
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        row = row.failing(stage, what, f"{_place(error)}: {what}")
    return replace(row, seconds={**row.seconds, stage: round(time.perf_counter() - start_s, 1)})


def run_job(job: MatrixJob, events: TextIO) -> None:
    """Run all stages of a model; if the export fails, no other stage is run."""
    row = MatrixRow(job.model, job.input_hw, source_sha256=source_sha256())
    for stage in STAGES:
        _emit(events, stage, row)
        row = _run_stage(stage, job, row)
        if stage == "export" and row.failed:
            row = row.given_up()
            break
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _emit(events, None, replace(row, finished_at=now))


def main(argv: list[str]) -> int:
    """Run one job, given as JSON, and print its events."""
    events = _events()
    threading.Thread(target=end_with_parent, daemon=True).start()
    run_job(from_data(MatrixJob, json.loads(argv[0])), events)
    return 0


if __name__ == "__main__":
    command.run(main)
