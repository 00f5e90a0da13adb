"""Device profiles and calibrations as files."""

import json

import pytest

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.calibration import Constants, find_calibration, write_calibration
from fine_edge.estimate.device import find_device, known_devices


def test_every_figure_of_a_profile_names_its_source():
    for name in known_devices():
        device = find_device(name)
        said = " ".join(device.sources)
        for figure in ("multiprocessors", "tensor_flops_per_clock", "lanes", "l2_bytes_per_clock", "l2_mib", "modes"):
            assert figure in said


def test_peaks_are_those_of_the_data_sheet():
    device = find_device("orin-nano-8gb")
    peaks = device.peaks(device.mode(None))
    assert peaks.tensor_flops_per_ms == pytest.approx(16.7e9, rel=0.01)  # 67 sparse INT8 TOPS
    assert peaks.memory_bytes_per_ms == 102e6


def test_an_own_profile_and_what_is_wrong_with_one(tmp_path):
    mine = tmp_path / "mine.json"
    data = json.loads((find_device.__globals__["_FOLDER"] / "orin-nano-8gb.json").read_text())
    mine.write_text(json.dumps({**data, "name": "mine"}))
    assert find_device(str(mine)).name == "mine"
    for broken in ("{", json.dumps({**data, "lanes": -1}), json.dumps({**data, "default_mode": "?"}), "[]"):
        mine.write_text(broken)
        with pytest.raises(ArtifactError, match=r"the device profile is broken|no JSON"):
            find_device(str(mine))
    with pytest.raises(ConfigError, match="no device is called 'nano'"):
        find_device("nano")
    with pytest.raises(ConfigError, match="known: 7W, 15W, 25W, MAXN_SUPER"):
        find_device("orin-nano-8gb").mode("99W")


def test_a_calibration_survives_its_file(tmp_path):
    found = find_calibration("orin-nano-8gb")
    write_calibration(found, tmp_path / "c.json")
    assert find_calibration("orin-nano-8gb", tmp_path / "c.json") == found
    low, high = found.spread
    assert low <= 1 <= high


def test_broken_calibrations_are_refused(tmp_path):
    path = tmp_path / "c.json"
    for text in (
        "{",
        "{}",
        json.dumps({"format": 99}),
        json.dumps({**find_calibration("orin-nano-8gb").to_json(), "rows": 1}),
    ):
        path.write_text(text)
        with pytest.raises(ArtifactError):
            find_calibration("orin-nano-8gb", path)
    with pytest.raises(ConfigError, match="nothing is calibrated for mine"):
        find_calibration("mine")


@pytest.mark.parametrize("wrong", [{"tensor_share": 1.2}, {"memory_share": 0}, {"launch_us": -1}, {"copy_gb_s": 0}])
def test_constants_beyond_physics_are_refused(wrong):
    right = {"tensor_share": 0.5, "memory_share": 0.5, "gather_share": 0.5, "launch_us": 1.0, "copy_gb_s": 10.0}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Constants(**{**right, **wrong})
