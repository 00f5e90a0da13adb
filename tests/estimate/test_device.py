"""Device profiles and calibrations as files."""

import json
from dataclasses import replace

import pytest

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.calibration import find_calibration, write_calibration
from fine_edge.estimate.device import find_device, known_devices
from fine_edge.estimate.published import MEASURED


def test_every_figure_of_a_profile_names_its_source():
    for name in known_devices():
        device = find_device(name)
        said = " ".join(device.sources)
        for figure in ("multiprocessors", "tensor_flops_per_clock", "lanes", "l2_bytes_per_clock", "l2_mib", "modes"):
            assert figure in said


@pytest.mark.parametrize(
    ("name", "mode", "dense_tflops", "gb_s"),
    [
        ("orin-nano-8gb", "MAXN_SUPER", 16.7, 102),  # a quarter of the data sheets' sparse INT8 TOPS of the GPU
        ("orin-nano-4gb", "MAXN_SUPER", 8.4, 51),
        ("orin-nx-8gb", "MAXN", 12.5, 102),
        ("orin-nx-16gb", "MAXN", 15.0, 102),
        ("agx-orin-32gb", "MAXN", 26.7, 205),
        ("agx-orin-64gb", "MAXN", 42.5, 205),
        ("agx-orin-64gb", "30W", 10.2, 205),  # half of its multiprocessors are switched off
    ],
)
def test_peaks_are_those_of_the_data_sheets(name, mode, dense_tflops, gb_s):
    device = find_device(name)
    peaks = device.peaks(device.mode(mode))
    assert peaks.tensor_flops_per_ms == pytest.approx(1e9 * dense_tflops, rel=0.01)
    assert peaks.memory_bytes_per_ms == 1e6 * gb_s


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
    with pytest.raises(ConfigError, match="known: 7W, 15W, 15W-BEFORE-SUPER, 25W, MAXN_SUPER"):
        find_device("orin-nano-8gb").mode("99W")


NANO = find_device("orin-nano-8gb")


def test_a_calibration_survives_its_file(tmp_path):
    found = find_calibration(NANO)
    write_calibration(found, tmp_path / "c.json")
    assert find_calibration(NANO, tmp_path / "c.json") == found
    low, high = found.interval("fp16", NANO)
    assert low <= 1 <= high


def test_broken_calibrations_are_refused(tmp_path):
    path = tmp_path / "c.json"
    for text in ("{", "{}", json.dumps({"format": 99}), json.dumps({**find_calibration(NANO).to_json(), "rows": 1})):
        path.write_text(text)
        with pytest.raises(ArtifactError):
            find_calibration(NANO, path)
    with pytest.raises(ConfigError, match="nothing is calibrated for sm_110, the GPU of thor"):
        find_calibration(replace(NANO, name="thor", sm="sm_110"))


@pytest.mark.parametrize("wrong", [{"tensor_share": 1.2}, {"memory_share": 0}, {"input_share": 2}, {"copy_gb_s": 0}])
def test_constants_beyond_physics_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(MEASURED, **wrong)
