from __future__ import annotations

import numpy as np
import pytest
from graph_builders import node
from hypothesis import given
from hypothesis import strategies as st
from planted import GROW, SHRINK, pictures, write_planted

from fine_edge.detections import Detections
from fine_edge.fp16.budget import budget, deviation, selections
from fine_edge.fp16.network import read_network
from fine_edge.graph.view import GraphView
from fine_edge.parity.report import TOLERANCES

FP16 = TOLERANCES["fp16"]


def rows_of(path, images, kept=(), proposed=()):
    network = read_network(path)
    view = GraphView(network.model)
    steps = []
    wanted = selections(view, kept, proposed)
    rows = budget(network, view, images, wanted, lambda: steps.append(1))
    return {row.module: row for row in rows}, len(steps)


@pytest.fixture
def images(tmp_path):
    return pictures(tmp_path / "images")


def test_only_the_module_with_the_overflow_loses_its_detections(tmp_path, images):
    rows, _ = rows_of(write_planted(tmp_path), images)
    assert list(rows) == ["backbone", "encoder", "decoder", "all, nothing kept"]
    assert {name: row.drift.within(FP16) for name, row in rows.items()} == {
        "backbone": True,
        "encoder": False,
        "decoder": True,
        "all, nothing kept": False,
    }
    assert rows["encoder"].drift.flipped_share > 0.3
    assert rows["encoder"].drift.box_px is None
    assert 0 < rows["backbone"].drift.box_px[0] < rows["backbone"].drift.box_px[2] < 0.2
    assert sum(rows[name].nodes for name in ("backbone", "encoder", "decoder")) == rows["all, nothing kept"].nodes == 11


def test_keeping_the_two_nodes_restores_the_detections(tmp_path, images):
    rows, steps = rows_of(write_planted(tmp_path), images, kept=["/detector/refine/Sigmoid"], proposed=[GROW, SHRINK])
    assert list(rows)[-3:] == ["all, nothing kept", "all, as exported", "all, with the keep-list"]
    assert not rows["all, as exported"].drift.within(FP16)
    kept = rows["all, with the keep-list"]
    assert kept.nodes == 8
    assert kept.drift.within(FP16)
    assert kept.drift.flipped == 0
    assert kept.drift.matched == 3 * 12
    assert steps == (1 + len(rows)) * 3


def test_a_batch_that_the_pictures_do_not_fill(tmp_path, images):
    alone, _ = rows_of(write_planted(tmp_path / "1"), images)
    paired, steps = rows_of(write_planted(tmp_path / "2", batch=2), images)
    assert steps == (1 + len(paired)) * 2
    for name in ("backbone", "decoder"):
        assert paired[name].drift.matched == alone[name].drift.matched == 36
        assert paired[name].drift.box_px == pytest.approx(alone[name].drift.box_px, abs=0.02)


def test_what_cannot_be_converted_says_why(tmp_path, images):
    rows, _ = rows_of(write_planted(tmp_path, peak=8e5), images)
    assert rows["encoder"].drift is None
    assert "constant 'big' holds 100000, beyond FP16's 65504" in rows["encoder"].refused
    assert rows["encoder"].to_json()["drift"] is None
    assert rows["backbone"].drift.within(FP16)


def test_a_graph_whose_names_say_nothing_has_no_modules(tmp_path):
    extra = [node("Identity", ["shrunk"], ["unread"], name="loose")]
    network = read_network(write_planted(tmp_path, extra=extra))
    for entry in network.model.graph.node:
        entry.name = entry.name.replace("/", "_")
    assert [selection.title for selection in selections(GraphView(network.model), [], [])] == ["all, nothing kept"]


def some(count, seed, scores=None):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 100, (count, 2))], axis=1).astype(np.float32)
    found = rng.uniform(0.3, 1, count).astype(np.float32) if scores is None else scores
    return Detections(rng.integers(0, 3, count), boxes, np.sort(found)[::-1])


@given(st.integers(1, 20), st.integers(0, 1000), st.floats(0, 2))
def test_a_shift_is_what_it_is(count, seed, shift):
    reference = some(count, seed)
    moved = Detections(reference.labels, reference.boxes_xyxy_px + np.float32(shift), reference.scores)
    order = np.random.default_rng(seed).permutation(count)
    shuffled = Detections(moved.labels[order], moved.boxes_xyxy_px[order], moved.scores[order])
    found = deviation([reference], [shuffled], FP16)
    assert (found.matched, found.flipped) == (count, 0)
    assert found.box_px == pytest.approx((shift,) * 3, abs=1e-3)
    assert found.score == (0, 0, 0)
    assert found.within(FP16)


def test_what_is_lost_counts_whatever_the_rest_does():
    reference = some(10, 0)
    nothing = Detections(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32))
    broken = Detections(reference.labels, reference.boxes_xyxy_px * np.nan, reference.scores * np.nan)
    for lost in (nothing, broken):
        found = deviation([reference, reference], [reference, lost], FP16)
        assert found.matched == 10
        assert found.flipped >= 10
        assert not found.within(FP16)
    assert not deviation([nothing], [nothing], FP16).within(FP16)
    assert deviation([nothing], [nothing], FP16).to_json()["box_px"] == {"median": None, "p90": None, "max": None}


def test_nine_tenths_decide():
    reference = some(20, 3)
    boxes = reference.boxes_xyxy_px.copy()
    boxes[0] += 8  # one in twenty
    one = deviation([reference], [Detections(reference.labels, boxes, reference.scores)], FP16)
    assert one.box_px[2] == pytest.approx(8, abs=1e-3)
    assert one.within(FP16)
    boxes[:5] = reference.boxes_xyxy_px[:5] + 8
    several = deviation([reference], [Detections(reference.labels, boxes, reference.scores)], FP16)
    assert not several.within(FP16)


@pytest.mark.parametrize(("changed", "within"), [(0, True), (3, True), (4, False)])
def test_maps_of_classes_are_compared_pixel_by_pixel(changed, within):
    """Of two pictures of 8 x 8 pixels; FP16 may change 3 % of them, 3.84 pixels."""
    reference = [np.zeros((8, 8), np.int64), np.ones((8, 8), np.int64)]
    other = [one.copy() for one in reference]
    other[1].flat[:changed] = 2
    found = deviation(reference, other, TOLERANCES["fp16"])
    assert (found.matched, found.flipped, found.flipped_share) == (128 - changed, changed, pytest.approx(changed / 128))
    assert (found.box_px, found.score, found.of_pixels) == (None, None, True)
    assert found.within(TOLERANCES["fp16"]) is within
