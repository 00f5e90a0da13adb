"""What every test shares: no network, no fight over cores, and no quiet skipping."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from host_side import needs_torch
from hypothesis import settings

# Before any test module imports the libraries that read it.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; torch would give each of them all.
    os.environ["OMP_NUM_THREADS"] = "1"

# Untimed and the same every time: shared machines pause, and a failure must come back.
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")

HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files that cannot be read without torch: they are tests of the host."""
    left_out = not HAS_TORCH and collection_path.suffix == ".py" and needs_torch(collection_path)
    return True if left_out else None


MOST_SKIPPED = 5
"""More skipped tests than this fail the run: nothing may pass by not running."""


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
