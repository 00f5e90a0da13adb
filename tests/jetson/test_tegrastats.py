"""The lines are typed from the formats that fine_edge/jetson/tegrastats.py names; none was recorded by us."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats import Reading, Tegrastats, completed, is_whole, parse_line

ROOT = (
    "10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) CPU [38%@1497,2%@729,off,off] "
    "EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@57.125C soc2@55.093C "
    "gpu@58.5C tj@58.5C CV0@-256C VDD_IN 12517mW/10898mW VDD_CPU_GPU_CV 5123mW/4000mW VDD_SOC 2720mW/2659mW"
)
USER = (
    "RAM 3308/7607MB (lfb 32x4MB) SWAP 0/3804MB (cached 0MB) CPU [0%@1510,0%@1510] GR3D_FREQ 99% "
    "cpu@62.4C gpu@62.3C tj@62.4C VDD_IN 12517mW/10898mW VDD_CPU_GPU_CV 6000mW/5000mW VDD_SOC 2700mW/2600mW"
)
XAVIER = (
    "RAM 2020/7852MB (lfb 1164x4MB) IRAM 0/252kB(lfb 252kB) CPU [9%@345] EMC_FREQ 0% GR3D_FREQ 0%@114 PMIC@100C "
    "GPU@41C VDD_SYS_GPU 153/158 VDD_IN 3140/3208 NC 0mW/0mW"
)


def test_a_line_as_root_sees_it():
    reading = parse_line(ROOT)
    assert (reading.ram_used_mib, reading.ram_total_mib) == (6712.0, 7620.0)
    assert (reading.swap_used_mib, reading.swap_total_mib) == (369.0, 3810.0)
    assert (reading.emc_load_percent, reading.emc_mhz) == (61.0, 2133.0)
    assert (reading.gpu_load_percent, reading.gpu_mhz) == (99.0, 612.0)
    assert reading.temperatures_c == {"cpu": 57.125, "soc2": 55.093, "gpu": 58.5, "tj": 58.5}
    assert reading.power_mw == {"VDD_IN": 12517.0, "VDD_CPU_GPU_CV": 5123.0, "VDD_SOC": 2720.0}


def test_a_line_as_a_user_sees_it():
    reading = parse_line(USER)
    assert (reading.emc_mhz, reading.emc_load_percent, reading.gpu_mhz) == (None, None, None)
    assert reading.gpu_load_percent == 99.0
    assert reading.power_mw["VDD_IN"] == 12517.0


def test_a_line_of_an_older_board():
    reading = parse_line(XAVIER)
    assert reading.power_mw == {"VDD_SYS_GPU": 153.0, "VDD_IN": 3140.0}
    assert (reading.emc_load_percent, reading.emc_mhz, reading.gpu_mhz) == (0.0, None, 114.0)
    assert reading.temperatures_c == {"PMIC": 100.0, "GPU": 41.0}


@pytest.mark.parametrize(
    ("text", "load", "clock"),
    [
        ("GR3D_FREQ 99%", 99.0, None),
        ("GR3D_FREQ 99%@921", 99.0, 921.0),
        ("GR3D_FREQ 99%@[921]", 99.0, 921.0),
        ("GR3D_FREQ 20%@[764,0]", 20.0, 764.0),
        ("GR3D_FREQ 0%@[0,0] VIC off", 0.0, None),
        ("GR3D_FREQ @[1000,1000,1000] VIC off", None, 1000.0),
        ("GR3D_FREQ 0%@0", 0.0, None),
        ("GR3D_FREQ nonsense", None, None),
    ],
)
def test_every_form_of_the_gpus_load_and_clock(text, load, clock):
    reading = parse_line(f"RAM 1/2MB {text}")
    assert (reading.gpu_load_percent, reading.gpu_mhz) == (load, clock)


JETPACK_7 = (
    "07-23-2026 15:29:27 RAM 9091/125811MB (lfb 19x4MB) CPU [40%@972,off] EMC_FREQ 7%@3200 GR3D_FREQ @[314,314,314] "
    "NVENC0_FREQ @1556 VIC 59%@423 cpu@34.312C/34.843C tj@35.906C/35.906C VDD_GPU 4925mW/4925mW/4925mW "
    "VDD_CPU_SOC_MSS 7953mW/8332mW/8710mW VIN_SYS_5V0 6667/6717/6767"
)
AGX = (
    "04-24-2023 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) SWAP 0/31398MB (cached 0MB) CPU [10%@729,20%@2201,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@0 GR3D2_FREQ 9%@9 VIC_FREQ 729 APE 174 GPU@-256C tj@42.593C "
    "VIN_SYS_5V0 4032mW/4032mW NC 0mW/0mW"
)


def test_a_line_of_jetpack_7_has_three_figures_a_rail():
    reading = parse_line(JETPACK_7)
    assert reading.power_mw == {"VDD_GPU": 4925.0, "VDD_CPU_SOC_MSS": 7953.0, "VIN_SYS_5V0": 6667.0}
    assert reading.temperatures_c == {"cpu": 34.312, "tj": 35.906}
    assert (reading.emc_mhz, reading.gpu_mhz, reading.gpu_load_percent) == (3200.0, 314.0, None)
    assert parse_line("VDD_IN 3582mW/3582mW/3582mW").power_mw == {"VDD_IN": 3582.0}
    assert parse_line("tj@-5.5C CV0@-256C").temperatures_c == {"tj": -5.5}


def test_a_line_of_an_agx():
    reading = parse_line(AGX)
    assert (reading.cpu_load_percent, reading.cpu_mhz, reading.cpus_online) == (15.0, 2201.0, 2)
    assert (reading.gpu_load_percent, reading.gpu_mhz) == (0.0, None)
    assert (reading.temperatures_c, reading.power_mw) == ({"tj": 42.593}, {"VIN_SYS_5V0": 4032.0})
    assert parse_line(USER).clock_s is None
    assert parse_line(AGX.replace(":24", ":25")).clock_s - reading.clock_s == 1.0
    assert parse_line(AGX.replace("04-24", "13-32")).clock_s is None


@pytest.mark.parametrize(("unit", "mib"), [("kB", 1.0), ("MB", 1024.0), ("GB", 1048576.0)])
def test_units_of_memory(unit, mib):
    assert parse_line(f"RAM 1024/2048{unit} (lfb 1x4MB)").ram_used_mib == mib


def test_a_whole_line_ends_with_a_figure_of_a_sensor():
    assert all(map(is_whole, (ROOT, USER, JETPACK_7, AGX, f"{AGX[:-11]}\r\n")))
    assert not any(map(is_whole, ("", "RAM 1/2MB", "LOAD_SUMMARY device=cuda", ROOT[:-1], ROOT[:200], AGX[20:60])))


def test_a_rail_with_one_figure():
    assert parse_line("VDD_IN 5765mW VDD_SOC 1497mW").power_mw == {"VDD_IN": 5765.0, "VDD_SOC": 1497.0}


def numbers(reading):
    for entry in fields(Reading):
        value = getattr(reading, entry.name)
        yield from value.values() if isinstance(value, dict) else [value] if value is not None else []


@given(st.text())
def test_junk_never_raises(text):
    assert all(math.isfinite(number) for number in numbers(parse_line(text)))


@given(st.lists(st.sampled_from([*ROOT.split(), *XAVIER.split(), "9" * 400 + "MB", "RAM", "/", "@", "%", "٣C"])))
def test_words_of_real_lines_in_any_order_never_raise(words):
    assert all(math.isfinite(number) for number in numbers(parse_line(" ".join(words))))


@given(st.integers(0, len(ROOT)))
def test_a_line_cut_anywhere_says_nothing_wrong(end):
    """A figure that is there in part only is shorter, never another field's."""
    part, whole = parse_line(ROOT[:end]), parse_line(ROOT)
    assert set(part.power_mw) <= set(whole.power_mw)
    assert set(part.temperatures_c) <= set(whole.temperatures_c)


