"""Importing ultralytics through us asks nobody, writes nothing into the home folder and changes no environment."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow]

WATCHED = """
import os, socket, sys, urllib.request
def refuse(*arguments, **options):
    raise AssertionError(f"asked the network: {arguments}")
socket.getaddrinfo = socket.create_connection = urllib.request.urlopen = refuse
import torch
before, threads = dict(os.environ), torch.get_num_threads()
import fine_edge.zoo.yolo.family
assert dict(os.environ) == before, set(os.environ) ^ set(before)
assert torch.get_num_threads() == threads
from PIL import Image
assert Image.open.__module__ == "PIL.Image"
from ultralytics.utils import AUTOINSTALL, ONLINE, SETTINGS_FILE
from ultralytics.utils.events import events
assert (AUTOINSTALL, ONLINE, events.enabled) == (False, False, False)
print(SETTINGS_FILE, file=sys.stderr)
"""


def run(code, home, **more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "XDG_"))}
    # The test runner's own name would switch ultralytics' events off.
    environment.pop("PYTEST_CURRENT_TEST", None)
    environment.update(HOME=str(home), **more)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


def test_nothing_is_asked_written_or_said(tmp_path):
    done = run(WATCHED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.rglob("*")) == []
    folder = os.path.dirname(done.stderr.strip())  # noqa: PTH120
    assert not os.path.exists(folder)  # noqa: PTH110 - gone with the process


def test_a_folder_that_the_user_chose_is_used(tmp_path):
    chosen = tmp_path / "mine"
    done = run(WATCHED, tmp_path / "home", YOLO_CONFIG_DIR=str(chosen))
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == str(chosen / "Ultralytics" / "settings.json")


def test_a_program_that_imported_it_first_keeps_its_log():
    code = (
        "import logging, fine_edge.zoo.yolo.library as library\n"
        "logger = logging.getLogger('ultralytics')\n"
        "assert logger.level == logging.INFO\n"
        "with library.quiet():\n    assert logger.level == logging.ERROR\n"
        "assert logger.level == logging.INFO\n"
    )
    done = run(code, "/nonexistent")
    assert done.returncode == 0, done.stderr
