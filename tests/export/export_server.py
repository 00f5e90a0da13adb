"""A process that has loaded a detector and its export once, and forks one real export command for each line it reads.

What is left of an export (saving, hashing, renaming) is where a kill can do harm, and this way dozens of kills cost no
more than one start. A line is a JSON object: ``argv``, ``stderr`` (a file) and
``limit_bytes`` (largest file, or null). The answers are the child's process id, then its exit status.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import torch

from fine_edge import command, machine
from fine_edge.cli.export import main
from fine_edge.export import exporter
from fine_edge.export.request import ExportRequest
from fine_edge.graph.view import GraphView

GOLDEN_S = 0.3
"""Where golden outputs would be computed, a child rests: long enough for a signal to find it there."""


def remember(model: str, size: int, exported: Path) -> None:
    """Load and count once, and take graph and golden file of an export; children inherit the results."""
    request = ExportRequest(model, height=size, width=size)
    load, graph = cache(exporter.load), GraphView(onnx.load(exported / request.onnx_name()))
    exporter.load, exporter._graph = load, lambda *_: graph
    detector = load(exporter.find(model), None, 0)
    family = detector.family
    cost = family.count(detector.model, size, size)
    data = (exported / f"{request.stem()}.golden.npz").read_bytes()

    def rest(_detector, asked, _preprocessing):
        assert replace(asked, precision="fp32") == request
        time.sleep(GOLDEN_S)
        return data

    type(family).count = lambda *_: cost
    exporter._golden = rest
    machine.source_sha256 = cache(machine.source_sha256)
    machine.source_sha256()


def child(order: dict) -> None:
    os.dup2(os.open(order["stderr"], os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if order["limit_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit_bytes"], order["limit_bytes"]))
    sys.argv = ["fine-edge", *order["argv"]]
    try:
        command.run(main)
    except SystemExit as end:
        # Taking down torch costs more than the export, and copies the memory that was shared until then.
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def answer(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        Path(order["stderr"]).touch()
        pid = os.fork()
        if pid == 0:
            child(order)
        answer(pid)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads do not survive a fork
    remember(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    gc.freeze()  # a collection in a child would copy the memory that it shares
    answer("ready")
    serve()
