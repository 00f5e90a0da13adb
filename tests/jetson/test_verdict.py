import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.fields import from_data, to_data
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict, judge

STEADY = [10.0, 10.1, 9.9, 10.0, 10.05]
WILD = [10.0, 14.0, 7.0, 12.0, 8.0, 15.0]


def state(gpu=918.0, low=918.0, high=918.0, load=99.0, **more):
    return Snapshot(0.0, gpu_mhz=gpu, gpu_min_mhz=low, gpu_max_mhz=high, gpu_load_percent=load, **more)


def test_locked_cool_and_steady_is_valid():
    assert judge([state(), state(gpu=914.0)], STEADY) == Verdict("VALID", ())


@pytest.mark.parametrize("snapshots", [[], [Snapshot(0.0)]])
def test_without_clocks_nothing_is_claimed(snapshots):
    assert judge(snapshots, STEADY) == Verdict("UNKNOWN", ("the GPU's clocks cannot be read on this machine",))
    assert judge(snapshots, WILD).stamp == "UNKNOWN"
    assert len(judge(snapshots, WILD).reasons) == 2


def test_scattered_latencies_are_unstable():
    verdict = judge([state()], WILD)
    assert verdict.stamp == "UNSTABLE"
    assert "scatter by" in verdict.reasons[0]
    assert judge([state()], []).stamp == "VALID"


def test_a_free_clock():
    verdict = judge([state(low=306.0), state(low=306.0)], STEADY)
    assert verdict.stamp == "CLOCKS-UNLOCKED"
    assert verdict.reasons == ("the GPU's clock is free between 306 and 918 MHz: sudo jetson_clocks",)


@pytest.mark.parametrize(
    "reason", ["cooling device gpu-throttle-alert is active", "over-current alarm (critical) on VDD_IN"]
)
def test_what_the_kernel_throttles(reason):
    assert judge([state(), state(throttle=(reason,)), state()], STEADY) == Verdict("THROTTLED", (reason,))


def test_only_events_during_the_run_count():
    assert judge([state(oc_events={"oc3": 12}), state(oc_events={"oc3": 12})], STEADY).stamp == "VALID"
    verdict = judge([state(oc_events={"oc3": 12}), state(oc_events={"oc3": 19})], STEADY)
    assert verdict == Verdict("THROTTLED", ("7 instantaneous over-current events throttled the clocks during the run",))


def run_with(counter, number, seconds):
    return judge(
        [state(oc_events={counter: 5210}), replace(state(oc_events={counter: 5210 + number}), at_s=seconds)], STEADY
    )


@pytest.mark.parametrize(
    ("number", "seconds", "note"),
    [
        (64, 60.0, "64 over-current events (oc3, 1.1/s) cost about 0.05% of the time (estimate)"),
        (54, 30.0, "54 over-current events (oc3, 1.8/s) cost about 0.09% of the time (estimate)"),
        (600, 60.0, "600 over-current events (oc3, 10.0/s) cost about 0.50% of the time (estimate)"),
    ],
)
def test_over_current_that_costs_next_to_nothing_is_a_note(number, seconds, note):
    assert run_with("oc3", number, seconds) == Verdict("VALID", (), (note,))


def test_over_current_that_costs_something_throttles():
    words = "900 over-current events (oc3, 30.0/s) cost about 1.50% of the time (estimate), more than 0.5%"
    assert run_with("oc3", 900, 30.0) == Verdict("THROTTLED", (words,))


@pytest.mark.parametrize(
    ("counter", "name"), [("oc1", "under-voltage"), ("oc2", "average over-current"), ("oc4", "oc4")]
)
def test_one_event_of_another_counter_throttles(counter, name):
    words = f"1 {name} events throttled the clocks during the run"
    assert run_with(counter, 1, 3600.0) == Verdict("THROTTLED", (words,))


def test_a_note_stays_beside_what_is_wrong():
    unlocked = judge(
        [state(low=306.0, oc_events={"oc3": 1}), state(low=306.0, oc_events={}), replace(state(), at_s=9.0)], []
    )
    assert (unlocked.stamp, unlocked.notes) == ("CLOCKS-UNLOCKED", ())
    last = replace(state(low=306.0, oc_events={"oc3": 11}), at_s=10.0)
    noted = judge([state(low=306.0, oc_events={"oc3": 1}), last], [])
    assert (noted.stamp, len(noted.notes)) == ("CLOCKS-UNLOCKED", 1)


def test_a_verdict_of_an_older_record_has_no_notes():
    data = {"stamp": "VALID", "reasons": []}
    assert from_data(Verdict, data, complete=True) == Verdict("VALID", ())


def test_a_locked_clock_that_drops_under_load():
    verdict = judge([state(), state(gpu=714.0)], STEADY)
    assert verdict == Verdict("THROTTLED", ("the busy GPU ran at 714 MHz, its clock is 918 MHz",))
    assert judge([state(), state(gpu=714.0, load=20.0)], STEADY).stamp == "VALID"


def test_heat_that_lowers_the_limit_is_seen_against_the_highest_limit():
    verdict = judge([state(), state(gpu=714.0, low=714.0, high=714.0)], STEADY)
    assert verdict.stamp == "THROTTLED"
    assert "714 MHz, its clock is 918 MHz" in verdict.reasons[0]


def test_a_free_clock_may_climb_but_must_arrive():
    climbing = [state(gpu=306.0, low=306.0), state(low=306.0), state(low=306.0)]
    assert judge(climbing, STEADY).stamp == "CLOCKS-UNLOCKED"
    assert judge([state(gpu=306.0, low=306.0)] * 2 + climbing[1:2], STEADY).stamp == "THROTTLED"


def test_a_mode_that_the_clocks_deny():
    capped = state(gpu=624.0, low=624.0, high=624.0, mode_gpu_mhz=1020.0, contradiction="capped")
    assert judge([capped], STEADY) == Verdict("THROTTLED", ("capped",))
    faster = state(mode_gpu_mhz=612.0, contradiction="faster than the mode")
    assert judge([faster], STEADY) == Verdict("CLOCKS-UNLOCKED", ("faster than the mode",))


def test_the_worst_names_the_stamp_and_all_reasons_stay():
    verdict = judge([state(low=306.0, throttle=("hot",))], WILD)
    assert verdict.stamp == "THROTTLED"
    assert [reason.split()[0] for reason in verdict.reasons] == ["hot", "the", "latencies"]


@given(st.sampled_from(["VALID", "THROTTLED", "CLOCKS-UNLOCKED", "UNSTABLE", "UNKNOWN"]), st.lists(st.text()))
def test_json_there_and_back(stamp, reasons):
    verdict = Verdict(stamp, tuple(reasons), tuple(reasons[:1]))
    assert from_data(Verdict, json.loads(json.dumps(to_data(verdict)))) == verdict


@pytest.mark.parametrize(
    "data", [{}, {"stamp": "FINE", "reasons": []}, {"stamp": "VALID"}, {"stamp": [], "reasons": []}]
)
def test_a_broken_one_is_refused(data):
    with pytest.raises(ValueError, match=r"stamp|reasons"):
        from_data(Verdict, data)
