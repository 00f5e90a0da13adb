"""A matrix whose stages are made up: ``made_up_stages.py matrix|worker BEHAVIOUR ...``, the rest being the command's.

BEHAVIOUR is JSON, ``{model: {stage: what}}``; stages that are not in it pass. What may be:

error     a FineEdgeError
missing   a library that is not installed
bug       an exception that nobody expected
absent    no compiler on this machine
noise     passes, printing on standard output as libraries do
exit      the process ends by itself
hang      goes on until it is stopped
kill      SIGKILL to itself
interrupt Ctrl-C to the matrix, while a file is half-written
orphan    SIGKILL to the matrix, while a file is half-written; the FIFO ``alive`` is open as long as this process lives

Every stage leaves a line in ``calls``, the export an artifact that its contract vouches for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from fine_edge import command
from fine_edge.cli.matrix import main
from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.errors import ArtifactError, MissingExtraError
from fine_edge.files import sha256_of, written_together
from fine_edge.machine import source_sha256
from fine_edge.matrix import stages
from fine_edge.matrix.row import ABSENT, OK, STAGES
from fine_edge.preprocess import Preprocessing

SCRIPT = Path(__file__)
RTX = (141, 4, 29.6)


def write_artifacts(job) -> dict[str, str]:
    """Files that :func:`fine_edge.export.artifacts.existing` takes for what the job asks for."""
    requests = [job.request(precision) for precision in ("fp32", "fp16")]
    for request in requests:
        (job.folder / request.onnx_name()).write_text(request.onnx_name())
    golden = job.folder / f"{job.model}.golden.npz"
    golden.write_text("golden")
    shas = {request.precision: sha256_of(job.folder / request.onnx_name()) for request in requests}
    contract = Contract(
        model=job.model,
        artifacts=tuple(Artifact(r.onnx_name(), r.precision, shas[r.precision]) for r in requests),
        inputs=(TensorSpec("images", "float32", (1, 3, *job.input_hw), "pictures"),),
        outputs=(),
        preprocessing=Preprocessing(),
        postprocessed=True,
        labels=("a",),
        opset=18,
        cost={},
        golden={"file": golden.name, "sha256": sha256_of(golden)},
        made_by={
            "weights": {"source": "random", "seed": 0},
            "options": requests[0].options(),
            "source_sha256": source_sha256(),
        },
    )
    (job.folder / f"{job.model}.contract.json").write_text(contract.to_text())
    return shas


def half_written(folder: Path, signum: int, target: int) -> None:
    """Send a signal in the middle of writing, once the rows before are written, then work on until ended."""
    while not (folder / "matrix.json").exists():
        time.sleep(0.01)
    with written_together(folder, "never") as partial:
        (partial / "never.onnx").write_text("half")
        os.kill(target, signum)
        while True:  # busy: a signal that comes on the way into a wait is only heard after it
            pass


def behave(what: str, job, row, stage: str):
    if what == "error":
        raise ArtifactError("the graph is broken", where="x.onnx", hint="export it again")
    if what == "missing":
        raise MissingExtraError("ultralytics", "yolo")
    if what == "bug":
        raise ValueError("nobody\nexpected this")
    if what == "noise":
        print("Loading ...", flush=True)  # noqa: T201
    elif what == "exit":
        sys.stderr.write("the last words\n")
        sys.stderr.flush()
        os._exit(3)
    elif what == "hang":
        time.sleep(600)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "interrupt":
        half_written(job.folder, signal.SIGINT, os.getppid())
    elif what == "orphan":
        with (job.folder / "alive").open("wb", buffering=0):
            half_written(job.folder, signal.SIGKILL, os.getppid())
    return row.filled(stage, ABSENT) if what == "absent" else passed(job, row, stage)


def passed(job, row, stage: str):
    if stage == "export":
        row = replace(row, artifacts=write_artifacts(job))
    return row.filled(stage, *(RTX if stage == "rtx" else (OK,)))


def made_up(stage: str, behaviour: dict):
    def run(job, row):
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / "calls").open("a") as calls:
            calls.write(f"{job.model} {stage}\n")
        return behave(behaviour.get(job.model, {}).get(stage, "pass"), job, row, stage)

    return run


def worker_command(behaviour: dict) -> tuple[str, ...]:
    """The process of one model, with these stages."""
    return sys.executable, str(SCRIPT), "worker", json.dumps(behaviour)


if __name__ == "__main__":
    kind, behaviour = sys.argv[1], json.loads(sys.argv[2])
    sys.argv = sys.argv[2:]
    if kind == "matrix":
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command.run(lambda argv: main(argv, worker_command(behaviour)))
    stages.RUN.update({stage: made_up(stage, behaviour) for stage in STAGES})
    command.run(stages.main)
