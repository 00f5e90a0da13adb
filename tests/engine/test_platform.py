from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.engine import platform as module
from fine_edge.engine.platform import Platform, is_installed, require_tensorrt
from fine_edge.errors import BackendError
from fine_edge.fields import from_data, to_data

VERSIONS = st.none() | st.text("0123456789.", min_size=1, max_size=6)
PLATFORMS = st.builds(
    Platform, VERSIONS, VERSIONS, VERSIONS, VERSIONS, st.none() | st.just("Orin"), st.none() | st.integers(50, 120)
)


@given(PLATFORMS)
def test_a_platform_survives_json_and_is_like_itself(platform):
    assert from_data(Platform, to_data(platform)) == platform
    assert platform.differences(platform) == []


@given(PLATFORMS, PLATFORMS)
def test_tensorrt_and_device_always_count(a, b):
    found = a.differences(b)
    for title, left, right in (("TensorRT", a.tensorrt, b.tensorrt), ("GPU", a.gpu, b.gpu), ("SM", a.sm, b.sm)):
        assert any(line.startswith(f"{title} ") for line in found) == (left != right)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}', "12.6"),
        ('{"cuda": {"version": "13"}}', "13"),
        ("{}", None),
        ("[]", None),
        ("no JSON", None),
    ],
)
def test_the_toolkit_is_as_precise_as_the_driver_that_stands_in_for_it(tmp_path, monkeypatch, text, version):
    (tmp_path / "version.json").write_text(text)
    monkeypatch.setattr(module, "_CUDA_VERSION_FILE", tmp_path / "version.json")
    assert module._cuda_toolkit() == version


def test_a_version_must_be_text():
    with pytest.raises(ValueError, match=r"tensorrt: expected str \| null, got float"):
        from_data(Platform, {"tensorrt": 10.7})


def test_a_folder_with_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_imitation").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("tensorrt_imitation")
    assert is_installed("json")
    assert not is_installed("no_such_package_at_all")


def test_a_package_that_does_not_load_is_not_absent(tmp_path, monkeypatch):
    from fine_edge.engine.platform import _version_of

    (tmp_path / "broken_tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=r"installed but does not load \(libnvinfer"):
        _version_of("broken_tensorrt")
    assert "broken_tensorrt" not in sys.modules


def test_the_way_out_depends_on_where_one_is():
    with pytest.raises(BackendError, match=r"make onnx MODEL=fcos_r50, copy engines/fcos_r50\.\* to the Jetson"):
        require_tensorrt(Platform(rtx="1.7.1"), "fcos_r50")
    with pytest.raises(
        BackendError, match=r"copy mine\.\* to the Jetson and run python -m fine_edge engine build FILE"
    ):
        require_tensorrt(Platform(rtx="1.7.1"), "mine")
    with pytest.raises(BackendError, match="doctor says how this JetPack gets it"):
        require_tensorrt(Platform(l4t="36.4.0"))
    with pytest.raises(BackendError, match="--runtime nvidia"):
        require_tensorrt(Platform(tensorrt="10.7.0"))
    require_tensorrt(Platform(tensorrt="10.7.0", gpu="Orin", sm=87))
