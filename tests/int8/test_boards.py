from __future__ import annotations

from dataclasses import replace

import pytest
from convolutional import graph

from fine_edge.errors import ConfigError
from fine_edge.estimate.published import published_rows
from fine_edge.int8 import boards
from fine_edge.int8.boards import estimate_pairs, measured_pairs, pairs_table
from fine_edge.int8.compiled import GraphCost


def test_pairs_are_alike_in_everything_but_the_precision():
    pairs = {(pair.network, pair.device, pair.cuda_graph): pair for pair in measured_pairs()}
    assert len(pairs) == 13
    nano = pairs["yolov8n", "orin-nano-8gb", False]
    assert (nano.fp16_ms, nano.int8_ms, nano.mode, nano.mode_known) == (4.43, 3.49, "MAXN_SUPER", True)
    assert nano.ratio == pytest.approx(0.788, abs=1e-3)
    with_graph, without = (pairs["mobilenet_v2", "orin-nano-8gb", graph] for graph in (True, False))
    assert [(pair.fp16_ms, pair.int8_ms) for pair in (with_graph, without)] == [(0.7441, 0.5841), (0.9378, 0.7588)]
    assert all(pair.ratio < 1 for pair in pairs.values())  # no one has published a network that INT8 slows down
    assert with_graph.conditions().cuda_graph


def test_an_engine_that_tensorrt_quantises_itself_is_estimated_by_constants_of_all_other_models():
    """The ratio of two left-out errors of the committed calibration: the sign is the board's in every pair."""
    pairs = measured_pairs()
    without_graph = next(pair for pair in pairs if pair.network == "mobilenet_v2" and not pair.cuda_graph)
    assert without_graph.left_out_ratio() == pytest.approx(0.8091 * 1.0732 / 1.0771, rel=1e-3)
    assert all(pair.left_out_ratio() < 1 for pair in pairs)


def test_a_row_without_its_other_precision_is_no_pair():
    rows = [row for row in published_rows() if row.graph == "yolov8n, FP16" and row.device == "orin-nano-8gb"]
    assert len(measured_pairs(rows)) == 1
    for other in ([replace(row, mode="15W") if row.precision == "int8" else row for row in rows], []):
        with pytest.raises(ConfigError, match="no network was timed"):
            measured_pairs(other)


def test_the_sign_of_an_estimate_is_held_against_the_board(monkeypatch):
    measured = next(pair for pair in measured_pairs() if pair.network == "yolov8n")
    slower = replace(measured, int8_ms=5.5)

    def costs(model, conditions, _name):
        int8 = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        cost = GraphCost(13, 0, 1.0, 1.0, 4.4, 10, 3.3) if int8 else GraphCost(10, 0, 1.0, 1.0, 4.0, 10, 4.0)
        return [cost for _ in conditions]

    monkeypatch.setattr(boards, "costs", costs)
    right, wrong = estimate_pairs(graph(), [measured, slower])
    assert (right.convolutions, right.kernels_fp16, right.kernels_int8, right.fused_kernels) == (3, 10, 13, 10)
    assert right.ratio == pytest.approx(0.825)
    assert (right.agrees, right.agrees_with_pairs, right.agrees_as_compiled) == (True, True, False)
    assert (wrong.agrees, wrong.agrees_with_pairs, wrong.agrees_as_compiled) == (True, False, True)
    found = right.to_json()
    assert (found["network"], found["int8_ms"], found["estimate_int8_ms"]) == ("yolov8n", 3.49, 3.3)
    assert found["agrees"]
    assert "rows" not in found
    table = pairs_table([right, wrong])
    assert table.notes[0].startswith("Of 2 pairs the estimate has the sign of 2 where")
    assert "with Q/DQ of 1, of 1 by" in table.notes[0]
    assert table.notes[0].endswith("in 1.")
