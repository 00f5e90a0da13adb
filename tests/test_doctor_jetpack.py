"""What the doctor says of JetPack releases and the TensorRT that belongs on them; boards and packages are made up."""

import pytest
from jetson.board_tree import write, write_board

from fine_edge import machine
from fine_edge.doctor import backends, software
from fine_edge.doctor.software import Check, jetpack_of
from fine_edge.jetson.board import Board


def board(folder, release):
    root = write_board(folder / "root")
    number, _, revision = release.partition(".")
    write(root, "etc/nv_tegra_release", f"# R{number} (release), REVISION: {revision}, GCID: 1, BOARD: generic")
    return Board(root)


def checked(folder, monkeypatch, release, version=None, package="tensorrt"):
    """JetPack's and TensorRT's lines of a board with this release and this TensorRT."""
    monkeypatch.setattr(software, "is_installed", lambda module: module != "tensorrt" or version is not None)
    monkeypatch.setattr(machine, "version", {package: version}.get)
    found = {check.name: check for check in software.software(board(folder, release))}
    return found.get("JetPack"), found["TensorRT"]


@pytest.mark.parametrize(
    ("release", "status", "found", "get"),
    [
        ("35.4.1", "warn", "5 (L4T 35.4.1): TensorRT 8", "flash JetPack 6.2 or 7.2"),
        ("36.3.0", "warn", "6.0 (L4T 36.3.0): TensorRT 8.6", "flash JetPack 6.2 or 7.2"),
        ("36.4.7", "ok", "6.1 or 6.2 (L4T 36.4.7): TensorRT 10.3, CUDA 12.6, Python 3.10", "L4T archive"),
        ("38.4.0", "warn", "7.0 or 7.1 (L4T 38.4.0): TensorRT 10.13", "flash JetPack 6.2 or 7.2"),
        ("39.2.1", "ok", "7.2 (L4T 39.2.1): TensorRT 10.16.2, CUDA 13.2, Python 3.12", "docker/Dockerfile.jetson-jp72"),
    ],
)
def test_a_release_is_known_by_name_and_says_how_it_gets_tensorrt(tmp_path, monkeypatch, release, status, found, get):
    jetpack, tensorrt = checked(tmp_path, monkeypatch, release)
    assert jetpack.status == status
    assert jetpack.found.startswith(found)
    assert bool(jetpack.hint) == (status == "warn")
    assert (tensorrt.status, tensorrt.found) == ("fail", "not installed")
    assert get in tensorrt.hint


def test_a_release_older_than_all_has_no_name(tmp_path, monkeypatch):
    jetpack, tensorrt = checked(tmp_path, monkeypatch, "32.7.1")
    assert jetpack is None
    assert "docker/README.md" in tensorrt.hint
    assert jetpack_of(Board(tmp_path / "pc")) is None


@pytest.mark.parametrize(
    ("release", "version", "package", "status", "words"),
    [
        ("39.2.1", "10.16.2.10", "tensorrt", "ok", "10.16.2.10"),
        ("39.2.1", "10.13.3.9", "tensorrt", "fail", "has no code for Orin (SM87)"),
        ("36.4.3", "10.13.3.9", "tensorrt-cu13", "fail", "has no code for Orin (SM87)"),
        ("39.2.1", "10.14.1.48", "tensorrt", "warn", "nobody has told"),
        ("36.4.3", "10.13.2", "tensorrt", "ok", "10.13.2"),
        ("39.2.1", "11.4.0.106", "tensorrt-cu13", "ok", "strongly typed only: no fp16-weak"),
        ("36.4.3", "11.4.0.106", "tensorrt", "warn", "strongly typed only: no fp16-weak"),
    ],
)
def test_a_tensorrt_is_set_against_the_boards_gpu_and_jetpack(
    tmp_path, monkeypatch, release, version, package, status, words
):
    _, tensorrt = checked(tmp_path, monkeypatch, release, version, package)
    assert tensorrt.status == status
    assert words in tensorrt.found
    assert bool(tensorrt.hint) == (status != "ok")


def test_an_image_of_jetpack_6_on_7_2_gets_the_other_image(tmp_path, monkeypatch):
    what = "ImportError: libnvdla_compiler.so: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(backends, "_tried", lambda name, *_: Check(name, "fail", what))
    found = {check.name: check for check in backends.backends(board(tmp_path, "39.2.0"))}
    assert "docker/Dockerfile.jetson-jp72" in found["tensorrt"].hint
