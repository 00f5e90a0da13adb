import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.jetson.tegrastats_log import Spread, TegrastatsLog, Trace


def line(clock="", power=4000, load=50, extra=""):
    """A line of an Orin Nano with one rail; ``clock`` is the time of day."""
    stamp = f"05-13-2026 {clock} " if clock else ""
    return (
        f"{stamp}RAM 1697/7620MB (lfb 42x4MB) CPU [4%@729,off] GR3D_FREQ {load}% tj@41.5C{extra} VDD_IN {power}mW/1mW\n"
    )


def log_of(*lines):
    log = TegrastatsLog()
    assert all(map(log.add, lines))
    return log


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_a_spread_is_that_of_all_numbers(values):
    spread = Spread()
    for value in values:
        spread.add(float(value))
    assert (spread.least, spread.greatest, spread.number) == (min(values), max(values), len(values))
    assert (spread.first, spread.last) == (values[0], values[-1])
    assert spread.median == statistics.median(values)
    assert spread.mean == pytest.approx(statistics.mean(values))


def test_the_median_of_more_values_than_are_kept_is_within_half_a_per_cent():
    spread = Spread()
    values = [1000 + 24000 * index / 30_000 for index in range(30_000)]
    for value in values:
        spread.add(value)
    assert len(spread._counts) <= 10_000
    assert spread.median == pytest.approx(statistics.median(values), rel=0.005)
    assert (spread.least, spread.greatest) == (1000.0, max(values))


def test_duration_and_energy_follow_the_boards_clock():
    log = log_of(line("14:22:48", 4000), line("14:22:49", 6000), line("14:22:51", 2000))
    assert (log.seconds(None), log.energy_j(None)) == (3.0, {"VDD_IN": 5.0 + 8.0})
    assert log.energy_j(None) == {"VDD_IN": 13.0}
    assert log.seconds(100.0) == 3.0


def test_lines_of_one_second_count_as_one():
    log = log_of(line("01:31:10", 4000), line("01:31:10", 6000), line("01:31:11", 5000), line("01:31:11", 7000))
    assert (log.seconds(None), log.energy_j(None)) == (1.0, {"VDD_IN": 5.5})
    assert log.power_mw["VDD_IN"].number == 4
    (first, second) = log.trace.points
    assert (first.x, second.x) == (0.0, 1.0)
    assert first.series["power VDD_IN"] == (2, 10000.0, 4000.0, 6000.0)


@pytest.mark.parametrize("clock", ["14:00:00", "18:00:00"], ids=["back", "a hole of hours"])
def test_a_step_of_the_clock_is_counted_and_is_no_time(clock):
    log = log_of(line("14:22:48"), line("14:22:49"), line(clock), line(clock[:-1] + "2"))
    assert (log.clock_steps, log.seconds(None), log.energy_j(None)) == (1, 3.0, {"VDD_IN": 12.0})


def test_without_a_clock_the_interval_tells_the_time():
    log = log_of(line(power=4000), line(power=6000), line(power=2000))
    assert (log.seconds(None), log.energy_j(None)) == (None, {})
    assert log.seconds(500.0) == 1.0
    assert log.energy_j(500.0)["VDD_IN"] == pytest.approx(4.5)
    short = log_of(line("14:22:48"), line("14:22:48"))
    assert (short.seconds(None), short.seconds(100.0)) == (None, 0.1)


@pytest.mark.parametrize(
    "text", ["", "\n", "SUMMARY device=cuda\n", line()[:-4], line()[:60], "\x00\xff RAM 1/2MB", "RAM " * 5000]
)
def test_what_is_no_whole_line_is_left_out(text):
    log = TegrastatsLog()
    assert not log.add(text)
    assert (log.lines, log.spreads, log.power_mw) == (0, {}, {})


def test_a_file_of_made_up_names_does_not_grow():
    log = log_of(*(line(extra=f" a{index}@1C b{index}@2C") for index in range(200)))
    assert len(log.temperatures_c) == 64
    assert len(log.trace.points[0].series) <= 67


def test_a_trace_halves_itself_and_loses_no_extreme():
    trace = Trace()
    for index in range(10_000):
        trace.add(float(index), {"mhz": 9999.0 if index == 7777 else float(index % 7)})
    assert len(trace.points) <= 2000
    figures = [point.series["mhz"] for point in trace.points]
    assert sum(number for number, *_ in figures) == 10_000
    assert max(greatest for *_, greatest in figures) == 9999.0
    assert sum(point.times for point in trace.points) == 10_000
    xs = [point.x for point in trace.points]
    assert xs == sorted(xs)
