import shutil
import threading

import pytest
from board_tree import EMC, write_board
from test_tegrastats import ROOT, USER, script

from fine_edge.errors import ConfigError
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats import Sampler, energy_mj

LONG_S = 60.0
"""A period that never passes in a test: only the first and the last snapshot are taken."""


class CountingBoard(Board):
    """Says when it has been read a number of times."""

    def __init__(self, root, enough):
        super().__init__(root)
        self.reads = 0
        self.enough = enough
        self.done = threading.Event()

    def snapshot(self):
        self.reads += 1
        if self.reads >= self.enough:
            self.done.set()
        return super().snapshot()


def test_it_samples_in_the_background_until_it_is_left(tmp_path):
    board = CountingBoard(write_board(tmp_path), enough=5)
    with Sampler(board, period_s=0.001) as sampler:
        assert board.done.wait(60)
    assert len(sampler.snapshots) == board.reads >= 6
    times = [snapshot.at_s for snapshot in sampler.snapshots]
    assert times == sorted(times)


def test_there_is_always_a_state_before_and_one_after(tmp_path):
    with Sampler(Board(write_board(tmp_path)), LONG_S) as sampler:
        assert len(sampler.snapshots) == 1
    assert len(sampler.snapshots) == 2
    elapsed_s = sampler.snapshots[1].at_s - sampler.snapshots[0].at_s
    assert sampler.energy_mj() == pytest.approx(5000.0 * elapsed_s)


def test_an_error_inside_still_ends_it(tmp_path):
    sampler = Sampler(Board(tmp_path), LONG_S)
    with pytest.raises(RuntimeError, match="inside"), sampler:
        raise RuntimeError("inside")
    assert not sampler._thread.is_alive()


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan")])
def test_a_period_must_be_positive(tmp_path, period_s):
    with pytest.raises(ConfigError, match="must be positive"):
        Sampler(Board(tmp_path), period_s)


def test_energy_is_the_trapezoid_over_the_modules_rail():
    states = [Snapshot(t, power_mw={"VDD_IN": p}) for t, p in ((0.0, 4000.0), (1.0, 6000.0), (3.0, 6000.0))]
    assert energy_mj(states) == 5000.0 + 12000.0
    assert energy_mj([states[0], Snapshot(0.5), states[1]]) == 5000.0  # one reading failed
    assert energy_mj(states[:1]) is None
    assert energy_mj([Snapshot(0.0, power_mw={"VDD_SOC": 1.0}), Snapshot(1.0)]) is None
    assert energy_mj([]) is None


@pytest.fixture
def poor(tmp_path):
    """A board without readable rails and memory clock."""
    root = write_board(tmp_path / "root")
    shutil.rmtree(root / "sys/bus")
    (root / EMC).unlink()
    return root


def wait_for_line(sampler):
    """Until the stand-in's line has been read: it ends behind it, and so does the reader."""
    sampler._tegrastats._thread.join(60)


def test_tegrastats_fills_what_the_files_lack(poor, tmp_path):
    program = script(tmp_path, f"echo '{ROOT}'")
    with Sampler(Board(poor), LONG_S, str(program)) as sampler:
        wait_for_line(sampler)
    before, after = sampler.snapshots
    assert (before.emc_mhz, before.power_mw) == (None, {})
    assert (after.emc_mhz, after.power_mw["VDD_IN"]) == (2133.0, 12517.0)
    assert after.gpu_mhz == 918.0  # the kernel's own figure stays


def test_tegrastats_that_knows_no_more_is_let_go(poor, tmp_path):
    program = script(tmp_path, "echo 'RAM 1/2MB GR3D_FREQ 99%'")
    with Sampler(Board(poor), LONG_S, str(program)) as sampler:
        wait_for_line(sampler)
    assert sampler._tegrastats is None
    assert sampler.snapshots[-1].emc_mhz is None


@pytest.mark.parametrize("body", ["exit 1", "printf '\\377\\376junk'", "trap '' TERM; exit 0"])
def test_tegrastats_may_die(poor, tmp_path, body):
    program = script(tmp_path, body)
    with Sampler(Board(poor), LONG_S, str(program)) as sampler:
        wait_for_line(sampler)
    assert sampler.snapshots[-1].power_mw == {}


def test_tegrastats_that_runs_on_is_stopped(poor, tmp_path):
    program = script(tmp_path, f"echo '{USER}'; exec cat /dev/zero >/dev/null")
    with Sampler(Board(poor), LONG_S, str(program)) as sampler:
        process = sampler._tegrastats._process
        assert process.poll() is None
    assert process.returncode is not None


@pytest.mark.parametrize("lacking", [False, True])
def test_it_is_not_started_without_need(tmp_path, lacking):
    root = tmp_path / "pc" if lacking else write_board(tmp_path / "root")
    with Sampler(Board(root), LONG_S, str(script(tmp_path, "exit 0"))) as sampler:
        assert sampler._tegrastats is None
