import shutil

import pytest
from board_tree import (
    EMC,
    GPU,
    INA3221,
    MODEL,
    THERMAL,
    write,
    write_board,
    write_clocks,
    write_cooling,
    write_jetpack_7,
    write_super,
    write_without_super,
    write_zone,
)

from fine_edge.fields import from_data, to_data
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot


@pytest.fixture
def root(tmp_path):
    return write_board(tmp_path)


def test_a_whole_board(root):
    board = Board(root)
    state = board.snapshot()
    assert (board.is_jetson, board.model, board.l4t) == (True, MODEL, "36.4.3")
    assert (state.gpu_mhz, state.gpu_min_mhz, state.gpu_max_mhz) == (918.0, 918.0, 918.0)
    assert state.emc_mhz == 3199.0
    assert state.gpu_load_percent == 98.7
    assert (state.mode, state.mode_id, state.mode_gpu_mhz) == ("25W", 1, 918.0)
    assert state.temperatures_c == {"cpu": 51.0, "gpu": 49.5, "tj": 51.25}
    assert state.power_mw == {"VDD_IN": 5000.0, "VDD_CPU_GPU_CV": 2000.0, "VDD_SOC": 1254.0}
    assert state.oc_events == {"oc1": 0, "oc2": 0, "oc3": 12}
    assert (state.ram_available_mib, state.swap_free_mib) == (5120.0, 3809.5)
    assert board.memory.ram_total_mib == 7619.0
    assert (state.throttle, state.contradiction, state.unread) == ((), None, {})
    assert board.clocks_locked(state) is True


def test_an_empty_tree_is_no_jetson_and_raises_nothing(tmp_path):
    board = Board(tmp_path)
    state = board.snapshot()
    assert not board.is_jetson
    assert (board.model, board.l4t, board.modes.modes) == (None, None, ())
    assert state == Snapshot(state.at_s)
    assert board.clocks_locked(state) is None


def test_this_machine_can_be_read():
    state = Board().snapshot()
    assert state.ram_available_mib > 0
    assert from_data(Snapshot, to_data(state)) == state


def test_a_pc_with_the_same_kernel_files_is_not_throttled(tmp_path):
    write_cooling(tmp_path, 0, "Processor", 3)
    write_clocks(tmp_path, 300, 100, 1500, "sys/class/devfreq/card0-gpu")
    state = Board(tmp_path).snapshot()
    assert state.throttle == ()
    assert state.gpu_mhz is None


@pytest.mark.parametrize("gpu", ["sys/class/devfreq/17000000.ga10b", "sys/class/devfreq/gpu-gpc-0"])
def test_other_names_of_the_gpu(root, gpu):
    shutil.rmtree(root / GPU)
    write_clocks(root, 306, 306, 624, gpu)
    write(root, f"{gpu}/device/load", 12)
    state = Board(root).snapshot()
    assert (state.gpu_mhz, state.gpu_max_mhz, state.gpu_load_percent) == (306.0, 624.0, 1.2)
    assert Board(root).clocks_locked(state) is False


def test_the_version_comes_from_the_package_where_the_release_file_is_missing(root):
    (root / "etc/nv_tegra_release").unlink()
    assert Board(root).l4t is None
    status = (
        "Package: nvidia-l4t-init\nVersion: 1\n\nPackage: nvidia-l4t-core\nVersion: 36.4.4-20250616085344\n\nPackage: z"
    )
    write(root, "var/lib/dpkg/status", status)
    assert Board(root).l4t == "36.4.4"


def test_a_container_takes_the_model_from_the_mount(root):
    shutil.rmtree(root / "proc/device-tree")
    write(root, "run/host/device-model", MODEL + "\0")
    assert Board(root).model == MODEL


