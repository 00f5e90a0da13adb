import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.detections import Agreement, Detections, agree, from_outputs, from_raw, iou


def make(labels, boxes, scores):
    return Detections(
        np.array(labels, np.int64), np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    )


@pytest.fixture
def some():
    """Forty detections of five classes on a grid, best first, scores from 0.9 down to 0.1."""
    corners = np.array([(x * 60.0, y * 60.0) for y in range(5) for x in range(8)])
    return make(np.arange(40) % 5, np.hstack([corners, corners + 40]), np.linspace(0.9, 0.1, 40))


def changed(found, index, label=None, shift=0.0, score=None):
    labels, boxes, scores = found.labels.copy(), found.boxes_xyxy_px.copy(), found.scores.copy()
    labels[index] = labels[index] if label is None else label
    boxes[index] += np.float32(shift)
    scores[index] = scores[index] if score is None else score
    return Detections(labels, boxes, scores)


whole_boxes = st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=6)


@given(whole_boxes, whole_boxes)
def test_iou_counts_pixels(a, b):
    """Boxes at whole pixels: intersection and union are numbers of cells of a 12 x 12 grid."""

    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    expected = [[len(cells(p) & cells(q)) / max(1, len(cells(p) | cells(q))) for q in b] for p in a]
    np.testing.assert_allclose(iou(np.array(a, np.float32), np.array(b, np.float32)), expected, rtol=1e-6)


def test_above_keeps_the_threshold_itself(some):
    assert len(some.above(0.5)) == (some.scores >= 0.5).sum() > 10
    assert len(make([0], [[0, 0, 1, 1]], [0.5]).above(0.5)) == 1
    assert len(some.above(2.0)) == 0


