"""The tiny engine's files, with FINE and without."""

from __future__ import annotations

import engine_files as files
import pytest

from fine_edge.layers.layer import LayerProfile
from fine_edge.layers.sources import from_trtexec


@pytest.fixture
def fine(tmp_path) -> LayerProfile:
    layers = files.write_layers_json(tmp_path / "fine.layers.json", files.FINE)
    return from_trtexec(layers, files.write_profile_json(tmp_path / "fine.profile.json", files.FINE, files.FINE_MS))


@pytest.fixture
def baseline(tmp_path) -> LayerProfile:
    layers = files.write_layers_json(tmp_path / "base.layers.json", files.BASELINE)
    profile = files.write_profile_json(tmp_path / "base.profile.json", files.BASELINE, files.BASELINE_MS)
    return from_trtexec(layers, profile)
