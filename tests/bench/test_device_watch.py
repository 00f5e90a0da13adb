"""What is said of the board by row: verdict, snapshots, energy. Boards and clocks are made up."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jetson.board_tree import OC, write, write_clocks, write_jetpack_7, write_super, write_without_super

from fine_edge.bench import device
from fine_edge.bench.device import BoardWatch, energy_mj_per_image
from fine_edge.bench.measure import Slice
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot

LOCKED = Snapshot(0.0, gpu_mhz=1020, gpu_min_mhz=1020, gpu_max_mhz=1020, power_mw={"VDD_IN": 12000.0})


class Clock:
    """Ten milliseconds at every look."""

    def __init__(self):
        self.ticks = itertools.count()

    def monotonic(self):
        return next(self.ticks) / 100


class FakeBoard:
    is_jetson = False

    def __init__(self, clock):
        self.clock = clock
        self.state = LOCKED

    def snapshot(self):
        return replace(self.state, at_s=self.clock.monotonic())


class FakeSampler:
    """Two snapshots of the present state each time the test says so, instead of a thread."""

    current = None

    def __init__(self, board, period_s):
        assert period_s == device.SLICE_PERIOD_S
        self.board = board
        self.snapshots = []
        FakeSampler.current = self

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def look(self):
        self.snapshots += [self.board.snapshot(), self.board.snapshot()]


@pytest.fixture
def board(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(device, "Sampler", FakeSampler)
    monkeypatch.setattr(device, "ROUND_PERIOD_S", 0.03)
    return FakeBoard(clock)


def run_slices(watched, board, states):
    with watched.throughput():
        for index, state in enumerate(states):
            with watched.slice_of(index):
                board.state = state
                FakeSampler.current.look()
    board.state = LOCKED
    watched.finish()


STEADY = [10.0] * 20


def test_a_row_has_its_own_slices_and_shares_the_rest(board):
    watched = BoardWatch(board, 2)
    for _ in range(6):
        watched.round_done()
    run_slices(watched, board, [LOCKED, replace(LOCKED, power_mw={"VDD_IN": 14000.0})])
    first, second = (watched.state(index, STEADY, [Slice(100, 2.0)]) for index in range(2))
    assert (first.verdict.stamp, second.verdict.stamp) == ("VALID", "VALID")
    assert first.energy_mj_per_image == pytest.approx(12000 * 2.0 / 100)
    assert second.energy_mj_per_image == pytest.approx(14000 * 2.0 / 100)
    shared = {s.at_s for s in first.snapshots} & {s.at_s for s in second.snapshots}
    assert len(shared) == len(first.snapshots) - 2 == len(second.snapshots) - 2
    times = [snapshot.at_s for snapshot in first.snapshots]
    assert times == sorted(times)


def test_rounds_are_not_all_looked_at(board):
    watched = BoardWatch(board, 1)
    for _ in range(30):
        watched.round_done()
    run_slices(watched, board, [LOCKED])
    shared = len(watched.state(0, STEADY, [Slice(1, 1.0)]).snapshots) - 4
    assert 5 < shared < 25


def test_throttling_in_one_rows_slice_is_that_rows(board):
    watched = BoardWatch(board, 2)
    hot = replace(LOCKED, throttle=("thermal: gpu-throttle-alert holds the clocks back",))
    run_slices(watched, board, [LOCKED, hot])
    stamps = [watched.state(index, STEADY, [Slice(1, 1.0)]).verdict.stamp for index in range(2)]
    assert stamps == ["VALID", "THROTTLED"]


def test_throttling_between_rounds_is_everybodys(board):
    watched = BoardWatch(board, 2)
    board.state = replace(LOCKED, throttle=("thermal: gpu-throttle-alert holds the clocks back",))
    for _ in range(6):
        watched.round_done()
    run_slices(watched, board, [LOCKED, LOCKED])
    assert {watched.state(index, STEADY, [Slice(1, 1.0)]).verdict.stamp for index in range(2)} == {"THROTTLED"}


def test_over_current_events_of_maxn_super_are_a_note_on_every_row(board):
    before, after = (replace(LOCKED, oc_events={"oc1": 0, "oc2": 0, "oc3": count}) for count in (5210, 5221))
    board.state = before
    watched = BoardWatch(board, 2)
    for _ in range(600):
        watched.round_done()
    run_slices(watched, board, [after, after])
    verdicts = [watched.state(index, STEADY, [Slice(1, 1.0)]).verdict for index in range(2)]
    assert [verdict.stamp for verdict in verdicts] == ["VALID", "VALID"]
    assert all("11 over-current events (oc3, 1." in verdict.notes[0] for verdict in verdicts)


@pytest.mark.usefixtures("board")  # for its clock
@pytest.mark.parametrize(
    ("make", "mhz", "mode", "notes"),
    [
        (write_super, 918, "25W", 0),
        (write_without_super, 624.75, "15W", 0),
        (lambda root: write_without_super(root, 1), 408, "7W", 0),
        (write_jetpack_7, 1020, "MAXN_SUPER", 1),
    ],
    ids=["super", "without-super-15W", "without-super-7W", "jetpack-7"],
)
def test_real_boards_with_locked_clocks_give_valid_rows(tmp_path, make, mhz, mode, notes):
    real = Board(make(tmp_path))
    write_clocks(tmp_path, mhz, mhz, mhz)
    watched = BoardWatch(real, 1)
    for _ in range(100):
        watched.round_done()
    write(tmp_path, f"{OC}/oc3_event_cnt", real.snapshot().oc_events["oc3"] + notes)
    run_slices(watched, real, [LOCKED])
    found = watched.state(0, STEADY, [Slice(1, 1.0)])
    assert (found.verdict.stamp, found.verdict.reasons, len(found.verdict.notes)) == ("VALID", (), notes)
    assert {snapshot.mode for snapshot in found.snapshots} == {mode}
    write(tmp_path, f"{OC}/oc1_event_cnt", 1)
    watched.finish()
    assert watched.state(0, STEADY, [Slice(1, 1.0)]).verdict.stamp == "THROTTLED"


def test_scattered_samples_are_the_rows_own(board):
    watched = BoardWatch(board, 2)
    run_slices(watched, board, [LOCKED, LOCKED])
    assert watched.state(0, STEADY, [Slice(1, 1.0)]).verdict.stamp == "VALID"
    assert watched.state(1, [10.0, 14.0] * 10, [Slice(1, 1.0)]).verdict.stamp == "UNSTABLE"


@given(
    st.floats(1000, 25000),
    st.lists(st.tuples(st.integers(1, 500), st.floats(0.1, 5)), min_size=1, max_size=4),
    st.integers(2, 6),
)
def test_constant_power_gives_power_times_time_over_images(power_mw, taken, count):
    slices = [Slice(queries, wall_s) for queries, wall_s in taken]
    snapshots = [
        [Snapshot(wall_s * number / count, power_mw={"VDD_IN": power_mw}) for number in range(count)]
        for _, wall_s in taken
    ]
    expected = power_mw * sum(part.wall_s for part in slices) / sum(part.queries for part in slices)
    assert energy_mj_per_image(snapshots, slices) == pytest.approx(expected)


def test_without_power_there_is_no_energy():
    assert energy_mj_per_image([[]], [Slice(1, 1.0)]) is None
    assert energy_mj_per_image([[Snapshot(0.0), Snapshot(1.0)]], [Slice(1, 1.0)]) is None
    one = Snapshot(0.5, power_mw={"VDD_IN": 9000.0})
    assert energy_mj_per_image([[one]], [Slice(1, 1.0)]) is None
    # A slice without power says nothing of the others.
    two = [[one, replace(one, at_s=1.0)], []]
    assert energy_mj_per_image(two, [Slice(3, 1.0), Slice(5, 1.0)]) == pytest.approx(3000)
