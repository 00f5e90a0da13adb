"""What every test shares: no network, no fight over cores, and no quiet skipping."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from exports import ExportStore
from host_side import needs_torch
from hypothesis import settings

# Before any test module imports the libraries that read it.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; torch would give each of them all.
    os.environ["OMP_NUM_THREADS"] = "1"


def _with_one_thread(start: Callable[..., None]) -> Callable[..., None]:
    """Give sessions of ONNX Runtime one thread unless they ask for more: others spin while they wait for work."""

    @functools.wraps(start)
    def begin(self: object, model: object, sess_options: Any = None, *arguments: object, **named: object) -> None:
        sess_options = sess_options or onnxruntime.SessionOptions()
        sess_options.intra_op_num_threads = sess_options.intra_op_num_threads or 1
        start(self, model, sess_options, *arguments, **named)

    return begin


onnxruntime.InferenceSession.__init__ = _with_one_thread(onnxruntime.InferenceSession.__init__)

# Untimed and the same every time: shared machines pause, and a failure must come back.
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")

TESTS = Path(__file__).parent
HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files that cannot be read without torch: they are tests of the host."""
    if HAS_TORCH:
        return None
    # A folder is read with its conftest, which cannot be left out alone.
    file = collection_path if collection_path.suffix == ".py" else collection_path / "conftest.py"
    return True if file.is_file() and needs_torch(file) else None


@pytest.fixture(scope="session")
def export_store(tmp_path_factory: pytest.TempPathFactory) -> ExportStore:
    """Exports by what was asked for; see :mod:`exports`."""
    own = tmp_path_factory.getbasetemp()
    return ExportStore((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports")


LONGEST = (
    "engine/test_zoo_compiles.py",
    "zoo/test_segmentation_graph.py",
    "export/test_exporter.py",
    "export/test_faults.py",
    "fp16/test_fp16_exported.py",
    "zoo/test_torchvision_one_stage.py",
    "test_examples.py",
    "zoo/test_yolo_graph.py",
    "zoo/test_checkpoints.py",
    "matrix/test_matrix_stages.py",
    "zoo/test_yolo_checkpoint.py",
    "test_blood_cells.py",
    "bench/test_bench_cli.py",
)
"""Files that come first, so that no process of the tests is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort whole files: the longest first, all others as they are."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the garbage collector off what imports have made: millions of objects, looked through by each collection.

    And let it come more rarely: a trace makes half a million objects, nearly all of which it still holds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 20)


MOST_SKIPPED = 8
"""More skipped tests than this fail the run: nothing may pass by not running. Half of them read published files."""


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped too much; workers of xdist leave it to the controller, which sees all."""
    if (
        not hasattr(session.config, "workerinput")
        and _skipped(session.config) > MOST_SKIPPED
        and not session.exitstatus
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line with the number of skipped tests."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    verdict = f"FAILED: at most {MOST_SKIPPED} may be" if skipped > MOST_SKIPPED else f"at most {MOST_SKIPPED} may be"
    terminalreporter.write_line(f"skipped tests: {skipped} ({verdict})")
