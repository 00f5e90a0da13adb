"""Outputs typed by hand in the form and with the figures of Orin boards on L4T 35 and 36."""

import pytest
from board_tree import MODEL, NVPMODEL, write_jetpack_7
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.jetson.board import Board
from fine_edge.jetson.power_modes import parse_modes
from fine_edge.jetson.printed import PrintedStates, state_of

PLAIN = "NVIDIA Jetson Orin Nano Developer Kit"


def limit(name, which, real, wanted):
    """A line of ``nvpmodel -q --verbose``."""
    return f"NVPM VERB: PARAM {name}: ARG {which}: PATH /sys/{name}/{which}: REAL_VAL: {real} CONF_VAL: {wanted}\n"


VERBOSE = (
    "NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: 25W\n1\n"
    + limit("CPU_A78_0", "MAX_FREQ", 1344000, 1344000)
    + limit("GPU_POWER_CONTROL_ENABLE", "GPU_PWR_CNTL_EN", "auto", "on")
    + limit("GPU", "MIN_FREQ", 306000000, 0)
    + limit("GPU", "MAX_FREQ", 918000000, 918000000)
    + limit("EMC", "MAX_FREQ", 3199000000, 3199000000)
)


def shown(model, gpu, emc, mode):
    """``jetson_clocks --show``; clocks are least, greatest and now in MHz, the last of ``emc`` the override."""
    machine = f"SOC family:tegra234  Machine:{model}\nOnline CPUs: 0-5\n" if model else ""
    hertz = [round(mhz * 1e6) for mhz in (*gpu, *emc[:3])]
    return (
        f"{machine}cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=729600\n"
        f"GPU MinFreq={hertz[0]} MaxFreq={hertz[1]} CurrentFreq={hertz[2]}\nActive GPU TPCs: 4\n"
        f"EMC MinFreq={hertz[3]} MaxFreq={hertz[4]} CurrentFreq={hertz[5]} FreqOverride={emc[3]}\n"
        f"FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69\nNV Power Mode: {mode}\n"
    )


FREE = shown(MODEL, (306, 918, 306), (204, 3199, 2133, 0), "25W")
LOCKED = shown(PLAIN, (624.75, 624.75, 624.75), (204, 2133, 2133, 1), "15W")
AGX = shown(None, (1300.5, 1300.5, 1300.5), (204, 3199, 3199, 1), "MAXN")


def states(text, modes=None):
    printed = PrintedStates()
    for line in text.splitlines():
        assert printed.add(line), line
    return printed.finish(modes)


def test_verbose_modes_and_clocks_of_one_board_are_one_state():
    (state,) = states(f"# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic\n{VERBOSE}{FREE}")
    found = state.snapshot
    assert (state.model, state.l4t, found.mode, found.mode_id) == (MODEL, "36.4.7", "25W", 1)
    assert (found.gpu_min_mhz, found.gpu_max_mhz, found.gpu_mhz) == (306.0, 918.0, 306.0)
    assert (found.emc_max_mhz, found.emc_mhz) == (3199.0, 2133.0)
    assert (found.is_locked, state.emc_locked, state.contradictions) == (False, False, ())


def test_a_board_without_super_that_is_locked():
    (state,) = states(f"NV Power Mode: 15W\n0\n{LOCKED}")
    found = state.snapshot
    assert (found.mode, found.mode_id, found.mode_gpu_mhz, found.gpu_max_mhz) == ("15W", 0, 624.75, 624.75)
    assert (found.is_locked, state.emc_locked, state.contradictions) == (True, True, ())


def test_outputs_of_several_boards_are_several_states():
    found = states(FREE + LOCKED + AGX)
    assert [(state.model, state.snapshot.mode, state.snapshot.gpu_max_mhz) for state in found] == [
        (MODEL, "25W", 918.0),
        (PLAIN, "15W", 624.75),
        (None, "MAXN", 1300.5),
    ]
    again = states("NV Power Mode: 25W\n1\nNV Power Mode: 25W\n1\nNV Power Mode: 15W\n0\n")
    assert [state.snapshot.mode for state in again] == ["25W", "15W"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            shown(MODEL, (306, 624, 306), (204, 2133, 2133, 0), "MAXN_SUPER"),
            "mode MAXN_SUPER allows 1020 MHz, yet the GPU is capped at 624 MHz",
        ),
        (
            shown(MODEL, (306, 918, 306), (204, 2133, 2133, 0), "25W"),
            "mode 25W allows 3199 MHz of memory, yet it is capped at 2133 MHz",
        ),
        (f"NV Power Mode: 7W\n1\n{LOCKED}", "nvpmodel and jetson_clocks name different modes, 7W and 15W"),
        (
            VERBOSE.replace("REAL_VAL: 918000000", "REAL_VAL: 624000000"),
            "nvpmodel sets the limit of GPU to 918 MHz, the kernel has 624 MHz",
        ),
    ],
)
def test_contradictions(text, words):
    (state,) = states(text)
    assert state.contradictions[0] == words


def test_the_number_that_stands_for_no_limit_is_no_clock():
    (state,) = states(VERBOSE.replace("CONF_VAL: 918000000", f"CONF_VAL: {2**63 - 1}").replace("25W", "MAXN"))
    assert (state.snapshot.gpu_max_mhz, state.contradictions) == (918.0, ())


def test_a_given_table_holds_and_must_have_the_mode():
    modes = parse_modes(NVPMODEL, "nvpmodel.conf")
    (state,) = states(AGX.replace("MAXN", "25W"), modes)
    assert state.contradictions == ("mode 25W ends at 918 MHz, yet the GPU may run at 1300 MHz",)
    (state,) = states("NV Power Mode: 7W\n1\n", modes)
    assert state.contradictions == ("nvpmodel.conf has no mode 7W with number 1",)


def test_a_board_is_read_into_the_same_state(tmp_path):
    state = state_of(Board(write_jetpack_7(tmp_path)))
    assert (state.l4t, state.snapshot.mode, state.snapshot.is_locked) == ("39.2.1", "MAXN_SUPER", False)
    data = state.to_json()
    assert (data["gpu_max_mhz"], data["oc_events"]["oc3"], data["contradictions"]) == (1020.0, 5210, [])


LINES = [*VERBOSE.splitlines(), *FREE.splitlines(), *AGX.splitlines(), "1", "9" * 30, "\x00", ""]


@given(st.lists(st.sampled_from(LINES)))
def test_lines_in_any_order_never_raise(lines):
    printed = PrintedStates()
    for line in lines:
        printed.add(line)
    for state in printed.finish():
        assert state.snapshot.mode or state.snapshot.gpu_max_mhz or state.snapshot.emc_max_mhz
        state.to_json()
