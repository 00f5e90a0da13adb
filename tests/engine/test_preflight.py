"""What is looked at before a build, on boards that are described, not there."""

from __future__ import annotations

import shutil

import pytest

from fine_edge import machine
from fine_edge.engine import preflight
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.engine.source import Source
from fine_edge.errors import BackendError, OutputError
from fine_edge.jetson.snapshot import Snapshot

ORIN = Platform(tensorrt="10.7.0", cuda="12.6", l4t="36.4.0", gpu="Orin", sm=87)


class BoardOf:
    """A board in a given state."""

    def __init__(self, *, locked=True, is_jetson=True, **state):
        self._state = {"ram_available_mib": 6000.0, "swap_free_mib": 0.0} | state
        self._locked, self.is_jetson = locked, is_jetson

    def snapshot(self):
        return Snapshot(at_s=0.0, **self._state)

    def clocks_locked(self, snapshot):
        assert snapshot == self.snapshot()
        return self._locked


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m.fp16.onnx"
    path.write_bytes(bytes(2**20))  # 1 MiB: looked at for its size alone
    return Source(path, sha256="ab" * 32, model="m", holds_fp16=True, contract=None)


def check(source, tmp_path, board=None, platform=ORIN, **options):
    return preflight.check(source, BuildOptions(**options), platform, tmp_path / "out", board or BoardOf())


def test_a_free_and_steady_board_builds_with_half_of_what_is_left(source, tmp_path):
    ready = check(source, tmp_path, BoardOf(ram_available_mib=3000.0))
    assert ready.workspace_mib == (3000 - preflight.BUILDER_MIB - preflight.COPIES_OF_WEIGHTS) // 2
    assert ready.warnings == ()


def test_the_workspace_has_a_ceiling(source, tmp_path):
    assert check(source, tmp_path, BoardOf(ram_available_mib=60000.0)).workspace_mib == 2048


def test_a_workspace_that_was_asked_for_is_kept(source, tmp_path):
    assert check(source, tmp_path, workspace_mib=300).workspace_mib == 300


def test_too_little_memory_is_refused_with_figures_and_hint(source, tmp_path):
    with pytest.raises(BackendError) as caught:
        check(source, tmp_path, BoardOf(ram_available_mib=1000.0))
    line = str(caught.value)
    assert "1000 MiB of memory and 0 MiB of swap are free" in line
    assert "(estimate)" in line
    assert "swapon" in line
    assert "a smaller --workspace-mib" not in line


def test_a_workspace_too_large_for_the_board_names_itself(source, tmp_path):
    with pytest.raises(BackendError, match="a smaller --workspace-mib"):
        check(source, tmp_path, BoardOf(ram_available_mib=3000.0), workspace_mib=4000)


def test_swap_helps_only_with_what_the_cpu_holds(source, tmp_path):
    with pytest.raises(BackendError):
        check(source, tmp_path, BoardOf(ram_available_mib=300.0, swap_free_mib=64000.0))
    assert check(source, tmp_path, BoardOf(ram_available_mib=1000.0, swap_free_mib=4000.0)).workspace_mib >= 128


def test_moving_clocks_and_heat_are_warned_of(source, tmp_path):
    state = {"mode": "MAXN_SUPER", "contradiction": "mode MAXN_SUPER allows 1020 MHz, yet the GPU is capped at 624 MHz"}
    ready = check(source, tmp_path, BoardOf(locked=False, throttle=("cpu-throttle",), **state))
    assert len(ready.warnings) == 3
    assert ready.power_mode == "MAXN_SUPER"
    assert "capped at 624 MHz" in ready.warnings[1]
    assert "sudo jetson_clocks" in ready.warnings[0]
    assert "cpu-throttle" in ready.warnings[2]
    assert check(source, tmp_path, BoardOf(locked=False, is_jetson=False)).warnings == ()


@pytest.mark.parametrize(
    ("version", "options", "words"),
    [
        ("8.6.1", {}, "is too old"),
        ("11.4.0.106", {"precision": "fp16-weak"}, "strongly typed only: .* no FP16 flag, .* --precision fp16"),
        (
            "11.4.0.106",
            {},
            "precision_is_set, which TensorRT 11.4.0.106 does not have -> pip install 'polygraphy>=0.50",
        ),
        ("10.13.3.9", {}, "10.13.3.9 for CUDA 13.2 has no code for Orin .SM87. -> install 10.16.1 or newer"),
    ],
)
def test_a_tensorrt_that_cannot_build_it_is_refused(source, tmp_path, monkeypatch, version, options, words):
    monkeypatch.setattr(machine, "version", {"polygraphy": "0.49.14"}.get)
    with pytest.raises(BackendError, match=words):
        check(source, tmp_path, platform=Platform(tensorrt=version, cuda="13.2", gpu="Orin", sm=87), **options)


@pytest.mark.parametrize(
    ("version", "cuda", "warned"),
    [
        ("10.3.0", "12.6", 1),
        ("10.7.0", "12.6", 0),
        ("10.7.0.23", "12.6", 0),
        ("10.13.2", "12.6", 0),
        ("10.16.2.10", "13.2", 0),
        ("11.1.0", "13.2", 0),
    ],
)
def test_an_older_tensorrt_than_the_graph_was_checked_for_is_warned_of(
    source, tmp_path, monkeypatch, version, cuda, warned
):
    monkeypatch.setattr(machine, "version", {"polygraphy": "0.50.3"}.get)
    ready = check(source, tmp_path, platform=Platform(tensorrt=version, cuda=cuda, gpu="Orin", sm=87))
    assert len(ready.warnings) == warned


def test_a_device_that_does_not_answer_is_not_a_missing_tensorrt(source, tmp_path):
    with pytest.raises(BackendError, match="no CUDA device answers"):
        check(source, tmp_path, platform=Platform(tensorrt="10.7.0"))


def test_a_full_disk_is_found_before_the_build(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(OutputError, match=r"1 MiB free.*about 3 MiB \(estimate\)"):
        check(source, tmp_path, platform=Platform(rtx="1.7.1"), target="rtx-sm86")


def test_a_compile_check_asks_nothing_of_the_board(source, tmp_path):
    ready = check(source, tmp_path, BoardOf(ram_available_mib=1.0), Platform(rtx="1.7.1"), target="rtx-sm86")
    assert ready == preflight.Preflight(None, None, ())
