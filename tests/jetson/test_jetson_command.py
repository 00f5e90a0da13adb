import json
from dataclasses import replace
from pathlib import Path

import pytest
from board_tree import NVPMODEL, write_super, write_without_super
from terminal import WIDTHS, assert_fits
from test_printed import FREE, LOCKED, PLAIN
from test_tegrastats import JETPACK_7, ROOT
from test_tegrastats_log import line

from fine_edge.cli.program import main
from fine_edge.errors import BoardError, ConfigError
from fine_edge.jetson.board import Board
from fine_edge.jetson.power_modes import ORIN_NANO_8GB_SUPER
from fine_edge.jetson.printed import BoardFile, state_of
from fine_edge.jetson.tables import log_table, modes_table, state_table
from fine_edge.jetson.tegrastats_log import TegrastatsLog

LOG = "".join(line(f"14:22:{48 + second}", 4287 + 40 * second, extra=" gpu@41.0C") for second in range(4))


def written(folder, **texts):
    """Files by their stem; returns the arguments that name them."""
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(folder / f"{name}.txt") for name in texts]


def as_json(capsys, *argv):
    assert main(["jetson", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_log_is_a_table_of_spreads_and_energy(tmp_path, capsys):
    assert main(["jetson", *written(tmp_path, run=f"{LOG}SUMMARY of somebody\n")]) == 0
    text = capsys.readouterr().out
    assert "run.txt: 4 lines of tegrastats over 3 s" in text
    rows = {row.split("  ")[0]: row.split()[-6:] for row in text.splitlines()}
    assert rows["VDD_IN (mW)"] == ["4", "4287", "4347", "4347", "4407", "13.0"]
    assert rows["GPU load (%)"] == ["4", "50.0", "50.0", "50.0", "50.0", "-"]
    assert "1 of 5 lines is no whole line of tegrastats and was left out." in text
    assert "No clock of GPU and memory: only root gets it" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_log_as_json(tmp_path, capsys):
    (found,) = as_json(capsys, *written(tmp_path, run=f"{ROOT}\r\n{ROOT}\r\n{JETPACK_7}\n"))["files"]
    log = found["tegrastats"]
    assert (log["lines"], log["seconds"], log["clock_steps"]) == (3, None, 1)
    assert log["power_mw"]["VDD_IN"] == {"lines": 2, "min": 12517.0, "median": 12517.0, "mean": 12517.0, "max": 12517.0}
    assert (log["gpu_mhz"]["max"], log["emc_mhz"]["max"], log["energy_j"]) == (612.0, 3200.0, {})
    assert (found["states"], found["modes"], found["left_out_lines"]) == ([], None, 0)


def test_the_interval_gives_lines_without_a_time_energy(tmp_path, capsys):
    (path,) = written(tmp_path, run="".join(line(power=power) for power in (4000, 6000, 2000)))
    (found,) = as_json(capsys, path, "--interval-ms", "500")["files"]
    assert (found["tegrastats"]["seconds"], found["tegrastats"]["energy_j"]) == (1.0, {"VDD_IN": 4.5})
    assert main(["jetson", path]) == 0
    assert "No duration, no energy" in capsys.readouterr().out


def test_states_take_their_modes_from_the_configuration_beside_them(tmp_path, capsys):
    paths = written(tmp_path, clocks=FREE, nvpmodel=f"# a licence\n{NVPMODEL}", mode="NV Power Mode: 7W\n1\n")
    assert main(["jetson", *paths]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "25W (mode 1), GPU up to 918 MHz by the nvpmodel.txt" in text
    assert "306 to 918 MHz, now 306 MHz" in text
    assert "not locked: sudo jetson_clocks; memory not locked" in text
    assert "MAXN_SUPER 2 - -" in text
    assert "Contradiction: nvpmodel.txt has no mode 7W with number 1." in text


def test_a_file_may_hold_a_log_and_states(tmp_path, capsys):
    (found,) = as_json(capsys, *written(tmp_path, env=f"$ nvpmodel -q\nNV Power Mode: 25W\n1\n\n{LOG}"))["files"]
    assert (found["tegrastats"]["lines"], found["left_out_lines"]) == (4, 1)
    (state,) = found["states"]
    assert (state["mode"], state["mode_id"], state["locked"]) == ("25W", 1, None)


def test_this_board(tmp_path, capsys):
    found = as_json(capsys, "--root", str(write_without_super(tmp_path / "plain", 1)))["board"]
    assert (found["model"], found["mode"], found["gpu_max_mhz"], found["locked"]) == (PLAIN, "7W", 408.0, True)
    assert main(["jetson", "--root", str(write_super(tmp_path / "super"))]) == 0
    text = capsys.readouterr().out
    assert "up to 3199 MHz, now unknown (no file holds the memory clock)" in text
    assert "VDD_IN 4360 mW" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_picture_of_logs(tmp_path, capsys):
    paths = written(tmp_path, one=LOG, two=f"{LOG}{ROOT}\n", clocks=LOCKED)
    picture = tmp_path / "state.png"
    assert main(["jetson", *paths, "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "picture:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        ({"other": "name,value\n1,2\n"}, [], "nothing in it is known of a board -> give what one of these wrote"),
        ({"empty": ""}, [], "nothing in it is known of a board"),
        ({"binary": bytes(range(256)) * 600}, [], "nothing in it is known of a board"),
        ({"cut": LOG[:60]}, [], "nothing in it is known of a board"),
        (
            {"user": "SOC family:tegra234  Machine:x\nError: Run this script(/usr/bin/jetson_clocks) as a root user\n"},
            [],
            "jetson_clocks printed no clocks, because it was not run as root",
        ),
        ({"watched": LOCKED * 65}, [], "holds more than 64 states of a board"),
        ({"conf": "< PARAM TYPE=CLOCK NAME=GPU >\n"}, [], "this nvpmodel.conf has no power mode"),
        ({"a": NVPMODEL, "b": NVPMODEL}, [], "2 files with power modes"),
        ({"clocks": LOCKED}, ["--picture", "x.png"], "there is no log of tegrastats to draw"),
        ({"one": line("14:22:48")}, ["--picture", "x.png"], "nothing can be drawn over time"),
        (dict.fromkeys("abcde", LOG), ["--picture", "x.png"], "5 logs, one picture holds 4"),
        ({"run": LOG}, ["--interval-ms", "nan"], "must be positive, not nan"),
        ({"run": LOG}, ["--interval-ms", "0"], "must be positive, not 0.0"),
        ({"run": LOG}, ["--root", "/tmp"], "is for this board, files were given"),
        ({}, ["--root", "."], "this machine is no Jetson -> run it on the board, or give"),
        ({}, ["--picture", "x.png"], "is for logs of tegrastats"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, texts, options, words):
    monkeypatch.chdir(tmp_path)
    paths = written(tmp_path, **texts)
    with pytest.raises((BoardError, ConfigError)) as caught:
        main(["jetson", *paths, *options])
    assert words in str(caught.value)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".txt"] * len(texts)


@pytest.mark.parametrize("name", ["absent.txt", "."])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(BoardError, match=r"no such file|not a regular file"):
        main(["jetson", str(tmp_path / name)])


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_fit_the_terminal(tmp_path, width):
    """A log of a day, and a board of everything that is long."""
    log = TegrastatsLog()
    for number in range(3):
        log.add(line(power=123456, extra=f" a_long_sensor_name_{number}@41.0C VDD_GPU_SOC_AND_MORE 12345mW/1mW"))
    path = Path("tegrastats_of_a_run_with_a_name_of_some_length_20260419_013102.log")
    log.lines = 864_000
    table = log_table(BoardFile(path, log, left_out=12), log, None)
    assert_fits(table, width)
    assert len(table.brief) <= 5
    state = state_of(Board(write_super(tmp_path)))
    state = replace(state, contradictions=("mode MAXN_SUPER allows 1020 MHz, yet the GPU is capped at 624 MHz",))
    assert_fits(state_table(f"{path.name}: state", state), width)
    assert_fits(modes_table(ORIN_NANO_8GB_SUPER), width)
