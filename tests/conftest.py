"""What every test shares: no network, no fight over cores, and no quiet skipping."""

from __future__ import annotations

import datetime
import functools
import gc
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nightly
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


# The files whose slow tests this run leaves out, and why those of another file run, for the last line.
LEFT_OUT = pytest.StashKey[list[str]]()
SLOW_RUN_BECAUSE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option that ``make nightly`` takes."""
    parser.addoption("--nightly", action="store_true", help="run all slow tests, and write tests/nightly.json anew")


def pytest_configure(config: pytest.Config) -> None:
    """Find the slow tests that this run may leave out; processes of xdist hear of them from the first."""
    if hasattr(config, "workerinput"):
        config.stash[LEFT_OUT] = config.workerinput["left_out"]
        return
    config.stash[LEFT_OUT], config.stash[SLOW_RUN_BECAUSE] = [], "they were asked for"
    # Whoever names tests wants them to run.
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.keyword
    if config.option.nightly or named or config.option.markexpr:
        return
    record = nightly.read()
    if record is None:
        config.stash[SLOW_RUN_BECAUSE] = "there is no tests/nightly.json"
        return
    files, config.stash[SLOW_RUN_BECAUSE] = nightly.unchanged(record)
    config.stash[LEFT_OUT] = [str(file) for file in files]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of xdist which files' slow tests it leaves out."""
    node.workerinput["left_out"] = node.config.stash[LEFT_OUT]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests that passed before, and sort whole files: the longest first, all others as they are."""
    left_out = {Path(name) for name in config.stash[LEFT_OUT]}
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in slow:
        reads = [pattern for mark in item.iter_markers("slow") for pattern in mark.args]
        item.user_properties.append(("reads", reads))
    gone = [item for item in slow if item.path in left_out]
    config.hook.pytest_deselected(items=gone)
    kept = set(items) - set(gone)
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items[:] = sorted(filter(kept.__contains__, items), key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the garbage collector off what imports have made: millions of objects, looked through by each collection."""
    gc.collect()
    gc.freeze()


MOST_SKIPPED = 8
"""More skipped tests than this fail the run: nothing may pass by not running. Half of them read published files."""


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped too much; workers of xdist leave it to the controller, which sees all."""
    if hasattr(session.config, "workerinput") or session.exitstatus:
        return
    if _skipped(session.config) > MOST_SKIPPED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif session.config.option.nightly:
        _write_nightly(session.config)


def _reads(report: pytest.TestReport) -> list[str] | None:
    """Return what else than its imports a slow test reads, None of a test that is not slow."""
    return next((value for name, value in report.user_properties if name == "reads"), None)


def _write_nightly(config: pytest.Config) -> None:
    """Record the files whose slow tests have all passed; one that skipped any is to run the next time too."""
    stats = config.pluginmanager.get_plugin("terminalreporter").stats
    skipped = {report.nodeid.partition("::")[0] for report in stats.get("skipped", ()) if _reads(report) is not None}
    passed: dict[Path, list[str]] = {}
    for report in stats.get("passed", ()):
        reads, name = _reads(report), report.nodeid.partition("::")[0]
        if reads is not None and name not in skipped:
            patterns = passed.setdefault(nightly.ROOT / name, [])
            patterns += [pattern for pattern in reads if pattern not in patterns]
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    nightly.record_of(passed, today).write()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line with the number of skipped tests."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    verdict = f"FAILED: at most {MOST_SKIPPED} may be" if skipped > MOST_SKIPPED else f"at most {MOST_SKIPPED} may be"
    terminalreporter.write_line(f"skipped tests: {skipped} ({verdict})")
    if not terminalreporter.config.option.nightly:
        terminalreporter.write_line(_said_of_slow(terminalreporter.config))


def _said_of_slow(config: pytest.Config) -> str:
    reason, left_out, record = config.stash[SLOW_RUN_BECAUSE], config.stash[LEFT_OUT], nightly.read()
    if record is None or not left_out:
        return f"slow tests: run, since {reason}"
    said = f"slow tests: those of {len(left_out)} files passed on {record.date} with all that they speak of as it is"
    return f"{said}; others run, since {reason}" if reason else said