def test_the_order_of_detections_does_not_matter(some):
    order = np.random.default_rng(0).permutation(40)
    shuffled = Detections(some.labels[order], some.boxes_xyxy_px[order], some.scores[order])
    assert agree(some, shuffled, score_tolerance=1e-3) == Agreement(40, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize("shift", [0.25, 3.0, -5.0])
def test_one_moved_box_is_its_drift(some, shift):
    seen = agree(some, changed(some, 7, shift=shift), score_tolerance=1e-3)
    assert (seen.matched, seen.flipped, seen.ties, seen.max_score_drift) == (40, 0, 0, 0.0)
    assert seen.max_box_drift_px == pytest.approx(abs(shift))


def test_one_other_score_is_its_drift(some):
    seen = agree(some, changed(some, 3, score=some.scores[3] - 0.02), score_tolerance=1e-3)
    assert (seen.matched, seen.flipped, seen.max_box_drift_px) == (40, 0, 0.0)
    assert seen.max_score_drift == pytest.approx(0.02, rel=1e-5)


def test_a_class_flip_counts_on_both_sides(some):
    assert agree(some, changed(some, 3, label=4), score_tolerance=1e-3) == Agreement(39, 2, 0, 0.0, 0.0)


def test_a_box_that_went_elsewhere_counts_on_both_sides(some):
    seen = agree(some, changed(some, 5, shift=1000), score_tolerance=1e-3)
    assert (seen.matched, seen.flipped, seen.max_box_drift_px) == (39, 2, 0.0)


def test_which_of_two_equal_scores_makes_the_cut_off_is_chance(some):
    """The last of the list is replaced by another box of the same score."""
    candidate = changed(some, 39, shift=1000, score=some.scores[39] + 5e-4)
    assert agree(some, candidate, score_tolerance=1e-3) == Agreement(39, 0, 2, 0.0, 0.0)
    assert agree(some, candidate, score_tolerance=1e-5).flipped == 1


def test_a_detection_that_vanished_is_no_tie(some):
    fewer = Detections(some.labels[1:], some.boxes_xyxy_px[1:], some.scores[1:])
    assert agree(some, fewer, score_tolerance=1e-3).flipped == 1
    assert agree(fewer, some, score_tolerance=1e-3).flipped == 1


def test_duplicates_are_paired_one_to_one():
    twice = make([1, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8])
    swapped = make([1, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], [0.8, 0.9])
    assert agree(twice, swapped, score_tolerance=1e-3) == Agreement(2, 0, 0, 0.0, 0.0)
    once = make([1], [[0, 0, 10, 10]], [0.9])
    assert (agree(twice, once, score_tolerance=1e-3).matched, agree(twice, once, score_tolerance=1e-3).flipped) == (
        1,
        1,
    )


def test_boxes_too_small_for_iou_are_paired_by_their_corners():
    a, b = make([0], [[5.0, 5.0, 5.1, 5.1]], [0.9]), make([0], [[5.2, 5.2, 5.3, 5.3]], [0.9])
    assert agree(a, b, score_tolerance=1e-3).matched == 1
    assert agree(a, make([0], [[6.0, 6.0, 6.1, 6.1]], [0.9]), score_tolerance=1e-3).matched == 0


def test_nothing_against_nothing_and_against_something(some):
    nothing = make([], [], [])
    assert agree(nothing, nothing, score_tolerance=1e-3) == Agreement(0, 0, 0, 0.0, 0.0)
    assert agree(some, nothing, score_tolerance=1e-3).flipped == 40
    assert agree(nothing, some, score_tolerance=1e-3).flipped == 40


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_none_are_flips_and_never_agree(some, broken):
    """FP16 overflow gives these; they must not vanish from the count."""
    assert agree(some, changed(some, 2, score=broken), score_tolerance=1e-3).flipped >= 1
    assert agree(some, changed(some, 2, shift=broken), score_tolerance=1e-3).flipped == 2
    all_broken = Detections(some.labels, some.boxes_xyxy_px, np.full(40, broken, np.float32))
    assert agree(some, all_broken, score_tolerance=1e-3).matched == 0
    assert agree(some, all_broken, score_tolerance=1e-3).flipped >= 40


def test_from_outputs_takes_one_image_and_sorts():
    outputs = {
        "labels": np.array([[0, 1, 2], [3, 4, 5]], np.int32),
        "boxes_xyxy": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        "scores": np.array([[0.1, 0.2, 0.3], [0.5, 0.9, 0.5]], np.float16),
    }
    found = from_outputs(outputs, image=1)
    assert found.labels.tolist() == [4, 3, 5]
    assert found.boxes_xyxy_px[0].tolist() == [16, 17, 18, 19]
    assert [array.dtype for array in (found.labels, found.boxes_xyxy_px, found.scores)] == [
        "int64",
        "float32",
        "float32",
    ]


def raw_outputs(seed, queries=30, classes=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-4, 3, (2, queries, classes)).astype(np.float32)
    return {"logits": logits, "boxes": rng.uniform(0.1, 0.9, (2, queries, 4)).astype(np.float32)}


@pytest.mark.parametrize("seed", range(5))
def test_from_raw_is_the_best_query_class_pairs(seed):
    outputs = raw_outputs(seed)
    found = from_raw(outputs, 480, 640, image=1)
    pairs = [(outputs["logits"][1, q, c], q, c) for q in range(30) for c in range(7)]
    best = sorted(pairs, reverse=True)[:30]
    assert found.labels.tolist() == [c for _, _, c in best]
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-float(logit))) for logit, _, _ in best], rtol=1e-5)
    for box, (_, query, _) in zip(found.boxes_xyxy_px, best, strict=True):
        cx, cy, w, h = outputs["boxes"][1, query].astype(float)
        expected = [(cx - w / 2) * 640, (cy - h / 2) * 480, (cx + w / 2) * 640, (cy + h / 2) * 480]
        np.testing.assert_allclose(box, expected, rtol=0, atol=1e-3)


@pytest.mark.host
@pytest.mark.parametrize("seed", range(3))
def test_from_raw_is_transformers_own_postprocessing(seed):
    import torch
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
    from transformers.models.rt_detr.modeling_rt_detr import RTDetrObjectDetectionOutput

    outputs = raw_outputs(seed)
    theirs = RTDetrImageProcessorPil().post_process_object_detection(
        RTDetrObjectDetectionOutput(
            logits=torch.from_numpy(outputs["logits"]), pred_boxes=torch.from_numpy(outputs["boxes"])
        ),
        threshold=-1.0,
        target_sizes=[(480, 640), (480, 640)],
    )
    for image in range(2):
        ours = from_raw(outputs, 480, 640, image)
        np.testing.assert_array_equal(ours.labels, theirs[image]["labels"].numpy())
        np.testing.assert_allclose(ours.scores, theirs[image]["scores"].numpy(), rtol=1e-6)
        np.testing.assert_allclose(ours.boxes_xyxy_px, theirs[image]["boxes"].numpy(), rtol=0, atol=1e-4)


def test_extreme_logits_do_not_warn():
    outputs = {"logits": np.array([[[-2000.0, 2000.0]]], np.float32), "boxes": np.full((1, 1, 4), 0.5, np.float32)}
    assert from_raw(outputs, 10, 10).scores.tolist() == [1.0]
    outputs["logits"][:] = -2000
    assert from_raw(outputs, 10, 10).scores.tolist() == [0.0]
