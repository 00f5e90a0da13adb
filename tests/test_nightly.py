"""When slow tests may be left out: only while all that they speak of is as it was when they passed."""

from pathlib import Path

import nightly
import pytest

FILES = {
    "fine_edge/__init__.py": "",
    "fine_edge/errors.py": "HINT = 'a'\n",
    "fine_edge/alone.py": "",
    "fine_edge/worker.py": "import numpy\n",
    "fine_edge/program.py": "",
    "fine_edge/zoo/__init__.py": "",
    "fine_edge/zoo/family.py": "import importlib\n\n\ndef of(name):\n    return importlib.import_module(name)\n",
    "fine_edge/zoo/yolo/__init__.py": "",
    "fine_edge/zoo/yolo/head.py": "WORKER = 'fine_edge.worker'\n",
    "fine_edge/zoo/yolo/anchors/sizes.json": "[1, 2]",
    "tests/conftest.py": "",
    "tests/exports.py": "from fine_edge import errors\n",
    "tests/zoo/test_yolo.py": "import exports, fine_edge.zoo.family\nCODE = 'from fine_edge import program'\n",
    "bench/matrix.json": "{}",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository whose one file of slow tests has passed; returns what a change of it means."""
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    monkeypatch.setattr(nightly, "versions", lambda: {"numpy": "numpy==2.4.6"})
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    record = nightly.record_of({tmp_path / "tests" / "zoo" / "test_yolo.py": ["bench/*.json"]}, "2026-12-01")
    record.write(tmp_path / "nightly.json")

    def after(changes: dict[str, str]) -> tuple[list[Path], str]:
        for name, text in changes.items():
            (tmp_path / name).write_text(text)
        nightly.source.cache_clear()
        return nightly.unchanged(nightly.read(tmp_path / "nightly.json"))

    return after


def test_what_has_not_changed_is_left_out(tree):
    left_out, reason = tree(
        {"fine_edge/alone.py": "CHANGED = 1\n", "fine_edge/errors.py": '"""Says."""\nHINT = "a"  # b\n'}
    )
    assert [file.name for file in left_out] == ["test_yolo.py"]
    assert reason == ""


@pytest.mark.parametrize("name", sorted(set(FILES) - {"fine_edge/alone.py"}))
def test_whatever_else_changes_makes_it_run(tree, name):
    """Also a family that is imported by a name made up, a worker that a process is started by, and data."""
    assert tree({name: FILES[name] + "\n3\n"}) == ([], f"{name} is another")


def test_so_do_a_new_file_and_another_library_python_or_machine(tree, monkeypatch):
    assert tree({"fine_edge/zoo/yolo/new.py": ""}) == ([], "fine_edge/zoo/yolo/new.py is another")
    (nightly.ROOT / "fine_edge" / "zoo" / "yolo" / "new.py").unlink()
    monkeypatch.setattr(nightly, "versions", lambda: {"numpy": "numpy==0.1"})
    assert tree({}) == ([], "numpy==0.1 was numpy==2.4.6")
    monkeypatch.setattr(nightly, "_python", lambda: "3.99")
    assert tree({})[0] == []


def test_without_a_record_all_run(tmp_path):
    assert nightly.read(tmp_path / "none.json") is None
