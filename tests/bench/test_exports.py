"""Exports in processes of their own; what they export is made up, so that no torch is needed."""

import os
import signal
from pathlib import Path

import pytest
from tiny_bench import write_tiny_artifact

from fine_edge.errors import ArtifactError, BackendError, FineEdgeError, MissingExtraError
from fine_edge.export import artifacts
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest

REQUEST = ExportRequest("yolov8s", height=64, width=64)


def in_another_process(request: ExportRequest, folder: Path) -> Path:
    (folder / "pid").write_text(str(os.getpid()), encoding="utf-8")
    return write_tiny_artifact(folder, request.model, request.input_hw)


def refused(request: ExportRequest, folder: Path) -> Path:
    raise ArtifactError("cannot be lowered", where=folder, hint=f"leave {request.model} alone")


def without_library(_request: ExportRequest, _folder: Path) -> Path:
    raise MissingExtraError("ultralytics", "yolo")


def killed(_request: ExportRequest, _folder: Path) -> Path:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_an_export_leaves_its_memory_to_another_process(tmp_path):
    assert artifacts._in_child(in_another_process, REQUEST, tmp_path) == tmp_path / "yolov8s.onnx"
    assert (tmp_path / "pid").read_text(encoding="utf-8") != str(os.getpid())


@pytest.mark.parametrize(
    ("export", "line"),
    [
        (refused, "{tmp}: cannot be lowered -> leave yolov8s alone"),
        (without_library, "this needs ultralytics -> pip install 'fine-edge[yolo]'"),
    ],
)
def test_an_error_comes_home_as_it_was(tmp_path, export, line):
    with pytest.raises(FineEdgeError) as caught:
        artifacts._in_child(export, REQUEST, tmp_path)
    assert str(caught.value) == line.replace("{tmp}", str(tmp_path))


def test_a_killed_export_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(BackendError, match="was killed") as caught:
        artifacts._in_child(killed, REQUEST, tmp_path)
    assert "memory" in caught.value.hint


def test_what_is_there_is_not_exported_again(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "existing", lambda request, folder: folder / request.onnx_name())
    monkeypatch.setattr(artifacts, "_in_child", lambda *_arguments: pytest.fail("exported"))
    assert artifacts.exported(REQUEST, tmp_path) == tmp_path / "yolov8s.onnx"


def test_what_is_not_there_is_exported_and_a_plain_export_always(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(artifacts, "existing", lambda _request, _folder: None)
    monkeypatch.setattr(artifacts, "_in_child", lambda export, _request, folder: asked.append(export) or folder)
    assert artifacts.exported(REQUEST, tmp_path) == artifacts.exported_plainly(REQUEST, tmp_path) == tmp_path
    assert asked == [ensure_exported, artifacts._ensure_plain]


def test_a_missing_library_is_known_before_anything_is_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "can_export", lambda: True)
    monkeypatch.setattr(artifacts.importlib.util, "find_spec", lambda name: None if name == "ultralytics" else name)
    artifacts.require_library(ExportRequest("fasterrcnn_r50"), tmp_path, plain=True)
    for plain in (False, True):
        with pytest.raises(MissingExtraError, match="ultralytics"):
            artifacts.require_library(REQUEST, tmp_path, plain=plain)
    monkeypatch.setattr(artifacts, "existing", lambda _request, folder: folder)
    artifacts.require_library(REQUEST, tmp_path, plain=False)


def test_a_machine_without_torch_needs_libraries_for_plain_exports_only(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "can_export", lambda: False)
    monkeypatch.setattr(artifacts.importlib.util, "find_spec", lambda _name: None)
    artifacts.require_library(REQUEST, tmp_path, plain=False)
    with pytest.raises(MissingExtraError, match="torch"):
        artifacts.require_library(REQUEST, tmp_path, plain=True)
