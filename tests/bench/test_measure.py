import contextlib
import gc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.bench import measure
from fine_edge.bench.measure import Subject
from fine_edge.runners.base import Timing, WallTimed


class Spy(WallTimed):
    """Writes down who ran on what."""

    name = "spy"

    def __init__(self, label, journal):
        self.label = label
        self.journal = journal

    def run(self, inputs):
        self.journal.append((self.label, int(inputs["image"]), gc.isenabled()))
        return {}

    def close(self):
        pass


def spies(count, images=3):
    journal = []
    feeds = tuple({"image": np.int64(i)} for i in range(images))
    return [Subject(f"m{i}", Spy(i, journal), feeds) for i in range(count)], journal


@given(st.integers(1, 9))
def test_each_subject_follows_each_other_one_equally_often(count):
    orders = measure.balanced_orders(count)
    assert all(sorted(order) == list(range(count)) for order in orders)
    follows = Counter(pair for order in orders for pair in pairwise(order))
    expected = 2 if count % 2 else 1
    assert follows == {(a, b): expected for a in range(count) for b in range(count) if a != b}


@given(st.integers(1, 7), st.integers(1, 40), st.integers(0, 5))
def test_every_round_runs_every_subject_once(count, rounds, seed):
    orders = measure.schedule(count, rounds, seed)
    assert len(orders) == rounds
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert orders == measure.schedule(count, rounds, seed)


def test_latency_is_sampled_round_by_round_on_one_image_a_round_without_garbage_collection():
    subjects, journal = spies(4)
    ticks = []
    samples = measure.measure_latency(subjects, 5, lambda: ticks.append(len(journal)))
    assert [len(row) for row in samples] == [5] * 4
    assert all(sample.latency_ms > 0 and sample.compute_ms is None for row in samples for sample in row)
    for round_ in range(5):
        entries = journal[8 * round_ : 8 * round_ + 8]
        # Each runs twice in a row, and only the second run is timed.
        assert entries[::2] == entries[1::2]
        assert sorted(label for label, _, _ in entries[::2]) == [0, 1, 2, 3]
        assert {image for _, image, _ in entries} == {round_ % 3}
    assert not any(collecting for _, _, collecting in journal)
    assert ticks == [8, 16, 24, 32, 40]
    assert gc.isenabled()


def test_only_the_second_run_in_a_row_is_in_the_sample(monkeypatch):
    subjects, journal = spies(2)
    now_ns = [0]
    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: now_ns[0])

    def first_run_is_slow(spy, inputs):
        previous = journal[-1] if journal else None
        journal.append((spy.label, int(inputs["image"])))
        now_ns[0] += 3_000_000 if previous == journal[-1] else 50_000_000

    monkeypatch.setattr(Spy, "run", first_run_is_slow)
    assert measure.measure_latency(subjects, 4) == [[Timing(3.0)] * 4] * 2


class Clocked(Spy):
    """A device that says how long it took: ``label`` + 1 milliseconds."""

    def timed(self, inputs):
        self.run(inputs)
        return Timing(self.label + 1.0, self.label + 0.5)


def clocked(count):
    subjects, journal = spies(count)
    return [Subject(s.name, Clocked(i, journal), s.feeds) for i, s in enumerate(subjects)], journal


def test_a_backend_that_times_itself_is_believed():
    subjects, _ = clocked(2)
    assert measure.measure_latency(subjects, 3) == [[Timing(1.0, 0.5)] * 3, [Timing(2.0, 1.5)] * 3]


@pytest.mark.parametrize(("rounds", "latency_ms"), [(1, 0), (1, 1), (5, 9), (9, 5)])
def test_latency_goes_on_until_each_subject_was_sampled_long_enough(rounds, latency_ms):
    subjects, _ = clocked(3)
    samples = measure.measure_latency(subjects, rounds, latency_s=latency_ms / 1e3)
    # The fastest takes 1 ms.
    assert [len(row) for row in samples] == [max(rounds, latency_ms)] * 3


def test_calls_are_timed_in_interleaved_rounds(monkeypatch):
    now_ns = [0]
    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: now_ns[0])
    journal, ticks = [], []

    def call(index):
        def run(turn):
            journal.append((index, turn))
            now_ns[0] += (index + 1) * 1_000_000

        return run

    samples = measure.measure_calls([call(0), call(1)], 4, lambda: ticks.append(1))
    assert samples == [[1.0] * 4, [2.0] * 4]
    assert sorted(journal) == [(index, turn) for index in range(2) for turn in range(4)]
    assert [turn for _, turn in journal] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(ticks) == 4


def test_nothing_to_measure_is_nothing_measured():
    assert measure.schedule(0, 3) == []
    assert measure.measure_calls([], 3) == []


def test_something_can_be_entered_around_each_slice():
    subjects, journal = spies(2)
    entered = []

    @contextlib.contextmanager
    def around(index):
        before = len(journal)
        yield
        entered.append((index, {label for label, _, _ in journal[before:]}))

    measure.measure_throughput(subjects, slices=2, slice_ms=0, around=around)
    assert sorted(entered) == [(0, {0}), (0, {0}), (1, {1}), (1, {1})]


def test_garbage_collection_comes_back_after_a_failure():
    subjects, _ = spies(1)
    subjects[0].runner.run = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        measure.measure_latency(subjects, 2)
    assert gc.isenabled()


def test_throughput_counts_queries_over_wall_time_in_interleaved_slices():
    subjects, journal = spies(2)
    taken = measure.measure_throughput(subjects, slices=3, slice_ms=2)
    assert [len(row) for row in taken] == [3, 3]
    assert all(part.wall_s >= 0.002 and part.queries >= measure.SLICE_QUERIES for row in taken for part in row)
    for index, row in enumerate(taken):
        assert sum(part.queries for part in row) == sum(label == index for label, _, _ in journal)
    runs = [label for label, _, _ in journal]
    assert sum(a != b for a, b in pairwise(runs)) >= 3


def test_a_slow_subject_still_answers_two_queries_a_slice():
    subjects, _ = spies(1)
    ((part,),) = measure.measure_throughput(subjects, slices=1, slice_ms=0)
    assert part.queries == 2


def test_warm_up_lasts_long_enough_and_runs_often_enough(monkeypatch):
    subjects, journal = spies(1)
    now_ns = [0]
    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: now_ns[0])
    original = subjects[0].runner.run
    monkeypatch.setattr(
        subjects[0].runner, "run", lambda feed: (now_ns.__setitem__(0, now_ns[0] + 30_000_000), original(feed))
    )
    measure.warm_up(subjects[0])
    assert len(journal) == 7  # 7 x 30 ms passes 200 ms
    journal.clear()
    monkeypatch.setattr(
        subjects[0].runner, "run", lambda feed: (now_ns.__setitem__(0, now_ns[0] + 10**9), original(feed))
    )
    measure.warm_up(subjects[0])
    assert len(journal) == measure.WARMUP_RUNS


def test_the_harness_costs_far_less_than_a_millisecond_around_a_runner_that_does_nothing():
    class Nothing(WallTimed):
        name = "null"

        def run(self, inputs):
            return inputs

        def close(self):
            pass

    cost = measure.harness_cost(Subject("null", Nothing(), ({},)))
    assert 0 < cost.latency_ms <= cost.worst_ms
    assert cost.worst_ms == max(cost.latency_ms, cost.query_ms)
