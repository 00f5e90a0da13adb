"""What becomes of detections: by hand, and what must hold whatever is drawn."""

import numpy as np
import pytest
from data_sets import SIDES, data_set, detections, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.detections import iou
from fine_edge.evaluate.matching import KINDS, count, count_by_category, count_by_size, judge, overlaps

BOX = (0, 0, 40, 40)
ELSEWHERE = (200, 200, 40, 40)


def kinds(data, *rows):
    verdicts = judge(data, detections([(1, *row) for row in rows]))
    return [KINDS[kind] for kind in verdicts.kinds]


@pytest.fixture
def data():
    return data_set([1, 2], [1, 2], [(1, 1, BOX), (1, 2, ELSEWHERE)])


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ((1, BOX, 0.9), "true_positive"),
        ((1, (0, 0, 40, 20), 0.9), "true_positive"),  # IoU 0.5 is enough
        ((1, (0, 0, 40, 19.9), 0.9), "localisation"),
        ((1, (0, 0, 40, 4), 0.9), "localisation"),  # IoU 0.1 is near
        ((1, (0, 0, 40, 3.9), 0.9), "background"),
        ((2, BOX, 0.9), "class_confusion"),
        ((2, (0, 0, 40, 19.9), 0.9), "background"),  # wrong class and wrong place
        ((2, (100, 0, 40, 40), 0.9), "background"),
        ((1, (0, 0, 0, 0), 0.9), "background"),
    ],
)
def test_each_kind(data, row, kind):
    assert kinds(data, row) == [kind]


def test_the_better_one_takes_the_object_whatever_the_order(data):
    assert kinds(data, (1, BOX, 0.6), (1, BOX, 0.9)) == ["duplicate", "true_positive"]
    assert kinds(data, (1, BOX, 0.9), (1, BOX, 0.9)) == ["true_positive", "duplicate"]


def test_a_second_one_takes_the_next_best_object():
    data = data_set([1], [1], [(1, 1, (0, 0, 40, 40)), (1, 1, (4, 0, 40, 40))])
    assert kinds(data, (1, (1, 0, 40, 40), 0.9), (1, (1, 0, 40, 40), 0.8)) == ["true_positive"] * 2


def test_what_has_little_confidence_is_not_judged(data):
    verdicts = judge(data, detections([(1, 1, BOX, 0.4999)]))
    assert (len(verdicts.found), count(verdicts).fn) == (0, 2)
    assert count(judge(data, detections([(1, 1, BOX, 0.5)]))).tp == 1


def test_what_lies_in_a_crowd_is_left_out_and_the_crowd_is_not_missed():
    data = data_set([1], [1, 2], [(1, 1, (0, 0, 100, 100), True)])
    inside, outside = (10, 10, 20, 20), (90, 90, 40, 40)
    assert kinds(data, (1, inside, 0.9), (1, inside, 0.8), (2, inside, 0.9), (1, outside, 0.9)) == [
        *("left_out", "left_out", "background", "background")
    ]
    counts = count(judge(data, detections([(1, 1, inside, 0.9)])))
    assert (counts.tp, counts.fp, counts.fn) == (0, 0, 0)
    assert (counts.precision, counts.recall, counts.f1) == (None, None, None)


def test_figures_of_the_papers_table_5():
    """TP, FP and FN give its precision, recall and F1."""
    data = data_set([1], [1], [(1, 1, BOX), (1, 1, ELSEWHERE), (1, 1, (100, 0, 30, 30))])
    found = [(1, 1, BOX, 0.9), (1, 1, BOX, 0.8), (1, 1, ELSEWHERE, 0.7), (1, 1, (300, 0, 9, 9), 0.6)]
    figures = count(judge(data, detections(found))).to_json()
    assert figures == {
        "tp": 2,
        "fp": 2,
        "fn": 1,
        "precision": 0.5,
        "recall": 2 / 3,
        "f1": 4 / 7,
        "wrong": {"duplicate": 1, "class_confusion": 0, "localisation": 0, "background": 1},
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(0, 30), st.integers(0, 120))
def test_nothing_is_lost_and_groups_add_up(seed, images, objects, found):
    data, detected = drawn(seed, images, 3, objects, found)
    verdicts = judge(data, detected)
    counts = count(verdicts)
    assert counts.tp + counts.fn == int((~data.truth.crowd).sum())
    left_out = int((verdicts.kinds == KINDS.index("left_out")).sum())
    assert counts.tp + counts.fp + left_out == int((detected.scores >= 0.5).sum())
    for groups in (count_by_category(verdicts, data), count_by_size(verdicts, data)):
        for key in ("tp", "fp", "fn"):
            assert sum(getattr(group, key) for group in groups.values()) == getattr(counts, key)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_the_order_of_detections_with_different_scores_does_not_matter(seed):
    data, detected = drawn(seed, found=60)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(detected))
    detected.scores[:] = rng.permutation(60) / 59
    assert count(judge(data, detected)) == count(judge(data, detected.taken(order)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_overlaps_are_iou(seed):
    rng = np.random.default_rng(seed)
    a, b = (np.hstack([rng.uniform(0, 100, (9, 2)), rng.choice(SIDES, (9, 2))]) for _ in range(2))
    corners = [np.hstack([x[:, :2], x[:, :2] + x[:, 2:]]).astype(np.float32) for x in (a, b)]
    np.testing.assert_allclose(overlaps(a, b, np.zeros(9, bool)), iou(*corners), atol=1e-4)


def test_sizes_are_cocos():
    sides = [(1, 1, (n * 200, 0, side, side)) for n, side in enumerate(SIDES)]
    counts = count_by_size(judge(data_set([1], [1], sides), detections([])), data_set([1], [1], sides))
    assert {size: one.fn for size, one in counts.items()} == {"small": 2, "medium": 3, "large": 3}