def test_only_gaps_are_filled():
    full = completed(Snapshot(0.0, unread={"emc_mhz": "root", "power_mw": "none", "mode": "?"}), parse_line(ROOT))
    assert (full.emc_mhz, full.gpu_mhz, full.gpu_load_percent) == (2133.0, 612.0, 99.0)
    assert full.power_mw["VDD_IN"] == 12517.0
    assert full.unread == {"mode": "?"}
    own = Snapshot(0.0, gpu_mhz=918.0, gpu_load_percent=0.0, power_mw={"VDD_IN": 1.0}, temperatures_c={"tj": 40.0})
    kept = completed(own, parse_line(ROOT))
    assert (kept.gpu_mhz, kept.gpu_load_percent, kept.power_mw) == (918.0, 0.0, {"VDD_IN": 1.0})
    assert kept.temperatures_c == {"tj": 40.0}


def test_a_program_that_is_not_there_says_nothing(tmp_path):
    silent = Tegrastats(tmp_path / "absent", 0.5)
    silent.start()
    assert silent.latest(0.0) is None
    silent.stop()


def test_an_old_line_is_not_the_state_of_now(tmp_path):
    program = script(tmp_path, f"echo '{ROOT}'")
    stats = Tegrastats(program, 0.5)
    stats.start()
    stats._thread.join()  # the program has ended, its line is kept
    arrived_s, reading = stats._latest
    assert reading == parse_line(ROOT)
    assert stats.latest(arrived_s + 1.9) == reading
    assert stats.latest(arrived_s + 2.1) is None
    stats.stop()
    stats.stop()


def script(folder: Path, body: str) -> Path:
    """An executable that stands in for NVIDIA's program."""
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
