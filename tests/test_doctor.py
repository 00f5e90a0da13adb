"""The doctor on this machine, on a hand-written board, and on packages made up for the test."""

import json
import os
import shutil
from pathlib import Path

import pytest
from jetson.board_tree import (
    EMC,
    MODEL,
    write,
    write_board,
    write_clocks,
    write_cooling,
    write_jetpack_7,
    write_super,
    write_without_super,
)

from fine_edge.cli.doctor import diagnose, main
from fine_edge.doctor import backends, software
from fine_edge.doctor.hardware import hardware
from fine_edge.doctor.software import Check, Diagnosis
from fine_edge.engine import cuda
from fine_edge.engine.cuda import GpuInfo
from fine_edge.errors import BackendError
from fine_edge.jetson.board import Board

STATUS = {"ok", "warn", "fail", "absent"}


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """The compile check is the host's, and is tested apart."""
    monkeypatch.setattr(backends, "_compile", lambda: "compiled")


@pytest.fixture
def jetson(tmp_path):
    return write_board(tmp_path / "root")


@pytest.fixture
def orin(monkeypatch):
    """A GPU that answers: the CUDA boundary."""
    monkeypatch.setattr(cuda, "gpu_info", lambda: GpuInfo("Orin", 87, "12.6", 7_990_000_000))


def package(folder: Path, monkeypatch, name: str, version: str, code: str = "") -> None:
    """An importable package with metadata, in this process and its children."""
    write(folder, f"{name}/__init__.py", code or f"__version__ = {version!r}")
    write(folder, f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def named(diagnosis: Diagnosis, name: str) -> Check:
    return next(check for check in (*diagnosis.checks, *diagnosis.backends) if check.name == name)


def test_this_machine_has_one_page(capsys):
    code = main([])
    page = capsys.readouterr().out
    for word in ("Python", "TensorRT", "ONNX Runtime", "memory", "disk", "onnxruntime", "trtexec"):
        assert word in page
    assert code == (0 if "This machine is fit." in page else 1)


def test_json_says_the_same(capsys):
    main(["--json"])
    page = json.loads(capsys.readouterr().out)
    assert set(page) == {"machine", "checks", "backends"}
    assert {"cpu", "python", "board", "l4t", "state"} <= set(page["machine"])
    for check in page["checks"]:
        assert set(check) == {"name", "status", "found", "hint"}
    for check in (*page["checks"], *page["backends"].values()):
        assert check["status"] in STATUS
        assert check["found"]
    assert page["backends"]["onnxruntime"]["status"] == "ok"


@pytest.mark.usefixtures("orin")
def test_a_jetson_without_tensorrt_is_not_fit(jetson, tmp_path, capsys):
    found = diagnose(Board(jetson), tmp_path)
    tensorrt = named(found, "TensorRT")
    assert (tensorrt.status, tensorrt.found) == ("fail", "not installed")
    assert "L4T archive" in tensorrt.hint
    assert not found.is_fit
    assert main(["--root", str(jetson)]) == 1
    assert "Something is missing or broken." in capsys.readouterr().out


@pytest.mark.usefixtures("orin")
def test_a_jetson_that_is_ready(jetson, tmp_path, monkeypatch):
    package(tmp_path / "site", monkeypatch, "tensorrt", "10.7.0")
    found = diagnose(Board(jetson), tmp_path)
    assert named(found, "TensorRT") == Check("TensorRT", "ok", "10.7.0")
    assert named(found, "tensorrt") == Check("tensorrt", "ok", "10.7.0 loads")
    assert named(found, "CUDA device").found == "Orin, SM 87, driver for CUDA 12.6, 7.4 GiB"
    assert named(found, "board").found == f"{MODEL}, L4T 36.4.3"
    assert named(found, "power mode").found == "25W (mode 1), GPU up to 918 MHz; modes from /etc/nvpmodel.conf"
    assert named(found, "clocks").found == "locked: GPU 918 MHz, memory 3199 MHz"
    assert named(found, "throttling").found == "none now; over-current events since boot: oc3 12"
    assert named(found, "temperature").found == "51.2 C at the hottest sensor (tj)"
    assert named(found, "memory").status == "ok"
    assert found.is_fit
    assert not {"pytorch export", "tensorrt-rtx", "PyTorch"} & {c.name for c in (*found.checks, *found.backends)}


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("10.3.0", "warn", "JetPack 6.1 and 6.2 ship 10.3"),
        ("8.6.2", "warn", "older than 10.7"),
        ("10.13.2", "ok", "10.13.2"),
    ],
)
def test_the_version_is_compared(jetson, tmp_path, monkeypatch, version, status, words):
    package(tmp_path / "site", monkeypatch, "tensorrt", version)
    check = next(check for check in software.software(Board(jetson)) if check.name == "TensorRT")
    assert check.status == status
    assert words in check.found
    assert ("docker/README.md" in check.hint) == (status == "warn")


def test_a_folder_of_that_name_is_no_tensorrt(jetson, tmp_path, monkeypatch):
    (tmp_path / "site" / "tensorrt").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    check = next(check for check in software.software(Board(jetson)) if check.name == "TensorRT")
    assert check.status == "fail"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended with code -11"),
    ],
)
def test_a_tensorrt_that_does_not_load_is_broken_anywhere(tmp_path, monkeypatch, code, words):
    package(tmp_path / "site", monkeypatch, "tensorrt", "10.7.0", code)
    found = diagnose(Board(tmp_path), tmp_path)
    broken = named(found, "tensorrt")
    assert broken.status == "fail"
    assert words in broken.found
    assert "LD_LIBRARY_PATH" in broken.hint
    assert not found.is_fit


