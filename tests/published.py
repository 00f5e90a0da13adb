"""Files that others published, which are not ours to ship: read beside the checkout where they are, else skipped.

``FINE_EDGE_PUBLISHED`` names the folder (default: ``shared`` beside the checkout). What they hold is written into small
files of our own for the other tests; a check of the whole files asks here, once a test file: skipped tests are counted.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FINE_EDGE_PUBLISHED", Path(__file__).resolve().parents[2] / "shared"))


def published(*parts: str) -> Path:
    """Return a folder or file below the published ones; skip the test where it is not on this machine."""
    path = FOLDER.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the published {'/'.join(parts)} are not on this machine: FINE_EDGE_PUBLISHED names their folder")
    return path
