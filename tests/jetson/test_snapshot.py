import json

import pytest
from board_tree import write_board

from fine_edge.fields import from_data, to_data
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot


def test_a_snapshot_comes_back_from_json_as_it_was(tmp_path):
    for state in (Board(write_board(tmp_path)).snapshot(), Snapshot(1.5)):
        assert from_data(Snapshot, json.loads(json.dumps(to_data(state)))) == state


@pytest.mark.parametrize(
    "edit",
    [
        {"at_s": None},
        {"at_s": "1"},
        {"gpu_mhz": "fast"},
        {"gpu_mhz": float("nan")},
        {"temperatures_c": [1]},
        {"power_mw": {"VDD_IN": None}},
        {"throttle": 3},
        {"mode_id": "x"},
        {"oc_events": {"oc1": "x"}},
    ],
)
def test_a_broken_one_is_refused(edit):
    with pytest.raises(ValueError, match=next(iter(edit))):
        from_data(Snapshot, {**to_data(Snapshot(0.0)), **edit})


def test_a_field_may_not_be_missing():
    for name in set(to_data(Snapshot(0.0))) - {"emc_max_mhz"}:  # older records lack it
        data = to_data(Snapshot(0.0))
        del data[name]
        with pytest.raises(ValueError, match=name):
            from_data(Snapshot, data, complete=True)
