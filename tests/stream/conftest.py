"""Videos of a few small frames, written here."""

from __future__ import annotations

import pytest
from servers import HEIGHT, WIDTH, picture
from tiny_detector import write_detector

from fine_edge.libraries import opencv


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Twelve frames whose brightness says their number."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = opencv().VideoWriter(str(path), opencv().VideoWriter_fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for number in range(12):
        writer.write(picture(number))
    writer.release()
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    """The detector of known answers, whatever it sees."""
    return write_detector(tmp_path_factory.mktemp("detector"))
