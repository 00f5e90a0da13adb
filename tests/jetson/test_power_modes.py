import pytest
from board_tree import MODEL, NVPMODEL, write
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.jetson import power_modes
from fine_edge.jetson.power_modes import (
    NO_MODES,
    ORIN_NANO_8GB,
    ORIN_NANO_8GB_SUPER,
    PowerMode,
    built_in_modes,
    contradiction,
    parse_modes,
    read_emc_max_mhz,
    read_mode_id,
    read_modes,
)
from fine_edge.jetson.snapshot import Snapshot


def test_modes_clocks_and_default_of_a_configuration():
    table = parse_modes(NVPMODEL)
    assert table.modes == (
        PowerMode(0, "15W", 612.0, 2133.0),
        PowerMode(1, "25W", 918.0, 3199.0),
        PowerMode(2, "MAXN_SUPER", None, None),
    )
    assert table.default_id == 1
    assert table.find(1).name == "25W"
    assert table.find(9) is None
    assert table.find(None) is None


@given(st.text(alphabet="<>#=- \nPOWER_MODELIDNAMEGUX_FRQC0123456789٣²", max_size=200))
def test_any_text_is_read_without_an_error(text):
    for mode in parse_modes(text).modes:
        assert mode.id >= 0


def test_the_active_mode(tmp_path):
    assert read_mode_id(tmp_path) is None
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002 fmode:cool")
    assert read_mode_id(tmp_path) == 2
    write(tmp_path, "var/lib/nvpmodel/status", "something else")
    assert read_mode_id(tmp_path) is None


def test_the_built_in_table_stands_in_for_a_missing_file_and_says_so(tmp_path):
    assert read_modes(tmp_path, MODEL) is ORIN_NANO_8GB_SUPER
    assert "built-in" in ORIN_NANO_8GB_SUPER.source
    assert read_modes(tmp_path, "NVIDIA Jetson AGX Orin").modes == ()
    write(tmp_path, "etc/nvpmodel.conf", NVPMODEL)
    assert read_modes(tmp_path, MODEL).source == "/etc/nvpmodel.conf"


PLAIN = "NVIDIA Jetson Orin Nano Developer Kit"


@pytest.mark.parametrize(
    ("model", "ram_mib", "table"),
    [
        (MODEL, 7620.0, ORIN_NANO_8GB_SUPER),
        (PLAIN, 7607.0, ORIN_NANO_8GB),
        (PLAIN, None, ORIN_NANO_8GB),
        (PLAIN, 3620.0, NO_MODES),
        ("NVIDIA Jetson Orin Nano 4GB", None, NO_MODES),
        ("NVIDIA Jetson Orin NX", 7620.0, NO_MODES),
        (None, 7620.0, NO_MODES),
    ],
)
def test_the_number_of_a_mode_depends_on_the_board(model, ram_mib, table):
    assert built_in_modes(model, ram_mib) is table
    assert (ORIN_NANO_8GB.find(1).name, ORIN_NANO_8GB_SUPER.find(1).name) == ("7W", "25W")


@pytest.mark.parametrize(
    ("text", "mhz"),
    [(3199000000, 3199.0), (0, None), (-1, None), (2**63 - 1, None), ("9" * 5000, None), ("\x00\xff", None)],
)
def test_the_cap_of_the_memory_clock(tmp_path, text, mhz):
    write(tmp_path, "sys/kernel/nvpmodel_clk_cap/emc", text)
    assert read_emc_max_mhz(tmp_path) == mhz


def test_a_mode_without_limit_has_the_modules_maximum_where_that_is_known():
    table = parse_modes(NVPMODEL)
    assert power_modes.allowed_gpu_mhz(table.find(2), MODEL) == 1020.0
    assert power_modes.allowed_gpu_mhz(table.find(2), "NVIDIA Jetson Orin NX") is None
    assert power_modes.allowed_gpu_mhz(table.find(0), MODEL) == 612.0
    assert power_modes.allowed_gpu_mhz(None, MODEL) is None


@pytest.mark.parametrize(
    ("mode_id", "limit_mhz", "words"),
    [
        (2, 624, "mode MAXN_SUPER allows 1020 MHz, yet the GPU is capped at 624 MHz"),
        (0, 918, "mode 15W ends at 612 MHz, yet the GPU may run at 918 MHz"),
        (1, 918, None),
        (1, 910, None),  # a clock reads back a little low
        (7, 918, None),
        (None, 918, None),
        (1, None, None),
    ],
)
def test_clocks_that_deny_the_mode(mode_id, limit_mhz, words):
    assert contradiction(Snapshot(0.0, gpu_max_mhz=limit_mhz, mode_id=mode_id), ORIN_NANO_8GB_SUPER) == words


@pytest.mark.parametrize(
    ("mode_id", "now_mhz", "cap_mhz", "words"),
    [
        (0, 3199.0, None, "mode 15W ends at 2133 MHz, yet memory runs at 3199 MHz"),
        (0, None, 3199.0, "mode 15W ends at 2133 MHz of memory, yet it may run at 3199 MHz"),
        (1, None, 2133.0, "mode 25W allows 3199 MHz of memory, yet it is capped at 2133 MHz"),
        (1, 2133.0, 3199.0, None),  # an idle memory clock is lower
        (2, 3199.0, 3199.0, None),
    ],
)
def test_memory_clocks_that_deny_the_mode(mode_id, now_mhz, cap_mhz, words):
    state = Snapshot(0.0, emc_mhz=now_mhz, emc_max_mhz=cap_mhz, mode_id=mode_id)
    assert contradiction(state, ORIN_NANO_8GB_SUPER) == words
