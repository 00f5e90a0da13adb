from __future__ import annotations

import numpy as np
import pytest
from graph_builders import model, node, value
from onnx import TensorProto as T

from fine_edge import console
from fine_edge.fp16.budget import Deviation
from fine_edge.graph.view import GraphView
from fine_edge.int8.compiled import GraphCost
from fine_edge.int8.placement import depthwise
from fine_edge.int8.trials import Budget, Trial, verdict_on


def trial(title, kernels, estimate_ms, box_p90_px=0.2):
    same = Deviation(10, 0, 0.0, (0.1, box_p90_px, 30.0), (0.0, 0.0, 0.0))
    return Trial(title, (), 0, same, GraphCost(kernels, 0, 1.0, 1.0, estimate_ms, kernels, estimate_ms))


@pytest.mark.parametrize(
    ("kernels", "ms", "depthwise_ones", "verdict", "words"),
    [
        (110, 8.0, 17, "int8", "1.10 times the kernels of FP16 (110 against 100), of at most 1.2"),
        (130, 8.0, 0, "fp16", "1.30 times the kernels of FP16 (130 against 100), more than 1.2"),
        (110, 11.0, 17, "fp16", "17 depthwise convolutions stay FP16 here"),
    ],
)
def test_reasons_say_how_many_kernels_and_what_an_estimate_cannot_tell(kernels, ms, depthwise_ones, verdict, words):
    half, chosen = trial("FP16", 100, 10.0), trial("backbone", kernels, ms)
    found, reasons = verdict_on(chosen, half, None, Budget(), [chosen], depthwise_ones)
    assert found == verdict
    assert any(reason.startswith(words) for reason in reasons)
    assert any("depthwise" in reason for reason in reasons) == (ms > 10)


@pytest.mark.parametrize(
    ("other", "budget", "words"),
    [
        (trial("all", 110, 7.0, 9.0), Budget(), "all would be estimated 7.00 ms, but 0.0% of the detections flip"),
        (trial("all", 140, 7.0), Budget(), "all would be estimated 7.00 ms, with 1.40 times the kernels"),
        (trial("all", 110, 7.0, 9.0), Budget(ap_drop=1.0), ""),
        (trial("all", 140, 9.0), Budget(), ""),
    ],
)
def test_what_excludes_a_faster_placement_is_said(other, budget, words):
    half, chosen = trial("FP16", 100, 10.0), trial("neck", 105, 8.0)
    _, reasons = verdict_on(chosen, half, None, budget, [chosen, other])
    said = [reason for reason in reasons if reason.startswith("all")]
    assert [reason[: len(words)] for reason in said] == ([words] if words else [])


def test_lines_are_broken_between_words_and_what_follows_stands_further_in(monkeypatch, capsys):
    monkeypatch.setattr(console.out, "width", 40)
    console.print_lines("verdict: int8\n  " + "reason " * 10)
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert (first, second) == ("verdict: int8", "  reason reason reason reason reason")
    assert third == "    reason reason reason reason reason"


def test_depthwise_convolutions_have_a_filter_for_each_channel():
    nodes = [
        node("Conv", ["x", "each"], ["a"], group=4),
        node("Conv", ["a", "pairs"], ["b"], group=2),
        node("Conv", ["b", "all"], ["y"]),
    ]
    shapes = {"each": (4, 1, 1, 1), "pairs": (4, 2, 1, 1), "all": (4, 4, 1, 1)}
    constants = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    graph = model(nodes, [value("x", T.FLOAT, (1, 4, 2, 2))], [value("y", T.FLOAT, (1, 4, 2, 2))], constants)
    assert depthwise(GraphView(graph)) == 1