def test_no_gpu_matters_on_a_jetson_only(jetson, tmp_path, monkeypatch):
    def silent():
        raise BackendError("no CUDA driver", hint="start the container with --runtime nvidia")

    monkeypatch.setattr(cuda, "gpu_info", silent)
    board = named(diagnose(Board(jetson), tmp_path), "CUDA device")
    assert board == Check("CUDA device", "fail", "no CUDA driver", "start the container with --runtime nvidia")
    assert named(diagnose(Board(tmp_path / "pc"), tmp_path), "CUDA device").status == "absent"


@pytest.mark.usefixtures("orin")
def test_a_board_that_is_not_at_its_best(jetson, tmp_path):
    write_clocks(jetson, 306, 306, 624)
    write_cooling(jetson, 2, "gpu-throttle-alert", 1)
    (jetson / EMC).unlink()
    write(jetson, "var/lib/nvpmodel/status", "pmode:0002")
    write(jetson, "proc/meminfo", "MemTotal: 7801856 kB\nMemAvailable: 1048576 kB\nSwapFree: 0 kB")
    found = diagnose(Board(jetson), tmp_path)
    assert "yet the GPU is capped at 624 MHz" in named(found, "power mode").found
    clocks = named(found, "clocks")
    assert clocks.found == "not locked: GPU 306 to 624 MHz, memory clock unknown (no file holds the memory clock)"
    assert "sudo jetson_clocks" in clocks.hint
    assert named(found, "throttling").found.startswith("cooling device gpu-throttle-alert is active")
    memory = named(found, "memory")
    assert memory.found.startswith("1024 of 7619 MiB available, 0 MiB swap: little for a build")
    assert "close the desktop" in memory.hint
    assert "mkswap" in memory.hint
    assert {check.status for check in found.checks if check.name in ("power mode", "clocks", "throttling")} == {"warn"}


@pytest.mark.usefixtures("orin")
def test_a_container_that_lacks_the_mounts(jetson, tmp_path):
    for path in ("etc/nv_tegra_release", "etc/nvpmodel.conf", "var/lib/nvpmodel/status"):
        (jetson / path).unlink()
    shutil.rmtree(jetson / "sys/class/devfreq")
    found = diagnose(Board(jetson), tmp_path)
    assert "mount /etc/nv_tegra_release" in named(found, "board").hint
    assert "mount /var/lib/nvpmodel" in named(found, "power mode").hint
    assert named(found, "clocks").found == "not readable"


@pytest.mark.parametrize(
    ("make", "mode", "clocks", "events"),
    [
        (
            write_super,
            "25W (mode 1), GPU up to 918 MHz; modes from /etc/nvpmodel.conf",
            "not locked: GPU 306 to 918 MHz, memory up to 3199 MHz",
            "none now",
        ),
        (
            lambda root: write_without_super(root, 1),
            "7W (mode 1), GPU up to 408 MHz; modes from built-in table of the Orin Nano 8 GB without Super",
            "locked: GPU 408 MHz, memory up to 2133 MHz",
            "none now",
        ),
        (
            write_jetpack_7,
            "MAXN_SUPER (mode 2), GPU up to 1020 MHz; modes from /etc/nvpmodel.conf",
            "not locked: GPU 306 to 1020 MHz, memory up to 3199 MHz",
            "none now; over-current events since boot: oc3 5210",
        ),
    ],
    ids=["super", "without-super", "jetpack-7"],
)
@pytest.mark.usefixtures("orin")
def test_real_boards(tmp_path, make, mode, clocks, events):
    board = Board(make(tmp_path))
    found = {check.name: check for check in hardware(board, board.snapshot(), tmp_path)}
    assert found["power mode"].found.startswith(mode)
    assert found["clocks"].found.startswith(clocks)
    assert (found["throttling"].status, found["throttling"].found) == ("ok", events)
    assert found["temperature"].found == "41.0 C at the hottest sensor (soc1)"
    assert found["power mode"].status == "ok"
    assert found["board"].status == "ok"


def test_the_disk(tmp_path, monkeypatch):
    board = Board(tmp_path)
    assert named(diagnose(board, tmp_path), "disk").status in ("ok", "warn")
    assert named(diagnose(board, tmp_path / "absent"), "disk").status == "fail"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    assert named(diagnose(board, tmp_path), "disk").found == f"1.0 GiB free in {tmp_path}"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert named(diagnose(board, tmp_path), "disk").status == "fail"


def test_trtexec(jetson, tmp_path, monkeypatch):
    board = Board(jetson)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(backends.backends(board))[-1].status == "absent"
    write(jetson, "usr/src/tensorrt/bin/trtexec", "")
    aside = list(backends.backends(board))[-1]
    assert (aside.status, aside.hint) == ("warn", "export PATH=$PATH:/usr/src/tensorrt/bin")
    write(tmp_path, "trtexec", "#!/bin/sh")
    (tmp_path / "trtexec").chmod(0o755)
    assert list(backends.backends(board))[-1] == Check("trtexec", "ok", str(tmp_path / "trtexec"))


def test_the_verdict():
    works, broken = Check("a", "ok", "x"), Check("b", "fail", "x")
    absent = Check("c", "absent", "x")
    assert Diagnosis({}, (absent,), (works, absent)).is_fit
    assert not Diagnosis({}, (broken,), (works,)).is_fit
    assert not Diagnosis({}, (), (works, broken)).is_fit
    assert not Diagnosis({}, (works,), (absent,)).is_fit