def test_why_a_figure_is_missing(root):
    shutil.rmtree(root / "sys/bus")
    (root / EMC).unlink()
    (root / "var/lib/nvpmodel/status").unlink()
    shutil.rmtree(root / GPU)
    state = Board(root).snapshot()
    assert set(state.unread) == {"gpu_mhz", "emc_mhz", "power_mw", "mode"}
    assert (state.emc_mhz, state.power_mw, state.mode) == (None, {}, None)


def test_a_memory_clock_that_only_root_may_read(root, monkeypatch):
    (root / EMC).unlink()
    monkeypatch.setattr("fine_edge.jetson.sysfs.is_forbidden", lambda path: path == root / EMC)
    assert Board(root).snapshot().unread == {"emc_mhz": "only root may read it: sudo"}


def test_the_memory_clock_of_another_kernel(root):
    (root / EMC).unlink()
    write(root, "sys/class/devfreq/bwmgr/cur_freq", 2133000000)
    assert Board(root).snapshot().emc_mhz == 2133.0


def test_the_monitor_is_found_by_name_too(root):
    shutil.move(root / INA3221, root / "sys/class/hwmon/hwmon1")
    shutil.rmtree(root / "sys/bus")
    write(root, "sys/class/hwmon/hwmon1/name", "ina3221")
    assert Board(root).snapshot().power_mw["VDD_IN"] == 5000.0


def test_what_throttles_is_said_and_the_fan_is_not(root):
    write_cooling(root, 2, "gpu-throttle-alert", 1)
    write_cooling(root, 3, "devfreq-17000000.gpu", 4)
    write_zone(root, 2, "tj-thermal", 99500)
    write_zone(root, 0, "cpu-thermal", 85000)  # above the hot surface's 70 C, which holds nothing back
    write(root, f"{INA3221}/curr1_crit_alarm", 1)
    write(root, f"{INA3221}/curr3_max_alarm", 1)
    assert Board(root).snapshot().throttle == (
        "cooling device gpu-throttle-alert is active",
        "cooling device devfreq-17000000.gpu is active",
        "tj has reached its throttling point of 99.0 C",
        "over-current alarm (average) on VDD_SOC",
        "over-current alarm (critical) on VDD_IN",
    )


def test_a_super_mode_that_the_firmware_caps(root):
    write(root, "var/lib/nvpmodel/status", "pmode:0002")
    write_clocks(root, 624, 306, 624)
    state = Board(root).snapshot()
    assert state.mode == "MAXN_SUPER"
    assert state.contradiction == "mode MAXN_SUPER allows 1020 MHz, yet the GPU is capped at 624 MHz"


def test_sensors_that_are_off_are_left_out(root):
    write(root, f"{THERMAL}/thermal_zone1/temp", -256000)
    assert set(Board(root).snapshot().temperatures_c) == {"cpu", "tj"}


@pytest.mark.parametrize(
    ("make", "l4t", "mode", "allowed_mhz", "emc_max_mhz", "locked"),
    [
        (write_super, "36.4.7", "25W", 918.0, 3199.0, False),
        (write_without_super, "36.5.0", "15W", 624.75, 2133.0, True),
        (lambda root: write_without_super(root, 1), "36.5.0", "7W", 408.0, 2133.0, True),
        (write_jetpack_7, "39.2.1", "MAXN_SUPER", 1020.0, 3199.0, False),
    ],
    ids=["super", "without-super-15W", "without-super-7W", "jetpack-7"],
)
def test_boards_as_they_are_without_root(tmp_path, make, l4t, mode, allowed_mhz, emc_max_mhz, locked):
    board = Board(make(tmp_path))
    state = board.snapshot()
    assert (board.l4t, state.mode, state.mode_gpu_mhz, state.emc_max_mhz) == (l4t, mode, allowed_mhz, emc_max_mhz)
    assert (state.contradiction, state.throttle, state.is_locked) == (None, (), locked)
    assert set(state.unread) == {"emc_mhz"}
    assert set(state.temperatures_c) == {"cpu", "gpu", "soc0", "soc1", "soc2", "tj"}
