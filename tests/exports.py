"""Exports that many tests read and none may change: each is made once in a run of the tests, for all its processes."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import onnx
import pytest

from fine_edge.contract import contract_path, read_contract
from fine_edge.export.request import ExportRequest
from fine_edge.graph.view import GraphView


class ExportStore:
    """A folder of exports that the processes of pytest-xdist share; a lock lets only one of them make each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def folder_of(self, request: ExportRequest) -> Path:
        """Return the folder of an export, which the export command has made now or before; read it, do not write."""
        folder = self.folder / f"{request.stem()}-{sha256(repr(request).encode()).hexdigest()[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _export(request, folder)
        return folder

    def linked(self, request: ExportRequest, folder: Path) -> Path:
        """Put the same files into a new folder, at no cost; replace a file there, never write into it."""
        shutil.copytree(self.folder_of(request), folder, copy_function=os.link)
        return folder


def _export(request: ExportRequest, folder: Path) -> None:
    from fine_edge.cli.export import main

    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    size = f"{request.height}x{request.width}"
    assert request == ExportRequest(request.model, None, request.precision, request.height, request.width)
    arguments = ["--input-size", size, "--precision", request.precision, "--out", str(partial), "--json"]
    # Whichever test asks first makes it: what is printed then is no output of that test.
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([request.model, *arguments]) == 0
    partial.rename(folder)


def keep_only_fp32(folder: Path, request: ExportRequest) -> None:
    """Make a linked FP16 export what an export of FP32 alone leaves."""
    single = replace(request, precision="fp32")
    path = contract_path(folder / single.onnx_name())
    contract = read_contract(path)
    (folder / replace(request, precision="fp16").onnx_name()).unlink()
    path.unlink()
    kept = tuple(artifact for artifact in contract.artifacts if artifact.precision == "fp32")
    path.write_text(replace(contract, artifacts=kept).to_text(), encoding="utf-8")


def trace_from(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exporter take a graph that it traced before, to do all the rest of its work for real."""
    from fine_edge.export import exporter

    monkeypatch.setattr(exporter, "_graph", lambda *_: GraphView(onnx.load(path)))
